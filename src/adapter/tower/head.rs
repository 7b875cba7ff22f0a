//! The view of an `http` 1 request.

#[cfg(feature = "axum")]
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

#[cfg(feature = "axum")]
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, FORWARDED, HeaderName};
use http::{HeaderMap, Method, Request, Uri, request};

use crate::adapter::nobody::ServesGrpc;
use crate::audit::RequestId;
use crate::request::{FieldName, RequestHead, TlsVersion};

static USER_ID: HeaderName = HeaderName::from_static("x-user-id");
static ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-on-behalf-of");
static ON_BEHALF_EMAIL: HeaderName = HeaderName::from_static("x-on-behalf-email");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An `http` request as the authenticator sees it.
#[derive(Clone, Copy)]
pub struct HttpHead<'r> {
    method: &'r Method,
    uri: &'r Uri,
    headers: &'r HeaderMap,
    /// Where layers further out have said what they know.
    extensions: &'r http::Extensions,
    peer: Option<IpAddr>,
    tls: Option<TlsVersion>,
    grpc: bool,
}

impl<'r> HttpHead<'r> {
    /// The view of a request that came from this address.
    pub fn new<B>(request: &'r Request<B>, peer: Option<IpAddr>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
            peer,
            tls: None,
            grpc: request.extensions().get::<ServesGrpc>().is_some(),
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

    /// The view of a request's parts.
    #[must_use]
    pub fn of_parts(parts: &'r request::Parts, peer: Option<IpAddr>) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
            extensions: &parts.extensions,
            peer,
            tls: None,
            grpc: parts.extensions.get::<ServesGrpc>().is_some(),
        }
    }
}

impl RequestHead for HttpHead<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    /// What `Router::nest` strips off belongs to it.
    #[cfg(feature = "axum")]
    fn path(&self) -> &str {
        let original = self.extensions.get::<axum::extract::OriginalUri>();
        original.map_or(self.uri, |original| &original.0).path()
    }

    #[cfg(not(feature = "axum"))]
    fn path(&self) -> &str {
        self.uri.path()
    }

    #[cfg(feature = "axum")]
    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        use axum::extract::{FromRequestParts, RawPathParams};
        // axum shows its parameters to extractors only, and those want parts of their own.
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.extensions = self.extensions.clone();
        let read = RawPathParams::from_request_parts(&mut parts, &());
        let parameters = read.now_or_never()?.ok()?;
        let mut values = parameters.iter().filter(|(known, _)| *known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(Cow::Owned(value.to_owned())),
            _ => None,
        }
    }

    #[cfg(feature = "axum")]
    fn route(&self) -> Option<&str> {
        self.extensions
            .get::<axum::extract::MatchedPath>()
            .map(axum::extract::MatchedPath::as_str)
    }

    fn request_id(&self) -> Option<&str> {
        self.extensions.get::<RequestId>().map(RequestId::as_str)
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        self.peer
    }

    fn tls(&self) -> Option<TlsVersion> {
        self.tls
    }

    fn serves_grpc(&self) -> bool {
        self.grpc
    }

    fn may_have_any(&self, names: &[FieldName<'_>]) -> bool {
        // Names in the map are in lower case, as the fields' are.
        self.headers
            .keys()
            .any(|known| names.iter().any(|name| known.as_str() == name.as_str()))
    }

    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        let values = match name {
            FieldName::Authorization => self.headers.get_all(AUTHORIZATION),
            FieldName::UserId => self.headers.get_all(&USER_ID),
            FieldName::OnBehalfOf => self.headers.get_all(&ON_BEHALF_OF),
            FieldName::OnBehalfEmail => self.headers.get_all(&ON_BEHALF_EMAIL),
            FieldName::XForwardedFor => self.headers.get_all(&X_FORWARDED_FOR),
            FieldName::Forwarded => self.headers.get_all(FORWARDED),
            FieldName::RequestId => self.headers.get_all(&REQUEST_ID),
            FieldName::Other(name) => self.headers.get_all(name),
        };
        for value in values {
            if see(value.as_bytes()).is_break() {
                return;
            }
        }
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
