//! An in-memory key store for tests, demos, and services whose keys come from configuration.
//!
//! One mutex orders all writes. Lookups by digest use a concurrent map and do not wait. A batch
//! changes the rows in place and is rolled back if it fails.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    BulkOperation, Cursor, KeyLookup, KeyRow, KeyRows, KeyStore, ListQuery, Match, OwnerRef, Page,
    SigningStore, StoreError, StoredKey, Usage, UsageByHour, UsageDelta, UsageStore, WriteBatch,
};
use crate::key::{KeyDigest, KeyId, KeyRecord, SigningState};
use crate::lock::{Mutex, MutexGuard};

/// How long a bulk operation is kept after its end.
const BULK_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A [`KeyStore`] in memory. Clones share the keys.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    by_digest: ByDigest,
    /// Every digest that a key had before its current one, or had before it was deleted.
    former: papaya::HashMap<KeyDigest, Match, BuildHasherDefault<FirstWord>>,
    /// Incremented between a batch's insertions into the map and its removals.
    generation: AtomicU64,
    state: Mutex<State>,
}

type ByDigest = papaya::HashMap<KeyDigest, Arc<StoredKey>, BuildHasherDefault<FirstWord>>;

#[derive(Default)]
struct State {
    keys: HashMap<KeyId, KeyRow>,
    /// The keys that are not deleted, in list order.
    order: BTreeSet<Cursor>,
    digests_ever: HashMap<KeyDigest, KeyId>,
    primaries: HashMap<OwnerRef, KeyId>,
    bulk_operations: HashMap<KeyId, BulkOperation>,
}

/// A hasher for digests, which are already uniformly distributed.
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
        // Only digests are hashed, and they write one word; any other input must still spread.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
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
            // A key that moved between two of the digests during the loop may have been missed at
            // both. `publish` inserts it under the new digest, raises the generation, then removes
            // it from the old one. If the generation is unchanged, a removal seen here is from an
            // earlier batch, whose insertions were visible throughout.
            if before == self.shared.generation.load(Ordering::SeqCst) {
                return found;
            }
        }
    }
}

impl State {
    fn live(&self, id: &KeyId) -> Option<&KeyRow> {
        self.keys.get(id).filter(|row| !row.deleted)
    }

    fn live_mut(&mut self, id: &KeyId) -> Option<&mut KeyRow> {
        self.keys.get_mut(id).filter(|row| !row.deleted)
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
        Ok(state.live(id).map(|row| Arc::clone(&row.record)))
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let state = self.state();
        let after = query
            .after
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let rest = state.order.range((after, Bound::Unbounded));
        let rows = rest.filter_map(|place| state.live(&place.id));
        Ok(query.page(rows.map(|row| (Arc::clone(&row.record), row.usage))))
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        Edit::of(&mut self.state()).primaries(owners, at)
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut edit = Edit::of(&mut state);
        let applied = edit.apply(batch);
        let undo = edit.undo;
        match &applied {
            // Published before the lock is released and before the caller gets the result.
            Ok(()) => undo.publish(&state, &self.shared),
            Err(_) => undo.restore(&mut state),
        }
        applied
    }

    async fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        Ok(self.state().bulk_operations.get(id).cloned())
    }

    async fn open_bulk_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        let is_open = |one: &&BulkOperation| one.ended_at.is_none();
        let mut open: Vec<_> = {
            let state = self.state();
            let all = state.bulk_operations.values();
            all.filter(is_open).cloned().collect()
        };
        open.sort_by(|one, other| (one.started_at, &one.id).cmp(&(other.started_at, &other.id)));
        // Each with its place among those of its tenant. The second sort keeps the order by age.
        let mut so_far = HashMap::<_, usize>::new();
        let ranked = open.into_iter().map(|one| {
            let rank = so_far.entry(one.tenant()).or_default();
            *rank += 1;
            (*rank, one)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.truncate(100);
        Ok(ranked.into_iter().map(|(_, one)| one).collect())
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
        Ok(state.live(id).and_then(|row| row.signing.clone()))
    }
}

#[async_trait]
impl UsageStore for MemoryStore {
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        let mut state = self.state();
        for delta in batch {
            if let Some(row) = state.live_mut(&delta.id) {
                row.usage.add(delta);
                Arc::make_mut(&mut row.by_hour).add(delta);
            }
        }
        Ok(())
    }

    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let state = self.state();
        let usage = |id| state.live(id).map(|row| row.usage).unwrap_or_default();
        Ok(ids.iter().map(usage).collect())
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let state = self.state();
        let hours = state.live(id).map(|row| row.by_hour.between(from, to));
        Ok(hours.unwrap_or_default())
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        let mut state = self.state();
        let rows = state.keys.values_mut();
        Ok(rows
            .map(|row| Arc::make_mut(&mut row.by_hour).forget_before(before))
            .sum())
    }
}

/// A batch that is being applied.
struct Edit<'a> {
    state: &'a mut State,
    undo: Undo,
}

