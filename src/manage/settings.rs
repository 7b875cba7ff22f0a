//! What an operator may set: the table of [`OperatorPolicy`](super::OperatorPolicy), row by row.
//!
//! What an operator asks for is checked before the host's own rules add to it; what a key would
//! grant is checked on the record that would be stored. What a key had before was given by others,
//! and may stay.

use std::time::{Duration, SystemTime};

use super::{
    Denied, KeyChange, KeyManager, ManageError, NewKey, OperatorPolicy, OperatorScope, Setting,
};
use crate::actor::UserRef;
use crate::error::{AuthError, ErrorCode};
use crate::key::{Access, Delegation, KeyRecord, PlanName, TenantId, UserId};
use crate::quota::Quotas;
use crate::scope;
use crate::scope::{Scope, ScopeSet};

/// The same words for users who do not exist and for those of other tenants.
const NOT_YOUR_USER: &str = "Keys can be issued for users of your own tenant only";

impl KeyManager {
    /// The policy, for whom it is about: nobody is above it but the host itself.
    pub(super) fn policy(&self) -> Option<&dyn OperatorPolicy> {
        match self.operator.scope {
            OperatorScope::Host => None,
            OperatorScope::Tenant(..) => Some(&*self.inner.settings.operators),
        }
    }

    /// Refuses what lies beyond the table, unless the policy says otherwise.
    fn beyond(&self, setting: Setting, why: impl FnOnce() -> String) -> Result<(), ManageError> {
        match self.policy() {
            Some(policy) if !policy.may_exceed(&self.operator, setting) => {
                Err(Denied::because(why()).into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the operator may ask for a key like this; the plan that it did not name is the
    /// tenant's.
    pub(super) async fn check_asked(&self, new: &mut NewKey) -> Result<(), ManageError> {
        // As it would be stored: a directory is asked for one spelling.
        new.owner = self.inner.authenticator.user_ids().owner(new.owner.clone());
        let tenant = &new.owner.tenant_id;
        if self.operator.tenant().is_some_and(|own| own != tenant) {
            return Err(Denied::because("This key would belong to another tenant").into());
        }
        if let Some(policy) = self.policy() {
            policy.admits(&self.operator)?;
        }
        let plan = self.inner.settings.host_rules.plan_of(tenant).await?;
        match &new.plan {
            None => new.plan = plan,
            Some(asked) if plan.as_ref() == Some(asked) => {}
            Some(asked) => self.refuse_plan(asked)?,
        }
        if let Some(quotas) = &new.quotas {
            self.check_quotas(quotas, None)?;
        }
        match &new.owner.user_id {
            Some(user) => self.check_owner(tenant, user).await,
            None => Ok(()),
        }
    }

    /// Whether the operator may ask for a change like this; a plan that it takes away gives way to
    /// the tenant's.
    pub(super) async fn check_asked_change(
        &self,
        change: &mut KeyChange,
        before: &KeyRecord,
    ) -> Result<(), ManageError> {
        if let Some(asked) = &mut change.plan {
            let plan = self
                .inner
                .settings
                .host_rules
                .plan_of(&before.owner.tenant_id)
                .await?;
            match asked {
                None => *asked = plan,
                Some(asked) if [&plan, &before.plan].contains(&&Some(asked.clone())) => {}
                Some(asked) => self.refuse_plan(asked)?,
            }
        }
        match &change.quotas {
            Some(Some(quotas)) => self.check_quotas(quotas, before.quotas.as_ref()),
            // The default's.
            Some(None) | None => Ok(()),
        }
    }

    fn refuse_plan(&self, asked: &PlanName) -> Result<(), ManageError> {
        self.beyond(Setting::Plan, || {
            format!("You may not set plan {asked}: it is not your tenant's")
        })
    }

    /// Whether a key with these quotas of its own may be used no more often than by default, or
    /// than before.
    fn check_quotas(&self, asked: &Quotas, before: Option<&Quotas>) -> Result<(), ManageError> {
        // How much may be used in any interval of this length.
        let most = |quotas: &Quotas, window: Duration| {
            let as_long = |quota: &&crate::quota::Quota| quota.window() >= window;
            let limits = quotas.as_slice().iter().filter(as_long);
            limits.map(crate::quota::Quota::limit).min()
        };
        let default = self.default_quotas();
        let wider = default.as_slice().iter().find(|quota| {
            let window = quota.window();
            // None is no limit.
            let within = |limit: u64| most(asked, window).is_some_and(|asked| asked <= limit);
            let as_before = before.is_some_and(|own| most(own, window).is_none_or(within));
            !within(quota.limit()) && !as_before
        });
        match wider {
            None => Ok(()),
            Some(quota) => self.beyond(Setting::Quotas, || {
                let (most, window) = (quota.limit(), quota.window());
                format!("You may not set more than {most} requests in {window:?}")
            }),
        }
    }

    fn default_quotas(&self) -> Quotas {
        self.inner.authenticator.quotas().clone()
    }

    /// Whether a user is one of this tenant. Those of others are refused after the same work and in
    /// the same words as those that do not exist.
    async fn check_owner(&self, tenant: &TenantId, user: &UserId) -> Result<(), ManageError> {
        if self.beyond(Setting::Owner, String::new).is_ok() {
            return Ok(());
        }
        let found = match self.inner.authenticator.directory() {
            Some(directory) => directory.resolve(tenant, &UserRef::Id(user.clone())).await,
            None => Ok(None),
        };
        let found = found
            .map_err(|error| AuthError::unavailable(ErrorCode::DirectoryUnavailable, error))?;
        match found.filter(|user| user.tenant_id == *tenant) {
            Some(_) => Ok(()),
            None => Err(Denied::because(NOT_YOUR_USER).into()),
        }
    }

    /// Whether the operator may make or change a key so that it grants this. What it granted
    /// before, others have given.
    pub(super) fn may_grant(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
    ) -> Result<(), ManageError> {
        let access = before.map_or(self.operator.access, |before| {
            most_of(self.operator.access, before.access)
        });
        if most_of(access, record.access) != access {
            self.beyond(Setting::Access, || {
                "You may not grant full access: you do not have it yourself".to_owned()
            })?;
        }
        self.check_delegated(record, before)?;
        self.check_scopes_within(record, before)?;
        self.check_lifetime(record, before)
    }

    /// Acting for users gives no scope that the key has not itself: how far it may is the issue
    /// rules' matter, not the operator's authority.
    fn check_delegated(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
    ) -> Result<(), ManageError> {
        let given = self.inner.settings.rules.delegation_of(record.kind);
        let ceilings = [Some(&given), before.map(|before| &before.delegation)];
        for ceiling in ceilings.into_iter().flatten() {
            let within = match (&record.delegation, ceiling) {
                (Delegation::Off, _) | (_, Delegation::On) => true,
                (Delegation::Only(asked), Delegation::Only(given)) => {
                    let given = self.compile(given)?;
                    asked.iter().all(|scope| given.grants(scope))
                }
                (Delegation::On | Delegation::Only(_), _) => false,
            };
            if within {
                return Ok(());
            }
        }
        self.beyond(Setting::Delegation, || {
            "You may not let a key act for users more widely than keys of this API do".to_owned()
        })
    }

    fn check_scopes_within(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
    ) -> Result<(), ManageError> {
        let own = match (&self.operator.authority, &self.operator.scope) {
            (Some(own), _) => own.as_slice(),
            (None, OperatorScope::Host) => return Ok(()),
            (None, OperatorScope::Tenant(..)) => &[],
        };
        let given = before.map_or(&[][..], |before| &before.scopes);
        let (own, given) = (self.compile(own)?, self.compile(given)?);
        // Where keys have no scopes they may do everything.
        const EVERYTHING: &Scope = &scope!("*");
        let unscoped = self.inner.authenticator.is_unscoped(record.kind);
        let everything = (unscoped && before.is_none()).then_some(EVERYTHING);
        let beyond = |scope: &&Scope| !own.grants(scope) && !given.grants(scope);
        let exceeds = self
            .policy()
            .is_some_and(|policy| policy.may_exceed(&self.operator, Setting::Scopes));
        match everything.into_iter().chain(&record.scopes).find(beyond) {
            Some(beyond) if !exceeds => Err(Denied::because(format!(
                "You may not grant {beyond}: you do not have it yourself"
            ))
            .into()),
            _ => Ok(()),
        }
    }

    fn check_lifetime(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
    ) -> Result<(), ManageError> {
        let longest = self.latest_end(record.created_at);
        let beyond =
            |end: Option<SystemTime>, latest: SystemTime| end.is_none_or(|end| end > latest);
        let kept = before.is_some_and(|before| {
            let end = before.expires_at;
            end.is_none_or(|end| !beyond(record.expires_at, end))
        });
        match (longest, self.inner.settings.rules.longest_lifetime) {
            (Some(latest), Some(longest)) if beyond(record.expires_at, latest) && !kept => {
                Err(Denied::because(format!(
                    "expires_at: a key ends within {} seconds of its creation",
                    longest.as_secs()
                ))
                .into())
            }
            _ => Ok(()),
        }
    }

    /// The latest end that the operator may give to a key which is made at this time, where there
    /// is one.
    pub(super) fn latest_end(&self, created_at: SystemTime) -> Option<SystemTime> {
        let longest = self.inner.settings.rules.longest_lifetime?;
        let limited = self.beyond(Setting::Lifetime, String::new).is_err();
        limited.then(|| created_at.checked_add(longest)).flatten()
    }

    fn compile(&self, scopes: &[Scope]) -> Result<std::sync::Arc<dyn ScopeSet>, ManageError> {
        let model = self.inner.authenticator.scope_model();
        model
            .compile(scopes)
            .map_err(|error| ManageError::invalid("scopes", error.to_string()))
    }
}

/// The wider of two.
fn most_of(one: Access, other: Access) -> Access {
    match (one, other) {
        (Access::ReadOnly, Access::ReadOnly) => Access::ReadOnly,
        _ => Access::FullAccess,
    }
}
