//! Idempotent requests: a request that is repeated because its answer was lost is recognized, on
//! any node and after any restart.
//!
//! The id of the new key is derived from the caller and its idempotency key, so that a repeated
//! request finds the key of the first. The record contains a fingerprint of the request: a
//! different request under the same idempotency key is an error and does not return the first key.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{KeyManager, ManageError, ManagedKey};
use crate::key::{KeyId, KeyRecord};

/// Error for a repeated request whose key was deleted. No second key is created.
pub(super) const DELETED_SINCE: ManageError =
    ManageError::Conflict("this request was already completed, and its key has been deleted since");

/// Identifies a request, so that it is recognized when it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    id: KeyId,
    fingerprint: String,
}

impl Idempotency {
    /// Identifies a request by its caller, the API call, the caller's idempotency `key` and the
    /// request's content. Requests of other callers and other API calls are unrelated, even with
    /// the same key.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for a key that is empty, longer than 255 bytes, or contains
    /// characters other than visible ASCII.
    pub fn new(caller: &str, call: &str, key: &str, request: &[u8]) -> Result<Self, ManageError> {
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ManageError::invalid(
                "Idempotency-Key",
                "must be 1 to 255 visible ASCII characters",
            ));
        }
        let mut id = "key_once_".to_owned();
        // Each part is hashed with its length, so that different parts cannot result in the same
        // input.
        push_hex(
            &mut id,
            [caller, call, key]
                .iter()
                .map(|part| (part.len(), part.as_bytes())),
            20,
        );
        let mut fingerprint = String::new();
        push_hex(
            &mut fingerprint,
            std::iter::once((request.len(), request)),
            16,
        );
        let id = KeyId::new(&id)
            .map_err(|error| ManageError::invalid("Idempotency-Key", error.to_string()))?;
        Ok(Self { id, fingerprint })
    }

    /// Returns whether this request created the key with this id.
    pub(super) fn made(&self, id: Option<&KeyId>) -> bool {
        id == Some(&self.id)
    }

    /// Returns the id of the bulk operation that this request starts.
    pub(super) const fn id(&self) -> &KeyId {
        &self.id
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Gives the record the id and fingerprint of the request.
    pub(super) fn mark(&self, record: &mut KeyRecord) {
        if record.family.as_str() == record.id.as_str() {
            record.family = (&self.id).into();
        }
        record.id = self.id.clone();
        record.origin = Some(self.fingerprint.clone());
    }
}

fn push_hex<'p>(text: &mut String, parts: impl Iterator<Item = (usize, &'p [u8])>, bytes: usize) {
    let mut hash = Sha256::new();
    for (length, part) in parts {
        hash.update((length as u64).to_be_bytes());
        hash.update(part);
    }
    for byte in hash.finalize().iter().take(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
}

impl KeyManager {
    /// Returns the result of the same request, if it was completed before.
    pub(super) async fn done_before(
        &self,
        request: &Idempotency,
    ) -> Result<Option<ManagedKey>, ManageError> {
        let Some(found) = self.store.get(&request.id).await? else {
            return Ok(None);
        };
        if found.origin.as_ref() != Some(&request.fingerprint) || !self.sees(&found) {
            return Err(ManageError::invalid(
                "Idempotency-Key",
                "was used for a different request",
            ));
        }
        let primary = self.is_primary(&found, self.now()).await?;
        Ok(Some(self.done_to(found, primary).await))
    }

    /// Returns the error for a request whose key id already exists.
    pub(super) async fn known(&self, request: &Idempotency) -> ManageError {
        match self.done_before(request).await {
            Ok(Some(done)) => ManageError::DoneBefore(Box::new(done)),
            Ok(None) => DELETED_SINCE,
            Err(error) => error,
        }
    }
}
