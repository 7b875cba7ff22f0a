//! The uses that were taken from entries and are not written yet, by key.

use std::collections::{BTreeMap, btree_map};

use crate::entry::Entry;
use crate::key::KeyId;
use crate::store::{Usage, UsageDelta};

/// The maximum number of keys with unwritten uses, each of which takes at most 350 bytes.
const MOST_KEYS: usize = 1_000_000;

/// The uses that were taken from entries, until the store has accepted them.
pub(super) struct Unwritten {
    /// In the order of the ids: a database then writes the rows of a part next to each other, rather
    /// than a page for each. No insertion moves all others, which a request would wait for.
    pub(super) by_id: BTreeMap<KeyId, Taken>,
    /// How often uses were taken from all lists.
    pub(super) passes: u64,
    pub(super) most_keys: usize,
    /// The number of uses for which there was no capacity.
    pub(super) lost: u64,
    /// How often a flush has subtracted what it wrote.
    pub(super) flushes: u64,
}

/// The uses of one key that were taken.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) usage: Usage,
    /// The pass that took the last of them.
    pass: u64,
}

impl Default for Unwritten {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            passes: 0,
            most_keys: MOST_KEYS,
            lost: 0,
            flushes: 0,
        }
    }
}

impl Unwritten {
    /// Takes the uses of an entry.
    pub(super) fn take(&mut self, entry: &Entry) {
        let id = &entry.record.id;
        let (count, last_used_at, last_ip) = entry.usage.take();
        // An entry with very many uses is listed twice.
        if count == 0 {
            return;
        }
        let count = u64::from(count);
        let has_capacity = self.by_id.len() < self.most_keys;
        let taken = match has_capacity {
            true => Some(self.by_id.entry(id.clone()).or_default()),
            false => self.by_id.get_mut(id),
        };
        let Some(Taken { usage, pass }) = taken else {
            self.lost += count;
            return;
        };
        // Several entries of one key may be in the lists of several threads, which have no order. Not
        // the latest time of all passes, for the reason that `UsageCell::count` gives.
        let before = usage.last_used_at.filter(|_| *pass == self.passes);
        usage.last_used_at = before.max(Some(last_used_at));
        *pass = self.passes;
        usage.last_ip = last_ip.or(usage.last_ip);
        usage.count += count;
    }

    /// Returns the unwritten uses of a key, if there are any.
    pub(super) fn of(&self, id: &KeyId) -> Option<UsageDelta> {
        self.by_id.get(id).and_then(|taken| taken.delta(id))
    }

    /// Returns all unwritten uses, in the order of the ids.
    pub(super) fn deltas(&self) -> Vec<UsageDelta> {
        let all = self.by_id.iter();
        all.filter_map(|(id, taken)| taken.delta(id)).collect()
    }

    /// Returns how many uses are unwritten.
    pub(super) fn uses(&self) -> u64 {
        self.by_id.values().map(|taken| taken.usage.count).sum()
    }

    /// Subtracts what the store has accepted.
    pub(super) fn subtract(&mut self, delta: &UsageDelta) {
        if let btree_map::Entry::Occupied(mut taken) = self.by_id.entry(delta.id.clone()) {
            taken.get_mut().usage.count -= delta.count;
            if taken.get().usage.count == 0 {
                taken.remove();
            }
        }
    }
}

impl Taken {
    fn delta(&self, id: &KeyId) -> Option<UsageDelta> {
        let Usage { count, last_ip, .. } = self.usage;
        let last = self.usage.last_used_at?;
        Some(UsageDelta::new(id.clone(), count, last, last_ip))
    }
}
