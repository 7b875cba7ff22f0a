//! Statements as one writes them by hand, on the tables of the store: a single probe for a lookup,
//! rows one by one in a transaction, one table for usage, and one list per filter.

use std::future::Future;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use portunus::key::{KeyDigest, KeyRecord};
use portunus::store::UsageDelta;
use portunus_sqlx::PostgresStore;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, PgPool, Row, SqlitePool};

pub(crate) trait ByHand: Clone + Send + Sync + 'static {
    /// Finds a key by its digest.
    fn find(&self, digest: &KeyDigest) -> impl Future<Output = Option<KeyRecord>> + Send;

    /// Inserts keys in one transaction.
    fn insert(&self, records: &[(KeyDigest, KeyRecord)]) -> impl Future<Output = ()> + Send;

    /// Adds usage in one transaction.
    fn record_usage(&self, deltas: &[UsageDelta]) -> impl Future<Output = ()> + Send;

    /// The number of keys on the first page of those that match a condition.
    fn list(&self, condition: &str) -> impl Future<Output = usize> + Send;

    /// Updates the database's statistics.
    fn analyze(&self) -> impl Future<Output = ()> + Send;
}

const FIND: &str = "SELECT record FROM portunus_keys WHERE digest = $1 AND scheme = $2";
const INSERT_DIGEST: &str =
    "INSERT INTO portunus_digests (digest, scheme, key_id) VALUES ($1, $2, $3)";
const INSERT: &str = "INSERT INTO portunus_keys (id, family, version, kind, environment, tenant_id, \
    user_id, name, masked, created_at, not_before, expires_at, enabled, revoked_at, may_be_primary, \
    record, digest, scheme) VALUES \
    ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
/// A separate table, so that both write as many rows.
const USAGE: &str = "CREATE TABLE IF NOT EXISTS usage_by_hand (key_id TEXT NOT NULL PRIMARY KEY, \
    uses BIGINT NOT NULL, last_used_at BIGINT NOT NULL, last_ip TEXT)";
const ADD_USAGE: &str = "INSERT INTO usage_by_hand (key_id, uses, last_used_at, last_ip) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (key_id) DO UPDATE SET \
    uses = usage_by_hand.uses + excluded.uses, last_used_at = excluded.last_used_at, \
    last_ip = excluded.last_ip";

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn decoded(json: Option<String>) -> Option<KeyRecord> {
    json.map(|json| KeyRecord::from_json(&json).unwrap())
}

/// Binds the columns of a record in the order of [`INSERT`].
macro_rules! insert {
    ($digest:expr, $record:expr, $connection:expr) => {{
        let (digest, record) = ($digest, $record);
        sqlx::query(INSERT_DIGEST)
            .bind(digest.to_bytes().to_vec())
            .bind(digest.scheme().to_string())
            .bind(record.id.as_str())
            .execute(&mut *$connection)
            .await
            .unwrap();
        sqlx::query(INSERT)
            .bind(record.id.as_str())
            .bind(record.family.as_str())
            .bind(i64::try_from(record.version).unwrap())
            .bind(record.kind.as_str())
            .bind(record.environment.as_str())
            .bind(record.owner.tenant_id.as_str())
            .bind(record.owner.user_id.as_ref().map(|user| user.as_str()))
            .bind(record.name.as_str())
            .bind(record.masked.as_str())
            .bind(millis(record.created_at))
            .bind(record.not_before.map(millis))
            .bind(record.expires_at.map(millis))
            .bind(i64::from(record.enabled))
            .bind(record.revoked.as_ref().map(|revoked| millis(revoked.at)))
            .bind(i64::from(record.may_be_primary))
            .bind(record.to_json().unwrap())
            .bind(digest.to_bytes().to_vec())
            .bind(digest.scheme().to_string())
            .execute(&mut *$connection)
            .await
            .unwrap();
    }};
}

macro_rules! by_hand {
    ($name:ident, $pool:ident, $writer:ident) => {
        impl ByHand for $name {
            async fn find(&self, digest: &KeyDigest) -> Option<KeyRecord> {
                let found = sqlx::query(FIND)
                    .bind(digest.to_bytes().to_vec())
                    .bind(digest.scheme().to_string())
                    .fetch_optional(&self.$pool)
                    .await;
                decoded(found.unwrap().map(|row| row.get(0)))
            }

            async fn insert(&self, records: &[(KeyDigest, KeyRecord)]) {
                let mut transaction = self.$writer.begin().await.unwrap();
                for (digest, record) in records {
                    insert!(digest, record, transaction);
                }
                transaction.commit().await.unwrap();
            }

            async fn record_usage(&self, deltas: &[UsageDelta]) {
                let mut transaction = self.$writer.begin().await.unwrap();
                for delta in deltas {
                    sqlx::query(ADD_USAGE)
                        .bind(delta.id.as_str())
                        .bind(i64::try_from(delta.count).unwrap())
                        .bind(millis(delta.last_used_at))
                        .bind(delta.last_ip.map(|ip| ip.to_string()))
                        .execute(&mut *transaction)
                        .await
                        .unwrap();
                }
                transaction.commit().await.unwrap();
            }

            async fn list(&self, condition: &str) -> usize {
                let sql = format!(
                    "SELECT record FROM portunus_keys WHERE {condition} \
                     ORDER BY created_at DESC, id LIMIT 50"
                );
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.$pool).await;
                let rows = rows.unwrap().into_iter();
                rows.filter_map(|row| decoded(Some(row.get(0)))).count()
            }

            async fn analyze(&self) {
                sqlx::query("ANALYZE").execute(&self.$writer).await.unwrap();
            }
        }
    };
}

/// Four connections for reads and one for writes, as the store has.
#[derive(Clone)]
pub(crate) struct OnSqlite {
    readers: SqlitePool,
    writer: SqlitePool,
}

impl OnSqlite {
    pub(crate) async fn open(path: PathBuf) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let pool = |connections| {
            let pool = SqlitePoolOptions::new().max_connections(connections);
            pool.test_before_acquire(false)
                .connect_lazy_with(options.clone())
        };
        let (readers, writer) = (pool(4), pool(1));
        sqlx::query(USAGE).execute(&writer).await.unwrap();
        Self { readers, writer }
    }
}

by_hand!(OnSqlite, readers, writer);

/// Ten connections, as the store has.
#[derive(Clone)]
pub(crate) struct OnPostgres {
    pool: PgPool,
}

impl OnPostgres {
    pub(crate) async fn connect(address: String) -> Self {
        let options = PostgresStore::pool_options();
        let pool = options.connect(&address).await.unwrap();
        sqlx::query(USAGE).execute(&pool).await.unwrap();
        Self { pool }
    }
}

by_hand!(OnPostgres, pool, pool);
