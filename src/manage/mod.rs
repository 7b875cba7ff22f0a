//! Managing keys: issue, import, list, change, rotate, make primary, revoke, delete.
//!
//! The manager checks what it is asked for (format, environment, vocabulary, times), makes one atomic batch of it, and
//! gives that to the store. Who asks is the host's to prove ([`KeyManager::by`]); what they may is the policy's to say
//! ([`OperatorPolicy`]). Each act, done or refused, is one event of the audit.

mod change;
mod idempotency;
mod import;
mod issue;
mod operator;
mod retire;
mod rotate;
mod signing;
mod verify;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use change::KeyChange;
pub use idempotency::Idempotency;
pub use import::{ImportedDigest, NewImport};
pub use issue::{Issued, NewKey};
pub use operator::{ByRole, Denied, Operator, OperatorPolicy, Place, Role};
pub use rotate::Rotated;

use crate::audit::{Action, AuditOutcome, AuditTrail, Party, shortened};
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorCode;
use crate::key::{
    Delegation, Environment, FormatError, GenerateError, KeyFormat, KeyHasher, KeyId, KeyKind, KeyRecord, TenantId,
};
use crate::scope;
use crate::scope::{Scope, ScopeModel, ScopeSet, UnknownScope, Vocabulary, WildcardModel};
use crate::store::{Cursor, HourOfUse, KeyStore, ListQuery, Listed, OwnerRef, Rejected, StoreError, Usage};

/// The most characters of a name, a description or a reason.
pub const MAX_TEXT_LENGTH: usize = 1000;

/// The longest name of an operator that the audit shows, in bytes.
const LONGEST_NAME: usize = 320;

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
    /// The operator may not do this.
    #[error(transparent)]
    Forbidden(#[from] Denied),
    /// The key is not in a state in which this can be done.
    #[error("{0}")]
    Conflict(&'static str),
    /// It is no longer at the version that was expected.
    #[error("the key is at version {stored}, not {expected}")]
    Changed {
        /// The version that was expected.
        expected: u64,
        /// The version that is stored.
        stored: u64,
    },
    /// A key with this digest is known, or was.
    #[error("a key with this digest is known already")]
    DigestKnown,
    /// The same request was done before: this is the key that it made, without its secret.
    #[error("this was done before")]
    DoneBefore(Box<ManagedKey>),
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
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::Invalid { .. } => ErrorCode::InvalidBody,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            Self::Conflict(_) | Self::DigestKnown | Self::DoneBefore(_) | Self::Contended => ErrorCode::Conflict,
            Self::Changed { .. } => ErrorCode::PreconditionFailed,
            Self::Generate(_) | Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }

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
            Some(Rejected::DigestKnown) => Self::DigestKnown,
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
    /// When it should be rotated, where the API says how often: a recommendation, and nothing is refused for it.
    pub rotation_due: Option<SystemTime>,
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
    operator: Arc<Operator>,
}

struct Inner {
    store: Arc<dyn KeyStore>,
    formats: Vec<(Vec<KeyKind>, KeyFormat)>,
    hasher: KeyHasher,
    vocabulary: Option<Vocabulary>,
    environments: Vec<Environment>,
    clock: Arc<dyn Clock>,
    rules: IssueRules,
    active_keys_of: Option<Arc<ActiveKeysOf>>,
    policy: Arc<dyn OperatorPolicy>,
    audit: Option<AuditTrail>,
}

type ActiveKeysOf = dyn Fn(&TenantId) -> Option<u64> + Send + Sync;

impl Inner {
    /// How many active keys a tenant may have.
    fn active_keys(&self, tenant: &TenantId) -> Option<u64> {
        let own = self.active_keys_of.as_ref().and_then(|of| of(tenant));
        own.or(self.rules.active_keys)
    }
}

