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

/// The largest number of open operations of a tenant.
pub(super) const MOST_OPEN: usize = 20;
/// From this length on, a store's list may lack operations: it has at most a hundred, and those that
/// cannot be read are left out of it.
const FULL: usize = 90;

const TOO_MANY: ManageError = ManageError::Conflict(
    "too many bulk operations of this tenant are open (at most 20, and 10 where an operator who does not see \
     all its keys starts one): wait until one has ended",
);

/// A tenant; `None` for the operators that belong to no tenant.
type Party = Option<TenantId>;

/// The operations of tenants that are being started on this node.
#[derive(Debug, Default)]
pub(super) struct Starts(Mutex<Vec<(TenantId, KeyId)>>);

/// An operation that is being started, until this is dropped.
#[must_use]
pub(super) struct Start<'s> {
    starts: &'s Starts,
    tenant: TenantId,
    id: KeyId,
    /// The tenant's operations that were being started before this one.
    earlier: BTreeSet<KeyId>,
}

impl Starts {
    /// Begins to start an operation. Concurrent calls do not see each other's operations in the
    /// store, so they are counted here: the earlier ones only, since too many at once would refuse each
    /// other otherwise.
    pub(super) fn begin(&self, tenant: TenantId, id: KeyId) -> Start<'_> {
        let mut all = self.0.lock();
        // A request that is repeated at once has the same id, and is one operation.
        let others = all
            .iter()
            .filter(|(of, other)| *of == tenant && *other != id);
        let earlier = others.map(|(_, other)| other.clone()).collect();
        all.push((tenant.clone(), id.clone()));
        Start {
            starts: self,
            tenant,
            id,
            earlier,
        }
    }
}

impl Start<'_> {
    /// Checks that the tenant has fewer than `most` other operations. `open` must have been read
    /// after [`begin`](Starts::begin).
    ///
    /// # Errors
    /// [`ManageError::Conflict`].
    pub(super) fn check(&self, open: &[BulkOperation], most: usize) -> Result<(), ManageError> {
        let mut own: BTreeSet<_> = self.earlier.iter().collect();
        let mut listed = HashMap::<Party, usize>::new();
        for operation in open {
            let party = operation.tenant();
            if party.as_ref() == Some(&self.tenant) && operation.id != self.id {
                own.insert(&operation.id);
            }
            *listed.entry(party).or_default() += 1;
        }
        // A full list omits only operations of parties that have about the most in it. The number
        // is exact for the others, and unknown for these. A tenant that has none listed may
        // start one.
        let largest = listed.into_values().max().unwrap_or_default();
        let is_exact = open.len() < FULL || own.is_empty() || own.len() + 1 < largest;
        match own.len() < most && is_exact {
            true => Ok(()),
            false => Err(TOO_MANY),
        }
    }
}

impl Drop for Start<'_> {
    fn drop(&mut self) {
        let mut all = self.starts.0.lock();
        let own = all
            .iter()
            .position(|(of, id)| *of == self.tenant && *id == self.id);
        own.map(|place| all.swap_remove(place));
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

/// The last turn of an operation, or those before it was first listed.
#[derive(Debug, Clone, Copy)]
struct Last {
    turn: u64,
    /// Also true while the step runs: a step that never returns must not be the first one again.
    has_failed: bool,
}

/// An operation that waits for a turn, or has it.
pub(super) struct Waiting {
    party: Party,
    takes_access: bool,
    pub(super) operation: BulkOperation,
}

impl Turns {
    /// Lets these operations wait, in the order of the store's list. New tenants and operations wait
    /// behind those that did so before: however many come, each has its turn.
    pub(super) fn waiting(&self, open: Vec<BulkOperation>) -> Vec<Waiting> {
        let waiting = open.into_iter().map(|operation| Waiting {
            party: operation.tenant(),
            takes_access: takes_access(&operation),
            operation,
        });
        let waiting: Vec<_> = waiting.collect();
        let past = &mut *self.0.lock();
        // No more is remembered than the store lists.
        past.parties
            .retain(|party, _| waiting.iter().any(|one| one.party == *party));
        past.operations
            .retain(|id, _| waiting.iter().any(|one| one.operation.id == *id));
        let new = Last {
            turn: past.turns,
            has_failed: false,
        };
        for Waiting {
            party, operation, ..
        } in &waiting
        {
            past.parties.entry(party.clone()).or_insert(new.turn);
            past.operations.entry(operation.id.clone()).or_insert(new);
        }
        waiting
    }

    /// Takes the operation that has the next turn.
    ///
    /// The tenant comes first whose last turn is the longest ago, however many operations it has. Of
    /// its operations, those that revoke or disable keys come before the rest, unless their last step
    /// failed, which may be because of them. They take turns otherwise.
    pub(super) fn next(&self, waiting: &mut Vec<Waiting>) -> Option<Waiting> {
        let past = &mut *self.0.lock();
        let order = |one: &Waiting| {
            let last = past.operations.get(&one.operation.id);
            let is_urgent = one.takes_access && last.is_some_and(|last| !last.has_failed);
            let party = past.parties.get(&one.party).copied();
            (party, Reverse(is_urgent), last.map(|last| last.turn))
        };
        let each = waiting.iter().enumerate();
        let (index, _) = each.min_by_key(|(_, one)| order(one))?;
        let next = waiting.remove(index);
        past.turns += 1;
        let last = Last {
            turn: past.turns,
            has_failed: true,
        };
        past.parties.insert(next.party.clone(), last.turn);
        past.operations.insert(next.operation.id.clone(), last);
        Some(next)
    }

    /// Notes that the step of a turn succeeded, and lets the operation wait for another turn if it has
    /// further steps that no other node does. After a step that failed, it waits for the next run.
    pub(super) fn succeeded(
        &self,
        turn: Waiting,
        next: Option<BulkOperation>,
        waiting: &mut Vec<Waiting>,
    ) {
        if let Some(last) = self.0.lock().operations.get_mut(&turn.operation.id) {
            last.has_failed = false;
        }
        let next = next.filter(|next| next.ended_at.is_none());
        waiting.extend(next.map(|operation| Waiting { operation, ..turn }));
    }
}
