//! Sell plans with different limits (feature `axum`).
//!
//! A *plan* is a named list of limits. Which plan applies is decided at run time: by the key's own
//! plan, or else by its tenant's, which your [`Directory`](crate::actor::Directory) knows.
//!
//! # A first program
//! It has three plans. A tenant upgrades, and the next request is counted under the new plan.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use std::sync::{Arc, Mutex};
//!
//! use async_trait::async_trait;
//! use axum::Router;
//! use axum::body::Body;
//! use axum::http::Request;
//! use portunus::actor::{Directory, DirectoryError, User, UserRef};
//! use portunus::adapter::axum::{RateLimits, get};
//! use portunus::config::Actors;
//! use portunus::key::{Alphabet, KeyFormat, Owner, PlanName, TenantId};
//! use portunus::limit::{CountedBy, LimitPolicy, Plan};
//! use portunus::manage::NewKey;
//! use portunus::quota::Quota;
//! use portunus::store::MemoryStore;
//! use portunus::{Limits, Portunus};
//! use tower::ServiceExt; // for `oneshot`
//!
//! /// Your billing data: here, the plan of the only tenant.
//! #[derive(Debug, Clone)]
//! struct Billing(Arc<Mutex<&'static str>>);
//!
//! #[async_trait]
//! impl Directory for Billing {
//!     async fn resolve(&self, _: &TenantId, _: &UserRef) -> Result<Option<Arc<User>>, DirectoryError> {
//!         Ok(None) // this service has no users
//!     }
//!
//!     async fn plan(&self, _: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
//!         let name = *self.0.lock().unwrap();
//!         PlanName::new(name).map(Some).map_err(DirectoryError::unavailable)
//!     }
//! }
//!
//! fn limits() -> Limits {
//!     // Every key: 60 a minute and 1000 an hour, unless its plan says otherwise.
//!     Limits::per_key([Quota::per_minute(60), Quota::per_hour(1000)])
//!         // Less per minute, and at most two keys.
//!         .plan(Plan::new("free", [LimitPolicy::per_key([Quota::per_minute(2)])]).active_keys(2))
//!         // The limit per key stays; all keys of the tenant share another one.
//!         .plan(Plan::new("team", [LimitPolicy::per_tenant([Quota::per_hour(50_000)])]))
//!         // No limit per key.
//!         .plan(Plan::new("enterprise", [LimitPolicy::unlimited(CountedBy::Key)]).any_active_keys())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let billing = Billing(Arc::new(Mutex::new("free")));
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let keys = Portunus::builder(format)
//!         .store(MemoryStore::new())
//!         .actors(Actors::new().directory(billing.clone()))
//!         .limits(limits())
//!         .build()?;
//!     let tenant: TenantId = "tenant-1".parse()?;
//!     let new = NewKey::new("first key", Owner::tenant(tenant.clone()));
//!     let key = keys.manager().issue(new).await?.key.reveal();
//!
//!     // A handler sees what is left, by the names that the response fields show.
//!     async fn left(limits: RateLimits) -> String {
//!         let each = limits.quotas().map(|(quota, window)| format!("{}: {}", quota.name(), window.remaining()));
//!         each.collect::<Vec<_>>().join(", ")
//!     }
//!     let app: Router = keys.router().route("/left", get(left).any_key()).into_router();
//!     let ask = || async {
//!         let request = Request::get("/left").header("authorization", format!("Bearer {key}"));
//!         let response = app.clone().oneshot(request.body(Body::empty())?).await?;
//!         let status = response.status();
//!         let body = axum::body::to_bytes(response.into_body(), 1000).await?;
//!         Ok::<_, Box<dyn std::error::Error>>((status.as_u16(), String::from_utf8(body.to_vec())?))
//!     };
//!     assert_eq!(ask().await?, (200, "minute: 1".to_owned()));
//!     assert_eq!(ask().await?, (200, "minute: 0".to_owned()));
//!     assert_eq!(ask().await?.0, 429);
//!
//!     // The tenant upgrades: the requests that were counted before still count.
//!     *billing.0.lock().unwrap() = "team";
//!     keys.tenant_changed(&tenant).await?;
//!     assert_eq!(ask().await?, (200, "minute: 57, hour: 997, tenant-hour: 49999".to_owned()));
//!     Ok(())
//! }
//! ```
//!
//! # Pitfalls
//! - **A plan changes the list, it does not replace it.** A policy of a plan takes the place of the
//!   policy that counts in the same way and for the same class of requests. What the plan does not
//!   mention stays limited as without a plan. Say
//!   [`LimitPolicy::unlimited`](crate::limit::LimitPolicy::unlimited) where nothing should be.
//! - **Call [`tenant_changed`](crate::Portunus::tenant_changed)** after an upgrade. Otherwise the old
//!   plan applies for up to 30 seconds ([`Actors::plan_bound`](crate::config::Actors::plan_bound)).
//! - **If your directory does not answer,** the last known plan applies up to that bound. After that,
//!   requests get 503 `DIRECTORY_UNAVAILABLE`.
//! - **Declare every plan that you sell.** A key with another plan gets 503 and one line in the log,
//!   never "no limits".
//! - **Let keys follow their tenant.** A key that is issued without a plan does. A plan that is set
//!   on a key stays when the tenant's changes; only you, and operators whom your policy allows
//!   [`Setting::Plan`](crate::manage::Setting::Plan), can set one.
//! - **A key's own quotas** (`rate_limit_config`) replace the limit per key, within what its plan
//!   allows: its limit per key, or [`Plan::own_quotas`](crate::limit::Plan::own_quotas). So a tenant
//!   that moves to a smaller plan keeps no larger quotas, unless the plan says
//!   [`own_quotas_stay`](crate::limit::Plan::own_quotas_stay).
//! - **Requiring a plan** is something else:
//!   [`PlanOrder::at_least`](crate::policy::PlanOrder::at_least) on a route.
