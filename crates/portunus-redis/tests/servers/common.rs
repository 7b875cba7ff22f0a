//! What the tests share: limiters, quotas, requests.

use std::time::{Duration, Instant};

use portunus::RateLimiter;
use portunus::limit::{BucketId, Decision, LimitBucket, LimitRequest, LimiterError};
use portunus::quota::{Quota, Quotas};
use portunus_redis::{Redis, RedisLimiter};
use portunus_test_support::redis::Redis as Server;

/// A deadline that a busy machine meets.
pub(crate) const PATIENT: Duration = Duration::from_secs(5);

pub(crate) fn redis(server: &Server) -> Redis {
    Redis::single(&server.address()).unwrap()
}

/// A limiter on a server, with a deadline that a busy machine meets.
pub(crate) fn limiter(server: &Server) -> RedisLimiter {
    redis(server).deadline(PATIENT).limiter()
}

pub(crate) fn quotas<const N: usize>(list: [(u64, u64); N]) -> Quotas {
    let quota = |(limit, seconds): (u64, u64)| {
        let name = format!("q{limit}-{seconds}");
        Quota::new(&name, limit, Duration::from_secs(seconds)).unwrap()
    };
    Quotas::new(list.map(quota)).unwrap()
}

/// A request on the bucket of this name.
pub(crate) async fn ask(
    limiter: &impl RateLimiter,
    name: &str,
    quotas: &Quotas,
) -> Result<Decision, LimiterError> {
    let bucket = [LimitBucket::new(BucketId::Custom(name), quotas)];
    limiter.acquire(&LimitRequest::new(&bucket, 1)).await
}

/// How many of a number of requests are admitted.
pub(crate) async fn passed(
    limiter: &impl RateLimiter,
    name: &str,
    quotas: &Quotas,
    requests: u64,
) -> u64 {
    let mut passed = 0;
    for _ in 0..requests {
        passed += u64::from(ask(limiter, name, quotas).await.unwrap().is_admitted());
    }
    passed
}

/// Waits until requests are answered; five seconds at most.
pub(crate) async fn recovers(limiter: &RedisLimiter) -> Duration {
    let (began, quotas) = (Instant::now(), quotas([(1, 1)]));
    while ask(limiter, "recovers", &quotas).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "no recovery");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// How long requests with the default deadline took while a server does not answer.
#[derive(Debug, Default)]
pub(crate) struct Took {
    pub(crate) count: usize,
    /// Of those that waited, for about a deadline.
    waits: Vec<Duration>,
}

impl Took {
    pub(crate) fn note(&mut self, took: Duration) {
        self.count += 1;
        let waited = took >= Duration::from_millis(40);
        self.waits.extend(waited.then_some(took));
    }

    /// Asserts that at most this many waited. A busy machine may delay some of them, but not all.
    pub(crate) fn assert_few_waits(&self, most: usize) {
        let Self { count, waits } = self;
        assert!(waits.len() <= most, "{waits:?} of {count} waited");
        let (shortest, longest) = (waits.iter().min(), waits.iter().max());
        assert!(shortest < Some(&Duration::from_millis(250)), "{waits:?}");
        assert!(longest < Some(&Duration::from_secs(2)), "{waits:?}");
    }
}
