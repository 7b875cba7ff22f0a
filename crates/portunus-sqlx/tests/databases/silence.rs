//! A server that becomes silent, without a reset, that refuses connections, or whose callers
//! disconnect in the middle of a statement: no operation waits for longer than its limit, and the
//! store recovers soon after.

use portunus::store::KeyLookup;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{
    Home, PostgresHome, assert_unavailable, batch, digest, found, get, id, insert, record, with_a,
};
use portunus::store::{KeyStore, WriteBatch};
use portunus_sqlx::PostgresStore;
use portunus_test_support::postgres::{Postgres, free_port};
use portunus_test_support::proxy::{Failing, Proxy, Which};
use portunus_test_support::wait::eventually_async;

/// The longest time that a lookup takes, with an allowance for a busy machine: less than the five
/// seconds for which the pool waits for a connection.
const LOOKUP: Duration = Duration::from_millis(4_700);
/// The same for a write, which begins within ten seconds.
const WRITE: Duration = Duration::from_millis(12_700);
/// The time within which a recovered server is used again.
const BACK: Duration = Duration::from_secs(5);

/// How a silent network recovers, and its name.
type Heal = (&'static str, fn(&Proxy));

/// A store behind a network, whose ten connections were all used a moment ago.
async fn far(proxy: &Proxy, home: &PostgresHome) -> PostgresStore {
    let store = PostgresStore::connect(&proxy.address(&home.name))
        .await
        .unwrap();
    busy(&store, 10).await;
    store
}

/// Looks up the key `a` with this many concurrent lookups; returns the longest duration, and how
/// many succeeded.
async fn busy(store: &PostgresStore, count: usize) -> (Duration, usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let store = store.clone();
        tasks.spawn(async move {
            let asked = Instant::now();
            let found = store.find(&[digest(1)]).await;
            (asked.elapsed(), found.is_ok_and(|found| found.is_some()))
        });
    }
    let answers = tasks.join_all().await;
    let longest = answers
        .iter()
        .map(|(took, _)| *took)
        .max()
        .unwrap_or_default();
    (
        longest,
        answers.iter().filter(|(_, is_found)| *is_found).count(),
    )
}

