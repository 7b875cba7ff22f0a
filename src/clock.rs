//! An injectable clock, so that tests control the time and a request reads it once.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use futures_timer::Delay;
use futures_util::future::{Either, select};
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
use nix::time::{ClockId, clock_gettime};

use crate::pointer::to_the_pointee;

/// Runs a future within a limit of real time, on any runtime. Returns `None` if the time is up.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), Delay::new(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Lets other tasks run, on any runtime.
pub(crate) async fn let_others_run() {
    let mut they_ran = false;
    poll_fn(|context| {
        if mem::replace(&mut they_ran, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How long [`Clock::recently`] may be in the past.
pub(crate) const RECENTLY: Duration = Duration::from_millis(250);

/// A source of time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the time of day, for expiry and records. It may step.
    fn now(&self) -> SystemTime;

    /// Returns the time of day, or one that was the time of day at most 250 ms ago, if that is
    /// cheaper. A key that begins or ends within 250 ms after it is checked by [`now`](Self::now),
    /// which is the default.
    fn recently(&self) -> SystemTime {
        self.now()
    }

    /// Returns the time since a fixed instant, which never goes back, for windows, deadlines and
    /// back-off. It should continue while the machine sleeps.
    fn monotonic(&self) -> Duration;

    /// Returns the monotonic time, or one that was the monotonic time at most 250 ms ago, if that is
    /// cheaper. It may go back, by as much. What is near an age limit is checked by
    /// [`monotonic`](Self::monotonic), which is the default.
    fn monotonic_recently(&self) -> Duration {
        self.monotonic()
    }
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

    fn recently(&self) -> SystemTime {
        coarse().unwrap_or_else(SystemTime::now)
    }

    fn monotonic(&self) -> Duration {
        uptime().saturating_sub(self.origin)
    }

    fn monotonic_recently(&self) -> Duration {
        let uptime = tick().map_or_else(uptime, uptime_at);
        uptime.saturating_sub(self.origin)
    }
}

/// Returns the monotonic time as this thread first read it after the kernel's last `tick`. Linux has
/// no coarse clock that counts sleep, but the time of day moves at each tick and after sleep.
fn uptime_at(tick: Duration) -> Duration {
    thread_local! {
        static READ: Cell<Option<(Duration, Duration)>> = const { Cell::new(None) };
    }
    READ.with(|read| match read.get() {
        Some((at, time)) if at == tick => time,
        _ => {
            let time = uptime();
            read.set(Some((tick, time)));
            time
        }
    })
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn time_of(clock: ClockId) -> Option<Duration> {
    let time = clock_gettime(clock).ok()?;
    let (seconds, nanos) = (time.tv_sec(), time.tv_nsec());
    Some(Duration::new(
        seconds.try_into().ok()?,
        nanos.try_into().ok()?,
    ))
}

/// Returns the time of day at the last tick of the kernel, at most 10 ms ago, for a fifth of the
/// price.
fn coarse() -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(tick()?)
}

/// Returns the time of the kernel's last tick, since the Unix epoch.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn tick() -> Option<Duration> {
    time_of(ClockId::CLOCK_REALTIME_COARSE)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
const fn tick() -> Option<Duration> {
    None
}

/// Returns the monotonic time since a fixed instant, including the machine's sleep if possible.
fn uptime() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    awake_or_not().unwrap_or_else(|| FIRST.get_or_init(Instant::now).elapsed())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn awake_or_not() -> Option<Duration> {
    time_of(ClockId::CLOCK_BOOTTIME)
}

#[cfg(target_vendor = "apple")]
fn awake_or_not() -> Option<Duration> {
    // `Instant` in the standard library uses `CLOCK_UPTIME_RAW` there, which pauses during sleep.
    time_of(ClockId::CLOCK_MONOTONIC)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const fn awake_or_not() -> Option<Duration> {
    None
}

to_the_pointee! {
    Clock {
        fn now(&self) -> SystemTime;
        fn recently(&self) -> SystemTime;
        fn monotonic(&self) -> Duration;
        fn monotonic_recently(&self) -> Duration;
    }
}

/// Returns the milliseconds since the Unix epoch; 0 for earlier times.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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

    #[test]
    fn the_recent_time_is_less_than_a_moment_ago() {
        let clock = SystemClock::default();
        for _ in 0..1000 {
            let (recently, now) = (clock.recently(), clock.now());
            assert!(
                recently <= now && now < recently + RECENTLY,
                "{recently:?} {now:?}"
            );
        }
    }

    #[test]
    fn the_recent_monotonic_time_is_less_than_a_moment_ago() {
        let clock = SystemClock::default();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(50) {
            let (recently, now) = (clock.monotonic_recently(), clock.monotonic());
            assert!(
                recently <= now && now < recently + RECENTLY,
                "{recently:?} {now:?}"
            );
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    #[test]
    fn a_clock_that_counts_sleep_is_used_where_there_is_one() {
        assert!(awake_or_not().is_some());
    }
}
