//! Rate limits and cache invalidation for [`portunus`] across any number of nodes, on Redis or
//! Valkey: a single server, a primary that Sentinels name, or a cluster.
//!
//! ```no_run
//! use portunus::{Limits, Portunus, limit::OnOutage, quota::Quota};
//! use portunus::store::{Cache, MemoryStore};
//! use portunus_redis::Redis;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let format = portunus::key::KeyFormat::builder("acme_").build()?;
//! # let store = MemoryStore::new(); // your store
//! let redis = Redis::single("redis://limits:password@redis.internal/0")?;
//! let (limiter, bus) = (redis.limiter(), redis.bus());
//! for warning in limiter.check().await? {
//!     eprintln!("{warning}");
//! }
//! bus.check().await?;
//! let keys = Portunus::builder(format)
//!     .store(store)
//!     .cache(Cache::new().bus(bus))
//!     .limits(
//!         Limits::per_key([Quota::per_minute(60), Quota::per_hour(1000)])
//!             .limiter(limiter)
//!             .on_outage(OnOutage::Local),
//!     )
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! | feature | |
//! |---|---|
//! | `tls` | TLS (`rediss://`) with rustls and the system's root certificates |
//!
//! If the process has no default cryptography provider for rustls, ring becomes it.
//!
//! # What is promised
//! In every interval of length W, measured by the clock of the server, at most N units are admitted
//! on all nodes together, and a request is refused only if N were admitted within W and W/256. Quotas
//! of up to 64 are exact. The state of a key takes about 1.2 kB at the defaults (60 a minute and 1000
//! an hour), and expires when it says nothing more.
//!
//! - **Outages.** A request without an answer is handled as
//!   [`Limits::on_outage`](portunus::Limits::on_outage) says. It waits for one deadline
//!   ([`Redis::deadline`]) at most, and a server that does not answer is not asked until it does.
//! - **Lost data.** A server that restarts without persistence, or a failover to a replica that
//!   lags, forgets what was admitted: at most N more units pass in the window.
//! - **Clocks.** If the server's clock is set back, or a failover leads to a server whose clock is
//!   behind, a bucket's time stands still for that moment: nothing is admitted too early, and a key
//!   is full for at most one window. A step forward cannot be told from the passing of time, and
//!   frees units early. Keep the clocks of servers synchronized.
//! - **Quotas that differ between nodes**, while a configuration is rolled out, count the same units.
//!
//! # Servers
//! Redis 6.2 or newer, Valkey 7.2 or newer. Set `maxmemory-policy noeviction`: another policy may
//! evict live limits, which then begin anew ([`RedisLimiter::check`] warns of it). In a cluster, all
//! buckets of a tenant are on one node. A policy per address or a shared one is on another, so it can
//! only be for requests without a key ([`LimitPolicy::anonymous`](portunus::limit::LimitPolicy)):
//! other services are not built.
//!
//! # Permissions
//! The user needs no more than this, with the prefix that you set ([`Redis::prefix`]):
//!
//! ```text
//! ACL SETUSER limits on >password resetkeys resetchannels -@all
//!     ~portunus:* &portunus:* +evalsha +eval +time +get +set +pttl +publish +subscribe +info +select
//! ```
//!
//! `+select` is needed for a database other than 0 only, and `+publish +subscribe &portunus:*` for
//! the bus only. Without `+info`, eviction is not checked. In a cluster, add `+cluster|slots`,
//! `+cluster|info` and `+asking`. The user of a Sentinel needs `+sentinel|get-master-addr-by-name`.
//! Users are shared neither between the nodes of a cluster nor between a primary and its replicas:
//! create them on each.

mod address;
mod batch;
#[cfg(test)]
mod batches;
mod breaker;
#[cfg(test)]
mod bursts;
mod bus;
mod client;
#[cfg(test)]
mod clocked;
mod error;
mod limiter;
#[cfg(test)]
mod model;
mod node;
mod queues;
mod reply;
mod request;
mod routes;
mod script;
mod sender;
mod server;
mod slot;
mod task;
mod waiter;

pub use bus::RedisBus;
pub use client::Redis;
pub use error::RedisError;
pub use limiter::RedisLimiter;
