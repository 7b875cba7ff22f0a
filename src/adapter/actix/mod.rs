//! actix-web 4 (feature `actix-web`): authenticating middleware, a deny-by-default router,
//! requirements on resources and scopes, and extractors.
//!
//! [`Auth`] authenticates and puts the principal into the request's extensions; [`require`] checks
//! a requirement against it. Both can wrap an `App`, a scope, a resource or a route. In a
//! [`ProtectedRouter`], a route without a declared requirement does not compile.
//!
//! A handler takes [`KeyPrincipal`](crate::KeyPrincipal), `Option<KeyPrincipal>` if authentication
//! is optional, [`Granted<D>`](Granted) to require something by the argument's type, or
//! [`Caller<T>`] for a host type.
//!
//! ```
//! use actix_web::{App, web};
//! use portunus::adapter::actix::require;
//! # use portunus::key::{Alphabet, KeyFormat};
//! # use portunus::store::MemoryStore;
//! use portunus::{KeyPrincipal, Portunus, Principal, scope};
//!
//! async fn documents(caller: KeyPrincipal) -> String {
//!     format!("documents of {}", caller.owner().tenant_id)
//! }
//!
//! # let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//! # let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
//! // Built once, outside the closure: every worker's clone shares caches and limits.
//! let auth = keys.middleware();
//! let app = move || {
//!     App::new().service(
//!         web::resource("/documents")
//!             .route(web::get().to(documents).wrap(require(scope!("document:read"))))
//!             .wrap(auth.clone()),
//!     )
//! };
//! # let _ = app;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The order of middleware
//! The last `wrap` is outermost. Outermost first: logging, CORS (which answers preflights, so that
//! they need no key), this middleware, requirements unless it has one ([`Auth::require`]). A
//! refusal is a response, not an `Err`, so that all of them see it. Around a resource, unknown
//! paths stay 404; around a scope or the `App`, everything below it requires a key before the path
//! is matched.
//!
//! As for actix-web's own routing, outer middleware must not hold a clone of the `HttpRequest`
//! while it calls the inner service.
//!
//! # Bodies
//! No body is read before the key has been checked. For a request with `Expect: 100-continue`,
//! actix-web requests the body before any middleware runs; this is a setting of the server.

mod answers;
mod auth;
mod boxed;
mod carrier;
mod checks;
mod extract;
mod head;
mod mappings;
mod methods;
mod paths;
mod request_head;
mod resource;
mod response;
mod routed;
mod router;
mod service;
mod table;

#[doc(no_inline)]
pub use super::caller::{Caller, Demand, Granted};
#[doc(no_inline)]
pub use super::limits::RateLimits;
#[doc(no_inline)]
pub use super::rejection::Rejection;
pub use super::require::require;
#[doc(no_inline)]
pub use super::routes::RouteDemand;
pub use auth::Auth;
pub use head::ActixHead;
pub use methods::{any, delete, get, head, options, patch, post, put};
pub use response::into_response;
pub use router::ProtectedRouter;
