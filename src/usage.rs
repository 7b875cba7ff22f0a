//! Usage counts of keys, kept in memory without waiting and written to the store in batches.
//!
//! The counter of a key is in its entry; counting takes no lock and no lookup, except that the first
//! use after the entry's uses were taken puts the entry into a list (`listed`). A flush and a read take
//! what is in the lists, by key. Before that, a key that is used again costs nothing more. The periodic
//! jobs take it, too: every five seconds (`maintain` at each call), so that entries that a cache has
//! evicted are freed, or sooner if many are listed. If there are still too many, each request takes a
//! few: no request does the work of many.
//!
//! A flush subtracts counts only after the store has accepted them: a flush that fails or is dropped
//! leaves every count unchanged. A crash loses only what was not written.

mod listed;
mod reading;
#[cfg(test)]
mod tests;
mod unwritten;
mod watch;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use self::listed::{List, Listed};
use self::unwritten::Unwritten;
use self::watch::Watch;
use crate::clock::{Clock, let_others_run};
use crate::entry::Entry;
use crate::key::KeyId;
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
#[derive(Clone)]
pub struct UsageRecorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether nothing writes uses, so that no entry is listed.
    is_off: bool,
    /// The entries with uses: the use that makes a count 1 adds the entry.
    listed: Listed,
    unwritten: Mutex<Unwritten>,
    /// Held by the running flush: what the next one goes on with.
    pass: futures_util::lock::Mutex<Pass>,
    /// The number of uses written.
    written: AtomicU64,
    watch: Watch,
}

impl Shared {
    /// Takes the uses of the entries that were listed first. Entries that nothing else needs are freed
    /// after the lock.
    fn take_oldest(&self, list: &List, mut unwritten: MutexGuard<'_, Unwritten>, most: usize) {
        // Out of the list first: a use from now on lists its entry again.
        let oldest: SmallVec<[Entry; TAKEN_BY_REQUEST]> = self.listed.take(list, most);
        unwritten.take(&oldest);
        drop(unwritten);
        drop(oldest);
    }
}

/// A pass over all keys with uses, in the order of their ids, by one flush or by several.
#[derive(Debug, Default)]
struct Pass {
    /// The last key that the store was given. Those before it that are used again belong to the next pass,
    /// which would otherwise never begin.
    after: Option<KeyId>,
    /// Whether another pass is to follow at once: some of the keys before that one must be written, too.
    has_gaps: bool,
}

impl Pass {
    /// Notes that the store is given keys up to this one, and has not accepted them yet. Returns whether
    /// there were gaps before.
    fn give(&mut self, last: KeyId) -> bool {
        self.after = Some(last);
        std::mem::replace(&mut self.has_gaps, true)
    }

    /// Makes the pass that is under way be followed by another one, which also has what was counted since
    /// the keys of this one were written.
    fn repeat(&mut self) {
        self.has_gaps |= self.after.is_some();
    }

    /// Ends. Returns whether everything is written.
    fn end(&mut self) -> bool {
        !std::mem::take(self).has_gaps
    }
}

