//! A key as it is shown: with its usage, its plan and the limits that apply to it.

use std::sync::Arc;

use super::check::later;
use super::{KeyManager, ManageError, ManagedKey};
use crate::audit::Action;
use crate::error::ErrorCode;
use crate::key::{KeyId, KeyRecord, PlanName, TenantId};
use crate::limit::{PlanLimits, WindowState};
use crate::quota::{Quota, Quotas};
use crate::store::Usage;

impl KeyManager {
    /// Returns the result of a completed operation. Read errors are ignored here: they do not undo
    /// the operation, and a new secret must not be lost because of them.
    pub(super) async fn done(&self, record: impl Into<Arc<KeyRecord>>) -> ManagedKey {
        let record = record.into();
        let primary = self.is_primary(&record, self.now()).await.unwrap_or(false);
        self.done_to(record, primary).await
    }

    /// Like [`done`](Self::done), if it is already known whether the key is primary.
    pub(super) async fn done_to(
        &self,
        record: impl Into<Arc<KeyRecord>>,
        primary: bool,
    ) -> ManagedKey {
        let record = record.into();
        let usage = self.usage_of_one(&record.id).await.unwrap_or_default();
        self.managed(record, usage, primary).await
    }

    /// Returns a key as it is shown. While the directory does not answer, the limits of its tenant's
    /// plan are left out: a key must be found and revoked then, too.
    pub(super) async fn managed(
        &self,
        record: Arc<KeyRecord>,
        usage: Usage,
        primary: bool,
    ) -> ManagedKey {
        let limits = self.limits_shown(&record).await.ok();
        self.shown(record, usage, primary, limits.as_deref())
    }

    /// Returns the limits of a key's plan. A plan that is not declared has none.
    pub(super) async fn limits_of_key(
        &self,
        record: &KeyRecord,
    ) -> Result<Arc<PlanLimits>, ManageError> {
        let (plan, tenant) = (record.plan.as_ref(), &record.owner.tenant_id);
        match self.inner.authenticator.limits_of(plan, tenant).await {
            Err(error) if error.code() == ErrorCode::LimiterUnavailable => {
                Ok(Arc::new(PlanLimits::undeclared()))
            }
            limits => Ok(limits?),
        }
    }

    /// Returns the limits that apply to a key.
    pub(super) async fn limits_shown(
        &self,
        record: &KeyRecord,
    ) -> Result<Arc<PlanLimits>, ManageError> {
        let limits = self.limits_of_key(record).await?;
        Ok(match &record.quotas {
            Some(own) => Arc::new(limits.with_own(own)),
            None => limits,
        })
    }

    pub(super) fn shown(
        &self,
        record: Arc<KeyRecord>,
        usage: Usage,
        primary: bool,
        limits: Option<&PlanLimits>,
    ) -> ManagedKey {
        // A key that has ended or has a successor needs no rotation.
        let may_rotate = record.successor.is_none() && record.counts_as_active(self.now());
        let due = self
            .inner
            .settings
            .rules
            .rotate_every
            .filter(|_| may_rotate);
        let rotation_due = due.and_then(|every| later(record.created_at, every));
        let plan = record.plan.clone();
        ManagedKey {
            usage,
            primary,
            rotation_due,
            plan: plan.or_else(|| limits?.name.clone()),
            quotas: limits.and_then(|limits| limits.per_key.clone()),
            policies: limits
                .map(|limits| limits.all_quotas(&record.owner))
                .unwrap_or_default(),
            record,
        }
    }

    /// Returns every limit that applies to requests with a key, of any class, and how much of it is
    /// left now. Nothing is counted.
    ///
    /// Only the key's limits and those of its user and its tenant have a state: it is `None` for a
    /// quota per address or of all requests together, and if the service's limiter cannot be read
    /// ([`RateLimiter::peek`](crate::RateLimiter::peek)).
    ///
    /// # Errors
    /// As for [`get`](Self::get), and [`ManageError::Refused`] with `LIMITER_UNAVAILABLE` if the limiter
    /// does not answer within two seconds, or with `DIRECTORY_UNAVAILABLE` if the tenant's plan is not
    /// known.
    pub async fn limit_states(
        &self,
        id: &KeyId,
    ) -> Result<Vec<(Quota, Option<WindowState>)>, ManageError> {
        let record = self.find(id).await?;
        self.may(Action::KeyRead, &record)?;
        let limits = self.limits_shown(&record).await?;
        let states = self.inner.authenticator.limit_states(&limits, &record);
        Ok(states.await?)
    }

    /// Returns the quotas of keys with this plan that have none of their own; of keys without a plan
    /// if it is not declared. `None` if nothing limits such keys themselves.
    #[must_use]
    pub fn quotas_of_plan(&self, plan: &PlanName) -> Option<Quotas> {
        let table = self.inner.authenticator.limit_table();
        table.plan(plan).unwrap_or(&table.base).per_key.clone()
    }

    /// Returns the quotas of keys of a tenant that follow its plan and have no quotas of their own.
    /// `None` if nothing limits such keys themselves.
    ///
    /// # Errors
    /// [`ManageError::Refused`] with `DIRECTORY_UNAVAILABLE` if the tenant's plan is not known, or
    /// with `LIMITER_UNAVAILABLE` if it is not declared.
    pub async fn quotas_of_tenant(&self, tenant: &TenantId) -> Result<Option<Quotas>, ManageError> {
        Ok(self.limits_of(None, tenant).await?.per_key.clone())
    }
}
