//! Delegation: applications that act for users.
//!
//! An integration has one key that is used on behalf of many people. Three headers name the user
//! that a request acts for:
//!
//! | header | names | [mode](crate::actor::ActorMode) |
//! |---|---|---|
//! | `X-User-Id` | a user by id | `app_user` |
//! | `X-On-Behalf-Of` | a user by id or e-mail address; the audit shows both the key's owner and the user | `delegated` |
//! | `X-On-Behalf-Email` | a user by e-mail address, as a convenience for new integrations | `app_user` |
//!
//! Your [`Directory`](crate::actor::Directory) resolves the user and their permissions. The library
//! decides whether the key may act for them.
//!
//! # A first program
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(
    not(feature = "testing"),
    doc = "```ignore (needs the feature testing)"
)]
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use portunus::actor::{Directory, DirectoryError, User, UserRef};
//! use portunus::config::Actors;
//! use portunus::key::{Delegation, TenantId};
//! use portunus::testing::{TestKeys, TestRequest};
//! use portunus::actor::ActorMode;
//! use portunus::{ErrorCode, Principal, scope};
//!
//! /// In a real service: a database query. Ann belongs to Acme and may read.
//! #[derive(Debug)]
//! struct People;
//!
//! #[async_trait]
//! impl Directory for People {
//!     async fn resolve(
//!         &self,
//!         tenant: &TenantId,
//!         user: &UserRef,
//!     ) -> Result<Option<Arc<User>>, DirectoryError> {
//!         let is_ann = match user {
//!             UserRef::Id(id) => id.as_str() == "ann",
//!             UserRef::Email(email) => email == "ann@acme.example", // lower case already
//!             _ => false,
//!         };
//!         if tenant.as_str() != "acme" || !is_ann {
//!             return Ok(None); // also for users of other tenants
//!         }
//!         let (Ok(id), tenant) = ("ann".parse(), tenant.clone()) else { return Ok(None) };
//!         let ann = User::new(id, tenant)
//!             .with_email("Ann@acme.example")
//!             .with_scopes([scope!("document:read")]);
//!         Ok(Some(Arc::new(ann)))
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let keys = TestKeys::new();
//!     // Delegation is a permission of the key. It is off by default.
//!     let key = keys.issue_with("acme", ["document:*"], |new| new.delegation = Some(Delegation::On));
//!     let plain = keys.issue("acme", ["document:*"]);
//!     let service = keys.builder().actors(Actors::new().directory(People)).build()?;
//!     let authenticator = service.authenticator();
//!     let request = |key: &str| TestRequest::get("/documents").bearer(key);
//!
//!     // The application itself.
//!     let app = authenticator.authenticate(&request(&key)).await?.principal.ok_or("a key was presented")?;
//!     assert_eq!(app.actor().mode, ActorMode::App);
//!     assert!(app.require(&scope!("document:write").into()).is_ok());
//!
//!     // For Ann: only what both the key and Ann may do.
//!     let for_ann = request(&key).field("x-on-behalf-of", "Ann@Acme.example");
//!     let caller = authenticator.authenticate(&for_ann).await?.principal.ok_or("a key was presented")?;
//!     assert_eq!(caller.actor().mode, ActorMode::Delegated);
//!     assert_eq!(caller.actor().user_id.map(|id| id.as_str()), Some("ann"));
//!     assert!(caller.require(&scope!("document:read").into()).is_ok());
//!     assert!(caller.require(&scope!("document:write").into()).is_err());
//!     assert_eq!(caller.owner().tenant_id.as_str(), "acme"); // the key's owner is unchanged
//!
//!     // An unknown user, and a key without the permission, get the same response.
//!     for request in [request(&key).field("x-user-id", "bob"), request(&plain).field("x-user-id", "ann")] {
//!         let refused = authenticator.authenticate(&request).await.err().ok_or("must be refused")?;
//!         assert_eq!(refused.code(), ErrorCode::UnknownActor);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Authority is an intersection
//! A scope is granted if all of these grant it:
//!
//! 1. the key's own scopes;
//! 2. the scopes of its delegation, if it is limited: `Delegation::Only(vec![…])`;
//! 3. the user's scopes, if the directory returns any. For a user [without
//!    scopes](crate::actor::User::scopes), only the key's apply.
//!
//! The same holds for access level and workspaces: for a read-only user
//! ([`User::with_access`](crate::actor::User::with_access)) the key can only read, and it can only
//! access workspaces that both can access
//! ([`User::in_workspaces`](crate::actor::User::in_workspaces)).
//!
//! A route that needs any user requires [`Requirement::user()`](crate::Requirement::user). A
//! request of an application that names no user is then refused with `ACTOR_REQUIRED`.
//!
//! # Pitfalls
//! - **The directory does not authorize.** It only describes users. The library enforces tenant
//!   isolation: a user of another tenant is refused even if the directory returns one, unless the
//!   user is [`collaborating()`](crate::actor::User::collaborating).
//! - **Unknown and forbidden users get the same response,** so that a caller cannot find out who
//!   exists. Return `None` for both, after the same work.
//! - **Addresses are passed in ASCII lower case** and are not normalized further:
//!   `a.b+c@example.com` is an address of its own. Compare with your addresses in lower case.
//! - **Two of these headers at once, or a repeated one, are 400,** because the request is
//!   ambiguous. Without a directory, these headers are refused, not ignored.
//! - **Suspended users:** return them with [`suspended`](crate::actor::User::suspended) set, and
//!   they are refused. Whether a key's *owner* is in good standing is a separate check, by
//!   [`OwnerStanding`](crate::actor::OwnerStanding).
//! - **An error means an outage,** `DIRECTORY_UNAVAILABLE` with 503. Do not return `None` if the
//!   database is down.
//! - **The directory is queried on every such request.**
//!   [`CachedDirectory`](crate::actor::CachedDirectory) caches users and misses, for at most a
//!   minute.
//! - **Store the user's id, not the address.** If a request names an address, the response has the
//!   id in `X-User-Id`.
