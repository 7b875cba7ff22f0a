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
    /// Milliseconds since the epoch, of the last use that was counted; 0 before the first. A flush
    /// leaves it as it is.
    last_used: AtomicU64,
    last_ip: Mutex<Option<IpAddr>>,
}

impl UsageCell {
    /// Counts one use.
    pub(crate) fn count(&self, now: SystemTime, ip: Option<IpAddr>) {
        // The time first: whoever sees the count sees a time that belongs to it. And the time of
        // the last use that was counted, not the latest of all: a clock that was ahead is not
        // believed for longer than until the next use.
        self.last_used.store(millis(now), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
        // Held for a copy of 17 bytes; whoever finds it taken leaves the address to the other.
        if ip.is_some()
            && let Ok(mut last) = self.last_ip.try_lock()
        {
            *last = ip;
        }
    }

    fn take(&self, id: &KeyId) -> Option<UsageDelta> {
        let count = self.count.swap(0, Ordering::Acquire);
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
            // A cell that is there still has the time, or a later use's.
            let last = millis(delta.last_used_at);
            let _ = cell
                .last_used
                .compare_exchange(0, last, Ordering::Relaxed, Ordering::Relaxed);
            cell.count.fetch_add(delta.count, Ordering::Release);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_in_the_middle_of_a_count_knows_when_the_key_was_used() {
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let uses = 20_000;
        std::thread::scope(|scope| {
            let cell = usage.cell(&id);
            let counting = scope.spawn(move || (0..uses).for_each(|_| cell.count(now, None)));
            let mut counted = 0;
            while counted < uses {
                let over = counting.is_finished();
                for delta in usage.take() {
                    assert_eq!(delta.last_used_at, now);
                    counted += delta.count;
                }
                assert!(counted == uses || !over, "{counted}");
            }
        });
    }

    #[test]
    fn what_is_put_back_never_hides_a_later_use() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        usage.cell(&id).count(at(100), None);
        let taken = usage.take();
        usage.cell(&id).count(at(200), None);
        usage.put_back(&taken);
        let again = usage.take();
        assert_eq!((again[0].count, again[0].last_used_at), (2, at(200)));
        // And is known where the cell is gone meanwhile.
        usage.put_back(&taken);
        let again = usage.take();
        assert_eq!((again[0].count, again[0].last_used_at), (1, at(100)));
    }
}
