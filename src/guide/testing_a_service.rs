//! Test a protected service (feature `testing`).
//!
//! [`portunus::testing`](crate::testing) provides what tests need. None of it belongs in a release:
//! enable the feature in your `dev-dependencies`.
//!
//! | to test | use |
//! |---|---|
//! | a handler, without any key | [`TestPrincipal`] in the request's extensions |
//! | the whole app, with keys | [`TestKeys`](crate::testing::TestKeys): a store, a clock and a format |
//! | an authenticator without a framework | [`TestRequest`](crate::testing::TestRequest) |
//! | time: expiry, grace, limits | [`ManualClock`], which you advance |
//! | audit events | [`RecordedAudit`](crate::testing::RecordedAudit) |
//! | the service's responses while storage is down | [`FaultyStore`], in front of any store |
//! | your own store, limiter, bus or directory | the crate `portunus-conformance` |
//!
//! [`TestPrincipal`]: crate::testing::TestPrincipal
//! [`ManualClock`]: crate::testing::ManualClock
//! [`FaultyStore`]: crate::testing::FaultyStore
//!
//! # A first program
//! The app takes its `Portunus` as an argument, so that the test can supply its own. Everything
//! else is the same as in production.
//!
#![cfg_attr(all(feature = "axum", feature = "testing"), doc = "```")]
#![cfg_attr(
    not(all(feature = "axum", feature = "testing")),
    doc = "```ignore (needs the features axum and testing)"
)]
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::body::Body;
//! use axum::http::Request;
//! use portunus::adapter::axum::get;
//! use portunus::audit::AuditOutcome;
//! use portunus::testing::{RecordedAudit, TestKeys};
//! use portunus::config::Responses;
//! use portunus::{ErrorCode, KeyPrincipal, Portunus, PortunusBuilder, Principal, scope};
//! use tower::ServiceExt;
//!
//! // ---- the service ----
//!
//! async fn documents(caller: KeyPrincipal) -> String {
//!     format!("documents of {}", caller.owner().tenant_id)
//! }
//!
//! /// The configuration shared by production and tests.
//! fn rules(builder: PortunusBuilder) -> PortunusBuilder {
//!     builder.responses(Responses::new().realm("acme"))
//! }
//!
//! fn app(keys: &Portunus) -> Router {
//!     keys.router()
//!         .route("/documents", get(documents).require(scope!("document:read")))
//!         .into_router()
//! }
//!
//! // ---- its test ----
//!
//! #[tokio::main] // #[tokio::test]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (keys, audit) = (TestKeys::new(), RecordedAudit::new());
//!     let app = app(&rules(keys.builder()).audit(audit.trail()).build()?);
//!     let status = async |key: &str| {
//!         let bearer = format!("Bearer {key}");
//!         let request = Request::get("/documents").header("authorization", bearer).body(Body::empty())?;
//!         Ok::<_, Box<dyn std::error::Error>>(app.clone().oneshot(request).await?.status().as_u16())
//!     };
//!
//!     let key = keys.issue("acme", ["document:read"]);
//!     assert_eq!(status(&key).await?, 200);
//!     assert_eq!(status(&keys.issue("acme", ["other:read"])).await?, 403);
//!
//!     // The test advances the clock.
//!     let in_an_hour = keys.in_the(Duration::from_secs(3600));
//!     let short = keys.issue_with("acme", ["document:read"], |new| new.expires_at = Some(in_an_hour));
//!     assert_eq!(status(&short).await?, 200);
//!     keys.clock().advance(Duration::from_secs(3600));
//!     assert_eq!(status(&short).await?, 401);
//!
//!     // A revocation takes effect for the next request, and the audit records the reason.
//!     keys.revoke(&key);
//!     assert_eq!(status(&key).await?, 401);
//!     let events = audit.events().await;
//!     assert_eq!(
//!         events.last().map(|event| &event.outcome),
//!         Some(&AuditOutcome::Refused(ErrorCode::KeyRevoked))
//!     );
//!     Ok(())
//! }
//! ```
//!
//! To test a handler alone, without any key, see the first example of
//! [`portunus::testing`](crate::testing).
//!
//! # Pitfalls
//! - **Test the refusals too.** Test each route without a key, with a key that lacks the scope, and
//!   with another tenant's key. A test that only sends the right key also passes without any layer.
//! - **A hand-made principal proves nothing about the layer.** It tests the handler only; one test
//!   with a real key shows that the route is protected.
//! - **Hand-made requests have no peer address.** To test allow-lists, set one: on axum,
//!   `.extension(ConnectInfo(SocketAddr::from(([203, 0, 113, 7], 1234))))`; on actix-web,
//!   `TestRequest::peer_addr`.
//! - **Use one clock for everything.** Pass `keys.clock().clone()` to every limiter, cache or
//!   directory that you build yourself.
//! - **Test every route at once:**
//!   [`ProtectedRouter::demands`](crate::adapter::axum::ProtectedRouter::demands) lists what each
//!   route requires. A test that compares it with an expected list makes every change visible in
//!   review.
