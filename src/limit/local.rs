//! The in-process limiter: strict windows per bucket, with one lock per bucket.
//!
//! A bucket's cell is found through the slot in its cache entry, or in a sharded map. The limiter
//! owns the cells, so evicting the cache entry loses no counts. Idle cells are freed by requests
//! that add a cell, one shard at a time. At the cap, with all cells live, a new bucket of a key or
//! of its owner is an outage, and no cell is evicted; addresses have a cap of their own, beyond
//! which new ones share a cell (`overflow`).
//!
//! # Why at most N units are admitted in every interval of length W
//! 1. A bucket has a single cell, and a new one only once that is idle, or one that begins with all
//!    that it counted (`overflow`). A cell leaves the map only under the shard's lock, while no slot
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

mod builder;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::lock::{Mutex, MutexGuard};
use async_trait::async_trait;
use hashbrown::HashTable;
use smallvec::SmallVec;

pub use self::builder::LocalLimiterBuilder;
use super::cell::State;
use super::entry::{Cell, is_of_address};
use super::overflow::Overflow;
use super::window::nanos;
use super::{
    BucketId, Decision, LimitBucket, LimitRequest, LimiterError, RateLimiter, WindowState,
};
use crate::clock::Clock;

/// So many that the sweep of one, which a request may do, takes 50 µs with 250 000 buckets. That of all,
/// by the periodic jobs and at the cap, takes 25 ms.
const SHARDS: usize = 512;

/// The minimum interval between two sweeps of a shard by requests, in nanoseconds. Longer than that of
/// the periodic jobs of a service, so that its requests sweep only if those do not run.
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
    /// The number of cells with recorders, except those of addresses.
    live: AtomicUsize,
    /// The number of cells of addresses.
    addresses: AtomicUsize,
    overflow: Overflow,
    most: usize,
    most_addresses: usize,
    next_shard: AtomicUsize,
    next_full_sweep: AtomicU64,
}

#[derive(Default)]
struct Shard {
    cells: HashTable<Arc<Cell>>,
    /// The time of the latest sweep.
    swept: u64,
    next_sweep: u64,
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
            most_addresses: None,
        }
    }

    /// Returns the number of live buckets: those that admitted a request within their widest window
    /// or have not been swept since.
    #[must_use]
    pub fn live_buckets(&self) -> usize {
        let of_addresses = self.inner.addresses.load(Ordering::Relaxed);
        self.inner.live.load(Ordering::Relaxed) + of_addresses
    }

    /// Admits or refuses a request without waiting.
    pub(crate) fn decide(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        check(request)?;
        let now = nanos(self.inner.clock.monotonic());
        let inner = &*self.inner;
        // Usually the cells are in slots. Those of a request are locked in the order of their kinds
        // and classes, one cell of each, so requests cannot deadlock.
        let buckets = request.buckets;
        if let [a] = buckets
            && let Some(a) = inner.in_slot(a)
        {
            return inner.settle(&mut [a.state.lock()], request, now);
        }
        if let [a, b] = buckets
            && let (Some(a), Some(b)) = (inner.in_slot(a), inner.in_slot(b))
        {
            return inner.settle(&mut [a.state.lock(), b.state.lock()], request, now);
        }
        let cells = buckets.iter().map(|bucket| inner.find(bucket, now));
        let cells: SmallVec<[_; 4]> = cells.collect();
        let states = cells.iter().map(|cell| cell.state.lock());
        let mut states: SmallVec<[_; 4]> = states.collect();
        inner.settle(&mut states, request, now)
    }

    /// Returns the state of each window. Cells are copied: what the reading does with a copy changes
    /// none, and only one is locked at a time.
    fn read(&self, request: &LimitRequest<'_>) -> Vec<WindowState> {
        let buckets = request.buckets.iter();
        let copies: Vec<State> = buckets.map(|bucket| self.inner.copied(bucket)).collect();
        let now = nanos(self.inner.clock.monotonic());
        let now = copies.iter().fold(now, |now, state| now.max(state.now));
        let copies = copies.into_iter().zip(request.buckets);
        let windows = copies.flat_map(|(state, bucket)| state.read(bucket.quotas, now));
        windows.collect()
    }

    /// Returns how long one unit would have to wait, without taking it; zero if it would pass.
    /// `None` if the bucket is unknown or was last used with other quotas.
    #[must_use]
    pub fn wait(&self, bucket: &LimitBucket<'_>) -> Option<Duration> {
        let now = nanos(self.inner.clock.monotonic());
        let cell = self.inner.known(bucket)?;
        let mut state = cell.state.lock();
        let now = now.max(state.now);
        if state.quotas.as_ref() != Some(bucket.quotas) {
            return None;
        }
        Some(Duration::from_nanos(state.wait(now, 1)))
    }
}

