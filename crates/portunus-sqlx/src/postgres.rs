//! Keys in PostgreSQL: writers of one tenant take turns, all others go on side by side.
//!
//! A write holds advisory locks on the keys and tenants that it is about (see
//! [`operation`](crate::operation)), and reads committed rows: each statement sees what was
//! committed before it, and nobody commits what it depends on.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};

use crate::fault::{Fault, OpenError};
use crate::operation::{Migrate, Operation, hold};
use crate::sql;
use crate::store::{READ_LIMIT, WRITE_LIMIT, key_store, limited};
use crate::turns::Turns;
use crate::value::{Session, session_on};

/// How many connections a pool has that is made here.
const CONNECTIONS: u32 = 10;
/// The longest that a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is asked whether it still works before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How often a transaction is tried that the database gives up for the sake of others.
const WRITE_ATTEMPTS: u32 = 5;

/// What a connection is told first. The server keeps these limits also where the client is gone.
const SET_LIMITS: &str = "SELECT set_config('statement_timeout', '10s', false), \
     set_config('lock_timeout', '8s', false), \
     set_config('idle_in_transaction_session_timeout', '30s', false)";

/// Begins a write. A database that acknowledges before it has written is told otherwise; a stricter
/// setting stays.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
     SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

/// Begins a change of the schema, which may take longer than any write.
const BEGIN_MIGRATION: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
     SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
     SET LOCAL idle_in_transaction_session_timeout = 0";

const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A [`KeyStore`](portunus::store::KeyStore) in a PostgreSQL database with the encoding UTF-8.
/// Cloning shares the connections.
///
/// It must be pointed to the primary server, also for look-ups: a replica may not yet know of a
/// revocation.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    turns: Turns,
}

impl PostgresStore {
    /// Connects to the database at an address such as `postgres://user@host/database`, with
    /// [`pool_options`](Self::pool_options), and makes its schema or brings it up to date
    /// ([`migrate`](Self::migrate)).
    ///
    /// # Errors
    /// An address that is none, a server that does not answer, or a schema that this version must
    /// not use or cannot make.
    pub async fn connect(address: &str) -> Result<Self, OpenError> {
        let options: PgConnectOptions = address.parse().map_err(Fault::Database)?;
        Self::connect_with(options).await
    }

