//! A store that remembers: in front of one that must be awaited, so that a key in use costs no trip
//! to it.
//!
//! Records and unknown digests are kept in bounded rooms of their own, so that a flood of unknown
//! keys evicts no real one. What is kept is identity and facts, under the whole digest with its
//! scheme; a decision never is.
//!
//! # Fresh
//! Every answer is marked with how much had been invalidated when its look-up *began*. It counts
//! only while nothing that concerns it was invalidated since: an answer that was on its way while
//! its key was revoked is never used. On the node that writes, that holds for the next request.
//! Other nodes hear it by the [bus](InvalidationBus); while the bus is not known to be healthy,
//! nothing is used that is older than the bound on staleness.
//!
//! Which key a secret has depends on all of its digests. So a key is remembered for exactly those
//! that were asked for, and counts only while none of them got or lost a key since, and neither it
//! nor another key on which that depends ([`StoredKey::others`]) changed. Writers need not know of
//! it: they tell the ids of what they change, and fingerprints of digests that come and go.

mod answers;
mod epochs;
mod flights;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use self::answers::{Known, Mark, Unknown};
use self::epochs::Epochs;
use self::flights::{Flights, Joined};
use super::{
    Invalidation, InvalidationBus, InvalidationListener, KeyLookup, KeyStore, ListQuery, OwnerRef,
    Page, SigningStore, StoreError, StoredKey, UsageStore, WriteBatch,
};
use crate::clock::{Clock, SystemClock};
use crate::key::{KeyDigest, KeyId, KeyRecord};
use crate::telemetry;

/// A [`KeyStore`] in front of another one. Cloning shares what is remembered.
///
/// Manage keys through it too, so that this node forgets what it changes at once.
///
/// ```
/// use std::time::Duration;
/// use portunus::store::{CachedStore, LocalBus, MemoryStore};
///
/// # let database = MemoryStore::new();
/// // One process, and nobody else writes to the database:
/// let alone = CachedStore::builder(database.clone()).bus(LocalBus::new()).build();
/// // Several nodes without a bus: a revocation is seen everywhere within two seconds.
/// let several = CachedStore::builder(database).staleness(Duration::from_secs(2)).build();
/// ```
#[derive(Clone)]
pub struct CachedStore {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn KeyStore>,
    known: Cache<KeyDigest, Known>,
    unknown: Cache<KeyDigest, Unknown>,
    epochs: Epochs,
    flights: Flights,
    bus: Option<Arc<dyn InvalidationBus>>,
    /// Until when, by the monotonic clock in milliseconds, everything that was published is known
    /// to have been heard.
    healthy_until: AtomicU64,
    /// What the bus could not be told yet, each with a number of its own.
    untold: Mutex<VecDeque<(u64, Invalidation)>>,
    /// Numbers look-ups and what is to be told.
    numbers: AtomicU64,
    time_to_live: Duration,
    staleness: Duration,
    clock: Arc<dyn Clock>,
}

/// No more than this waits to be told; beyond, it is that everything has changed.
const MOST_UNTOLD: usize = 1000;

/// Describes a [`CachedStore`].
#[must_use = "a builder does nothing until build()"]
pub struct CachedStoreBuilder {
    store: Arc<dyn KeyStore>,
    capacity: usize,
    unknown_capacity: usize,
    time_to_live: Duration,
    staleness: Duration,
    bus: Option<Arc<dyn InvalidationBus>>,
    clock: Arc<dyn Clock>,
}

impl CachedStore {
    /// A cache in front of this store.
    pub fn builder(store: impl KeyStore) -> CachedStoreBuilder {
        CachedStoreBuilder {
            store: Arc::new(store),
            capacity: 100_000,
            unknown_capacity: 10_000,
            time_to_live: Duration::from_secs(60),
            staleness: Duration::from_secs(2),
            bus: None,
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Tells the bus what it could not be told before, or what a write left untold whose caller
    /// went away. Call it on an interval, well below the bound on staleness; every write tries it
    /// too.
    ///
    /// # Errors
    /// Where the bus still cannot be told.
    pub async fn publish_untold(&self) -> Result<(), StoreError> {
        self.shared.publish().await
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.shared.invalidated(&Invalidation::everything());
    }

    /// Whether the bus is known to have told everything: if not, answers live as long as the bound
    /// on staleness.
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

    /// Keeps in mind what the bus is to be told.
    fn is_to_be_told(&self, what: Invalidation) {
        if self
            .bus
            .as_ref()
            .is_none_or(InvalidationBus::is_told_by_the_store)
            || what.is_empty()
        {
            return;
        }
        let mut untold = self.untold.lock();
        if untold.len() >= MOST_UNTOLD {
            untold.clear();
            untold.push_back((self.number(), Invalidation::everything()));
        }
        untold.push_back((self.number(), what));
    }

    /// Tells the bus of all that it has not been told yet.
    async fn publish(&self) -> Result<(), StoreError> {
        let Some(bus) = &self.bus else { return Ok(()) };
        loop {
            let Some((number, next)) = self.untold.lock().front().cloned() else {
                return Ok(());
            };
            bus.publish(&next).await.map_err(StoreError::unavailable)?;
            // Somebody else may have told the same meanwhile; telling twice harms nobody.
            self.untold.lock().retain(|(waiting, _)| *waiting != number);
        }
    }
}

impl InvalidationListener for Shared {
    fn invalidated(&self, what: &Invalidation) {
        self.epochs.invalidate(what);
    }

    fn heard_all(&self, age: Duration) {
        // A proof of health is as old as the message that came back, and is good for less than the
        // bound on staleness: what is not heard for that long is found out before it matters.
        let proven = self.clock.monotonic().saturating_sub(age);
        let until = if self.bus.as_ref().is_some_and(InvalidationBus::never_misses) {
            u64::MAX
        } else {
            let deadline = self.staleness / 4 * 3;
            u64::try_from(proven.saturating_add(deadline).as_millis()).unwrap_or(u64::MAX)
        };
        self.healthy_until.fetch_max(until, Ordering::SeqCst);
    }
}

/// Forgets what a write is about, and keeps in mind to tell others, however the write ends: also
/// where nobody waits for its end any more.
struct ForgetAtLast<'a> {
    shared: &'a Shared,
    what: Invalidation,
}

impl Drop for ForgetAtLast<'_> {
    fn drop(&mut self) {
        self.shared.invalidated(&self.what);
        self.shared.is_to_be_told(std::mem::take(&mut self.what));
    }
}

