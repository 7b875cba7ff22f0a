//! Mutation tests of the suite for credit stores.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, LedgerEntry, MemoryCreditStore,
    StoredCredits,
};
use portunus_conformance::{self as conformance, Violation};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Right,
    UnknownIsEmpty,
    TrimsTexts,
    ForgetsVersions,
    KeepsEntriesOfRefusedSaves,
    IgnoresCase,
    MixesUsers,
    PageIsInclusive,
    LosesTheHolding,
    ChecksBeforeItWrites,
    ListsTheLastAgain,
    LeavesAccountsOut,
    DeletesOneMore,
    DeletesTheNewest,
    DeletesTheRow,
}

use How::*;

/// A store with one fault.
#[derive(Debug)]
struct Store {
    how: How,
    accounts: Mutex<HashMap<String, (StoredCredits, Vec<LedgerEntry>)>>,
}

impl Store {
    fn key(&self, account: &CreditAccount) -> String {
        match (self.how, account) {
            (IgnoresCase, _) => account.to_string().to_lowercase(),
            (MixesUsers, CreditAccount::User(tenant, user)) => format!("user:{tenant}:{user}"),
            _ => account.to_string(),
        }
    }

    fn version(&self, key: &str) -> u64 {
        let accounts = self.accounts.lock().unwrap();
        accounts.get(key).map_or(0, |(row, _)| row.version)
    }
}

#[async_trait]
impl CreditStore for Store {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        tokio::task::yield_now().await;
        let accounts = self.accounts.lock().unwrap();
        let row = accounts.get(&self.key(account)).map(|(row, _)| row.clone());
        let empty = || StoredCredits {
            version: 0,
            state: String::new(),
        };
        Ok(row.or_else(|| (self.how == UnknownIsEmpty).then(empty)))
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        let key = self.key(account);
        let early = self.version(&key);
        if self.how == ChecksBeforeItWrites {
            tokio::task::yield_now().await;
        }
        let mut accounts = self.accounts.lock().unwrap();
        let version = match self.how {
            ChecksBeforeItWrites => early,
            _ => accounts.get(&key).map_or(0, |(row, _)| row.version),
        };
        let is_current = version == write.expected || self.how == ForgetsVersions;
        if !is_current && self.how != KeepsEntriesOfRefusedSaves {
            return Ok(false);
        }
        let empty = StoredCredits {
            version: 0,
            state: String::new(),
        };
        let (row, ledger) = accounts.entry(key).or_insert((empty, Vec::new()));
        let mut entries = write.entries.clone();
        if self.how == LosesTheHolding {
            entries.iter_mut().for_each(|entry| entry.taken = None);
        }
        ledger.extend(entries);
        if is_current {
            row.version = write.expected + 1;
            row.state = match self.how {
                TrimsTexts => write.state.trim().to_owned(),
                _ => write.state.clone(),
            };
        }
        Ok(is_current)
    }

    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        let accounts = self.accounts.lock().unwrap();
        let ledger = accounts
            .get(&self.key(account))
            .map(|(_, ledger)| &ledger[..]);
        let after = after - u64::from(self.how == PageIsInclusive && after > 0);
        let later = ledger.unwrap_or_default().iter();
        let later = later.filter(|entry| entry.number > after);
        Ok(later.take(most).cloned().collect())
    }

    async fn accounts(
        &self,
        after: Option<&CreditAccount>,
        most: usize,
    ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError> {
        let accounts = self.accounts.lock().unwrap();
        let mut names: Vec<_> = accounts.keys().cloned().collect();
        names.sort();
        let after = after.map(|after| self.key(after));
        names.retain(|name| match (&after, self.how) {
            (None, _) => true,
            (Some(after), ListsTheLastAgain) => name >= after,
            (Some(after), _) => name > after,
        });
        if self.how == LeavesAccountsOut {
            names.retain(|name| name.starts_with("tenant:"));
        }
        let row = |name: String| (name.parse().unwrap(), accounts[&name].0.clone());
        Ok(names.into_iter().take(most).map(row).collect())
    }

    async fn forget_entries(&self, account: &CreditAccount, last: u64) -> Result<u64, CreditError> {
        let mut accounts = self.accounts.lock().unwrap();
        let key = self.key(account);
        let Some((_, ledger)) = accounts.get_mut(&key) else {
            return Ok(0);
        };
        let last = last + u64::from(self.how == DeletesOneMore);
        let old = ledger
            .iter()
            .filter(|entry| entry.number <= last)
            .count()
            .min(500);
        match self.how {
            DeletesTheNewest => drop(ledger.drain(ledger.len() - old..)),
            _ => drop(ledger.drain(..old)),
        }
        if self.how == DeletesTheRow {
            accounts.remove(&key);
        }
        Ok(old as u64)
    }
}

fn store(how: How) -> Store {
    Store {
        how,
        accounts: Mutex::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn correct_stores_pass() {
    conformance::credit_store(|| async { MemoryCreditStore::new() })
        .await
        .unwrap();
    conformance::credit_store(|| async { store(Right) })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_incorrect_store_fails_the_check_that_names_its_fault() {
    const ROUND_TRIP: &str = "a saved row is loaded with its version and its text, byte for byte";
    const VERSIONS: &str =
        "a row is replaced only from its own version, and a refused save changes nothing";
    const SEPARATE: &str = "accounts are separate, however similar their ids are";
    const PAGES: &str = "entries are kept as they are, and read in pages in ascending order";
    const LISTED: &str = "a store that lists its accounts lists each once, in pages of any size";
    const FORGOTTEN: &str = "a store that deletes entries deletes the oldest ones up to a number, \
         some at a time, and no others";
    let cases = [
        (
            UnknownIsEmpty,
            "an account that was never saved has no row and no entries",
        ),
        (TrimsTexts, ROUND_TRIP),
        (ForgetsVersions, VERSIONS),
        (KeepsEntriesOfRefusedSaves, VERSIONS),
        (IgnoresCase, SEPARATE),
        (MixesUsers, SEPARATE),
        (PageIsInclusive, PAGES),
        (LosesTheHolding, PAGES),
        (
            ChecksBeforeItWrites,
            "of concurrent saves from one version, exactly one is done, with its entries",
        ),
        (ListsTheLastAgain, LISTED),
        (LeavesAccountsOut, LISTED),
        (DeletesOneMore, FORGOTTEN),
        (DeletesTheNewest, FORGOTTEN),
        (DeletesTheRow, FORGOTTEN),
    ];
    let mut wrong = Vec::new();
    for (how, expected) in cases {
        let violations = conformance::credit_store(|| async move { store(how) })
            .await
            .expect_err(&format!("{how:?} passes"));
        let failed: Vec<_> = violations.iter().map(Violation::check).collect();
        if failed != [expected] {
            wrong.push(format!(
                "{how:?} had to fail by {expected:?} alone: {violations}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
