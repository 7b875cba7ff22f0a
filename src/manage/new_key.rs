//! The description of a key to be issued, and an issued key.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Idempotency, ManageError, text};
use crate::key::{
    Access, Delegation, Environment, KeyKind, KeyRecord, Metadata, Owner, PlaintextKey, PlanName,
    WorkspaceId,
};
use crate::network::AllowList;
use crate::quota::Quotas;
use crate::scope::Scope;

/// Description of a key to be issued. Only the name and the owner are required.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewKey {
    /// Display name: one line of 1 to 1000 characters, at least one of them visible. White space at
    /// both ends is removed. Control, direction, annotation and tag characters are refused, and so
    /// are invisible characters. Exceptions, needed for Persian, Indic scripts and emoji: joiners
    /// (U+200C, U+200D) between two visible characters, and variation selectors after a visible
    /// character. The flags of England, Scotland and Wales consist of tag characters and are
    /// therefore refused.
    pub name: String,
    /// Description: at most 1000 characters, may have several lines; otherwise the same rules as
    /// for the name.
    pub description: Option<String>,
    /// The kind of key; an application key by default.
    pub kind: KeyKind,
    /// The environment in which the key works; by default the manager's first environment.
    pub environment: Option<Environment>,
    /// The owner of the key.
    pub owner: Owner,
    /// The scopes that the key grants: at most 256. Duplicates are removed.
    pub scopes: Vec<Scope>,
    /// The access level: full or read-only.
    pub access: Access,
    /// The only workspaces that the key can access: 1 to 1000, duplicates are removed. By default
    /// all workspaces of the tenant.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The plan of the key; by default it follows the tenant's
    /// ([`Directory::plan`](crate::actor::Directory::plan)).
    pub plan: Option<PlanName>,
    /// Whether the key may act for users; by default as
    /// [`IssueRules::delegation`](super::IssueRules::delegation) says.
    pub delegation: Option<Delegation>,
    /// The client addresses from which the key may be used; all by default.
    pub allowed_ips: Option<AllowList>,
    /// The key's own quotas; by default those of its plan apply.
    pub quotas: Option<Quotas>,
    /// Metadata of the host.
    pub metadata: Metadata,
    /// The first instant at which the key works; immediately by default.
    pub not_before: Option<SystemTime>,
    /// The first instant at which the key no longer works; never by default.
    pub expires_at: Option<SystemTime>,
    /// Identifies a repeated request; by default every request is new.
    pub idempotency: Option<Idempotency>,
}

impl NewKey {
    /// Creates an application key of this owner, without scopes, that never expires.
    #[must_use]
    pub fn new(name: impl Into<String>, owner: Owner) -> Self {
        Self {
            name: name.into(),
            description: None,
            kind: KeyKind::App,
            environment: None,
            owner,
            scopes: Vec::new(),
            access: Access::default(),
            workspaces: None,
            plan: None,
            delegation: None,
            allowed_ips: None,
            quotas: None,
            metadata: Metadata::default(),
            not_before: None,
            expires_at: None,
            idempotency: None,
        }
    }

    /// Checks the name, the description and the owner's e-mail address as issuing does, and returns
    /// an error for each one that is invalid. For a form, which shows all errors together.
    #[must_use]
    pub fn invalid_texts(&self) -> Vec<ManageError> {
        let description = self.description.as_deref().unwrap_or_default();
        let email = self.owner.user_email.as_deref().unwrap_or_default();
        let checked = [
            text::name(&self.name),
            text::lines("description", description),
            text::line("owner.user_email", email),
        ];
        checked.into_iter().filter_map(Result::err).collect()
    }

    /// Sets the scopes.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
        self
    }

    /// Sets the environment.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Sets the first instant at which the key no longer works.
    #[must_use]
    pub fn expiring_at(mut self, instant: SystemTime) -> Self {
        self.expires_at = Some(instant);
        self
    }

    /// Restricts the key to these client addresses.
    #[must_use]
    pub fn with_allowed_ips(mut self, addresses: AllowList) -> Self {
        self.allowed_ips = Some(addresses);
        self
    }

    /// Sets the key's own quotas.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// Sets whether the key may act for users.
    #[must_use]
    pub fn with_delegation(mut self, delegation: Delegation) -> Self {
        self.delegation = Some(delegation);
        self
    }
}

/// A newly issued key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Issued {
    /// The secret, which cannot be retrieved again.
    pub key: PlaintextKey,
    /// Everything else about the key.
    pub record: Arc<KeyRecord>,
    /// Whether the key became its owner's primary key.
    pub primary: bool,
}
