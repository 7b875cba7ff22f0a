//! The in-process limiter, read without counting: agreement with decisions, and what a reading must
//! not do.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use portunus::limit::{
    BucketId, Decision, LimitBucket, LimitRequest, LimiterError, LimiterSlot, LocalLimiter,
    RateLimiter, WindowState,
};
use portunus::quota::{Quota, Quotas};
use portunus::testing::ManualClock;
use portunus_test_support::random::Random;

fn limiter(clock: &ManualClock) -> LocalLimiter {
    LocalLimiter::builder().clock(clock.clone()).build()
}

fn quotas(list: &[(u64, u64)]) -> Quotas {
    let quota = |(place, &(limit, seconds)): (usize, &(u64, u64))| {
        Quota::new(&format!("q{place}"), limit, Duration::from_secs(seconds)).unwrap()
    };
    Quotas::new(list.iter().enumerate().map(quota)).unwrap()
}

fn named<'a>(name: &'a str, quotas: &'a Quotas) -> [LimitBucket<'a>; 1] {
    [LimitBucket::new(BucketId::Custom(name), quotas)]
}

fn of_address(last: u8, quotas: &Quotas) -> [LimitBucket<'_>; 1] {
    let ip = IpAddr::from([192, 0, 2, last]);
    [LimitBucket::new(BucketId::Address(Some(ip)), quotas)]
}

