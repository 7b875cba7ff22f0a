//! The heartbeats of a bus: which of them came back, and what that proves.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portunus::Clock;
use portunus::clock::SystemClock;

/// The heartbeats while one connection listens.
pub(super) struct Heartbeats {
    /// The id of this node.
    pub(super) node: u64,
    /// This clock does not stop while the machine sleeps.
    pub(super) clock: SystemClock,
    beats: Mutex<Beats>,
}

struct Beats {
    /// Keyed by the operating system's randomness: the mark for a count is unpredictable before it
    /// is sent.
    marks: RandomState,
    count: u64,
    /// Heartbeats that have not come back.
    waiting: VecDeque<Waiting>,
    came_back: bool,
}

struct Waiting {
    mark: u64,
    sent: Duration,
    /// Whether the server to which it was sent has it.
    has_arrived: bool,
}

/// A heartbeat that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    /// When it was sent. Everything that was acknowledged before has been received.
    InOrder(Duration),
    /// A server has an earlier one, and did not deliver it: it is another server.
    AfterALoss,
}

impl Heartbeats {
    pub(super) fn new() -> Self {
        let beats = Beats {
            marks: RandomState::new(),
            count: 0,
            waiting: VecDeque::new(),
            came_back: false,
        };
        Self {
            node: RandomState::new().hash_one(std::process::id()),
            clock: SystemClock::default(),
            beats: Mutex::new(beats),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The mark of a heartbeat that is sent now.
    pub(super) fn next(&self) -> u64 {
        let mut beats = self.lock();
        beats.count += 1;
        let mark = beats.marks.hash_one(beats.count);
        beats.waiting.push_back(Waiting {
            mark,
            sent: self.now(),
            has_arrived: false,
        });
        mark
    }

    /// Records that the server has this heartbeat, before another one is sent.
    pub(super) fn arrived(&self, mark: Option<u64>) {
        let mut beats = self.lock();
        let mut waiting = beats.waiting.iter_mut();
        if let Some(waiting) = waiting.find(|waiting| Some(waiting.mark) == mark) {
            waiting.has_arrived = true;
        }
    }

    /// Records a returned heartbeat, if it was sent here and has not come back before. Earlier ones
    /// are then no longer awaited.
    pub(super) fn back(&self, mark: u64) -> Option<Back> {
        let mut beats = self.lock();
        let place = beats.waiting.iter().position(|it| it.mark == mark)?;
        beats.came_back = true;
        let mut lost = false;
        let mut sent = Duration::ZERO;
        for waiting in beats.waiting.drain(..=place) {
            lost |= waiting.has_arrived && waiting.mark != mark;
            sent = waiting.sent;
        }
        Some(if lost {
            Back::AfterALoss
        } else {
            Back::InOrder(sent)
        })
    }

    /// The number of heartbeats that have not come back.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether any heartbeat came back.
    pub(super) fn came_back(&self) -> bool {
        self.lock().came_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_counts_once_and_only_where_it_was_sent() {
        let (ours, theirs) = (Heartbeats::new(), Heartbeats::new());
        assert_ne!(ours.node, theirs.node);
        let (first, second) = (ours.next(), ours.next());
        let other = theirs.next();
        assert!(first != second && first != other, "marks are unpredictable");
        assert!(ours.back(other).is_none() && ours.back(0).is_none());
        let sent = ours.lock().waiting[1].sent;
        assert_eq!(ours.back(second), Some(Back::InOrder(sent)));
        assert!(
            ours.back(second).is_none() && ours.back(first).is_none(),
            "again, or late"
        );
    }
    #[test]
    fn a_heartbeat_that_another_server_has_is_noticed() {
        let beats = Heartbeats::new();
        let (first, second) = (beats.next(), beats.next());
        beats.arrived(Some(first));
        beats.arrived(Some(second));
        assert_eq!(beats.back(second), Some(Back::AfterALoss));
        // One that may not have been sent proves nothing.
        let (third, fourth) = (beats.next(), beats.next());
        beats.arrived(Some(fourth));
        let sent = beats.lock().waiting[1].sent;
        assert_eq!(beats.back(fourth), Some(Back::InOrder(sent)));
        assert_eq!(beats.back(third), None);
    }
}
