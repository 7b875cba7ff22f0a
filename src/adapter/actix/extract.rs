//! Extractors: the principal, a principal that meets a requirement, and the host's own type for a
//! caller.
//!
//! actix-web provides `Option<…>` of each: `None` if the extractor would refuse.

use std::borrow::Cow;
use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError};

use super::{ActixHead, into_response};
use crate::adapter::caller::{Caller, Demand, Granted, missing_caller};
use crate::adapter::inside::{not_authenticated, principal};
use crate::adapter::limits::RateLimits;
use crate::adapter::rejection::Rejection;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;

fn rejection(error: AuthError, request: &HttpRequest) -> Rejection {
    let head = ActixHead::new(request, None);
    Rejection::new(error, request, &head)
}

impl ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.answer.status).unwrap_or(StatusCode::FORBIDDEN)
    }

    fn error_response(&self) -> HttpResponse {
        self.log();
        into_response(self.answer.clone(), &self.error)
    }
}

impl FromRequest for KeyPrincipal {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = principal(request).map(Cow::into_owned);
        ready(caller.map_err(|error| rejection(error, request)))
    }
}

impl FromRequest for RateLimits {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let head = ActixHead::new(request, None);
        let limits = Self::read(request, &head);
        ready(limits.ok_or_else(|| rejection(not_authenticated(), request)))
    }
}

impl<T: 'static> FromRequest for Caller<T> {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Arc<T>>().cloned();
        ready(caller.map(Self).ok_or_else(|| {
            let error = principal(request).err().unwrap_or_else(missing_caller);
            rejection(error, request)
        }))
    }
}

impl<D: Demand> FromRequest for Granted<D> {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let head = ActixHead::new(request, None);
        // The extensions are not borrowed during the check, which may run the host's code.
        let granted = principal(request).map(Cow::into_owned).and_then(|caller| {
            D::requirement().check(&caller, Some(&head))?;
            Ok(Self::new(caller))
        });
        ready(granted.map_err(|error| rejection(error, request)))
    }
}