fn read(limiter: &LocalLimiter, buckets: &[LimitBucket<'_>]) -> Vec<WindowState> {
    let request = LimitRequest::new(buckets, 1);
    let read = limiter.peek(&request).now_or_never();
    read.expect("without waiting").unwrap().expect("readable")
}

fn left(windows: &[WindowState]) -> Vec<u64> {
    windows.iter().map(WindowState::remaining).collect()
}

fn decide(
    limiter: &LocalLimiter,
    buckets: &[LimitBucket<'_>],
    cost: u64,
) -> Result<Decision, LimiterError> {
    let request = LimitRequest::new(buckets, cost);
    limiter.try_acquire(&request).expect("without waiting")
}

/// Two buckets whose quotas change at any time, in steps of zero to beyond the widest window.
#[test]
fn a_reading_agrees_with_the_next_decision_whatever_the_quotas_were() {
    for seed in 0..40 {
        let (mut random, clock) = (Random(seed), ManualClock::new());
        let limiter = limiter(&clock);
        let any = |random: &mut Random| {
            let mut list = Vec::new();
            for seconds in [1, 7, 60, 3600] {
                if random.one_in(2) || (seconds == 3600 && list.is_empty()) {
                    let most = random.pick(&[4, 64, 65, 500]);
                    list.push((random.between(1, most), seconds));
                }
            }
            quotas(&list)
        };
        let plans: Vec<Quotas> = (0..6).map(|_| any(&mut random)).collect();
        for _ in 0..400 {
            let millis = random.pick(&[0, 0, 0, 1, 250, 1_000, 7_100, 61_000, 4_000_000]);
            clock.advance(Duration::from_millis(millis));
            let (first, second) = (random.pick(&plans), random.pick(&plans));
            let [a, b] = [named("a", &first)[0], named("b", &second)[0]];
            let buckets = [a, b.in_class("c")];
            let buckets = if random.one_in(3) {
                &buckets[..1]
            } else {
                &buckets
            };
            let least = buckets.iter().flat_map(|of| of.quotas.as_slice());
            let cost = random.between(1, least.map(Quota::limit).min().unwrap());
            let seen = read(&limiter, buckets);
            assert_eq!(read(&limiter, buckets), seen, "seed {seed}");
            let decision = decide(&limiter, buckets, cost).unwrap();
            let fits = left(&seen).iter().all(|left| *left >= cost);
            assert_eq!(
                decision.is_admitted(),
                fits,
                "seed {seed}: {cost} of {seen:?}"
            );
            let used = if fits { cost } else { 0 };
            let expected: Vec<u64> = left(&seen).iter().map(|left| left - used).collect();
            assert_eq!(left(decision.windows()), expected, "seed {seed}");
            if !fits {
                let resets =
                    |of: &[WindowState]| -> Vec<_> { of.iter().map(WindowState::reset).collect() };
                assert_eq!(resets(decision.windows()), resets(&seen), "seed {seed}");
            }
        }
    }
}

#[test]
fn readings_create_no_bucket_and_keep_none() {
    let (clock, quotas) = (ManualClock::new(), quotas(&[(5, 60)]));
    let limiter = limiter(&clock);
    for number in 0..1000 {
        let windows = read(&limiter, &named(&number.to_string(), &quotas));
        assert_eq!((left(&windows), windows[0].reset()), (vec![5], None));
    }
    assert_eq!(limiter.live_buckets(), 0);
    assert!(
        decide(&limiter, &named("a", &quotas), 1)
            .unwrap()
            .is_admitted()
    );
    for _ in 0..70 {
        clock.advance(Duration::from_secs(1));
        let _ = read(&limiter, &named("a", &quotas));
    }
    limiter.sweep();
    assert_eq!(
        limiter.live_buckets(),
        0,
        "a bucket that is only read is idle"
    );
    assert_eq!(left(&read(&limiter, &named("a", &quotas))), [5]);
}

#[test]
fn a_full_limiter_is_read_and_readings_take_no_room() {
    let (clock, quotas) = (ManualClock::new(), quotas(&[(5, 60)]));
    let limiter = LocalLimiter::builder().clock(clock.clone());
    let limiter = limiter.most_buckets(2).most_addresses(2).build();
    for name in ["a", "b"] {
        for _ in 0..100 {
            let _ = read(&limiter, &named("c", &quotas));
        }
        assert!(
            decide(&limiter, &named(name, &quotas), 2)
                .unwrap()
                .is_admitted()
        );
    }
    assert_eq!(left(&read(&limiter, &named("a", &quotas))), [3]);
    // It has used nothing, although it is not counted until there is room for it.
    assert_eq!(left(&read(&limiter, &named("c", &quotas))), [5]);
    let full = decide(&limiter, &named("c", &quotas), 1);
    assert!(matches!(full, Err(LimiterError::Full(2))), "{full:?}");
}

#[test]
fn an_address_beyond_the_cap_reads_the_bucket_that_it_shares() {
    let (clock, quotas) = (ManualClock::new(), quotas(&[(5, 60)]));
    let limiter = LocalLimiter::builder().clock(clock.clone());
    let limiter = limiter.most_addresses(2).build();
    let mut expected = [4, 4, 4, 3, 2];
    for (last, left_then) in (0..).zip(expected) {
        let windows = decide(&limiter, &of_address(last, &quotas), 1).unwrap();
        assert_eq!(left(windows.windows()), [left_then], "{last}");
    }
    expected[2..].fill(2);
    for (last, now) in (0..).zip(expected) {
        assert_eq!(
            left(&read(&limiter, &of_address(last, &quotas))),
            [now],
            "{last}"
        );
    }
    // Also one that was never seen. Others share nothing with addresses.
    assert_eq!(left(&read(&limiter, &of_address(200, &quotas))), [2]);
    assert_eq!(left(&read(&limiter, &named("key", &quotas))), [5]);
    assert_eq!(limiter.live_buckets(), 2);
    clock.advance(Duration::from_secs(70));
    limiter.sweep();
    assert_eq!(left(&read(&limiter, &of_address(200, &quotas))), [5]);
}

#[test]
fn a_slot_is_neither_needed_nor_filled() {
    let (clock, quotas) = (ManualClock::new(), quotas(&[(5, 60)]));
    let (limiter, slot, foreign) = (limiter(&clock), LimiterSlot::new(), LimiterSlot::new());
    foreign.fill(u64::MAX, Arc::new(()));
    let [bare] = named("a", &quotas);
    assert_eq!(left(&read(&limiter, &[bare.with_slot(&slot)])), [5]);
    assert!(format!("{slot:?}").contains("false"), "{slot:?}");
    assert!(
        decide(&limiter, &[bare.with_slot(&slot)], 2)
            .unwrap()
            .is_admitted()
    );
    for bucket in [bare, bare.with_slot(&slot), bare.with_slot(&foreign)] {
        assert_eq!(left(&read(&limiter, &[bucket])), [3]);
    }
}

/// Threads that read, sweep and change quotas, while others count.
#[test]
fn readings_disturb_no_count_of_other_threads() {
    let limiter = LocalLimiter::default();
    let (two, one) = (
        quotas(&[(3_000, 600), (2_000, 3600)]),
        quotas(&[(2_500, 7200)]),
    );
    let (ended, admitted) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut least = u64::MAX;
                while !ended.load(Ordering::SeqCst) {
                    let most = 2_000 - admitted.load(Ordering::SeqCst).min(2_000);
                    let now = read(&limiter, &named("a", &two))[1].remaining();
                    assert!(
                        now <= most.min(least),
                        "{now} left after {most} and {least}"
                    );
                    least = now;
                    let _ = read(&limiter, &named("a", &one));
                    limiter.sweep();
                }
            });
        }
        let counting = || {
            for _ in 0..2_000 {
                let decision = decide(&limiter, &named("a", &two), 1).unwrap();
                admitted.fetch_add(u64::from(decision.is_admitted()), Ordering::SeqCst);
            }
        };
        let counting: Vec<_> = (0..3).map(|_| scope.spawn(counting)).collect();
        counting
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        ended.store(true, Ordering::SeqCst);
    });
    assert_eq!(admitted.load(Ordering::SeqCst), 2_000);
    assert_eq!(left(&read(&limiter, &named("a", &two))), [1_000, 0]);
}
