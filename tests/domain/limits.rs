//! The strict limiter: compared with a slow model that keeps every admission, in difficult cases,
//! and as callers see it.
//!
//! Times are nanoseconds of a manual clock. Random walks are seeded, and print their seed when they
//! fail.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portunus::adapter::tower::AuthLayer;
use portunus::authenticator::Authenticated;
use portunus::error::ParseError;
use portunus::key::{KeyFamily, Owner, TenantId};
use portunus::limit::{
    BucketId, Decision, LimitBucket, LimitFields, LimitPolicy, LimitReport, LimitRequest,
    LimiterError, LimiterSlot, LocalLimiter, OnOutage, RateLimiter, WindowState,
};
use portunus::manage::NewKey;
use portunus::network::{ClientIp, ForwardedHeader};
use portunus::quota::{Quota, Quotas};
use portunus::{AuthError, Authenticator, Clock, ErrorCode, Limits, RequestHead};
use portunus_test_support::random::Random;
use portunus_test_support::{Fixture, Head, Setup, stranger, tenant};
use tower::{Layer, Service, service_fn};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 3600 * SECOND;

// ---- tools ----

/// A clock whose monotonic time is set manually, in nanoseconds, forward or back.
#[derive(Debug, Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn at(nanos: u64) -> Self {
        Self(Arc::new(AtomicU64::new(nanos)))
    }
    fn set(&self, nanos: u64) {
        self.0.store(nanos, Ordering::SeqCst);
    }
    fn advance(&self, nanos: u64) {
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Clock for Time {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.monotonic()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

/// Prints the seed if the test panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed of this walk is {}", self.0);
        }
    }
}

/// The total number of steps of a walk: the full number in an optimized build, a tenth otherwise.
fn walks(steps: u64, each: u64, walk: impl Fn(&mut Random, u64)) {
    let steps = if cfg!(debug_assertions) {
        steps / 10
    } else {
        steps
    };
    for seed in 0..steps / each {
        let _seed = Seed(seed);
        walk(&mut Random(seed), each);
    }
}

fn quota(limit: u64, window: u64) -> Quota {
    Quota::new(
        &format!("q{limit}-{window}"),
        limit,
        Duration::from_nanos(window),
    )
    .unwrap()
}

fn quotas<const N: usize>(list: [(u64, u64); N]) -> Quotas {
    Quotas::new(list.into_iter().map(|(limit, window)| quota(limit, window))).unwrap()
}

fn window_of(quota: &Quota) -> u64 {
    u64::try_from(quota.window().as_nanos()).unwrap()
}

fn least(quotas: &Quotas) -> u64 {
    quotas.as_slice().iter().map(Quota::limit).min().unwrap()
}

fn limiter(time: &Time) -> LocalLimiter {
    LocalLimiter::builder().clock(time.clone()).build()
}

