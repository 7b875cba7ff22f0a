//! Issuing a key: check what is asked, generate, store the digest, show the secret once.

use std::sync::Arc;
use std::time::SystemTime;

use super::check::{BOUNDS, check_order, check_time, later, once, once_in};
use super::text;
use super::watch::Watch;
use super::{Idempotency, KeyManager, ManageError};
use crate::audit::Action;
use crate::key::{
    Access, Delegation, Environment, KeyDigest, KeyFormat, KeyId, KeyKind, KeyRecord, Metadata,
    Owner, PlaintextKey, PlanName, SigningState, WorkspaceId,
};
use crate::network::AllowList;
use crate::quota::Quotas;
use crate::scope::Scope;
use crate::store::{Change, Condition, OwnerRef, Rejected, StoreError, WriteBatch};
use crate::text::ParseError;

/// A rule of [`text`].
type TextRule = fn(&'static str, &str) -> Result<String, ManageError>;

/// The most scopes of a key.
const MOST_SCOPES: usize = 256;

/// A key to be issued. Only name and owner are needed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewKey {
    /// A name for people: one line of 1 to 1000 characters, one of them visible. White space at
    /// both ends is left out. Control, direction, annotation and tag characters are refused, and so
    /// are invisible ones, except joiners (U+200C, U+200D) between two visible characters and
    /// variation selectors after one: Persian, Indic scripts and emoji need them. The flags of
    /// England, Scotland and Wales are made of tag characters.
    pub name: String,
    /// More for people: at most 1000 characters, of several lines; else as the name.
    pub description: Option<String>,
    /// Whom it stands for; an application unless set.
    pub kind: KeyKind,
    /// Where it works; the manager's first environment unless set.
    pub environment: Option<Environment>,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What it grants: at most 256 scopes; one that stands twice counts once.
    pub scopes: Vec<Scope>,
    /// Whether it may write.
    pub access: Access,
    /// The only workspaces it reaches: 1 to 1000, one that stands twice counts once; all of the
    /// tenant's unless set.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The plan that its owner pays for; the tenant's, as [`HostRules`](super::HostRules) name it,
    /// unless set.
    pub plan: Option<PlanName>,
    /// Whether it may act for users; as the API's rules say unless set.
    pub delegation: Option<Delegation>,
    /// Where it may be used from; anywhere unless set.
    pub allowed_ips: Option<AllowList>,
    /// How often it may be used; as often as the authenticator's default allows unless set.
    pub quotas: Option<Quotas>,
    /// The host's own facts.
    pub metadata: Metadata,
    /// From when on it works; at once unless set.
    pub not_before: Option<SystemTime>,
    /// The first instant at which it no longer works; never unless set.
    pub expires_at: Option<SystemTime>,
    /// Recognizes the request when it is repeated; each one is its own unless set.
    pub idempotency: Option<Idempotency>,
}

impl NewKey {
    /// An application key of this owner, without scopes, that never expires.
    #[must_use]
    pub fn new(name: impl Into<String>, owner: Owner) -> Self {
        Self {
            name: name.into(),
            description: None,
            kind: KeyKind::App,
            environment: None,
            owner,
            scopes: Vec::new(),
            access: Access::default(),
            workspaces: None,
            plan: None,
            delegation: None,
            allowed_ips: None,
            quotas: None,
            metadata: Metadata::default(),
            not_before: None,
            expires_at: None,
            idempotency: None,
        }
    }

    /// The same with these scopes.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
        self
    }

    /// The same in this environment.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// The same, with a first instant at which it no longer works.
    #[must_use]
    pub fn expiring_at(mut self, instant: SystemTime) -> Self {
        self.expires_at = Some(instant);
        self
    }

    /// The same, to be used from these addresses only.
    #[must_use]
    pub fn with_allowed_ips(mut self, addresses: AllowList) -> Self {
        self.allowed_ips = Some(addresses);
        self
    }

    /// The same with quotas of its own.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// The same, saying whether it may act for users.
    #[must_use]
    pub fn with_delegation(mut self, delegation: Delegation) -> Self {
        self.delegation = Some(delegation);
        self
    }
}

/// A key that was just issued.
#[derive(Debug)]
#[non_exhaustive]
pub struct Issued {
    /// The secret: this once.
    pub key: PlaintextKey,
    /// All else.
    pub record: Arc<KeyRecord>,
    /// Whether it became its owner's primary key.
    pub primary: bool,
}

