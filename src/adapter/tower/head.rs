//! The view of a request of the `http` crate, version 1.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, Method, Request, Uri, request};

use crate::adapter::carrier::TlsOf;
use crate::adapter::limits::RateLimits;
use crate::request::{RequestHead, TlsVersion};

/// The authenticator's view of an `http` request.
#[derive(Clone, Copy)]
pub struct HttpHead<'r> {
    pub(super) method: &'r Method,
    pub(super) uri: &'r Uri,
    pub(super) headers: &'r HeaderMap,
    /// Values set by outer layers.
    pub(super) extensions: &'r http::Extensions,
    pub(super) peer: Option<IpAddr>,
    pub(super) tls: Option<TlsVersion>,
    /// Finds the TLS version instead.
    pub(super) tls_of: Option<&'r TlsOf<http::Extensions>>,
    /// `None` for what an outer layer declared, which is found when it is asked for.
    pub(super) grpc: Option<bool>,
}

impl<'r> HttpHead<'r> {
    /// Creates the view of a request from this peer address.
    pub fn new<B>(request: &'r Request<B>, peer: Option<IpAddr>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        Self::of(method, uri, request.headers(), request.extensions(), peer)
    }

    /// Creates the view of a request from its parts.
    #[must_use]
    pub fn of_parts(parts: &'r request::Parts, peer: Option<IpAddr>) -> Self {
        let (method, uri) = (&parts.method, &parts.uri);
        Self::of(method, uri, &parts.headers, &parts.extensions, peer)
    }

    fn of(
        method: &'r Method,
        uri: &'r Uri,
        headers: &'r HeaderMap,
        extensions: &'r http::Extensions,
        peer: Option<IpAddr>,
    ) -> Self {
        Self {
            method,
            uri,
            headers,
            extensions,
            peer,
            tls: None,
            tls_of: None,
            grpc: None,
        }
    }

    /// Sets the connection's TLS version.
    #[must_use]
    pub const fn with_tls(mut self, tls: Option<TlsVersion>) -> Self {
        (self.tls, self.tls_of) = (tls, None);
        self
    }

    /// Sets whether the service serves gRPC. By default, this is what the outer
    /// [`AuthLayer`](super::AuthLayer::grpc) or [`GrpcMethods`](super::GrpcMethods) declared.
    #[must_use]
    pub const fn with_grpc(mut self, serves_grpc: bool) -> Self {
        self.grpc = Some(serves_grpc);
        self
    }
}

impl fmt::Debug for HttpHead<'_> {
    /// Omits headers and query, which may contain keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("peer", &self.peer)
            .field("tls", &self.tls())
            .finish_non_exhaustive()
    }
}

impl RateLimits {
    /// Returns the limits of a request that an outer [`AuthLayer`](super::AuthLayer)
    /// authenticated; `None` if none did. With axum, take it as a handler's argument.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        Self::read(request.extensions(), &HttpHead::new(request, None))
    }
}
