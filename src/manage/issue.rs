//! Issuing a key: check the request, generate the key, store its digest, return the secret once.

use std::sync::Arc;
use std::time::SystemTime;

use super::check::{BOUNDS, check_order, check_time, later, once, once_in};
use super::text;
use super::watch::Watch;
use super::{Issued, KeyManager, ManageError, NewKey};
use crate::audit::Action;
use crate::key::{
    Delegation, Environment, KeyDigest, KeyFormat, KeyId, KeyKind, KeyRecord, SigningState,
    WorkspaceId,
};
use crate::limit::PlanLimits;
use crate::scope::Scope;
use crate::store::{Change, Condition, OwnerRef, Rejected, StoreError, WriteBatch};
use crate::text::ParseError;

/// Maximum number of scopes of a key.
const MOST_SCOPES: usize = 256;

impl KeyManager {
    /// Issues a key in one atomic step, together with the check of its quota. The first key of an
    /// owner becomes its primary key.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] with the invalid field, [`ManageError::Forbidden`],
    /// [`ManageError::Refused`], [`ManageError::QuotaExceeded`], [`ManageError::DoneBefore`] for a
    /// repeated request, [`ManageError::PreconditionFailed`], or a store error.
    pub async fn issue(&self, new: NewKey) -> Result<Issued, ManageError> {
        let mut watch = self.watch(Action::KeyIssue);
        let issued = self.try_issue(new, &mut watch).await;
        if matches!(issued, Err(ManageError::DoneBefore(_))) {
            watch.forget();
            return issued;
        }
        watch.note_end(issued.as_ref().map(|issued| &*issued.record), || None);
        issued
    }

    async fn try_issue(
        &self,
        mut new: NewKey,
        watch: &mut Watch<'_>,
    ) -> Result<Issued, ManageError> {
        let (now, request) = (self.now(), new.idempotency.take());
        // Before any rule: a request that already succeeded is not checked again.
        if let Some(request) = &request
            && let Some(done) = self.done_before(request).await?
        {
            return Err(ManageError::DoneBefore(Box::new(done)));
        }
        self.check_asked(&mut new).await?;
        self.inner
            .settings
            .host_rules
            .issuing(&self.operator, &mut new)
            .await?;
        let (format, kind) = (self.format_of(new.kind)?, new.kind);
        let mut record = self.record_of(new, now)?;
        if let Some(request) = &request {
            request.mark(&mut record);
        }
        watch.makes(&record);
        self.may(Action::KeyIssue, &record)?;
        let limits = self
            .limits_of(record.plan.as_ref(), &record.owner.tenant_id)
            .await?;
        self.may_grant(&record, None, &limits)?;
        let key = format.generate(Some(&record.environment), Some(kind))?;
        record.masked = format.mask(&key).into();
        let digest = self.inner.authenticator.hasher().digest(key.as_str());
        let inserted = self
            .insert(
                &record,
                digest,
                self.signing_of(&record, &key),
                now,
                &limits,
            )
            .await;
        match (inserted, request) {
            (Err(ManageError::Store(error)), Some(request)) if is_known(&error) => {
                return Err(self.known(&request).await);
            }
            (inserted, _) => inserted?,
        }
        // The key is stored: no later error may lose its only copy of the secret.
        let primary = self.is_primary(&record, now).await.unwrap_or(false);
        Ok(Issued {
            key,
            record: Arc::new(record),
            primary,
        })
    }

