//! Extractors: the principal, an optional principal, a principal that meets a requirement, and the
//! host's own type for a caller.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::adapter::caller::{Caller, Demand, Granted, missing_caller};
use crate::adapter::inside::{not_authenticated, principal};
use crate::adapter::limits::RateLimits;
use crate::adapter::rejection::Rejection;
use crate::adapter::tower::{HttpHead, into_response};
use crate::error::AuthError;
use crate::principal::KeyPrincipal;

fn rejection(error: AuthError, parts: &Parts) -> Rejection {
    let head = HttpHead::of_parts(parts, None);
    Rejection::new(error, &parts.extensions, &head)
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.log();
        into_response(self.answer, &self.error)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for KeyPrincipal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        match principal(&parts.extensions) {
            Ok(principal) => Ok(principal.into_owned()),
            Err(error) => Err(rejection(error, parts)),
        }
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for KeyPrincipal {
    type Rejection = Rejection;

    /// `None` if the request passed as anonymous or no authentication ran.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RateLimits {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let head = HttpHead::of_parts(parts, None);
        Self::read(&parts.extensions, &head).ok_or_else(|| rejection(not_authenticated(), parts))
    }
}

impl<S: Send + Sync, T: Send + Sync + 'static> FromRequestParts<S> for Caller<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        if let Some(caller) = parts.extensions.get::<Arc<T>>() {
            return Ok(Self(Arc::clone(caller)));
        }
        let error = principal(&parts.extensions)
            .err()
            .unwrap_or_else(missing_caller);
        Err(rejection(error, parts))
    }
}

impl<S: Send + Sync, T: Send + Sync + 'static> OptionalFromRequestParts<S> for Caller<T> {
    type Rejection = Rejection;

    /// `None` if no mapping created a `T`, for example because the request passed as anonymous.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(parts
            .extensions
            .get::<Arc<T>>()
            .map(|caller| Self(Arc::clone(caller))))
    }
}

impl<S: Send + Sync, D: Demand> FromRequestParts<S> for Granted<D> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let head = HttpHead::of_parts(parts, None);
        let granted = principal(&parts.extensions).and_then(|principal| {
            D::requirement().check(&*principal, Some(&head))?;
            Ok(Self::new(principal.into_owned()))
        });
        granted.map_err(|error| rejection(error, parts))
    }
}