/// What keys of an API may be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssueRules {
    /// At most this many active keys per tenant.
    pub active_keys: Option<u64>,
    /// At most this many active keys per owner: a user, or the tenant itself.
    pub active_keys_per_owner: Option<u64>,
    /// Whether application keys may act for users unless it is said otherwise when they are issued.
    pub delegation: Delegation,
    /// Whether API keys go without scopes; access tokens may carry some.
    pub unscoped: bool,
    /// Whether API keys may be given an expiry.
    pub never_expire: bool,
    /// How long an access token lives unless it says so.
    pub access_token_lifetime: Option<Duration>,
    /// How often keys should be rotated: reported, not enforced.
    pub rotate_every: Option<Duration>,
    /// Whether a rotated key stays as it is until it is deleted by hand, so that no grace can be asked for.
    pub rotated_keys_stay: bool,
    /// Whether the owner's primary key signs events: then a key whose secret was never seen cannot become one.
    pub sign_events: bool,
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
                active_keys_of: None,
                policy: Arc::new(ByRole::new()),
                audit: None,
            },
        }
    }

    /// The same manager, in the hands of an operator: allowed what the policy allows, confined to its tenant, and named
    /// by the audit. Without this it is the service itself that acts ([`Operator::host`]).
    #[must_use]
    pub fn by(&self, operator: Operator) -> Self {
        Self { inner: Arc::clone(&self.inner), operator: Arc::new(operator) }
    }

    /// The trail that acts are noted in, where they are.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditTrail> {
        self.inner.audit.as_ref()
    }

    /// Who acts.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Whether the operator may manage anything at all, to be asked before anything else is read.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`].
    pub fn admitted(&self) -> Result<(), ManageError> {
        Ok(self.inner.policy.admits(&self.operator)?)
    }

    /// One key, with its usage.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's key; [`ManageError::Forbidden`]; or the store giving no
    /// answer.
    pub async fn get(&self, id: &KeyId) -> Result<ManagedKey, ManageError> {
        let listed = self.find(id).await?;
        self.may(Action::KeyRead, &listed.record)?;
        let primary = self.is_primary(&listed.record, self.now()).await?;
        Ok(self.managed(listed, primary))
    }

    /// A page of keys, newest first. Never a secret, never a digest; an operator sees those of its tenant that the policy
    /// lets it see.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`], or the store giving no answer.
    pub async fn list(&self, query: ListQuery) -> Result<KeyPage, ManageError> {
        let query = self.narrow(query)?;
        let page = self.inner.store.list(&query).await?;
        let mut primaries: HashMap<OwnerRef, Option<KeyId>> = HashMap::new();
        let mut items = Vec::with_capacity(page.items.len());
        for listed in page.items {
            let owner = OwnerRef::of(&listed.record.owner);
            if !primaries.contains_key(&owner) {
                let primary = self.inner.store.primary(&owner, query.now).await?;
                primaries.insert(owner.clone(), primary);
            }
            let primary = primaries.get(&owner).and_then(Option::as_ref) == Some(&listed.record.id);
            items.push(self.managed(listed, primary));
        }
        Ok(KeyPage { items, next: page.next })
    }

    /// A query as far as the operator may see: of its tenant, and of what the policy lets it see there.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`] where it sees no lists at all.
    pub fn narrow(&self, query: ListQuery) -> Result<ListQuery, ManageError> {
        let mut query = self.inner.policy.lists(&self.operator, query)?;
        if let Some(tenant) = self.operator.tenant() {
            query.tenant = Some(tenant.clone());
        }
        Ok(query)
    }

    /// How often a key was used in each hour from the one of `from` to before `to`, the oldest first.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<Vec<HourOfUse>, ManageError> {
        let listed = self.find(id).await?;
        self.may(Action::KeyRead, &listed.record)?;
        Ok(self.inner.store.usage_by_hour(id, from, to).await?)
    }

    /// A key that the operator may know of.
    async fn find(&self, id: &KeyId) -> Result<Listed, ManageError> {
        let found = self.inner.store.get(id).await?;
        let found = found.filter(|listed| self.operator.sees(&listed.record));
        found.ok_or_else(|| ManageError::NotFound(id.clone()))
    }

    /// Whether the operator may do this to a key.
    fn may(&self, action: Action, record: &KeyRecord) -> Result<(), ManageError> {
        if !self.operator.sees(record) {
            return Err(Denied::because("This key would belong to another tenant").into());
        }
        Ok(self.inner.policy.allows(&self.operator, action, record)?)
    }

    /// Whether the operator may make or change a key so that it grants this. What it granted before, others have given.
    fn may_grant(&self, record: &KeyRecord, before: Option<&KeyRecord>) -> Result<(), ManageError> {
        let Some(own) = &self.operator.authority else { return Ok(()) };
        if self.inner.policy.may_exceed_authority(&self.operator) {
            return Ok(());
        }
        let compile = |scopes: &[Scope]| {
            WildcardModel.compile(scopes).map_err(|error| ManageError::invalid("scopes", error.to_string()))
        };
        let given: Vec<_> = before.map_or_else(Vec::new, |before| granted(before).cloned().collect());
        let (own, given) = (compile(own)?, compile(&given)?);
        // Where keys have no scopes they may do everything.
        const EVERYTHING: &Scope = &scope!("*");
        let unscoped = self.inner.rules.unscoped && record.kind != KeyKind::AccessToken;
        let everything = (unscoped && before.is_none()).then_some(EVERYTHING);
        let beyond = |scope: &&Scope| !own.grants(scope) && !given.grants(scope);
        match everything.into_iter().chain(granted(record)).find(beyond) {
            Some(beyond) => {
                Err(Denied::because(format!("You may not grant {beyond}: you do not have it yourself")).into())
            }
            None => Ok(()),
        }
    }

    async fn is_primary(&self, record: &KeyRecord, at: SystemTime) -> Result<bool, ManageError> {
        let primary = self.inner.store.primary(&OwnerRef::of(&record.owner), at).await?;
        Ok(primary.as_ref() == Some(&record.id))
    }

    /// What an act has come to. It was done: that nothing more can be read now does not undo it, and a secret that was made
    /// is not lost for it.
    async fn done(&self, record: KeyRecord, usage: Usage) -> ManagedKey {
        let primary = self.is_primary(&record, self.now()).await.unwrap_or(false);
        self.managed(Listed::new(record, usage), primary)
    }

    fn managed(&self, listed: Listed, primary: bool) -> ManagedKey {
        let record = listed.record;
        // What has ended or has a successor needs no rotation any more.
        let may_rotate = record.successor.is_none() && record.counts_as_active(self.now());
        let due = self.inner.rules.rotate_every.filter(|_| may_rotate);
        let rotation_due = due.and_then(|every| record.created_at.checked_add(every));
        ManagedKey { record, usage: listed.usage, primary, rotation_due }
    }

    /// Watches an act of management, so that it is noted however it ends: also where whoever asked goes away meanwhile.
    fn watch<'a>(&'a self, action: Action, key: Option<&'a KeyId>) -> Watch<'a> {
        Watch { manager: self, action, key, noted: false }
    }

    /// Notes an act of management, done or not.
    fn note(
        &self,
        action: Action,
        done: Result<&KeyRecord, Option<&ManageError>>,
        key: Option<&KeyId>,
        detail: impl FnOnce() -> Option<String>,
    ) {
        let Some(trail) = &self.inner.audit else { return };
        let outcome = match done {
            Ok(_) => AuditOutcome::Ok,
            Err(Some(error)) => AuditOutcome::Refused(error.code()),
            Err(None) => AuditOutcome::Abandoned,
        };
        let mut event = trail.event(action, outcome);
        event.key_id = done.ok().map(|record| &record.id).or(key).cloned();
        event.tenant_id = match done {
            Ok(record) => Some(record.owner.tenant_id.clone()),
            Err(_) => self.operator.tenant().cloned(),
        };
        event.environment = done.ok().map(|record| record.environment.clone());
        event.workspaces = done.ok().and_then(|record| record.workspaces.clone());
        event.scopes =
            done.map_or_else(|_| Vec::new(), |record| record.scopes.iter().map(ToString::to_string).collect());
        event.actor = Some(Party::operator(shortened(&self.operator.name, LONGEST_NAME)));
        event.client_ip = self.operator.client_ip;
        event.request_id.clone_from(&self.operator.request_id);
        event.detail = match done {
            Ok(_) => detail(),
            Err(error) => error.map(ToString::to_string),
        };
        event.detail = event.detail.map(|detail| shortened(&detail, 4 * MAX_TEXT_LENGTH));
        trail.note_act(event);
    }

    /// The time of day by the manager's clock, in whole milliseconds: what every store can keep.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        to_the_millisecond(self.inner.clock.now())
    }
}

