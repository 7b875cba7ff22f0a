//! A bus for the processes that use one SQLite file: each polls for writes of the others.
//!
//! SQLite reports cheaply whether the file changed (`PRAGMA data_version`). If it did, a counter
//! shows whether keys changed: every write of keys by a [`SqliteStore`] raises it in its
//! transaction; usage and events do not. The file records the last thousand changes, each under its
//! number, so that a reader detects a missing one: because there were more, or because an older
//! version of this crate counted a change without recording it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use portunus::Clock;
use portunus::clock::SystemClock;
use portunus::store::{BusError, Invalidation, InvalidationBus, InvalidationListener};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Task;
use super::listeners::Listeners;
use crate::SqliteStore;
use crate::bus::message::{self, Message};
use crate::operation::Publish;
use crate::sql::{CHANGES, DATA_VERSION, RECENT_CHANGES, REMEMBERED_CHANGES};
use crate::store::Database;

/// How often the file is polled.
const EVERY: Duration = Duration::from_millis(50);
/// The time limit of a poll, beyond which it proves nothing.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// How long a poll waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(200);

/// Notifies the processes of one machine, and the stores of one process, of changes to keys in
/// their SQLite file. Clones share the task.
///
/// A background task polls the file every 50 milliseconds, on its own connection. If any store on
/// the file has changed keys, listeners receive which; writes of usage and events are ignored. They
/// receive [`Invalidation::everything`] if more than 1024 writes happened since the last poll, if
/// one write changed more keys than the file records for it (some hundred), and if a version of
/// this crate wrote that records nothing. Each successful poll is a
/// [`caught_up`](InvalidationListener::caught_up) as of the time when it began. A poll that fails
/// or takes longer than a second is not; the connection is then replaced, and listeners receive
/// `everything` before the next `caught_up`. What this process
/// [publishes](InvalidationBus::publish) reaches its own listeners at once. A new listener receives
/// `everything` first.
///
/// The file must not be replaced while it is open, and [`SqliteStore::migrate`] must have been
/// called.
///
/// The task ends when the watch and all its clones are dropped.
#[derive(Clone)]
pub struct SqliteWatch {
    listeners: Arc<Listeners>,
    store: SqliteStore,
    _task: Arc<Task>,
}

impl SqliteStore {
    /// Starts to watch the file of this store, polling every 50 milliseconds.
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn watch(&self) -> SqliteWatch {
        self.watch_every(EVERY)
    }

    /// Starts to watch the file of this store, polling at an interval of at least a millisecond.
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn watch_every(&self, every: Duration) -> SqliteWatch {
        let listeners = Arc::<Listeners>::default();
        let options = self
            .connect_options()
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT);
        let every = every.max(Duration::from_millis(1));
        let task = Task::spawn(run(
            options.disable_statement_logging(),
            every,
            Arc::clone(&listeners),
        ));
        SqliteWatch {
            listeners,
            store: self.clone(),
            _task: Arc::new(task),
        }
    }
}

#[async_trait]
impl InvalidationBus for SqliteWatch {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.listeners.subscribe(listener);
    }

    /// Notifies the listeners of this watch. Tenants are also recorded in the file for other
    /// processes; the store has recorded keys in the transaction of the write.
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        if what.is_empty() {
            return Ok(());
        }
        self.listeners.published(what);
        if what.tenants.is_empty() {
            return Ok(());
        }
        let mut tenants = Invalidation::default();
        tenants.tenants.clone_from(&what.tenants);
        let told = self.store.0.write(Publish(tenants)).await;
        told.map_err(|fault| BusError::unavailable(fault.into_source()))
    }
}

impl fmt::Debug for SqliteWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteWatch({} listeners)", self.listeners.count())
    }
}

/// A connection and the state that was last seen on it.
struct View {
    connection: SqliteConnection,
    /// Only comparable with values from the same connection.
    version: i64,
    counter: i64,
}

async fn run(options: SqliteConnectOptions, every: Duration, listeners: Arc<Listeners>) {
    let mut view = None;
    // This clock does not stop while the machine sleeps.
    let clock = SystemClock::default();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = clock.monotonic();
        // A connection that failed is not used again.
        if let Ok(Ok((seen, changed))) = timeout(LOOK_LIMIT, look(view.take(), &options)).await {
            if !changed.is_empty() {
                listeners.invalidated(&changed);
            }
            listeners.caught_up(&clock, began);
            view = Some(seen);
        }
    }
}

/// Polls once; returns what changed, or may have.
async fn look(
    view: Option<View>,
    options: &SqliteConnectOptions,
) -> Result<(View, Invalidation), sqlx::Error> {
    let (mut connection, before) = match view {
        Some(View {
            connection,
            version,
            counter,
        }) => (connection, Some((version, counter))),
        None => (SqliteConnection::connect_with(options).await?, None),
    };
    // The version first: a write between the two queries shows in the counter now, and in the
    // version at the next poll.
    let version = sqlx::query_scalar(DATA_VERSION)
        .fetch_one(&mut connection)
        .await?;
    let counter = match before {
        Some((seen, counter)) if seen == version => counter,
        _ => {
            sqlx::query_scalar(CHANGES)
                .fetch_one(&mut connection)
                .await?
        }
    };
    let changed = match before {
        Some((_, seen)) => missed(&mut connection, seen, counter).await?,
        None => Invalidation::everything(),
    };
    let view = View {
        connection,
        version,
        counter,
    };
    Ok((view, changed))
}

/// What changed between two values of the counter, or everything if a change is not recorded, also
/// because its slot was reused meanwhile.
async fn missed(
    connection: &mut SqliteConnection,
    seen: i64,
    counter: i64,
) -> Result<Invalidation, sqlx::Error> {
    let mut all = Invalidation::default();
    if seen == counter {
        return Ok(all);
    }
    let changes = counter.saturating_sub(seen);
    if !(1..=REMEMBERED_CHANGES).contains(&changes) {
        return Ok(Invalidation::everything());
    }
    let remembered: Vec<String> = sqlx::query_scalar(RECENT_CHANGES)
        .bind(seen)
        .bind(counter)
        .fetch_all(connection)
        .await?;
    if i64::try_from(remembered.len()) != Ok(changes) {
        return Ok(Invalidation::everything());
    }
    for change in remembered {
        match message::read(&change) {
            Message::Changed(what) if !what.everything => {
                all.keys.extend(what.keys);
                all.known.extend(what.known);
                all.tenants.extend(what.tenants);
            }
            _ => return Ok(Invalidation::everything()),
        }
    }
    Ok(all)
}
