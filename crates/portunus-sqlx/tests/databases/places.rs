//! Slow management reads: lookups continue, a read that gets no permit is rejected, and a permit is
//! returned when its statement ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::common::{
    Home, PostgresHome, SqliteHome, admin_reads, assert_unavailable, at, batch, digest, found, id,
    insert, live, record, tenant, with_a,
};
use portunus::audit::{AuditReader, EventQuery};
use portunus::key::Owner;
use portunus::manage::NewKey;
use portunus::store::{KeyStore, ListQuery, StoreError, UsageStore};
use portunus_sqlx::{PostgresStore, SqliteStore};
use portunus_test_support::Setup;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::wait::eventually_async;
use sqlx::sqlite::SqliteConnectOptions;

/// How long a management read waits for a permit.
const PLACE: Duration = Duration::from_secs(5);
/// How long it may take, once it has one.
const READ: Duration = Duration::from_secs(10);
/// An allowance for a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// Asserts that an error is one of an unavailable database, which is a 503 in HTTP, and its cause.
fn assert_says(error: &StoreError, why: &str) {
    assert_unavailable(error);
    let source = std::error::Error::source(error).unwrap().to_string();
    assert_eq!(source, why);
}

async fn until_running(count: usize, running: &impl AsyncFn() -> usize) {
    let so = eventually_async(async || (running().await == count).then_some(()));
    assert!(so.await.is_some(), "never {count} at once");
}

/// Looks up the key `a` repeatedly, with 20 concurrent lookups; each must be fast.
async fn lookups<S: KeyStore + Clone + 'static>(store: S) -> ! {
    loop {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let store = store.clone();
            tasks.spawn(async move {
                let asked = Instant::now();
                assert_eq!(found(&store, digest(1)).await, Some(id("a")));
                let took = asked.elapsed();
                assert!(took < Duration::from_secs(3), "a lookup took {took:?}");
            });
        }
        tasks.join_all().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes both permits with a slow list each, of which one is aborted and one exceeds its limit.
