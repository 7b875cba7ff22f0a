//! The authenticating middleware.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::{HttpMessage, HttpRequest};

use crate::adapter::exchange::Exchange;
use crate::authenticator::Authenticator;
use crate::policy::Requirement;
use crate::request::TlsVersion;

/// Middleware that lets only authenticated requests through.
///
/// It puts the [`KeyPrincipal`](crate::KeyPrincipal) into the request's extensions. Clones share
/// everything: build it once, outside the closure that `HttpServer::new` calls for every worker,
/// and clone it into each `App`. An authenticator that is built inside that closure has separate
/// limits and caches in every worker.
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
    /// Creates middleware with this authenticator.
    ///
    /// The peer address is the connection's; see [`peer`](Self::peer).
    pub fn new(authenticator: Authenticator) -> Self {
        let peer_of = |request: &HttpRequest| request.peer_addr().map(|address| address.ip());
        Self {
            exchange: Arc::new(Exchange::new(authenticator, peer_of, default_tls)),
        }
    }

    /// Sets how the peer address of the connection is found.
    pub fn peer(
        mut self,
        peer_of: impl Fn(&HttpRequest) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.change().peer_of = Arc::new(peer_of);
        self
    }

    /// Sets how the connection's TLS version is found, when something asks for it: a transport
    /// requirement, or the host's code. By default, it is a [`TlsVersion`] that
    /// `HttpServer::on_connect` put into the connection's data or outer middleware into the
    /// request's extensions.
    pub fn tls(
        mut self,
        tls_of: impl Fn(&HttpRequest) -> Option<TlsVersion> + Send + Sync + 'static,
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
    /// It does the same as [`require`](super::require) inside of this middleware, in less time: the
    /// caller is at hand here. Without a key, only requests that
    /// [`optional_key`](Self::optional_key) lets pass need not meet it; others are refused with 401,
    /// even if the authenticator makes keys optional. In a router, each route says whether it needs a
    /// key, public routes need nothing, and `demands()` does not list what the middleware requires. A
    /// requirement that reads parameters of the path needs a middleware of the route.
    pub fn require(mut self, requirement: impl Into<Requirement>) -> Self {
        self.change().demand(requirement.into());
        self
    }

    /// Returns the authenticator.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.exchange.authenticator
    }

    /// Returns this middleware's own copy of the configuration, for changes.
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
