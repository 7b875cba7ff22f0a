//! Finding a key by its secret, for an operator who has it.

use super::{KeyManager, ManageError, ManagedKey};
use crate::audit::Action;
use crate::key::Candidates;

impl KeyManager {
    /// Returns the key with this secret, whatever its status. Returns `None` for a string that is
    /// not a key, an unknown key, and another tenant's key. The call does not count as a use of the
    /// key and consumes no quota.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`], or a store error.
    pub async fn verify(&self, key: &str) -> Result<Option<ManagedKey>, ManageError> {
        let watch = self.watch(Action::KeyVerify);
        let verified = self.try_verify(key).await;
        match &verified {
            Ok(Some(found)) => watch.note_end(Ok(&found.record), || None),
            Ok(None) => watch.forget(),
            Err(error) => watch.note_end(Err(error), || None),
        }
        verified
    }

    async fn try_verify(&self, key: &str) -> Result<Option<ManagedKey>, ManageError> {
        if !self
            .inner
            .formats
            .iter()
            .any(|(_, format)| format.parse(key).is_ok())
        {
            return Ok(None);
        }
        let hasher = self.inner.authenticator.hasher();
        let mut digests = Candidates::new();
        hasher.candidates(key.as_bytes(), &mut digests);
        let Some(stored) = self.find_in_turn(digests.as_slice()).await? else {
            return Ok(None);
        };
        let matches = digests
            .as_slice()
            .iter()
            .fold(false, |any, digest| any | (digest == stored.digest()));
        if !matches || !self.sees(stored.record()) {
            return Ok(None);
        }
        self.may(Action::KeyVerify, stored.record())?;
        match self.get(&stored.record().id).await {
            Ok(found) => Ok(Some(found)),
            // The key was deleted in the meantime.
            Err(ManageError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
