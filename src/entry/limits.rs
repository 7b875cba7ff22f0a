//! What an entry has for the limits of its key, and the state of a request's limits.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::{KeyEntry, StoredKey};
use crate::error::AuthError;
use crate::limit::{Decision, LimiterSlot, PlanLimits, Variant};
use crate::lock::Mutex;
use crate::quota::Quotas;

/// What few entries have.
#[derive(Default)]
pub(super) struct Rare {
    /// All slots but the first.
    slots: Box<[LimiterSlot]>,
    /// The plan of the tenant that was last combined with the key's own quotas, and the result.
    combined: Mutex<Option<(Arc<PlanLimits>, Arc<PlanLimits>)>>,
    /// The number of charges by handlers, and the result of the last one.
    charges: AtomicU64,
    charged: Mutex<Option<Box<Counted>>>,
    /// The same key for another authenticator.
    pub(super) next: OnceLock<Arc<StoredKey>>,
}

impl Rare {
    /// Returns what has these further slots, if any.
    pub(super) fn with_slots(further: usize) -> OnceLock<Box<Self>> {
        match further {
            0 => OnceLock::new(),
            _ => OnceLock::from(Box::new(Self {
                slots: (0..further).map(|_| LimiterSlot::new()).collect(),
                ..Self::default()
            })),
        }
    }
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

impl KeyEntry {
    pub(super) fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Returns the limiter's slot with this number. The first one is in the entry itself.
    #[inline]
    pub(crate) fn slot(&self, number: usize) -> Option<&LimiterSlot> {
        match number.checked_sub(1) {
            None => Some(&self.first_slot),
            Some(further) => self.rare.get()?.slots.get(further),
        }
    }

    /// Returns the limits of a key with its own quotas whose tenant has this plan.
    pub(crate) fn of_tenant(&self, plan: &Arc<PlanLimits>, own: &Quotas) -> Arc<PlanLimits> {
        let mut combined = self.rare().combined.lock();
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
        let rare = self.rare.get();
        rare.map_or(0, |rare| rare.charges.load(Ordering::Acquire))
    }

    pub(crate) fn charged(&self, counted: Counted) {
        let rare = self.rare();
        match &mut *rare.charged.lock() {
            Some(last) => **last = counted,
            none => *none = Some(Box::new(counted)),
        }
        rare.charges.fetch_add(1, Ordering::Release);
    }

    /// Returns the result of the last charge, if there was one since, against the same limits.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn last_charge(&self, since: u64, counted: &Counted) -> Option<Decision> {
        if self.charges() == since {
            return None;
        }
        let charged = self.rare().charged.lock();
        let last = charged.as_ref()?;
        let same = match (&last.limits, &counted.limits) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let same = same && (last.variant, last.client_ip) == (counted.variant, counted.client_ip);
        same.then(|| last.decision.clone())
    }
}
