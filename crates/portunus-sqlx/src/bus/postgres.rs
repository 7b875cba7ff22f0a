//! A bus over `LISTEN` and `NOTIFY`.
//!
//! PostgreSQL delivers notifications in the order in which their transactions were committed. So a
//! heartbeat that comes back proves that whatever was acknowledged before it was sent has been
//! heard. Each carries a number that nobody can guess: one that somebody else says, before or
//! again, proves nothing and is passed over.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use portunus::store::{BusError, Invalidation, InvalidationBus, InvalidationListener};
use portunus::{Clock, SystemClock};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Task;
use super::listeners::Listeners;
use super::message::{self, CHANNEL, Message};
use crate::PostgresStore;
use crate::fault::Fault;
use crate::sql::NOTIFY;
use crate::store::{WRITE_LIMIT, limited};

/// How often a heartbeat is sent.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// After this many heartbeats that did not come back, connections are made anew.
const MOST_WAITING: usize = 4;
/// The longest that sending a heartbeat may take.
const SEND_LIMIT: Duration = Duration::from_secs(1);
/// The longest that connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before connecting again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Tells every node on a database which keys changed, by PostgreSQL's notifications. Cloning shares
/// it.
///
/// Every [`PostgresStore`] notifies in the transaction of the write itself: no write is
/// acknowledged, nor seen by anybody, of which the notification is not under way, and a write that
/// is rolled back tells nothing. So [`publish`](InvalidationBus::publish) is needed only by a host
/// that changes keys without this crate. Notifications hold ids of keys and 64-bit fingerprints,
/// never digests; anybody who may connect to the database can read them, and can make nodes forget
/// what they have cached, but not make them keep it.
///
/// A task of its own listens on one connection and sends a heartbeat every 250 milliseconds on
/// another; both are beside the store's pool. Where four heartbeats in a row do not come back, or a
/// connection fails, both are made anew, after 50 milliseconds at first and a second at most, and
/// listeners hear [`Invalidation::everything`]. A listener that is new hears that first, too.
///
/// The connections must lead to the primary server itself: through a pooler that gives each
/// transaction another connection (PgBouncer's `transaction` mode), no heartbeat comes back. Nodes
/// that run a version of this crate without a bus do not notify: update all of them before caches
/// rely on it.
///
/// The task ends when the bus and all its clones are dropped.
#[derive(Clone)]
pub struct PostgresBus {
    listeners: Arc<Listeners>,
    pool: PgPool,
    _task: Arc<Task>,
}

impl PostgresStore {
    /// Starts a bus on this database.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn bus(&self) -> PostgresBus {
        let listeners = Arc::<Listeners>::default();
        let options = (*self.pool().connect_options())
            .clone()
            .disable_statement_logging();
        let task = Arc::new(Task::spawn(run(options, Arc::clone(&listeners))));
        PostgresBus {
            listeners,
            pool: self.pool().clone(),
            _task: task,
        }
    }
}

#[async_trait]
impl InvalidationBus for PostgresBus {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.listeners.subscribe(listener);
    }

    /// Its store notifies in the transaction of each write.
    fn is_told_by_the_store(&self) -> bool {
        true
    }

    /// The listeners of this bus are told at once, those of others by a notification.
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        if what.is_empty() {
            return Ok(());
        }
        self.listeners.published(what);
        let notify = async {
            sqlx::query(NOTIFY)
                .bind(message::changed(what))
                .execute(&self.pool)
                .await?;
            Ok(())
        };
        limited(WRITE_LIMIT, notify)
            .await
            .map_err(|fault| BusError::unavailable(fault.into_source()))
    }
}

impl fmt::Debug for PostgresBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresBus({} listeners)", self.listeners.count())
    }
}

/// Listens, again and again.
async fn run(options: PgConnectOptions, listeners: Arc<Listeners>) {
    let (shortest, longest) = PAUSES;
    let mut pause = shortest;
    loop {
        let heartbeats = Heartbeats::new();
        // Why it ended changes nothing: nobody hears `heard_all` until it works again.
        let _ = listen(&options, &listeners, &heartbeats).await;
        pause = if heartbeats.came_back() {
            shortest
        } else {
            (pause * 2).min(longest)
        };
        sleep(pause).await;
    }
}

