//! What keys of an API may be like.

use std::time::Duration;

use crate::key::{Delegation, KeyKind};

/// What keys of an API may be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssueRules {
    /// At most this many active keys per tenant.
    pub active_keys: Option<u64>,
    /// At most this many active keys per owner: a user, or the tenant itself.
    pub active_keys_per_owner: Option<u64>,
    /// Whether application keys may act for users unless it is said otherwise when they are issued.
    pub delegation: Delegation,
    /// Whether API keys may be given an expiry.
    pub never_expire: bool,
    /// How long an access token lives unless it says so.
    pub access_token_lifetime: Option<Duration>,
    /// How long a key that an operator of a tenant makes may live at most. Where it is set, such a
    /// key cannot be without an end, and rotation gives its successor no more than this.
    pub longest_lifetime: Option<Duration>,
    /// How often keys should be rotated: reported, not enforced.
    pub rotate_every: Option<Duration>,
    /// Whether a rotated key stays as it is until it is deleted by hand, so that no grace can be
    /// asked for.
    pub rotated_keys_stay: bool,
    /// Whether the owner's primary key signs events: then a key whose secret was never seen cannot
    /// become one.
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
