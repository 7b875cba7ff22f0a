//! The effect of a batch on a store's rows, written once for every store that can read and change
//! its rows in one transaction, in memory or elsewhere.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{
    BulkOperation, Change, Condition, Cursor, ListQuery, Match, OwnerRef, Page, Rejected,
    StoreError, StoredKey, Usage, UsageByHour, UsageDelta, WriteBatch, bulk,
};
use crate::key::{KeyDigest, KeyId, KeyRecord, Owner, SigningState};

/// Everything that a store keeps about a key. Rows of deleted keys are kept too, so that their ids
/// and digests remain reserved.
///
/// `serde` writes and reads all fields, with digests and signing states in hexadecimal: use it only
/// for the store's own file. `Debug` shows neither.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRow {
    /// The digest by which the key is found.
    pub digest: KeyDigest,
    /// The digests that the key had before.
    pub former: Vec<KeyDigest>,
    /// The record. For a deleted key, little more than its id and tenant.
    pub record: Arc<KeyRecord>,
    /// The state that the key signs events with, a secret.
    pub signing: Option<SigningState>,
    /// The key's usage.
    pub usage: Usage,
    /// The key's usage by the hour.
    pub by_hour: Arc<UsageByHour>,
    /// Whether the key is deleted, so that it is no longer found.
    pub deleted: bool,
}

impl KeyRow {
    /// Creates the row of a new key.
    fn new(digest: KeyDigest, record: KeyRecord) -> Self {
        Self {
            digest,
            former: Vec::new(),
            record: Arc::new(record),
            signing: None,
            usage: Usage::default(),
            by_hour: Arc::default(),
            deleted: false,
        }
    }

    /// Returns every digest that the key has or had.
    pub fn digests(&self) -> impl Iterator<Item = &KeyDigest> {
        std::iter::once(&self.digest).chain(&self.former)
    }

    /// Returns the lookup entry for this row under one of its digests.
    #[must_use]
    pub fn matched(&self, digest: &KeyDigest) -> Match {
        let (record, tenant) = (&self.record, &self.record.owner.tenant_id);
        if self.deleted {
            Match::Deleted(Some(tenant.clone()))
        } else if self.digest == *digest {
            Match::Key(Arc::new(StoredKey::new(*digest, Arc::clone(record))))
        } else {
            Match::Former(record.id.clone(), tenant.clone())
        }
    }
}

/// The rows of a store within one transaction. Six small required methods provide the ones that are
/// hard to get right; each does what the method of the same name of
/// [`KeyLookup`](super::KeyLookup), [`KeyStore`](super::KeyStore) or
/// [`UsageStore`](super::UsageStore) specifies.
///
/// The store supplies the transaction: no one else writes during it, or sees what it has put, and
/// everything is rolled back if [`apply`](Self::apply) fails.
pub trait KeyRows {
    /// Returns the row with this id, including that of a deleted key.
    ///
    /// # Errors
    /// Returns an error if the store does not respond, or if the row cannot be read.
    fn by_id(&self, id: &KeyId) -> Result<Option<KeyRow>, StoreError>;

    /// Returns the row that has this digest, or ever had it, including that of a deleted key.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn by_digest(&self, digest: &KeyDigest) -> Result<Option<KeyRow>, StoreError>;

    /// Returns the records that an owner [includes](OwnerRef::includes), or all records, without
    /// those of deleted keys, in any order.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn records(&self, of: Option<&OwnerRef>) -> Result<Vec<Arc<KeyRecord>>, StoreError>;

    /// Returns the primary key that was set for exactly this owner, whether or not the key exists.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn primary_set(&self, owner: &OwnerRef) -> Result<Option<KeyId>, StoreError>;

    /// Stores a row in place of the one with the same id, and assigns each of its digests to this
    /// id.
    ///
    /// # Errors
    /// Returns an error if the store cannot write.
    fn put(&mut self, row: KeyRow) -> Result<(), StoreError>;

    /// Sets or clears the primary key of exactly this owner.
    ///
    /// # Errors
    /// Returns an error if the store cannot write.
    fn put_primary(&mut self, owner: &OwnerRef, key: Option<KeyId>) -> Result<(), StoreError>;

