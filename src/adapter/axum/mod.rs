//! axum 0.8 (feature `axum`): extractors, requirements on routes, and a router that denies by
//! default.
//!
//! The layer is [`AuthLayer`]. Put it on with `route_layer`, and unknown paths stay 404;
//! or use a [`ProtectedRouter`], where every route names what it requires and forgetting it does
//! not compile.
//!
//! Serve `app.into_make_service_with_connect_info::<SocketAddr>()`, so that the layer knows the
//! peer's address: without it, all clients are counted as one where they fail, and keys with an
//! allow-list are refused.
//!
//! A handler takes [`KeyPrincipal`](crate::KeyPrincipal) itself, `Option<KeyPrincipal>` where
//! authentication is optional, [`Granted<D>`](Granted) where the argument itself shall demand
//! something, or [`Caller<T>`] for a type of the host's own.

mod extract;
mod methods;
mod require;
mod router;

pub use super::caller::{Caller, Demand, Granted, Rejection};
pub use super::routes::RouteDemand;
// So that one import is enough.
pub use super::tower::AuthLayer;
pub use methods::{any, delete, get, guard, head, options, patch, post, put};
pub use require::RequireExt;
pub use router::ProtectedRouter;
