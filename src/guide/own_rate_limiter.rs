//! Implement your own [`RateLimiter`](crate::RateLimiter).
//!
//! [`LocalLimiter`](crate::limit::LocalLimiter) counts in one process. To count across several
//! nodes, or in storage that you already have, implement one method:
//! [`acquire`](crate::RateLimiter::acquire). It gets a request with its *buckets*, one for each
//! limit that applies (of the key's family, its user, its tenant, an address, or all), each with its
//! quotas. It admits the request in all of them or in none. A second method,
//! [`peek`](crate::RateLimiter::peek), reads the same buckets, so that operators see how much of a
//! key's limits is used.
//!
//! # A first program
//! This limiter implements the definition directly: it stores the time of every admitted unit. It
//! passes the conformance suite; what it lacks is the removal of idle buckets.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex, PoisonError};
//! use std::time::Duration;
//!
//! use async_trait::async_trait;
//! use portunus::limit::{BucketId, Decision, LimitBucket, LimitRequest, LimiterError, WindowState};
//! use portunus::quota::Quota;
//! use portunus::{Clock, RateLimiter};
//!
//! #[derive(Debug)]
//! struct Exact {
//!     clock: Arc<dyn Clock>,
//!     buckets: Mutex<HashMap<String, Bucket>>,
//! }
//!
//! /// The times of admitted units, oldest first, and the widest window that was ever requested.
//! #[derive(Debug, Default)]
//! struct Bucket {
//!     admitted: Vec<Duration>,
//!     widest: Duration,
//! }
//!
//! impl Bucket {
//!     /// The units that share an interval of this length with `now`.
//!     fn within(&self, window: Duration, now: Duration) -> &[Duration] {
//!         &self.admitted[self.admitted.partition_point(|at| *at + window < now)..]
//!     }
//!
//!     /// How long a request of this cost must wait for a quota; zero if it is admitted now.
//!     fn wait(&self, quota: &Quota, cost: u64, now: Duration) -> Duration {
//!         let within = self.within(quota.window(), now);
//!         match (within.len() as u64 + cost).saturating_sub(quota.limit()) {
//!             0 => Duration::ZERO,
//!             // Until the oldest `excess` units have left the window, by one nanosecond.
//!             excess => within[excess as usize - 1] + quota.window() + Duration::from_nanos(1) - now,
//!         }
//!     }
//!
//!     /// How much of a quota is left, and when the first used unit is available again.
//!     fn state(&self, quota: &Quota, now: Duration) -> WindowState {
//!         let within = self.within(quota.window(), now);
//!         let reset = within.first().map(|at| *at + quota.window() + Duration::from_nanos(1) - now);
//!         WindowState::new(quota.limit().saturating_sub(within.len() as u64), reset)
//!     }
//! }
//!
//! /// A unique name for each bucket, across all kinds and classes. No id contains a space.
//! fn name(bucket: &LimitBucket<'_>) -> Option<String> {
//!     let id = match bucket.id {
//!         BucketId::Family(family) => format!("family {family}"),
//!         BucketId::User(tenant, user) => format!("user {tenant} {user}"),
//!         BucketId::Tenant(tenant) => format!("tenant {tenant}"),
//!         BucketId::Address(ip) => format!("address {ip:?}"),
//!         BucketId::Anonymous(ip) => format!("anonymous {ip:?}"),
//!         BucketId::Shared => "shared".to_owned(),
//!         BucketId::AnonymousShared => "anonymous shared".to_owned(),
//!         BucketId::Custom(name) => format!("custom {name}"),
//!         _ => return None, // a kind that this limiter does not know
//!     };
//!     Some(format!("{:?} {id}", bucket.class))
//! }
//!
//! #[async_trait]
//! impl RateLimiter for Exact {
//!     async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
//!         let cost = request.cost;
//!         let quotas = || request.buckets.iter().flat_map(|bucket| bucket.quotas.as_slice());
//!         let least = quotas().map(Quota::limit).min().unwrap_or(u64::MAX);
//!         if cost == 0 || (cost > least && !request.overdraw) {
//!             return Err(LimiterError::Cost { cost, limit: least }); // it could never pass
//!         }
//!         let names: Option<Vec<String>> = request.buckets.iter().map(name).collect();
//!         let names = names.ok_or_else(|| LimiterError::Unavailable("a bucket of an unknown kind".into()))?;
//!
//!         // One lock around everything. The time is read inside it, so it never goes backwards.
//!         let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
//!         let now = self.clock.monotonic();
//!         let mut wait = Duration::ZERO;
//!         for (name, asked) in names.iter().zip(request.buckets) {
//!             let bucket = buckets.entry(name.clone()).or_default();
//!             for quota in asked.quotas.as_slice() {
//!                 bucket.widest = bucket.widest.max(quota.window());
//!                 if !request.overdraw {
//!                     wait = wait.max(bucket.wait(quota, cost, now));
//!                 }
//!             }
//!         }
//!         let admitted = wait.is_zero(); // an overdraft is always admitted
//!         let mut decision = if admitted { Decision::admitted() } else { Decision::refused(wait) };
//!         for (name, asked) in names.iter().zip(request.buckets) {
//!             let bucket = buckets.entry(name.clone()).or_default();
//!             if admitted {
//!                 let old = bucket.admitted.len() - bucket.within(bucket.widest, now).len();
//!                 bucket.admitted.drain(..old);
//!                 bucket.admitted.extend((0..cost).map(|_| now));
//!             }
//!             // The state of each window afterwards, for the `RateLimit` header.
//!             let windows = asked.quotas.as_slice().iter().map(|quota| {
//!                 let state = bucket.state(quota, now);
//!                 if !admitted && !bucket.wait(quota, cost, now).is_zero() {
//!                     state.violated()
//!                 } else {
//!                     state
//!                 }
//!             });
//!             decision = decision.with_windows(windows);
//!         }
//!         Ok(decision)
//!     }
//!
//!     /// Adds no bucket, and forgets nothing.
//!     async fn peek(
//!         &self,
//!         request: &LimitRequest<'_>,
//!     ) -> Result<Option<Vec<WindowState>>, LimiterError> {
//!         let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
//!         let (now, unused) = (self.clock.monotonic(), Bucket::default());
//!         let mut states = Vec::new();
//!         for asked in request.buckets {
//!             let Some(name) = name(asked) else {
//!                 return Ok(None);
//!             };
//!             let bucket = buckets.get(&name).unwrap_or(&unused);
//!             states.extend(asked.quotas.as_slice().iter().map(|quota| bucket.state(quota, now)));
//!         }
//!         Ok(Some(states))
//!     }
//! }
//!
//! // In a test: #[tokio::test(flavor = "multi_thread")].
//! #[tokio::main(flavor = "multi_thread")]
//! async fn main() -> Result<(), portunus_conformance::Violations> {
//!     let buckets = || Mutex::default();
//!     portunus_conformance::rate_limiter(|clock| async move {
//!         Exact {
//!             clock: Arc::new(clock),
//!             buckets: buckets(),
//!         }
//!     })
//!     .await
//! }
//! ```
//!
//! Each check is printed when it ends, each root cause is reported once, and the suite ends within
//! 5 minutes, even if every call hangs.
//!
//! To use the limiter, set it with `Limits::per_key(…).limiter(limiter)`.
//!
//! # Pitfalls
//! - **Every interval counts, not only every calendar minute.** Sixty per minute means that no
//!   interval of sixty seconds, wherever it begins and including both ends, admits more. A counter
//!   that is reset each minute admits 120 around the boundary.
//! - **All or nothing.** A request that one window refuses takes nothing from the others.
//!   Incrementing two counters one after the other breaks this; in Redis, use one script.
//! - **A refusal changes nothing.** Retrying must not extend the wait.
//! - **`retry_after` is exact** for a lone client, and never a millisecond too early.
//! - **An overdraft always counts,** whatever fits: its units may be more than the quota.
//! - **Quotas change,** with a plan or a key's record. Units admitted under the old quotas still
//!   count.
//! - **Count families, not keys.** Rotated keys share
//!   [`BucketId::Family`](crate::limit::BucketId::Family), so that a rotation does not double the
//!   quota.
//! - **Bound the memory.** Requests may come from very many tenants. Remove buckets whose windows
//!   have passed, and return [`LimiterError::Full`](crate::limit::LimiterError::Full) rather than
//!   evict a live one.
//! - **Outages.** Return an error if the state is unknown. The service has configured what happens
//!   then ([`OnOutage`](crate::limit::OnOutage): count in this process, refuse, or admit).
//! - **Several servers.** A limiter that keeps buckets on different servers decides about a request on
//!   one of them: return `false` from [`counts_together`](crate::RateLimiter::counts_together), and
//!   keep a tenant's buckets together ([`LimitRequest::tenant`](crate::limit::LimitRequest)).
//! - **Another clock.** To test a limiter that uses a server's clock, call
//!   `portunus_conformance::rate_limiter_in_real_time`.
//! - **A reading changes nothing.** [`peek`](crate::RateLimiter::peek) counts no unit, adds no bucket,
//!   extends no expiry and keeps the quotas as they are. Without it, the dashboard shows limits without
//!   their use.
//! - **A limiter in memory** should implement [`try_acquire`](crate::RateLimiter::try_acquire), so
//!   that a request needs no boxed future.