impl<'a> Edit<'a> {
    fn of(state: &'a mut State) -> Self {
        let undo = Undo::default();
        Self { state, undo }
    }
}

impl KeyRows for Edit<'_> {
    fn by_id(&self, id: &KeyId) -> Result<Option<KeyRow>, StoreError> {
        Ok(self.state.keys.get(id).cloned())
    }

    fn by_digest(&self, digest: &KeyDigest) -> Result<Option<KeyRow>, StoreError> {
        let id = self.state.digests_ever.get(digest);
        id.map_or(Ok(None), |id| self.by_id(id))
    }

    fn records(&self, of: Option<&OwnerRef>) -> Result<Vec<Arc<KeyRecord>>, StoreError> {
        let rows = self.state.keys.values().filter(|row| !row.deleted);
        let records = rows.map(|row| &row.record);
        let own = |record: &&Arc<KeyRecord>| of.is_none_or(|owner| owner.includes(record));
        Ok(records.filter(own).map(Arc::clone).collect())
    }

    fn primary_set(&self, owner: &OwnerRef) -> Result<Option<KeyId>, StoreError> {
        Ok(self.state.primaries.get(owner).cloned())
    }

    fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        Ok(self.state.bulk_operations.get(id).cloned())
    }

    fn put_bulk_operation(&mut self, operation: BulkOperation) -> Result<(), StoreError> {
        let (all, id) = (&mut self.state.bulk_operations, operation.id.clone());
        if operation.step == 0 {
            let age = |end| operation.started_at.duration_since(end).ok();
            let is_outdated = |end| age(end).is_some_and(|age| age > BULK_KEPT);
            all.retain(|_, one| !one.ended_at.is_some_and(is_outdated));
        }
        let before = all.insert(id.clone(), operation);
        self.undo.bulk_operations.push((id, before));
        Ok(())
    }

    fn put(&mut self, row: KeyRow) -> Result<(), StoreError> {
        let (state, id) = (&mut *self.state, row.record.id.clone());
        let before = state.keys.remove(&id);
        if let Some(before) = &before {
            state.order.remove(&Cursor::of(&before.record));
        }
        if !row.deleted {
            state.order.insert(Cursor::of(&row.record));
        }
        for digest in row.digests() {
            if state.digests_ever.insert(*digest, id.clone()).is_none() {
                self.undo.fresh.push(*digest);
            }
        }
        state.keys.insert(id.clone(), row);
        self.undo.rows.push((id, before));
        Ok(())
    }

    fn put_primary(&mut self, owner: &OwnerRef, key: Option<KeyId>) -> Result<(), StoreError> {
        let primaries = &mut self.state.primaries;
        let before = match key {
            Some(key) => primaries.insert(owner.clone(), key),
            None => primaries.remove(owner),
        };
        self.undo.primaries.push((owner.clone(), before));
        Ok(())
    }
}

/// The previous values of everything that a batch has changed: enough to roll it back, and to know
/// what to publish.
#[derive(Default)]
struct Undo {
    rows: Vec<(KeyId, Option<KeyRow>)>,
    primaries: Vec<(OwnerRef, Option<KeyId>)>,
    bulk_operations: Vec<(KeyId, Option<BulkOperation>)>,
    /// Digests that the batch used for the first time.
    fresh: Vec<KeyDigest>,
}

impl Undo {
    /// Rolls back, last change first.
    fn restore(self, state: &mut State) {
        for (id, before) in self.rows.into_iter().rev() {
            if let Some(after) = state.keys.remove(&id) {
                state.order.remove(&Cursor::of(&after.record));
            }
            if let Some(before) = before {
                if !before.deleted {
                    state.order.insert(Cursor::of(&before.record));
                }
                state.keys.insert(id, before);
            }
        }
        for (owner, before) in self.primaries.into_iter().rev() {
            match before {
                Some(key) => state.primaries.insert(owner, key),
                None => state.primaries.remove(&owner),
            };
        }
        for (id, before) in self.bulk_operations.into_iter().rev() {
            match before {
                Some(operation) => state.bulk_operations.insert(id, operation),
                None => state.bulk_operations.remove(&id),
            };
        }
        for digest in &self.fresh {
            state.digests_ever.remove(digest);
        }
    }

    fn publish(self, state: &State, shared: &Shared) {
        let (map, former) = (shared.by_digest.pin(), shared.former.pin());
        for (id, _) in &self.rows {
            let Some(row) = state.keys.get(id) else {
                continue;
            };
            for digest in row.digests() {
                match row.matched(digest) {
                    Match::Key(key) => drop(map.insert(*digest, key)),
                    other => drop(former.insert(*digest, other)),
                }
            }
        }
        shared.generation.fetch_add(1, Ordering::SeqCst);
        for (id, before) in &self.rows {
            if let Some(before) = before
                && state.live(id).is_none_or(|now| now.digest != before.digest)
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