/// `running` returns the number of such statements, `ends_at_once` whether one ends as soon as it
/// is abandoned.
async fn places_come_back<S: KeyStore + UsageStore + Clone + 'static>(
    store: S,
    audit: impl AuditReader + Clone,
    slow: &ListQuery,
    running: impl AsyncFn() -> usize,
    ends_at_once: bool,
) {
    let (started, reading) = (Instant::now(), store.clone());
    let read = async |store: S, query: ListQuery| store.list(&query).await.map(drop);
    let too_long = tokio::spawn(read(reading, slow.clone()));
    let given_up = tokio::spawn(read(store.clone(), slow.clone()));
    until_running(2, &running).await;
    let looking_up = tokio::spawn(lookups(store.clone()));

    // Operations that end or change a key wait for none of them.
    let format = portunus_test_support::format();
    let manager = Setup::on(store.clone())
        .bearer([format])
        .environments([live()]);
    let manager = manager.manager();
    let asked = Instant::now();
    let mut issued = Vec::new();
    for _ in 0..4 {
        let new = NewKey::new("a key", Owner::tenant(tenant("acme")));
        issued.push(manager.issue(new).await.unwrap().record.id.clone());
    }
    manager.make_primary(&issued[0]).await.unwrap();
    manager.disable(&issued[0]).await.unwrap();
    manager.rotate(&issued[1], None).await.unwrap();
    manager.delete(&issued[2]).await.unwrap();
    // Repeated, as after a lost answer.
    for _ in 0..2 {
        manager.revoke(&issued[3], None).await.unwrap();
    }
    assert!(store.get(&issued[0]).await.unwrap().is_some());
    store.usage_of(&issued[..1]).await.unwrap();
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());

    // Other management reads wait in order, and are rejected in time.
    let asked = Instant::now();
    let (plain, events) = (ListQuery::new(at(1_000)), EventQuery::new());
    let a = id("a");
    let both = [a.clone(), id("b")];
    let (listed, of_both, used, of_events) = tokio::join!(
        store.list(&plain),
        store.usage_of(&both),
        store.usage_by_hour(&a, at(0), at(10_000)),
        audit.events(&events),
    );
    let took = asked.elapsed();
    assert!(PLACE <= took && took < PLACE + SLACK, "{took:?}");
    let no_place = "waited longer than 5s for other management reads";
    for error in [listed.err(), of_both.err(), used.err()] {
        assert_says(&error.unwrap(), no_place);
    }
    let error = of_events.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, no_place);

    // One of them is abandoned.
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let gone = Instant::now();
    if ends_at_once {
        until_running(1, &running).await;
        store.list(&plain).await.unwrap();
        let took = gone.elapsed();
        assert!(took < SLACK, "a permit was returned after {took:?}");
    }
    let error = too_long.await.unwrap().unwrap_err();
    let took = started.elapsed();
    assert_says(&error, "the database took longer than 10s");
    assert!(READ <= took && took < READ + SLACK, "{took:?}");
    until_running(0, &running).await;
    let took = started.elapsed();
    assert!(took < READ + SLACK, "statements ran for {took:?}");

    // Both permits are available, for more reads than there are permits.
    let asked = Instant::now();
    for _ in 0..3 {
        let (one, two, three) =
            tokio::join!(store.list(&plain), store.get(&a), audit.events(&events));
        one.unwrap();
        two.unwrap().unwrap();
        three.unwrap();
    }
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert!(!looking_up.is_finished(), "lookups continued");
    looking_up.abort();
    assert!(looking_up.await.unwrap_err().is_cancelled());
    let write = batch([insert(digest(900_001), record("after"))]);
    store.apply(&write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_succeed_while_slow_postgresql_statements_hold_all_permits() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    with_a(&home).await;
    // A function that is called by a list sleeps.
    let name = &home.name;
    server.sql(
        name,
        "CREATE SCHEMA slow; CREATE FUNCTION slow.strpos(text, text) RETURNS int LANGUAGE plpgsql \
         AS 'BEGIN PERFORM pg_sleep(60); RETURN 0; END'",
    );
    server.sql(
        name,
        &format!("ALTER DATABASE {name} SET search_path = slow, public, pg_catalog"),
    );
    let store = PostgresStore::connect(&server.address(name)).await.unwrap();
    let mut slow = ListQuery::new(at(1_000));
    slow.text = Some("slow".into());
    let sleeping =
        "SELECT CAST(COUNT(*) AS TEXT) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let running = async || home.text(sleeping).await.parse().unwrap();
    places_come_back(store.clone(), store.audit(), &slow, running, false).await;
}

/// When each connection, which has its own thread, last compared an environment.
type Compared = Arc<Mutex<HashMap<ThreadId, Instant>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_succeed_while_slow_sqlite_statements_hold_all_permits() {
    let home = SqliteHome::new();
    let store = with_a(&home).await;
    let size = admin_reads::Size {
        events: 1,
        keys: 8_000,
        lookups: 0,
        every: Duration::ZERO,
        readers: 0,
    };
    admin_reads::fill(&home, &store, size).await;
    home.close(store).await;
    // Comparing environments is slow.
    let mut raw = home.connection().await;
    let change = "PRAGMA writable_schema = ON; \
        UPDATE sqlite_schema SET sql = replace(sql, 'environment    TEXT', \
        'environment TEXT COLLATE SLOWLY') WHERE name = 'portunus_keys'; \
        PRAGMA schema_version = 1000";
    sqlx::raw_sql(change).execute(&mut raw).await.unwrap();
    let compared = Compared::default();
    let noted = Arc::clone(&compared);
    let options =
        SqliteConnectOptions::new()
            .filename(home.path())
            .collation("SLOWLY", move |one, other| {
                let me = std::thread::current().id();
                if other == "live" || one == "live" {
                    noted.lock().unwrap().insert(me, Instant::now());
                    std::thread::sleep(Duration::from_millis(2));
                }
                one.cmp(other)
            });
    let store = SqliteStore::open_with(options).await.unwrap();
    let mut slow = ListQuery::new(at(1_000));
    // All keys are of this environment, and none has this text.
    slow.environment = Some(live());
    slow.text = Some("no such text".into());
    let running = async || {
        let compared = compared.lock().unwrap();
        let lately = |when: &&Instant| when.elapsed() < Duration::from_millis(200);
        compared.values().filter(lately).count()
    };
    places_come_back(store.clone(), store.audit(), &slow, running, true).await;
}
