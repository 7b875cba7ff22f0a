//! Enforces the table of [`OperatorPolicy`](super::OperatorPolicy), which says what an operator may
//! set.
//!
//! Requested values are checked before the host's own rules add to them. Grants are checked on the
//! record that would be stored. Existing values of a key may stay, because others have granted
//! them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{
    Denied, KeyChange, KeyManager, ManageError, NewKey, OperatorPolicy, OperatorScope, Setting,
};
use crate::actor::UserRef;
use crate::error::{AuthError, ErrorCode};
use crate::key::{Access, Delegation, KeyRecord, PlanName, TenantId, UserId};
use crate::limit::{Bound, PlanLimits};
use crate::quota::Quotas;
use crate::scope;
use crate::scope::{Scope, ScopeSet};

/// Same text for users who do not exist and for users of other tenants.
const NOT_YOUR_USER: &str = "Keys can only be issued for users of your own tenant";

impl KeyManager {
    /// Returns the policy, or `None` for the host itself, to which no policy applies.
    pub(super) fn policy(&self) -> Option<&dyn OperatorPolicy> {
        match self.operator.scope {
            OperatorScope::Host => None,
            OperatorScope::User { .. } => Some(&*self.policy),
        }
    }

    /// Returns whether the operator may set values beyond the table.
    pub(super) fn may_exceed(&self, setting: Setting) -> bool {
        self.policy()
            .is_none_or(|policy| policy.may_exceed(&self.operator, setting))
    }

    /// Refuses a value beyond the table, unless the policy allows it.
    fn beyond(&self, setting: Setting, why: impl FnOnce() -> String) -> Result<(), ManageError> {
        match self.may_exceed(setting) {
            true => Ok(()),
            false => Err(Denied::because(why()).about(setting.field()).into()),
        }
    }

    /// Returns whether the operator may give a scope to a new key.
    pub(super) fn may_grant_scope(&self, scope: &Scope) -> bool {
        let own = match (&self.operator.authority, &self.operator.scope) {
            (None, OperatorScope::Host) => return true,
            (own, _) => own.as_deref().unwrap_or_default(),
        };
        let is_own = || self.compile(own).is_ok_and(|own| own.grants(scope));
        self.policy().is_some() && self.may_exceed(Setting::Scopes) || is_own()
    }

    /// Checks whether the operator may request this key.
    pub(super) async fn check_asked(&self, new: &mut NewKey) -> Result<(), ManageError> {
        // Normalized as it would be stored, so that the directory is queried with one spelling.
        new.owner = self.inner.authenticator.user_ids().owner(new.owner.clone());
        let tenant = &new.owner.tenant_id;
        if self.operator.tenant().is_some_and(|own| own != tenant) {
            let why = "The key belongs to another tenant";
            return Err(Denied::because(why).about("owner.tenant_id").into());
        }
        if let Some(policy) = self.policy() {
            policy.admits(&self.operator)?;
        }
        self.make_own(new)?;
        let tenant = &new.owner.tenant_id;
        new.plan = match new.plan.take() {
            None => None,
            Some(asked) => self.check_plan(asked, None, tenant).await?,
        };
        let limits = self.limits_of(new.plan.as_ref(), tenant).await?;
        if let Some(quotas) = &new.quotas {
            self.check_quotas(quotas, None, &limits)?;
        }
        match &new.owner.user_id {
            Some(user) => self.check_owner(tenant, user).await,
            None => Ok(()),
        }
    }

    /// Checks whether the operator may request this change.
    pub(super) async fn check_asked_change(
        &self,
        change: &mut KeyChange,
        before: &KeyRecord,
    ) -> Result<(), ManageError> {
        let tenant = &before.owner.tenant_id;
        if let Some(asked) = change.plan.take() {
            change.plan = Some(match asked {
                None => None,
                Some(asked) => self.check_plan(asked, before.plan.as_ref(), tenant).await?,
            });
        }
        match &change.quotas {
            Some(Some(quotas)) => {
                let plan = change.plan.as_ref().unwrap_or(&before.plan);
                let limits = self.limits_of(plan.as_ref(), tenant).await?;
                self.check_quotas(quotas, before.quotas.as_ref(), &limits)
            }
            // The plan's quotas apply, which are always allowed.
            Some(None) | None => Ok(()),
        }
    }

    /// Returns the limits of a key with this plan, or else with the tenant's.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for a plan that is not declared; [`ManageError::Refused`] if the
    /// tenant's plan is not known.
    pub(super) async fn limits_of(
        &self,
        plan: Option<&PlanName>,
        tenant: &TenantId,
    ) -> Result<Arc<PlanLimits>, ManageError> {
        if let Some(plan) = plan {
            self.check_declared(plan)?;
        }
        Ok(self.inner.authenticator.limits_of(plan, tenant).await?)
    }

