//! What the manager keeps of a secret so that the key can sign events: nothing, unless the API signs some.

use super::KeyManager;
use crate::key::{KeyKind, KeyRecord, PlaintextKey, SigningState};

impl KeyManager {
    /// The state that signs with a key, where the API signs events.
    pub(super) fn signing_of(&self, record: &KeyRecord, key: &PlaintextKey) -> Option<SigningState> {
        let signs = self.inner.rules.sign_events && record.kind != KeyKind::AccessToken;
        signs.then(|| SigningState::of(key.as_str()))
    }

    /// The primary key of an owner.
    #[cfg(feature = "events")]
    pub(crate) async fn primary_of(
        &self,
        owner: &crate::key::Owner,
        at: std::time::SystemTime,
    ) -> Result<Option<std::sync::Arc<KeyRecord>>, super::ManageError> {
        match self.inner.store.primary(&crate::store::OwnerRef::of(owner), at).await? {
            Some(id) => Ok(Some(self.get(&id).await?.record)),
            None => Ok(None),
        }
    }

    /// What a key signs with.
    #[cfg(feature = "events")]
    pub(crate) async fn signing_state(
        &self,
        id: &crate::key::KeyId,
    ) -> Result<Option<SigningState>, super::ManageError> {
        Ok(self.inner.store.signing_state(id).await?)
    }
}
