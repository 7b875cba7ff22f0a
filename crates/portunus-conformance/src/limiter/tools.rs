//! Shared by the checks of a limiter: a limiter with its clock, and a model that records every
//! admission.

use std::sync::Arc;
use std::time::Duration;

use crate::report::{Checked, Failure, valid};
use portunus::Clock;
use portunus::key::TenantId;
use portunus::limit::{BucketId, Decision, LimitBucket, LimitRequest, RateLimiter, WindowState};
use portunus::quota::{Quota, Quotas};
use portunus::testing::ManualClock;

/// The resolution of time that limiters must support.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// A limiter, and the clock that it was given.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) limiter: Arc<dyn RateLimiter>,
    pub(super) clock: ManualClock,
}

impl Tried {
    /// The monotonic time.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) async fn ask(
        &self,
        buckets: &[LimitBucket<'_>],
        cost: u64,
    ) -> Result<Decision, Failure> {
        Ok(self
            .limiter
            .acquire(&LimitRequest::new(buckets, cost))
            .await?)
    }

    /// The same for a key of this tenant.
    pub(super) async fn ask_for(
        &self,
        tenant: &TenantId,
        buckets: &[LimitBucket<'_>],
        cost: u64,
    ) -> Result<Decision, Failure> {
        let request = LimitRequest::new(buckets, cost).of_tenant(Some(tenant));
        Ok(self.limiter.acquire(&request).await?)
    }

    /// A request of cost 1 on the bucket of this name.
    pub(super) async fn one(&self, name: &str, quotas: &Quotas) -> Result<Decision, Failure> {
        self.ask(&[LimitBucket::new(BucketId::Custom(name), quotas)], 1)
            .await
    }

    /// How many of a number of requests on a bucket are admitted.
    pub(super) async fn passed(
        &self,
        name: &str,
        quotas: &Quotas,
        requests: u64,
    ) -> Result<u64, Failure> {
        let mut passed = 0;
        for _ in 0..requests {
            passed += u64::from(self.one(name, quotas).await?.is_admitted());
        }
        Ok(passed)
    }
}

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn quota(limit: u64, window: Duration) -> Quota {
    valid(Quota::new(
        &format!("q{limit}-{}", window.as_millis()),
        limit,
        window,
    ))
}

pub(super) fn quotas<const N: usize>(list: [(u64, Duration); N]) -> Quotas {
    valid(Quotas::new(
        list.into_iter().map(|(limit, window)| quota(limit, window)),
    ))
}

/// How late a unit may be released: 1/256 of its window plus a tick.
pub(super) fn late(window: Duration) -> Duration {
    window / 256 + TICK
}

pub(super) fn windows(decision: &Decision) -> Vec<WindowState> {
    decision.windows().to_vec()
}

/// The windows of each bucket.
pub(super) fn by_bucket<'d>(
    decision: &'d Decision,
    buckets: &[LimitBucket<'_>],
) -> Result<Vec<&'d [WindowState]>, Failure> {
    let (mut rest, mut all) = (decision.windows(), Vec::new());
    for bucket in buckets {
        let count = bucket.quotas.as_slice().len();
        let split = rest.split_at_checked(count);
        let (windows, later) = split.ok_or_else(|| {
            let why = format!("the decision does not report every window: {decision:?}");
            Failure::new(why)
        })?;
        all.push(windows);
        rest = later;
    }
    ensure!(
        rest.is_empty(),
        "the decision reports more windows than asked: {decision:?}"
    );
    Ok(all)
}

pub(super) fn wait(decision: &Decision) -> Result<Duration, Failure> {
    decision.retry_after().ok_or_else(|| {
        Failure::new(format!(
            "a request was admitted that had to be refused: {decision:?}"
        ))
    })
}

/// Everything that a bucket admitted: when, and how many units.
#[derive(Debug, Default)]
pub(super) struct Past(Vec<(Duration, u64)>);