    /// Returns the record of a key that may be created, without the parts that depend on its
    /// secret.
    pub(super) fn record_of(
        &self,
        mut new: NewKey,
        now: SystemTime,
    ) -> Result<KeyRecord, ManageError> {
        once(&mut new.scopes);
        new.workspaces.as_mut().map(once);
        new.delegation.as_mut().map(once_in);
        let environment = self.environment_of(&new)?;
        new.owner = self.inner.authenticator.user_ids().owner(new.owner);
        new.name = text::name(&new.name)?;
        if let Some(description) = &mut new.description {
            *description = text::lines("description", description)?;
        }
        if let Some(email) = &mut new.owner.user_email {
            *email = text::line("owner.user_email", email)?.into();
        }
        new.not_before = new
            .not_before
            .map(|at| check_time("not_before", at))
            .transpose()?;
        new.expires_at = new
            .expires_at
            .map(|at| check_time("expires_at", at))
            .transpose()?;
        self.check(&new, now)?;
        let mut record = KeyRecord::new(
            KeyId::generate()?,
            new.name,
            new.kind,
            environment,
            new.owner,
            now,
        );
        record.description = new.description;
        record.scopes = new.scopes;
        record.access = new.access;
        record.workspaces = new.workspaces;
        record.plan = new.plan;
        record.delegation = new
            .delegation
            .unwrap_or_else(|| self.inner.settings.rules.delegation_of(record.kind));
        record.allowed_ips = new.allowed_ips;
        record.quotas = new.quotas;
        record.metadata = new.metadata;
        record.not_before = new.not_before;
        record.expires_at = new.expires_at;
        if record.kind == KeyKind::AccessToken && record.expires_at.is_none() {
            let lifetime = self.inner.settings.rules.access_token_lifetime;
            let end = |lifetime| {
                later(now, lifetime).ok_or_else(|| ManageError::invalid("expires_at", BOUNDS))
            };
            record.expires_at = lifetime.map(end).transpose()?;
        }
        Ok(record)
    }

    /// Stores a new key under its quota.
    pub(super) async fn insert(
        &self,
        record: &KeyRecord,
        digest: KeyDigest,
        signing: Option<SigningState>,
        now: SystemTime,
        limits: &PlanLimits,
    ) -> Result<(), ManageError> {
        // Pinned before the insertion as well, so that the new key does not replace a key that
        // became primary only because others expired.
        let pin = Change::PinPrimary {
            owner: OwnerRef::of(&record.owner),
            at: now,
        };
        let batch = WriteBatch::new()
            .change(pin)
            .join(insertion(record, digest, signing, now));
        let batch = self.within_quota(batch, record, now, limits).await?;
        let holds = self.precondition_holds(None);
        // A publishing error is ignored: it must not lose the new secret.
        self.apply(&batch, holds, 1).await?.done().map(drop)
    }

    /// Adds the limits on active keys to a batch, if the key counts as active.
    pub(super) async fn within_quota(
        &self,
        batch: WriteBatch,
        record: &KeyRecord,
        now: SystemTime,
        limits: &PlanLimits,
    ) -> Result<WriteBatch, ManageError> {
        if !record.counts_as_active(now) {
            return Ok(batch);
        }
        let of_tenant = self.active_keys(record, limits).await?;
        let of_tenant =
            of_tenant.map(|limit| (OwnerRef::Tenant(record.owner.tenant_id.clone()), limit));
        let of_owner = self
            .inner
            .settings
            .rules
            .active_keys_per_owner
            .map(|limit| (OwnerRef::of(&record.owner), limit));
        let limits = [of_tenant, of_owner].into_iter().flatten();
        // A family in its grace period counts as one, unless rotated keys stay.
        let at = now;
        let at_most = |(owner, limit)| match self.inner.settings.rules.rotated_keys_stay {
            true => Condition::ActiveKeysAtMost { owner, at, limit },
            false => Condition::ActiveFamiliesAtMost { owner, at, limit },
        };
        Ok(limits.map(at_most).fold(batch, WriteBatch::require))
    }

    fn environment_of(&self, new: &NewKey) -> Result<Environment, ManageError> {
        let known = &self.inner.settings.environments;
        match &new.environment {
            // Never empty: ensured by build().
            None => known
                .first()
                .cloned()
                .ok_or_else(|| ManageError::invalid("environment", "no environment is configured")),
            Some(asked) if known.contains(asked) => Ok(asked.clone()),
            Some(asked) => {
                let names: Vec<_> = known.iter().map(Environment::as_str).collect();
                Err(ManageError::invalid(
                    "environment",
                    format!("{asked} is not one of {}", names.join(", ")),
                ))
            }
        }
    }

    pub(super) fn format_of(&self, kind: KeyKind) -> Result<&KeyFormat, ManageError> {
        let formats = &self.inner.formats;
        let own = formats.iter().find(|(kinds, _)| kinds.contains(&kind));
        let any = || {
            formats
                .iter()
                .find(|(kinds, _)| kinds.is_empty() && kind != KeyKind::AccessToken)
        };
        own.or_else(any)
            .map(|(_, format)| format)
            .filter(|format| format.allows_kind(kind))
            .ok_or_else(|| {
                ManageError::invalid("kind", format!("this API has no keys of kind {kind}"))
            })
    }

