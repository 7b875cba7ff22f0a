//! What a limiter promises about [`RateLimiter::peek`](portunus::RateLimiter::peek). A limiter that
//! cannot be read promises nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinSet, yield_now};

use super::promises::{family, per_minute, tenant};
use super::tools::{Past, TICK, Tried, late, quotas, seconds, wait};
use crate::report::{Checked, Failure};
use portunus::limit::{BucketId, Decision, LimitBucket, LimitRequest, LimiterSlot, WindowState};
use portunus::quota::Quotas;

/// What a decision about the same request must say, right after a reading: admitted if its units were
/// left everywhere, which are then used.
pub(super) fn agrees(read: &[WindowState], decision: &Decision, cost: u64) -> Checked {
    let is_left = read.iter().all(|window| window.remaining() >= cost);
    let used = if is_left { cost } else { 0 };
    let expected: Vec<u64> = read
        .iter()
        .map(|window| window.remaining() - used)
        .collect();
    let windows = decision.windows().iter();
    let decided: Vec<u64> = windows.map(WindowState::remaining).collect();
    ensure_eq!(
        (decision.is_admitted(), decided),
        (is_left, expected),
        "whether a request of cost {cost} was admitted, and remaining units, after the reading {read:?}"
    );
    Ok(())
}

fn left(read: &[WindowState]) -> Vec<u64> {
    read.iter().map(WindowState::remaining).collect()
}

impl Tried {
    /// Reads a request often; `None` if the limiter cannot be read.
    async fn read(&self, request: &LimitRequest<'_>) -> Result<Option<Vec<WindowState>>, Failure> {
        let Some(first) = self.limiter.peek(request).await? else {
            return Ok(None);
        };
        for _ in 0..20 {
            let again = self.limiter.peek(request).await?;
            let again = again.ok_or_else(|| Failure::new("it can only be read sometimes"))?;
            ensure_eq!(left(&again), left(&first), "units left, when read again");
        }
        let refused = first.iter().any(WindowState::is_violated);
        ensure!(!refused, "a reading refuses nothing: {first:?}");
        Ok(Some(first))
    }
}

pub(super) async fn reading(tried: Tried) -> Checked {
    let (tenant, family) = (tenant("read"), family("read"));
    let (own, all) = (
        quotas([(3, seconds(60)), (70, seconds(3600))]),
        per_minute(5),
    );
    let slot = LimiterSlot::new();
    let bare = LimitBucket::new(BucketId::Family(&family), &own);
    let of_tenant = LimitBucket::new(BucketId::Tenant(&tenant), &all);
    for (turn, bucket) in [bare, bare.with_slot(&slot), bare].into_iter().enumerate() {
        let buckets = [bucket, of_tenant];
        let request = LimitRequest::new(&buckets, 1).of_tenant(Some(&tenant));
        let Some(read) = tried.read(&request).await? else {
            return Ok(());
        };
        let used = turn as u64;
        ensure_eq!(
            left(&read),
            [3 - used, 70 - used, 5 - used],
            "units left in every window of every bucket, after {used} requests"
        );
        for (window, limit) in read.iter().zip([3, 70, 5]) {
            ensure_eq!(
                window.reset().is_some(),
                window.remaining() < limit,
                "whether the reading says when used units are available again: {read:?}"
            );
        }
        agrees(&read, &tried.limiter.acquire(&request).await?, 1)?;
    }
    // The family has none left, the tenant has two. No cost is too high to be read.
    let buckets = [bare, of_tenant];
    for (cost, overdraws) in [(1, false), (0, false), (3, false), (99, false), (99, true)] {
        let mut request = LimitRequest::new(&buckets, cost).of_tenant(Some(&tenant));
        request.overdraw = overdraws;
        let read = tried.read(&request).await?.unwrap_or_default();
        ensure_eq!(
            left(&read),
            [0, 67, 2],
            "units left, read with a cost of {cost}"
        );
    }
    let refused = tried.ask_for(&tenant, &buckets, 1).await?;
    ensure!(
        !refused.is_admitted(),
        "admitted after a reading of 0 units"
    );
    let other = [of_tenant.in_class("other")];
    let read = tried.read(&LimitRequest::new(&other, 1)).await?;
    ensure_eq!(
        left(&read.unwrap_or_default()),
        [5],
        "units left of another class"
    );
    let decision = tried.ask_for(&tenant, &[of_tenant], 1).await?;
    ensure_eq!(left(decision.windows()), [1], "units left of the tenant");
    with_other_quotas(&tried).await?;
    while_others_count(&tried).await
}

/// A reading with the quotas of another plan sees what was counted, and leaves the quotas alone.
async fn with_other_quotas(tried: &Tried) -> Checked {
    let (three, five, hour) = (per_minute(3), per_minute(5), quotas([(100, seconds(3600))]));
    ensure_eq!(
        tried.passed("plans", &three, 2).await?,
        2,
        "under the first plan"
    );
    for (quotas, remaining) in [(&five, 3), (&hour, 98), (&per_minute(1), 0), (&three, 1)] {
        let bucket = [LimitBucket::new(BucketId::Custom("plans"), quotas)];
        let read = tried.read(&LimitRequest::new(&bucket, 1)).await?;
        ensure_eq!(
            left(&read.unwrap_or_default()),
            [remaining],
            "units left of {quotas}, after 2 requests under {three}"
        );
    }
    ensure_eq!(
        tried.passed("plans", &three, 9).await?,
        1,
        "after readings with other quotas"
    );
    Ok(())
}

