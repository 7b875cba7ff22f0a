//! Stores and buses on databases pass the conformance suites.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::common::{Home, PostgresHome, written};
use portunus::clock::SystemClock;
use portunus::credit::CreditStore;
use portunus::store::{
    Cache, CachedStore, Change, KeyStore, ListQuery, LocalBus, MemoryStore, UsageStore, WriteBatch,
};
use portunus_conformance::{self as conformance, BusNodes};
use portunus_sqlx::{PostgresStore, SqliteStore};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::proxy::{Failing, Proxy, Which};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::{Mutex, RwLock};

/// Store suites run one after the other, since two that share one disk could exceed the time limit
/// of a check. Bus suites, which mostly wait for a clock, run concurrently.
static TURN: RwLock<()> = RwLock::const_new(());

/// Runs the store suite, and prints how long it took.
pub(crate) async fn passes_the_store_suite<S: KeyStore, Fut: Future<Output = S>>(
    what: &str,
    make: impl Fn() -> Fut,
) {
    let _turn = TURN.write().await;
    let started = Instant::now();
    let outcome = conformance::key_store(make).await;
    println!("{what}: {:?}", started.elapsed());
    outcome.unwrap();
}

/// Runs the suite for credits, and prints how long it took.
pub(crate) async fn passes_the_credit_suite<S: CreditStore, Fut: Future<Output = S>>(
    what: &str,
    make: impl Fn() -> Fut,
) {
    let _turn = TURN.write().await;
    let started = Instant::now();
    let outcome = conformance::credit_store(make).await;
    println!("{what}: {:?}", started.elapsed());
    outcome.unwrap();
}

/// Runs the bus suite, and prints how long it took.
pub(crate) async fn passes_the_bus_suite<Fut: Future<Output = BusNodes>>(
    what: &str,
    make: impl Fn() -> Fut,
) {
    let _turn = TURN.read().await;
    let started = Instant::now();
    let outcome = conformance::invalidation_bus(make).await;
    println!("{what}: {:?}", started.elapsed());
    outcome.unwrap();
}

/// The store without its keys.
async fn emptied<S: KeyStore + UsageStore>(store: S) -> S {
    let keys = store.list(&ListQuery::new(written::now())).await.unwrap();
    let mut batch = WriteBatch::new();
    for key in keys.items {
        batch = batch.change(Change::Delete(key.id.clone()));
    }
    for mut operation in store.open_bulk_operations().await.unwrap() {
        operation.step += 1;
        operation.ended_at = Some(written::now());
        batch = batch.change(Change::Bulk(Box::new(operation)));
    }
    store.apply(&batch).await.unwrap();
    store.forget_usage_before(written::now()).await.unwrap();
    store
}

fn cached(store: impl KeyStore) -> CachedStore {
    Cache::new()
        .bus(LocalBus::new())
        .around(store, SystemClock::default())
}

/// A folder of SQLite files.
#[derive(Debug)]
struct Files {
    folder: tempfile::TempDir,
    count: AtomicU32,
    /// The schemas for which a template database was created.
    is_made: Mutex<Vec<u32>>,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            count: AtomicU32::new(0),
            is_made: Mutex::new(Vec::new()),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(format!(
            "keys{}.db",
            self.count.fetch_add(1, Ordering::Relaxed)
        ))
    }

    /// A store on a file that an earlier schema wrote, and that was migrated.
    async fn store(&self) -> SqliteStore {
        let path = self.path();
        let schema = 1 + self.count.load(Ordering::Relaxed) % written::LATEST;
        let migrated = self.folder.path().join(format!("migrated{schema}.db"));
        let mut is_made = self.is_made.lock().await;
        if !is_made.contains(&schema) {
            std::fs::copy(written::file(schema, "sqlite"), &migrated).unwrap();
            emptied(SqliteStore::open(&migrated).await.unwrap())
                .await
                .close()
                .await;
            is_made.push(schema);
        }
        drop(is_made);
        std::fs::copy(migrated, &path).unwrap();
        SqliteStore::open(path).await.unwrap()
    }
}

/// A PostgreSQL server.
#[derive(Debug)]
struct Databases {
    server: Arc<Postgres>,
    count: AtomicU32,
    is_made: Mutex<Vec<u32>>,
}

