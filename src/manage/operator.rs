//! Operators and the policy that decides what they can do. [`OperatorPolicy`] contains the table of
//! what an operator can set.

use std::fmt;
use std::net::IpAddr;

use crate::audit::{Action, RequestId};
use crate::key::{Access, KeyRecord, TenantId, WorkspaceId};
use crate::pointer::to_the_pointee;
use crate::scope::Scope;
use crate::store::ListQuery;

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

/// An operator who manages keys, authenticated by the host. The library trusts these values.
///
/// An operator of a tenant cannot see other tenants: another tenant's key is reported as not found,
/// whatever the policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operator {
    /// The operator's name in the audit.
    pub name: String,
    /// The tenants in which the operator may act.
    pub scope: OperatorScope,
    /// The workspaces that the operator belongs to; none by default.
    pub workspaces: Vec<WorkspaceId>,
    /// The operator's own scopes: keys that it issues cannot grant more, unless the policy allows
    /// it. By default the service itself may grant everything, and an operator of a tenant nothing.
    pub authority: Option<Vec<Scope>>,
    /// The operator's own access; full access by default.
    pub access: Access,
    /// The operator's client address, for the audit.
    pub client_ip: Option<IpAddr>,
    /// The operator's current request, for the audit.
    pub request_id: Option<RequestId>,
}

/// The tenants in which an operator may act.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperatorScope {
    /// Everywhere, as the service itself.
    Host,
    /// In this tenant, with this role.
    Tenant(TenantId, Role),
}

impl Operator {
    /// Returns the service itself, which may do everything with the keys of all tenants. Its
    /// authority can be narrowed; the policy does not apply to it.
    #[must_use]
    pub fn host() -> Self {
        Self::at("host", OperatorScope::Host)
    }

    /// Creates an operator with a role in a tenant.
    #[must_use]
    pub fn new(name: impl Into<String>, tenant: TenantId, role: Role) -> Self {
        Self::at(name, OperatorScope::Tenant(tenant, role))
    }

    fn at(name: impl Into<String>, scope: OperatorScope) -> Self {
        Self {
            name: name.into(),
            scope,
            workspaces: Vec::new(),
            authority: None,
            access: Access::FullAccess,
            client_ip: None,
            request_id: None,
        }
    }

    /// Sets the workspaces that the operator belongs to.
    #[must_use]
    pub fn in_workspaces(mut self, workspaces: impl IntoIterator<Item = WorkspaceId>) -> Self {
        self.workspaces = workspaces.into_iter().collect();
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
            OperatorScope::Tenant(tenant, _) => Some(tenant),
        }
    }

    /// Returns the role. The service itself has the role of an owner.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.scope {
            OperatorScope::Host => Role::Owner,
            OperatorScope::Tenant(_, role) => role,
        }
    }

    pub(super) fn sees(&self, record: &KeyRecord) -> bool {
        self.tenant()
            .is_none_or(|tenant| record.owner.tenant_id == *tenant)
    }
}

/// The reason for refusing an operation, written for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

impl Denied {
    /// Creates a denial with this reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Decides what an operator can do with the keys of its own tenant. `Arc` and `Box` of a policy
/// implement this trait too.
///
/// # What an operator may set
/// An operator of a tenant may set what this table lists, unless [`may_exceed`](Self::may_exceed)
/// allows more. Existing values of a key may stay.
///
/// | value | limit for an operator of a tenant | exception |
/// |---|---|---|
/// | tenant | its own | never |
/// | scopes | within [`Operator::authority`]; none if it is not set | [`Setting::Scopes`] |
/// | access | within [`Operator::access`] | [`Setting::Access`] |
/// | workspaces | as [`allows`](Self::allows) says | `allows` |
/// | delegation | at most [`IssueRules::delegation`] | [`Setting::Delegation`] |
/// | plan | the tenant's plan ([`Directory::plan`]), which the key then follows | [`Setting::Plan`] |
/// | quotas | at most what the key's plan allows ([`Plan::own_quotas`]), in every window | [`Setting::Quotas`] |
/// | owner's user | a user that the `Directory` knows in the tenant | [`Setting::Owner`] |
/// | lifetime | any, within that of the plan or [`IssueRules::longest_lifetime`] if set | [`Setting::Lifetime`] |
/// | addresses, texts, metadata, start, environment, kind | any that the API supports | |
///
/// Scopes are compared by the authenticator's `ScopeModel`; issuing a key for an API without scopes
/// requires `*`. With [`ByRole`], an Owner may set the organization and each workspace, an Admin
/// the organization and its own workspaces, and a Member none. Without a directory there are no
/// users. Unknown users and users of other tenants get the same refusal.
///
/// [`IssueRules::delegation`]: super::IssueRules::delegation
/// [`IssueRules::longest_lifetime`]: super::IssueRules::longest_lifetime
/// [`Directory::plan`]: crate::actor::Directory::plan
/// [`Plan::own_quotas`]: crate::limit::Plan::own_quotas
///
/// The service itself ([`Operator::host`], and a manager without an operator) may set everything;
/// the policy does not apply to it.
pub trait OperatorPolicy: fmt::Debug + Send + Sync + 'static {
    /// Checks whether an operator can manage keys at all. The default implementation allows it.
    ///
    /// # Errors
    /// The reason for the refusal.
    fn admits(&self, operator: &Operator) -> Result<(), Denied> {
        let _ = operator;
        Ok(())
    }