/// Asserts that lookups and writes succeed within five seconds, each within its limit.
async fn assert_back(store: &PostgresStore, what: &str) {
    let back = Instant::now();
    loop {
        let (longest, found) = busy(store, 12).await;
        assert!(longest < LOOKUP, "{what}: {longest:?}");
        if found == 12 {
            break;
        }
        assert!(
            back.elapsed() < BACK,
            "{what}: {found} of 12 after {:?}",
            back.elapsed()
        );
    }
    println!("{what}: lookups after {:?}", back.elapsed());
    let revised = eventually_async(async || {
        let current = store.get(&id("a")).await.ok()??;
        let update = WriteBatch::new().update((*current).clone());
        store.apply(&update).await.ok()
    });
    revised.await.expect("a write");
    assert!(
        back.elapsed() < BACK,
        "{what}: a write after {:?}",
        back.elapsed()
    );
    println!("{what}: a write after {:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_costs_at_most_a_time_limit_and_is_used_again_soon() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    let proxy = Proxy::before(server.socket());
    let store = far(&proxy, &home).await;
    let heals: [Heal; 3] = [
        ("goes on where it was", Proxy::heal),
        ("knows no connection", |proxy| {
            proxy.fail_present(Failing::Reset, Which::All);
        }),
        ("leaves what was there silent", |proxy| {
            proxy.fail_present(Failing::Silent, Which::All);
        }),
    ];
    for (what, heal) in heals {
        assert_eq!(busy(&store, 10).await.1, 10, "{what}");
        proxy.fail(Failing::Silent, Which::All);
        let writer = store.clone();
        // Only once: it takes as long as a write may.
        let writers = if what == heals[0].0 { 8 } else { 0 };
        let writers: Vec<_> = (0..writers)
            .map(|number| {
                let write = batch([insert(digest(100 + number), record(&format!("w{number}")))]);
                let writer = writer.clone();
                tokio::spawn(async move {
                    let asked = Instant::now();
                    assert_unavailable(&writer.apply(&write).await.unwrap_err());
                    asked.elapsed()
                })
            })
            .collect();
        for _ in 0..2 {
            let (longest, found) = busy(&store, 25).await;
            assert_eq!(found, 0, "{what}");
            assert!(longest < LOOKUP, "{what}: {longest:?}");
        }
        let mut longest = Duration::ZERO;
        for writer in writers {
            longest = longest.max(writer.await.unwrap());
        }
        println!("{what}: no write took longer than {longest:?}");
        assert!(longest < WRITE, "{what}: {longest:?}");
        heal(&proxy);
        assert_back(&store, what).await;
    }
}

/// Returned connections are tested, so that many wait for an answer at every moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_under_load_leaves_no_connection_waiting() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    let proxy = Proxy::before(server.socket());
    let store = far(&proxy, &home).await;
    for round in 0..3 {
        let mut load = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let store = store.clone();
            load.spawn(async move {
                loop {
                    let _ = store.find(&[digest(1)]).await;
                    tokio::task::yield_now().await;
                }
            });
        }
        // At any moment of the load.
        tokio::time::sleep(Duration::from_millis(200 + round * 33)).await;
        proxy.fail(Failing::Silent, Which::All);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        load.shutdown().await;
        proxy.fail_present(Failing::Silent, Which::All);
        assert_back(&store, "silent under load").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_which_one_was_dead_are_tried_first() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    let proxy = Proxy::before(server.socket());
    let store = far(&proxy, &home).await;
    let mut best = Duration::MAX;
    // A busy machine may delay all of them, but not three times.
    for _ in 0..3 {
        proxy.fail_present(Failing::Silent, Which::All);
        // All were used a moment ago, and are trusted until one is found dead.
        assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
        let asked = Instant::now();
        let (longest, found) = busy(&store, 9).await;
        assert_eq!(found, 9, "after {:?}", asked.elapsed());
        best = best.min(longest);
        if best < Duration::from_millis(1_700) {
            return;
        }
    }
    panic!("{best:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_is_reported_at_once_with_its_cause() {
    let nobody = format!(
        "postgres://tester@127.0.0.1:{}/keys?sslmode=disable",
        free_port()
    );
    for through_a_pooler in [false, true] {
        let asked = Instant::now();
        let opened = if through_a_pooler {
            PostgresStore::behind_pooler(&nobody).await
        } else {
            PostgresStore::connect(&nobody).await
        };
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("Connection refused"), "{error}");
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "{:?}",
            asked.elapsed()
        );
    }
    // A server that accepts connections and does not answer.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let asked = Instant::now();
    let address = format!("postgres://tester@127.0.0.1:{port}/keys?sslmode=disable");
    let error = PostgresStore::connect(&address)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("5s"), "{error}");
    assert!(
        asked.elapsed() < Duration::from_secs(6),
        "{:?}",
        asked.elapsed()
    );

    let server = Arc::new(Postgres::start_on_port(0));
    let home = PostgresHome::new(&server);
    let store = with_a(&home).await;
    server.stop();
    // The first ones find the remaining connections.
    for _ in 0..3 {
        let asked = Instant::now();
        let error = store.find(&[digest(1)]).await.unwrap_err();
        let write = WriteBatch::new().update(record("a"));
        let of_a_write = store.apply(&write).await.unwrap_err();
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        for error in [&error, &of_a_write] {
            let source = std::error::Error::source(error).unwrap().to_string();
            assert!(source.contains("Connection refused"), "{source}");
        }
    }
    let asked = Instant::now();
    let mut many = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let store = store.clone();
        many.spawn(async move { store.find(&[digest(1)]).await.is_err() });
    }
    assert!(many.join_all().await.into_iter().all(|is_err| is_err));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    server.start_again();
    assert_back(&store, "started again").await;
}

