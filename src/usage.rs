//! Usage counts of keys, kept in memory without waiting and written to the store in batches.
//!
//! Each key has one cell of atomics, to which the authenticator's entry for the key points;
//! counting takes no lock and no lookup. A flush subtracts counts only after the store has accepted
//! them: a flush that fails or is dropped leaves every count unchanged. A crash loses only what was
//! counted since the last flush.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::entry::UsageCell;
use crate::key::KeyId;
use crate::lock::{Mutex, MutexGuard};
use crate::store::{StoreError, UsageDelta, UsageStore};
use crate::telemetry;

/// The maximum number of keys per call of the store, whose other writes wait in the meantime.
const MOST_AT_ONCE: usize = 1000;

/// The maximum number of keys that are counted at once: those in use, and those with unwritten
/// uses.
const MOST_KEYS: usize = 1_000_000;
/// The maximum size of their cells, in bytes.
const MOST_BYTES: usize = 256 << 20;

/// The periodic jobs must run within this time after the first use.
const JOBS_WITHIN: Duration = Duration::from_secs(10);

/// Counts the uses of keys. Clones share the counts.
#[derive(Clone, Default)]
pub struct UsageRecorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cells: Mutex<Cells>,
    /// Held by the running flush.
    flushing: futures_util::lock::Mutex<()>,
    /// The number of uses written.
    written: AtomicU64,
    watch: Watch,
}

/// Detects that the periodic jobs are not running.
#[derive(Default)]
struct Watch {
    /// Whether there are jobs that have not run yet.
    awaits_jobs: AtomicBool,
    /// The first use since the jobs are expected: monotonic milliseconds plus one, or 0.
    first_use: AtomicU64,
    /// When to look at the monotonic clock again, in milliseconds of the time of day.
    look_at: AtomicU64,
    clock: OnceLock<Arc<dyn Clock>>,
}

impl Watch {
    /// Called for each admitted request, at this time of day. Logs once if the jobs have not run ten
    /// seconds after the first request.
    fn authenticated(&self, time_of_day: u64) {
        let relaxed = Ordering::Relaxed;
        if time_of_day < self.look_at.load(relaxed) {
            return;
        }
        let Some(clock) = self.clock.get().filter(|_| self.awaits_jobs.load(relaxed)) else {
            return;
        };
        // Not each time: the exact clock takes longer than the rest of the count.
        self.look_at
            .store(time_of_day.saturating_add(1000), relaxed);
        let now = clock.monotonic().as_millis();
        let stamp = u64::try_from(now).unwrap_or(u64::MAX - 1) + 1;
        let first = self.first_use.compare_exchange(0, stamp, relaxed, relaxed);
        let waited = first.map_or_else(|first| stamp.saturating_sub(first), |_| 0);
        if Duration::from_millis(waited) >= JOBS_WITHIN && self.awaits_jobs.swap(false, relaxed) {
            telemetry::jobs_are_not_run();
        }
    }
}

struct Cells {
    by_id: HashMap<KeyId, Arc<UsageCell>>,
    /// Returns the memory size of a cell with its id, in bytes.
    bytes: usize,
    most_keys: usize,
    /// Counts the uses for which there is no capacity.
    lost: Arc<UsageCell>,
    /// How often a flush has subtracted what it wrote.
    flushes: u64,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            bytes: 0,
            most_keys: MOST_KEYS,
            lost: Arc::default(),
            flushes: 0,
        }
    }
}

impl Cells {
    fn bytes_of(id: &KeyId) -> usize {
        size_of::<(KeyId, Arc<UsageCell>)>() + size_of::<UsageCell>() + id.as_str().len()
    }
}

/// Returns the unwritten uses of a key, if there are any.
fn unwritten(id: &KeyId, cell: &UsageCell) -> Option<UsageDelta> {
    let (count, last, ip) = cell.unwritten();
    (count > 0).then(|| UsageDelta::new(id.clone(), count, last, ip))
}

