//! The entries with uses that nobody has taken yet, in several lists: each thread uses one of them.
//!
//! One list for all threads would be written by each of them: with many keys, most uses are the first
//! since the last were taken, and each would wait for memory that another core has just changed.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use crate::entry::Entry;
use crate::lock::Mutex;

/// The number of lists for each core: threads of different services, which take turns in getting numbers,
/// seldom share one.
const FOR_EACH_CORE: usize = 4;

/// The maximum number of lists.
const MOST_LISTS: usize = 32;

/// With more entries than this in all lists, uses are taken before a flush: all of them by the jobs, and
/// until those run, a few of the oldest by each request. So the memory of entries that nothing else needs
/// any more is bounded: 90 MB with records of usual size, or twice as much if a thread leaves a long list
/// behind.
const MOST_LISTED: usize = 131_072;

/// How many entries a list adds before they are counted for all lists.
pub(super) const COUNTED_AT_ONCE: usize = 256;

/// The lists of entries.
pub(super) struct Listed {
    lists: Box<[List]>,
    /// The number of entries in all lists, except up to 255 of the newest of each: each use would
    /// otherwise change what all threads share.
    total: AtomicUsize,
    most: usize,
}

/// The entries that some threads have used. In lines of the processor's cache that no other list is in:
/// processors fetch two at a time.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct List(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    oldest_first: VecDeque<Entry>,
    /// How many of them are in the total.
    counted: usize,
}

impl Default for Listed {
    fn default() -> Self {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = CORES.get_or_init(|| available_parallelism().map_or(1, NonZero::get));
        Self::new(
            cores.saturating_mul(FOR_EACH_CORE).min(MOST_LISTS),
            MOST_LISTED,
        )
    }
}

impl Listed {
    /// So many lists, at least one, and the number of entries from which they are too long.
    pub(super) fn new(lists: usize, most: usize) -> Self {
        Self {
            lists: (0..lists.max(1)).map(|_| List::default()).collect(),
            total: AtomicUsize::new(0),
            most,
        }
    }

    /// Returns the length of a list from which requests take uses, once all together are too long.
    pub(super) fn most_in_one(&self) -> usize {
        self.most / self.lists.len()
    }

    /// Returns whether all together are too long.
    pub(super) fn are_long(&self) -> bool {
        self.total.load(Ordering::Relaxed) > self.most
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Adds an entry to the list of this thread. Returns the list if the request must take uses.
    pub(super) fn push(&self, entry: Entry) -> Option<&List> {
        let list = self.own();
        self.push_to(list, entry).then_some(list)
    }

    /// Adds an entry. Returns whether the list is too long.
    pub(super) fn push_to(&self, list: &List, entry: Entry) -> bool {
        let mut entries = list.0.lock();
        entries.oldest_first.push_back(entry);
        let len = entries.oldest_first.len();
        let uncounted = len - entries.counted;
        if uncounted >= COUNTED_AT_ONCE {
            entries.counted = len;
            self.total.fetch_add(uncounted, Ordering::Relaxed);
        }
        drop(entries);
        len > self.most_in_one() && self.are_long()
    }

    /// Removes the oldest entries of a list, at most so many.
    pub(super) fn take<T: FromIterator<Entry>>(&self, list: &List, most: usize) -> T {
        let mut entries = list.0.lock();
        let count = entries.oldest_first.len().min(most);
        let taken = entries.oldest_first.drain(..count).collect();
        let uncounted = entries.counted.min(count);
        entries.counted -= uncounted;
        self.total.fetch_sub(uncounted, Ordering::Relaxed);
        taken
    }

    /// Returns the list of this thread.
    pub(super) fn own(&self) -> &List {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let number = NUMBER.with(|number| *number);
        &self.lists[number % self.lists.len()]
    }

    /// Returns all lists.
    pub(super) fn each(&self) -> impl Iterator<Item = &List> {
        self.lists.iter()
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.0.lock().oldest_first.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.lock().oldest_first.capacity()
    }

    /// Frees the memory for more entries than this, which a burst needed.
    pub(super) fn shrink_to(&self, entries: usize) {
        self.0.lock().oldest_first.shrink_to(entries);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;
    use std::ptr;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_keeps_its_list_and_many_threads_use_all() {
        let listed = Listed::new(4, MOST_LISTED);
        let place = |list: &List| ptr::from_ref(list).addr();
        let all: HashSet<_> = listed.each().map(place).collect();
        let used: HashSet<_> = thread::scope(|scope| {
            let own = || (place(listed.own()), place(listed.own()));
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(own)).collect();
            let used = threads.into_iter().map(|thread| thread.join().unwrap());
            used.map(|(list, again)| {
                assert_eq!(list, again);
                list
            })
            .collect()
        });
        assert_eq!((used.len(), used), (4, all));
        // There is a list in any case, and the shares of all are within the bound.
        let of = |lists| Listed::new(lists, MOST_LISTED);
        for lists in [of(0), of(5), Listed::default()] {
            let count = lists.each().count();
            assert!((1..=MOST_LISTS).contains(&count), "{count}");
            assert!(count * lists.most_in_one() <= MOST_LISTED);
        }
    }
}
