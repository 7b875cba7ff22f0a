//! Asking twice and being done once: what a caller repeats because no answer came is recognized, on
//! any node and after any restart.
//!
//! The id of the key that is made follows from who asks and from the caller's own idempotency key,
//! so that the second attempt meets the key of the first. The record keeps a fingerprint of what
//! was asked for: another request under the same idempotency key is an error, not somebody else's
//! key.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{KeyManager, ManageError, ManagedKey};
use crate::key::{KeyId, KeyRecord};

/// What a repeated request gets whose key is gone: nothing is made twice.
pub(super) const DELETED_SINCE: ManageError =
    ManageError::Conflict("this was done before, and the key was deleted since");

/// Makes a request that is repeated recognizable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    id: KeyId,
    fingerprint: String,
}

impl Idempotency {
    /// A request by `who`, under the caller's own `key`, that asks for this. Requests of others,
    /// and other `calls`, are unrelated, whatever their key.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for a key that is empty, longer than 255 bytes, or has other than
    /// visible ASCII characters.
    pub fn new(who: &str, call: &str, key: &str, request: &[u8]) -> Result<Self, ManageError> {
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ManageError::invalid(
                "Idempotency-Key",
                "1 to 255 visible ASCII characters",
            ));
        }
        let mut id = "key_once_".to_owned();
        // Each part with its length, so that no two lists of parts are one text.
        push_hex(
            &mut id,
            [who, call, key]
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

    /// Whether it was this request that made a key of this id.
    pub(super) fn made(&self, id: Option<&KeyId>) -> bool {
        id == Some(&self.id)
    }

    /// Marks the record that is made for the request.
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
    /// What the same request has come to before, if it has.
    pub(super) async fn done_before(
        &self,
        request: &Idempotency,
    ) -> Result<Option<ManagedKey>, ManageError> {
        let Some(found) = self.inner.store.get(&request.id).await? else {
            return Ok(None);
        };
        if found.origin.as_ref() != Some(&request.fingerprint) || !self.operator.sees(&found) {
            return Err(ManageError::invalid(
                "Idempotency-Key",
                "it was used for another request",
            ));
        }
        let primary = self.is_primary(&found, self.now()).await?;
        Ok(Some(self.done_to(found, primary).await))
    }

    /// What to say where the id of the request was known.
    pub(super) async fn known(&self, request: &Idempotency) -> ManageError {
        match self.done_before(request).await {
            Ok(Some(done)) => ManageError::DoneBefore(Box::new(done)),
            Ok(None) => DELETED_SINCE,
            Err(error) => error,
        }
    }
}
