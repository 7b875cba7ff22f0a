//! Self-serve: let your customers' users manage their own keys.
//!
//! A user signs in to your site and issues, rotates and revokes the keys that belong to it, and no
//! others. Two things must hold whatever the user sends: another user's key does not exist, and no
//! key is wider than its owner.
//!
//! # A first program
//! An [`Operator`](crate::manage::Operator) is a user of a tenant with a role. The policy
//! [`own_keys`](crate::manage::own_keys) confines it to its own keys.
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(
    not(feature = "testing"),
    doc = "```ignore (needs the feature testing)"
)]
//! use portunus::key::{KeyKind, Owner};
//! use portunus::manage::{KeyChange, ManageError, NewKey, Operator, Role, own_keys};
//! use portunus::store::ListQuery;
//! use portunus::testing::{TestKeys, TestRequest};
//! use portunus::{AuthError, ErrorCode, Scope, scope};
//!
//! /// What your session and your database say about a user. Ask them for every call.
//! fn signed_in(user: &str, permissions: &[Scope]) -> Result<Operator, Box<dyn std::error::Error>> {
//!     Ok(Operator::new(user.parse()?, "acme".parse()?, Role::Member)
//!         .with_authority(permissions.to_vec()) // without this, the user grants nothing
//!         .in_organization()) // or in_workspaces([…]): without either, the user reaches nothing
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let keys = TestKeys::new();
//!     let service = keys.builder().build()?;
//!     let (host, authenticator) = (service.manager(), service.authenticator());
//!     let customers = host.under(own_keys()); // the policy of your administrators stays as it is
//!     let (read, write) = (scope!("document:read"), scope!("document:write"));
//!
//!     // Ann may read and write, Bob may read.
//!     let ann = customers.by(signed_in("ann", &[read.clone(), write.clone()])?);
//!     let bob = customers.by(signed_in("bob", &[read.clone()])?);
//!     let new = |name: &str, scopes: &[Scope]| {
//!         // Who owns the key does not depend on the request.
//!         let mut new = NewKey::new(name, Owner::tenant("acme".parse()?)).with_scopes(scopes.to_vec());
//!         new.kind = KeyKind::User; // acts as its owner
//!         Ok::<_, Box<dyn std::error::Error>>(new)
//!     };
//!     let issued = ann.issue(new("laptop", &[read.clone(), write.clone()])?).await?;
//!     let (key, id) = (issued.key.reveal(), issued.record.id.clone());
//!     assert_eq!(issued.record.owner.user_id.as_ref().map(|id| id.as_str()), Some("ann"));
//!     let refused = bob.issue(new("laptop", &[write.clone()])?).await;
//!     assert!(matches!(refused, Err(ManageError::Forbidden(_))));
//!
//!     // For Bob, Ann's key does not exist.
//!     assert!(matches!(bob.get(&id).await, Err(ManageError::NotFound(_))));
//!     assert!(matches!(bob.revoke(&id, None).await, Err(ManageError::NotFound(_))));
//!     assert!(bob.list(ListQuery::new(host.now())).await?.items.is_empty());
//!
//!     // Ann loses a permission. Her key cannot be renewed any more, but it still has it …
//!     let ann = customers.by(signed_in("ann", &[read.clone()])?);
//!     assert!(matches!(ann.rotate(&id, None).await, Err(ManageError::Forbidden(_))));
//!     // … until you narrow her keys, where you take the permission from her.
//!     let mut query = ListQuery::new(host.now());
//!     query.tenant = Some("acme".parse()?);
//!     query.owner = Some("ann".parse()?);
//!     query.limit = 500;
//!     loop {
//!         let page = host.list(query.clone()).await?;
//!         for key in page.items.iter().filter(|key| key.record.revoked.is_none()) {
//!             let narrow = |record: &portunus::key::KeyRecord| {
//!                 let mut change = KeyChange::new();
//!                 // What she still has. Also a wildcard goes, which would cover more.
//!                 let left = record.scopes.iter().filter(|scope| **scope == read);
//!                 change.scopes = Some(left.cloned().collect());
//!                 Ok::<_, AuthError>(change)
//!             };
//!             host.update_with(&key.record.id, narrow, None).await?;
//!         }
//!         let Some(next) = page.next else { break };
//!         query.after = Some(next);
//!     }
//!     let request = TestRequest::get("/documents").bearer(&key);
//!     let caller = authenticator.authenticate(&request).await?.principal.ok_or("a key was presented")?;
//!     assert!(!portunus::Principal::scopes(&caller).grants(&write));
//!     let rotated = ann.rotate(&id, None).await?;
//!     let refused = authenticator.authenticate(&request).await.err();
//!     assert_eq!(refused.map(|error| error.code()), Some(ErrorCode::KeyRevoked));
//!     assert_eq!(rotated.record.scopes, [read]);
//!     Ok(())
//! }
//! ```
//!
//! # Over HTTP
//! `portunus-admin` serves the same calls to your users: build a second `Admin` with
//! `operators(own_keys())` and a proof that reads your session cookie, and nest it beside the API of
//! your administrators. Its documentation has the program. Writes from pages of other sites are
//! refused there; still make the cookie `HttpOnly`, `Secure` and `SameSite`.
//!
//! # What a user may grant
//! What you state about the [`Operator`](crate::manage::Operator), and the
//! [table](crate::manage::OperatorPolicy#operators-confined-to-their-own-keys) of the policy:
//! scopes, access, workspaces, kinds and environments from the operator; the plan and the quotas from
//! the tenant's plan; no delegation. The same rules apply to a key that is issued or imported, to what
//! a change adds, and to everything that a rotation would hand over.
//!
//! # Pitfalls
//! - **State the authority from your database, for every call.** A role that is kept in the session
//!   outlives the permission that it stood for.
//! - **A key outlives a permission.** Requests check what the key grants, not what its owner may do
//!   today. Narrow or revoke the keys where you take a permission away, as above. Users who leave
//!   or are suspended need no such step: let
//!   [`OwnerStanding`](crate::actor::OwnerStanding) report them, and all their keys stop.
//! - **An operation on many keys** ([`bulk`](crate::manage::KeyManager::bulk)) is processed after the
//!   call, with the rights that the user had then. It reaches the user's own keys only, and ends if
//!   `OwnerStanding` reports the user.
//! - **Application keys are not for self-serve.** Such a key acts as the application. Allow it
//!   ([`Operator::with_kinds`](crate::manage::Operator::with_kinds)) only if your handlers treat it
//!   no better than its owner.
//! - **Names, descriptions and metadata are the user's.** Do not decide anything by the metadata of a
//!   key that a user manages.
//! - **Limit the number of keys** with
//!   [`IssueRules::active_keys_per_owner`](crate::manage::IssueRules::active_keys_per_owner). Each
//!   key has the requests of the plan; a limit for all keys of a user or tenant is a
//!   [`LimitPolicy`](crate::limit::LimitPolicy).
//! - **The service itself is not confined.** A proof that returns
//!   [`Operator::host`](crate::manage::Operator::host) for a customer opens every key.
