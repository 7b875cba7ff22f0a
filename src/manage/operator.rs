//! Who manages keys, and what they may: the operator whom the host has proven, and the policy that
//! allows or refuses. What an operator may set is the table of [`OperatorPolicy`].

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
    /// Everything in the tenant.
    Owner,
    /// What the policy says: by default the keys of the whole organization, and those of own
    /// workspaces.
    Admin,
    /// What the policy says: by default nothing.
    Member,
}

/// Somebody who manages keys, as the host has proven it: the library believes it.
///
/// An operator of a tenant sees nothing of any other: another tenant's key is not found, whatever
/// the policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operator {
    /// How the audit names it.
    pub name: String,
    /// Where it may act at all.
    pub scope: OperatorScope,
    /// The workspaces it belongs to; none unless set.
    pub workspaces: Vec<WorkspaceId>,
    /// What it may itself: no key that it issues grants more, unless the policy says so. Unset, the
    /// service itself may grant everything, and an operator of a tenant nothing.
    pub authority: Option<Vec<Scope>>,
    /// Whether it may write itself; full access unless set.
    pub access: Access,
    /// Where it is, for the audit.
    pub client_ip: Option<IpAddr>,
    /// The request that it makes, for the audit.
    pub request_id: Option<RequestId>,
}

/// Where an operator may act.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperatorScope {
    /// Everywhere: the service itself.
    Host,
    /// In this tenant, with this role.
    Tenant(TenantId, Role),
}

impl Operator {
    /// The service itself, which may do everything to every tenant's keys. Its authority can be
    /// narrowed; no policy is asked about it.
    #[must_use]
    pub fn host() -> Self {
        Self::at("host", OperatorScope::Host)
    }

    /// Somebody with a role in a tenant.
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

    /// The same as a member of these workspaces.
    #[must_use]
    pub fn in_workspaces(mut self, workspaces: impl IntoIterator<Item = WorkspaceId>) -> Self {
        self.workspaces = workspaces.into_iter().collect();
        self
    }

    /// The same with this authority only: no key that it issues grants more.
    #[must_use]
    pub fn with_authority(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.authority = Some(scopes.into_iter().collect());
        self
    }

    /// The same with this access only: no key that it issues may do more.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The same, from this address.
    #[must_use]
    pub fn from_ip(mut self, ip: Option<IpAddr>) -> Self {
        self.client_ip = ip;
        self
    }

    /// The same, on this request.
    #[must_use]
    pub fn on_request(mut self, id: Option<RequestId>) -> Self {
        self.request_id = id;
        self
    }

    /// The tenant that it is confined to.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match &self.scope {
            OperatorScope::Host => None,
            OperatorScope::Tenant(tenant, _) => Some(tenant),
        }
    }

    /// Its role; the service itself has an owner's.
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

/// Why an operator may not do something, for the operator to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

impl Denied {
    /// A denial for this reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Decides what an operator may do to keys of its own tenant. `Arc` and `Box` of a policy are
/// policies.
///
/// # What an operator may set
/// An operator of a tenant may set what is in this table, unless
/// [`may_exceed`](Self::may_exceed) says otherwise. What a key had before may stay.
///
/// | what | may be set by an operator of a tenant | beyond it |
/// |---|---|---|
/// | tenant | its own | never |
/// | scopes | within [`Operator::authority`]; none if it was given none | [`Setting::Scopes`] |
/// | access | within [`Operator::access`] | [`Setting::Access`] |
/// | workspaces | as [`allows`](Self::allows) says | `allows` |
/// | delegation | what [`IssueRules::delegation`] gives, or less | [`Setting::Delegation`] |
/// | plan | the one that [`HostRules::plan_of`] names for the tenant, if any | [`Setting::Plan`] |
/// | quotas | at most the authenticator's default, in every window | [`Setting::Quotas`] |
/// | owner's user | one that the `Directory` knows in the tenant | [`Setting::Owner`] |
/// | lifetime | any, within [`IssueRules::longest_lifetime`] if set | [`Setting::Lifetime`] |
/// | addresses, texts, metadata, beginning, environment, kind | any that the API has | |
///
/// Scopes are compared by the authenticator's `ScopeModel`; a key of an API without scopes needs
/// `*`. By [`ByRole`], an Owner may set the organization and each workspace, an Admin the
/// organization and its own workspaces, a Member none. Without a directory there are no users.
/// Unknown users and those of other tenants are refused alike.
///
/// [`IssueRules::delegation`]: super::IssueRules::delegation
/// [`IssueRules::longest_lifetime`]: super::IssueRules::longest_lifetime
/// [`HostRules::plan_of`]: super::HostRules::plan_of
///
/// The service itself ([`Operator::host`], and a manager without an operator) may set everything,
/// and no policy is asked about it.
pub trait OperatorPolicy: fmt::Debug + Send + Sync + 'static {
    /// Whether an operator may manage anything at all; it may unless this is said.
    ///
    /// # Errors
    /// Why not.
    fn admits(&self, operator: &Operator) -> Result<(), Denied> {
        let _ = operator;
        Ok(())
    }

    /// Whether an operator may do this to a key: for [`Action::KeyIssue`] and [`Action::KeyImport`]
    /// to the one that would be made, for [`Action::KeyUpdate`] to the key as it is and as it would
    /// be.
    ///
    /// # Errors
    /// Why not.
    fn allows(&self, operator: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied>;

    /// The keys that an operator sees in lists: the query, made narrower where it must be.
    ///
    /// # Errors
    /// Where it sees no lists at all.
    fn lists(&self, operator: &Operator, query: ListQuery) -> Result<ListQuery, Denied>;

    /// Whether an operator may set this beyond the [table](Self#what-an-operator-may-set); not
    /// unless this is said.
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
    /// Whether a key may write.
    Access,
    /// Whether a key may act for users.
    Delegation,
    /// The plan.
    Plan,
    /// How often a key may be used.
    Quotas,
    /// The user that a key belongs to.
    Owner,
    /// How long a key lives.
    Lifetime,
}

/// Owners manage all keys of their tenant; administrators those of the whole organization and those
/// that reach none but their own workspaces; members none.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ByRole;

impl ByRole {
    /// The policy.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl OperatorPolicy for ByRole {
    fn admits(&self, operator: &Operator) -> Result<(), Denied> {
        match operator.role() {
            Role::Member => Err(Denied::because("Members may not manage keys")),
            Role::Owner | Role::Admin => Ok(()),
        }
    }

    fn allows(&self, operator: &Operator, _: Action, key: &KeyRecord) -> Result<(), Denied> {
        match (operator.role(), &key.workspaces) {
            (Role::Owner, _) => Ok(()),
            (Role::Member, _) => Err(Denied::because("Members may not manage keys")),
            (Role::Admin, Some(reached))
                if !reached.iter().all(|id| operator.workspaces.contains(id)) =>
            {
                Err(Denied::because(
                    "This key reaches workspaces that you do not belong to",
                ))
            }
            (Role::Admin, _) => Ok(()),
        }
    }

    fn lists(&self, operator: &Operator, mut query: ListQuery) -> Result<ListQuery, Denied> {
        match operator.role() {
            Role::Owner => Ok(query),
            Role::Member => Err(Denied::because("Members may not manage keys")),
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
