//! Random walks through time, compared to the model: no interval with too many admissions, no
//! refusal too early, exact waits.
//!
//! Time moves in whole milliseconds, except for waits that a limiter reported, which are waited for
//! exactly.

use std::time::Duration;

use super::readings::agrees;
use super::tools::{Past, TICK, Tried, agrees_with_itself, by_bucket, late, quota, seconds, wait};
use crate::random::Random;
use crate::report::{Checked, Failure, valid};
use portunus::key::{KeyFamily, TenantId};
use portunus::limit::{BucketId, Decision, LimitBucket, LimitRequest};
use portunus::quota::{Quota, Quotas};

/// The number of walks of each kind.
pub(super) const WALKS: u64 = 10;
const STEPS: u64 = 300;

fn random_quotas(random: &mut Random) -> Quotas {
    let mut list: Vec<Quota> = Vec::new();
    let count = random.between(1, 3);
    while list.len() as u64 != count {
        let limit = match random.below(8) {
            0 => 1,
            1..=4 => random.between(2, 64),
            _ => random.between(65, 200),
        };
        let window = match random.below(6) {
            0 => seconds(1),
            1 => seconds(7),
            2 => seconds(60),
            3 => seconds(3600),
            4 => Duration::from_millis(random.between(1_000, 300_000)),
            _ => seconds(24 * 3600),
        };
        let new = quota(limit, window);
        if list.iter().all(|known| known.name() != new.name()) {
            list.push(new);
        }
    }
    valid(Quotas::new(list))
}

fn least(quotas: &Quotas) -> u64 {
    quotas
        .as_slice()
        .iter()
        .map(Quota::limit)
        .min()
        .unwrap_or(1)
}

fn random_cost(random: &mut Random, most: u64) -> u64 {
    match random.below(10) {
        0..=5 => 1,
        6..=8 => random.between(1, most.min(5)),
        _ => random.between(1, (most / 2).max(1)),
    }
}

/// Zero, a tick, about the rate that a quota allows, or around the end of a window.
fn random_step(random: &mut Random, quotas: &Quotas) -> Duration {
    let quota = random.pick(quotas.as_slice());
    let window = u64::try_from(quota.window().as_millis()).unwrap_or(u64::MAX);
    let milliseconds = match random.below(20) {
        0..=9 => 0,
        10 => 1,
        11..=15 => random.below(2 * window / quota.limit() + 2),
        16 => random.between(1, 3) * 1_000,
        17 => random.below(window / 16),
        18 => window + random.pick(&[0, 0, 1, window / 256 + 1]) - random.below(2),
        _ => random.below(window / 2),
    };
    Duration::from_millis(milliseconds)
}

