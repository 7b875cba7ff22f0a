//! Redis, on which several nodes count requests and tell each other of changes.

use std::str::FromStr;

use portunus_profiles::Profile;
use portunus_redis::{Redis, RedisBus, RedisError, RedisLimiter};
use tracing::warn;

/// One server, a primary that Sentinels name, or a cluster. It is not connected yet.
#[derive(Debug, Clone)]
pub(crate) struct RedisServer(Box<Redis>);

impl RedisServer {
    /// Whether text is meant as an address of Redis.
    pub(crate) fn is_meant(text: &str) -> bool {
        let scheme = text.split(':').next().unwrap_or_default();
        let schemes = ["redis", "rediss", "valkey", "valkeys"];
        schemes.contains(&scheme) || ["cluster", "sentinel"].contains(&scheme)
    }

    /// The server, for the nodes of one API: five APIs may share it.
    fn of(&self, profile: Profile) -> Result<Redis, String> {
        let prefix = format!("esign-{profile}");
        let redis = Redis::clone(&self.0).prefix(&prefix);
        redis.map_err(|error| error.to_string())
    }

    /// Starts the limiter of one API.
    ///
    /// # Errors
    /// One line that says why requests cannot be limited.
    pub(crate) async fn limiter(&self, profile: Profile) -> Result<RedisLimiter, String> {
        let limiter = self.of(profile)?.limiter();
        let checked = limiter.check().await;
        let warnings = checked.map_err(|error| format!("--limiter: cannot use Redis: {error}"))?;
        for warning in warnings {
            warn!("{warning}");
        }
        Ok(limiter)
    }

    /// Starts the bus of one API.
    ///
    /// # Errors
    /// One line that says why changes cannot be published.
    pub(crate) async fn bus(&self, profile: Profile) -> Result<RedisBus, String> {
        let bus = self.of(profile)?.bus();
        let checked = bus.check().await;
        checked.map_err(|error| format!("--bus: cannot use Redis: {error}"))?;
        Ok(bus)
    }
}

impl FromStr for RedisServer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // The error shows no part of the addresses.
        let redis: Redis = text
            .parse()
            .map_err(|error: RedisError| error.to_string())?;
        Ok(Self(Box::new(redis)))
    }
}
