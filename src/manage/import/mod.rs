//! Importing keys from another system: their digests are known, their secrets are not.

mod digest;
mod many;

use std::sync::Arc;
use std::time::SystemTime;

pub use digest::ImportedDigest;

use super::check::check_time;
use super::text;
use super::watch::Watch;
use super::{Denied, Idempotency, Issued, KeyManager, ManageError, ManagedKey, NewKey, Rotated};
use crate::audit::Action;
use crate::key::{DigestScheme, KeyDigest, KeyFamily, KeyRecord, Revocation};
use crate::store::{Usage, UsageDelta, WriteBatch};

/// The largest number of uses that an import can state: as many as every reader of JSON represents
/// exactly (RFC 8259 §6).
const MOST_USES: u64 = (1 << 53) - 1;

/// Description of a key to be imported, with its history in the other system.
///
/// Times are truncated to milliseconds. None of the history can lie in the future, and nothing
/// happened to a key before it was created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewImport {
    /// The digest of the key.
    pub digest: ImportedDigest,
    /// Everything else about the key, as for a key that is issued. The expiry can be in the past if
    /// [`created_at`](Self::created_at) is set.
    pub key: NewKey,
    /// The visible part of the secret: at most its last four characters.
    pub last_four: Option<String>,
    /// When the key was created; now by default.
    pub created_at: Option<SystemTime>,
    /// When the key was last used; never by default. Lost if the store does not count uses.
    pub last_used_at: Option<SystemTime>,
    /// How often the key was used, at most 2⁵³ - 1. Needs [`last_used_at`](Self::last_used_at). The
    /// uses count in the total and in no hour.
    pub request_count: u64,
    /// Whether the key is enabled; true by default.
    pub enabled: bool,
    /// The revocation of a key that arrives revoked: its callers learn that it is revoked, and its
    /// digest can never be imported again.
    pub revoked: Option<Revocation>,
    /// The name that a key and its successors have in common in the other system. Imported keys of
    /// one owner with the same name become one [family](KeyRecord::family), and so share their rate
    /// limits. Its name here is derived from tenant, user and the given name, so that an import
    /// reaches no family of another owner.
    pub family: Option<KeyFamily>,
}

impl NewImport {
    /// Creates an import of a key with this digest, without a history.
    #[must_use]
    pub fn new(digest: ImportedDigest, key: NewKey) -> Self {
        Self {
            digest,
            key,
            last_four: None,
            created_at: None,
            last_used_at: None,
            request_count: 0,
            enabled: true,
            revoked: None,
            family: None,
        }
    }
}

/// An import that was checked.
struct Checked {
    record: KeyRecord,
    digest: KeyDigest,
    /// The uses in the other system.
    used: Option<UsageDelta>,
    /// The limits on active keys, as conditions.
    quota: WriteBatch,
}

