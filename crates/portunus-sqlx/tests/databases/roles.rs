//! A role that owns nothing and may only read and write rows.

use std::sync::Arc;

use crate::common::everything::everything;
use crate::common::{Home, PostgresHome, batch, digest, found, id, insert, record};
use portunus::store::KeyStore;
use portunus_sqlx::{OpenError, PostgresStore};
use portunus_test_support::postgres::Postgres;
use sqlx::postgres::PgPoolOptions;

/// Grants the role `clerk` reading and writing the rows of a database, and nothing else.
fn grant(home: &PostgresHome) {
    let grants = "GRANT USAGE ON SCHEMA public TO clerk; \
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk";
    home.server.sql(&home.name, grants);
}

fn with_clerk() -> Arc<Postgres> {
    let server = Arc::new(Postgres::start());
    server.sql("postgres", "ALTER SYSTEM SET fsync = off");
    server.sql("postgres", "SELECT pg_reload_conf()");
    server.sql("postgres", "CREATE ROLE clerk LOGIN");
    server
}

async fn as_clerk(home: &PostgresHome) -> Result<PostgresStore, OpenError> {
    PostgresStore::connect(&home.server.address_for("clerk", &home.name)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_can_only_read_and_write_rows_suffices() {
    let server = with_clerk();
    let home = PostgresHome::new(&server);
    PostgresStore::connect(&server.address(&home.name))
        .await
        .unwrap();
    grant(&home);
    let store = as_clerk(&home).await.unwrap();
    store.bus().check().await.unwrap();
    for round in 0..3 {
        everything(&store, round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_a_role_cannot_finish_or_read_is_reported_at_startup() {
    let server = with_clerk();
    let unmade = PostgresHome::new(&server);
    let hidden = PostgresHome::new(&server);
    let foreign = PostgresHome::new(&server);
    for home in [&hidden, &foreign] {
        PostgresStore::connect(&server.address(&home.name))
            .await
            .unwrap();
        grant(home);
    }
    server.sql(&hidden.name, "REVOKE ALL ON portunus_schema FROM clerk");
    server.sql(
        &foreign.name,
        "REVOKE ALL ON SCHEMA public FROM clerk, public",
    );
    let behind = PostgresHome::new(&server);
    PostgresStore::connect(&server.address(&behind.name))
        .await
        .unwrap();
    grant(&behind);
    server.sql(
        &behind.name,
        "DELETE FROM portunus_schema WHERE version > 1",
    );
    for (what, home, version) in [
        ("no schema", &unmade, 0),
        ("one that it cannot read", &hidden, 0),
        ("one that it cannot use", &foreign, 0),
        ("an old one", &behind, 1),
    ] {
        let before = server.dump(&home.name).len();
        let error = as_clerk(home).await.unwrap_err();
        let text = error.to_string();
        let OpenError::Schema { found, cause, .. } = error else {
            panic!("{what}: {text}")
        };
        assert_eq!(found, version, "{what}: {text}");
        let known = [
            "permission denied",
            "must be owner",
            "no schema has been selected",
        ];
        let is_reported = known.iter().any(|known| cause.contains(known));
        assert!(is_reported && text.contains(&cause), "{what}: {text}");
        assert!(!text.contains('\n'), "{what}: {text}");
        assert_eq!(
            server.dump(&home.name).len(),
            before,
            "{what}: something was made"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_lost_its_privileges_is_reported_with_the_cause() {
    let server = with_clerk();
    let home = PostgresHome::new(&server);
    PostgresStore::connect(&server.address(&home.name))
        .await
        .unwrap();
    grant(&home);
    let store = as_clerk(&home).await.unwrap();
    store
        .apply(&batch([insert(digest(1), record("a"))]))
        .await
        .unwrap();
    store.bus().check().await.unwrap();
    server.sql(&home.name, "REVOKE INSERT ON portunus_keys FROM clerk");
    let error = store
        .apply(&batch([insert(digest(2), record("b"))]))
        .await
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("42501"), "{source}");
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_a_role_cannot_read_is_reported_at_startup() {
    let server = with_clerk();
    let home = PostgresHome::new(&server);
    let address = server.address(&home.name);
    PostgresStore::connect(&address).await.unwrap();
    grant(&home);
    let tables = home.text(
        "SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r' \
         AND relname LIKE 'portunus%' AND relname <> 'portunus_schema'",
    );
    let tables = tables.await;
    assert_eq!(tables.split(' ').count(), 12, "{tables}");
    for table in tables.split(' ') {
        server.sql(&home.name, &format!("REVOKE SELECT ON {table} FROM clerk"));
        let error = as_clerk(&home).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("cannot read the table {table}")),
            "{error}"
        );
        grant(&home);
    }
    // A role that only looks up keys need not write.
    server.sql(
        &home.name,
        "REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM clerk",
    );
    let store = as_clerk(&home).await.unwrap();
    assert_eq!(found(&store, digest(1)).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_rejected_at_startup() {
    let server = Arc::new(Postgres::start());
    let (home, empty) = (PostgresHome::new(&server), PostgresHome::new(&server));
    let address = server.address(&home.name);
    PostgresStore::connect(&address)
        .await
        .unwrap()
        .close()
        .await;
    server.become_a_replica();
    for name in [&home.name, &empty.name] {
        let error = PostgresStore::connect(&server.address(name)).await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("is a replica") && error.contains("primary"),
            "{error}"
        );
    }
    // A pool without the options of this crate.
    let pool = PgPoolOptions::new().connect(&address).await.unwrap();
    let error = PostgresStore::new(pool).migrate().await.unwrap_err();
    assert!(error.to_string().contains("is a replica"), "{error}");
}
