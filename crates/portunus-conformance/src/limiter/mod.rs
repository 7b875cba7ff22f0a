//! The suites for a [`RateLimiter`]: with time in the suite's hand, and for limiters whose time is
//! not.

mod over_time;
mod promises;
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

/// Tries a [`RateLimiter`] against all that the trait promises, with time in the suite's hand.
///
/// `make` returns a limiter that has admitted nothing yet and takes its time from the clock that it
/// is given: the monotonic time, [`Clock::monotonic`](portunus::Clock::monotonic). Time moves in whole
/// milliseconds; a limiter need tell no less apart. A limiter with a clock of its own has
/// [`rate_limiter_in_real_time`].
///
/// What may differ: a unit may be forgotten up to the 256th part of its window late, and a
/// millisecond. Never early.
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
/// Every check that failed, with what was seen.
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
            "a random walk of one bucket keeps every interval and tells what is so, from seed {seed}"
        );
        let walk = |tried| Box::pin(walks::one_bucket(tried, seed)) as Checking;
        suite.walk(sentence, &mut fresh, walk).await;
        let sentence = format!(
            "a random walk of several buckets counts in all of them or in none, from seed {seed}"
        );
        let walk = |tried| Box::pin(walks::several_buckets(tried, seed)) as Checking;
        suite.walk(sentence, &mut fresh, walk).await;
    }
    suite.finish()
}

/// Tries a [`RateLimiter`] that has a clock of its own, a server's for example, in windows of one
/// and two seconds.
///
/// `make` returns a limiter that has admitted nothing yet: on a fresh database or under a fresh
/// prefix. The suite takes about fifteen seconds, and knows less than [`rate_limiter`]: where the
/// time of a request is uncertain by the network's delay, nobody is blamed. A limiter whose time
/// can be injected in its tests should pass both.
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
/// Every check that failed, with what was seen.
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
                // Nobody looks at this clock.
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
    fn checks_rest_on_earlier_ones_and_no_two_have_one_name() {
        crate::runner::assert_grounds(&[promises::CHECKS, over_time::CHECKS]);
        crate::runner::assert_grounds(&[promises::CHECKS, real_time::CHECKS]);
    }
}
