//! The in-process limiter: strict windows per bucket, with one lock per bucket.
//!
//! A bucket's cell is found through the slot in its cache entry, or in a sharded map. The limiter
//! owns the cells, so evicting the cache entry loses no counts. Idle cells are freed by requests
//! that add a cell, one shard at a time. At the cap, with all cells live, a new bucket is an
//! outage, and no cell is evicted.
//!
//! # Why at most N units are admitted in every interval of length W
//! 1. A bucket has a single cell. A cell leaves the map only under the shard's lock, while no slot
//!    and no request holds it. Decisions are made and recorded under the cell's lock, at a time
//!    that is never before that of an earlier decision (`State::now`).
//! 2. At time t, the recorder counts at least the units admitted in `[t - W, t]` (see `window`),
//!    and a request is admitted only if this count plus its cost is at most N.
//! 3. In any interval of length W, both ends included, let t be the time of the last admission. All
//!    others in it are in `[t - W, t]` and were recorded before, so they were counted: at most N.
//! 4. With several windows and buckets, all cells are locked together, a request is admitted only
//!    if it fits everywhere, and a refusal records nothing.
//! 5. Counts are freed only once the cell was idle for longer than its widest window. A quota that
//!    is changed starts with all units that the former windows still hold.

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

/// The minimum interval between two sweeps of a shard by requests, in nanoseconds.
const SWEEP_EVERY: u64 = 30_000_000_000;

/// The minimum interval between two sweeps of all shards at the cap, in nanoseconds.
const SWEEP_ALL_EVERY: u64 = 1_000_000_000;

/// An in-memory [`RateLimiter`]. Clones share the counts.
#[derive(Clone)]
pub struct LocalLimiter {
    inner: Arc<Inner>,
}

struct Inner {
    /// Unique in the process; identifies this limiter's entries in slots.
    id: u64,
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// The number of cells with recorders.
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
    /// The time of the latest sweep.
    swept: u64,
    next_sweep: u64,
}

/// One bucket.
#[derive(Default)]
struct Cell(Mutex<State>);

impl Cell {
    /// Creates a cell whose time is not before this one.
    fn not_before(now: u64) -> Self {
        let cell = Self::default();
        cell.0.lock().now = now;
        cell
    }
}

