//! The library's own implementations pass the suites that are meant for others.

use portunus::limit::LocalLimiter;
use portunus::store::MemoryStore;
use portunus_conformance as conformance;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_keeps_what_a_store_promises() {
    conformance::key_store(|| async { MemoryStore::new() })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limiter_in_this_process_keeps_what_a_limiter_promises() {
    conformance::rate_limiter(|clock| async { LocalLimiter::builder().clock(clock).build() })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limiter_in_this_process_keeps_it_by_the_systems_clock_too() {
    conformance::rate_limiter_in_real_time(|| async { LocalLimiter::default() })
        .await
        .unwrap();
}
