//! Writes: a batch of changes under conditions, applied as a whole or not at all.

use std::collections::HashMap;
use std::time::SystemTime;

use super::{BulkOperation, OwnerRef, UsageDelta};
use crate::key::{KeyDigest, KeyId, KeyRecord, SigningState};

/// A condition under which a batch is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Before the changes, the record exists and has this version.
    Version {
        /// The key.
        id: KeyId,
        /// The expected version.
        version: u64,
    },
    /// Before the changes, this is the owner's primary key
    /// ([`KeyStore::primaries`](super::KeyStore::primaries)).
    Primary {
        /// The owner.
        owner: OwnerRef,
        /// The expected primary key, or `None` for no primary key.
        key: Option<KeyId>,
        /// The instant at which the primary key is determined.
        at: SystemTime,
    },
    /// After the changes, at most this many of the owner's keys count as active at this instant
    /// ([`KeyRecord::counts_as_active`]).
    ActiveKeysAtMost {
        /// The owner.
        owner: OwnerRef,
        /// The instant at which keys are counted.
        at: SystemTime,
        /// The maximum number of active keys.
        limit: u64,
    },
    /// Like [`ActiveKeysAtMost`](Self::ActiveKeysAtMost), but two active keys of one family count as
    /// one: a rotated key in its grace period and its successor. Further ones of the family count one
    /// each, so that no number of keys can share one place.
    ActiveFamiliesAtMost {
        /// The owner.
        owner: OwnerRef,
        /// The instant at which keys are counted.
        at: SystemTime,
        /// The maximum number of active families.
        limit: u64,
    },
}

impl Condition {
    /// Returns whether the condition is checked after the changes of its batch: the limits on active
    /// keys are, and the others are checked before.
    #[must_use]
    pub const fn is_checked_afterwards(&self) -> bool {
        matches!(
            self,
            Self::ActiveKeysAtMost { .. } | Self::ActiveFamiliesAtMost { .. }
        )
    }

    /// Checks a limit on active keys against records that include all of the owner's, after the
    /// changes. For stores that cannot count in their database. Other conditions always hold.
    ///
    /// # Errors
    /// [`Rejected::TooManyActive`].
    pub fn check_active<'r>(
        &self,
        records: impl IntoIterator<Item = &'r KeyRecord>,
    ) -> Result<(), Rejected> {
        let (Self::ActiveKeysAtMost { owner, at, limit }
        | Self::ActiveFamiliesAtMost { owner, at, limit }) = self
        else {
            return Ok(());
        };
        let mut keys_of = HashMap::<_, u64>::new();
        for record in records {
            if owner.includes(record) && record.counts_as_active(*at) {
                *keys_of.entry(&record.family).or_default() += 1;
            }
        }
        // The second key of a family is free.
        let free = |keys: u64| match self {
            Self::ActiveFamiliesAtMost { .. } => u64::from(keys > 1),
            _ => 0,
        };
        let active = keys_of.values().map(|keys| keys - free(*keys)).sum();
        let limit = *limit;
        match active <= limit {
            true => Ok(()),
            false => Err(Rejected::TooManyActive { active, limit }),
        }
    }
}

