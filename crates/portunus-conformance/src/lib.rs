//! Conformance suites for implementations of the library's traits: tests that a store, a limiter, a
//! bus or a directory keeps the promises of its trait.
//!
//! | suite | for |
//! |---|---|
//! | [`key_store`] | a [`KeyStore`](portunus::KeyStore) |
//! | [`key_lookup`] | a [`KeyLookup`](portunus::store::KeyLookup) that is not a store, over the host's own table |
//! | [`usage_store`] | a [`UsageStore`](portunus::store::UsageStore), with the keys whose use it counts |
//! | [`signing_store`] | a [`SigningStore`](portunus::events::SigningStore), with its keys |
//! | [`rate_limiter`] | a [`RateLimiter`](portunus::RateLimiter) whose clock can be injected |
//! | [`rate_limiter_in_real_time`] | a `RateLimiter` with its own clock, for example a server's |
//! | [`invalidation_bus`] | an [`InvalidationBus`], on two connected nodes |
//! | [`credit_store`] | a [`CreditStore`](portunus::credit::CreditStore) |
//! | [`directory`] | a [`Directory`](portunus::actor::Directory), given facts about its contents |
//!
//! [`InvalidationBus`]: portunus::store::InvalidationBus
//!
//! Each returns [`Violations`]: the promises that were not kept, each a sentence, and what was
//! observed instead. A suite is called in an ordinary test:
//!
//! ```
//! use portunus::store::MemoryStore;
//!
//! // With `#[tokio::test(flavor = "multi_thread")]`.
//! async fn our_store_keeps_its_promises() {
//!     portunus_conformance::key_store(|| async { MemoryStore::new() }).await.unwrap();
//! }
//! ```
//!
//! # Output
//! Each check is printed to stderr when it ends: `ok`, `FAILED` with what was observed, or `not
//! judged`. `cargo test` shows this output for a failed test, and always with `-- --nocapture`.
//!
//! Each root cause is reported once. A check names the checks that it depends on. If one of them
//! failed, or if a call does not answer that did not answer before, the check is not judged, and
//! its reason names the cause. Fix the first cause and run the suite again. Values are abbreviated
//! to 200 characters, and anything that may be a complete digest or secret is masked.
//!
//! # Duration
//! A suite ends within 5 minutes, whatever hangs. A call is dropped after 15 seconds, and is not
//! repeated after it was dropped twice; a check may take 30 seconds, and creating its subject 60.
//! After 5 checks that hung, the remaining ones are not run. On a multi-threaded runtime, a subject
//! that blocks its thread is reported too; the runtime may then wait for that thread on shutdown.
//!
//! Random walks are the same on every run; a violation names the seed.

#[macro_use]
mod report;
mod bus;
mod credit;
mod directory;
mod limiter;
mod random;
mod runner;
mod store;

pub use bus::{BusNodes, invalidation_bus};
pub use credit::credit_store;
pub use directory::{DirectoryFacts, directory};
pub use limiter::{rate_limiter, rate_limiter_in_real_time};
pub use report::{Violation, Violations};
pub use store::{key_lookup, key_store, signing_store, usage_store};
