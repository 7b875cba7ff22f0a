//! Key management in a transaction of the host: committed with the host's row, or not at all.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portunus::audit::{Action, AuditOutcome, AuditTrail, MemoryAudit};
use portunus::config::Limits;
use portunus::key::{Alphabet, KeyFormat, KeyId, Owner};
use portunus::limit::Plan;
use portunus::manage::{
    Idempotency, IssueRules, Issued, KeyChange, KeyManager, ManageError, ManagedKey, Management,
    NewKey, Operator, Role,
};
use portunus::quota::Quota;
use portunus::store::{Cache, Invalidation, InvalidationListener, KeyLookup, KeyStore};
use portunus::testing::TestRequest;
use portunus::{ErrorCode, Portunus};
use portunus_sqlx::{PostgresStore, SqliteStore, Written};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::wait::eventually_async;
use sqlx::{
    AssertSqlSafe, Connection, Executor, IntoArguments, PgPool, Pool, SqlitePool, Transaction,
};

use crate::common::outbox::HostBus;
use crate::common::{Home, PostgresHome, SqliteHome, tenant};

/// The staleness bound of a node that does not set one.
const BOUND: Duration = Duration::from_secs(2);

/// A database in which the host also has a table, `customers`.
trait Host: Home<Store: KeyStore + Clone> {
    type Driver: sqlx::Database;

    async fn pool(&self) -> Pool<Self::Driver>;

    /// Begins a transaction as the store requires it.
    async fn begin(pool: &Pool<Self::Driver>) -> Transaction<'static, Self::Driver>;

    async fn joined<T, F: Future<Output = Result<T, ManageError>>>(
        store: &Self::Store,
        transaction: &mut Transaction<'_, Self::Driver>,
        manager: &KeyManager,
        act: impl FnOnce(KeyManager) -> F,
    ) -> Result<Written<T>, ManageError>;

    async fn insert(transaction: &mut Transaction<'_, Self::Driver>, name: &str);
}

macro_rules! host {
    ($home:ty, $driver:ty, $begin:expr, $pool:expr) => {
        impl Host for $home {
            type Driver = $driver;

            async fn pool(&self) -> Pool<$driver> {
                let pool: Pool<$driver> = $pool(self).await;
                let make = "CREATE TABLE IF NOT EXISTS customers (name TEXT)";
                sqlx::query(make).execute(&pool).await.unwrap();
                pool
            }

            async fn begin(pool: &Pool<$driver>) -> Transaction<'static, $driver> {
                pool.begin_with($begin).await.unwrap()
            }

            async fn joined<T, F: Future<Output = Result<T, ManageError>>>(
                store: &Self::Store,
                transaction: &mut Transaction<'_, $driver>,
                manager: &KeyManager,
                act: impl FnOnce(KeyManager) -> F,
            ) -> Result<Written<T>, ManageError> {
                store.in_transaction(transaction, manager, act).await
            }

            async fn insert(transaction: &mut Transaction<'_, $driver>, name: &str) {
                let insert = sqlx::query("INSERT INTO customers VALUES ($1)").bind(name.to_owned());
                insert.execute(&mut **transaction).await.unwrap();
            }
        }
    };
}
host!(
    SqliteHome,
    sqlx::Sqlite,
    "BEGIN IMMEDIATE",
    async |home: &SqliteHome| {
        let address = format!("sqlite://{}?mode=rwc", home.path().display());
        SqlitePool::connect(&address).await.unwrap()
    }
);
host!(
    PostgresHome,
    sqlx::Postgres,
    "BEGIN",
    async |home: &PostgresHome| {
        PgPool::connect(&home.server.address(&home.name))
            .await
            .unwrap()
    }
);

/// A node with its own connections.
struct Node<H: Host> {
    store: H::Store,
    keys: Portunus,
    log: MemoryAudit,
}

impl<H: Host> Node<H> {
    async fn new(home: &H) -> Self {
        Self::with(home, Cache::new()).await
    }

    async fn with(home: &H, cache: Cache) -> Self {
        let (store, log) = (home.open().await, MemoryAudit::new(1000));
        let mut rules = IssueRules::default();
        rules.active_keys = Some(3);
        let limits = Limits::per_key([Quota::per_minute(1_000_000)]);
        let plans = ["free", "pro"].map(|name| Plan::new(name, []));
        let limits = plans.into_iter().fold(limits, Limits::plan);
        let keys = Portunus::builder(format())
            .store(store.clone())
            .cache(cache)
            .limits(limits)
            .management(Management::new().rules(rules))
            .audit(
                AuditTrail::builder()
                    .sink(log.clone())
                    .successes(false)
                    .build(),
            );
        let keys = keys.build().unwrap();
        Self { store, keys, log }
    }

