//! The rows that pages examine on SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::Watched;
use crate::fault::Fault;
use crate::sql::{Dialect, SQLITE};
use crate::value::{Row, Session, Value};

/// The number of instructions between two counts.
const EVERY: u64 = 100;
/// The largest number of instructions for a row: two to find out where a page ends, the rest to
/// filter it.
const OF_A_ROW: u64 = 60;

/// Counts the instructions of statements: the indexes that they must use are named in them.
struct Counted {
    connection: SqliteConnection,
    instructions: Arc<AtomicU64>,
    most: u64,
}

#[async_trait]
impl Session for Counted {
    fn dialect(&self) -> &'static Dialect {
        &SQLITE
    }

    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Fault> {
        self.connection.rows(sql, values).await
    }

    async fn change(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Fault> {
        self.connection.change(sql, values).await
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        self.connection.script(sql).await
    }
}

#[async_trait]
impl Watched for Counted {
    async fn prepare(&mut self, sql: String) {
        let script = sqlx::raw_sql(AssertSqlSafe(sql));
        script.execute(&mut self.connection).await.unwrap();
    }

    fn assert_bounded(&mut self, what: &dyn std::fmt::Debug) {
        let counted = self.instructions.swap(0, Ordering::SeqCst) * EVERY;
        self.most = self.most.max(counted);
        assert!(
            counted <= 10_000 * OF_A_ROW,
            "{counted} instructions: {what:?}"
        );
    }
}

#[tokio::test]
async fn every_page_of_sqlite_is_bounded_and_none_is_lost() {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let scripts = SQLITE.migrations.iter().map(|migration| migration.script);
    for script in std::iter::once(SQLITE.version_table).chain(scripts) {
        connection.script(script).await.unwrap();
    }
    let mut counted = Counted {
        connection,
        instructions: Arc::default(),
        most: 0,
    };
    super::fill_keys(&mut counted, true).await;
    super::fill_events(&mut counted, true).await;
    let instructions = Arc::clone(&counted.instructions);
    let mut handle = counted.connection.lock_handle().await.unwrap();
    handle.set_progress_handler(i32::try_from(EVERY).unwrap(), move || {
        instructions.fetch_add(1, Ordering::SeqCst);
        true
    });
    drop(handle);
    super::every_page_is_bounded_and_none_is_lost(&mut counted).await;
    println!("no page took more than {} instructions", counted.most);
}
