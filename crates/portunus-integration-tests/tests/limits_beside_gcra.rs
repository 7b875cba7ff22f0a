//! A comparison with GCRA, the algorithm of `governor`: how many requests of a flood after a full
//! burst are admitted, for the same quota of 60 per minute.
//!
//! GCRA replenishes one unit per second from the start. So in the minute after a burst of 60 it
//! admits 59 more before the minute is over, and one at its very end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use governor::clock::FakeRelativeClock;
use portunus::Clock;
use portunus::limit::{BucketId, LimitBucket, LimitRequest, LocalLimiter, RateLimiter};
use portunus::quota::{Quota, Quotas};

const MINUTE: u64 = 60_000;
/// The flood: one attempt every 100 milliseconds for five minutes.
const BETWEEN: u64 = 100;
const END: u64 = 5 * MINUTE;

/// A clock in milliseconds, set manually.
#[derive(Debug, Clone, Default)]
struct Millis(Arc<AtomicU64>);

impl Clock for Millis {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.monotonic()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A burst of sixty at once, then the flood. Returns the times of admitted requests.
fn flood(mut admits: impl FnMut(u64) -> bool) -> Vec<u64> {
    let burst = std::iter::repeat_n(0, 60);
    burst
        .chain((BETWEEN..=END).step_by(usize::try_from(BETWEEN).unwrap()))
        .filter(|&time| admits(time))
        .collect()
}

/// The maximum number of admissions within any interval of at most this length.
fn most_within(admitted: &[u64], length: u64) -> usize {
    let within = |from: u64| {
        admitted
            .iter()
            .filter(|&&time| from <= time && time - from <= length)
            .count()
    };
    admitted.iter().map(|&from| within(from)).max().unwrap_or(0)
}

fn by_gcra() -> Vec<u64> {
    let clock = FakeRelativeClock::default();
    let quota = governor::Quota::per_minute(NonZeroU32::new(60).unwrap());
    let limiter = governor::RateLimiter::direct_with_clock(quota, clock.clone());
    let mut then = 0;
    flood(|now| {
        clock.advance(Duration::from_millis(now - then));
        then = now;
        limiter.check().is_ok()
    })
}

fn by_windows() -> Vec<u64> {
    let clock = Millis::default();
    let limiter = LocalLimiter::builder().clock(clock.clone()).build();
    let quotas = Quotas::new([Quota::per_minute(60).unwrap()]).unwrap();
    let bucket = [LimitBucket::new(BucketId::Custom("one"), &quotas)];
    flood(|now| {
        clock.0.store(now, Ordering::Relaxed);
        limiter
            .try_acquire(&LimitRequest::new(&bucket, 1))
            .unwrap()
            .unwrap()
            .is_admitted()
    })
}

#[test]
fn within_some_minute_gcra_admits_nearly_twice_the_quota_and_strict_windows_the_quota() {
    let (gcra, strict) = (by_gcra(), by_windows());
    let shorter = MINUTE - 1;
    println!(
        "| 60 per minute, a burst and a flood | under 60 s | within 60 s, ends included | in 5 min 0 s |"
    );
    println!("|---|---|---|---|");
    for (name, admitted) in [
        ("GCRA with burst 60 (`governor`)", &gcra),
        ("`LocalLimiter`", &strict),
    ] {
        let (open, closed) = (
            most_within(admitted, shorter),
            most_within(admitted, MINUTE),
        );
        println!("| {name} | {open} | {closed} | {} |", admitted.len());
    }
    assert_eq!(
        (most_within(&gcra, shorter), most_within(&gcra, MINUTE)),
        (119, 120)
    );
    assert_eq!(
        (most_within(&strict, shorter), most_within(&strict, MINUTE)),
        (60, 60)
    );
    // Strict does not mean wasteful: each minute admits its sixty as soon as the previous sixty
    // have left the window.
    assert_eq!(strict.len(), 60 * 5);
}
