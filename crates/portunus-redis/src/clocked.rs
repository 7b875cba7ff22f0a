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

use crate::Redis;
use crate::batch::Batch;
use crate::client::Client;
use crate::request::Request;
use crate::script::{Call, Script};
use crate::waiter::Waiter;

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
        // Keys expire by the server's clock, which goes on while a busy machine delays a test.
        assert_eq!(injected.matches(") / 1000)").count(), 2, "{injected}");
        let injected = injected.replace(") / 1000)", ") / 1000 + 1000000)");
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
    /// Requests that one call decides.
    pub(crate) async fn together(
        &self,
        requests: &[LimitRequest<'_>],
    ) -> Vec<Result<Decision, LimiterError>> {
        let until = Instant::now() + self.client.deadline;
        let (mut batch, mut asked) = (Batch::default(), Vec::new());
        for request in requests {
            let prepared = Request::new(request, &self.client.prefix, false);
            asked.push(prepared.map(|prepared| {
                let (waiter, answer) = Waiter::until(until);
                batch.add(&Arc::new(prepared?), waiter);
                Some(answer)
            }));
        }
        if !batch.is_empty() {
            self.call(batch, until).await;
        }
        let mut all = Vec::new();
        for (request, answer) in requests.iter().zip(asked) {
            all.push(match answer {
                Ok(Some(answer)) => {
                    let reply = answer.await.unwrap();
                    let decided = reply.and_then(|(reply, place)| reply.decision(request, place));
                    let decided = decided.map(|(decision, _)| decision);
                    decided.map_err(LimiterError::unavailable)
                }
                Ok(None) => Ok(Decision::admitted()),
                Err(error) => Err(error),
            });
        }
        all
    }

    async fn call(&self, mut batch: Batch, until: Instant) {
        let time = self.clock.monotonic() + Duration::from_secs(100_000) - self.behind;
        let time = time.as_micros().to_string();
        let (keys, asked) = batch.packed();
        let call = Call {
            script: &self.script,
            keys: &keys,
            asked: &asked,
            args: &[time.as_bytes()],
            until,
        };
        match self.client.decide(until, call).await {
            Ok((replies, _)) => drop(batch.answer(replies)),
            Err(error) => drop(batch.fail(&error)),
        }
    }
}

#[async_trait]
impl RateLimiter for Clocked {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.together(std::slice::from_ref(request)).await.remove(0)
    }

    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        let until = Instant::now() + self.client.deadline;
        let prepared = Request::reading(request, &self.client.prefix, false)?.unwrap();
        let (waiter, answer) = Waiter::until(until);
        self.call(Batch::of(&Arc::new(prepared), waiter), until)
            .await;
        let states = answer
            .await
            .unwrap()
            .and_then(|(reply, _)| reply.states(request));
        states.map(Some).map_err(LimiterError::unavailable)
    }
}
