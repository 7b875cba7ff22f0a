//! The limits in a key's entry, and the state of a request's limits.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::Mutex;
use async_trait::async_trait;
use smallvec::SmallVec;

use super::KeyEntry;
use crate::error::AuthError;
use crate::key::PlanName;
use crate::limit::{Decision, LimitReport, LimiterSlot, PlanLimits, Variant};
use crate::quota::Quotas;

/// The limits of a key.
pub(crate) struct KeyLimits {
    pub(crate) plan: PlanOf,
    /// The key's own quotas.
    pub(crate) own: Option<Quotas>,
    /// The plan of the tenant that was last combined with the key's own quotas, and the result.
    pub(crate) combined: Mutex<Option<(Arc<PlanLimits>, Arc<PlanLimits>)>>,
    /// In the entry itself, if there is one.
    pub(crate) slots: SmallVec<[LimiterSlot; 1]>,
    pub(crate) charger: Arc<dyn Charger>,
    /// The number of charges by handlers, and the result of the last one.
    charges: AtomicU64,
    charged: Mutex<Option<Box<Counted>>>,
}

/// What decides which plan applies to a key.
pub(crate) enum PlanOf {
    /// These limits, with the key's own quotas.
    Key(Arc<PlanLimits>),
    /// The plan of its tenant.
    Tenant,
    /// The key has a plan that is not declared.
    Unknown(PlanName),
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

/// The state of the limits of a request without a key.
#[cfg_attr(
    not(any(feature = "actix-web", feature = "tower")),
    allow(dead_code, reason = "adapters report it")
)]
pub(crate) struct AnonymousCount {
    pub(crate) limits: Arc<PlanLimits>,
    pub(crate) variant: Variant,
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) charger: Arc<dyn Charger>,
    pub(crate) decision: Mutex<Decision>,
}

impl AnonymousCount {
    /// Returns the current state.
    pub(crate) fn report(&self) -> LimitReport {
        let decision = self.decision.lock().clone();
        LimitReport::new(Arc::clone(&self.limits) as _, self.variant, decision)
    }

    /// Counts further units; see [`KeyPrincipal::charge`].
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) async fn charge(
        &self,
        units: u64,
        overdraw: bool,
    ) -> Result<LimitReport, AuthError> {
        let charge = Charge {
            limits: &self.limits,
            entry: None,
            client_ip: self.client_ip,
            variant: self.variant,
            units,
            overdraw,
        };
        let charged = self.charger.charge(charge).await;
        let decision = match &charged {
            Ok(decision) | Err(Ok(decision)) => decision.clone(),
            Err(Err(error)) => return Err(error.clone()),
        };
        *self.decision.lock() = decision;
        match charged {
            Ok(_) => Ok(self.report()),
            Err(_) => Err(AuthError::rate_limited(self.report())),
        }
    }
}

impl fmt::Debug for AnonymousCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report().fmt(f)
    }
}

impl KeyLimits {
    pub(crate) fn new(
        plan: PlanOf,
        own: Option<Quotas>,
        slots: usize,
        charger: Arc<dyn Charger>,
    ) -> Self {
        Self {
            plan,
            own,
            combined: Mutex::new(None),
            slots: (0..slots).map(|_| LimiterSlot::new()).collect(),
            charger,
            charges: AtomicU64::new(0),
            charged: Mutex::new(None),
        }
    }

    /// Returns the limits of a key whose tenant has this plan.
    pub(crate) fn of_tenant(&self, plan: &Arc<PlanLimits>) -> Arc<PlanLimits> {
        let Some(own) = &self.own else {
            return Arc::clone(plan);
        };
        let mut combined = self.combined.lock();
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
        self.charges.load(Ordering::Acquire)
    }

    pub(super) fn charged(&self, counted: Counted) {
        *self.charged.lock() = Some(Box::new(counted));
        self.charges.fetch_add(1, Ordering::Release);
    }

    /// Returns the result of the last charge, if there was one since, against the same limits.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(super) fn last_charge(&self, since: u64, counted: &Counted) -> Option<Decision> {
        if self.charges() == since {
            return None;
        }
        let charged = self.charged.lock();
        let last = charged.as_ref()?;
        let same = match (&last.limits, &counted.limits) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let same = same && (last.variant, last.client_ip) == (counted.variant, counted.client_ip);
        same.then(|| last.decision.clone())
    }
}
