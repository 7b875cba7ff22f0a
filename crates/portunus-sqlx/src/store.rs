//! The store, shared by both databases.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::events::SigningStore;
use portunus::key::{KeyDigest, KeyId, KeyRecord, SigningState};
use portunus::store::{
    BulkOperation, Invalidation, InvalidationBus, KeyLookup, KeyStore, ListQuery, OwnerRef, Page,
    StoreError, StoredKey, Usage, UsageByHour, UsageDelta, UsageStore, WriteBatch,
};

use crate::OpenError;
use crate::fault::Fault;
use crate::lookups::{self, Lookups};
use crate::operation::{self, FoldOwner, Operation, Owners, is_folded};

/// The longest time that a read may take.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(10);

/// A database, by its connections: how an operation is run there.
pub(crate) trait Database: Clone + fmt::Debug + Send + Sync + 'static {
    /// The longest time that a lookup may take.
    const LOOK_UP_LIMIT: Duration;

    /// The lookups that share statements; `None` if each has its own.
    fn lookups(&self) -> Option<&Lookups>;

    /// Reads on any connection.
    fn read<O: Operation>(
        &self,
        operation: O,
    ) -> impl Future<Output = Result<O::Answer, Fault>> + Send;

    /// Reads a consistent snapshot with several statements.
    fn read_snapshot<O: Operation>(
        &self,
        operation: O,
    ) -> impl Future<Output = Result<O::Answer, Fault>> + Send;

    /// Writes in a transaction, when its turn comes, and commits.
    fn write<O: Operation>(
        &self,
        operation: O,
    ) -> impl Future<Output = Result<O::Answer, Fault>> + Send;

    /// Migrates the schema, without a time limit.
    fn make_schema(&self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether changes are recorded for the host's own bus.
    fn records(&self) -> &AtomicBool;

    /// Which tables the store uses, once the schema is known to be up to date.
    fn place(&self) -> &OnceLock<String>;

    /// Starts to listen for changes, where that is possible.
    fn listen(store: &Store<Self>) -> Option<Arc<dyn InvalidationBus>>;

    /// Creates the indexes that the schema defers.
    fn make_indexes(&self) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A [`KeyStore`] in a database: [`SqliteStore`](crate::SqliteStore) or
/// [`PostgresStore`](crate::PostgresStore). Clones share the connections.
#[derive(Clone)]
pub struct Store<D>(pub(crate) D);

impl<D: fmt::Debug> fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[expect(
    private_bounds,
    reason = "only the two built-in databases are supported"
)]
impl<D: Database> Store<D> {
    /// Creates the schema or brings it up to date, for a store on the host's own pool; `open` and
    /// `connect` do so already. Repeated calls, also from several processes at once, are harmless.
    /// If there is nothing to do, nothing is written, so that a role that may only read and write
    /// rows is enough. Lookups continue meanwhile.
    ///
    /// # Errors
    /// [`OpenError::Newer`] if a newer version of this crate wrote the database and requires a
    /// newer program, [`OpenError::Schema`] if the schema could not be changed, or
    /// [`OpenError::Unavailable`] if the database did not answer.
    pub async fn migrate(&self) -> Result<(), OpenError> {
        // Boxed, so that a caller's future is not as large as this one-time setup.
        Box::pin(self.bring_up_to_date()).await
    }

    /// Returns the version of the database's schema, 0 if it has none, and the version that this crate
    /// needs. [`migrate`](Self::migrate) leads from a lower version to the needed one; a higher one
    /// can be used as it is. Writes nothing.
    ///
    /// # Errors
    /// [`OpenError::Newer`] if a newer version of this crate wrote the database and requires a
    /// newer program, [`OpenError::Schema`] if the role cannot read the version, or
    /// [`OpenError::Unavailable`] if the database did not answer.
    pub async fn schema(&self) -> Result<(i64, i64), OpenError> {
        let (found, known) = self.0.read(operation::Inspect).await?;
        found.is_behind(known)?;
        Ok((found.version, known))
    }

    /// Returns the digest of a key, for exports: with it, the key can be imported elsewhere. A digest
    /// that was made without a pepper is enough to confirm a guess of the secret.
    ///
    /// # Errors
    /// The database does not answer, or the row cannot be read.
    pub async fn digest_of(&self, id: &KeyId) -> Result<Option<KeyDigest>, StoreError> {
        Ok(self.0.read(operation::DigestOf(id)).await?)
    }

    async fn bring_up_to_date(&self) -> Result<(), OpenError> {
        let (found, known) = self.0.read(operation::Inspect).await?;
        if found.is_behind(known)? {
            let made = self.0.make_schema().await;
            made.map_err(|fault| OpenError::Schema {
                found: found.version,
                known,
                cause: fault.causes(),
            })?;
        }
        self.0.make_indexes().await?;
        let place = self.0.read(operation::Place).await?;
        let _ = self.0.place().set(place);
        Ok(())
    }

    /// Lower-cases the user ids of owners that are UUIDs
    /// ([`UserIds::Uuid`](portunus::actor::UserIds::Uuid)), in records that were written before the
    /// host declared them so; returns the number of changed records. No migration does this. Other
    /// ids are kept byte for byte.
    ///
    /// The records and the primary key of one spelling of one owner change in one step. Of two
    /// primary keys, the one created later is kept, and each record's version is raised by one.
    /// Caches are invalidated as after any other write, so that the call is safe while nodes are
    /// running, from several processes at once, and again after it was interrupted. Nodes that do
    /// not yet know of `UserIds::Uuid` may add other spellings: call it again after the last of
    /// them has stopped. Events keep the ids with which they were written. If the service has its own
    /// bus, build the service first.
    ///
    /// # Errors
    /// The database does not answer, or a record of such an owner cannot be read. Changes made
    /// until then are kept.
    pub async fn fold_user_ids(&self) -> Result<u64, StoreError> {
        let (mut place, mut changed) = (None, 0);
        loop {
            let owners = self.0.read(Owners(place.as_ref())).await?;
            for (tenant, user) in owners.iter().filter(|(_, user)| !is_folded(user)) {
                let at = SystemTime::now();
                let fold = FoldOwner {
                    tenant,
                    user,
                    at,
                    records: self.0.records().load(Ordering::SeqCst),
                };
                changed += self.0.write(fold).await?;
            }
            match owners.into_iter().last() {
                Some(last) => place = Some(last),
                None => return Ok(changed),
            }
        }
    }
}

#[async_trait]
impl<D: Database> KeyLookup for Store<D> {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        if let [digest] = digests {
            return Ok(lookups::find(&self.0, digest).await?);
        }
        let find = operation::Find(digests);
        if find.fits_one_statement() {
            Ok(self.0.read(find).await?)
        } else {
            Ok(self.0.read_snapshot(find).await?)
        }
    }

    fn bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        D::listen(self)
    }
}

