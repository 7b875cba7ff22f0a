//! Keys in a SQLite file: one writer at a time, readers beside it, and every acknowledged write on
//! the disk.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::fault::{Fault, OpenError, Refusal};
use crate::operation::{Migrate, Operation};
use crate::share::{Share, Stop};
use crate::sql;
use crate::store::{READ_LIMIT, Turns, WRITE_LIMIT, key_store, limited};
use crate::value::session_on;

/// How many connections read at once.
const READERS: u32 = 4;
/// How many of them management reads may have at once.
const MANAGEMENT_READERS: u32 = 2;
/// How long a connection waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A [`KeyStore`](portunus::store::KeyStore) in a SQLite file. Cloning shares the connections.
///
/// Several processes of one machine may use the file at once; each sees the others' writes at once.
/// The file must not be on a network file system.
#[derive(Clone)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: SqlitePool,
    turns: Turns,
    share: Share,
}

impl SqliteStore {
    /// Opens a file, which is made if it is not there, for its owner alone: with a write-ahead log,
    /// `synchronous = FULL`, foreign keys, and five seconds of patience with other processes. Its
    /// schema is made or brought up to date ([`migrate`](Self::migrate)).
    ///
    /// # Errors
    /// A file that cannot be opened, or is no SQLite database, or has a schema that this version
    /// must not use or cannot make.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        make_private(path.as_ref());
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT);
        Self::open_with(options).await
    }

    /// Opens a file with options of the host's own. The write-ahead log, `synchronous = FULL` and
    /// foreign keys are set in any case, and the schema is brought up to date.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(options: SqliteConnectOptions) -> Result<Self, OpenError> {
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is deleted is overwritten: signing states among it.
            .pragma("secure_delete", "ON");
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(BUSY_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(Fault::from)?;
        let readers = pool(READERS)
            .connect_with(options)
            .await
            .map_err(Fault::from)?;
        let store = Self {
            readers,
            writer,
            turns: Turns::new(1),
            share: Share::new(MANAGEMENT_READERS),
        };
        store.migrate().await?;
        Ok(store)
    }

    /// A store on a pool of the host's own, for reads and writes. It decides how durable a write is
    /// when it is acknowledged: with `synchronous` below `FULL`, a power cut may undo a revocation.
    /// Each connection must see the same database, so that a pool of several cannot be one in
    /// memory. Clones of this store take turns to write; a second store on the same pool waits in
    /// SQLite, as another process does. Call [`migrate`](Self::migrate) before anything else.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        let half = pool.options().get_max_connections() / 2;
        Self {
            readers: pool.clone(),
            writer: pool,
            turns: Turns::new(1),
            share: Share::new(half.min(MANAGEMENT_READERS)),
        }
    }

    /// How the connections are made.
    pub(crate) fn connect_options(&self) -> SqliteConnectOptions {
        (*self.readers.connect_options()).clone()
    }

    /// Closes all connections, after what is going on has ended. What is asked afterwards gets no
    /// answer.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    pub(crate) async fn read<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        self.read_within(READ_LIMIT, operation).await
    }

    async fn read_within<O: Operation>(
        &self,
        limit: Duration,
        operation: O,
    ) -> Result<O::Answer, Fault> {
        let place = self.share.place(O::PURPOSE).await?;
        let read = limited(limit, async {
            let mut lent = place.lend(self.readers.acquire().await?);
            if place.is_taken() {
                let stop = Stop::on(lent.connection()?, Instant::now() + limit).await?;
                lent.stop_with(stop);
            }
            let answer = operation.run(lent.connection()?).await;
            lent.done();
            answer
        });
        match read.await {
            Err(fault) if fault.is_interrupted() => Err(Refusal::TooLong(limit).into()),
            answer => answer,
        }
    }

    async fn read_snapshot<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        limited(READ_LIMIT, async {
            let mut transaction = self.readers.begin().await?;
            operation.run(&mut *transaction).await
        })
        .await
    }

    pub(crate) async fn write<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let _turn = self.turns.wait().await?;
        limited(WRITE_LIMIT, self.write_once(operation)).await
    }

    async fn write_once<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        // From its first statement on the only writer: a transaction that only becomes one later
        // may have to be given up.
        let mut transaction: Transaction<'_, Sqlite> =
            self.writer.begin_with("BEGIN IMMEDIATE").await?;
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

    /// Brings the schema up to date, however long that takes.
    async fn make_schema(&self) -> Result<(), Fault> {
        let _turn = self.turns.wait().await?;
        loop {
            match self.write_once(Migrate).await {
                // Another process is doing it.
                Err(fault) if fault.is_busy() => {}
                done => return done,
            }
        }
    }

    /// They are made with the schema.
    async fn make_indexes(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Makes a file that only its owner may read, where there is none: it will hold what signs events.
/// SQLite gives its other files the same rights. What cannot be made is told when it is opened.
fn make_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // A database in memory has no file.
    if path != Path::new(":memory:") {
        drop(options.open(path));
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SqliteStore({} connections)",
            self.readers.size() + self.writer.size()
        )
    }
}

key_store!(SqliteStore);
session_on!(SqliteConnection, Sqlite, &sql::SQLITE);
