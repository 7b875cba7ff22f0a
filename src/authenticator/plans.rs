//! The plans of tenants: asked of the directory, and kept for a bounded time.
//!
//! The last known plan applies until it is older than the bound, whether or not the directory
//! answers. A directory that does not answer after that is an outage: a request is never admitted
//! under a plan that may have ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lock::Mutex;
use quick_cache::sync::Cache;

use super::Inner;
use crate::actor::{Directory, DirectoryError};
use crate::clock::Clock;
use crate::entry::KeyEntry;
use crate::error::{AuthError, ErrorCode};
use crate::key::{PlanName, TenantId};
use crate::limit::{LimitTable, PlanLimits};
use crate::store::{Invalidation, InvalidationListener};
use crate::telemetry;

/// The maximum number of tenants whose plans are known.
const MOST_TENANTS: usize = 100_000;

/// The maximum number of undeclared plans that are logged.
const MOST_LOGGED: usize = 100;

/// A tenant's plan.
#[derive(Clone)]
pub(super) enum TenantsPlan {
    /// The limits of the plan, or of a tenant without one.
    Declared(Arc<PlanLimits>),
    Unknown(PlanName),
}

/// The directory's answer about a tenant's plan.
pub(super) type Asked = Result<TenantsPlan, Arc<DirectoryError>>;

/// How long a failure of the directory is kept: other requests of the tenant need not ask too.
const FAILURE_BOUND: Duration = Duration::from_secs(1);

/// The plans of tenants.
pub(crate) struct TenantPlans {
    directory: Option<Arc<dyn Directory>>,
    /// Each with the time at which the directory was asked. Requests that miss wait for one call.
    known: Cache<TenantId, (Asked, Duration)>,
    bound: Duration,
    clock: Arc<dyn Clock>,
    /// Undeclared plans that were logged.
    logged: Mutex<HashSet<PlanName>>,
}

impl TenantPlans {
    pub(super) fn new(
        directory: Option<Arc<dyn Directory>>,
        bound: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            directory,
            known: Cache::new(MOST_TENANTS),
            bound,
            clock,
            logged: Mutex::default(),
        }
    }

    fn is_current(&self, asked: &Asked, at: Duration) -> bool {
        let bound = match asked {
            Ok(_) => self.bound,
            Err(_) => self.bound.min(FAILURE_BOUND),
        };
        self.clock.monotonic().saturating_sub(at) < bound
    }

    /// Returns the plan of a tenant, if it is known.
    fn known(&self, tenant: &TenantId) -> Option<Asked> {
        let (plan, at) = self.known.get(tenant)?;
        self.is_current(&plan, at).then_some(plan)
    }

    /// Asks the directory, or waits for the answer to another request of the tenant.
    pub(super) async fn ask(
        &self,
        directory: &Arc<dyn Directory>,
        tenant: &TenantId,
        table: &LimitTable,
    ) -> Asked {
        let is_past = |(plan, at): &(Asked, Duration)| !self.is_current(plan, *at);
        self.known.remove_if(tenant, is_past);
        let ours = match self.known.get_value_or_guard_async(tenant).await {
            Ok((plan, _)) => return plan,
            Err(ours) => ours,
        };
        // Counted from the start of the call, so that a slow answer is not used for longer.
        let at = self.clock.monotonic();
        let plan = telemetry::awaited(telemetry::Step::Directory, directory.plan(tenant)).await;
        let plan = plan.map_err(Arc::new).map(|plan| match plan {
            None => TenantsPlan::Declared(Arc::clone(&table.base)),
            Some(name) => match table.plan(&name) {
                Some(limits) => TenantsPlan::Declared(Arc::clone(limits)),
                None => TenantsPlan::Unknown(name),
            },
        });
        // A failure is kept from its end, or one that took longer than its bound would not be.
        let at = match plan {
            Ok(_) => at,
            Err(_) => self.clock.monotonic(),
        };
        // Refused if the tenant changed in between: the answer may be that from before.
        let _ = ours.insert((plan.clone(), at));
        plan
    }

    /// Drops what is known of a tenant, here and in the directory.
    pub(crate) fn changed(&self, tenant: &TenantId) {
        // The directory first: what it answers from then on is new.
        if let Some(directory) = &self.directory {
            directory.tenant_changed(tenant);
        }
        self.known.remove(tenant);
    }

    fn all_changed(&self) {
        if let Some(directory) = &self.directory {
            directory.all_changed();
        }
        self.known.clear();
    }

    /// Returns the error for a key whose plan is not declared, and logs the plan once.
    fn undeclared(&self, plan: &PlanName) -> AuthError {
        let mut logged = self.logged.lock();
        if logged.len() < MOST_LOGGED && logged.insert(plan.clone()) {
            telemetry::undeclared_plan(plan.as_str());
        }
        let why = format!("the plan {plan} is not declared: add it to Limits");
        AuthError::unavailable(ErrorCode::LimiterUnavailable, why)
    }
}

