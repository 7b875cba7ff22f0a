//! Persistent storage for API keys: the traits that a host implements, and an in-memory store.
//!
//! Authentication needs a [`KeyLookup`], which finds keys by digest. Key management needs a
//! [`KeyStore`], which also lists keys by page and accepts one kind of write: a batch of changes
//! under conditions, applied as a whole or not at all. Issue, rotate, revoke and make-primary are
//! each one such batch, so a store does not need to know their meaning. A [`UsageStore`] optionally
//! counts uses. Secrets never reach a store.

mod bulk;
mod bus;
mod cached;
mod error;
mod list;
#[cfg(feature = "memory-store")]
mod memory;
mod rows;
mod secret;
pub(crate) mod signing;
mod usage;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use bulk::BulkOperation;
pub use bus::{BusError, Invalidation, InvalidationBus, InvalidationListener, LocalBus};
pub use cached::{Cache, CachedStore};
pub use error::StoreError;
pub use list::{Cursor, ListQuery, Page};
#[cfg(feature = "memory-store")]
pub use memory::MemoryStore;
pub use rows::{KeyRow, KeyRows};
pub use secret::Match;
pub use usage::{HourOfUse, Usage, UsageByHour, UsageDelta};
pub use write::{Change, Condition, Rejected, WriteBatch};

use self::signing::SigningStore;
pub use crate::entry::StoredKey;
use crate::key::{KeyDigest, KeyId, KeyRecord, Owner, TenantId, UserId};
use crate::pointer::to_the_pointee;

/// Finds keys by digest. This is all that authentication needs.
///
/// # What an implementation promises
/// - [`find`](Self::find) compares whole digests with their schemes. It reads from where writes are
///   acknowledged, never from a replica that may lag, and therefore sees every write that was
///   acknowledged before the call. Only a cache in front of it may answer with an older state.
/// - A record is returned as it was written: every character of its strings, an empty list as empty
///   and an absent one as absent, and times up to [`MAX_TIME`](crate::key::MAX_TIME) with at least
///   millisecond precision. If times are truncated, statuses are determined from the truncated
///   times. Lists keep their order, and the windows of quotas their exact lengths.
/// - Unreadable data (a corrupt expiry, an unknown scheme) is reported as [`StoreError::corrupt`],
///   never as an absent value or an absent key.
/// - `Debug` shows no digests.
///
/// `Arc` and `Box` of a lookup are lookups.
#[async_trait]
pub trait KeyLookup: fmt::Debug + Send + Sync + 'static {
    /// Returns the key stored under one of these digests, together with that digest, in one round
    /// trip. Revoked, disabled and expired keys are returned too. All digests belong to one secret,
    /// under different schemes, newest first; [`StoredKey::of_one_secret`] defines which of several
    /// matches counts. Returns `None` if there is no such key, if it is deleted, or if no digest is
    /// given.
    ///
    /// While a key is being rehashed, every lookup with both digests finds it.
    ///
    /// The answer names the other keys on which it depends ([`StoredKey::others`]), as defined by
    /// the same rule. A cache in front of the store drops the answer when one of them changes;
    /// otherwise it would accept a secret that was revoked under another digest.
    ///
    /// # Errors
    /// Returns an error if the store does not respond. The request is then refused with 503, never
    /// with 401.
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError>;

    /// Like [`find`](Self::find), for stores that can answer without waiting. `None`, the default,
    /// means that the store must be awaited. A store that never needs to be awaited also answers if
    /// no digest is given; it then gets no cache in front of it.
    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        let _ = digests;
        None
    }

    /// Returns whether a key was recently found under one of these digests according to a cache of
    /// earlier lookups, however stale. Such a key is looked up regardless of failures by other
    /// clients at its address. Defaults to `false`, for stores that cache nothing.
    fn knows(&self, digests: &[KeyDigest]) -> bool {
        let _ = digests;
        false
    }

    /// Returns a bus that reports the changes of all nodes, started for one cache. With `None`, the
    /// default, changes are not reported, and a cache uses no answer for longer than its staleness
    /// bound.
    fn bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        None
    }
}

/// Stores keys. Together with [`KeyLookup`], this is all that key management needs.
///
/// # What an implementation promises
/// - [`apply`](Self::apply) is atomic and isolated: its conditions hold at the instant at which its
///   changes are made, no read sees only a part of them, and every read after it returns sees all
///   of them.
/// - Every call returns a record as it was written, as specified for [`KeyLookup`]. If times are
///   truncated, order, cursors and statuses are determined from the truncated times.
/// - Usage and signing states are stored beside the record: writing them does not change the
///   version, and updates and rehashes keep them.
/// - Only lists omit unreadable rows; they name them in [`Page::corrupt`].
/// - [`Change::Delete`] also deletes the key's usage, including that by the hour. Hours older than
///   a year may remain, invisible, until [`UsageStore::forget_usage_before`].
/// - Ids are ordered by their bytes, regardless of the database's collation.
/// - `Debug` shows neither digests nor signing states.
///
/// `Arc` and `Box` of a store are stores.
#[async_trait]
pub trait KeyStore: KeyLookup {
    /// Returns the record with this id, or `None` if there is none or the key is deleted. Changes
    /// of a key start with this call, so it must not wait for lists.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError>;