/// Listens until that fails.
async fn listen(
    options: &PgConnectOptions,
    listeners: &Listeners,
    heartbeats: &Heartbeats,
) -> Result<(), Fault> {
    let connect = async {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None);
        let mut listener =
            PgListener::connect_with(&pool.connect_with(options.clone()).await?).await?;
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>((listener, PgConnection::connect_with(options).await?))
    };
    let (listener, sender) = timeout(CONNECT_LIMIT, connect)
        .await
        .map_err(|_| lost())??;
    // From here on everything is heard; what was said before is not.
    listeners.invalidated(&Invalidation::everything());
    tokio::select! {
        ended = hear(listener, listeners, heartbeats) => ended,
        ended = send(sender, heartbeats) => ended,
    }
}

fn lost() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Hears until the connection is lost. One that is only silent is left to the system, which gives
/// it up in time.
async fn hear(
    mut listener: PgListener,
    listeners: &Listeners,
    heartbeats: &Heartbeats,
) -> Result<(), Fault> {
    while let Some(notification) = listener.try_recv().await? {
        match message::read(notification.payload()) {
            Message::Changed(what) => listeners.invalidated(&what),
            Message::Beat(node, mark) if node == heartbeats.node => {
                if let Some(sent) = heartbeats.back(mark) {
                    listeners.heard_all(heartbeats.now().saturating_sub(sent));
                }
            }
            Message::Beat(..) | Message::NoBeat => {}
        }
        // However much is said, heartbeats are sent beside it.
        tokio::task::consume_budget().await;
    }
    Err(lost().into())
}

/// Sends heartbeats until that fails, or they do not come back.
async fn send(mut sender: PgConnection, heartbeats: &Heartbeats) -> Result<(), Fault> {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Counted, and not measured: where this process was stopped, the server is not to blame.
        if heartbeats.waiting() >= MOST_WAITING {
            return Err(lost().into());
        }
        let payload = message::beat(heartbeats.node, heartbeats.next());
        let sent = timeout(
            SEND_LIMIT,
            sqlx::query(NOTIFY).bind(payload).execute(&mut sender),
        )
        .await;
        sent.map_err(|_| lost())??;
    }
}

/// The heartbeats on one pair of connections.
struct Heartbeats {
    /// Whose they are.
    node: u64,
    /// One that does not stand still while the machine sleeps.
    clock: SystemClock,
    beats: Mutex<Beats>,
}

struct Beats {
    /// Keyed by the system's randomness: what it makes of a count is known to nobody before it is
    /// sent.
    marks: RandomState,
    count: u64,
    /// Those that have not come back, and when each was sent.
    waiting: VecDeque<(u64, Duration)>,
    came_back: bool,
}

impl Heartbeats {
    fn new() -> Self {
        let beats = Beats {
            marks: RandomState::new(),
            count: 0,
            waiting: VecDeque::new(),
            came_back: false,
        };
        Self {
            node: RandomState::new().hash_one(std::process::id()),
            clock: SystemClock::default(),
            beats: Mutex::new(beats),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// A heartbeat that is sent now.
    fn next(&self) -> u64 {
        let mut beats = self.lock();
        beats.count += 1;
        let mark = beats.marks.hash_one(beats.count);
        beats.waiting.push_back((mark, self.now()));
        mark
    }

    /// One that comes back: when it was sent, if it was and has not come back before. With it,
    /// those before it are done.
    fn back(&self, mark: u64) -> Option<Duration> {
        let mut beats = self.lock();
        let place = beats
            .waiting
            .iter()
            .position(|(waiting, _)| *waiting == mark)?;
        beats.came_back = true;
        beats
            .waiting
            .drain(..=place)
            .next_back()
            .map(|(_, sent)| sent)
    }

    /// How many have not come back.
    fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether any came back.
    fn came_back(&self) -> bool {
        self.lock().came_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_counts_once_and_only_where_it_was_sent() {
        let (ours, theirs) = (Heartbeats::new(), Heartbeats::new());
        assert_ne!(ours.node, theirs.node);
        let (first, second) = (ours.next(), ours.next());
        let other = theirs.next();
        assert!(
            first != second && first != other,
            "nobody can tell the next one"
        );
        assert!(ours.back(other).is_none() && ours.back(0).is_none());
        let sent = ours.lock().waiting[1].1;
        assert_eq!(ours.back(second), Some(sent));
        assert!(
            ours.back(second).is_none() && ours.back(first).is_none(),
            "again, or late"
        );
    }
}
