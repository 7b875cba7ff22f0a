//! Bulk operations, as stores keep them.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::key::KeyId;

/// Returns the error of a store that keeps no bulk operations.
pub(super) fn not_kept() -> StoreError {
    StoreError::unavailable("this store does not keep bulk operations")
}

/// An operation on many keys ([`KeyManager::bulk`](crate::manage::KeyManager::bulk)): how far it is,
/// and what a node needs to continue it.
///
/// `serde` writes and reads all of it, for the store's own table. It contains no secret and no
/// digest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BulkOperation {
    /// The id of the operation.
    pub id: KeyId,
    /// The number of steps that are done. 0 if the operation has only been started.
    pub step: u64,
    /// When the operation was started.
    pub started_at: SystemTime,
    /// When the operation ended. `None` while a node must continue it.
    pub ended_at: Option<SystemTime>,
    /// How many keys are done, including those for which nothing had to be changed.
    pub done: u64,
    /// How many keys are left; `None` while they are being counted. Keys that are changed meanwhile
    /// can make it inexact until the operation has ended.
    pub left: Option<u64>,
    /// For how many keys the operation was refused, or failed.
    pub failed: u64,
    /// The first 500 of them with the reason: the id of the key, `digest` and its place in the list
    /// (from 1) if there is no such key, or the name of a row that cannot be read.
    pub failures: Vec<(String, String)>,
    /// What the manager needs to continue, as JSON.
    #[serde(default)]
    pub(crate) plan: String,
}

impl BulkOperation {
    /// Creates an operation that has just been started.
    #[must_use]
    pub const fn new(id: KeyId, started_at: SystemTime) -> Self {
        Self {
            id,
            step: 0,
            started_at,
            ended_at: None,
            done: 0,
            left: None,
            failed: 0,
            failures: Vec::new(),
            plan: String::new(),
        }
    }

    /// Writes the operation as JSON.
    ///
    /// # Errors
    /// Returns an error if a time is before 1970.
    pub fn to_json(&self) -> Result<String, StoreError> {
        serde_json::to_string(self).map_err(StoreError::unavailable)
    }

    /// Reads an operation that [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`StoreError::corrupt`] if it cannot be read.
    pub fn from_json(json: &str) -> Result<Self, StoreError> {
        let unreadable = |_| StoreError::corrupt("a bulk operation");
        serde_json::from_str(json).map_err(unreadable)
    }
}

impl fmt::Debug for BulkOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkOperation")
            .field("id", &self.id)
            .field("step", &self.step)
            .field("ended_at", &self.ended_at)
            .field("done", &self.done)
            .field("left", &self.left)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
