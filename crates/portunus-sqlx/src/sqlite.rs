//! Keys in a SQLite file: one writer at a time, concurrent readers, and every acknowledged write on
//! disk.

mod file;
mod transaction;

use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portunus::store::InvalidationBus;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection, SqlitePool};
use tokio::runtime::Handle;

use crate::fault::{Fault, OpenError, Refusal};
use crate::lookups::Lookups;
use crate::operation::{Migrate, Operation};
use crate::share::{Share, Stop};
use crate::sql::{self, Dialect};
use crate::store::{Database, READ_LIMIT, Store};
use crate::value::{Row, Session, Value, bound, cells};
use crate::write_queue::WriteQueue;

/// The longest time that a write may take, once its turn has come.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// The most memory for the pages of a write, in kibibytes as a negative number. A batch of 500 keys
/// changes up to 16 MiB of pages in the many indexes; SQLite's 2 MiB would have each of them written
/// and read several times.
const WRITER_CACHE: &str = "-32768";
/// The number of connections for reads.
const READERS: u32 = 4;
/// The number of them that management reads may use at once.
const MANAGEMENT_READERS: u32 = 2;
/// The number of statements for lookups at the same time. The threads of more than two connections
/// mostly wait for each other: SQLite has one lock for the memory of all of them.
const LOOKUPS: u32 = 2;
/// How long a connection waits for a lock held by another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for another process that creates the schema.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(15);
/// SQLite does not wait for every lock; in those cases, the pause before a retry.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A [`KeyStore`](portunus::store::KeyStore) in a SQLite file. Clones share the connections.
///
/// Several processes of one machine may use the file at the same time; each sees the others' writes
/// at once. The file must not be on a network file system.
pub type SqliteStore = Store<Sqlite>;

/// The connections to a SQLite file.
#[derive(Clone)]
pub struct Sqlite {
    readers: SqlitePool,
    writer: SqlitePool,
    turns: WriteQueue,
    share: Share,
    lookups: Lookups,
    records: Arc<AtomicBool>,
    place: Arc<OnceLock<String>>,
}

