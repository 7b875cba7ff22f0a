//! A caching decorator for stores that must be awaited, so that a key in use costs no round trip.
//!
//! Records and misses are cached separately, each with its own capacity, so that a flood of unknown
//! keys evicts no real key. Entries hold a key's identity and facts under the whole digest with its
//! scheme, never a decision.
//!
//! # Freshness
//! Every answer carries a mark: the invalidation epoch at which its lookup *began*. An answer is
//! used only while nothing it depends on has been invalidated since that epoch. An answer that was
//! in flight while its key was revoked is therefore never used. On the node that writes, this holds
//! from the next request on. Other nodes are notified through the [bus](InvalidationBus); while the
//! bus is not known to be healthy, no answer older than the staleness bound is used.
//!
//! Which key a secret belongs to depends on all digests of the secret. A key is therefore cached
//! for exactly the digests of the lookup. The entry is valid while none of them has gained or lost
//! a key, and while neither the key itself nor another key that the answer depends on
//! ([`StoredKey::others`]) has changed. Writers do not need to know about these dependencies: they
//! publish the ids of the keys they change, and the fingerprints of digests that are gained or
//! lost.
//!
//! # Why no stale answer survives an invalidation
//! 1. Validity is checked when an entry is used, never when it is stored. An invalidation raises
//!    the epoch of everything it names ([`epochs`]), so it needs no list of entries, and an entry
//!    that is stored late, with an old mark, is already invalid.
//! 2. The mark is taken before the store is queried. A lookup whose mark includes an invalidation
//!    began after that invalidation, which follows the commit; the store's contract is that the
//!    lookup then sees the change. Every earlier mark fails the check. So `find` may store every
//!    answer under its own mark, in whatever order lookups finish.
//! 3. `apply` invalidates before it returns, so the next request on this node misses. A write whose
//!    result is unknown may commit after its invalidation: until that is settled, answers it may
//!    affect are not stored at all ([`doubts`]).
//! 4. A request joins a lookup in flight only if the epoch has not moved since that lookup began:
//!    see [`single_flight`].
//! 5. A change by another node that has not arrived yet can be served only within the staleness
//!    bound: see `caught_up`.

mod answers;
mod doubts;
mod epochs;
mod outbox;
mod settings;
mod single_flight;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use quick_cache::sync::Cache as Entries;

use self::answers::{BySize, Known, Mark, Unknown};
use self::doubts::Doubts;
use self::epochs::Epochs;
use self::outbox::Outbox;
pub use self::settings::Cache;
use self::single_flight::{Joined, SingleFlight};
use super::{
    BulkOperation, BusError, Invalidation, InvalidationBus, InvalidationListener, KeyLookup,
    KeyStore, ListQuery, OwnerRef, Page, SigningStore, StoreError, StoredKey, UsageStore,
    WriteBatch,
};
use crate::clock::{Clock, within};
use crate::key::{KeyDigest, KeyId, KeyRecord};
use crate::telemetry;

/// A [`KeyStore`] decorator that caches lookups. Clones share the cache.
///
/// Make changes through it too, so that this node drops what it changes at once.
///
/// ```
/// use std::time::Duration;
/// use portunus::clock::SystemClock;
/// use portunus::store::{Cache, LocalBus, MemoryStore};
///
/// # let database = MemoryStore::new();
/// // One process, and no other writer to the database:
/// let alone = Cache::new().bus(LocalBus::new()).around(database.clone(), SystemClock::default());
/// // Several nodes without a bus: a revocation takes effect everywhere within two seconds.
/// let several = Cache::new()
///     .staleness(Duration::from_secs(2))
///     .around(database, SystemClock::default());
/// ```
#[derive(Clone)]
pub struct CachedStore {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn KeyStore>,
    known: Entries<KeyDigest, Known, BySize>,
    unknown: Entries<KeyDigest, Unknown>,
    epochs: Epochs,
    single_flight: SingleFlight,
    bus: Option<Arc<dyn InvalidationBus>>,
    /// Whether the store records changes that are to be published on the bus.
    store_records: bool,
    /// The monotonic time, in milliseconds, until which everything published counts as delivered.
    healthy_until: AtomicU64,
    outbox: Outbox,
    doubts: Doubts,
    /// Sequence numbers of lookups and of outbox entries.
    numbers: AtomicU64,
    time_to_live: Duration,
    staleness: Duration,
    clock: Arc<dyn Clock>,
}

/// How long a write waits for its change to be published.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

