//! Writes whose end is unknown: nobody waited for it, or the store gave no answer.
//!
//! Such a write may be committed later than anybody can tell. What was remembered of its keys is
//! forgotten when the doubt begins; until it ends, nothing new is remembered of them, so that the
//! next request after the commit sees it. Other nodes are told again and again meanwhile, at
//! intervals that double. A doubt ends after a minute; no commit is expected to take longer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Shared;
use crate::key::{KeyDigest, KeyId};
use crate::store::{Invalidation, InvalidationListener, StoredKey};

/// How long it may take until a write is committed whose end is unknown.
const LONGEST: Duration = Duration::from_secs(60);
/// When other nodes are told again for the first time.
const FIRST: Duration = Duration::from_secs(1);
/// More doubts than this end the oldest ones early.
const MOST: usize = 1000;

#[derive(Default)]
pub(super) struct Doubts {
    any: AtomicBool,
    all: Mutex<VecDeque<Doubt>>,
}

struct Doubt {
    what: Invalidation,
    began: Duration,
    /// How long after that it is told again.
    again: Duration,
}

impl Doubts {
    fn begin(&self, what: Invalidation, now: Duration) {
        let mut all = self.all.lock();
        all.push_back(Doubt {
            what,
            began: now,
            again: FIRST,
        });
        self.any.store(true, Ordering::SeqCst);
    }

    /// What is to be told again now; doubts that are over are told for the last time.
    fn due(&self, now: Duration) -> Vec<Invalidation> {
        if !self.any.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let (mut due, mut all) = (Vec::new(), self.all.lock());
        let excess = all.len().saturating_sub(MOST);
        due.extend(all.drain(..excess).map(|doubt| doubt.what));
        all.retain_mut(|doubt| {
            let age = now.saturating_sub(doubt.began);
            if age >= doubt.again {
                due.push(doubt.what.clone());
                while doubt.again <= age {
                    doubt.again *= 2;
                }
            }
            age < LONGEST
        });
        self.any.store(!all.is_empty(), Ordering::SeqCst);
        due
    }

    /// Whether one of them is about this answer.
    fn concern(&self, asked: &[KeyDigest], answer: Option<&Arc<StoredKey>>) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let asked: Vec<_> = asked.iter().map(Invalidation::fingerprint).collect();
        let depends_on = |id: &KeyId| {
            answer.is_some_and(|stored| stored.record().id == *id || stored.others().contains(id))
        };
        let concerns = |what: &Invalidation| {
            what.everything
                || what.keys.iter().any(depends_on)
                || what.known.iter().any(|known| asked.contains(known))
        };
        self.all.lock().iter().any(|doubt| concerns(&doubt.what))
    }
}

impl Shared {
    /// A write about this may be committed at any time from now on.
    pub(super) fn doubt(&self, what: Invalidation) {
        if !what.is_empty() {
            self.doubts.begin(what, self.clock.monotonic());
        }
    }

    /// Forgets and tells again what doubts are about, when it is time.
    pub(super) fn settle_doubts(&self) {
        for what in self.doubts.due(self.clock.monotonic()) {
            self.invalidated(&what);
            self.is_to_be_told(what);
        }
    }

    /// Whether an answer may be remembered: no write about it is in doubt.
    pub(super) fn is_certain(&self, asked: &[KeyDigest], answer: Option<&Arc<StoredKey>>) -> bool {
        self.settle_doubts();
        !self.doubts.concern(asked, answer)
    }
}
