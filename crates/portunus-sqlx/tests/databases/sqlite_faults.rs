//! SQLite failures: an exhausted pool, a file that another process holds, a full disk, a file that
//! is not a database.

use portunus::store::KeyLookup;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    Home, SqliteHome, acme, all, assert_unavailable, at, batch, digest, found, get, id, insert,
    record, with_a,
};
use portunus::key::Revocation;
use portunus::store::{Change, KeyStore, WriteBatch};
use portunus_sqlx::SqliteStore;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

fn options(home: &SqliteHome) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(home.path())
}

#[tokio::test]
async fn an_exhausted_pool_is_unavailable_until_a_connection_is_returned() {
    let home = SqliteHome::new();
    with_a(&home).await;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(200));
    let pool = pool.connect_with(options(&home)).await.unwrap();
    let store = SqliteStore::new(pool.clone());
    let held = pool.acquire().await.unwrap();
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    assert_unavailable(&store.apply(&WriteBatch::new()).await.unwrap_err());
    drop(held);
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    store
        .apply(&WriteBatch::new().update(record("a")))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_written_by_another_process_is_unavailable_after_the_busy_timeout() {
    let home = SqliteHome::new();
    with_a(&home).await;
    let store = SqliteStore::open_with(options(&home).busy_timeout(Duration::from_millis(300)))
        .await
        .unwrap();
    let mut other = home.connection().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let started = Instant::now();
    assert_unavailable(
        &store
            .apply(&WriteBatch::new().update(record("a")))
            .await
            .unwrap_err(),
    );
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "it was waited for: {:?}",
        started.elapsed()
    );
    assert_eq!(
        found(&store, digest(1)).await,
        Some(id("a")),
        "readers need not wait"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    store
        .apply(&WriteBatch::new().update(record("a")))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_keeps_existing_data() {
    let home = SqliteHome::new();
    home.close(with_a(&home).await).await;
    let pages: u32 = home
        .text("SELECT CAST(page_count AS TEXT) FROM pragma_page_count")
        .await
        .parse()
        .unwrap();
    let store =
        SqliteStore::open_with(options(&home).pragma("max_page_count", (pages + 1).to_string()))
            .await
            .unwrap();
    let big = (0..200).map(|number| {
        let mut record = record(&format!("key{number}"));
        record.description = Some("x".repeat(500));
        insert(digest(1_000 + number), record)
    });
    let error = store.apply(&batch(big.clone())).await.unwrap_err();
    assert_unavailable(&error);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("13") && source.contains("full"), "{source}");
    assert_eq!(all(&store).await.len(), 1);
    home.open().await.apply(&batch(big)).await.unwrap();
    assert_eq!(all(&store).await.len(), 201);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_or_is_not_a_database_is_rejected_with_its_cause() {
    let nowhere = SqliteStore::open("/nowhere/at/all/keys.db").await;
    let error = nowhere.unwrap_err().to_string();
    assert!(error.contains("unable to open database file"), "{error}");

    let home = SqliteHome::new();
    let text = "this is not a database, although it is long enough to be one".repeat(100);
    std::fs::write(home.path(), text).unwrap();
    let error = SqliteStore::open(home.path())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("file is not a database"), "{error}");
}

#[tokio::test]
async fn a_pool_on_a_file_without_a_schema_is_unavailable() {
    let home = SqliteHome::new();
    drop(home.connection().await);
    let address = format!("sqlite://{}", home.path().display());
    let store = SqliteStore::new(sqlx::SqlitePool::connect(&address).await.unwrap());
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    store.migrate().await.unwrap();
    assert!(store.find(&[digest(1)]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_is_opened_with_a_write_ahead_log() {
    let home = SqliteHome::new();
    home.open().await;
    assert_eq!(
        home.text("SELECT journal_mode FROM pragma_journal_mode")
            .await,
        "wal"
    );
}

const FILE: &str = "PORTUNUS_SQLX_TEST_FILE";
const ROUNDS: usize = 20;

/// Not a test: the next test runs this in its own process, and kills it.
#[tokio::test]
async fn a_process_that_revokes_until_it_is_killed() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let store = SqliteStore::open(path).await.unwrap();
    let mine = std::process::id();
    for number in 0_u32.. {
        let name = format!("key{mine}-{number}");
        let digest = portunus::key::KeyHasher::sha256().digest(&name);
        store
            .apply(&batch([insert(digest, record(&name))]))
            .await
            .unwrap();
        let mut revoked = record(&name);
        revoked.revoked = Some(Revocation::new(at(1_000), None));
        let pin = Change::PinPrimary {
            owner: acme(),
            at: at(1_000),
        };
        store
            .apply(&WriteBatch::new().update(revoked).change(pin))
            .await
            .unwrap();
        // A single write each, so that a line is written completely or not at all.
        std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("revoked {name}\n").as_bytes(),
        )
        .unwrap();
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let home = SqliteHome::new();
    home.close(home.open().await).await;
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite_faults::a_process_that_revokes_until_it_is_killed",
                "--nocapture",
            ])
            .env(FILE, home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut done: Vec<String> = Vec::new();
        let mut take = |line: String| done.extend(line.strip_prefix("revoked ").map(str::to_owned));
        // After a number of lines, rather than a time, which a busy machine may need to start; then
        // at any moment.
        lines.by_ref().take(3 + round % 7).for_each(&mut take);
        child.kill().unwrap();
        lines.for_each(&mut take);
        child.wait().unwrap();
        let store = home.open().await;
        for name in &done {
            let stored = get(&store, name).await;
            assert_eq!(
                (stored.version, stored.revoked.is_some()),
                (2, true),
                "{name} was acknowledged"
            );
        }
        home.close(store).await;
        acknowledged += done.len();
    }
    assert!(
        acknowledged > ROUNDS,
        "only {acknowledged}: the test has tried nothing"
    );
}
