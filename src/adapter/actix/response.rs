//! Answers as actix-web's responses, and what is told of every answer, whoever made it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{Error, HttpResponse, ResponseError};

use crate::audit::{RequestId, Witness};
use crate::error::AuthError;
use crate::key::{KeyId, UserId};
use crate::limit::Decision;
use crate::policy::Principal;
use crate::principal::KeyPrincipal;
use crate::respond::{Answer, Responder};
use crate::telemetry;

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

/// Marks an answer that was counted, so that middleware further out does not count it again.
struct Counted;

/// Counts an answer, once.
pub(super) fn count<B>(response: &mut HttpResponse<B>, key: Option<&KeyId>) {
    if telemetry::ON && !response.extensions().contains::<Counted>() {
        telemetry::answered(response.extensions().get(), key);
        response.extensions_mut().insert(Counted);
    }
}

/// The head of the answer is there: the request's id goes along with it, for middleware further
/// out.
pub(super) fn saw<B>(witness: Witness, response: &mut HttpResponse<B>) {
    let id: Option<RequestId> = witness.request_id().cloned();
    witness.answered(response.status().as_u16(), response.extensions().get());
    id.map(|id| response.extensions_mut().insert(id));
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

/// What the answer tells, whoever makes it: how the windows stand, and the id of the user named by
/// e-mail; and who is told of the answer.
pub(super) struct Told {
    pub(super) responder: Arc<Responder>,
    pub(super) limits: Option<Decision>,
    pub(super) user: Option<UserId>,
    /// Whose request it was, where somebody listens.
    pub(super) key: Option<KeyPrincipal>,
    pub(super) witness: Option<Witness>,
}

impl Told {
    /// There is an answer.
    pub(super) fn tell<B>(self, response: &mut ServiceResponse<B>) {
        let response = response.response_mut();
        self.add_fields(response.headers_mut());
        count(response, self.key.as_ref().map(Principal::key_id));
        if let Some(witness) = self.witness {
            saw(witness, response);
        }
    }

    /// There is none yet: middleware further in failed, and actix-web makes an answer of its error
    /// further out. That answer has the fields, too.
    pub(super) fn failed(self, error: Error) -> Error {
        let mut fields = HeaderMap::new();
        self.add_fields(&mut fields);
        if let Some(witness) = self.witness {
            witness.failed();
        }
        if fields.is_empty() {
            error
        } else {
            WithFields { error, fields }.into()
        }
    }

    fn add_fields(&self, headers: &mut HeaderMap) {
        let mut add = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        if let Some(limits) = &self.limits {
            self.responder.limit_fields(limits, &mut add);
        }
        if let Some(user) = &self.user {
            add("x-user-id", user.to_string());
        }
    }
}
