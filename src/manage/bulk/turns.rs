//! Fairness between tenants: how many operations a tenant may have open, and whose operation gets
//! the next step.
//!
//! The store lists open operations fairly
//! ([`open_bulk_operations`](crate::store::KeyStore::open_bulk_operations)). This module keeps what
//! a store does not know, for one node and in memory: which operations are being started, when each
//! had its last step, and whether that step failed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::plan::takes_access;
use crate::key::{KeyId, TenantId};
use crate::lock::Mutex;
use crate::manage::ManageError;
use crate::store::BulkOperation;

/// The largest number of open operations of a tenant. The errors below name it.
const MOST_OPEN: usize = 20;
/// The largest number of operations that a store lists.
const MOST_LISTED: usize = 100;

const TOO_MANY: ManageError = ManageError::Conflict(
    "20 bulk operations of this tenant are open, which is the limit: wait until one has ended",
);
const TOO_MANY_OF_ALL: ManageError = ManageError::Conflict(
    "too many bulk operations are open: wait until one of this tenant has ended",
);

/// A tenant; `None` for the operators that belong to no tenant, which count as one.
type Party = Option<TenantId>;

/// The operations that are being started on this node, oldest first.
#[derive(Debug, Default)]
pub(super) struct Starts(Mutex<HashMap<Party, Vec<KeyId>>>);

/// An operation that is being started, until this is dropped.
#[must_use]
pub(super) struct Start<'s> {
    starts: &'s Starts,
    party: Party,
    id: KeyId,
    /// The party's operations that were being started before this one.
    earlier: Vec<KeyId>,
}

impl Starts {
    /// Begins to start an operation. Concurrent calls do not see each other's operations in the
    /// store, so they are counted here. A call counts the earlier ones only: if it counted all, too
    /// many at once would refuse each other.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] if too many are being started: what a call does before its
    /// operation is stored, such as looking up digests, is bounded too.
    pub(super) fn begin(&self, party: Party, id: KeyId) -> Result<Start<'_>, ManageError> {
        let mut all = self.0.lock();
        let own = all.entry(party.clone()).or_default();
        // A request that is repeated at once has the same id, and is one operation.
        let others: BTreeSet<_> = own.iter().filter(|other| **other != id).collect();
        if others.len() >= MOST_OPEN {
            return Err(TOO_MANY);
        }
        let earlier = others.into_iter().cloned().collect();
        own.push(id.clone());
        Ok(Start {
            starts: self,
            party,
            id,
            earlier,
        })
    }
}

impl Start<'_> {
    /// Checks that the party may have another operation beside those that are open. `open` must have
    /// been read after [`begin`](Starts::begin).
    ///
    /// # Errors
    /// [`ManageError::Conflict`].
    pub(super) fn check(&self, open: &[BulkOperation]) -> Result<(), ManageError> {
        let mut own: BTreeSet<_> = self.earlier.iter().collect();
        let mut listed = HashMap::<Party, usize>::new();
        for operation in open {
            let party = operation.tenant();
            if party == self.party && operation.id != self.id {
                own.insert(&operation.id);
            }
            *listed.entry(party).or_default() += 1;
        }
        if own.len() >= MOST_OPEN {
            return Err(TOO_MANY);
        }
        // A full list omits only operations of parties that have about the most in it. The number
        // is exact for the others, and unknown for these. Whoever has none listed may start one.
        let most = listed.into_values().max().unwrap_or_default();
        let is_exact = open.len() < MOST_LISTED || own.len() + 1 < most;
        match is_exact || own.is_empty() {
            true => Ok(()),
            false => Err(TOO_MANY_OF_ALL),
        }
    }
}

impl Drop for Start<'_> {
    fn drop(&mut self) {
        let mut all = self.starts.0.lock();
        let Some(own) = all.get_mut(&self.party) else {
            return;
        };
        if let Some(place) = own.iter().position(|id| *id == self.id) {
            own.remove(place);
        }
        if own.is_empty() {
            all.remove(&self.party);
        }
    }
}

/// Whose turn it was, from one run to the next.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Past>);

/// The turns of the operations that are open, and of their tenants.
#[derive(Debug, Default)]
struct Past {
    /// The number of turns so far.
    turns: u64,
    parties: HashMap<Party, u64>,
    operations: HashMap<KeyId, Last>,
}

/// The last turn of an operation. One that has had none is before all others.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    /// Also true while the step runs: a step that never returns must not be the first one again.
    has_failed: bool,
    turn: u64,
}

/// The operations of one run that wait for a turn.
pub(super) struct Round<'t> {
    turns: &'t Turns,
    waiting: Vec<Waiting>,
}

/// An operation that waits for a turn, or has it.
pub(super) struct Waiting {
    party: Party,
    takes_access: bool,
    /// The place in the store's list.
    place: usize,
    pub(super) operation: BulkOperation,
}

impl Turns {
    /// Begins a run with these operations, as the store lists them.
    pub(super) fn round(&self, open: Vec<BulkOperation>) -> Round<'_> {
        let waiting: Vec<_> = (0..)
            .zip(open)
            .map(|(place, operation)| Waiting {
                party: operation.tenant(),
                takes_access: takes_access(&operation),
                place,
                operation,
            })
            .collect();
        let mut past = self.0.lock();
        // No more is remembered than the store lists.
        past.parties
            .retain(|party, _| waiting.iter().any(|one| one.party == *party));
        past.operations
            .retain(|id, _| waiting.iter().any(|one| one.operation.id == *id));
        drop(past);
        Round {
            turns: self,
            waiting,
        }
    }
}

impl Round<'_> {
    /// Returns the operation that has the next turn.
    ///
    /// The tenant comes first whose last turn is the longest ago, however many operations it has. Of
    /// its operations, one whose last step failed comes after the others, and one that revokes or
    /// disables keys before the rest; they take turns otherwise.
    pub(super) fn next_turn(&mut self) -> Option<Waiting> {
        let past = &mut *self.turns.0.lock();
        let order = |one: &Waiting| {
            let party = past.parties.get(&one.party).copied().unwrap_or_default();
            let last = past.operations.get(&one.operation.id).copied();
            let last = last.unwrap_or_default();
            let urgency = Reverse(one.takes_access);
            (party, last.has_failed, urgency, last.turn, one.place)
        };
        let each = self.waiting.iter().enumerate();
        let (index, _) = each.min_by_key(|(_, one)| order(one))?;
        let next = self.waiting.swap_remove(index);
        past.turns += 1;
        let last = Last {
            has_failed: true,
            turn: past.turns,
        };
        past.parties.insert(next.party.clone(), last.turn);
        past.operations.insert(next.operation.id.clone(), last);
        Some(next)
    }

    /// Ends a turn in which the step succeeded. `next` is the operation after the step, unless
    /// another node continues it. After a step that failed, the operation waits for the next run.
    pub(super) fn done(&mut self, turn: Waiting, next: Option<BulkOperation>) {
        let mut past = self.turns.0.lock();
        if let Some(last) = past.operations.get_mut(&turn.operation.id) {
            last.has_failed = false;
        }
        drop(past);
        if let Some(operation) = next.filter(|next| next.ended_at.is_none()) {
            self.waiting.push(Waiting { operation, ..turn });
        }
    }
}
