//! The connected nodes, and how one of them changes a key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::recording_listener::{Change, RecordingListener};
use crate::random::Random;
use crate::report::{Checked, Failure, valid};
use crate::runner::{Calls, Watched};
use portunus::key::{
    DigestScheme, Environment, KeyDigest, KeyId, KeyKind, KeyRecord, Owner, TenantId,
};
use portunus::store::{self, Invalidation, InvalidationBus, KeyStore, MemoryStore, WriteBatch};

/// Two connected nodes: both receive what either of them publishes.
pub struct BusNodes {
    pub(super) here: Node,
    pub(super) there: Node,
    /// The time within which changes arrive and `caught_up` is called again.
    pub(super) bound: Duration,
    faults: Option<Faults>,
}

type Act = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

struct Faults {
    cut: Act,
    restore: Act,
}

impl BusNodes {
    /// Creates the two nodes: two connections, or clones of one bus within a process.
    #[must_use]
    pub fn new(here: impl InvalidationBus, there: impl InvalidationBus) -> Self {
        let node = |bus| Node { bus, store: None };
        Self {
            here: node(Arc::new(here)),
            there: node(Arc::new(there)),
            bound: Duration::from_secs(2),
            faults: None,
        }
    }

    /// Sets the store of each node, both on one empty database. Keys are then changed in it, as a
    /// cache does: each change is also published to the bus unless [the store publishes
    /// it](InvalidationBus::store_publishes). A bus that is notified by its store, or polls it,
    /// needs this.
    #[must_use]
    pub fn with_stores(mut self, here: impl KeyStore, there: impl KeyStore) -> Self {
        self.here.store = Some(Arc::new(here));
        self.there.store = Some(Arc::new(there));
        self
    }

    /// Sets the staleness bound of the caches that will use the bus: the time within which changes
    /// arrive and `caught_up` is called again. Two seconds by default, as for a
    /// [`CachedStore`](portunus::store::CachedStore).
    #[must_use]
    pub fn with_bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Sets how the second node is disconnected: after `cut`, nothing reaches it from the other
    /// node, on existing connections or new ones; after `restore`, new connections can be made.
    /// Each may be called several times, in alternation.
    #[must_use]
    pub fn with_faults<C, CutFuture, R, RestoreFuture>(mut self, cut: C, restore: R) -> Self
    where
        C: Fn() -> CutFuture + Send + Sync + 'static,
        CutFuture: Future<Output = ()> + Send + 'static,
        R: Fn() -> RestoreFuture + Send + Sync + 'static,
        RestoreFuture: Future<Output = ()> + Send + 'static,
    {
        self.faults = Some(Faults {
            cut: Box::new(move || Box::pin(cut())),
            restore: Box::new(move || Box::pin(restore())),
        });
        self
    }

    /// The same nodes with monitored calls.
    pub(super) fn watched(mut self, calls: &Calls) -> Self {
        for node in [&mut self.here, &mut self.there] {
            node.bus = Arc::new(Watched::new(Arc::clone(&node.bus), calls.clone()));
        }
        self
    }

    pub(super) fn can_fail(&self) -> bool {
        self.faults.is_some()
    }

    pub(super) async fn cut(&self) {
        if let Some(faults) = &self.faults {
            (faults.cut)().await;
        }
    }

    pub(super) async fn restore(&self) {
        if let Some(faults) = &self.faults {
            (faults.restore)().await;
        }
    }

    /// The two nodes in alternation.
    pub(super) fn alternating(&self, number: usize) -> &Node {
        if number.is_multiple_of(2) {
            &self.here
        } else {
            &self.there
        }
    }

    /// A listener on each node, once both have been called with `caught_up`.
    pub(super) async fn listeners(&self) -> Result<[Arc<RecordingListener>; 2], Failure> {
        let listeners = [
            RecordingListener::on(&*self.here.bus),
            RecordingListener::on(&*self.there.bus),
        ];
        RecordingListener::all_catch_up(&listeners, self.bound).await?;
        Ok(listeners)
    }

