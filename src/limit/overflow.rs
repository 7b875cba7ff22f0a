//! The cells that client addresses share while the in-process limiter has no room for more of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::lock::Mutex;

use super::cell::State;
use super::entry::Cell;
use super::{BucketId, LimitBucket};

/// One cell for each kind and class of buckets of addresses. While it is in use, an address that
/// gets a cell of its own begins with all that the shared cell counts, so it has no second
/// allowance.
///
/// The caller holds the lock of the address's shard, so these calls have an order for each address.
#[derive(Default)]
pub(super) struct Overflow {
    is_used: AtomicBool,
    cells: Mutex<Vec<Shared>>,
    /// The latest time at which a cell was dropped. No later cell may be dated before it.
    dropped: AtomicU64,
}

struct Shared {
    anonymous: bool,
    class: Option<Box<str>>,
    cell: Arc<Cell>,
}

impl Shared {
    fn is_for(&self, bucket: &LimitBucket<'_>) -> bool {
        self.anonymous == is_anonymous(bucket) && self.class.as_deref() == bucket.class
    }

    /// Whether a request uses the cell now, and may not have been counted yet.
    fn is_busy(&self) -> bool {
        let is_busy = Arc::strong_count(&self.cell) > 1;
        // What follows sees all that the last of those requests did.
        fence(Ordering::Acquire);
        is_busy
    }
}

impl Overflow {
    /// Returns a copy of the shared cell for an address that gets a cell of its own; `None` if it
    /// must use the shared one. The copy is empty if there is no shared cell.
    pub(super) fn copied(&self, bucket: &LimitBucket<'_>, now: u64) -> Option<State> {
        if !self.is_used.load(Ordering::Acquire) {
            return Some(self.empty(now));
        }
        let mut cells = self.cells.lock();
        cells.retain(|shared| {
            let is_past = !shared.is_busy() && shared.cell.state.lock().is_idle(now);
            if is_past {
                self.dropped.fetch_max(now, Ordering::AcqRel);
            }
            !is_past
        });
        self.is_used.store(!cells.is_empty(), Ordering::Release);
        match cells.iter().find(|shared| shared.is_for(bucket)) {
            Some(shared) if shared.is_busy() => None,
            Some(shared) => Some(shared.cell.state.lock().clone()),
            None => Some(self.empty(now)),
        }
    }

    /// Returns the shared cell, which is then in use, dated no earlier than `swept`: the time until
    /// which what addresses had in cells of their own may be forgotten.
    pub(super) fn shared(&self, bucket: &LimitBucket<'_>, swept: u64) -> Arc<Cell> {
        let mut cells = self.cells.lock();
        self.is_used.store(true, Ordering::Release);
        let known = cells.iter().find(|shared| shared.is_for(bucket));
        let cell = match known {
            Some(shared) => Arc::clone(&shared.cell),
            None => {
                let cell = Arc::new(Cell::new(bucket, State::default()));
                cells.push(Shared {
                    anonymous: is_anonymous(bucket),
                    class: bucket.class.map(Into::into),
                    cell: Arc::clone(&cell),
                });
                cell
            }
        };
        let earliest = swept.max(self.dropped.load(Ordering::Acquire));
        let mut state = cell.state.lock();
        state.now = state.now.max(earliest);
        drop(state);
        cell
    }

    /// Returns a copy of the shared cell that an address without a cell would use, or begin with.
    pub(super) fn read(&self, bucket: &LimitBucket<'_>) -> State {
        let cells = self.cells.lock();
        let shared = cells.iter().find(|shared| shared.is_for(bucket));
        shared.map_or_else(State::default, |shared| shared.cell.state.lock().clone())
    }

    fn empty(&self, now: u64) -> State {
        State::not_before(now.max(self.dropped.load(Ordering::Acquire)))
    }
}

const fn is_anonymous(bucket: &LimitBucket<'_>) -> bool {
    matches!(bucket.id, BucketId::Anonymous(_))
}
