//! Limit requests without a key (feature `axum`).
//!
//! A route that needs no key can be called by anyone, and so a client's address is what there is to
//! count by.
//!
//! # A first program
//! It has a public route, and one where a key is optional. Both are limited by address for callers
//! without a key. A key is limited as usual.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use std::net::SocketAddr;
//!
//! use axum::Router;
//! use axum::body::Body;
//! use axum::extract::ConnectInfo;
//! use axum::http::Request;
//! use portunus::adapter::axum::get;
//! use portunus::key::{Alphabet, KeyFormat, Owner};
//! use portunus::limit::LimitPolicy;
//! use portunus::manage::NewKey;
//! use portunus::quota::Quota;
//! use portunus::store::MemoryStore;
//! use portunus::{KeyPrincipal, Limits, Portunus};
//! use tower::ServiceExt; // for `oneshot`
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let keys = Portunus::builder(format)
//!         .store(MemoryStore::new())
//!         .limits(
//!             Limits::per_key([Quota::per_minute(60)])
//!                 .policy(LimitPolicy::per_address([Quota::per_minute(3)]).anonymous()),
//!         )
//!         .build()?;
//!     let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?));
//!     let key = keys.manager().issue(new).await?.key.reveal();
//!
//!     async fn prices(caller: Option<KeyPrincipal>) -> &'static str {
//!         if caller.is_some() { "your prices" } else { "list prices" }
//!     }
//!     let app: Router = keys
//!         .router()
//!         .route("/prices", get(prices).optional_key())
//!         .route("/status", get(|| async { "up" }).public())
//!         .into_router();
//!
//!     // A server adds the address: `into_make_service_with_connect_info::<SocketAddr>()`.
//!     let call = |path: &'static str, from: [u8; 4], key: Option<&str>| {
//!         let peer = ConnectInfo(SocketAddr::from((from, 4711)));
//!         let mut request = Request::get(path).extension(peer);
//!         if let Some(key) = key {
//!             request = request.header("authorization", format!("Bearer {key}"));
//!         }
//!         let app = app.clone();
//!         async move { app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16() }
//!     };
//!     let (one, another) = ([192, 0, 2, 1], [192, 0, 2, 2]);
//!     for path in ["/prices", "/status", "/prices"] {
//!         assert_eq!(call(path, one, None).await, 200);
//!     }
//!     assert_eq!(call("/status", one, None).await, 429, "the fourth within a minute");
//!     assert_eq!(call("/status", another, None).await, 200, "another address");
//!     assert_eq!(call("/prices", one, Some(&key)).await, 200, "a key");
//!     Ok(())
//! }
//! ```
//!
//! # Pitfalls
//! - **Without [`anonymous()`](crate::limit::LimitPolicy::anonymous)**, a policy per address counts
//!   all requests, with and without a key. Many customers can share an address (an office, a cloud's
//!   NAT), and would share that limit.
//! - **The address must be known.** With axum, serve
//!   `into_make_service_with_connect_info::<SocketAddr>()`; behind a proxy, see
//!   [that guide](super::behind_a_proxy). Requests without a known address are counted together, as
//!   if they came from one address, and responses say so: `unknown-anonymous-minute`. Give them
//!   their own quotas with
//!   [`without_address`](crate::limit::LimitPolicy::without_address). A line in the log tells you
//!   once.
//! - **IPv6 addresses count by /64,** the smallest network that a client is usually given.
//! - **Public routes are counted in a `ProtectedRouter` only.** In another router, wrap them in
//!   `keys.layer().optional_key()`.
//! - **Memory is bounded.** The in-process limiter has 125 000 buckets for addresses
//!   ([`most_addresses`](crate::limit::LocalLimiterBuilder::most_addresses)). Once all of those are in
//!   use, new addresses share one bucket: together, they may make as many requests as one address.
//! - **A wrong key is not anonymous.** It is refused, and counts against the
//!   [lookup budget](crate::limit::LookupBudget), which is there without any configuration.
