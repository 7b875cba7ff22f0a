//! Use your own key format and error body.
//!
//! A library should not be visible in your API. The format of keys and the body of refusals are
//! both values that you build once.
//!
//! # A first program
//! Keys like `acme_live_8fK…`, in `X-API-Key` as well as in `Authorization`, and errors in the
//! format of an existing API.
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
//! /// The library sets the status and the protocol headers; the body is ours.
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
//!         .checksum(Checksum::Crc32Base62) // a key with a typing error costs no lookup
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
//!     let answer: Value = serde_json::from_slice(&to_bytes(refused.into_body(), 4096).await?)?;
//!     assert_eq!(answer["error"]["type"], "INSUFFICIENT_SCOPE");
//!     assert_eq!(answer["error"]["granted"], json!(["document:read"]));
//!     assert_eq!(answer["path"], "/documents");
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
//! random part and a checksum. Only the prefix and the random part are required, and the prefix may
//! be empty. An invalid format is rejected when it is built: less than 128 bits of randomness,
//! ambiguous tokens, or characters that are not allowed in an `Authorization` header.
//!
//! # What a renderer can change
//! A renderer sets the body and its media type. The status, `WWW-Authenticate`, `Retry-After`,
//! `Cache-Control` and the rate limit headers follow from the error.
//! [`ErrorCode`](crate::ErrorCode) values never change their meaning: match on the code, not on the
//! text of [`detail`](crate::AuthError::detail), which may change. Use
//! [`from_error`](crate::respond::from_error) for a renderer that only needs the error.
//!
//! # Pitfalls
//! - **A format is permanent.** Issued keys keep their format. To change it, accept both:
//!   `.bearer([new, old])`. Keys are issued in the first accepted format, unless
//!   [`Credentials::issue`](crate::config::Credentials::issue) sets another one.
//! - **An environment in the key does not isolate by itself.** With
//!   [`Policy::serve_only`](crate::config::Policy::serve_only), keys of other environments are
//!   refused with `WRONG_ENVIRONMENT`. Without it, keys of all environments pass, and your handlers
//!   must check [`Principal::environment`](crate::Principal::environment).
//! - **Escape everything from the request.** `json!` escapes; `format!` does not.
//! - **Do not reveal more than the error does.** A body may distinguish an unknown key from a
//!   malformed one; that a key was *revoked* is only revealed to a caller who presents the real
//!   key.
//! - **Other software does not redact your own header.** Proxies and log filters know that
//!   `Authorization` is sensitive; `X-API-Key` may not be redacted.
//!   [`secret_fields`](crate::Authenticator::secret_fields) lists the headers to keep out of logs.
//! - **Keys do not belong in URLs.** The library cannot accept a key from a query string.
//! - **gRPC refusals have no body.** They are a status with the same code, whatever the renderer
//!   returns.
