//! Invalidation epochs: a counter that only grows, and for each of a few thousand slots the count
//! at which the slot was last invalidated.
//!
//! Keys and digests are assigned to slots by hash. Two that share a slot are invalidated together,
//! which costs at most a lookup. No index of the cache's entries is needed, so none can be
//! incomplete.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::KeyId;
use crate::store::Invalidation;

/// Number of slots for keys.
const KEYS: usize = 4096;
/// Number of slots for digests. There are more of them, because an answer depends on every digest
/// of its secret, and every issued or rehashed key invalidates one.
const DIGESTS: usize = 4 * KEYS;

pub(super) struct Epochs {
    now: AtomicU64,
    /// The count at which everything was last invalidated.
    floor: AtomicU64,
    keys: Box<[AtomicU64]>,
    digests: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// The slot of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

impl Epochs {
    pub(super) fn new() -> Self {
        let slots = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            now: AtomicU64::new(1),
            floor: AtomicU64::new(0),
            keys: slots(KEYS),
            digests: slots(DIGESTS),
            hasher: RandomState::new(),
        }
    }

    /// Returns the current count, which marks a lookup before it begins.
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    /// Invalidates every answer that depends on this and whose mark is older than this call. To be
    /// called after the commit; `doubts` covers writes that may commit later.
    pub(super) fn invalidate(&self, what: &Invalidation) {
        if what.is_empty() {
            return;
        }
        // The counter is raised before the slots. Take a lookup with mark `e`. If `e >= count`, it
        // read the counter after this increment, hence after the commit, and its answer contains
        // the change. If `e < count`, its answer is invalid as soon as the slot is raised below,
        // which happens before the writer returns. Counts are unique, and `fetch_max` never lowers
        // a slot, so concurrent invalidations cannot undo each other.
        let count = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        if what.everything {
            self.floor.fetch_max(count, Ordering::SeqCst);
        }
        for id in &what.keys {
            let Place(place) = self.place_of_key(id);
            self.keys[place].fetch_max(count, Ordering::SeqCst);
        }
        for fingerprint in &what.known {
            self.slot_of_digest(*fingerprint)
                .fetch_max(count, Ordering::SeqCst);
        }
    }

    /// Returns whether a key has not been invalidated since this epoch.
    pub(super) fn key_unchanged_since(&self, id: &KeyId, epoch: u64) -> bool {
        self.unchanged_since(self.place_of_key(id), epoch)
    }

    /// Like [`key_unchanged_since`](Self::key_unchanged_since), for a key whose slot is known.
    pub(super) fn unchanged_since(&self, Place(place): Place, epoch: u64) -> bool {
        self.floor.load(Ordering::SeqCst) <= epoch
            && self.keys[place].load(Ordering::SeqCst) <= epoch
    }

    /// Returns whether a digest has not been invalidated since this epoch: it neither gained nor
    /// lost a key.
    pub(super) fn digest_unchanged_since(&self, fingerprint: u64, epoch: u64) -> bool {
        self.floor.load(Ordering::SeqCst) <= epoch
            && self.slot_of_digest(fingerprint).load(Ordering::SeqCst) <= epoch
    }

    pub(super) fn place_of_key(&self, id: &KeyId) -> Place {
        // Ids are chosen by the host, so they are hashed with a secret of this process.
        Place(place(&self.keys, self.hasher.hash_one(id)))
    }

    fn slot_of_digest(&self, fingerprint: u64) -> &AtomicU64 {
        &self.digests[place(&self.digests, fingerprint)]
    }
}

fn place(slots: &[AtomicU64], hash: u64) -> usize {
    // The remainder is less than the number of slots, so it fits into a `usize`.
    usize::try_from(hash % slots.len() as u64).unwrap_or(0)
}
