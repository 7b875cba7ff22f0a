//! How often and when keys are used: counted in memory without waiting, written to the store in
//! batches.
//!
//! Each key has one cell of atomics, which the authenticator's entry for the key points to;
//! counting takes no lock and no look-up. A flush subtracts what the store has taken, once it has:
//! a flush that fails or is dropped leaves every count where it was. A crash loses what was counted
//! since the last flush and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::key::KeyId;
use crate::store::{StoreError, UsageDelta, UsageStore};
use crate::telemetry;

/// The most keys whose uses a store is given at once: its other writes wait meanwhile.
const MOST_AT_ONCE: usize = 1000;

/// No more keys are counted at once: those in use, and those whose uses are not written.
const MOST_KEYS: usize = 1_000_000;
/// Their cells take no more memory than this, in bytes.
const MOST_BYTES: usize = 256 << 20;

/// How long after the first use the periodic jobs must have been run once.
const JOBS_WITHIN: Duration = Duration::from_secs(10);

/// Counts the use of keys. Cloning shares the counts.
#[derive(Clone, Default)]
pub struct UsageRecorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cells: Mutex<Cells>,
    /// Held by the one flush that runs.
    flushing: async_lock::Mutex<()>,
    /// How many uses were written.
    written: AtomicU64,
    watch: Arc<Watch>,
}

/// Notices that nobody runs the periodic jobs.
#[derive(Default)]
struct Watch {
    /// Whether there are jobs that nobody has run yet.
    awaits_jobs: AtomicBool,
    /// When the first use was while they are awaited: milliseconds of the monotonic clock, and one.
    first_use: AtomicU64,
    clock: OnceLock<Arc<dyn Clock>>,
}

impl Watch {
    /// A request was let through. Where nobody has run the periodic jobs ten seconds after the first
    /// one, says so, once.
    fn authenticated(&self) {
        let relaxed = Ordering::Relaxed;
        let Some(clock) = self.clock.get().filter(|_| self.awaits_jobs.load(relaxed)) else {
            return;
        };
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
    /// How much memory they take, in bytes.
    bytes: usize,
    most_keys: usize,
    /// Where uses are counted for which there is no room.
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

/// The uses of one key that are not written yet.
#[derive(Default)]
pub(crate) struct UsageCell {
    count: AtomicU64,
    /// Milliseconds since the epoch, of the last use that was counted; 0 before the first. A flush
    /// leaves it as it is.
    last_used: AtomicU64,
    last_ip: Mutex<Option<IpAddr>>,
    watch: Arc<Watch>,
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
        if self.watch.awaits_jobs.load(Ordering::Relaxed) {
            self.watch.authenticated();
        }
    }

    fn unwritten(&self, id: &KeyId) -> Option<UsageDelta> {
        let count = self.count.load(Ordering::Acquire);
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
        let mut cells = self.cells();
        if let Some(cell) = cells.by_id.get(id) {
            return Arc::clone(cell);
        }
        let bytes = Cells::bytes_of(id);
        if cells.by_id.len() >= cells.most_keys || cells.bytes + bytes > MOST_BYTES {
            return Arc::clone(&cells.lost);
        }
        let cell = Arc::new(UsageCell {
            watch: Arc::clone(&self.shared.watch),
            ..UsageCell::default()
        });
        cells.bytes += bytes;
        cells.by_id.insert(id.clone(), Arc::clone(&cell));
        cell
    }

    /// From now on somebody must run the periodic jobs.
    pub(crate) fn await_jobs(&self, clock: &Arc<dyn Clock>) {
        let watch = &self.shared.watch;
        let _ = watch.clock.set(Arc::clone(clock));
        watch.awaits_jobs.store(true, Ordering::Relaxed);
    }

    /// Somebody runs them.
    pub(crate) fn jobs_are_run(&self) {
        let awaits = &self.shared.watch.awaits_jobs;
        awaits.store(false, Ordering::Relaxed);
    }

    /// Writes what was counted since the last flush, after any other flush that runs. Call it on an
    /// interval, and before the process ends.
    ///
    /// Dropping the future loses no count. The store may have taken the batch by then: it is given
    /// the same counts again.
    ///
    /// # Errors
    /// Where the store does not take it, a thousand keys at a time; the counts that it has not taken
    /// are kept and go with the next flush.
    pub async fn flush(&self, store: &dyn UsageStore) -> Result<(), StoreError> {
        let _turn = self.shared.flushing.lock().await;
        let counted: Vec<_> = {
            let cells = self.cells();
            let unwritten = |(id, cell): (&KeyId, &Arc<UsageCell>)| cell.unwritten(id);
            cells.by_id.iter().filter_map(unwritten).collect()
        };
        for part in counted.chunks(MOST_AT_ONCE) {
            store.record_usage(part).await?;
            self.written(part);
        }
        self.tidy();
        Ok(())
    }

    /// How many uses were counted and are not written yet: after the last flush, before the process
    /// ends, those that are lost.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let cells = self.cells();
        let count = |cell: &Arc<UsageCell>| cell.count.load(Ordering::Relaxed);
        cells.by_id.values().map(count).sum()
    }

