//! Writes: a batch of changes under conditions, all or nothing.

use std::time::SystemTime;

use super::OwnerRef;
use crate::key::{KeyDigest, KeyId, KeyRecord, SigningState};

/// What must hold for a batch to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Before the changes, the record has this version (and is there).
    Version {
        /// Which key.
        id: KeyId,
        /// Its version.
        version: u64,
    },
    /// Before the changes, this is the owner's primary key
    /// ([`KeyStore::primaries`](super::KeyStore::primaries)).
    Primary {
        /// Whose.
        owner: OwnerRef,
        /// Which key, or none.
        key: Option<KeyId>,
        /// When.
        at: SystemTime,
    },
    /// After the changes, at most this many keys of the owner count as active at this instant
    /// ([`KeyRecord::counts_as_active`]).
    ActiveKeysAtMost {
        /// Whose.
        owner: OwnerRef,
        /// When.
        at: SystemTime,
        /// How many.
        limit: u64,
    },
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A new key. Rejected where the id or the digest was ever known, even of a deleted key.
    Insert {
        /// What it is found by.
        digest: KeyDigest,
        /// All else about it.
        record: Box<KeyRecord>,
    },
    /// All facts of a record anew, with `version` one higher than the stored one, under
    /// [`Condition::Version`]. Rejected as [`Rejected::Owner`] where tenant, user or family would be
    /// another one: none of them ever changes.
    Replace(Box<KeyRecord>),
    /// The digest of a key under a newer scheme. Rejected as missing where `from` is no longer its
    /// digest, and else where `to` is known. Not a new version.
    Rehash {
        /// Which key.
        id: KeyId,
        /// Its digest so far.
        from: KeyDigest,
        /// Its digest from now on.
        to: KeyDigest,
    },
    /// The key out of all look-ups and lists, and its signing state and usage gone; its id and every
    /// digest it ever had stay known for good.
    Delete(KeyId),
    /// Another primary key of an owner, as soon and as long as it
    /// [can be](KeyRecord::can_be_primary). Rejected where the key is not the owner's.
    SetPrimary {
        /// Whose.
        owner: OwnerRef,
        /// Which key.
        key: KeyId,
    },
    /// Whichever key is the owner's primary at this instant, after the changes before this one, is
    /// set to be: so that a successor which time or the changes brought about stays one. Where none
    /// is, none is set any more; where that cannot be read, what was set stays: a key that cannot be
    /// read keeps no other one from being ended.
    PinPrimary {
        /// Whose.
        owner: OwnerRef,
        /// When.
        at: SystemTime,
    },
    /// What a key signs events with, or nothing any more. Not a new version. A store that keeps no
    /// states ([`KeyStore::signing`](super::KeyStore::signing)) is given none but `None`, and has
    /// nothing to do then where the key is there.
    SetSigning {
        /// Which key.
        id: KeyId,
        /// Its state.
        state: Option<SigningState>,
    },
}

/// Changes that happen together, under conditions, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a batch does nothing until a store applies it"]
pub struct WriteBatch {
    conditions: Vec<Condition>,
    changes: Vec<Change>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The batch under one more condition.
    pub fn require(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// The batch with one more change, after those before.
    pub fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// A record with new facts: its version is raised by one, and must still be what it was.
    pub fn update(self, mut record: KeyRecord) -> Self {
        let condition = Condition::Version {
            id: record.id.clone(),
            version: record.version,
        };
        record.version += 1;
        self.require(condition)
            .change(Change::Replace(Box::new(record)))
    }

    /// The batch with all conditions and changes of another, after its own.
    pub fn join(mut self, other: Self) -> Self {
        self.conditions.extend(other.conditions);
        self.changes.extend(other.changes);
        self
    }

    /// The conditions, in their order.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The changes, in their order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether the batch may take something away from a key that is in use: by revoking, disabling
    /// or deleting it, or by fewer scopes or networks, lower limits, an earlier end. A store lets
    /// such a batch wait for no other.
    ///
    /// Without the stored record nobody can tell whether new facts of one ([`Change::Replace`])
    /// narrow or widen: they always may, and so does the loss of a signing state, which comes with
    /// each repeated revocation. A new key, a digest under a newer scheme, another primary key and a
    /// new signing state never do.
    #[must_use]
    pub fn may_narrow(&self) -> bool {
        self.changes.iter().any(|change| match change {
            Change::Replace(_) | Change::Delete(_) => true,
            Change::SetSigning { state, .. } => state.is_none(),
            Change::Insert { .. }
            | Change::Rehash { .. }
            | Change::SetPrimary { .. }
            | Change::PinPrimary { .. } => false,
        })
    }
}

/// What kept a batch from being applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// There is no such key.
    #[error("there is no key {0}")]
    Missing(KeyId),
    /// The record has changed since it was read.
    #[error("key {id} is at version {stored}, not {expected}")]
    Version {
        /// Which key.
        id: KeyId,
        /// The version that the batch expected.
        expected: u64,
        /// The version that is stored.
        stored: u64,
    },
    /// The id is taken.
    #[error("key id {0} is taken")]
    IdKnown(KeyId),
    /// The digest is known already, perhaps of a deleted key.
    #[error("this key is known already")]
    DigestKnown,
    /// Too many keys would be active.
    #[error("{active} keys would be active; {limit} is the most")]
    TooManyActive {
        /// How many there would be.
        active: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The owner's primary key is another one by now.
    #[error("the primary key has changed")]
    Primary,
    /// The key belongs to another owner, or would.
    #[error("key {0} belongs to another owner")]
    Owner(KeyId),
}
