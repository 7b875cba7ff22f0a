//! Key management: issue, import, list, change, rotate, make primary, revoke, delete.
//!
//! The manager checks each request (format, environment, vocabulary, times), turns it into one
//! atomic batch and gives the batch to the store. The host authenticates the operator
//! ([`KeyManager::by`]). The policy decides what the operator can do and set ([`OperatorPolicy`]
//! contains the table of what any operator of a tenant can set). The host's own rules
//! ([`HostRules`]) complete or refuse requests. Each operation, done or refused, is one audit
//! event.

mod accepted;
mod bulk;
mod change;
mod check;
mod credits;
mod error;
mod host;
mod idempotency;
mod import;
mod issue;
mod joined;
mod management;
mod new_key;
mod operator;
mod own;
mod policy;
mod precondition;
mod retire;
mod rotate;
mod rules;
mod settings;
mod shown;
mod signing;
mod text;
mod verify;
mod watch;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

pub use accepted::Accepted;
pub use bulk::{BulkAction, BulkSelection};
pub use change::KeyChange;
pub use error::ManageError;
pub use host::HostRules;
pub use idempotency::Idempotency;
pub use import::{ImportedDigest, NewImport};
pub use management::Management;
pub use new_key::{Issued, NewKey};
pub use operator::{Denied, Operator, OperatorScope, Role};
pub use policy::{ByRole, OperatorPolicy, Setting, own_keys};
pub use rotate::Rotated;
pub use rules::IssueRules;
pub use text::MAX_TEXT_LENGTH;

use check::to_the_millisecond;
use joined::Joined;
use precondition::Precondition;

use crate::actor::UserIds;
use crate::audit::{Action, AuditReader, AuditTrail, EventPage, EventQuery};
use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::config::BuildError;
use crate::key::{Environment, FormatError, KeyFormat, KeyId, KeyKind, KeyRecord, PlanName};
use crate::quota::{Quota, Quotas};
use crate::store::{
    CachedStore, Cursor, KeyStore, ListQuery, OwnerRef, Page, StoreError, Usage, UsageByHour,
    UsageStore,
};
use crate::telemetry;

/// Maximum number of attempts when the record is modified concurrently.
const ATTEMPTS: usize = 64;

/// A key as shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManagedKey {
    /// Everything except the secret.
    pub record: Arc<KeyRecord>,
    /// Usage counts of the key.
    pub usage: Usage,
    /// Whether the key is its owner's primary key.
    pub primary: bool,
    /// When the key should be rotated, if a rotation interval is set. This is a recommendation and
    /// not enforced.
    pub rotation_due: Option<SystemTime>,
    /// The plan that applies to the key: its own, or else its tenant's.
    pub plan: Option<PlanName>,
    /// The quotas of the key for all requests: its own, or else its plan's. `None` if nothing limits
    /// the key itself, and if its plan is not declared.
    pub quotas: Option<Quotas>,
    /// Every quota that applies to requests with the key, whatever their class, by the name that
    /// responses show.
    pub policies: Vec<Quota>,
}

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys, newest first.
    pub items: Vec<ManagedKey>,
    /// Where the next page starts, if there is one. A page may be shorter than requested, or empty,
    /// and still have a next page.
    pub next: Option<Cursor>,
    /// The rows that cannot be read and were omitted ([`Page::corrupt`]). Always empty for an
    /// operator to whom the policy does not show the whole tenant. Each row is logged as an error
    /// (feature `tracing`).
    pub corrupt: Vec<String>,
}

/// Manages the keys of a store. Clones share all state.
#[derive(Clone)]
pub struct KeyManager {
    inner: Arc<Inner>,
    store: Arc<dyn KeyStore>,
    /// Where usage is counted, if it is.
    counts: Option<Arc<dyn UsageStore>>,
    /// What waits for the end of the host's transaction, if the store's writes belong to one.
    joined: Option<Arc<Joined>>,
    operator: Arc<Operator>,
    /// What the operator can do.
    policy: Arc<dyn OperatorPolicy>,
    precondition: Option<Arc<Precondition>>,
    /// Whether an event was recorded since [`by`](Self::by) set the operator.
    recorded: Arc<AtomicBool>,
}

