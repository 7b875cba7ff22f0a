//! Suites for implementations of the library's traits: how an implementer knows that a store, a
//! limiter, a bus or a directory keeps what its trait promises.
//!
//! | suite | for |
//! |---|---|
//! | [`key_store`] | a [`KeyStore`](portunus::KeyStore) |
//! | [`key_lookup`] | a [`KeyLookup`](portunus::store::KeyLookup) that is no store, over a table of the host's |
//! | [`usage_store`] | a [`UsageStore`](portunus::store::UsageStore), beside the keys that are counted |
//! | [`signing_store`] | a [`SigningStore`](portunus::events::SigningStore), beside its keys |
//! | [`rate_limiter`] | a [`RateLimiter`](portunus::RateLimiter) that takes its time from a clock |
//! | [`rate_limiter_in_real_time`] | one whose time is its own, a server's for example |
//! | [`invalidation_bus`] | an [`InvalidationBus`], on two nodes that share one fabric |
//! | [`directory`] | a [`Directory`](portunus::actor::Directory), by what the host says is in it |
//!
//! [`InvalidationBus`]: portunus::store::InvalidationBus
//!
//! Each answers with [`Violations`]: the promises that were not kept, each a sentence, and what was
//! seen instead. A suite is a test of the host's like any other:
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
//! # What you see
//! Each check is printed to stderr when it ends: `ok`, `FAILED` with what was seen, or `not judged`.
//! `cargo test` shows this where the test fails, and always with `-- --nocapture`.
//!
//! Each root cause is reported once. A check names the checks that it builds upon; if one of them
//! failed, or if a call gives no answer that gave none before, it is not judged, and says what it
//! rests on. Mend the first cause, and run the suite again. Values are abridged to 200 characters,
//! and what may be a whole digest or secret is masked.
//!
//! # How long it takes
//! A suite ends within 5 minutes, whatever hangs. A call that takes 15 seconds is dropped, and after
//! two such calls it is not made again; a check has 30 seconds, and making its subject has 60. After
//! 5 checks that hung, nothing further is run. On a runtime with several threads, a subject that
//! blocks its thread is told too; the runtime itself may then wait for that thread when it ends.
//!
//! Random walks are the same on every run; a violation tells the seed.

#[macro_use]
mod report;
mod bus;
mod directory;
mod limiter;
mod random;
mod runner;
mod store;

pub use bus::{BusNodes, invalidation_bus};
pub use directory::{DirectoryFacts, directory};
pub use limiter::{rate_limiter, rate_limiter_in_real_time};
pub use report::{Violation, Violations};
pub use store::{key_lookup, key_store, signing_store, usage_store};