/// A cell, found in a slot or in the map.
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
    /// Starts building a limiter.
    pub fn builder() -> LocalLimiterBuilder {
        LocalLimiterBuilder {
            clock: None,
            most: 250_000,
        }
    }

    /// Returns the number of live buckets: those that admitted a request within their widest window
    /// or have not been swept since.
    #[must_use]
    pub fn live_buckets(&self) -> usize {
        self.inner.live.load(Ordering::Relaxed)
    }

    /// Admits or refuses a request without waiting.
    pub(crate) fn decide(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        check(request)?;
        let now = nanos(self.inner.clock.monotonic());
        // Fast path: a single bucket needs no lists.
        if let [bucket] = request.buckets {
            let cell = self.inner.find(bucket, now);
            let mut state = cell.0.lock();
            let now = now.max(state.now);
            self.inner.prepare(&mut state, bucket.quotas, now)?;
            let wait = state.wait(bucket.quotas, now, request.cost);
            if wait == 0 {
                state.admit(now, request.cost);
            }
            return Ok(state.report(decision(wait), bucket.quotas, now, request.cost));
        }
        let cells: SmallVec<[Found<'_>; 3]> = request
            .buckets
            .iter()
            .map(|bucket| self.inner.find(bucket, now))
            .collect();
        // Locked in the order of their kinds, one cell of each kind, so requests cannot deadlock.
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
        let mut decision = decision(wait);
        for (state, bucket) in states.iter_mut().zip(request.buckets) {
            if wait == 0 {
                state.admit(now, request.cost);
            }
            decision = state.report(decision, bucket.quotas, now, request.cost);
        }
        Ok(decision)
    }

    /// Returns how long one unit would have to wait, without taking it; zero if it would pass.
    /// `None` if the bucket is unknown or was last used with other quotas.
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

/// Rejects requests that could never pass, and those that would lock a cell twice.
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
            "buckets must be at most one of each kind, in the order of BucketId".into(),
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

    /// Returns the bucket's cell: from its slot, or from the map, in which case the slot is filled.
    fn find<'a>(&self, bucket: &LimitBucket<'a>, now: u64) -> Found<'a> {
        if let Some(cell) = bucket.slot.and_then(|slot| slot.get::<Cell>(self.id)) {
            return Found::Slot(cell);
        }
        let mut shard = self.shard(bucket.id).lock();
        if now >= shard.next_sweep {
            self.sweep(&mut shard, now);
        }
        let swept = shard.swept;
        let cell = match bucket.id {
            BucketId::Family(id) => of(&mut shard.families, id, swept, || id.clone()),
            BucketId::Tenant(id) => of(&mut shard.tenants, id, swept, || id.clone()),
            BucketId::Custom(name) => of(&mut shard.customs, name, swept, || name.into()),
        };
        if let Some(slot) = bucket.slot {
            slot.fill(self.id, Arc::clone(&cell) as _);
        }
        Found::Map(cell)
    }

    /// Prepares the cell for these quotas, and drops the units that are past.
    fn prepare(&self, state: &mut State, quotas: &Quotas, now: u64) -> Result<(), LimiterError> {
        match &state.quotas {
            Some(known) if known.is_same(quotas) => {}
            Some(known) if known == quotas => state.quotas = Some(quotas.clone()),
            Some(_) => state.take(quotas, now),
            None => {
                self.reserve_cell(now)?;
                state.take(quotas, now);
            }
        }
        state.now = now;
        state.advance(now);
        Ok(())
    }

    /// Counts one more live cell, unless the limiter is full.
    fn reserve_cell(&self, now: u64) -> Result<(), LimiterError> {
        // Cells found through slots bypass the map and its sweeps, so a cell that becomes live
        // sweeps the next shard.
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

    /// Frees the recorders of idle cells, and removes cells without recorders from the map unless
    /// something else refers to them. While the shard is locked, no new reference can be created.
    /// Cells that are locked are skipped, so this never waits for a request.
    ///
    /// A request may have read the clock before this sweep did, and come to its cell after it. It
    /// must not be dated before the sweep, because the units that it would then have to count are
    /// freed: the cell keeps the time of the sweep, and so does the shard for cells that are removed
    /// and created again.
    fn sweep(&self, shard: &mut Shard, now: u64) {
        shard.swept = shard.swept.max(now);
        shard.next_sweep = now.saturating_add(SWEEP_EVERY);
        let keep = |cell: &Arc<Cell>| {
            let Some(mut state) = cell.0.try_lock() else {
                return true;
            };
            if state.quotas.is_some() && state.idle_at < now {
                state.forget();
                state.now = state.now.max(now);
                self.live.fetch_sub(1, Ordering::Relaxed);
            }
            state.quotas.is_some() || Arc::strong_count(cell) > 1
        };
        shard.families.retain(|_, cell| keep(cell));
        shard.tenants.retain(|_, cell| keep(cell));
        shard.customs.retain(|_, cell| keep(cell));
    }
}

/// Returns the cell under this key, created if missing: not before the latest sweep.
fn of<K, Q>(
    cells: &mut HashMap<K, Arc<Cell>>,
    key: &Q,
    swept: u64,
    owned: impl FnOnce() -> K,
) -> Arc<Cell>
where
    K: std::borrow::Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    match cells.get(key) {
        Some(cell) => Arc::clone(cell),
        None => {
            let new = || Arc::new(Cell::not_before(swept));
            Arc::clone(cells.entry(owned()).or_insert_with(new))
        }
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

    /// Frees all idle buckets now. Requests that add a bucket do the same, one shard at a time.
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

/// Builder for [`LocalLimiter`].
#[derive(Debug)]
#[must_use = "a builder does nothing until build()"]
pub struct LocalLimiterBuilder {
    clock: Option<Arc<dyn Clock>>,
    most: usize,
}

impl LocalLimiterBuilder {
    /// Sets the maximum number of live buckets; 250 000 by default. With the default quotas, a live
    /// bucket takes less than 1.5 KiB.
    pub fn most_buckets(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Sets the clock; the system's monotonic clock by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Builds the limiter.
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
