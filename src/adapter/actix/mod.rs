//! actix-web 4 (feature `actix-web`): middleware that authenticates, a router that denies by default,
//! requirements on resources and scopes, and extractors.
//!
//! [`Auth`] authenticates and puts the principal into the request's extensions; [`require`] demands
//! something of it. Both go around an `App`, a scope, a resource or a route. In a
//! [`ProtectedRouter`] every route names what it requires, and forgetting it does not compile.
//!
//! A handler takes [`KeyPrincipal`](crate::KeyPrincipal) itself, `Option<KeyPrincipal>` where
//! authentication is optional, [`Granted<D>`](Granted) where the argument itself shall demand
//! something, or [`Caller<T>`] for a type of the host's own.
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
//! // Once, outside of the closure: every worker gets a clone, and all clones share caches and limits.
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
//! What is wrapped last is outermost. Outermost first: logging, CORS (which answers preflights, so
//! they never need a key), this middleware, requirements. A refusal is a response and no `Err`, so
//! that all of them see it. Around a resource, unknown paths stay 404; around a scope or the `App`,
//! everything below it wants a key before it is looked at.
//!
//! As for actix-web's own routing, middleware further out must not keep a clone of the
//! `HttpRequest` while it calls on.
//!
//! # Bodies
//! A body is not touched before there is a principal. actix-web asks for a body that a client has
//! announced with `Expect: 100-continue` before any middleware runs; that is the server's setting.

mod answers;
mod auth;
mod carrier;
mod extract;
mod head;
mod mappings;
mod methods;
mod paths;
mod request_head;
mod response;
mod router;
mod service;
mod table;

pub use super::caller::{Caller, Demand, Granted, Rejection};
pub use super::require::{Require, require};
pub use super::routes::RouteDemand;
pub use auth::Auth;
pub use head::ActixHead;
pub use methods::{any, delete, get, head, options, patch, post, put};
pub use response::into_response;
pub use router::ProtectedRouter;
