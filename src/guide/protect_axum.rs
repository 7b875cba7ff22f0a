//! Protect an axum app (feature `axum`).
//!
//! A key is a text such as `acme_8fK…` that your customers send with each request. Your service
//! keeps a digest of it and what it may do, its *scopes*; each route says which scope it requires.
//!
//! # A first program
//! It issues a key and asks five times, without a socket.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use axum::Router;
//! use axum::body::Body;
//! use axum::http::Request;
//! use portunus::adapter::axum::{get, post};
//! use portunus::key::{Alphabet, KeyFormat, Owner};
//! use portunus::manage::NewKey;
//! use portunus::store::MemoryStore;
//! use portunus::{KeyPrincipal, Portunus, Principal, scope};
//! use tower::ServiceExt; // for `oneshot`
//!
//! async fn documents(caller: KeyPrincipal) -> String {
//!     format!("documents of {}", caller.owner().tenant_id)
//! }
//!
//! fn app(keys: &Portunus) -> Router {
//!     keys.router()
//!         .route("/documents", get(documents).require(scope!("document:read")))
//!         .route("/documents", post(|| async { "made" }).require(scope!("document:write")))
//!         .route("/healthz", get(|| async { "ok" }).public())
//!         .into_router()
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // What keys look like, and where they are kept.
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
//!
//!     // A key for a customer, who may read. Its secret is shown this once; the store gets a digest.
//!     let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?))
//!         .with_scopes([scope!("document:read")]);
//!     let key = keys.manager().issue(new).await?.key.reveal();
//!
//!     let app = app(&keys);
//!     let asked = [
//!         (Request::get("/documents").header("authorization", format!("Bearer {key}")), 200),
//!         (Request::get("/documents"), 401),
//!         (Request::post("/documents").header("authorization", format!("Bearer {key}")), 403),
//!         (Request::get("/healthz"), 200),
//!         (Request::get("/unknown"), 404),
//!     ];
//!     for (request, status) in asked {
//!         assert_eq!(app.clone().oneshot(request.body(Body::empty())?).await?.status(), status);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! As a server, it tells the layer who is at the other end of each connection (the first trap
//! below):
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! # async fn serve(app: axum::Router) -> std::io::Result<()> {
//! use std::net::SocketAddr;
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
//! # }
//! ```
//!
//! A [`ProtectedRouter`](crate::adapter::axum::ProtectedRouter) takes no route that does not say
//! what it requires: `.require(…)`, `.any_key()`, `.optional_key()` or `.public()`. State comes last,
//! as ever: `.into_router().with_state(state)`.
//!
//! `axum::serve` bounds neither how long a head may take nor how many fields it may have, and whoever
//! is refused in the middle of an upload finds a broken pipe in place of the 401. [A server that
//! bounds both](super::slow_clients) takes its place where clients are not behind a proxy that does.
//!
//! # On a router of your own
//! [`RequireExt`](crate::adapter::axum::RequireExt) puts requirements on axum's own types, and
//! `route_layer` puts the layer around them:
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use axum::Router;
//! use axum::routing::get;
//! use portunus::adapter::axum::RequireExt;
//! use portunus::{Portunus, scope};
//!
//! fn app(keys: &Portunus) -> Router {
//!     Router::new()
//!         .route("/documents", get(|| async { "[]" }).require(scope!("document:read")))
//!         .route_layer(keys.layer()) // around the routes above, and no others
//!         .route("/healthz", get(|| async { "ok" }))
//! }
//! # let _ = app;
//! ```
//!
//! # What a handler takes
//! | argument | who gets in |
//! |---|---|
//! | [`KeyPrincipal`](crate::KeyPrincipal) | whoever the route lets in; this is who it is |
//! | `Option<KeyPrincipal>` | also nobody, where [`optional_key()`] or [`optional()`] says so |
//! | [`Granted<D>`](crate::adapter::axum::Granted) | who meets a requirement that is part of the type |
//! | [`Caller<T>`] | who could be made a `T` of your own, by `AuthLayer::map_principal` |
//!
//! [`optional_key()`]: crate::adapter::axum::ProtectedRouter
//! [`optional()`]: crate::config::Credentials::optional
//! [`Caller<T>`]: crate::adapter::axum::Caller
//!
//! # Traps
//! - **The peer's address must be there.** `axum::serve(listener, app)` alone does not tell it.
//!   Without it, a key with an allow-list is refused, and nobody can be told apart by failures: the
//!   number of look-ups in flight alone bounds those who try keys out
//!   ([`LookupBudget`](crate::limit::LookupBudget)). Serve
//!   `app.into_make_service_with_connect_info::<SocketAddr>()`; behind a proxy, read [that
//!   guide](super::behind_a_proxy) too.
//! - **On a router of your own, order matters.** A route that is added after `route_layer` is open.
//!   With a `ProtectedRouter`, so is a route that is added to what `into_router()` returned.
//! - **`layer` is not `route_layer`.** With `layer`, unknown paths are 401 in place of 404.
//! - **CORS belongs outside.** A preflight never carries a key. The [order of
//!   layers](crate::adapter::tower#the-order-of-layers) says where everything else goes.
//! - **A read-only key may not `POST`,** whatever its scopes. A `POST` that only searches says so:
//!   `Requirement::scope(…).and(Requirement::reading())`.
//! - **Usage and audit events wait in memory.** `tokio::spawn(keys.run(shutdown))` writes them, and
//!   does everything else that is done periodically; await it before the process ends. Without
//!   tokio, call `keys.maintain()` at least once a second.
