//! The script with a clock of the test's own: it passes the strict suite, which compares every
//! decision with a model, and the server's clock can be set back.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation
)]

use std::time::Duration;

use portunus::limit::{BucketId, LimitBucket, LimitRequest, RateLimiter, WindowState};
use portunus::quota::{Quota, Quotas};
use portunus::testing::ManualClock;
use portunus_test_support::redis::Redis as Server;

use crate::clocked::Clocked;

fn quotas<const N: usize>(list: [(u64, u64); N]) -> Quotas {
    let quota = |(limit, seconds): (u64, u64)| {
        let name = format!("q{limit}-{seconds}");
        Quota::new(&name, limit, Duration::from_secs(seconds)).unwrap()
    };
    Quotas::new(list.map(quota)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_passes_the_strict_suite() {
    let server = Server::start();
    let count = std::sync::atomic::AtomicU32::new(0);
    let make = |clock| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let limiter = Clocked::on(&server, &format!("suite{number}"), clock);
        async { limiter }
    };
    portunus_conformance::rate_limiter(make).await.unwrap();
}

/// What makes the script take the general case only, or fail where it would take it.
pub(crate) const GENERAL: (&str, &str) =
    ("is_usual = type(value)", "is_usual = nil == type(value)");
const NEVER_GENERAL: (&str, &str) = ("-- The general case.", "error('the general case')");

#[tokio::test(flavor = "multi_thread")]
async fn the_general_case_of_the_script_passes_the_strict_suite() {
    let server = Server::start();
    let count = std::sync::atomic::AtomicU32::new(0);
    let make = |clock| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let limiter = Clocked::with(&server, &format!("suite{number}"), clock, GENERAL);
        async { limiter }
    };
    portunus_conformance::rate_limiter(make).await.unwrap();
}

#[tokio::test]
async fn usual_requests_take_the_usual_case_of_the_script() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let general = Clocked::on(&server, "usual", clock.clone());
    let usual = Clocked::with(&server, "usual", clock.clone(), NEVER_GENERAL);
    for quotas in [
        Quotas::default(),
        quotas([(60, 60)]),
        quotas([(3, 7), (90, 70), (500, 700)]),
    ] {
        server.cli(&["flushall"]);
        let limit = quotas.as_slice()[0].limit();
        assert_eq!(general.passed(&quotas, 1).await, 1);
        for turn in 1..2 * limit {
            let admitted = usual.one(&quotas).await.is_admitted();
            assert_eq!(admitted, turn < limit, "{quotas}: {turn}");
            clock.advance(Duration::from_millis(1));
        }
        // Also if units are gone since the last one: some, and all of a window.
        let window = quotas.as_slice()[0].window();
        clock.advance(window - Duration::from_millis(limit));
        for _ in 0..limit {
            let _ = usual.one(&quotas).await;
            clock.advance(Duration::from_millis(3));
        }
        clock.advance(window + window / 200);
        assert_eq!(usual.passed(&quotas, 1).await, 1, "{quotas}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_admits_no_more_and_locks_a_key_for_one_window_at_most() {
    let (server, hour) = (Server::start(), Duration::from_secs(3600));
    for (limit, window) in [(5, 60), (200, 60)] {
        let (clock, quotas) = (ManualClock::new(), quotas([(limit, window)]));
        let limiter = Clocked::on(&server, &format!("back{limit}"), clock.clone());
        assert_eq!(limiter.passed(&quotas, limit - 2).await, limit - 2);
        let back = limiter.behind(hour);
        assert_eq!(back.passed(&quotas, 5).await, 2, "what was left");
        // The clock goes on from there. The units are all gone a window later, although no request
        // was admitted in between.
        clock.advance(Duration::from_secs(window - 1));
        assert_eq!(back.passed(&quotas, 1).await, 0);
        clock.advance(Duration::from_secs(1) + Duration::from_secs(window) / 256);
        clock.advance(Duration::from_millis(1));
        assert_eq!(back.passed(&quotas, limit + 5).await, limit);
        // It is set right again: a step forward, which a server cannot tell from time.
        assert_eq!(limiter.passed(&quotas, 2 * limit).await, limit);
        // Small steps back, again and again, do not add up.
        for step in 1..=20 {
            let back = limiter.behind(Duration::from_millis(step * 700));
            assert_eq!(back.passed(&quotas, 1).await, 0, "after step {step}");
        }
        let back = limiter.behind(Duration::from_millis(20 * 700));
        clock.advance(Duration::from_secs(window) + Duration::from_secs(window) / 256);
        clock.advance(Duration::from_millis(1));
        assert_eq!(back.passed(&quotas, limit + 5).await, limit);
    }
}

#[tokio::test]
async fn nodes_with_different_quotas_count_the_same_units() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let limiter = Clocked::on(&server, "nodes", clock.clone());
    let (old, new) = (
        quotas([(60, 60), (1000, 3600)]),
        quotas([(90, 60), (40, 10)]),
    );
    let mut admitted = 0;
    for turn in 0..200 {
        let quotas = if turn % 2 == 0 { &old } else { &new };
        admitted += limiter.passed(quotas, 1).await;
        clock.advance(Duration::from_millis(10));
    }
    // In ten seconds, 40 pass the new quotas; the old ones let 60 pass in a minute.
    assert_eq!(admitted, 60);
    let state = limiter.one(&old).await.windows().to_vec();
    let left: Vec<_> = state.iter().map(WindowState::remaining).collect();
    assert_eq!(left, [0, 940]);
}

