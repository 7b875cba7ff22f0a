//! Waiting for a condition, with a time limit.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for an expected condition before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The interval between two checks.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `look` until it returns `Some`. Returns `None` after [`PATIENCE`].
pub fn eventually<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    eventually_within(PATIENCE, look)
}

/// The same as [`eventually`], with another time limit.
pub fn eventually_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// The same as [`eventually`] for a task; other tasks run in the meantime.
pub async fn eventually_async<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return Some(seen);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the condition holds.
///
/// # Panics
/// If it does not hold within [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, so: impl Fn() -> bool) {
    assert!(
        eventually(|| so().then_some(())).is_some(),
        "timed out: {what}"
    );
}

/// Waits until the condition holds, without pausing between checks: for a change that another
/// thread is about to make.
///
/// # Panics
/// If it does not hold within [`PATIENCE`].
#[track_caller]
pub fn spin_until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "timed out: {what}");
        std::hint::spin_loop();
    }
}

/// Waits in a task until the condition holds.
///
/// # Panics
/// If it does not hold within [`PATIENCE`].
pub async fn until_async(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "timed out: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Awaits a future with a time limit.
///
/// # Panics
/// If it does not complete within [`PATIENCE`].
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("the future completes in time")
}
