//! Helpers for the tests of host applications (feature `testing`): a clock that is moved by hand,
//! ready-made keys and principals, recorded audit events, and a store that fails on demand.
//! Functions here panic on invalid input, because a test should fail immediately.
//!
//! # Testing a handler without keys
//! A handler reads the principal from the request's extensions. A test can insert a principal
//! directly, without a layer, a store or a key.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use axum::body::Body;
//! use axum::http::Request;
//! use axum::{Router, routing::get};
//! use portunus::adapter::axum::RequireExt;
//! use portunus::testing::TestPrincipal;
//! use portunus::{KeyPrincipal, Principal, scope};
//! use tower::ServiceExt;
//!
//! async fn documents(caller: KeyPrincipal) -> String {
//!     format!("documents of {}", caller.owner().tenant_id)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Requirements of routes are checked as usual.
//! let router: Router = Router::new().route("/documents", get(documents).require(scope!("document:read")));
//! let ask = |who: TestPrincipal| {
//!     let request = Request::get("/documents").extension(who.build()).body(Body::empty());
//!     async { router.clone().oneshot(request?).await.map_err(Box::<dyn std::error::Error>::from) }
//! };
//! assert_eq!(ask(TestPrincipal::app("acme").scopes(["document:read"])).await?.status(), 200);
//! assert_eq!(ask(TestPrincipal::app("acme").scopes(["other:read"])).await?.status(), 403);
//! # Ok(())
//! # }
//! ```
//!
//! With actix-web, use `request.extensions_mut().insert(principal)`.
//!
//! # Testing a service with keys
//! [`TestKeys`] is a store with a clock. Its builder is completed like the host's own service.
//!
#![cfg_attr(feature = "tower", doc = "```")]
#![cfg_attr(not(feature = "tower"), doc = "```ignore (needs the feature tower)")]
//! use portunus::ErrorCode;
//! use portunus::testing::{TestKeys, TestRequest};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = TestKeys::new();
//! let key = keys.issue_with("acme", ["document:read"], |new| {
//!     new.expires_at = Some(keys.in_the(Duration::from_secs(60)));
//! });
//! let service = keys.builder().build()?;
//! let authenticator = service.authenticator();
//! assert!(authenticator.authenticate(&TestRequest::get("/documents").bearer(&key)).await.is_ok());
//! keys.clock().advance(Duration::from_secs(60));
//! let refused = authenticator.authenticate(&TestRequest::get("/documents").bearer(&key)).await;
//! assert_eq!(refused.err().map(|error| error.code()), Some(ErrorCode::KeyExpired));
//! # Ok(())
//! # }
//! ```

mod clock;
mod faulty;
mod keys;
mod principal;
mod recorded;
mod request;

pub use clock::ManualClock;
pub use faulty::{Call, FaultyStore, Point};
pub use keys::TestKeys;
pub use principal::TestPrincipal;
pub use recorded::RecordedAudit;
pub use request::TestRequest;

use std::fmt;

/// Returns the value, or panics with the error.
fn valid<T, E: fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
