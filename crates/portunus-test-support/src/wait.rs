//! The one way to wait: for a condition, and never for ever.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what ought to come, before it calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What `look` sees at last; `None` where it sees nothing for as long as there is patience.
pub fn eventually<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    eventually_within(PATIENCE, look)
}

/// The same with another limit.
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

/// The same as [`eventually`] in a task: others go on meanwhile.
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

/// Waits until this is so.
///
/// # Panics
/// If it never is.
#[track_caller]
pub fn until(what: &str, so: impl Fn() -> bool) {
    assert!(eventually(|| so().then_some(())).is_some(), "never: {what}");
}

/// Waits until this is so without a pause: for what must come right after, on another thread.
///
/// # Panics
/// If it never is.
#[track_caller]
pub fn spin_until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        std::hint::spin_loop();
    }
}

/// Waits in a task until this is so.
///
/// # Panics
/// If it never is.
pub async fn until_async(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same future, but no hang.
///
/// # Panics
/// If it is not done for as long as there is patience.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this waits for ever")
}