fn try_ask(
    limiter: &LocalLimiter,
    buckets: &[LimitBucket<'_>],
    cost: u64,
) -> Result<Decision, LimiterError> {
    limiter
        .try_acquire(&LimitRequest::new(buckets, cost))
        .expect("it never has to be awaited")
}

fn ask(limiter: &LocalLimiter, buckets: &[LimitBucket<'_>], cost: u64) -> Decision {
    try_ask(limiter, buckets, cost).unwrap()
}

/// One request of cost 1 on the bucket with this name.
fn one(limiter: &LocalLimiter, name: &str, quotas: &Quotas) -> Decision {
    ask(
        limiter,
        &[LimitBucket::new(BucketId::Custom(name), quotas)],
        1,
    )
}

/// Returns how many of this many requests pass.
fn admitted(limiter: &LocalLimiter, name: &str, quotas: &Quotas, requests: u64) -> u64 {
    (0..requests)
        .map(|_| u64::from(one(limiter, name, quotas).is_admitted()))
        .sum()
}

fn windows(decision: &Decision) -> Vec<WindowState> {
    decision.windows().to_vec()
}

fn remaining(decision: &Decision) -> Vec<u64> {
    windows(decision)
        .iter()
        .map(WindowState::remaining)
        .collect()
}

fn units_left(limits: &LimitReport) -> Vec<u64> {
    limits
        .quotas()
        .map(|(_, window)| window.remaining())
        .collect()
}

/// The names of the quotas that refused a request on one bucket.
fn violated(quotas: &Quotas, decision: &Decision) -> Vec<String> {
    let report = LimitReport::of(quotas, decision.clone());
    report.violated().into_iter().map(str::to_owned).collect()
}

fn retry(decision: &Decision) -> u64 {
    u64::try_from(decision.retry_after().expect("a refusal").as_nanos()).unwrap()
}

// ---- the slow model ----

/// Everything that a bucket admitted: the time and the number of units.
#[derive(Default)]
struct Past(Vec<(u64, u64)>);

impl Past {
    fn units_since(&self, since: u64) -> u64 {
        self.0
            .iter()
            .rev()
            .take_while(|(time, _)| *time >= since)
            .map(|(_, units)| units)
            .sum()
    }

    /// Returns the units in the closed interval of this length that ends now.
    fn units_within(&self, length: u64, now: u64) -> u64 {
        self.units_since(now.saturating_sub(length))
    }

    /// Checks all closed intervals of this length that begin with an admission.
    fn most_within(&self, length: u64) -> u64 {
        let (mut last, mut units, mut most) = (0, 0, 0);
        for &(begin, own) in &self.0 {
            while let Some((_, more)) = self
                .0
                .get(last)
                .filter(|(time, _)| *time <= begin.saturating_add(length))
            {
                units += more;
                last += 1;
            }
            most = most.max(units);
            units -= own;
        }
        most
    }
}

const MOST_EXACT: u64 = 64;

/// How much longer than a window a small quota may count a unit: a millisecond, in windows of up to
/// 46 days.
const TICK: u64 = SECOND / 1000;

/// The maximum number of units that may still count: those of the window, and those of a tick before
/// it, or for slots of the 256th part.
fn may_count(past: &Past, quota: &Quota, now: u64) -> u64 {
    let window = window_of(quota);
    let late = if quota.limit() <= MOST_EXACT {
        TICK
    } else {
        window / 256 + 1
    };
    past.units_within(window + late, now)
}

/// Checks a decision about one bucket, made at `now`, against everything that the bucket had
/// admitted before.
fn check(
    past: &Past,
    quotas: &Quotas,
    cost: u64,
    now: u64,
    decision: &Decision,
    windows: &[WindowState],
) {
    let admitted = if decision.is_admitted() { cost } else { 0 };
    assert_eq!(windows.len(), quotas.as_slice().len());
    for (quota, window) in quotas.as_slice().iter().zip(windows) {
        let (limit, length) = (quota.limit(), window_of(quota));
        let (must, may) = (past.units_within(length, now), may_count(past, quota, now));
        let context =
            || format!("{quota:?} at {now}, cost {cost}: {must} to {may} count; {decision:?}");
        // Never more than the limit, and never a refusal below the limit.
        assert!(
            !decision.is_admitted() || must + cost <= limit,
            "too many: {}",
            context()
        );
        assert!(
            !window.is_violated() || may + cost > limit,
            "refused too early: {}",
            context()
        );
        assert!(
            decision.is_admitted() || window.is_violated() || must + cost <= limit,
            "not violated: {}",
            context()
        );
        // The reported state matches the model.
        assert!(
            window.remaining() <= limit.saturating_sub(must + admitted),
            "{}",
            context()
        );
        assert!(
            window.remaining() >= limit.saturating_sub(may + admitted),
            "{}",
            context()
        );
        assert_eq!(
            window.reset().is_none(),
            window.remaining() == limit,
            "{}",
            context()
        );
        let longest = Duration::from_nanos(length + length / 256 + 1);
        assert!(
            window
                .reset()
                .is_none_or(|reset| Duration::ZERO < reset && reset <= longest),
            "{}",
            context()
        );
    }
    assert_eq!(
        decision.is_admitted(),
        !decision.windows().iter().any(WindowState::is_violated)
    );
}

fn random_quotas(random: &mut Random) -> Quotas {
    let mut list: Vec<Quota> = Vec::new();
    let count = random.between(1, 3);
    while list.len() as u64 != count {
        let limit = match random.below(10) {
            0 => 1,
            1 => random.pick(&[MOST_EXACT, MOST_EXACT + 1]),
            2..=5 => random.between(1, MOST_EXACT),
            6..=8 => random.between(MOST_EXACT + 1, 600),
            // Wider windows count.
            _ => random.between(60_000, 200_000),
        };
        let window = match random.below(10) {
            0 => SECOND,
            1 => 7 * SECOND,
            2..=3 => MINUTE,
            4 => 90 * SECOND,
            5..=6 => HOUR,
            7 => 24 * HOUR,
            8 => random.between(SECOND, 300 * SECOND),
            _ => random.pick(&[
                SECOND + 1,
                SECOND + 255,
                MINUTE - 1,
                MINUTE + 1,
                HOUR + 12_345,
            ]),
        };
        let new = quota(limit, window);
        if list.iter().all(|known| known.name() != new.name()) {
            list.push(new);
        }
    }
    Quotas::new(list).unwrap()
}

fn random_cost(random: &mut Random, most: u64) -> u64 {
    match random.below(10) {
        0..=5 => 1,
        6..=8 => random.between(1, most.min(5)),
        _ => random.between(1, (most / 2).max(1)),
    }
}

/// The next time step: none, a tick, about the rate of the quota, whole seconds, almost a window,
/// or hours.
fn random_step(random: &mut Random, quotas: &Quotas) -> u64 {
    let quota =
        &quotas.as_slice()[usize::try_from(random.below(quotas.as_slice().len() as u64)).unwrap()];
    let (window, limit) = (window_of(quota), quota.limit());
    match random.below(20) {
        0..=8 => 0,
        9 => 1,
        10..=14 => random.below(2 * window / limit + 2),
        15..=16 => random.between(1, 3) * SECOND,
        17 => random.below(window / 16),
        18 if random.one_in(4) => {
            (window + random.pick(&[0, 1, window / 256, window / 256 + 1])) - random.below(2)
        }
        18 => random.below(window / 256 + 2),
        _ if random.one_in(20) => random.between(1, 30) * HOUR,
        _ => random.below(window / 2),
    }
}

// ---- against the model ----

#[test]
fn in_a_million_random_steps_no_interval_has_too_many_and_no_refusal_is_too_early() {
    walks(1_000_000, 2_000, |random, steps| {
        let start = random.pick(&[
            0,
            1,
            17 * SECOND,
            1_000_000 * SECOND + 123,
            40_000_000 * SECOND,
        ]);
        let time = Time::at(start);
        let (limiter, quotas) = (limiter(&time), random_quotas(random));
        let bucket = [LimitBucket::new(BucketId::Custom("one"), &quotas)];
        let (mut past, mut now, mut refusals) = (Past::default(), start, 0);
        let act = |now: u64, cost: u64, past: &mut Past| {
            time.set(now);
            let decision = ask(&limiter, &bucket, cost);
            check(past, &quotas, cost, now, &decision, &windows(&decision));
            if decision.is_admitted() {
                past.0.push((now, cost));
            }
            decision
        };
        for _ in 0..steps {
            now += random_step(random, &quotas);
            let cost = random_cost(random, least(&quotas));
            let decision = act(now, cost, &mut past);
            if decision.is_admitted() {
                continue;
            }
            refusals += 1;
            // A refusal changes nothing: neither the answer to the same request nor to a cheaper
            // one.
            assert_eq!(act(now, cost, &mut past), decision);
            let wait = retry(&decision);
            match random.below(8) {
                // A lone retry passes at exactly that time, and not a tick earlier.
                0 | 1 => {
                    assert!(
                        !act(now + wait - 1, cost, &mut past).is_admitted(),
                        "a tick early"
                    );
                    now += wait;
                    assert!(act(now, cost, &mut past).is_admitted(), "on time");
                }
                // In whole seconds, as in the header.
                2 => {
                    let whole = wait.div_ceil(SECOND) * SECOND;
                    assert!(
                        !act(now + whole - SECOND, cost, &mut past).is_admitted(),
                        "a second early"
                    );
                    now += whole;
                    assert!(act(now, cost, &mut past).is_admitted(), "on the second");
                }
                _ => {}
            }
        }
        for quota in quotas.as_slice() {
            assert!(
                past.most_within(window_of(quota)) <= quota.limit(),
                "{quota:?}"
            );
        }
        assert!(
            past.0.len() > 20,
            "{} admissions, {refusals} refusals: the walk shows nothing",
            past.0.len()
        );
    });
}

#[test]
fn a_request_is_counted_in_all_of_its_buckets_or_in_none() {
    walks(200_000, 2_000, |random, steps| {
        let time = Time::at(random.below(HOUR));
        let limiter = limiter(&time);
        let family = ["f0", "f1", "f2"].map(|name| KeyFamily::new(name).unwrap());
        let tenant = ["t0", "t1"].map(|name| TenantId::new(name).unwrap());
        let custom = ["c0", "c1"];
        let kinds: [Quotas; 3] = std::array::from_fn(|_| random_quotas(random));
        let slots: [[LimiterSlot; 3]; 3] = Default::default();
        let mut pasts: [[Past; 3]; 3] = Default::default();
        let mut now = random.below(HOUR);
        for _ in 0..steps {
            let pace = random.pick(&[0, 1, 2]);
            now += random_step(random, &kinds[pace]);
            time.set(now);
            let which = [
                random.pick(&[0, 1, 2]),
                random.pick(&[0, 1]),
                random.pick(&[0, 1]),
            ];
            let chosen: Vec<(usize, usize)> = (0..3)
                .filter(|_| !random.one_in(4))
                .map(|kind| (kind, which[kind]))
                .collect();
            if chosen.is_empty() {
                continue;
            }
            let buckets: Vec<_> = chosen
                .iter()
                .map(|&(kind, which)| {
                    let id = match kind {
                        0 => BucketId::Family(&family[which]),
                        1 => BucketId::Tenant(&tenant[which]),
                        _ => BucketId::Custom(custom[which]),
                    };
                    let bucket = LimitBucket::new(id, &kinds[kind]);
                    if random.one_in(2) {
                        bucket.with_slot(&slots[kind][which])
                    } else {
                        bucket
                    }
                })
                .collect();
            let most = chosen
                .iter()
                .map(|&(kind, _)| least(&kinds[kind]))
                .min()
                .unwrap();
            let cost = random_cost(random, most);
            let decision = ask(&limiter, &buckets, cost);
            let mut reported = decision.windows();
            for &(kind, which) in &chosen {
                let quotas = &kinds[kind];
                let (windows, rest) = reported.split_at(quotas.as_slice().len());
                check(&pasts[kind][which], quotas, cost, now, &decision, windows);
                reported = rest;
            }
            assert!(reported.is_empty());
            if decision.is_admitted() {
                chosen
                    .iter()
                    .for_each(|&(kind, which)| pasts[kind][which].0.push((now, cost)));
            }
        }
        for (kind, pasts) in pasts.iter().enumerate() {
            for past in pasts {
                for quota in kinds[kind].as_slice() {
                    assert!(
                        past.most_within(window_of(quota)) <= quota.limit(),
                        "{quota:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn a_clock_that_steps_back_an_hour_lets_no_more_pass_in_real_time() {
    walks(200_000, 2_000, |random, steps| {
        let (limiter_time, quotas) = (Time::default(), random_quotas(random));
        let limiter = limiter(&limiter_time);
        let bucket = [LimitBucket::new(BucketId::Custom("one"), &quotas)];
        let (mut real, mut behind) = (30_000 * HOUR, 0);
        let mut past = Past::default();
        for _ in 0..steps {
            real += random_step(random, &quotas);
            if random.one_in(200) && behind < 20_000 * HOUR {
                behind += HOUR;
            }
            limiter_time.set(real - behind);
            let cost = random_cost(random, least(&quotas));
            if ask(&limiter, &bucket, cost).is_admitted() {
                past.0.push((real, cost));
            }
        }
        for quota in quotas.as_slice() {
            assert!(
                past.most_within(window_of(quota)) <= quota.limit(),
                "{quota:?}"
            );
        }
    });
}

#[test]
fn a_time_before_the_last_one_seen_is_taken_as_that() {
    walks(200_000, 2_000, |random, steps| {
        let (time, quotas) = (Time::default(), random_quotas(random));
        let limiter = limiter(&time);
        let bucket = [LimitBucket::new(BucketId::Custom("one"), &quotas)];
        let (mut reading, mut seen, mut past) = (100 * HOUR, 0, Past::default());
        for _ in 0..steps {
            reading += random_step(random, &quotas);
            // An hour back, and later forward again.
            if random.one_in(100) {
                reading -= HOUR.min(reading);
            } else if random.one_in(100) {
                reading += HOUR;
            }
            seen = seen.max(reading);
            time.set(reading);
            let cost = random_cost(random, least(&quotas));
            let decision = ask(&limiter, &bucket, cost);
            check(&past, &quotas, cost, seen, &decision, &windows(&decision));
            if decision.is_admitted() {
                past.0.push((seen, cost));
            }
        }
    });
}

// ---- quotas that change ----

#[test]
fn when_quotas_change_history_stays_as_far_back_as_the_old_windows_reached() {
    walks(300_000, 1_000, |random, steps| {
        let time = Time::default();
        let limiter = limiter(&time);
        let sets: Vec<Quotas> = (0..4).map(|_| random_quotas(random)).collect();
        let widest = |quotas: &Quotas| quotas.as_slice().iter().map(window_of).max().unwrap();
        let (mut now, mut past) = (1000 * HOUR, Past::default());
        let mut set = random.pick(&[0, 1, 2, 3]);
        // Nothing that was admitted since then is lost.
        let mut known_since = 0;
        for _ in 0..steps {
            now += random_step(random, &sets[set]);
            if random.one_in(40) {
                let next = random.pick(&[0, 1, 2, 3]);
                if next != set {
                    known_since = known_since.max(now - widest(&sets[set]));
                    set = next;
                }
            }
            time.set(now);
            let quotas = &sets[set];
            let cost = random_cost(random, least(quotas));
            let decision = ask(
                &limiter,
                &[LimitBucket::new(BucketId::Custom("one"), quotas)],
                cost,
            );
            if decision.is_admitted() {
                past.0.push((now, cost));
                for quota in quotas.as_slice() {
                    let since = (now - window_of(quota)).max(known_since);
                    let units = past.units_since(since);
                    assert!(
                        units <= quota.limit(),
                        "{units} units for {quota:?} at {now}, known since {known_since}"
                    );
                }
            }
        }
        // Nothing is kept for longer than a window and its 256th part.
        let quotas = &sets[set];
        now += widest(quotas) + widest(quotas) / 256 + 1;
        time.set(now);
        let decision = ask(
            &limiter,
            &[LimitBucket::new(BucketId::Custom("one"), quotas)],
            1,
        );
        let full: Vec<u64> = quotas
            .as_slice()
            .iter()
            .map(|quota| quota.limit() - 1)
            .collect();
        assert_eq!(remaining(&decision), full);
    });
}

#[test]
fn a_saturated_slot_still_expires() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    let most = u64::from(u32::MAX);
    let hourly = quotas([(most, HOUR)]);
    let each_second = quotas([(most, SECOND)]);
    let ask_for = |quotas: &Quotas, cost: u64| {
        let family = KeyFamily::new("f").unwrap();
        let bucket = LimitBucket::new(BucketId::Family(&family), quotas);
        ask(&limiter, &[bucket], cost)
    };
    assert!(ask_for(&hourly, 1).is_admitted());
    time.advance(MINUTE);
    // The hour's history is kept as long as it is relevant, and its slots of 14 seconds also record
    // what other quotas admit.
    for _ in 0..40 {
        time.advance(SECOND + SECOND / 100);
        assert!(ask_for(&each_second, most).is_admitted());
    }
    let refused = ask_for(&hourly, 1);
    assert!(!refused.is_admitted());
    time.advance(retry(&refused) - 1);
    assert!(!ask_for(&hourly, 1).is_admitted());
    time.advance(HOUR + HOUR / 100);
    let decision = ask_for(&hourly, 1);
    assert!(decision.is_admitted());
    assert_eq!(remaining(&decision), [most - 1]);
}

#[test]
fn a_quota_that_is_lowered_and_raised_again_keeps_its_history() {
    for limit in [60, 100] {
        for with_an_hour in [false, true] {
            let time = Time::at(HOUR);
            let limiter = limiter(&time);
            let set = |minute: u64| match with_an_hour {
                true => quotas([(minute, MINUTE), (1000, HOUR)]),
                false => quotas([(minute, MINUTE)]),
            };
            assert_eq!(admitted(&limiter, "one", &set(limit), 200), limit);
            time.advance(SECOND);
            assert_eq!(admitted(&limiter, "one", &set(5), 10), 0);
            time.advance(SECOND);
            assert_eq!(
                admitted(&limiter, "one", &set(limit), 200),
                0,
                "{limit} per minute, an hour: {with_an_hour}"
            );
        }
    }
}

#[test]
fn a_quota_that_is_lowered_refuses_until_enough_is_past() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    for _ in 0..60 {
        assert!(one(&limiter, "one", &quotas([(60, MINUTE)])).is_admitted());
        time.advance(SECOND / 2);
    }
    // Thirty seconds for sixty, and ten are allowed: the last ten were at 25 to 29.5 seconds.
    let ten = quotas([(10, MINUTE)]);
    let refused = one(&limiter, "one", &ten);
    assert_eq!(
        (refused.is_admitted(), remaining(&refused)),
        (false, vec![0])
    );
    assert_eq!(retry(&refused), 55 * SECOND + 1);
    time.advance(55 * SECOND);
    assert_eq!(admitted(&limiter, "one", &ten, 20), 0);
    time.advance(1);
    assert_eq!(admitted(&limiter, "one", &ten, 20), 1);
}

#[test]
fn a_quota_that_is_raised_admits_the_difference() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    for (before, after) in [(10, 60), (10, 500), (100, 500), (100, 70_000)] {
        let name = format!("{before}-{after}");
        assert_eq!(
            admitted(&limiter, &name, &quotas([(before, MINUTE)]), before + 10),
            before
        );
        assert_eq!(
            admitted(&limiter, &name, &quotas([(after, MINUTE)]), after + 10),
            after - before,
            "{name}"
        );
    }
}

#[test]
fn an_added_window_includes_the_history_of_the_others() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    assert_eq!(admitted(&limiter, "one", &quotas([(60, MINUTE)]), 100), 60);
    time.advance(MINUTE);
    let both = quotas([(60, MINUTE), (100, HOUR)]);
    let refused = one(&limiter, "one", &both);
    assert_eq!(
        (refused.is_admitted(), remaining(&refused)),
        (false, vec![0, 40])
    );
    time.advance(1);
    assert_eq!(admitted(&limiter, "one", &both, 100), 40);
    // Removed and added again, it includes what was admitted in between.
    time.advance(MINUTE / 2);
    assert_eq!(admitted(&limiter, "one", &quotas([(60, MINUTE)]), 100), 20);
    assert_eq!(remaining(&one(&limiter, "one", &both)), [0, 0]);
}

#[test]
fn a_window_that_is_widened_or_narrowed_counts_the_admissions_within_it() {
    for limit in [50, 100] {
        let time = Time::at(HOUR);
        let limiter = limiter(&time);
        let (minute, hour) = (quotas([(limit, MINUTE)]), quotas([(limit, HOUR)]));
        assert_eq!(admitted(&limiter, "one", &minute, 200), limit);
        time.advance(30 * SECOND);
        assert_eq!(admitted(&limiter, "one", &hour, 200), 0, "widened");
        time.advance(MINUTE);
        assert_eq!(admitted(&limiter, "one", &hour, 200), 0, "widened");
        assert_eq!(
            admitted(&limiter, "one", &minute, 200),
            limit,
            "narrowed, and all of it is past"
        );
        assert_eq!(admitted(&limiter, "one", &hour, 200), 0);
    }
}

#[test]
fn requests_under_changing_quotas_do_not_hold_back_each_other_for_ever() {
    // Two keys of one family, each with its own quotas, and both keep sending requests.
    for (one_window, other_window) in [
        (7 * SECOND, 90 * SECOND),
        (MINUTE, HOUR),
        (61_001_000_000, 97_003_000_000),
    ] {
        let time = Time::at(HOUR);
        let limiter = limiter(&time);
        let sets = [quotas([(100, one_window)]), quotas([(100, other_window)])];
        assert_eq!(admitted(&limiter, "one", &sets[0], 200), 100);
        let longest = one_window.max(other_window);
        let between = longest / 1000;
        let waited = (1..5_000_u64).find(|turn| {
            time.advance(between);
            one(&limiter, "one", &sets[usize::from(turn % 2 == 0)]).is_admitted()
        });
        let waited = waited.map(|turns| turns * between);
        assert!(
            waited.is_some_and(|waited| waited <= longest + longest / 64),
            "refused for {waited:?} with windows of {one_window} and {other_window}"
        );
    }
}

// ---- the quotas themselves ----

#[test]
fn a_quota_of_nothing_cannot_be_and_a_cost_above_one_can_never_pass() {
    let minute = Duration::from_secs(60);
    let why = |refused: Result<Quota, ParseError>| refused.unwrap_err().to_string();
    let units = |given| format!("a quota must be 1 to 4294967295 units, not {given}");
    assert_eq!(why(Quota::new("a", 0, minute)), units(0));
    assert_eq!(why(Quota::per_minute(0)), units(0));
    assert_eq!(why(Quota::per_hour(0)), units(0));
    assert_eq!(why(Quota::new("a", 1 << 32, minute)), units(1_u64 << 32));
    assert!(Quota::new("a", (1 << 32) - 1, minute).is_ok());
    for window in [
        Duration::ZERO,
        Duration::from_millis(999),
        Duration::from_secs(400 * 86400 + 1),
        Duration::MAX,
    ] {
        let expected = format!("a window must be 1 second to 400 days, not {window:?}");
        assert_eq!(why(Quota::new("a", 1, window)), expected);
    }
    for name in ["", "A", "a b", "a\"", "ä", "a\n", &"a".repeat(33)] {
        let why = why(Quota::new(name, 1, minute));
        let rule = "a quota's name must be 1 to 32 characters of a-z 0-9 - _, not ";
        assert!(why.starts_with(rule), "{name:?}: {why}");
    }
    let two = [Quota::per_minute(1).unwrap(), Quota::per_minute(2).unwrap()];
    for quotas in [Quotas::new([]), Quotas::new(two)] {
        let expected = "a bucket must have 1 to 16 quotas with distinct names";
        assert_eq!(quotas.unwrap_err().to_string(), expected);
    }
    assert!(
        serde_json::from_str::<Quotas>(r#"[{"name":"a","limit":0,"window_ns":60000000000}]"#)
            .is_err()
    );
    assert!(serde_json::from_str::<Quotas>("[]").is_err());

    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    let (family, wide, narrow) = (
        KeyFamily::new("f").unwrap(),
        quotas([(60, MINUTE), (1000, HOUR)]),
        quotas([(5, HOUR)]),
    );
    let buckets = [
        LimitBucket::new(BucketId::Family(&family), &wide),
        LimitBucket::new(BucketId::Custom("narrow"), &narrow),
    ];
    for (buckets, cost, limit) in [
        (&buckets[..1], 61, 60),
        (&buckets[..], 6, 5),
        (&buckets[..], u64::MAX, 5),
    ] {
        let error = try_ask(&limiter, buckets, cost).unwrap_err();
        assert!(
            matches!(error, LimiterError::Cost { cost: c, limit: l } if (c, l) == (cost, limit)),
            "{error}"
        );
    }
    assert!(matches!(
        try_ask(&limiter, &buckets, 0),
        Err(LimiterError::Cost { cost: 0, .. })
    ));
    // None of that was counted.
    assert_eq!(remaining(&ask(&limiter, &buckets, 5)), [55, 995, 0]);
}

#[test]
fn quotas_are_stored_and_read_as_they_are() {
    let stored = serde_json::to_string(&Quotas::default()).unwrap();
    assert_eq!(
        stored,
        concat!(
            r#"[{"name":"minute","limit":60,"window_ns":60000000000},"#,
            r#"{"name":"hour","limit":1000,"window_ns":3600000000000}]"#
        )
    );
    assert_eq!(
        serde_json::from_str::<Quotas>(&stored).unwrap(),
        Quotas::default()
    );
}

#[test]
fn buckets_are_one_of_each_kind_in_their_order() {
    let limiter = limiter(&Time::at(HOUR));
    let (family, quotas) = (KeyFamily::new("f").unwrap(), quotas([(5, MINUTE)]));
    let family = LimitBucket::new(BucketId::Family(&family), &quotas);
    let custom = |name| LimitBucket::new(BucketId::Custom(name), &quotas);
    for wrong in [
        vec![custom("a"), family],
        vec![family, family],
        vec![custom("a"), custom("b")],
    ] {
        assert!(
            matches!(
                try_ask(&limiter, &wrong, 1),
                Err(LimiterError::Unavailable(_))
            ),
            "{wrong:?}"
        );
    }
    assert_eq!(remaining(&ask(&limiter, &[family, custom("a")], 1)), [4, 4]);
}

// ---- difficult cases ----

#[test]
fn sixty_at_the_end_of_a_minute_are_all_for_the_next_sixty_seconds() {
    let time = Time::at(59_900_000_000);
    let limiter = limiter(&time);
    let quotas = Quotas::default();
    for left in (0..60).rev() {
        assert_eq!(
            remaining(&one(&limiter, "one", &quotas)),
            [left, left + 940]
        );
    }
    // The flood: a request every hundredth of a second while the sixty are within a minute.
    for now in (59_900_000_000..=119_900_000_000_u64).step_by(10_000_000) {
        time.set(now);
        let refused = one(&limiter, "one", &quotas);
        assert_eq!(retry(&refused), 119_900_000_001 - now);
        assert_eq!(
            remaining(&refused),
            [0, 940],
            "a refusal counts in no window"
        );
        assert_eq!(violated(&quotas, &refused), ["minute"]);
    }
    time.advance(1);
    assert_eq!(admitted(&limiter, "one", &quotas, 100), 60);
    assert_eq!(remaining(&one(&limiter, "one", &quotas)), [0, 880]);
}

#[test]
fn a_refusal_by_the_hour_leaves_the_minute_unchanged() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    let quotas = quotas([(60, MINUTE), (100, HOUR)]);
    assert_eq!(admitted(&limiter, "one", &quotas, 60), 60);
    time.advance(MINUTE + TICK);
    assert_eq!(admitted(&limiter, "one", &quotas, 40), 40);
    for _ in 0..1000 {
        let refused = one(&limiter, "one", &quotas);
        assert_eq!(
            (refused.is_admitted(), remaining(&refused)),
            (false, vec![20, 0])
        );
        assert_eq!(violated(&quotas, &refused), [format!("q100-{HOUR}")]);
    }
    time.advance(MINUTE + TICK);
    assert_eq!(remaining(&one(&limiter, "one", &quotas)), [60, 0]);
}

#[test]
fn a_cost_is_admitted_whole_or_not_at_all() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    let quotas = quotas([(10, MINUTE)]);
    let bucket = [LimitBucket::new(BucketId::Custom("one"), &quotas)];
    assert!(ask(&limiter, &bucket, 4).is_admitted());
    time.advance(SECOND);
    assert!(ask(&limiter, &bucket, 4).is_admitted());
    time.advance(SECOND);
    let refused = ask(&limiter, &bucket, 3);
    assert_eq!(
        (remaining(&refused), retry(&refused)),
        (vec![2], 58 * SECOND + 1)
    );
    let refused = ask(&limiter, &bucket, 7);
    assert_eq!(
        (remaining(&refused), retry(&refused)),
        (vec![2], 59 * SECOND + 1)
    );
    assert!(ask(&limiter, &bucket, 2).is_admitted());
}

#[test]
fn eight_threads_on_one_key_share_its_sixty() {
    for round in 0..50 {
        let limiter = limiter(&Time::at(HOUR));
        let (family, quotas, slot) = (
            KeyFamily::new("f").unwrap(),
            Quotas::default(),
            LimiterSlot::new(),
        );
        let passed: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let bucket = LimitBucket::new(BucketId::Family(&family), &quotas);
                    let bucket = [if (thread + round) % 2 == 0 {
                        bucket.with_slot(&slot)
                    } else {
                        bucket
                    }];
                    let limiter = &limiter;
                    scope.spawn(move || {
                        (0..40)
                            .map(|_| u64::from(ask(limiter, &bucket, 1).is_admitted()))
                            .sum::<u64>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(passed, 60);
    }
}

#[test]
fn threads_with_the_same_buckets_in_turn_neither_wait_for_ever_nor_admit_too_many() {
    let limiter = limiter(&Time::at(HOUR));
    let families = ["f0", "f1"].map(|name| KeyFamily::new(name).unwrap());
    let tenants = ["t0", "t1"].map(|name| TenantId::new(name).unwrap());
    let (own, shared) = (quotas([(5_000, MINUTE)]), quotas([(3_000, MINUTE)]));
    let counts: Vec<[u64; 4]> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|seed| {
                let (limiter, families, tenants, own, shared) =
                    (&limiter, &families, &tenants, &own, &shared);
                scope.spawn(move || {
                    let (mut random, mut count) = (Random(seed), [0; 4]);
                    for _ in 0..2_000 {
                        let (f, t) = (random.pick(&[0, 1]), random.pick(&[0, 1]));
                        let buckets = [
                            LimitBucket::new(BucketId::Family(&families[f]), own),
                            LimitBucket::new(BucketId::Tenant(&tenants[t]), shared),
                        ];
                        if ask(limiter, &buckets, 1).is_admitted() {
                            count[f] += 1;
                            count[2 + t] += 1;
                        }
                    }
                    count
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let sum = |place: usize| counts.iter().map(|count| count[place]).sum::<u64>();
    assert_eq!((sum(2), sum(3)), (3_000, 3_000));
    assert!(sum(0) <= 5_000 && sum(1) <= 5_000 && sum(0) + sum(1) == 6_000);
}

// ---- capacity ----

#[test]
fn with_every_cell_live_a_new_bucket_is_an_outage_and_no_history_is_lost() {
    let time = Time::at(HOUR);
    let limiter = LocalLimiter::builder()
        .most_buckets(100)
        .clock(time.clone())
        .build();
    let quotas = Quotas::default();
    for key in 0..100 {
        assert_eq!(admitted(&limiter, &format!("key {key}"), &quotas, 59), 59);
    }
    for key in 0..1000 {
        time.advance(SECOND / 100);
        let name = format!("newcomer {key}");
        let error = try_ask(
            &limiter,
            &[LimitBucket::new(BucketId::Custom(&name), &quotas)],
            1,
        )
        .unwrap_err();
        assert!(matches!(error, LimiterError::Full(100)), "{error}");
        assert_eq!(limiter.live_buckets(), 100);
    }
    for key in 0..100 {
        assert_eq!(
            admitted(&limiter, &format!("key {key}"), &quotas, 5),
            1,
            "the old ones are known, and served"
        );
    }
    // Not before the widest window has passed, and then without a call to sweep.
    time.set(2 * HOUR + 10 * SECOND);
    assert!(
        try_ask(
            &limiter,
            &[LimitBucket::new(BucketId::Custom("newcomer"), &quotas)],
            1
        )
        .is_err()
    );
    time.advance(HOUR / 256 + 2 * SECOND);
    for key in 0..100 {
        assert!(one(&limiter, &format!("newcomer {key}"), &quotas).is_admitted());
    }
    assert_eq!(limiter.live_buckets(), 100);
}

#[test]
fn a_bucket_without_capacity_leaves_the_others_of_its_request_uncounted() {
    let limiter = LocalLimiter::builder()
        .most_buckets(1)
        .clock(Time::at(HOUR))
        .build();
    let (family, tenant, quotas) = (
        KeyFamily::new("f").unwrap(),
        TenantId::new("t").unwrap(),
        quotas([(5, MINUTE)]),
    );
    let buckets = [
        LimitBucket::new(BucketId::Family(&family), &quotas),
        LimitBucket::new(BucketId::Tenant(&tenant), &quotas),
    ];
    assert!(matches!(
        try_ask(&limiter, &buckets, 1),
        Err(LimiterError::Full(1))
    ));
    assert_eq!(remaining(&ask(&limiter, &buckets[..1], 1)), [4]);
}

#[test]
fn units_at_the_edge_of_a_narrow_window_are_handed_over_once() {
    // The minute dates in milliseconds and the hour in microseconds. At the change, the minute still
    // counts the units, and the hour dates them before the minute.
    let time = Time::at(100_001);
    let limiter = limiter(&time);
    let ask_for = |quotas: &Quotas, cost: u64| {
        ask(
            &limiter,
            &[LimitBucket::new(BucketId::Custom("one"), quotas)],
            cost,
        )
    };
    let before = quotas([(5, MINUTE), (10, HOUR)]);
    assert!(ask_for(&before, 5).is_admitted());
    time.set(MINUTE + SECOND / 2000);
    let after = quotas([(5, MINUTE), (10, HOUR), (10, 2 * HOUR)]);
    let refused = ask_for(&after, 1);
    assert_eq!(
        (refused.is_admitted(), remaining(&refused)),
        (false, vec![0, 5, 5])
    );
}

#[test]
fn a_bucket_that_admitted_nothing_is_not_kept() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    let (tenant, quotas) = (TenantId::new("t").unwrap(), quotas([(1, HOUR)]));
    let of_tenant = LimitBucket::new(BucketId::Tenant(&tenant), &quotas);
    assert!(ask(&limiter, &[of_tenant], 1).is_admitted());
    let family = |number: u32| KeyFamily::new(&format!("f{number}")).unwrap();
    for number in 0..100 {
        let family = family(number);
        let of_key = LimitBucket::new(BucketId::Family(&family), &quotas);
        assert!(!ask(&limiter, &[of_key, of_tenant], 1).is_admitted());
    }
    time.advance(SECOND);
    limiter.sweep();
    assert_eq!(limiter.live_buckets(), 1, "the tenant's");
    // The tenant's is kept while its unit counts, however often it refuses.
    for _ in 0..3601 {
        let _ = ask(&limiter, &[of_tenant], 1);
        assert_eq!(limiter.live_buckets(), 1);
        time.advance(SECOND);
        limiter.sweep();
    }
    time.advance(HOUR + HOUR / 256 + SECOND);
    limiter.sweep();
    assert_eq!(limiter.live_buckets(), 0);
}

#[test]
fn a_slot_that_is_kept_across_sweeping_never_admits_twice_the_quota() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    let (family, quotas) = (KeyFamily::new("f").unwrap(), quotas([(60, MINUTE)]));
    let (slot, fresh) = (LimiterSlot::new(), LimiterSlot::new());
    let bucket = LimitBucket::new(BucketId::Family(&family), &quotas);
    let by_slot = [bucket.with_slot(&slot)];
    let pass = |bucket: &[LimitBucket<'_>]| {
        (0..100)
            .filter(|_| ask(&limiter, bucket, 1).is_admitted())
            .count()
    };
    for round in 0..5 {
        assert_eq!(pass(&by_slot), 60, "round {round}");
        // The cell is idle and swept while the slot still points to it: however it is found now,
        // there is only one cell.
        time.advance(2 * MINUTE);
        limiter.sweep();
        limiter.sweep();
        assert_eq!(limiter.live_buckets(), 0);
        match round {
            0 | 3 => assert_eq!((pass(&[bucket]), pass(&by_slot)), (60, 0)),
            1 => assert_eq!((pass(&by_slot), pass(&[bucket])), (60, 0)),
            _ => assert_eq!(
                (
                    pass(&[bucket.with_slot(&fresh)]),
                    pass(&by_slot),
                    pass(&[bucket])
                ),
                (60, 0, 0)
            ),
        }
        limiter.sweep();
        time.advance(MINUTE);
        assert_eq!(
            (pass(&by_slot), pass(&[bucket])),
            (0, 0),
            "the minute includes both of its ends"
        );
        time.advance(TICK);
    }
}

#[test]
fn a_slot_that_is_dropped_forgets_nothing() {
    let time = Time::at(HOUR);
    let limiter = limiter(&time);
    let (family, quotas) = (KeyFamily::new("f").unwrap(), quotas([(60, MINUTE)]));
    for turn in 0..10 {
        // A key that is evicted from a cache, or read again after a change, has a new slot.
        let slot = LimiterSlot::new();
        let bucket = [LimitBucket::new(BucketId::Family(&family), &quotas).with_slot(&slot)];
        let passed = (0..10)
            .filter(|_| ask(&limiter, &bucket, 1).is_admitted())
            .count();
        assert_eq!(passed, if turn < 6 { 10 } else { 0 });
        time.advance(SECOND);
        limiter.sweep();
    }
}

#[test]
fn two_limiters_with_one_slot_count_apart() {
    let time = Time::at(HOUR);
    let (first, second) = (limiter(&time), limiter(&time));
    let (family, quotas, slot) = (
        KeyFamily::new("f").unwrap(),
        quotas([(60, MINUTE)]),
        LimiterSlot::new(),
    );
    let bucket = [LimitBucket::new(BucketId::Family(&family), &quotas).with_slot(&slot)];
    let pass = |limiter: &LocalLimiter| {
        (0..100)
            .filter(|_| ask(limiter, &bucket, 1).is_admitted())
            .count()
    };
    assert_eq!((pass(&first), pass(&second)), (60, 60));
    assert_eq!((pass(&first), pass(&second)), (0, 0));
    assert_eq!((first.live_buckets(), second.live_buckets()), (1, 1));
    // A clone is the same limiter.
    assert_eq!(pass(&second.clone()), 0);
}

#[test]
fn buckets_of_one_name_and_different_kinds_are_apart() {
    let limiter = limiter(&Time::at(HOUR));
    let (family, tenant, quotas) = (
        KeyFamily::new("x").unwrap(),
        TenantId::new("x").unwrap(),
        quotas([(5, MINUTE)]),
    );
    for id in [
        BucketId::Family(&family),
        BucketId::Tenant(&tenant),
        BucketId::Custom("x"),
    ] {
        assert_eq!(
            remaining(&ask(&limiter, &[LimitBucket::new(id, &quotas)], 5)),
            [0]
        );
    }
    assert_eq!(limiter.live_buckets(), 3);
}

#[test]
fn a_concurrent_sweep_loses_no_history() {
    let time = Time::at(HOUR);
    let limiter = LocalLimiter::builder()
        .most_buckets(64)
        .clock(time.clone())
        .build();
    let quotas = quotas([(50, HOUR)]);
    let done = AtomicBool::new(false);
    let passed: Vec<u64> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                time.advance(1000);
                limiter.sweep();
            }
        });
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (limiter, quotas) = (&limiter, &quotas);
                scope.spawn(move || {
                    let mut passed = 0;
                    for turn in 0..2_000 {
                        let name = format!("{}", (turn + thread) % 16);
                        passed += u64::from(one(limiter, &name, quotas).is_admitted());
                    }
                    passed
                })
            })
            .collect();
        let passed = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        done.store(true, Ordering::Relaxed);
        passed
    });
    assert_eq!(passed.iter().sum::<u64>(), 16 * 50);
}

