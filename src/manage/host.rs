//! The host's own rules for keys that are issued, imported or changed.

use std::fmt;

use async_trait::async_trait;

use super::{KeyChange, NewKey, Operator};
use crate::error::AuthError;
use crate::key::KeyRecord;
use crate::pointer::to_the_pointee;

/// The host's own rules, which complete or refuse requests, for example according to the users,
/// workspaces and plans that exist. `Arc` and `Box` of an implementation implement this trait too.
///
/// The manager calls them as part of the operation, after it has recognized repeated requests. For
/// a change, it calls them once for each version of the key that the change is tried on.
#[async_trait]
pub trait HostRules: fmt::Debug + Send + Sync + 'static {
    /// Completes or refuses a key that is about to be issued or imported.
    ///
    /// # Errors
    /// The error with which the request is refused.
    async fn issuing(&self, operator: &Operator, new: &mut NewKey) -> Result<(), AuthError> {
        let _ = (operator, new);
        Ok(())
    }

    /// Completes or refuses a change of a key. `before` is the version that the change is applied
    /// to. If the key is modified concurrently, the rules are called again with the newer version.
    ///
    /// # Errors
    /// The error with which the request is refused.
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

/// Adds no rules to the manager's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoRules;

#[async_trait]
impl HostRules for NoRules {}

to_the_pointee! {
    HostRules {
        async fn issuing(&self, operator: &Operator, new: &mut NewKey) -> Result<(), AuthError>;
        async fn changing(
            &self,
            operator: &Operator,
            before: &KeyRecord,
            change: &mut KeyChange,
        ) -> Result<(), AuthError>;
    }
}
