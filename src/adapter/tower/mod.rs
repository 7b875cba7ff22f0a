//! A tower layer (feature `tower`): for axum, hyper, tonic and everything else that is a
//! `Service<http::Request<_>>`.
//!
//! [`AuthLayer`] authenticates and puts the [`KeyPrincipal`] into the request's extensions.
//! [`RequireLayer`] demands scopes of it. The futures are not boxed; a request whose key needs a
//! look-up that must be awaited is parked on the heap together with the service that was ready for
//! it.
//!
//! # The order of layers
//! Outermost first; the names in brackets are tower-http's:
//!
//! 1. what marks `Authorization` as sensitive (`SetSensitiveRequestHeadersLayer`): this layer marks
//!    it for what is further in only;
//! 2. the request's id (`SetRequestIdLayer`, `PropagateRequestIdLayer`), which the audit takes
//!    over, and tracing (`TraceLayer`);
//! 3. CORS (`CorsLayer`): it answers preflights, which never carry a key, and puts its fields on
//!    refusals too. `*` does not stand for `Authorization`: allow it by name, and expose
//!    `RateLimit`, `Retry-After` and `WWW-Authenticate` to scripts that shall read them;
//! 4. compression (`CompressionLayer`), and whatever else changes the type of the answer's body;
//! 5. a limit of time (`TimeoutLayer`): out here it bounds the look-up of the key too, and what it
//!    cuts off is audited as abandoned. Further in it bounds the handler, and its answer is audited
//!    as any other;
//! 6. [`AuthLayer`], then [`RequireLayer`] or [`GrpcMethods`];
//! 7. limits of bodies, decompression and all that reads a body: until the key is known, no byte of
//!    it is asked for.
//!
//! With axum, prefer `route_layer` over `layer` for this one, so that unknown paths stay 404.
//!
//! # Bodies
//! A refusal must become a response of the inner service's type: [`RejectionBody`] is implemented
//! for axum's body, `Full` and the boxed bodies of `http-body-util`. Any other body is wrapped:
//! `.map_response(|r| r.map(EitherBody::inner))` between the layer and the service.
//!
//! # gRPC
//! Where [`AuthLayer::grpc`] declares that the service serves gRPC, calls of gRPC are refused in
//! gRPC's own way, by a status with the same decision and the same stable code
//! ([`GrpcStatus`](crate::respond::GrpcStatus) says how); elsewhere a client's `Content-Type`
//! changes no answer. [`GrpcMethods`] demands scopes method by method, and declares the same.
//! tonic's body is one of those that need `map_response`:
//! [`protect_grpc`](crate::guide::protect_grpc) shows a whole program.
//!
//! A handler finds the [`KeyPrincipal`] in `request.extensions()`. One service alone is wrapped
//! with tonic's `LayerExt::named_layer`; `Routes::into_axum_router` gives an axum router, whose
//! body needs no wrapping. gRPC-Web is translated further out: tonic-web's layer outside of this
//! one.

mod auth;
mod body;
mod head;
mod methods;
mod require;
mod service;

pub use auth::AuthLayer;
pub use body::{EitherBody, RejectionBody};
pub use head::HttpHead;
pub use methods::{GrpcMethods, GrpcMethodsError, GrpcMethodsLayer, GrpcMethodsService};
pub use require::{RequireFuture, RequireLayer, RequireService, require, require_scope};
pub use service::{AuthFuture, AuthService};

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
    extensions
        .get::<KeyPrincipal>()
        .ok_or_else(|| no_principal(extensions.get::<Anonymous>().is_some()))
}

/// Whether a request has passed as nobody.
pub(crate) fn is_nobody(extensions: &Extensions) -> bool {
    extensions.get::<KeyPrincipal>().is_none() && extensions.get::<Anonymous>().is_some()
}

/// Checks a requirement against the principal of a request.
pub(crate) fn check(
    extensions: &Extensions,
    requirement: &Requirement,
    head: &HttpHead<'_>,
) -> Result<(), AuthError> {
    requirement.check(principal(extensions)?, Some(head))
}

/// Answers a refused request in the dialect of the authenticator that saw it.
pub(crate) fn refuse<R: RejectionBody>(
    error: &AuthError,
    head: &HttpHead<'_>,
    extensions: &Extensions,
) -> Response<R> {
    if let Some(principal) = extensions.get::<KeyPrincipal>() {
        return into_response(principal.responder().answer(error, head), error);
    }
    match extensions.get::<Anonymous>() {
        Some(Anonymous(responder)) => into_response(responder.answer(error, head), error),
        None => into_response(Responder::default().answer(error, head), error),
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
