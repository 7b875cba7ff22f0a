//! Test a service that is protected (feature `testing`).
//!
//! [`portunus::testing`](crate::testing) has what tests need, and nothing of it belongs into a
//! release: enable the feature in your `dev-dependencies`.
//!
//! | you test | take |
//! |---|---|
//! | a handler, without any key | [`TestPrincipal`], into the request's extensions |
//! | the whole app, with keys | [`TestKeys`](crate::testing::TestKeys): a store, a clock and a format |
//! | an authenticator without a framework | [`TestRequest`](crate::testing::TestRequest) |
//! | time: expiry, grace, limits | [`ManualClock`], which moves when it is told |
//! | what was noted | [`RecordedAudit`](crate::testing::RecordedAudit) |
//! | outages: what the service answers while storage is down | [`FaultyStore`], in front of any store |
//! | a store, limiter, bus or directory of your own | the crate `portunus-conformance` |
//!
//! [`TestPrincipal`]: crate::testing::TestPrincipal
//! [`ManualClock`]: crate::testing::ManualClock
//! [`FaultyStore`]: crate::testing::FaultyStore
//!
//! # A first program
//! The app takes its authenticator as an argument, so that the test can bring its own. Everything
//! else is the service's.
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
//! /// What is the same in production and in tests.
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
//!     // Time passes when it is told to.
//!     let in_an_hour = keys.in_the(Duration::from_secs(3600));
//!     let short = keys.issue_with("acme", ["document:read"], |new| new.expires_at = Some(in_an_hour));
//!     assert_eq!(status(&short).await?, 200);
//!     keys.clock().advance(Duration::from_secs(3600));
//!     assert_eq!(status(&short).await?, 401);
//!
//!     // A revocation holds for the next request, and the audit says why.
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
//! A handler alone, without any key, is the first example of [`portunus::testing`](crate::testing).
//!
//! # Traps
//! - **Test the refusals too.** A route without a key, with a key that lacks the scope, and with
//!   another tenant's: a test that only ever sends the right key passes without any layer.
//! - **A principal made by hand proves nothing about the layer.** It shows what the handler does;
//!   one test with a real key shows that the route is protected.
//! - **Requests made by hand have no peer.** For allow-lists, put the address in: on axum,
//!   `.extension(ConnectInfo(SocketAddr::from(([203, 0, 113, 7], 1234))))`; on actix-web,
//!   `TestRequest::peer_addr`.
//! - **One clock for everything.** A limiter, a cache or a directory that you build yourself takes
//!   `keys.clock().clone()`.
//! - **Every route at once:**
//!   [`ProtectedRouter::demands`](crate::adapter::axum::ProtectedRouter::demands) lists what each
//!   route requires. A test that compares it with a list shows every change in a review.