// ---- as callers see it: fields ----

fn fields(authenticator: &Authenticator, limits: &LimitReport) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    authenticator
        .responder()
        .limit_fields(limits, &mut |name, value| fields.push((name, value)));
    fields
}

/// An authenticator builder with a limiter on the fixture's clock.
fn limited(fixture: &Fixture) -> Setup {
    fixture
        .bearer()
        .limiter(LocalLimiter::builder().clock(fixture.clock.clone()).build())
}

async fn admission(authenticator: &Authenticator, head: &Head) -> Authenticated {
    authenticator.authenticate(head).await.unwrap()
}

async fn refusal(authenticator: &Authenticator, head: &Head) -> AuthError {
    authenticator
        .authenticate(head)
        .await
        .expect_err("a refusal")
}

/// Returns how many of this many requests pass; all others must be refused by the quota.
async fn passed(authenticator: &Authenticator, head: &Head, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        match authenticator.authenticate(head).await {
            Ok(_) => passed += 1,
            Err(error) => assert_eq!(
                (error.code(), error.status()),
                (ErrorCode::RateLimited, 429)
            ),
        }
    }
    passed
}

async fn left(authenticator: &Authenticator, head: &Head) -> Vec<u64> {
    let admission = admission(authenticator, head).await;
    units_left(&admission.limits().expect("counted"))
}

