//! The host's own rules about keys that are issued, imported and changed.

use std::fmt;

use async_trait::async_trait;

use super::{KeyChange, NewKey, Operator};
use crate::error::AuthError;
use crate::key::{KeyRecord, PlanName, TenantId};
use crate::pointer::to_the_pointee;

/// What the host's own rules add to what is asked for, or refuse: which users, workspaces and plans
/// there are. `Arc` and `Box` of rules are rules.
///
/// The manager asks them within the act itself, after a repeated request was recognized, and for a
/// change once for each version of the key that the change is tried on.
#[async_trait]
pub trait HostRules: fmt::Debug + Send + Sync + 'static {
    /// The plan that a tenant pays for: that of every key for which no other is named, and the only
    /// one that an operator of the tenant may name, unless the policy says otherwise. None unless
    /// this is said.
    ///
    /// # Errors
    /// How the request is refused, where it cannot be told.
    async fn plan_of(&self, tenant: &TenantId) -> Result<Option<PlanName>, AuthError> {
        let _ = tenant;
        Ok(None)
    }

    /// Completes or refuses a key that is about to be issued or imported.
    ///
    /// # Errors
    /// How the request is refused.
    async fn issuing(&self, operator: &Operator, new: &mut NewKey) -> Result<(), AuthError> {
        let _ = (operator, new);
        Ok(())
    }

    /// Completes or refuses a change of a key. `before` is the version that the change is applied
    /// to: where somebody else changed the key meanwhile, the rules are asked again about the
    /// newer version.
    ///
    /// # Errors
    /// How the request is refused.
    async fn changing(
        &self,
        operator: &Operator,
        before: &KeyRecord,
        change: &mut KeyChange,
    ) -> Result<(), AuthError> {
        let _ = (operator, before, change);
        Ok(())
    }
}

/// No rules beyond the manager's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoRules;

#[async_trait]
impl HostRules for NoRules {}

to_the_pointee! {
    HostRules {
        async fn plan_of(&self, tenant: &TenantId) -> Result<Option<PlanName>, AuthError>;
        async fn issuing(&self, operator: &Operator, new: &mut NewKey) -> Result<(), AuthError>;
        async fn changing(
            &self,
            operator: &Operator,
            before: &KeyRecord,
            change: &mut KeyChange,
        ) -> Result<(), AuthError>;
    }
}
