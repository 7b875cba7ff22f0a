//! The limiter with a clock of the test's own.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::Clock;
use portunus::limit::{
    BucketId, Decision, LimitBucket, LimitRequest, LimiterError, RateLimiter, WindowState,
};
use portunus::quota::Quotas;
use portunus::testing::ManualClock;
use portunus_test_support::redis::Redis as Server;
use tokio::time::Instant;

use crate::client::Client;
use crate::reply::Reply;
use crate::request::Request;
use crate::script::{Call, Script};
use crate::{Redis, RedisError};

/// A limiter whose server has an injected clock.
#[derive(Debug, Clone)]
pub(crate) struct Clocked {
    pub(crate) client: Arc<Client>,
    script: Script,
    clock: ManualClock,
    /// What the server's clock is behind the other.
    behind: Duration,
}

impl Clocked {
    pub(crate) fn on(server: &Server, prefix: &str, clock: ManualClock) -> Self {
        Self::with(server, prefix, clock, ("", ""))
    }

    /// The same with another text in a place of the script.
    pub(crate) fn with(
        server: &Server,
        prefix: &str,
        clock: ManualClock,
        (of, by): (&str, &str),
    ) -> Self {
        let mut text = include_str!("limit.lua").to_owned();
        assert!(text.contains(of), "{of} is not in the script");
        if !of.is_empty() {
            text = text.replacen(of, by, 1);
        }
        let injected = text.replace("redis.call('TIME')", "{ 0, ARGV[2] }");
        let injected = injected.replace("latest > 0 and clock > latest", "false");
        assert!(
            !injected.contains("'TIME'") && !injected.contains("> latest"),
            "{injected}"
        );
        let redis = Redis::single(&server.address()).unwrap();
        let redis = redis
            .prefix(prefix)
            .unwrap()
            .deadline(Duration::from_secs(5));
        Self {
            client: Arc::new(redis.connect()),
            script: Script::new(&injected),
            clock,
            behind: Duration::ZERO,
        }
    }

    pub(crate) fn behind(&self, behind: Duration) -> Self {
        Self {
            behind,
            ..self.clone()
        }
    }

    /// The length of the bucket `b`.
    pub(crate) fn bytes(&self, server: &Server) -> usize {
        let key = format!("{}:{{+b}}:c:", self.client.prefix);
        server.cli(&["strlen", &key]).parse().unwrap()
    }

    pub(crate) async fn passed(&self, quotas: &Quotas, requests: u64) -> u64 {
        let mut passed = 0;
        for _ in 0..requests {
            passed += u64::from(self.one(quotas).await.is_admitted());
        }
        passed
    }

    pub(crate) async fn one(&self, quotas: &Quotas) -> Decision {
        let bucket = [LimitBucket::new(BucketId::Custom("b"), quotas)];
        self.acquire(&LimitRequest::new(&bucket, 1)).await.unwrap()
    }
}

impl Clocked {
    async fn call(&self, prepared: &Request, requests: u16) -> Result<Reply, RedisError> {
        let time = self.clock.monotonic() + Duration::from_secs(100_000) - self.behind;
        let time = time.as_micros().to_string();
        let until = Instant::now() + self.client.deadline;
        let call = Call {
            script: &self.script,
            keys: &prepared.keys,
            first: [&requests.to_le_bytes(), &prepared.asks],
            args: &[time.as_bytes()],
            until,
        };
        let run = self.client.run(until, call).await;
        run.and_then(|(reply, _)| Reply::of(reply))
    }

    /// Requests that one call decides.
    pub(crate) async fn group(
        &self,
        request: &LimitRequest<'_>,
        requests: u16,
    ) -> Result<Vec<Decision>, LimiterError> {
        let prepared = Request::new(request, &self.client.prefix, false)?;
        let Some(prepared) = prepared else {
            return Ok(vec![Decision::admitted(); requests.into()]);
        };
        let reply = self.call(&prepared, requests).await;
        let reply = reply.map_err(LimiterError::unavailable)?;
        let decided = (0..requests.into()).map(|place| reply.decision(request, place));
        let decided: Result<Vec<_>, _> = decided.collect();
        let decided = decided.map_err(LimiterError::unavailable)?;
        Ok(decided.into_iter().map(|(decision, _)| decision).collect())
    }
}

#[async_trait]
impl RateLimiter for Clocked {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        let decided = self.group(request, 1).await?;
        Ok(decided.into_iter().next().unwrap())
    }

    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        let prepared = Request::reading(request, &self.client.prefix, false)?.unwrap();
        let reply = self.call(&prepared, 0).await;
        let states = reply.and_then(|reply| reply.states(request));
        states.map(Some).map_err(LimiterError::unavailable)
    }
}