/// Calls a service behind the layer; returns the response's rate limit fields, status and body.
async fn call(authenticator: &Authenticator, key: &str) -> (u16, Vec<(String, String)>, Bytes) {
    let inner = service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let request = Request::get("/documents")
        .header("authorization", format!("Bearer {key}"))
        .body(())
        .unwrap();
    let response = AuthLayer::new(authenticator.clone())
        .layer(inner)
        .call(request)
        .await
        .unwrap();
    let told = |name: &str| {
        name.contains("ratelimit")
            || ["retry-after", "cache-control", "content-type"].contains(&name)
    };
    let fields = response
        .headers()
        .iter()
        .filter(|(name, _)| told(name.as_str()));
    let fields = fields
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    (
        response.status().as_u16(),
        fields,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

const POLICY: &str = r#""minute";q=60;w=60, "hour";q=1000;w=3600"#;

#[tokio::test]
async fn every_response_reports_all_windows_and_their_state() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = limited(&fixture).build().unwrap();
    // Both ends of a window belong to it, so a unit is available again in the second after the last
    // one of the minute.
    let (status, fields, _) = call(&authenticator, &key).await;
    let state = r#""minute";r=59;t=60, "hour";r=999;t=3600"#;
    assert_eq!(
        (status, fields),
        (
            200,
            pairs(&[("ratelimit-policy", POLICY), ("ratelimit", state)])
        )
    );

    for _ in 1..60 {
        call(&authenticator, &key).await;
    }
    fixture.clock.advance(Duration::from_millis(48_500));
    let (status, mut fields, body) = call(&authenticator, &key).await;
    fields.sort();
    assert_eq!(status, 429);
    let expected = pairs(&[
        ("cache-control", "no-store"),
        ("content-type", "application/problem+json"),
        ("ratelimit", r#""minute";r=0;t=12, "hour";r=940;t=3564"#),
        ("ratelimit-policy", POLICY),
        ("retry-after", "12"),
    ]);
    assert_eq!(fields, expected);
    assert_eq!(
        String::from_utf8_lossy(&body),
        concat!(
            r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#,
            r#""title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"#,
            r#""detail":"Too many requests with this API key: the quota minute is used up","#,
            r#""code":"RATE_LIMITED","violated-policies":["minute"]}"#
        )
    );
    // The header is the first whole second at which a lone retry passes.
    fixture.clock.advance(Duration::from_secs(11));
    assert_eq!(call(&authenticator, &key).await.0, 429);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(call(&authenticator, &key).await.0, 200);
}

#[tokio::test]
async fn all_violated_quotas_and_the_longest_wait_are_reported() {
    let fixture = Fixture::new();
    let quotas = Quotas::new([Quota::per_minute(2).unwrap(), Quota::per_hour(2).unwrap()]).unwrap();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = limited(&fixture).quotas(quotas).build().unwrap();
    assert_eq!(passed(&authenticator, &Head::bearer(&key), 2).await, 2);
    let error = refusal(&authenticator, &Head::bearer(&key)).await;
    assert_eq!(error.limits().unwrap().violated(), ["minute", "hour"]);
    assert_eq!(error.retry_after(), Some(Duration::from_nanos(HOUR + 1)));
    assert_eq!(
        error.detail(),
        "Too many requests with this API key: the quotas minute and hour are used up"
    );
    let answer = authenticator.responder().answer(&error, &Head::new());
    let field = |name: &str| {
        answer
            .fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| &**value)
    };
    assert_eq!(
        field("ratelimit"),
        Some(r#""minute";r=0;t=60, "hour";r=0;t=3600"#)
    );
    assert_eq!(field("retry-after"), Some("3601"));
    assert_eq!(
        answer
            .fields
            .iter()
            .filter(|(name, _)| *name == "cache-control")
            .count(),
        1
    );
}

#[tokio::test]
async fn legacy_fields_are_optional_and_all_fields_can_be_switched_off() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let legacy = limited(&fixture)
        .limit_fields(LimitFields::WithLegacy)
        .build()
        .unwrap();
    let (_, fields, _) = call(&legacy, &key).await;
    let expected = [
        ("ratelimit-policy", POLICY),
        ("ratelimit", r#""minute";r=59;t=60, "hour";r=999;t=3600"#),
        ("x-ratelimit-limit", "60"),
        ("x-ratelimit-remaining", "59"),
        ("x-ratelimit-reset", "60"),
    ];
    assert_eq!(fields, pairs(&expected));
    // They describe the window that is nearest to refusing: here the hour, after 18 minutes.
    for _ in 0..18 {
        fixture.clock.advance(Duration::from_secs(61));
        passed(&legacy, &Head::bearer(&key), 54).await;
    }
    fixture.clock.advance(Duration::from_secs(61));
    let (_, fields, _) = call(&legacy, &key).await;
    let x: Vec<_> = fields
        .iter()
        .filter(|(name, _)| name.starts_with("x-"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(x[..2], ["1000", "26"]);

    let (key, _) = fixture.issue(&[]).await;
    let off = limited(&fixture)
        .limit_fields(LimitFields::Off)
        .build()
        .unwrap();
    assert_eq!(call(&off, &key).await.1, []);
    assert_eq!(passed(&off, &Head::bearer(&key), 100).await, 59);
    let (status, fields, _) = call(&off, &key).await;
    assert_eq!(status, 429);
    assert!(
        fields.iter().all(|(name, _)| !name.contains("ratelimit")),
        "{fields:?}"
    );
    assert!(
        fields.iter().any(|(name, _)| name == "retry-after"),
        "{fields:?}"
    );
}

#[tokio::test]
async fn without_a_limiter_nothing_is_limited_or_reported() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    assert_eq!(
        passed(&authenticator, &Head::bearer(&key), 2000).await,
        2000
    );
    assert_eq!(call(&authenticator, &key).await.1, []);
}

#[tokio::test]
async fn refusals_before_the_limit_are_not_counted_and_those_after_it_are() {
    let fixture = Fixture::new();
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    let authenticator = fixture
        .bearer()
        .limiter(limiter.clone())
        .environment(portunus_test_support::live())
        .build()
        .unwrap();
    let (key, record) = fixture.issue(&[]).await;
    let switch = |enabled: bool| fixture.change(&record.id, move |record| record.enabled = enabled);
    switch(false).await;
    for _ in 0..200 {
        let error = refusal(&authenticator, &Head::bearer(&key)).await;
        assert_eq!(
            (error.code(), error.limits().is_some()),
            (ErrorCode::KeyDisabled, false)
        );
    }
    assert_eq!(limiter.live_buckets(), 0);
    switch(true).await;
    assert_eq!(left(&authenticator, &Head::bearer(&key)).await, [59, 999]);

    // A route that requires more than the key has: the request was counted, and its response shows
    // it.
    let needs_more =
        portunus::adapter::tower::require(portunus_test_support::scope("document:write"));
    let inner = service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let mut service = AuthLayer::new(authenticator.clone()).layer(needs_more.layer(inner));
    let request = Request::get("/")
        .header("authorization", format!("Bearer {key}"))
        .body(())
        .unwrap();
    let response = service.call(request).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(
        response.headers()["ratelimit"],
        r#""minute";r=58;t=60, "hour";r=998;t=3600"#
    );

    // So was a request that names a user other than the key's.
    let mut new = NewKey::new(
        "user key",
        Owner::user(tenant("acme"), portunus_test_support::user("u1")),
    );
    new.kind = portunus::key::KeyKind::User;
    let (key, _) = fixture.issue_new(new).await;
    let error = refusal(&authenticator, &Head::bearer(&key).with("x-user-id", "u2")).await;
    assert_eq!(error.status(), 403, "{error}");
    assert_eq!(units_left(error.limits().expect("counted")), [59, 999]);
    let told = fields(&authenticator, error.limits().unwrap());
    let answer = authenticator.responder().answer(&error, &Head::new());
    assert!(
        told.iter()
            .all(|(name, value)| answer.fields.contains(&(*name, value.into()))),
        "{answer:?}"
    );
}

// ---- as callers see it: whose quota ----

#[tokio::test]
async fn a_key_has_its_own_quotas_or_the_default() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture)
        .quotas(Quotas::new([Quota::per_minute(7).unwrap()]).unwrap())
        .build()
        .unwrap();
    let (plain, _) = fixture.issue(&[]).await;
    let mut new = NewKey::new("key", Owner::tenant(tenant("acme")));
    new.quotas = Some(Quotas::new([Quota::per_minute(3).unwrap()]).unwrap());
    let (own, record) = fixture.issue_new(new).await;
    assert_eq!(passed(&authenticator, &Head::bearer(&plain), 20).await, 7);
    assert_eq!(passed(&authenticator, &Head::bearer(&own), 20).await, 3);
    // Changed while the service runs: earlier admissions still count.
    fixture
        .change(&record.id, |record| {
            record.quotas = Some(Quotas::new([Quota::per_minute(5).unwrap()]).unwrap());
        })
        .await;
    assert_eq!(passed(&authenticator, &Head::bearer(&own), 20).await, 2);
    fixture
        .change(&record.id, |record| record.quotas = None)
        .await;
    assert_eq!(passed(&authenticator, &Head::bearer(&own), 20).await, 2);
}

#[tokio::test]
async fn a_key_and_its_successors_share_one_quota() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture).build().unwrap();
    let (old, record) = fixture.issue(&[]).await;
    let rotated = fixture
        .manager()
        .rotate(&record.id, Some(Duration::from_secs(3600)))
        .await
        .unwrap();
    let (new, (other, _)) = (rotated.key.reveal(), fixture.issue(&[]).await);
    assert_eq!(passed(&authenticator, &Head::bearer(&old), 40).await, 40);
    assert_eq!(passed(&authenticator, &Head::bearer(&new), 40).await, 20);
    assert_eq!(passed(&authenticator, &Head::bearer(&old), 10).await, 0);
    assert_eq!(passed(&authenticator, &Head::bearer(&other), 100).await, 60);
}

