//! Who was authenticated: the trait that routes and hosts ask, and the principal that the library makes.
//!
//! A principal is identity and facts, never a decision. It may be kept for the length of a request, and no longer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::actor::{self, Actor, ActorMode};
use crate::error::AuthError;
use crate::key::{Environment, KeyId, KeyRecord, Owner};
use crate::limit::{LimiterSlot, Quotas};
use crate::respond::Responder;
use crate::scope::{Requirement, ScopeSet};
use crate::usage::UsageCell;

/// An authenticated caller.
///
/// A host's own type may implement it, to be checked against requirements like the library's.
pub trait Principal: fmt::Debug + Send + Sync + 'static {
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

    /// Checks a requirement. Allocates nothing where it is met.
    ///
    /// # Errors
    /// `INSUFFICIENT_SCOPE`, with what was required and what was there.
    fn require(&self, requirement: &Requirement) -> Result<(), AuthError> {
        if requirement.is_met_by(self.scopes()) {
            Ok(())
        } else {
            Err(AuthError::insufficient_scope(requirement, self.scopes()))
        }
    }
}

/// What one authenticator knows of one key: compiled once, shared by all requests until the record changes.
pub(crate) struct KeyEntry {
    pub(crate) record: Arc<KeyRecord>,
    pub(crate) scopes: Arc<dyn ScopeSet>,
    pub(crate) quotas: Quotas,
    pub(crate) family_slot: LimiterSlot,
    pub(crate) tenant_slot: LimiterSlot,
    pub(crate) usage: Arc<UsageCell>,
    pub(crate) responder: Arc<Responder>,
}

/// The principal that the library makes of a key.
///
/// Cloning it costs one reference count.
#[derive(Clone)]
pub struct KeyPrincipal {
    entry: Arc<KeyEntry>,
    mode: ActorMode,
    client_ip: Option<IpAddr>,
}

impl KeyPrincipal {
    pub(crate) fn new(entry: Arc<KeyEntry>, mode: ActorMode, client_ip: Option<IpAddr>) -> Self {
        Self { entry, mode, client_ip }
    }

    /// All facts about the key but its secret.
    #[must_use]
    pub fn record(&self) -> &KeyRecord {
        &self.entry.record
    }

    /// In which way the key acts.
    #[must_use]
    pub fn mode(&self) -> ActorMode {
        self.mode
    }

    /// The client's address, where it is known.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client_ip
    }

    /// How a refusal of this caller is answered: in the dialect of the authenticator that admitted it.
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
        actor::as_owner(self.mode, self.owner())
    }
    fn environment(&self) -> &Environment {
        &self.entry.record.environment
    }
    fn scopes(&self) -> &dyn ScopeSet {
        &*self.entry.scopes
    }
}

impl fmt::Debug for KeyPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPrincipal")
            .field("key_id", self.key_id())
            .field("owner", self.owner())
            .field("mode", &self.mode)
            .field("environment", self.environment())
            .field("scopes", &self.entry.scopes)
            .finish_non_exhaustive()
    }
}
