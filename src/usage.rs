//! Usage counts of keys, kept in memory without waiting and written to the store in batches.
//!
//! The counter of a key is in its entry; counting takes no lock and no lookup, except that the first
//! use after the entry's uses were taken puts the entry into a list (`listed`). What is in the lists is
//! taken by key: by the periodic jobs, by a flush and by a read; and a little by each request that makes
//! a long list longer. So the lists keep few entries that a cache has evicted, the uses of several
//! entries of one key are added, and no request does the work of many.
//!
//! A flush subtracts counts only after the store has accepted them: a flush that fails or is dropped
//! leaves every count unchanged. A crash loses only what was counted since the last flush.

mod listed;
mod reading;
mod unwritten;
mod watch;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use self::listed::{List, Listed};
use self::unwritten::Unwritten;
use self::watch::Watch;
use crate::clock::{Clock, let_others_run};
use crate::entry::Entry;
use crate::lock::{Mutex, MutexGuard};
use crate::store::{StoreError, UsageDelta, UsageStore};

/// The maximum number of keys per call of the store, whose other writes wait in the meantime.
const MOST_AT_ONCE: usize = 1000;

/// How many entries a request takes from a longer list. The list becomes shorter again even if most
/// requests find that something else takes uses at the moment.
const TAKEN_BY_REQUEST: usize = 4;

/// How many entries the jobs take before other tasks of the runtime may run: work of about 0.1 ms.
const TAKEN_BY_JOBS: usize = 256;

/// The number of uses at which those of one entry are taken, half of what its counter holds.
const MOST_IN_A_CELL: u32 = 1 << 31;

/// Counts the uses of keys. Clones share the counts.
#[derive(Clone, Default)]
pub struct UsageRecorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The entries with uses: the use that makes a count 1 adds the entry.
    listed: Listed,
    unwritten: Mutex<Unwritten>,
    /// Held by the running flush.
    flushing: futures_util::lock::Mutex<()>,
    /// The number of uses written.
    written: AtomicU64,
    watch: Watch,
}

/// Takes the uses of the entries that were listed first. Entries that nothing else needs are freed
/// after the lock.
fn take_oldest(list: &List, mut unwritten: MutexGuard<'_, Unwritten>, most: usize) {
    // Out of the list first: a use from now on lists its entry again.
    let oldest: SmallVec<[Entry; TAKEN_BY_REQUEST]> = list.take(most);
    unwritten.take(&oldest);
    drop(unwritten);
    drop(oldest);
}

