//! Keys in memory: for tests, demos, and services whose keys come from configuration.
//!
//! One mutex orders all writes; look-ups by digest go to a concurrent map and wait for nobody. A
//! batch is checked against the state before anything is touched, so that it is applied whole or
//! not at all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::{
    Change, Condition, Cursor, HourOfUse, KeyLookup, KeyStore, ListQuery, Match, OwnerRef, Page,
    Rejected, SigningStore, StoreError, StoredKey, Usage, UsageByHour, UsageDelta, UsageStore,
    WriteBatch,
};
use crate::key::{KeyDigest, KeyId, KeyRecord, SigningState};

/// A [`KeyStore`] in memory. Cloning shares the keys.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    by_digest: ByDigest,
    /// Every digest that a key had before its present one, or ever had before it was deleted.
    former: papaya::HashMap<KeyDigest, Match, BuildHasherDefault<FirstWord>>,
    /// Raised between a batch's insertions into the map and its removals.
    generation: AtomicU64,
    state: Mutex<State>,
}

type ByDigest = papaya::HashMap<KeyDigest, Arc<StoredKey>, BuildHasherDefault<FirstWord>>;

#[derive(Default, Clone)]
struct State {
    keys: HashMap<KeyId, Entry>,
    // Newest first: the order of lists.
    order: BTreeMap<(std::cmp::Reverse<SystemTime>, KeyId), ()>,
    digests_ever: HashSet<KeyDigest>,
    primaries: HashMap<OwnerRef, KeyId>,
}

#[derive(Clone)]
struct Entry {
    digest: KeyDigest,
    /// The digests that it had before.
    former: Vec<KeyDigest>,
    record: Arc<KeyRecord>,
    usage: Usage,
    by_hour: BTreeMap<SystemTime, u64>,
    signing: Option<SigningState>,
    deleted: bool,
}

/// The hasher for digests, which are uniform already.
#[derive(Default)]
struct FirstWord(u64);

impl Hasher for FirstWord {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
    fn write(&mut self, bytes: &[u8]) {
        // Only digests are hashed, and they write one word; anything else still spreads.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A batch is applied to a plan first, so that a panic cannot leave half of one behind.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, digests: &[KeyDigest]) -> Option<Arc<StoredKey>> {
        let map = self.shared.by_digest.pin();
        if let [digest] = digests {
            return map.get(digest).map(Arc::clone);
        }
        let former = self.shared.former.pin();
        loop {
            let before = self.shared.generation.load(Ordering::SeqCst);
            let matched = |digest: &KeyDigest| match map.get(digest) {
                Some(key) => Some(Match::Key(Arc::clone(key))),
                None => former.get(digest).cloned(),
            };
            let found = StoredKey::of_one_secret(digests, matched);
            // A key that moved from one of the digests to another meanwhile may have been missed
            // under both.
            if before == self.shared.generation.load(Ordering::SeqCst) {
                return found;
            }
        }
    }
}

impl State {
    fn live(&self, id: &KeyId) -> Result<&Entry, Rejected> {
        self.keys
            .get(id)
            .filter(|entry| !entry.deleted)
            .ok_or_else(|| Rejected::Missing(id.clone()))
    }

    fn live_mut(&mut self, id: &KeyId) -> Result<&mut Entry, Rejected> {
        self.keys
            .get_mut(id)
            .filter(|entry| !entry.deleted)
            .ok_or_else(|| Rejected::Missing(id.clone()))
    }

    /// The one that was set, if it still can be it, else the newest that can.
    fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Option<&KeyId> {
        let can = |entry: &&Entry| owner.includes(&entry.record) && entry.record.can_be_primary(at);
        let set = self
            .primaries
            .get(owner)
            .and_then(|id| self.live(id).ok())
            .filter(can);
        let newest = || {
            self.order
                .keys()
                .filter_map(|(_, id)| self.live(id).ok())
                .find(can)
        };
        set.or_else(newest).map(|entry| &entry.record.id)
    }

    fn check(&self, condition: &Condition) -> Result<(), Rejected> {
        match condition {
            Condition::Version { id, version } => match self.live(id)?.record.version {
                stored if stored == *version => Ok(()),
                stored => Err(Rejected::Version {
                    id: id.clone(),
                    expected: *version,
                    stored,
                }),
            },
            Condition::Primary { owner, key, at } if self.primary(owner, *at) == key.as_ref() => {
                Ok(())
            }
            Condition::Primary { .. } => Err(Rejected::Primary),
            Condition::ActiveKeysAtMost { owner, at, limit } => {
                let counts = |entry: &&Entry| {
                    !entry.deleted
                        && owner.includes(&entry.record)
                        && entry.record.counts_as_active(*at)
                };
                match self.keys.values().filter(counts).count() as u64 {
                    active if active <= *limit => Ok(()),
                    active => Err(Rejected::TooManyActive {
                        active,
                        limit: *limit,
                    }),
                }
            }
        }
    }

