//! A tower layer (feature `tower`) for axum, hyper, tonic and any other
//! `Service<http::Request<_>>`.
//!
//! [`AuthLayer`] authenticates and puts the [`KeyPrincipal`](crate::KeyPrincipal) into the
//! request's extensions. [`AuthLayer::require`], or [`require`] further in, checks scopes against it.
//! The futures are not boxed; a request whose key needs an asynchronous lookup is parked on the heap
//! together with the service that was ready for it.
//!
//! # The order of layers
//! Outermost first; the names in parentheses are tower-http's:
//!
//! 1. marking `Authorization` as sensitive (`SetSensitiveRequestHeadersLayer`): `AuthLayer` marks
//!    it for inner layers only;
//! 2. the request id (`SetRequestIdLayer`, `PropagateRequestIdLayer`), which the audit adopts, and
//!    tracing (`TraceLayer`);
//! 3. CORS (`CorsLayer`): it answers preflights, which never carry a key, and adds its headers to
//!    refusals too. `*` does not include `Authorization`: allow it by name, and expose `RateLimit`,
//!    `Retry-After` and `WWW-Authenticate` to scripts that need to read them;
//! 4. compression (`CompressionLayer`) and any other layer that changes the response body's type;
//! 5. a timeout (`TimeoutLayer`): here it also bounds the key lookup, and a request that it cuts
//!    off is audited as abandoned. Further in, it bounds the handler only, and its response is
//!    audited like any other;
//! 6. [`AuthLayer`], with a requirement or followed by [`require`] or [`GrpcMethods`];
//! 7. body limits, decompression and everything else that reads a body: no byte of it is requested
//!    before the key has been checked.
//!
//! With axum, add `AuthLayer` by `route_layer` rather than `layer`, so that unknown paths stay 404.
//!
//! # Bodies
//! A refusal must become a response of the inner service's type. [`RejectionBody`] is implemented
//! for axum's body, `Full` and the boxed bodies of `http-body-util`. Wrap any other body:
//! `.map_response(|r| r.map(EitherBody::inner))` between the layer and the service.
//!
//! # gRPC
//! If [`AuthLayer::grpc`] declares that the service serves gRPC, gRPC calls are refused with a gRPC
//! status that carries the same decision and the same stable code (see
//! [`GrpcStatus`](crate::respond::GrpcStatus)). Otherwise, a client's `Content-Type` has no
//! influence on the response. [`GrpcMethods`] requires scopes per method, and implies the same
//! declaration for itself and inner layers. tonic's body is one that needs `map_response`;
//! [`protect_grpc`](crate::guide::protect_grpc) shows a complete program.
//!
//! A handler finds the principal in `request.extensions()`. To protect a single service, use
//! tonic's `LayerExt::named_layer`. `Routes::into_axum_router` returns an axum router, whose body
//! needs no wrapping. For gRPC-Web, put tonic-web's layer outside of this one.

mod auth;
mod body;
mod carrier;
mod head;
mod mappings;
mod methods;
mod request_head;
mod response;
#[cfg(feature = "axum")]
mod routed;
mod service;

#[doc(no_inline)]
pub use super::limits::RateLimits;
#[doc(no_inline)]
pub use super::rejection::Rejection;
pub use super::require::require;
pub use auth::AuthLayer;
pub use body::EitherBody;
pub use head::HttpHead;
pub use methods::{GrpcMethods, GrpcMethodsError, GrpcMethodsLayer};
pub use response::{RejectionBody, into_response};
