//! Looking a secret up for an operator who holds it.

use super::{KeyManager, ManageError, ManagedKey};
use crate::audit::Action;
use crate::key::Candidates;

impl KeyManager {
    /// The key that this is the secret of, whatever its state; `None` for a text that is no key, an
    /// unknown one, and another tenant's. It is no use of the key, and counts against no quota.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`], or the store giving no answer.
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
        let mut digests = Candidates::NONE;
        hasher.candidates(key, &mut digests);
        let found = match self.inner.store.find_now(digests.as_slice()) {
            Some(found) => found,
            None => {
                let _turn = self.inner.authenticator.turn(digests.as_slice()).await?;
                self.inner.store.find(digests.as_slice()).await
            }
        };
        let Some(stored) = found? else {
            return Ok(None);
        };
        let matches = digests
            .as_slice()
            .iter()
            .fold(false, |any, digest| any | (digest == stored.digest()));
        if !matches || !self.operator.sees(stored.record()) {
            return Ok(None);
        }
        self.may(Action::KeyVerify, stored.record())?;
        match self.get(&stored.record().id).await {
            Ok(found) => Ok(Some(found)),
            // Deleted in just this moment.
            Err(ManageError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
