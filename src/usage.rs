//! How often and when keys are used: counted in memory without waiting, written to the store in
//! batches.
//!
//! Each key has one cell of atomics, which the authenticator's entry for the key points to;
//! counting takes no lock and no look-up. A flush takes what was counted, and puts it back if the
//! store does not take it. A crash loses what was counted since the last flush and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::key::KeyId;
use crate::store::{KeyStore, StoreError, UsageDelta};

/// Counts the use of keys. Cloning shares the counts.
#[derive(Clone, Default)]
pub struct UsageRecorder {
    cells: Arc<Mutex<HashMap<KeyId, Arc<UsageCell>>>>,
}

/// The counts of one key since the last flush.
#[derive(Debug, Default)]
pub(crate) struct UsageCell {
    count: AtomicU64,
    /// Milliseconds since the epoch.
    last_used: AtomicU64,
    last_ip: Mutex<Option<IpAddr>>,
}

impl UsageCell {
    /// Counts one use.
    pub(crate) fn count(&self, now: SystemTime, ip: Option<IpAddr>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last_used.fetch_max(millis(now), Ordering::Relaxed);
        // Held for a copy of 17 bytes; whoever finds it taken leaves the address to the other.
        if ip.is_some()
            && let Ok(mut last) = self.last_ip.try_lock()
        {
            *last = ip;
        }
    }

    fn take(&self, id: &KeyId) -> Option<UsageDelta> {
        let count = self.count.swap(0, Ordering::Relaxed);
        let ip = *self.last_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let last =
            SystemTime::UNIX_EPOCH + Duration::from_millis(self.last_used.load(Ordering::Relaxed));
        (count > 0).then(|| UsageDelta::new(id.clone(), count, last, ip))
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl UsageRecorder {
    /// The cell of a key, to be kept as long as the key is in use.
    pub(crate) fn cell(&self, id: &KeyId) -> Arc<UsageCell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(id) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(UsageCell::default());
        cells.insert(id.clone(), Arc::clone(&cell));
        cell
    }

    /// Writes what was counted since the last flush. Call it on an interval, and before the process
    /// ends.
    ///
    /// # Errors
    /// Where the store does not take it; the counts are kept and go with the next flush.
    pub async fn flush(&self, store: &dyn KeyStore) -> Result<(), StoreError> {
        let taken = self.take();
        if taken.is_empty() {
            return Ok(());
        }
        store
            .record_usage(&taken)
            .await
            .inspect_err(|_| self.put_back(&taken))
    }

    fn take(&self) -> Vec<UsageDelta> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        cells.retain(|id, cell| {
            // First whether anybody else holds it: under the lock nobody can begin to.
            let idle = Arc::strong_count(cell) == 1;
            taken.extend(cell.take(id));
            !idle
        });
        taken
    }

    fn put_back(&self, deltas: &[UsageDelta]) {
        for delta in deltas {
            let cell = self.cell(&delta.id);
            cell.count.fetch_add(delta.count, Ordering::Relaxed);
            cell.last_used
                .fetch_max(millis(delta.last_used_at), Ordering::Relaxed);
            let mut last = cell.last_ip.lock().unwrap_or_else(PoisonError::into_inner);
            *last = last.or(delta.last_ip);
        }
    }
}

impl fmt::Debug for UsageRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageRecorder")
    }
}