#[tokio::test]
async fn quotas_that_change_all_the_time_do_not_grow_the_state() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let limiter = Clocked::on(&server, "grow", clock.clone());
    for turn in 0..200 {
        let quotas = quotas([(1_000_000, 3600 + turn), (1_000_000, 60)]);
        assert!(limiter.one(&quotas).await.is_admitted());
        clock.advance(Duration::from_millis(100));
    }
    // Of 24 recorders at most.
    let length = limiter.bytes(&server);
    assert!((1000..3_000).contains(&length), "{length} bytes");
    // No unit was forgotten by the recorders that were dropped.
    let all = quotas([(200, 5000)]);
    assert!(!limiter.one(&all).await.is_admitted());
}

#[tokio::test]
async fn requests_of_one_moment_take_one_slot() {
    let (server, clock) = (Server::start(), ManualClock::new());
    for (limit, most) in [(60, 120), (1000, 120)] {
        let limiter = Clocked::on(&server, &format!("one{limit}"), clock.clone());
        assert_eq!(limiter.passed(&quotas([(limit, 600)]), limit).await, limit);
        let length = limiter.bytes(&server);
        assert!(length < most, "{length} bytes");
    }
}

#[tokio::test]
async fn a_wider_window_begins_with_what_the_widest_before_it_reached() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let before = [[(9, 10), (9, 60)], [(9, 60), (9, 10)], [(90, 60), (90, 10)]];
    for (turn, windows) in before.into_iter().enumerate() {
        let limiter = Clocked::on(&server, &format!("wider{turn}"), clock.clone());
        assert_eq!(limiter.passed(&quotas(windows), 3).await, 3);
        clock.advance(Duration::from_secs(20));
        assert_eq!(limiter.passed(&quotas(windows), 1).await, 1);
        clock.advance(Duration::from_secs(20));
        let passed = limiter.passed(&quotas([(5, 3600)]), 9).await;
        assert_eq!(passed, 1, "{windows:?}");
        // One in between begins with the narrowest that reaches as far, which is exact.
        let within = limiter.one(&quotas([(5, 30), (5, 3600)])).await;
        let left: Vec<_> = within
            .windows()
            .iter()
            .map(WindowState::remaining)
            .collect();
        assert_eq!(left, [3, 0], "{windows:?}");
    }
}

