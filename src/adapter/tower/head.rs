//! The view of an `http` 1 request.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, Method, Request, Uri, request};

use crate::adapter::carrier::ServesGrpc;
use crate::request::{RequestHead, TlsVersion};

/// An `http` request as the authenticator sees it.
#[derive(Clone, Copy)]
pub struct HttpHead<'r> {
    pub(super) method: &'r Method,
    pub(super) uri: &'r Uri,
    pub(super) headers: &'r HeaderMap,
    /// Where layers further out have said what they know.
    pub(super) extensions: &'r http::Extensions,
    pub(super) peer: Option<IpAddr>,
    pub(super) tls: Option<TlsVersion>,
    pub(super) grpc: bool,
}

impl<'r> HttpHead<'r> {
    /// The view of a request that came from this address.
    pub fn new<B>(request: &'r Request<B>, peer: Option<IpAddr>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        Self::of(method, uri, request.headers(), request.extensions(), peer)
    }

    /// The view of a request's parts.
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
        let grpc = extensions.get::<ServesGrpc>().is_some();
        Self {
            method,
            uri,
            headers,
            extensions,
            peer,
            tls: None,
            grpc,
        }
    }

    /// The same request, over this version of TLS.
    #[must_use]
    pub const fn with_tls(mut self, tls: Option<TlsVersion>) -> Self {
        self.tls = tls;
        self
    }

    /// The same request, to a service that serves gRPC, or that does not. Unless said, what the
    /// [`AuthLayer`](super::AuthLayer::grpc) or [`GrpcMethods`](super::GrpcMethods) further out
    /// declared.
    #[must_use]
    pub const fn with_grpc(mut self, serves_grpc: bool) -> Self {
        self.grpc = serves_grpc;
        self
    }
}

impl fmt::Debug for HttpHead<'_> {
    /// Without the fields and the query: keys may stand in both.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("peer", &self.peer)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