fn decision(wait: u64, request: &LimitRequest<'_>) -> Decision {
    if wait == 0 || request.overdraw {
        Decision::admitted()
    } else {
        Decision::refused(Duration::from_nanos(wait))
    }
}

/// Increments a count, unless it is at its maximum.
fn one_more(count: &AtomicUsize, most: usize) -> bool {
    let more = |count: usize| (count < most).then_some(count + 1);
    let order = Ordering::Relaxed;
    count.fetch_update(order, order, more).is_ok()
}

/// Rejects requests that could never pass, and those that would lock a cell twice.
fn check(request: &LimitRequest<'_>) -> Result<(), LimiterError> {
    // A quota is at least 1.
    if request.cost != 1 {
        let least = request.buckets.iter().map(|bucket| bucket.quotas.least());
        let least = least.min().unwrap_or(u64::MAX);
        if request.cost == 0 || (request.cost > least && !request.overdraw) {
            return Err(LimiterError::Cost {
                cost: request.cost,
                limit: least,
            });
        }
    }
    let order = |bucket: &LimitBucket<'_>, next: &LimitBucket<'_>| {
        let kinds = (bucket.id.kind(), next.id.kind());
        kinds.0 < kinds.1 || (kinds.0 == kinds.1 && bucket.class < next.class)
    };
    if request.buckets.is_sorted_by(order) {
        Ok(())
    } else {
        let why = "buckets must be at most one of each kind and class, in the order of BucketId";
        Err(LimiterError::Unavailable(why.into()))
    }
}

