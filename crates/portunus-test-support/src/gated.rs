//! Parts for the tests of the cache, around a store that reads at once but can be paused before it
//! answers, like a database on a slow connection.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use crate::Setup;
use futures_util::FutureExt;
use portunus::key::{DigestScheme, KeyDigest, KeyId, KeyKind, KeyRecord, Owner, Revocation};
use portunus::manage::KeyManager;
use portunus::store::{Cache, CachedStore, Change, KeyStore, LocalBus, WriteBatch};
use portunus::testing::{Call, FaultyStore, ManualClock, Point};

use crate::{format, live, tenant};

pub use crate::wait::{PATIENCE, soon};

/// The points after a lookup has read but before it answers, and after a write was applied but
/// before it is acknowledged.
pub const READ: Point = Point::After(Call::Find);
pub const WRITTEN: Point = Point::After(Call::Apply);

#[derive(Debug)]
pub struct Node {
    pub clock: ManualClock,
    pub store: FaultyStore,
    pub bus: LocalBus,
    pub cache: CachedStore,
}

impl Node {
    pub fn new() -> Self {
        let (clock, store, bus) = (ManualClock::new(), FaultyStore::new(), LocalBus::new());
        let cache = Cache::new()
            .bus(bus.clone())
            .around(store.clone(), clock.clone());
        Self {
            clock,
            store,
            bus,
            cache,
        }
    }

    /// A node without a bus, which receives no invalidations.
    pub fn without_bus() -> Self {
        let (clock, store) = (ManualClock::new(), FaultyStore::new());
        let cache = Cache::new().around(store.clone(), clock.clone());
        Self {
            clock,
            store,
            bus: LocalBus::new(),
            cache,
        }
    }

    /// Another node on the same store and bus.
    pub fn other_node(&self) -> CachedStore {
        Cache::new()
            .bus(self.bus.clone())
            .around(self.store.inner().clone(), self.clock.clone())
    }

    pub fn manager(&self) -> KeyManager {
        Setup::on(self.cache.clone())
            .bearer([format()])
            .environments([live()])
            .clock(self.clock.clone())
            .manager()
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

/// Looks up a key: `None` if it is unknown, otherwise whether it is not revoked.
pub async fn is_active(store: &dyn KeyStore, number: u64) -> Option<bool> {
    let found = store.find(&[digest(number)]).await.unwrap();
    found.map(|stored| stored.record().revoked.is_none())
}

/// Polls a future once, and asserts that it is pending.
pub fn begin<'a, F: Future + 'a>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(
        (&mut future).now_or_never().is_none(),
        "the future completed without waiting"
    );
    future
}
