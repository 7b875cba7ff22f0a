//! Managing keys: issue, list, look at, revoke.
//!
//! The manager checks what it is asked for (format, environment, vocabulary, times), makes one atomic batch of it, and
//! gives that to the store. Who may ask is the host's to prove.

mod issue;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use issue::{Issued, NewKey};

use crate::clock::{Clock, SystemClock};
use crate::key::{
    Delegation, Environment, FormatError, GenerateError, KeyFormat, KeyHasher, KeyId, KeyKind, KeyRecord, Revocation,
};
use crate::scope::{UnknownScope, Vocabulary};
use crate::store::{Change, Cursor, KeyStore, ListQuery, Listed, OwnerRef, Rejected, StoreError, Usage, WriteBatch};

/// The most characters of a name, a description or a reason.
pub const MAX_TEXT_LENGTH: usize = 1000;

/// How often a change is tried again when somebody else changed the record in between.
const ATTEMPTS: usize = 16;

/// Why a management act was not done. Nothing was changed then, but where the store gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManageError {
    /// There is no such key.
    #[error("there is no key {0}")]
    NotFound(KeyId),
    /// What was asked for cannot be: which field, and why.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No more keys may be active.
    #[error("{active} keys would be active; {limit} is the most")]
    QuotaExceeded {
        /// How many there would be.
        active: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Somebody else changed it at the same time, again and again.
    #[error("the key is being changed by others; try again")]
    Contended,
    /// No key could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The store gave no answer, or refused.
    #[error(transparent)]
    Store(StoreError),
}

impl ManageError {
    fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }
}

impl From<UnknownScope> for ManageError {
    fn from(error: UnknownScope) -> Self {
        Self::invalid("scopes", error.to_string())
    }
}

impl From<StoreError> for ManageError {
    fn from(error: StoreError) -> Self {
        match error.as_rejected() {
            Some(Rejected::TooManyActive { active, limit }) => Self::QuotaExceeded { active: *active, limit: *limit },
            Some(Rejected::Missing(id)) => Self::NotFound(id.clone()),
            _ => Self::Store(error),
        }
    }
}

/// A key as its managers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManagedKey {
    /// Everything but its secret.
    pub record: Arc<KeyRecord>,
    /// How it has been used.
    pub usage: Usage,
    /// Whether it is its owner's primary key.
    pub primary: bool,
}

impl ManagedKey {
    fn new(listed: Listed, primary: Option<&KeyId>) -> Self {
        let primary = primary == Some(&listed.record.id);
        Self { record: listed.record, usage: listed.usage, primary }
    }
}

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys, newest first.
    pub items: Vec<ManagedKey>,
    /// Where the next page starts, if there is one.
    pub next: Option<Cursor>,
}

/// Manages the keys of a store. Cloning shares everything.
#[derive(Clone)]
pub struct KeyManager {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn KeyStore>,
    formats: Vec<(Vec<KeyKind>, KeyFormat)>,
    hasher: KeyHasher,
    vocabulary: Option<Vocabulary>,
    environments: Vec<Environment>,
    clock: Arc<dyn Clock>,
    rules: IssueRules,
}

/// What keys of an API may be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssueRules {
    /// At most this many active keys per tenant.
    pub active_keys: Option<u64>,
    /// Whether application keys may act for users unless it is said otherwise when they are issued.
    pub delegation: Delegation,
    /// Whether API keys go without scopes; access tokens may carry some.
    pub unscoped: bool,
    /// Whether API keys may be given an expiry.
    pub never_expire: bool,
    /// How long an access token lives unless it says so.
    pub access_token_lifetime: Option<Duration>,
}

impl IssueRules {
    fn delegation_of(&self, kind: KeyKind) -> Delegation {
        if kind == KeyKind::App { self.delegation.clone() } else { Delegation::Off }
    }
}

impl KeyManager {
    /// Starts a manager of this store, which issues keys of this format.
    pub fn builder(store: impl KeyStore, format: KeyFormat) -> KeyManagerBuilder {
        KeyManagerBuilder {
            inner: Inner {
                store: Arc::new(store),
                formats: vec![(Vec::new(), format)],
                hasher: KeyHasher::default(),
                vocabulary: None,
                environments: Vec::new(),
                clock: Arc::new(SystemClock::default()),
                rules: IssueRules::default(),
            },
        }
    }

    /// One key, with its usage.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], or the store giving no answer.
    pub async fn get(&self, id: &KeyId) -> Result<ManagedKey, ManageError> {
        let listed = self.inner.store.get(id).await?.ok_or_else(|| ManageError::NotFound(id.clone()))?;
        let primary = self.inner.store.primary(&OwnerRef::of(&listed.record.owner), self.now()).await?;
        Ok(ManagedKey::new(listed, primary.as_ref()))
    }

