//! The policies of a request together with their state: what responses report.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::table::{PolicySet, Variant};
use super::{Decision, WindowState};
use crate::quota::{Quota, Quotas};

/// Where the policies of a request are kept.
pub(crate) trait PolicySource: Send + Sync {
    /// Returns the policies that apply.
    fn set(&self, variant: Variant) -> &PolicySet;
}

impl PolicySource for PolicySet {
    fn set(&self, _: Variant) -> &PolicySet {
        self
    }
}

/// The state of every limit that applies to a request, after the request was counted or refused.
#[derive(Clone)]
pub struct LimitReport {
    source: Arc<dyn PolicySource>,
    variant: Variant,
    decision: Decision,
}

impl LimitReport {
    pub(crate) fn new(source: Arc<dyn PolicySource>, variant: Variant, decision: Decision) -> Self {
        Self {
            source,
            variant,
            decision,
        }
    }

    /// Returns the report of a request that nothing limits.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn empty() -> Self {
        let source = Arc::new(PolicySet::named(Vec::new()));
        Self::new(source, Variant::default(), Decision::admitted())
    }

    /// Creates the report of a limit of the host's own: its quotas, and the limiter's decision about
    /// one bucket with them.
    #[must_use]
    pub fn of(quotas: &Quotas, decision: Decision) -> Self {
        let source = Arc::new(PolicySet::of(quotas));
        let variant = Variant {
            without_key: true,
            ..Variant::default()
        };
        Self::new(source, variant, decision)
    }

    pub(crate) fn set(&self) -> &PolicySet {
        self.source.set(self.variant)
    }

    /// Returns each quota with its state, in the order of the response fields. A quota's name says
    /// what it counts ([`LimitPolicy`](super::LimitPolicy)). Empty if nothing was counted: nothing
    /// limits the request, or the limiter did not answer.
    pub fn quotas(&self) -> impl Iterator<Item = (&Quota, &WindowState)> {
        self.set().quotas().zip(self.decision.windows())
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
