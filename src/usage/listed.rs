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

/// The number of entries in all lists from which requests take the uses of the oldest, so that the memory
/// of those that nothing else needs any more is bounded: 90 MB.
const MOST_LISTED: usize = 131_072;

/// The lists of entries.
pub(super) struct Listed(Box<[List]>);

/// The entries that some threads have used, oldest first. In lines of the processor's cache that no other
/// list is in: processors fetch two at a time.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct List(Mutex<VecDeque<Entry>>);

impl Default for Listed {
    fn default() -> Self {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = CORES.get_or_init(|| available_parallelism().map_or(1, NonZero::get));
        Self::new(cores.saturating_mul(FOR_EACH_CORE).min(MOST_LISTS))
    }
}

impl Listed {
    /// So many lists, at least one.
    pub(super) fn new(lists: usize) -> Self {
        Self((0..lists.max(1)).map(|_| List::default()).collect())
    }

    /// Returns the length of a list from which requests take uses.
    pub(super) fn most_in_one(&self) -> usize {
        MOST_LISTED / self.0.len()
    }

    /// Returns the list of this thread.
    pub(super) fn own(&self) -> &List {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let number = NUMBER.with(|number| *number);
        &self.0[number % self.0.len()]
    }

    /// Returns all lists.
    pub(super) fn each(&self) -> impl Iterator<Item = &List> {
        self.0.iter()
    }
}

impl List {
    /// Adds an entry. Returns how many there are now.
    pub(super) fn push(&self, entry: Entry) -> usize {
        let mut list = self.0.lock();
        list.push_back(entry);
        list.len()
    }

    /// Removes the oldest entries, at most so many.
    pub(super) fn take<T: FromIterator<Entry>>(&self, most: usize) -> T {
        let mut list = self.0.lock();
        let count = list.len().min(most);
        list.drain(..count).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.lock().capacity()
    }

    /// Frees the memory for more entries than this, which a burst needed.
    pub(super) fn shrink_to(&self, entries: usize) {
        self.0.lock().shrink_to(entries);
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
        let listed = Listed::new(4);
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
        // There is a list in any case, and all of them together are bounded.
        for lists in [Listed::new(0), Listed::new(5), Listed::default()] {
            let count = lists.each().count();
            assert!((1..=MOST_LISTS).contains(&count), "{count}");
            assert!(count * lists.most_in_one() <= MOST_LISTED);
        }
    }
}
