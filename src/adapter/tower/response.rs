//! Converts refusals into responses.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators};

use crate::adapter::rejection::Rejection;
use crate::error::AuthError;
use crate::respond::Answer;

/// A body type that can hold a refusal.
pub trait RejectionBody {
    /// Creates a body from these bytes.
    fn from_rejection(bytes: Bytes) -> Self;
}

impl RejectionBody for Full<Bytes> {
    fn from_rejection(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl<E> RejectionBody for combinators::BoxBody<Bytes, E> {
    fn from_rejection(bytes: Bytes) -> Self {
        Self::new(Full::new(bytes).map_err(|never| match never {}))
    }
}

impl<E> RejectionBody for combinators::UnsyncBoxBody<Bytes, E> {
    fn from_rejection(bytes: Bytes) -> Self {
        Self::new(Full::new(bytes).map_err(|never| match never {}))
    }
}

#[cfg(feature = "axum")]
impl RejectionBody for axum::body::Body {
    fn from_rejection(bytes: Bytes) -> Self {
        Self::from(bytes)
    }
}

/// Converts a rendered refusal into a response. The error is put into the response's extensions,
/// for outer middleware.
#[must_use]
pub fn into_response<R: RejectionBody>(answer: Answer, error: &AuthError) -> Response<R> {
    let body = match answer.body {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = Response::new(R::from_rejection(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    for (name, value) in answer.fields {
        // A renderer's media type may be an invalid header value; it is then left out. The
        // library's own values are always valid.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .append(HeaderName::from_static(name), value);
        }
    }
    response.extensions_mut().insert(error.clone());
    response
}

/// For services that are not handlers of a framework.
impl<B: RejectionBody> From<Rejection> for Response<B> {
    fn from(rejection: Rejection) -> Self {
        into_response(rejection.answer, &rejection.error)
    }
}

/// Returns the name of a field. Those of most responses are constants, which take less time than a
/// clone.
#[inline]
#[allow(
    clippy::declare_interior_mutable_const,
    reason = "the values are moved"
)]
pub(super) fn name_of(name: &'static str) -> HeaderName {
    const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
    const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    match name {
        "ratelimit" => RATELIMIT,
        "ratelimit-policy" => RATELIMIT_POLICY,
        name => HeaderName::from_static(name),
    }
}