struct Inner {
    /// What the manager and requests must agree on: hasher, scope model, directory, default quotas,
    /// user ids, clock, audit, and the uses that are not written yet.
    authenticator: Authenticator,
    /// What this node has cached of the store, if anything.
    cache: Option<CachedStore>,
    formats: Vec<(Vec<KeyKind>, KeyFormat)>,
    settings: Management,
    /// The one that managers [`under`](KeyManager::under) it have, by which they are recognized.
    own_keys: Arc<dyn OperatorPolicy>,
    steps: bulk::Steps,
}

impl KeyManager {
    /// Creates the manager of a service.
    ///
    /// # Errors
    /// [`BuildError`] if a format cannot represent an environment that keys can be issued for, or
    /// if no key can be issued for the environment that is served.
    pub(crate) fn new(
        authenticator: Authenticator,
        store: Arc<dyn KeyStore>,
        cache: Option<CachedStore>,
        formats: Vec<(Vec<KeyKind>, KeyFormat)>,
        mut settings: Management,
    ) -> Result<Self, BuildError> {
        let served = authenticator.environment().cloned();
        if settings.environments.is_empty() {
            let written = formats.iter().flat_map(|(_, format)| format.environments());
            settings.environments = match &served {
                Some(only) => vec![only.clone()],
                None => written.cloned().collect(),
            };
            if settings.environments.is_empty() {
                settings.environments.push(Environment::new("production")?);
            }
        }
        if let Some(served) = served
            && !settings.environments.contains(&served)
        {
            return Err(BuildError::Environment(served.to_string()));
        }
        for environment in &settings.environments {
            let allows = |(_, format): &(_, KeyFormat)| format.allows_environment(environment);
            if !formats.iter().all(allows) {
                return Err(FormatError::Environment(environment.to_string()).into());
            }
        }
        Ok(Self {
            policy: Arc::clone(&settings.operators),
            inner: Arc::new(Inner {
                authenticator,
                cache,
                formats,
                settings,
                own_keys: Arc::new(own_keys()),
                steps: bulk::Steps::default(),
            }),
            counts: store.usage(),
            store,
            joined: None,
            operator: Arc::new(Operator::host()),
            precondition: None,
            recorded: Arc::default(),
        })
    }

