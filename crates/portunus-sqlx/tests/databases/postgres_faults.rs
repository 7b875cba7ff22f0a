//! PostgreSQL failures: an exhausted pool, a server that is gone, a lock that is never released, a
//! crash.

use portunus::store::KeyLookup;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    Home, PostgresHome, acme, all, assert_unavailable, at, batch, digest, found, get, id, insert,
    record, rejected, with_a, written,
};
use portunus::key::Revocation;
use portunus::store::{Change, KeyStore, Rejected, WriteBatch};
use portunus_sqlx::PostgresStore;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::wait::{eventually_async, until_async};
use sqlx::postgres::PgPoolOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_faults_are_reported_and_end_with_their_cause() {
    let server = Arc::new(Postgres::start());
    no_connection_left(&PostgresHome::new(&server)).await;
    a_lock_that_is_never_released(&PostgresHome::new(&server)).await;
    a_stalled_server(&PostgresHome::new(&server)).await;
    a_database_that_acknowledges_too_early(&PostgresHome::new(&server)).await;
    no_schema(&PostgresHome::new(&server)).await;
    a_stopped_server(&PostgresHome::new(&server)).await;
}

fn quick() -> PgPoolOptions {
    PostgresStore::pool_options().acquire_timeout(Duration::from_secs(1))
}

async fn no_connection_left(home: &PostgresHome) {
    with_a(home).await;
    let pool = quick()
        .max_connections(2)
        .connect(&home.server.address(&home.name))
        .await
        .unwrap();
    let store = PostgresStore::new(pool.clone());
    let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    assert_unavailable(&store.apply(&WriteBatch::new()).await.unwrap_err());
    drop(held);
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    // Writers alone never take every connection.
    let mut blocker = home.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE portunus_digests IN SHARE MODE")
        .execute(&mut blocker)
        .await
        .unwrap();
    let begun = Arc::<AtomicU32>::default();
    let writers: Vec<_> = (10..16)
        .map(|number| {
            let (store, begun) = (store.clone(), Arc::clone(&begun));
            let insert = insert(digest(number), record(&format!("key{number}")));
            tokio::spawn(async move {
                begun.fetch_add(1, Ordering::Relaxed);
                store.apply(&batch([insert])).await
            })
        })
        .collect();
    until_async("all begin", || begun.load(Ordering::Relaxed) == 6).await;
    let waiting = async || {
        let count = home.text(
            "SELECT CAST(COUNT(*) AS TEXT) FROM pg_stat_activity \
             WHERE wait_event_type = 'Lock' AND datname = current_database()",
        );
        (count.await != "0").then_some(())
    };
    let waiting = eventually_async(waiting).await;
    waiting.expect("a writer waiting for the lock");
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut blocker)
        .await
        .unwrap();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
}

async fn a_lock_that_is_never_released(home: &PostgresHome) {
    with_a(home).await;
    let options: sqlx::postgres::PgConnectOptions =
        home.server.address(&home.name).parse().unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .connect_with(options.options([("lock_timeout", "200ms")]));
    let store = PostgresStore::new(pool.await.unwrap());
    let mut blocker = home.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE portunus_keys IN ACCESS EXCLUSIVE MODE")
        .execute(&mut blocker)
        .await
        .unwrap();
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    assert_unavailable(
        &store
            .apply(&WriteBatch::new().update(record("a")))
            .await
            .unwrap_err(),
    );
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut blocker)
        .await
        .unwrap();
    assert_eq!(
        get(&store, "a").await.version,
        1,
        "no part of it was applied"
    );
    store
        .apply(&WriteBatch::new().update(record("a")))
        .await
        .unwrap();
}

async fn a_stalled_server(home: &PostgresHome) {
    with_a(home).await;
    let options: sqlx::postgres::PgConnectOptions =
        home.server.address(&home.name).parse().unwrap();
    let store = PostgresStore::new(sqlx::postgres::PgPoolOptions::new().connect_lazy_with(options));
    let mut blocker = home.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE portunus_keys IN ACCESS EXCLUSIVE MODE")
        .execute(&mut blocker)
        .await
        .unwrap();
    // A pool without its own limits: the store's limit ends the wait.
    let started = Instant::now();
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut blocker)
        .await
        .unwrap();
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
}

async fn a_database_that_acknowledges_too_early(home: &PostgresHome) {
    let store = with_a(home).await;
    // The trigger records the setting at the time of a write.
    home.execute(format!(
        "ALTER DATABASE {} SET synchronous_commit = off",
        home.name
    ))
    .await;
    home.execute("CREATE TABLE noted (setting TEXT)".into())
        .await;
    home.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO noted VALUES (current_setting(''synchronous_commit'')); RETURN NEW; END'"
            .into(),
    )
    .await;
    home.execute(
        "CREATE TRIGGER note AFTER UPDATE ON portunus_keys EXECUTE FUNCTION note()".into(),
    )
    .await;
    home.close(store).await;
    let store = home.open().await;
    store
        .apply(&WriteBatch::new().update(record("a")))
        .await
        .unwrap();
    assert_eq!(home.text("SELECT setting FROM noted").await, "on");
}

async fn no_schema(home: &PostgresHome) {
    let pool = sqlx::PgPool::connect(&home.server.address(&home.name)).await;
    let error = PostgresStore::new(pool.unwrap())
        .find(&[digest(1)])
        .await
        .unwrap_err();
    assert_unavailable(&error);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("42P01") && source.contains("portunus_keys"),
        "{source}"
    );
}

