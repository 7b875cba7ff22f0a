//! Step 7: the policies that apply to a request, and the evaluation of a limiter's answer.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::facts::Facts;
use super::outage::Outage;
use crate::clock::{Clock, within};
use crate::config::{BuildError, CostOf, Limits};
use crate::entry::{Charge, Charger, KeyEntry};
use crate::error::{AuthError, ErrorCode};
#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::key::PlanName;
use crate::key::{KeyRecord, TenantId};
use crate::limit::{
    BucketId, ClassRules, Counter, Decision, LimitBucket, LimitReport, LimitRequest, LimitTable,
    LimiterError, LocalLimiter, Place, PlanLimits, Policy, RateLimiter, Variant, WindowState,
    counted_address,
};
use crate::quota::Quota;
use crate::request::RequestHead;
#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::telemetry::PlanLabel;
use crate::telemetry::{self, Step};
use async_trait::async_trait;
use futures_util::FutureExt as _;

/// How long operators wait for a limiter to be read.
const READING_BOUND: Duration = Duration::from_secs(2);

/// The limits of a service. It refers to no entry of a key, so that entries may refer to it.
pub(crate) struct Limiting {
    /// `None` if nothing is limited.
    pub(super) limiter: Option<Arc<dyn RateLimiter>>,
    pub(super) outage: Outage,
    pub(super) table: LimitTable,
    rules: ClassRules,
    pub(super) cost_of: Option<Arc<CostOf>>,
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    plans_in_metrics: bool,
    /// Whether the warning about requests without a client address was logged.
    warned: AtomicBool,
}

/// Those counted by a request: the owner of a key, or an anonymous client.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    /// The key's entry; `None` for a request without a key.
    pub(super) entry: Option<&'a KeyEntry>,
    pub(super) client_ip: Option<IpAddr>,
    pub(super) class: u8,
}

impl Limiting {
    /// Creates the limits from the host's configuration.
    pub(super) fn new(limits: Limits, clock: &Arc<dyn Clock>) -> Result<Self, BuildError> {
        if limits.contradict() {
            return Err(BuildError::UnusedLimits);
        }
        if let Some(mistake) = limits.mistake {
            return Err(mistake.into());
        }
        let local = || LocalLimiter::builder().clock(Arc::clone(clock)).build();
        let table = LimitTable::new(&limits.policies, &limits.classes, &limits.plans)?;
        if table.is_empty() && !limits.off && limits.plans.is_empty() {
            return Err(BuildError::NoLimits);
        }
        let limiter = (!limits.off).then(|| {
            let own = || Arc::new(local()) as Arc<dyn RateLimiter>;
            limits.limiter.unwrap_or_else(own)
        });
        if limiter
            .as_ref()
            .is_some_and(|limiter| !limiter.counts_together())
        {
            table.check_apart()?;
        }
        Ok(Self {
            limiter,
            outage: Outage::new(limits.on_outage.unwrap_or_default(), clock),
            table,
            rules: limits.rules,
            cost_of: limits.cost_of,
            #[cfg(any(feature = "actix-web", feature = "tower"))]
            plans_in_metrics: limits.plans_in_metrics,
            warned: AtomicBool::new(false),
        })
    }

