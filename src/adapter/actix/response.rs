//! Answers as actix-web's responses, and errors of middleware further in as answers with fields.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{Error, HttpResponse, ResponseError};

use crate::adapter::exchange::ResponseFields;
use crate::error::AuthError;
use crate::respond::Answer;

/// An answer as a response. The error goes along in the response's extensions, for middleware
/// further out.
#[must_use]
pub fn into_response(answer: Answer, error: &AuthError) -> HttpResponse {
    let body = match answer.body {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = HttpResponse::with_body(status, body).map_into_boxed_body();
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

/// An error that actix-web makes an answer of further out: that answer has the fields, too.
pub(super) fn with_fields(error: Error, fields: &ResponseFields) -> Error {
    let mut map = HeaderMap::new();
    fields.each(&mut |name, value| {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            map.insert(HeaderName::from_static(name), value);
        }
    });
    if map.is_empty() {
        error
    } else {
        WithFields { error, fields: map }.into()
    }
}

/// An error of middleware further in, with the fields that its answer shall have.
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
