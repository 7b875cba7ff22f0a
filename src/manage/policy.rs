//! The policy that decides what operators can do: by role, or confined to their own keys.
//! [`OperatorPolicy`] contains the table of what an operator can set.

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

use super::{Denied, KeyManager, Operator, Role};
use crate::audit::Action;
use crate::credit::CreditAccount;
use crate::key::KeyRecord;
use crate::pointer::to_the_pointee;
use crate::store::ListQuery;

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
/// | environment, kind | [`Operator::environments`], [`Operator::kinds`] | never |
/// | addresses, texts, metadata, start | any that the API supports | |
///
/// Scopes are compared by the authenticator's `ScopeModel`; issuing a key for an API without scopes
/// requires `*`. With [`ByRole`], an Owner may set the organization and each workspace, an Admin
/// the organization and its own workspaces, and a Member none. Without a directory there are no
/// users, except the operator itself. Unknown users and users of other tenants get the same refusal.
///
/// # Operators confined to their own keys
/// For an operator whom the policy [confines to its own keys](Self::own_keys_only), a key of another
/// owner does not exist: it is reported as an unknown one, and absent from lists and events. In
/// addition to the table:
///
/// | value | limit |
/// |---|---|
/// | owner | the operator, also where a request names no user |
/// | e-mail address of the owner | [`Operator::email`] |
/// | workspaces | an Owner's: any; an Admin's: the organization and [`Operator::workspaces`]; a Member's: `Operator::workspaces` |
/// | delegation | none, since it reaches other users |
/// | kind | [`KeyKind::User`], unless [`Operator::kinds`] is set |
///
/// A key that is wider than the operator, because somebody else widened it or the operator lost a
/// permission, can be read, renamed, narrowed, disabled, revoked and deleted. It cannot be rotated,
/// enabled, extended, started earlier or freed from its addresses. It keeps working until then: a
/// host that takes a permission from a user also narrows the user's keys
/// ([guide](crate::guide::self_serve)).
///
/// [`KeyKind::User`]: crate::key::KeyKind::User
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

    /// Checks whether an operator may perform this action on an account of credits of its own tenant,
    /// or of a key that it can list:
    /// [`Action::CreditRead`], [`Action::CreditGrant`], [`Action::CreditVoid`] or
    /// [`Action::CreditGiveBack`]. The default implementation lets those who manage keys read
    /// (see [`admits`](Self::admits)), and only the service itself change anything. An operator that
    /// is [confined to its own keys](Self::own_keys_only) reads its own account and those of its keys.
    ///
    /// # Errors
    /// The reason for the refusal.
    fn allows_credits(
        &self,
        operator: &Operator,
        action: Action,
        account: &CreditAccount,
    ) -> Result<(), Denied> {
        let is_own = || match account {
            CreditAccount::User(_, id) => operator.user() == Some(id),
            CreditAccount::Tenant(_) => false,
            // It can list one of the keys.
            CreditAccount::Key(_) => true,
        };
        match action {
            Action::CreditRead if !self.own_keys_only(operator) || is_own() => {
                self.admits(operator)
            }
            Action::CreditRead => Err(Denied::because("You can only read your own credits")),
            _ => Err(Denied::because("Only the service itself changes credits")),
        }
    }

    /// Returns whether an operator may set a value beyond the
    /// [table](Self#what-an-operator-may-set). The default implementation returns `false`.
    fn may_exceed(&self, operator: &Operator, setting: Setting) -> bool {
        let _ = (operator, setting);
        false
    }

    /// Returns whether an operator manages [its own keys
    /// only](Self#operators-confined-to-their-own-keys). The default implementation returns `false`.
    fn own_keys_only(&self, operator: &Operator) -> bool {
        let _ = operator;
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

impl Setting {
    /// Returns the member of the management API that sets it.
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::Scopes => "scopes",
            Self::Access => "access",
            Self::Delegation => "delegation",
            Self::Plan => "plan",
            Self::Quotas => "rate_limit_config",
            Self::Owner => "owner.user_id",
            Self::Lifetime => "expires_at",
        }
    }
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
            (Role::Admin, Some(reached)) if !operator.reaches(Some(reached)) => {
                let why = "The key has access to workspaces that you do not belong to";
                Err(Denied::because(why).about("workspaces"))
            }
            (Role::Admin, _) => Ok(()),
        }
    }

    fn lists(&self, operator: &Operator, mut query: ListQuery) -> Result<ListQuery, Denied> {
        match operator.role() {
            Role::Owner => Ok(query),
            Role::Member => Err(Denied::because("Members cannot manage keys")),
            Role::Admin => {
                if let Some(mut own) = operator.workspaces.clone() {
                    if let Some(asked) = &query.within_workspaces {
                        own.retain(|id| asked.contains(id));
                    }
                    query.within_workspaces = Some(own);
                }
                Ok(query)
            }
        }
    }
}

/// Returns the policy for self-serve: every user, whatever its role, manages [exactly its own
/// keys](OperatorPolicy#operators-confined-to-their-own-keys) and cannot make them wider than
/// itself.
///
/// A service has it beside the policy of its administrators
/// ([`KeyManager::under`](super::KeyManager::under)).
#[must_use]
pub fn own_keys() -> impl OperatorPolicy + Copy {
    OwnKeys
}

#[derive(Debug, Clone, Copy)]
struct OwnKeys;

impl KeyManager {
    /// Returns this manager under another policy than that of
    /// [`Management::operators`](super::Management::operators), such as [`own_keys`] for a service's
    /// customers beside the policy of its administrators.
    #[must_use]
    pub fn under<P: OperatorPolicy>(&self, policy: P) -> Self {
        // Only this very policy: another one that confines operators to their own keys may refuse more.
        let policy = match TypeId::of::<P>() == TypeId::of::<OwnKeys>() {
            true => Arc::clone(&self.inner.own_keys),
            false => Arc::new(policy) as _,
        };
        Self {
            policy,
            ..self.clone()
        }
    }
}

impl OperatorPolicy for OwnKeys {
    fn allows(&self, _: &Operator, _: Action, _: &KeyRecord) -> Result<(), Denied> {
        Ok(())
    }

    fn lists(&self, _: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
        Ok(query)
    }

    fn own_keys_only(&self, _: &Operator) -> bool {
        true
    }
}

to_the_pointee! {
    OperatorPolicy {
        fn admits(&self, operator: &Operator) -> Result<(), Denied>;
        fn allows(&self, operator: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied>;
        fn lists(&self, operator: &Operator, query: ListQuery) -> Result<ListQuery, Denied>;
        fn allows_credits(&self, operator: &Operator, action: Action, account: &CreditAccount) -> Result<(), Denied>;
        fn may_exceed(&self, operator: &Operator, setting: Setting) -> bool;
        fn own_keys_only(&self, operator: &Operator) -> bool;
    }
}