    /// A page of keys, newest first. Never a secret, never a digest.
    ///
    /// # Errors
    /// The store giving no answer.
    pub async fn list(&self, query: &ListQuery) -> Result<KeyPage, ManageError> {
        let page = self.inner.store.list(query).await?;
        let mut primaries: HashMap<OwnerRef, Option<KeyId>> = HashMap::new();
        let mut items = Vec::with_capacity(page.items.len());
        for listed in page.items {
            let owner = OwnerRef::of(&listed.record.owner);
            if !primaries.contains_key(&owner) {
                let primary = self.inner.store.primary(&owner, query.now).await?;
                primaries.insert(owner.clone(), primary);
            }
            items.push(ManagedKey::new(listed, primaries.get(&owner).and_then(Option::as_ref)));
        }
        Ok(KeyPage { items, next: page.next })
    }

    /// Refuses a key from the next request on, for good. Revoking it again changes nothing and keeps the first reason.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], a reason that is too long, or the store giving no answer.
    pub async fn revoke(&self, id: &KeyId, reason: Option<&str>) -> Result<ManagedKey, ManageError> {
        check_text("reason", reason.unwrap_or_default())?;
        for _ in 0..ATTEMPTS {
            let listed = self.get(id).await?;
            if listed.record.revoked.is_some() {
                return Ok(listed);
            }
            let mut record = (*listed.record).clone();
            record.revoked = Some(Revocation::new(self.now(), reason.map(str::to_owned)));
            let pin = Change::PinPrimary { owner: OwnerRef::of(&record.owner), at: self.now() };
            match self.inner.store.apply(&WriteBatch::new().update(record).change(pin)).await {
                Ok(()) => return self.get(id).await,
                Err(error) if matches!(error.as_rejected(), Some(Rejected::Version { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ManageError::Contended)
    }

    /// The time of day by the manager's clock, in whole milliseconds: what every store can keep.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let now = self.inner.clock.now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now - Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000))
    }
}

/// A text for people: bounded, and without control characters.
fn check_text(field: &'static str, text: &str) -> Result<(), ManageError> {
    if text.chars().count() > MAX_TEXT_LENGTH {
        return Err(ManageError::invalid(field, format!("at most {MAX_TEXT_LENGTH} characters")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(ManageError::invalid(field, "no control characters"));
    }
    Ok(())
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

/// Describes a [`KeyManager`].
#[must_use = "a builder does nothing until build()"]
pub struct KeyManagerBuilder {
    inner: Inner,
}

impl KeyManagerBuilder {
    /// Issues keys of these kinds in a format of their own.
    pub fn format_for(mut self, kinds: impl IntoIterator<Item = KeyKind>, format: KeyFormat) -> Self {
        self.inner.formats.insert(0, (kinds.into_iter().collect(), format));
        self
    }

    /// How digests are made: as the authenticator's.
    pub fn hasher(mut self, hasher: KeyHasher) -> Self {
        self.inner.hasher = hasher;
        self
    }

    /// The scopes that may be granted; any valid one unless set.
    pub fn vocabulary(mut self, vocabulary: Vocabulary) -> Self {
        self.inner.vocabulary = Some(vocabulary);
        self
    }

    /// The environments that keys may be issued for; the first is the default. Unset, `production` alone.
    pub fn environments(mut self, environments: impl IntoIterator<Item = Environment>) -> Self {
        self.inner.environments = environments.into_iter().collect();
        self
    }

    /// What keys may be like.
    pub fn rules(mut self, rules: IssueRules) -> Self {
        self.inner.rules = rules;
        self
    }

    /// Where the time comes from; the system's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.inner.clock = Arc::new(clock);
        self
    }

    /// The manager.
    ///
    /// # Errors
    /// Where a format cannot write an environment that keys may be issued for.
    pub fn build(mut self) -> Result<KeyManager, FormatError> {
        if self.inner.environments.is_empty() {
            self.inner.environments.push(Environment::new("production")?);
        }
        for environment in &self.inner.environments {
            if !self.inner.formats.iter().all(|(_, format)| format.allows_environment(environment)) {
                return Err(FormatError::Environment(environment.to_string()));
            }
        }
        Ok(KeyManager { inner: Arc::new(self.inner) })
    }
}

impl fmt::Debug for KeyManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManagerBuilder").field("formats", &self.inner.formats).finish_non_exhaustive()
    }
}
