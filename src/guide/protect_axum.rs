//! Protect an axum app (feature `axum`).
//!
//! A key is a string such as `acme_8fK…` that your customers send with each request. Your service
//! stores a digest of it together with the key's permissions, its *scopes*. Each route declares
//! which scope it requires.
//!
//! # A first program
//! It issues a key and sends five requests, without a socket.
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
//!         .route("/documents", post(|| async { "created" }).require(scope!("document:write")))
//!         .route("/healthz", get(|| async { "ok" }).public())
//!         .into_router()
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The format of keys, and where they are stored.
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
//!
//!     // A key for a customer with read access. Its secret is shown once; the store gets a digest.
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
//! A real server must also provide the peer address of each connection (see the first pitfall):
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
//! A [`ProtectedRouter`](crate::adapter::axum::ProtectedRouter) only accepts routes that declare
//! what they require: `.require(…)`, `.any_key()`, `.optional_key()` or `.public()`. State is added
//! last, as usual: `.into_router().with_state(state)`.
//!
//! `axum::serve` limits neither the time for a request head nor its number of headers, and a client
//! that is refused during an upload may see a broken pipe instead of the 401. If clients do not
//! connect through a proxy that handles this, use [a server with limits](super::slow_clients).
//!
//! # On your own router
//! [`RequireExt`](crate::adapter::axum::RequireExt) adds requirements to axum's own types, and
//! `route_layer` wraps them in the layer:
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
//!         .route_layer(keys.layer()) // around the routes above only
//!         .route("/healthz", get(|| async { "ok" }))
//! }
//! # let _ = app;
//! ```
//!
//! # Handler arguments
//! | argument | accepts |
//! |---|---|
//! | [`KeyPrincipal`](crate::KeyPrincipal) | every authenticated request that the route accepts |
//! | `Option<KeyPrincipal>` | also anonymous requests, with [`optional_key()`] or [`optional()`] |
//! | [`Granted<D>`](crate::adapter::axum::Granted) | requests that meet a requirement that is part of the type |
//! | [`Caller<T>`] | requests with a value of your own type `T`, created by `AuthLayer::map_principal` |
//!
//! [`optional_key()`]: crate::adapter::axum::ProtectedRouter
//! [`optional()`]: crate::config::Credentials::optional
//! [`Caller<T>`]: crate::adapter::axum::Caller
//!
//! # Pitfalls
//! - **The peer address is needed.** `axum::serve(listener, app)` alone does not provide it.
//!   Without it, a key with an allow-list is refused, and failed attempts are not counted: guessing
//!   is then only limited by the number of lookups in flight
//!   ([`LookupBudget`](crate::limit::LookupBudget)). Serve
//!   `app.into_make_service_with_connect_info::<SocketAddr>()`; behind a proxy, also read [that
//!   guide](super::behind_a_proxy).
//! - **On your own router, order matters.** A route that is added after `route_layer` is not
//!   protected. Neither is a route that is added to the result of `ProtectedRouter::into_router()`.
//! - **`layer` is not `route_layer`.** With `layer`, unknown paths are 401 instead of 404.
//! - **CORS belongs outside.** A preflight never carries a key. See [the order of
//!   layers](crate::adapter::tower#the-order-of-layers) for everything else.
//! - **A read-only key cannot `POST`,** whatever its scopes. For a `POST` that only reads, add:
//!   `Requirement::scope(…).and(Requirement::reading())`.
//! - **Usage and audit events are buffered in memory.** `tokio::spawn(keys.run(shutdown))` writes
//!   them and runs all other periodic jobs. Await it before the process ends. Without tokio, call
//!   `keys.maintain()` at least once a second.
