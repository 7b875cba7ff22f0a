//! Write a [`RateLimiter`](crate::RateLimiter) of your own.
//!
//! [`LocalLimiter`](crate::limit::LocalLimiter) counts in one process. To count for several nodes
//! together, or in a place that you have already, implement one method:
//! [`acquire`](crate::RateLimiter::acquire). It gets a request with its *buckets* (the key's
//! family, perhaps its tenant, perhaps one of your own), each with its quotas, and admits it by all
//! of them or by none.
//!
//! # A first program
//! The definition as a program: it remembers when every unit was admitted. The suite for limiters
//! finds nothing wrong with it; what it lacks is the art of forgetting whole buckets.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex, PoisonError};
//! use std::time::Duration;
//!
//! use async_trait::async_trait;
//! use portunus::limit::{BucketId, Decision, LimitRequest, LimiterError, WindowState};
//! use portunus::quota::Quota;
//! use portunus::{Clock, RateLimiter};
//!
//! #[derive(Debug)]
//! struct Exact {
//!     clock: Arc<dyn Clock>,
//!     buckets: Mutex<HashMap<String, Bucket>>,
//! }
//!
//! /// When units were admitted, the oldest first, and the widest window that was ever asked for.
//! #[derive(Debug, Default)]
//! struct Bucket {
//!     admitted: Vec<Duration>,
//!     widest: Duration,
//! }
//!
//! impl Bucket {
//!     /// What still shares an interval of this length with `now`.
//!     fn within(&self, window: Duration, now: Duration) -> &[Duration] {
//!         &self.admitted[self.admitted.partition_point(|at| *at + window < now)..]
//!     }
//!
//!     /// How long a request of this cost must wait for a quota: zero if it fits.
//!     fn wait(&self, quota: &Quota, cost: u64, now: Duration) -> Duration {
//!         let within = self.within(quota.window(), now);
//!         match (within.len() as u64 + cost).saturating_sub(quota.limit()) {
//!             0 => Duration::ZERO,
//!             // Until so many of the oldest are older than the window: a nanosecond past it.
//!             excess => within[excess as usize - 1] + quota.window() + Duration::from_nanos(1) - now,
//!         }
//!     }
//! }
//!
//! /// No two buckets have one name, of whichever kinds they are.
//! fn name(id: BucketId<'_>) -> Option<String> {
//!     match id {
//!         BucketId::Family(family) => Some(format!("family {family}")),
//!         BucketId::Tenant(tenant) => Some(format!("tenant {tenant}")),
//!         BucketId::Custom(name) => Some(format!("custom {name}")),
//!         _ => None, // a kind that is newer than this limiter
//!     }
//! }
//!
//! #[async_trait]
//! impl RateLimiter for Exact {
//!     async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
//!         let cost = request.cost;
//!         let quotas = || request.buckets.iter().flat_map(|bucket| bucket.quotas.as_slice());
//!         let least = quotas().map(Quota::limit).min().unwrap_or(u64::MAX);
//!         if cost == 0 || cost > least {
//!             return Err(LimiterError::Cost { cost, limit: least }); // it could never pass
//!         }
//!         let names: Option<Vec<String>> = request.buckets.iter().map(|bucket| name(bucket.id)).collect();
//!         let names = names.ok_or_else(|| LimiterError::Unavailable("a bucket of an unknown kind".into()))?;
//!
//!         // One lock around everything, and the time is read inside of it: nobody's clock goes back.
//!         let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
//!         let now = self.clock.monotonic();
//!         let mut wait = Duration::ZERO;
//!         for (name, asked) in names.iter().zip(request.buckets) {
//!             let bucket = buckets.entry(name.clone()).or_default();
//!             for quota in asked.quotas.as_slice() {
//!                 bucket.widest = bucket.widest.max(quota.window());
//!                 wait = wait.max(bucket.wait(quota, cost, now));
//!             }
//!         }
//!         let admitted = wait.is_zero();
//!         let mut decision = if admitted { Decision::admitted() } else { Decision::refused(wait) };
//!         for (name, asked) in names.iter().zip(request.buckets) {
//!             let bucket = buckets.entry(name.clone()).or_default();
//!             if admitted {
//!                 let old = bucket.admitted.len() - bucket.within(bucket.widest, now).len();
//!                 bucket.admitted.drain(..old);
//!                 bucket.admitted.extend((0..cost).map(|_| now));
//!             }
//!             // How each window stands after this: callers read it in the `RateLimit` field.
//!             let windows = asked.quotas.as_slice().iter().map(|quota| {
//!                 let within = bucket.within(quota.window(), now);
//!                 let reset = within.first().map(|at| *at + quota.window() + Duration::from_nanos(1) - now);
//!                 let state = WindowState::new(quota.limit().saturating_sub(within.len() as u64), reset);
//!                 if !admitted && !bucket.wait(quota, cost, now).is_zero() {
//!                     state.violated()
//!                 } else {
//!                     state
//!                 }
//!             });
//!             decision = decision.with_bucket(asked.quotas, windows);
//!         }
//!         Ok(decision)
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
//! Each check is printed when it ends, a root cause is reported once, and the suite ends within 5
//! minutes, also where every call hangs.
//!
//! It is plugged in by `Limits::per_key(…).limiter(limiter)`.
//!
//! # Traps
//! - **Every interval, not every calendar minute.** Sixty a minute means that no sixty seconds
//!   admit more, wherever they begin, both ends included. A counter that starts anew each minute
//!   admits 120 around the edge.
//! - **All or nothing.** A request that one window refuses takes nothing from the others. Two
//!   counters, raised one after the other, break this; in Redis, it takes one script.
//! - **A refusal changes nothing.** Who keeps knocking must not be kept out for longer.
//! - **`retry_after` is exact** for a client that is alone: not a millisecond too early.
//! - **Quotas change,** with a plan or a key's own record. What was admitted under the former ones
//!   still counts.
//! - **A family, not a key.** Rotated keys share
//!   [`BucketId::Family`](crate::limit::BucketId::Family), so that a rotation doubles no quota.
//! - **Memory.** Somebody will send requests in the name of many tenants. Forget buckets whose
//!   windows are past, and say [`LimiterError::Full`](crate::limit::LimiterError::Full) rather than
//!   forget one that is live.
//! - **Outages.** Give an error when you do not know; the service chose what happens then
//!   ([`OnOutage`](crate::limit::OnOutage): counted in this process, refused, or let through).
//! - **Another clock.** A limiter whose time is a server's is tried by
//!   `portunus_conformance::rate_limiter_in_real_time`.
//! - **Never waiting** is worth a method: a limiter in memory answers by
//!   [`try_acquire`](crate::RateLimiter::try_acquire), and a request then needs no boxed future.
