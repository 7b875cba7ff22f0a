//! Where keys are kept: the traits that a host's own storage implements, and a store in memory.
//!
//! Authentication needs a [`KeyLookup`], which finds keys by digest. Managing keys needs a
//! [`KeyStore`], which also lists them by page and takes one kind of write: a batch of changes under
//! conditions, applied whole or not at all. Issue, rotate, revoke and make-primary are each one such
//! batch, so that no store needs to know what they mean. A [`UsageStore`] keeps counts beside the
//! keys, where somebody wants them. Secrets never reach a store.

mod bus;
mod cached;
mod error;
mod list;
mod memory;
mod rows;
mod secret;
pub(crate) mod signing;
mod stored;
mod usage;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use bus::{BusError, Invalidation, InvalidationBus, InvalidationListener, LocalBus};
pub use cached::{Cache, CachedStore};
pub use error::StoreError;
pub use list::{Cursor, ListQuery, Page};
pub use memory::MemoryStore;
pub use rows::{KeyRow, KeyRows};
pub use secret::Match;
pub use stored::StoredKey;
pub use usage::{HourOfUse, Usage, UsageByHour, UsageDelta};
pub use write::{Change, Condition, Rejected, WriteBatch};

use self::signing::SigningStore;
use crate::key::{KeyDigest, KeyId, KeyRecord, Owner, TenantId, UserId};
use crate::pointer::to_the_pointee;

/// Finds keys by digest: all that authentication needs.
///
/// # What an implementation promises
/// - [`find`](Self::find) compares whole digests with their schemes, and reads from where writes
///   are acknowledged, never from a replica that may lag.
/// - A record comes back as it was written: each character of its texts, an empty list as empty and
///   an absent one as absent, and times up to [`MAX_TIME`](crate::key::MAX_TIME) to the millisecond
///   at least. Whatever is cut from a time is cut before it decides about states.
/// - What cannot be read (a corrupt expiry, an unknown scheme) is [`StoreError::corrupt`], never an
///   absent value and never an absent key.
/// - Its `Debug` shows no digests.
///
/// `Arc` and `Box` of a look-up are look-ups.
#[async_trait]
pub trait KeyLookup: fmt::Debug + Send + Sync + 'static {
    /// The key stored under one of these digests, with that digest, in one trip; also one that is
    /// revoked, disabled or expired. They are all of one secret, under different schemes, the newest
    /// first; which of several matches counts is the rule of [`StoredKey::of_one_secret`]. `None`
    /// means that there is no such key, that it is deleted, or that no digest was given.
    ///
    /// While a key is rehashed, each look-up for both digests finds it.
    ///
    /// The answer names the other keys on which it depends ([`StoredKey::others`]), as the rule does.
    /// A cache in front of the store forgets the answer when one of them changes; it would otherwise
    /// let the secret pass after it was ended under another digest.
    ///
    /// # Errors
    /// Where storage gives no answer. The request is then refused with 503, never with 401.
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError>;

    /// The same as [`find`](Self::find), for stores that can answer without waiting; `None` (the
    /// default) says that this one must be awaited. A store that never needs to be awaited also
    /// answers when no digest is given: then no cache is put in front of it.
    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        let _ = digests;
        None
    }

    /// Whether a key was found under one of these digests lately, by what is remembered of earlier
    /// look-ups, however stale that is: such a key is looked up whatever its client's neighbours have
    /// failed. `false`, the default, for stores that remember nothing.
    fn knows(&self, digests: &[KeyDigest]) -> bool {
        let _ = digests;
        false
    }

    /// A bus on which the changes of all nodes are heard, started for one cache; `None` (the default)
    /// says that nobody tells: a cache then uses no answer for longer than its bound on staleness.
    fn bus(&self) -> Option<Arc<dyn InvalidationBus>> {
        None
    }
}

/// Keeps keys: all that managing them needs, beside [`KeyLookup`].
///
/// # What an implementation promises
/// - [`apply`](Self::apply) is atomic and isolated: its conditions hold at the instant at which its
///   changes happen, no read sees a part of it, and when it returns, every later read sees all.
/// - A record comes back as it was written, by every call alike, as [`KeyLookup`] says. Whatever is
///   cut from a time is cut before it decides about order, cursors and states.
/// - Usage and signing states stand beside the record: to write them is no new version, and updates
///   and rehashes keep them.
/// - Lists alone leave a row out that cannot be read, and name it ([`Page::corrupt`]).
/// - When [`Change::Delete`] deletes a key, its usage is gone with it, by the hour too. Hours beyond
///   those of a year may be left to [`UsageStore::forget_usage_before`], unseen.
/// - Ids are put in order by their bytes, whatever language a database sorts by.
/// - Its `Debug` shows neither digests nor signing states.
///
/// `Arc` and `Box` of a store are stores.
#[async_trait]
pub trait KeyStore: KeyLookup {
    /// One record, by id. Deleted keys are not found. Whoever changes or ends a key asks this first:
    /// it waits for no list.
    ///
    /// # Errors
    /// Where storage gives no answer.
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError>;

