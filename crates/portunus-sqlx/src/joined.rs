//! Key management in a transaction of the host, so that a key and the host's own row are committed
//! together or not at all.
//!
//! The manager works on a store that sends each statement to the caller of `in_transaction`, which
//! runs it on the host's connection: the store outlives no borrow, although it may be cloned.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use portunus::manage::{KeyManager, ManageError};
use portunus::store::{InvalidationBus, StoreError};
use sqlx::Transaction;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::fault::{Fault, Refusal};
use crate::lookups::Lookups;
use crate::operation::{Migrate, Operation};
use crate::sql::Dialect;
use crate::store::{Database, READ_LIMIT, Store};
use crate::value::{Row, Session, Value};

/// Surrounds each batch: one that is rejected leaves nothing.
const BEFORE: &str = "SAVEPOINT portunus_batch";
const KEEP: &str = "RELEASE SAVEPOINT portunus_batch";
const UNDO: &str = "ROLLBACK TO SAVEPOINT portunus_batch";

/// What was done in the host's transaction, and becomes effective when the host commits that.
///
/// Call [`committed`](Self::committed) after the COMMIT: this node then drops its cached entry at
/// once, and the audit records what was done. If this is dropped instead, the transaction may have
/// been committed or not. The other nodes, and this one, learn of a commit as they learn of each
/// other's changes; for a minute, this node also caches no key that was changed. The audit records
/// the operation as [`Abandoned`](portunus::audit::AuditOutcome::Abandoned).
#[must_use = "call `committed` after the host's transaction was committed"]
pub struct Written<T> {
    done: T,
    manager: KeyManager,
}

impl<T> Written<T> {
    /// Returns what was done, although it may still be rolled back: to store the id of a new key in
    /// the host's own row. Show a secret to nobody before the commit.
    #[must_use]
    pub fn uncommitted(&self) -> &T {
        &self.done
    }

    /// Reports that the host has committed its transaction, and returns what was done.
    pub fn committed(self) -> T {
        self.manager.committed();
        self.done
    }
}

impl<T> fmt::Debug for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").finish_non_exhaustive()
    }
}

/// Runs `act` with a manager whose store is the session.
async fn run<T, F: Future<Output = Result<T, ManageError>>>(
    session: &mut dyn Session,
    records: bool,
    manager: &KeyManager,
    act: impl FnOnce(KeyManager) -> F,
) -> Result<Written<T>, ManageError> {
    let (ask, mut asked) = mpsc::channel(1);
    let manager = manager.joined_to(Arc::new(Store(Joined {
        remote: Remote {
            dialect: session.dialect(),
            ask,
        },
        turn: Arc::default(),
        records: Arc::new(records.into()),
        place: Arc::default(),
    })));
    let mut act = pin!(act(manager.clone()));
    let done = loop {
        tokio::select! {
            biased;
            done = &mut act => break done?,
            Some(asked) = asked.recv() => asked.answer(session).await,
        }
    };
    Ok(Written { done, manager })
}

/// Keeps or undoes what was done since the savepoint.
async fn end<T, D: sqlx::Database>(
    savepoint: Transaction<'_, D>,
    written: Result<Written<T>, ManageError>,
) -> Result<Written<T>, ManageError> {
    let ended = match written {
        Ok(_) => savepoint.commit().await,
        Err(_) => savepoint.rollback().await,
    };
    let written = written?;
    ended.map_err(unavailable)?;
    Ok(written)
}

fn unavailable(error: sqlx::Error) -> StoreError {
    Fault::from(error).into()
}

/// A statement for the host's transaction.
struct Asked {
    kind: Kind,
    sql: &'static str,
    values: Vec<Value>,
    give: oneshot::Sender<Result<Answer, Fault>>,
}

enum Kind {
    Rows,
    Change,
    Script,
}

#[derive(Default)]
struct Answer {
    rows: Vec<Row>,
    changed: u64,
}

impl Asked {
    async fn answer(self, session: &mut dyn Session) {
        let (sql, values) = (self.sql, self.values);
        let (rows, changed) = (
            |rows| Answer { rows, changed: 0 },
            |changed| Answer {
                changed,
                ..Answer::default()
            },
        );
        let answer = match self.kind {
            Kind::Rows => session.rows(sql, values).await.map(rows),
            Kind::Change => session.change(sql, values).await.map(changed),
            Kind::Script => session.script(sql).await.map(|()| Answer::default()),
        };
        let _ = self.give.send(answer);
    }
}

/// The session of another task, until that ends.
#[derive(Clone)]
struct Remote {
    dialect: &'static Dialect,
    ask: mpsc::Sender<Asked>,
}

impl Remote {
    async fn ask(
        &self,
        kind: Kind,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Answer, Fault> {
        let (give, given) = oneshot::channel();
        let asked = Asked {
            kind,
            sql,
            values,
            give,
        };
        // Whether the message cannot be sent or is dropped: nobody answers any more.
        let _ = self.ask.send(asked).await;
        given
            .await
            .unwrap_or_else(|_| Err(Refusal::CallEnded.into()))
    }
}

#[async_trait]
impl Session for Remote {
    fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Fault> {
        Ok(self.ask(Kind::Rows, sql, values).await?.rows)
    }

    async fn change(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Fault> {
        Ok(self.ask(Kind::Change, sql, values).await?.changed)
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        self.ask(Kind::Script, sql, Vec::new()).await?;
        Ok(())
    }
}

/// The host's transaction as a database.
#[derive(Clone)]
struct Joined {
    remote: Remote,
    /// The savepoints of two batches must not be mixed up.
    turn: Arc<Mutex<()>>,
    records: Arc<AtomicBool>,
    place: Arc<OnceLock<String>>,
}

impl Database for Joined {
    const LOOK_UP_LIMIT: Duration = READ_LIMIT;

    fn records(&self) -> &AtomicBool {
        &self.records
    }

    fn place(&self) -> &OnceLock<String> {
        &self.place
    }

    fn lookups(&self) -> Option<&Lookups> {
        None
    }

    async fn read<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        operation.run(&mut self.remote.clone()).await
    }

    async fn read_snapshot<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        self.read(operation).await
    }

    async fn write<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let _turn = self.turn.lock().await;
        let mut session = self.remote.clone();
        session.script(BEFORE).await?;
        let done = operation.run(&mut session).await;
        session
            .script(if done.is_ok() { KEEP } else { UNDO })
            .await?;
        done
    }

    async fn make_schema(&self) -> Result<(), Fault> {
        self.write(Migrate).await
    }

    fn listen(_: &Store<Self>) -> Option<Arc<dyn InvalidationBus>> {
        None
    }

    async fn make_indexes(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a transaction of the host")
    }
}
