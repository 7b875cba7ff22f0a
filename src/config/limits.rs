//! Limits of a service: how many requests a key, a tenant or a group of requests may make.

use std::fmt;
use std::sync::Arc;

use crate::limit::{LookupBudget, OnOutage, RateLimiter};
use crate::quota::{Quota, Quotas};
use crate::request::RequestHead;
use crate::text::ParseError;

pub(crate) type CostOf = dyn Fn(&dyn RequestHead) -> u64 + Send + Sync;
pub(crate) type BucketOf = dyn Fn(&dyn RequestHead) -> Option<(String, Quotas)> + Send + Sync;

/// Rate limits of a service.
///
/// The default is 60 requests a minute and 1000 an hour for each key, counted in this process. A
/// key that has its own quotas is limited by those instead.
///
/// ```
/// use portunus::Limits;
/// use portunus::quota::Quota;
///
/// let limits = Limits::per_key([Quota::per_minute(600), Quota::per_hour(10_000)]);
/// ```
#[derive(Clone)]
#[must_use = "limits do nothing until they are given to a builder"]
pub struct Limits {
    /// `None` if nothing is limited.
    pub(crate) per_key: Option<Result<Quotas, ParseError>>,
    pub(crate) per_tenant: Option<Result<Quotas, ParseError>>,
    pub(crate) limiter: Option<Arc<dyn RateLimiter>>,
    pub(crate) on_outage: Option<OnOutage>,
    pub(crate) cost_of: Option<Arc<CostOf>>,
    pub(crate) bucket_of: Option<Arc<BucketOf>>,
    pub(crate) lookups: LookupBudget,
}

impl Limits {
    /// Limits each key to these quotas, unless the key has its own. An invalid quota is reported
    /// when the service is built.
    pub fn per_key(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        Self::of(all(quotas))
    }

    /// Disables limiting: every key may make any number of requests, even if it has its own quotas.
    pub fn none() -> Self {
        Self {
            per_key: None,
            ..Self::default()
        }
    }

    fn of(quotas: Result<Quotas, ParseError>) -> Self {
        Self {
            per_key: Some(quotas),
            per_tenant: None,
            limiter: None,
            on_outage: None,
            cost_of: None,
            bucket_of: None,
            lookups: LookupBudget::default(),
        }
    }

    /// Adds quotas shared by all keys of a tenant. Their names must differ from those of the keys'
    /// quotas, because responses report both.
    pub fn per_tenant(
        mut self,
        quotas: impl IntoIterator<Item = Result<Quota, ParseError>>,
    ) -> Self {
        self.per_tenant = Some(all(quotas));
        self
    }

    /// Adds a bucket for a group of requests. The host computes its name from the request, for
    /// example from an endpoint group or a region; `None` means no bucket.
    pub fn bucket(
        mut self,
        bucket_of: impl Fn(&dyn RequestHead) -> Option<(String, Quotas)> + Send + Sync + 'static,
    ) -> Self {
        self.bucket_of = Some(Arc::new(bucket_of));
        self
    }

    /// Sets how many units a request costs. The default is 1. A request that costs more than one of
    /// its key's quotas can never pass and is refused with 403 `FORBIDDEN`. A cost of 0 is a host
    /// error and is answered with 503.
    pub fn cost(
        mut self,
        cost_of: impl Fn(&dyn RequestHead) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.cost_of = Some(Arc::new(cost_of));
        self
    }

    /// Sets the limiter. The default counts in this process.
    pub fn limiter(mut self, limiter: impl RateLimiter) -> Self {
        self.limiter = Some(Arc::new(limiter));
        self
    }

    /// Sets what happens while the limiter does not answer. The default is to count in this
    /// process.
    pub fn on_outage(mut self, mode: OnOutage) -> Self {
        self.on_outage = Some(mode);
        self
    }

    /// Sets how many lookups of unknown keys clients may cause.
    pub fn lookups(mut self, budget: LookupBudget) -> Self {
        self.lookups = budget;
        self
    }

    /// Returns whether a setting has no effect because nothing is limited.
    pub(crate) fn contradict(&self) -> bool {
        self.per_key.is_none()
            && (self.per_tenant.is_some()
                || self.limiter.is_some()
                || self.on_outage.is_some()
                || self.cost_of.is_some()
                || self.bucket_of.is_some())
    }
}

fn all(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Result<Quotas, ParseError> {
    Quotas::new(quotas.into_iter().collect::<Result<Vec<_>, _>>()?)
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(Ok(Quotas::default()))
    }
}

impl From<Quotas> for Limits {
    fn from(quotas: Quotas) -> Self {
        Self::of(Ok(quotas))
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("per_key", &self.per_key)
            .field("per_tenant", &self.per_tenant)
            .field("limiter", &self.limiter)
            .field("on_outage", &self.on_outage)
            .finish_non_exhaustive()
    }
}