#[tokio::test]
async fn a_changed_record_keeps_its_history() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture).build().unwrap();
    let (key, record) = fixture.issue(&[]).await;
    let mut all = 0;
    for turn in 0..8 {
        all += passed(&authenticator, &Head::bearer(&key), 10).await;
        fixture
            .change(&record.id, |record| {
                record.name = format!("name {turn}").into();
            })
            .await;
    }
    assert_eq!(all, 60);
}

#[tokio::test]
async fn all_keys_of_a_tenant_share_its_quota_in_addition_to_their_own() {
    let fixture = Fixture::new();
    let shared = Quotas::new([Quota::new("pool", 100, Duration::from_secs(60)).unwrap()]).unwrap();
    let authenticator = limited(&fixture).tenant_quotas(shared).build().unwrap();
    let (first, _) = fixture.issue(&[]).await;
    let (second, _) = fixture.issue(&[]).await;
    let (other, _) = fixture
        .issue_new(NewKey::new("key", Owner::tenant(tenant("other"))))
        .await;
    assert_eq!(passed(&authenticator, &Head::bearer(&first), 100).await, 60);
    assert_eq!(
        passed(&authenticator, &Head::bearer(&second), 100).await,
        40
    );
    let error = refusal(&authenticator, &Head::bearer(&second)).await;
    assert_eq!(error.limits().unwrap().violated(), ["pool"]);
    // The tenant's quota refused, so the key's own windows are unchanged.
    assert_eq!(units_left(error.limits().unwrap()), [20, 960, 0]);
    let told = fields(&authenticator, error.limits().unwrap());
    assert_eq!(told[0].1, format!(r#"{POLICY}, "pool";q=100;w=60"#));
    assert_eq!(passed(&authenticator, &Head::bearer(&other), 100).await, 60);
}

#[tokio::test]
async fn requests_may_cost_more_and_be_counted_by_their_class() {
    let fixture = Fixture::new();
    let exports = LimitPolicy::shared([Quota::per_hour(25)]);
    let limits = Limits::default()
        .limiter(LocalLimiter::builder().clock(fixture.clock.clone()).build())
        .cost(|head: &dyn RequestHead| if head.path() == "/bulk" { 10 } else { 1 })
        .class("exports", [exports])
        .on_request(|head| head.path().starts_with("/exports"));
    let authenticator = fixture.bearer().limits(limits).build().unwrap();
    let (key, _) = fixture.issue(&[]).await;
    assert_eq!(
        left(&authenticator, &Head::bearer(&key).at("/bulk")).await,
        [50, 990]
    );
    assert_eq!(left(&authenticator, &Head::bearer(&key)).await, [49, 989]);
    assert_eq!(
        left(&authenticator, &Head::bearer(&key).at("/exports/7")).await,
        [48, 988, 24]
    );
    assert_eq!(
        passed(&authenticator, &Head::bearer(&key).at("/exports/8"), 30).await,
        24
    );
    assert_eq!(
        passed(&authenticator, &Head::bearer(&key).at("/bulk"), 10).await,
        2
    );
    assert_eq!(left(&authenticator, &Head::bearer(&key)).await, [3, 943]);
    // The policy is shared by all keys.
    let (other, _) = fixture.issue(&[]).await;
    assert_eq!(
        passed(&authenticator, &Head::bearer(&other).at("/exports/9"), 30).await,
        0
    );
}

#[tokio::test]
async fn a_cost_of_nothing_is_the_hosts_error_in_every_mode() {
    for mode in [OnOutage::Local, OnOutage::Closed, OnOutage::Open] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let authenticator = limited(&fixture)
            .on_limiter_outage(mode)
            .cost(|_| 0)
            .build()
            .unwrap();
        let error = refusal(&authenticator, &Head::bearer(&key)).await;
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::LimiterUnavailable, 503),
            "{mode:?}"
        );
    }
}

