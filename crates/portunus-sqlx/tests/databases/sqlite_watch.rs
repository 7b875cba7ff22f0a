//! What the processes and stores on one SQLite file receive from each other.

use portunus::store::UsageStore;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::recording_listener::{Received, RecordingListener};
use crate::common::{
    Home, SqliteHome, acme, at, batch, digest, id, insert, never, record, rehash, rejected, with_a,
};
use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditSink};
use portunus::store::{Change, Invalidation, InvalidationBus, KeyStore, UsageDelta, WriteBatch};
use portunus_sqlx::SqliteStore;
use portunus_test_support::wait::until_async;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

/// Writes a new version of the key `a`.
async fn revise(store: &SqliteStore) -> Instant {
    store
        .apply(&WriteBatch::new().update(crate::common::get(store, "a").await))
        .await
        .unwrap();
    Instant::now()
}

#[tokio::test]
async fn stores_on_one_file_receive_changes_within_two_polls() {
    let home = SqliteHome::new();
    let (here, there) = (with_a(&home).await, home.open().await);
    let watches = [here.watch(), there.watch()];
    let listeners = [
        RecordingListener::awake_on(&watches[0]).await,
        RecordingListener::awake_on(&watches[1]).await,
    ];
    let (mut latencies, mut written) = (Vec::new(), Vec::new());
    for round in 0..50_u64 {
        let writer = if round % 2 == 0 { &here } else { &there };
        listeners.iter().for_each(|listener| listener.clear());
        let acknowledged = revise(writer).await;
        written.push(("a".to_owned(), acknowledged));
        for listener in &listeners {
            latencies.push(
                listener
                    .wait_for_key("a")
                    .await
                    .saturating_duration_since(acknowledged),
            );
            listener.wait_for_proof().await;
            listener.assert_no_false_proof(&written);
            assert!(listener.changes().iter().all(|what| !what.everything));
        }
        written.clear();
        tokio::time::sleep(Duration::from_millis(round % 7 * 9)).await;
    }
    latencies.sort();
    let (p50, p99) = (
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
    );
    println!(
        "100 writes were received {p50:?} (p50) and {p99:?} (p99) after they were acknowledged"
    );
    assert!(p99 <= Duration::from_secs(2), "{p99:?}");
    assert!(p50 <= Duration::from_millis(100), "{p50:?}");
}

#[tokio::test]
async fn writes_that_change_no_key_are_not_published() {
    let home = SqliteHome::new();
    let (here, there) = (with_a(&home).await, home.open().await);
    let watch = there.watch();
    let listener = RecordingListener::awake_on(&watch).await;
    let event = |number: u32| {
        AuditEvent::new(
            format!("{number:032x}").parse().unwrap(),
            at(1),
            Action::Request,
            AuditOutcome::Ok,
        )
    };
    for number in 0..10 {
        here.record_usage(&[UsageDelta::new(id("a"), 3, at(7_200), None)])
            .await
            .unwrap();
        here.audit().record(&[event(number)]).await.unwrap();
        rejected(
            &here,
            WriteBatch::new().update(record("a")).require(never()),
        )
        .await;
        let set = Change::SetPrimary {
            owner: acme(),
            key: id("a"),
        };
        here.apply(&batch([
            set,
            Change::PinPrimary {
                owner: acme(),
                at: at(1_000),
            },
        ]))
        .await
        .unwrap();
        listener.wait_for_proof().await;
    }
    here.audit().forget_before(at(100)).await.unwrap();
    listener.wait_for_proof().await;
    assert_eq!(listener.changes(), []);
    let (new, moved) = (
        batch([insert(digest(2), record("b"))]),
        batch([rehash("b", digest(2), digest(3))]),
    );
    for change in [new, moved, batch([Change::Delete(id("b"))])] {
        here.apply(&change).await.unwrap();
        listener.wait_for_proof().await;
        assert_eq!(listener.changes(), [Invalidation::of(&change)]);
        listener.clear();
    }
}

