//! Migrate existing keys, or from other middleware.
//!
//! Your customers change nothing: their existing keys keep working.
//!
//! # From your own table
//! If your table stores digests rather than plaintext keys, they are imported as they are:
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(
    not(feature = "testing"),
    doc = "```ignore (needs the feature testing)"
)]
//! use portunus::key::{Alphabet, KeyFormat, KeyHasher, Owner, Pepper};
//! use portunus::config::Credentials;
//! use portunus::manage::{ImportedDigest, ManageError, NewImport, NewKey};
//! use portunus::store::MemoryStore;
//! use portunus::testing::TestRequest;
//! use portunus::{ErrorCode, Portunus, scope};
//! use sha2::{Digest, Sha256};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A row of the old table: `SELECT tenant, hex(key_sha256), last4 FROM api_keys`.
//!     let old_key = "sk_0123456789abcdef0123456789abcdef"; // held by the customer only
//!     let digest = Sha256::digest(old_key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
//!     let (tenant, last_four) = ("tenant-1", "cdef");
//!
//!     // The format of the old keys, and that of new keys.
//!     let old = KeyFormat::builder("sk_").random(Alphabet::HEX, 32).build()?;
//!     let new = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     // New digests use a pepper (in a real service, a random secret); those of the old
//!     // table are accepted too.
//!     let hasher = KeyHasher::hmac_sha256(Pepper::new(1, &[7; 32])?).accept_sha256()?;
//!
//!     // Both formats are accepted; keys are issued in the first.
//!     let credentials = Credentials::new().bearer([new, old]).hasher(hasher);
//!     let keys = Portunus::builder(credentials).store(MemoryStore::new()).build()?;
//!     let (manager, authenticator) = (keys.manager(), keys.authenticator());
//!
//!     let described = NewKey::new("taken over", Owner::tenant(tenant.parse()?))
//!         .with_scopes([scope!("document:read")]);
//!     let mut import = NewImport::new(ImportedDigest::from_hex("sha256", &digest)?, described);
//!     import.last_four = Some(last_four.into());
//!     let imported = manager.import(import.clone()).await?;
//!
//!     // It works at once. The first use also replaces its digest with a peppered one.
//!     let request = TestRequest::get("/documents").bearer(old_key);
//!     assert!(authenticator.authenticate(&request).await.is_ok());
//!
//!     // Running a script twice is harmless, and a deleted key does not come back.
//!     assert!(matches!(manager.import(import.clone()).await, Err(ManageError::DigestKnown)));
//!     manager.delete(&imported.record.id).await?;
//!     assert!(matches!(manager.import(import).await, Err(ManageError::DigestKnown)));
//!     let refused = authenticator.authenticate(&request).await.err().ok_or("it was deleted")?;
//!     assert_eq!(refused.code(), ErrorCode::InvalidKey);
//!     Ok(())
//! }
//! ```
//!
//! | your table has | import it as | the hasher needs |
//! |---|---|---|
//! | SHA-256 of the whole key | `sha256` | `accept_sha256()`, or nothing if it is [`KeyHasher::sha256()`] |
//! | SHA-512 of the whole key | `sha512` | `accept_sha512()` |
//! | HMAC-SHA256 of the whole key | `hmac-sha256:1` | `accept_pepper(…)`, or the current pepper |
//! | plaintext | `sha256`, after hashing it yourself | as above; then drop the column |
//! | bcrypt, Argon2, or a salt per row | impossible: such a digest cannot be looked up | [a verifier that imports each key at its first use](super::importing#salted-digests) |
//!
//! [`KeyHasher::sha256()`]: crate::key::KeyHasher::sha256
//!
//! The HMAC's secret, of at least 32 bytes, is the pepper: `Pepper::new(1, secret)?`.
//!
//! [`from_hex`](crate::manage::ImportedDigest::from_hex),
//! [`from_base64`](crate::manage::ImportedDigest::from_base64) and
//! [`new`](crate::manage::ImportedDigest::new) accept the common encodings.
//!
//! A whole table is imported from a file, with the history of each key: the guide
//! [`importing`](super::importing).
//!
//! # Pitfalls of an import
//! - **The old format must be accepted.** A key that matches no format is refused before any
//!   lookup. A format needs at least 128 bits of randomness; do not import keys with less. For old
//!   keys of several lengths, use [`accept_lengths`](crate::key::KeyFormatBuilder::accept_lengths).
//! - **The digest must be of the whole key,** including its prefix, without a trailing newline. A
//!   digest of a part of the key cannot be imported.
//! - **The hasher must accept the scheme.** An import with another scheme is refused.
//! - **Keep the old schemes in the hasher** until every imported key has been used once or has been
//!   revoked: digests are only replaced when the key is used.
//! - **Digests stay known.** Deleting a key leaves a tombstone. To correct an import, update the
//!   record; do not delete and import it again.
//! - **An imported key cannot sign events,** because its secret was never seen
//!   ([`IssueRules::sign_events`](crate::manage::IssueRules)). Its successor by rotation can.
//!
//! # From `tower-http`'s bearer validation
//! `ValidateRequestHeaderLayer::bearer` compares the header with one fixed secret from your program
//! or its configuration:
//!
//! ```text
//! let app = Router::new()
//!     .route("/documents", get(documents))
//!     .layer(ValidateRequestHeaderLayer::bearer(&secret));
//! ```
//!
//! The secret becomes a key in a store; everything else stays the same:
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore (needs the feature axum)")]
//! use axum::Router;
//! use axum::body::Body;
//! use axum::http::Request;
//! use axum::routing::get;
//! use portunus::Portunus;
//! use portunus::key::{Alphabet, KeyFormat, KeyHasher, Owner};
//! use portunus::manage::{ImportedDigest, NewImport, NewKey};
//! use portunus::store::MemoryStore;
//! use tower::ServiceExt;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let secret = "bG9uZy1lbm91Z2gtYW5kLXJhbmRvbS1zZWNyZXQ"; // from the configuration
//! let format = KeyFormat::builder("").random(Alphabet::URL_SAFE, secret.len()).build()?;
//! let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
//! let hasher = KeyHasher::sha256(); // the service's default
//! let digest = ImportedDigest::new("sha256", &hasher.digest(secret).to_bytes())?;
//! let described = NewKey::new("the one key", Owner::tenant("everybody".parse()?));
//! keys.manager().import(NewImport::new(digest, described)).await?;
//!
//! let app: Router = Router::new()
//!     .route("/documents", get(|| async { "[]" }))
//!     .route_layer(keys.layer());
//!
//! let ask = |request: Request<Body>| app.clone().oneshot(request);
//! let bearer = format!("Bearer {secret}");
//! let with_key = Request::get("/documents").header("authorization", bearer).body(Body::empty())?;
//! assert_eq!(ask(with_key).await?.status(), 200);
//! assert_eq!(ask(Request::get("/documents").body(Body::empty())?).await?.status(), 401);
//! # Ok(())
//! # }
//! ```
//!
//! From here on, every customer can get their own key, and routes can declare what they require:
//! see the guide for [axum](super::protect_axum). Callers see these differences: refusals have a
//! body and a `WWW-Authenticate` header, `Bearer` is case-insensitive, and a repeated header is
//! 400.
//!
//! # From `actix-web-httpauth`
//! With it, your own function validates the token:
//!
//! ```text
//! async fn validator(
//!     request: ServiceRequest,
//!     credentials: BearerAuth,
//! ) -> Result<ServiceRequest, (Error, ServiceRequest)> {
//!     match tenant_of(credentials.token()).await {
//!         Some(tenant) => { request.extensions_mut().insert(tenant); Ok(request) }
//!         None => Err((ErrorUnauthorized("who are you?"), request)),
//!     }
//! }
//! App::new().wrap(HttpAuthentication::bearer(validator))
//! ```
//!
//! The store now does the lookup, and the value in the extensions becomes a
//! [`Caller<T>`](crate::adapter::actix::Caller):
//!
#![cfg_attr(all(feature = "actix-web", feature = "testing"), doc = "```")]
#![cfg_attr(
    not(all(feature = "actix-web", feature = "testing")),
    doc = "```ignore (needs the features actix-web and testing)"
)]
//! use actix_web::test::{TestRequest, call_service, init_service, read_body};
//! use actix_web::{App, web};
//! use portunus::Principal;
//! use portunus::adapter::actix::Caller;
//! use portunus::testing::TestKeys;
//!
//! struct Tenant(String);
//!
//! async fn documents(tenant: Caller<Tenant>) -> String {
//!     format!("documents of {}", tenant.0.0)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # actix_web::rt::System::new().block_on(async {
//! let keys = TestKeys::new(); // in a real service: Portunus::builder
//! let auth = keys.builder().build()?.middleware()
//!     .map_principal(|principal| Tenant(principal.owner().tenant_id.to_string()));
//! let app = App::new().service(web::scope("/v1").route("/documents", web::get().to(documents)).wrap(auth));
//!
//! let service = init_service(app).await;
//! let key = keys.issue("acme", []);
//! let request = TestRequest::get()
//!     .uri("/v1/documents")
//!     .insert_header(("authorization", format!("Bearer {key}")));
//! assert_eq!(read_body(call_service(&service, request.to_request()).await).await, "documents of acme");
//! let refused = call_service(&service, TestRequest::get().uri("/v1/documents").to_request()).await;
//! assert_eq!(refused.status(), 401);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! If a row must be loaded, or the mapping may refuse, use
//! [`try_map_principal`](crate::adapter::actix::Auth::try_map_principal). Tokens that are not keys,
//! such as those of an OAuth server, are checked by a [`TokenVerifier`](crate::TokenVerifier), in
//! the same header as keys.