impl Past {
    pub(super) fn admit(&mut self, now: Duration, units: u64) {
        self.0.push((now, units));
    }

    /// The units in the interval of this length that ends now, both ends included.
    pub(super) fn units_within(&self, length: Duration, now: Duration) -> u64 {
        let since = now.saturating_sub(length);
        self.0
            .iter()
            .rev()
            .take_while(|(time, _)| *time >= since)
            .map(|(_, units)| units)
            .sum()
    }

    /// Checks a decision about this bucket, made at `now`, against everything that the bucket had
    /// admitted before.
    pub(super) fn check(
        &self,
        quotas: &Quotas,
        (cost, now): (u64, Duration),
        decision: &Decision,
        windows: &[WindowState],
    ) -> Checked {
        let admitted = if decision.is_admitted() { cost } else { 0 };
        ensure_eq!(
            windows.len(),
            quotas.as_slice().len(),
            "the number of windows in the decision, compared to the quotas"
        );
        for (quota, window) in quotas.as_slice().iter().zip(windows) {
            let (limit, length) = (quota.limit(), quota.window());
            let must = self.units_within(length, now);
            let may = self.units_within(length + late(length), now);
            let seen = || {
                format!(
                    "{limit} per {length:?} at {now:?}: cost {cost}, {must} to {may} count; {decision:?}"
                )
            };
            ensure!(
                !decision.is_admitted() || must + cost <= limit,
                "too many were admitted: {}",
                seen()
            );
            ensure!(
                !window.is_violated() || may + cost > limit,
                "refused too early: {}",
                seen()
            );
            ensure!(
                decision.is_admitted() || window.is_violated() || must + cost <= limit,
                "a window that refused is not reported as violated: {}",
                seen()
            );
            self.check_state(quota, (admitted, now), window)?;
        }
        Ok(())
    }

    /// Checks the state of a window at `now`, when this many more units were admitted.
    fn check_state(
        &self,
        quota: &Quota,
        (admitted, now): (u64, Duration),
        window: &WindowState,
    ) -> Checked {
        let (limit, length) = (quota.limit(), quota.window());
        let must = self.units_within(length, now) + admitted;
        let may = self.units_within(length + late(length), now) + admitted;
        let seen =
            || format!("{limit} per {length:?} at {now:?}: {must} to {may} count; {window:?}");
        let possible = limit.saturating_sub(may)..=limit.saturating_sub(must);
        ensure!(
            possible.contains(&window.remaining()),
            "wrong remaining units: {}",
            seen()
        );
        ensure_eq!(
            window.reset().is_none(),
            window.remaining() == limit,
            "wrong presence of a reset time: {}",
            seen()
        );
        let longest = length + late(length);
        let right = window
            .reset()
            .is_none_or(|reset| !reset.is_zero() && reset <= longest);
        ensure!(right, "wrong reset time: {}", seen());
        Ok(())
    }

    /// Checks a reading of this bucket, made at `now`.
    pub(super) fn check_states(
        &self,
        quotas: &Quotas,
        now: Duration,
        windows: &[WindowState],
    ) -> Checked {
        ensure_eq!(
            windows.len(),
            quotas.as_slice().len(),
            "the number of windows"
        );
        let mut each = quotas.as_slice().iter().zip(windows);
        each.try_for_each(|(quota, window)| self.check_state(quota, (0, now), window))
    }
}

/// Checks that a decision admits exactly if no window is violated.
pub(super) fn agrees_with_itself(decision: &Decision) -> Checked {
    let none_violated = !decision.windows().iter().any(WindowState::is_violated);
    ensure!(
        decision.is_admitted() == none_violated,
        "whether it admits contradicts its violated windows: {decision:?}"
    );
    ensure!(
        decision.retry_after().is_none_or(|wait| !wait.is_zero()),
        "a refusal with a wait of zero: {decision:?}"
    );
    Ok(())
}