impl UsageRecorder {
    /// Returns the cell of a key, to be kept while the key is in use.
    pub(crate) fn cell(&self, id: &KeyId) -> Arc<UsageCell> {
        let mut cells = self.cells();
        if let Some(cell) = cells.by_id.get(id) {
            return Arc::clone(cell);
        }
        let bytes = Cells::bytes_of(id);
        if cells.by_id.len() >= cells.most_keys || cells.bytes + bytes > MOST_BYTES {
            return Arc::clone(&cells.lost);
        }
        let cell = Arc::new(UsageCell::default());
        cells.bytes += bytes;
        cells.by_id.insert(id.clone(), Arc::clone(&cell));
        cell
    }

    /// Counts one use of a key at this time, in milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn count(&self, cell: &UsageCell, now: u64, ip: Option<IpAddr>) {
        cell.count(now, ip);
        if self.shared.watch.awaits_jobs.load(Ordering::Relaxed) {
            self.shared.watch.authenticated(now);
        }
    }

    /// Expects the periodic jobs to run from now on.
    pub(crate) fn await_jobs(&self, clock: &Arc<dyn Clock>) {
        let watch = &self.shared.watch;
        let _ = watch.clock.set(Arc::clone(clock));
        watch.awaits_jobs.store(true, Ordering::Relaxed);
    }

    /// Records that the periodic jobs run.
    pub(crate) fn jobs_are_run(&self) {
        let awaits = &self.shared.watch.awaits_jobs;
        awaits.store(false, Ordering::Relaxed);
    }

    /// Writes what was counted since the last flush, after any other running flush. Call it on an
    /// interval and before the process exits.
    ///
    /// Dropping the future loses no count. If the store has already accepted the batch by then, it
    /// receives the same counts again.
    ///
    /// # Errors
    /// Returns an error if the store does not accept a batch of up to a thousand keys; the counts
    /// that it has not accepted are kept for the next flush.
    pub async fn flush(&self, store: &dyn UsageStore) -> Result<(), StoreError> {
        let _turn = self.shared.flushing.lock().await;
        for part in self.counted().chunks(MOST_AT_ONCE) {
            store.record_usage(part).await?;
            self.written(part);
        }
        self.tidy();
        Ok(())
    }

    /// Returns what is not written yet, in the order of the ids: a database then writes the rows of a
    /// part next to each other, rather than a page for each.
    fn counted(&self) -> Vec<UsageDelta> {
        let mut counted: Vec<_> = {
            let cells = self.cells();
            let unwritten = |(id, cell): (&KeyId, &Arc<UsageCell>)| unwritten(id, cell);
            cells.by_id.iter().filter_map(unwritten).collect()
        };
        counted.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        counted
    }

    /// Returns how many counted uses are not written yet. After the last flush before the process
    /// exits, these are lost.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let cells = self.cells();
        let count = |cell: &Arc<UsageCell>| cell.pending();
        cells.by_id.values().map(count).sum()
    }

    /// Returns how many uses have been written so far.
    pub(crate) fn flushed(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Returns how many uses have been lost so far because too many keys were in use.
    pub(crate) fn lost(&self) -> u64 {
        self.cells().lost.pending()
    }

    /// Subtracts what the store has accepted.
    fn written(&self, deltas: &[UsageDelta]) {
        let mut cells = self.cells();
        for delta in deltas {
            if let Some(cell) = cells.by_id.get(&delta.id) {
                cell.written(delta.count);
            }
            let written = &self.shared.written;
            written.fetch_add(delta.count, Ordering::Relaxed);
        }
        cells.flushes += 1;
    }

    /// Removes the cells that are no longer needed.
    fn tidy(&self) {
        let mut cells = self.cells();
        let Cells { by_id, bytes, .. } = &mut *cells;
        // The reference count is checked first: a new reference is only made under this lock.
        by_id.retain(|id, cell| {
            let stays = Arc::strong_count(cell) > 1 || cell.pending() > 0;
            if !stays {
                *bytes -= Cells::bytes_of(id);
            }
            stays
        });
    }

    /// Begins to read the store's counts of some keys, to which the unwritten counts are added.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading {
            usage: self,
            flushes: self.cells().flushes,
            attempts: 0,
        }
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.shared.cells.lock()
    }
}

/// A read of the store's counts together with the unwritten ones.
pub(crate) struct Reading<'a> {
    usage: &'a UsageRecorder,
    /// How many flushes had ended before the store was queried.
    flushes: u64,
    attempts: u32,
}

