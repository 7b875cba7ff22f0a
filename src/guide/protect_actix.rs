//! Protect an actix-web app (feature `actix-web`).
//!
//! A key is a text such as `acme_8fK…` that your customers send with each request. Your service
//! keeps a digest of it and what it may do, its *scopes*; each route says which scope it requires.
//!
//! # A first program
//! It issues a key and asks five times. In place of the five requests, a service goes on with
//! `HttpServer::new(app)`.
//!
#![cfg_attr(feature = "actix-web", doc = "```")]
#![cfg_attr(
    not(feature = "actix-web"),
    doc = "```ignore (needs the feature actix-web)"
)]
//! use actix_web::test::{TestRequest, call_service, init_service};
//! use actix_web::{App, web};
//! use portunus::adapter::actix::{Auth, require_scope};
//! use portunus::key::{Alphabet, KeyFormat, Owner};
//! use portunus::manage::{KeyManager, NewKey};
//! use portunus::store::MemoryStore;
//! use portunus::{Authenticator, KeyPrincipal, Principal, scope};
//!
//! async fn documents(caller: KeyPrincipal) -> String {
//!     format!("documents of {}", caller.owner().tenant_id)
//! }
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // What keys look like, and where they are kept.
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let store = MemoryStore::new();
//!
//!     // A key for a customer, who may read. Its secret is shown this once; the store gets a digest.
//!     let manager = KeyManager::builder(store.clone(), format.clone()).build()?;
//!     let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?)).with_scopes([scope!("document:read")]);
//!     let key = manager.issue(new).await?.key.reveal();
//!
//!     // Once, outside of the closure: the clones in all workers share limits and counts.
//!     let auth = Auth::new(Authenticator::builder(store).bearer([format]).build()?);
//!     let app = move || {
//!         App::new()
//!             .service(
//!                 web::resource("/documents")
//!                     .route(web::get().to(documents).wrap(require_scope(scope!("document:read"))))
//!                     .route(web::post().to(async || "made").wrap(require_scope(scope!("document:write"))))
//!                     .wrap(auth.clone()), // what is wrapped last is outermost: first who, then what
//!             )
//!             .route("/healthz", web::get().to(async || "ok"))
//!     };
//!
//!     let service = init_service(app()).await;
//!     let bearer = ("authorization", format!("Bearer {key}"));
//!     let asked = [
//!         (TestRequest::get().uri("/documents").insert_header(bearer.clone()), 200),
//!         (TestRequest::get().uri("/documents"), 401),
//!         (TestRequest::post().uri("/documents").insert_header(bearer), 403),
//!         (TestRequest::get().uri("/healthz"), 200),
//!         (TestRequest::get().uri("/unknown"), 404),
//!     ];
//!     for (request, status) in asked {
//!         assert_eq!(call_service(&service, request.to_request()).await.status(), status);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! `examples/actix_documents.rs` is the same as a server.
//!
//! # What a handler takes
//! | argument | who gets in |
//! |---|---|
//! | [`KeyPrincipal`](crate::KeyPrincipal) | whoever the route lets in; this is who it is |
//! | `Option<KeyPrincipal>` | also nobody, where the authenticator is [`optional()`](crate::AuthenticatorBuilder::optional) |
//! | [`Granted<D>`](crate::adapter::actix::Granted) | who meets a requirement that is part of the type |
//! | [`Caller<T>`](crate::adapter::actix::Caller) | who could be made a `T` of your own, by `Auth::map_principal` |
//!
//! # Traps
//! - **Build it outside of the closure.** `HttpServer::new` calls its closure once for every
//!   worker. An authenticator that is built inside has limits, caches and counts of its own in
//!   each: four workers, four times the quota.
//! - **The order of `wrap`.** What is wrapped last runs first.
//!   [`Auth`](crate::adapter::actix::Auth) must be wrapped after the requirements on the same
//!   resource, and before CORS and logging. Requirements that no `Auth` stands around refuse
//!   everybody.
//! - **A route without a requirement takes every valid key,** if `Auth` is around it, and everybody
//!   if it is not. What says nothing compiles here; on axum, `ProtectedRouter` is stricter.
//! - **Around a scope or the `App`,** unknown paths are 401 without a key. Around a resource they
//!   stay 404.
//! - **Refusals are responses, not errors.** An `ErrorHandlers` middleware sees them by their
//!   status; the body is the renderer's ([another guide](super::own_dialect)).
//! - **The client's address is the connection's,** not what `ConnectionInfo::realip_remote_addr`
//!   believes of any caller. Behind a proxy, read [that guide](super::behind_a_proxy).
//! - **Nothing is limited without a limiter:** `.limiter(LocalLimiter::default())` on the
//!   authenticator's builder.
//! - **Usage is counted in memory.** Call `authenticator.usage().flush(&store)` on an interval, and
//!   before the process ends.