#[async_trait]
impl<D: Database> KeyStore for Store<D> {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        Ok(self.0.read(operation::Get(id)).await?)
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        Ok(self.0.read(operation::List(query)).await?)
    }

    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        Ok(self.0.read(operation::Primary { owner, at }).await?)
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        Ok(self.0.read(operation::Primaries { owners, at }).await?)
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let records = self.0.records().load(Ordering::SeqCst);
        Ok(self.0.write(operation::Apply { batch, records }).await?)
    }

    fn record_changes(&self) -> bool {
        self.0.records().store(true, Ordering::SeqCst);
        true
    }

    async fn recorded_changes(&self) -> Result<Vec<(u64, Invalidation)>, StoreError> {
        Ok(self.0.read(operation::Recorded).await?)
    }

    async fn forget_changes(&self, numbers: &[u64]) -> Result<(), StoreError> {
        Ok(self.0.write(operation::ForgetRecorded(numbers)).await?)
    }

    async fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        Ok(self.0.read(operation::BulkOf(id)).await?)
    }

    async fn open_bulk_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        Ok(self.0.read(operation::OpenBulk).await?)
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        Some(Arc::new(self.clone()))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl<D: Database> SigningStore for Store<D> {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        Ok(self.0.read(operation::SigningOf(id)).await?)
    }
}

#[async_trait]
impl<D: Database> UsageStore for Store<D> {
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        Ok(self.0.write(operation::RecordUsage(batch)).await?)
    }

    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let usage = operation::UsageOf(ids);
        match ids {
            [] => Ok(Vec::new()),
            [_] => Ok(self.0.read(operation::UsageOfOne(usage)).await?),
            _ => Ok(self.0.read(usage).await?),
        }
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        Ok(self.0.read(operation::UsageByHour { id, from, to }).await?)
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let step = operation::ForgetUsage(before);
            let (forgotten, more) = self.0.write(step).await?;
            all += forgotten;
            if !more {
                return Ok(all);
            }
            tokio::time::sleep(operation::FORGET_PAUSE).await;
        }
    }
}