    /// The stores of both nodes, or one for both.
    pub(super) fn stores(&self) -> [Arc<dyn KeyStore>; 2] {
        match (&self.here.store, &self.there.store) {
            (Some(here), Some(there)) => [Arc::clone(here), Arc::clone(there)],
            _ => {
                let shared: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
                [Arc::clone(&shared), shared]
            }
        }
    }
}

impl fmt::Debug for BusNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusNodes")
            .field("here", &self.here)
            .field("there", &self.there)
            .field("bound", &self.bound)
            .field("faults", &self.faults.is_some())
            .finish()
    }
}

/// A node: its bus, and its store if the host provided one.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) bus: Arc<dyn InvalidationBus>,
    store: Option<Arc<dyn KeyStore>>,
}

impl Node {
    /// Changes keys as a cache does: in the store first, then published.
    pub(super) async fn change(&self, batch: &WriteBatch) -> Result<Change, Failure> {
        let mut change = Change {
            began: Instant::now(),
            acknowledged: None,
            what: Invalidation::of(batch),
        };
        if let Some(store) = &self.store {
            store.apply(batch).await?;
        }
        if self.store.is_none() || !self.bus.store_publishes() {
            self.bus.publish(&change.what).await?;
        }
        change.acknowledged = Some(Instant::now());
        Ok(change)
    }

    /// Publishes that a tenant changed, which no store does.
    pub(super) async fn change_tenant(&self, name: &str) -> Result<Change, Failure> {
        let mut what = Invalidation::default();
        what.tenants.push(valid(TenantId::new(name)));
        let began = Instant::now();
        self.bus.publish(&what).await?;
        Ok(Change {
            began,
            acknowledged: Some(Instant::now()),
            what,
        })
    }

    /// Inserts a key with this number, and rehashes it.
    pub(super) async fn change_key(&self, number: u64) -> Result<Change, Failure> {
        self.change(&new_and_moved(number)).await
    }

    /// The same on a node that is disconnected or has a listener that panics: the change may never
    /// be acknowledged.
    pub(super) async fn try_to_change_key(&self, number: u64, longest: Duration) -> Option<Change> {
        let node = self.clone();
        let mut task = tokio::spawn(async move { node.change_key(number).await });
        match tokio::time::timeout(longest, &mut task).await {
            Ok(done) => done.ok()?.ok(),
            Err(_) => {
                task.abort();
                None
            }
        }
    }
}

/// A batch that is published as a key and two fingerprints.
fn new_and_moved(number: u64) -> WriteBatch {
    let name = format!("key{number}");
    let moved = store::Change::Rehash {
        id: id(&name),
        from: digest(number),
        to: digest(number + (1 << 32)),
    };
    WriteBatch::new()
        .change(insert(number, &name))
        .change(moved)
}

pub(super) fn id(name: &str) -> KeyId {
    valid(KeyId::new(name))
}

pub(super) fn digest(number: u64) -> KeyDigest {
    let (mut random, mut bytes) = (Random::new(number), [0; 32]);
    for word in bytes.as_chunks_mut::<8>().0 {
        *word = random.next().to_le_bytes();
    }
    KeyDigest::new(DigestScheme::Sha256, bytes)
}

pub(super) fn insert(number: u64, name: &str) -> store::Change {
    let owner = Owner::tenant(valid(TenantId::new("acme")));
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let record = KeyRecord::new(
        id(name),
        name,
        KeyKind::App,
        valid(Environment::new("live")),
        owner,
        made,
    );
    store::Change::Insert {
        digest: digest(number),
        record: Box::new(record),
    }
}

/// Asserts that each listener receives all changes, and nothing else.
pub(super) async fn all_receive(
    listeners: &[Arc<RecordingListener>],
    changes: &[Change],
    bound: Duration,
) -> Checked {
    for listener in listeners {
        listener.receives(changes, bound).await?;
        listener.received_nothing_else(changes)?;
    }
    Ok(())
}
