//! Writes in doubt: their future was dropped, or the store reported no result.
//!
//! Such a write may commit at any later time, after its invalidation. Cached answers that it may
//! affect are dropped when the doubt begins. Until the doubt ends, no new ones are stored, so that
//! the next request on this node after the commit sees the change. Answers in flight need no
//! special case: one with a mark from before the doubt is already invalid, and one with a later
//! mark finds the doubt before it is stored.
//!
//! The invalidation is published to other nodes repeatedly, at intervals that double. A doubt ends
//! after one minute, with a last invalidation; a commit is not expected to take longer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::lock::Mutex;

use super::Shared;
use crate::key::{KeyDigest, KeyId};
use crate::store::{Invalidation, InvalidationListener, StoredKey};

/// How long a write in doubt may take to commit.
const MAX_AGE: Duration = Duration::from_secs(60);
/// When the invalidation is first repeated.
const FIRST_REPEAT: Duration = Duration::from_secs(1);
/// Beyond this number, the oldest doubts end early.
const MAX_DOUBTS: usize = 1000;

#[derive(Default)]
pub(super) struct Doubts {
    any: AtomicBool,
    all: Mutex<VecDeque<Doubt>>,
}

struct Doubt {
    what: Invalidation,
    began: Duration,
    /// The age at which the invalidation is repeated next.
    next_repeat: Duration,
}

impl Doubts {
    fn begin(&self, what: Invalidation, now: Duration) {
        let mut all = self.all.lock();
        all.push_back(Doubt {
            what,
            began: now,
            next_repeat: FIRST_REPEAT,
        });
        self.any.store(true, Ordering::SeqCst);
    }

    /// Returns the invalidations that are due now, including the last one of each doubt that ends.
    /// Each is handed to `invalidate` before its doubt ends: in between, an answer from before the
    /// commit could be stored.
    fn due(&self, now: Duration, invalidate: impl Fn(&Invalidation)) -> Vec<Invalidation> {
        if !self.any.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let (mut due, mut all) = (Vec::new(), self.all.lock());
        let excess = all.len().saturating_sub(MAX_DOUBTS);
        let excess = all.drain(..excess).map(|doubt| doubt.what);
        due.extend(excess.inspect(&invalidate));
        all.retain_mut(|doubt| {
            let age = now.saturating_sub(doubt.began);
            if age >= doubt.next_repeat.min(MAX_AGE) {
                invalidate(&doubt.what);
                due.push(doubt.what.clone());
                while doubt.next_repeat <= age {
                    doubt.next_repeat *= 2;
                }
            }
            age < MAX_AGE
        });
        self.any.store(!all.is_empty(), Ordering::SeqCst);
        due
    }

    /// Returns whether a write in doubt may affect this answer.
    fn affect(&self, queried: &[KeyDigest], answer: Option<&Arc<StoredKey>>) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let queried: Vec<_> = queried.iter().map(Invalidation::fingerprint).collect();
        let depends_on = |id: &KeyId| {
            answer.is_some_and(|stored| stored.record().id == *id || stored.others().contains(id))
        };
        let is_affected = |what: &Invalidation| {
            what.everything
                || what.keys.iter().any(depends_on)
                || what.known.iter().any(|known| queried.contains(known))
        };
        self.all.lock().iter().any(|doubt| is_affected(&doubt.what))
    }
}

impl Shared {
    /// Records that a write of these changes may commit at any time from now on.
    pub(super) fn doubt(&self, what: Invalidation) {
        if !what.is_empty() {
            self.doubts.begin(what, self.clock.monotonic());
        }
    }

    /// Repeats the invalidations that are due, on this node and on others.
    pub(super) fn repeat_invalidations(&self) {
        let invalidate = |what: &Invalidation| self.invalidated(what);
        for what in self.doubts.due(self.clock.monotonic(), invalidate) {
            self.queue_for_publishing(what);
        }
    }

    /// Returns whether an answer may be cached: no write in doubt may affect it.
    pub(super) fn may_be_cached(
        &self,
        queried: &[KeyDigest],
        answer: Option<&Arc<StoredKey>>,
    ) -> bool {
        self.repeat_invalidations();
        !self.doubts.affect(queried, answer)
    }
}
