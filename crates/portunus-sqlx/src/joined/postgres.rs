//! A transaction of the host on the keys' PostgreSQL database.

use std::sync::atomic::Ordering;

use portunus::manage::{KeyManager, ManageError};
use portunus::store::StoreError;
use sqlx::postgres::Postgres;
use sqlx::{Connection, Transaction};

use super::{Written, end, run, unavailable};
use crate::PostgresStore;
use crate::fault::{Fault, Refusal};
use crate::lease::{On, Statements, Watch};
use crate::operation::check_place;
use crate::sql;
use crate::store::Database;
use crate::value::Session;

impl PostgresStore {
    /// Runs key management in a transaction of the host, which must be READ COMMITTED (PostgreSQL's
    /// default) and in the database of this store, on any pool:
    ///
    /// ```no_run
    /// # use portunus::manage::{KeyManager, NewKey};
    /// # use portunus_sqlx::PostgresStore;
    /// # async fn with(store: PostgresStore, pool: sqlx::PgPool, manager: KeyManager, new: NewKey)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let mut transaction = pool.begin().await?;
    /// let written = store
    ///     .in_transaction(&mut transaction, &manager, |keys| async move { keys.issue(new).await })
    ///     .await?;
    /// sqlx::query("INSERT INTO customers VALUES ('globex', $1)")
    ///     .bind(written.uncommitted().record.id.as_str())
    ///     .execute(&mut *transaction)
    ///     .await?;
    /// transaction.commit().await?;
    /// let issued = written.committed();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `manager` is the manager of a service on this store, by any operator. `act` receives it on a
    /// store that is the transaction, and may call it several times. All of its rules hold. If it
    /// returns an error, or the future is dropped, everything that it did is undone by a savepoint,
    /// and the transaction can go on.
    ///
    /// The manager may not outlive the call. Until the transaction ends, other writes to keys of
    /// the same tenant wait for it: commit soon. Time limits are those of the host's connection. If
    /// PostgreSQL ends a deadlock by an error, repeat the transaction; a host that locks its own
    /// rows before it calls this, always in the same order, has none. `synchronous_commit` is
    /// enabled for the transaction if it is off.
    ///
    /// # Errors
    /// The error of `act`; and [`ManageError::Store`] for another isolation level, another database,
    /// or one in which the transaction does not find the tables of this store
    /// ([`migrate`](Self::migrate)).
    pub async fn in_transaction<T, F: Future<Output = Result<T, ManageError>>>(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        manager: &KeyManager,
        act: impl FnOnce(KeyManager) -> F,
    ) -> Result<Written<T>, ManageError> {
        let mut nested = transaction.begin().await.map_err(unavailable)?;
        let mut session = On {
            connection: &mut nested,
            // The connection may be one of a pooler.
            statements: Statements::Unnamed,
            watch: Watch {
                limit: None,
                trust: None,
            },
        };
        let written = self.run_in(&mut session, manager, act).await;
        end(nested, written).await
    }

    /// Runs `act` with the search path of the store. After an error, the savepoint restores that of
    /// the host.
    async fn run_in<T, F: Future<Output = Result<T, ManageError>>>(
        &self,
        session: &mut dyn Session,
        manager: &KeyManager,
        act: impl FnOnce(KeyManager) -> F,
    ) -> Result<Written<T>, ManageError> {
        let path = match self.namespace() {
            Some(namespace) => Some(set_path(session, namespace.path()).await),
            None => None,
        };
        let path = path.transpose().map_err(StoreError::from)?;
        self.check(session).await.map_err(StoreError::from)?;
        let records = self.0.records().load(Ordering::SeqCst);
        let written = run(session, records, manager, act).await?;
        if let Some(path) = path {
            set_path(session, path).await.map_err(StoreError::from)?;
        }
        Ok(written)
    }

    /// Checks that the transaction sees what others commit, in the database of this store.
    async fn check(&self, session: &mut dyn Session) -> Result<(), Fault> {
        for row in session.rows(sql::ISOLATION, Vec::new()).await? {
            let isolation = row.of("a transaction", "of the host").text("isolation")?;
            if isolation != "read committed" {
                return Err(Refusal::Isolation(isolation).into());
            }
        }
        check_place(session, self.0.place()).await
    }
}

/// Sets the search path until the end of the transaction; returns the previous one.
async fn set_path(session: &mut dyn Session, path: String) -> Result<String, Fault> {
    let before = session.first(sql::SEARCH_PATH, Vec::new()).await?;
    let before = before.map(|row| row.of("a transaction", "of the host").text("search_path"));
    session
        .change(sql::SET_SEARCH_PATH, vec![path.into()])
        .await?;
    before.unwrap_or_else(|| Ok(String::new()))
}
