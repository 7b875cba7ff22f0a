//! Shared fixture for tests of a key's lifecycle: a manager, a clock and an audit log over a store
//! that can pause, run another operation at one exact point, or fail there.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::audit::{AuditEvent, AuditTrail, MemoryAudit};
use portunus::key::{KeyHasher, KeyId, KeyRecord, Owner, PlanName, TenantId};
use portunus::manage::{
    IssueRules, Issued, KeyChange, KeyManager, ManageError, ManagedKey, NewKey, Operator, Role,
};
use portunus::store::{KeyStore, ListQuery, OwnerRef};
use portunus::testing::ManualClock;
use portunus::{Authenticator, Clock, ErrorCode};

use portunus_test_support::{FaultyStore, Head, Setup, format, live, scope, tenant, test, user};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Acme has ann and bob, and globex has gil.
#[derive(Debug)]
struct People;

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        asking: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        let UserRef::Id(id) = named else {
            return Ok(None);
        };
        let of = match id.as_str() {
            "ann" | "bob" | "550e8400-e29b-41d4-a716-446655440000" => "acme",
            "gil" => "globex",
            "broken" => return Err(DirectoryError::unavailable("connection reset")),
            _ => return Ok(None),
        };
        let user = User::new(id.clone(), tenant(of)).collaborating();
        // Gil is a collaborator of every tenant, but owns only keys of globex.
        let visible = of == asking.as_str() || of == "globex";
        Ok(visible.then(|| Arc::new(user)))
    }

    /// Acme has the plan `standard`, and other tenants have none. It matters where the limits
    /// declare plans.
    async fn plan(&self, tenant: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        Ok((tenant.as_str() == "acme").then(|| PlanName::new("standard").unwrap()))
    }
}

/// A store, a clock and an audit log, from which managers and authenticators are built.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) store: FaultyStore,
    pub(crate) clock: ManualClock,
    pub(crate) log: MemoryAudit,
    pub(crate) trail: AuditTrail,
    pub(crate) hasher: KeyHasher,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let (clock, log) = (ManualClock::new(), MemoryAudit::new(100_000));
        let trail = AuditTrail::builder().sink(log.clone()).build();
        Self {
            store: FaultyStore::new(),
            clock,
            log,
            trail,
            hasher: KeyHasher::sha256(),
        }
    }

    pub(crate) fn builder(&self) -> Setup {
        self.without_people().directory(People)
    }

    pub(crate) fn without_people(&self) -> Setup {
        Setup::on(self.store.clone())
            .bearer([format()])
            .environments([live(), test()])
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
            .audit(self.trail.clone())
    }

    /// The service's own manager, with rules.
    pub(crate) fn manager(&self, set: impl FnOnce(&mut IssueRules)) -> KeyManager {
        self.builder().rules(rules(set)).manager()
    }

    pub(crate) fn host(&self) -> KeyManager {
        self.manager(|_| ())
    }

    pub(crate) fn authenticator(&self) -> Authenticator {
        self.builder().build().unwrap()
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Advances the clock slightly.
    pub(crate) fn tick(&self) {
        self.clock.advance(SECOND);
    }

    /// Returns the record as stored.
    pub(crate) async fn stored(&self, id: &KeyId) -> Option<Arc<KeyRecord>> {
        self.store.inner().get(id).await.unwrap()
    }

    /// Returns the id of the current primary key.
    pub(crate) async fn primary(&self, owner: &Owner) -> Option<KeyId> {
        self.store
            .inner()
            .primary(&OwnerRef::of(owner), self.now())
            .await
            .unwrap()
    }

    pub(crate) async fn signs(&self, id: &KeyId) -> bool {
        let states = self.store.inner().signing().unwrap();
        states.signing_state(id).await.unwrap().is_some()
    }

    /// Returns all records, the newest first.
    pub(crate) async fn all(&self) -> Vec<Arc<KeyRecord>> {
        let mut query = ListQuery::new(self.now());
        query.limit = 500;
        self.store.inner().list(&query).await.unwrap().items
    }

    pub(crate) async fn events(&self) -> Vec<AuditEvent> {
        self.trail.flush().await.unwrap();
        self.log.all()
    }

    pub(crate) async fn last_event(&self) -> AuditEvent {
        self.events().await.pop().unwrap()
    }

    /// Returns the refusal of a request with this secret, or `None` if it passes.
    pub(crate) async fn refusal(&self, secret: &str) -> Option<ErrorCode> {
        let authenticator = self.authenticator();
        let outcome = authenticator.authenticate(&Head::bearer(secret)).await;
        authenticator.write_rehashes().await;
        outcome.err().map(|error| error.code())
    }
}

pub(crate) fn rules(set: impl FnOnce(&mut IssueRules)) -> IssueRules {
    let mut rules = IssueRules::default();
    set(&mut rules);
    rules
}

pub(crate) fn acme() -> Owner {
    Owner::tenant(tenant("acme"))
}

pub(crate) fn ann() -> Owner {
    Owner::user(tenant("acme"), user("ann"))
}

pub(crate) fn globex() -> Owner {
    Owner::tenant(tenant("globex"))
}

pub(crate) fn named(name: &str) -> NewKey {
    NewKey::new(name, acme())
}

/// A new key that expires after this time.
pub(crate) fn ending(name: &str, at: SystemTime) -> NewKey {
    let mut new = named(name);
    new.expires_at = Some(at);
    new
}

pub(crate) fn with_scopes(names: &[&str]) -> NewKey {
    named("key").with_scopes(names.iter().map(|name| scope(name)))
}

pub(crate) fn operator(name: &str, tenant_name: &str, role: Role) -> Operator {
    Operator::new(user(name), tenant(tenant_name), role)
}

pub(crate) fn change(set: impl FnOnce(&mut KeyChange)) -> KeyChange {
    let mut change = KeyChange::new();
    set(&mut change);
    change
}

/// Issues a key and returns its secret.
pub(crate) async fn issue(manager: &KeyManager, new: NewKey) -> (String, Arc<KeyRecord>) {
    let Issued { key, record, .. } = manager.issue(new).await.unwrap();
    (key.reveal(), record)
}

/// Returns the code of a refusal.
pub(crate) fn refused<T: fmt::Debug>(result: Result<T, ManageError>) -> ErrorCode {
    result.expect_err("a refusal").code()
}

/// Returns the field of a refusal.
pub(crate) fn field<T: fmt::Debug>(result: Result<T, ManageError>) -> &'static str {
    match result {
        Err(ManageError::Invalid { field, .. }) => field,
        other => panic!("expected to be refused for a field: {other:?}"),
    }
}

pub(crate) fn ids(keys: &[ManagedKey]) -> Vec<KeyId> {
    keys.iter().map(|key| key.record.id.clone()).collect()
}

/// A generator that returns the same numbers for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number less than `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }
}
