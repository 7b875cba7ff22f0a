//! The uses that were taken from entries and are not written yet, by key.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use smallvec::SmallVec;

use super::TAKEN_BY_REQUEST;
use crate::entry::Entry;
use crate::key::KeyId;
use crate::store::{Usage, UsageDelta};

/// The maximum number of keys with unwritten uses, each of which takes at most 350 bytes.
const MOST_KEYS: usize = 1_000_000;

/// The uses that were taken from entries, until the store has accepted them.
pub(super) struct Unwritten {
    /// In the order of the ids: a database then writes the rows of a part next to each other, rather
    /// than a page for each. No insertion moves all others, which a request would wait for.
    pub(super) by_id: BTreeMap<KeyId, Usage>,
    pub(super) most_keys: usize,
    /// The number of uses for which there was no capacity.
    pub(super) lost: u64,
    /// How often a flush has subtracted what it wrote.
    pub(super) flushes: u64,
}

impl Default for Unwritten {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            most_keys: MOST_KEYS,
            lost: 0,
            flushes: 0,
        }
    }
}

impl Unwritten {
    /// Takes the uses of some entries.
    pub(super) fn take(&mut self, entries: &[Entry]) {
        // Plain reads first: the processor then waits for the memory of many entries at once, and not for
        // that of one after the other, as atomic operations do. Unused are those that are listed twice.
        let id = |entry: &Entry| entry.usage.is_used().then(|| entry.record.id.clone());
        let ids: SmallVec<[Option<KeyId>; TAKEN_BY_REQUEST]> = entries.iter().map(id).collect();
        for (entry, id) in entries.iter().zip(ids) {
            if let Some(id) = id {
                self.take_one(entry, id);
            }
        }
    }

    fn take_one(&mut self, entry: &Entry, id: KeyId) {
        let (count, last_used_at, last_ip) = entry.usage.take();
        let count = u64::from(count);
        let has_capacity = self.by_id.len() < self.most_keys;
        let usage = match has_capacity {
            true => Some(self.by_id.entry(id).or_default()),
            false => self.by_id.get_mut(&id),
        };
        match usage {
            Some(usage) => usage.add_uses(count, last_used_at, last_ip),
            None => self.lost += count,
        }
    }

    /// Returns the unwritten uses of a key, if there are any.
    pub(super) fn of(&self, id: &KeyId) -> Option<UsageDelta> {
        self.by_id.get(id).and_then(|usage| delta(id, usage))
    }

    /// Returns the unwritten uses of the keys after this one in the order of the ids, at most so many.
    pub(super) fn after(&self, id: Option<&KeyId>, most: usize) -> Vec<UsageDelta> {
        let first = id.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.by_id.range::<KeyId, _>((first, Bound::Unbounded));
        let deltas = keys.filter_map(|(id, usage)| delta(id, usage));
        deltas.take(most).collect()
    }

    /// Returns how many uses are unwritten.
    pub(super) fn uses(&self) -> u64 {
        self.by_id.values().map(|usage| usage.count).sum()
    }

    /// Subtracts what the store has accepted.
    pub(super) fn subtract(&mut self, delta: &UsageDelta) {
        if let btree_map::Entry::Occupied(mut usage) = self.by_id.entry(delta.id.clone()) {
            usage.get_mut().count -= delta.count;
            if usage.get().count == 0 {
                usage.remove();
            }
        }
    }
}

fn delta(id: &KeyId, usage: &Usage) -> Option<UsageDelta> {
    let last = usage.last_used_at?;
    Some(UsageDelta::new(
        id.clone(),
        usage.count,
        last,
        usage.last_ip,
    ))
}
