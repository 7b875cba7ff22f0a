//! Events that a service sends to its customers, signed with the customer's primary key. The
//! feature `events` adds signing and verifying; the signing states are stored without it too.
//!
//! `event_hash = hex(HMAC-SHA256(key, event_time ‖ event_type))`, as documented by Dropbox Sign.
//! The service signs with a [state](crate::key::SigningState) that cannot authenticate; the
//! customer verifies with the key.
//!
//! ```
//! # #[cfg(feature = "events")] {
//! use portunus::events;
//!
//! let (key, time, kind) = ("0123456789abcdef", "1700000000", "account_confirmed");
//! let hash = "4ed18118541769d5314036c414c6908b0d7017688f88dcd4821606e4d36f4b23";
//! assert!(events::verify(key, time, kind, hash));
//! # }
//! ```
//!
//! The two parts are concatenated without a separator, so `KeyManager::sign_event` refuses types
//! that begin with a digit: otherwise the boundary could be moved.

#[cfg(feature = "events")]
mod sign;

pub use crate::store::signing::SigningStore;
#[cfg(feature = "events")]
pub use sign::{SignedEvent, verify};
