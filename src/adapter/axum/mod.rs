//! axum 0.8 (feature `axum`): extractors, requirements on routes, and a router that denies by
//! default.
//!
//! The layer is [`AuthLayer`]. Add it with `route_layer`, so that unknown paths stay 404. Or use a
//! [`ProtectedRouter`], in which a route without a declared requirement does not compile.
//!
//! Serve `app.into_make_service_with_connect_info::<SocketAddr>()`, so that the layer knows the
//! peer address. Without it, failed attempts are not counted, and keys with an allow-list are
//! refused.
//!
//! A handler takes [`KeyPrincipal`](crate::KeyPrincipal), `Option<KeyPrincipal>` if authentication
//! is optional, [`Granted<D>`](Granted) to require something by the argument's type, or
//! [`Caller<T>`] for a host type.

mod extract;
mod methods;
mod require;
mod router;

#[doc(no_inline)]
pub use super::caller::{Caller, Demand, Granted};
#[doc(no_inline)]
pub use super::limits::RateLimits;
#[doc(no_inline)]
pub use super::rejection::Rejection;
#[doc(no_inline)]
pub use super::routes::RouteDemand;
// Re-exported so that one import is enough.
pub use super::tower::AuthLayer;
pub use methods::{any, delete, get, guard, head, options, patch, post, put};
pub use require::RequireExt;
pub use router::ProtectedRouter;