impl CachedStore {
    pub(crate) fn of(settings: Cache, store: Arc<dyn KeyStore>, clock: Arc<dyn Clock>) -> Self {
        let bytes = if settings.capacity == 0 {
            0
        } else {
            settings.bytes
        };
        let share = bytes.checked_div(settings.capacity as u64).unwrap_or(0);
        let by_size = BySize {
            least: share.max(1),
        };
        let own = settings.bus.is_some();
        let bus = settings.bus.or_else(|| store.bus());
        // A node that is killed between a write and its publication tells nobody. A lossless bus is
        // for a single process, whose cache ends with it.
        let may_miss = bus
            .as_ref()
            .is_some_and(|bus| !bus.store_publishes() && !bus.is_lossless());
        let store_records = may_miss && own && store.record_changes();
        let time_to_live = if may_miss && !store_records {
            settings.time_to_live.min(settings.staleness)
        } else {
            settings.time_to_live
        };
        let shared = Arc::new(Shared {
            store_records,
            bus,
            store,
            known: Entries::with_weighter(settings.capacity, bytes, by_size),
            unknown: Entries::new(settings.unknown_capacity),
            epochs: Epochs::new(),
            single_flight: SingleFlight::default(),
            healthy_until: AtomicU64::new(0),
            outbox: Outbox::default(),
            doubts: Doubts::default(),
            numbers: AtomicU64::new(0),
            time_to_live,
            staleness: settings.staleness,
            clock,
        });
        if let Some(bus) = &shared.bus {
            let listener: Weak<Shared> = Arc::downgrade(&shared);
            bus.subscribe(listener);
        }
        Self { shared }
    }

    /// Publishes changes that could not be published before, or that a write left unpublished
    /// because its caller was dropped, and changes that any node recorded in the store
    /// ([`KeyStore::record_changes`]). Every write attempts the former too. The service's periodic
    /// jobs ([`Portunus::maintain`](crate::Portunus::maintain)) call this five times a second.
    ///
    /// # Errors
    /// Returns an error if the bus still cannot publish, or if the store does not respond.
    pub async fn publish_outbox(&self) -> Result<(), StoreError> {
        let published = self.shared.publish().await;
        published.map_err(StoreError::unavailable)?;
        self.shared.publish_recorded().await
    }

    /// Returns how many changes are waiting to be published.
    pub(crate) fn outbox_len(&self) -> usize {
        self.shared.outbox.waiting()
    }

    /// Returns how many changes have been published so far.
    pub(crate) fn told(&self) -> u64 {
        self.shared.outbox.published()
    }

    /// Drops entries that are too old to be used.
    pub(crate) fn sweep(&self) {
        let (shared, now) = (&self.shared, self.shared.clock.monotonic());
        shared
            .known
            .retain(|_, known| shared.is_fresh(known.mark(), now));
        shared
            .unknown
            .retain(|_, unknown| shared.is_fresh(unknown.mark(), now));
    }

    /// Drops the entries of a key.
    pub(crate) fn forget(&self, id: &KeyId) {
        self.shared.invalidated(&Invalidation {
            keys: vec![id.clone()],
            ..Invalidation::default()
        });
    }

    /// Drops what a write changed that was not made through this cache, and queues it for other
    /// nodes. If the write is not known to be `finished`, it is treated as one without a result.
    pub(crate) fn changed(&self, what: Invalidation, finished: bool) {
        drop(InvalidateOnDrop {
            shared: &self.shared,
            what,
            finished,
        });
    }

    /// Drops all entries.
    pub fn clear(&self) {
        self.shared.invalidated(&Invalidation::everything());
    }

    /// Returns whether the bus is known to have delivered everything. Otherwise, answers are used
    /// only within the staleness bound.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.is_healthy(self.shared.clock.monotonic())
    }
}

