//! PostgreSQL behind a PgBouncer in transaction mode: the same promises, and nothing is left behind
//! for other clients of the pooler.

use portunus::store::KeyLookup;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::conformance::{passes_the_bus_suite, passes_the_store_suite};
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

/// A server whose databases do not wait for the disk.
fn quick_server() -> Arc<Postgres> {
    let server = Arc::new(Postgres::start());
    server.sql("postgres", "ALTER SYSTEM SET fsync = off");
    server.sql("postgres", "SELECT pg_reload_conf()");
    server
}

/// The same with a pooler in front of it, which closes connections that were idle for a moment.
pub(super) fn pooled(more: &str) -> (Arc<Postgres>, PgBouncer) {
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
async fn a_store_behind_a_pooler_passes() {
    let (server, pooler) = pooled("");
    passes_the_store_suite("PostgresStore behind PgBouncer", || async {
        through(&pooler, &PostgresHome::new(&server)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_to_a_secret_behind_a_pooler_reach_every_cache() {
    let (server, pooler) = pooled("");
    let home = PostgresHome::new(&server);
    let direct = server.address(&home.name);
    let stores = [through(&pooler, &home).await, through(&pooler, &home).await];
    let nodes = stores.map(|store| {
        let bus = store.bus_on(&direct).unwrap();
        (store, bus)
    });
    secrets::changes_to_any_key_of_a_secret_reach_every_cache(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bus_that_bypasses_a_pooler_passes() {
    let (server, pooler) = pooled("");
    passes_the_bus_suite("PostgresBus bypassing PgBouncer", || async {
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

/// The settings that a client sees on its server connection.
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
async fn other_clients_of_a_pooler_get_unmodified_connections() {
    let (server, pooler) = pooled("default_pool_size = 4");
    let home = PostgresHome::new(&server);
    let expected = settings(&mut home.connection().await).await;
    let expected: BTreeSet<_> = expected
        .into_iter()
        // The setting that this test's own direct connection requests.
        .map(|setting| setting.replace("extra_float_digits=2", "extra_float_digits=1"))
        .collect();
    let store = through(&pooler, &home).await;
    let bus = store.bus_on(&server.address(&home.name)).unwrap();
    bus.check().await.unwrap();
    for round in 0..20 {
        everything(&store, round).await;
        // Also for an abandoned operation.
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
async fn many_operations_share_few_server_connections() {
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
async fn time_limits_hold_behind_a_pooler() {
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
    // The server aborted them, too.
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
async fn a_pooler_that_loses_its_server_or_hangs_costs_at_most_a_time_limit() {
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
            asked.elapsed() < Duration::from_millis(4_700),
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
async fn an_undeclared_pooler_is_rejected_at_startup() {
    let server = quick_server();
    let home = PostgresHome::new(&server);
    let ignored = "ignore_startup_parameters = extra_float_digits";
    let single = format!("{ignored}\ndefault_pool_size = 1");
    for more in ["", ignored, &single] {
        let pooler = PgBouncer::with(&server, more);
        let error = PostgresStore::connect(&pooler.address(&home.name))
            .await
            .unwrap_err();
        assert!(matches!(error, OpenError::Pooler { .. }), "{more}: {error}");
        assert!(error.to_string().contains("behind_pooler"), "{error}");
        through(&pooler, &home).await;
    }
    // A pooler that gives each client its own connection is equivalent to the server.
    let session = "pool_mode = session\nignore_startup_parameters = extra_float_digits";
    let pooler = PgBouncer::with(&server, session);
    let store = PostgresStore::connect(&pooler.address(&home.name))
        .await
        .unwrap();
    store.bus().check().await.unwrap();
    everything(&store, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_receives_nothing_from_its_store_reports_it() {
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
            asked.elapsed() < Duration::from_secs(5),
            "{what}: {:?}",
            asked.elapsed()
        );
        assert!(
            error.contains("received nothing") && error.contains("pooler"),
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
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    let bus = store.bus_on(&server.address(&home.name)).unwrap();
    bus.check().await.unwrap();
}

/// A client that listens through a pooler leaves a server connection listening. Its next client
/// must neither fail nor take an applied change for a failed one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_connections_left_listening_by_another_client_are_harmless() {
    let (server, pooler) = pooled("default_pool_size = 2");
    let home = PostgresHome::new(&server);
    let address = pooler.address(&home.name);
    // This client is as naive as any: a notification on a connection that listens already is an
    // error to it, too.
    let begin = async || {
        let options = address.parse::<PgConnectOptions>().unwrap();
        let options = options.extra_float_digits(None);
        let mut client = PgConnection::connect_with(&options).await.ok()?;
        let listen = "BEGIN; LISTEN portunus_changes";
        let begun = sqlx::raw_sql(listen).execute(&mut client).await;
        begun.ok().map(|_| client)
    };
    let listen = async || {
        let mut clients = Vec::new();
        // Each transaction holds its own connection: both of the pool listen.
        while clients.len() < 2 {
            clients.extend(begin().await);
        }
        for mut client in clients {
            let _ = sqlx::raw_sql("COMMIT").execute(&mut client).await;
            let _ = client.close().await;
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
        drop(bus);
        listen().await;
        let error = PostgresStore::connect(&address).await.unwrap_err();
        assert!(error.to_string().contains("pooler"), "{error}");
    }
    // A bus that cannot listen through a pooler leaves nothing there.
    let deaf = store.bus_on(&address).unwrap();
    assert!(deaf.check().await.is_err());
    let mut client = home.connection().await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let count = sqlx::raw_sql(listening).fetch_one(&mut client).await;
    assert_eq!(count.unwrap().get::<i64, _>(0), 0);
}
