//! Credits in the database of the keys.

use async_trait::async_trait;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, LedgerEntry, StoredCredits,
};

use crate::fault::Fault;
use crate::operation::{Ledger, LoadCredits, SaveCredits};
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
}

impl From<Fault> for CreditError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt(what) => Self::Unreadable(what),
            fault => Self::unavailable(fault.into_source()),
        }
    }
}