impl Databases {
    fn new() -> Self {
        let server = Arc::new(Postgres::start());
        Self {
            server,
            count: AtomicU32::new(0),
            is_made: Mutex::new(Vec::new()),
        }
    }

    /// A new database: notifications in one are not received in another.
    fn home(&self) -> PostgresHome {
        PostgresHome::new(&self.server)
    }

    /// A store on a copy of a database that an earlier schema wrote, and that was migrated.
    async fn store(&self) -> PostgresStore {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let schema = 1 + number % written::LATEST;
        let (migrated, name) = (format!("migrated{schema}"), format!("copy{number}"));
        let mut is_made = self.is_made.lock().await;
        if !is_made.contains(&schema) {
            let address = self.server.database(&migrated);
            let dump = std::fs::read_to_string(written::file(schema, "sql")).unwrap();
            self.server.sql(&migrated, &dump);
            emptied(PostgresStore::connect(&address).await.unwrap())
                .await
                .close()
                .await;
            is_made.push(schema);
        }
        let copy = format!("CREATE DATABASE {name} TEMPLATE {migrated} STRATEGY FILE_COPY");
        self.server.sql("postgres", &copy);
        drop(is_made);
        PostgresStore::connect(&self.server.address(&name))
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_in_a_file_passes() {
    let files = Files::new();
    passes_the_store_suite("SqliteStore", || files.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_on_a_server_passes() {
    let databases = Databases::new();
    passes_the_store_suite("PostgresStore", || databases.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn credits_in_a_file_pass() {
    let files = Files::new();
    passes_the_credit_suite("credits of SqliteStore", || files.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn credits_on_a_server_pass() {
    let databases = Databases::new();
    passes_the_credit_suite("credits of PostgresStore", || databases.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_in_front_of_a_store_passes() {
    passes_the_store_suite("CachedStore of MemoryStore", || async {
        cached(MemoryStore::new())
    })
    .await;
    let files = Files::new();
    passes_the_store_suite("CachedStore of SqliteStore", || async {
        cached(files.store().await)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_notification_bus_passes() {
    let databases = Databases::new();
    passes_the_bus_suite("PostgresBus", || async {
        let home = databases.home();
        let near = home.open().await;
        let proxy = Arc::new(Proxy::before(home.server.socket()));
        let address = proxy.address(&home.name);
        let far = PostgresStore::connect(&address).await.unwrap();
        let cut = Arc::clone(&proxy);
        BusNodes::new(near.bus(), far.bus())
            .with_stores(near, far)
            .with_faults(
                move || {
                    cut.fail(Failing::Silent, Which::All);
                    std::future::ready(())
                },
                move || {
                    proxy.fail_present(Failing::Silent, Which::All);
                    std::future::ready(())
                },
            )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_file_watch_passes() {
    let files = Files::new();
    passes_the_bus_suite("SqliteWatch", || async {
        let path = files.path();
        let [here, there] = [
            SqliteStore::open(&path).await.unwrap(),
            SqliteStore::open(&path).await.unwrap(),
        ];
        BusNodes::new(here.watch(), there.watch()).with_stores(here, there)
    })
    .await;
}

/// Without a write-ahead log, as on a host's own pool, a writer can block readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_file_watch_passes_while_the_file_is_locked_at_times() {
    let files = Files::new();
    passes_the_bus_suite("SqliteWatch, locked at times", || async {
        let options = SqliteConnectOptions::new()
            .filename(files.path())
            .create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Delete);
        let pool = SqlitePoolOptions::new().max_connections(1);
        let here = SqliteStore::new(pool.clone().connect_with(options.clone()).await.unwrap());
        let there = SqliteStore::new(pool.connect_with(options.clone()).await.unwrap());
        here.migrate().await.unwrap();
        let locking = Arc::new(Mutex::new(options.connect().await.unwrap()));
        let locked = Arc::clone(&locking);
        BusNodes::new(here.watch(), there.watch())
            .with_stores(here, there)
            .with_faults(
                move || run(Arc::clone(&locking), "BEGIN EXCLUSIVE"),
                move || run(Arc::clone(&locked), "COMMIT"),
            )
    })
    .await;
}

async fn run(connection: Arc<Mutex<SqliteConnection>>, statement: &'static str) {
    sqlx::raw_sql(statement)
        .execute(&mut *connection.lock().await)
        .await
        .unwrap();
}