async fn while_others_count(tried: &Tried) -> Checked {
    let (quotas, tenant) = (per_minute(50), tenant("busy"));
    let (passed, ended) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        let (tried, quotas, tenant, passed) = (
            tried.clone(),
            quotas.clone(),
            tenant.clone(),
            Arc::clone(&passed),
        );
        asking.spawn(async move {
            for _ in 0..25 {
                yield_now().await;
                let bucket = [LimitBucket::new(BucketId::Tenant(&tenant), &quotas)];
                let decision = tried.ask_for(&tenant, &bucket, 1).await?;
                passed.fetch_add(u64::from(decision.is_admitted()), Ordering::SeqCst);
            }
            Ok::<_, Failure>(())
        });
    }
    let mut reading = JoinSet::new();
    for _ in 0..2 {
        let (tried, quotas, tenant) = (tried.clone(), quotas.clone(), tenant.clone());
        let (passed, ended) = (Arc::clone(&passed), Arc::clone(&ended));
        reading.spawn(async move {
            let bucket = [LimitBucket::new(BucketId::Tenant(&tenant), &quotas)];
            let request = LimitRequest::new(&bucket, 1).of_tenant(Some(&tenant));
            let mut least = 50;
            while !ended.load(Ordering::SeqCst) {
                let most = 50_u64.saturating_sub(passed.load(Ordering::SeqCst));
                let read = tried.limiter.peek(&request).await?.unwrap_or_default();
                let now = read.first().map_or(0, WindowState::remaining);
                ensure!(
                    now <= most.min(least),
                    "{now} of 50 units left, after there were {}",
                    most.min(least)
                );
                least = now;
                yield_now().await;
            }
            Ok(())
        });
    }
    while let Some(done) = asking.join_next().await {
        done??;
    }
    ended.store(true, Ordering::SeqCst);
    while let Some(done) = reading.join_next().await {
        done??;
    }
    ensure_eq!(
        passed.load(Ordering::SeqCst),
        50,
        "how many of 100 requests were admitted under a limit of 50, among readings"
    );
    Ok(())
}

/// Readings as time passes, compared with all that was admitted.
pub(super) async fn over_time(tried: Tried) -> Checked {
    for limit in [4, 100] {
        let (name, quotas) = (
            format!("over time {limit}"),
            quotas([(limit, seconds(60)), (1_000, seconds(600))]),
        );
        let bucket = [LimitBucket::new(BucketId::Custom(&name), &quotas)];
        let request = LimitRequest::new(&bucket, 1);
        let mut past = Past::default();
        for second in (0..150).step_by(2) {
            if second % 10 == 0 && second < 40 {
                let decision = tried.ask(&bucket, limit / 4).await?;
                ensure!(
                    decision.is_admitted(),
                    "a request under the limit was refused"
                );
                past.admit(tried.now(), limit / 4);
            }
            let Some(read) = tried.read(&request).await? else {
                return Ok(());
            };
            past.check_states(&quotas, tried.now(), &read)?;
            tried.clock.advance(seconds(2));
        }
    }
    nothing_is_kept_for_longer(&tried, &quotas([(3, seconds(60))])).await
}

/// Readings neither postpone a retry nor keep a unit.
async fn nothing_is_kept_for_longer(tried: &Tried, quotas: &Quotas) -> Checked {
    ensure_eq!(
        tried.passed("kept", quotas, 3).await?,
        3,
        "how many were admitted"
    );
    let bucket = [LimitBucket::new(BucketId::Custom("kept"), quotas)];
    let request = LimitRequest::new(&bucket, 1);
    let mut left = wait(&tried.one("kept", quotas).await?)?;
    while left > TICK {
        let read = tried.read(&request).await?.unwrap_or_default();
        let reset = read
            .first()
            .and_then(WindowState::reset)
            .unwrap_or_default();
        let right = (left..=left + late(seconds(60))).contains(&reset);
        ensure!(
            right,
            "the first unit is available in {left:?}, not {reset:?}"
        );
        let step = (left / 2).max(TICK).min(left - TICK);
        let step = Duration::from_millis(u64::try_from(step.as_millis()).unwrap_or(1).max(1));
        tried.clock.advance(step);
        left = left.saturating_sub(step);
    }
    tried.clock.advance(left);
    ensure!(
        tried.one("kept", quotas).await?.is_admitted(),
        "readings postponed a retry"
    );
    tried.clock.advance(seconds(60) + late(seconds(60)));
    let read = tried.read(&request).await?.unwrap_or_default();
    let state = read
        .first()
        .map(|window| (window.remaining(), window.reset()));
    ensure_eq!(
        state,
        Some((3, None)),
        "the window, when all units are past"
    );
    ensure_eq!(
        tried.passed("kept", quotas, 5).await?,
        3,
        "how many were admitted then"
    );
    Ok(())
}
