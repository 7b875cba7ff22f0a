//! Keys in PostgreSQL: writers of one tenant take turns, all others go on side by side.
//!
//! A write holds advisory locks on the keys and tenants that it is about (see
//! [`operation`](crate::operation)), and reads committed rows: each statement sees what was
//! committed before it, and nobody commits what it depends on.

mod schema;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portunus::store::InvalidationBus;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio::runtime::Handle;

use crate::address;
use crate::fault::{Fault, OpenError};
use crate::lease::{self, CONNECT_LIMIT, Door, Lease, Limit, Statements};
use crate::operation::Operation;
use crate::share::{Place, Purpose, Share};
use crate::store::{Database, READ_LIMIT, Store};
use crate::write_queue::WriteQueue;
use schema::IsUsable;

/// How many connections a pool has that is made here.
const CONNECTIONS: u32 = 10;
/// The longest that a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a request waits for the look-up of its key.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(3);
/// The longest that a write may take with all of its statements, each of which has a limit, too.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// The longest until it begins: the waits for its turn and for a connection.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The longest that closing waits for what is going on.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How often a transaction is tried that the database gives up for the sake of others.
const WRITE_ATTEMPTS: u32 = 5;

/// What a connection is told first. The server keeps these limits also where the client is gone.
///
/// Every statement here is about few rows, which one index has in the order that is asked for (see
/// the module `sql::plans`), whatever the values are. By its statistics the server may prefer to read
/// a table from end to end where a page is a good part of it, or an index that only has the order
/// where its rows lie closer together: then a page looks at more rows than it may, and at millions
/// where what it asks for is rare. Where pages of the disk cost nothing, the fewest rows are cheapest.
pub(crate) const SET_FIRST: &str = "SELECT set_config('statement_timeout', '10s', false), \
     set_config('lock_timeout', '8s', false), \
     set_config('idle_in_transaction_session_timeout', '30s', false), \
     set_config('enable_seqscan', 'off', false), \
     set_config('enable_bitmapscan', 'off', false), \
     set_config('enable_hashjoin', 'off', false), \
     set_config('enable_mergejoin', 'off', false), \
     set_config('seq_page_cost', '0', false), \
     set_config('random_page_cost', '0', false), \
     set_config('plan_cache_mode', 'force_generic_plan', false)";

/// Begins a transaction; behind a pooler with what a connection is told otherwise, which holds for it
/// alone.
struct Begin {
    direct: &'static str,
    pooled: &'static str,
}

macro_rules! begin {
    ($mode:literal, $then:literal) => {
        Begin {
            direct: concat!("BEGIN ISOLATION LEVEL ", $mode, $then),
            pooled: concat!(
                "BEGIN ISOLATION LEVEL ",
                $mode,
                "; UNLISTEN *; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '8s'; \
                 SET LOCAL idle_in_transaction_session_timeout = '30s'; \
                 SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
                 SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
                 SET LOCAL seq_page_cost = 0; SET LOCAL random_page_cost = 0; \
                 SET LOCAL plan_cache_mode = force_generic_plan",
                $then
            ),
        }
    };
}

/// A database that acknowledges before it has written is told otherwise; a stricter setting stays.
const WRITE: Begin = begin!(
    "READ COMMITTED READ WRITE",
    "; SELECT set_config('synchronous_commit', 'on', true) \
     WHERE current_setting('synchronous_commit') = 'off'"
);
const READ: Begin = begin!("READ COMMITTED READ ONLY", "");
const SNAPSHOT: Begin = begin!("REPEATABLE READ READ ONLY", "");

/// A [`KeyStore`](portunus::store::KeyStore) in a PostgreSQL database with the encoding UTF-8.
/// Cloning shares the connections.
///
/// It must be pointed to the primary server, also for look-ups: a replica may not yet know of a
/// revocation.
pub type PostgresStore = Store<Postgres>;

/// The connections to a PostgreSQL database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    turns: WriteQueue,
    share: Share,
    door: Door,
    /// Whether each transaction may have another connection of the server.
    is_pooled: bool,
}

impl PostgresStore {
    /// Connects to the database at an address such as `postgres://user@host/database`, with
    /// [`pool_options`](Self::pool_options), and makes its schema or brings it up to date
    /// ([`migrate`](Self::migrate)).
    ///
    /// Where the server cannot be reached, that is said at once, or after 5 seconds where it is
    /// silent. Where a role may not change tables, let one that may call this once.
    ///
    /// # Errors
    /// An address that cannot be read, a server that does not answer or is a replica, a pooler in
    /// transaction mode, a schema that this version must not use or cannot make, or a table that the
    /// role may not read.
    pub async fn connect(address: &str) -> Result<Self, OpenError> {
        Self::connect_with(address::read(address)?).await
    }

