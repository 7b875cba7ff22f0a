//! The limiter compared with `governor` in one run: each request is counted per minute and per
//! hour.
//!
//! `cargo bench --bench limiter`; `LIMITER_KEYS=1000000` for a million keys (about 1.3 GB) instead
//! of 100 000. Timings depend on the machine; compare within one run.
//!
//! `governor` has one quota per limiter, so the comparison uses two keyed limiters in sequence: a
//! request that the hour refuses has already been counted by the minute, which a strict limiter
//! must not do.
//!
//! The quotas admit nearly all requests, because admitted ones write; refusals are measured
//! separately.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

use std::env;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use portunus::key::KeyFamily;
use portunus::limit::{
    BucketId, LimitBucket, LimitRequest, LimiterSlot, LocalLimiter, RateLimiter,
};
use portunus::quota::{Quota, Quotas};

const THREADS: usize = 2;
/// High quotas per minute and per hour, so that refusals are not measured. Both count in slots.
const MINUTE: u32 = 50_000_000;
const HOUR: u32 = 3_000_000_000;

struct Strict {
    limiter: LocalLimiter,
    quotas: Quotas,
    keys: Vec<(KeyFamily, LimiterSlot)>,
}

impl Strict {
    fn new(keys: usize, quotas: Quotas) -> Self {
        let limiter = LocalLimiter::builder().most_buckets(keys).build();
        let keys = families(keys)
            .map(|family| (family, LimiterSlot::new()))
            .collect();
        let strict = Self {
            limiter,
            quotas,
            keys,
        };
        for key in 0..strict.keys.len() {
            strict.by_slot(key);
        }
        strict
    }

    fn ask(&self, bucket: LimitBucket<'_>) -> bool {
        let answer = self.limiter.try_acquire(&LimitRequest::new(&[bucket], 1));
        answer
            .and_then(Result::ok)
            .expect("an answer at once")
            .is_admitted()
    }

    /// The cell is found through the slot in the cached key, as on the hot path.
    fn by_slot(&self, key: usize) -> bool {
        let (family, slot) = &self.keys[key];
        self.ask(LimitBucket::new(BucketId::Family(family), &self.quotas).with_slot(slot))
    }

    /// The cell is found by the name of the family.
    fn by_name(&self, key: usize) -> bool {
        self.ask(LimitBucket::new(
            BucketId::Family(&self.keys[key].0),
            &self.quotas,
        ))
    }
}

type Keyed = governor::RateLimiter<KeyFamily, DashMapStateStore<KeyFamily>, DefaultClock>;

struct Gcra {
    minute: Keyed,
    hour: Keyed,
    keys: Vec<KeyFamily>,
}

impl Gcra {
    fn new(keys: usize, minute: u32, hour: u32) -> Self {
        let units = |units| NonZeroU32::new(units).expect("some");
        let gcra = Self {
            minute: governor::RateLimiter::keyed(governor::Quota::per_minute(units(minute))),
            hour: governor::RateLimiter::keyed(governor::Quota::per_hour(units(hour))),
            keys: families(keys).collect(),
        };
        for key in 0..gcra.keys.len() {
            gcra.ask(key);
        }
        gcra
    }

    fn ask(&self, key: usize) -> bool {
        let key = &self.keys[key];
        self.minute.check_key(key).is_ok() && self.hour.check_key(key).is_ok()
    }
}

fn families(keys: usize) -> impl Iterator<Item = KeyFamily> {
    (0..keys).map(|key| KeyFamily::new(&format!("key_{key:022}")).expect("a valid name"))
}

fn quotas(minute: u32, hour: u32) -> Quotas {
    let quotas = [
        Quota::per_minute(minute.into()),
        Quota::per_hour(hour.into()),
    ];
    Quotas::new(quotas.into_iter().flatten()).expect("valid quotas")
}

/// The time in which each thread makes this many calls.
fn together(times: u64, ask: impl Fn(usize, u64) -> bool + Sync) -> Duration {
    let barrier = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (barrier, ask) = (&barrier, &ask);
                scope.spawn(move || {
                    barrier.wait();
                    (0..times).for_each(|turn| {
                        black_box(ask(thread, turn));
                    });
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().expect("no panic");
        }
        start.elapsed()
    })
}

/// A key for each call of each thread, in an order that caches cannot predict.
fn scattered(thread: usize, turn: u64, keys: usize) -> usize {
    let mixed = (turn * 2 + thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 20).unwrap_or(0) % keys
}

fn one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("one thread");
    let strict = Strict::new(1, quotas(MINUTE, HOUR));
    group.bench_function("admitted/strict, by slot", |b| {
        b.iter(|| strict.by_slot(black_box(0)));
    });
    group.bench_function("admitted/strict, by name", |b| {
        b.iter(|| strict.by_name(black_box(0)));
    });
    let gcra = Gcra::new(1, MINUTE, HOUR);
    group.bench_function("admitted/governor, twice", |b| {
        b.iter(|| gcra.ask(black_box(0)));
    });

    let strict = Strict::new(1, quotas(1, 1000));
    assert!(!strict.by_slot(0));
    group.bench_function("refused/strict, by slot", |b| {
        b.iter(|| strict.by_slot(black_box(0)));
    });
    let gcra = Gcra::new(1, 1, 1000);
    group.bench_function("refused/governor, once", |b| {
        b.iter(|| gcra.ask(black_box(0)));
    });
    group.finish();
}

fn two_threads(c: &mut Criterion) {
    let many = env::var("LIMITER_KEYS")
        .ok()
        .and_then(|keys| keys.parse().ok())
        .unwrap_or(100_000_usize);
    for keys in [1, many] {
        let mut group = c.benchmark_group(format!("two threads, {keys} keys"));
        group.throughput(Throughput::Elements(THREADS as u64));
        let key = |thread, turn| {
            if keys == 1 {
                0
            } else {
                scattered(thread, turn, keys)
            }
        };
        // With a million keys the usual quotas: exact times for the minute, slots for the hour.
        let (minute, hour) = if keys == 1 {
            (MINUTE, HOUR)
        } else {
            (60, 1000)
        };
        {
            let strict = Strict::new(keys, quotas(minute, hour));
            group.bench_function("strict, by slot", |b| {
                b.iter_custom(|times| {
                    together(times, |thread, turn| strict.by_slot(key(thread, turn)))
                });
            });
            group.bench_function("strict, by name", |b| {
                b.iter_custom(|times| {
                    together(times, |thread, turn| strict.by_name(key(thread, turn)))
                });
            });
        }
        let gcra = Gcra::new(keys, minute, hour);
        group.bench_function("governor, twice", |b| {
            b.iter_custom(|times| together(times, |thread, turn| gcra.ask(key(thread, turn))));
        });
        group.finish();
    }
}

criterion_group!(benches, one_thread, two_threads);
criterion_main!(benches);