impl Shared {
    fn is_healthy(&self, now: Duration) -> bool {
        now < Duration::from_millis(self.healthy_until.load(Ordering::SeqCst))
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl InvalidationListener for Shared {
    fn invalidated(&self, what: &Invalidation) {
        self.epochs.invalidate(what);
    }

    fn caught_up(&self, as_of: Instant) {
        // Why no answer from before a change on another node is used for longer than `staleness`
        // after the change was published: `proven` is the time up to which everything published has
        // arrived. If a change that was published at `p` has not arrived, then `p >= proven`, so
        // this node counts as healthy at most until `p + staleness * 3/4`. After that, it only uses
        // answers younger than `staleness`. Those that began before `p` are too old by
        // `p + staleness`; later ones contain the change, because publishing follows the commit.
        // After a possible loss, the bus invalidates everything before it reports health again.
        // The clock is read first: a process that is suspended in between gets an earlier time.
        let now = self.clock.monotonic();
        let proven = now.saturating_sub(as_of.elapsed());
        let until = if self.bus.as_ref().is_some_and(InvalidationBus::is_lossless) {
            u64::MAX
        } else {
            let deadline = self.staleness / 4 * 3;
            u64::try_from(proven.saturating_add(deadline).as_millis()).unwrap_or(u64::MAX)
        };
        self.healthy_until.fetch_max(until, Ordering::SeqCst);
    }
}

/// Invalidates what a write changes and queues it for publishing, however the write ends, including
/// when its future is dropped.
struct InvalidateOnDrop<'a> {
    shared: &'a Shared,
    what: Invalidation,
    /// Whether the write has finished, so that it cannot commit later.
    finished: bool,
}

impl Drop for InvalidateOnDrop<'_> {
    fn drop(&mut self) {
        let what = std::mem::take(&mut self.what);
        if !self.finished {
            // Record the doubt first. A lookup that begins after the invalidation below may still
            // read the old state, and must find the doubt when it tries to store its answer. One
            // that began before has an old mark, which the invalidation makes invalid.
            self.shared.doubt(what.clone());
        }
        self.shared.invalidated(&what);
        self.shared.queue_for_publishing(what);
    }
}

#[async_trait]
impl KeyLookup for CachedStore {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        if let Some(cached) = self.shared.cached_answer(digests) {
            telemetry::cache(telemetry::Cache::Keys, true);
            return Ok(cached);
        }
        telemetry::cache(telemetry::Cache::Keys, false);
        let shared = &self.shared;
        let store = Arc::clone(&shared.store);
        let queried: Arc<[KeyDigest]> = digests.into();
        let mark = shared.mark();
        // Equal epochs, because the joined answer is not checked again: what was read before an
        // acknowledged change must not reach a request that begins after it.
        let may_join =
            |began: Mark| began.epoch == mark.epoch && shared.is_fresh(began, mark.began);
        let joined = shared.single_flight.join(
            digests,
            mark,
            may_join,
            || shared.cached_answer(digests),
            || {
                let shared = Arc::clone(shared);
                async move {
                    let answer = store.find(&queried).await?;
                    shared.store_answer(&queried, mark, answer.as_ref());
                    Ok(answer)
                }
            },
        );
        match joined {
            Joined::Cached(cached) => Ok(cached),
            Joined::Waiting(lookup) => lookup.await.map_err(StoreError::shared),
        }
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        if digests.is_empty() {
            // An answer without waiting prevents a second cache in front of this one.
            return Some(Ok(None));
        }
        let cached = self.shared.cached_answer(digests)?;
        telemetry::cache(telemetry::Cache::Keys, true);
        Some(Ok(cached))
    }

    fn knows(&self, digests: &[KeyDigest]) -> bool {
        let known = &self.shared.known;
        digests.iter().any(|digest| known.contains_key(digest))
    }

    fn bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        self.shared.bus.clone()
    }
}

#[async_trait]
impl KeyStore for CachedStore {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.shared.store.get(id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.shared.store.list(query).await
    }

    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.shared.store.primary(owner, at).await
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        self.shared.store.primaries(owners, at).await
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut write = InvalidateOnDrop {
            shared: &self.shared,
            what: Invalidation::of(batch),
            finished: false,
        };
        let changes_keys = !write.what.is_empty();
        let applied = self.shared.store.apply(batch).await;
        match &applied {
            Ok(()) => write.finished = true,
            Err(error) if error.is_not_published() => write.finished = true,
            // Nothing was changed.
            Err(error) if error.as_rejected().is_some() => write.what = Invalidation::default(),
            // The write may have been applied, or may still be.
            Err(_) => {}
        }
        drop(write);
        let published = within(PUBLISH_TIMEOUT, self.shared.publish()).await;
        let published = published.unwrap_or_else(|| {
            let timeout = format!("the bus did not respond within {PUBLISH_TIMEOUT:?}");
            Err(BusError::unavailable(timeout))
        });
        applied?;
        match published {
            Err(error) if changes_keys => {
                Err(StoreError::not_published(self.shared.time_to_live, error))
            }
            _ => Ok(()),
        }
    }

    async fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        self.shared.store.bulk_operation(id).await
    }

    async fn open_bulk_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        self.shared.store.open_bulk_operations().await
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        self.shared.store.usage()
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        self.shared.store.signing()
    }
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore")
            .field("store", &self.shared.store)
            .field("known", &self.shared.known.len())
            .field("unknown", &self.shared.unknown.len())
            .finish_non_exhaustive()
    }
}