/// A change within a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Adds a key. Rejected if the id or the digest was ever used, even by a key that is deleted.
    /// The reason is [`Rejected::IdKnown`] or [`Rejected::DigestKnown`]; if both apply, either.
    Insert {
        /// The digest by which the key is found.
        digest: KeyDigest,
        /// The record.
        record: Box<KeyRecord>,
    },
    /// Replaces all fields of a record. Its `version` is one higher than the stored one, under
    /// [`Condition::Version`]. Rejected as [`Rejected::Owner`] if the tenant, user or family would
    /// change: they never do.
    Replace(Box<KeyRecord>),
    /// Replaces a key's digest with one under a newer scheme. Rejected as missing if `from` is not
    /// the key's digest, and otherwise if `to` was ever used. Does not change the version.
    /// The reasons are [`Rejected::Missing`] and [`Rejected::DigestKnown`].
    Rehash {
        /// The key.
        id: KeyId,
        /// The current digest.
        from: KeyDigest,
        /// The new digest.
        to: KeyDigest,
    },
    /// Removes a key from all lookups and lists, together with its signing state and usage. Its id
    /// and every digest it ever had remain reserved. It no longer counts as one of its owner's
    /// keys, for primary keys and for the limits on active keys.
    Delete(KeyId),
    /// Sets an owner's primary key. It takes effect as soon as, and as long as, the key [can be
    /// primary](KeyRecord::can_be_primary). Rejected if the key does not belong to the owner, as
    /// [`Rejected::Owner`].
    SetPrimary {
        /// The owner.
        owner: OwnerRef,
        /// The key.
        key: KeyId,
    },
    /// Sets the owner's primary key to the one that is primary at this instant, after the preceding
    /// changes. A key that became primary through time or through the changes thus remains primary.
    /// If no key is primary, the setting is cleared. If the primary key cannot be read, the setting
    /// is left unchanged, so that an unreadable key does not prevent another key from being revoked
    /// or deleted.
    PinPrimary {
        /// The owner.
        owner: OwnerRef,
        /// The instant at which the primary key is determined.
        at: SystemTime,
    },
    /// Sets or clears the state that a key signs events with. Does not change the version. A store
    /// that keeps no states ([`KeyStore::signing`](super::KeyStore::signing)) only receives `None`,
    /// and then only checks that the key exists.
    SetSigning {
        /// The key.
        id: KeyId,
        /// The state, or `None` to clear it.
        state: Option<SigningState>,
    },
    /// Adds uses to the totals of a key, as [`Usage::add`](super::Usage::add) does, but to no hour:
    /// an imported key was used in another system. Does not change the version. Rejected as missing
    /// if the key does not exist. A store that counts no uses
    /// ([`KeyStore::usage`](super::KeyStore::usage)) does not receive it.
    AddUsage(UsageDelta),
    /// Stores the state of a bulk operation, together with the changes of its step: a new operation
    /// with step 0, or one whose [`step`](BulkOperation::step) is one higher than the stored one.
    /// Rejected otherwise, as [`Rejected::Bulk`]: another node has done this step. With a new
    /// operation, the store may delete operations that ended more than 90 days before its start.
    Bulk(Box<BulkOperation>),
}

/// Changes that are applied together under conditions, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a batch does nothing until a store applies it"]
pub struct WriteBatch {
    conditions: Vec<Condition>,
    changes: Vec<Change>,
}

impl WriteBatch {
    /// Creates an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn require(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Adds a change after the existing ones.
    pub fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Adds the replacement of a record: raises its version by one, on the condition that the
    /// stored version has not changed.
    pub fn update(self, mut record: KeyRecord) -> Self {
        let condition = Condition::Version {
            id: record.id.clone(),
            version: record.version,
        };
        record.version += 1;
        self.require(condition)
            .change(Change::Replace(Box::new(record)))
    }

    /// Appends the conditions and changes of another batch.
    pub fn join(mut self, other: Self) -> Self {
        self.conditions.extend(other.conditions);
        self.changes.extend(other.changes);
        self
    }

    /// Returns the conditions in order.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Returns the changes in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns whether the batch may restrict a key that is in use: by revoking, disabling or
    /// deleting it, by fewer scopes or networks, lower limits or an earlier expiry. A store lets
    /// such a batch wait for no other.
    ///
    /// Whether a [`Change::Replace`] narrows or widens a key cannot be told without the stored
    /// record, so it always counts. So does clearing a signing state, which is part of each
    /// repeated revocation. A new key, a new digest, another primary key and a new signing state
    /// never count.
    #[must_use]
    pub fn may_narrow(&self) -> bool {
        self.changes.iter().any(|change| match change {
            Change::Replace(_) | Change::Delete(_) => true,
            Change::SetSigning { state, .. } => state.is_none(),
            Change::Bulk(_)
            | Change::Insert { .. }
            | Change::Rehash { .. }
            | Change::AddUsage(_)
            | Change::SetPrimary { .. }
            | Change::PinPrimary { .. } => false,
        })
    }
}

/// The reason why a batch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The key does not exist.
    #[error("key {0} not found")]
    Missing(KeyId),
    /// The record was modified since it was read.
    #[error("key {id} is at version {stored}, not {expected}")]
    Version {
        /// The key.
        id: KeyId,
        /// The version that the batch expected.
        expected: u64,
        /// The version that is stored.
        stored: u64,
    },
    /// The id is already in use.
    #[error("key id {0} is already in use")]
    IdKnown(KeyId),
    /// The digest is or was in use, possibly by a deleted key.
    #[error("a key with this digest already exists or existed")]
    DigestKnown,
    /// Too many keys would be active.
    #[error("{active} active keys would exceed the limit of {limit}")]
    TooManyActive {
        /// How many keys would be active.
        active: u64,
        /// The maximum number of active keys.
        limit: u64,
    },
    /// The owner's primary key has changed.
    #[error("the primary key has changed")]
    Primary,
    /// The key belongs to another owner, or would after the change.
    #[error("key {0} belongs to another owner")]
    Owner(KeyId),
    /// The bulk operation is at another step than expected, or its id is already in use.
    #[error("bulk operation {0} is at another step")]
    Bulk(KeyId),
}