impl SqliteStore {
    /// Opens a file, and creates it, accessible only to its owner, if it does not exist. Sets a
    /// write-ahead log, `synchronous = FULL`, foreign keys, and a five-second wait for locks of
    /// other processes. Creates its schema or brings it up to date ([`migrate`](Self::migrate)).
    ///
    /// Rejects an in-memory database (`:memory:`): use
    /// [`MemoryStore`](portunus::store::MemoryStore).
    ///
    /// # Errors
    /// The file cannot be opened and written, is not a SQLite database, is locked by another
    /// process for too long, or has a schema that this version must not use or cannot create.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        if file::is_none(path) {
            return Err(OpenError::InMemory);
        }
        file::make_private(path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT);
        let store = Self::open_with(options).await?;
        // SQLite also opens a file that is read-only.
        match store.0.write(Nothing).await {
            Err(fault) if fault.is_read_only() => Err(cannot_use(path, fault.into())),
            _ => Ok(store),
        }
    }

    /// Opens a file with the host's own options. The write-ahead log, `synchronous = FULL` and
    /// foreign keys are set in any case, and the schema is brought up to date.
    ///
    /// # Errors
    /// The same as [`open`](Self::open).
    pub async fn open_with(options: SqliteConnectOptions) -> Result<Self, OpenError> {
        let path = options.get_filename().to_owned();
        let store = Self::connect_to(options.journal_mode(SqliteJournalMode::Wal)).await?;
        match store.migrate().await {
            Ok(()) => Ok(store),
            Err(error) => Err(cannot_use(&path, error)),
        }
    }

    /// Opens an existing file without changing its schema or its journal mode: for tools, which must
    /// neither create a database nor migrate that of a running service by accident. Check the
    /// [`schema`](Self::schema) before anything else. The file may be read-only.
    ///
    /// # Errors
    /// There is no such file, or it cannot be opened or is no SQLite database.
    pub async fn attach(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new().filename(path);
        Self::connect_to(options.busy_timeout(BUSY_TIMEOUT)).await
    }

    async fn connect_to(options: SqliteConnectOptions) -> Result<Self, OpenError> {
        let path = options.get_filename().to_owned();
        if file::is_none(&path) {
            return Err(OpenError::InMemory);
        }
        let patience = Patience::of(BUSY_TIMEOUT);
        let mut connected = Self::connect(options.clone()).await;
        while patience.tries_again(&connected).await {
            connected = Self::connect(options.clone()).await;
        }
        let store = connected.map_err(|fault| cannot_use(&path, fault.into()))?;
        // Each connection would have its own database.
        match store.0.read(IsInMemory).await {
            Ok(false) => Ok(store),
            Ok(true) => Err(OpenError::InMemory),
            Err(fault) => Err(cannot_use(&path, fault.into())),
        }
    }

    async fn connect(options: SqliteConnectOptions) -> Result<Self, Fault> {
        let options = options
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // Deleted content, such as signing states, is overwritten.
            .pragma("secure_delete", "ON")
            // Reads then need no space for temporary files on a disk that may be full, and what undoes
            // a statement of a write is not written to one.
            .pragma("temp_store", "MEMORY");
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(BUSY_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        Ok(Self(Sqlite {
            writer: pool(1)
                .connect_with(options.clone().pragma("cache_size", WRITER_CACHE))
                .await?,
            readers: pool(READERS).connect_with(options).await?,
            turns: WriteQueue::new(1),
            share: Share::new(MANAGEMENT_READERS),
            lookups: Lookups::new(LOOKUPS),
            records: Arc::default(),
            place: Arc::default(),
        }))
    }

    /// Creates a store on the host's own pool, for reads and writes. The pool determines how
    /// durable an acknowledged write is: with `synchronous` below `FULL`, a power failure may undo
    /// a revocation. Each connection must use the same database. A connection that failed is
    /// replaced, so that an in-memory database is lost. Clones of this store take turns to write; a
    /// second store on the same pool waits in SQLite, as another process does. Call
    /// [`migrate`](Self::migrate) before anything else.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        let half = pool.options().get_max_connections() / 2;
        Self(Sqlite {
            readers: pool.clone(),
            writer: pool,
            turns: WriteQueue::new(1),
            share: Share::new(half.min(MANAGEMENT_READERS)),
            lookups: Lookups::new(half.min(LOOKUPS)),
            records: Arc::default(),
            place: Arc::default(),
        })
    }

    /// The options for new connections.
    pub(crate) fn connect_options(&self) -> SqliteConnectOptions {
        (*self.0.readers.connect_options()).clone()
    }

    /// Closes all connections, after operations in progress have ended. Later operations fail.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.writer.close().await;
    }
}

impl Database for Sqlite {
    const LOOK_UP_LIMIT: Duration = READ_LIMIT;

    fn records(&self) -> &AtomicBool {
        &self.records
    }

    fn place(&self) -> &OnceLock<String> {
        &self.place
    }

    fn lookups(&self) -> Option<&Lookups> {
        Some(&self.lookups)
    }