    /// Makes a change, and notes a digest that was not known before it.
    fn make(&mut self, change: &Change, fresh: &mut Vec<KeyDigest>) -> Result<(), Rejected> {
        match change {
            Change::Insert { digest, record } => {
                if self.keys.contains_key(&record.id) {
                    return Err(Rejected::IdKnown(record.id.clone()));
                }
                if !self.digests_ever.insert(*digest) {
                    return Err(Rejected::DigestKnown);
                }
                fresh.push(*digest);
                self.order.insert(
                    (std::cmp::Reverse(record.created_at), record.id.clone()),
                    (),
                );
                let entry = Entry {
                    digest: *digest,
                    former: Vec::new(),
                    record: Arc::new((**record).clone()),
                    usage: Usage::default(),
                    by_hour: BTreeMap::new(),
                    signing: None,
                    deleted: false,
                };
                self.keys.insert(record.id.clone(), entry);
            }
            Change::Replace(record) => {
                let entry = self.live_mut(&record.id)?;
                if !entry.record.is_of_the_same_owner(record) {
                    return Err(Rejected::Owner(record.id.clone()));
                }
                let before = (
                    std::cmp::Reverse(entry.record.created_at),
                    record.id.clone(),
                );
                entry.record = Arc::new((**record).clone());
                self.order.remove(&before);
                self.order.insert(
                    (std::cmp::Reverse(record.created_at), record.id.clone()),
                    (),
                );
            }
            Change::Rehash { id, from, to } => {
                // First whether somebody else was quicker.
                if self.live(id)?.digest != *from {
                    return Err(Rejected::Missing(id.clone()));
                }
                if from != to && self.digests_ever.contains(to) {
                    return Err(Rejected::DigestKnown);
                }
                let entry = self.live_mut(id)?;
                if from != to {
                    entry.former.push(*from);
                }
                entry.digest = *to;
                if self.digests_ever.insert(*to) {
                    fresh.push(*to);
                }
            }
            Change::Delete(id) => {
                let entry = self.live_mut(id)?;
                entry.deleted = true;
                entry.signing = None;
                entry.by_hour.clear();
                let place = (std::cmp::Reverse(entry.record.created_at), id.clone());
                self.order.remove(&place);
            }
            Change::SetPrimary { owner, key } => {
                if !owner.includes(&self.live(key)?.record) {
                    return Err(Rejected::Owner(key.clone()));
                }
                self.primaries.insert(owner.clone(), key.clone());
            }
            Change::PinPrimary { owner, at } => match self.primary(owner, *at).cloned() {
                Some(key) => {
                    self.primaries.insert(owner.clone(), key);
                }
                None => {
                    self.primaries.remove(owner);
                }
            },
            Change::SetSigning { id, state } => self.live_mut(id)?.signing.clone_from(state),
        }
        Ok(())
    }
}

#[async_trait]
impl KeyLookup for MemoryStore {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        Ok(self.look_up(digests))
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        Some(Ok(self.look_up(digests)))
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        let state = self.state();
        Ok(state.live(id).ok().map(|entry| Arc::clone(&entry.record)))
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let state = self.state();
        let start = match &query.after {
            Some(after) => {
                std::ops::Bound::Excluded((std::cmp::Reverse(after.created_at), after.id.clone()))
            }
            None => std::ops::Bound::Unbounded,
        };
        let limit = query.limit.clamp(1, 500);
        let place = |record: &KeyRecord| Cursor::new(record.created_at, record.id.clone());
        let mut items = Vec::new();
        let (mut scanned, mut last) = (0, None);
        let rest = state.order.range((start, std::ops::Bound::Unbounded));
        for entry in rest.filter_map(|((_, id), ())| state.live(id).ok()) {
            let selected = query.selects(&entry.record);
            if scanned == ListQuery::MOST_SCANNED || (selected && items.len() == limit) {
                return Ok(Page::new(items, last));
            }
            scanned += 1;
            if selected {
                items.push(Arc::clone(&entry.record));
            }
            if selected || scanned == ListQuery::MOST_SCANNED {
                last = Some(place(&entry.record));
            }
        }
        Ok(Page::new(items, None))
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        let state = self.state();
        let primary = |owner| state.primary(owner, at).cloned();
        Ok(owners.iter().map(primary).collect())
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut state = self.state();
        let (after, before): (Vec<_>, Vec<_>) = batch
            .conditions()
            .iter()
            .partition(|c| matches!(c, Condition::ActiveKeysAtMost { .. }));
        for condition in before {
            state.check(condition).map_err(StoreError::rejected)?;
        }
        let mut undo = Undo::of(&state, batch);
        let made = batch
            .changes()
            .iter()
            .try_for_each(|change| state.make(change, &mut undo.fresh));
        if let Err(rejected) = made.and_then(|()| {
            after
                .into_iter()
                .try_for_each(|condition| state.check(condition))
        }) {
            undo.restore(&mut state);
            return Err(StoreError::rejected(rejected));
        }
        // Published before the lock is given back and before the caller hears of it.
        undo.publish(&state, &self.shared);
        Ok(())
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        Some(Arc::new(self.clone()))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl SigningStore for MemoryStore {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        let state = self.state();
        Ok(state.live(id).ok().and_then(|entry| entry.signing.clone()))
    }
}

