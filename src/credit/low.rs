//! Accounts of which the host must be told, because much of their units is used.

use std::collections::HashMap;

use super::CreditAccount;
use crate::lock::Mutex;

/// The maximum number of accounts to remember. Others are found again when they are changed.
const MOST: usize = 10_000;

/// An account that has used much of its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Low {
    /// The percentage that is used, of those that the host has set.
    pub(crate) percentage: u8,
    /// The number of the last ledger entry that added units: it tells the periods and top-ups of an
    /// account apart.
    pub(crate) since: u64,
    pub(crate) left: u64,
    pub(crate) granted: u64,
}

/// The accounts that were found low and whose event the sinks of the audit do not have yet. Each
/// change of an account on this node evaluates it.
#[derive(Debug)]
pub(crate) struct LowAccounts {
    pub(super) percentages: Vec<u8>,
    due: Mutex<HashMap<CreditAccount, Low>>,
}

impl LowAccounts {
    pub(super) fn new(percentages: Vec<u8>) -> Self {
        Self {
            percentages,
            due: Mutex::default(),
        }
    }

    /// Records what was found when an account was changed.
    pub(super) fn found(&self, account: &CreditAccount, low: Option<Low>) {
        let mut due = self.due.lock();
        match low {
            None => drop(due.remove(account)),
            Some(low) if due.len() < MOST || due.contains_key(account) => {
                due.insert(account.clone(), low);
            }
            Some(_) => {}
        }
    }

    /// Returns some of the accounts.
    pub(crate) fn due(&self, most: usize) -> Vec<(CreditAccount, Low)> {
        let due = self.due.lock();
        let some = due.iter().take(most);
        some.map(|(account, low)| (account.clone(), *low)).collect()
    }
}
