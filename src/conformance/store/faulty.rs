//! The candidate behind a connection that breaks: before a write arrives, after it was applied, or
//! under a look-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;

use super::tools::Store;
use crate::key::{KeyDigest, KeyId, SigningState};
use crate::store::{
    HourOfUse, KeyStore, ListQuery, Listed, OwnerRef, Page, StoreError, StoredKey, UsageDelta,
    WriteBatch,
};

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    None,
    /// Writes do not arrive.
    BeforeWrites,
    /// Writes are applied, and nobody hears of it.
    AfterWrites,
    /// Look-ups by digest get no answer.
    LookUps,
}

#[derive(Debug)]
pub(super) struct Faulty {
    inner: Store,
    fault: AtomicU8,
}

impl Faulty {
    pub(super) fn new(inner: Store) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fault: AtomicU8::new(Fault::None as u8),
        })
    }

    /// What breaks from now on.
    pub(super) fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::SeqCst) == fault as u8
    }

    fn lost<T>() -> Result<T, StoreError> {
        Err(StoreError::unavailable("the suite cut the connection"))
    }
}

#[async_trait]
impl KeyStore for Faulty {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        let found = self.inner.find(digests).await;
        if self.has(Fault::LookUps) {
            Self::lost()
        } else {
            found
        }
    }
    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        let found = self.inner.find_now(digests)?;
        Some(if self.has(Fault::LookUps) {
            Self::lost()
        } else {
            found
        })
    }
    async fn get(&self, id: &KeyId) -> Result<Option<Listed>, StoreError> {
        self.inner.get(id).await
    }
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.inner.list(query).await
    }
    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.inner.primary(owner, at).await
    }
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        self.inner.signing_state(id).await
    }
    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        if self.has(Fault::BeforeWrites) {
            return Self::lost();
        }
        self.inner.apply(batch).await?;
        if self.has(Fault::AfterWrites) {
            Self::lost()
        } else {
            Ok(())
        }
    }
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        if self.has(Fault::BeforeWrites) {
            Self::lost()
        } else {
            self.inner.record_usage(batch).await
        }
    }
    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<Vec<HourOfUse>, StoreError> {
        self.inner.usage_by_hour(id, from, to).await
    }
    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.inner.forget_usage_before(before).await
    }
}
