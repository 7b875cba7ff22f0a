//! A plan: a named list of policies, and what a key of the plan may have.

use std::time::Duration;

use super::policy::{LimitPolicy, all};
use crate::quota::{Quota, Quotas};
use crate::text::ParseError;

/// A plan that a tenant pays for: a named list of limits.
///
/// A policy of the plan takes the place of the policy of [`Limits`](crate::Limits) that counts in
/// the same way and for the same class; the other policies of `Limits` also apply. So
/// [`LimitPolicy::unlimited`] removes a limit, and a plan with no policy changes none.
///
/// A plan also limits what an operator of a tenant may set on a key of the plan. Lifetimes and the
/// number of active keys are checked then; later changes of the plan end no key.
///
/// ```
/// use portunus::Limits;
/// use portunus::limit::{CountedBy, LimitPolicy, Plan};
/// use portunus::quota::Quota;
///
/// let limits = Limits::per_key([Quota::per_minute(60), Quota::per_hour(1000)])
///     .plan(Plan::new("free", [LimitPolicy::per_key([Quota::per_minute(10)])]).active_keys(2))
///     .plan(Plan::new("team", [LimitPolicy::per_tenant([Quota::per_minute(600)])]))
///     .plan(Plan::new("enterprise", [LimitPolicy::unlimited(CountedBy::Key)]).any_active_keys());
/// ```
#[derive(Debug, Clone)]
#[must_use = "a plan does nothing until it is added to Limits"]
pub struct Plan {
    pub(super) name: String,
    /// Each with its class.
    pub(super) policies: Vec<(Option<String>, LimitPolicy)>,
    pub(super) own: Option<Result<Quotas, ParseError>>,
    pub(super) own_stay: bool,
    pub(super) active_keys: Option<Bound<u64>>,
    pub(super) lifetime: Option<Bound<Duration>>,
}

/// The most of something that a plan allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound<T> {
    AtMost(T),
    Unlimited,
}

impl Plan {
    /// Creates a plan. The name is that of a [`PlanName`](crate::key::PlanName); an invalid one is
    /// reported when the service is built.
    pub fn new(name: impl Into<String>, policies: impl IntoIterator<Item = LimitPolicy>) -> Self {
        let policies = policies.into_iter().map(|policy| (None, policy));
        Self {
            name: name.into(),
            policies: policies.collect(),
            own: None,
            own_stay: false,
            active_keys: None,
            lifetime: None,
        }
    }

    /// Adds policies for requests of a [class](crate::Limits::class).
    pub fn class(
        mut self,
        name: impl Into<String>,
        policies: impl IntoIterator<Item = LimitPolicy>,
    ) -> Self {
        let class = Some(name.into());
        let policies = policies.into_iter().map(|policy| (class.clone(), policy));
        self.policies.extend(policies);
        self
    }

    /// Sets the most that a key's own quotas (`rate_limit_config`) may allow: what an operator can
    /// set, and what applies to requests, so that a tenant that changes to a smaller plan keeps no
    /// larger quotas. The default is the plan's limit per key.
    pub fn own_quotas(mut self, most: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        self.own = Some(all(&mut most.into_iter()));
        self
    }

    /// Lets own quotas apply in full, also those beyond [`own_quotas`](Self::own_quotas), which only
    /// the service itself and operators whom the policy allows can set.
    pub const fn own_quotas_stay(mut self) -> Self {
        self.own_stay = true;
        self
    }

    /// Sets the maximum number of active keys of a tenant with this plan. The default is
    /// [`IssueRules::active_keys`](crate::manage::IssueRules::active_keys).
    pub const fn active_keys(mut self, most: u64) -> Self {
        self.active_keys = Some(Bound::AtMost(most));
        self
    }

    /// Sets that a tenant with this plan may have any number of active keys.
    pub const fn any_active_keys(mut self) -> Self {
        self.active_keys = Some(Bound::Unlimited);
        self
    }

    /// Sets the maximum lifetime of a key. The default is
    /// [`IssueRules::longest_lifetime`](crate::manage::IssueRules::longest_lifetime).
    pub const fn longest_lifetime(mut self, longest: Duration) -> Self {
        self.lifetime = Some(Bound::AtMost(longest));
        self
    }

    /// Sets that a key may have any lifetime, and need not expire.
    pub const fn any_lifetime(mut self) -> Self {
        self.lifetime = Some(Bound::Unlimited);
        self
    }
}