    /// Checks whether an operator may perform this action on a key. For [`Action::KeyIssue`] and
    /// [`Action::KeyImport`] it is called with the key that would be created, for
    /// [`Action::KeyUpdate`] with the key before and after the change.
    ///
    /// # Errors
    /// The reason for the refusal.
    fn allows(&self, operator: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied>;

    /// Restricts a query to the keys that an operator can list.
    ///
    /// # Errors
    /// The reason, if the operator cannot list keys at all.
    fn lists(&self, operator: &Operator, query: ListQuery) -> Result<ListQuery, Denied>;

    /// Returns whether an operator may set a value beyond the
    /// [table](Self#what-an-operator-may-set). The default implementation returns `false`.
    fn may_exceed(&self, operator: &Operator, setting: Setting) -> bool {
        let _ = (operator, setting);
        false
    }
}

/// A row of the [table](OperatorPolicy#what-an-operator-may-set) of what an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Setting {
    /// Scopes.
    Scopes,
    /// The access level of a key.
    Access,
    /// The delegation of a key.
    Delegation,
    /// The plan.
    Plan,
    /// The quotas of a key.
    Quotas,
    /// The user that a key belongs to.
    Owner,
    /// The lifetime of a key.
    Lifetime,
}

/// The default policy: Owners manage all keys of their tenant, Admins the keys of the whole
/// organization and keys limited to their own workspaces, Members none.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ByRole;

impl ByRole {
    /// Creates the policy.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl OperatorPolicy for ByRole {
    fn admits(&self, operator: &Operator) -> Result<(), Denied> {
        match operator.role() {
            Role::Member => Err(Denied::because("Members cannot manage keys")),
            Role::Owner | Role::Admin => Ok(()),
        }
    }

    fn allows(&self, operator: &Operator, _: Action, key: &KeyRecord) -> Result<(), Denied> {
        match (operator.role(), &key.workspaces) {
            (Role::Owner, _) => Ok(()),
            (Role::Member, _) => Err(Denied::because("Members cannot manage keys")),
            (Role::Admin, Some(reached))
                if !reached.iter().all(|id| operator.workspaces.contains(id)) =>
            {
                Err(Denied::because(
                    "The key has access to workspaces that you do not belong to",
                ))
            }
            (Role::Admin, _) => Ok(()),
        }
    }

    fn lists(&self, operator: &Operator, mut query: ListQuery) -> Result<ListQuery, Denied> {
        match operator.role() {
            Role::Owner => Ok(query),
            Role::Member => Err(Denied::because("Members cannot manage keys")),
            Role::Admin => {
                let mut own = operator.workspaces.clone();
                if let Some(asked) = &query.within_workspaces {
                    own.retain(|id| asked.contains(id));
                }
                query.within_workspaces = Some(own);
                Ok(query)
            }
        }
    }
}

to_the_pointee! {
    OperatorPolicy {
        fn admits(&self, operator: &Operator) -> Result<(), Denied>;
        fn allows(&self, operator: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied>;
        fn lists(&self, operator: &Operator, query: ListQuery) -> Result<ListQuery, Denied>;
        fn may_exceed(&self, operator: &Operator, setting: Setting) -> bool;
    }
}
