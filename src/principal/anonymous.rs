//! The limits of a request without a key.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::entry::Charge;
use crate::entry::Charger;
#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::error::AuthError;
use crate::limit::{Decision, LimitReport, PlanLimits, Variant};
use crate::lock::Mutex;

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
