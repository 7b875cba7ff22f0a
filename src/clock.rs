//! An injectable clock, so that tests control the time and a request reads it once.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use futures_timer::Delay;
use futures_util::future::{Either, select};

use crate::pointer::to_the_pointee;

/// Runs a future within a limit of real time, on any runtime. Returns `None` if the time is up.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), Delay::new(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// A source of time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the time of day, for expiry and records. It may step.
    fn now(&self) -> SystemTime;

    /// Returns the time since a fixed instant, which never goes back, for windows, deadlines and
    /// back-off. It should continue while the machine sleeps.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
///
/// Time during which the machine sleeps is counted where the platform has such a clock: on Linux
/// and Android (`CLOCK_BOOTTIME`), on Apple's systems (`CLOCK_MONOTONIC`) and on Windows.
/// Elsewhere, windows and deadlines pause while the machine sleeps: they become longer by that
/// time, never shorter.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Duration,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { origin: uptime() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        uptime().saturating_sub(self.origin)
    }
}

/// Returns the monotonic time since a fixed instant, including the machine's sleep if possible.
fn uptime() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    awake_or_not().unwrap_or_else(|| FIRST.get_or_init(Instant::now).elapsed())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn awake_or_not() -> Option<Duration> {
    use rustix::time::{DynamicClockId, clock_gettime_dynamic};
    let time = clock_gettime_dynamic(DynamicClockId::Boottime).ok()?;
    Some(Duration::new(
        time.tv_sec.try_into().ok()?,
        time.tv_nsec.try_into().ok()?,
    ))
}

#[cfg(target_vendor = "apple")]
fn awake_or_not() -> Option<Duration> {
    // `Instant` in the standard library uses `CLOCK_UPTIME_RAW` there, which pauses during sleep.
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Some(Duration::new(
        time.tv_sec.try_into().ok()?,
        time.tv_nsec.try_into().ok()?,
    ))
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const fn awake_or_not() -> Option<Duration> {
    None
}

to_the_pointee! {
    Clock {
        fn now(&self) -> SystemTime;
        fn monotonic(&self) -> Duration;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back_and_keeps_pace() {
        let clock = SystemClock::default();
        let (began, first) = (Instant::now(), clock.monotonic());
        let mut last = first;
        while began.elapsed() < Duration::from_millis(5) {
            let now = clock.monotonic();
            assert!(now >= last);
            last = now;
        }
        assert!(clock.monotonic() - first >= Duration::from_millis(4));
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    #[test]
    fn a_clock_that_counts_sleep_is_used_where_there_is_one() {
        assert!(awake_or_not().is_some());
    }
}
