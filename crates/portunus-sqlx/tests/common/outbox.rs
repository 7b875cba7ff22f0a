//! The outbox: changes that are recorded with their write until a node publishes them on a bus of
//! the host's own.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, Weak};
use std::time::Instant;

use async_trait::async_trait;
use portunus::clock::SystemClock;
use portunus::store::{
    BusError, Cache, CachedStore, Invalidation, InvalidationBus, InvalidationListener, LocalBus,
};

use super::*;

/// A bus between the caches of this process, which proves its health all the time and can fail.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostBus {
    local: LocalBus,
    pub(crate) fails: Arc<AtomicBool>,
}

#[async_trait]
impl InvalidationBus for HostBus {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.local.subscribe(Weak::clone(&listener));
        tokio::spawn(async move {
            while let Some(listener) = listener.upgrade() {
                listener.caught_up(Instant::now());
                drop(listener);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(BusError::unavailable("connection refused"));
        }
        self.local.publish(what).await
    }
}

pub(crate) fn node(store: impl KeyStore, bus: impl InvalidationBus) -> CachedStore {
    Cache::new().bus(bus).around(store, SystemClock::default())
}

/// Whether a key is found and was not revoked.
pub(crate) async fn works(node: &CachedStore, digest: KeyDigest) -> bool {
    let found = node.find(&[digest]).await.unwrap();
    found.unwrap().record().revoked.is_none()
}

/// The change that revokes a key as [`record`] creates it.
pub(crate) fn revoke(name: &str) -> WriteBatch {
    let mut record = record(name);
    record.revoked = Some(Revocation::new(at(2_000), None));
    WriteBatch::new().update(record)
}

pub(crate) async fn changes_are_recorded_only_for_a_bus_of_the_hosts_own<H: Home>(home: &H) {
    let store = with_a(home).await;
    let own = Cache::new().around(home.open().await, SystemClock::default());
    let local = node(home.open().await, LocalBus::new());
    for (number, node) in [own, local].iter().enumerate() {
        let name = format!("key{number}");
        let new = insert(digest(10 + u32::try_from(number).unwrap()), record(&name));
        node.apply(&batch([new])).await.unwrap();
        node.publish_outbox().await.unwrap();
        assert_eq!(store.recorded_changes().await.unwrap(), []);
    }

    let bus = HostBus::default();
    let node = node(home.open().await, bus.clone());
    bus.fails.store(true, Ordering::SeqCst);
    assert!(
        node.apply(&revoke("a"))
            .await
            .unwrap_err()
            .is_not_published()
    );
    // What changes no key is not recorded, nor is what is rolled back.
    node.apply(&WriteBatch::new()).await.unwrap();
    let rejected = batch([insert(digest(20), record("b"))]).require(never());
    assert!(
        node.apply(&rejected)
            .await
            .unwrap_err()
            .as_rejected()
            .is_some()
    );
    let recorded = store.recorded_changes().await.unwrap();
    let recorded: Vec<_> = recorded.into_iter().map(|(_, what)| what.keys).collect();
    assert_eq!(recorded, [[id("a")]]);
    node.publish_outbox().await.unwrap_err();
    assert_eq!(
        store.recorded_changes().await.unwrap().len(),
        1,
        "it is kept"
    );
    bus.fails.store(false, Ordering::SeqCst);
    node.publish_outbox().await.unwrap();
    assert_eq!(store.recorded_changes().await.unwrap(), []);
}

pub(crate) async fn a_change_that_one_node_left_is_published_by_another<H: Home>(home: &H) {
    let store = with_a(home).await;
    let (dead, bus) = (HostBus::default(), HostBus::default());
    dead.fails.store(true, Ordering::SeqCst);
    let left = node(home.open().await, dead);
    let (publisher, other) = (
        node(home.open().await, bus.clone()),
        node(home.open().await, bus),
    );
    assert!(works(&other, digest(1)).await);
    // More than are read at a time, in any order of the nodes.
    for number in 0..600_u32 {
        let name = format!("key{number}");
        let changes = batch([insert(digest(100 + number), record(&name))]);
        left.apply(&changes).await.unwrap_err();
    }
    left.apply(&revoke("a")).await.unwrap_err();
    assert!(works(&other, digest(1)).await, "nothing was published");
    let both = tokio::join!(publisher.publish_outbox(), other.publish_outbox());
    both.0.and(both.1).unwrap();
    assert!(!works(&other, digest(1)).await);
    assert_eq!(store.recorded_changes().await.unwrap(), []);
}

/// A change that cannot be read may be of anything.
pub(crate) async fn an_unreadable_change_is_published_as_a_change_of_everything<H: Home>(home: &H) {
    let store = with_a(home).await;
    let bus = HostBus::default();
    let node = node(home.open().await, bus);
    assert!(works(&node, digest(1)).await);
    store.apply(&revoke("a")).await.unwrap();
    assert!(works(&node, digest(1)).await, "not yet known here");
    home.execute("INSERT INTO portunus_outbox (what) VALUES ('beat 1 2'), ('changed {')".into())
        .await;
    node.publish_outbox().await.unwrap();
    assert!(!works(&node, digest(1)).await);
    assert_eq!(store.recorded_changes().await.unwrap(), []);
}