    /// Returns a bulk operation. Fails by default: the store keeps none.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn bulk_operation(&self, id: &KeyId) -> Result<Option<BulkOperation>, StoreError> {
        let _ = id;
        Err(bulk::not_kept())
    }

    /// Stores a bulk operation in place of the one with the same id. Fails by default: the store
    /// keeps none.
    ///
    /// # Errors
    /// Returns an error if the store cannot write.
    fn put_bulk_operation(&mut self, operation: BulkOperation) -> Result<(), StoreError> {
        let _ = operation;
        Err(bulk::not_kept())
    }

    /// Returns the row of a key, unless the key is deleted.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn live(&self, id: &KeyId) -> Result<Option<KeyRow>, StoreError> {
        Ok(self.by_id(id)?.filter(|row| !row.deleted))
    }

    /// Returns the key that a secret belongs to, by its digests.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        let mut matches = Vec::with_capacity(digests.len());
        for digest in digests {
            let row = self.by_digest(digest)?;
            matches.push((digest, row.map(|row| row.matched(digest))));
        }
        let matched = |digest: &KeyDigest| {
            let found = matches.iter().find(|(queried, _)| *queried == digest);
            found.and_then(|(_, matched)| matched.clone())
        };
        Ok(StoredKey::of_one_secret(digests, matched))
    }

    /// Returns the primary key of an owner at an instant: the one that was set if it still can be
    /// primary, or else the newest key that can.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        let can = |record: &KeyRecord| owner.includes(record) && record.can_be_primary(at);
        if let Some(set) = self.primary_set(owner)?
            && let Some(row) = self.live(&set)?
            && can(&row.record)
        {
            return Ok(Some(set));
        }
        let records = self.records(Some(owner))?;
        let able = records.iter().filter(|record| can(record));
        let newest = able.min_by_key(|record| Cursor::of(record));
        Ok(newest.map(|record| record.id.clone()))
    }

    /// Returns the primary keys of several owners, in their order.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id), except that a key that cannot be read counts as no key.
    fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        let primary = |owner| match self.primary(owner, at) {
            Err(error) if error.is_corrupt() => Ok(None),
            primary => primary,
        };
        owners.iter().map(primary).collect()
    }

    /// Returns a page of the records.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let tenant = query.tenant.clone().map(OwnerRef::Tenant);
        let mut rows = Vec::new();
        for record in self.records(tenant.as_ref())? {
            let usage = match query.unused_since {
                Some(_) => self.live(&record.id)?.map(|row| row.usage),
                None => None,
            };
            rows.push((record, usage.unwrap_or_default()));
        }
        rows.sort_by_cached_key(|(record, _)| Cursor::of(record));
        Ok(query.page(rows))
    }

    /// Adds uses to the rows of their keys, and skips keys that do not exist.
    ///
    /// # Errors
    /// As for [`put`](Self::put). The store must then roll back what was put.
    fn record_usage(&mut self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        for delta in batch {
            if let Some(mut row) = self.live(&delta.id)? {
                row.usage.add(delta);
                Arc::make_mut(&mut row.by_hour).add(delta);
                self.put(row)?;
            }
        }
        Ok(())
    }

    /// Returns the usage of each of these keys.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let usage = |id| Ok(self.live(id)?.map(|row| row.usage).unwrap_or_default());
        ids.iter().map(usage).collect()
    }

    /// Returns the usage of a key by the hour.
    ///
    /// # Errors
    /// As for [`by_id`](Self::by_id).
    fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let row = self.live(id)?;
        Ok(row.map_or_else(UsageByHour::default, |row| row.by_hour.between(from, to)))
    }

    /// Deletes the hours of all keys that ended before an instant, and returns their number.
    ///
    /// # Errors
    /// As for [`put`](Self::put). The store must then roll back what was put.
    fn forget_usage_before(&mut self, before: SystemTime) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for record in self.records(None)? {
            if let Some(mut row) = self.live(&record.id)? {
                forgotten += Arc::make_mut(&mut row.by_hour).forget_before(before);
                self.put(row)?;
            }
        }
        Ok(forgotten)
    }

    /// Applies the changes of a batch if its conditions hold.
    ///
    /// # Errors
    /// As for [`KeyStore::apply`](super::KeyStore::apply). The store must then roll back what was
    /// put.
    fn apply(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        let conditions = batch.conditions().iter();
        let (afterwards, first): (Vec<_>, Vec<_>) =
            conditions.partition(|condition| condition.is_checked_afterwards());
        for condition in first {
            check(self, condition)?;
        }
        for change in batch.changes() {
            make(self, change)?;
        }
        for condition in afterwards {
            check(self, condition)?;
        }
        Ok(())
    }
}

/// Returns the row of a key that must exist.
fn live(rows: &(impl KeyRows + ?Sized), id: &KeyId) -> Result<KeyRow, StoreError> {
    rows.live(id)?
        .ok_or_else(|| StoreError::rejected(Rejected::Missing(id.clone())))
}

fn check(rows: &(impl KeyRows + ?Sized), condition: &Condition) -> Result<(), StoreError> {
    let rejected = match condition {
        Condition::Version { id, version } => match live(rows, id)?.record.version {
            stored if stored == *version => return Ok(()),
            stored => Rejected::Version {
                id: id.clone(),
                expected: *version,
                stored,
            },
        },
        Condition::Primary { owner, key, at } => match rows.primary(owner, *at)? == *key {
            true => return Ok(()),
            false => Rejected::Primary,
        },
        Condition::ActiveKeysAtMost { owner, .. }
        | Condition::ActiveFamiliesAtMost { owner, .. } => {
            let records = rows.records(Some(owner))?;
            match condition.check_active(records.iter().map(|record| &**record)) {
                Ok(()) => return Ok(()),
                Err(rejected) => rejected,
            }
        }
    };
    Err(StoreError::rejected(rejected))
}

