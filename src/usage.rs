//! Usage counts of keys, kept in memory without waiting and written to the store in batches.
//!
//! The counter of a key is in its entry; counting takes no lock and no lookup, except that the first
//! use after the entry's uses were taken puts the entry into a list. What is in the list is taken
//! together, by key: by a flush, by a read, or when the list is long. So the list needs no entry that a
//! cache evicted for long, and the uses of several entries of one key are added.
//!
//! A flush subtracts counts only after the store has accepted them: a flush that fails or is dropped
//! leaves every count unchanged. A crash loses only what was counted since the last flush.

use std::collections::HashMap;
use std::collections::hash_map;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::entry::Entry;
use crate::key::KeyId;
use crate::lock::{Mutex, MutexGuard};
use crate::store::{StoreError, Usage, UsageDelta, UsageStore};
use crate::telemetry;

/// The maximum number of keys per call of the store, whose other writes wait in the meantime.
const MOST_AT_ONCE: usize = 1000;

/// The maximum number of keys with unwritten uses, each of which takes at most 350 bytes.
const MOST_KEYS: usize = 1_000_000;

/// The length of the list of entries at which their uses are taken, by a request. It bounds the memory
/// of entries that nothing else needs any more.
const MOST_LISTED: usize = 1024;

/// The number of uses at which those of one entry are taken, half of what its counter holds.
const MOST_IN_A_CELL: u32 = 1 << 31;

/// The periodic jobs must run within this time after the first use.
const JOBS_WITHIN: Duration = Duration::from_secs(10);

/// How often this is checked, in milliseconds.
const LOOK_EVERY: u64 = 1000;

/// Counts the uses of keys. Clones share the counts.
#[derive(Clone, Default)]
pub struct UsageRecorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The entries with uses, each once: the use that makes a count 1 adds the entry.
    listed: Mutex<Vec<Entry>>,
    unwritten: Mutex<Unwritten>,
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
    /// When the monotonic clock was last looked at, in milliseconds of the time of day.
    looked_at: AtomicU64,
    clock: OnceLock<Arc<dyn Clock>>,
}

impl Watch {
    /// Called for each admitted request, at this time of day. Logs once if the jobs have not run ten
    /// seconds after the first request.
    fn authenticated(&self, time_of_day: u64) {
        let relaxed = Ordering::Relaxed;
        // Not each time: the exact clock takes longer than the rest of the count.
        let looked_at = self.looked_at.load(relaxed);
        if time_of_day.abs_diff(looked_at) < LOOK_EVERY {
            return;
        }
        self.looked_at.store(time_of_day, relaxed);
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

/// The uses that were taken from entries, until the store has accepted them.
struct Unwritten {
    by_id: HashMap<KeyId, Usage>,
    most_keys: usize,
    /// The number of uses for which there was no capacity.
    lost: u64,
    /// How often a flush has subtracted what it wrote.
    flushes: u64,
}

impl Default for Unwritten {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            most_keys: MOST_KEYS,
            lost: 0,
            flushes: 0,
        }
    }
}

impl Unwritten {
    /// Takes the uses of an entry.
    fn take(&mut self, entry: &Entry) {
        let id = &entry.record.id;
        let (count, last_used_at, last_ip) = entry.usage.take();
        // An entry with very many uses is listed twice.
        if count == 0 {
            return;
        }
        let count = u64::from(count);
        let has_capacity = self.by_id.len() < self.most_keys;
        let usage = match has_capacity {
            true => Some(self.by_id.entry(id.clone()).or_default()),
            false => self.by_id.get_mut(id),
        };
        let Some(usage) = usage else {
            self.lost += count;
            return;
        };
        // Not the latest time, for the reason that `UsageCell::count` gives.
        usage.last_used_at = Some(last_used_at);
        usage.last_ip = last_ip.or(usage.last_ip);
        usage.count += count;
    }

    /// Returns the unwritten uses of a key, if there are any.
    fn of(&self, id: &KeyId) -> Option<UsageDelta> {
        self.by_id.get(id).and_then(|usage| delta(id, usage))
    }
}

