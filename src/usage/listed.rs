//! The entries with uses that nobody has taken yet, in a list for each thread that serves requests.
//!
//! One list for all threads would be written by each of them: with many keys, most uses are the first
//! since the last were taken, and each would wait for the memory that another core has just changed.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use crate::entry::Entry;
use crate::lock::Mutex;

/// The maximum number of lists. Threads share them if there are more.
const MOST_LISTS: usize = 32;

/// The lists of entries.
pub(super) struct Listed(Box<[List]>);

/// The entries that some threads have used, oldest first. In lines of the processor's cache that no other
/// list is in: processors fetch two at a time.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct List(Mutex<VecDeque<Entry>>);

impl Default for Listed {
    /// A list for each core.
    fn default() -> Self {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = CORES.get_or_init(|| available_parallelism().map_or(1, NonZero::get));
        Self::new((*cores).min(MOST_LISTS))
    }
}

impl Listed {
    /// So many lists, at least one.
    pub(super) fn new(lists: usize) -> Self {
        Self((0..lists.max(1)).map(|_| List::default()).collect())
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

    /// Frees the memory for more entries than this, which a burst needed.
    pub(super) fn shrink_to(&self, entries: usize) {
        self.0.lock().shrink_to(entries);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ptr;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_keeps_its_list_and_those_that_start_together_have_different_ones() {
        let listed = Listed::new(4);
        let own = || ptr::from_ref(listed.own()).addr();
        let all: HashSet<_> = listed
            .each()
            .map(|list| ptr::from_ref(list).addr())
            .collect();
        assert_eq!(all.len(), 4);
        let used = thread::scope(|scope| {
            let threads: Vec<_> = (0..12).map(|_| scope.spawn(|| (own(), own()))).collect();
            let used = threads.into_iter().filter_map(|thread| thread.join().ok());
            let used: Vec<_> = used.collect();
            assert!(used.iter().all(|(first, again)| first == again));
            used.into_iter()
                .map(|(list, _)| list)
                .collect::<HashSet<_>>()
        });
        assert!(used.len() > 1 && used.is_subset(&all));
        // There is one for any number of threads.
        assert_eq!(Listed::new(0).each().count(), 1);
        assert!((1..=MOST_LISTS).contains(&Listed::default().each().count()));
    }
}
