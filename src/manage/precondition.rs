//! Preconditions: acts that are done only while a key is at a version that the caller expects.
//!
//! A precondition is evaluated last (RFC 9110 §13.2.1). What would be refused without it is
//! refused for the same reason with it, including what only the store knows: quotas, and digests
//! and ids that are taken. Whatever the reason, nothing is done.

use std::sync::Arc;

use super::{KeyManager, ManageError};
use crate::key::KeyId;
use crate::store::{Change, Condition, Rejected, StoreError, WriteBatch};

/// Whether an act may be done to a key at this version.
pub(super) type Precondition = dyn Fn(Option<u64>) -> bool + Send + Sync;

/// The result of a write under a precondition that nothing else refused.
pub(super) enum Applied {
    /// The store made the changes; where other nodes could not be told of them yet, why.
    Done(Option<StoreError>),
    /// The precondition does not hold: nothing was changed.
    Unmet,
}

impl KeyManager {
    /// The same manager under a precondition: an act changes a key only if `holds` returns true for
    /// the version of the record that the act was checked against, or for `None` where the act
    /// creates a key (issue, import). Otherwise it is refused with
    /// [`ManageError::PreconditionFailed`]. Reads ignore the precondition.
    ///
    /// The precondition is evaluated last (RFC 9110 §13.2.1), and a request that is repeated under
    /// its [`Idempotency`](super::Idempotency) is recognized before. An earlier precondition of
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

    /// Whether the precondition holds for a key at this version. `None` stands for a key that does
    /// not exist yet, and for an act that concerns no key.
    #[must_use]
    pub fn precondition_holds(&self, version: Option<u64>) -> bool {
        self.precondition
            .as_ref()
            .is_none_or(|holds| holds(version))
    }

    /// Applies a batch if the precondition holds. If it does not, the store is still asked whether
    /// it would refuse the batch. `added` is the number of active keys that the batch adds.
    pub(super) async fn apply(
        &self,
        batch: &WriteBatch,
        holds: bool,
        added: i64,
    ) -> Result<Applied, StoreError> {
        if holds {
            let unpublished = match self.inner.store.apply(batch).await {
                Ok(()) => None,
                Err(error) if error.is_not_published() => Some(error),
                Err(error) => return Err(error),
            };
            return Ok(Applied::Done(unpublished));
        }
        self.rehearse(batch).await?;
        self.would_fit(batch, added).await?;
        Ok(Applied::Unmet)
    }

    /// Makes all changes of a batch and then one that the store must refuse, so that nothing of it
    /// stays.
    async fn rehearse(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let nobody = KeyId::generate().map_err(StoreError::unavailable)?;
        let doomed = batch.clone().change(Change::Delete(nobody.clone()));
        match self.inner.store.apply(&doomed).await {
            Err(error) if is_missing(&error, &nobody) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(StoreError::unavailable(
                "the store deleted a key that does not exist",
            )),
        }
    }

    /// Whether the numbers of active keys that a batch requires would hold after it. They are
    /// checked before the batch here, and so against limits that leave room for what it adds.
    async fn would_fit(&self, batch: &WriteBatch, added: i64) -> Result<(), StoreError> {
        for condition in batch.conditions() {
            let Condition::ActiveKeysAtMost { owner, at, limit } = condition else {
                continue;
            };
            let too_many = |active: u64| {
                StoreError::rejected(Rejected::TooManyActive {
                    active: active.saturating_add_signed(added),
                    limit: *limit,
                })
            };
            let room = limit.checked_add_signed(-added);
            let before = Condition::ActiveKeysAtMost {
                owner: owner.clone(),
                at: *at,
                limit: room.ok_or_else(|| too_many(*limit))?,
            };
            let asked = WriteBatch::new().require(before);
            self.inner
                .store
                .apply(&asked)
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
    /// That the changes were made, and why other nodes were not told of them, where that is so.
    ///
    /// # Errors
    /// [`ManageError::PreconditionFailed`] if they were not made.
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
