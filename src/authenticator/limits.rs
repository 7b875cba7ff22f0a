//! Step 7: the host's limits, the buckets of a request, and the evaluation of a limiter's answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::facts::Facts;
use crate::clock::Clock;
use crate::config::{BucketOf, BuildError, CostOf, Limits};
use crate::error::{AuthError, ErrorCode};
use crate::limit::{
    BucketId, Decision, LimitBucket, LimitRequest, LimiterError, LocalLimiter, OnOutage,
    RateLimiter,
};
use crate::principal::KeyEntry;
use crate::quota::Quotas;
use crate::telemetry::{self, Step};

pub(super) struct Limiting {
    /// `None` if nothing is limited.
    pub(super) limiter: Option<Arc<dyn RateLimiter>>,
    /// Counts requests while the limiter does not answer, in mode [`OnOutage::Local`].
    pub(super) stand_in: LocalLimiter,
    pub(super) on_outage: OnOutage,
    /// The quotas of keys without quotas of their own.
    pub(super) quotas: Quotas,
    pub(super) tenant_quotas: Option<Quotas>,
    pub(super) cost_of: Option<Arc<CostOf>>,
    pub(super) bucket_of: Option<Arc<BucketOf>>,
    pub(super) outages: AtomicU64,
}

impl Limiting {
    /// Creates the limits from the host's configuration.
    pub(super) fn new(limits: Limits, clock: &Arc<dyn Clock>) -> Result<Self, BuildError> {
        let local = || LocalLimiter::builder().clock(Arc::clone(clock)).build();
        let quotas = limits.per_key.transpose()?;
        let limiter = quotas.is_some().then(|| {
            let own = || Arc::new(local()) as Arc<dyn RateLimiter>;
            limits.limiter.unwrap_or_else(own)
        });
        Ok(Self {
            limiter,
            stand_in: local(),
            on_outage: limits.on_outage.unwrap_or_default(),
            quotas: quotas.unwrap_or_default(),
            tenant_quotas: limits.per_tenant.transpose()?,
            cost_of: limits.cost_of,
            bucket_of: limits.bucket_of,
            outages: AtomicU64::new(0),
        })
    }

    /// Asks the limiter, if it can answer without waiting.
    pub(super) fn decide_now(
        &self,
        limiter: &dyn RateLimiter,
        entry: &KeyEntry,
        facts: &Facts,
    ) -> Option<Result<Decision, LimiterError>> {
        telemetry::timed(Step::Limiter, || {
            let buckets = self.buckets(entry, facts);
            limiter.try_acquire(&LimitRequest::new(&buckets, facts.cost))
        })
    }

    pub(super) async fn decide(
        &self,
        limiter: &dyn RateLimiter,
        entry: &KeyEntry,
        facts: &Facts,
    ) -> Result<Decision, LimiterError> {
        let buckets = self.buckets(entry, facts);
        let request = LimitRequest::new(&buckets, facts.cost);
        telemetry::awaited(Step::Limiter, limiter.acquire(&request)).await
    }

    /// Evaluates the limiter's answer, or applies the outage mode.
    pub(super) fn admitted(
        &self,
        decided: Result<Decision, LimiterError>,
        entry: &KeyEntry,
        facts: &Facts,
    ) -> Result<Decision, AuthError> {
        let decided = match decided {
            // A request that can never pass is not an outage, so no outage mode applies to it.
            Err(error) if !matches!(error, LimiterError::Cost { .. }) => {
                self.outages.fetch_add(1, Ordering::Relaxed);
                telemetry::limiter_outage(self.on_outage.as_str());
                match self.on_outage {
                    OnOutage::Closed => Err(error),
                    OnOutage::Open => Ok(Decision::admitted()),
                    OnOutage::Local => {
                        let buckets = self.buckets(entry, facts);
                        self.stand_in
                            .decide(&LimitRequest::new(&buckets, facts.cost))
                    }
                }
            }
            decided => decided,
        };
        match decided {
            Ok(decision) if decision.is_admitted() => Ok(decision),
            Ok(decision) => Err(AuthError::rate_limited(decision)),
            Err(error) => Err(not_limited(error)),
        }
    }

    fn buckets<'a>(
        &'a self,
        entry: &'a KeyEntry,
        facts: &'a Facts,
    ) -> SmallVec<[LimitBucket<'a>; 3]> {
        let record = &entry.record;
        let family = LimitBucket::new(BucketId::Family(&record.family), &entry.quotas)
            .with_slot(&entry.family_slot);
        let mut buckets = SmallVec::new();
        buckets.push(family);
        if let Some(quotas) = &self.tenant_quotas {
            let id = BucketId::Tenant(&record.owner.tenant_id);
            buckets.push(LimitBucket::new(id, quotas).with_slot(&entry.tenant_slot));
        }
        if let Some((name, quotas)) = &facts.bucket {
            buckets.push(LimitBucket::new(BucketId::Custom(name), quotas));
        }
        buckets
    }
}

/// Converts a limiter's error for the caller. A cost above the key's limit is not an outage, and no
/// retry helps; a cost of 0 is a mistake of the host.
fn not_limited(error: LimiterError) -> AuthError {
    match error {
        LimiterError::Cost { cost, limit } if cost > limit => {
            let detail = format!(
                "This request costs {cost} units, more than the limit of {limit} that applies to \
                 this API key"
            );
            AuthError::with_detail(ErrorCode::Forbidden, detail).caused_by(error)
        }
        error => AuthError::unavailable(ErrorCode::LimiterUnavailable, error),
    }
}
