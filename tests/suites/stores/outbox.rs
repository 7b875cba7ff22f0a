//! Mutation tests of the checks of recorded changes: a correct store passes, and each incorrect
//! variant fails the check that names its fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::key::{KeyDigest, KeyId, KeyRecord};
use portunus::store::{
    Invalidation, KeyLookup, KeyStore, ListQuery, MemoryStore, OwnerRef, Page, StoreError,
    StoredKey, WriteBatch,
};
use portunus_conformance::{self as conformance, Violation};
use tokio::sync::Mutex;

/// The fault of the store, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Right,
    UnknownIsMissing,
    RecordsAlways,
    Toggles,
    RecordsNoDigests,
    RecordsFirstOnly,
    RecordsRejected,
    ReadsOnce,
    NewestFirst,
    ForgetsEarlier,
    ForgetsAll,
    ReusesNumbers,
    ReturnsFew,
    LosesConcurrent,
}
use How::*;

/// A store in memory that records changes.
#[derive(Debug)]
struct Recording {
    how: How,
    store: MemoryStore,
    records: AtomicBool,
    outbox: Mutex<Outbox>,
}

#[derive(Debug, Default)]
struct Outbox {
    last: u64,
    changes: Vec<(u64, Invalidation)>,
}

impl Recording {
    fn new(how: How) -> Self {
        Self {
            how,
            store: MemoryStore::new(),
            records: AtomicBool::new(how == RecordsAlways),
            outbox: Mutex::default(),
        }
    }

    fn recorded(&self, batch: &WriteBatch) -> Invalidation {
        let mut what = Invalidation::of(batch);
        match self.how {
            RecordsNoDigests => what.known.clear(),
            RecordsFirstOnly => {
                what.known.truncate(1);
                what.keys.truncate(1);
            }
            _ => {}
        }
        what
    }
}

#[async_trait]
impl KeyLookup for Recording {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.store.find(digests).await
    }
}

#[async_trait]
impl KeyStore for Recording {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.store.get(id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.store.list(query).await
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        self.store.primaries(owners, at).await
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let first = match self.how {
            LosesConcurrent => Some(self.outbox.lock().await.last),
            _ => None,
        };
        if first.is_some() {
            tokio::task::yield_now().await;
        }
        let mut outbox = self.outbox.lock().await;
        let applied = self.store.apply(batch).await;
        let what = self.recorded(batch);
        let is_recorded = applied.is_ok() || self.how == RecordsRejected;
        if is_recorded && self.records.load(Ordering::SeqCst) && !what.is_empty() {
            outbox.last = match (self.how, first) {
                (ReusesNumbers, _) => outbox.changes.last().map_or(0, |(number, _)| *number) + 1,
                (_, Some(first)) => first + 1,
                _ => outbox.last + 1,
            };
            let number = outbox.last;
            outbox.changes.retain(|(other, _)| *other != number);
            outbox.changes.push((number, what));
        }
        applied
    }

    fn record_changes(&self) -> bool {
        let before = self.records.swap(true, Ordering::SeqCst);
        if self.how == Toggles && before {
            self.records.store(false, Ordering::SeqCst);
        }
        true
    }

    async fn recorded_changes(&self) -> Result<Vec<(u64, Invalidation)>, StoreError> {
        let mut outbox = self.outbox.lock().await;
        let mut changes = outbox.changes.clone();
        match self.how {
            ReadsOnce => outbox.changes.clear(),
            NewestFirst => changes.reverse(),
            ReturnsFew => {
                let first = changes.len().saturating_sub(100);
                changes.drain(..first);
                outbox.changes.clone_from(&changes);
            }
            _ => {}
        }
        Ok(changes)
    }

    async fn forget_changes(&self, numbers: &[u64]) -> Result<(), StoreError> {
        let mut outbox = self.outbox.lock().await;
        let known = |number: &u64| outbox.changes.iter().any(|(known, _)| known == number);
        if self.how == UnknownIsMissing && !numbers.iter().all(known) {
            return Err(StoreError::unavailable("no such change"));
        }
        let last = numbers.iter().max().copied().unwrap_or_default();
        outbox.changes.retain(|(number, _)| match self.how {
            ForgetsEarlier => *number > last,
            ForgetsAll => numbers.is_empty(),
            _ => !numbers.contains(number),
        });
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn recorded_changes_are_checked() {
    const NONE: &str = "before the first write no change is recorded, and forgetting unknown ones has \
                        no effect";
    const REJECTED: &str = "a rejected write records no change";
    const NUMBERS: &str = "the number of a forgotten change is not used again";
    const UNTIL: &str = "recorded changes are returned, oldest first, until they are forgotten";
    const WHOLE: &str = "the recorded changes name every key and digest that a write changed";
    const SINCE: &str = "changes are recorded from the moment on which that is asked for";
    const ALL: &str = "the changes of concurrent writers are all returned, however many they are";
    conformance::key_store(|| async { Recording::new(Right) })
        .await
        .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for (how, expected) in [
        (UnknownIsMissing, NONE),
        (RecordsAlways, SINCE),
        (Toggles, SINCE),
        (RecordsNoDigests, SINCE),
        (RecordsFirstOnly, WHOLE),
        (RecordsRejected, REJECTED),
        (ReadsOnce, UNTIL),
        (NewestFirst, UNTIL),
        (ForgetsEarlier, UNTIL),
        (ForgetsAll, UNTIL),
        (ReusesNumbers, NUMBERS),
        (ReturnsFew, ALL),
        (LosesConcurrent, ALL),
    ] {
        tasks.spawn(async move {
            let found = conformance::key_store(|| async move { Recording::new(how) }).await;
            let violations = found.expect_err(&format!("a store that is wrong by {how:?} passes"));
            let failed: Vec<_> = violations.iter().map(Violation::check).collect();
            assert_eq!(failed, [expected], "{how:?}: {violations}");
        });
    }
    tasks.join_all().await;
}
