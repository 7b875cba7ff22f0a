//! The limiters without anything around them: a cell found by the slot in the cached key, against
//! two checks of `governor`.

use std::hint::black_box;
use std::num::NonZeroU32;

use governor::RateLimiter as Governor;
use governor::middleware::NoOpMiddleware;
use portunus::RateLimiter;
use portunus::key::KeyFamily;
use portunus::limit::{BucketId, LimitBucket, LimitRequest, LimiterSlot, LocalLimiter};
use portunus::quota::{Quota, Quotas};

use crate::shape::Settings;
use crate::straightforward::Keyed;

/// Asks a limiter about a key by number.
pub type Ask = Box<dyn Fn(usize) -> bool>;

/// The quotas of each key.
pub fn quotas(settings: Settings) -> Quotas {
    let both = [
        Quota::per_minute(settings.per_minute.into()),
        Quota::per_hour(settings.per_hour.into()),
    ];
    Quotas::new(both.into_iter().flatten()).expect("valid quotas")
}

pub fn by_slot(settings: Settings) -> Ask {
    let limiter = LocalLimiter::builder().most_buckets(settings.keys).build();
    let quotas = quotas(settings);
    let keys: Vec<_> = (0..settings.keys)
        .map(|key| KeyFamily::new(&format!("key_{key:022}")).expect("a valid name"))
        .map(|family| (family, LimiterSlot::new()))
        .collect();
    warm(settings, move |key| {
        let (family, slot) = &keys[key];
        let bucket = LimitBucket::new(BucketId::Family(family), &quotas).with_slot(slot);
        let answer = limiter.try_acquire(&LimitRequest::new(&[bucket], 1));
        let answer = answer.and_then(Result::ok);
        black_box(answer).is_some_and(|decision| decision.is_admitted())
    })
}

pub fn governor_twice(settings: Settings) -> Ask {
    let units = |units| NonZeroU32::new(units).expect("some");
    let minute = governor::Quota::per_minute(units(settings.per_minute));
    let hour = governor::Quota::per_hour(units(settings.per_hour));
    let minute: Keyed<NoOpMiddleware> = Governor::keyed(minute);
    let hour: Keyed<NoOpMiddleware> = Governor::keyed(hour);
    warm(settings, move |key| {
        let key = key as u64;
        minute.check_key(&key).is_ok() && hour.check_key(&key).is_ok()
    })
}

/// Asks once for each key, so that all cells exist.
fn warm(settings: Settings, ask: impl Fn(usize) -> bool + 'static) -> Ask {
    assert!((0..settings.keys).all(&ask), "the quotas suffice");
    Box::new(ask)
}
