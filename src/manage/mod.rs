//! Managing keys: issue, import, list, change, rotate, make primary, revoke, delete.
//!
//! The manager checks what it is asked for (format, environment, vocabulary, times), makes one
//! atomic batch of it, and gives that to the store. Who asks is the host's to prove
//! ([`KeyManager::by`]); what they may do, and what they may set, is the policy's to say
//! ([`OperatorPolicy`], with the table of what every operator of a tenant may set). The host's own
//! rules ([`HostRules`]) complete or refuse what is asked for. Each act, done or refused, is one
//! event of the audit.

mod change;
mod check;
mod error;
mod host;
mod idempotency;
mod import;
mod issue;
mod management;
mod operator;
mod precondition;
mod retire;
mod rotate;
mod rules;
mod settings;
mod signing;
mod text;
mod verify;
mod watch;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

pub use change::KeyChange;
pub use error::ManageError;
pub use host::HostRules;
pub use idempotency::Idempotency;
pub use import::{ImportedDigest, NewImport};
pub use issue::{Issued, NewKey};
pub use management::Management;
pub use operator::{ByRole, Denied, Operator, OperatorPolicy, OperatorScope, Role, Setting};
pub use rotate::Rotated;
pub use rules::IssueRules;
pub use text::MAX_TEXT_LENGTH;

use check::{later, to_the_millisecond};
use precondition::Precondition;

use crate::actor::UserIds;
use crate::audit::{Action, AuditReader, AuditTrail, EventPage, EventQuery};
use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::config::BuildError;
use crate::key::{Environment, FormatError, KeyFormat, KeyId, KeyKind, KeyRecord, TenantId};
use crate::store::{
    Cursor, KeyStore, ListQuery, OwnerRef, Page, StoreError, Usage, UsageByHour, UsageStore,
};
use crate::telemetry;

/// How often a change is tried again when somebody else changed the record in between.
const ATTEMPTS: usize = 64;

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
    /// When it should be rotated, where the API says how often: a recommendation, and nothing is
    /// refused for it.
    pub rotation_due: Option<SystemTime>,
}

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys, newest first.
    pub items: Vec<ManagedKey>,
    /// Where the next page starts, if there is one. A page may be shorter than asked for, or empty,
    /// and still have a next.
    pub next: Option<Cursor>,
    /// The rows that cannot be read and were left out ([`Page::corrupt`]); none for an operator whom
    /// the policy lets see less than all of its tenant. Each is logged as an error (feature
    /// `tracing`).
    pub corrupt: Vec<String>,
}

/// Manages the keys of a store. Cloning shares everything.
#[derive(Clone)]
pub struct KeyManager {
    inner: Arc<Inner>,
    operator: Arc<Operator>,
    precondition: Option<Arc<Precondition>>,
    /// Whether anything was noted since it is in this operator's hands.
    noted: Arc<AtomicBool>,
}

struct Inner {
    /// What the manager and requests must agree on: hasher, scope model, directory, default quotas,
    /// user ids, clock, audit, and the uses that are not written yet.
    authenticator: Authenticator,
    store: Arc<dyn KeyStore>,
    /// Where uses are counted, if they are.
    counts: Option<Arc<dyn UsageStore>>,
    formats: Vec<(Vec<KeyKind>, KeyFormat)>,
    settings: Management,
}

impl Inner {
    /// How many active keys a tenant may have.
    fn active_keys(&self, tenant: &TenantId) -> Option<u64> {
        let own = self
            .settings
            .active_keys_of
            .as_ref()
            .and_then(|of| of(tenant));
        own.or(self.settings.rules.active_keys)
    }
}

