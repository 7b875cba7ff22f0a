//! The suites for a [`RateLimiter`]: with time in the suite's hand, and for limiters whose time is
//! not.

mod over_time;
mod promises;
mod real_time;
mod tools;
mod walks;

use std::future::Future;
use std::sync::Arc;

use super::report::{Suite, Violations};
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
    let fresh = async || {
        let clock = ManualClock::new();
        Tried {
            limiter: Arc::new(make(clock.clone()).await),
            clock,
        }
    };
    for (sentence, check) in promises::CHECKS.iter().chain(over_time::CHECKS) {
        suite.check(*sentence, check(fresh().await)).await;
    }
    for seed in 1..=walks::WALKS {
        let sentence = format!(
            "a random walk of one bucket keeps every interval and tells what is so, from seed {seed}"
        );
        suite
            .check(sentence, walks::one_bucket(fresh().await, seed))
            .await;
        let sentence = format!(
            "a random walk of several buckets counts in all of them or in none, from seed {seed}"
        );
        suite
            .check(sentence, walks::several_buckets(fresh().await, seed))
            .await;
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
    for (sentence, check) in promises::CHECKS.iter().chain(real_time::CHECKS) {
        // Nobody looks at this clock.
        let tried = Tried {
            limiter: Arc::new(make().await),
            clock: ManualClock::new(),
        };
        suite.check(*sentence, check(tried)).await;
    }
    suite.finish()
}
