//! Preconditions: operations that are done only while a key is at a version that the caller
//! expects.
//!
//! A precondition is evaluated last (RFC 9110 §13.2.1). A request that would be refused without it
//! is refused for the same reason with it. This includes reasons that only the store knows: quotas,
//! and digests and ids that already exist. A refused request changes nothing.

use std::sync::Arc;

use super::{KeyManager, ManageError};
use crate::key::KeyId;
use crate::store::{Change, Condition, Rejected, StoreError, WriteBatch};

/// Returns whether an operation may be applied to a key at this version.
pub(super) type Precondition = dyn Fn(Option<u64>) -> bool + Send + Sync;

/// The result of a write that only the precondition can still refuse.
pub(super) enum Applied {
    /// The store made the changes. Contains the error if they could not be published to other nodes
    /// yet.
    Done(Option<StoreError>),
    /// The precondition does not hold: nothing was changed.
    Unmet,
}

impl KeyManager {
    /// Returns this manager under a precondition. An operation changes a key only if `holds`
    /// returns true for the version of the record that it was checked against, or for `None` if it
    /// creates a key (issue, import). Otherwise it is refused with
    /// [`ManageError::PreconditionFailed`]. Reads ignore the precondition, except for
    /// [`bulk_count`](Self::bulk_count).
    ///
    /// The precondition is evaluated last (RFC 9110 §13.2.1). A request that is repeated under its
    /// [`Idempotency`](super::Idempotency) is recognized before that. A previous precondition of
    /// this manager is replaced.
    ///
    /// ```
    /// # async fn with(manager: portunus::manage::KeyManager, id: portunus::key::KeyId) {
    /// // `If-Match: "3"`
    /// let revoked = manager.only_if(|version| version == Some(3)).revoke(&id, None).await;
    /// # }
    /// ```
    #[must_use]
    pub fn only_if(&self, holds: impl Fn(Option<u64>) -> bool + Send + Sync + 'static) -> Self {
        Self {
            precondition: Some(Arc::new(holds)),
            ..self.clone()
        }
    }

    /// Returns whether the precondition holds for a key at this version. `None` means a key that
    /// does not exist yet, or an operation that concerns no key.
    #[must_use]
    pub fn precondition_holds(&self, version: Option<u64>) -> bool {
        self.precondition
            .as_ref()
            .is_none_or(|holds| holds(version))
    }

    /// Applies a batch if the precondition holds. Otherwise checks whether the store would refuse
    /// the batch. `added` is the number of active keys that the batch adds.
    pub(super) async fn apply(
        &self,
        batch: &WriteBatch,
        holds: bool,
        added: i64,
    ) -> Result<Applied, StoreError> {
        if holds {
            let unpublished = match self.store.apply(batch).await {
                Ok(()) => None,
                Err(error) if error.is_not_published() => Some(error),
                Err(error) => return Err(error),
            };
            if let Some(joined) = &self.joined {
                joined.changed(batch);
            }
            return Ok(Applied::Done(unpublished));
        }
        self.rehearse(batch).await?;
        self.would_fit(batch, added).await?;
        Ok(Applied::Unmet)
    }

    /// Applies a batch extended by a change that the store must refuse, so that the store checks
    /// everything and keeps nothing.
    async fn rehearse(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let missing = KeyId::generate().map_err(StoreError::unavailable)?;
        let refused = batch.clone().change(Change::Delete(missing.clone()));
        match self.store.apply(&refused).await {
            Err(error) if is_missing(&error, &missing) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(StoreError::unavailable(
                "the store deleted a key that does not exist",
            )),
        }
    }

    /// Checks whether the limits on active keys in a batch would hold after it. The store checks
    /// them before the batch here, so each limit is reduced by the keys that the batch adds. A key
    /// that joins an active family adds nothing where families are counted: at the limit, it is
    /// refused for that reason rather than for the precondition.
    async fn would_fit(&self, batch: &WriteBatch, added: i64) -> Result<(), StoreError> {
        for condition in batch.conditions() {
            let mut before = condition.clone();
            let (Condition::ActiveKeysAtMost { limit, .. }
            | Condition::ActiveFamiliesAtMost { limit, .. }) = &mut before
            else {
                continue;
            };
            let most = *limit;
            let too_many = |active: u64| {
                StoreError::rejected(Rejected::TooManyActive {
                    active: active.saturating_add_signed(added),
                    limit: most,
                })
            };
            *limit = most
                .checked_add_signed(-added)
                .ok_or_else(|| too_many(most))?;
            let check = WriteBatch::new().require(before);
            self.store
                .apply(&check)
                .await
                .map_err(|error| match error.as_rejected() {
                    Some(Rejected::TooManyActive { active, .. }) => too_many(*active),
                    _ => error,
                })?;
        }
        Ok(())
    }
}

impl Applied {
    /// Returns the error if the changes were made but could not be published to other nodes.
    ///
    /// # Errors
    /// [`ManageError::PreconditionFailed`] if the changes were not made.
    pub(super) fn done(self) -> Result<Option<StoreError>, ManageError> {
        match self {
            Self::Done(unpublished) => Ok(unpublished),
            Self::Unmet => Err(ManageError::PreconditionFailed),
        }
    }
}

fn is_missing(error: &StoreError, id: &KeyId) -> bool {
    matches!(error.as_rejected(), Some(Rejected::Missing(missing)) if missing == id)
}
