//! Who was authenticated, as routes and hosts ask for it.

use std::fmt::Debug;

use super::Requirement;
use crate::actor::Actor;
use crate::error::AuthError;
use crate::key::{Access, Environment, KeyId, Owner, PlanName, WorkspaceId};
use crate::scope::{Scope, ScopeSet};

/// An authenticated caller.
///
/// A host's own type may implement it, to be checked against requirements like the library's.
pub trait Principal: Debug + Send + Sync + 'static {
    /// The id of the key that was presented.
    fn key_id(&self) -> &KeyId;
    /// Whom the key belongs to.
    fn owner(&self) -> &Owner;
    /// Who acts.
    fn actor(&self) -> Actor<'_>;
    /// The environment whose data may be touched.
    fn environment(&self) -> &Environment;
    /// What is granted.
    fn scopes(&self) -> &dyn ScopeSet;

    /// Whether the key may write; it may unless this is said.
    fn access(&self) -> Access {
        Access::FullAccess
    }
    /// The only workspaces that the key reaches; `None`, the default, for all of the tenant's.
    fn workspaces(&self) -> Option<&[WorkspaceId]> {
        None
    }
    /// The plan that the owner pays for.
    fn plan(&self) -> Option<&PlanName> {
        None
    }

    /// Whether the key reaches a workspace: to filter what a handler lists.
    fn reaches(&self, workspace: &str) -> bool {
        self.workspaces()
            .is_none_or(|reached| reached.iter().any(|id| id.as_str() == workspace))
    }

    /// Checks a requirement inside of a handler, after the route's own. What needs the request (the
    /// method, a workspace in the path) is not met here. Allocates nothing where it is met.
    ///
    /// # Errors
    /// What is missing.
    fn require(&self, requirement: &Requirement) -> Result<(), AuthError> {
        requirement.check(self, None)
    }

    /// The same for one scope.
    ///
    /// # Errors
    /// `INSUFFICIENT_SCOPE`.
    fn require_scope(&self, scope: Scope) -> Result<(), AuthError> {
        self.require(&Requirement::scope(scope))
    }
}