    /// One page of the records that [`ListQuery::selects`] lets through, without deleted keys: by the
    /// time at which they were made, the newest first, and then by id.
    ///
    /// A page starts after a place and not after a number of keys, whether or not a key stands there:
    /// keys that come and go between pages skip and repeat no other. Where no key follows, there is
    /// no [`next`](Page::next).
    ///
    /// With a tenant, a row that cannot be read is named only where it is known to be this tenant's;
    /// others are left out without a word. Operators of that tenant see the names.
    ///
    /// The store itself takes a limit of 0 for 1, and one above 500 for 500. It looks at
    /// [`ListQuery::MOST_SCANNED`] records at most: where a filter lets too few of them through, the
    /// page is short, even empty, and has a [`next`](Page::next). Without filters beyond the
    /// tenant, every page but the last is full.
    ///
    /// # Errors
    /// Where storage gives no answer.
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError>;

    /// The primary key of each of these owners at an instant: the one that was set
    /// ([`Change::SetPrimary`]), if it still [can be](KeyRecord::can_be_primary); else the newest of
    /// the owner's keys that can, by time and then by id. So there is exactly one while there is any
    /// such key. Each [`OwnerRef`] has its own: what is set for a tenant is not set for the tenant
    /// itself or for its users.
    ///
    /// As many answers as owners, in their order, in one trip where the store can; `None` also where
    /// the key cannot be read.
    ///
    /// # Errors
    /// Where storage gives no answer.
    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError>;

    /// The primary key of one owner, as [`primaries`](Self::primaries) tells it, for whoever changes
    /// or signs with it. A store whose rows can be corrupt answers itself: a primary key that cannot
    /// be read is an error here.
    ///
    /// # Errors
    /// Where storage gives no answer.
    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        let primaries = self.primaries(std::slice::from_ref(owner), at).await?;
        Ok(primaries.into_iter().next().flatten())
    }

    /// Applies all changes of a batch if all of its conditions hold, else none. Each change sees those
    /// before it. Without changes, the conditions are checked all the same.
    ///
    /// # Errors
    /// [`StoreError::rejected`] with the first condition or change that failed, in the order: what must
    /// hold before the changes, the changes, what must hold after them. Whatever names a key that is
    /// not there, or deleted, fails as [`Rejected::Missing`]. Or storage giving no answer.
    /// In the latter case the batch may have been applied: whoever retries must make the retry
    /// harmless, as versions do.
    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError>;

    /// Where the uses of these keys are counted; `None` (the default) where they are not.
    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        None
    }

    /// Where the states that sign events are read ([`Change::SetSigning`]); `None` (the default)
    /// where they are not kept.
    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        None
    }
}

/// Keeps how often keys were used, beside the keys.
///
/// # What an implementation promises
/// - The counts of a key that is deleted are gone with it ([`KeyStore`]), and ids that no key has
///   get none.
/// - To count is no new version of a record, and changes nothing else of a key.
///
/// `Arc` and `Box` of a store are stores.
#[async_trait]
pub trait UsageStore: fmt::Debug + Send + Sync + 'static {
    /// Adds usage that was counted in memory, as [`Usage::add`] does, however many do so at once; a
    /// batch may name a key several times. Times never move back, a count that would overflow stays at
    /// the largest number (of 63 bits at least), and ids that are not there are skipped.
    ///
    /// # Errors
    /// Where storage gives no answer. Nothing of the batch may be kept then: it is sent again.
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError>;

    /// How each of these keys has been used: as many answers as ids, in their order, and nothing yet
    /// where a key is not there.
    ///
    /// # Errors
    /// [`StoreError::corrupt`] where the counts of one of them cannot be read. Or storage giving no
    /// answer.
    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError>;

    /// How often a key was used in each hour from the one of `from` to before `to`, the oldest
    /// first; hours without use are left out, and so are all hours of a deleted key. A delta counts
    /// into the hour of its last use. Where `to` is not after `from`, there are none. A row that
    /// cannot be read is left out and named ([`UsageByHour::corrupt`]).
    ///
    /// # Errors
    /// Where storage gives no answer.
    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError>;

    /// Forgets the counts of hours that ended before this instant, not of one that ends just then;
    /// totals stay. Returns how many hours of keys that were.
    ///
    /// # Errors
    /// Where storage gives no answer.
    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError>;
}

/// Whose quota and whose primary key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OwnerRef {
    /// All keys of a tenant, whoever of it owns them.
    Tenant(TenantId),
    /// The keys of a tenant that are no user's.
    TenantItself(TenantId),
    /// The keys of one user of a tenant.
    User(TenantId, UserId),
}

impl OwnerRef {
    /// Who owns a key: the user, where there is one, else the tenant itself.
    #[must_use]
    pub fn of(owner: &Owner) -> Self {
        match &owner.user_id {
            Some(user) => Self::User(owner.tenant_id.clone(), user.clone()),
            None => Self::TenantItself(owner.tenant_id.clone()),
        }
    }

    /// Whether a key is among those meant.
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
        fn usage(&self) -> Option<Arc<dyn UsageStore>>;
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