    pub(super) fn check_declared(&self, plan: &PlanName) -> Result<(), ManageError> {
        let table = self.inner.authenticator.limit_table();
        if !table.has_plans() || table.plan(plan).is_some() {
            return Ok(());
        }
        let names: Vec<_> = table.plan_names.iter().map(PlanName::as_str).collect();
        Err(ManageError::invalid(
            "plan",
            format!("must be one of {}", names.join(", ")),
        ))
    }

    /// Checks whether the operator may set a plan. Returns the plan of the key: none, if it follows
    /// the tenant's. An operator who may set no other plan cannot pin the tenant's either: the key
    /// would keep it after the tenant's plan has changed.
    pub(super) async fn check_plan(
        &self,
        asked: PlanName,
        before: Option<&PlanName>,
        tenant: &TenantId,
    ) -> Result<Option<PlanName>, ManageError> {
        if before == Some(&asked) {
            return Ok(Some(asked));
        }
        let refused = self.beyond(Setting::Plan, || {
            format!("You cannot set plan {asked}: it is not your tenant's plan")
        });
        if refused.is_ok() {
            self.check_declared(&asked)?;
            return Ok(Some(asked));
        }
        let tenants = self.limits_of(None, tenant).await?;
        match tenants.name.as_ref() == Some(&asked) {
            true => Ok(None),
            false => refused.map(|()| None),
        }
    }

    /// Checks that a key's own quotas allow no more than its plan, or than its previous quotas.
    pub(super) fn check_quotas(
        &self,
        asked: &Quotas,
        before: Option<&Quotas>,
        limits: &PlanLimits,
    ) -> Result<(), ManageError> {
        // The most that these quotas allow in any interval of this length.
        let most = |quotas: &Quotas, window: Duration| {
            let as_long = |quota: &&crate::quota::Quota| quota.window() >= window;
            let limits = quotas.as_slice().iter().filter(as_long);
            limits.map(crate::quota::Quota::limit).min()
        };
        let ceiling = limits.own_at_most.iter().flat_map(Quotas::as_slice);
        let exceeded = ceiling.into_iter().find(|quota| {
            let window = quota.window();
            // `None` means no limit.
            let within = |limit: u64| most(asked, window).is_some_and(|asked| asked <= limit);
            let as_before = before.is_some_and(|own| most(own, window).is_none_or(within));
            !within(quota.limit()) && !as_before
        });
        match exceeded {
            None => Ok(()),
            Some(quota) => self.beyond(Setting::Quotas, || {
                let (most, window) = (quota.limit(), quota.window());
                format!("You cannot set more than {most} requests in {window:?}")
            }),
        }
    }

    /// Checks that a user belongs to this tenant. Users of other tenants are refused after the same
    /// work and with the same text as users who do not exist.
    async fn check_owner(&self, tenant: &TenantId, user: &UserId) -> Result<(), ManageError> {
        let is_itself =
            self.operator.tenant() == Some(tenant) && self.operator.user() == Some(user);
        if is_itself || self.beyond(Setting::Owner, String::new).is_ok() {
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
            None => Err(Denied::because(NOT_YOUR_USER)
                .about(Setting::Owner.field())
                .into()),
        }
    }

    /// Checks whether the operator may create or change a key so that it grants this. Existing
    /// grants may stay.
    pub(super) fn may_grant(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
        limits: &PlanLimits,
    ) -> Result<(), ManageError> {
        let access = before.map_or(self.operator.access, |before| {
            wider(self.operator.access, before.access)
        });
        if wider(access, record.access) != access {
            self.beyond(Setting::Access, || {
                "You cannot grant full access: you do not have it yourself".to_owned()
            })?;
        }
        self.check_kind_and_environment(record, before)?;
        self.check_workspaces_within(record, before)?;
        self.check_delegated(record, before)?;
        self.check_scopes_within(record, before)?;
        self.check_lifetime(record, before, limits)
    }

    /// Checks the kind and the environment, which no change can alter.
    fn check_kind_and_environment(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
    ) -> Result<(), ManageError> {
        if before.is_some() {
            return Ok(());
        }
        let (kind, environment) = (record.kind, &record.environment);
        if self.kinds().is_some_and(|own| !own.contains(&kind)) {
            let why = format!("You cannot issue keys of kind {kind}");
            return Err(Denied::because(why).about("kind").into());
        }
        let own = self.operator.environments.as_ref();
        if own.is_some_and(|own| !own.contains(environment)) {
            let why = format!("You cannot issue keys of environment {environment}");
            return Err(Denied::because(why).about("environment").into());
        }
        Ok(())
    }

