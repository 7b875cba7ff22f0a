//! A walk through all accounts, once an hour. It finds those of which the host must still be told,
//! because the node that changed them crashed first, and deletes old entries of ledgers.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::book::Book;
use super::{CreditAccount, CreditAccounts, CreditError, Spending, StoredCredits, millis};

/// How often a walk begins.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a run goes on before it lets the next one continue.
const LONGEST: Duration = Duration::from_secs(2);
const PAGE: usize = 100;
/// How long after its last change the host is told of an account, in milliseconds: a week.
const LATEST: u64 = 7 * 24 * 60 * 60 * 1000;
/// The maximum number of entries that a step deletes.
const STEP: usize = 500;

/// Where the walk is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// When it begins, by the monotonic clock.
    due: Duration,
    after: Option<CreditAccount>,
}

/// The part of a stored account that shows when it was changed last.
#[derive(Deserialize)]
struct Changed {
    now: u64,
}

impl Spending {
    /// Continues the walk, for a few seconds at most. Dropping the future loses nothing.
    pub(crate) async fn walk(&self) -> Result<(), CreditError> {
        let clock = self.accounts().clock();
        let begun = clock.monotonic();
        loop {
            let now = clock.monotonic();
            let after = {
                let walk = self.walk.lock();
                if now < walk.due || now.saturating_sub(begun) >= LONGEST {
                    return Ok(());
                }
                walk.after.clone()
            };
            let page = match self.accounts().page(after.as_ref(), PAGE).await {
                // The store does not list its accounts, and need not.
                Err(CreditError::Conflict(_)) if self.settings.entries_kept.is_none() => Vec::new(),
                page => page?,
            };
            for (account, stored) in &page {
                match self.visit(account, stored).await {
                    // It must not hold up the others.
                    Err(CreditError::Unreadable(_)) => {}
                    visited => visited?,
                }
            }
            let is_last = page.len() < PAGE;
            let mut walk = self.walk.lock();
            walk.after = page.into_iter().next_back().map(|(account, _)| account);
            if is_last {
                (walk.after, walk.due) = (None, now.saturating_add(EVERY));
            }
        }
    }

    async fn visit(
        &self,
        account: &CreditAccount,
        stored: &StoredCredits,
    ) -> Result<(), CreditError> {
        let (accounts, now) = (self.accounts(), self.accounts().clock().now());
        if accounts.is_low(stored, millis(now))? {
            // As it is now: the host may have been told meanwhile.
            accounts.update(account, |_| Ok(())).await?;
        }
        let before = self
            .settings
            .entries_kept
            .and_then(|age| now.checked_sub(age));
        if let Some(before) = before {
            accounts.forget_entries_before(account, before).await?;
        }
        Ok(())
    }
}

impl CreditAccounts {
    /// Returns whether the host must be told of an account that was changed within a week. An older one
    /// may be from a time before there were such events.
    fn is_low(&self, stored: &StoredCredits, now: u64) -> Result<bool, CreditError> {
        let Some(low) = &self.low else {
            return Ok(false);
        };
        let changed: Changed = serde_json::from_str(&stored.state)
            .map_err(|error| CreditError::Unreadable(error.to_string()))?;
        if now.saturating_sub(changed.now) > LATEST {
            return Ok(false);
        }
        let book = Book::open(Some(&stored.state), now)?;
        Ok(book.low(&low.percentages).is_some())
    }

    /// Deletes the entries of an account's ledger from before an instant, in steps of 500, and returns
    /// how many. A step first adds them to the sums of the grants, which the
    /// [balance](Self::balance) shows: it is explained at any time, also if this is interrupted.
    /// Repeating the call deletes the rest.
    ///
    /// Programs of a version without this method cannot read the account from then on.
    ///
    /// # Errors
    /// Returns an error if the store does not answer, or keeps all entries.
    pub async fn forget_entries_before(
        &self,
        account: &CreditAccount,
        at: SystemTime,
    ) -> Result<u64, CreditError> {
        let (before, mut all) = (millis(at), 0);
        loop {
            // Usually none is old, which one entry shows.
            let oldest = self.ledger(account, 0, 1).await?;
            if oldest.first().is_none_or(|entry| entry.at_ms >= before) {
                return Ok(all);
            }
            let mut old = self.ledger(account, 0, STEP).await?;
            old.retain(|entry| entry.at_ms < before);
            let last = old.last().map_or(0, |entry| entry.number);
            let forgotten = self.update(account, |book| Ok(book.forget(&old))).await?;
            match self.delete_entries(account, last.min(forgotten)).await? {
                // Another node was faster.
                0 => return Ok(all),
                deleted => all += deleted,
            }
        }
    }
}
