//! Rotating a key: a successor with the same facts, while the old one works on for its grace.
//!
//! Without a grace the old key is revoked, which no clock undoes; a grace that is over is an expiry.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::check::{BOUNDS, later, latest};
use super::idempotency::DELETED_SINCE;
use super::issue::is_known;
use super::precondition::Applied;
use super::watch::Watch;
use super::{ATTEMPTS, Idempotency, KeyManager, ManageError, readable};
use crate::audit::Action;
use crate::key::{KeyId, KeyKind, KeyRecord, PlaintextKey, Revocation};
use crate::store::{Change, Condition, OwnerRef, Rejected, WriteBatch};

/// A key that was just rotated.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rotated {
    /// The successor's secret: this once.
    pub key: PlaintextKey,
    /// The successor. It shares its family, and so its quota of requests, with the old key.
    pub record: Arc<KeyRecord>,
    /// Whether the successor is its owner's primary key: only where the old one was and has ended.
    pub primary: bool,
    /// The old key, with the end of its grace; without a grace it is revoked.
    pub old: Arc<KeyRecord>,
}

impl Rotated {
    /// When the old key stops working; `None` where it works until it is deleted.
    #[must_use]
    pub fn old_works_until(&self) -> Option<SystemTime> {
        let revoked = self.old.revoked.as_ref().map(|revocation| revocation.at);
        revoked.or(self.old.expires_at)
    }
}

/// Why a key was revoked that was rotated without a grace.
const ROTATED: &str = "rotated";

impl KeyManager {
    /// Gives a key a successor with the same facts, and the same lifetime anew where it had one.
    /// The old key works until the grace is over, and never past its own expiry. Without a grace, or
    /// with one of less than a millisecond, it is revoked in the same step, with the reason
    /// `rotated`; if it was its owner's primary key, the successor becomes that. Where the rules say
    /// that rotated keys stay, it works on until it is deleted, and no grace can be asked for.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] for a key that has ended or has a successor already,
    /// [`ManageError::Invalid`] for a grace that cannot be and for access tokens,
    /// [`ManageError::QuotaExceeded`] (the successor counts), [`ManageError::NotFound`],
    /// [`ManageError::Forbidden`], [`ManageError::PreconditionFailed`], or the store giving no
    /// answer.
    pub async fn rotate(
        &self,
        id: &KeyId,
        grace: Option<Duration>,
    ) -> Result<Rotated, ManageError> {
        self.rotate_once(id, grace, None).await
    }

    /// The same for a request that is recognized when it is repeated.
    ///
    /// # Errors
    /// As for [`rotate`](Self::rotate), and [`ManageError::DoneBefore`].
    pub async fn rotate_once(
        &self,
        id: &KeyId,
        grace: Option<Duration>,
        request: Option<Idempotency>,
    ) -> Result<Rotated, ManageError> {
        let mut watch = self.watch(Action::KeyRotate);
        let rotated = self.try_rotate(id, grace, request, &mut watch).await;
        if matches!(rotated, Err(ManageError::DoneBefore(_))) {
            watch.forget();
            return rotated;
        }
        let successor = || {
            Some(format!(
                "its successor is {}",
                rotated.as_ref().ok()?.record.id
            ))
        };
        watch.note_end(rotated.as_ref().map(|rotated| &*rotated.old), successor);
        rotated
    }