/// Makes a request by either method.
async fn ask(
    tried: &Tried,
    random: &mut Random,
    buckets: &[LimitBucket<'_>],
    cost: u64,
) -> Result<Decision, Failure> {
    let read = match random.one_in(4) {
        true => {
            tried
                .limiter
                .peek(&LimitRequest::new(buckets, cost))
                .await?
        }
        false => None,
    };
    let now = random
        .one_in(2)
        .then(|| tried.limiter.try_acquire(&LimitRequest::new(buckets, cost)))
        .flatten();
    let decision = match now {
        Some(decision) => decision?,
        None => tried.ask(buckets, cost).await?,
    };
    agrees_with_itself(&decision)?;
    if let Some(read) = read {
        agrees(&read, &decision, cost)?;
    }
    Ok(decision)
}

/// A walk on one bucket.
pub(super) async fn one_bucket(tried: Tried, seed: u64) -> Checked {
    let mut random = Random::new(seed);
    let quotas = random_quotas(&mut random);
    let bucket = [LimitBucket::new(BucketId::Custom("walk"), &quotas)];
    let mut past = Past::default();
    for _ in 0..STEPS {
        tried.clock.advance(random_step(&mut random, &quotas));
        let cost = random_cost(&mut random, least(&quotas));
        let decision = act(&tried, &mut random, &bucket, cost, &mut past).await?;
        if decision.is_admitted() {
            continue;
        }
        // A refusal changes nothing.
        let again = act(&tried, &mut random, &bucket, cost, &mut past).await?;
        ensure_eq!(
            again,
            decision,
            "the same request, right after it was refused"
        );
        if random.one_in(3) {
            // A lone retry is admitted exactly then, and not before.
            let wait = wait(&decision)?;
            let longest = quotas
                .as_slice()
                .iter()
                .map(Quota::window)
                .max()
                .unwrap_or_default();
            ensure!(
                wait <= longest + late(longest),
                "a wait of {wait:?} for quotas {quotas}"
            );
            let early = wait.saturating_sub(TICK);
            tried.clock.advance(early);
            let decision = act(&tried, &mut random, &bucket, cost, &mut past).await?;
            ensure!(
                early.is_zero() || !decision.is_admitted(),
                "a retry was admitted a millisecond before {wait:?} were over"
            );
            tried.clock.advance(wait - early);
            let decision = act(&tried, &mut random, &bucket, cost, &mut past).await?;
            ensure!(
                decision.is_admitted(),
                "a lone retry was refused after {wait:?}: {decision:?}"
            );
        }
    }
    Ok(())
}

async fn act(
    tried: &Tried,
    random: &mut Random,
    bucket: &[LimitBucket<'_>; 1],
    cost: u64,
    past: &mut Past,
) -> Result<Decision, Failure> {
    let (decision, now, quotas) = (
        ask(tried, random, bucket, cost).await?,
        tried.now(),
        bucket[0].quotas,
    );
    let reported = by_bucket(&decision, bucket)?;
    past.check(quotas, (cost, now), &decision, reported[0])?;
    if decision.is_admitted() {
        past.admit(now, cost);
    }
    Ok(decision)
}

/// A walk on several buckets at a time, of several kinds.
pub(super) async fn several_buckets(tried: Tried, seed: u64) -> Checked {
    let mut random = Random::new(seed);
    let families = ["f0", "f1", "f2"].map(|name| valid(KeyFamily::new(name)));
    let tenants = ["t0", "t1"].map(|name| valid(TenantId::new(name)));
    let kinds: [Quotas; 3] = std::array::from_fn(|_| random_quotas(&mut random));
    let mut pasts: [[Past; 3]; 3] = Default::default();
    for _ in 0..STEPS {
        let pace = random.pick(&[0, 1, 2]);
        tried.clock.advance(random_step(&mut random, &kinds[pace]));
        let which = [
            random.pick(&[0, 1, 2]),
            random.pick(&[0, 1]),
            random.pick(&[0, 1]),
        ];
        let chosen: Vec<(usize, usize)> = (0..3)
            .filter(|_| !random.one_in(4))
            .map(|kind| (kind, which[kind]))
            .collect();
        let Some(most) = chosen.iter().map(|&(kind, _)| least(&kinds[kind])).min() else {
            continue;
        };
        let id = |kind, which: usize| match kind {
            0 => BucketId::Family(&families[which]),
            1 => BucketId::Tenant(&tenants[which]),
            _ => BucketId::Custom(["c0", "c1"][which]),
        };
        let buckets: Vec<_> = chosen
            .iter()
            .map(|&(kind, which)| LimitBucket::new(id(kind, which), &kinds[kind]))
            .collect();
        let cost = random_cost(&mut random, most);
        let (decision, now) = (ask(&tried, &mut random, &buckets, cost).await?, tried.now());
        let reported = by_bucket(&decision, &buckets)?;
        for (&(kind, which), windows) in chosen.iter().zip(reported) {
            pasts[kind][which].check(&kinds[kind], (cost, now), &decision, windows)?;
        }
        if decision.is_admitted() {
            chosen
                .iter()
                .for_each(|&(kind, which)| pasts[kind][which].admit(now, cost));
        }
    }
    Ok(())
}
