//! The signing state that the manager stores for a key. It stores one only if the API signs events.

use super::KeyManager;
use crate::key::{KeyKind, KeyRecord, PlaintextKey, SigningState};

impl KeyManager {
    /// Returns the signing state of a key, if the API signs events and the key is not an access
    /// token.
    pub(super) fn signing_of(
        &self,
        record: &KeyRecord,
        key: &PlaintextKey,
    ) -> Option<SigningState> {
        let signs = self.inner.settings.rules.sign_events && record.kind != KeyKind::AccessToken;
        signs.then(|| SigningState::of(key.as_str().as_bytes()))
    }

    /// Returns the primary key of an owner; `None` if the owner is not visible to the operator.
    #[cfg(feature = "events")]
    pub(crate) async fn primary_of(
        &self,
        owner: &crate::key::Owner,
        at: std::time::SystemTime,
    ) -> Result<Option<std::sync::Arc<KeyRecord>>, super::ManageError> {
        let owner = self.user_ids().owner(owner.clone());
        let tenant = self.operator.tenant();
        if tenant.is_some_and(|own| *own != owner.tenant_id)
            || self.own().is_some_and(|own| own.user_id != owner.user_id)
        {
            return Ok(None);
        }
        let owner = crate::store::OwnerRef::of(&owner);
        for _ in 0..super::ATTEMPTS {
            let primary = self.store.primary(&owner, at).await?;
            let Some(id) = primary else { return Ok(None) };
            // The key may have just been deleted: then another key is primary, or none.
            if let Some(found) = self.store.get(&id).await? {
                self.may(crate::audit::Action::KeyRead, &found)?;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the signing state of a key.
    #[cfg(feature = "events")]
    pub(crate) async fn signing_state(
        &self,
        id: &crate::key::KeyId,
    ) -> Result<Option<SigningState>, super::ManageError> {
        match self.store.signing() {
            Some(states) => Ok(states.signing_state(id).await?),
            None => Ok(None),
        }
    }
}
