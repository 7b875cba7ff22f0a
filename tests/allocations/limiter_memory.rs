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
const BUCKETS_SIGNED: i64 = 10_000;

/// Ten thousand families, each with a slot as in a cached key.
struct Keys(Vec<(KeyFamily, LimiterSlot)>);

impl Keys {
    fn new() -> Self {
        let name = |number| KeyFamily::new(&format!("key_{number:022}")).unwrap();
        Self(
            (0..BUCKETS)
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
fn a_live_bucket_at_the_default_quotas_takes_less_than_a_kibibyte_and_a_half() {
    let clock = ManualClock::new();
    let limiter = LocalLimiter::builder().clock(clock).build();
    let (keys, quotas) = (Keys::new(), Quotas::default());
    let each = held(|| keys.ask(&limiter, &quotas)) / BUCKETS_SIGNED;
    println!("a live bucket takes {each} bytes");
    assert_eq!(limiter.live_buckets(), BUCKETS);
    assert!(each < 1536, "{each}");
    // Sixty times of eight bytes and 256 slots of two are the minimum: less would mean that
    // something was not counted.
    assert!(each > 60 * 8 + 256 * 2, "{each}");
}

#[test]
fn a_bucket_in_full_use_takes_no_more() {
    let clock = ManualClock::new();
    let limiter = LocalLimiter::builder().clock(clock.clone()).build();
    let (keys, quotas) = (Keys::new(), Quotas::default());
    keys.ask(&limiter, &quotas);
    let more = held(|| {
        for _ in 0..50 {
            clock.advance(Duration::from_secs(2));
            keys.ask(&limiter, &quotas);
        }
    });
    assert_eq!(more, 0);
}

#[test]
fn idle_buckets_give_their_memory_back() {
    let clock = ManualClock::new();
    let limiter = LocalLimiter::builder().clock(clock.clone()).build();
    let (keys, quotas) = (Keys::new(), Quotas::default());
    let live = held(|| keys.ask(&limiter, &quotas));

    // Not while they may still have to refuse requests.
    clock.advance(Duration::from_secs(3600));
    assert_eq!(held(|| limiter.sweep()), 0);
    assert_eq!(limiter.live_buckets(), BUCKETS);

    // The windows are freed, although cached keys still point to the cells.
    clock.advance(Duration::from_secs(15));
    let windows = -held(|| limiter.sweep());
    assert_eq!(limiter.live_buckets(), 0);
    assert!(windows > live * 8 / 10, "{windows} of {live}");

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
    Keys::new().ask(&limiter, &quotas);
    clock.advance(Duration::from_secs(2 * 3600));
    let name = |number| KeyFamily::new(&format!("later_{number}")).unwrap();
    for number in 0..200 {
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
    assert_eq!(limiter.live_buckets(), 200);
}
