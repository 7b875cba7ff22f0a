//! A clock that only moves when a test moves it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::lock::Mutex;

/// A clock that stands still until it is moved. Clones share the time.
///
/// ```
/// use portunus::Clock;
/// use portunus::testing::ManualClock;
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), before + Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<Mutex<(SystemTime, Duration)>>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualClock {
    /// Creates a clock at 2027-01-15 08:00:00 UTC.
    #[must_use]
    pub fn new() -> Self {
        Self::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    /// Creates a clock at this time of day.
    #[must_use]
    pub fn at(now: SystemTime) -> Self {
        Self {
            time: Arc::new(Mutex::new((now, Duration::from_secs(1_000_000)))),
        }
    }

    /// Advances both the time of day and the monotonic time.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time.lock();
        time.0 += by;
        time.1 += by;
    }

    /// Sets only the time of day, forward or back, as an administrator or NTP may.
    pub fn step_to(&self, now: SystemTime) {
        self.time.lock().0 = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.time.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.time.lock().1
    }
}
