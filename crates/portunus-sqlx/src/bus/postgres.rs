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
use portunus::Clock;
use portunus::clock::SystemClock;
use portunus::store::{BusError, Invalidation, InvalidationBus, InvalidationListener};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Task;
use super::listeners::Listeners;
use super::message::{self, CHANNEL, Message};
use crate::fault::{Fault, OpenError};
use crate::lease::{self, CONNECT_LIMIT, UNLISTEN, lost};
use crate::operation::Operation;
use crate::sql::NOTIFY;
use crate::store::Database;
use crate::value::Session;
use crate::{PostgresStore, address};

/// How often a heartbeat is sent.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// After this many heartbeats that did not come back, connections are made anew.
const MOST_WAITING: usize = 4;
/// The longest that sending a heartbeat may take.
const SEND_LIMIT: Duration = Duration::from_secs(1);
/// A bus that lost so many pairs of connections because no heartbeat came back hears nothing: two
/// seconds and a little. They are counted, so that a process that stands still for a while is not
/// taken for deaf.
const MOST_DEAF: usize = 2;
/// The longest that a bus may take until it is known whether it hears what it says.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
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
/// The connection that listens must lead to the primary server itself: through a pooler that gives
/// each transaction another connection (PgBouncer's `transaction` mode), no heartbeat comes back;
/// see [`PostgresStore::bus_on`] and [`check`](Self::check). Heartbeats are sent the way that writes
/// go, so that those that come back prove that writes are heard. Nodes
/// that run a version of this crate without a bus do not notify: update all of them before caches
/// rely on it.
///
/// The task ends when the bus and all its clones are dropped.
#[derive(Clone)]
pub struct PostgresBus {
    listeners: Arc<Listeners>,
    store: PostgresStore,
    hearing: watch::Receiver<Hearing>,
    _task: Arc<Task>,
}

/// Whether a bus hears what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hearing {
    /// It connects, or does so again.
    NotYet,
    /// It cannot connect.
    Cannot(String),
    /// No heartbeat comes back.
    Nothing,
    Does,
}

impl PostgresStore {
    /// Starts a bus on this database.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn bus(&self) -> PostgresBus {
        self.start_bus(None)
    }

    /// Starts a bus that listens at an address of its own, for a store behind a pooler
    /// ([`behind_pooler`](Self::behind_pooler)): that of the same database on the server itself.
    ///
    /// # Errors
    /// An address that cannot be read. Whether it is the right one [`PostgresBus::check`] says.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn bus_on(&self, address: &str) -> Result<PostgresBus, OpenError> {
        let options = address::read(address)?;
        address::warn_of_clear_text(&options);
        Ok(self.start_bus(Some(options)))
    }

    fn start_bus(&self, on: Option<PgConnectOptions>) -> PostgresBus {
        let listeners = Arc::<Listeners>::default();
        let (told, hearing) = watch::channel(Hearing::NotYet);
        let places = Places {
            speak: self.options().disable_statement_logging(),
            listen: on.map(ConnectOptions::disable_statement_logging),
        };
        let task = Task::spawn(run(places, Arc::clone(&listeners), told));
        PostgresBus {
            listeners,
            store: self.clone(),
            hearing,
            _task: Arc::new(task),
        }
    }
}

impl PostgresBus {
    /// Waits until this bus hears what its store writes, or eight heartbeats did not come back, which
    /// takes two seconds and a little; ten seconds at most. To be called at the start: later, the
    /// cache notices by itself when nothing is heard.
    ///
    /// # Errors
    /// The cause, where it cannot connect; else that nothing is heard: the address is that of a
    /// pooler, or of another database.
    pub async fn check(&self) -> Result<(), OpenError> {
        let mut hearing = self.hearing.clone();
        let is_known = |hearing: &Hearing| *hearing != Hearing::NotYet;
        let now = timeout(CHECK_LIMIT, hearing.wait_for(is_known)).await;
        let now = now.ok().and_then(|now| Some(now.ok()?.clone()));
        let cause = match now {
            Some(Hearing::Does) => return Ok(()),
            Some(Hearing::Cannot(cause)) => format!("the bus cannot connect: {cause}"),
            _ => "the bus heard nothing of what the store says: it must listen on the same \
                  database, at the server's own address and not at a pooler's"
                .to_owned(),
        };
        Err(OpenError::Unavailable { cause })
    }
}

/// Where a bus listens, if elsewhere than where it speaks, which is where its store writes.
struct Places {
    speak: PgConnectOptions,
    listen: Option<PgConnectOptions>,
}