    fn manager(&self) -> &KeyManager {
        self.keys.manager()
    }

    /// Why a key is refused, if it is.
    async fn refusal(&self, key: &str) -> Option<ErrorCode> {
        let request = TestRequest::get("/").bearer(key);
        let admitted = self.keys.authenticator().authenticate(&request).await;
        admitted.err().map(|error| error.code())
    }

    /// Waits until a key is refused with this code, or admitted, and asserts that it took at most
    /// the bound after `since`.
    async fn learns(&self, key: &str, refusal: Option<ErrorCode>, since: Instant) {
        let learned = eventually_async(async || {
            self.keys.maintain().await;
            (self.refusal(key).await == refusal).then(|| since.elapsed())
        });
        let after = learned.await.expect("the node learns");
        assert!(after <= BOUND + Duration::from_millis(300), "{after:?}");
    }

    /// The events of changes, and how they ended.
    async fn events(&self) -> Vec<(Action, AuditOutcome)> {
        let trail = self.keys.audit().unwrap();
        let written = eventually_async(async || {
            drop(trail.request_flush());
            self.keys.maintain().await;
            (trail.pending() == 0).then_some(())
        });
        written.await.expect("the events are written");
        let events = self.log.all().into_iter();
        let events = events.filter(|event| event.action != Action::Request);
        events.map(|event| (event.action, event.outcome)).collect()
    }

    async fn issue(&self, transaction: &mut Transaction<'_, H::Driver>) -> Written<Issued> {
        let issue = |keys: KeyManager| async move { keys.issue(new()).await };
        H::joined(&self.store, transaction, self.manager(), issue)
            .await
            .unwrap()
    }

    async fn revoke(
        &self,
        transaction: &mut Transaction<'_, H::Driver>,
        id: &KeyId,
    ) -> Written<ManagedKey> {
        let revoke = |keys: KeyManager| async move { keys.revoke(id, Some("fraud")).await };
        H::joined(&self.store, transaction, self.manager(), revoke)
            .await
            .unwrap()
    }
}

fn format() -> KeyFormat {
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    format.build().unwrap()
}

fn new() -> NewKey {
    NewKey::new("a key", Owner::tenant(tenant("globex")))
}

/// The number of rows of the host and of keys with everything that belongs to them.
async fn rows<H: Host>(home: &H) -> (usize, usize) {
    let mut raw = home.raw().await;
    let mut of_keys = 0;
    for table in [
        "keys",
        "digests",
        "primaries",
        "usage",
        "usage_by_hour",
        "deleted",
        "outbox",
    ] {
        of_keys += H::rows(&mut raw, &format!("SELECT 1 FROM portunus_{table}")).await;
    }
    (H::rows(&mut raw, "SELECT 1 FROM customers").await, of_keys)
}

async fn a_key_is_committed_with_the_row_of_the_host<H: Host>(home: &H) {
    let (node, other) = (Node::new(home).await, Node::new(home).await);
    let pool = home.pool().await;
    let mut transaction = H::begin(&pool).await;
    let issue = |keys: KeyManager| async move {
        let Issued {
            key,
            record,
            primary,
            ..
        } = keys.issue(new()).await?;
        Ok((key.reveal(), record.id.clone(), primary))
    };
    let done = H::joined(&node.store, &mut transaction, node.manager(), issue).await;
    let written = done.unwrap();
    let (key, id, primary) = written.uncommitted().clone();
    H::insert(&mut transaction, id.as_str()).await;
    assert!(primary, "the first of its owner");
    // Both nodes remember that it is unknown.
    for node in [&node, &other] {
        assert_eq!(node.refusal(&key).await, Some(ErrorCode::InvalidKey));
    }
    assert_eq!(node.events().await, []);
    transaction.commit().await.unwrap();
    let since = Instant::now();
    written.committed();
    assert_eq!(node.refusal(&key).await, None, "at once");
    other.learns(&key, None, since).await;
    assert_eq!(rows(home).await, (1, 3), "a key, its digest, the primary");
    assert_eq!(node.events().await, [(Action::KeyIssue, AuditOutcome::Ok)]);
}

