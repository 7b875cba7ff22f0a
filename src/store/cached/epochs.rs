//! How much has been invalidated: a count that only grows, and for each of some thousand slots the
//! count at which something in it was invalidated last.
//!
//! Keys and digests fall into slots by hash. Two in one slot are invalidated together, which costs
//! a look-up and nothing else; and no index must be kept of what the cache holds, so that none can
//! be incomplete.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::KeyId;
use crate::store::Invalidation;

/// Slots of keys.
const KEYS: usize = 4096;
/// Slots of digests: more, because an answer depends on each digest of its secret, and every key
/// that is issued or gets a new digest takes one.
const DIGESTS: usize = 4 * KEYS;

pub(super) struct Epochs {
    now: AtomicU64,
    /// At which count everything was invalidated last.
    floor: AtomicU64,
    keys: Box<[AtomicU64]>,
    digests: Box<[AtomicU64]>,
    hasher: RandomState,
}

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

    /// The count, to mark a look-up with before it begins.
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    /// Nothing that was looked up until now, and that this concerns, holds any more.
    pub(super) fn invalidate(&self, what: &Invalidation) {
        if what.is_empty() {
            return;
        }
        // A look-up that reads the raised count begins after the change was made, and sees it.
        let count = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        if what.everything {
            self.floor.fetch_max(count, Ordering::SeqCst);
        }
        for id in &what.keys {
            self.slot_of_key(id).fetch_max(count, Ordering::SeqCst);
        }
        for fingerprint in &what.known {
            self.slot_of_digest(*fingerprint)
                .fetch_max(count, Ordering::SeqCst);
        }
    }

    /// Whether nothing about a key was invalidated since the count was this.
    pub(super) fn holds_key(&self, id: &KeyId, epoch: u64) -> bool {
        self.floor.load(Ordering::SeqCst) <= epoch
            && self.slot_of_key(id).load(Ordering::SeqCst) <= epoch
    }

    /// The same for a digest: whether it did not become a key's since, and was not given up.
    pub(super) fn holds_digest(&self, fingerprint: u64, epoch: u64) -> bool {
        self.floor.load(Ordering::SeqCst) <= epoch
            && self.slot_of_digest(fingerprint).load(Ordering::SeqCst) <= epoch
    }

    fn slot_of_key(&self, id: &KeyId) -> &AtomicU64 {
        // Ids are the host's to choose: hashed with a secret of this process.
        slot(&self.keys, self.hasher.hash_one(id))
    }

    fn slot_of_digest(&self, fingerprint: u64) -> &AtomicU64 {
        slot(&self.digests, fingerprint)
    }
}

fn slot(slots: &[AtomicU64], hash: u64) -> &AtomicU64 {
    // Less than the number of slots, so that it fits and is there.
    let place = usize::try_from(hash % slots.len() as u64).unwrap_or(0);
    &slots[place]
}