/// All scopes that a record names, also those of acting for others.
fn granted(record: &KeyRecord) -> impl Iterator<Item = &Scope> {
    let delegated = match &record.delegation {
        Delegation::Only(scopes) => scopes.as_slice(),
        Delegation::Off | Delegation::On => &[],
    };
    record.scopes.iter().chain(delegated)
}

/// A name for people: not empty, bounded, one line.
fn check_name(name: &str) -> Result<(), ManageError> {
    if name.trim().is_empty() {
        return Err(ManageError::invalid("name", "a key needs a name"));
    }
    check_line("name", name)
}

/// The end of the year 9999: what any storage and any notation can hold.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// A time that any storage can hold, in whole milliseconds, not later than it was.
fn check_time(field: &'static str, at: SystemTime) -> Result<SystemTime, ManageError> {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since <= LATEST => Ok(to_the_millisecond(at)),
        _ => Err(ManageError::invalid(field, "it lies before 1970 or after the year 9999")),
    }
}

fn to_the_millisecond(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    at - Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000))
}

/// A beginning before the end.
fn check_order(not_before: Option<SystemTime>, expires_at: Option<SystemTime>) -> Result<(), ManageError> {
    match (not_before, expires_at) {
        (Some(start), Some(end)) if start >= end => {
            Err(ManageError::invalid("not_before", "it is not before expires_at"))
        }
        _ => Ok(()),
    }
}