    async fn read<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        self.read_within(READ_LIMIT, operation).await
    }

    async fn read_snapshot<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let read = transaction::run(&self.readers, transaction::SNAPSHOT, operation);
        limited(READ_LIMIT, read).await
    }

    async fn write<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let _turn = self.turns.wait(operation.lane()).await?;
        limited(WRITE_LIMIT, self.write_once(operation)).await
    }

    async fn make_schema(&self) -> Result<(), Fault> {
        let _turn = self.turns.wait(Migrate.lane()).await?;
        // Another process may be migrating it.
        let patience = Patience::of(SCHEMA_PATIENCE);
        let mut made = self.write_once(Migrate).await;
        while patience.tries_again(&made).await {
            made = self.write_once(Migrate).await;
        }
        made
    }

    fn listen(store: &SqliteStore) -> Option<Arc<dyn InvalidationBus>> {
        // Watching needs a runtime, as every read does.
        Handle::try_current().ok()?;
        Some(Arc::new(store.watch()))
    }

    /// Indexes are created with the schema.
    async fn make_indexes(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl Sqlite {
    async fn read_within<O: Operation>(
        &self,
        limit: Duration,
        operation: O,
    ) -> Result<O::Answer, Fault> {
        let permit = self.share.permit(O::PURPOSE).await?;
        let read = limited(limit, async {
            let mut lent = permit.lend(self.readers.acquire().await?);
            if permit.is_taken() {
                let stop = Stop::on(lent.connection()?, Instant::now() + limit).await?;
                lent.stop_with(stop);
            }
            let answer = operation.run(lent.connection()?).await;
            match answer {
                // Another connection may succeed.
                Err(Fault::Database(_)) => lent.discard(),
                _ => lent.done(),
            }
            answer
        });
        match read.await {
            Err(fault) if fault.is_interrupted() => Err(Refusal::TooLong(limit).into()),
            answer => answer,
        }
    }

    async fn write_once<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        transaction::run(&self.writer, transaction::WRITE, operation).await
    }
}

/// A limited wait for another process that holds the file.
struct Patience {
    limit: Duration,
    since: Instant,
}

impl Patience {
    fn of(limit: Duration) -> Self {
        let since = Instant::now();
        Self { limit, since }
    }

    /// Whether to try again, after a pause.
    async fn tries_again<T>(&self, done: &Result<T, Fault>) -> bool {
        let is_busy = matches!(done, Err(fault) if fault.is_busy());
        let again = is_busy && self.since.elapsed() < self.limit;
        if again {
            tokio::time::sleep(BUSY_PAUSE).await;
        }
        again
    }
}

/// The result of work that has a time limit.
async fn limited<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Refusal::TooLong(limit).into()),
    }
}

/// Whether the database has no file.
struct IsInMemory;

#[async_trait]
impl Operation for IsInMemory {
    type Answer = bool;

    async fn run(&self, session: &mut dyn Session) -> Result<bool, Fault> {
        let rows = session.rows(sql::FILE, Vec::new()).await?;
        let file = rows.into_iter().next().map(|row| {
            let mut row = row.of("pragma_database_list", "main");
            row.text("file")
        });
        Ok(file.transpose()?.is_none_or(|file| file.is_empty()))
    }
}

/// A write that changes neither a row nor the file.
struct Nothing;

#[async_trait]
impl Operation for Nothing {
    type Answer = u64;

    async fn run(&self, session: &mut dyn Session) -> Result<u64, Fault> {
        session.change(sql::CHANGE_NOTHING, Vec::new()).await
    }
}

/// Adds the operating system's reason to the error.
fn cannot_use(path: &Path, mut error: OpenError) -> OpenError {
    if let OpenError::Schema { cause, .. } | OpenError::Unavailable { cause } = &mut error {
        // SQLite's own message is enough only where another process holds the file.
        let obstacle = if cause.contains("database is locked") {
            Some("another process holds it for too long".to_owned())
        } else {
            file::obstacle(path)
        };
        if let Some(obstacle) = obstacle {
            *cause = format!("{cause}: {obstacle}");
        }
    }
    error
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SqliteStore({} connections)",
            self.readers.size() + self.writer.size()
        )
    }
}

#[async_trait]
impl Session for SqliteConnection {
    fn dialect(&self) -> &'static Dialect {
        &sql::SQLITE
    }

    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Fault> {
        let rows = bound(self.dialect(), sql, values).fetch_all(&mut *self);
        Ok(rows.await?.iter().map(cells::<sqlx::Sqlite>).collect())
    }

    /// The driver's thread sends the first row, and nothing after it.
    async fn first(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, Fault> {
        let row = bound(self.dialect(), sql, values).fetch_optional(&mut *self);
        Ok(row.await?.as_ref().map(cells::<sqlx::Sqlite>))
    }

    async fn change(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Fault> {
        let changed = bound(self.dialect(), sql, values).execute(&mut *self);
        Ok(changed.await?.rows_affected())
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        sqlx::raw_sql(sql).execute(&mut *self).await?;
        Ok(())
    }
}