#[tokio::test]
async fn a_cost_above_the_keys_limit_is_forbidden_and_no_outage() {
    for (mode, down, awaited) in [
        (OnOutage::Local, false, false),
        (OnOutage::Closed, false, true),
        (OnOutage::Open, false, false),
        // The local fallback gives the same answer.
        (OnOutage::Local, true, true),
    ] {
        let fixture = Fixture::new();
        let (key, record) = fixture.issue(&[]).await;
        let remote = Remote::new(&fixture, awaited);
        let authenticator = fixture
            .bearer()
            .limiter(remote.clone())
            .on_limiter_outage(mode)
            .cost(|head: &dyn RequestHead| if head.path() == "/bulk" { 10 } else { 1 })
            .build()
            .unwrap();
        fixture
            .change(&record.id, |record| {
                record.quotas = Some(Quotas::new([Quota::per_minute(9).unwrap()]).unwrap());
            })
            .await;
        remote.down.store(down, Ordering::SeqCst);
        let error = refusal(&authenticator, &Head::bearer(&key).at("/bulk")).await;
        assert_eq!(
            (error.code(), error.status(), error.retry_after()),
            (ErrorCode::Forbidden, 403, None),
            "{mode:?}"
        );
        assert!(
            error.detail().contains(" 10 ") && error.detail().contains(" 9 "),
            "{error}"
        );
        assert_eq!(error.key_id(), Some(&record.id));
        assert_eq!(authenticator.limiter_outages(), u64::from(down));
        // Nothing was counted.
        assert_eq!(left(&authenticator, &Head::bearer(&key)).await, [8]);
    }
}

