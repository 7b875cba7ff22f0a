//! A primary that Sentinels name: its suites, and failovers.

use std::time::{Duration, Instant};

use portunus::store::{Invalidation, InvalidationBus};
use portunus_redis::Redis;
use portunus_test_support::redis::Sentinels;
use portunus_test_support::wait::until_async;

use crate::bus::Told;
use crate::common::{PATIENT, ask, passed, quotas, recovers};
use crate::conformance::passes_the_limiter_suite;

fn redis(all: &Sentinels) -> Redis {
    let addresses = all.addresses();
    let sentinels = addresses.iter().map(String::as_str);
    Redis::sentinel(&format!("redis://{}", Sentinels::NAME), sentinels).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limiter_behind_sentinels_passes() {
    let all = Sentinels::start();
    passes_the_limiter_suite(&redis(&all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_behind_sentinels_passes() {
    let all = Sentinels::start();
    crate::bus::passes_the_bus_suite_without_faults(&redis(&all), &redis(&all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_ends_the_outage_and_the_old_primary_is_not_used_again() {
    for kill in [true, false] {
        let all = Sentinels::start();
        let (limiter, bus) = (redis(&all).limiter(), redis(&all).bus());
        let patient = || redis(&all).deadline(PATIENT).limiter();
        recovers(&limiter).await;
        bus.check().await.unwrap();
        let listener = Told::on(&bus);
        let quotas = quotas([(50, 600)]);
        assert_eq!(passed(&patient(), "b", &quotas, 20).await, 20);
        // The replicas have them.
        let stored = |place: usize| all.servers[place].cli(&["strlen", "portunus:{+b}:c:"]);
        until_async("they are replicated", || {
            (1..3).all(|replica| stored(replica) == stored(0))
        })
        .await;
        let old = all.primary();
        let old_port = old.port();
        if kill {
            old.crash();
        } else {
            old.pause();
        }
        until_async("another one is named", || all.primary().port() != old_port).await;
        let named = Instant::now();
        let answered = recovers(&limiter).await;
        println!("answered {answered:?} after the failover");
        let patient = patient();
        recovers(&patient).await;
        assert_eq!(
            passed(&patient, "b", &quotas, 60).await,
            30,
            "the counts are the same"
        );
        let proofs = listener.proofs();
        until_async("the bus is told", || listener.proofs() > proofs).await;
        let took = named.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
        let mut what = Invalidation::default();
        what.known.push(1);
        bus.publish(&what).await.unwrap();
        // The old primary comes back, and becomes a replica.
        if kill {
            old.start_again();
        } else {
            old.resume();
        }
        for _ in 0..40 {
            assert!(
                !ask(&limiter, "b", &quotas)
                    .await
                    .is_ok_and(|of| of.is_admitted())
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(passed(&patient, "b", &quotas, 5).await, 0);
    }
}

#[tokio::test]
async fn sentinels_that_do_not_know_the_name_and_other_servers_are_reported_in_one_line() {
    let all = Sentinels::start();
    let check = async |redis: Redis| redis.limiter().check().await.unwrap_err().to_string();
    let sentinel = all.sentinels[0].address();
    let other = Redis::sentinel("redis://user:sesame@other", [sentinel.as_str()]).unwrap();
    let why = check(other).await;
    assert!(
        why.contains("knows no primary of the name \"other\""),
        "{why}"
    );
    let why = check(Redis::single(&sentinel).unwrap()).await;
    assert!(why.contains("a Sentinel: use Redis::sentinel"), "{why}");
    let server = all.servers[0].address();
    let why = check(Redis::sentinel("redis://main", [server.as_str()]).unwrap()).await;
    assert!(why.contains("is a server that is no Sentinel"), "{why}");
    let replica = all.servers[1].address();
    let why = check(Redis::single(&replica).unwrap()).await;
    assert!(why.contains("is a replica"), "{why}");
    let why = Redis::sentinel("redis://main", []).unwrap_err().to_string();
    assert!(why.contains("at least one Sentinel"), "{why}");
}
