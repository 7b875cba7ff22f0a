//! Revoking and deleting keys, and changing the primary key.

use std::sync::Arc;

use super::precondition::Applied;
use super::text;
use super::watch::Watch;
use super::{ATTEMPTS, KeyManager, ManageError, ManagedKey, readable};
use crate::audit::Action;
use crate::key::{KeyId, KeyRecord, Revocation};
use crate::store::{Change, Condition, OwnerRef, Rejected, WriteBatch};

/// Maximum number of attempts to revoke a key when its record is modified concurrently.
const ATTEMPTS_TO_REVOKE: usize = 1000;

impl KeyManager {
    /// Revokes a key: it is refused permanently, from the next request on. Revoking it again
    /// changes nothing and keeps the first reason. If it was the primary key, the newest active key
    /// becomes primary in the same step.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], [`ManageError::Forbidden`], [`ManageError::PreconditionFailed`],
    /// [`ManageError::Invalid`] for an invalid reason, or a store error.
    /// [`ManageError::NotPublished`] if the key was revoked, but other nodes follow later.
    pub async fn revoke(
        &self,
        id: &KeyId,
        reason: Option<&str>,
    ) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(Action::KeyRevoke);
        let revoked = self.try_revoke(id, reason, &mut watch).await;
        watch.ended(revoked.as_ref().map(|key| &*key.record), || {
            reason.map(|why| self.harmless(why.trim()))
        })?;
        revoked
    }

    async fn try_revoke(
        &self,
        id: &KeyId,
        reason: Option<&str>,
        watch: &mut Watch<'_>,
    ) -> Result<ManagedKey, ManageError> {
        let reason = reason
            .map(|reason| text::lines("reason", reason))
            .transpose()?;
        // The high number of attempts lets a revocation succeed even if the key is changed all the
        // time.
        for _ in 0..ATTEMPTS_TO_REVOKE {
            let (now, found) = (self.now(), watch.find(id).await?);
            self.may(Action::KeyRevoke, &found)?;
            let mut record = (*found).clone();
            let holds = self.precondition_holds(Some(record.version));
            if record.revoked.is_some() {
                match self.apply(&again(&record), holds, 0).await {
                    Ok(applied) => {
                        watch.narrowed(applied.done()?);
                        return Ok(self.done_to(found, false).await);
                    }
                    Err(error) if matches!(error.as_rejected(), Some(Rejected::Version { .. })) => {
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let pin = Change::PinPrimary {
                owner: OwnerRef::of(&record.owner),
                at: now,
            };
            let batch = revocation(&mut record, Revocation::new(now, reason.clone())).change(pin);
            match self.apply(&batch, holds, 0).await {
                Ok(Applied::Done(unpublished)) => {
                    watch.narrowed(unpublished);
                    record.version += 1;
                    return Ok(self.done_to(record, false).await);
                }
                Ok(Applied::Unmet) => return Err(ManageError::PreconditionFailed),
                Err(error) if matches!(error.as_rejected(), Some(Rejected::Version { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ManageError::Contended)
    }

    /// Deletes a key: it is refused from the next request on and removed from all lists. Its id and
    /// digest are kept, so that it can never be imported again.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] for the primary key of an owner who has another active key,
    /// [`ManageError::NotFound`], [`ManageError::Forbidden`], [`ManageError::PreconditionFailed`],
    /// or a store error. [`ManageError::NotPublished`] if the key was deleted, but other nodes
    /// follow later.
    pub async fn delete(&self, id: &KeyId) -> Result<(), ManageError> {
        let mut watch = self.watch(Action::KeyDelete);
        let deleted = self.try_delete(id, &mut watch).await;
        watch.ended(deleted.as_deref(), || None)?;
        deleted.map(drop)
    }

    async fn try_delete(
        &self,
        id: &KeyId,
        watch: &mut Watch<'_>,
    ) -> Result<Arc<KeyRecord>, ManageError> {
        for _ in 0..ATTEMPTS {
            let (now, found) = (self.now(), watch.find(id).await?);
            self.may(Action::KeyDelete, &found)?;
            let owner = OwnerRef::of(&found.owner);
            let primary = self.store.primary(&owner, now).await?;
            let is_primary = primary.as_ref() == Some(id);
            // A primary key can be deleted only if no active key of its owner remains after the batch.
            // For other keys, the primary must not have changed: this key could have become primary.
            let condition = match is_primary {
                true => Condition::ActiveKeysAtMost {
                    owner: owner.clone(),
                    at: now,
                    limit: 0,
                },
                false => Condition::Primary {
                    owner: owner.clone(),
                    key: primary,
                    at: now,
                },
            };
            let batch = WriteBatch::new()
                .require(Condition::Version {
                    id: id.clone(),
                    version: found.version,
                })
                .require(condition)
                .change(Change::Delete(id.clone()))
                .change(Change::PinPrimary { owner, at: now });
            let holds = self.precondition_holds(Some(found.version));
            let added = -i64::from(found.counts_as_active(now));
            match self.apply(&batch, holds, added).await {
                Ok(applied) => {
                    watch.narrowed(applied.done()?);
                    return Ok(found);
                }
                Err(error) => match error.as_rejected() {
                    Some(Rejected::TooManyActive { .. }) => {
                        return Err(ManageError::Conflict(
                            "the primary key cannot be deleted while its owner has another active key",
                        ));
                    }
                    Some(Rejected::Version { .. } | Rejected::Primary) => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Err(ManageError::Contended)
    }

    /// Makes a key its owner's primary key, replacing the previous one.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] for a key that is not active, an access token, or, if events are
    /// signed, an imported key; [`ManageError::NotFound`]; [`ManageError::Forbidden`];
    /// [`ManageError::PreconditionFailed`]; or a store error.
    pub async fn make_primary(&self, id: &KeyId) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(Action::KeyMakePrimary);
        let made = self.try_make_primary(id, &mut watch).await;
        watch.note_end(made.as_ref().map(|key| &*key.record), || None);
        made
    }

    async fn try_make_primary(
        &self,
        id: &KeyId,
        watch: &mut Watch<'_>,
    ) -> Result<ManagedKey, ManageError> {
        for _ in 0..ATTEMPTS {
            let (now, found) = (self.now(), watch.find(id).await?);
            self.may(Action::KeyMakePrimary, &found)?;
            readable(&found)?;
            if !found.may_be_primary {
                return Err(ManageError::Conflict("an imported key cannot sign events"));
            }
            if !found.can_be_primary(now) {
                return Err(ManageError::Conflict(
                    "only an active API key can be primary",
                ));
            }
            let owner = OwnerRef::of(&found.owner);
            let batch = WriteBatch::new()
                .require(Condition::Version {
                    id: id.clone(),
                    version: found.version,
                })
                .change(Change::SetPrimary {
                    owner,
                    key: id.clone(),
                });
            let holds = self.precondition_holds(Some(found.version));
            match self.apply(&batch, holds, 0).await {
                Ok(applied) => {
                    applied.done()?;
                    return Ok(self.done_to(found, true).await);
                }
                Err(error) if matches!(error.as_rejected(), Some(Rejected::Version { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ManageError::Contended)
    }
}

/// Revokes a key in its record, and returns the changes for the store; the owner's primary key is
/// not pinned yet.
pub(super) fn revocation(record: &mut KeyRecord, why: Revocation) -> WriteBatch {
    record.revoked = Some(why);
    // The signing state must not remain usable after the key has ended.
    let clear_signing = Change::SetSigning {
        id: record.id.clone(),
        state: None,
    };
    WriteBatch::new()
        .update(record.clone())
        .change(clear_signing)
}

/// Returns the repetition of a revocation, which changes nothing but publishes it again: the first one
/// may not have been published to other nodes.
pub(super) fn again(revoked: &KeyRecord) -> WriteBatch {
    let (id, version) = (revoked.id.clone(), revoked.version);
    WriteBatch::new()
        .require(Condition::Version {
            id: id.clone(),
            version,
        })
        .change(Change::SetSigning { id, state: None })
}
