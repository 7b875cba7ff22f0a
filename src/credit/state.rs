//! The stored state of an account: what [`Book`](super::book::Book) reads and writes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::grant::Terms;
use super::{CreditId, LedgerEntry, LedgerKind};

/// How long after its last report a node's block may be given back by an operator: twice the lease,
/// because clocks differ.
const ABANDONED_AFTER: u64 = 120_000;

/// The stored state of an account. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The latest time seen. It never goes back.
    pub(super) now: u64,
    /// The number of entries in the ledger.
    pub(super) entries: u64,
    /// In the order in which they were made.
    pub(super) grants: Vec<Grant>,
    pub(super) holdings: Vec<Holding>,
    /// The ids of the grants that ended last.
    pub(super) past: VecDeque<CreditId>,
    /// The number of the last entry of a grant or a refill.
    #[serde(default)]
    pub(super) raised: u64,
    /// What the host was told of: the percentage that is used, and `raised` at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) told: Option<(u64, u8)>,
    /// Entries up to this number may have been deleted. Each grant has the sum of its entries.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) forgotten: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) id: CreditId,
    pub(super) terms: Terms,
    pub(super) left: u64,
    /// The number of the current period, and its end.
    pub(super) period: Option<(i64, u64)>,
    /// The sum of its changes in entries that may have been deleted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) carried: i64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Holding {
    pub(super) id: CreditId,
    pub(super) parts: Vec<Part>,
    pub(super) used: u64,
    pub(super) taken_at: u64,
    pub(super) reported_at: u64,
    /// When a reservation ends.
    pub(super) ends_at: Option<u64>,
}

/// What a holding has of one grant. Parts are used in their order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) grant: CreditId,
    pub(super) period: Option<i64>,
    pub(super) units: u64,
}

impl State {
    /// Adds the oldest entries of the ledger to the sums, so that they can be deleted. Those that were
    /// added before, by another node, are skipped.
    pub(super) fn forget(&mut self, entries: &[LedgerEntry]) {
        for entry in entries {
            if entry.number <= self.forgotten {
                continue;
            }
            self.forgotten = entry.number;
            let grant = self.grants.iter_mut().find(|one| one.id == entry.grant);
            if let Some(grant) = grant {
                // An earlier grant may have had the same id.
                let is_first = entry.kind == LedgerKind::Granted;
                let carried = if is_first { 0 } else { grant.carried };
                grant.carried = carried.saturating_add(entry.change);
            }
        }
    }
}

impl Grant {
    /// Returns the first instant at which some of its units lapse.
    pub(super) fn lapses_at(&self) -> u64 {
        let period = self.period.filter(|_| !self.terms.rollover);
        let expires = self.terms.expires_at.unwrap_or(u64::MAX);
        expires.min(period.map_or(u64::MAX, |(_, end)| end))
    }

    pub(super) fn takes_back(&self, part: &Part) -> bool {
        let same = self.period.map(|(number, _)| number) == part.period;
        self.id == part.grant && (same || self.terms.rollover)
    }

    /// Returns whether nothing can come from it or back to it any more.
    pub(super) fn is_over(&self, holdings: &[Holding]) -> bool {
        let mut parts = holdings.iter().flat_map(|holding| &holding.parts);
        self.left == 0 && self.terms.period.is_none() && !parts.any(|part| part.grant == self.id)
    }
}

impl Holding {
    pub(super) fn units(&self) -> u64 {
        self.parts.iter().map(|part| part.units).sum()
    }

    pub(super) fn is_abandoned(&self, now: u64) -> bool {
        self.ends_at.is_none() && now.saturating_sub(self.reported_at) >= ABANDONED_AFTER
    }
}
