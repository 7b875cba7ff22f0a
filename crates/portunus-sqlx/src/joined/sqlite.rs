//! A transaction of the host on the keys' SQLite file.
//!
//! SQLite tells no one how a transaction was begun. One that was begun IMMEDIATE is the only writer
//! of the file: no other connection can begin one now. If another can, it was begun in another way.
//! If another cannot, the writer may also be a third one: then a write in the transaction fails, or
//! waits for that one and makes the transaction the only writer, on the latest state of the file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use portunus::manage::{KeyManager, ManageError};
use portunus::store::StoreError;
use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Transaction};

use super::{Written, end, run, unavailable};
use crate::SqliteStore;
use crate::fault::{Fault, Refusal};
use crate::operation::check_place;
use crate::sql;
use crate::store::Database;
use crate::value::Session;

impl SqliteStore {
    /// Runs key management in a transaction of the host, which must have been begun with
    /// `BEGIN IMMEDIATE` on the file of this store, on any pool:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use portunus::{Portunus, key::{Alphabet, KeyFormat, Owner}, manage::NewKey};
    /// # use portunus_sqlx::SqliteStore;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = SqliteStore::open(&path).await?;
    /// # let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
    /// let keys = Portunus::builder(format).store(store.clone()).build()?;
    /// let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await?;
    /// # sqlx::raw_sql("CREATE TABLE customers (name TEXT, key_id TEXT)").execute(&pool).await?;
    ///
    /// let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    /// let new = NewKey::new("first key", Owner::tenant("globex".parse()?));
    /// let written = store
    ///     .in_transaction(&mut transaction, keys.manager(), |keys| async move { keys.issue(new).await })
    ///     .await?;
    /// sqlx::query("INSERT INTO customers VALUES ('globex', $1)")
    ///     .bind(written.uncommitted().record.id.as_str())
    ///     .execute(&mut *transaction)
    ///     .await?;
    /// transaction.commit().await?;
    /// let issued = written.committed();
    /// assert!(issued.key.reveal().starts_with("acme_"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `manager` is the manager of a service on this store, by any operator. `act` receives it on a
    /// store that is the transaction, and may call it several times. All of its rules hold. If it
    /// returns an error, or the future is dropped, everything that it did is undone by a savepoint,
    /// and the transaction can go on.
    ///
    /// The manager may not outlive the call. While the transaction is open, every other write of
    /// keys, usage and events waits for it, as SQLite has one writer: commit soon, and use nothing
    /// else that writes to the file meanwhile, such as a directory or host rules.
    ///
    /// # Errors
    /// The error of `act`; and [`ManageError::Store`] for a transaction that was not begun
    /// IMMEDIATE, that is on another file (an attached one is not enough, because SQLite does not
    /// commit several files together), or for a file without the tables of this crate
    /// ([`migrate`](Self::migrate)).
    pub async fn in_transaction<T, F: Future<Output = Result<T, ManageError>>>(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        manager: &KeyManager,
        act: impl FnOnce(KeyManager) -> F,
    ) -> Result<Written<T>, ManageError> {
        let checked = self.check(transaction).await;
        checked.map_err(StoreError::from)?;
        let mut nested = transaction.begin().await.map_err(unavailable)?;
        let records = self.0.records().load(Ordering::SeqCst);
        let written = run(&mut *nested, records, manager, act).await;
        end(nested, written).await
    }

    /// Checks that the transaction is the writer of this store's file.
    async fn check(&self, connection: &mut SqliteConnection) -> Result<(), Fault> {
        check_place(connection, self.0.place()).await?;
        if self.can_begin().await? {
            return Err(Refusal::NotImmediate.into());
        }
        match connection.change(sql::CHANGE_NOTHING, Vec::new()).await {
            Err(fault) if fault.is_busy() => Err(Refusal::NotImmediate.into()),
            done => done.map(drop),
        }
    }

    /// Whether another connection can begin a write now.
    async fn can_begin(&self) -> Result<bool, Fault> {
        let options = self.connect_options().create_if_missing(false);
        // A shared cache would make the probe wait for the transaction.
        let options = options.shared_cache(false).busy_timeout(Duration::ZERO);
        let begun = async {
            let mut probe = options.disable_statement_logging().connect().await?;
            probe.script("BEGIN IMMEDIATE").await?;
            probe.close().await?;
            Ok(true)
        };
        match begun.await {
            Err(fault @ Fault::Database(_)) if fault.is_busy() => Ok(false),
            begun => begun,
        }
    }
}