/// Checks that a digest has never been used.
fn unknown(rows: &(impl KeyRows + ?Sized), digest: &KeyDigest) -> Result<(), StoreError> {
    match rows.by_digest(digest)? {
        Some(_) => Err(StoreError::rejected(Rejected::DigestKnown)),
        None => Ok(()),
    }
}

fn make(rows: &mut (impl KeyRows + ?Sized), change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Insert { digest, record } => {
            if rows.by_id(&record.id)?.is_some() {
                return Err(StoreError::rejected(Rejected::IdKnown(record.id.clone())));
            }
            unknown(rows, digest)?;
            rows.put(KeyRow::new(*digest, (**record).clone()))
        }
        Change::Replace(record) => {
            let mut row = live(rows, &record.id)?;
            if !row.record.is_of_the_same_owner(record) {
                return Err(StoreError::rejected(Rejected::Owner(record.id.clone())));
            }
            row.record = Arc::new((**record).clone());
            rows.put(row)
        }
        Change::Rehash { id, from, to } => {
            let mut row = live(rows, id)?;
            // First check whether another writer was faster.
            if row.digest != *from {
                return Err(StoreError::rejected(Rejected::Missing(id.clone())));
            }
            if from == to {
                return Ok(());
            }
            unknown(rows, to)?;
            row.former.push(*from);
            row.digest = *to;
            rows.put(row)
        }
        Change::Delete(id) => {
            let mut row = live(rows, id)?;
            row.deleted = true;
            row.signing = None;
            row.record = Arc::new(emptied(&row.record));
            (row.usage, row.by_hour) = Default::default();
            rows.put(row)
        }
        Change::SetPrimary { owner, key } => {
            if !owner.includes(&live(rows, key)?.record) {
                return Err(StoreError::rejected(Rejected::Owner(key.clone())));
            }
            rows.put_primary(owner, Some(key.clone()))
        }
        Change::PinPrimary { owner, at } => match rows.primary(owner, *at) {
            // An unreadable key must not prevent another key from being revoked or deleted.
            Err(error) if error.is_corrupt() => Ok(()),
            primary => rows.put_primary(owner, primary?),
        },
        Change::SetSigning { id, state } => {
            let mut row = live(rows, id)?;
            row.signing.clone_from(state);
            rows.put(row)
        }
        Change::AddUsage(delta) => {
            let mut row = live(rows, &delta.id)?;
            row.usage.add(delta);
            rows.put(row)
        }
        Change::Bulk(operation) => {
            let stored = rows.bulk_operation(&operation.id)?;
            match stored.map_or(0, |stored| stored.step + 1) {
                next if next == operation.step => rows.put_bulk_operation((**operation).clone()),
                _ => Err(StoreError::rejected(Rejected::Bulk(operation.id.clone()))),
            }
        }
    }
}

/// Returns what remains of the record of a deleted key.
fn emptied(record: &KeyRecord) -> KeyRecord {
    KeyRecord::new(
        record.id.clone(),
        "",
        record.kind,
        record.environment.clone(),
        Owner::tenant(record.owner.tenant_id.clone()),
        record.created_at,
    )
}

/// The serialized form of a row: strings, which are the same on every platform.
#[derive(Serialize, Deserialize)]
struct Written {
    digest: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<String>,
    /// JSON in a string, so that members known only to a newer version are preserved.
    record: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing: Option<String>,
    #[serde(default)]
    usage: Usage,
    #[serde(default)]
    by_hour: UsageByHour,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl Serialize for KeyRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |digest: &KeyDigest| format!("{} {}", digest.scheme(), hex(&digest.to_bytes()));
        let written = Written {
            digest: text(&self.digest),
            former: self.former.iter().map(text).collect(),
            record: self.record.to_json().map_err(ser::Error::custom)?,
            signing: self.signing.as_ref().map(|state| hex(state.as_bytes())),
            usage: self.usage,
            by_hour: (*self.by_hour).clone(),
            deleted: self.deleted,
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        // The content is not shown: it may be a secret.
        let broken = |what: &str| de::Error::custom(format_args!("{what} cannot be read"));
        let digest = |text: &String| parse_digest(text).ok_or_else(|| broken("a digest"));
        let state = |text: String| {
            let bytes = from_hex(&text).ok_or_else(|| broken("a signing state"))?;
            SigningState::from_bytes(&bytes).map_err(|_| broken("a signing state"))
        };
        let former = written.former.iter().map(digest);
        Ok(Self {
            digest: digest(&written.digest)?,
            former: former.collect::<Result<_, _>>()?,
            record: Arc::new(
                KeyRecord::from_json(&written.record).map_err(|_| broken("a record"))?,
            ),
            signing: written.signing.map(state).transpose()?,
            usage: written.usage,
            by_hour: Arc::new(written.by_hour),
            deleted: written.deleted,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    match text.as_bytes().as_chunks::<2>() {
        (pairs, []) if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            pairs.iter().map(digits).collect()
        }
        _ => None,
    }
}

fn parse_digest(text: &str) -> Option<KeyDigest> {
    let (scheme, bytes) = text.split_once(' ')?;
    let bytes = from_hex(bytes)?.try_into().ok()?;
    Some(KeyDigest::new(scheme.parse().ok()?, bytes))
}
