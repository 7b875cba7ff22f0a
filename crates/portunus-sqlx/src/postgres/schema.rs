//! Schema migration, which has no time limit: it uses connections outside of the pool, with the
//! server's own timeouts.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Postgres;
use crate::fault::{Fault, Refusal};
use crate::lease::{self, On, Watch};
use crate::operation::{Migrate, Operation, hold_schema};
use crate::share::Purpose;
use crate::sql;
use crate::store::Database;
use crate::value::Session;

/// The interval at which a migration, which may take long, checks whether its server is still
/// available.
const LOOK_AFTER_EVERY: Duration = Duration::from_secs(5);
/// The interval at which a node tries to take its turn to create indexes, and checks whether
/// another node created them.
const TURN_PAUSE: Duration = Duration::from_millis(100);

/// The interval at which a migration that waits for a table begins again.
const MIGRATION_PAUSE: Duration = Duration::from_millis(300);

/// Begins a migration, which may take longer than any write. Every lookup waits behind a migration
/// that waits for a table that it changes, so that it gives up soon.
const BEGIN_MIGRATION: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; UNLISTEN *; \
     SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '200ms'; \
     SET LOCAL idle_in_transaction_session_timeout = 0";

impl Postgres {
    pub(super) async fn change_schema(&self) -> Result<(), Fault> {
        let mut connection = self.beside().await?;
        loop {
            let mut transaction = connection.begin_with(BEGIN_MIGRATION).await?;
            match self.migrate(&mut transaction).await {
                Err(fault) if fault.is_lock_timeout() => {
                    transaction.rollback().await?;
                    tokio::time::sleep(MIGRATION_PAUSE).await;
                }
                done => {
                    done?;
                    return Ok(transaction.commit().await?);
                }
            }
        }
    }

    async fn migrate(&self, transaction: &mut PgConnection) -> Result<(), Fault> {
        if let Some(namespace) = &self.namespace {
            hold_schema(&mut self.on(transaction)).await?;
            namespace.make(transaction).await?;
        }
        Migrate.run(&mut self.on(transaction)).await
    }

    pub(super) async fn is_index_missing(&self) -> Result<bool, Fault> {
        for (name, _) in sql::POSTGRES.indexes {
            if self.read(IndexState(name)).await? != Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Creates the missing indexes concurrently with other operations: lists work without them, but
    /// are slow. A role that lacks the privilege leaves them to another.
    pub(super) async fn make_indexes_in_turn(&self) -> Result<(), Fault> {
        // One node at a time: an index that is being created looks like one that failed.
        let mut beside = self.beside().await?;
        while self.is_index_missing().await? {
            let mut turn = beside.begin_with(BEGIN_MIGRATION).await?;
            if TakeTurn.run(&mut self.on(&mut turn)).await? {
                return self.make_missing_indexes().await;
            }
            turn.rollback().await?;
            tokio::time::sleep(TURN_PAUSE).await;
        }
        Ok(())
    }

    async fn make_missing_indexes(&self) -> Result<(), Fault> {
        let mut connection = self.beside().await?;
        for (name, make) in sql::POSTGRES.indexes {
            match self.make_index(&mut connection, name, make).await {
                Err(fault) if fault.is_forbidden() => return Ok(()),
                done => done?,
            }
        }
        Ok(())
    }

    /// Creates an index, outside of a transaction.
    async fn make_index(
        &self,
        connection: &mut PgConnection,
        name: &'static str,
        make: &'static str,
    ) -> Result<(), Fault> {
        match self.read(IndexState(name)).await? {
            Some(true) => return Ok(()),
            Some(false) => {
                let name = match &self.namespace {
                    Some(namespace) => namespace.qualified(name),
                    None => name.to_owned(),
                };
                let drop = AssertSqlSafe(format!("DROP INDEX CONCURRENTLY {name}"));
                sqlx::raw_sql(drop).execute(&mut *connection).await?;
            }
            None => {}
        }
        // There is no transaction that could set the search path.
        let make = match &self.namespace {
            Some(namespace) => {
                let on = format!(" ON {}", namespace.qualified("portunus_"));
                make.replacen(" ON portunus_", &on, 1)
            }
            None => make.to_owned(),
        };
        sqlx::raw_sql(AssertSqlSafe(make))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// A connection outside of the pool, with the server's own timeouts.
    async fn beside(&self) -> Result<PgConnection, Fault> {
        lease::connect(&self.pool.connect_options()).await
    }

    fn on<'c>(&self, connection: &'c mut PgConnection) -> On<'c> {
        On {
            connection,
            statements: self.statements(),
            watch: Watch {
                limit: None,
                trust: None,
            },
        }
    }

    /// The result of work without a time limit, for as long as the server accepts connections.
    pub(super) async fn looked_after<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let is_gone = async {
            loop {
                tokio::time::sleep(LOOK_AFTER_EVERY).await;
                let asked = self.beside().await;
                let is_lost = |fault: &Fault| {
                    fault.is_lost_connection() || matches!(fault, Fault::Refused(_))
                };
                if let Err(fault) = asked
                    && is_lost(&fault)
                {
                    return fault;
                }
            }
        };
        tokio::select! {
            done = work => done,
            fault = is_gone => Err(fault),
        }
    }
}

/// Checks that the server is not a replica and that the role can read every table. Otherwise each
/// request would fail.
pub(super) struct IsUsable;

#[async_trait]
impl Operation for IsUsable {
    type Answer = ();
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        for row in session.rows(sql::ABOUT_SERVER, Vec::new()).await? {
            if row.of("server", "itself").int("is_replica")? == 1 {
                return Err(Refusal::Replica.into());
            }
        }
        for row in session.rows(sql::MISSING_RIGHTS, Vec::new()).await? {
            let mut row = row.of("pg_class", "?");
            let (table, reads) = (row.text("relname")?, row.int("reads")? == 1);
            if !reads {
                return Err(Refusal::NoRight(table).into());
            }
            tracing::warn!(table, "the database role cannot write this table");
        }
        Ok(())
    }
}

/// Whether an index of this name exists, and whether it can be used.
struct IndexState(&'static str);

#[async_trait]
impl Operation for IndexState {
    type Answer = Option<bool>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let rows = session.rows(sql::INDEX_STATE, vec![self.0.into()]).await?;
        let row = rows.into_iter().next();
        row.map(|row| Ok(row.of("pg_index", self.0).int("indisvalid")? == 1))
            .transpose()
    }
}

/// Takes this node's turn to create indexes, if it is free.
struct TakeTurn;

#[async_trait]
impl Operation for TakeTurn {
    type Answer = bool;

    async fn run(&self, session: &mut dyn Session) -> Result<bool, Fault> {
        let rows = session.rows(sql::TAKE_TURN, Vec::new()).await?;
        let taken = rows
            .into_iter()
            .map(|row| row.of("pg_locks", "turn").int("turn"));
        Ok(taken.sum::<Result<i64, _>>()? == 1)
    }
}
