//! Capacity and lifetime of the cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::CachedStore;
use crate::clock::Clock;
use crate::store::{InvalidationBus, KeyStore};

/// The default for the size of the cached keys, in bytes.
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
    /// Creates settings with the defaults: 100 000 keys and 10 000 unknown digests, each for at
    /// most a minute, and for at most 2 seconds while changes by other nodes may be missed.
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

    /// Disables the cache: every request queries the store.
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

    /// Sets approximately how many bytes the cached keys may take. Defaults to 256 MiB.
    pub fn bytes(mut self, most: u64) -> Self {
        self.bytes = most;
        self
    }

    /// Sets how many unknown digests are cached.
    pub fn unknown_capacity(mut self, digests: usize) -> Self {
        self.unknown_capacity = digests;
        self
    }

    /// Returns the bus that is set instead of the store's own.
    pub(crate) fn own_bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        self.bus.clone()
    }

    /// Sets how long an answer is used while the bus is healthy; a minute by default. At most the
    /// staleness bound counts where nobody would publish the last write of a node that was killed:
    /// with a bus of the host's own across processes, unless the store
    /// [records changes](KeyStore::record_changes).
    pub fn time_to_live(mut self, longest: Duration) -> Self {
        self.time_to_live = longest;
        self
    }

    /// Sets the staleness bound: how long an answer is used without a bus, or while the bus is not
    /// known to be healthy. No request that begins after that time is admitted by such an answer.
    /// If responses must also have been *sent* by then, choose a lower bound.
    pub fn staleness(mut self, bound: Duration) -> Self {
        self.staleness = bound;
        self
    }

    /// Sets the bus that reports changes by other nodes, instead of the store's own bus.
    pub fn bus(mut self, bus: impl InvalidationBus) -> Self {
        self.bus = Some(Arc::new(bus));
        self
    }

    /// Returns a cache in front of a store. [`PortunusBuilder::store`] does this itself; use this
    /// method in conformance tests for stores and buses.
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