/// The server is available, but accepts no more connections of this role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_server_is_reported_at_once_if_no_connection_is_left() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    server.sql("postgres", "CREATE ROLE clerk LOGIN IN ROLE tester");
    let limit = |most: i32| {
        server.sql(
            "postgres",
            &format!("ALTER ROLE clerk CONNECTION LIMIT {most}"),
        );
    };
    let address = server.address_for("clerk", &home.name);
    let store = PostgresStore::connect(&address).await.unwrap();
    assert_eq!(busy(&store, 1).await.1, 1);
    // While there is a connection, all operations wait for it.
    limit(1);
    assert_eq!(busy(&store, 200).await.1, 200);
    limit(0);
    assert_eq!(busy(&store, 200).await.1, 200);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'clerk'";
    server.sql("postgres", end);
    for _ in 0..2 {
        let asked = Instant::now();
        let error = store.find(&[digest(1)]).await.unwrap_err();
        let write = WriteBatch::new().update(record("a"));
        let of_a_write = store.apply(&write).await.unwrap_err();
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        for error in [&error, &of_a_write] {
            let source = std::error::Error::source(error).unwrap().to_string();
            assert!(source.contains("too many connections"), "{source}");
        }
    }
    let error = PostgresStore::connect(&address)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("too many connections"), "{error}");
    limit(-1);
    assert_back(&store, "connections are accepted again").await;
}

/// How many sessions of the server are in a transaction.
const IN_TRANSACTION: &str = "SELECT CAST(COUNT(*) AS TEXT) FROM pg_stat_activity \
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL \
    AND backend_type = 'client backend'";

async fn assert_no_transaction(home: &PostgresHome, what: &str) {
    let none = eventually_async(async || (home.text(IN_TRANSACTION).await == "0").then_some(()));
    assert!(none.await.is_some(), "{what}: a transaction is still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_no_transaction_and_no_bad_connection() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    let proxy = Proxy::before(server.socket());
    let pool = PostgresStore::pool_options().max_connections(1);
    let pool = pool.connect(&proxy.address(&home.name)).await.unwrap();
    let store = PostgresStore::new(pool);
    let many: Vec<_> = (1..30).map(digest).collect();
    for round in 0..4 {
        assert_eq!(found(&store, digest(1)).await, Some(id("a")));
        // The statement that begins a transaction is in flight when the caller disconnects.
        proxy.fail(Failing::Silent, Which::All);
        let (asking, many) = (store.clone(), many.clone());
        let asked = tokio::spawn(async move {
            if round % 2 == 0 {
                asking.find(&many).await.map(drop)
            } else {
                asking.apply(&WriteBatch::new().update(record("a"))).await
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        proxy.heal();
        assert_no_transaction(&home, "before the first statement").await;
        // No read is stale.
        let current = get(&store, "a").await;
        home.open()
            .await
            .apply(&WriteBatch::new().update(current.clone()))
            .await
            .unwrap();
        assert_eq!(get(&store, "a").await.version, current.version + 1);
    }
    // In the middle of a statement, which waits for a lock.
    for round in 0..2 {
        let mut blocker = home.connection().await;
        let lock = "BEGIN; LOCK TABLE portunus_keys IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut blocker).await.unwrap();
        let asking = store.clone();
        let current = record("a");
        let asked = tokio::spawn(async move {
            if round == 0 {
                asking.find(&[digest(1)]).await.map(drop)
            } else {
                asking.apply(&WriteBatch::new().update(current)).await
            }
        });
        let waits =
            "SELECT CAST(COUNT(*) AS TEXT) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        eventually_async(async || (home.text(waits).await == "1").then_some(()))
            .await
            .unwrap();
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut blocker)
            .await
            .unwrap();
        assert_no_transaction(&home, "in a statement").await;
        assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    }
    // At any moment.
    for round in 0_u64..300 {
        let asking = store.clone();
        let many = many.clone();
        let work = async move {
            let current = asking.get(&id("a")).await?.unwrap();
            asking.find(&many).await?;
            asking
                .apply(&WriteBatch::new().update((*current).clone()))
                .await
        };
        let _ = tokio::time::timeout(Duration::from_micros(round * 20), work).await;
    }
    assert_no_transaction(&home, "at any moment").await;
    let current = get(&store, "a").await;
    home.open()
        .await
        .apply(&WriteBatch::new().update(current.clone()))
        .await
        .unwrap();
    assert_eq!(get(&store, "a").await.version, current.version + 1);
}
