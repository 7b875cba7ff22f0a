//! The memory of a live bucket, and that idle ones release it.
//!
//! A separate binary, because counting replaces the allocator of the whole program.

use std::time::Duration;

use allocation_counter::measure;
use portunus::key::KeyFamily;
use portunus::limit::{
    BucketId, LimitBucket, LimitRequest, LimiterSlot, LocalLimiter, RateLimiter,
};
use portunus::quota::Quotas;
use portunus::testing::ManualClock;

const BUCKETS: usize = 10_000;
/// As many as are asked a thousand times.
const FEW: usize = 1000;
const FEW_SIGNED: i64 = 1000;

/// Ten thousand families, each with a slot as in a cached key.
struct Keys(Vec<(KeyFamily, LimiterSlot)>);

impl Keys {
    fn new(count: usize) -> Self {
        let name = |number| KeyFamily::new(&format!("key_{number:022}")).unwrap();
        Self(
            (0..count)
                .map(|number| (name(number), LimiterSlot::new()))
                .collect(),
        )
    }

    fn ask(&self, limiter: &LocalLimiter, quotas: &Quotas) {
        for (family, slot) in &self.0 {
            let bucket = [LimitBucket::new(BucketId::Family(family), quotas).with_slot(slot)];
            assert!(
                limiter
                    .try_acquire(&LimitRequest::new(&bucket, 1))
                    .unwrap()
                    .unwrap()
                    .is_admitted()
            );
        }
    }
}

/// The memory that is still held, of all that was allocated meanwhile.
fn held(act: impl FnOnce()) -> i64 {
    measure(act).bytes_current
}

#[test]
fn a_bucket_grows_with_its_use_and_takes_less_than_450_bytes_in_full_use() {
    // The minute in full, and the hour: in the first minutes, and spread over the whole hour.
    for (name, pause, requests) in [
        ("sixty at once, each minute", 60_001_u64, 60_u32),
        ("one a second", 1_020, 1),
        ("sixty at once, over the whole hour", 211_000, 60),
    ] {
        let clock = ManualClock::new();
        let limiter = LocalLimiter::builder().clock(clock.clone()).build();
        let (keys, quotas) = (Keys::new(FEW), Quotas::default());
        let first = held(|| keys.ask(&limiter, &quotas)) / FEW_SIGNED;
        assert!(first < 250, "{name}: {first} after one request");
        let mut admitted = 1;
        let more = held(|| {
            while admitted < 1000 {
                clock.advance(Duration::from_millis(pause));
                for _ in 0..requests.min(1000 - admitted) {
                    keys.ask(&limiter, &quotas);
                    admitted += 1;
                }
            }
        });
        let each = first + more / FEW_SIGNED;
        println!("a bucket takes {first} bytes after one request, {each} in full use: {name}");
        assert_eq!(limiter.live_buckets(), FEW);
        assert!(each <= 450, "{name}: {each}");
        // Sixty times of two bytes, and a hundred bytes of the cell are the minimum: less would mean
        // that something was not counted.
        assert!(each > 220, "{name}: {each}");
    }
}

#[test]
fn idle_buckets_give_their_memory_back() {
    let clock = ManualClock::new();
    let limiter = LocalLimiter::builder().clock(clock.clone()).build();
    let (keys, quotas) = (Keys::new(BUCKETS), Quotas::default());
    // The first requests need no memory besides the cell.
    let live = held(|| (0..20).for_each(|_| keys.ask(&limiter, &quotas)));

    // Not while they may still have to refuse requests.
    clock.advance(Duration::from_secs(3600));
    assert_eq!(held(|| limiter.sweep()), 0);
    assert_eq!(limiter.live_buckets(), BUCKETS);

    // The windows are freed, although cached keys still point to the cells.
    clock.advance(Duration::from_secs(15));
    let windows = -held(|| limiter.sweep());
    assert_eq!(limiter.live_buckets(), 0);
    assert!(windows > live / 10, "{windows} of {live}");

    // The cells are freed once nothing points to them. The tables of the map keep their size.
    let cells = -held(|| {
        drop(keys);
        limiter.sweep();
    });
    assert!(
        windows + cells > live * 9 / 10,
        "{} of {live}",
        windows + cells
    );
    let tables = -held(|| drop(limiter));
    assert!(
        windows + cells + tables >= live,
        "{windows} + {cells} + {tables} of {live}"
    );
}

#[test]
fn requests_that_need_space_trigger_a_sweep() {
    let clock = ManualClock::new();
    let limiter = LocalLimiter::builder().clock(clock.clone()).build();
    let quotas = Quotas::default();
    Keys::new(BUCKETS).ask(&limiter, &quotas);
    clock.advance(Duration::from_secs(2 * 3600));
    let name = |number| KeyFamily::new(&format!("later_{number}")).unwrap();
    for number in 0..600 {
        let family = name(number);
        let bucket = [LimitBucket::new(BucketId::Family(&family), &quotas)];
        assert!(
            limiter
                .try_acquire(&LimitRequest::new(&bucket, 1))
                .unwrap()
                .unwrap()
                .is_admitted()
        );
    }
    assert_eq!(limiter.live_buckets(), 600);
}
