//! Detects that the periodic jobs are not running.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::telemetry;

/// The periodic jobs must run within this time after the first use.
const JOBS_WITHIN: Duration = Duration::from_secs(10);

/// How often this is checked, in milliseconds.
const LOOK_EVERY: u64 = 1000;

/// Detects that the periodic jobs are not running.
#[derive(Default)]
pub(super) struct Watch {
    /// Whether there are jobs that have not run yet.
    awaits_jobs: AtomicBool,
    /// The first use since the jobs are expected: monotonic milliseconds plus one, or 0.
    first_use: AtomicU64,
    /// When the monotonic clock was last looked at, in milliseconds of the time of day.
    looked_at: AtomicU64,
    clock: OnceLock<Arc<dyn Clock>>,
}

impl Watch {
    /// Expects the jobs to run from now on.
    pub(super) fn await_jobs(&self, clock: &Arc<dyn Clock>) {
        let _ = self.clock.set(Arc::clone(clock));
        self.awaits_jobs.store(true, Ordering::Relaxed);
    }

    /// Records that the jobs run.
    pub(super) fn jobs_are_run(&self) {
        self.awaits_jobs.store(false, Ordering::Relaxed);
    }

    /// Called for each admitted request, at this time of day. Logs once if the jobs have not run ten
    /// seconds after the first request.
    #[inline]
    pub(super) fn authenticated(&self, time_of_day: u64) {
        if self.awaits_jobs.load(Ordering::Relaxed) {
            self.check(time_of_day);
        }
    }

    fn check(&self, time_of_day: u64) {
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
