//! The limiter in this process: strict windows per bucket, behind one small lock each.
//!
//! A bucket's cell is found through the slot beside its cached key, or in a sharded map. The
//! limiter owns its cells: what was admitted is remembered whatever happens to the cached key. A
//! cell whose windows are all past gives its memory back, and leaves the map when nothing points to
//! it; sweeping is done by the requests that need room, a shard at a time. At the cap, with every
//! cell live, newcomers are an outage and nobody is forgotten.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::cell::State;
use super::window::nanos;
use super::{BucketId, Decision, LimitBucket, LimitRequest, LimiterError, RateLimiter};
use crate::clock::{Clock, SystemClock};
use crate::key::{KeyFamily, TenantId};
use crate::quota::Quotas;

const SHARDS: usize = 64;

/// A shard is swept this often, if requests come that need room.
const SWEEP_EVERY: u64 = 30_000_000_000;

/// At the cap, all shards are swept this often.
const SWEEP_ALL_EVERY: u64 = 1_000_000_000;

/// A [`RateLimiter`] in memory. Cloning shares the counts.
#[derive(Clone)]
pub struct LocalLimiter {
    inner: Arc<Inner>,
}

struct Inner {
    /// Told apart from every other limiter's in the process, for slots.
    id: u64,
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// Cells with recorders.
    live: AtomicUsize,
    most: usize,
    next_shard: AtomicUsize,
    next_full_sweep: AtomicU64,
}

#[derive(Default)]
struct Shard {
    families: HashMap<KeyFamily, Arc<Cell>>,
    tenants: HashMap<TenantId, Arc<Cell>>,
    customs: HashMap<Box<str>, Arc<Cell>>,
    next_sweep: u64,
}

/// One bucket.
#[derive(Default)]
struct Cell(Mutex<State>);

/// A cell, by way of a slot or of the map.
enum Found<'a> {
    Slot(&'a Cell),
    Map(Arc<Cell>),
}

impl Deref for Found<'_> {
    type Target = Cell;
    fn deref(&self) -> &Cell {
        match self {
            Self::Slot(cell) => cell,
            Self::Map(cell) => cell,
        }
    }
}

impl Default for LocalLimiter {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl LocalLimiter {
    /// Starts a limiter.
    pub fn builder() -> LocalLimiterBuilder {
        LocalLimiterBuilder {
            clock: None,
            most: 250_000,
        }
    }

    /// How many buckets are live: admitted something within their widest window, or have not been
    /// swept since.
    #[must_use]
    pub fn live_buckets(&self) -> usize {
        self.inner.live.load(Ordering::Relaxed)
    }

