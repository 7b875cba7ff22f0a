//! What is shown of an account: its balance and its ledger.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{CreditId, Period};

/// The credits of an account at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// The units that can be taken: the sum of what is left of the grants.
    pub available: u64,
    /// The grants that may still be spent or refilled, in the order in which they are spent.
    pub grants: Vec<GrantBalance>,
    /// The units that nodes have taken and that are reserved, oldest first. They are in no grant.
    pub taken: Vec<TakenUnits>,
    /// The number of the last ledger entry that was deleted because of its age, or is about to be; 0
    /// for none. Each grant has the sum of its deleted changes
    /// ([`carried_forward`](GrantBalance::carried_forward)); grants that have ended had none left.
    pub forgotten: u64,
}

/// A grant with what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrantBalance {
    /// The id.
    pub id: CreditId,
    /// The units granted, in each period if there are periods.
    pub units: u64,
    /// The units left.
    pub left: u64,
    /// The priority; the lowest is spent first.
    pub priority: u8,
    /// When the units cannot be spent any more; `None` for never.
    pub expires_at: Option<SystemTime>,
    /// How often the grant is refilled.
    pub period: Option<Period>,
    /// When the grant is refilled next.
    pub refills_at: Option<SystemTime>,
    /// Whether what is left is kept at the start of a period.
    pub rolls_over: bool,
    /// The sum of its changes in entries up to [`forgotten`](Balance::forgotten). With those of the later
    /// entries it is what is left.
    pub carried_forward: i64,
}

/// Units taken by a node, or reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenUnits {
    /// The id.
    pub id: CreditId,
    /// The units taken.
    pub units: u64,
    /// The units that were used, as last reported.
    pub used: u64,
    /// When they were taken.
    pub taken_at: SystemTime,
    /// When the node last reported their use.
    pub reported_at: SystemTime,
    /// When a reservation ends; `None` for a node's units.
    pub ends_at: Option<SystemTime>,
}

/// An entry of a ledger: a change of a grant's balance. The sum of the changes of a grant is what is
/// left of it, together with what was [carried forward](GrantBalance::carried_forward) from entries that
/// were deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LedgerEntry {
    /// The place in the account's ledger, from 1, without gaps. The oldest may have been deleted.
    pub number: u64,
    /// In milliseconds since the Unix epoch; never before that of an earlier entry.
    pub at_ms: u64,
    /// The grant.
    pub grant: CreditId,
    /// What happened.
    pub kind: LedgerKind,
    /// The change of the grant's units.
    pub change: i64,
    /// The block or reservation, for units that were taken or given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<CreditId>,
}

impl LedgerEntry {
    /// Creates an entry, as a store does that keeps entries in columns.
    #[must_use]
    pub const fn new(
        number: u64,
        at_ms: u64,
        grant: CreditId,
        kind: LedgerKind,
        change: i64,
    ) -> Self {
        Self {
            number,
            at_ms,
            grant,
            kind,
            change,
            taken: None,
        }
    }
}

/// What changed the balance of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LedgerKind {
    /// The grant was made.
    Granted,
    /// A period began.
    Refilled,
    /// Units were left when the grant expired, or when a period ended.
    Lapsed,
    /// An operator voided the grant.
    Voided,
    /// A node took units to spend, or they were reserved.
    Taken,
    /// Units that were taken and not used came back.
    GivenBack,
}

impl LedgerKind {
    /// Returns the name: `granted`, `refilled`, `lapsed`, `voided`, `taken` or `given_back`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refilled => "refilled",
            Self::Lapsed => "lapsed",
            Self::Voided => "voided",
            Self::Taken => "taken",
            Self::GivenBack => "given_back",
        }
    }
}
