//! Operators. [`OperatorPolicy`] decides what they can do, and contains the table of what an operator
//! can set.

use std::net::IpAddr;

use crate::audit::{Party, RequestId};
use crate::key::{Access, Environment, KeyKind, KeyRecord, Owner, TenantId, UserId, WorkspaceId};
use crate::scope::Scope;

/// The role of an operator within its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Can manage everything in the tenant.
    Owner,
    /// Can do what the policy allows: by default manage the keys of the whole organization and of
    /// the admin's own workspaces.
    Admin,
    /// Can do what the policy allows: by default nothing.
    Member,
}

/// An operator who manages keys: a user of a tenant, authenticated by the host, or the service
/// itself. The library trusts these values.
///
/// An operator of a tenant cannot see other tenants: another tenant's key is reported as not found,
/// whatever the policy says.
///
/// The host states here what the operator itself may do: scopes, access, workspaces, kinds and
/// environments. Keys that it issues or rotates are never wider. Since the host proves the operator
/// for each call, a user who loses a permission cannot grant it from the next call on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operator {
    /// Who the operator is, and the tenants in which it may act.
    pub scope: OperatorScope,
    /// The operator's e-mail address, for the audit and as the owner of keys.
    pub email: Option<String>,
    /// The workspaces that the operator belongs to, or `None` for the whole organization. By default
    /// none, and the whole organization for the service itself.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The operator's own scopes: keys that it issues cannot grant more, unless the policy allows
    /// it. By default the service itself may grant everything, and an operator of a tenant nothing.
    pub authority: Option<Vec<Scope>>,
    /// The operator's own access; full access by default.
    pub access: Access,
    /// The kinds of keys that the operator may issue. By default all, and only
    /// [`KeyKind::User`] where the policy [confines](super::OperatorPolicy::own_keys_only) the
    /// operator to its own keys: an application key does not act as its owner.
    pub kinds: Option<Vec<KeyKind>>,
    /// The environments in which the operator may issue keys; all by default.
    pub environments: Option<Vec<Environment>>,
    /// The operator's client address, for the audit.
    pub client_ip: Option<IpAddr>,
    /// The operator's current request, for the audit.
    pub request_id: Option<RequestId>,
}

/// Who an operator is, and the tenants in which it may act.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperatorScope {
    /// The service itself, everywhere.
    Host,
    /// A user, in its tenant.
    User {
        /// The user.
        id: UserId,
        /// The tenant.
        tenant: TenantId,
        /// The role in the tenant.
        role: Role,
    },
}

impl Operator {
    /// Returns the service itself, which may do everything with the keys of all tenants. Its
    /// authority can be narrowed; the policy does not apply to it.
    #[must_use]
    pub fn host() -> Self {
        Self::at(OperatorScope::Host, None)
    }

    /// Creates an operator that is a user with a role in a tenant. It has no scopes and belongs to
    /// no workspace until the host says so.
    #[must_use]
    pub fn new(id: UserId, tenant: TenantId, role: Role) -> Self {
        Self::at(OperatorScope::User { id, tenant, role }, Some(Vec::new()))
    }

    fn at(scope: OperatorScope, workspaces: Option<Vec<WorkspaceId>>) -> Self {
        Self {
            scope,
            email: None,
            workspaces,
            authority: None,
            access: Access::FullAccess,
            kinds: None,
            environments: None,
            client_ip: None,
            request_id: None,
        }
    }

    /// Sets the e-mail address.
    #[must_use]
    pub fn with_email(mut self, email: impl Into<String>) -> Self {
        self.email = Some(email.into());
        self
    }

    /// Sets the workspaces that the operator belongs to.
    #[must_use]
    pub fn in_workspaces(mut self, workspaces: impl IntoIterator<Item = WorkspaceId>) -> Self {
        self.workspaces = Some(workspaces.into_iter().collect());
        self
    }

    /// Makes the operator a member of the whole organization: all its workspaces, or an API that has
    /// none.
    #[must_use]
    pub fn in_organization(mut self) -> Self {
        self.workspaces = None;
        self
    }

    /// Limits the operator to these scopes: keys that it issues cannot grant more.
    #[must_use]
    pub fn with_authority(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.authority = Some(scopes.into_iter().collect());
        self
    }

    /// Limits the operator to this access: keys that it issues cannot have more.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Limits the operator to keys of these kinds.
    #[must_use]
    pub fn with_kinds(mut self, kinds: impl IntoIterator<Item = KeyKind>) -> Self {
        self.kinds = Some(kinds.into_iter().collect());
        self
    }

    /// Limits the operator to these environments.
    #[must_use]
    pub fn in_environments(mut self, names: impl IntoIterator<Item = Environment>) -> Self {
        self.environments = Some(names.into_iter().collect());
        self
    }

    /// Sets the client address.
    #[must_use]
    pub fn from_ip(mut self, ip: Option<IpAddr>) -> Self {
        self.client_ip = ip;
        self
    }

    /// Sets the id of the current request.
    #[must_use]
    pub fn on_request(mut self, id: Option<RequestId>) -> Self {
        self.request_id = id;
        self
    }

    /// Returns the tenant that the operator is confined to.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match &self.scope {
            OperatorScope::Host => None,
            OperatorScope::User { tenant, .. } => Some(tenant),
        }
    }

    /// Returns the user; `None` for the service itself.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        match &self.scope {
            OperatorScope::Host => None,
            OperatorScope::User { id, .. } => Some(id),
        }
    }

    /// Returns the user id, or `host` for the service itself. Unique within the tenant.
    #[must_use]
    pub fn name(&self) -> &str {
        self.user().map_or("host", UserId::as_str)
    }

    /// Returns the role. The service itself has the role of an owner.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.scope {
            OperatorScope::Host => Role::Owner,
            OperatorScope::User { role, .. } => role,
        }
    }

    /// Returns the operator as the owner of keys.
    pub(super) fn as_owner(&self) -> Option<Owner> {
        let (tenant, user) = (self.tenant()?.clone(), self.user()?.clone());
        let mut owner = Owner::user(tenant, user);
        owner.user_email = self.email.as_deref().map(Into::into);
        Some(owner)
    }

    /// Returns the operator as a party of an audit event.
    pub(super) fn party(&self) -> Party {
        let user = Party::user(self.user(), self.email.as_deref());
        user.filter(|_| self.user().is_some())
            .unwrap_or_else(|| Party::operator(self.name()))
    }

    /// Returns whether the operator belongs to all workspaces that a key with this restriction
    /// reaches.
    pub(super) fn reaches(&self, workspaces: Option<&[WorkspaceId]>) -> bool {
        match (&self.workspaces, workspaces) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(reached)) => reached.iter().all(|id| own.contains(id)),
        }
    }

    pub(super) fn sees(&self, record: &KeyRecord) -> bool {
        self.tenant()
            .is_none_or(|tenant| record.owner.tenant_id == *tenant)
    }
}

/// The reason for refusing an operation, written for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Denied {
    /// The reason.
    pub reason: String,
    /// The member of the key that it is about, as the management API names it; `None` if it is about
    /// the operation as a whole.
    pub field: Option<&'static str>,
}

impl Denied {
    /// Creates a denial with this reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            field: None,
        }
    }

    /// Names the member of the key that the denial is about, such as `scopes`. A form shows the
    /// reason beside it.
    #[must_use]
    pub const fn about(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }
}
