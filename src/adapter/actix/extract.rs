//! Extractors: the principal, the principal who meets a requirement, and the host's own idea of a
//! caller.
//!
//! actix-web makes `Option<…>` of each: `None` where the extractor would refuse.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError};

use super::{answer, check, into_response, principal};
use crate::adapter::caller::{Caller, Demand, Granted, no_such_caller};
use crate::error::AuthError;
use crate::principal::KeyPrincipal;
use crate::respond::Answer;

/// Why an extractor refused: the error, and the answer in the API's dialect.
#[derive(Debug)]
pub struct Rejection {
    error: AuthError,
    answer: Answer,
}

impl Rejection {
    fn new(error: AuthError, request: &HttpRequest) -> Self {
        let answer = answer(&error, request);
        Self { error, answer }
    }

    /// The error.
    #[must_use]
    pub fn error(&self) -> &AuthError {
        &self.error
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.answer.status).unwrap_or(StatusCode::FORBIDDEN)
    }

    fn error_response(&self) -> HttpResponse {
        into_response(self.answer.clone(), &self.error)
    }
}

impl FromRequest for KeyPrincipal {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(principal(request).map_err(|error| Rejection::new(error, request)))
    }
}

impl<T: 'static> FromRequest for Caller<T> {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Arc<T>>().cloned();
        ready(caller.map(Self).ok_or_else(|| {
            let error = principal(request).err().unwrap_or_else(no_such_caller);
            Rejection::new(error, request)
        }))
    }
}

impl<D: Demand> FromRequest for Granted<D> {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(
            check(D::requirement(), request)
                .map(Self::new)
                .map_err(|error| Rejection::new(error, request)),
        )
    }
}