    /// Returns the label of a request with this plan in metrics.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(super) fn plan_label(&self, plan: Option<&PlanName>) -> PlanLabel {
        match plan {
            _ if !self.plans_in_metrics => PlanLabel::Off,
            // Other names are not bounded.
            Some(plan) if self.table.plan(plan).is_some() => PlanLabel::Plan(plan.clone()),
            _ => PlanLabel::None,
        }
    }

    /// Returns the class of a request by the host's rules.
    pub(super) fn class_of(&self, head: &dyn RequestHead) -> u8 {
        self.rules.class_of(head)
    }

    /// Returns the limiter, if requests without a key are limited.
    pub(super) fn of_anonymous(&self) -> Option<&Arc<dyn RateLimiter>> {
        let is_limited = !self.table.anonymous.is_empty();
        self.limiter.as_ref().filter(|_| is_limited)
    }

    /// Logs a warning once if requests are counted by address and one has none: the host may have
    /// forgotten to provide the peers' addresses.
    fn note_address(&self, client_ip: Option<IpAddr>) {
        if self.table.by_address
            && client_ip.is_none()
            && !self.warned.load(Ordering::Relaxed)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            telemetry::no_address_to_count();
        }
    }

    /// Asks the limiter, if it can answer without waiting.
    #[inline]
    pub(super) fn decide_now(
        &self,
        limiter: &dyn RateLimiter,
        limits: &PlanLimits,
        caller: Caller<'_>,
        cost: u64,
    ) -> Option<Result<Decision, LimiterError>> {
        self.note_address(caller.client_ip);
        telemetry::timed(Step::Limiter, || {
            with_buckets(limits, caller, |buckets| match buckets {
                [] => Some(Ok(Decision::admitted())),
                buckets => {
                    let request = LimitRequest::new(buckets, cost).of_tenant(caller.tenant());
                    limiter.try_acquire(&request)
                }
            })
        })
    }

    pub(super) async fn decide(
        &self,
        limiter: &dyn RateLimiter,
        limits: &PlanLimits,
        caller: Caller<'_>,
        cost: u64,
    ) -> Result<Decision, LimiterError> {
        let buckets = all_buckets(limits, caller, caller.variant());
        let request = LimitRequest::new(&buckets, cost).of_tenant(caller.tenant());
        telemetry::awaited(Step::Limiter, limiter.acquire(&request)).await
    }

    /// Reads the limits of a key of this record, without counting; see
    /// [`KeyManager::limit_states`](crate::manage::KeyManager::limit_states).
    ///
    /// # Errors
    /// Returns an error if the limiter does not answer within [`READING_BOUND`].
    pub(super) async fn read(
        &self,
        limits: &PlanLimits,
        record: &KeyRecord,
    ) -> Result<Vec<(Quota, Option<WindowState>)>, LimiterError> {
        // The page of a key is shown, and the key revoked, whatever the limiter does.
        let reading = AssertUnwindSafe(self.read_each(limits, record)).catch_unwind();
        match within(READING_BOUND, reading).await {
            Some(Ok(read)) => read,
            Some(Err(_)) => Err(LimiterError::unavailable("the limiter panicked")),
            None => {
                let why = format!("the limiter did not answer within {READING_BOUND:?}");
                Err(LimiterError::unavailable(why))
            }
        }
    }

    async fn read_each(
        &self,
        limits: &PlanLimits,
        record: &KeyRecord,
    ) -> Result<Vec<(Quota, Option<WindowState>)>, LimiterError> {
        let mut all = Vec::new();
        for (counter, class, quotas) in limits.of_owner(&record.owner) {
            // A bucket alone, because the policies of all classes are more than one request has.
            let mut bucket = LimitBucket::new(counted(counter, Some(record), None), quotas);
            bucket.class = class;
            let buckets = [bucket];
            let tenant = Some(&record.owner.tenant_id);
            let request = LimitRequest::new(&buckets, 1).of_tenant(tenant);
            let states = match &self.limiter {
                // What an address or all requests used is not of the key.
                Some(limiter) if counter <= Counter::Tenant => limiter.peek(&request).await?,
                _ => None,
            };
            let mut states = states.into_iter().flatten();
            let quotas = quotas.as_slice().iter().cloned();
            all.extend(quotas.map(|quota| (quota, states.next())));
        }
        Ok(all)
    }

    /// Evaluates the limiter's answer, or applies the outage mode.
    ///
    /// # Errors
    /// Returns the decision that refuses, or the error of the limiter.
    pub(super) fn admitted(
        &self,
        decided: Result<Decision, LimiterError>,
        instead: impl FnOnce(LimiterError) -> Result<Decision, LimiterError>,
    ) -> Result<Decision, Result<Decision, AuthError>> {
        let decided = match decided {
            // A request that can never pass is not an outage, so no outage mode applies to it.
            Err(error) if !matches!(error, LimiterError::Cost { .. }) => instead(error),
            decided => {
                self.outage.answered();
                decided
            }
        };
        match decided {
            Ok(decision) if decision.is_admitted() => Ok(decision),
            Ok(decision) => Err(Ok(decision)),
            Err(error) => Err(Err(not_limited(error))),
        }
    }

    /// Evaluates the limiter's answer to a request, or applies the outage mode.
    #[cold]
    pub(super) fn settle(
        &self,
        decided: Result<Decision, LimiterError>,
        limits: &Arc<PlanLimits>,
        caller: Caller<'_>,
        cost: u64,
    ) -> Result<Decision, AuthError> {
        let instead = |error| {
            with_buckets(limits, caller, |buckets| {
                self.outage.decide(error, &LimitRequest::new(buckets, cost))
            })
        };
        self.admitted(decided, instead)
            .map_err(|refused| match refused {
                Ok(decision) => {
                    let source = Arc::clone(limits);
                    AuthError::rate_limited(LimitReport::new(source, caller.variant(), decision))
                }
                Err(error) => error,
            })
    }
}

impl<'c> Caller<'c> {
    fn tenant(&self) -> Option<&'c TenantId> {
        self.entry.map(|entry| &entry.record.owner.tenant_id)
    }

    pub(super) fn of<'a>(entry: Option<&'a KeyEntry>, facts: &Facts) -> Caller<'a> {
        Caller {
            entry,
            client_ip: facts.client_ip,
            class: facts.class,
        }
    }

    pub(super) fn variant(&self) -> Variant {
        Variant {
            class: self.class,
            without_address: self.client_ip.is_none(),
            without_user: self.entry.is_some_and(|entry| !entry.facts.is_of_user),
            without_key: self.entry.is_none(),
        }
    }
}