async fn a_stopped_server(home: &PostgresHome) {
    let store = with_a(home).await;
    home.server.stop();
    let started = Instant::now();
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    assert!(
        started.elapsed() < Duration::from_secs(11),
        "{:?}",
        started.elapsed()
    );
    assert_unavailable(&store.apply(&WriteBatch::new()).await.unwrap_err());
    home.server.start_again();
    assert_eq!(
        found(&store, digest(1)).await,
        Some(id("a")),
        "the same store, with new connections"
    );
    // Connections that were used a moment ago, and are broken: a lookup uses another one.
    for _ in 0..3 {
        let lookups = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.find(&[digest(1)]).await.map(|found| found.is_some()) })
        });
        for lookup in lookups.collect::<Vec<_>>() {
            assert!(lookup.await.unwrap().unwrap());
        }
        home.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
             AND datname = current_database()"
                .into(),
        )
        .await;
        assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    }
}

const ROUNDS: u32 = 20;
const WRITERS: u32 = 6;

/// Writers revoke keys in sequence while the server is killed: afterwards, acknowledged writes
/// exist, and each other write exists completely or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_the_server_is_killed() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let on = |options: PgPoolOptions| {
        let pool = options.connect_lazy(&home.server.address(&home.name));
        PostgresStore::new(pool.unwrap())
    };
    home.open().await;
    let (mut acknowledged, mut unanswered) = (0, 0);
    for round in 0..ROUNDS {
        let store = on(quick());
        let name = move |writer: u32, number: u32| format!("key{round}-{writer}-{number}");
        let mut writers = tokio::task::JoinSet::new();
        let revoked_so_far = Arc::new(AtomicU32::new(0));
        // Until then, a writer goes on: a busy machine may take longer to connect than the pool waits.
        let crashed = Arc::<AtomicBool>::default();
        for writer in 0..WRITERS {
            let (store, so_far) = (store.clone(), Arc::clone(&revoked_so_far));
            let crashed = Arc::clone(&crashed);
            writers.spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0_u32.. {
                    let (name, digest) = (
                        name(writer, number),
                        digest((round * 100 + writer) * 10_000 + number),
                    );
                    if store
                        .apply(&batch([insert(digest, record(&name))]))
                        .await
                        .is_err()
                    {
                        if crashed.load(Ordering::SeqCst) {
                            break;
                        }
                        continue;
                    }
                    let mut revoked = record(&name);
                    revoked.revoked = Some(Revocation::new(at(1_000), Some(name.clone())));
                    let pin = Change::PinPrimary {
                        owner: acme(),
                        at: at(1_000),
                    };
                    match store
                        .apply(&WriteBatch::new().update(revoked).change(pin))
                        .await
                    {
                        Ok(()) => {
                            acknowledged.push(name);
                            so_far.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert_unavailable(&error);
                            if crashed.load(Ordering::SeqCst) {
                                break;
                            }
                        }
                    }
                }
                acknowledged
            });
        }
        // After a number of writes, rather than a time, which a busy machine may need to start;
        // then at any moment.
        let enough = || revoked_so_far.load(Ordering::Relaxed) >= 6 + round;
        until_async("the writers get on", enough).await;
        crashed.store(true, Ordering::SeqCst);
        server.crash();
        let done = writers.join_all().await.concat();
        server.start_again();
        let store = on(PostgresStore::pool_options());
        for name in &done {
            let stored = get(&store, name).await;
            assert!(
                stored.revoked.is_some(),
                "round {round}: the revocation of {name} was acknowledged and is lost"
            );
            assert_eq!(stored.version, 2);
        }
        acknowledged += done.len();
        for item in all(&store).await {
            let whole = (item.version, item.revoked.is_some());
            assert!([(1, false), (2, true)].contains(&whole), "{whole:?}");
            unanswered += usize::from(item.revoked.is_none());
            let again = insert(digest(u32::MAX), (*item).clone());
            assert_eq!(
                rejected(&store, batch([again])).await,
                Rejected::IdKnown(item.id.clone())
            );
            store
                .apply(&batch([Change::Delete(item.id.clone())]))
                .await
                .unwrap();
        }
        store.close().await;
    }
    println!(
        "{acknowledged} revocations were acknowledged in {ROUNDS} rounds, {unanswered} keys were \
         not revoked yet"
    );
    assert!(
        acknowledged >= 6 * ROUNDS as usize,
        "only {acknowledged}: the test has tried nothing"
    );
}

/// Every statement waits behind one that waits to change its table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_waits_for_a_table_delays_lookups_only_briefly() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    // Schema 4 adds a column.
    home.written(3).await;
    let mut reader = home.connection().await;
    let begin = "BEGIN; SELECT count(*) FROM portunus_keys";
    sqlx::raw_sql(begin).execute(&mut reader).await.unwrap();
    let migrating = tokio::spawn({
        let home = home.clone();
        async move { home.open().await }
    });
    let mut other = home.connection().await;
    let (started, mut longest) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        let found = PostgresHome::rows(&mut other, "SELECT id FROM portunus_keys LIMIT 1").await;
        assert_eq!(found, 1);
        longest = longest.max(asked.elapsed());
    }
    assert!(!migrating.is_finished(), "it did not wait");
    assert!(
        longest < Duration::from_millis(1500),
        "a lookup took {longest:?}"
    );
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
    written::expect(&migrating.await.unwrap()).await;
}
