//! Stores and buses on databases pass the suites that portunus has for every implementation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use common::server::Server;
use portunus::conformance;
use portunus::store::{CachedStore, KeyStore, LocalBus, MemoryStore};
use portunus_sqlx::{PostgresStore, SqliteStore};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Mutex;

/// Held while a suite runs: two that wait for one disk could wait longer than a check may take.
static TURN: Mutex<()> = Mutex::const_new(());

/// Runs the suite for stores, and says how long it took.
async fn keeps_its_promises<S: KeyStore, Fut: Future<Output = S>>(what: &str, make: impl Fn() -> Fut) {
    let _turn = TURN.lock().await;
    let started = Instant::now();
    let outcome = conformance::key_store(make).await;
    println!("{what}: {:?}", started.elapsed());
    outcome.unwrap();
}

fn cached(store: impl KeyStore) -> CachedStore {
    CachedStore::builder(store).bus(LocalBus::new()).build()
}

/// A folder of SQLite files.
#[derive(Debug)]
struct Files {
    folder: tempfile::TempDir,
    count: AtomicU32,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), count: AtomicU32::new(0) }
    }

    /// A store on a new file.
    async fn store(&self) -> SqliteStore {
        let name = format!("keys{}.db", self.count.fetch_add(1, Ordering::Relaxed));
        let store = SqliteStore::open(self.folder.path().join(name)).await.unwrap();
        store.migrate().await.unwrap();
        store
    }
}

/// A PostgreSQL server.
#[derive(Debug)]
struct Databases {
    server: Arc<Server>,
    count: AtomicU32,
}

impl Databases {
    /// A server that is never to survive a crash, so that the disk is not waited for.
    async fn new() -> Self {
        let databases = Self { server: Arc::new(Server::start().await), count: AtomicU32::new(0) };
        let mut connection = databases.server.connection("postgres").await;
        sqlx::query("ALTER SYSTEM SET fsync = off").execute(&mut connection).await.unwrap();
        sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
        databases
    }

    /// A store on a new schema of one database, which is made faster than a database.
    async fn store(&self) -> PostgresStore {
        let name = format!("keys{}", self.count.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.server.connection("postgres").await;
        sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {name}"))).execute(&mut connection).await.unwrap();
        let options: PgConnectOptions = self.server.address("postgres").parse().unwrap();
        let store = PostgresStore::connect_with(options.options([("search_path", name)])).await.unwrap();
        store.migrate().await.unwrap();
        store
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_in_a_file_keeps_what_a_store_promises() {
    let files = Files::new();
    keeps_its_promises("SqliteStore", || files.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_on_a_server_keeps_what_a_store_promises() {
    let databases = Databases::new().await;
    keeps_its_promises("PostgresStore", || databases.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_keeps_what_the_store_behind_it_promises() {
    keeps_its_promises("CachedStore of MemoryStore", || async { cached(MemoryStore::new()) }).await;
    let files = Files::new();
    keeps_its_promises("CachedStore of SqliteStore", || async { cached(files.store().await) }).await;
}