impl Reading<'_> {
    /// How often the store is queried at most. It is queried again if a flush has ended in the
    /// meantime, because that flush's counts might be seen twice or not at all.
    const ATTEMPTS: u32 = 4;

    /// Returns the uses of these keys that the store had not received when it was queried, or
    /// `None` if it must be queried again. While the store is accepting a batch, its uses may be
    /// seen twice.
    pub(crate) fn unwritten<'k>(
        &mut self,
        ids: impl IntoIterator<Item = &'k KeyId>,
    ) -> Option<Vec<Option<UsageDelta>>> {
        let cells = self.usage.cells();
        self.attempts += 1;
        if cells.flushes != self.flushes && self.attempts < Self::ATTEMPTS {
            self.flushes = cells.flushes;
            return None;
        }
        let unwritten = |id: &KeyId| unwritten(id, cells.by_id.get(id)?);
        Some(ids.into_iter().map(unwritten).collect())
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
    use std::time::SystemTime;

    use super::*;
    use crate::clock::millis;

    #[test]
    fn a_flush_in_the_middle_of_a_count_knows_when_the_key_was_used() {
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let uses = 20_000;
        std::thread::scope(|scope| {
            let cell = usage.cell(&id);
            let at = millis(now);
            let counting = scope.spawn(move || (0..uses).for_each(|_| cell.count(at, None)));
            let mut counted = 0;
            while counted < uses {
                let over = counting.is_finished();
                for delta in usage
                    .reading()
                    .unwritten([&id])
                    .unwrap()
                    .into_iter()
                    .flatten()
                {
                    assert_eq!(delta.last_used_at, now);
                    counted += delta.count;
                    usage.written(&[delta]);
                }
                assert!(counted == uses || !over, "{counted}");
            }
        });
    }

    #[test]
    fn a_flush_that_ends_during_a_read_causes_another_read() {
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        usage.cell(&id).count(0, None);
        let mut reading = usage.reading();
        usage.written(&[]);
        assert_eq!(reading.unwritten([&id]), None);
        assert_eq!(
            reading.unwritten([&id]).unwrap()[0].as_ref().unwrap().count,
            1
        );
        // The read ends even if this happens every time.
        let mut reading = usage.reading();
        let attempts = (1..).find(|_| {
            usage.written(&[]);
            reading.unwritten([&id]).is_some()
        });
        assert_eq!(attempts, Some(Reading::ATTEMPTS));
    }

    #[test]
    fn a_flush_writes_keys_in_the_order_of_their_ids() {
        let usage = UsageRecorder::default();
        for _ in 0..100 {
            let id = KeyId::generate().unwrap();
            usage.cell(&id).count(0, None);
        }
        let counted = usage.counted();
        assert_eq!(counted.len(), 100);
        assert!(counted.is_sorted_by_key(|delta| &delta.id));
    }

    #[test]
    fn uses_beyond_the_capacity_are_lost_and_counted() {
        let usage = UsageRecorder::default();
        usage.cells().most_keys = 2;
        let ids: Vec<_> = (0..3).map(|_| KeyId::generate().unwrap()).collect();
        for id in &ids {
            usage.cell(id).count(0, None);
        }
        assert_eq!((usage.pending(), usage.lost()), (2, 1));
        let unwritten = usage.reading().unwritten(&ids).unwrap();
        usage.written(&unwritten.into_iter().flatten().collect::<Vec<_>>());
        usage.tidy();
        // There is capacity again.
        usage.cell(&ids[2]).count(0, None);
        assert_eq!((usage.pending(), usage.lost(), usage.flushed()), (1, 1, 2));
        assert_eq!(usage.cells().bytes, Cells::bytes_of(&ids[2]));
    }

    #[test]
    fn unwritten_uses_are_counted_as_pending() {
        let usage = UsageRecorder::default();
        assert_eq!(usage.pending(), 0);
        for _ in 0..2 {
            let cell = usage.cell(&KeyId::generate().unwrap());
            (0..3).for_each(|_| cell.count(0, None));
        }
        assert_eq!(usage.pending(), 6);
    }
}
