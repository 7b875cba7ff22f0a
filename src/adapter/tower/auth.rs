//! The layer that authenticates.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Extensions;

use crate::adapter::exchange::Exchange;
use crate::authenticator::Authenticator;
use crate::request::TlsVersion;

/// Wraps a service so that only authenticated requests reach it.
///
/// The [`KeyPrincipal`](crate::KeyPrincipal) is then in the request's extensions.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AuthLayer {
    pub(super) exchange: Arc<Exchange<Extensions>>,
}

impl From<Authenticator> for AuthLayer {
    fn from(authenticator: Authenticator) -> Self {
        Self::new(authenticator)
    }
}

impl AuthLayer {
    /// A layer around this authenticator.
    ///
    /// The peer's address is taken from the extensions that axum's `ConnectInfo<SocketAddr>`
    /// (feature `axum`) or the server (a plain `SocketAddr`) put there; see [`peer`](Self::peer).
    pub fn new(authenticator: Authenticator) -> Self {
        let tls_of = |extensions: &Extensions| extensions.get::<TlsVersion>().copied();
        Self {
            exchange: Arc::new(Exchange::new(authenticator, default_peer, tls_of)),
        }
    }

    /// Says how the address at the other end of the connection is found; with tonic,
    /// `|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr().map(|peer| peer.ip())`.
    pub fn peer(
        mut self,
        peer_of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.change().peer_of = Arc::new(peer_of);
        self
    }

    /// Says how the connection's version of TLS is found; a [`TlsVersion`] in the extensions unless
    /// set.
    pub fn tls(
        mut self,
        tls_of: impl Fn(&Extensions) -> Option<TlsVersion> + Send + Sync + 'static,
    ) -> Self {
        self.change().tls_of = Arc::new(tls_of);
        self
    }

    /// Declares that what is behind this serves gRPC: refused calls, that is `POST`s of
    /// `application/grpc`, are answered by a gRPC status (trailers only, under HTTP 200).
    ///
    /// Unless declared, every refusal has its HTTP status, whatever `Content-Type` the client
    /// sends. Do not declare it for routes that answer a proxy's question whether a request may
    /// pass (forward-auth): such a proxy lets pass what is answered with 200.
    pub fn grpc(mut self) -> Self {
        self.change().grpc = true;
        self
    }

    /// The same layer, for routes whose key is optional: a request that sends no credentials at all
    /// passes as nobody, and a handler takes `Option<KeyPrincipal>`. A wrong or revoked key is
    /// refused, and so are credentials of a scheme that is not accepted.
    pub fn optional_key(mut self) -> Self {
        self.change().key_is_optional();
        self
    }

    /// The authenticator.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.exchange.authenticator
    }

    /// What this layer alone does from here on.
    pub(super) fn change(&mut self) -> &mut Exchange<Extensions> {
        Arc::make_mut(&mut self.exchange)
    }
}

fn default_peer(extensions: &Extensions) -> Option<IpAddr> {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(address)) =
        extensions.get::<axum::extract::ConnectInfo<SocketAddr>>()
    {
        return Some(address.ip());
    }
    extensions.get::<SocketAddr>().map(SocketAddr::ip)
}

impl fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthLayer")
            .field("authenticator", &self.exchange.authenticator)
            .finish_non_exhaustive()
    }
}
