//! Keys in PostgreSQL: writes to one tenant are serialized, all others run concurrently.
//!
//! A write holds advisory locks on the keys and tenants that it concerns (see
//! [`operation`](crate::operation)) and reads committed rows: each statement sees what was
//! committed before it, and no other transaction can commit what it depends on.

mod connect;
mod namespace;
mod schema;
mod settings;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portunus::store::InvalidationBus;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::runtime::Handle;

use crate::address;
use crate::door::{self, Door, Primary, Server};
use crate::fault::{Fault, OpenError, Refusal};
use crate::lease::{Lease, Limit, Statements};
use crate::lookups::Lookups;
use crate::operation::Operation;
use crate::share::{Permit, Purpose, Share};
use crate::store::{Database, READ_LIMIT, Store};
use crate::write_queue::WriteQueue;
pub(crate) use namespace::Namespace;
use schema::IsUsable;
pub(crate) use settings::SET_FIRST;
use settings::{Begin, READ, SNAPSHOT, WRITE};

/// The number of connections of a pool that is created here.
const CONNECTIONS: u32 = 10;
/// The longest time that a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a request waits for the lookup of its key.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(3);
/// The longest time that a write may take with all of its statements, each of which has its own
/// limit.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// The longest time until a write begins, including the waits for its turn and for a connection.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The longest time that closing waits for operations in progress.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// The number of attempts for a transaction that the database aborts in favor of others.
const WRITE_ATTEMPTS: u32 = 5;

/// A [`KeyStore`](portunus::store::KeyStore) in a PostgreSQL database with UTF-8 encoding. Clones
/// share the connections.
///
/// Connect it to the primary server, also for lookups: a replica may lag behind a revocation, and
/// its connections are refused. After a failover, a node that sees only the old primary server
/// cannot detect it; fencing is the duty of the failover manager
/// ([more](crate#across-a-failover)).
pub type PostgresStore = Store<Postgres>;

/// The connections to a PostgreSQL database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    turns: WriteQueue,
    share: Share,
    lookups: Lookups,
    door: Door,
    /// Whether each transaction may use a different server connection.
    is_pooled: bool,
    /// The schema of the tables, if it is not that of the connections.
    namespace: Option<Namespace>,
    records: Arc<AtomicBool>,
    place: Arc<OnceLock<String>>,
}

impl PostgresStore {
    /// The pool options that [`connect`](Self::connect) uses: 10 connections and an acquire timeout
    /// of 5 seconds. On each connection, statements time out after 10 seconds, waits for locks
    /// after 8, and transactions that their client abandoned after 30. A connection that was idle
    /// for a second is tested before use, for at most a second; one that was used more recently is
    /// trusted. A connection to a server in recovery is closed.
    ///
    /// Tables are read by index and with generic plans: `enable_seqscan` and others are off, disk
    /// pages cost nothing, and `plan_cache_mode`, which needs PostgreSQL 12 or newer, is set. These
    /// settings suit only the statements of this store: do not use such a pool for others.
    #[must_use]
    pub fn pool_options() -> PgPoolOptions {
        Self::pool_options_for(Arc::default())
    }

    /// The same, with which the pool tells about its server.
    fn pool_options_for(primary: Arc<Primary>) -> PgPoolOptions {
        Self::plain_pool_options(Some(Arc::clone(&primary))).after_connect(move |connection, _| {
            let primary = Arc::clone(&primary);
            Box::pin(async move {
                let set = sqlx::query(SET_FIRST).fetch_one(connection).await?;
                let server = Server::of(&set)?;
                if server.is_in_recovery {
                    // The pool closes it, and tries again.
                    return Err(sqlx::Error::Configuration(Refusal::Replica.into()));
                }
                primary.is(&server);
                Ok(())
            })
        })
    }

    fn plain_pool_options(primary: Option<Arc<Primary>>) -> PgPoolOptions {
        door::asking_first(PgPoolOptions::new(), primary)
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
    }

