//! PostgreSQL behind a PgBouncer in transaction mode: the same promises, and nothing that is left
//! to other clients of the pooler.

use portunus::store::KeyLookup;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::conformance::{keeps_its_promises, tells_what_it_promises};
use crate::common::everything::everything;
use crate::common::recording_listener::RecordingListener;
use crate::common::{
    Home, PostgresHome, assert_unavailable, batch, digest, found, get, id, insert, record, secrets,
    with_a,
};
use portunus::store::{KeyStore, WriteBatch};
use portunus_conformance::BusNodes;
use portunus_sqlx::{OpenError, PostgresStore};
use portunus_test_support::pgbouncer::PgBouncer;
use portunus_test_support::postgres::{Postgres, free_port};
use portunus_test_support::proxy::{Failing, Proxy, Which};
use portunus_test_support::wait::eventually_async;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

/// A server whose databases are made without waiting for the disk.
fn quick_server() -> Arc<Postgres> {
    let server = Arc::new(Postgres::start());
    server.sql("postgres", "ALTER SYSTEM SET fsync = off");
    server.sql("postgres", "SELECT pg_reload_conf()");
    server
}

/// The same and a pooler before it, which gives back what was not used for a moment.
fn pooled(more: &str) -> (Arc<Postgres>, PgBouncer) {
    let server = quick_server();
    let pooler = PgBouncer::with(&server, &format!("server_idle_timeout = 2\n{more}"));
    (server, pooler)
}

