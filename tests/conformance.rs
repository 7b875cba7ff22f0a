//! The library's own implementations pass the suites that are meant for others.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use portunus::conformance;
use portunus::store::MemoryStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_keeps_what_a_store_promises() {
    conformance::key_store(|| async { MemoryStore::new() }).await.unwrap();
}
