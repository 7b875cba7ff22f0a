//! What an authenticator compiles from a record.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{Charger, KeyLimits, UsageCell};
use crate::actor::{self, ActorMode};
use crate::clock::millis;
use crate::credit::Purse;
use crate::key::{Access, Environment, KeyRecord};
use crate::limit::PlanLimits;
use crate::network::AllowList;
use crate::respond::Responder;
use crate::scope::ScopeSet;

/// The facts that an authenticator compiles from a key record, shared by all requests until the
/// record changes.
pub(crate) struct KeyEntry {
    pub(crate) facts: KeyFacts,
    pub(crate) record: Arc<KeyRecord>,
    pub(crate) scopes: Arc<dyn ScopeSet>,
    /// The maximum authority when the key acts for a user, if it is limited.
    pub(crate) delegated: Option<Box<Arc<dyn ScopeSet>>>,
    pub(crate) limits: KeyLimits,
    /// Pays for the requests, if they cost credits.
    pub(crate) purse: Option<Arc<Purse>>,
    pub(crate) usage: UsageCell,
    pub(crate) common: Arc<Common>,
}

/// What all entries of an authenticator share. It also tells them from those of other authenticators.
pub(crate) struct Common {
    pub(crate) responder: Arc<Responder>,
    pub(crate) charger: Arc<dyn Charger>,
}

/// What each request needs of a record. It is read here, where the rest of the entry is: a record is
/// large, and what it refers to is elsewhere in memory.
pub(crate) struct KeyFacts {
    /// When nothing about the key itself refuses it, in milliseconds since the Unix epoch; empty if
    /// something does at all times.
    pub(crate) valid: Range<u64>,
    /// Whether the key is of the environment that is served.
    pub(crate) is_of_environment: bool,
    /// Whether the owner is a user.
    pub(crate) is_of_user: bool,
    /// The mode in which the key acts for its owner.
    pub(crate) mode: ActorMode,
    pub(crate) access: Access,
    /// Whether the key is restricted to workspaces.
    pub(crate) is_restricted: bool,
    pub(crate) networks: Option<AllowList>,
}

impl KeyFacts {
    pub(crate) fn new(record: &KeyRecord, served: Option<&Environment>) -> Self {
        let usable = record.revoked.is_none() && record.enabled && record.needs().is_none();
        // Rounded inwards. The last milliseconds are decided by the exact clock anyway.
        let from = record.not_before.map_or(0, |from| millis(from) + 1);
        let until = record.expires_at.map_or(u64::MAX, millis);
        Self {
            valid: if usable { from..until } else { 0..0 },
            is_of_environment: served.is_none_or(|served| *served == record.environment),
            is_of_user: record.owner.user_id.is_some(),
            mode: actor::own_mode(record.kind),
            access: record.access,
            is_restricted: record.workspaces.is_some(),
            networks: record.allowed_ips.clone(),
        }
    }
}

impl KeyEntry {
    /// Returns whether an authenticator has compiled it.
    #[inline]
    pub(super) fn is_by(&self, by: &Arc<Common>) -> bool {
        Arc::ptr_eq(&self.common, by)
    }

    /// Returns the limits of requests, unless those of the tenant's plan apply.
    pub(crate) fn limits(&self) -> &PlanLimits {
        match &self.limits.plan {
            Some(plan) => plan,
            None => PlanLimits::none(),
        }
    }
}

impl fmt::Debug for KeyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEntry")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}