#[tokio::test]
async fn the_time_of_day_may_step_and_limits_do_not_notice() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture).build().unwrap();
    let (key, _) = fixture.issue(&[]).await;
    let noon = fixture.clock.now();
    assert_eq!(passed(&authenticator, &Head::bearer(&key), 100).await, 60);
    for step in [3600, 7200] {
        fixture.clock.step_to(noon + Duration::from_secs(step));
        assert_eq!(passed(&authenticator, &Head::bearer(&key), 10).await, 0);
        fixture.clock.step_to(noon - Duration::from_secs(step));
        assert_eq!(passed(&authenticator, &Head::bearer(&key), 10).await, 0);
    }
    fixture.clock.advance(Duration::from_nanos(MINUTE + 1));
    assert_eq!(passed(&authenticator, &Head::bearer(&key), 100).await, 60);
}

// ---- outages ----

/// A limiter that can fail, or require awaiting, on demand.
#[derive(Debug, Clone)]
struct Remote {
    local: LocalLimiter,
    awaited: bool,
    down: Arc<AtomicBool>,
}

impl Remote {
    fn new(fixture: &Fixture, awaited: bool) -> Self {
        Self {
            local: LocalLimiter::builder().clock(fixture.clock.clone()).build(),
            awaited,
            down: Arc::default(),
        }
    }
    fn answer(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(LimiterError::Unavailable(
                "connection refused by limits.internal".into(),
            )),
            false => self.local.try_acquire(request).unwrap(),
        }
    }
}

#[async_trait]
impl RateLimiter for Remote {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        assert!(
            self.awaited,
            "what can be answered at once is not asked again"
        );
        tokio::task::yield_now().await;
        self.answer(request)
    }
    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        (!self.awaited).then(|| self.answer(request))
    }
}

#[tokio::test]
async fn a_limiter_that_must_be_awaited_limits_the_same() {
    for late_store in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        if late_store {
            fixture.store.answer_late(1);
        }
        let authenticator = fixture
            .bearer()
            .limiter(Remote::new(&fixture, true))
            .build()
            .unwrap();
        assert_eq!(left(&authenticator, &Head::bearer(&key)).await, [59, 999]);
        assert_eq!(passed(&authenticator, &Head::bearer(&key), 100).await, 59);
        assert_eq!(authenticator.limiter_outages(), 0);
        let (status, fields, _) = call(&authenticator, &key).await;
        assert_eq!(status, 429);
        assert!(
            fields.contains(&(
                "ratelimit".into(),
                r#""minute";r=0;t=60, "hour";r=940;t=3600"#.into()
            )),
            "{fields:?}"
        );
    }
}

#[tokio::test]
async fn while_the_limiter_is_down_local_counts_in_this_process() {
    for awaited in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let remote = Remote::new(&fixture, awaited);
        // The default.
        let authenticator = fixture.bearer().limiter(remote.clone()).build().unwrap();
        assert_eq!(passed(&authenticator, &Head::bearer(&key), 50).await, 50);
        remote.down.store(true, Ordering::SeqCst);
        assert_eq!(passed(&authenticator, &Head::bearer(&key), 100).await, 60);
        assert_eq!(authenticator.limiter_outages(), 100);
        remote.down.store(false, Ordering::SeqCst);
        assert_eq!(passed(&authenticator, &Head::bearer(&key), 100).await, 10);
        assert_eq!(authenticator.limiter_outages(), 100);
    }
}

#[tokio::test]
async fn while_the_limiter_is_down_closed_refuses_and_open_lets_pass_untold() {
    for awaited in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let remote = Remote::new(&fixture, awaited);
        remote.down.store(true, Ordering::SeqCst);
        let builder = |mode| {
            fixture
                .bearer()
                .limiter(remote.clone())
                .on_limiter_outage(mode)
        };
        let closed = builder(OnOutage::Closed).build().unwrap();
        let (status, fields, body) = call(&closed, &key).await;
        assert_eq!(status, 503);
        assert!(
            fields.contains(&("retry-after".into(), "1".into())),
            "{fields:?}"
        );
        let body = String::from_utf8_lossy(&body);
        assert!(
            body.contains("LIMITER_UNAVAILABLE") && !body.contains("internal"),
            "{body}"
        );
        let open = builder(OnOutage::Open).build().unwrap();
        assert_eq!(passed(&open, &Head::bearer(&key), 300).await, 300);
        let (status, fields, _) = call(&open, &key).await;
        assert_eq!((status, fields), (200, Vec::new()));
        assert_eq!((closed.limiter_outages(), open.limiter_outages()), (1, 301));
        // A key that does not work is refused as usual.
        let error = refusal(&open, &Head::bearer(&stranger())).await;
        assert_eq!(error.code(), ErrorCode::InvalidKey);
    }
}

#[tokio::test]
async fn while_the_limiter_is_down_a_share_of_each_quota_can_be_counted_here() {
    let by = |nodes: &'static str, quotas: Quotas, cost: u64| async move {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let remote = Remote::new(&fixture, true);
        remote.down.store(true, Ordering::SeqCst);
        let built = fixture
            .bearer()
            .quotas(quotas)
            .limiter(remote)
            .cost(move |_| cost)
            .on_limiter_outage(nodes.parse().unwrap())
            .build();
        passed(&built.unwrap(), &Head::bearer(&key), 100).await
    };
    let minute = |limit| Quotas::new([Quota::per_minute(limit).unwrap()]).unwrap();
    assert_eq!(by("local/4", Quotas::default(), 1).await, 15);
    assert_eq!(by("local/1", Quotas::default(), 1).await, 60);
    assert_eq!(by("local/7", minute(60), 1).await, 8);
    // A share is at least one request, whatever it costs.
    assert_eq!(by("local/100", minute(60), 1).await, 1);
    assert_eq!(by("local/4", minute(60), 40).await, 1);
    for wrong in [
        "local/0",
        "local/",
        "local/-1",
        "local/x",
        "local/4294967296",
        "closed/2",
    ] {
        let error = wrong.parse::<OnOutage>().unwrap_err().to_string();
        assert!(
            error.contains("expected local, local/NODES, closed or open"),
            "{error}"
        );
    }
    assert_eq!(
        "local/4".parse::<OnOutage>().unwrap().to_string(),
        "local/4"
    );
}

#[tokio::test]
async fn a_full_limiter_is_an_outage_for_newcomers_only() {
    let fixture = Fixture::new();
    let full = || {
        LocalLimiter::builder()
            .most_buckets(1)
            .clock(fixture.clock.clone())
            .build()
    };
    let closed = fixture
        .bearer()
        .limiter(full())
        .on_limiter_outage(OnOutage::Closed)
        .build()
        .unwrap();
    let (first, _) = fixture.issue(&[]).await;
    let (second, _) = fixture.issue(&[]).await;
    assert_eq!(passed(&closed, &Head::bearer(&first), 10).await, 10);
    assert_eq!(
        refusal(&closed, &Head::bearer(&second)).await.code(),
        ErrorCode::LimiterUnavailable
    );
    assert_eq!(passed(&closed, &Head::bearer(&first), 100).await, 50);
    let local = fixture.bearer().limiter(full()).build().unwrap();
    assert_eq!(passed(&local, &Head::bearer(&first), 100).await, 60);
    assert_eq!(passed(&local, &Head::bearer(&second), 100).await, 60);
    assert_eq!(local.limiter_outages(), 100);
}

// ---- failures ----

async fn codes(authenticator: &Authenticator, head: &Head, requests: usize) -> (usize, usize) {
    let (mut invalid, mut too_many) = (0, 0);
    for _ in 0..requests {
        let error = refusal(authenticator, head).await;
        match error.code() {
            ErrorCode::InvalidKey => invalid += 1,
            ErrorCode::TooManyFailures => {
                assert_eq!(error.status(), 429);
                assert!(error.retry_after().is_some() && error.limits().is_none());
                too_many += 1;
            }
            other => panic!("{other}"),
        }
    }
    (invalid, too_many)
}

#[tokio::test]
async fn a_client_may_present_a_hundred_unknown_keys_a_minute() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture).build().unwrap();
    let client = Head::bearer(&stranger()).from("192.0.2.1");
    assert_eq!(codes(&authenticator, &client, 150).await, (100, 50));
    // Other addresses are not affected.
    assert_eq!(
        codes(
            &authenticator,
            &Head::bearer(&stranger()).from("192.0.2.2"),
            100
        )
        .await,
        (100, 0)
    );
    let error = refusal(&authenticator, &client).await;
    let answer = authenticator.responder().answer(&error, &client);
    let field = |name: &str| {
        answer
            .fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value.to_string())
    };
    assert_eq!(
        (answer.status, field("cache-control").as_deref()),
        (429, Some("no-store"))
    );
    assert_eq!(
        (field("ratelimit"), field("www-authenticate")),
        (None, None)
    );
    let wait: u64 = field("retry-after").unwrap().parse().unwrap();
    assert!((60..=61).contains(&wait), "{wait}");
    fixture.clock.advance(Duration::from_secs(wait - 1));
    assert_eq!(codes(&authenticator, &client, 1).await, (0, 1));
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(codes(&authenticator, &client, 150).await, (100, 50));
}

