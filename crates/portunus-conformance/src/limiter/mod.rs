//! The suites for a [`RateLimiter`]: with a clock that the suite controls, and for limiters with
//! their own clock.

mod over_time;
mod policies;
mod promises;
mod readings;
mod real_time;
mod tools;
mod walks;

use std::future::Future;
use std::sync::Arc;

use super::report::{Checking, Violations};
use super::runner::{Calls, Suite, Watched};
use portunus::limit::RateLimiter;
use portunus::testing::ManualClock;
use tools::Tried;

/// Checks a [`RateLimiter`] against all promises of the trait, with a clock that the suite
/// controls.
///
/// `make` returns a limiter that has admitted nothing yet and uses the given clock, namely its
/// monotonic time, [`Clock::monotonic`](portunus::Clock::monotonic). Time moves in whole
/// milliseconds, and a limiter need not distinguish shorter intervals. For a limiter with its own
/// clock, use [`rate_limiter_in_real_time`].
///
/// Tolerance: a unit may be released up to 1/256 of its window plus one millisecond late, but never
/// early.
///
/// ```
/// # async fn run() {
/// use portunus::limit::LocalLimiter;
///
/// portunus_conformance::rate_limiter(|clock| async {
///     LocalLimiter::builder().clock(clock).build()
/// })
/// .await
/// .unwrap();
/// # }
/// # tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap().block_on(run());
/// ```
///
/// # Errors
/// Returns every check that failed, with what was observed.
pub async fn rate_limiter<L, F, Fut>(make: F) -> Result<(), Violations>
where
    L: RateLimiter,
    F: Fn(ManualClock) -> Fut,
    Fut: Future<Output = L>,
{
    let mut suite = Suite::new("rate limiter");
    let mut fresh = |calls: Calls| {
        let clock = ManualClock::new();
        let making = make(clock.clone());
        async move {
            let limiter = Arc::new(Watched::new(making.await, calls));
            Tried { limiter, clock }
        }
    };
    for group in [promises::CHECKS, over_time::CHECKS] {
        suite.run(group, &mut fresh).await;
    }
    for seed in 1..=walks::WALKS {
        let sentence = format!(
            "a random walk on one bucket exceeds no limit and reports correct state, from seed \
             {seed}"
        );
        let walk = |tried| Box::pin(walks::one_bucket(tried, seed)) as Checking;
        suite.walk(sentence, &mut fresh, walk).await;
        let sentence = format!(
            "a random walk on several buckets counts in all of them or in none, from seed {seed}"
        );
        let walk = |tried| Box::pin(walks::several_buckets(tried, seed)) as Checking;
        suite.walk(sentence, &mut fresh, walk).await;
    }
    suite.finish()
}

/// Checks a [`RateLimiter`] that has its own clock, for example a server's, in windows of one and
/// two seconds.
///
/// `make` returns a limiter that has admitted nothing yet: on a fresh database or under a fresh
/// prefix. The suite takes about fifteen seconds, and is less strict than [`rate_limiter`]: where
/// network delay makes the time of a request uncertain, the limiter has the benefit of the doubt. A
/// limiter whose clock can be injected in its tests should pass both suites.
///
/// ```no_run
/// # async fn run() {
/// use portunus::limit::LocalLimiter;
///
/// // In the place of `LocalLimiter`: connect to the server, with keys under a new random prefix.
/// portunus_conformance::rate_limiter_in_real_time(|| async { LocalLimiter::default() }).await.unwrap();
/// # }
/// ```
///
/// # Errors
/// Returns every check that failed, with what was observed.
pub async fn rate_limiter_in_real_time<L, F, Fut>(make: F) -> Result<(), Violations>
where
    L: RateLimiter,
    F: Fn() -> Fut,
    Fut: Future<Output = L>,
{
    let mut suite = Suite::new("rate limiter");
    let mut fresh = |calls: Calls| {
        let making = make();
        async move {
            Tried {
                limiter: Arc::new(Watched::new(making.await, calls)),
                // This clock is not used.
                clock: ManualClock::new(),
            }
        }
    };
    for group in [promises::CHECKS, real_time::CHECKS] {
        suite.run(group, &mut fresh).await;
    }
    suite.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_depend_on_earlier_ones_and_have_unique_names() {
        crate::runner::assert_grounds(&[promises::CHECKS, over_time::CHECKS]);
        crate::runner::assert_grounds(&[promises::CHECKS, real_time::CHECKS]);
    }
}
