//! Operators who manage their own keys only.
//! [`OperatorPolicy`](super::OperatorPolicy#operators-confined-to-their-own-keys) has the rules.
//!
//! A key of another owner is treated as unknown where it is found and where it is listed, so that no
//! operation can tell the two apart. What the key may grant is checked where all grants are.

use super::change::is_later;
use super::{Denied, KeyManager, ManageError, NewKey, Role};
use crate::key::{Delegation, KeyKind, KeyRecord, Owner};
use crate::limit::PlanLimits;

/// Same text for every other owner, whether it exists or not.
const NOT_YOU: &str = "You can only manage your own keys";

impl KeyManager {
    /// Returns the owner of all keys that the operator can manage, if the policy confines it to its
    /// own: the operator itself. `None` for other operators.
    #[must_use]
    pub fn own(&self) -> Option<Owner> {
        self.policy()?
            .own_keys_only(&self.operator)
            .then(|| self.operator.as_owner())?
    }

    /// Returns the kind of a key for which the request names none.
    #[must_use]
    pub fn default_kind(&self) -> KeyKind {
        let kinds = self.kinds();
        kinds
            .and_then(|kinds| kinds.first().copied())
            .unwrap_or(KeyKind::App)
    }

    /// Returns the kinds of keys that the operator may issue; `None` for all.
    pub(super) fn kinds(&self) -> Option<&[KeyKind]> {
        let stated = self.operator.kinds.as_deref();
        stated.or_else(|| self.own().map(|_| &[KeyKind::User][..]))
    }

    /// Returns whether a key exists as far as the operator is concerned.
    pub(super) fn sees(&self, record: &KeyRecord) -> bool {
        let is_own = |own: Owner| own.user_id == record.owner.user_id;
        self.operator.sees(record) && self.own().is_none_or(is_own)
    }

    /// Makes the operator the owner of a requested key, if it is confined to its own keys.
    pub(super) fn make_own(&self, new: &mut NewKey) -> Result<(), ManageError> {
        let Some(own) = self.own() else {
            return Ok(());
        };
        if new.owner.user_id.is_some() && new.owner.user_id != own.user_id {
            return Err(Denied::because(NOT_YOU).about("owner.user_id").into());
        }
        if let Some(asked) = &new.owner.user_email {
            let known = own.user_email.as_deref();
            if !known.is_some_and(|known| known.eq_ignore_ascii_case(asked)) {
                let why = "You can only give your own e-mail address";
                return Err(Denied::because(why).about("owner.user_email").into());
            }
        }
        new.owner = own;
        new.delegation.get_or_insert(Delegation::Off);
        Ok(())
    }

    /// Checks the workspaces of a key that the operator owns. An unchanged restriction may stay.
    pub(super) fn check_workspaces_within(
        &self,
        record: &KeyRecord,
        before: Option<&KeyRecord>,
    ) -> Result<(), ManageError> {
        let kept = before.is_some_and(|before| before.workspaces == record.workspaces);
        let reached = record.workspaces.as_deref();
        let within = match self.operator.role() {
            Role::Owner => true,
            Role::Admin => reached.is_none() || self.operator.reaches(reached),
            Role::Member => self.operator.reaches(reached),
        };
        if kept || within || self.own().is_none() {
            return Ok(());
        }
        let why = match reached {
            None => "You cannot grant access to the whole organization",
            Some(_) => "You cannot grant access to workspaces that you do not belong to",
        };
        Err(Denied::because(why).about("workspaces").into())
    }

    /// Checks the plan and the quotas that an operator confined to its own keys would take over from
    /// an existing key, where somebody else may have set them.
    pub(super) async fn check_taken_over(
        &self,
        record: &KeyRecord,
        limits: &PlanLimits,
    ) -> Result<(), ManageError> {
        if self.own().is_none() {
            return Ok(());
        }
        if let Some(plan) = &record.plan {
            let tenant = &record.owner.tenant_id;
            self.check_plan(plan.clone(), None, tenant).await?;
        }
        match &record.quotas {
            Some(quotas) => self.check_quotas(quotas, None, limits),
            None => Ok(()),
        }
    }

    /// Returns whether a change lets an operator confined to its own keys use a key longer or from
    /// more places. It must then be allowed to grant all that the key grants.
    pub(super) fn revives(&self, before: &KeyRecord, after: &KeyRecord) -> bool {
        let revives = after.enabled && !before.enabled
            || is_later(after.expires_at, before.expires_at)
            || after.not_before < before.not_before
            || before.allowed_ips.is_some() && after.allowed_ips != before.allowed_ips;
        revives && self.own().is_some()
    }
}
