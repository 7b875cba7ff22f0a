//! A role that owns nothing and may only read and write rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::conformance::keeps_its_promises;
use crate::common::{PostgresHome, batch, digest, found, id, insert, record};
use portunus::store::KeyStore;
use portunus_sqlx::{OpenError, PostgresStore};
use portunus_test_support::postgres::Postgres;
use sqlx::postgres::PgConnectOptions;

/// Lets the role `clerk` read and write the rows of a schema, and no more.
fn grants(schema: &str) -> String {
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO clerk; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO clerk"
    )
}

fn grant(home: &PostgresHome) {
    home.server.sql(&home.name, &grants("public"));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_role_that_may_only_read_and_write_rows_keeps_what_a_store_promises() {
    let server = with_clerk();
    let count = AtomicU32::new(0);
    keeps_its_promises("PostgresStore of a role without rights", || async {
        // A schema is made faster than a database.
        let name = format!("keys{}", count.fetch_add(1, Ordering::Relaxed));
        server.sql("postgres", &format!("CREATE SCHEMA {name}"));
        let [owner, clerk] = ["tester", "clerk"].map(|role| {
            let options: PgConnectOptions = server.address_for(role, "postgres").parse().unwrap();
            options.options([("search_path", &name)])
        });
        PostgresStore::connect_with(owner).await.unwrap();
        server.sql("postgres", &grants(&name));
        PostgresStore::connect_with(clerk).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_a_role_cannot_finish_or_read_is_told_at_the_start() {
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
        ("one that it may not read", &hidden, 0),
        ("one that it may not use", &foreign, 0),
        ("an old one", &behind, 1),
    ] {
        let before = server.dump(&home.name).len();
        let error = as_clerk(home).await.unwrap_err();
        let text = error.to_string();
        let OpenError::Schema { found, cause, .. } = error else {
            panic!("{what}: {text}")
        };
        assert_eq!(found, version, "{what}: {text}");
        let told = [
            "permission denied",
            "must be owner",
            "no schema has been selected",
        ];
        let is_told = told.iter().any(|told| cause.contains(told));
        assert!(is_told && text.contains(&cause), "{what}: {text}");
        assert!(!text.contains('\n'), "{what}: {text}");
        assert_eq!(
            server.dump(&home.name).len(),
            before,
            "{what}: something was made"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_lost_its_rights_later_gets_no_answer_and_says_why() {
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