    /// How many uses were written so far.
    pub(crate) fn flushed(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// How many uses were lost so far because too many keys were in use.
    pub(crate) fn lost(&self) -> u64 {
        self.cells().lost.count.load(Ordering::Relaxed)
    }

    /// Subtracts what the store has taken.
    fn written(&self, deltas: &[UsageDelta]) {
        let mut cells = self.cells();
        for delta in deltas {
            if let Some(cell) = cells.by_id.get(&delta.id) {
                cell.count.fetch_sub(delta.count, Ordering::Relaxed);
            }
            let written = &self.shared.written;
            written.fetch_add(delta.count, Ordering::Relaxed);
        }
        cells.flushes += 1;
    }

    /// Forgets the cells that nobody needs any more.
    fn tidy(&self) {
        let mut cells = self.cells();
        let Cells { by_id, bytes, .. } = &mut *cells;
        // First whether anybody else holds it: under the lock nobody can begin to.
        by_id.retain(|id, cell| {
            let stays = Arc::strong_count(cell) > 1 || cell.count.load(Ordering::Relaxed) > 0;
            if !stays {
                *bytes -= Cells::bytes_of(id);
            }
            stays
        });
    }

    /// Begins to read what the store has of some keys, so that what it has not been given yet can
    /// be added.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading {
            usage: self,
            flushes: self.cells().flushes,
            attempts: 0,
        }
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.shared
            .cells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at the counts of a store, and at those that it has not been given yet.
pub(crate) struct Reading<'a> {
    usage: &'a UsageRecorder,
    /// How many flushes had ended before the store was asked.
    flushes: u64,
    attempts: u32,
}

impl Reading<'_> {
    /// How often the store is asked again because a flush ended meanwhile: its counts might be seen
    /// twice or not at all.
    const ATTEMPTS: u32 = 4;

    /// The uses of these keys that the store was not given when it was asked; `None` where it has
    /// to be asked again. While it takes a batch, what it has of it may be seen twice.
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
        let unwritten = |id: &KeyId| cells.by_id.get(id).and_then(|cell| cell.unwritten(id));
        Some(ids.into_iter().map(unwritten).collect())
    }
}

impl fmt::Debug for UsageCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageCell")
            .field("count", &self.count)
            .finish_non_exhaustive()
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
    fn a_flush_that_ends_while_the_store_is_read_makes_it_read_again() {
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        usage.cell(&id).count(SystemTime::UNIX_EPOCH, None);
        let mut reading = usage.reading();
        usage.written(&[]);
        assert_eq!(reading.unwritten([&id]), None);
        assert_eq!(
            reading.unwritten([&id]).unwrap()[0].as_ref().unwrap().count,
            1
        );
        // However often that happens: whoever reads gets an answer.
        let mut reading = usage.reading();
        let asked = (1..).find(|_| {
            usage.written(&[]);
            reading.unwritten([&id]).is_some()
        });
        assert_eq!(asked, Some(Reading::ATTEMPTS));
    }

    #[test]
    fn uses_of_keys_for_which_there_is_no_room_are_lost_and_counted() {
        let usage = UsageRecorder::default();
        usage.cells().most_keys = 2;
        let ids: Vec<_> = (0..3).map(|_| KeyId::generate().unwrap()).collect();
        for id in &ids {
            usage.cell(id).count(SystemTime::UNIX_EPOCH, None);
        }
        assert_eq!((usage.pending(), usage.lost()), (2, 1));
        let unwritten = usage.reading().unwritten(&ids).unwrap();
        usage.written(&unwritten.into_iter().flatten().collect::<Vec<_>>());
        usage.tidy();
        // There is room again.
        usage.cell(&ids[2]).count(SystemTime::UNIX_EPOCH, None);
        assert_eq!((usage.pending(), usage.lost(), usage.flushed()), (1, 1, 2));
        assert_eq!(usage.cells().bytes, Cells::bytes_of(&ids[2]));
    }

    #[test]
    fn what_is_not_written_yet_can_be_counted() {
        let usage = UsageRecorder::default();
        assert_eq!(usage.pending(), 0);
        for _ in 0..2 {
            let cell = usage.cell(&KeyId::generate().unwrap());
            (0..3).for_each(|_| cell.count(SystemTime::UNIX_EPOCH, None));
        }
        assert_eq!(usage.pending(), 6);
    }
}
