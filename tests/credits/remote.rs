//! A store of credits that fails on demand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, LedgerEntry, MemoryCreditStore,
    StoredCredits,
};

/// A store of credits that counts its calls and fails on demand.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    store: MemoryCreditStore,
    pub(crate) fails: AtomicBool,
    /// Writes succeed, but their answers are lost.
    pub(crate) forgets: AtomicBool,
    loads: AtomicU64,
}

impl Remote {
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    fn answers(&self) -> Result<(), CreditError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(CreditError::unavailable("connection refused")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl CreditStore for Remote {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        // Others run while a real store is asked.
        tokio::task::yield_now().await;
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.answers()?;
        self.store.load(account).await
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        tokio::task::yield_now().await;
        self.answers()?;
        let saved = self.store.save(account, write).await;
        match self.forgets.swap(false, Ordering::SeqCst) {
            true => Err(CreditError::unavailable("connection reset")),
            false => saved,
        }
    }

    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        self.store.ledger(account, after, most).await
    }
}
