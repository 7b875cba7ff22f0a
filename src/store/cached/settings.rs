//! How much a cache keeps, and for how long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::CachedStore;
use crate::clock::Clock;
use crate::store::{InvalidationBus, KeyStore};

/// How many bytes the cached keys take at most, unless it is set.
const BYTES: u64 = 256 << 20;

/// Settings of the cache in front of a store that must be awaited.
#[derive(Clone)]
#[must_use = "settings do nothing until they are given to a builder"]
pub struct Cache {
    pub(super) capacity: usize,
    pub(super) bytes: u64,
    pub(super) unknown_capacity: usize,
    pub(super) time_to_live: Duration,
    pub(super) staleness: Duration,
    pub(super) bus: Option<Arc<dyn InvalidationBus>>,
    off: bool,
}

impl Cache {
    /// 100 000 keys and 10 000 unknown digests, for at most a minute, and for at most 2 seconds while
    /// changes on other nodes may be missed.
    pub fn new() -> Self {
        Self {
            capacity: 100_000,
            bytes: BYTES,
            unknown_capacity: 10_000,
            time_to_live: Duration::from_secs(60),
            staleness: Duration::from_secs(2),
            bus: None,
            off: false,
        }
    }

    /// No cache: every request asks the store.
    pub fn none() -> Self {
        Self {
            off: true,
            ..Self::new()
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    /// Sets how many keys are cached.
    pub fn capacity(mut self, keys: usize) -> Self {
        self.capacity = keys;
        self
    }

    /// Sets how many bytes the cached keys may take, about. The default is 256 MiB.
    pub fn bytes(mut self, most: u64) -> Self {
        self.bytes = most;
        self
    }

    /// Sets how many unknown digests are cached.
    pub fn unknown_capacity(mut self, digests: usize) -> Self {
        self.unknown_capacity = digests;
        self
    }

    /// Sets how long an answer is used while the bus is healthy.
    pub fn time_to_live(mut self, longest: Duration) -> Self {
        self.time_to_live = longest;
        self
    }

    /// Sets the bound of staleness: how long an answer is used while the bus is not known to be
    /// healthy, and without a bus. No request that begins later is let through by it. Where answers
    /// must have been *given* by then, leave some time for them.
    pub fn staleness(mut self, bound: Duration) -> Self {
        self.staleness = bound;
        self
    }

    /// Hears of changes on other nodes through this bus, instead of the store's own.
    pub fn bus(mut self, bus: impl InvalidationBus) -> Self {
        self.bus = Some(Arc::new(bus));
        self
    }

    /// A cache in front of a store, by a clock. [`PortunusBuilder::store`] does this itself; suites
    /// for stores and buses do it by hand.
    ///
    /// [`PortunusBuilder::store`]: crate::PortunusBuilder::store
    #[must_use]
    pub fn around(self, store: impl KeyStore, clock: impl Clock) -> CachedStore {
        CachedStore::of(self, Arc::new(store), Arc::new(clock))
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("capacity", &self.capacity)
            .field("time_to_live", &self.time_to_live)
            .field("staleness", &self.staleness)
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}
