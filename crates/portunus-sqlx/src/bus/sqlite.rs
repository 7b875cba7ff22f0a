//! A bus for the processes that use one SQLite file: each looks whether another one has written.
//!
//! SQLite tells cheaply whether the file changed (`PRAGMA data_version`). Where it did, a counter
//! tells whether keys did, which every write of a [`SqliteStore`] raises in its transaction; usage
//! and events do not. The file remembers what the last thousand changes were, each under its number,
//! so that a reader knows whether one is missing: because there were more, or because a version of
//! this crate counted it that remembers none.

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
use crate::sql::{CHANGES, DATA_VERSION, RECENT_CHANGES, REMEMBERED_CHANGES};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(50);
/// A look that takes longer says nothing.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// How long a look waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(200);

/// Tells the processes of one machine, and the stores of one process, that keys in their SQLite
/// file changed. Cloning shares it.
///
/// A task of its own looks at the file every 50 milliseconds, on a connection of its own. Where any
/// store on the file has changed keys, listeners hear which; writes of usage and events are passed
/// over. They hear [`Invalidation::everything`] where more than 1024 writes happened since the look
/// before, where one changed more keys than the file remembers of it (some hundred), and where a
/// version of this crate wrote that remembers nothing. Each look that succeeds is a
/// [`caught_up`](InvalidationListener::caught_up) of the time when it began; one that fails or
/// takes longer than a second is none, the connection is made anew, and listeners hear `everything`
/// before the next `caught_up`. What this process [publishes](InvalidationBus::publish) its
/// listeners hear at once. A listener that is new hears `everything` first.
///
/// The file must not be replaced by another one while it is open, and [`SqliteStore::migrate`] must
/// have been called.
///
/// The task ends when the watch and all its clones are dropped.
#[derive(Clone)]
pub struct SqliteWatch {
    listeners: Arc<Listeners>,
    _task: Arc<Task>,
}

impl SqliteStore {
    /// Starts to watch the file of this store, every 50 milliseconds.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn watch(&self) -> SqliteWatch {
        self.watch_every(EVERY)
    }

    /// Starts to watch the file of this store at intervals of at least a millisecond.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
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
            _task: Arc::new(task),
        }
    }
}

#[async_trait]
impl InvalidationBus for SqliteWatch {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.listeners.subscribe(listener);
    }

    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        if !what.is_empty() {
            self.listeners.published(what);
        }
        Ok(())
    }
}

impl fmt::Debug for SqliteWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteWatch({} listeners)", self.listeners.count())
    }
}

/// A connection, and what was seen on it.
struct View {
    connection: SqliteConnection,
    /// Means something only on its own connection.
    version: i64,
    counter: i64,
}

async fn run(options: SqliteConnectOptions, every: Duration, listeners: Arc<Listeners>) {
    let mut view = None;
    // One that does not stand still while the machine sleeps.
    let clock = SystemClock::default();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = clock.monotonic();
        // One that failed is not used again.
        if let Ok(Ok((seen, changed))) = timeout(LOOK_LIMIT, look(view.take(), &options)).await {
            if !changed.is_empty() {
                listeners.invalidated(&changed);
            }
            listeners.caught_up(clock.monotonic().saturating_sub(began));
            view = Some(seen);
        }
    }
}

/// Looks once; says what changed, or may have.
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
    // The version first: what is written between the two is seen in the counter now, and in the
    // version the next time.
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

/// What changed between two values of the counter. Where a change is not remembered, also because
/// others have taken its slot meanwhile, that is everything.
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
            }
            _ => return Ok(Invalidation::everything()),
        }
    }
    Ok(all)
}
