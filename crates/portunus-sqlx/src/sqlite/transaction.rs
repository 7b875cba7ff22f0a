//! A single operation in a single transaction, on a connection of a pool.
//!
//! sqlx's own transactions are not used: after a full disk or an I/O error SQLite rolls a
//! transaction back by itself, the following ROLLBACK fails, and sqlx then counts one transaction
//! too many on that connection permanently, so that it never begins one again. Here, a connection
//! returns to its pool only if it is known not to be in a transaction. Any other is closed, also if
//! the future is dropped midway.

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use crate::fault::Fault;
use crate::operation::Operation;
use crate::value::Session;

/// The only writer from its first statement on: a transaction that becomes a writer later may have
/// to be aborted.
pub(super) const WRITE: &str = "BEGIN IMMEDIATE";
/// All reads in it see one snapshot.
pub(super) const SNAPSHOT: &str = "BEGIN";

/// A connection in an unknown state, which is closed when this is dropped.
struct Unsettled(Option<PoolConnection<Sqlite>>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

/// Runs an operation between `begin` and COMMIT.
pub(super) async fn run<O: Operation>(
    pool: &SqlitePool,
    begin: &'static str,
    operation: O,
) -> Result<O::Answer, Fault> {
    let mut unsettled = Unsettled(Some(pool.acquire().await?));
    let Some(connection) = &mut unsettled.0 else {
        return Err(Fault::from(sqlx::Error::PoolClosed));
    };
    let done = run_on(connection, begin, operation).await;
    let is_settled = match &done {
        Ok(_) => true,
        // ROLLBACK fails if no transaction is open: the connection is then replaced.
        Err(_) => connection.script("ROLLBACK").await.is_ok(),
    };
    if is_settled {
        unsettled.0.take();
    }
    done
}

async fn run_on<O: Operation>(
    connection: &mut SqliteConnection,
    begin: &'static str,
    operation: O,
) -> Result<O::Answer, Fault> {
    connection.script(begin).await?;
    let answer = operation.run(connection).await?;
    connection.script("COMMIT").await?;
    Ok(answer)
}