/// Tells other nodes, in a transaction.
struct Publish(String);

#[async_trait]
impl Operation for Publish {
    type Answer = ();

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        session.rows(NOTIFY, vec![self.0.as_str().into()]).await?;
        Ok(())
    }
}

#[async_trait]
impl InvalidationBus for PostgresBus {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.listeners.subscribe(listener);
    }

    /// Its store notifies in the transaction of each write.
    fn store_publishes(&self) -> bool {
        true
    }

    /// The listeners of this bus are told at once, those of others by a notification.
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        if what.is_empty() {
            return Ok(());
        }
        self.listeners.published(what);
        let told = self.store.0.write(Publish(message::changed(what)));
        told.await
            .map_err(|fault| BusError::unavailable(fault.into_source()))
    }
}

impl fmt::Debug for PostgresBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresBus({} listeners)", self.listeners.count())
    }
}

/// Listens, again and again.
async fn run(places: Places, listeners: Arc<Listeners>, hearing: watch::Sender<Hearing>) {
    let (shortest, longest) = PAUSES;
    let mut pause = shortest;
    let mut deaf = 0;
    loop {
        let heartbeats = Heartbeats::new();
        // Nobody hears `caught_up` until it works again.
        match connect(&places).await {
            Ok(Some((listener, sender))) => {
                // From here on everything is heard; what was said before is not.
                listeners.invalidated(&Invalidation::everything());
                // Why it ends changes nothing.
                let _ = tokio::select! {
                    ended = hear(listener, &listeners, &heartbeats, &hearing) => ended,
                    ended = send(sender, &heartbeats) => ended,
                };
                deaf = if heartbeats.all_wait() { deaf + 1 } else { 0 };
                hearing.send_replace(if deaf >= MOST_DEAF {
                    Hearing::Nothing
                } else {
                    Hearing::NotYet
                });
            }
            Ok(None) => {
                hearing.send_replace(Hearing::Nothing);
            }
            Err(fault) => {
                hearing.send_replace(Hearing::Cannot(fault.causes()));
            }
        }
        pause = if heartbeats.came_back() {
            shortest
        } else {
            (pause * 2).min(longest)
        };
        sleep(pause).await;
    }
}

/// A connection that listens, and one to send on. `None` where listening would go through a pooler
/// in transaction mode: there it would be some connection of the pool that listens from then on, and
/// whoever is given that one next hears what it did not ask for.
async fn connect(places: &Places) -> Result<Option<(PgListener, PgConnection)>, Fault> {
    let sender = lease::connect(&places.speak).await?;
    let options = places.listen.as_ref().unwrap_or(&places.speak);
    // A pool would try again until its time is up, and then not say why.
    let connection = lease::connect(options).await?;
    if !lease::keeps_its_server(connection, options).await? {
        return Ok(None);
    }
    let listen = async {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None);
        let pool = pool.connect_with(options.clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let listener = timeout(CONNECT_LIMIT, listen).await.map_err(|_| lost())??;
    Ok(Some((listener, sender)))
}

/// Hears until the connection is lost. One that is only silent is left to the system, which gives
/// it up in time.
async fn hear(
    mut listener: PgListener,
    listeners: &Listeners,
    heartbeats: &Heartbeats,
    hearing: &watch::Sender<Hearing>,
) -> Result<(), Fault> {
    while let Some(notification) = listener.try_recv().await? {
        match message::read(notification.payload()) {
            Message::Changed(what) => listeners.invalidated(&what),
            Message::Beat(node, mark) if node == heartbeats.node => {
                if let Some(sent) = heartbeats.back(mark) {
                    hearing.send_if_modified(|hearing| {
                        std::mem::replace(hearing, Hearing::Does) != Hearing::Does
                    });
                    listeners.caught_up(heartbeats.now().saturating_sub(sent));
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
        // Of hexadecimal digits, and in one message: through a pooler, two may go to two connections.
        let beat = message::beat(heartbeats.node, heartbeats.next());
        let notify = AssertSqlSafe(format!("{UNLISTEN}NOTIFY {CHANNEL}, '{beat}'"));
        let sent = timeout(SEND_LIMIT, sqlx::raw_sql(notify).execute(&mut sender)).await;
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

    /// Whether as many wait as may, and none came back.
    fn all_wait(&self) -> bool {
        self.waiting() >= MOST_WAITING && !self.came_back()
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
