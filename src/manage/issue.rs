//! Issuing a key: check what is asked, generate, store the digest, show the secret once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::{KeyManager, ManageError, check_name, check_order, check_text};
use crate::audit::Action;
use crate::key::{
    Access, Delegation, Environment, KeyDigest, KeyFormat, KeyId, KeyKind, KeyRecord, Metadata, Owner, PlaintextKey,
    PlanName, SigningState, WorkspaceId,
};
use crate::limit::Quotas;
use crate::network::AllowList;
use crate::scope::Scope;
use crate::store::{Change, Condition, OwnerRef, WriteBatch};

/// The most scopes of a key.
const MOST_SCOPES: usize = 256;

/// A key to be issued. Only name and owner are needed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewKey {
    /// A name for people: 1 to 1000 characters.
    pub name: String,
    /// More for people.
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
    /// The only workspaces it reaches, at least one; all of the tenant's unless set.
    pub workspaces: Option<Vec<WorkspaceId>>,
    /// The plan that its owner pays for.
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
        }
    }

    /// The same with these scopes.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
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
    /// Issues a key, in one atomic step with its quota. The first one of an owner becomes its primary key.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] with the field that cannot be, [`ManageError::Forbidden`], [`ManageError::QuotaExceeded`],
    /// or the store giving no answer.
    pub async fn issue(&self, new: NewKey) -> Result<Issued, ManageError> {
        let issued = self.try_issue(new).await;
        self.note(Action::KeyIssue, issued.as_ref().map(|issued| &*issued.record), None, || None);
        issued
    }

    async fn try_issue(&self, new: NewKey) -> Result<Issued, ManageError> {
        let now = self.now();
        let format = self.format_of(new.kind)?;
        let (kind, mut record) = (new.kind, self.record_of(new, now)?);
        self.may(Action::KeyIssue, &record)?;
        let key = format.generate(Some(&record.environment), Some(kind))?;
        record.masked = format.mask(&key);
        let digest = self.inner.hasher.digest(key.as_str());
        self.insert(&record, digest, self.signing_of(&record, &key), now).await?;
        let primary = self.is_primary(&record, now).await?;
        Ok(Issued { key, record: Arc::new(record), primary })
    }

    /// The record of a key that may be made, without what depends on its secret.
    pub(super) fn record_of(&self, mut new: NewKey, now: SystemTime) -> Result<KeyRecord, ManageError> {
        let mut seen = HashSet::new();
        new.scopes.retain(|scope| seen.insert(scope.clone()));
        let environment = self.environment_of(&new)?;
        self.check(&new, now)?;
        let mut record = KeyRecord::new(KeyId::generate()?, new.name, new.kind, environment, new.owner, now);
        record.description = new.description;
        record.scopes = new.scopes;
        record.access = new.access;
        record.workspaces = new.workspaces;
        record.plan = new.plan;
        record.delegation = new.delegation.unwrap_or_else(|| self.inner.rules.delegation_of(record.kind));
        record.allowed_ips = new.allowed_ips;
        record.quotas = new.quotas;
        record.metadata = new.metadata;
        record.not_before = new.not_before;
        record.expires_at = new.expires_at;
        if record.kind == KeyKind::AccessToken && record.expires_at.is_none() {
            record.expires_at = self.inner.rules.access_token_lifetime.map(|lifetime| now + lifetime);
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
        // Pinned before too, so that a newer key does not take the place of one that time has made the primary.
        let pin = Change::PinPrimary { owner: OwnerRef::of(&record.owner), at: now };
        let batch = WriteBatch::new().change(pin).join(self.insertion(record, digest, signing, now));
        Ok(self.inner.store.apply(&batch).await?)
    }

    /// The changes that make a key, and make it the primary one where there is none, under its quota.
    pub(super) fn insertion(
        &self,
        record: &KeyRecord,
        digest: KeyDigest,
        signing: Option<SigningState>,
        now: SystemTime,
    ) -> WriteBatch {
        let pin = Change::PinPrimary { owner: OwnerRef::of(&record.owner), at: now };
        let insert = Change::Insert { digest, record: Box::new(record.clone()) };
        let mut batch = WriteBatch::new().change(insert).change(pin);
        if signing.is_some() {
            batch = batch.change(Change::SetSigning { id: record.id.clone(), state: signing });
        }
        self.within_quota(batch, record, now)
    }

    /// The same batch under the quota of active keys, where the key counts.
    pub(super) fn within_quota(&self, batch: WriteBatch, record: &KeyRecord, now: SystemTime) -> WriteBatch {
        match self.inner.active_keys(&record.owner.tenant_id) {
            Some(limit) if record.counts_as_active(now) => {
                let owner = OwnerRef::Tenant(record.owner.tenant_id.clone());
                batch.require(Condition::ActiveKeysAtMost { owner, at: now, limit })
            }
            _ => batch,
        }
    }

    fn environment_of(&self, new: &NewKey) -> Result<Environment, ManageError> {
        let known = &self.inner.environments;
        match &new.environment {
            // Never empty: build() saw to it.
            None => known.first().cloned().ok_or_else(|| ManageError::invalid("environment", "there is none")),
            Some(asked) if known.contains(asked) => Ok(asked.clone()),
            Some(asked) => {
                let names: Vec<_> = known.iter().map(Environment::as_str).collect();
                Err(ManageError::invalid("environment", format!("{asked} is none of {}", names.join(", "))))
            }
        }
    }

    pub(super) fn format_of(&self, kind: KeyKind) -> Result<&KeyFormat, ManageError> {
        let formats = &self.inner.formats;
        let own = formats.iter().find(|(kinds, _)| kinds.contains(&kind));
        let any = || formats.iter().find(|(kinds, _)| kinds.is_empty() && kind != KeyKind::AccessToken);
        own.or_else(any)
            .map(|(_, format)| format)
            .filter(|format| format.allows_kind(kind))
            .ok_or_else(|| ManageError::invalid("kind", format!("this API has no keys of kind {kind}")))
    }

    fn check(&self, new: &NewKey, now: SystemTime) -> Result<(), ManageError> {
        check_name(&new.name)?;
        check_text("description", new.description.as_deref().unwrap_or_default())?;
        check_text("owner.user_email", new.owner.user_email.as_deref().unwrap_or_default())?;
        if new.kind != KeyKind::App && new.owner.user_id.is_none() {
            return Err(ManageError::invalid("owner.user_id", format!("a key of kind {} needs a user", new.kind)));
        }
        self.check_scopes(new.kind, &new.scopes)?;
        if new.kind != KeyKind::App && new.delegation.as_ref().is_some_and(|delegation| *delegation != Delegation::Off)
        {
            return Err(ManageError::invalid("delegation", "only application keys can act for users"));
        }
        if new.workspaces.as_ref().is_some_and(Vec::is_empty) {
            return Err(ManageError::invalid("workspaces", "a workspace-scoped key needs at least one"));
        }
        let rules = &self.inner.rules;
        let api_key = new.kind != KeyKind::AccessToken;
        if api_key && rules.never_expire && new.expires_at.is_some() {
            return Err(ManageError::invalid("expires_at", "API keys of this API cannot be set to expire"));
        }
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(ManageError::invalid("expires_at", "it lies in the past"));
        }
        check_order(new.not_before, new.expires_at)
    }

    /// Scopes that may be granted at all.
    pub(super) fn check_scopes(&self, kind: KeyKind, scopes: &[Scope]) -> Result<(), ManageError> {
        if scopes.len() > MOST_SCOPES {
            return Err(ManageError::invalid("scopes", format!("at most {MOST_SCOPES} scopes")));
        }
        if kind != KeyKind::AccessToken && self.inner.rules.unscoped && !scopes.is_empty() {
            return Err(ManageError::invalid("scopes", "API keys of this API carry no scopes"));
        }
        match &self.inner.vocabulary {
            Some(vocabulary) => Ok(vocabulary.check(scopes)?),
            None => Ok(()),
        }
    }
}
