//! The limiter passes its suite on every kind of server.

use std::sync::atomic::{AtomicU32, Ordering};

use portunus_conformance as conformance;
use portunus_redis::Redis;
use portunus_test_support::redis::Redis as Server;

use crate::common::{PATIENT, redis};

/// Runs the suite, each check under another prefix.
pub(crate) async fn passes_the_limiter_suite(redis: &Redis) {
    let count = AtomicU32::new(0);
    let make = || {
        let prefix = format!("portunus:{}", count.fetch_add(1, Ordering::Relaxed));
        let redis = redis.clone().prefix(&prefix).unwrap().deadline(PATIENT);
        async move {
            let limiter = redis.limiter();
            limiter.check().await.unwrap();
            limiter
        }
    };
    conformance::rate_limiter_in_real_time(make).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limiter_on_a_single_server_passes() {
    let server = Server::start();
    passes_the_limiter_suite(&redis(&server)).await;
}
