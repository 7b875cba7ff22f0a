//! Suites for implementations of the library's traits: how an implementer knows that a store, a
//! limiter, a bus or a directory keeps what its trait promises.
//!
//! | suite | for |
//! |---|---|
//! | [`key_store`] | a [`KeyStore`](portunus::KeyStore) |
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
pub use store::key_store;