    async fn try_rotate(
        &self,
        id: &KeyId,
        grace: Option<Duration>,
        request: Option<Idempotency>,
        watch: &mut Watch<'_>,
    ) -> Result<Rotated, ManageError> {
        let stay = self.inner.settings.rules.rotated_keys_stay;
        if stay && grace.is_some() {
            return Err(ManageError::invalid(
                "grace_seconds",
                "here a rotated key works until it is deleted",
            ));
        }
        for _ in 0..ATTEMPTS {
            let (now, found) = (self.now(), watch.find(id).await?);
            // Before any rule: what was done once is not judged anew.
            if let Some(request) = &request {
                if let Some(done) = self.done_before(request).await? {
                    return Err(ManageError::DoneBefore(Box::new(done)));
                }
                if request.made(found.successor.as_ref()) {
                    return Err(DELETED_SINCE);
                }
            }
            self.may(Action::KeyRotate, &found)?;
            readable(&found)?;
            let mut old = (*found).clone();
            if old.kind == KeyKind::AccessToken {
                return Err(ManageError::invalid(
                    "kind",
                    "access tokens are issued anew, not rotated",
                ));
            }
            if let Some(successor) = &old.successor
                && self
                    .inner
                    .store
                    .get(successor)
                    .await?
                    .is_some_and(|one| one.counts_as_active(now))
            {
                return Err(ManageError::Conflict(
                    "this key has a successor already: rotate that one",
                ));
            }
            if !old.counts_as_active(now) {
                return Err(ManageError::Conflict(
                    "a key that has ended cannot be rotated",
                ));
            }
            let format = self.format_of(old.kind)?;
            let key = format.generate(Some(&old.environment), Some(old.kind))?;
            let mut record = successor_of(&old, KeyId::generate()?, now);
            if let Some(request) = &request {
                request.mark(&mut record);
            }
            if let Some(latest) = self.latest_end(now) {
                record.expires_at = Some(record.expires_at.map_or(latest, |end| end.min(latest)));
            }
            // Whoever rotates a key holds the secret of its successor.
            self.may_grant(&record, None)?;
            record.masked = format.mask(&key);
            old.successor = Some(record.id.clone());
            match grace.filter(|grace| grace.as_millis() > 0) {
                _ if stay => {}
                // No expiry: a clock that is behind, or steps back, must not revive a leaked key.
                None => old.revoked = Some(Revocation::new(now, Some(ROTATED.to_owned()))),
                Some(grace) => {
                    let reason = || format!("it is too long: {BOUNDS}");
                    let end = later(now, grace)
                        .ok_or_else(|| ManageError::invalid("grace_seconds", reason()))?;
                    old.expires_at = Some(old.expires_at.map_or(end, |own| own.min(end)));
                }
            }
            let digest = self.inner.authenticator.hasher().digest(key.as_str());
            let insertion = self.insertion(&record, digest, self.signing_of(&record, &key), now);
            // Pinned before, so that nothing but the end of the old key gives its place away; then
            // to the successor.
            let pin = Change::PinPrimary {
                owner: OwnerRef::of(&old.owner),
                at: now,
            };
            let mut batch = WriteBatch::new()
                .change(pin)
                .update(old.clone())
                .join(insertion);
            let owner = OwnerRef::of(&old.owner);
            let mut is_primary = false;
            if !old.counts_as_active(now) {
                // It ends with this: its place goes to its successor, whatever the time says that
                // each was made.
                let primary = self.inner.store.primary(&owner, now).await?;
                if primary.as_ref() == Some(&old.id) {
                    is_primary = true;
                    batch = batch
                        .require(Condition::Primary {
                            owner: owner.clone(),
                            key: primary,
                            at: now,
                        })
                        .change(Change::SetPrimary {
                            owner,
                            key: record.id.clone(),
                        });
                }
                batch = batch.change(Change::SetSigning {
                    id: old.id.clone(),
                    state: None,
                });
            }
            let holds = self.precondition_holds(Some(found.version));
            let added = i64::from(old.counts_as_active(now));
            match self.apply(&batch, holds, added).await {
                Ok(Applied::Unmet) => return Err(ManageError::PreconditionFailed),
                Ok(Applied::Done(_)) => {
                    old.version += 1;
                    return Ok(Rotated {
                        key,
                        record: Arc::new(record),
                        primary: is_primary,
                        old: Arc::new(old),
                    });
                }
                Err(error) if is_known(&error) => match &request {
                    Some(request) => return Err(self.known(request).await),
                    None => return Err(error.into()),
                },
                Err(error)
                    if matches!(
                        error.as_rejected(),
                        Some(Rejected::Version { .. } | Rejected::Primary)
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ManageError::Contended)
    }
}

fn successor_of(old: &KeyRecord, id: KeyId, now: SystemTime) -> KeyRecord {
    let mut new = old.clone();
    new.id = id;
    new.version = 1;
    new.created_at = now;
    // As long as the old one was to live. Where the clock was set back meanwhile, that began now at
    // the latest.
    let lifetime = |end: SystemTime| {
        end.duration_since(old.created_at.min(now))
            .unwrap_or_default()
    };
    // What would last beyond what can be told ends with what can be.
    new.expires_at = old
        .expires_at
        .map(|end| later(now, lifetime(end)).unwrap_or_else(latest));
    // A beginning that has passed says nothing any more.
    new.not_before = old.not_before.filter(|start| *start > now);
    new.predecessor = Some(old.id.clone());
    new.successor = None;
    new.origin = None;
    new.revoked = None;
    // Its secret is known: it can sign.
    new.may_be_primary = true;
    new
}
