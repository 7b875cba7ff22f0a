//! Limit expensive routes on their own (feature `axum`).
//!
//! A *class* is a group of requests with limits of its own, in addition to those for all requests.
//! All limits of a request are checked together: if one refuses, none is charged.
//!
//! # A first program
//! Exports are limited for each tenant and for the service as a whole. A request is charged by the
//! number of rows that it returns.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use axum::Router;
//! use axum::body::Body;
//! use axum::http::Request;
//! use portunus::adapter::axum::{RateLimits, Rejection, get};
//! use portunus::key::{Alphabet, KeyFormat, Owner};
//! use portunus::limit::LimitPolicy;
//! use portunus::manage::NewKey;
//! use portunus::quota::Quota;
//! use portunus::store::MemoryStore;
//! use portunus::{Limits, Portunus, scope};
//! use tower::ServiceExt; // for `oneshot`
//!
//! async fn export(mut limits: RateLimits) -> Result<&'static str, Rejection> {
//!     let rows = 20;
//!     // One unit is counted already. If the others do not fit, this is a 429, and nothing is charged.
//!     limits.charge(rows - 1).await?;
//!     Ok("20 rows")
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let keys = Portunus::builder(format)
//!         .store(MemoryStore::new())
//!         .limits(Limits::per_key([Quota::per_minute(600)]).class(
//!             "exports",
//!             [
//!                 LimitPolicy::per_tenant([Quota::per_hour(50)]),
//!                 LimitPolicy::shared([Quota::per_minute(1000)]),
//!             ],
//!         ))
//!         .build()?;
//!     let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?))
//!         .with_scopes([scope!("document:read")]);
//!     let key = keys.manager().issue(new).await?.key.reveal();
//!
//!     let app: Router = keys
//!         .router()
//!         .route("/documents", get(|| async { "[]" }).require(scope!("document:read")))
//!         .route("/export", get(export).require(scope!("document:read")).class("exports"))
//!         .into_router();
//!     let ask = |path: &'static str| {
//!         let request = Request::get(path).header("authorization", format!("Bearer {key}"));
//!         let app = app.clone();
//!         async move { app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap() }
//!     };
//!     let state = |response: &axum::response::Response| response.headers()["ratelimit"].clone();
//!     let listed = ask("/documents").await;
//!     assert_eq!(state(&listed), r#""minute";r=599;t=60"#);
//!     // The fields show the state after the charge.
//!     let exported = ask("/export").await;
//!     assert_eq!(
//!         state(&exported),
//!         r#""minute";r=579;t=60, "exports-tenant-hour";r=30;t=3600, "exports-shared-minute";r=980;t=60"#,
//!     );
//!     assert_eq!(ask("/export").await.status(), 200);
//!     let refused = ask("/export").await;
//!     assert_eq!(refused.status(), 429);
//!     let body = axum::body::to_bytes(refused.into_body(), 1000).await?;
//!     assert!(String::from_utf8(body.to_vec())?.contains(r#""violated-policies":["exports-tenant-hour"]"#));
//!     assert_eq!(ask("/documents").await.status(), 200, "other routes still work");
//!     Ok(())
//! }
//! ```
//!
//! # Which requests belong to a class
//! | where the routes are | how to say it |
//! |---|---|
//! | in a `ProtectedRouter` | `.class("exports")` on the route |
//! | in a router of the framework, inside the layer | `Limits::class("exports", …).on("/v1/export/{id}")`, or `.on("POST /v1/export")` for one method |
//! | elsewhere, for example gRPC | `.on("/acme.Exports/Create")` with the path, or `.on_request(…)` with your own function |
//!
//! # Pitfalls
//! - **A limit for a route is rarely [`shared`](crate::limit::LimitPolicy::shared) alone.** One
//!   customer could use it up for all others: add a limit per tenant or per key.
//! - **A request has one class:** that of its route, or else the first that matches.
//! - **Give the whole pattern to `on`,** with the prefixes of the routers that the route is nested in.
//! - **Costs known in advance** are better set with [`Limits::cost`](crate::Limits::cost): the
//!   request is refused before the handler runs.
//! - **To bill what has already happened,** use
//!   [`overdraw`](crate::adapter::axum::RateLimits::overdraw): it always counts, and later requests
//!   are refused until the units fit again.
