//! Your own key format and error body.
//!
//! A library should not show in your API. Both what keys look like and what refusals say are values
//! that you build once.
//!
//! # A first program
//! Keys like `acme_live_8fK…`, in `X-API-Key` as well as in `Authorization`, and errors in the
//! shape of an API that has been there for long.
//!
#![cfg_attr(all(feature = "axum", feature = "testing"), doc = "```")]
#![cfg_attr(
    not(all(feature = "axum", feature = "testing")),
    doc = "```ignore (needs the features axum and testing)"
)]
//! use axum::Router;
//! use axum::body::{Body, to_bytes};
//! use axum::http::Request;
//! use portunus::adapter::axum::get;
//! use portunus::config::{Credentials, Responses};
//! use portunus::key::{Alphabet, Checksum, KeyFormat};
//! use portunus::request::RequestHead;
//! use portunus::respond::ErrorBody;
//! use portunus::testing::TestKeys;
//! use portunus::{AuthError, Portunus, scope};
//! use serde_json::{Value, json};
//! use tower::ServiceExt;
//!
//! /// Status and protocol fields are the library's; the body is ours.
//! fn body(error: &AuthError, request: &dyn RequestHead) -> ErrorBody {
//!     let mut body = json!({
//!         "ok": false,
//!         "error": { "type": error.code().as_str(), "message": error.detail() },
//!         "path": request.path(),
//!     });
//!     if let Some(missing) = error.missing_scope() {
//!         body["error"]["granted"] = json!(missing.granted);
//!     }
//!     ErrorBody::json(body.to_string())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let format = KeyFormat::builder("acme_")
//!         .environment("live", "production".parse()?) // `acme_live_…` works in `production`
//!         .environment("test", "sandbox".parse()?)
//!         .random(Alphabet::BASE62, 32)
//!         .checksum(Checksum::Crc32Base62) // a key with a typing error costs no look-up
//!         .build()?;
//!
//!     let keys = TestKeys::of(format.clone());
//!     let key = keys.issue("tenant-1", ["document:read"]);
//!     assert!(key.starts_with("acme_live_"));
//!
//!     let credentials = Credentials::new().bearer([format.clone()]).header("X-API-Key", [format]);
//!     let service = Portunus::builder(credentials)
//!         .store(keys.store().clone())
//!         .clock(keys.clock().clone())
//!         .responses(Responses::new().realm("acme").renderer(body))
//!         .build()?;
//!     let app: Router = service
//!         .router()
//!         .route("/documents", get(|| async { "[]" }).require(scope!("document:write")))
//!         .into_router();
//!
//!     let request = Request::get("/documents").header("x-api-key", &key).body(Body::empty())?;
//!     let refused = app.clone().oneshot(request).await?;
//!     assert_eq!(refused.status(), 403);
//!     let told: Value = serde_json::from_slice(&to_bytes(refused.into_body(), 4096).await?)?;
//!     assert_eq!(told["error"]["type"], "INSUFFICIENT_SCOPE");
//!     assert_eq!(told["error"]["granted"], json!(["document:read"]));
//!     assert_eq!(told["path"], "/documents");
//!
//!     let refused = app.oneshot(Request::get("/documents").body(Body::empty())?).await?;
//!     assert_eq!(refused.status(), 401);
//!     let challenges: Vec<_> = refused.headers().get_all("www-authenticate").iter().collect();
//!     assert_eq!(challenges, [r#"Bearer realm="acme""#, r#"ApiKey realm="acme", header="x-api-key""#]);
//!     Ok(())
//! }
//! ```
//!
//! # The parts of a key
//! `acme_` `live_` `app_` `8fK…` `0Xy12z`: a prefix, the environment's token, the kind's token, the
//! random part and a checksum. Only prefix and random part must be there, and the prefix may be
//! empty. What cannot work is refused when the format is built: under 128 bits of randomness,
//! tokens that cannot be told apart, characters that an `Authorization` field cannot carry.
//!
//! # What a renderer may change
//! The body and its media type. Status, `WWW-Authenticate`, `Retry-After`, `Cache-Control` and the
//! limits' fields follow from the error. [`ErrorCode`](crate::ErrorCode) never changes its meaning:
//! match on it, not on the text of [`detail`](crate::AuthError::detail), which may.
//! [`from_error`](crate::respond::from_error) is for a renderer that needs the error only.
//!
//! # Traps
//! - **A format is for good.** Keys that were issued keep their shape. To change it, accept both:
//!   `.bearer([new, old])`; the manager issues in the one that it was given.
//! - **The environment is part of a key, not a wall by itself.** `.environment(…)` on the
//!   authenticator's builder makes it one: keys of another are then refused as `WRONG_ENVIRONMENT`.
//!   Without it, keys of all environments pass, and your handlers look at
//!   [`Principal::environment`](crate::Principal::environment).
//! - **Nothing of the request goes into a body unescaped.** `json!` escapes; `format!` does not.
//! - **Do not tell more than the error does.** An unknown key and a key of another shape may be
//!   told apart; whether a *revoked* key ever existed is told only to who presents it.
//! - **A key in a header of your own is not hidden by others.** `Authorization` is known to proxies
//!   and log filters as sensitive, `X-API-Key` is not always.
//!   [`secret_fields`](crate::Authenticator::secret_fields) lists what to keep out of logs.
//! - **Keys do not belong into URLs.** There is no way to accept one from a query string.
//! - **gRPC calls have no body.** They are refused by a status with the same code, whatever the
//!   renderer says.