    /// Returns one page of the records that [`ListQuery::selects`] accepts, without deleted keys,
    /// ordered by creation time from newest to oldest, and then by id.
    ///
    /// A page starts after a position, not after a number of keys, whether or not there still is a
    /// key at that position. Keys that are added or removed between pages therefore cause no other
    /// key to be skipped or repeated. If no key follows, there is no [`next`](Page::next).
    ///
    /// If the query names a tenant, an unreadable row is named only if it is known to belong to
    /// that tenant, whose operators see the names; other unreadable rows are omitted silently.
    ///
    /// The store itself treats a limit of 0 as 1, and one above 500 as 500. It examines at most
    /// [`ListQuery::MOST_SCANNED`] records: if a filter accepts too few of them, the page is short
    /// or even empty, and has a [`next`](Page::next). Without filters other than the tenant, every
    /// page except the last is full.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError>;

    /// Returns the primary key of each of these owners at an instant: the one that was set
    /// ([`Change::SetPrimary`]) if it still [can be primary](KeyRecord::can_be_primary), or else
    /// the newest of the owner's keys that can, by creation time and then by id. There is therefore
    /// exactly one as long as such a key exists. Each [`OwnerRef`] has its own: a key set for
    /// [`OwnerRef::Tenant`] is not set for the tenant's own keys or for its users. Of several
    /// equally new keys, the one with the first id is primary.
    ///
    /// Returns as many answers as there are owners, in their order, in one round trip if the store
    /// can. An answer is also `None` if the key cannot be read.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError>;

    /// Returns the primary key of one owner, as defined for [`primaries`](Self::primaries), for
    /// callers that change it or sign with it. A store whose rows can be corrupt must override this
    /// method: a primary key that cannot be read is an error here.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        let primaries = self.primaries(std::slice::from_ref(owner), at).await?;
        Ok(primaries.into_iter().next().flatten())
    }

    /// Applies all changes of a batch if all its conditions hold, and none otherwise. Each change
    /// sees the preceding ones. A batch without changes still checks its conditions. A rejected
    /// batch also reserves no id and no digest. [`Change::SetPrimary`], [`Change::PinPrimary`] and
    /// [`Change::SetSigning`] also succeed if they change nothing.
    ///
    /// # Errors
    /// Returns [`StoreError::rejected`] with the first condition or change that failed. They are
    /// checked in this order: the conditions on the state before the changes, the changes, the
    /// conditions on the state after them. A condition or change for a key that does not exist or
    /// is deleted fails as [`Rejected::Missing`].
    ///
    /// Returns another error if the store does not respond. The batch may have been applied in this
    /// case: a caller that retries must make the retry harmless, as versions do. A conflict with a
    /// concurrent batch is not an error of this kind: the store waits or retries, and then applies
    /// or rejects the batch.
    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError>;

    /// Returns the store that counts the uses of these keys; `None`, the default, if uses are not
    /// counted.
    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        None
    }

    /// Records, from this call on and with all clones, the [`Invalidation`] of each write in the
    /// transaction of the write, until [`forget_changes`](Self::forget_changes). A cache calls it
    /// if it has a bus that the store does not publish on: a process that ends between the commit
    /// and the publication then leaves the change to other nodes. Returns `false`, the default, if
    /// the store records none.
    fn record_changes(&self) -> bool {
        false
    }

    /// Returns the oldest changes that any node has recorded, oldest first, each with its number,
    /// which is never used again. A call may return only some of them, and none only if there are
    /// none.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn recorded_changes(&self) -> Result<Vec<(u64, Invalidation)>, StoreError> {
        Ok(Vec::new())
    }

    /// Deletes the recorded changes with these numbers, after they have been published. Another
    /// node may have deleted some of them.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn forget_changes(&self, numbers: &[u64]) -> Result<(), StoreError> {
        let _ = numbers;
        Ok(())
    }

    /// Returns the bulk operation with this id ([`Change::Bulk`]). Operations that have ended may be
    /// deleted after 90 days.
    ///
    /// # Errors
    /// Returns an error if the store does not respond, or, by default, because the store does not
    /// keep bulk operations.
    async fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        let _ = id;
        Err(bulk::not_kept())
    }

    /// Returns the bulk operations that have not ended, at most 100: first the oldest one of each
    /// tenant ([`BulkOperation::tenant`]), then the second one of each, and so on; within each of these
    /// groups, oldest first. Operations without a tenant are treated as those of one more tenant.
    /// Operations with the same `started_at` are ordered by id. None by default.
    ///
    /// An operation that is not listed is not continued, so a tenant with many operations must not
    /// keep those of others out of the list.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn open_bulk_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        Ok(Vec::new())
    }

    /// Returns the store of the states that sign events ([`Change::SetSigning`]); `None`, the
    /// default, if states are not kept.
    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        None
    }
}

