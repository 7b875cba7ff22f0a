//! Refusals as responses, and the bodies that they can be put into.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators};

use crate::error::AuthError;
use crate::respond::Answer;

/// A body that can hold the text of a refusal.
pub trait RejectionBody {
    /// A body of these bytes.
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

/// An answer as a response. The error goes along in the response's extensions, for middleware
/// further out.
#[must_use]
pub fn into_response<R: RejectionBody>(answer: Answer, error: &AuthError) -> Response<R> {
    let body = match answer.body {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = Response::new(R::from_rejection(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    for (name, value) in answer.fields {
        // A renderer's media type that cannot be a field value is left out; the library's own
        // always can.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .append(HeaderName::from_static(name), value);
        }
    }
    response.extensions_mut().insert(error.clone());
    response
}
