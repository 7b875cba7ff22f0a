//! Converts refusals into actix-web responses, and adds headers to the errors of inner middleware.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{Error, HttpResponse, ResponseError};

use crate::adapter::exchange::ResponseFields;
use crate::error::AuthError;
use crate::respond::Answer;

/// Converts a rendered refusal into a response. The error is put into the response's extensions,
/// for outer middleware.
#[must_use]
pub fn into_response(answer: Answer, error: &AuthError) -> HttpResponse {
    let body = match answer.body {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = HttpResponse::with_body(status, body).map_into_boxed_body();
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

/// Adds headers to the response that actix-web will create from this error further out.
pub(super) fn with_fields(error: Error, fields: &ResponseFields) -> Error {
    let mut map = HeaderMap::new();
    fields.each(&mut |name, value| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            map.insert(HeaderName::from_static(name), value);
        }
    });
    if map.is_empty() {
        error
    } else {
        WithFields { error, fields: map }.into()
    }
}

/// An error of inner middleware, with headers for its response.
struct WithFields {
    error: Error,
    fields: HeaderMap,
}

impl fmt::Debug for WithFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for WithFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl ResponseError for WithFields {
    fn status_code(&self) -> StatusCode {
        self.error.as_response_error().status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.error.error_response();
        for (name, value) in &self.fields {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

/// Returns the name of a field. Those of most responses are constants, which take less time than a
/// clone.
pub(super) fn name_of(name: &'static str) -> HeaderName {
    const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
    const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    match name {
        "ratelimit" => RATELIMIT,
        "ratelimit-policy" => RATELIMIT_POLICY,
        name => HeaderName::from_static(name),
    }
}
