//! Where accounts are kept: the storage trait, and the store in memory.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;

use super::{CreditAccount, CreditError, LedgerEntry};
use crate::lock::Mutex;
use crate::pointer::to_the_pointee;

/// The maximum number of entries that a call deletes.
const MOST_FORGOTTEN: usize = 500;

/// Persistent storage for credits.
///
/// A store keeps two things for each account, under its [text form](CreditAccount): a row with a
/// version and a text that only the library reads, and the entries of its ledger. Implement it in
/// your database with two tables; `portunus-conformance` has a suite for implementations.
///
/// # Requirements for implementations
/// - [`save`](Self::save) is one transaction: the row and all entries, or nothing.
/// - Of two calls of `save` for one account with the same [`expected`](CreditWrite::expected), at
///   most one returns `true`, even if they are concurrent or on different nodes. A call that was
///   answered with an error may have been applied.
/// - [`load`](Self::load) returns what the last successful `save` wrote. It reads from the primary
///   server, because an old row costs the caller another attempt.
/// - Entries are never changed. Only [`forget_entries`](Self::forget_entries) deletes them.
///
/// It is also implemented for `Arc` and `Box` of a store.
#[async_trait]
pub trait CreditStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the row of an account; `None` if nothing was saved yet.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError>;

    /// Replaces the row of an account if it has the expected version, and appends the entries to
    /// its ledger. The new version is the expected one plus 1. Returns `false`, and changes
    /// nothing, if the row has another version.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    async fn save(&self, account: &CreditAccount, write: &CreditWrite)
    -> Result<bool, CreditError>;

    /// Returns the entries of an account whose [number](LedgerEntry::number) is greater than
    /// `after`, in ascending order, at most `most`.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError>;

    /// Returns accounts with their rows, in an order that never changes, from the one after `after`
    /// on, at most `most`. Fewer are returned only at the end. A periodic job reads all accounts in
    /// this way, once an hour.
    ///
    /// Without this method, [`keep_entries`](super::Credits::keep_entries) cannot be set, and an event
    /// that a crashed node owes is recorded with the account's next request.
    ///
    /// # Errors
    /// Returns an error if the store does not answer. The default returns [`CreditError::Conflict`].
    async fn accounts(
        &self,
        after: Option<&CreditAccount>,
        most: usize,
    ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError> {
        let _ = (after, most);
        let why = "the credit store does not list its accounts";
        Err(CreditError::Conflict(why))
    }

    /// Deletes the entries of an account whose number is at most `last`, from the oldest on and at most
    /// 500 of them. Returns how many were deleted.
    ///
    /// # Errors
    /// Returns an error if the store does not answer. The default returns [`CreditError::Conflict`].
    async fn forget_entries(&self, account: &CreditAccount, last: u64) -> Result<u64, CreditError> {
        let _ = (account, last);
        let why = "the credit store keeps all entries";
        Err(CreditError::Conflict(why))
    }
}

/// The stored row of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCredits {
    /// The version: the number of times the row was saved.
    pub version: u64,
    /// The text of the row, which is JSON. Without long histories it is below 4 KiB; it is never
    /// over 1 MiB.
    pub state: String,
}

/// A change of an account, to be saved as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreditWrite {
    /// The version that the row must have; 0 if there must be no row.
    pub expected: u64,
    /// The new text of the row.
    pub state: String,
    /// The entries to append to the ledger. Their numbers follow those stored before.
    pub entries: Vec<LedgerEntry>,
}

impl CreditWrite {
    /// Creates a write, for tests of a store.
    #[must_use]
    pub const fn new(expected: u64, state: String, entries: Vec<LedgerEntry>) -> Self {
        Self {
            expected,
            state,
            entries,
        }
    }
}

/// Credits in the memory of this process, for tests and services that may forget them.
#[derive(Debug, Default)]
pub struct MemoryCreditStore {
    accounts: Mutex<HashMap<CreditAccount, Account>>,
}

#[derive(Debug)]
struct Account {
    row: StoredCredits,
    ledger: Vec<LedgerEntry>,
}

impl MemoryCreditStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl CreditStore for MemoryCreditStore {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        let accounts = self.accounts.lock();
        Ok(accounts.get(account).map(|stored| stored.row.clone()))
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        let mut accounts = self.accounts.lock();
        let version = accounts.get(account).map_or(0, |stored| stored.row.version);
        if version != write.expected {
            return Ok(false);
        }
        let row = StoredCredits {
            version: version + 1,
            state: write.state.clone(),
        };
        match accounts.get_mut(account) {
            Some(stored) => {
                stored.row = row;
                stored.ledger.extend_from_slice(&write.entries);
            }
            None => {
                let ledger = write.entries.clone();
                accounts.insert(account.clone(), Account { row, ledger });
            }
        }
        Ok(true)
    }

    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        let accounts = self.accounts.lock();
        let entries = accounts
            .get(account)
            .into_iter()
            .flat_map(|one| &one.ledger);
        let later = entries.filter(|entry| entry.number > after);
        Ok(later.take(most).cloned().collect())
    }

    async fn accounts(
        &self,
        after: Option<&CreditAccount>,
        most: usize,
    ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError> {
        let after = after.map(ToString::to_string);
        let accounts = self.accounts.lock();
        let named = accounts
            .iter()
            .map(|(account, stored)| (account.to_string(), account, stored));
        let mut later: Vec<_> = named
            .filter(|(name, ..)| Some(name) > after.as_ref())
            .collect();
        later.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let page = later.into_iter().take(most);
        Ok(page
            .map(|(_, account, stored)| (account.clone(), stored.row.clone()))
            .collect())
    }

    async fn forget_entries(&self, account: &CreditAccount, last: u64) -> Result<u64, CreditError> {
        let mut accounts = self.accounts.lock();
        let Some(stored) = accounts.get_mut(account) else {
            return Ok(0);
        };
        let old = stored.ledger.partition_point(|entry| entry.number <= last);
        let old = stored.ledger.drain(..old.min(MOST_FORGOTTEN)).len();
        Ok(u64::try_from(old).unwrap_or(u64::MAX))
    }
}

to_the_pointee! {
    CreditStore {
        async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError>;
        async fn save(
            &self,
            account: &CreditAccount,
            write: &CreditWrite,
        ) -> Result<bool, CreditError>;
        async fn ledger(
            &self,
            account: &CreditAccount,
            after: u64,
            most: usize,
        ) -> Result<Vec<LedgerEntry>, CreditError>;
        async fn accounts(
            &self,
            after: Option<&CreditAccount>,
            most: usize,
        ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError>;
        async fn forget_entries(
            &self,
            account: &CreditAccount,
            last: u64,
        ) -> Result<u64, CreditError>;
    }
}