#[tokio::test]
async fn publications_arrive_at_once_and_a_new_listener_receives_everything_first() {
    let home = SqliteHome::new();
    let store = with_a(&home).await;
    let watch = store.watch_every(Duration::ZERO);
    let first = RecordingListener::awake_on(&watch).await;
    let what = Invalidation::of(&batch([Change::Delete(id("a"))]));
    watch.publish(&what).await.unwrap();
    watch.publish(&Invalidation::default()).await.unwrap();
    assert_eq!(first.changes(), [what]);
    let second = RecordingListener::on(&watch);
    second.wait_for_proof().await;
    second.assert_everything_first();
    assert_eq!(first.changes().len(), 1, "only the new one");
    drop(first);
    until_async("one listener is left", || {
        format!("{watch:?}") == "SqliteWatch(1 listeners)"
    })
    .await;
    drop(watch.clone());
    second.wait_for_proof().await;
    drop(watch);
    tokio::time::sleep(Duration::from_millis(100)).await;
    second.clear();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(second.all(), [], "after the watch was dropped");
}

#[tokio::test]
async fn a_file_that_is_locked_for_long_proves_nothing_meanwhile() {
    let home = SqliteHome::new();
    // Without a write-ahead log, as on a host's own pool, a writer can block readers.
    let options = SqliteConnectOptions::new()
        .filename(home.path())
        .create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Delete);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone())
        .await
        .unwrap();
    let store = SqliteStore::new(pool);
    store.migrate().await.unwrap();
    store
        .apply(&batch([insert(digest(1), record("a"))]))
        .await
        .unwrap();
    let watch = store.watch();
    let listener = RecordingListener::awake_on(&watch).await;
    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    let locked = Instant::now();
    listener.clear();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(
        listener.proven().is_none_or(|proven| proven <= locked),
        "a proof out of a locked file"
    );
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    listener.clear();
    let written = [("a".to_owned(), revise(&store).await)];
    listener.wait_for_proof().await;
    listener.assert_everything_first();
    listener.assert_no_false_proof(&written);
}

#[tokio::test]
async fn a_file_without_a_schema_proves_nothing() {
    let home = SqliteHome::new();
    drop(home.connection().await);
    let address = format!("sqlite://{}", home.path().display());
    let store = SqliteStore::new(sqlx::SqlitePool::connect(&address).await.unwrap());
    let watch = store.watch();
    let listener = RecordingListener::on(&watch);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(listener.all(), []);
    store.migrate().await.unwrap();
    listener.wait_for_proof().await;
    listener.assert_everything_first();
}

const FILE: &str = "PORTUNUS_SQLX_WATCHED_FILE";

/// Not a test: the next test runs this in its own process.
#[tokio::test]
async fn a_process_that_revises_a_key_on_command() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let store = SqliteStore::open(path).await.unwrap();
    for line in std::io::stdin().lines() {
        line.unwrap();
        revise(&store).await;
        std::io::stderr().write_all(b"revised\n").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_another_process_is_received() {
    let home = SqliteHome::new();
    let store = with_a(&home).await;
    let watch = store.watch();
    let listener = RecordingListener::awake_on(&watch).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sqlite_watch::a_process_that_revises_a_key_on_command",
            "--nocapture",
        ])
        .env(FILE, home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut commands = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut latencies = Vec::new();
    for _ in 0..20 {
        listener.clear();
        commands.write_all(b"\n").unwrap();
        assert!(
            lines.any(|line| line == "revised"),
            "the other process ended"
        );
        let acknowledged = Instant::now();
        latencies.push(
            listener
                .wait_for_key("a")
                .await
                .saturating_duration_since(acknowledged),
        );
        listener.wait_for_proof().await;
        listener.assert_no_false_proof(&[("a".to_owned(), acknowledged)]);
        let changes = listener
            .all()
            .into_iter()
            .filter(|(_, received)| matches!(received, Received::Changed(_)))
            .count();
        assert_eq!(changes, 1);
    }
    drop(commands);
    child.wait().unwrap();
    latencies.sort();
    println!(
        "20 writes of another process were received after {:?} (p50), {:?} (longest)",
        latencies[10], latencies[19]
    );
    assert!(latencies[19] <= Duration::from_secs(2));
}
