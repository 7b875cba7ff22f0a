//! The time, injected: so that tests own it, and a request reads it once.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use futures_timer::Delay;
use futures_util::future::{Either, select};

use crate::pointer::to_the_pointee;

/// What comes of this within a limit of real time, in any runtime; `None` where the time is over.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), Delay::new(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Where the time comes from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time of day: for expiry and records. It may step.
    fn now(&self) -> SystemTime;

    /// Time that never goes back, since an instant of the clock's own: for windows, deadlines and
    /// back-off. It should not stand still while the machine sleeps.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
///
/// Time in which the machine sleeps counts where the platform has such a clock: on Linux and Android
/// (`CLOCK_BOOTTIME`), on Apple's systems (`CLOCK_MONOTONIC`) and on Windows. Elsewhere windows and
/// deadlines stand still with the machine: longer by the sleep, never shorter.
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

/// Monotonic time since some instant, the machine's sleep included where that can be told.
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
    // The standard library's `Instant` is `CLOCK_UPTIME_RAW` there, which stands still.
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
    fn where_a_clock_counts_sleep_it_is_the_one_that_is_read() {
        assert!(awake_or_not().is_some());
    }
}
