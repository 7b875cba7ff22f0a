//! A store of credits that fails on demand, and counts its reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, LedgerEntry, MemoryCreditStore,
    StoredCredits,
};

/// A store of credits in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FaultyCredits(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    store: MemoryCreditStore,
    is_down: Arc<AtomicBool>,
    /// The next write succeeds, but its answer is lost.
    forgets: AtomicBool,
    loads: AtomicU64,
    /// How many more calls succeed; 0 for all.
    calls_left: AtomicU64,
}

impl FaultyCredits {
    /// A store that is down while this is set, together with others.
    pub fn down_with(is_down: Arc<AtomicBool>) -> Self {
        Self(Arc::new(Shared {
            is_down,
            ..Shared::default()
        }))
    }

    pub fn fails(&self, fails: bool) {
        self.0.calls_left.store(0, Ordering::SeqCst);
        self.0.is_down.store(fails, Ordering::SeqCst);
    }

    /// The store is down after this many more calls.
    pub fn fail_after(&self, calls: u64) {
        self.0.calls_left.store(calls + 1, Ordering::SeqCst);
    }

    /// Loses the answer of the next write.
    pub fn forget_once(&self) {
        self.0.forgets.store(true, Ordering::SeqCst);
    }

    /// How often an account was loaded, also without an answer.
    pub fn loads(&self) -> u64 {
        self.0.loads.load(Ordering::SeqCst)
    }

    /// Others run while a real store is asked.
    async fn answers(&self) -> Result<&MemoryCreditStore, CreditError> {
        tokio::task::yield_now().await;
        let one_less = |left: u64| left.checked_sub(1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.0.calls_left.fetch_update(set, fetch, one_less) == Ok(1) {
            self.fails(true);
        }
        match self.0.is_down.load(Ordering::SeqCst) {
            true => Err(CreditError::unavailable("connection reset")),
            false => Ok(&self.0.store),
        }
    }
}

#[async_trait]
impl CreditStore for FaultyCredits {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        self.answers().await?.load(account).await
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        let saved = self.answers().await?.save(account, write).await;
        match self.0.forgets.swap(false, Ordering::SeqCst) {
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
        self.answers().await?.ledger(account, after, most).await
    }

    async fn accounts(
        &self,
        after: Option<&CreditAccount>,
        most: usize,
    ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError> {
        self.answers().await?.accounts(after, most).await
    }

    async fn forget_entries(&self, account: &CreditAccount, last: u64) -> Result<u64, CreditError> {
        self.answers().await?.forget_entries(account, last).await
    }
}