impl Inner {
    /// Decides about a request whose cells are all locked.
    #[inline(always)] // For the known number of cells.
    fn settle(
        &self,
        states: &mut [MutexGuard<'_, State>],
        request: &LimitRequest<'_>,
        now: u64,
    ) -> Result<Decision, LimiterError> {
        let now = states.iter().fold(now, |now, state| now.max(state.now));
        // An overdraft waits for nothing, and may be more than any number of past units.
        let asked = if request.overdraw { 0 } else { request.cost };
        let mut wait = 0;
        for (state, bucket) in states.iter_mut().zip(request.buckets) {
            let known = state.quotas.as_ref();
            if !known.is_some_and(|known| known.is_same(bucket.quotas)) {
                self.prepare(state, bucket, now)?;
            }
            wait = wait.max(state.wait(now, asked));
        }
        let mut decision = decision(wait, request);
        for state in states {
            state.settle(&mut decision, now, request.cost);
        }
        Ok(decision)
    }

    /// Returns the bucket's cell, if it has one.
    fn known<'a>(&self, bucket: &LimitBucket<'a>) -> Option<Found<'a>> {
        if let Some(cell) = self.in_slot(bucket) {
            return Some(Found::Slot(cell));
        }
        let hash = self.hash(bucket.id, bucket.class);
        let shard = self.shard(hash).lock();
        let found = shard.cells.find(hash, |cell| cell.is_of(bucket));
        found.map(|cell| Found::Map(Arc::clone(cell)))
    }

    /// Returns a copy of what a request would find; empty for a bucket without a cell.
    fn copied(&self, bucket: &LimitBucket<'_>) -> State {
        match self.known(bucket) {
            Some(cell) => cell.state.lock().clone(),
            None if is_of_address(bucket.id) => self.overflow.read(bucket),
            None => State::default(),
        }
    }

    fn hash(&self, id: BucketId<'_>, class: Option<&str>) -> u64 {
        self.hasher.hash_one((id, class))
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // Not the bits that the table of a shard uses.
        let place = (hash >> 32) as usize % SHARDS;
        &self.shards[place]
    }

    #[inline]
    fn in_slot<'a>(&self, bucket: &LimitBucket<'a>) -> Option<&'a Cell> {
        bucket.slot?.cell(self.id)
    }

    /// Returns the bucket's cell: from its slot, or from the map, in which case the slot is filled.
    fn find<'a>(&self, bucket: &LimitBucket<'a>, now: u64) -> Found<'a> {
        match self.in_slot(bucket) {
            Some(cell) => Found::Slot(cell),
            None => Found::Map(self.look_up(bucket, now)),
        }
    }

    fn look_up(&self, bucket: &LimitBucket<'_>, now: u64) -> Arc<Cell> {
        let hash = self.hash(bucket.id, bucket.class);
        let mut swept = false;
        let cell = loop {
            let mut shard = self.shard(hash).lock();
            if now >= shard.next_sweep {
                self.sweep(&mut shard, now);
            }
            if let Some(cell) = shard.cells.find(hash, |cell| cell.is_of(bucket)) {
                break Arc::clone(cell);
            }
            let mut state = State::default();
            if is_of_address(bucket.id) {
                if !one_more(&self.addresses, self.most_addresses) {
                    if swept {
                        break self.overflow.shared(bucket, shard.swept);
                    }
                    swept = true;
                    drop(shard);
                    self.sweep_all(now);
                    continue;
                }
                match self.overflow.copied(bucket, now) {
                    Some(copied) => state = copied,
                    None => {
                        self.addresses.fetch_sub(1, Ordering::Relaxed);
                        break self.overflow.shared(bucket, shard.swept);
                    }
                }
            }
            state.now = state.now.max(shard.swept);
            let cell = Arc::new(Cell::new(bucket, state));
            let rehash = |cell: &Arc<Cell>| self.hash(cell.id(), cell.class());
            shard.cells.insert_unique(hash, Arc::clone(&cell), rehash);
            break cell;
        };
        if let Some(slot) = bucket.slot {
            slot.fill_with_cell(self.id, Arc::clone(&cell));
        }
        cell
    }

    /// Prepares the cell for these quotas, which are not the very list that it was last used with.
    fn prepare(
        &self,
        state: &mut State,
        bucket: &LimitBucket<'_>,
        now: u64,
    ) -> Result<(), LimiterError> {
        let quotas = bucket.quotas;
        match &state.quotas {
            Some(known) if known == quotas => state.quotas = Some(quotas.clone()),
            Some(_) => state.take(quotas, now),
            None => {
                if !is_of_address(bucket.id) {
                    self.reserve_cell(now)?;
                }
                state.take(quotas, now);
            }
        }
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
        let take = || one_more(&self.live, self.most);
        if take() || (self.sweep_all(now) && take()) {
            return Ok(());
        }
        Err(LimiterError::Full(self.most))
    }

    /// Sweeps all shards that are not locked, unless this was done a moment ago.
    fn sweep_all(&self, now: u64) -> bool {
        let due = |at| (now >= at).then_some(now.saturating_add(SWEEP_ALL_EVERY));
        let order = Ordering::Relaxed;
        let is_due = self.next_full_sweep.fetch_update(order, order, due).is_ok();
        if is_due {
            for shard in &self.shards {
                if let Some(mut shard) = shard.try_lock() {
                    self.sweep(&mut shard, now);
                }
            }
        }
        is_due
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
        shard.cells.retain(|cell| {
            let Some(mut state) = cell.state.try_lock() else {
                return true;
            };
            let of_address = is_of_address(cell.id());
            if state.quotas.is_some() && state.is_idle(now) {
                state.forget();
                state.now = state.now.max(now);
                if !of_address {
                    self.live.fetch_sub(1, Ordering::Relaxed);
                }
            }
            let stays = state.quotas.is_some() || Arc::strong_count(cell) > 1;
            if of_address && !stays {
                self.addresses.fetch_sub(1, Ordering::Relaxed);
            }
            stays
        });
    }
}

#[async_trait]
impl RateLimiter for LocalLimiter {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.decide(request)
    }

    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        Ok(Some(self.read(request)))
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