#[tokio::test]
async fn overdrafts_are_counted_however_large_and_many() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let limiter = Clocked::on(&server, "overdraft", clock.clone());
    let small = quotas([(3, 60)]);
    let bucket = [LimitBucket::new(BucketId::Custom("b"), &small)];
    for cost in std::iter::repeat_n(1, 300).chain([70_000, u64::MAX, u64::MAX]) {
        let request = LimitRequest::new(&bucket, cost).overdrawing();
        let decision = limiter.acquire(&request).await.unwrap();
        assert!(decision.is_admitted(), "{cost}");
        clock.advance(Duration::from_millis(1));
    }
    // More times than are recorded exactly are counted in slots.
    assert!(limiter.bytes(&server) < 200);
    let all = quotas([(u64::from(u32::MAX), 60)]);
    assert_eq!(
        limiter.passed(&small, 2).await + limiter.passed(&all, 2).await,
        0
    );
    clock.advance(Duration::from_secs(61));
    assert_eq!(limiter.passed(&small, 5).await, 3);
}

#[tokio::test]
async fn a_live_key_at_the_defaults_takes_less_than_two_kibibytes() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let limiter = Clocked::on(&server, "size", clock.clone());
    let (family, tenant) = (
        "0123456789abcdef0123456789abcdef",
        "a-tenant-with-a-long-name",
    );
    let family = portunus::key::KeyFamily::new(family).unwrap();
    let tenant = portunus::key::TenantId::new(tenant).unwrap();
    let quotas = Quotas::default();
    let bucket = [LimitBucket::new(BucketId::Family(&family), &quotas)];
    let request = LimitRequest::new(&bucket, 1).of_tenant(Some(&tenant));
    let mut most = 0;
    for turn in 0..4000 {
        // Evenly, and in bursts: all slots of the hour in use, and all times of the minute.
        let pause = if turn % 60 == 0 {
            42_000
        } else {
            3_600 - 10 * (turn % 60)
        };
        clock.advance(Duration::from_millis(if turn < 2000 {
            3_600
        } else {
            pause
        }));
        let _ = limiter.acquire(&request).await.unwrap();
        if turn % 20 == 0 {
            let key = "size:{a-tenant-with-a-long-name}:k:0123456789abcdef0123456789abcdef";
            let usage = server.cli(&["memory", "usage", key]);
            most = most.max(usage.parse::<u64>().unwrap());
        }
    }
    println!("a live key takes at most {most} bytes");
    assert!((800..2048).contains(&most), "{most} bytes");
}

#[tokio::test]
async fn the_longest_windows_and_largest_quotas_are_exact() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let limiter = Clocked::on(&server, "long", clock.clone());
    let longest = 400 * 24 * 3600;
    // In the year 2170, a double still holds the microseconds of the server's clock.
    clock.advance(Duration::from_secs(200 * 365 * 24 * 3600));
    let few = quotas([(2, longest)]);
    assert_eq!(limiter.passed(&few, 5).await, 2);
    let wait = limiter.one(&few).await.retry_after().unwrap();
    assert!(wait > Duration::from_secs(longest), "{wait:?}");
    assert!(
        wait < Duration::from_secs(longest) + Duration::from_millis(11),
        "{wait:?}"
    );
    clock.advance(wait - Duration::from_micros(1));
    assert_eq!(limiter.passed(&few, 1).await, 0);
    clock.advance(Duration::from_micros(1));
    assert_eq!(limiter.passed(&few, 5).await, 2);

    let limiter = Clocked::on(&server, "large", clock.clone());
    let most = u64::from(u32::MAX);
    let large = quotas([(most, longest)]);
    let bucket = [LimitBucket::new(BucketId::Custom("b"), &large)];
    let all = limiter
        .acquire(&LimitRequest::new(&bucket, most - 1))
        .await
        .unwrap();
    assert_eq!(all.windows()[0].remaining(), 1);
    assert_eq!(limiter.passed(&large, 3).await, 1);
}