async fn through(pooler: &PgBouncer, home: &PostgresHome) -> PostgresStore {
    PostgresStore::behind_pooler(&pooler.address(&home.name))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_behind_a_pooler_keeps_what_a_store_promises() {
    let (server, pooler) = pooled("");
    keeps_its_promises("PostgresStore behind PgBouncer", || async {
        through(&pooler, &PostgresHome::new(&server)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_secret_behind_a_pooler_is_seen_by_every_cache() {
    let (server, pooler) = pooled("");
    let home = PostgresHome::new(&server);
    let direct = server.address(&home.name);
    let stores = [through(&pooler, &home).await, through(&pooler, &home).await];
    let nodes = stores.map(|store| {
        let bus = store.bus_on(&direct).unwrap();
        (store, bus)
    });
    secrets::whatever_happens_to_any_key_of_a_secret_is_seen_by_every_cache(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bus_beside_a_pooler_keeps_what_a_bus_promises() {
    let (server, pooler) = pooled("");
    tells_what_it_promises("PostgresBus beside PgBouncer", || async {
        let home = PostgresHome::new(&server);
        let [here, there] = [through(&pooler, &home).await, through(&pooler, &home).await];
        let direct = server.address(&home.name);
        let buses = [
            here.bus_on(&direct).unwrap(),
            there.bus_on(&direct).unwrap(),
        ];
        let [near, far] = buses;
        near.check().await.unwrap();
        BusNodes::new(near, far).with_stores(here, there)
    })
    .await;
}

/// What a client sees of the connection of the server that it has.
async fn settings(client: &mut PgConnection) -> BTreeSet<String> {
    let asked = "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('statement_timeout', \
        'lock_timeout', 'idle_in_transaction_session_timeout', 'synchronous_commit', \
        'transaction_isolation', 'transaction_read_only', 'extra_float_digits', 'search_path') \
        UNION ALL SELECT 'prepared ' || statement FROM pg_prepared_statements \
        UNION ALL SELECT 'listens ' || pg_listening_channels() \
        UNION ALL SELECT 'holds ' || objid FROM pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    let rows = sqlx::raw_sql(asked).fetch_all(client).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_clients_of_a_pooler_find_connections_as_the_server_makes_them() {
    let (server, pooler) = pooled("default_pool_size = 4");
    let home = PostgresHome::new(&server);
    let expected = settings(&mut home.connection().await).await;
    let expected: BTreeSet<_> = expected
        .into_iter()
        // What this test's own direct connection asks for.
        .map(|setting| setting.replace("extra_float_digits=2", "extra_float_digits=1"))
        .collect();
    let store = through(&pooler, &home).await;
    let bus = store.bus_on(&server.address(&home.name)).unwrap();
    bus.check().await.unwrap();
    for round in 0..20 {
        everything(&store, round).await;
        // Also where nobody waits for the end.
        let (store, more) = (store.clone(), 100 + round);
        tokio::time::timeout(Duration::from_micros(u64::from(round) * 150), async move {
            everything(&store, more).await;
        })
        .await
        .ok();
    }
    store.close().await;
    // All four at once.
    let options: sqlx::postgres::PgConnectOptions = pooler.address(&home.name).parse().unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let options = options.clone().extra_float_digits(None);
        let mut client = PgConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("BEGIN").execute(&mut client).await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(settings(client).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_few_connections_of_the_server() {
    let (server, pooler) = pooled("default_pool_size = 3");
    let home = PostgresHome::new(&server);
    let [one, other] = [through(&pooler, &home).await, through(&pooler, &home).await];
    let rounds = Arc::<AtomicU32>::default();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let store = if number % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        let rounds = Arc::clone(&rounds);
        tasks.spawn(async move {
            for _ in 0..10 {
                let round = 1_000 * rounds.fetch_add(1, Ordering::Relaxed);
                let name = format!("key{round}");
                store
                    .apply(&batch([insert(digest(round), record(&name))]))
                    .await
                    .unwrap();
                for _ in 0..10 {
                    assert_eq!(found(&store, digest(round)).await, Some(id(&name)));
                    assert_eq!(get(&store, &name).await.id, id(&name));
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(rounds.load(Ordering::Relaxed), 160);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_time_hold_behind_a_pooler() {
    let (server, pooler) = pooled("");
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    let store = through(&pooler, &home).await;
    let mut blocker = home.connection().await;
    let lock = "BEGIN; LOCK TABLE portunus_keys IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut blocker).await.unwrap();
    let asked = Instant::now();
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    let (list, revise) = (store.clone(), store.clone());
    let list = tokio::spawn(async move { list.get(&id("a")).await });
    let revise =
        tokio::spawn(async move { revise.apply(&WriteBatch::new().update(record("a"))).await });
    assert_unavailable(&list.await.unwrap().unwrap_err());
    assert_unavailable(&revise.await.unwrap().unwrap_err());
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "{:?}",
        asked.elapsed()
    );
    // The server gave them up, too.
    let waiting =
        "SELECT CAST(COUNT(*) AS TEXT) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let none = eventually_async(async || (home.text(waiting).await == "0").then_some(()));
    assert!(none.await.is_some());
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut blocker)
        .await
        .unwrap();
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    assert_eq!(get(&store, "a").await.version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_loses_its_server_or_falls_silent_costs_no_more_than_a_limit() {
    let (server, pooler) = pooled("server_login_retry = 1");
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    let proxy = Proxy::before(pooler.socket());
    let store = PostgresStore::behind_pooler(&proxy.address(&home.name))
        .await
        .unwrap();
    let ask = async || {
        let asked = Instant::now();
        let found = store.find(&[digest(1)]).await;
        assert!(
            asked.elapsed() < Duration::from_millis(3_700),
            "{:?}",
            asked.elapsed()
        );
        found.ok().flatten().map(|key| key.record().id.clone())
    };
    let back = async |what: &str| {
        let began = Instant::now();
        assert_eq!(eventually_async(&ask).await, Some(id("a")), "{what}");
        let current = get(&store, "a").await;
        store
            .apply(&WriteBatch::new().update(current))
            .await
            .unwrap();
        println!("{what}: back after {:?}", began.elapsed());
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{what}: {:?}",
            began.elapsed()
        );
    };
    back("at first").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    home.execute(end.into()).await;
    back("its connections were ended").await;
    server.stop();
    assert_eq!(ask().await, None);
    server.start_again();
    back("the server was started again").await;
    proxy.fail(Failing::Silent, Which::All);
    assert_eq!(ask().await, None);
    proxy.heal();
    back("it was silent").await;
    proxy.fail(Failing::Silent, Which::All);
    assert_eq!(ask().await, None);
    proxy.fail_present(Failing::Silent, Which::All);
    back("what was there stays silent").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_nobody_told_of_is_refused_at_the_start() {
    let server = quick_server();
    let home = PostgresHome::new(&server);
    let told = "ignore_startup_parameters = extra_float_digits";
    let single = format!("{told}\ndefault_pool_size = 1");
    for more in ["", told, &single] {
        let pooler = PgBouncer::with(&server, more);
        let error = PostgresStore::connect(&pooler.address(&home.name))
            .await
            .unwrap_err();
        assert!(matches!(error, OpenError::Pooler { .. }), "{more}: {error}");
        assert!(error.to_string().contains("behind_pooler"), "{error}");
        through(&pooler, &home).await;
    }
    // A pooler that gives each client a connection of its own is as good as the server.
    let session = "pool_mode = session\nignore_startup_parameters = extra_float_digits";
    let pooler = PgBouncer::with(&server, session);
    let store = PostgresStore::connect(&pooler.address(&home.name))
        .await
        .unwrap();
    store.bus().check().await.unwrap();
    everything(&store, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_hears_nothing_of_its_store_says_so() {
    let (server, pooler) = pooled("ignore_startup_parameters = extra_float_digits");
    let (home, other) = (PostgresHome::new(&server), PostgresHome::new(&server));
    let store = through(&pooler, &home).await;
    let deaf = [
        ("at the pooler", pooler.address(&home.name)),
        ("on another database", server.address(&other.name)),
    ];
    for (what, address) in deaf {
        let bus = store.bus_on(&address).unwrap();
        let listener = RecordingListener::on(&bus);
        let asked = Instant::now();
        let error = bus.check().await.unwrap_err().to_string();
        assert!(
            asked.elapsed() < Duration::from_millis(2_500),
            "{what}: {:?}",
            asked.elapsed()
        );
        assert!(
            error.contains("heard nothing") && error.contains("pooler"),
            "{what}: {error}"
        );
        assert_eq!(listener.proven(), None, "{what}");
    }
    let closed = format!(
        "postgres://tester@127.0.0.1:{}/keys?sslmode=disable",
        free_port()
    );
    let bus = store.bus_on(&closed).unwrap();
    let asked = Instant::now();
    let error = bus.check().await.unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    let bus = store.bus_on(&server.address(&home.name)).unwrap();
    bus.check().await.unwrap();
}

/// A client that listens through a pooler leaves a connection of the server that listens. Whoever is
/// given that one next must neither fail nor take what was done for undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_pooler_that_another_client_left_listening_do_no_harm() {
    let (server, pooler) = pooled("default_pool_size = 2");
    let home = PostgresHome::new(&server);
    let address = pooler.address(&home.name);
    let listen = async || {
        let mut clients = Vec::new();
        // Each transaction holds a connection of its own: both of the pool listen.
        for _ in 0..2 {
            let options = address.parse::<PgConnectOptions>().unwrap();
            let options = options.extra_float_digits(None);
            let mut client = PgConnection::connect_with(&options).await.unwrap();
            let listen = "BEGIN; LISTEN portunus_changes";
            sqlx::raw_sql(listen).execute(&mut client).await.unwrap();
            clients.push(client);
        }
        for mut client in clients {
            sqlx::raw_sql("COMMIT").execute(&mut client).await.unwrap();
            client.close().await.unwrap();
        }
    };
    listen().await;
    let store = through(&pooler, &home).await;
    for round in 0..10 {
        listen().await;
        everything(&store, round).await;
        listen().await;
        let bus = store.bus_on(&server.address(&home.name)).unwrap();
        bus.check().await.unwrap();
        listen().await;
        let error = PostgresStore::connect(&address).await.unwrap_err();
        assert!(error.to_string().contains("pooler"), "{error}");
    }
    // Whoever cannot hear through a pooler leaves nothing there.
    let deaf = store.bus_on(&address).unwrap();
    assert!(deaf.check().await.is_err());
    let mut client = home.connection().await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let count = sqlx::raw_sql(listening).fetch_one(&mut client).await;
    assert_eq!(count.unwrap().get::<i64, _>(0), 0);
}