    /// Admits or refuses; never waits.
    pub(crate) fn decide(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        check(request)?;
        let now = nanos(self.inner.clock.monotonic());
        // The usual single bucket needs no lists.
        if let [bucket] = request.buckets {
            let cell = self.inner.find(bucket, now);
            let mut state = cell.0.lock();
            let now = now.max(state.now);
            self.inner.prepare(&mut state, bucket.quotas, now)?;
            let wait = state.wait(bucket.quotas, now, request.cost);
            if wait == 0 {
                state.admit(now, request.cost);
            }
            return Ok(state.tell(decision(wait), bucket.quotas, now, request.cost));
        }
        let cells: SmallVec<[Found<'_>; 3]> = request
            .buckets
            .iter()
            .map(|bucket| self.inner.find(bucket, now))
            .collect();
        // Locked in the order of their kinds, one cell of each, so that no two requests wait for
        // each other.
        let mut states: SmallVec<[MutexGuard<'_, State>; 3]> =
            cells.iter().map(|cell| cell.0.lock()).collect();
        let now = states.iter().fold(now, |now, state| now.max(state.now));
        for (state, bucket) in states.iter_mut().zip(request.buckets) {
            self.inner.prepare(state, bucket.quotas, now)?;
        }
        let waits = states
            .iter()
            .zip(request.buckets)
            .map(|(state, b)| state.wait(b.quotas, now, request.cost));
        let wait = waits.max().unwrap_or(0);
        let mut told = decision(wait);
        for (state, bucket) in states.iter_mut().zip(request.buckets) {
            if wait == 0 {
                state.admit(now, request.cost);
            }
            told = state.tell(told, bucket.quotas, now, request.cost);
        }
        Ok(told)
    }

    /// How long one unit would have to wait, without taking it: zero where it would pass. `None` where
    /// nothing is known of the bucket, or it was last asked for with other quotas.
    #[must_use]
    pub fn wait(&self, bucket: &LimitBucket<'_>) -> Option<Duration> {
        let now = nanos(self.inner.clock.monotonic());
        let cell = self.inner.known(bucket)?;
        let mut state = cell.0.lock();
        let now = now.max(state.now);
        if state.quotas.as_ref() != Some(bucket.quotas) {
            return None;
        }
        state.now = now;
        state.advance(now);
        Some(Duration::from_nanos(state.wait(bucket.quotas, now, 1)))
    }
}

fn decision(wait: u64) -> Decision {
    if wait == 0 {
        Decision::admitted()
    } else {
        Decision::refused(Duration::from_nanos(wait))
    }
}

/// Refuses what could never pass, and what would lock one cell twice.
fn check(request: &LimitRequest<'_>) -> Result<(), LimiterError> {
    let least = request
        .buckets
        .iter()
        .map(|bucket| bucket.quotas.least())
        .min()
        .unwrap_or(u64::MAX);
    if request.cost == 0 || request.cost > least {
        return Err(LimiterError::Cost {
            cost: request.cost,
            limit: least,
        });
    }
    if request
        .buckets
        .iter()
        .map(|bucket| kind(bucket.id))
        .is_sorted_by(|one, next| one < next)
    {
        Ok(())
    } else {
        Err(LimiterError::Unavailable(
            "buckets must be one of each kind, in their order".into(),
        ))
    }
}

fn kind(id: BucketId<'_>) -> u8 {
    match id {
        BucketId::Family(_) => 0,
        BucketId::Tenant(_) => 1,
        BucketId::Custom(_) => 2,
    }
}

impl Inner {
    fn known(&self, bucket: &LimitBucket<'_>) -> Option<Arc<Cell>> {
        let shard = self.shard(bucket.id).lock();
        match bucket.id {
            BucketId::Family(family) => shard.families.get(family).cloned(),
            BucketId::Tenant(tenant) => shard.tenants.get(tenant).cloned(),
            BucketId::Custom(name) => shard.customs.get(name).cloned(),
        }
    }

    fn shard(&self, id: BucketId<'_>) -> &Mutex<Shard> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let hash = match id {
            BucketId::Family(family) => self.hasher.hash_one(family),
            BucketId::Tenant(tenant) => self.hasher.hash_one(tenant),
            BucketId::Custom(name) => self.hasher.hash_one(name),
        } as usize;
        &self.shards[hash % SHARDS]
    }

    /// The cell of a bucket: its slot's, or the map's, which is then put into the slot.
    fn find<'a>(&self, bucket: &LimitBucket<'a>, now: u64) -> Found<'a> {
        if let Some(cell) = bucket.slot.and_then(|slot| slot.get::<Cell>(self.id)) {
            return Found::Slot(cell);
        }
        let mut shard = self.shard(bucket.id).lock();
        if now >= shard.next_sweep {
            self.sweep(&mut shard, now);
        }
        let cell = match bucket.id {
            BucketId::Family(family) => of(&mut shard.families, family, || family.clone()),
            BucketId::Tenant(tenant) => of(&mut shard.tenants, tenant, || tenant.clone()),
            BucketId::Custom(name) => of(&mut shard.customs, name, || name.into()),
        };
        if let Some(slot) = bucket.slot {
            slot.fill(self.id, Arc::clone(&cell) as _);
        }
        Found::Map(cell)
    }

    /// Gives the cell recorders for these quotas, and forgets what is past.
    fn prepare(&self, state: &mut State, quotas: &Quotas, now: u64) -> Result<(), LimiterError> {
        match &state.quotas {
            Some(known) if known.is_same(quotas) => {}
            Some(known) if known == quotas => state.quotas = Some(quotas.clone()),
            Some(_) => state.take(quotas, now),
            None => {
                self.make_room(now)?;
                state.take(quotas, now);
            }
        }
        state.now = now;
        state.advance(now);
        Ok(())
    }

