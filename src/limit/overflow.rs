//! The cells that client addresses share while the in-process limiter has no room for more of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use parking_lot::Mutex;

use super::local::Cell;
use super::{BucketId, LimitBucket};

/// One cell for each kind and class of buckets of addresses. All new addresses use it until it is
/// idle, so an address that was counted here gets no second allowance in a cell of its own.
///
/// The caller holds the lock of the address's shard, so these calls have an order for each address.
#[derive(Default)]
pub(super) struct Overflow {
    is_used: AtomicBool,
    cells: Mutex<Vec<Shared>>,
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

    /// Returns whether a request uses the cell, or it counts units.
    fn is_live(&self, now: u64) -> bool {
        if Arc::strong_count(&self.cell) > 1 {
            return true;
        }
        // After the end of the last request that used the cell.
        fence(Ordering::Acquire);
        self.cell.0.lock().idle_at >= now
    }
}

impl Overflow {
    /// Returns the shared cell for this bucket if it is in use.
    pub(super) fn in_use(&self, bucket: &LimitBucket<'_>, now: u64) -> Option<Arc<Cell>> {
        if !self.is_used.load(Ordering::Acquire) {
            return None;
        }
        let mut cells = self.cells.lock();
        cells.retain(|shared| shared.is_live(now));
        self.is_used.store(!cells.is_empty(), Ordering::Release);
        let shared = cells.iter().find(|shared| shared.is_for(bucket))?;
        Some(Arc::clone(&shared.cell))
    }

    /// Returns the shared cell for this bucket, which is then in use.
    pub(super) fn cell(&self, bucket: &LimitBucket<'_>) -> Arc<Cell> {
        let mut cells = self.cells.lock();
        self.is_used.store(true, Ordering::Release);
        if let Some(shared) = cells.iter().find(|shared| shared.is_for(bucket)) {
            return Arc::clone(&shared.cell);
        }
        let cell = Arc::<Cell>::default();
        cells.push(Shared {
            anonymous: is_anonymous(bucket),
            class: bucket.class.map(Into::into),
            cell: Arc::clone(&cell),
        });
        cell
    }
}

const fn is_anonymous(bucket: &LimitBucket<'_>) -> bool {
    matches!(bucket.id, BucketId::Anonymous(_))
}