    fn check(&self, new: &NewKey, now: SystemTime) -> Result<(), ManageError> {
        if new.kind != KeyKind::App && new.owner.user_id.is_none() {
            return Err(ManageError::invalid(
                "owner.user_id",
                format!("a key of kind {} needs a user", new.kind),
            ));
        }
        self.check_scopes(new.kind, &new.scopes)?;
        if new.kind != KeyKind::App
            && new
                .delegation
                .as_ref()
                .is_some_and(|delegation| *delegation != Delegation::Off)
        {
            return Err(ManageError::invalid(
                "delegation",
                "only application keys can act for users",
            ));
        }
        self.check_delegation(new.delegation.as_ref())?;
        check_workspaces(new.workspaces.as_deref())?;
        let rules = &self.inner.settings.rules;
        let api_key = new.kind != KeyKind::AccessToken;
        if api_key && rules.never_expire && new.expires_at.is_some() {
            return Err(ManageError::invalid(
                "expires_at",
                "API keys of this API cannot have an expiry",
            ));
        }
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(ManageError::invalid("expires_at", "must be in the future"));
        }
        check_order(new.not_before, new.expires_at)
    }

    /// Checks the scopes of a delegation: they must be scopes that can be granted.
    pub(super) fn check_delegation(
        &self,
        delegation: Option<&Delegation>,
    ) -> Result<(), ManageError> {
        match delegation {
            Some(Delegation::Only(scopes)) => self
                .check_scopes(KeyKind::AccessToken, scopes)
                .map_err(|error| match error {
                    ManageError::Invalid { reason, .. } => ManageError::Invalid {
                        field: "delegation",
                        reason,
                    },
                    error => error,
                }),
            Some(Delegation::Off | Delegation::On) | None => Ok(()),
        }
    }

    /// Checks that these scopes can be granted to a key of this kind.
    pub(super) fn check_scopes(&self, kind: KeyKind, scopes: &[Scope]) -> Result<(), ManageError> {
        if scopes.len() > MOST_SCOPES {
            return Err(ManageError::invalid(
                "scopes",
                format!("at most {MOST_SCOPES} scopes are allowed"),
            ));
        }
        if self.inner.authenticator.is_unscoped(kind) && !scopes.is_empty() {
            return Err(ManageError::invalid(
                "scopes",
                "API keys of this API have no scopes",
            ));
        }
        match &self.inner.settings.vocabulary {
            Some(vocabulary) => {
                let unknown = |error: ParseError| ManageError::invalid("scopes", error.to_string());
                vocabulary.check(scopes).map_err(unknown)
            }
            None => Ok(()),
        }
    }
}

/// Returns the changes that store a new key and make it primary if its owner has no primary key.
pub(super) fn insertion(
    record: &KeyRecord,
    digest: KeyDigest,
    signing: Option<SigningState>,
    now: SystemTime,
) -> WriteBatch {
    let pin = Change::PinPrimary {
        owner: OwnerRef::of(&record.owner),
        at: now,
    };
    let insert = Change::Insert {
        digest,
        record: Box::new(record.clone()),
    };
    let batch = WriteBatch::new().change(insert).change(pin);
    match signing {
        None => batch,
        state => batch.change(Change::SetSigning {
            id: record.id.clone(),
            state,
        }),
    }
}

/// Returns whether the store refused a new key because its id already exists.
pub(super) fn is_known(error: &StoreError) -> bool {
    matches!(error.as_rejected(), Some(Rejected::IdKnown(_)))
}

/// Maximum number of workspaces of a key.
const MOST_WORKSPACES: usize = 1000;

/// Checks the number of workspaces. `None` means all workspaces; an empty list is invalid.
pub(super) fn check_workspaces(workspaces: Option<&[WorkspaceId]>) -> Result<(), ManageError> {
    match workspaces.map(<[WorkspaceId]>::len) {
        Some(0) => Err(ManageError::invalid(
            "workspaces",
            "a workspace-scoped key needs at least one workspace",
        )),
        Some(count) if count > MOST_WORKSPACES => Err(ManageError::invalid(
            "workspaces",
            format!("at most {MOST_WORKSPACES} workspaces are allowed"),
        )),
        _ => Ok(()),
    }
}
