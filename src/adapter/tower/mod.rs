//! A tower layer (feature `tower`): for axum, hyper, tonic and everything else that is a
//! `Service<http::Request<_>>`.
//!
//! [`AuthLayer`] authenticates and puts the [`KeyPrincipal`](crate::KeyPrincipal) into the request's
//! extensions. [`require`] demands scopes of it. The futures are not boxed; a request whose key needs
//! a look-up that must be awaited is parked on the heap together with the service that was ready for
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
//! 6. [`AuthLayer`], then [`require`] or [`GrpcMethods`];
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
//! A handler finds the principal in `request.extensions()`. One service alone is wrapped
//! with tonic's `LayerExt::named_layer`; `Routes::into_axum_router` gives an axum router, whose
//! body needs no wrapping. gRPC-Web is translated further out: tonic-web's layer outside of this
//! one.

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

pub use super::require::{Require, require};
pub use auth::AuthLayer;
pub use body::EitherBody;
pub use head::HttpHead;
pub use methods::{GrpcMethods, GrpcMethodsError, GrpcMethodsLayer};
pub use response::{RejectionBody, into_response};