fn delta(id: &KeyId, usage: &Usage) -> Option<UsageDelta> {
    let last = usage.last_used_at?;
    Some(UsageDelta::new(
        id.clone(),
        usage.count,
        last,
        usage.last_ip,
    ))
}

impl UsageRecorder {
    /// Counts one use of a key at this time, in milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn count(&self, entry: &Entry, now: u64, ip: Option<IpAddr>) {
        let before = entry.usage.count(now, ip);
        if before.is_multiple_of(MOST_IN_A_CELL) {
            self.list(entry, before);
        }
        if self.shared.watch.awaits_jobs.load(Ordering::Relaxed) {
            self.shared.watch.authenticated(now);
        }
    }

    #[cold]
    fn list(&self, entry: &Entry, before: u32) {
        let length = {
            let mut listed = self.shared.listed.lock();
            listed.push(entry.clone());
            listed.len()
        };
        if before > 0 {
            drop(self.unwritten());
        } else if length >= MOST_LISTED {
            // A request does not wait for a flush: the next one takes the uses.
            let unwritten = self.shared.unwritten.try_lock();
            drop(unwritten.map(|unwritten| self.taken(unwritten)));
        }
    }

    /// Takes the uses of all listed entries, and returns what is unwritten.
    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.taken(self.shared.unwritten.lock())
    }

    fn taken<'a>(&self, mut unwritten: MutexGuard<'a, Unwritten>) -> MutexGuard<'a, Unwritten> {
        // The list is emptied first: a use from now on lists its entry again.
        let listed = std::mem::take(&mut *self.shared.listed.lock());
        listed.iter().for_each(|entry| unwritten.take(entry));
        unwritten
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
        Ok(())
    }

    /// Returns what is not written yet, in the order of the ids: a database then writes the rows of a
    /// part next to each other, rather than a page for each.
    fn counted(&self) -> Vec<UsageDelta> {
        let mut counted: Vec<_> = {
            let unwritten = self.unwritten();
            let all = unwritten.by_id.iter();
            all.filter_map(|(id, usage)| delta(id, usage)).collect()
        };
        counted.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        counted
    }

    /// Returns how many counted uses are not written yet. After the last flush before the process
    /// exits, these are lost.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let unwritten = self.unwritten();
        unwritten.by_id.values().map(|usage| usage.count).sum()
    }

    /// Returns how many uses have been written so far.
    pub(crate) fn flushed(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Returns how many uses have been lost so far because too many keys had unwritten ones.
    pub(crate) fn lost(&self) -> u64 {
        self.unwritten().lost
    }

    /// Subtracts what the store has accepted.
    fn written(&self, deltas: &[UsageDelta]) {
        let mut unwritten = self.shared.unwritten.lock();
        for delta in deltas {
            if let hash_map::Entry::Occupied(mut usage) = unwritten.by_id.entry(delta.id.clone()) {
                usage.get_mut().count -= delta.count;
                if usage.get().count == 0 {
                    usage.remove();
                }
            }
            let written = &self.shared.written;
            written.fetch_add(delta.count, Ordering::Relaxed);
        }
        if unwritten.by_id.is_empty() {
            // Gives the memory back, of which a burst may have taken much.
            unwritten.by_id = HashMap::new();
        }
        unwritten.flushes += 1;
    }

    /// Begins to read the store's counts of some keys, to which the unwritten counts are added.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading {
            usage: self,
            flushes: self.shared.unwritten.lock().flushes,
            attempts: 0,
        }
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
        let unwritten = self.usage.unwritten();
        self.attempts += 1;
        if unwritten.flushes != self.flushes && self.attempts < Self::ATTEMPTS {
            self.flushes = unwritten.flushes;
            return None;
        }
        Some(ids.into_iter().map(|id| unwritten.of(id)).collect())
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
    use std::thread::ScopedJoinHandle;
    use std::time::SystemTime;

    use super::*;
    use crate::clock::millis;
    use crate::key::{KeyKind, KeyRecord, Owner};
    use crate::scope::{ScopeModel, WildcardModel};

    fn ids(count: usize) -> Vec<KeyId> {
        (0..count).map(|_| KeyId::generate().unwrap()).collect()
    }

    fn entry(id: &KeyId) -> Entry {
        let owner = Owner::tenant("acme".parse().unwrap());
        let (kind, live) = (KeyKind::App, "live".parse().unwrap());
        let record = KeyRecord::new(id.clone(), "n", kind, live, owner, SystemTime::UNIX_EPOCH);
        let scopes = WildcardModel.compile(&[]).unwrap();
        Entry::bare(record, scopes, Arc::default())
    }

    fn use_once(usage: &UsageRecorder, id: &KeyId) {
        usage.count(&entry(id), 0, None);
    }

    #[test]
    fn a_flush_in_the_middle_of_a_count_knows_when_the_key_was_used() {
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (threads, uses) = (2, 20_000);
        let entry = entry(&id);
        std::thread::scope(|scope| {
            let count = || (0..uses).for_each(|_| usage.count(&entry, millis(now), None));
            let counting: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
            let mut counted = 0;
            while counted < threads * uses {
                let over = counting.iter().all(ScopedJoinHandle::is_finished);
                for delta in usage.counted() {
                    assert_eq!(delta.last_used_at, now);
                    counted += delta.count;
                    usage.written(&[delta]);
                }
                assert!(counted == threads * uses || !over, "{counted}");
            }
        });
        assert_eq!((usage.pending(), usage.flushed()), (0, threads * uses));
    }

    #[test]
    fn a_flush_that_ends_during_a_read_causes_another_read() {
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        use_once(&usage, &id);
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
        ids(100).iter().for_each(|id| use_once(&usage, id));
        let counted = usage.counted();
        assert_eq!(counted.len(), 100);
        assert!(counted.is_sorted_by_key(|delta| &delta.id));
    }

    #[test]
    fn uses_beyond_the_capacity_are_lost_and_counted() {
        let usage = UsageRecorder::default();
        usage.unwritten().most_keys = 2;
        let ids = ids(3);
        // The last key has no capacity, while another use of a known key needs none.
        for id in ids.iter().chain(&ids[..1]) {
            use_once(&usage, id);
        }
        assert_eq!((usage.pending(), usage.lost()), (3, 1));
        usage.written(&usage.counted());
        // There is capacity again.
        use_once(&usage, &ids[2]);
        assert_eq!((usage.pending(), usage.lost(), usage.flushed()), (1, 1, 3));
    }

    #[test]
    fn an_entry_is_listed_once_and_again_after_its_uses_were_taken() {
        let usage = UsageRecorder::default();
        let id = KeyId::generate().unwrap();
        let (one, other) = (entry(&id), entry(&id));
        let listed = || usage.shared.listed.lock().len();
        for _ in 0..3 {
            usage.count(&one, 2, Some(IpAddr::from([192, 0, 2, 1])));
        }
        assert_eq!(listed(), 1);
        usage.count(&other, 1, None);
        assert_eq!(listed(), 2);
        // Of the entries of one key, the one that was listed later says when; a known address stays.
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let counted = usage.counted();
        let ip = Some(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(counted, [UsageDelta::new(id.clone(), 4, at(1), ip)]);
        assert_eq!(listed(), 0);
        // What is counted while the store accepts a batch is not subtracted with it.
        usage.count(&one, 5, None);
        usage.written(&counted);
        assert_eq!((listed(), usage.pending()), (1, 1));
        assert_eq!(usage.counted(), [UsageDelta::new(id, 1, at(5), ip)]);
        assert_eq!(usage.flushed(), 4);
    }

    #[test]
    fn entries_that_were_evicted_do_not_stay_in_memory() {
        let usage = UsageRecorder::default();
        let first = entry(&KeyId::generate().unwrap());
        let known = Arc::downgrade(&first.policies());
        usage.count(&first, 0, None);
        drop(first);
        let count = 3 * MOST_LISTED;
        for id in ids(count - 1) {
            assert!(usage.shared.listed.lock().len() < MOST_LISTED);
            use_once(&usage, &id);
        }
        assert_eq!(known.strong_count(), 0);
        assert_eq!(usage.pending(), count as u64);
    }
}
