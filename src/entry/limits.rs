//! The limits in a key's entry, and the state of a request's limits.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use smallvec::SmallVec;

use super::KeyEntry;
use crate::error::AuthError;
use crate::limit::{Decision, LimiterSlot, PlanLimits, Variant};
use crate::lock::Mutex;
use crate::quota::Quotas;

/// The limits of a key.
pub(crate) struct KeyLimits {
    /// The limits of the key's plan, with its own quotas. `None` if the plan of its tenant applies,
    /// or if the key has a plan that is not declared.
    pub(crate) plan: Option<Arc<PlanLimits>>,
    /// In the entry itself, if there is one.
    pub(crate) slots: SmallVec<[LimiterSlot; 1]>,
    changing: OnceLock<Box<Changing>>,
}

/// What few keys have.
#[derive(Default)]
struct Changing {
    /// The plan of the tenant that was last combined with the key's own quotas, and the result.
    combined: Mutex<Option<(Arc<PlanLimits>, Arc<PlanLimits>)>>,
    /// The number of charges by handlers, and the result of the last one.
    charges: AtomicU64,
    charged: Mutex<Option<Counted>>,
}

/// The state of a request's limits.
#[derive(Clone)]
#[cfg_attr(
    not(any(feature = "actix-web", feature = "tower")),
    allow(dead_code, reason = "adapters report it")
)]
pub(crate) struct Counted {
    /// `None` for the limits in the key's entry.
    pub(crate) limits: Option<Arc<PlanLimits>>,
    pub(crate) variant: Variant,
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) decision: Decision,
}

/// Counts further units against the limits of a request.
#[async_trait]
pub(crate) trait Charger: Send + Sync {
    /// Returns the decision, or what refuses: the decision or the error of the limiter.
    async fn charge(&self, charge: Charge<'_>) -> Result<Decision, Result<Decision, AuthError>>;
}

/// Units to count against the limits of a request.
#[derive(Clone, Copy)]
pub(crate) struct Charge<'a> {
    pub(crate) limits: &'a PlanLimits,
    pub(crate) entry: Option<&'a KeyEntry>,
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) variant: Variant,
    pub(crate) units: u64,
    pub(crate) overdraw: bool,
}

impl KeyLimits {
    pub(crate) fn new(plan: Option<Arc<PlanLimits>>, slots: usize) -> Self {
        Self {
            plan,
            slots: (0..slots).map(|_| LimiterSlot::new()).collect(),
            changing: OnceLock::new(),
        }
    }

    fn changing(&self) -> &Changing {
        self.changing.get_or_init(Box::default)
    }

    /// Returns the limits of a key with its own quotas whose tenant has this plan.
    pub(crate) fn of_tenant(&self, plan: &Arc<PlanLimits>, own: &Quotas) -> Arc<PlanLimits> {
        let mut combined = self.changing().combined.lock();
        match &*combined {
            Some((of, limits)) if Arc::ptr_eq(of, plan) => Arc::clone(limits),
            _ => {
                let limits = Arc::new(plan.with_own(own));
                *combined = Some((Arc::clone(plan), Arc::clone(&limits)));
                limits
            }
        }
    }

    /// Returns how many charges there were so far.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn charges(&self) -> u64 {
        let changing = self.changing.get();
        changing.map_or(0, |changing| changing.charges.load(Ordering::Acquire))
    }

    pub(crate) fn charged(&self, counted: Counted) {
        let changing = self.changing();
        *changing.charged.lock() = Some(counted);
        changing.charges.fetch_add(1, Ordering::Release);
    }

    /// Returns the result of the last charge, if there was one since, against the same limits.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn last_charge(&self, since: u64, counted: &Counted) -> Option<Decision> {
        if self.charges() == since {
            return None;
        }
        let charged = self.changing().charged.lock();
        let last = charged.as_ref()?;
        let same = match (&last.limits, &counted.limits) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let same = same && (last.variant, last.client_ip) == (counted.variant, counted.client_ip);
        same.then(|| last.decision.clone())
    }
}