impl KeyManager {
    /// Issues a key, in one atomic step with its quota. The first one of an owner becomes its
    /// primary key.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] with the field that cannot be, [`ManageError::Forbidden`],
    /// [`ManageError::Refused`], [`ManageError::QuotaExceeded`], [`ManageError::DoneBefore`] for a
    /// request that is repeated, [`ManageError::PreconditionFailed`], or the store giving no answer.
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
        // Before any rule: what was done once is not judged anew.
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
        self.may_grant(&record, None)?;
        let key = format.generate(Some(&record.environment), Some(kind))?;
        record.masked = format.mask(&key);
        let digest = self.inner.authenticator.hasher().digest(key.as_str());
        let inserted = self
            .insert(&record, digest, self.signing_of(&record, &key), now)
            .await;
        match (inserted, request) {
            (Err(ManageError::Store(error)), Some(request)) if is_known(&error) => {
                return Err(self.known(&request).await);
            }
            (inserted, _) => inserted?,
        }
        // It is there: nothing that fails from here on may lose its only secret.
        let primary = self.is_primary(&record, now).await.unwrap_or(false);
        Ok(Issued {
            key,
            record: Arc::new(record),
            primary,
        })
    }

    /// The record of a key that may be made, without what depends on its secret.
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
        for (field, free, check) in [
            ("description", &mut new.description, text::lines as TextRule),
            ("owner.user_email", &mut new.owner.user_email, text::line),
        ] {
            *free = free.take().map(|text| check(field, &text)).transpose()?;
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

    /// Makes a key, under its quota.
    pub(super) async fn insert(
        &self,
        record: &KeyRecord,
        digest: KeyDigest,
        signing: Option<SigningState>,
        now: SystemTime,
    ) -> Result<(), ManageError> {
        // Pinned before too, so that a newer key does not take the place of one that time has made
        // the primary.
        let pin = Change::PinPrimary {
            owner: OwnerRef::of(&record.owner),
            at: now,
        };
        let batch = WriteBatch::new()
            .change(pin)
            .join(self.insertion(record, digest, signing, now));
        let holds = self.precondition_holds(None);
        // A secret that was made is not lost because other nodes follow later.
        self.apply(&batch, holds, 1).await?.done().map(drop)
    }

    /// The changes that make a key, and make it the primary one where there is none, under its
    /// quota.
    pub(super) fn insertion(
        &self,
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
        let mut batch = WriteBatch::new().change(insert).change(pin);
        if signing.is_some() {
            batch = batch.change(Change::SetSigning {
                id: record.id.clone(),
                state: signing,
            });
        }
        self.within_quota(batch, record, now)
    }

    /// The same batch under the quota of active keys, where the key counts.
    pub(super) fn within_quota(
        &self,
        batch: WriteBatch,
        record: &KeyRecord,
        now: SystemTime,
    ) -> WriteBatch {
        if !record.counts_as_active(now) {
            return batch;
        }
        let of_tenant = self.inner.active_keys(&record.owner.tenant_id);
        let of_tenant =
            of_tenant.map(|limit| (OwnerRef::Tenant(record.owner.tenant_id.clone()), limit));
        let of_owner = self
            .inner
            .settings
            .rules
            .active_keys_per_owner
            .map(|limit| (OwnerRef::of(&record.owner), limit));
        let limits = [of_tenant, of_owner].into_iter().flatten();
        limits.fold(batch, |batch, (owner, limit)| {
            batch.require(Condition::ActiveKeysAtMost {
                owner,
                at: now,
                limit,
            })
        })
    }

    fn environment_of(&self, new: &NewKey) -> Result<Environment, ManageError> {
        let known = &self.inner.settings.environments;
        match &new.environment {
            // Never empty: build() saw to it.
            None => known
                .first()
                .cloned()
                .ok_or_else(|| ManageError::invalid("environment", "there is none")),
            Some(asked) if known.contains(asked) => Ok(asked.clone()),
            Some(asked) => {
                let names: Vec<_> = known.iter().map(Environment::as_str).collect();
                Err(ManageError::invalid(
                    "environment",
                    format!("{asked} is none of {}", names.join(", ")),
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
                "API keys of this API cannot be set to expire",
            ));
        }
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(ManageError::invalid("expires_at", "it lies in the past"));
        }
        check_order(new.not_before, new.expires_at)
    }

    /// What acting for somebody gives at most: scopes that may be granted at all.
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

    /// Scopes that may be granted at all.
    pub(super) fn check_scopes(&self, kind: KeyKind, scopes: &[Scope]) -> Result<(), ManageError> {
        if scopes.len() > MOST_SCOPES {
            return Err(ManageError::invalid(
                "scopes",
                format!("at most {MOST_SCOPES} scopes"),
            ));
        }
        if self.inner.authenticator.is_unscoped(kind) && !scopes.is_empty() {
            return Err(ManageError::invalid(
                "scopes",
                "API keys of this API carry no scopes",
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

/// Whether the id of a new key was known.
pub(super) fn is_known(error: &StoreError) -> bool {
    matches!(error.as_rejected(), Some(Rejected::IdKnown(_)))
}

/// The most workspaces of a key.
const MOST_WORKSPACES: usize = 1000;

/// Some workspaces, or all; never a list of none.
pub(super) fn check_workspaces(workspaces: Option<&[WorkspaceId]>) -> Result<(), ManageError> {
    match workspaces.map(<[WorkspaceId]>::len) {
        Some(0) => Err(ManageError::invalid(
            "workspaces",
            "a workspace-scoped key needs at least one",
        )),
        Some(count) if count > MOST_WORKSPACES => Err(ManageError::invalid(
            "workspaces",
            format!("at most {MOST_WORKSPACES} workspaces"),
        )),
        _ => Ok(()),
    }
}
