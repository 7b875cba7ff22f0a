//! Tools open databases without changing them.

use std::time::{Duration, SystemTime};

use portunus::store::KeyStore;
use portunus_sqlx::{OpenError, PostgresStore, SqliteStore};
use portunus_test_support::pgbouncer::PgBouncer;
use portunus_test_support::postgres::Postgres;

use crate::common::{all, batch, digest, id, insert, record};

#[tokio::test]
async fn a_file_is_neither_created_nor_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let missing = SqliteStore::attach(&path).await;
    assert!(
        matches!(missing, Err(OpenError::Unavailable { .. })),
        "{missing:?}"
    );
    assert!(!path.exists());

    std::fs::write(&path, "").unwrap();
    let store = SqliteStore::attach(&path).await.unwrap();
    let (found, known) = store.schema().await.unwrap();
    assert!(found == 0 && known > 0);
    store.close().await;
    assert_eq!(std::fs::read(&path).unwrap(), b"");

    let migrated = SqliteStore::open(&path).await.unwrap();
    let store = SqliteStore::attach(&path).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), (known, known));
    migrated
        .apply(&batch([insert(digest(1), record("first"))]))
        .await
        .unwrap();
    assert_eq!(all(&store).await.len(), 1);
    assert_eq!(
        store.digest_of(&id("first")).await.unwrap(),
        Some(digest(1))
    );
    assert_eq!(store.digest_of(&id("other")).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_is_not_migrated_and_a_pooler_is_noticed() {
    let server = Postgres::start();
    let address = server.database("keys");
    let store = PostgresStore::attach(&address).await.unwrap();
    assert_eq!(store.schema().await.unwrap().0, 0);
    assert!(!store.is_behind_pooler());
    let apart = store
        .server_time()
        .await
        .unwrap()
        .duration_since(SystemTime::now());
    let apart = apart.unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_secs(10), "{apart:?}");

    let pooler = PgBouncer::before(&server);
    let pooled = PostgresStore::attach(&pooler.address("keys"))
        .await
        .unwrap();
    assert!(pooled.is_behind_pooler());
    assert_eq!(pooled.schema().await.unwrap().0, 0);
    pooled.server_time().await.unwrap();
    pooled.migrate().await.unwrap();
    let (found, known) = store.schema().await.unwrap();
    assert!(found == known && found > 0);
}