impl KeyManager {
    /// The manager of a service.
    ///
    /// # Errors
    /// Where a format cannot write an environment that keys may be issued for, or where no key can
    /// be issued for the one that is served.
    pub(crate) fn new(
        authenticator: Authenticator,
        store: Arc<dyn KeyStore>,
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
            inner: Arc::new(Inner {
                authenticator,
                counts: store.usage(),
                store,
                formats,
                settings,
            }),
            operator: Arc::new(Operator::host()),
            precondition: None,
            noted: Arc::default(),
        })
    }

    /// The same manager, in the hands of an operator: allowed what the policy allows, confined to
    /// its tenant, and named by the audit. Without this it is the service itself that acts
    /// ([`Operator::host`]).
    #[must_use]
    pub fn by(&self, operator: Operator) -> Self {
        Self {
            operator: Arc::new(operator),
            noted: Arc::default(),
            ..self.clone()
        }
    }

    /// The trail that acts are noted in, where they are.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditTrail> {
        self.inner.authenticator.audit()
    }

    /// Which identifiers name users.
    #[must_use]
    pub fn user_ids(&self) -> UserIds {
        self.inner.authenticator.user_ids()
    }

    /// Who acts.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// One key, with its usage.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's key; [`ManageError::Forbidden`]; or the
    /// store giving no answer.
    pub async fn get(&self, id: &KeyId) -> Result<ManagedKey, ManageError> {
        let record = self.find(id).await?;
        self.shown(record).await
    }

    async fn shown(&self, record: Arc<KeyRecord>) -> Result<ManagedKey, ManageError> {
        self.may(Action::KeyRead, &record)?;
        let primary = self.is_primary(&record, self.now()).await?;
        let usage = self.usage_of_one(&record.id).await?;
        Ok(self.managed(record, usage, primary))
    }

    /// A page of keys, newest first. Never a secret, never a digest; an operator sees those of its
    /// tenant that the policy lets it see. It is the store's page: it may be short, even empty, and
    /// have a [`next`](KeyPage::next) one.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`], or the store giving no answer.
    pub async fn list(&self, query: ListQuery) -> Result<KeyPage, ManageError> {
        let query = self.narrow(query)?;
        let mut page = self.inner.store.list(&query).await?;
        let usage = self.usage_of_page(&mut page).await?;
        let owners = page.items.iter().map(|record| OwnerRef::of(&record.owner));
        let owners: Vec<_> = owners.collect::<HashSet<_>>().into_iter().collect();
        let primaries: HashSet<KeyId> = if owners.is_empty() {
            HashSet::new()
        } else {
            let primaries = self.inner.store.primaries(&owners, query.now).await?;
            primaries.into_iter().flatten().collect()
        };
        let managed = |(record, usage): (Arc<KeyRecord>, Usage)| {
            let primary = primaries.contains(&record.id);
            self.managed(record, usage, primary)
        };
        Ok(KeyPage {
            items: page.items.into_iter().zip(usage).map(managed).collect(),
            next: page.next,
            corrupt: self.left_out(page.corrupt),
        })
    }

    /// A page of a log's events, the last kept first, as far as the operator may see: those of its
    /// tenant that are about keys of its lists. Where rows cannot be read, as for [`list`](Self::list).
    ///
    /// # Errors
    /// [`ManageError::Forbidden`], or the log giving no answer ([`ManageError::Log`]).
    pub async fn events(
        &self,
        log: &(impl AuditReader + ?Sized),
        mut query: EventQuery,
    ) -> Result<EventPage, ManageError> {
        // Whoever sees a key in lists sees what happened to it.
        let visible = self.narrow(ListQuery::new(self.now()))?;
        query.tenant = visible.tenant.or(query.tenant);
        query.within_workspaces = visible.within_workspaces.or(query.within_workspaces);
        let mut page = log.events(&query).await.map_err(ManageError::Log)?;
        page.corrupt = self.left_out(page.corrupt);
        Ok(page)
    }

    /// Logs the rows that a list left out; returns them for those who may see all of the tenant, as
    /// nobody can tell whether a policy would show what cannot be read.
    fn left_out(&self, corrupt: Vec<String>) -> Vec<String> {
        for row in &corrupt {
            telemetry::left_out(row);
        }
        if self.sees_all() { corrupt } else { Vec::new() }
    }

    /// Whether the operator sees every key of its tenant, or is the host.
    fn sees_all(&self) -> bool {
        let all = ListQuery::new(self.now());
        self.narrow(all.clone()).is_ok_and(|mut seen| {
            seen.tenant = None;
            seen == all
        })
    }

    /// A query as far as the operator may see: of its tenant, and of what the policy lets it see
    /// there.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`] where it sees no lists at all.
    pub fn narrow(&self, mut query: ListQuery) -> Result<ListQuery, ManageError> {
        if let Some(policy) = self.policy() {
            query = policy.lists(&self.operator, query)?;
        }
        if let Some(tenant) = self.operator.tenant() {
            query.tenant = Some(tenant.clone());
        }
        Ok(query)
    }

    /// How often a key was used in each hour from the one of `from` to before `to`, the oldest
    /// first; never where the store keeps no counts. Where rows cannot be read, as for
    /// [`list`](Self::list).
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
        let Some(counts) = &self.inner.counts else {
            return Ok(UsageByHour::default());
        };
        let mut reading = self.inner.authenticator.usage().reading();
        loop {
            let mut usage = counts.usage_by_hour(id, from, to).await?;
            if let Some(unwritten) = reading.unwritten([id]) {
                unwritten
                    .iter()
                    .flatten()
                    .for_each(|delta| usage.add(delta));
                // What is not written yet may be of another hour than was asked for.
                let mut within = usage.between(from, to);
                within.corrupt = self.left_out(usage.corrupt);
                return Ok(within);
            }
        }
    }

    /// How keys have been used, with the uses that are not written yet.
    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let mut reading = self.inner.authenticator.usage().reading();
        loop {
            let mut usage = match &self.inner.counts {
                Some(counts) if !ids.is_empty() => counts.usage_of(ids).await?,
                _ => vec![Usage::default(); ids.len()],
            };
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

    /// The usage of a page's keys. Those whose counts cannot be read are left out, and named.
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

    /// A key that the operator may know of.
    async fn find(&self, id: &KeyId) -> Result<Arc<KeyRecord>, ManageError> {
        let found = self.inner.store.get(id).await?;
        let found = found.filter(|record| self.operator.sees(record));
        found.ok_or_else(|| ManageError::NotFound(id.clone()))
    }

    /// Whether the operator may do this to a key.
    fn may(&self, action: Action, record: &KeyRecord) -> Result<(), ManageError> {
        if !self.operator.sees(record) {
            return Err(Denied::because("This key would belong to another tenant").into());
        }
        match self.policy() {
            Some(policy) => Ok(policy.allows(&self.operator, action, record)?),
            None => Ok(()),
        }
    }

    async fn is_primary(&self, record: &KeyRecord, at: SystemTime) -> Result<bool, ManageError> {
        let primary = self
            .inner
            .store
            .primary(&OwnerRef::of(&record.owner), at)
            .await?;
        Ok(primary.as_ref() == Some(&record.id))
    }

    /// What an act has come to. It was done: that nothing more can be read now does not undo it,
    /// and a secret that was made is not lost for it.
    async fn done(&self, record: impl Into<Arc<KeyRecord>>) -> ManagedKey {
        let record = record.into();
        let primary = self.is_primary(&record, self.now()).await.unwrap_or(false);
        self.done_to(record, primary).await
    }

    /// The same where it is known whether it is the primary key.
    async fn done_to(&self, record: impl Into<Arc<KeyRecord>>, primary: bool) -> ManagedKey {
        let record = record.into();
        let usage = self.usage_of_one(&record.id).await.unwrap_or_default();
        self.managed(record, usage, primary)
    }

    fn managed(&self, record: Arc<KeyRecord>, usage: Usage, primary: bool) -> ManagedKey {
        // What has ended or has a successor needs no rotation any more.
        let may_rotate = record.successor.is_none() && record.counts_as_active(self.now());
        let due = self
            .inner
            .settings
            .rules
            .rotate_every
            .filter(|_| may_rotate);
        let rotation_due = due.and_then(|every| later(record.created_at, every));
        ManagedKey {
            record,
            usage,
            primary,
            rotation_due,
        }
    }

    /// Where the manager's time comes from.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.inner.authenticator.clock()
    }

    /// The time of day by the manager's clock, in whole milliseconds: what every store can keep.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        to_the_millisecond(self.inner.authenticator.clock().now())
    }
}

/// Refuses a record of a newer version, which may mean more than is known here.
fn readable(record: &KeyRecord) -> Result<(), ManageError> {
    match record.needs() {
        Some(needs) => Err(ManageError::Newer { needs }),
        None => Ok(()),
    }
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager")
            .field("store", &self.inner.store)
            .finish_non_exhaustive()
    }
}
