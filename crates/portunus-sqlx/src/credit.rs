//! Credits in the database of the keys.

use async_trait::async_trait;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, LedgerEntry, StoredCredits,
};

use crate::fault::Fault;
use crate::operation::{Accounts, ForgetEntries, Ledger, LoadCredits, SaveCredits};
use crate::store::{Database, Store};

#[async_trait]
impl<D: Database> CreditStore for Store<D> {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        Ok(self.0.read(LoadCredits(account)).await?)
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        Ok(self.0.write(SaveCredits { account, write }).await?)
    }

    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        let page = Ledger {
            account,
            after,
            most,
        };
        Ok(self.0.read(page).await?)
    }

    async fn accounts(
        &self,
        after: Option<&CreditAccount>,
        most: usize,
    ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError> {
        Ok(self.0.read(Accounts { after, most }).await?)
    }

    async fn forget_entries(&self, account: &CreditAccount, last: u64) -> Result<u64, CreditError> {
        Ok(self.0.write(ForgetEntries { account, last }).await?)
    }
}

impl From<Fault> for CreditError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt(what) => Self::Unreadable(what),
            fault => Self::unavailable(fault.into_source()),
        }
    }
}