    /// Creates a store on the host's own pool, which determines the server's time limits. At most
    /// half of its connections write at the same time, and at most a quarter read lists, usage and
    /// events, so that lookups always find one. Call [`migrate`](Self::migrate) before anything
    /// else.
    ///
    /// The store limits a lookup to 3 seconds and any other read to 10, after a wait of at most 5
    /// for other reads of lists, usage and events. A write begins within 10 seconds, including the
    /// wait for its turn; each of its statements takes at most 10, and the whole write at most 30.
    /// A connection whose operation exceeded its limit is closed. Logs a warning, by `tracing`, if
    /// digests of keys may be sent over the network unencrypted.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::on(pool, Arc::default())
    }

    fn on(pool: PgPool, primary: Arc<Primary>) -> Self {
        address::warn_of_clear_text(&pool.connect_options());
        let connections = pool.options().get_max_connections();
        Self(Postgres {
            door: Door::new(pool.clone(), primary),
            pool,
            turns: WriteQueue::new(usize::try_from(connections / 2).unwrap_or(1)),
            share: Share::new(connections / 4),
            lookups: Lookups::new(connections / 2),
            records: Arc::default(),
            place: Arc::default(),
            is_pooled: false,
            namespace: None,
        })
    }

    /// Returns this store with its tables in the schema of this name, which
    /// [`migrate`](Self::migrate) creates if the role may and it does not exist:
    ///
    /// ```no_run
    /// # async fn run(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// use portunus_sqlx::PostgresStore;
    ///
    /// let pool = PostgresStore::pool_options().connect_lazy(address)?;
    /// let store = PostgresStore::new(pool).in_schema("keys")?;
    /// store.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Nothing depends on the `search_path` of a session: every transaction sets its own, so that
    /// the pool may also be one that the host uses, or lead through a pooler in transaction mode
    /// (with plain `PgPoolOptions`, and with `extra_float_digits(None)` for PgBouncer; then give the
    /// cache [`bus_on`](Self::bus_on)). The cost is that of
    /// [`behind_pooler`](Self::behind_pooler): a lookup is one round trip that the server plans
    /// anew, and other reads are transactions. Where all connections belong to the store and lead to
    /// the server, `options[search_path]=keys` in the address of [`connect`](Self::connect) costs
    /// nothing, but creates no schema.
    ///
    /// Stores in several schemas of one database share the channel of the [`bus`](Self::bus) and
    /// the locks of writers: each drops what the others change, and they may wait for each other.
    ///
    /// # Errors
    /// A name that is not 1 to 63 ASCII letters, digits and underscores, or that begins with a digit
    /// or with `pg_`. Capital letters are kept.
    pub fn in_schema(self, name: &str) -> Result<Self, OpenError> {
        Ok(Self(Postgres {
            namespace: Some(Namespace::new(name)?),
            place: Arc::default(),
            ..self.0
        }))
    }

    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        self.0.namespace.as_ref()
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        (*self.0.pool.connect_options()).clone()
    }

    /// Closes all connections, after waiting at most 10 seconds for operations in progress. Later
    /// operations fail.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.0.pool.close()).await;
    }
}

impl Database for Postgres {
    const LOOK_UP_LIMIT: Duration = LOOK_UP_LIMIT;

    fn records(&self) -> &AtomicBool {
        &self.records
    }

    fn place(&self) -> &OnceLock<String> {
        &self.place
    }

    fn lookups(&self) -> Option<&Lookups> {
        // For several digests, a server without this pool's settings may read the whole table.
        Some(&self.lookups).filter(|_| !self.sets_each())
    }

    async fn read<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        // The permit comes first: a read that waits long for a connection would leave the server a
        // statement that runs for as long.
        let permit = self.share.permit(O::PURPOSE).await?;
        let limit = Limit::of(match O::PURPOSE {
            Purpose::LookUp => LOOK_UP_LIMIT,
            Purpose::Request | Purpose::Management => READ_LIMIT,
        });
        let attempts = async {
            if self.sets_each() && O::PURPOSE != Purpose::LookUp {
                return self.in_transaction(&operation, &READ, limit, &permit).await;
            }
            for _ in 0..self.attempts() {
                match self.read_once(&operation, limit, &permit).await {
                    Err(fault) if fault.is_lost_connection() => {}
                    done => return done,
                }
            }
            self.read_once(&operation, limit, &permit).await
        };
        limit.on(attempts).await
    }

    async fn read_snapshot<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let limit = Limit::of(READ_LIMIT);
        limit
            .on(self.in_transaction(&operation, &SNAPSHOT, limit, &Permit::none()))
            .await
    }

    async fn write<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let (limit, start) = (Limit::of(WRITE_LIMIT), Limit::of(START_LIMIT));
        let _turn = start.on(self.turns.wait(operation.lane())).await?;
        let attempts = async {
            let mut start = start;
            for attempt in 1..WRITE_ATTEMPTS {
                match self.write_once(&operation, limit, start).await {
                    Err(fault) if fault.is_conflict() => {
                        tokio::time::sleep(Duration::from_millis(5) * attempt * attempt).await;
                        start = Limit::of(START_LIMIT);
                    }
                    done => return done,
                }
            }
            self.write_once(&operation, limit, start).await
        };
        limit.on(attempts).await
    }

    async fn make_schema(&self) -> Result<(), Fault> {
        Box::pin(self.looked_after(self.change_schema())).await
    }

    fn listen(store: &PostgresStore) -> Option<Arc<dyn InvalidationBus>> {
        // Notifications do not arrive through a pooler, and listening needs a runtime.
        if store.0.is_pooled || Handle::try_current().is_err() {
            return None;
        }
        Some(Arc::new(store.bus()))
    }

    async fn make_indexes(&self) -> Result<(), Fault> {
        self.read(IsUsable).await?;
        if self.is_index_missing().await? {
            Box::pin(self.looked_after(self.make_indexes_in_turn())).await?;
        }
        Ok(())
    }
}

