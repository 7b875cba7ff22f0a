//! A tower layer (feature `tower`): for axum, hyper, tonic and everything else that is a `Service<http::Request<_>>`.
//!
//! [`AuthLayer`] authenticates and puts the [`KeyPrincipal`] into the request's extensions.
//! [`RequireLayer`] demands scopes of it. The futures are not boxed; a request whose key needs a look-up that must be
//! awaited is parked on the heap together with the service that was ready for it.
//!
//! # The order of layers
//! Outermost first: request id and tracing, CORS (which answers preflights, so they never need a key), this layer, body
//! limits and the rest. With axum, prefer `route_layer` over `layer`, so that unknown paths
//! stay 404.
//!
//! # Bodies
//! A refusal must become a response of the inner service's type: [`RejectionBody`] is implemented for axum's body, `Full`
//! and the boxed bodies of `http-body-util`. Any other body is wrapped: `.map_response(|r| r.map(EitherBody::inner))`
//! between the layer and the service.

mod auth;
mod body;
mod head;
mod require;

pub use auth::{AuthFuture, AuthLayer, AuthService};
pub use body::{EitherBody, RejectionBody};
pub use head::HttpHead;
pub use require::{RequireFuture, RequireLayer, RequireService, require, require_scope};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Extensions, Response, StatusCode};

use crate::adapter::nobody::{Anonymous, no_principal};
use crate::error::AuthError;
use crate::policy::Requirement;
use crate::principal::KeyPrincipal;
use crate::respond::{Answer, Responder};
use std::borrow::Cow;

/// The principal of a request, or the error that there is none.
pub(crate) fn principal(extensions: &Extensions) -> Result<&KeyPrincipal, AuthError> {
    extensions.get::<KeyPrincipal>().ok_or_else(|| no_principal(extensions.get::<Anonymous>().is_some()))
}

/// Checks a requirement against the principal of a request.
pub(crate) fn check(extensions: &Extensions, requirement: &Requirement, head: &HttpHead<'_>) -> Result<(), AuthError> {
    requirement.check(principal(extensions)?, Some(head))
}

/// Answers a refused request in the dialect of the authenticator that saw it.
pub(crate) fn refuse<R: RejectionBody>(error: &AuthError, head: &HttpHead<'_>, extensions: &Extensions) -> Response<R> {
    if let Some(principal) = extensions.get::<KeyPrincipal>() {
        return into_response(principal.responder().answer(error, head), error);
    }
    match extensions.get::<Anonymous>() {
        Some(Anonymous(responder)) => into_response(responder.answer(error, head), error),
        None => into_response(Responder::default().answer(error, head), error),
    }
}

/// An answer as a response. The error goes along in the response's extensions, for middleware further out.
#[must_use]
pub fn into_response<R: RejectionBody>(answer: Answer, error: &AuthError) -> Response<R> {
    let body = match answer.body {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = Response::new(R::from_rejection(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    for (name, value) in answer.fields {
        // A renderer's media type that cannot be a field value is left out; the library's own always can.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response.extensions_mut().insert(error.clone());
    response
}