    /// Connects with connection options of the host's own, and
    /// [`pool_options`](Self::pool_options); then as [`connect`](Self::connect).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(options: PgConnectOptions) -> Result<Self, OpenError> {
        let pool = Self::pool_options().connect_with(options).await;
        let store = Self::new(pool.map_err(Fault::from)?);
        store.migrate().await?;
        Ok(store)
    }

    /// How [`connect`](Self::connect) makes its pool: 10 connections, 5 seconds to get one; on
    /// each, statements end after 10 seconds, waits for locks after 8, and transactions that their
    /// client forgot after 30. A connection that was idle for a second is tried before it is used,
    /// a busier one is trusted.
    #[must_use]
    pub fn pool_options() -> PgPoolOptions {
        PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for >= TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::query(SET_LIMITS).execute(connection).await?;
                    Ok(())
                })
            })
    }

    /// A store on a pool of the host's own, which decides about limits of time. Half of its
    /// connections at most write at once, so that look-ups find one. Call
    /// [`migrate`](Self::migrate) before anything else.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let half = pool.options().get_max_connections() / 2;
        Self {
            pool,
            turns: Turns::new(usize::try_from(half).unwrap_or(1)),
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Closes all connections, after what is going on has ended. What is asked afterwards gets no
    /// answer.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) async fn read<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        limited(READ_LIMIT, async {
            for _ in 0..self.attempts() {
                match self.read_once(&operation).await {
                    Err(fault) if fault.is_lost_connection() => {}
                    done => return done,
                }
            }
            self.read_once(&operation).await
        })
        .await
    }

    /// After a restart of the server every connection of the pool may be lost, which each tells
    /// when it is used.
    fn attempts(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// Begins a transaction. Nothing has happened in it yet, so that another connection may be
    /// taken.
    async fn begin(
        &self,
        statement: &'static str,
    ) -> Result<Transaction<'static, Postgres>, Fault> {
        for _ in 0..self.attempts() {
            match self.pool.begin_with(statement).await.map_err(Fault::from) {
                Err(fault) if fault.is_lost_connection() => {}
                begun => return begun,
            }
        }
        Ok(self.pool.begin_with(statement).await?)
    }

    async fn read_once<O: Operation>(&self, operation: &O) -> Result<O::Answer, Fault> {
        let mut connection = self.pool.acquire().await?;
        operation.run(&mut *connection).await
    }

    async fn read_snapshot<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        limited(READ_LIMIT, async {
            let mut transaction = self.begin(BEGIN_SNAPSHOT).await?;
            operation.run(&mut *transaction).await
        })
        .await
    }

    pub(crate) async fn write<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let _turn = self.turns.wait(operation.lane()).await?;
        limited(WRITE_LIMIT, async {
            for attempt in 1..WRITE_ATTEMPTS {
                match self.write_once(&operation).await {
                    Err(fault) if fault.is_conflict() => {
                        tokio::time::sleep(Duration::from_millis(5) * attempt * attempt).await;
                    }
                    done => return done,
                }
            }
            self.write_once(&operation).await
        })
        .await
    }

    /// Brings the schema up to date, however long that takes.
    async fn make_schema(&self) -> Result<(), Fault> {
        let mut connection = self.beside().await?;
        let mut transaction = connection.begin_with(BEGIN_MIGRATION).await?;
        Migrate.run(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Makes the indexes that are missing, beside whatever else is going on: lists are read without
    /// them too, but slowly. A role that may not make them leaves them to another.
    async fn make_indexes(&self) -> Result<(), Fault> {
        let (mut missing, dialect) = (false, &sql::POSTGRES);
        let mut connection = self.pool.acquire().await?;
        for (name, _) in dialect.indexes {
            missing |= index_state(&mut *connection, name).await? != Some(true);
        }
        drop(connection);
        if !missing {
            return Ok(());
        }
        // One node at a time: an index that is being made looks like one that failed.
        let mut turn = self.beside().await?;
        let mut turn = turn.begin_with(BEGIN_MIGRATION).await?;
        hold(&mut *turn).await?;
        let mut connection = self.beside().await?;
        for (name, make) in dialect.indexes {
            let made = async {
                match index_state(&mut connection, name).await? {
                    Some(true) => return Ok(()),
                    Some(false) => {
                        let drop = AssertSqlSafe(format!("DROP INDEX CONCURRENTLY {name}"));
                        sqlx::raw_sql(drop).execute(&mut connection).await?;
                    }
                    None => {}
                }
                connection.script(make).await
            };
            match made.await {
                Err(fault) if fault.is_forbidden() => return Ok(()),
                done => done?,
            }
        }
        Ok(())
    }

    /// A connection that is none of the pool's, with the server's own limits of time.
    async fn beside(&self) -> Result<PgConnection, Fault> {
        Ok(PgConnection::connect_with(&self.pool.connect_options()).await?)
    }

    async fn write_once<O: Operation>(&self, operation: &O) -> Result<O::Answer, Fault> {
        let mut transaction = self.begin(BEGIN_WRITE).await?;
        match operation.run(&mut *transaction).await {
            Ok(answer) => {
                transaction.commit().await?;
                Ok(answer)
            }
            Err(fault) => {
                // Where this fails too, the connection is not used again before it was rolled back.
                let _ = transaction.rollback().await;
                Err(fault)
            }
        }
    }
}

/// Whether there is an index of this name, and whether it can be used.
async fn index_state(session: &mut dyn Session, name: &'static str) -> Result<Option<bool>, Fault> {
    let rows = session.rows(sql::INDEX_STATE, vec![name.into()]).await?;
    let row = rows.into_iter().next();
    row.map(|row| Ok(row.of("pg_index", name).int("indisvalid")? == 1))
        .transpose()
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({} connections)", self.pool.size())
    }
}

key_store!(PostgresStore);
session_on!(PgConnection, Postgres, &sql::POSTGRES);
