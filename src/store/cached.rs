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
mod doubts;
mod epochs;
mod outbox;
mod settings;
mod single_flight;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use quick_cache::sync::Cache as Entries;

use self::answers::{BySize, Known, Mark, Unknown};
use self::doubts::Doubts;
use self::epochs::Epochs;
use self::outbox::Outbox;
pub use self::settings::Cache;
use self::single_flight::{Joined, SingleFlight};
use super::{
    BusError, Invalidation, InvalidationBus, InvalidationListener, KeyLookup, KeyStore, ListQuery,
    OwnerRef, Page, SigningStore, StoreError, StoredKey, UsageStore, WriteBatch,
};
use crate::clock::{Clock, within};
use crate::key::{KeyDigest, KeyId, KeyRecord};
use crate::telemetry;

/// A [`KeyStore`] in front of another one. Cloning shares what is remembered.
///
/// Manage keys through it too, so that this node forgets what it changes at once.
///
/// ```
/// use std::time::Duration;
/// use portunus::clock::SystemClock;
/// use portunus::store::{Cache, LocalBus, MemoryStore};
///
/// # let database = MemoryStore::new();
/// // One process, and nobody else writes to the database:
/// let alone = Cache::new().bus(LocalBus::new()).around(database.clone(), SystemClock::default());
/// // Several nodes without a bus: a revocation is seen everywhere within two seconds.
/// let several = Cache::new().staleness(Duration::from_secs(2)).around(database, SystemClock::default());
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
    /// Until when, by the monotonic clock in milliseconds, everything that was published is known
    /// to have been heard.
    healthy_until: AtomicU64,
    outbox: Outbox,
    doubts: Doubts,
    /// Numbers look-ups and what is to be told.
    numbers: AtomicU64,
    time_to_live: Duration,
    staleness: Duration,
    clock: Arc<dyn Clock>,
}

/// How long a write waits until other nodes are told.
const TELL_WITHIN: Duration = Duration::from_secs(2);

impl CachedStore {
    fn of(settings: Cache, store: Arc<dyn KeyStore>, clock: Arc<dyn Clock>) -> Self {
        let room = if settings.capacity == 0 {
            0
        } else {
            settings.bytes
        };
        let share = room.checked_div(settings.capacity as u64).unwrap_or(0);
        let by_size = BySize {
            least: share.max(1),
        };
        let shared = Arc::new(Shared {
            bus: settings.bus.or_else(|| store.bus()),
            store,
            known: Entries::with_weighter(settings.capacity, room, by_size),
            unknown: Entries::new(settings.unknown_capacity),
            epochs: Epochs::new(),
            single_flight: SingleFlight::default(),
            healthy_until: AtomicU64::new(0),
            outbox: Outbox::default(),
            doubts: Doubts::default(),
            numbers: AtomicU64::new(0),
            time_to_live: settings.time_to_live,
            staleness: settings.staleness,
            clock,
        });
        if let Some(bus) = &shared.bus {
            let listener: Weak<Shared> = Arc::downgrade(&shared);
            bus.subscribe(listener);
        }
        Self { shared }
    }

    /// Tells the bus what it could not be told before, or what a write left untold whose caller
    /// went away. Every write tries it too, and so do a service's periodic jobs
    /// ([`Portunus::maintain`](crate::Portunus::maintain)).
    ///
    /// # Errors
    /// Where the bus still cannot be told.
    pub async fn publish_outbox(&self) -> Result<(), StoreError> {
        let told = self.shared.publish().await;
        told.map_err(StoreError::unavailable)
    }

    /// How many changes the bus could not be told yet.
    pub(crate) fn outbox_len(&self) -> usize {
        self.shared.outbox.waiting()
    }

    /// How many changes the bus was told so far.
    pub(crate) fn told(&self) -> u64 {
        self.shared.outbox.told()
    }

    /// Frees what is too old to be used.
    pub(crate) fn sweep(&self) {
        let (shared, now) = (&self.shared, self.shared.clock.monotonic());
        shared
            .known
            .retain(|_, known| shared.counts(known.mark(), now));
        shared
            .unknown
            .retain(|_, unknown| shared.counts(unknown.mark(), now));
    }

    /// Forgets what is remembered of a key.
    pub(crate) fn forget(&self, id: &KeyId) {
        self.shared.invalidated(&Invalidation {
            keys: vec![id.clone()],
            ..Invalidation::default()
        });
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
}

impl InvalidationListener for Shared {
    fn invalidated(&self, what: &Invalidation) {
        self.epochs.invalidate(what);
    }

    fn caught_up(&self, age: Duration) {
        // A proof of health is as old as the message that came back, and is good for less than the
        // bound on staleness: what is not heard for that long is found out before it matters.
        let proven = self.clock.monotonic().saturating_sub(age);
        let until = if self.bus.as_ref().is_some_and(InvalidationBus::is_lossless) {
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
    /// Whether the write has ended, and nothing of it comes later.
    ended: bool,
}

impl Drop for ForgetAtLast<'_> {
    fn drop(&mut self) {
        let what = std::mem::take(&mut self.what);
        if !self.ended {
            // First the doubt: whoever looks up after what follows must not remember what it finds.
            self.shared.doubt(what.clone());
        }
        self.shared.invalidated(&what);
        self.shared.is_to_be_told(what);
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
        let joined = shared.single_flight.join(
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
        if digests.is_empty() {
            // No other cache is needed in front of this one.
            return Some(Ok(None));
        }
        let remembered = self.shared.remembered(digests)?;
        telemetry::cache(telemetry::Cache::Keys, true);
        Some(Ok(remembered))
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
        let mut forget = ForgetAtLast {
            shared: &self.shared,
            what: Invalidation::of(batch),
            ended: false,
        };
        let changes_keys = !forget.what.is_empty();
        let applied = self.shared.store.apply(batch).await;
        match &applied {
            Ok(()) => forget.ended = true,
            Err(error) if error.is_not_published() => forget.ended = true,
            // Nothing was changed.
            Err(error) if error.as_rejected().is_some() => forget.what = Invalidation::default(),
            // It may have been applied, or will be.
            Err(_) => {}
        }
        drop(forget);
        let told = within(TELL_WITHIN, self.shared.publish()).await;
        let told = told.unwrap_or_else(|| {
            let silent = format!("the bus gave no answer within {TELL_WITHIN:?}");
            Err(BusError::unavailable(silent))
        });
        applied?;
        match told {
            Err(error) if changes_keys => {
                Err(StoreError::not_published(self.shared.time_to_live, error))
            }
            _ => Ok(()),
        }
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