    /// Connects with connection options of the host's own, and
    /// [`pool_options`](Self::pool_options); then as [`connect`](Self::connect).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(options: PgConnectOptions) -> Result<Self, OpenError> {
        // Boxed: nobody's future is as large as all that is done once.
        Box::pin(async move {
            // A pool would try again until its time is up, and then not say why.
            let connection = lease::connect(&options).await?;
            if !lease::keeps_its_server(connection, &options).await? {
                let cause = "two transactions of one connection had two of the server".into();
                return Err(OpenError::Pooler { cause });
            }
            let store = Self::new(Self::pool_options().connect_lazy_with(options));
            store.migrate().await?;
            Ok(store)
        })
        .await
    }

    /// Connects to a database behind a pooler that gives each transaction another connection of the
    /// server, such as PgBouncer in its transaction mode; otherwise as [`connect`](Self::connect).
    ///
    /// Nothing is set on a connection that lasts longer than a transaction, no statement has a
    /// name, and no parameter is sent at the start that PgBouncer refuses. A look-up is one message
    /// there and back; whatever else is a transaction of its own. A bus cannot hear through such a
    /// pooler: see [`bus_on`](Self::bus_on).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn behind_pooler(address: &str) -> Result<Self, OpenError> {
        Self::behind_pooler_with(address::read(address)?).await
    }

    /// Connects with connection options of the host's own; then as
    /// [`behind_pooler`](Self::behind_pooler).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn behind_pooler_with(options: PgConnectOptions) -> Result<Self, OpenError> {
        Box::pin(async move {
            let options = options.extra_float_digits(None);
            let connection = lease::connect(&options).await?;
            let close = async { Ok(connection.close().await?) };
            Limit::of(CONNECT_LIMIT).on(close).await?;
            let mut store = Self::new(Self::plain_pool_options().connect_lazy_with(options));
            store.0.is_pooled = true;
            store.migrate().await?;
            Ok(store)
        })
        .await
    }

    /// How [`connect`](Self::connect) makes its pool: 10 connections, 5 seconds to get one; on
    /// each, statements end after 10 seconds, waits for locks after 8, and transactions that their
    /// client forgot after 30. A connection that was idle for a second is tried before it is used,
    /// for a second at most; a busier one is trusted.
    ///
    /// Tables are read by their indexes and by plans for any values: `enable_seqscan` and others are
    /// off, pages of the disk cost nothing, and `plan_cache_mode`, which PostgreSQL has since version
    /// 12, is set. That suits the statements of this store alone: give such a pool no others.
    #[must_use]
    pub fn pool_options() -> PgPoolOptions {
        Self::plain_pool_options().after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::query(SET_FIRST).execute(connection).await?;
                Ok(())
            })
        })
    }

    fn plain_pool_options() -> PgPoolOptions {
        lease::asking_first(PgPoolOptions::new())
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
    }

    /// A store on a pool of the host's own, which decides about limits of time on the server. Half
    /// of its connections at most write at once, and a quarter at most read lists, usage and
    /// events, so that look-ups find one. Call [`migrate`](Self::migrate) before anything else.
    ///
    /// Here a look-up takes 3 seconds at most, and another read 10, after it waited 5 at most for
    /// others that read lists, usage and events. A write begins within 10 seconds, with the wait
    /// for its turn, each of its statements takes 10 at most, and all of it 30. A connection whose
    /// operation took longer is closed. Warns, by `tracing`, where digests of keys may go beyond
    /// this machine in clear text.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        address::warn_of_clear_text(&pool.connect_options());
        let connections = pool.options().get_max_connections();
        Self(Postgres {
            pool,
            turns: WriteQueue::new(usize::try_from(connections / 2).unwrap_or(1)),
            share: Share::new(connections / 4),
            door: Door::default(),
            is_pooled: false,
        })
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        (*self.0.pool.connect_options()).clone()
    }

    /// Closes all connections, after what is going on has ended, for which it waits 10 seconds at
    /// most. What is asked afterwards gets no answer.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.0.pool.close()).await;
    }
}

impl Database for Postgres {
    async fn read<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        // First: who waited long for it would leave the server a statement that goes on for as long.
        let place = self.share.place(O::PURPOSE).await?;
        let limit = Limit::of(match O::PURPOSE {
            Purpose::LookUp => LOOK_UP_LIMIT,
            Purpose::Request | Purpose::Management => READ_LIMIT,
        });
        let attempts = async {
            if self.is_pooled && O::PURPOSE != Purpose::LookUp {
                return self.in_transaction(&operation, &READ, limit, &place).await;
            }
            for _ in 0..self.attempts() {
                match self.read_once(&operation, limit, &place).await {
                    Err(fault) if fault.is_lost_connection() => {}
                    done => return done,
                }
            }
            self.read_once(&operation, limit, &place).await
        };
        limit.on(attempts).await
    }

    async fn read_snapshot<O: Operation>(&self, operation: O) -> Result<O::Answer, Fault> {
        let limit = Limit::of(READ_LIMIT);
        limit
            .on(self.in_transaction(&operation, &SNAPSHOT, limit, &Place::none()))
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
        // Nothing is heard through a pooler, and whoever listens needs a runtime.
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
    /// After a restart of the server every connection of the pool may be lost, which each tells
    /// when it is used.
    fn attempts(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// How statements are sent in a transaction.
    fn statements(&self) -> Statements {
        if self.is_pooled {
            Statements::Unnamed
        } else {
            Statements::Named
        }
    }

    /// Begins a transaction. Nothing has happened in it yet, so that another connection may be
    /// taken.
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
        let statement = if self.is_pooled {
            begin.pooled
        } else {
            begin.direct
        };
        lease.begin(statement).await?;
        Ok(lease)
    }

    /// Reads on a connection outside of any transaction.
    async fn read_once<O: Operation>(
        &self,
        operation: &O,
        limit: Limit,
        place: &Place,
    ) -> Result<O::Answer, Fault> {
        let mut lease = Lease::of(&self.pool, &self.door, limit).await?;
        lease.keep(place);
        let statements = if self.is_pooled {
            Statements::Inline
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
        place: &Place,
    ) -> Result<O::Answer, Fault> {
        let mut lease = self.begin(begin, limit).await?;
        lease.keep(place);
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
