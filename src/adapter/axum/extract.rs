//! Extractors: the principal, maybe the principal, and the host's own idea of a caller.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::adapter::tower::{HttpHead, principal, refuse};
use crate::error::{AuthError, ErrorCode};
use crate::principal::KeyPrincipal;

/// Why an extractor refused: the error, and the answer in the API's dialect.
#[derive(Debug)]
pub struct Rejection {
    error: AuthError,
    response: Response,
}

impl Rejection {
    fn new(error: AuthError, parts: &Parts) -> Self {
        let response = refuse(&error, &HttpHead::of_parts(parts, None), &parts.extensions);
        Self { error, response }
    }

    /// The error.
    #[must_use]
    pub fn error(&self) -> &AuthError {
        &self.error
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for KeyPrincipal {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        match principal(&parts.extensions) {
            Ok(principal) => Ok(principal.clone()),
            Err(error) => Err(Rejection::new(error, parts)),
        }
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for KeyPrincipal {
    type Rejection = Rejection;

    /// `None` where the request passed as nobody, or no authentication ran.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

/// The host's own type for a caller, made by
/// [`AuthLayer::map_principal`](crate::adapter::tower::AuthLayer::map_principal).
#[derive(Debug)]
pub struct Caller<T>(pub Arc<T>);

impl<T> Clone for Caller<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Caller<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<S: Send + Sync, T: Send + Sync + 'static> FromRequestParts<S> for Caller<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        if let Some(caller) = parts.extensions.get::<Arc<T>>() {
            return Ok(Self(Arc::clone(caller)));
        }
        let error = principal(&parts.extensions).err().unwrap_or_else(|| {
            AuthError::with_detail(ErrorCode::Forbidden, "This route asks for a type of caller that nothing makes")
        });
        Err(Rejection::new(error, parts))
    }
}

impl<S: Send + Sync, T: Send + Sync + 'static> OptionalFromRequestParts<S> for Caller<T> {
    type Rejection = Rejection;

    /// `None` where the request passed as nobody.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(parts.extensions.get::<Arc<T>>().map(|caller| Self(Arc::clone(caller))))
    }
}
