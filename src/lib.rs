//! API-key authentication, authorization and rate limiting for Rust web services.
//!
//! A service describes its keys once ([`Portunus::builder`]) and wraps its router in the layer for
//! its framework ([`adapter`]). Each request then goes through the same steps:
//!
//! credential → shape → digest → lookup → standing → environment, transport, network → limit →
//! credits → actor → principal
//!
//! The route then checks a [`Requirement`] against the principal: scopes, workspaces, plans, a
//! user. Refusals have stable codes ([`ErrorCode`]) and are rendered as RFC 9457 problem documents
//! or in the host's own format ([`respond`]).
//!
//! ```
//! use portunus::key::{Alphabet, KeyFormat, Owner};
//! use portunus::manage::NewKey;
//! use portunus::store::MemoryStore;
//! use portunus::{Portunus, scope};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//! let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
//!
//! let owner = Owner::tenant("tenant-1".parse()?);
//! let new = NewKey::new("first key", owner).with_scopes([scope!("document:read")]);
//! let issued = keys.manager().issue(new).await?;
//! let shown_once: String = issued.key.reveal();
//!
//! // Around a router: keys.layer() for tower and axum, keys.middleware() for actix-web.
//! # Ok(()) }
//! ```
//!
//! # Guides
//!
//! [axum](guide::protect_axum) · [actix-web](guide::protect_actix) · [gRPC](guide::protect_grpc) ·
//! [plans](guide::plans) · [classes of routes](guide::classes_of_routes) · [credits](guide::credits) ·
//! [anonymous callers](guide::anonymous_callers) · [custom store](guide::own_key_store) · [custom
//! limiter](guide::own_rate_limiter) · [custom key format and error body](guide::own_dialect) ·
//! [delegation](guide::delegation) · [rotation](guide::rotation) · [migration](guide::migration) ·
//! [importing](guide::importing) · [behind a proxy](guide::behind_a_proxy) ·
//! [testing a service](guide::testing_a_service)
//!
//! # Extension points
//!
//! | trait | purpose |
//! |---|---|
//! | [`KeyLookup`] | finding keys: everything that authentication needs |
//! | [`KeyStore`], [`store::UsageStore`], [`events::SigningStore`] | storing keys, usage counts and signing states |
//! | [`ScopeSet`], [`scope::ScopeModel`] | a custom scope model |
//! | [`RateLimiter`] | counting requests outside the process |
//! | [`credit::CreditStore`] | storing credits |
//! | [`actor::Directory`], [`actor::OwnerStanding`] | the host's users, and the standing of owners |
//! | [`TokenVerifier`] | tokens issued by the host's OAuth server |
//! | [`audit::AuditSink`], [`audit::AuditReader`] | storing and reading audit events |
//! | [`Principal`] | a principal type of the host, checked like the library's own |
//! | [`respond::RejectionRenderer`] | the format of refusals |
//! | [`RequestHead`] | frameworks without an adapter |
//! | [`Clock`] | controlling time in tests |
//!
//! All of them are object-safe, and `Send + Sync` where they are shared. `Arc` and `Box` of an
//! implementation implement them too.
//!
//! # Features
//!
//! | feature | adds | Rust |
//! |---|---|---|
//! | `tower` | layer and requirements, per route or gRPC method, for tower services over `http` 1 | 1.88 |
//! | `axum` | extractors, `.require(…)` on routes, and a deny-by-default router | 1.88 |
//! | `actix-web` | middleware, extractors, requirements and a deny-by-default router for actix-web 4 | 1.89 |
//! | `events` | signing events with the owner's primary key | 1.88 |
//! | `tracing` | spans and log events, the key on the request's span, and audit events as log events ([`telemetry`]) | 1.88 |
//! | `metrics` | counters and histograms ([`telemetry`]) | 1.88 |
//! | `tokio` | running the periodic jobs as a tokio task | 1.88 |
//! | `testing` | test helpers: manual clock, ready-made keys and principals, recorded audit events | 1.88 |
//! | `memory-store` | [`MemoryStore`](store::MemoryStore); enabled by default | 1.88 |
//! | `bundled-time-zones` | the time zones of [credit periods](credit::Period), for machines without a time zone database; enabled by default | 1.88 |
//!
//! No feature changes the shape of a trait. The last column is the
//! minimum supported Rust version: 1.88, or that of `actix-web` with that feature.

pub mod actor;
pub mod adapter;
pub mod audit;
pub mod authenticator;
pub mod clock;
pub mod config;
mod credential;
pub mod credit;
mod entry;
pub mod error;
pub mod events;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod json;
pub mod key;
pub mod limit;
mod lock;
pub mod manage;
pub mod network;
mod pointer;
pub mod policy;
mod principal;
pub mod quota;
pub mod request;
pub mod respond;
mod rfc3339;
pub mod scope;
mod service;
pub mod store;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod usage;
pub mod verifier;

pub use authenticator::Authenticator;
pub use clock::Clock;
pub use config::{BuildError, Limits};
pub use error::{AuthError, ErrorCode};
pub use limit::RateLimiter;
pub use policy::{Principal, Requirement};
pub use principal::KeyPrincipal;
pub use request::RequestHead;
pub use scope::{Scope, ScopeSet};
pub use service::{Maintenance, Portunus, PortunusBuilder};
pub use store::{KeyLookup, KeyStore};
pub use verifier::TokenVerifier;

/// Compiles the README's programs together with the documentation's.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
