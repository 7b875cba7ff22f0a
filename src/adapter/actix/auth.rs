//! The middleware that authenticates, as a host describes it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::{HttpMessage, HttpRequest};

use crate::adapter::exchange::Exchange;
use crate::authenticator::Authenticator;
use crate::request::TlsVersion;

/// Middleware that only authenticated requests get through.
///
/// The [`KeyPrincipal`](crate::KeyPrincipal) is then in the request's extensions. Cloning shares
/// everything: make it once, outside of the closure that `HttpServer::new` calls for every worker,
/// and clone it into each `App`. An authenticator that is built inside of that closure has limits
/// and caches of its own in every worker.
#[derive(Clone)]
#[must_use = "middleware does nothing until it wraps something"]
pub struct Auth {
    pub(super) exchange: Arc<Exchange<HttpRequest>>,
}

impl From<Authenticator> for Auth {
    fn from(authenticator: Authenticator) -> Self {
        Self::new(authenticator)
    }
}

impl Auth {
    /// Middleware around this authenticator.
    ///
    /// The peer's address is the connection's; see [`peer`](Self::peer).
    pub fn new(authenticator: Authenticator) -> Self {
        let peer_of = |request: &HttpRequest| request.peer_addr().map(|address| address.ip());
        Self {
            exchange: Arc::new(Exchange::new(authenticator, peer_of, default_tls)),
        }
    }

    /// Says how the address at the other end of the connection is found.
    pub fn peer(
        mut self,
        peer_of: impl Fn(&HttpRequest) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.change().peer_of = Arc::new(peer_of);
        self
    }

    /// Says how the connection's version of TLS is found; unless set, a [`TlsVersion`] that
    /// `HttpServer::on_connect` put into the connection's data, or middleware further out into the
    /// request's extensions.
    pub fn tls(
        mut self,
        tls_of: impl Fn(&HttpRequest) -> Option<TlsVersion> + Send + Sync + 'static,
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

    /// The same middleware, for resources whose key is optional: a request that sends no
    /// credentials at all passes as nobody, and a handler takes `Option<KeyPrincipal>`. A wrong or
    /// revoked key is refused, and so are credentials of a scheme that is not accepted.
    pub fn optional_key(mut self) -> Self {
        self.change().key_is_optional();
        self
    }

    /// The authenticator.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.exchange.authenticator
    }

    /// What this middleware alone does from here on.
    pub(super) fn change(&mut self) -> &mut Exchange<HttpRequest> {
        Arc::make_mut(&mut self.exchange)
    }
}

fn default_tls(request: &HttpRequest) -> Option<TlsVersion> {
    let of_connection = request.conn_data::<TlsVersion>().copied();
    of_connection.or_else(|| request.extensions().get::<TlsVersion>().copied())
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("authenticator", &self.exchange.authenticator)
            .finish_non_exhaustive()
    }
}
