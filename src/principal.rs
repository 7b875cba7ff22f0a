//! The principal that the library creates for an authenticated key.
//!
//! A principal holds identity and facts, never a decision. Do not keep it longer than the request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::actor::{self, Actor, ActorMode, User};
use crate::key::{Access, Environment, KeyId, KeyRecord, Owner, PlanName, WorkspaceId};
use crate::limit::LimiterSlot;
use crate::policy::Principal;
use crate::quota::Quotas;
use crate::respond::Responder;
use crate::scope::ScopeSet;
use crate::usage::UsageCell;

/// The facts that an authenticator compiles from a key record, shared by all requests until the
/// record changes.
pub(crate) struct KeyEntry {
    pub(crate) record: Arc<KeyRecord>,
    pub(crate) scopes: Arc<dyn ScopeSet>,
    /// The maximum authority when the key acts for a user, if it is limited.
    pub(crate) delegated: Option<Arc<dyn ScopeSet>>,
    pub(crate) quotas: Quotas,
    pub(crate) family_slot: LimiterSlot,
    pub(crate) tenant_slot: LimiterSlot,
    pub(crate) usage: Arc<UsageCell>,
    pub(crate) responder: Arc<Responder>,
}

impl fmt::Debug for KeyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEntry")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// The principal that the library creates for an authenticated key.
///
/// It is cheap to clone.
#[derive(Clone)]
pub struct KeyPrincipal {
    entry: Arc<KeyEntry>,
    mode: ActorMode,
    acting: Option<Arc<Acting>>,
    client_ip: Option<IpAddr>,
}

/// The user that a key acts for, and the resulting authority: the intersection of both.
pub(crate) struct Acting {
    user: Arc<User>,
    scopes: Arc<dyn ScopeSet>,
    /// The workspaces that both have access to, if the user is restricted to workspaces.
    workspaces: Option<Vec<WorkspaceId>>,
}

impl Acting {
    /// Creates the actor from a user and scopes that were already intersected.
    pub(crate) fn new(key: &KeyRecord, user: Arc<User>, scopes: Arc<dyn ScopeSet>) -> Self {
        let reached = |id: &&WorkspaceId| {
            let of_key = key.workspaces.as_ref();
            of_key.is_none_or(|of_key| of_key.contains(id))
        };
        let workspaces = user.workspaces.as_ref();
        let workspaces = workspaces.map(|own| own.iter().filter(reached).cloned().collect());
        Self {
            user,
            scopes,
            workspaces,
        }
    }
}

impl KeyPrincipal {
    pub(crate) fn new(
        entry: Arc<KeyEntry>,
        mode: ActorMode,
        acting: Option<Arc<Acting>>,
        client_ip: Option<IpAddr>,
    ) -> Self {
        Self {
            entry,
            mode,
            acting,
            client_ip,
        }
    }

    pub(crate) fn entry(&self) -> &Arc<KeyEntry> {
        &self.entry
    }

    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn record_arc(&self) -> &Arc<KeyRecord> {
        &self.entry.record
    }

    /// Returns the directory user that the key acts for; `None` if it acts for its owner.
    #[must_use]
    pub fn acting_for(&self) -> Option<&User> {
        self.acting.as_ref().map(|acting| &*acting.user)
    }

    /// Returns the key's record, which does not contain its secret.
    #[must_use]
    pub fn record(&self) -> &KeyRecord {
        &self.entry.record
    }

    /// Returns the mode in which the key acts.
    #[must_use]
    pub fn mode(&self) -> ActorMode {
        self.mode
    }

    /// Returns the client's address, if known.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client_ip
    }

    /// Returns the responder of the authenticator that admitted this caller, which renders later
    /// refusals in the same format.
    #[must_use]
    pub fn responder(&self) -> &Responder {
        &self.entry.responder
    }
}

impl Principal for KeyPrincipal {
    fn key_id(&self) -> &KeyId {
        &self.entry.record.id
    }
    fn owner(&self) -> &Owner {
        &self.entry.record.owner
    }
    fn actor(&self) -> Actor<'_> {
        match self.acting_for() {
            Some(user) => Actor {
                mode: self.mode,
                user_id: Some(&user.id),
                user_email: user.email.as_deref(),
            },
            None => actor::as_owner(self.mode, self.owner()),
        }
    }
    fn environment(&self) -> &Environment {
        &self.entry.record.environment
    }
    fn access(&self) -> Access {
        match self.acting_for() {
            Some(user) if user.access == Access::ReadOnly => Access::ReadOnly,
            _ => self.entry.record.access,
        }
    }
    fn workspaces(&self) -> Option<&[WorkspaceId]> {
        let of_both = self
            .acting
            .as_ref()
            .and_then(|one| one.workspaces.as_deref());
        of_both.or(self.entry.record.workspaces.as_deref())
    }
    fn plan(&self) -> Option<&PlanName> {
        self.entry.record.plan.as_ref()
    }
    fn scopes(&self) -> &dyn ScopeSet {
        match &self.acting {
            Some(acting) => &*acting.scopes,
            None => &*self.entry.scopes,
        }
    }
}

impl fmt::Debug for KeyPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPrincipal")
            .field("key_id", self.key_id())
            .field("owner", self.owner())
            .field("actor", &self.actor())
            .field("environment", self.environment())
            .field("scopes", &self.scopes())
            .finish_non_exhaustive()
    }
}
