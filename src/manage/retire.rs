//! The end of a key, and who takes its place: revoke, delete, make primary.

use std::sync::Arc;

use super::precondition::Applied;
use super::text;
use super::watch::Watch;
use super::{ATTEMPTS, KeyManager, ManageError, ManagedKey, readable};
use crate::audit::Action;
use crate::key::{KeyId, KeyRecord, Revocation};
use crate::store::{Change, Condition, OwnerRef, Rejected, WriteBatch};

/// How often a revocation is tried again when somebody else changed the record in between.
const ATTEMPTS_TO_REVOKE: usize = 1000;

impl KeyManager {
    /// Refuses a key from the next request on, for good. Revoking it again changes nothing and
    /// keeps the first reason. Was it the primary key, the newest active one becomes it in the same
    /// step.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], [`ManageError::Forbidden`], [`ManageError::PreconditionFailed`],
    /// a reason that is too long or cannot be read as it is stored, or the store giving no answer.
    /// [`ManageError::NotPublished`] where it is revoked, and other nodes follow later.
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
        // However much others change the key meanwhile: a revocation gets through.
        for _ in 0..ATTEMPTS_TO_REVOKE {
            let (now, found) = (self.now(), watch.find(id).await?);
            self.may(Action::KeyRevoke, &found)?;
            let mut record = (*found).clone();
            let holds = self.precondition_holds(Some(record.version));
            if record.revoked.is_some() {
                // Whoever asks again may never have heard that it was done: then perhaps nobody
                // else has, either. A write that changes nothing tells every node once more.
                let again = WriteBatch::new()
                    .require(Condition::Version {
                        id: id.clone(),
                        version: record.version,
                    })
                    .change(Change::SetSigning {
                        id: id.clone(),
                        state: None,
                    });
                match self.apply(&again, holds, 0).await {
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
            record.revoked = Some(Revocation::new(now, reason.clone()));
            let pin = Change::PinPrimary {
                owner: OwnerRef::of(&record.owner),
                at: now,
            };
            // Whoever has the store must not sign with a key that has ended.
            let forget = Change::SetSigning {
                id: id.clone(),
                state: None,
            };
            let batch = WriteBatch::new()
                .update(record.clone())
                .change(forget)
                .change(pin);
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

    /// Refuses a key from the next request on and takes it out of all lists. Its id and digest stay
    /// known, so that it can never be imported again.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] for the primary key of an owner who has another active one,
    /// [`ManageError::NotFound`], [`ManageError::Forbidden`], [`ManageError::PreconditionFailed`],
    /// or the store giving no answer. [`ManageError::NotPublished`] where it is deleted, and other nodes
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
            let primary = self.inner.store.primary(&owner, now).await?;
            let is_primary = primary.as_ref() == Some(id);
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
                            "the primary key of an owner who has another active one",
                        ));
                    }
                    Some(Rejected::Version { .. } | Rejected::Primary) => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Err(ManageError::Contended)
    }

    /// Makes a key its owner's primary one, in the place of the one before.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] for a key that is not active, an access token, or, where events
    /// are signed, an imported key; [`ManageError::NotFound`]; [`ManageError::Forbidden`];
    /// [`ManageError::PreconditionFailed`]; or the store giving no answer.
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
                    "only an active API key can be the primary one",
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