impl UsageRecorder {
    /// Counts one use of a key at this time, in milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn count(&self, entry: &Entry, now: u64, ip: Option<IpAddr>) {
        let before = entry.usage.count(now, ip);
        if before.is_multiple_of(MOST_IN_A_CELL) {
            self.list(entry, before);
        }
        self.shared.watch.authenticated(now);
    }

    #[cold]
    fn list(&self, entry: &Entry, before: u32) {
        if before > 0 {
            // It is listed already. Its next use lists it once more, which does not matter.
            self.shared
                .unwritten
                .lock()
                .take(std::slice::from_ref(entry));
            return;
        }
        let listed = &self.shared.listed;
        let list = listed.own();
        if list.push(entry.clone()) > listed.most_in_one()
            // A request does not wait for a flush: a later one takes the uses.
            && let Some(unwritten) = self.shared.unwritten.try_lock()
        {
            take_oldest(list, unwritten, TAKEN_BY_REQUEST);
        }
    }

    /// Takes the uses of all entries that are listed now, so that requests need not.
    pub(crate) async fn collect(&self) {
        let listed = &self.shared.listed;
        let mut in_a_row = 0;
        for list in listed.each() {
            let mut left = list.len();
            while left > 0 {
                if in_a_row == TAKEN_BY_JOBS {
                    let_others_run().await;
                    in_a_row = 0;
                }
                let part = left.min(TAKEN_BY_JOBS - in_a_row);
                take_oldest(list, self.shared.unwritten.lock(), part);
                (left, in_a_row) = (left - part, in_a_row + part);
            }
            list.shrink_to(listed.most_in_one());
        }
    }

    /// Takes the uses of all listed entries, and returns what is unwritten.
    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        for list in self.shared.listed.each() {
            take_oldest(list, self.shared.unwritten.lock(), usize::MAX);
        }
        self.shared.unwritten.lock()
    }

    /// Expects the periodic jobs to run from now on.
    pub(crate) fn await_jobs(&self, clock: &Arc<dyn Clock>) {
        self.shared.watch.await_jobs(clock);
    }

    /// Records that the periodic jobs run.
    pub(crate) fn jobs_are_run(&self) {
        self.shared.watch.jobs_are_run();
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
        self.collect().await;
        for part in self.counted().chunks(MOST_AT_ONCE) {
            store.record_usage(part).await?;
            self.written(part);
        }
        Ok(())
    }

    /// Returns what is not written yet, in the order of the ids.
    fn counted(&self) -> Vec<UsageDelta> {
        self.unwritten().deltas()
    }

    /// Returns how many counted uses are not written yet. After the last flush before the process
    /// exits, these are lost.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.unwritten().uses()
    }

    /// Returns how many uses have been written so far.
    pub(crate) fn flushed(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Returns how many uses have been lost so far because too many keys had unwritten ones.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.unwritten.lock().lost
    }

    /// Subtracts what the store has accepted.
    fn written(&self, deltas: &[UsageDelta]) {
        let mut unwritten = self.shared.unwritten.lock();
        deltas.iter().for_each(|delta| unwritten.subtract(delta));
        unwritten.flushes += 1;
        let uses = deltas.iter().map(|delta| delta.count).sum();
        self.shared.written.fetch_add(uses, Ordering::Relaxed);
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
    use std::pin::pin;
    use std::thread::ScopedJoinHandle;
    use std::time::{Duration, SystemTime};

    use futures_util::FutureExt;

    use super::*;
    use crate::clock::millis;
    use crate::key::{KeyId, KeyKind, KeyRecord, Owner};
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
    fn requests_jobs_and_flushes_at_once_lose_no_use_and_count_none_twice() {
        let usage = with_lists(8);
        let (threads, keys) = (3, usage.shared.listed.most_in_one() * 5 / 4);
        let entries: Vec<_> = ids(keys).iter().map(entry).collect();
        let uses = (threads * keys) as u64;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let (runtime, done) = (runtime.unwrap(), AtomicU64::new(0));
        let mut counted = 0;
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    entries.iter().for_each(|entry| usage.count(entry, 1, None));
                    done.fetch_add(1, Ordering::Release);
                });
            }
            while done.load(Ordering::Acquire) < threads as u64 {
                runtime.block_on(usage.collect());
                let part = usage.counted();
                counted += part.iter().map(|delta| delta.count).sum::<u64>();
                usage.written(&part);
            }
        });
        assert_eq!(counted + usage.pending(), uses);
        assert_eq!((usage.flushed(), usage.lost()), (counted, 0));
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
        assert_eq!(attempts, Some(reading::Reading::ATTEMPTS));
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
        let listed = || usage.shared.listed.own().len();
        for _ in 0..3 {
            usage.count(&one, 2, Some(IpAddr::from([192, 0, 2, 1])));
        }
        assert_eq!(listed(), 1);
        usage.count(&other, 1, None);
        assert_eq!(listed(), 2);
        // Of the entries of one key, the latest time counts; a known address stays.
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let counted = usage.counted();
        let ip = Some(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(counted, [UsageDelta::new(id.clone(), 4, at(2), ip)]);
        assert_eq!(listed(), 0);
        // What is counted while the store accepts a batch is not subtracted with it.
        usage.count(&one, 5, None);
        usage.written(&counted);
        assert_eq!((listed(), usage.pending()), (1, 1));
        assert_eq!(usage.counted(), [UsageDelta::new(id, 1, at(5), ip)]);
        assert_eq!(usage.flushed(), 4);
    }

    fn with_lists(lists: usize) -> UsageRecorder {
        let listed = Listed::new(lists);
        let shared = Shared {
            listed,
            ..Shared::default()
        };
        UsageRecorder {
            shared: Arc::new(shared),
        }
    }

    #[test]
    fn of_entries_that_two_threads_used_the_later_use_counts() {
        let usage = with_lists(2);
        let id = KeyId::generate().unwrap();
        let address = |time: u64| Some(IpAddr::from([192, 0, 2, u8::try_from(time).unwrap()]));
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        // The first pass takes both, the second one after the other, as jobs that were interrupted do.
        for (times, together) in [([1, 2], true), ([2, 1], true), ([2, 1], false)] {
            for (list, time) in usage.shared.listed.each().zip(times) {
                let entry = entry(&id);
                entry.usage.count(time, address(time));
                list.push(entry);
                assert!(together || usage.pending() > 0);
            }
            let counted = usage.counted();
            let expected = UsageDelta::new(id.clone(), 2, at(2), address(2));
            assert_eq!(counted, [expected]);
            usage.written(&counted);
        }
    }

    #[test]
    fn the_jobs_take_from_all_lists_and_let_other_tasks_run() {
        let usage = with_lists(3);
        for (number, id) in ids(600).iter().enumerate() {
            let entry = entry(id);
            entry.usage.count(1, None);
            usage
                .shared
                .listed
                .each()
                .nth(number / 200)
                .unwrap()
                .push(entry);
        }
        let mut collecting = pin!(usage.collect());
        let turns = (0..).find(|_| (&mut collecting).now_or_never().is_some());
        assert_eq!(turns, Some(600 / TAKEN_BY_JOBS));
        assert!(usage.shared.listed.each().all(|list| list.len() == 0));
        assert_eq!(usage.pending(), 600);
    }

    #[test]
    fn the_jobs_free_the_memory_that_a_burst_needed() {
        let usage = with_lists(32);
        let (list, most) = (usage.shared.listed.own(), usage.shared.listed.most_in_one());
        // While a flush takes long, requests take nothing.
        let flush = usage.shared.unwritten.lock();
        ids(3 * most).iter().for_each(|id| use_once(&usage, id));
        drop(flush);
        assert!(list.capacity() >= 3 * most);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(usage.collect());
        assert!((most..2 * most).contains(&list.capacity()));
    }

    #[test]
    fn no_request_takes_the_uses_of_many_entries() {
        let usage = UsageRecorder::default();
        let taken = || usage.shared.unwritten.lock().by_id.len();
        let most = usage.shared.listed.most_in_one();
        let mut before = 0;
        for (turn, id) in ids(most).iter().enumerate() {
            if turn == 9 {
                // A flush that takes long: nothing is taken meanwhile.
                let flush = usage.shared.unwritten.lock();
                ids(most).iter().for_each(|id| use_once(&usage, id));
                drop(flush);
            }
            use_once(&usage, id);
            let now = taken();
            assert!(now - before <= TAKEN_BY_REQUEST, "{now} after {before}");
            before = now;
        }
        // The list is as short again as it may be.
        assert!(usage.shared.listed.own().len() <= most);
        assert_eq!(usage.pending(), 2 * most as u64);
    }

    #[test]
    fn the_jobs_take_what_is_listed_and_let_other_tasks_run() {
        let usage = UsageRecorder::default();
        let ids = ids(3 * TAKEN_BY_JOBS + 1);
        ids.iter().for_each(|id| use_once(&usage, id));
        let listed = || usage.shared.listed.own().len();
        let mut collecting = pin!(usage.collect());
        let mut lengths = vec![listed()];
        while (&mut collecting).now_or_never().is_none() {
            lengths.push(listed());
            // A use meanwhile is left to the next call.
            use_once(&usage, &ids[0]);
        }
        let (part, all) = (TAKEN_BY_JOBS, ids.len());
        assert_eq!(lengths, [all, all - part, all - 2 * part + 1, 3]);
        assert_eq!(usage.shared.unwritten.lock().by_id.len(), all);
        assert_eq!(usage.pending(), all as u64 + 3);
    }

    #[test]
    fn entries_that_were_evicted_do_not_stay_in_memory() {
        let usage = UsageRecorder::default();
        let first = entry(&KeyId::generate().unwrap());
        let known = Arc::downgrade(&first.policies());
        usage.count(&first, 0, None);
        drop(first);
        let most = usage.shared.listed.most_in_one();
        let count = most + 100;
        for id in ids(count - 1) {
            assert!(usage.shared.listed.own().len() <= most);
            use_once(&usage, &id);
        }
        assert_eq!(known.strong_count(), 0);
        assert_eq!(usage.pending(), count as u64);
    }
}
