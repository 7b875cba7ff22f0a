//! The limiter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::limit::{
    BucketId, Decision, LimitBucket, LimitRequest, LimiterError, RateLimiter, WindowState,
};
use portunus::quota::{Quota, Quotas};

use crate::RedisError;
use crate::client::Client;
use crate::request::Request;
use crate::sender::Sender;

/// A [`RateLimiter`] that counts on Redis or Valkey, for any number of nodes. Clones share the
/// connections.
///
/// In every interval of length W, by the clock of the server, at most N units are admitted, whatever
/// number of nodes send requests. A request is one script for all its policies and windows, which
/// counts in all of them or in none. A node sends the requests that come while a call of the script is
/// on its way together in the next one, at most 64 for about 16 buckets; on a cluster only equal ones. The
/// script decides each as if it were alone, equal ones in their order, and an error of one key is not one
/// of the others. None waits for the others for longer than a sixteenth of the deadline.
///
/// A request that is not answered within the [deadline](crate::Redis::deadline) is an outage for
/// this request: [`Limits::on_outage`](portunus::Limits::on_outage) decides. If the server does not
/// answer at all, or a quarter of the calls of a second get no answer, requests are not sent
/// until it answers again, and cost no time. A request that reaches the server later than its
/// sender waited for it is not counted.
///
/// At the level `TRACE`, each decision is logged with its buckets and the server's time in
/// microseconds.
#[derive(Clone)]
pub struct RedisLimiter {
    sender: Arc<Sender>,
}

impl RedisLimiter {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            sender: Arc::new(Sender::new(client)),
        }
    }

    /// Waits until the servers are connected, and makes requests as the limiter does, on a bucket
    /// for this purpose. Takes at most six seconds with a deadline of up to one. Call it at start, if
    /// the service must not start without its limiter.
    ///
    /// Returns warnings, each a line, which are also logged: that a server may evict live limits.
    ///
    /// # Errors
    /// Returns why requests cannot be limited: no server answers, a server is of another kind, too
    /// old or a replica, a cluster is down, or a permission is missing.
    pub async fn check(&self) -> Result<Vec<String>, RedisError> {
        let client = &self.sender.client;
        let quota = Quota::new("check", 1, Duration::from_secs(1));
        let quotas = quota.and_then(|quota| Quotas::new([quota]));
        let quotas = quotas.map_err(|error| RedisError::Address(error.to_string()))?;
        let bucket = [LimitBucket::new(
            BucketId::Custom("portunus check"),
            &quotas,
        )];
        let request = LimitRequest::new(&bucket, 1);
        let prepared = Request::new(&request, &client.prefix, client.is_cluster);
        let key = prepared
            .ok()
            .flatten()
            .and_then(|mut request| request.keys.pop());
        let command = |name: &str| redis::cmd(name).arg(&key).to_owned();
        let mut set = command("SET");
        set.arg("").arg("PX").arg(1);
        let commands = [command("GET"), set, command("PTTL")];
        let warnings = client.check(&commands).await?;
        // The second request is refused, and uses other commands than the first.
        for _ in 0..2 {
            let decided = self.decide(&request).await;
            let _ = decided.map_err(|error| match error {
                NoDecision::Redis(error) => error,
                NoDecision::Limiter(error) => RedisError::Unavailable(error.to_string()),
            })?;
        }
        Ok(warnings)
    }
}

/// Why there is no decision. It is no [`Decision`], so that no outage can look like one.
#[derive(Debug)]
enum NoDecision {
    Redis(RedisError),
    Limiter(LimiterError),
}

impl From<NoDecision> for LimiterError {
    fn from(error: NoDecision) -> Self {
        match error {
            NoDecision::Redis(error) => Self::unavailable(error),
            NoDecision::Limiter(error) => error,
        }
    }
}

impl RedisLimiter {
    async fn decide(&self, request: &LimitRequest<'_>) -> Result<Decision, NoDecision> {
        let client = &self.sender.client;
        let prepared = Request::new(request, &client.prefix, client.is_cluster);
        let Some(prepared) = prepared.map_err(NoDecision::Limiter)? else {
            return Ok(Decision::admitted());
        };
        let prepared = Arc::new(prepared);
        let answer = if request.overdraw {
            self.sender.alone(&prepared).await
        } else {
            self.sender.together(&prepared).await
        };
        let (reply, place) = answer.map_err(NoDecision::Redis)?;
        let decided = reply.decision(request, place);
        let (decision, time) = decided.map_err(NoDecision::Redis)?;
        prepared.trace(time, decision.is_admitted());
        Ok(decision)
    }

    async fn read(&self, request: &LimitRequest<'_>) -> Result<Vec<WindowState>, NoDecision> {
        let client = &self.sender.client;
        let prepared = Request::reading(request, &client.prefix, client.is_cluster);
        let Some(prepared) = prepared.map_err(NoDecision::Limiter)? else {
            return Ok(Vec::new());
        };
        let answer = self.sender.alone(&Arc::new(prepared)).await;
        let states = answer.and_then(|(reply, _)| reply.states(request));
        states.map_err(NoDecision::Redis)
    }
}

#[async_trait]
impl RateLimiter for RedisLimiter {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        Ok(self.decide(request).await?)
    }

    /// Reads by the same script, which writes nothing then.
    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        Ok(Some(self.read(request).await?))
    }

    /// Returns an error if it is known that no server would answer, and otherwise `None`.
    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        let client = &self.sender.client;
        if !client.is_any_down() {
            return None;
        }
        let prepared = match Request::new(request, &client.prefix, client.is_cluster) {
            Ok(prepared) => prepared?,
            Err(error) => return Some(Err(error)),
        };
        let down = client.why_down(prepared.keys.first()?)?;
        Some(Err(LimiterError::unavailable(down)))
    }

    /// Not in a cluster, where a script runs on one node.
    fn counts_together(&self) -> bool {
        !self.sender.client.is_cluster
    }
}

impl fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisLimiter({})", self.sender.client.prefix)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use portunus_test_support::redis::Redis as Server;

    #[tokio::test]
    async fn a_clock_of_the_server_that_was_set_forward_costs_no_decision() {
        let server = Server::start();
        let redis = crate::Redis::single(&server.address()).unwrap();
        let limiter = redis.deadline(Duration::from_secs(5)).limiter();
        limiter.check().await.unwrap();
        let quotas = Quotas::default();
        let bucket = [LimitBucket::new(BucketId::Shared, &quotas)];
        let client = &limiter.sender.client;
        for turn in 0..3 {
            // As if the clock had been an hour behind until now.
            let node = client.node_of(b"k").await.unwrap();
            let before = node.clock_after(Duration::ZERO);
            node.learn_clock(before - 3_600_000_000);
            let decided = limiter.acquire(&LimitRequest::new(&bucket, 1)).await;
            assert!(decided.unwrap().is_admitted(), "turn {turn}");
            assert!(node.clock_after(Duration::ZERO) >= before);
        }
    }
}
