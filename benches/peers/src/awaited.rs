//! A store that must be awaited, like one in a database, although it answers immediately.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::KeyLookup;
use portunus::key::{KeyDigest, KeyId, KeyRecord};
use portunus::store::{
    KeyStore, ListQuery, MemoryStore, OwnerRef, Page, StoreError, StoredKey, UsageStore, WriteBatch,
};

#[derive(Debug)]
pub(crate) struct Awaited(pub(crate) Arc<MemoryStore>);

/// Without `find_now`, so that each lookup that the cache cannot answer waits.
#[async_trait]
impl KeyLookup for Awaited {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.0.find(digests).await
    }
}

#[async_trait]
impl KeyStore for Awaited {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.0.get(id).await
    }
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.0.list(query).await
    }
    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        self.0.primaries(owners, at).await
    }
    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.0.apply(batch).await
    }
    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        self.0.usage()
    }
}