/// Returns who is counted by a policy that applies to a request.
#[inline]
fn counted(
    counter: Counter,
    record: Option<&KeyRecord>,
    client_ip: Option<IpAddr>,
) -> BucketId<'_> {
    let address = || client_ip.map(counted_address);
    match (counter, record) {
        (Counter::Key, Some(record)) => BucketId::Family(&record.family),
        (Counter::Tenant, Some(record)) => BucketId::Tenant(&record.owner.tenant_id),
        (Counter::User, Some(record)) => {
            let owner = &record.owner;
            match &owner.user_id {
                Some(user) => BucketId::User(&owner.tenant_id, user),
                // Such a key has no such policy (`Variant::without_user`).
                None => BucketId::Tenant(&owner.tenant_id),
            }
        }
        (Counter::Address, _) => BucketId::Address(address()),
        (Counter::Anonymous, _) => BucketId::Anonymous(address()),
        (Counter::AnonymousShared, _) => BucketId::AnonymousShared,
        // A request without a key has no policies that count keys or their owners.
        (Counter::Shared | Counter::Key | Counter::User | Counter::Tenant, _) => BucketId::Shared,
    }
}

/// Returns the bucket of a policy that applies to a request.
#[inline]
fn bucket<'a>(policy: &'a Policy, caller: Caller<'a>) -> LimitBucket<'a> {
    let record = caller.entry.map(|entry| &*entry.record);
    let id = counted(policy.counter, record, caller.client_ip);
    let mut bucket = LimitBucket::new(id, &policy.quotas);
    bucket.class = policy.class.as_deref();
    bucket.slot = match (&policy.place, caller.entry) {
        (Place::Entry(place), Some(entry)) => entry.slot(*place),
        (Place::Policy(slot), _) => Some(slot),
        _ => None,
    };
    bucket
}

/// Returns the bucket of a key's own quotas.
#[inline]
fn own_bucket<'a>(limits: &'a PlanLimits, caller: Caller<'a>) -> Option<LimitBucket<'a>> {
    let (own, entry) = (limits.own.as_ref()?, caller.entry?);
    let mut bucket = LimitBucket::new(BucketId::Family(&entry.record.family), own);
    // The first slot, see `LimitTable::new`.
    bucket.slot = entry.slot(0);
    Some(bucket)
}

/// Calls a function with the buckets of a request: one for each policy that applies, in their
/// order. Up to four need no memory of their own.
#[inline]
fn with_buckets<T>(
    limits: &PlanLimits,
    caller: Caller<'_>,
    ask: impl FnOnce(&[LimitBucket<'_>]) -> T,
) -> T {
    let of = |policy| bucket(policy, caller);
    match (
        own_bucket(limits, caller),
        limits.policies(caller.variant()),
    ) {
        (None, []) => ask(&[]),
        (None, [a]) => ask(&[of(a)]),
        (None, [a, b]) => ask(&[of(a), of(b)]),
        (None, [a, b, c]) => ask(&[of(a), of(b), of(c)]),
        (None, [a, b, c, d]) => ask(&[of(a), of(b), of(c), of(d)]),
        (Some(own), []) => ask(&[own]),
        (Some(own), [a]) => ask(&[own, of(a)]),
        (Some(own), [a, b]) => ask(&[own, of(a), of(b)]),
        (Some(own), [a, b, c]) => ask(&[own, of(a), of(b), of(c)]),
        _ => ask(&all_buckets(limits, caller, caller.variant())),
    }
}

/// Returns the buckets of a request, as for [`with_buckets`].
fn all_buckets<'a>(
    limits: &'a PlanLimits,
    caller: Caller<'a>,
    variant: Variant,
) -> Vec<LimitBucket<'a>> {
    let policies = limits.policies(variant).iter();
    let of = policies.map(|policy| bucket(policy, caller));
    own_bucket(limits, caller).into_iter().chain(of).collect()
}

#[async_trait]
impl Charger for Limiting {
    async fn charge(&self, charge: Charge<'_>) -> Result<Decision, Result<Decision, AuthError>> {
        let Some(limiter) = &self.limiter else {
            return Ok(Decision::admitted());
        };
        let caller = Caller {
            entry: charge.entry,
            client_ip: charge.client_ip,
            class: charge.variant.class,
        };
        let buckets = all_buckets(charge.limits, caller, charge.variant);
        if buckets.is_empty() {
            return Ok(Decision::admitted());
        }
        let mut request = LimitRequest::new(&buckets, charge.units).of_tenant(caller.tenant());
        request.overdraw = charge.overdraw;
        let decided = match limiter.try_acquire(&request) {
            Some(decided) => decided,
            None => telemetry::awaited(Step::Limiter, limiter.acquire(&request)).await,
        };
        self.admitted(decided, |error| self.outage.decide(error, &request))
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