    /// Checks the delegation. It never adds scopes to those of the key itself, so its limit is the
    /// issue rules and not the operator's authority.
    fn check_delegated(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
    ) -> Result<(), ManageError> {
        let given = match self.own() {
            Some(_) => Delegation::Off,
            None => self.inner.settings.rules.delegation_of(record.kind),
        };
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
            "You cannot grant a wider delegation than the default of this API".to_owned()
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
            (None, OperatorScope::User { .. }) => &[],
        };
        let given = before.map_or(&[][..], |before| &before.scopes);
        let (own, given) = (self.compile(own)?, self.compile(given)?);
        // Keys of an API without scopes have full access.
        const EVERYTHING: &Scope = &scope!("*");
        let unscoped = self.inner.authenticator.is_unscoped(record.kind);
        let everything = (unscoped && before.is_none()).then_some(EVERYTHING);
        let beyond = |scope: &&Scope| !own.grants(scope) && !given.grants(scope);
        let exceeds = self
            .policy()
            .is_some_and(|policy| policy.may_exceed(&self.operator, Setting::Scopes));
        match everything.into_iter().chain(&record.scopes).find(beyond) {
            Some(beyond) if !exceeds => {
                let why = format!("You cannot grant {beyond}: you do not have it yourself");
                let field = Setting::Scopes.field();
                Err(Denied::because(why).about(field).into())
            }
            _ => Ok(()),
        }
    }

    fn check_lifetime(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
        limits: &PlanLimits,
    ) -> Result<(), ManageError> {
        let longest = self.latest_end(record.created_at, limits);
        let beyond =
            |end: Option<SystemTime>, latest: SystemTime| end.is_none_or(|end| end > latest);
        let kept = before.is_some_and(|before| {
            let end = before.expires_at;
            end.is_none_or(|end| !beyond(record.expires_at, end))
        });
        match (longest, self.longest_lifetime(limits)) {
            (Some(latest), Some(longest)) if beyond(record.expires_at, latest) && !kept => {
                let most = longest.as_secs();
                let why = format!("The key must expire within {most} seconds of its creation");
                let field = Setting::Lifetime.field();
                Err(Denied::because(why).about(field).into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the maximum lifetime of a key with this plan.
    fn longest_lifetime(&self, limits: &PlanLimits) -> Option<Duration> {
        match limits.lifetime {
            Some(Bound::AtMost(longest)) => Some(longest),
            Some(Bound::Unlimited) => None,
            None => self.inner.settings.rules.longest_lifetime,
        }
    }

    /// Returns the latest expiry that the operator may give to a key created at this time, if it is
    /// limited.
    pub(super) fn latest_end(
        &self,
        created_at: SystemTime,
        limits: &PlanLimits,
    ) -> Option<SystemTime> {
        let longest = self.longest_lifetime(limits)?;
        let limited = self.beyond(Setting::Lifetime, String::new).is_err();
        limited.then(|| created_at.checked_add(longest)).flatten()
    }

    /// Returns the maximum number of active keys of a key's tenant: the host's for this tenant, that
    /// of the tenant's plan or the rules', or that of the key's plan if its tenant has none.
    pub(super) async fn active_keys(
        &self,
        record: &KeyRecord,
        limits: &PlanLimits,
    ) -> Result<Option<u64>, ManageError> {
        let (settings, tenant) = (&self.inner.settings, &record.owner.tenant_id);
        let of_host = settings.active_keys_of.as_ref().and_then(|of| of(tenant));
        if of_host.is_some() {
            return Ok(of_host);
        }
        // A tenant's plan decides for all its keys, whatever plan one of them has.
        let most = match record.plan {
            Some(_) => {
                let tenants = self.limits_of(None, tenant).await?;
                match tenants.name {
                    Some(_) => tenants.active_keys,
                    None => limits.active_keys,
                }
            }
            None => limits.active_keys,
        };
        Ok(match most {
            Some(Bound::AtMost(most)) => Some(most),
            Some(Bound::Unlimited) => None,
            None => settings.rules.active_keys,
        })
    }

    fn compile(&self, scopes: &[Scope]) -> Result<Arc<dyn ScopeSet>, ManageError> {
        let model = self.inner.authenticator.scope_model();
        model
            .compile(scopes)
            .map_err(|error| ManageError::invalid("scopes", error.to_string()))
    }
}

/// Returns the wider of two access levels.
fn wider(one: Access, other: Access) -> Access {
    match (one, other) {
        (Access::ReadOnly, Access::ReadOnly) => Access::ReadOnly,
        _ => Access::FullAccess,
    }
}
