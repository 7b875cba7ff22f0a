//! Tables in a PostgreSQL schema that the host chose, on sessions whose search path is another.

use std::sync::Arc;

use super::conformance::{passes_the_credit_suite, passes_the_store_suite};
use super::pooler::pooled;
use crate::common::recording_listener::RecordingListener;
use crate::common::{PostgresHome, at, batch, digest, found, get, id, insert, record};
use portunus::Portunus;
use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditReader, AuditSink, EventQuery};
use portunus::key::{Alphabet, KeyFormat, Owner};
use portunus::manage::NewKey;
use portunus::store::{KeyLookup, KeyStore, ListQuery, UsageDelta, UsageStore, WriteBatch};
use portunus_sqlx::{OpenError, PostgresStore};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::tenant;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor, PgPool};

/// A pool of the host, whose sessions find tables elsewhere.
async fn pool(home: &PostgresHome) -> PgPool {
    let pool = PgPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async move {
            connection.execute("SET search_path = elsewhere").await?;
            Ok(())
        })
    });
    pool.connect(&home.server.address(&home.name))
        .await
        .unwrap()
}

async fn migrated(pool: &PgPool, schema: &str) -> PostgresStore {
    let store = PostgresStore::new(pool.clone()).in_schema(schema).unwrap();
    store.migrate().await.unwrap();
    store
}

/// How many relations of this crate a schema has.
async fn relations(pool: &PgPool, schema: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
                 WHERE nspname = $1 AND relname LIKE 'portunus%'";
    let count = sqlx::query_scalar(count).bind(schema.to_owned());
    count.fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_in_a_schema_behind_a_pooler_passes() {
    let (server, pooler) = pooled("");
    let store = async || {
        let home = PostgresHome::new(&server);
        let options: PgConnectOptions = pooler.address(&home.name).parse().unwrap();
        let pool = PgPoolOptions::new().connect_lazy_with(options.extra_float_digits(None));
        migrated(&pool, "keys").await
    };
    passes_the_store_suite("PostgresStore in a schema behind PgBouncer", store).await;
    passes_the_credit_suite("credits in a schema behind PgBouncer", store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_in_several_schemas_of_one_database_are_separate() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let pool = pool(&home).await;
    let (ours, theirs) = (migrated(&pool, "keys").await, migrated(&pool, "Keys").await);
    // Nothing depends on a session, and no other schema has tables.
    assert_eq!(relations(&pool, "public").await, 0);
    let all = relations(&pool, "keys").await;
    assert_eq!(relations(&pool, "Keys").await, all);
    // Again, and at the same time.
    let again = tokio::join!(migrated(&pool, "third"), migrated(&pool, "third"));
    assert_eq!(relations(&pool, "third").await, all);
    drop(again);

    let there = migrated(&pool, "keys").await;
    let bus = there.bus();
    bus.check().await.unwrap();
    let listener = RecordingListener::awake_on(&bus).await;
    listener.clear();
    ours.apply(&batch([insert(digest(1), record("a"))]))
        .await
        .unwrap();
    ours.record_usage(&[UsageDelta::new(id("a"), 1, at(7_200), None)])
        .await
        .unwrap();
    let event = AuditEvent::new(
        "0".repeat(32).parse().unwrap(),
        at(1),
        Action::Request,
        AuditOutcome::Ok,
    );
    ours.audit().record(&[event]).await.unwrap();
    assert_eq!(found(&there, digest(1)).await, Some(id("a")));
    assert!(theirs.find(&[digest(1)]).await.unwrap().is_none());
    assert!(theirs.get(&id("a")).await.unwrap().is_none());
    let rows = async |store: &PostgresStore| {
        let keys = store
            .list(&ListQuery::new(at(9_000)))
            .await
            .unwrap()
            .items
            .len();
        let uses = store.usage_of(&[id("a")]).await.unwrap()[0].count;
        let events = store.audit().events(&EventQuery::new()).await.unwrap();
        (keys, uses, events.items.len())
    };
    assert_eq!(rows(&ours).await, (1, 1, 1));
    assert_eq!(rows(&theirs).await, (0, 0, 0));
    let mut revised = get(&ours, "a").await;
    revised.name = "another name".into();
    let update = WriteBatch::new().update(revised);
    ours.apply(&update).await.unwrap();
    listener.wait_for_key("a").await;

    // An index that is missing is made where it belongs.
    let drop = r#"DROP INDEX keys.portunus_keys_revoked, "Keys".portunus_keys_used"#;
    pool.execute(drop).await.unwrap();
    ours.migrate().await.unwrap();
    theirs.migrate().await.unwrap();
    assert_eq!(relations(&pool, "keys").await, all);
    assert_eq!(relations(&pool, "Keys").await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_the_host_keeps_its_search_path() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let pool = pool(&home).await;
    let make = "CREATE SCHEMA app; CREATE TABLE app.portunus_keys (id TEXT)";
    pool.execute(sqlx::raw_sql(make)).await.unwrap();
    let store = migrated(&pool, "keys").await;
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let service = Portunus::builder(format.build().unwrap()).store(store.clone());
    let service = service.build().unwrap();
    let mut transaction = pool.begin().await.unwrap();
    transaction
        .execute("SET LOCAL search_path = app")
        .await
        .unwrap();
    for owner in ["globex", "no tenant"] {
        let issued = store.in_transaction(&mut transaction, service.manager(), |keys| async move {
            let mut new = NewKey::new("a key", Owner::tenant(tenant("globex")));
            new.name = if owner == "globex" { "a key" } else { "" }.into();
            keys.issue(new).await
        });
        assert_eq!(issued.await.is_ok(), owner == "globex");
        let path: String = sqlx::query_scalar("SHOW search_path")
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        assert_eq!(path, "app");
    }
    transaction
        .execute("INSERT INTO portunus_keys VALUES ('ours')")
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let keys = store
        .list(&ListQuery::new(service.manager().now()))
        .await
        .unwrap();
    assert_eq!(keys.items.len(), 1);
}

#[tokio::test]
async fn a_name_that_could_change_a_statement_is_refused() {
    let pool = || {
        PgPoolOptions::new()
            .connect_lazy("postgres://nobody@127.0.0.1:1/x")
            .unwrap()
    };
    let long = "a".repeat(64);
    for name in [
        "", "a b", "a\"b", "a;b", "a$1", "a.b", "1a", "pg_keys", "PG_toast", "é", "a\0", &long,
    ] {
        let refused = PostgresStore::new(pool()).in_schema(name);
        let refused = refused.expect_err(name);
        assert!(matches!(refused, OpenError::Unavailable { .. }), "{name}");
        assert!(
            refused.to_string().contains("name of a schema"),
            "{refused}"
        );
    }
    for name in ["a", "_1", "Keys", &long[1..]] {
        assert!(PostgresStore::new(pool()).in_schema(name).is_ok(), "{name}");
    }
}