#[async_trait]
impl UsageStore for MemoryStore {
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        let mut state = self.state();
        for delta in batch {
            if let Ok(entry) = state.live_mut(&delta.id) {
                entry.usage.add(delta);
                let hour = entry
                    .by_hour
                    .entry(HourOfUse::start_of(delta.last_used_at))
                    .or_default();
                *hour = hour.saturating_add(delta.count);
            }
        }
        Ok(())
    }

    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let state = self.state();
        let usage = |id| {
            state
                .live(id)
                .map_or_else(|_| Usage::default(), |entry| entry.usage)
        };
        Ok(ids.iter().map(usage).collect())
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let state = self.state();
        let hours = state.live(id).into_iter().flat_map(|entry| &entry.by_hour);
        let within =
            hours.filter(|(start, _)| **start >= HourOfUse::start_of(from) && **start < to);
        let hours = within.map(|(start, count)| HourOfUse::new(*start, *count));
        Ok(UsageByHour::new(hours.collect()))
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for entry in self.state().keys.values_mut() {
            let known = entry.by_hour.len();
            entry
                .by_hour
                .retain(|start, _| *start + HourOfUse::LENGTH >= before);
            forgotten += (known - entry.by_hour.len()) as u64;
        }
        Ok(forgotten)
    }
}

/// What a batch touches, as it was before: enough to take the batch back, and to know what to
/// publish.
struct Undo {
    entries: Vec<(KeyId, Option<Entry>)>,
    primaries: Vec<(OwnerRef, Option<KeyId>)>,
    /// Digests that the batch made known.
    fresh: Vec<KeyDigest>,
}

impl Undo {
    fn of(state: &State, batch: &WriteBatch) -> Self {
        let mut undo = Self {
            entries: Vec::new(),
            primaries: Vec::new(),
            fresh: Vec::new(),
        };
        for change in batch.changes() {
            let id = match change {
                Change::Insert { record, .. } | Change::Replace(record) => &record.id,
                Change::Rehash { id, .. } | Change::SetSigning { id, .. } | Change::Delete(id) => {
                    id
                }
                Change::SetPrimary { owner, .. } | Change::PinPrimary { owner, .. } => {
                    undo.primaries
                        .push((owner.clone(), state.primaries.get(owner).cloned()));
                    continue;
                }
            };
            if undo.entries.iter().all(|(known, _)| known != id) {
                undo.entries.push((id.clone(), state.keys.get(id).cloned()));
            }
        }
        undo
    }

    fn restore(self, state: &mut State) {
        let place = |record: &KeyRecord| (std::cmp::Reverse(record.created_at), record.id.clone());
        for (id, before) in self.entries {
            if let Some(after) = state.keys.remove(&id) {
                state.order.remove(&place(&after.record));
            }
            if let Some(before) = before {
                if !before.deleted {
                    state.order.insert(place(&before.record), ());
                }
                state.keys.insert(id, before);
            }
        }
        for (owner, before) in self.primaries {
            match before {
                Some(key) => state.primaries.insert(owner, key),
                None => state.primaries.remove(&owner),
            };
        }
        for digest in &self.fresh {
            state.digests_ever.remove(digest);
        }
    }

    fn publish(self, state: &State, shared: &Shared) {
        let (map, former) = (shared.by_digest.pin(), shared.former.pin());
        let now = |id: &KeyId| state.keys.get(id).filter(|entry| !entry.deleted);
        for (id, _) in &self.entries {
            if let Some(entry) = now(id) {
                map.insert(
                    entry.digest,
                    Arc::new(StoredKey::new(entry.digest, Arc::clone(&entry.record))),
                );
            }
            let Some(entry) = state.keys.get(id) else {
                continue;
            };
            let tenant = &entry.record.owner.tenant_id;
            let own = Some(&entry.digest).filter(|_| entry.deleted);
            for digest in entry.former.iter().chain(own) {
                let is = if entry.deleted {
                    Match::Deleted(Some(tenant.clone()))
                } else {
                    Match::Former(id.clone(), tenant.clone())
                };
                former.insert(*digest, is);
            }
        }
        shared.generation.fetch_add(1, Ordering::SeqCst);
        for (id, before) in &self.entries {
            if let Some(before) = before
                && now(id).is_none_or(|now| now.digest != before.digest)
            {
                map.remove(&before.digest);
            }
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} keys)", self.shared.by_digest.len())
    }
}
