//! Adapter that presents a lookup as a store, for services that only authenticate.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::key::{KeyDigest, KeyId, KeyRecord};
use crate::store::{
    InvalidationBus, KeyLookup, KeyStore, ListQuery, OwnerRef, Page, StoreError, StoredKey,
    WriteBatch,
};

/// A store that finds keys and refuses to manage them.
#[derive(Debug)]
pub(super) struct LookupOnly(pub(super) Arc<dyn KeyLookup>);

fn refused<T>() -> Result<T, StoreError> {
    Err(StoreError::unavailable(
        "this service only looks up keys: call store() on its builder to manage them",
    ))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KeyLookup for LookupOnly {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.0.find(digests).await
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        self.0.find_now(digests)
    }

    fn knows(&self, digests: &[KeyDigest]) -> bool {
        self.0.knows(digests)
    }

    fn bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        self.0.bus()
    }
}

#[async_trait]
impl KeyStore for LookupOnly {
    async fn get(&self, _: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        refused()
    }

    async fn list(&self, _: &ListQuery) -> Result<Page, StoreError> {
        refused()
    }

    async fn primaries(
        &self,
        _: &[OwnerRef],
        _: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        refused()
    }

    async fn apply(&self, _: &WriteBatch) -> Result<(), StoreError> {
        refused()
    }
}
