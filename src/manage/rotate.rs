//! Rotating a key: creating a successor with the same settings, while the old key works until its
//! grace period ends.
//!
//! Without a grace period the old key is revoked, which no change of the clock can undo. The end of
//! a grace period is an expiry.
//!
//! A family has at most two working keys, the newest one and the one that it replaces, and no key of
//! it can come back to life. So a rotation needs no place in the quota of active keys, and cannot be
//! used to evade it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::check::{BOUNDS, later, latest};
use super::idempotency::DELETED_SINCE;
use super::issue::{insertion, is_known};
use super::precondition::Applied;
use super::watch::Watch;
use super::{ATTEMPTS, Idempotency, KeyManager, ManageError, readable};
use crate::audit::Action;
use crate::key::{KeyId, KeyKind, KeyRecord, PlaintextKey, Revocation};
use crate::store::{Change, Condition, OwnerRef, Rejected, WriteBatch};

/// A newly rotated key.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rotated {
    /// The successor's secret, which cannot be retrieved again.
    pub key: PlaintextKey,
    /// The successor. It has the same family as the old key, and therefore shares its rate limits.
    pub record: Arc<KeyRecord>,
    /// Whether the successor is its owner's primary key. True only if the old key was primary and
    /// has ended.
    pub primary: bool,
    /// The old key, with the end of its grace period as its expiry; revoked if there is no grace
    /// period.
    pub old: Arc<KeyRecord>,
}

impl Rotated {
    /// Returns when the old key stops working; `None` if it works until it is deleted.
    #[must_use]
    pub fn old_works_until(&self) -> Option<SystemTime> {
        let revoked = self.old.revoked.as_ref().map(|revocation| revocation.at);
        revoked.or(self.old.expires_at)
    }
}

/// Revocation reason of a key that was rotated without a grace period, or whose successor was
/// rotated.
const ROTATED: &str = "rotated";

/// How many predecessors of a key are examined. Only the first one can work, except where an
/// earlier version rotated.
const MOST_PREDECESSORS: usize = 8;

impl KeyManager {
    /// Issues a successor with the same settings. If the old key had a lifetime, the successor has
    /// the same lifetime, starting now. The old key works until the grace period ends, and never
    /// past its own expiry. Without a grace period, or with one of less than a millisecond, the old
    /// key is revoked in the same step with the reason `rotated`; if it was its owner's primary
    /// key, the successor becomes primary. Rotating the successor revokes the old key in the same way,
    /// whatever is left of its grace period: a family has at most two working keys, and the rotation
    /// succeeds at the limit of active keys, too. If
    /// [`IssueRules::rotated_keys_stay`](super::IssueRules::rotated_keys_stay) is set, the old key
    /// works until it is deleted, the successor counts against the limit, and a grace period is
    /// refused.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] for a key that has ended or already has a successor,
    /// [`ManageError::Invalid`] for an invalid grace period and for access tokens,
    /// [`ManageError::QuotaExceeded`] where rotated keys stay, [`ManageError::NotFound`],
    /// [`ManageError::Forbidden`], [`ManageError::PreconditionFailed`], or a store error.
    pub async fn rotate(
        &self,
        id: &KeyId,
        grace: Option<Duration>,
    ) -> Result<Rotated, ManageError> {
        self.rotate_once(id, grace, None).await
    }

