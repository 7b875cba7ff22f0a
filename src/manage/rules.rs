//! Rules for the keys of an API.

use std::time::Duration;

use crate::key::{Delegation, KeyKind};

/// Rules for the keys of an API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssueRules {
    /// Maximum number of active keys per tenant. A rotated key in its grace period and its
    /// successor count as one, unless [`rotated_keys_stay`](Self::rotated_keys_stay) is set.
    pub active_keys: Option<u64>,
    /// Maximum number of active keys per owner: a user, or the tenant itself. They are counted as
    /// for [`active_keys`](Self::active_keys).
    pub active_keys_per_owner: Option<u64>,
    /// Default delegation of application keys: whether they may act for users.
    pub delegation: Delegation,
    /// Whether API keys never expire. If true, API keys cannot be given an expiry.
    pub never_expire: bool,
    /// Default lifetime of access tokens.
    pub access_token_lifetime: Option<Duration>,
    /// Maximum lifetime of a key issued by an operator of a tenant. If it is set, such a key must
    /// have an expiry, and rotation gives its successor at most this lifetime.
    pub longest_lifetime: Option<Duration>,
    /// Recommended rotation interval: reported, not enforced.
    pub rotate_every: Option<Duration>,
    /// Whether a rotated key stays valid until it is deleted by hand. If true, a grace period is
    /// refused, and both keys count against the limits on active keys.
    pub rotated_keys_stay: bool,
    /// Whether the owner's primary key signs events. If true, imported keys cannot become primary,
    /// because their secret was never known.
    pub sign_events: bool,
}

impl IssueRules {
    pub(super) fn delegation_of(&self, kind: KeyKind) -> Delegation {
        if kind == KeyKind::App {
            self.delegation.clone()
        } else {
            Delegation::Off
        }
    }
}
