//! Rotate a key without downtime.
//!
//! A rotation issues a *successor* with the same attributes and a new secret. The old key keeps
//! working for a *grace* period, so that your customer can deploy the new one.
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
//!     let keys = TestKeys::new(); // keys in memory, with a manual clock
//!     let two_a_minute = Limits::per_key([Quota::per_minute(2)]);
//!     let service = keys.builder().limits(two_a_minute).build()?;
//!     let (manager, authenticator) = (service.manager(), service.authenticator());
//!     let ask = |key: &str| authenticator.authenticate(&TestRequest::get("/documents").bearer(key));
//!
//!     let old = keys.issue("acme", ["document:read"]);
//!     let id = keys.id_of(&old);
//!     let rotated = manager.rotate(&id, Some(7 * DAY)).await?;
//!     let new = rotated.key.reveal(); // shown only once
//!
//!     // Both work, have the same attributes and are one family: they share one quota.
//!     assert_eq!(rotated.record.scopes, rotated.old.scopes);
//!     assert_eq!(rotated.record.family, rotated.old.family);
//!     assert!(ask(&old).await.is_ok());
//!     assert!(ask(&new).await.is_ok());
//!     assert_eq!(ask(&new).await.err().map(|error| error.code()), Some(ErrorCode::RateLimited));
//!
//!     // The records name each other, and the old key expires.
//!     assert_eq!(rotated.old.successor.as_ref(), Some(&rotated.record.id));
//!     assert_eq!(rotated.record.predecessor.as_ref(), Some(&id));
//!     assert_eq!(rotated.old.expires_at, Some(manager.now() + 7 * DAY));
//!
//!     // Check whether the old key is still in use before it expires.
//!     assert_eq!(manager.get(&id).await?.usage.count, 1);
//!
//!     // The old key expires exactly at the end of the grace period.
//!     keys.clock().advance(7 * DAY);
//!     assert_eq!(ask(&old).await.err().map(|error| error.code()), Some(ErrorCode::KeyExpired));
//!     assert_eq!(manager.get(&id).await?.record.status(keys.clock().now()), KeyStatus::Expired);
//!     let caller = ask(&new).await?.principal.ok_or("a key was presented")?;
//!     assert_eq!(caller.key_id(), &rotated.record.id);
//!     Ok(())
//! }
//! ```
//!
//! # What a successor inherits
//! It inherits everything: name, owner, scopes, networks, quotas, workspaces, plan, metadata. If
//! the old key had an expiry, the successor gets the same *lifetime*, starting now. Its id and its
//! secret are new, and its usage is counted separately, so that you and your audit can see which of
//! the two was used.
//!
//! # How long the grace period should be
//! As long as a deployment takes, and no longer: hours for a service that reads its key from a
//! vault, days for people who must be contacted. A leaked secret gets none: `rotate(&id, None)`
//! revokes the old key in the same step, with the reason `rotated`, and makes the successor the
//! primary key if the old key was primary. [`revoke`](crate::manage::KeyManager::revoke) ends a
//! grace period early.
//!
//! With [`IssueRules::rotate_every`](crate::manage::IssueRules), the manager reports when a
//! rotation is due ([`ManagedKey::rotation_due`](crate::manage::ManagedKey)). An overdue key is not
//! refused.
//!
//! # Pitfalls
//! - **A grace period never extends a key's lifetime.** A key that expires tomorrow expires
//!   tomorrow, whatever grace was requested.
//! - **Rotate the newest key.** A key with a live successor cannot be rotated again: `Conflict`.
//! - **A family has at most two working keys.** Rotating the successor revokes the old key, even
//!   within its grace period. The two count as one against the limits on active keys, so a rotation
//!   succeeds at the limit, too, and takes no place from a key that is issued later. With
//!   [`IssueRules::rotated_keys_stay`](crate::manage::IssueRules), both keys count, and without
//!   capacity for both the rotation fails with `QuotaExceeded`.
//! - **A lost response is a lost secret.** Use
//!   [`rotate_once`](crate::manage::KeyManager::rotate_once) for requests that may be repeated, and
//!   rotate the successor if its secret did not arrive.
//! - **Revoking one of the two keys ends only that key,** not the family.
//! - **A primary key stays primary during its grace period.** If events are signed, they are signed
//!   with the old secret until then; [`make_primary`](crate::manage::KeyManager::make_primary)
//!   moves the primary earlier.
//! - **Access tokens are not rotated;** issue new ones.