impl InvalidationListener for TenantPlans {
    fn invalidated(&self, what: &Invalidation) {
        if what.everything {
            self.all_changed();
        }
        what.tenants.iter().for_each(|tenant| self.changed(tenant));
    }

    /// The bound holds whether the bus is healthy or not.
    fn caught_up(&self, _: Instant) {}
}

impl Inner {
    /// Returns the directory that decides the plan of a key, if one does.
    ///
    /// # Errors
    /// Returns an error if the key has a plan that is not declared.
    pub(super) fn decides_plan(
        &self,
        entry: &KeyEntry,
    ) -> Result<Option<&Arc<dyn Directory>>, AuthError> {
        // The record is elsewhere in memory.
        if entry.plan.is_some() {
            return Ok(None);
        }
        match &entry.record.plan {
            None => Ok(self.directory.as_ref()),
            Some(plan) => Err(self.plans.undeclared(plan)),
        }
    }

    /// Returns the plan of a key's tenant, if it is known.
    pub(super) fn plan_now(&self, entry: &KeyEntry) -> Option<Asked> {
        let plan = self.plans.known(&entry.record.owner.tenant_id);
        telemetry::cache(telemetry::Cache::Directory, plan.is_some());
        plan
    }

    /// Returns the limits of a key whose tenant has this plan.
    pub(super) fn tenants_limits(
        &self,
        plan: Asked,
        entry: &KeyEntry,
    ) -> Result<Arc<PlanLimits>, AuthError> {
        let plan = self.declared(plan)?;
        Ok(match &entry.record.quotas {
            Some(own) => entry.of_tenant(&plan, own),
            None => plan,
        })
    }

    fn declared(&self, plan: Asked) -> Result<Arc<PlanLimits>, AuthError> {
        let plan =
            plan.map_err(|error| AuthError::unavailable(ErrorCode::DirectoryUnavailable, error))?;
        match plan {
            TenantsPlan::Declared(limits) => Ok(limits),
            TenantsPlan::Unknown(plan) => Err(self.plans.undeclared(&plan)),
        }
    }

    /// Returns the limits of a tenant's plan.
    pub(super) async fn limits_of_tenant(
        &self,
        tenant: &TenantId,
    ) -> Result<Arc<PlanLimits>, AuthError> {
        let Some(directory) = self
            .directory
            .as_ref()
            .filter(|_| self.limits.table.has_plans())
        else {
            return Ok(Arc::clone(&self.limits.table.base));
        };
        let plan = match self.plans.known(tenant) {
            Some(plan) => plan,
            None => self.plans.ask(directory, tenant, &self.limits.table).await,
        };
        self.declared(plan)
    }

    /// Returns the limits of a key's plan: its own, or its tenant's.
    pub(super) async fn limits_of_plan(
        &self,
        plan: Option<&PlanName>,
        tenant: &TenantId,
    ) -> Result<Arc<PlanLimits>, AuthError> {
        let table = &self.limits.table;
        match plan {
            Some(plan) if table.has_plans() => {
                let limits = table.plan(plan).cloned();
                limits.ok_or_else(|| self.plans.undeclared(plan))
            }
            Some(_) => Ok(Arc::clone(&table.base)),
            None => self.limits_of_tenant(tenant).await,
        }
    }
}
