//! The authenticating layer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Extensions;

use crate::adapter::exchange::Exchange;
use crate::authenticator::Authenticator;
use crate::policy::Requirement;
use crate::request::TlsVersion;

/// A layer that lets only authenticated requests reach the inner service.
///
/// It puts the [`KeyPrincipal`](crate::KeyPrincipal) into the request's extensions.
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
    /// Creates a layer with this authenticator.
    ///
    /// The peer address is read from the extensions: axum's `ConnectInfo<SocketAddr>` (feature
    /// `axum`) or a plain `SocketAddr` set by the server. See [`peer`](Self::peer).
    pub fn new(authenticator: Authenticator) -> Self {
        let tls_of = |extensions: &Extensions| extensions.get::<TlsVersion>().copied();
        Self {
            exchange: Arc::new(Exchange::new(authenticator, default_peer, tls_of)),
        }
    }

    /// Sets how the peer address of the connection is found. With tonic:
    /// `|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr().map(|peer| peer.ip())`.
    pub fn peer(
        mut self,
        peer_of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.change().peer_of = Arc::new(peer_of);
        self
    }

    /// Sets how the connection's TLS version is found, when something asks for it: a transport
    /// requirement, or the host's code. By default, it is a [`TlsVersion`] in the extensions.
    pub fn tls(
        mut self,
        tls_of: impl Fn(&Extensions) -> Option<TlsVersion> + Send + Sync + 'static,
    ) -> Self {
        self.change().tls_of = Arc::new(tls_of);
        self
    }

    /// Declares that the inner service serves gRPC: refused calls (`POST` requests with
    /// `application/grpc`) are answered with a gRPC status (trailers only, HTTP status 200).
    ///
    /// By default, every refusal has its HTTP status, whatever `Content-Type` the client sends. Do
    /// not declare this for routes that a proxy queries to authorize requests (forward-auth): such
    /// a proxy lets requests pass that are answered with 200.
    pub fn grpc(mut self) -> Self {
        self.change().grpc = true;
        self
    }

    /// Makes the key optional: a request without credentials passes as anonymous, and a handler
    /// takes `Option<KeyPrincipal>`. A wrong or revoked key is still refused, and so are
    /// credentials of an unsupported scheme.
    pub fn optional_key(mut self) -> Self {
        self.change().make_key_optional();
        self
    }

    /// Refuses requests that do not meet this requirement. Repeated, each must be met, as in layers
    /// around each other.
    ///
    /// It does the same as [`require`](super::require) inside of this layer, in less time: the
    /// caller is at hand here. Without a key, only requests that
    /// [`optional_key`](Self::optional_key) lets pass need not meet it; others are refused with 401,
    /// even if the authenticator makes keys optional. In a router, each route says whether it needs a
    /// key, public routes need nothing, and `demands()` does not list what the layer requires. A
    /// requirement that reads parameters of the path needs a layer of the route.
    pub fn require(mut self, requirement: impl Into<Requirement>) -> Self {
        self.change().demand(requirement.into());
        self
    }

    /// Returns the authenticator.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.exchange.authenticator
    }

    /// Returns this layer's own copy of the configuration, for changes.
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
