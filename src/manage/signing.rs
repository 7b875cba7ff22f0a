//! What the manager keeps of a secret so that the key can sign events: nothing, unless the API
//! signs some.

use super::KeyManager;
use crate::key::{KeyKind, KeyRecord, PlaintextKey, SigningState};

impl KeyManager {
    /// The state that signs with a key, where the API signs events and the store keeps states.
    pub(super) fn signing_of(
        &self,
        record: &KeyRecord,
        key: &PlaintextKey,
    ) -> Option<SigningState> {
        let signs = self.inner.settings.rules.sign_events && record.kind != KeyKind::AccessToken;
        signs.then(|| SigningState::of(key.as_str()))
    }

    /// The primary key of an owner; none for an owner whom the operator may not know of.
    #[cfg(feature = "events")]
    pub(crate) async fn primary_of(
        &self,
        owner: &crate::key::Owner,
        at: std::time::SystemTime,
    ) -> Result<Option<std::sync::Arc<KeyRecord>>, super::ManageError> {
        if self
            .operator
            .tenant()
            .is_some_and(|own| *own != owner.tenant_id)
        {
            return Ok(None);
        }
        let owner =
            crate::store::OwnerRef::of(&self.inner.authenticator.user_ids().owner(owner.clone()));
        for _ in 0..super::ATTEMPTS {
            let primary = self.inner.store.primary(&owner, at).await?;
            let Some(id) = primary else { return Ok(None) };
            // It may be deleted in just this moment: then there is another one, or none.
            if let Some(found) = self.inner.store.get(&id).await? {
                self.may(crate::audit::Action::KeyRead, &found)?;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What a key signs with.
    #[cfg(feature = "events")]
    pub(crate) async fn signing_state(
        &self,
        id: &crate::key::KeyId,
    ) -> Result<Option<SigningState>, super::ManageError> {
        match self.inner.store.signing() {
            Some(states) => Ok(states.signing_state(id).await?),
            None => Ok(None),
        }
    }
}
