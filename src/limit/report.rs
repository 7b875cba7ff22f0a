//! The policies of a request together with their state: what responses report.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::fields::{CreditState, Field, Kept};
use super::table::{PlanLimits, Variant};
use super::{Decision, WindowState};
use crate::quota::{Quota, Quotas};

/// Where the policies of a request are kept.
pub(crate) trait PolicySource: Send + Sync {
    /// Returns the limits of the plan, and the key's own.
    fn limits(&self) -> &PlanLimits;
}

/// The limits of a request and their state, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct LimitState<'a> {
    pub(crate) limits: &'a PlanLimits,
    pub(crate) variant: Variant,
    pub(crate) decision: &'a Decision,
    pub(crate) credits: Option<CreditState>,
}

impl<'a> LimitState<'a> {
    /// Returns the value of `RateLimit-Policy`, if it is kept.
    pub(super) fn kept_policies(self) -> Option<&'static Kept> {
        self.limits.kept_field(self.variant)
    }

    /// Writes the value of `RateLimit-Policy`.
    pub(super) fn write_policies(self, field: &mut Field) {
        if let Some(kept) = self.kept_policies() {
            field.push(kept.text);
        } else {
            let policies = self.limits.field(self.variant);
            let parts = self.limits.own_field.as_deref().into_iter().chain(policies);
            for (at, part) in parts.enumerate() {
                if at > 0 {
                    field.push(", ");
                }
                field.push(part);
            }
        }
        if let Some(credits) = self.credits {
            let is_first = self.decision.windows().is_empty();
            field.push(if is_first {
                "\"credits\";q="
            } else {
                ", \"credits\";q="
            });
            field.push_number(credits.granted);
        }
    }

    /// Returns each quota with its state; see [`LimitReport::quotas`].
    pub(crate) fn quotas(self) -> impl Iterator<Item = (&'a Quota, &'a WindowState)> {
        let policies = self.limits.policies(self.variant).iter();
        let own = self.limits.own.iter();
        let all = own.chain(policies.map(|policy| &policy.quotas));
        all.flat_map(Quotas::as_slice).zip(self.decision.windows())
    }
}

/// The state of every limit that applies to a request, after the request was counted or refused.
#[derive(Clone)]
pub struct LimitReport {
    source: Arc<dyn PolicySource>,
    variant: Variant,
    decision: Decision,
    credits: Option<CreditState>,
}

impl LimitReport {
    pub(crate) fn new(source: Arc<dyn PolicySource>, variant: Variant, decision: Decision) -> Self {
        Self {
            source,
            variant,
            decision,
            credits: None,
        }
    }

    /// Adds the state of the credits, for response fields.
    pub(crate) fn with_credits(mut self, credits: Option<CreditState>) -> Self {
        self.credits = credits;
        self
    }

    /// Returns the report of a request that only credits limit.
    pub(crate) fn of_credits_only() -> Self {
        let source = Arc::new(PlanLimits::undeclared());
        Self::new(source, Variant::default(), Decision::admitted())
    }

    /// Returns the report of a request that nothing limits.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn empty() -> Self {
        Self::of_credits_only()
    }

    /// Creates the report of a limit of the host's own: its quotas, and the limiter's decision about
    /// one bucket with them.
    #[must_use]
    pub fn of(quotas: &Quotas, decision: Decision) -> Self {
        let source = Arc::new(PlanLimits::undeclared().with_own(quotas));
        let variant = Variant {
            without_key: true,
            ..Variant::default()
        };
        Self::new(source, variant, decision)
    }

    /// Returns the limits and their state.
    pub(crate) fn state(&self) -> LimitState<'_> {
        LimitState {
            limits: self.source.limits(),
            variant: self.variant,
            decision: &self.decision,
            credits: self.credits,
        }
    }

    /// Returns each quota with its state, in the order of the response fields. A quota's name says
    /// what it counts ([`LimitPolicy`](super::LimitPolicy)). Empty if nothing was counted: nothing
    /// limits the request, or the limiter did not answer.
    pub fn quotas(&self) -> impl Iterator<Item = (&Quota, &WindowState)> {
        self.state().quotas()
    }

    /// Returns the state of the quota of this name.
    #[must_use]
    pub fn quota(&self, name: &str) -> Option<(&Quota, &WindowState)> {
        self.quotas().find(|(quota, _)| quota.name() == name)
    }

    /// Returns how many units are left before a quota refuses; `None` if nothing limits the request.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.quotas().map(|(_, window)| window.remaining()).min()
    }

    /// Returns how long a lone retry must wait; `None` if the request was admitted.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.decision.retry_after()
    }

    /// Returns the names of the quotas that refused the request.
    #[must_use]
    pub fn violated(&self) -> Vec<&str> {
        let violated = self.quotas().filter(|(_, window)| window.is_violated());
        violated.map(|(quota, _)| quota.name()).collect()
    }

    /// Returns whether the request has a key.
    pub(crate) fn is_with_key(&self) -> bool {
        !self.variant.without_key
    }
}

impl fmt::Debug for LimitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.quotas().map(|(quota, window)| (quota.name(), window)))
            .finish()
    }
}