/// One line for people, that reads as it is written: no controls, and none of those that turn the direction of a text.
fn check_line(field: &'static str, text: &str) -> Result<(), ManageError> {
    check_text(field, text)?;
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    if text.contains(|c: char| c == '\n' || turns(c)) {
        return Err(ManageError::invalid(field, "one line, without characters that turn its direction"));
    }
    Ok(())
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

/// Watches one act of management.
struct Watch<'a> {
    manager: &'a KeyManager,
    action: Action,
    key: Option<&'a KeyId>,
    noted: bool,
}

impl Watch<'_> {
    fn ended(mut self, done: Result<&KeyRecord, &ManageError>, detail: impl FnOnce() -> Option<String>) {
        self.noted = true;
        self.manager.note(self.action, done.map_err(Some), self.key, detail);
    }

    /// There was nothing to do, and nothing to tell.
    fn forget(mut self) {
        self.noted = true;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.noted {
            self.manager.note(self.action, Err(None), self.key, || None);
        }
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

    /// How many active keys a tenant may have, where it differs from the rules' number: `None` leaves that.
    pub fn active_keys_of(mut self, of: impl Fn(&TenantId) -> Option<u64> + Send + Sync + 'static) -> Self {
        self.inner.active_keys_of = Some(Arc::new(of));
        self
    }

    /// What operators may do; [`ByRole`] unless set.
    pub fn policy(mut self, policy: impl OperatorPolicy) -> Self {
        self.inner.policy = Arc::new(policy);
        self
    }

    /// Where every act is noted; nowhere unless set.
    pub fn audit(mut self, trail: AuditTrail) -> Self {
        self.inner.audit = Some(trail);
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
        Ok(KeyManager { inner: Arc::new(self.inner), operator: Arc::new(Operator::host()) })
    }
}

impl fmt::Debug for KeyManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManagerBuilder").field("formats", &self.inner.formats).finish_non_exhaustive()
    }
}
