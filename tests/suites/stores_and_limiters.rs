//! The library's own implementations pass the conformance suites.

use portunus::limit::LocalLimiter;
use portunus::store::MemoryStore;
use portunus_conformance as conformance;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_in_memory_store_passes() {
    conformance::key_store(|| async { MemoryStore::new() })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_local_limiter_passes() {
    conformance::rate_limiter(|clock| async { LocalLimiter::builder().clock(clock).build() })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_local_limiter_passes_with_the_system_clock() {
    conformance::rate_limiter_in_real_time(|| async { LocalLimiter::default() })
        .await
        .unwrap();
}
