//! The heartbeats of one subscription: which were sent, and which came back.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portunus::Clock;
use portunus::clock::SystemClock;

pub(super) struct Heartbeats {
    /// This clock goes on while the machine sleeps.
    clock: SystemClock,
    sent: Mutex<Sent>,
}

struct Sent {
    /// Marks are keyed with the randomness of the operating system, so that nobody else can know
    /// one before it is sent.
    marks: RandomState,
    count: u64,
    /// Those that have not come back, oldest first, and when each was sent.
    awaited: VecDeque<(u64, Duration)>,
}

impl Heartbeats {
    pub(super) fn new() -> Self {
        Self {
            clock: SystemClock::default(),
            sent: Mutex::new(Sent {
                marks: RandomState::new(),
                count: 0,
                awaited: VecDeque::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the mark of a heartbeat that is sent now.
    pub(super) fn next(&self) -> u64 {
        let mut sent = self.lock();
        sent.count += 1;
        let mark = sent.marks.hash_one(sent.count).max(1);
        sent.awaited.push_back((mark, self.clock.monotonic()));
        mark
    }

    /// Records that a heartbeat came back. Returns when it was sent; `None` if it was not
    /// sent here or came back before. Earlier ones are awaited no longer.
    pub(super) fn came_back(&self, mark: u64) -> Option<Instant> {
        let mut sent = self.lock();
        let place = sent.awaited.iter().position(|(of, _)| *of == mark)?;
        let (_, at) = sent.awaited.drain(..=place).next_back()?;
        // Read first: a process that is suspended in between gets an earlier time.
        let now = Instant::now();
        now.checked_sub(self.clock.monotonic().saturating_sub(at))
    }

    /// Returns how many have not come back.
    pub(super) fn awaited(&self) -> usize {
        self.lock().awaited.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_counts_once_and_only_where_it_was_sent() {
        let (ours, theirs) = (Heartbeats::new(), Heartbeats::new());
        let (first, second, other) = (ours.next(), ours.next(), theirs.next());
        assert!(first != second && first != other);
        assert!(ours.came_back(other).is_none() && ours.came_back(0).is_none());
        assert!(ours.came_back(second).is_some());
        assert_eq!(ours.awaited(), 0, "the first one came too late");
        assert!(ours.came_back(second).is_none() && ours.came_back(first).is_none());
    }
}
