//! Delegation: applications that act for users.
//!
//! An integration has one key, and many people use it. Three fields say for whom a request is made:
//!
//! | field | whom it names | [mode](crate::actor::ActorMode) |
//! |---|---|---|
//! | `X-User-Id` | a user by id | `app_user` |
//! | `X-On-Behalf-Of` | a user by id or e-mail address; both are to be seen in the audit | `delegated` |
//! | `X-On-Behalf-Email` | a user by e-mail address, as an aid for newcomers | `app_user` |
//!
//! Your [`Directory`](crate::actor::Directory) says who that is and what they may do. Whether the
//! key may act for them is decided by the library.
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
//! /// In a service: a query. Ann reads, and belongs to Acme.
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
//!     // Delegation is a permission of the key, and off unless it is given.
//!     let key = keys.issue_with("acme", ["document:*"], |new| new.delegation = Some(Delegation::On));
//!     let plain = keys.issue("acme", ["document:*"]);
//!     let service = keys.builder().actors(Actors::new().directory(People)).build()?;
//!     let authenticator = service.authenticator();
//!     let request = |key: &str| TestRequest::get("/documents").bearer(key);
//!
//!     // As itself.
//!     let app = authenticator.authenticate(&request(&key)).await?.principal.ok_or("a key was presented")?;
//!     assert_eq!(app.actor().mode, ActorMode::App);
//!     assert!(app.require(&scope!("document:write").into()).is_ok());
//!
//!     // For Ann: what the key may *and* Ann may.
//!     let for_ann = request(&key).field("x-on-behalf-of", "Ann@Acme.example");
//!     let caller = authenticator.authenticate(&for_ann).await?.principal.ok_or("a key was presented")?;
//!     assert_eq!(caller.actor().mode, ActorMode::Delegated);
//!     assert_eq!(caller.actor().user_id.map(|id| id.as_str()), Some("ann"));
//!     assert!(caller.require(&scope!("document:read").into()).is_ok());
//!     assert!(caller.require(&scope!("document:write").into()).is_err());
//!     assert_eq!(caller.owner().tenant_id.as_str(), "acme"); // the key's owner stays who it was
//!
//!     // For somebody unknown, and by a key without the permission: one answer.
//!     for request in [request(&key).field("x-user-id", "bob"), request(&plain).field("x-user-id", "ann")] {
//!         let refused = authenticator.authenticate(&request).await.err().ok_or("nobody may")?;
//!         assert_eq!(refused.code(), ErrorCode::UnknownActor);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Authority is an intersection
//! A scope is granted where all of these grant it:
//!
//! 1. the key's own scopes;
//! 2. what its delegation allows, where that is less: `Delegation::Only(vec![…])`;
//! 3. the user's scopes, where the directory tells any. A user
//!    [without](crate::actor::User::scopes) is bound by the key alone.
//!
//! So are access and workspaces: acting for a user who only reads
//! ([`User::with_access`](crate::actor::User::with_access)) a key only reads, and it reaches those
//! workspaces alone that both reach ([`User::in_workspaces`](crate::actor::User::in_workspaces)).
//!
//! A route that needs a user, whoever it is, requires
//! [`Requirement::user()`](crate::Requirement::user); an application that names nobody is then told
//! `ACTOR_REQUIRED`.
//!
//! # Traps
//! - **The directory does not decide.** It says who a user is. The tenant's wall is the library's:
//!   a user of another tenant is refused even if the directory returns one, unless it says
//!   [`collaborating()`](crate::actor::User::collaborating).
//! - **Unknown and forbidden are one answer,** so that nobody learns who exists. Return `None` for
//!   both, after the same work.
//! - **Addresses arrive in ASCII lower case** and are not normalized further: `a.b+c@example.com`
//!   is its own address. Compare yours lower-cased.
//! - **Two fields at once, or one of them twice, are 400.** A caller's mind is not guessed. Without
//!   a directory they are refused, not ignored.
//! - **Suspended users:** return them with [`suspended`](crate::actor::User::suspended) set, and
//!   they are refused. Whether a key's *owner* is in good standing is another question, for
//!   [`OwnerStanding`](crate::actor::OwnerStanding).
//! - **An error is an outage,** `DIRECTORY_UNAVAILABLE` and 503. Do not answer `None` for a
//!   database that is down.
//! - **It is asked on every such request.** [`CachedDirectory`](crate::actor::CachedDirectory)
//!   remembers both kinds of answers, for a minute at most.
//! - **Store the user's id, not the address.** The answer to a request that named an address tells
//!   the id in `X-User-Id`.
