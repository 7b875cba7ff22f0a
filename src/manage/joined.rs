//! Operations in a transaction of the host: they become effective when the host commits, or never.
//!
//! Until then, what was done is only pending. Committed, it is dropped from this node's cache and
//! recorded in the audit. If the host never says how its transaction ended, it may have been
//! committed: the cache treats it as a write without a result, and the audit records that the
//! operation was abandoned, which does not claim that it was done.

use std::sync::Arc;

use super::KeyManager;
use crate::audit::{AuditEvent, AuditOutcome, AuditTrail};
use crate::lock::Mutex;
use crate::store::{CachedStore, Invalidation, KeyStore, WriteBatch};

/// What waits for the end of the host's transaction. Without [`committed`](KeyManager::committed),
/// its end is unknown when this is dropped.
pub(super) struct Joined {
    cache: Option<CachedStore>,
    trail: Option<AuditTrail>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    what: Invalidation,
    events: Vec<AuditEvent>,
}

impl KeyManager {
    /// Returns this manager on a view of its store whose writes belong to a transaction that the
    /// host commits later. Stores that offer this call it (`portunus-sqlx`: `in_transaction`); a
    /// host needs it only for a store of its own.
    ///
    /// All rules hold as they do outside of a transaction. Events of operations that were done are
    /// held until [`committed`](Self::committed). If the last clone of the returned manager is
    /// dropped before, they are recorded as
    /// [`Abandoned`](crate::audit::AuditOutcome::Abandoned), and for a minute this node caches no
    /// key that they changed, because the transaction may still be committed.
    #[must_use]
    pub fn joined_to(&self, store: Arc<dyn KeyStore>) -> Self {
        Self {
            counts: store.usage(),
            store,
            joined: Some(Arc::new(Joined {
                cache: self.inner.cache.clone(),
                trail: self.audit().cloned(),
                pending: Mutex::default(),
            })),
            ..self.clone()
        }
    }

    /// Reports that the host has committed the transaction of a manager that
    /// [`joined_to`](Self::joined_to) returned: this node drops at once what was changed, and the
    /// events are recorded. Does nothing for other managers.
    pub fn committed(&self) {
        if let Some(joined) = &self.joined {
            joined.end(true);
        }
    }
}

impl Joined {
    /// Adds the changes of a batch that was applied in the transaction.
    pub(super) fn changed(&self, batch: &WriteBatch) {
        let mut more = Invalidation::of(batch);
        let what = &mut self.pending.lock().what;
        what.keys.append(&mut more.keys);
        what.known.append(&mut more.known);
    }

    /// Holds the event of an operation that was done in the transaction.
    pub(super) fn hold(&self, event: AuditEvent) {
        self.pending.lock().events.push(event);
    }

    fn end(&self, committed: bool) {
        let Pending { what, events } = std::mem::take(&mut *self.pending.lock());
        if let Some(cache) = &self.cache
            && !what.is_empty()
        {
            cache.changed(what, committed);
        }
        for mut event in events {
            if !committed {
                event.outcome = AuditOutcome::Abandoned;
            }
            if let Some(trail) = &self.trail {
                trail.note_act(event);
            }
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.end(false);
    }
}