#[async_trait]
impl KeyLookup for CachedStore {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        if let Some(remembered) = self.shared.remembered(digests) {
            telemetry::cache(telemetry::Cache::Keys, true);
            return Ok(remembered);
        }
        telemetry::cache(telemetry::Cache::Keys, false);
        let shared = &self.shared;
        let store = Arc::clone(&shared.store);
        let asked: Arc<[KeyDigest]> = digests.into();
        let mark = shared.mark();
        // Whoever asks now must not hear what was true before a change, or longer ago than the
        // bound.
        let may_join = |began: Mark| began.epoch == mark.epoch && shared.counts(began, mark.began);
        let joined = shared.flights.join(
            digests,
            mark,
            may_join,
            || shared.remembered(digests),
            || {
                let shared = Arc::clone(shared);
                async move {
                    let answer = store.find(&asked).await?;
                    shared.remember(&asked, mark, answer.as_ref());
                    Ok(answer)
                }
            },
        );
        match joined {
            Joined::Remembered(remembered) => Ok(remembered),
            Joined::Waiting(flight) => flight.await.map_err(StoreError::shared),
        }
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        let remembered = self.shared.remembered(digests)?;
        telemetry::cache(telemetry::Cache::Keys, true);
        Some(Ok(remembered))
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
        let mut forget = ForgetAtLast {
            shared: &self.shared,
            what: Invalidation::of(batch),
        };
        let applied = self.shared.store.apply(batch).await;
        if applied
            .as_ref()
            .is_err_and(|error| error.as_rejected().is_some())
        {
            // Nothing was changed.
            forget.what = Invalidation::default();
        }
        drop(forget);
        // Also where no answer came: it may have been applied.
        let told = self.shared.publish().await;
        applied?;
        told
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

impl CachedStoreBuilder {
    /// How many keys are remembered; 100 000 unless set.
    pub fn capacity(mut self, keys: usize) -> Self {
        self.capacity = keys;
        self
    }

    /// How many unknown digests are remembered; 10 000 unless set.
    pub fn unknown_capacity(mut self, digests: usize) -> Self {
        self.unknown_capacity = digests;
        self
    }

    /// How long an answer is used at most while the bus is healthy; a minute unless set.
    pub fn time_to_live(mut self, longest: Duration) -> Self {
        self.time_to_live = longest;
        self
    }

    /// The bound on staleness: how long an answer is used at most while the bus is not known to be
    /// healthy, and without one; two seconds unless set. No request that begins later is let
    /// through by it; where also the answers must have been given by then, leave some time for
    /// them.
    pub fn staleness(mut self, bound: Duration) -> Self {
        self.staleness = bound;
        self
    }

    /// How changes of other nodes are heard.
    pub fn bus(mut self, bus: impl InvalidationBus) -> Self {
        self.bus = Some(Arc::new(bus));
        self
    }

    /// Where the time comes from; the system's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The cache.
    #[must_use]
    pub fn build(self) -> CachedStore {
        let shared = Arc::new(Shared {
            store: self.store,
            known: Cache::new(self.capacity),
            unknown: Cache::new(self.unknown_capacity),
            epochs: Epochs::new(),
            flights: Flights::default(),
            bus: self.bus,
            healthy_until: AtomicU64::new(0),
            untold: Mutex::default(),
            numbers: AtomicU64::new(0),
            time_to_live: self.time_to_live,
            staleness: self.staleness,
            clock: self.clock,
        });
        if let Some(bus) = &shared.bus {
            let listener: Weak<Shared> = Arc::downgrade(&shared);
            bus.subscribe(listener);
        }
        CachedStore { shared }
    }
}

impl fmt::Debug for CachedStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStoreBuilder")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