/// Stores how often keys were used, beside the keys.
///
/// # What an implementation promises
/// - Deleting a key deletes its counts ([`KeyStore`]), and ids without a key get no counts.
/// - Counting does not change a record's version or anything else about a key, and updates and
///   rehashes of the key keep its counts.
/// - Times of use have at least millisecond precision.
///
/// `Arc` and `Box` of a store are stores.
#[async_trait]
pub trait UsageStore: fmt::Debug + Send + Sync + 'static {
    /// Adds usage that was counted in memory, as [`Usage::add`] does, regardless of how many calls
    /// run at once. A batch may name a key several times. Times never move back, a count that would
    /// overflow stays at the maximum (of at least 63 bits), and ids that do not exist are skipped.
    ///
    /// # Errors
    /// Returns an error if the store does not respond. Nothing of the batch may be kept in this
    /// case, because it is sent again.
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError>;

    /// Returns the usage of each of these keys: as many answers as ids, in their order, with a zero
    /// usage for ids that do not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::corrupt`] if the counts of one of the keys cannot be read, or another
    /// error if the store does not respond.
    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError>;

    /// Returns how often a key was used in each hour, from the one that contains `from` to the last
    /// that starts before `to`, oldest first. Hours without use are omitted, as are all hours of a
    /// deleted key. A delta counts towards the hour of its last use. If `to` is not after `from`,
    /// the result is empty. Unreadable rows are omitted and named in [`UsageByHour::corrupt`].
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError>;

    /// Deletes the counts of hours that ended before this instant (not of one that ends exactly
    /// then) and keeps the totals. Returns the number of deleted hours of keys.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError>;
}

/// An owner of keys, for quotas and primary keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OwnerRef {
    /// All keys of a tenant, including those of its users.
    Tenant(TenantId),
    /// The keys of a tenant that do not belong to a user.
    TenantItself(TenantId),
    /// The keys of one user of a tenant.
    User(TenantId, UserId),
}

impl OwnerRef {
    /// Returns the owner of a key: the user if there is one, or else the tenant itself.
    #[must_use]
    pub fn of(owner: &Owner) -> Self {
        match &owner.user_id {
            Some(user) => Self::User(owner.tenant_id.clone(), user.clone()),
            None => Self::TenantItself(owner.tenant_id.clone()),
        }
    }

    /// Returns whether a key belongs to this owner.
    #[must_use]
    pub fn includes(&self, record: &KeyRecord) -> bool {
        match self {
            Self::Tenant(tenant) => record.owner.tenant_id == *tenant,
            Self::TenantItself(tenant) => {
                record.owner.tenant_id == *tenant && record.owner.user_id.is_none()
            }
            Self::User(tenant, user) => {
                record.owner.tenant_id == *tenant && record.owner.user_id.as_ref() == Some(user)
            }
        }
    }
}

to_the_pointee! {
    KeyLookup {
        async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError>;
        fn find_now(
            &self,
            digests: &[KeyDigest],
        ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>>;
        fn knows(&self, digests: &[KeyDigest]) -> bool;
        fn bus(&self) -> Option<Arc<dyn InvalidationBus>>;
    }
    KeyStore {
        async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError>;
        async fn list(&self, query: &ListQuery) -> Result<Page, StoreError>;
        async fn primaries(
            &self,
            owners: &[OwnerRef],
            at: SystemTime,
        ) -> Result<Vec<Option<KeyId>>, StoreError>;
        async fn primary(
            &self,
            owner: &OwnerRef,
            at: SystemTime,
        ) -> Result<Option<KeyId>, StoreError>;
        async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError>;
        async fn recorded_changes(&self) -> Result<Vec<(u64, Invalidation)>, StoreError>;
        async fn forget_changes(&self, numbers: &[u64]) -> Result<(), StoreError>;
        async fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError>;
        async fn open_bulk_operations(&self) -> Result<Vec<BulkOperation>, StoreError>;
        fn usage(&self) -> Option<Arc<dyn UsageStore>>;
        fn record_changes(&self) -> bool;
        fn signing(&self) -> Option<Arc<dyn SigningStore>>;
    }
    UsageStore {
        async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError>;
        async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError>;
        async fn usage_by_hour(
            &self,
            id: &KeyId,
            from: SystemTime,
            to: SystemTime,
        ) -> Result<UsageByHour, StoreError>;
        async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError>;
    }
}