impl KeyManager {
    /// Imports a key whose secret is unknown. It works on all nodes immediately, and its digest is
    /// replaced by one under the current scheme when the key is first used.
    ///
    /// # Errors
    /// As for [`issue`](Self::issue); [`ManageError::DigestKnown`] if a key with this digest exists
    /// or existed, even if it was deleted; [`ManageError::Invalid`] for a scheme that the service
    /// does not accept, and for a history that cannot be true.
    ///
    /// [`ManageError::Forbidden`] about the field `digest` for a scheme other than the [current
    /// one](crate::key::KeyHasher::scheme), whether or not the digest is known, if the operator is
    /// confined to its own keys or to workspaces, or if the policy
    /// [lists](super::OperatorPolicy::lists) only some keys of the tenant to it for another reason.
    /// Otherwise it could end a key that it does not see, by importing and revoking an older digest
    /// of the same secret.
    pub async fn import(&self, import: NewImport) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(Action::KeyImport);
        let imported = self.try_import(import, &mut watch).await;
        watch.note_end(imported.as_ref().map(|key| &*key.record), || None);
        imported
    }

    async fn try_import(
        &self,
        import: NewImport,
        watch: &mut Watch<'_>,
    ) -> Result<ManagedKey, ManageError> {
        let now = self.now();
        let checked = self.checked_import(import, None, now, watch).await?;
        let batch = many::batch([&checked].into_iter(), now);
        let holds = self.precondition_holds(None);
        let added = i64::from(checked.record.counts_as_active(now));
        // The key is stored even if that could not be published.
        self.apply(&batch, holds, added).await?.done()?;
        Ok(self.done(checked.record).await)
    }

    /// Checks an import. `request` identifies it, if it can be repeated.
    async fn checked_import(
        &self,
        import: NewImport,
        request: Option<&Idempotency>,
        now: SystemTime,
        watch: &mut Watch<'_>,
    ) -> Result<Checked, ManageError> {
        let created_at = created_at(&import, now)?;
        let used = used(&import, created_at, now)?;
        let revoked = revoked(import.revoked, created_at, now)?;
        let (digest, mut key) = (import.digest.digest(), import.key);
        self.check_asked(&mut key).await?;
        self.inner
            .settings
            .host_rules
            .issuing(&self.operator, &mut key)
            .await?;
        self.format_of(key.kind)?;
        let scheme = digest.scheme();
        if !self.inner.authenticator.hasher().accepts(scheme) {
            return Err(ManageError::invalid(
                "digest",
                format!("{scheme} digests are not accepted by this service"),
            ));
        }
        if let Some(end) = key.expires_at.filter(|_| import.created_at.is_some())
            && check_time("expires_at", end)? <= created_at
        {
            return Err(ManageError::invalid(
                "expires_at",
                "must be after created_at",
            ));
        }
        let mut record = self.record_of(key, created_at)?;
        if let Some(last) = &import.last_four {
            let last = text::line("last_four", last)?;
            if last.chars().count() > 4 {
                return Err(ManageError::invalid(
                    "last_four",
                    "at most 4 characters are allowed",
                ));
            }
            record.masked = format!("…{last}").into();
        }
        (record.enabled, record.revoked) = (import.enabled, revoked);
        record.may_be_primary = !self.inner.settings.rules.sign_events;
        if let Some(request) = request {
            request.mark(&mut record);
        }
        if let Some(name) = &import.family {
            record.family = family(name, &record)?;
        }
        watch.makes(&record);
        self.may(Action::KeyImport, &record)?;
        self.may_import_under(scheme)?;
        let limits = self
            .limits_of(record.plan.as_ref(), &record.owner.tenant_id)
            .await?;
        self.may_grant(&record, None, &limits)?;
        let quota = WriteBatch::new();
        let quota = self.within_quota(quota, &record, now, &limits).await?;
        let used = used.filter(|_| self.counts.is_some());
        Ok(Checked {
            used: used.map(|(count, last)| UsageDelta::new(record.id.clone(), count, last, None)),
            record,
            digest,
            quota,
        })
    }

    /// Checks whether the operator may import digests of this scheme.
    ///
    /// Within a tenant, a secret that was revoked under one of its digests is revoked under all of
    /// them. Stores refuse a known digest, but an older digest of a known secret is new to them: an
    /// operator who imports and revokes it ends the key that has the secret. Only the scheme counts
    /// here, so that a refusal does not reveal whether the digest is known.
    fn may_import_under(&self, scheme: DigestScheme) -> Result<(), ManageError> {
        let current = self.inner.authenticator.hasher().scheme();
        if scheme == current || self.sees_all() {
            return Ok(());
        }
        let why = format!(
            "You do not see all keys of the tenant, so you can only import {current} digests"
        );
        Err(Denied::because(why).about("digest").into())
    }

    /// Returns the successor of a rotated key as shown to operators. What cannot be read is left
    /// out: it does not undo the rotation.
    pub async fn overview_of_rotated(&self, rotated: &Rotated) -> ManagedKey {
        let limits = self.limits_shown(&rotated.record).await.ok();
        let record = Arc::clone(&rotated.record);
        self.shown(record, Usage::default(), rotated.primary, limits.as_deref())
    }

    /// Returns an issued key as shown to operators. What cannot be read is left out: the key is
    /// issued.
    pub async fn overview(&self, issued: &Issued) -> ManagedKey {
        let limits = self.limits_shown(&issued.record).await.ok();
        let record = Arc::clone(&issued.record);
        self.shown(record, Usage::default(), issued.primary, limits.as_deref())
    }
}

/// Returns when the key was created.
fn created_at(import: &NewImport, now: SystemTime) -> Result<SystemTime, ManageError> {
    let given = import.created_at.map(|at| check_time("created_at", at));
    let at = given.transpose()?.unwrap_or(now);
    past("created_at", at, now).map(|()| at)
}

/// Returns how often the key was used, and when it was last used.
fn used(
    import: &NewImport,
    created_at: SystemTime,
    now: SystemTime,
) -> Result<Option<(u64, SystemTime)>, ManageError> {
    let count = import.request_count;
    if count > MOST_USES {
        let why = format!("at most {MOST_USES} are allowed");
        return Err(ManageError::invalid("request_count", why));
    }
    let Some(last) = import.last_used_at else {
        return match count {
            0 => Ok(None),
            _ => Err(ManageError::invalid("request_count", "needs last_used_at")),
        };
    };
    let last = check_time("last_used_at", last)?;
    past("last_used_at", last, now)?;
    since_created("last_used_at", last, created_at)?;
    Ok(Some((count, last)))
}

fn revoked(
    revoked: Option<Revocation>,
    created_at: SystemTime,
    now: SystemTime,
) -> Result<Option<Revocation>, ManageError> {
    let Some(Revocation { at, reason }) = revoked else {
        return Ok(None);
    };
    let at = check_time("revoked_at", at)?;
    past("revoked_at", at, now)?;
    since_created("revoked_at", at, created_at)?;
    let reason = reason.map(|reason| text::lines("revoke_reason", &reason));
    Ok(Some(Revocation::new(at, reason.transpose()?)))
}

fn past(field: &'static str, at: SystemTime, now: SystemTime) -> Result<(), ManageError> {
    match at > now {
        true => Err(ManageError::invalid(field, "must not be in the future")),
        false => Ok(()),
    }
}

fn since_created(
    field: &'static str,
    at: SystemTime,
    created_at: SystemTime,
) -> Result<(), ManageError> {
    match at < created_at {
        true => Err(ManageError::invalid(
            field,
            "must not be before created_at, which is now by default",
        )),
        false => Ok(()),
    }
}

/// Returns the family of imported keys of one owner that had this name. It cannot be the family of
/// another key: those are ids of keys, which start differently.
fn family(name: &KeyFamily, record: &KeyRecord) -> Result<KeyFamily, ManageError> {
    let owner = &record.owner;
    let user = owner.user_id.as_ref().map_or("", |user| user.as_str());
    let named = Idempotency::new(owner.tenant_id.as_str(), user, name.as_str(), &[])?;
    let named = named.id().as_str().replacen("key_once_", "family_", 1);
    KeyFamily::new(&named).map_err(|error| ManageError::invalid("key_family", error.to_string()))
}
