//! The interface of an authenticated caller, as routes and hosts see it.

use std::fmt::Debug;

use super::Requirement;
use crate::actor::Actor;
use crate::error::AuthError;
use crate::key::{Access, Environment, KeyId, Owner, PlanName, WorkspaceId};
use crate::scope::{Scope, ScopeSet};

/// An authenticated caller.
///
/// A host can implement it for its own type, to check requirements against it.
pub trait Principal: Debug + Send + Sync + 'static {
    /// Returns the id of the key that was presented.
    fn key_id(&self) -> &KeyId;
    /// Returns the owner of the key.
    fn owner(&self) -> &Owner;
    /// Returns the actor of the request.
    fn actor(&self) -> Actor<'_>;
    /// Returns the environment that the key belongs to.
    fn environment(&self) -> &Environment;
    /// Returns the granted scopes.
    fn scopes(&self) -> &dyn ScopeSet;

    /// Returns the key's access level; full access by default.
    fn access(&self) -> Access {
        Access::FullAccess
    }
    /// Returns the workspaces that the key is restricted to; `None`, the default, means all
    /// workspaces of the tenant.
    fn workspaces(&self) -> Option<&[WorkspaceId]> {
        None
    }
    /// Returns the owner's plan, if any.
    fn plan(&self) -> Option<&PlanName> {
        None
    }

    /// Returns whether the key has access to a workspace. A handler uses it to filter lists.
    fn reaches(&self, workspace: &str) -> bool {
        self.workspaces()
            .is_none_or(|reached| reached.iter().any(|id| id.as_str() == workspace))
    }

    /// Checks a requirement in a handler, in addition to the route's requirement. Parts that depend
    /// on the request (the method, a workspace in the path) are not met. Does not allocate on
    /// success.
    ///
    /// # Errors
    /// Returns an error that names the missing part.
    fn require(&self, requirement: &Requirement) -> Result<(), AuthError> {
        requirement.check(self, None)
    }

    /// Checks a single scope in a handler.
    ///
    /// # Errors
    /// Returns `INSUFFICIENT_SCOPE` if the scope is not granted.
    fn require_scope(&self, scope: Scope) -> Result<(), AuthError> {
        self.require(&Requirement::scope(scope))
    }
}
