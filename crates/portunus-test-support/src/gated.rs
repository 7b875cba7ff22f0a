//! A store that reads at once and answers when it is let go, as a database over a slow wire does;
//! and the parts that the tests of the cache put together around it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::FutureExt;
use portunus::key::{
    DigestScheme, KeyDigest, KeyId, KeyKind, KeyRecord, Owner, Revocation, SigningState,
};
use portunus::manage::KeyManager;
use portunus::store::{
    CachedStore, Change, HourOfUse, KeyStore, ListQuery, Listed, LocalBus, MemoryStore, OwnerRef,
    Page, StoreError, StoredKey, UsageDelta, WriteBatch,
};
use portunus::testing::ManualClock;
use tokio::sync::watch;

use crate::{format, live, tenant};

/// How long a test waits for what ought to happen at once, before it calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default)]
pub struct Gated {
    pub inner: MemoryStore,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    finds: AtomicUsize,
    alive: AtomicUsize,
    reads_open: watch::Sender<bool>,
    read: Mutex<Then>,
    written: Mutex<Then>,
    late: Mutex<Vec<WriteBatch>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Then {
    #[default]
    Answer,
    Fail,
    Corrupt,
    Panic,
    /// Of a look-up: it keeps its thread until it is let go, and panics.
    PanicWithoutWaiting,
    Never,
    /// Of a write: it fails, and is applied when [`Gated::commit_late`] is called.
    FailAndCommitLate,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            finds: AtomicUsize::new(0),
            alive: AtomicUsize::new(0),
            reads_open: watch::Sender::new(true),
            read: Mutex::default(),
            written: Mutex::default(),
            late: Mutex::default(),
        }
    }
}

/// Counts the look-ups that are held in memory.
struct Alive<'a>(&'a AtomicUsize);

impl<'a> Alive<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gated {
    pub fn hold_reads(&self) {
        self.gate.reads_open.send_replace(false);
    }
    pub fn let_reads_go(&self) {
        self.gate.reads_open.send_replace(true);
    }
    pub fn reads_then(&self, then: Then) {
        *self.gate.read.lock().unwrap() = then;
    }
    pub fn writes_then(&self, then: Then) {
        *self.gate.written.lock().unwrap() = then;
    }
    pub async fn commit_late(&self) {
        let late = std::mem::take(&mut *self.gate.late.lock().unwrap());
        for batch in late {
            self.inner.apply(&batch).await.unwrap();
        }
    }
    pub fn finds(&self) -> usize {
        self.gate.finds.load(Ordering::SeqCst)
    }
    pub fn alive(&self) -> usize {
        self.gate.alive.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl KeyStore for Gated {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.gate.finds.fetch_add(1, Ordering::SeqCst);
        let _alive = Alive::new(&self.gate.alive);
        if *self.gate.read.lock().unwrap() == Then::PanicWithoutWaiting {
            while !*self.gate.reads_open.borrow() {
                std::thread::yield_now();
            }
            panic!("a store with a bug");
        }
        let answer = self.inner.find(digests).await;
        self.gate
            .reads_open
            .subscribe()
            .wait_for(|open| *open)
            .await
            .unwrap();
        let then = *self.gate.read.lock().unwrap();
        match then {
            Then::Fail => Err(StoreError::unavailable("the connection was lost")),
            Then::Corrupt => Err(StoreError::corrupt("row 7, column expires_at")),
            Then::Panic => panic!("a store with a bug"),
            _ => answer,
        }
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let then = *self.gate.written.lock().unwrap();
        if then == Then::FailAndCommitLate {
            self.gate.late.lock().unwrap().push(batch.clone());
            return Err(StoreError::unavailable(
                "the connection was lost before the answer to COMMIT",
            ));
        }
        self.inner.apply(batch).await?;
        match then {
            Then::Fail => Err(StoreError::unavailable(
                "the connection was lost after COMMIT",
            )),
            Then::Never => std::future::pending().await,
            Then::Panic => panic!("a store with a bug"),
            _ => Ok(()),
        }
    }

    async fn get(&self, id: &KeyId) -> Result<Option<Listed>, StoreError> {
        self.inner.get(id).await
    }
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.inner.list(query).await
    }
    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.inner.primary(owner, at).await
    }
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        self.inner.signing_state(id).await
    }
    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<Vec<HourOfUse>, StoreError> {
        self.inner.usage_by_hour(id, from, to).await
    }
    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.inner.forget_usage_before(before).await
    }
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        self.inner.record_usage(batch).await
    }
}

#[derive(Debug)]
pub struct Node {
    pub clock: ManualClock,
    pub store: Gated,
    pub bus: LocalBus,
    pub cache: CachedStore,
}

impl Node {
    pub fn new() -> Self {
        let (clock, store, bus) = (ManualClock::new(), Gated::default(), LocalBus::new());
        let cache = CachedStore::builder(store.clone())
            .clock(clock.clone())
            .bus(bus.clone())
            .build();
        Self {
            clock,
            store,
            bus,
            cache,
        }
    }

    /// Without a bus: others may write, and nobody tells.
    pub fn deaf() -> Self {
        let (clock, store) = (ManualClock::new(), Gated::default());
        let cache = CachedStore::builder(store.clone())
            .clock(clock.clone())
            .build();
        Self {
            clock,
            store,
            bus: LocalBus::new(),
            cache,
        }
    }

    /// Another node on the same store and bus.
    pub fn neighbour(&self) -> CachedStore {
        CachedStore::builder(self.store.inner.clone())
            .clock(self.clock.clone())
            .bus(self.bus.clone())
            .build()
    }

    pub fn manager(&self) -> KeyManager {
        KeyManager::builder(self.cache.clone(), format())
            .environments([live()])
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }
}

pub fn digest(number: u64) -> KeyDigest {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    KeyDigest::new(DigestScheme::Sha256, bytes)
}

pub fn record(number: u64) -> KeyRecord {
    let id = KeyId::new(&format!("key_{number}")).unwrap();
    let owner = Owner::tenant(tenant("acme"));
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    KeyRecord::new(id, "a key", KeyKind::App, live(), owner, at)
}

pub fn insert(number: u64) -> WriteBatch {
    WriteBatch::new().change(Change::Insert {
        digest: digest(number),
        record: Box::new(record(number)),
    })
}

pub fn revoke(number: u64) -> WriteBatch {
    let mut record = record(number);
    record.revoked = Some(Revocation::new(record.created_at, None));
    WriteBatch::new().update(record)
}

/// What a look-up says of a key: `None` for unknown, else whether it still stands.
pub async fn stands(store: &dyn KeyStore, number: u64) -> Option<bool> {
    let found = store.find(&[digest(number)]).await.unwrap();
    found.map(|stored| stored.record().revoked.is_none())
}

/// Runs a future until it must wait.
pub fn begin<'a, F: Future + 'a>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!((&mut future).now_or_never().is_none(), "it did not wait");
    future
}

/// The same future, but no hang.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this waits for ever")
}
