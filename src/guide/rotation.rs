//! Rotate a key without downtime.
//!
//! A rotation issues a *successor* with the same facts and a new secret. The old key works on for
//! its *grace*, as long as your customer needs to put the new one everywhere.
//!
//! # A first program
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(
    not(feature = "testing"),
    doc = "```ignore (needs the feature testing)"
)]
//! use std::time::Duration;
//!
//! use portunus::ErrorCode;
//! use portunus::key::KeyStatus;
//! use portunus::quota::Quota;
//! use portunus::testing::{TestKeys, TestRequest};
//! use portunus::{Clock, Limits, Principal};
//!
//! const DAY: Duration = Duration::from_secs(24 * 3600);
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let keys = TestKeys::new(); // keys in memory, with a clock that only moves when it is told
//!     let two_a_minute = Limits::per_key([Quota::per_minute(2)]);
//!     let service = keys.builder().limits(two_a_minute).build()?;
//!     let (manager, authenticator) = (service.manager(), service.authenticator());
//!     let ask = |key: &str| authenticator.authenticate(&TestRequest::get("/documents").bearer(key));
//!
//!     let old = keys.issue("acme", ["document:read"]);
//!     let id = keys.id_of(&old);
//!     let rotated = manager.rotate(&id, Some(7 * DAY)).await?;
//!     let new = rotated.key.reveal(); // shown this once
//!
//!     // Both work, with the same facts, and are one family: together they have one quota.
//!     assert_eq!(rotated.record.scopes, rotated.old.scopes);
//!     assert_eq!(rotated.record.family, rotated.old.family);
//!     assert!(ask(&old).await.is_ok());
//!     assert!(ask(&new).await.is_ok());
//!     assert_eq!(ask(&new).await.err().map(|error| error.code()), Some(ErrorCode::RateLimited));
//!
//!     // What is visible: each names the other, and the old one has an end.
//!     assert_eq!(rotated.old.successor.as_ref(), Some(&rotated.record.id));
//!     assert_eq!(rotated.record.predecessor.as_ref(), Some(&id));
//!     assert_eq!(rotated.old.expires_at, Some(manager.now() + 7 * DAY));
//!
//!     // Is the old one still in use? Before its end, look.
//!     assert_eq!(manager.get(&id).await?.usage.count, 1);
//!
//!     // When the grace is over, the old key is over, at that very instant.
//!     keys.clock().advance(7 * DAY);
//!     assert_eq!(ask(&old).await.err().map(|error| error.code()), Some(ErrorCode::KeyExpired));
//!     assert_eq!(manager.get(&id).await?.record.status(keys.clock().now()), KeyStatus::Expired);
//!     let caller = ask(&new).await?.principal.ok_or("a key was presented")?;
//!     assert_eq!(caller.key_id(), &rotated.record.id);
//!     Ok(())
//! }
//! ```
//!
//! # What a successor has
//! Everything that the old key has: name, owner, scopes, networks, quotas, workspaces, plan,
//! metadata. A key that had an expiry gets the same *lifetime* anew, from now. Its id and its
//! secret are new, and its use is counted apart, so that you and your audit can tell which of the
//! two was used.
//!
//! # How long a grace
//! As long as a deployment takes, and no longer: hours for a service that reads its key from a
//! vault, days for people who must be written to. For a secret that leaked there is none:
//! `rotate(&id, None)` revokes the old key in the same step, with the reason `rotated`, and makes the
//! successor the primary key if the old one was. [`revoke`](crate::manage::KeyManager::revoke) ends
//! a grace early.
//!
//! [`IssueRules::rotate_every`](crate::manage::IssueRules) makes the manager tell when a rotation
//! is due ([`ManagedKey::rotation_due`](crate::manage::ManagedKey)); nothing is refused for it.
//!
//! # Traps
//! - **A grace only shortens.** A key that expires tomorrow expires tomorrow, whatever grace was
//!   asked for.
//! - **Rotate the newest.** A key that has a living successor cannot be rotated again: `Conflict`.
//! - **The successor counts.** With a quota of active keys, there must be room for both:
//!   `QuotaExceeded` otherwise.
//! - **A lost answer is a lost secret.** Use
//!   [`rotate_once`](crate::manage::KeyManager::rotate_once) for requests that may be repeated, and
//!   rotate the successor where its secret did not arrive.
//! - **Revoking one of the two ends that one,** not the family.
//! - **A primary key stays primary during its grace.** Where events are signed, they are signed
//!   with the old secret until then; [`make_primary`](crate::manage::KeyManager::make_primary)
//!   moves it earlier.
//! - **Access tokens are not rotated;** they are issued anew.
