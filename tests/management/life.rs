//! What the tests of a key's life share: a desk of manager, clock and audit over a store that
//! awaits inside each call, can be told to let something else happen at one exact point, and to
//! give no answer there.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::audit::{AuditEvent, AuditTrail, MemoryAudit};
use portunus::key::{KeyDigest, KeyHasher, KeyId, KeyRecord, Owner, SigningState, TenantId};
use portunus::manage::{
    IssueRules, Issued, KeyChange, KeyManager, KeyManagerBuilder, ManageError, ManagedKey, NewKey,
    Operator, Role,
};
use portunus::store::{
    HourOfUse, KeyStore, ListQuery, Listed, MemoryStore, OwnerRef, Page, StoreError, StoredKey,
    UsageDelta, WriteBatch,
};
use portunus::testing::ManualClock;
use portunus::{Authenticator, Clock, ErrorCode};

use portunus_test_support::{Head, format, live, scope, tenant, test, user};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Where in a store's call something else can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Get,
    Primary,
    SigningState,
    BeforeApply,
    AfterApply,
}

type Step = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store in memory that awaits in each call.
#[derive(Clone, Default)]
pub(crate) struct Slow {
    inner: MemoryStore,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    yields: AtomicU32,
    calls: AtomicUsize,
    steps: Mutex<Vec<(Point, Step)>>,
    failing: Mutex<Vec<Point>>,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slow({:?})", self.inner)
    }
}

impl Slow {
    /// From now on each call lets others go first, up to this many times.
    pub(crate) fn yields(&self, most: u32) {
        self.told.yields.store(most, Ordering::SeqCst);
    }

    /// Once, at the next call that comes to this point, this happens first.
    pub(crate) fn once(&self, point: Point, step: impl Future<Output = ()> + Send + 'static) {
        self.told
            .steps
            .lock()
            .unwrap()
            .push((point, Box::pin(step)));
    }

    /// No answers at this point until it is told otherwise.
    pub(crate) fn fail(&self, point: Point) {
        self.told.failing.lock().unwrap().push(point);
    }

    pub(crate) fn recover(&self) {
        self.told.failing.lock().unwrap().clear();
    }

    async fn at(&self, point: Point) -> Result<(), StoreError> {
        let call = self.told.calls.fetch_add(1, Ordering::SeqCst);
        let most = self.told.yields.load(Ordering::SeqCst);
        let times = if most > 0 {
            1 + call % most as usize
        } else {
            0
        };
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
        let step = {
            let mut steps = self.told.steps.lock().unwrap();
            steps
                .iter()
                .position(|(at, _)| *at == point)
                .map(|place| steps.remove(place).1)
        };
        if let Some(step) = step {
            step.await;
        }
        match self.told.failing.lock().unwrap().contains(&point) {
            true => Err(StoreError::unavailable("connection reset by db.internal")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl KeyStore for Slow {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.inner.find(digests).await
    }
    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        self.inner.find_now(digests)
    }
    async fn get(&self, id: &KeyId) -> Result<Option<Listed>, StoreError> {
        self.at(Point::Get).await?;
        self.inner.get(id).await
    }
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.inner.list(query).await
    }
    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.at(Point::Primary).await?;
        self.inner.primary(owner, at).await
    }
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        self.at(Point::SigningState).await?;
        self.inner.signing_state(id).await
    }
    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.at(Point::BeforeApply).await?;
        self.inner.apply(batch).await?;
        self.at(Point::AfterApply).await
    }
    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        self.inner.record_usage(batch).await
    }
    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<Vec<HourOfUse>, StoreError> {
        self.inner.usage_by_hour(id, from, to).await
    }
    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.inner.forget_usage_before(before).await
    }
}

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
        // Gil may be acted for from everywhere, and is nobody's owner but of keys of globex.
        let visible = of == asking.as_str() || of == "globex";
        Ok(visible.then(|| Arc::new(user)))
    }
}

