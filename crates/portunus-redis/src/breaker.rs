//! The share of requests to a server that got no answer, over the last second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts are of the current half second and the one before.
const HALF: Duration = Duration::from_millis(500);
/// The fewest failures that say something about the server.
const FEWEST: u32 = 5;
/// One failure in this many requests is too many.
const ONE_IN: u32 = 4;

/// Counts requests with and without an answer.
#[derive(Debug)]
pub(crate) struct Breaker(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    since: Instant,
    /// Of the half second before, and of this one: all requests, and those without an answer.
    halves: [(u32, u32); 2],
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Counts {
            since: Instant::now(),
            halves: [(0, 0); 2],
        }))
    }

    /// Forgets all requests.
    pub(crate) fn reset(&self) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.halves = [(0, 0); 2];
    }

    /// Counts a request. Returns whether too many of the last second failed.
    pub(crate) fn count(&self, failed: bool) -> bool {
        self.count_at(Instant::now(), failed)
    }

    fn count_at(&self, now: Instant, failed: bool) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let past = now.saturating_duration_since(counts.since);
        if past >= HALF {
            let last = if past < 2 * HALF {
                counts.halves[1]
            } else {
                (0, 0)
            };
            counts.halves = [last, (0, 0)];
            counts.since = now;
        }
        let (all, without) = &mut counts.halves[1];
        *all = all.saturating_add(1);
        *without = without.saturating_add(failed.into());
        let [(a, x), (b, y)] = counts.halves;
        let (all, failures) = (a.saturating_add(b), x.saturating_add(y));
        failures >= FEWEST && failures >= all / ONE_IN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_failures_counts_and_not_their_order() {
        // Every third request fails, so that never two in a row do.
        let breaker = Breaker::new();
        let opened = (0..30).find(|turn| breaker.count(turn % 3 == 0));
        assert_eq!(opened, Some(12), "at the fifth failure");
        // One in ten fails.
        let breaker = Breaker::new();
        assert!(!(0..1000).any(|turn| breaker.count(turn % 10 == 0)));
    }

    #[test]
    fn failures_of_more_than_a_second_ago_are_forgotten() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        for _ in 0..4 {
            assert!(!breaker.count_at(start, true));
        }
        assert!(
            breaker.count_at(start + HALF, true),
            "the half second before counts"
        );
        assert!(!breaker.count_at(start + 3 * HALF, true));
    }
}