    /// Returns this manager acting for an operator: limited to what the policy allows, confined to
    /// the operator's tenant, and recorded with the operator as the actor in the audit. By default
    /// the manager acts for the service itself ([`Operator::host`]).
    #[must_use]
    pub fn by(&self, mut operator: Operator) -> Self {
        // As it is stored in records, so that a user has one spelling.
        if let OperatorScope::User { id, .. } = &mut operator.scope {
            *id = self.user_ids().canonical(id.clone());
        }
        Self {
            operator: Arc::new(operator),
            recorded: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns the audit trail in which operations are recorded, if there is one.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditTrail> {
        self.inner.authenticator.audit()
    }

    /// Returns the format of user ids.
    #[must_use]
    pub fn user_ids(&self) -> UserIds {
        self.inner.authenticator.user_ids()
    }

    /// Returns the operator that the manager acts for.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Returns one key with its usage.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's key; [`ManageError::Forbidden`]; or a
    /// store error.
    pub async fn get(&self, id: &KeyId) -> Result<ManagedKey, ManageError> {
        let record = self.find(id).await?;
        self.view(record).await
    }

    async fn view(&self, record: Arc<KeyRecord>) -> Result<ManagedKey, ManageError> {
        self.may(Action::KeyRead, &record)?;
        let primary = self.is_primary(&record, self.now()).await?;
        let usage = self.usage_of_one(&record.id).await?;
        Ok(self.managed(record, usage, primary).await)
    }

    /// Returns a page of keys, newest first, without secrets or digests. An operator sees the keys
    /// of its tenant that the policy shows to it. A page may be short, even empty, and still have a
    /// [`next`](KeyPage::next) page.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`], [`ManageError::Invalid`] for unused keys if the store does not
    /// count uses, or a store error.
    pub async fn list(&self, mut query: ListQuery) -> Result<KeyPage, ManageError> {
        query.owner = query.owner.map(|user| self.user_ids().canonical(user));
        let asked = query.owner.clone();
        let query = self.narrow(query)?;
        if query.unused_since.is_some() && self.counts.is_none() {
            let why = "the store does not count uses, so that every key would seem unused";
            return Err(ManageError::invalid("unused_since", why));
        }
        // The operator sees the keys of one owner, and asks for those of another.
        if asked.is_some() && asked != query.owner {
            return Ok(KeyPage::default());
        }
        let mut page = self.store.list(&query).await?;
        let mut usage = self.usage_of_page(&mut page).await?;
        // This node may have counted uses that are not stored yet.
        let rows = page.items.into_iter().zip(usage);
        let rows = rows.filter(|(record, usage)| query.selects(record, usage));
        (page.items, usage) = rows.unzip();
        let owners = page.items.iter().map(|record| OwnerRef::of(&record.owner));
        let owners: Vec<_> = owners.collect::<HashSet<_>>().into_iter().collect();
        let primaries: HashSet<KeyId> = if owners.is_empty() {
            HashSet::new()
        } else {
            let primaries = self.store.primaries(&owners, query.now).await?;
            primaries.into_iter().flatten().collect()
        };
        let mut items = Vec::with_capacity(page.items.len());
        // A directory that does not answer is not asked for each key of the page.
        let mut answers = true;
        for (record, usage) in page.items.into_iter().zip(usage) {
            let primary = primaries.contains(&record.id);
            let limits = match answers {
                true => self.limits_shown(&record).await.ok(),
                false => None,
            };
            answers = limits.is_some();
            items.push(self.shown(record, usage, primary, limits.as_deref()));
        }
        Ok(KeyPage {
            items,
            next: page.next,
            corrupt: self.log_omitted(page.corrupt),
        })
    }

    /// Returns a page of a log's events, most recently stored first. An operator sees the events of
    /// its tenant that concern keys it can list. Unreadable rows are handled as in
    /// [`list`](Self::list).
    ///
    /// # Errors
    /// [`ManageError::Forbidden`], or [`ManageError::Log`] if the log does not answer.
    pub async fn events(
        &self,
        log: &(impl AuditReader + ?Sized),
        mut query: EventQuery,
    ) -> Result<EventPage, ManageError> {
        // An operator that can list a key can see its events.
        let visible = self.narrow(ListQuery::new(self.now()))?;
        query.tenant = visible.tenant.or(query.tenant);
        query.within_workspaces = visible.within_workspaces.or(query.within_workspaces);
        if let Some(own) = visible.owner {
            if query.owner.as_ref().is_some_and(|asked| *asked != own) {
                return Ok(EventPage::default());
            }
            query.owner = Some(own);
        }
        let mut page = log.events(&query).await.map_err(ManageError::Log)?;
        page.corrupt = self.log_omitted(page.corrupt);
        Ok(page)
    }

    /// Logs the rows that a list omitted. Returns them only to operators who see the whole tenant,
    /// because the policy cannot be evaluated for rows that cannot be read.
    fn log_omitted(&self, corrupt: Vec<String>) -> Vec<String> {
        for row in &corrupt {
            telemetry::left_out(row);
        }
        if self.sees_all() { corrupt } else { Vec::new() }
    }

    /// Returns whether the operator sees every key of its tenant, or is the host.
    fn sees_all(&self) -> bool {
        let all = ListQuery::new(self.now());
        self.narrow(all.clone()).is_ok_and(|mut seen| {
            seen.tenant = None;
            seen == all
        })
    }

    /// Restricts a query to the operator's tenant and to the keys that the policy shows to the
    /// operator.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`] if the operator cannot list keys at all.
    pub fn narrow(&self, mut query: ListQuery) -> Result<ListQuery, ManageError> {
        if let Some(policy) = self.policy() {
            query = policy.lists(&self.operator, query)?;
        }
        if let Some(tenant) = self.operator.tenant() {
            query.tenant = Some(tenant.clone());
        }
        if let Some(own) = self.own() {
            query.owner = own.user_id;
        }
        Ok(query)
    }

    /// Returns how often a key was used in each hour, from the hour of `from` up to `to`
    /// (exclusive), oldest first. Empty if the store does not count usage. Unreadable rows are
    /// handled as in [`list`](Self::list).
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, ManageError> {
        let record = self.find(id).await?;
        self.may(Action::KeyRead, &record)?;
        let Some(counts) = &self.counts else {
            return Ok(UsageByHour::default());
        };
        let mut reading = self.inner.authenticator.usage().begin_reading().await;
        loop {
            let mut usage = counts.usage_by_hour(id, from, to).await?;
            if let Some(unwritten) = reading.unwritten([id]) {
                unwritten
                    .iter()
                    .flatten()
                    .for_each(|delta| usage.add(delta));
                // Uses not written yet may belong to hours outside the requested range.
                let mut within = usage.between(from, to);
                within.corrupt = self.log_omitted(usage.corrupt);
                return Ok(within);
            }
        }
    }

    /// Returns the usage of keys, including uses that are not written yet.
    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let Some(counts) = self.counts.as_ref().filter(|_| !ids.is_empty()) else {
            return Ok(vec![Usage::default(); ids.len()]);
        };
        let mut reading = self.inner.authenticator.usage().begin_reading().await;
        loop {
            let mut usage = counts.usage_of(ids).await?;
            if let Some(unwritten) = reading.unwritten(ids) {
                for (usage, delta) in usage.iter_mut().zip(unwritten) {
                    delta.into_iter().for_each(|delta| usage.add(&delta));
                }
                return Ok(usage);
            }
        }
    }

    async fn usage_of_one(&self, id: &KeyId) -> Result<Usage, StoreError> {
        let usage = self.usage_of(std::slice::from_ref(id)).await?;
        Ok(usage.into_iter().next().unwrap_or_default())
    }

    /// Returns the usage of a page's keys. Keys whose counts cannot be read are moved to the page's
    /// corrupt rows.
    async fn usage_of_page(&self, page: &mut Page) -> Result<Vec<Usage>, StoreError> {
        let ids: Vec<KeyId> = page.items.iter().map(|record| record.id.clone()).collect();
        match self.usage_of(&ids).await {
            Err(error) if error.is_corrupt() => {}
            usage => return usage,
        }
        let (mut readable, mut all) = (Vec::new(), Vec::new());
        for record in std::mem::take(&mut page.items) {
            match self.usage_of_one(&record.id).await {
                Ok(usage) => {
                    readable.push(record);
                    all.push(usage);
                }
                Err(error) => page.corrupt.push(error.into_corrupt()?),
            }
        }
        page.items = readable;
        Ok(all)
    }

    /// Returns a key that is visible to the operator.
    async fn find(&self, id: &KeyId) -> Result<Arc<KeyRecord>, ManageError> {
        let found = self.store.get(id).await?;
        let found = found.filter(|record| self.sees(record));
        found.ok_or_else(|| ManageError::NotFound(id.clone()))
    }

    /// Checks whether the operator may perform this action on a key.
    fn may(&self, action: Action, record: &KeyRecord) -> Result<(), ManageError> {
        if !self.sees(record) {
            return Err(Denied::because("The key belongs to somebody else").into());
        }
        match self.policy() {
            Some(policy) => Ok(policy.allows(&self.operator, action, record)?),
            None => Ok(()),
        }
    }

    async fn is_primary(&self, record: &KeyRecord, at: SystemTime) -> Result<bool, ManageError> {
        let primary = self.store.primary(&OwnerRef::of(&record.owner), at).await?;
        Ok(primary.as_ref() == Some(&record.id))
    }

    /// Returns the manager's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.inner.authenticator.clock()
    }

    /// Returns the current time by the manager's clock, truncated to milliseconds, the precision
    /// that every store keeps.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        to_the_millisecond(self.inner.authenticator.clock().now())
    }
}

/// Refuses a record written by a newer version, which may contain settings unknown to this one.
fn readable(record: &KeyRecord) -> Result<(), ManageError> {
    match record.needs() {
        Some(needs) => Err(ManageError::Newer { needs }),
        None => Ok(()),
    }
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
