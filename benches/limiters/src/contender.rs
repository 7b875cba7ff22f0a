//! The contenders, each connected with one connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use limitador::AsyncRateLimiter;
use limitador::limit::{Context, Limit, Namespace};
use limitador::storage::redis::AsyncRedisStorage;
use portunus::RateLimiter;
use portunus::limit::{BucketId, LimitBucket, LimitRequest};
use portunus::quota::{Quota, Quotas};
use portunus_redis::{Redis, RedisLimiter};
use redis::aio::MultiplexedConnection;

use crate::Case;

/// A counter of each window, which begins with its first request. It admits up to twice the quota
/// around the end of a window.
const PLAIN: &str = "\
local wait = 0
for i, key in ipairs(KEYS) do
  local n = redis.call('INCR', key)
  if n == 1 then redis.call('PEXPIRE', key, ARGV[2 * i]) end
  if n > tonumber(ARGV[2 * i - 1]) then wait = math.max(wait, redis.call('PTTL', key)) end
end
return wait";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Portunus,
    Plain,
    Limitador,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Portunus, Self::Plain, Self::Limitador];
    /// The place of the plain script.
    pub(crate) const PLAIN: usize = 1;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portunus => "portunus-redis",
            Self::Plain => "plain script",
            Self::Limitador => "limitador",
        }
    }
}

#[derive(Clone)]
pub(crate) enum Contender {
    Portunus(RedisLimiter, Quotas),
    Plain(MultiplexedConnection, Arc<redis::Script>, Case),
    Limitador(Arc<AsyncRateLimiter>, Namespace),
}

impl Contender {
    pub(crate) async fn connect(kind: Kind, case: Case, address: &str) -> Self {
        match kind {
            Kind::Portunus => {
                let redis = Redis::single(address).expect("an address");
                let limiter = redis.deadline(Duration::from_secs(5)).limiter();
                limiter.check().await.expect("a server");
                let quota = |&(limit, seconds): &(u64, u64)| {
                    let name = format!("w{seconds}");
                    Quota::new(&name, limit, Duration::from_secs(seconds)).expect("a quota")
                };
                let quotas = Quotas::new(case.windows.iter().map(quota));
                Self::Portunus(limiter, quotas.expect("quotas"))
            }
            Kind::Plain => {
                let client = redis::Client::open(address).expect("an address");
                let config = redis::AsyncConnectionConfig::new()
                    .set_connection_timeout(None)
                    .set_response_timeout(None);
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                let script = Arc::new(redis::Script::new(PLAIN));
                Self::Plain(connection.await.expect("a server"), script, case)
            }
            Kind::Limitador => {
                let storage = AsyncRedisStorage::new(address).await.expect("a server");
                let limiter = AsyncRateLimiter::new_with_storage(Box::new(storage));
                for (limit, seconds) in case.windows {
                    // Without conditions and variables, which would have to be evaluated.
                    limiter.add_limit(Limit::new("hot", *limit, *seconds, [], []));
                }
                Self::Limitador(Arc::new(limiter), "hot".into())
            }
        }
    }

    /// Makes a request. Returns whether it was decided, which it always is.
    pub(crate) async fn decide(&self) -> bool {
        match self {
            Self::Portunus(limiter, quotas) => {
                let bucket = [LimitBucket::new(BucketId::Custom("hot"), quotas)];
                limiter
                    .acquire(&LimitRequest::new(&bucket, 1))
                    .await
                    .is_ok()
            }
            Self::Plain(connection, script, case) => {
                let mut call = script.prepare_invoke();
                for (limit, seconds) in case.windows {
                    call.key(format!("plain:{{hot}}:{seconds}"));
                    call.arg(*limit).arg(*seconds * 1_000);
                }
                let waits: i64 = call
                    .invoke_async(&mut connection.clone())
                    .await
                    .expect("a decision");
                waits >= 0
            }
            Self::Limitador(limiter, hot) => {
                let context: Context<'_> = HashMap::new().into();
                let decided = limiter.check_rate_limited_and_update(hot, &context, 1);
                decided.await.is_ok()
            }
        }
    }
}
