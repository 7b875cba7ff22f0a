//! One operation in one transaction, on a connection of a pool.
//!
//! Not by sqlx's own transactions: after a full disk or an I/O error SQLite gives a transaction up
//! by itself, the ROLLBACK that follows fails, and sqlx counts one transaction too many on that
//! connection for good, which then begins none any more. Here a connection goes back to its pool
//! only where it is known to be in no transaction. Every other one is closed, also where the future
//! is dropped half-way.

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use crate::fault::Fault;
use crate::operation::Operation;
use crate::value::Session;

/// From its first statement on the only writer: a transaction that only becomes one later may have
/// to be given up.
pub(super) const WRITE: &str = "BEGIN IMMEDIATE";
/// Everything that is read in it was true at one moment.
pub(super) const SNAPSHOT: &str = "BEGIN";

/// A connection of which nobody knows what it is in the middle of: it is closed when this is
/// dropped.
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
        // It fails where there is nothing to roll back: then the connection is replaced.
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