impl UsageRecorder {
    /// A recorder that counts uses, unless nothing would write them.
    pub(crate) fn new(counts: bool) -> Self {
        let shared = Shared {
            is_off: !counts,
            ..Shared::default()
        };
        Self {
            shared: Arc::new(shared),
        }
    }

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
        if self.shared.is_off {
            return;
        }
        if before > 0 {
            // It is listed already. Its next use lists it once more, which does not matter.
            self.shared
                .unwritten
                .lock()
                .take(std::slice::from_ref(entry));
            return;
        }
        if let Some(list) = self.shared.listed.push(entry.clone())
            // A request does not wait for a flush: a later one takes the uses.
            && let Some(unwritten) = self.shared.unwritten.try_lock()
        {
            self.shared.take_oldest(list, unwritten, TAKEN_BY_REQUEST);
        }
    }

    /// Takes the uses of all entries that are listed now if they are many, so that requests need not. A
    /// few stay where they are: a key that is used again is then not taken twice.
    pub(crate) async fn collect_many(&self) {
        if self.shared.listed.are_long() {
            self.collect().await;
        }
    }

    /// Takes the uses of all entries that are listed now.
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
                let unwritten = self.shared.unwritten.lock();
                self.shared.take_oldest(list, unwritten, part);
                (left, in_a_row) = (left - part, in_a_row + part);
            }
            list.shrink_to(listed.most_in_one());
        }
    }

    /// Takes the uses of all listed entries, and returns what is unwritten.
    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        for list in self.shared.listed.each() {
            let unwritten = self.shared.unwritten.lock();
            self.shared.take_oldest(list, unwritten, usize::MAX);
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

    /// Writes what was counted since the last flush, after any other running flush. The periodic jobs do
    /// this; a host that calls them by [`maintain`](crate::Portunus::maintain) also flushes before the
    /// process exits. Nothing is counted unless the key store has a
    /// [usage store](crate::store::KeyStore::usage).
    ///
    /// Dropping the future loses no count. If the store has already accepted the batch by then, it
    /// receives the same counts again.
    ///
    /// # Errors
    /// Returns an error if the store does not accept a batch of up to a thousand keys. The counts that
    /// it has not accepted are kept for the next flush. Those of the other keys are written, unless two
    /// batches in a row are not accepted.
    pub async fn flush(&self, store: &dyn UsageStore) -> Result<(), StoreError> {
        let flushed = self.flush_for(store, true, Duration::MAX, || Duration::ZERO);
        flushed.await.map(drop)
    }

    /// Goes on with the pass, or begins one, and ends between two batches after this time. A batch that is
    /// not accepted is tried again in another pass, and its error returned at the end, or at once if the
    /// next one is not accepted, either.
    ///
    /// Returns whether everything is written that was counted before the call in which the pass began, or
    /// before this one if `all` is set.
    pub(crate) async fn flush_for(
        &self,
        store: &dyn UsageStore,
        all: bool,
        longest: Duration,
        monotonic: impl Fn() -> Duration,
    ) -> Result<bool, StoreError> {
        let mut pass = self.shared.pass.lock().await;
        if all {
            pass.repeat();
        }
        self.collect().await;
        let begun = monotonic();
        let (mut refused, mut was_refused) = (None, false);
        // Whether the pass began with this call, or is to end before all keys.
        let mut is_whole = !all || pass.after.is_none();
        loop {
            let part = {
                let unwritten = self.shared.unwritten.lock();
                unwritten.after(pass.after.as_ref(), MOST_AT_ONCE)
            };
            if let Some(last) = part.last() {
                // Also if the store does not answer, or nothing polls this any more.
                let had_gaps = pass.give(last.id.clone());
                match store.record_usage(&part).await {
                    Ok(()) => {
                        self.written(&part);
                        (pass.has_gaps, was_refused) = (had_gaps, false);
                    }
                    Err(error) if was_refused => return Err(error),
                    Err(error) => {
                        refused.get_or_insert(error);
                        was_refused = true;
                    }
                }
            }
            let is_at_the_end = part.len() < MOST_AT_ONCE;
            let is_complete = is_at_the_end && pass.end();
            if is_at_the_end && !std::mem::replace(&mut is_whole, true) {
                // What was refused is tried again in the next pass, which follows.
                refused = None;
            }
            let ends = is_complete || monotonic().saturating_sub(begun) >= longest;
            match refused.take_if(|_| is_at_the_end || ends) {
                Some(error) => return Err(error),
                None if ends => return Ok(is_complete),
                None => let_others_run().await,
            }
        }
    }

    /// Returns how many counted uses are not written yet. After the last flush before the process
    /// exits, these are lost. Looks at each key that was used since the last flush, 0.3 µs each.
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

impl Default for UsageRecorder {
    fn default() -> Self {
        Self::new(true)
    }
}

impl fmt::Debug for UsageRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsageRecorder")
    }
}