    /// Like [`rotate`](Self::rotate), for a request that is recognized when it is repeated.
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
            return Ok(rotated?.0);
        }
        let detail = || {
            let (rotated, ended) = rotated.as_ref().ok()?;
            let ended = ended.iter().map(|key| format!("; {} is revoked", key.id));
            let ended: String = ended.collect();
            Some(format!("its successor is {}{ended}", rotated.record.id))
        };
        let done = rotated.as_ref().map(|(rotated, _)| &*rotated.old);
        watch.note_end(done, detail);
        Ok(rotated?.0)
    }

    /// Returns the other keys of a family that a rotation of this key revokes: older ones that still
    /// work, and a former successor that expired and could otherwise be extended.
    async fn ended_by_rotation(
        &self,
        key: &KeyRecord,
        now: SystemTime,
    ) -> Result<Vec<KeyRecord>, ManageError> {
        let mut ended = Vec::new();
        let mut older = key.predecessor.clone();
        for _ in 0..MOST_PREDECESSORS {
            let Some(id) = older.take() else { break };
            let Some(record) = self.store.get(&id).await? else {
                break;
            };
            older.clone_from(&record.predecessor);
            if record.counts_as_active(now) {
                ended.push((*record).clone());
            }
        }
        if let Some(id) = &key.successor
            && let Some(record) = self.store.get(id).await?
            && record.revoked.is_none()
        {
            ended.push((*record).clone());
        }
        for record in &mut ended {
            record.revoked = Some(Revocation::new(now, Some(ROTATED.to_owned())));
        }
        Ok(ended)
    }

    async fn try_rotate(
        &self,
        id: &KeyId,
        grace: Option<Duration>,
        request: Option<Idempotency>,
        watch: &mut Watch<'_>,
    ) -> Result<(Rotated, Vec<KeyRecord>), ManageError> {
        let stay = self.inner.settings.rules.rotated_keys_stay;
        if stay && grace.is_some() {
            return Err(ManageError::invalid(
                "grace_seconds",
                "rotated keys of this API work until they are deleted: no grace period can be set",
            ));
        }
        for _ in 0..ATTEMPTS {
            let (now, found) = (self.now(), watch.find(id).await?);
            // Before any rule: a request that already succeeded is not checked again.
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
                    "access tokens cannot be rotated: issue a new one",
                ));
            }
            if let Some(successor) = &old.successor
                && self
                    .store
                    .get(successor)
                    .await?
                    .is_some_and(|key| key.counts_as_active(now))
            {
                return Err(ManageError::Conflict(
                    "the key already has a successor: rotate the successor",
                ));
            }
            if !old.counts_as_active(now) {
                return Err(ManageError::Conflict(
                    "a revoked or expired key cannot be rotated",
                ));
            }
            let format = self.format_of(old.kind)?;
            let key = format.generate(Some(&old.environment), Some(old.kind))?;
            let mut record = successor_of(&old, KeyId::generate()?, now);
            if let Some(request) = &request {
                request.mark(&mut record);
            }
            let limits = self.limits_of_key(&record).await?;
            if let Some(latest) = self.latest_end(now, &limits) {
                record.expires_at = Some(record.expires_at.map_or(latest, |end| end.min(latest)));
            }
            // The operator receives the successor's secret, so it must be allowed to grant what the
            // key grants.
            self.check_taken_over(&record, &limits).await?;
            self.may_grant(&record, None, &limits)?;
            record.masked = format.mask(&key).into();
            old.successor = Some(record.id.clone());
            match grace.filter(|grace| grace.as_millis() > 0) {
                _ if stay => {}
                // Not an expiry: a clock that is behind, or steps back, must not revive a leaked
                // key.
                None => old.revoked = Some(Revocation::new(now, Some(ROTATED.to_owned()))),
                Some(grace) => {
                    let reason = || format!("the end of the grace period {BOUNDS}");
                    let end = later(now, grace)
                        .ok_or_else(|| ManageError::invalid("grace_seconds", reason()))?;
                    old.expires_at = Some(old.expires_at.map_or(end, |own| own.min(end)));
                }
            }
            let digest = self.inner.authenticator.hasher().digest(key.as_str());
            let signing = self.signing_of(&record, &key);
            // Pinned before the update, so that a change of the primary key can only result from
            // the end of the old key.
            let pin = Change::PinPrimary {
                owner: OwnerRef::of(&old.owner),
                at: now,
            };
            let others = match stay {
                true => Vec::new(),
                false => self.ended_by_rotation(&found, now).await?,
            };
            let batch = WriteBatch::new().change(pin).update(old.clone());
            let batch = others.iter().cloned().fold(batch, WriteBatch::update);
            let mut batch = batch.join(insertion(&record, digest, signing, now));
            if stay {
                batch = self.within_quota(batch, &record, now, &limits).await?;
            }
            let owner = OwnerRef::of(&old.owner);
            let mut is_primary = false;
            let old_ends = Some(&old).filter(|old| !old.counts_as_active(now));
            let ended: Vec<_> = others.iter().chain(old_ends).collect();
            if !ended.is_empty() {
                // These keys end in this step. If one of them is primary, the successor becomes
                // primary explicitly, because creation times do not decide it reliably.
                let primary = self.store.primary(&owner, now).await?;
                if ended.iter().any(|key| primary.as_ref() == Some(&key.id)) {
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
                batch = ended.iter().fold(batch, |batch, key| {
                    batch.change(Change::SetSigning {
                        id: key.id.clone(),
                        state: None,
                    })
                });
            }
            let holds = self.precondition_holds(Some(found.version));
            let added = i64::from(old.counts_as_active(now));
            match self.apply(&batch, holds, added).await {
                Ok(Applied::Unmet) => return Err(ManageError::PreconditionFailed),
                Ok(Applied::Done(_)) => {
                    old.version += 1;
                    let rotated = Rotated {
                        key,
                        record: Arc::new(record),
                        primary: is_primary,
                        old: Arc::new(old),
                    };
                    return Ok((rotated, others));
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
    // The successor gets the old key's lifetime. If the clock was set back meanwhile, that lifetime
    // is counted from now at the latest.
    let lifetime = |end: SystemTime| {
        end.duration_since(old.created_at.min(now))
            .unwrap_or_default()
    };
    // An expiry beyond the latest representable time becomes that time.
    new.expires_at = old
        .expires_at
        .map(|end| later(now, lifetime(end)).unwrap_or_else(latest));
    // A start that has passed has no effect.
    new.not_before = old.not_before.filter(|start| *start > now);
    new.predecessor = Some(old.id.clone());
    new.successor = None;
    new.origin = None;
    new.revoked = None;
    // The successor's secret is known, so it can sign events.
    new.may_be_primary = true;
    new
}