async fn nothing_remains_after_a_rollback<H: Host>(home: &H) {
    let node = Node::with(home, Cache::new().bus(HostBus::default())).await;
    let kept = node.manager().issue(new()).await.unwrap();
    node.keys.maintain().await;
    let pool = home.pool().await;
    let before = rows(home).await;
    let secret = kept.key.reveal();
    for crashes in [false, true] {
        let mut transaction = H::begin(&pool).await;
        let issued = node.issue(&mut transaction).await;
        let revoked = node.revoke(&mut transaction, &kept.record.id).await;
        H::insert(&mut transaction, "globex").await;
        if crashes {
            // The connection ends without an end of the transaction.
            drop(transaction);
            pool.acquire().await.unwrap().close().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        drop((issued, revoked));
        assert_eq!(rows(home).await, before, "{crashes}");
        assert_eq!(node.refusal(&secret).await, None);
    }
    let done = (Action::KeyIssue, AuditOutcome::Ok);
    let given_up = [Action::KeyIssue, Action::KeyRevoke].map(|a| (a, AuditOutcome::Abandoned));
    let expected = [vec![done], given_up.into(), given_up.into()].concat();
    assert_eq!(node.events().await, expected);
}

/// What a node hears on the bus of the store.
#[derive(Default)]
struct Heard(Mutex<Vec<Invalidation>>);

impl InvalidationListener for Heard {
    fn invalidated(&self, what: &Invalidation) {
        self.0.lock().unwrap().push(what.clone());
    }
    fn caught_up(&self, _: Instant) {}
}

impl Heard {
    fn keys(&self) -> Vec<KeyId> {
        let heard = self.0.lock().unwrap();
        heard.iter().flat_map(|what| what.keys.clone()).collect()
    }
}

async fn a_rollback_sends_no_message<H: Host>(home: &H) {
    let node = Node::new(home).await;
    let (kept, marker) = (
        node.manager().issue(new()).await.unwrap().record,
        node.manager().issue(new()).await.unwrap().record,
    );
    let heard = Arc::new(Heard::default());
    let bus = home.open().await.bus().unwrap();
    let listener = Arc::clone(&heard) as Arc<dyn InvalidationListener>;
    bus.subscribe(Arc::downgrade(&listener));
    // A change that is committed arrives, after all earlier ones.
    let mark = async || {
        let mut change = KeyChange::new();
        change.description = Some(Some(format!("{:?}", Instant::now())));
        let changed = node.manager().update(&marker.id, change, None).await;
        changed.unwrap();
    };
    let listens = eventually_async(async || {
        mark().await;
        heard.keys().contains(&marker.id).then_some(())
    });
    listens.await.expect("the listener hears changes");
    // Until the last of them has arrived.
    let count = || heard.keys().len();
    let settled = eventually_async(async || {
        let before = count();
        tokio::time::sleep(Duration::from_millis(300)).await;
        (count() == before).then_some(())
    });
    settled.await.expect("the bus becomes quiet");
    heard.0.lock().unwrap().clear();

    let pool = home.pool().await;
    for crashes in [false, true] {
        let mut transaction = H::begin(&pool).await;
        let issued = node.issue(&mut transaction).await;
        let revoked = node.revoke(&mut transaction, &kept.id).await;
        match crashes {
            true => drop(transaction),
            false => transaction.rollback().await.unwrap(),
        }
        drop((issued, revoked));
        node.keys.maintain().await;
    }
    mark().await;
    let arrived = eventually_async(async || heard.keys().contains(&marker.id).then_some(()));
    arrived.await.expect("a later change arrives");
    let all = heard.0.lock().unwrap();
    for what in all.iter() {
        assert_eq!(what.keys, std::slice::from_ref(&marker.id), "{all:?}");
        assert!(!what.everything && what.known.is_empty(), "{all:?}");
    }
}

async fn a_revocation_is_effective_once_it_is_committed<H: Host>(home: &H) {
    let (node, other) = (Node::new(home).await, Node::new(home).await);
    let pool = home.pool().await;
    for reports in [true, false] {
        let issued = node.manager().issue(new()).await.unwrap();
        let (key, id) = (issued.key.reveal(), &issued.record.id);
        other.learns(&key, None, Instant::now()).await;
        let mut transaction = H::begin(&pool).await;
        let written = node.revoke(&mut transaction, id).await;
        for node in [&node, &other] {
            assert_eq!(node.refusal(&key).await, None, "not committed, {reports}");
        }
        transaction.commit().await.unwrap();
        let since = Instant::now();
        if reports {
            assert!(written.committed().record.revoked.is_some());
            assert_eq!(
                node.refusal(&key).await,
                Some(ErrorCode::KeyRevoked),
                "at once"
            );
        } else {
            // As if the process had ended here.
            std::mem::forget(written);
            node.learns(&key, Some(ErrorCode::KeyRevoked), since).await;
        }
        other.learns(&key, Some(ErrorCode::KeyRevoked), since).await;
    }
}

async fn a_change_that_is_not_reported_is_not_cached<H: Host>(home: &H) {
    // A bus that never says anything, of a node that would trust its cache for a minute.
    let node = Node::with(home, Cache::new().bus(portunus::store::LocalBus::new())).await;
    let issued = node.manager().issue(new()).await.unwrap();
    let key = issued.key.reveal();
    assert_eq!(node.refusal(&key).await, None);
    let pool = home.pool().await;
    let mut transaction = H::begin(&pool).await;
    drop(node.revoke(&mut transaction, &issued.record.id).await);
    assert_eq!(node.refusal(&key).await, None, "not committed");
    transaction.commit().await.unwrap();
    assert_eq!(node.refusal(&key).await, Some(ErrorCode::KeyRevoked));
}

async fn the_change_is_recorded_for_the_bus_of_the_host<H: Host>(home: &H) {
    let bus = HostBus::default();
    bus.fails.store(true, std::sync::atomic::Ordering::SeqCst);
    let node = Node::with(home, Cache::new().bus(bus)).await;
    let pool = home.pool().await;
    let mut transaction = H::begin(&pool).await;
    let written = node.issue(&mut transaction).await;
    assert_eq!(node.store.recorded_changes().await.unwrap(), []);
    transaction.commit().await.unwrap();
    std::mem::forget(written);
    assert_eq!(node.store.recorded_changes().await.unwrap().len(), 1);
}

async fn the_rules_of_the_manager_hold<H: Host>(home: &H) {
    let node = Node::new(home).await;
    let pool = home.pool().await;
    let mut transaction = H::begin(&pool).await;
    let refused = async |transaction: &mut _, manager: &KeyManager, new: NewKey| {
        let issue = |keys: KeyManager| async move { keys.issue(new).await };
        let done = H::joined(&node.store, transaction, manager, issue).await;
        done.expect_err("refused").code()
    };
    let guest = Operator::new("mallory".parse().unwrap(), tenant("globex"), Role::Member);
    let guest = node.manager().by(guest);
    let manager = node.manager();
    let code = refused(&mut transaction, &guest, new()).await;
    assert_eq!(code, ErrorCode::Forbidden);
    let mut unknown = new();
    unknown.plan = Some("gold".parse().unwrap());
    let code = refused(&mut transaction, manager, unknown).await;
    assert_eq!(code, ErrorCode::InvalidBody);

    let once = Idempotency::new("host", "POST /customers", "1", b"globex").unwrap();
    let mut first = new();
    first.idempotency = Some(once);
    let again = first.clone();
    // Several operations, of which the last one is refused.
    let all = |keys: KeyManager| async move {
        for _ in 0..4 {
            keys.issue(new()).await?;
        }
        Ok(())
    };
    let done = H::joined(&node.store, &mut transaction, manager, all).await;
    assert_eq!(done.unwrap_err().code(), ErrorCode::QuotaExceeded);
    let four = |keys: KeyManager| async move {
        let first = keys.issue(first).await?;
        let second = keys.issue(new()).await?;
        let third = keys.issue(new()).await?;
        let fourth = keys.issue(new()).await.unwrap_err();
        assert_eq!(fourth.code(), ErrorCode::QuotaExceeded);
        assert!(first.primary && !second.primary && !third.primary);
        keys.revoke(&first.record.id, None).await?;
        let promoted = keys.get(&third.record.id).await?.primary;
        assert!(promoted ^ keys.get(&second.record.id).await?.primary);
        let mut change = KeyChange::new();
        change.plan = Some(Some("pro".parse().unwrap()));
        keys.update(&third.record.id, change, None).await
    };
    let written = H::joined(&node.store, &mut transaction, manager, four)
        .await
        .unwrap();
    H::insert(&mut transaction, "globex").await;
    transaction.commit().await.unwrap();
    let plan = written.committed().plan.unwrap();
    assert_eq!(plan.as_str(), "pro");
    assert_eq!(rows(home).await, (1, 3 + 3 + 1));

    let mut transaction = H::begin(&pool).await;
    let issue = |keys: KeyManager| async move { keys.issue(again).await };
    let done = H::joined(&node.store, &mut transaction, manager, issue).await;
    assert!(matches!(done, Err(ManageError::DoneBefore(_))));
    let id = written_id(&node).await;
    let mut unknown = KeyChange::new();
    unknown.plan = Some(Some("gold".parse().unwrap()));
    let update = |keys: KeyManager| async move { keys.update(&id, unknown, None).await };
    let done = H::joined(&node.store, &mut transaction, manager, update).await;
    assert_eq!(done.unwrap_err().code(), ErrorCode::InvalidBody);
    transaction.commit().await.unwrap();
}

/// The id of a key that works.
async fn written_id<H: Host>(node: &Node<H>) -> KeyId {
    let query = portunus::store::ListQuery::new(node.manager().now());
    let page = node.manager().list(query).await.unwrap();
    let works = page.items.iter().find(|key| key.record.revoked.is_none());
    works.unwrap().record.id.clone()
}

async fn savepoints_of_the_host_and_dropped_calls_undo_only_their_part<H: Host>(home: &H)
where
    for<'c> &'c mut <H::Driver as sqlx::Database>::Connection: Executor<'c, Database = H::Driver>,
    <H::Driver as sqlx::Database>::Arguments: IntoArguments<H::Driver>,
{
    let node = Node::new(home).await;
    let pool = home.pool().await;
    let mut transaction = H::begin(&pool).await;
    let kept = node.issue(&mut transaction).await;
    let mut nested = transaction.begin().await.unwrap();
    let undone = node.issue(&mut nested).await;
    H::insert(&mut nested, "undone").await;
    nested.rollback().await.unwrap();
    drop(undone);
    let mut nested = transaction.begin().await.unwrap();
    let released = node.issue(&mut nested).await;
    nested.commit().await.unwrap();

    // A call that its caller gives up, after its write.
    let (done, is_done) = tokio::sync::oneshot::channel();
    let abandoned = |keys: KeyManager| async move {
        keys.issue(new()).await?;
        done.send(keys).unwrap();
        std::future::pending::<Result<(), ManageError>>().await
    };
    let leaked = {
        let call = H::joined(&node.store, &mut transaction, node.manager(), abandoned);
        tokio::select! {
            _ = call => panic!("it is pending"),
            keys = is_done => keys.unwrap(),
        }
    };
    let error = leaked.issue(new()).await.unwrap_err();
    assert!(format!("{error:?}").contains("CallEnded"), "{error:?}");
    drop(leaked);

    H::insert(&mut transaction, "kept").await;
    transaction.commit().await.unwrap();
    let (kept, released) = (kept.committed(), released.committed());
    for issued in [kept, released] {
        assert_eq!(node.refusal(&issued.key.reveal()).await, None);
    }
    assert_eq!(rows(home).await, (1, 2 + 2 + 1));
    let events = node.events().await;
    let done = events
        .iter()
        .filter(|(_, outcome)| *outcome == AuditOutcome::Ok);
    assert_eq!(done.count(), 2, "{events:?}");
}

/// Every case, on a separate home.
async fn every_case<H: Host>(home: impl Fn() -> H)
where
    for<'c> &'c mut <H::Driver as sqlx::Database>::Connection: Executor<'c, Database = H::Driver>,
    <H::Driver as sqlx::Database>::Arguments: IntoArguments<H::Driver>,
{
    a_key_is_committed_with_the_row_of_the_host(&home()).await;
    nothing_remains_after_a_rollback(&home()).await;
    a_rollback_sends_no_message(&home()).await;
    a_revocation_is_effective_once_it_is_committed(&home()).await;
    a_change_that_is_not_reported_is_not_cached(&home()).await;
    the_change_is_recorded_for_the_bus_of_the_host(&home()).await;
    the_rules_of_the_manager_hold(&home()).await;
    savepoints_of_the_host_and_dropped_calls_undo_only_their_part(&home()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_on_sqlite_are_managed_in_a_transaction_of_the_host() {
    every_case(SqliteHome::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_on_postgres_are_managed_in_a_transaction_of_the_host() {
    let server = Arc::new(Postgres::start());
    every_case(|| PostgresHome::new(&server)).await;
}

/// The error of a call in a transaction that the store does not accept.
async fn error<H: Host>(node: &Node<H>, transaction: &mut Transaction<'_, H::Driver>) -> String {
    let issue = |keys: KeyManager| async move { keys.issue(new()).await };
    let done = H::joined(&node.store, transaction, node.manager(), issue).await;
    format!("{:?}", done.expect_err("refused"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_transaction_that_is_not_the_writer_of_the_file_is_an_error() {
    let home = SqliteHome::new();
    let node = Node::new(&home).await;
    let pool = home.pool().await;
    let is_deferred = |error: String| assert!(error.contains("NotImmediate"), "{error}");

    let mut deferred = pool.begin().await.unwrap();
    is_deferred(error(&node, &mut deferred).await);
    // A snapshot that may be old.
    let read = sqlx::query("SELECT * FROM customers");
    read.fetch_all(&mut *deferred).await.unwrap();
    is_deferred(error(&node, &mut deferred).await);
    let mut writer = SqliteHome::begin(&pool).await;
    SqliteHome::insert(&mut writer, "globex").await;
    is_deferred(error(&node, &mut deferred).await);
    writer.commit().await.unwrap();
    is_deferred(error(&node, &mut deferred).await);
    deferred.rollback().await.unwrap();
    assert_eq!(rows(&home).await, (1, 0));

    // A file with other keys, to which this one is attached.
    let elsewhere = SqliteHome::new();
    drop(Node::new(&elsewhere).await);
    let other = elsewhere.pool().await;
    let mut connection = other.acquire().await.unwrap();
    let attach = format!("ATTACH '{}' AS ours", home.path().display());
    connection.execute(AssertSqlSafe(attach)).await.unwrap();
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let wrong = error(&node, &mut transaction).await;
    assert!(wrong.contains("Elsewhere"), "{wrong}");
    drop(transaction);
    drop(connection);

    // Tables that hide those of the file.
    let mut connection = pool.acquire().await.unwrap();
    let hide = "CREATE TEMP TABLE portunus_keys (id TEXT)";
    connection.execute(hide).await.unwrap();
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let wrong = error(&node, &mut transaction).await;
    assert!(wrong.contains("temporary tables"), "{wrong}");
    drop(transaction);
    connection.close().await.unwrap();

    let bare = SqliteHome::new();
    let pool = bare.pool().await;
    let store = SqliteStore::new(pool.clone());
    let node = Node::<SqliteHome> { store, ..node };
    let mut transaction = SqliteHome::begin(&pool).await;
    let wrong = error(&node, &mut transaction).await;
    assert!(wrong.contains("NotMigrated"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_transaction_of_another_kind_is_an_error() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let node = Node::new(&home).await;
    let pool = home.pool().await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"));
        let mut transaction = pool.begin_with(begin).await.unwrap();
        let wrong = error(&node, &mut transaction).await;
        assert!(wrong.contains(&level.to_lowercase()), "{wrong}");
        PostgresHome::insert(&mut transaction, level).await;
        transaction.commit().await.unwrap();
    }
    assert_eq!(rows(&home).await, (2, 0));

    let other = PostgresHome::new(&server);
    drop(Node::new(&other).await);
    let there = other.pool().await;
    let wrong = error(&node, &mut there.begin().await.unwrap()).await;
    assert!(wrong.contains("Elsewhere"), "{wrong}");

    // Tables of the same names in another schema come first.
    let mut transaction = pool.begin().await.unwrap();
    let hide = "CREATE SCHEMA other; CREATE TABLE other.portunus_keys (); \
        SET LOCAL search_path = other, public";
    transaction.execute(sqlx::raw_sql(hide)).await.unwrap();
    let wrong = error(&node, &mut transaction).await;
    assert!(wrong.contains("Elsewhere"), "{wrong}");
    transaction.rollback().await.unwrap();

    let store = PostgresStore::new(pool.clone());
    let node = Node::<PostgresHome> { store, ..node };
    let wrong = error(&node, &mut pool.begin().await.unwrap()).await;
    assert!(wrong.contains("NotMigrated"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_commit_with_a_key_waits_for_the_disk() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let node = Node::new(&home).await;
    let pool = home.pool().await;
    let mut transaction = pool.begin().await.unwrap();
    let set = "SET LOCAL synchronous_commit = off";
    transaction.execute(set).await.unwrap();
    let written = node.issue(&mut transaction).await;
    let setting: String = sqlx::query_scalar("SHOW synchronous_commit")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(setting, "on");
    transaction.commit().await.unwrap();
    written.committed();
}