impl Postgres {
    /// After a server restart, every connection of the pool may be broken, each of which is noticed
    /// only when it is used.
    fn attempts(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// Runs a single statement on any connection, outside of a transaction. It is made once there
    /// is a connection.
    pub(crate) async fn notify(
        &self,
        limit: Limit,
        statement: impl FnOnce() -> String,
    ) -> Result<(), Fault> {
        let sent = async {
            let mut lease = Lease::of(&self.pool, &self.door, limit).await?;
            let sent = lease.execute(statement()).await;
            lease.ended(&sent);
            sent
        };
        limit.on(sent).await
    }

    /// Closes all connections, which lead to another server than the bus listens on.
    pub(crate) fn distrust(&self) {
        self.door.distrust();
    }

    /// Whether each transaction makes the settings that it needs, because no session keeps them.
    fn sets_each(&self) -> bool {
        self.is_pooled || self.namespace.is_some()
    }

    /// How statements are sent in a transaction.
    fn statements(&self) -> Statements {
        if self.sets_each() {
            Statements::Unnamed
        } else {
            Statements::Named
        }
    }

    /// Begins a transaction. Nothing has been executed in it yet, so that it may be retried on
    /// another connection.
    async fn begin(&self, begin: &Begin, limit: Limit) -> Result<Lease, Fault> {
        for _ in 0..self.attempts() {
            match self.begin_once(begin, limit).await {
                Err(fault) if fault.is_lost_connection() => {}
                begun => return begun,
            }
        }
        self.begin_once(begin, limit).await
    }

    async fn begin_once(&self, begin: &Begin, limit: Limit) -> Result<Lease, Fault> {
        let mut lease = Lease::of(&self.pool, &self.door, limit).await?;
        let statement = if self.sets_each() {
            begin.pooled
        } else {
            begin.direct
        };
        let path = self
            .namespace
            .iter()
            .map(|name| format!("; {}", name.set()));
        lease
            .begin(statement.to_owned() + &path.collect::<String>())
            .await?;
        Ok(lease)
    }

    /// Reads on a connection outside of a transaction.
    async fn read_once<O: Operation>(
        &self,
        operation: &O,
        limit: Limit,
        permit: &Permit,
    ) -> Result<O::Answer, Fault> {
        let mut lease = Lease::of(&self.pool, &self.door, limit).await?;
        lease.keep(permit);
        let statements = if self.sets_each() {
            Statements::Inline(self.namespace.clone())
        } else {
            Statements::Named
        };
        let done = operation.run(&mut lease.session(statements)?).await;
        lease.ended(&done);
        done
    }

    /// Reads in a transaction, which ends after the answer.
    async fn in_transaction<O: Operation>(
        &self,
        operation: &O,
        begin: &Begin,
        limit: Limit,
        permit: &Permit,
    ) -> Result<O::Answer, Fault> {
        let mut lease = self.begin(begin, limit).await?;
        lease.keep(permit);
        let done = operation.run(&mut lease.session(self.statements())?).await;
        lease.ended(&done);
        done
    }

    async fn write_once<O: Operation>(
        &self,
        operation: &O,
        limit: Limit,
        start: Limit,
    ) -> Result<O::Answer, Fault> {
        let mut lease = start.on(self.begin(&WRITE, limit)).await?;
        match operation.run(&mut lease.session(self.statements())?).await {
            Ok(answer) => {
                lease.commit().await?;
                Ok(answer)
            }
            Err(fault) => {
                lease.roll_back(&fault).await;
                Err(fault)
            }
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({} connections)", self.pool.size())
    }
}