    /// Counts one more live cell, if there may be one.
    fn make_room(&self, now: u64) -> Result<(), LimiterError> {
        // Cells that are found through slots never come by the map, so whoever becomes live sweeps
        // a shard in passing.
        let next = self.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
        if let Some(mut shard) = self.shards[next].try_lock()
            && now >= shard.next_sweep
        {
            self.sweep(&mut shard, now);
        }
        let take = || {
            let more = |live: usize| (live < self.most).then_some(live + 1);
            self.live
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
        };
        if take() {
            return Ok(());
        }
        let due = self
            .next_full_sweep
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
                (now >= at).then_some(now.saturating_add(SWEEP_ALL_EVERY))
            });
        if due.is_ok() {
            for shard in &self.shards {
                if let Some(mut shard) = shard.try_lock() {
                    self.sweep(&mut shard, now);
                }
            }
        }
        if take() {
            Ok(())
        } else {
            Err(LimiterError::Full(self.most))
        }
    }

    /// Takes the recorders from idle cells, and cells without recorders out of the map where
    /// nothing points to them. Under the shard's lock nobody can begin to. Cells that are in use
    /// are passed over, so this waits for nobody.
    fn sweep(&self, shard: &mut Shard, now: u64) {
        shard.next_sweep = now.saturating_add(SWEEP_EVERY);
        let keep = |cell: &Arc<Cell>| {
            let Some(mut state) = cell.0.try_lock() else {
                return true;
            };
            if state.quotas.is_some() && state.idle_at < now {
                state.forget();
                self.live.fetch_sub(1, Ordering::Relaxed);
            }
            state.quotas.is_some() || Arc::strong_count(cell) > 1
        };
        shard.families.retain(|_, cell| keep(cell));
        shard.tenants.retain(|_, cell| keep(cell));
        shard.customs.retain(|_, cell| keep(cell));
    }
}

/// The cell under this key, made if there is none.
fn of<K, Q>(cells: &mut HashMap<K, Arc<Cell>>, key: &Q, owned: impl FnOnce() -> K) -> Arc<Cell>
where
    K: std::borrow::Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    match cells.get(key) {
        Some(cell) => Arc::clone(cell),
        None => Arc::clone(cells.entry(owned()).or_default()),
    }
}

#[async_trait]
impl RateLimiter for LocalLimiter {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.decide(request)
    }

    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        Some(self.decide(request))
    }

    /// Frees every idle bucket now. Requests that need room do it bit by bit.
    fn sweep(&self) {
        let now = nanos(self.inner.clock.monotonic());
        for shard in &self.inner.shards {
            self.inner.sweep(&mut shard.lock(), now);
        }
    }
}

impl fmt::Debug for LocalLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalLimiter({} live buckets)", self.live_buckets())
    }
}

/// Describes a [`LocalLimiter`].
#[derive(Debug)]
#[must_use = "a builder does nothing until build()"]
pub struct LocalLimiterBuilder {
    clock: Option<Arc<dyn Clock>>,
    most: usize,
}

impl LocalLimiterBuilder {
    /// The most live buckets, 250 000 unless set. At the default quotas a live bucket takes under
    /// 1.5 KiB.
    pub fn most_buckets(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Where the time comes from; the system's monotonic clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The limiter.
    #[must_use]
    pub fn build(self) -> LocalLimiter {
        static IDS: AtomicU64 = AtomicU64::new(0);
        LocalLimiter {
            inner: Arc::new(Inner {
                id: IDS.fetch_add(1, Ordering::Relaxed),
                clock: self
                    .clock
                    .unwrap_or_else(|| Arc::new(SystemClock::default())),
                hasher: RandomState::new(),
                shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
                live: AtomicUsize::new(0),
                most: self.most,
                next_shard: AtomicUsize::new(0),
                next_full_sweep: AtomicU64::new(0),
            }),
        }
    }
}