/// A store, a clock and an audit log, from which managers and authenticators are made.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) store: Slow,
    pub(crate) clock: ManualClock,
    pub(crate) log: MemoryAudit,
    pub(crate) trail: AuditTrail,
    pub(crate) hasher: KeyHasher,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let (clock, log) = (ManualClock::new(), MemoryAudit::new(100_000));
        let trail = AuditTrail::builder()
            .sink(log.clone())
            .clock(clock.clone())
            .build();
        Self {
            store: Slow::default(),
            clock,
            log,
            trail,
            hasher: KeyHasher::sha256(),
        }
    }

    pub(crate) fn builder(&self) -> KeyManagerBuilder {
        KeyManager::builder(self.store.clone(), format())
            .environments([live(), test()])
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
            .audit(self.trail.clone())
    }

    /// The service's own manager, with rules.
    pub(crate) fn manager(&self, set: impl FnOnce(&mut IssueRules)) -> KeyManager {
        let manager = self.builder().rules(rules(set)).build().unwrap();
        manager.with_authenticator(&self.authenticator())
    }

    pub(crate) fn host(&self) -> KeyManager {
        self.manager(|_| ())
    }

    pub(crate) fn authenticator(&self) -> Authenticator {
        Authenticator::builder(self.store.clone())
            .bearer([format()])
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
            .audit(self.trail.clone())
            .directory(People)
            .build()
            .unwrap()
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// A moment later.
    pub(crate) fn tick(&self) {
        self.clock.advance(SECOND);
    }

    /// The record as it is stored.
    pub(crate) async fn stored(&self, id: &KeyId) -> Option<Arc<KeyRecord>> {
        self.store
            .inner
            .get(id)
            .await
            .unwrap()
            .map(|listed| listed.record)
    }

    /// The id of the primary key now.
    pub(crate) async fn primary(&self, owner: &Owner) -> Option<KeyId> {
        self.store
            .inner
            .primary(&OwnerRef::of(owner), self.now())
            .await
            .unwrap()
    }

    pub(crate) async fn signs(&self, id: &KeyId) -> bool {
        self.store.inner.signing_state(id).await.unwrap().is_some()
    }

    /// All records, the newest first.
    pub(crate) async fn all(&self) -> Vec<Arc<KeyRecord>> {
        let mut query = ListQuery::new(self.now());
        query.limit = 500;
        self.store
            .inner
            .list(&query)
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|listed| listed.record)
            .collect()
    }

    pub(crate) async fn events(&self) -> Vec<AuditEvent> {
        self.trail.flush().await.unwrap();
        self.log.all()
    }

    pub(crate) async fn last_event(&self) -> AuditEvent {
        self.events().await.pop().unwrap()
    }

    /// What a request with this secret is refused with; `None` where it is let through.
    pub(crate) async fn refusal(&self, secret: &str) -> Option<ErrorCode> {
        self.authenticator()
            .authenticate(&Head::bearer(secret))
            .await
            .err()
            .map(|error| error.code())
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

/// A new key that ends after this time.
pub(crate) fn ending(name: &str, at: SystemTime) -> NewKey {
    let mut new = named(name);
    new.expires_at = Some(at);
    new
}

pub(crate) fn with_scopes(names: &[&str]) -> NewKey {
    named("key").with_scopes(names.iter().map(|name| scope(name)))
}

pub(crate) fn operator(name: &str, tenant_name: &str, role: Role) -> Operator {
    Operator::new(name, tenant(tenant_name), role)
}

pub(crate) fn change(set: impl FnOnce(&mut KeyChange)) -> KeyChange {
    let mut change = KeyChange::new();
    set(&mut change);
    change
}

/// Issues and takes the secret out.
pub(crate) async fn issue(manager: &KeyManager, new: NewKey) -> (String, Arc<KeyRecord>) {
    let Issued { key, record, .. } = manager.issue(new).await.unwrap();
    (key.reveal(), record)
}

/// The code of what was refused.
pub(crate) fn refused<T: fmt::Debug>(result: Result<T, ManageError>) -> ErrorCode {
    result.expect_err("a refusal").code()
}

/// The field that was refused.
pub(crate) fn field<T: fmt::Debug>(result: Result<T, ManageError>) -> &'static str {
    match result {
        Err(ManageError::Invalid { field, .. }) => field,
        other => panic!("expected to be refused for a field: {other:?}"),
    }
}

pub(crate) fn ids(keys: &[ManagedKey]) -> Vec<KeyId> {
    keys.iter().map(|key| key.record.id.clone()).collect()
}

/// Numbers that are the same for the same seed (SplitMix64).
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

    /// Less than this.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }
}