#[tokio::test]
async fn failures_and_keys_do_not_touch_each_others_counts() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture).build().unwrap();
    let (key, _) = fixture.issue(&[]).await;
    let (good, bad) = (
        Head::bearer(&key).from("192.0.2.1"),
        Head::bearer(&stranger()).from("192.0.2.1"),
    );
    assert_eq!(codes(&authenticator, &bad, 99).await, (99, 0));
    assert_eq!(left(&authenticator, &good).await, [59, 999]);
    // The success reset nothing.
    assert_eq!(codes(&authenticator, &bad, 10).await, (1, 9));
    // A synchronous store is still queried, so a real key from that address keeps working.
    assert_eq!(passed(&authenticator, &good, 100).await, 59);
    assert_eq!(codes(&authenticator, &bad, 1).await, (0, 1));
}

#[tokio::test]
async fn a_store_that_must_be_awaited_is_not_asked_for_a_client_that_failed_too_often() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture).build().unwrap();
    let (key, _) = fixture.issue(&[]).await;
    fixture.store.answer_late(1);
    let bad = Head::bearer(&stranger()).from("192.0.2.1");
    assert_eq!(codes(&authenticator, &bad, 100).await, (100, 0));
    let asked = fixture.store.finds();
    // Except for the four lookups a second, which all keys of the address share.
    assert_eq!(codes(&authenticator, &bad, 100).await, (0, 100));
    let good = Head::bearer(&key).from("192.0.2.1");
    let error = refusal(&authenticator, &good).await;
    assert_eq!(error.code(), ErrorCode::TooManyFailures);
    assert_eq!(fixture.store.finds(), asked + 4);
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_millis(1_001), "{wait:?}");
    fixture.clock.advance(wait);
    assert_eq!(left(&authenticator, &good).await, [59, 999]);
    assert_eq!(
        left(&authenticator, &Head::bearer(&key).from("192.0.2.2")).await,
        [58, 998]
    );
}

#[tokio::test]
async fn failures_are_counted_by_the_address_that_a_client_cannot_change() {
    let fixture = Fixture::new();
    let proxies = ClientIp::behind(
        ["10.0.0.0/8".parse().unwrap()],
        ForwardedHeader::XForwardedFor,
    );
    let authenticator = limited(&fixture).client_ip(proxies).build().unwrap();
    let key = stranger();
    let mut all = (0, 0);
    let mut try_from = async |head: Head| {
        let (invalid, too_many) = codes(&authenticator, &head, 1).await;
        all = (all.0 + invalid, all.1 + too_many);
        all
    };
    // Whatever the client writes in headers, in every notation, and from all addresses of its /64.
    for number in 0..150_u32 {
        try_from(
            Head::bearer(&key)
                .from("192.0.2.1")
                .with("x-forwarded-for", format!("203.0.113.{number}")),
        )
        .await;
    }
    assert_eq!(
        try_from(Head::bearer(&key).from("::ffff:192.0.2.1")).await,
        (100, 51)
    );
    assert_eq!(
        try_from(
            Head::bearer(&key)
                .from("10.0.0.1")
                .with("x-forwarded-for", "9.9.9.9, 192.0.2.1")
        )
        .await,
        (100, 52)
    );
    for number in 0..149_u64 {
        try_from(Head::bearer(&key).from(&format!("2001:db8::{:x}:1", number * 77))).await;
    }
    assert_eq!(
        try_from(Head::bearer(&key).from("2001:db8::ffff:ffff:ffff:ffff")).await,
        (200, 102)
    );
    assert_eq!(
        try_from(Head::bearer(&key).from("2001:db8:0:1::1")).await,
        (201, 102),
        "the next /64"
    );
    // Failures without an address belong to no address.
    for number in 0..150 {
        let head = Head::bearer(&key)
            .from("10.0.0.1")
            .with("x-forwarded-for", format!("unknown-{number}"));
        try_from(if number % 2 == 0 {
            head
        } else {
            Head::bearer(&key)
        })
        .await;
    }
    assert_eq!(all, (351, 102));
}

#[tokio::test]
async fn a_malformed_key_is_not_a_failure() {
    let fixture = Fixture::new();
    let authenticator = limited(&fixture).build().unwrap();
    let client = || Head::new().from("192.0.2.1");
    let with = |key: &str| Head::bearer(key).from("192.0.2.1");
    for _ in 0..300 {
        for (head, code) in [
            (client(), ErrorCode::MissingKey),
            (with("garbage"), ErrorCode::InvalidFormat),
            // A typing error: reported like an unknown key, but without a lookup.
            (
                with(&portunus_test_support::with_last_character_wrong(
                    &stranger(),
                )),
                ErrorCode::InvalidKey,
            ),
        ] {
            assert_eq!(refusal(&authenticator, &head).await.code(), code);
        }
    }
    assert_eq!(fixture.store.finds(), 0);
    assert_eq!(
        codes(
            &authenticator,
            &Head::bearer(&stranger()).from("192.0.2.1"),
            101
        )
        .await,
        (100, 1)
    );
}

#[tokio::test]
async fn failures_may_be_limited_otherwise_or_not_at_all() {
    let fixture = Fixture::new();
    let three = Quotas::new([Quota::per_hour(3).unwrap()]).unwrap();
    let strict = fixture
        .bearer()
        .failure_quotas(Some(three))
        .build()
        .unwrap();
    let client = Head::bearer(&stranger()).from("192.0.2.1");
    assert_eq!(codes(&strict, &client, 10).await, (3, 7));
    let lax = fixture.bearer().failure_quotas(None).build().unwrap();
    assert_eq!(codes(&lax, &client, 500).await, (500, 0));
}

#[tokio::test]
async fn at_capacity_the_address_with_the_oldest_failure_is_evicted() {
    let fixture = Fixture::new();
    let authenticator = fixture.bearer().build().unwrap();
    let head = Head::bearer(&stranger());
    let numbered = |number: u32| IpAddr::V4((0x0b00_0000 + number).into()).to_string();
    for number in 0..50_000 {
        let from = head.clone().from(&numbered(number));
        assert_eq!(codes(&authenticator, &from, 1).await, (1, 0));
    }
    // Newcomers are not refused because of others, and the others keep their counts.
    let newcomer = head.clone().from("12.0.0.1");
    assert_eq!(codes(&authenticator, &newcomer, 150).await, (100, 50));
    let second = head.clone().from(&numbered(1));
    assert_eq!(codes(&authenticator, &second, 100).await, (99, 1));
    let first = head.clone().from(&numbered(0));
    assert_eq!(codes(&authenticator, &first, 101).await, (100, 1));
}

/// A limiter that must be awaited first, and could answer synchronously afterwards.
#[derive(Debug, Default)]
struct FirstLate {
    admitted: AtomicU64,
    asked: AtomicBool,
}

#[async_trait]
impl RateLimiter for FirstLate {
    async fn acquire(&self, _: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        tokio::task::yield_now().await;
        self.admitted.fetch_add(1, Ordering::SeqCst);
        Ok(Decision::admitted())
    }
    fn try_acquire(&self, _: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        if !self.asked.swap(true, Ordering::SeqCst) {
            return None;
        }
        self.admitted.fetch_add(1, Ordering::SeqCst);
        Some(Ok(Decision::admitted()))
    }
}

#[tokio::test]
async fn a_limiter_that_was_awaited_is_not_asked_again_for_the_request() {
    let (fixture, limiter) = (Fixture::new(), Arc::new(FirstLate::default()));
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture
        .bearer()
        .limiter(Arc::clone(&limiter))
        .build()
        .unwrap();
    let admission = authenticator.authenticate(&Head::bearer(&key)).await;
    assert!(admission.unwrap().limits().is_some());
    assert_eq!(limiter.admitted.load(Ordering::SeqCst), 1);
}

// ---- sweeps ----

/// Runs between reading the clock and returning what was read.
type Interruption = Box<dyn FnOnce() + Send>;

/// A clock whose reader is interrupted once, after reading it.
#[derive(Clone)]
struct Interrupted {
    time: Time,
    then: Arc<Mutex<Option<Interruption>>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Clock for Interrupted {
    fn now(&self) -> SystemTime {
        self.time.now()
    }
    fn monotonic(&self) -> Duration {
        let read = self.time.monotonic();
        let then = self.then.lock().unwrap().take();
        if let Some(then) = then {
            then();
        }
        read
    }
}

#[test]
fn a_request_that_a_sweep_overtakes_is_not_dated_before_it() {
    let quotas = Quotas::new([Quota::new("window", 1, Duration::from_secs(60)).unwrap()]).unwrap();
    // With a slot, the cell outlives the sweep; without one, it is created again.
    for slot in [Some(LimiterSlot::new()), None] {
        let clock = Interrupted {
            time: Time::at(HOUR),
            then: Arc::default(),
        };
        let limiter = LocalLimiter::builder().clock(Arc::new(clock.clone()));
        let limiter = Arc::new(limiter.build());
        let admits = || {
            let mut bucket = LimitBucket::new(BucketId::Custom("one"), &quotas);
            if let Some(slot) = &slot {
                bucket = bucket.with_slot(slot);
            }
            let decision = limiter.try_acquire(&LimitRequest::new(&[bucket], 1));
            decision.unwrap().unwrap().is_admitted()
        };
        assert!(admits());
        // Reads the clock within the window. Before it comes to its bucket, the window ends and a
        // sweep frees the bucket.
        clock.time.advance(59 * SECOND);
        let (time, sweeper) = (clock.time.clone(), Arc::clone(&limiter));
        *clock.then.lock().unwrap() = Some(Box::new(move || {
            time.advance(2 * SECOND);
            RateLimiter::sweep(&*sweeper);
        }));
        assert!(admits());
        // It was admitted at the time of the sweep, a minute after which the next one passes.
        clock.time.advance(59 * SECOND);
        assert!(!admits());
        clock.time.advance(2 * SECOND);
        assert!(admits());
    }
}
