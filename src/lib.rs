//! API-key authentication, authorization and rate limits for Rust web services.
//!
//! A service describes its keys once ([`Portunus::builder`]) and wraps its router in the layer of its
//! framework ([`adapter`]). Each request then takes one path:
//!
//! credential → shape → digest → look-up → standing → environment, transport, network → limit →
//! actor → principal
//!
//! and the route demands a [`Requirement`] of the principal: scopes, workspaces, plans, a user.
//! Refusals have stable codes ([`ErrorCode`]) and are answered as RFC 9457 problem documents or in
//! a dialect of the host's own ([`respond`]).
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
//! [a store of your own](guide::own_key_store) · [a limiter of your own](guide::own_rate_limiter) ·
//! [your key format and error body](guide::own_dialect) · [delegation](guide::delegation) ·
//! [rotation](guide::rotation) · [migration](guide::migration) · [behind a
//! proxy](guide::behind_a_proxy) · [testing a service](guide::testing_a_service)
//!
//! # Extension points
//!
//! | trait | for |
//! |---|---|
//! | [`KeyLookup`] | finding keys: all that authentication needs |
//! | [`KeyStore`], [`store::UsageStore`], [`events::SigningStore`] | keeping keys, their counts, and what signs events |
//! | [`ScopeSet`], [`scope::ScopeModel`] | another idea of what a key may do |
//! | [`RateLimiter`] | counting requests elsewhere |
//! | [`actor::Directory`], [`actor::OwnerStanding`] | the host's users, and how owners stand |
//! | [`TokenVerifier`] | tokens that the host's OAuth server issued |
//! | [`audit::AuditSink`], [`audit::AuditReader`] | keeping what happened, and reading it again |
//! | [`Principal`] | a host's own caller, checked like the library's |
//! | [`respond::RejectionRenderer`] | the words of refusals |
//! | [`RequestHead`] | a framework that has no adapter yet |
//! | [`Clock`] | time under control |
//!
//! All are object-safe and `Send + Sync` where they are shared; `Arc` and `Box` of an
//! implementation implement them too.
//!
//! # Features
//!
//! | feature | brings | Rust |
//! |---|---|---|
//! | `tower` | layer and requirements, by route or gRPC method, for tower services over `http` 1 | 1.88 |
//! | `axum` | extractors, `.require(…)` on routers, and a router that denies by default | 1.88 |
//! | `actix-web` | middleware, extractors, requirements, and a router that denies by default, for actix-web 4 | 1.89 |
//! | `events` | signing events with the owner's primary key | 1.88 |
//! | `tracing` | spans and log lines, and audit events as log lines | 1.88 |
//! | `metrics` | counters and histograms | 1.88 |
//! | `tokio` | the periodic jobs as a task on tokio | 1.88 |
//! | `testing` | for your tests: a manual clock, ready keys and principals, an audit to look into | 1.88 |
//!
//! No feature changes the shape of a trait, and none is on by default. The last column is the oldest
//! Rust that is supported: 1.88, and with `actix-web` that crate's own.

pub mod actor;
pub mod adapter;
pub mod audit;
pub mod authenticator;
pub mod clock;
pub mod config;
mod credential;
pub mod error;
pub mod events;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod json;
pub mod key;
pub mod limit;
pub mod manage;
pub mod network;
mod pointer;
pub mod policy;
mod principal;
pub mod quota;
pub mod request;
pub mod respond;
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

/// The README's programs are compiled with the documentation's.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
