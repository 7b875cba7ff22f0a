//! A bus over `LISTEN` and `NOTIFY`.
//!
//! PostgreSQL delivers notifications in the order in which their transactions were committed. A
//! heartbeat that comes back therefore proves that everything acknowledged before it was sent has
//! been received. Each carries an unpredictable number: one that another client sends, in advance
//! or again, proves nothing and is ignored.
//!
//! Heartbeats are sent on the connections of the store, in turn, so that they take the path of its
//! writes. After a failover, connections of the store, or the one that listens, may still lead to
//! the old server: heartbeats that are sent there do not come back, and the next one that comes back
//! tells. Then all connections are replaced.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use portunus::store::{BusError, Invalidation, InvalidationBus, InvalidationListener};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Task;
use super::heartbeats::{Back, Heartbeats};
use super::listeners::Listeners;
use super::message::{self, CHANNEL, Message};
use crate::fault::{Fault, OpenError};
use crate::lease::{self, CONNECT_LIMIT, Limit, UNLISTEN, lost};
use crate::operation::Operation;
use crate::sql::NOTIFY;
use crate::store::Database;
use crate::value::Session;
use crate::{PostgresStore, address};

/// How often a heartbeat is sent.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// After this many heartbeats that did not come back, the connection is replaced.
const MOST_WAITING: usize = 4;
/// The longest time that sending a heartbeat may take.
const SEND_LIMIT: Duration = Duration::from_secs(1);
/// After losing this many connections because no heartbeat came back, a bus is considered
/// unable to listen: a little more than two seconds. Heartbeats are counted, rather than timed, so
/// that a process that was suspended is not misjudged.
const MOST_DEAF: usize = 2;
/// The longest time that the check of a bus may take.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// The pauses before reconnecting: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Notifies every node on a database of changes to keys, by PostgreSQL's notifications. Clones
/// share the task.
///
/// Every [`PostgresStore`] notifies in the transaction of the write itself: no write is
/// acknowledged, or visible to others, before its notification is on its way, and a write that is
/// rolled back sends none. [`publish`](InvalidationBus::publish) is therefore needed only by a host
/// that changes keys without this crate. Notifications contain ids of keys and 64-bit fingerprints,
/// never digests. Any client that can connect to the database can read them, and can make nodes
/// discard cached entries, but not keep them.
///
/// A background task listens on a separate connection and sends a heartbeat every 250
/// milliseconds through the store's pool. If four heartbeats in a row do not come back, or the
/// connection fails, it is replaced, after 50 milliseconds at first and at most a second, and
/// listeners receive [`Invalidation::everything`]. A new listener receives that first, too.
///
/// If a heartbeat was lost and a later one came back, connections of the pool lead to another server
/// than this bus, as they may after a failover: they are all closed, those in use after their
/// operation. See [`PostgresStore`].
///
/// The listening connection must lead to the primary server itself: through a pooler that assigns a
/// different server connection to each transaction (PgBouncer's `transaction` mode), no heartbeat
/// comes back; see [`PostgresStore::bus_on`] and [`check`](Self::check). Nodes with a version of this
/// crate that has no bus do not notify: update all of them before caches rely on it.
///
/// The task ends when the bus and all its clones are dropped.
#[derive(Clone)]
pub struct PostgresBus {
    listeners: Arc<Listeners>,
    store: PostgresStore,
    hearing: watch::Receiver<Hearing>,
    _task: Arc<Task>,
}

/// Whether a bus receives its own heartbeats.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hearing {
    /// Connecting, or reconnecting.
    NotYet,
    /// Connecting failed.
    Cannot(String),
    /// No heartbeat comes back.
    Nothing,
    Does,
}

impl PostgresStore {
    /// Starts a bus on this database.
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn bus(&self) -> PostgresBus {
        self.start_bus(None)
    }

    /// Starts a bus that listens at its own address, for a store behind a pooler
    /// ([`behind_pooler`](Self::behind_pooler)): the address of the same database on the server
    /// itself.
    ///
    /// # Errors
    /// The address is invalid. Whether it is the right one is reported by [`PostgresBus::check`].
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    pub fn bus_on(&self, address: &str) -> Result<PostgresBus, OpenError> {
        let options = address::read(address)?;
        address::warn_of_clear_text(&options);
        Ok(self.start_bus(Some(options)))
    }

    fn start_bus(&self, on: Option<PgConnectOptions>) -> PostgresBus {
        let listeners = Arc::<Listeners>::default();
        let (told, hearing) = watch::channel(Hearing::NotYet);
        let on = on.unwrap_or_else(|| self.options());
        let path = Path {
            store: self.clone(),
            on: on.disable_statement_logging(),
        };
        let task = Task::spawn(run(path, Arc::clone(&listeners), told));
        PostgresBus {
            listeners,
            store: self.clone(),
            hearing,
            _task: Arc::new(task),
        }
    }
}

impl PostgresBus {
    /// Waits until this bus receives the heartbeats that it sends as its store writes, or eight
    /// heartbeats did not come back, which takes a little more than two seconds; ten seconds at
    /// most. Call it at startup: later, the cache itself notices that nothing is received.
    ///
    /// # Errors
    /// The cause if the bus cannot connect; otherwise an error that nothing is received: the
    /// address is that of a pooler, or of another database.
    pub async fn check(&self) -> Result<(), OpenError> {
        let mut hearing = self.hearing.clone();
        let is_known = |hearing: &Hearing| *hearing != Hearing::NotYet;
        let now = timeout(CHECK_LIMIT, hearing.wait_for(is_known)).await;
        let now = now.ok().and_then(|now| Some(now.ok()?.clone()));
        let cause = match now {
            Some(Hearing::Does) => return Ok(()),
            Some(Hearing::Cannot(cause)) => format!("the bus cannot connect: {cause}"),
            _ => "the bus received nothing that the store sent: it must listen on the same \
                  database, at the server's own address rather than a pooler's"
                .to_owned(),
        };
        Err(OpenError::Unavailable { cause })
    }
}

/// The way of messages: the store that sends them, and where the bus listens.
struct Path {
    store: PostgresStore,
    on: PgConnectOptions,
}

/// Notifies other nodes, in a transaction.
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

    /// The store notifies in the transaction of each write.
    fn store_publishes(&self) -> bool {
        true
    }

    /// Notifies the listeners of this bus at once, and those of others by a notification.
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

/// Listens, and reconnects after a failure.
async fn run(path: Path, listeners: Arc<Listeners>, hearing: watch::Sender<Hearing>) {
    let (shortest, longest) = PAUSES;
    let mut pause = shortest;
    let mut deaf = 0;
    loop {
        let heartbeats = Heartbeats::new();
        // No listener receives `caught_up` until the connection is restored.
        match listen(&path.on).await {
            Ok(Some(listener)) => {
                // From here on everything is received; what was sent before is not.
                listeners.invalidated(&Invalidation::everything());
                let ended = tokio::select! {
                    ended = receive(listener, &listeners, &heartbeats, &hearing) => ended,
                    () = send(&path.store, &heartbeats, &hearing) => Ended::Lost,
                };
                if ended == Ended::Elsewhere {
                    tracing::warn!("the store is connected to another server than its bus");
                    path.store.0.distrust();
                }
                deaf = if heartbeats.waiting() >= MOST_WAITING && !heartbeats.came_back() {
                    deaf + 1
                } else {
                    0
                };
                if deaf >= MOST_DEAF {
                    hearing.send_replace(Hearing::Nothing);
                } else if !matches!(*hearing.borrow(), Hearing::Cannot(_)) {
                    hearing.send_replace(Hearing::NotYet);
                }
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

/// A connection that listens. `None` if that would go through a pooler in transaction mode: an
/// arbitrary connection of the pooler would then listen, and its next client would receive
/// notifications that it did not request.
async fn listen(options: &PgConnectOptions) -> Result<Option<PgListener>, Fault> {
    // A pool would retry until its timeout, and then not report the cause.
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
    Ok(Some(listener))
}

/// Why a connection is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Lost,
    /// Connections of the store lead to another server.
    Elsewhere,
}

/// Forwards notifications until the connection is lost. A connection that is only silent is left to
/// the operating system, which closes it eventually.
async fn receive(
    mut listener: PgListener,
    listeners: &Listeners,
    heartbeats: &Heartbeats,
    hearing: &watch::Sender<Hearing>,
) -> Ended {
    while let Ok(Some(notification)) = listener.try_recv().await {
        match message::read(notification.payload()) {
            Message::Changed(what) => listeners.invalidated(&what),
            Message::Beat(node, mark) if node == heartbeats.node => match heartbeats.back(mark) {
                Some(Back::InOrder(sent)) => {
                    hearing.send_if_modified(|hearing| {
                        std::mem::replace(hearing, Hearing::Does) != Hearing::Does
                    });
                    listeners.caught_up(&heartbeats.clock, sent);
                }
                Some(Back::AfterALoss) => return Ended::Elsewhere,
                None => {}
            },
            Message::Beat(..) | Message::NoBeat => {}
        }
        // Heartbeats are sent even under a flood of notifications.
        tokio::task::consume_budget().await;
    }
    Ended::Lost
}

/// Sends heartbeats until too many do not come back.
async fn send(store: &PostgresStore, heartbeats: &Heartbeats, hearing: &watch::Sender<Hearing>) {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Counted, not timed: if this process was suspended, the server is not at fault.
        if heartbeats.waiting() >= MOST_WAITING {
            return;
        }
        let mut mark = None;
        let notify = || {
            let next = *mark.insert(heartbeats.next());
            // Hexadecimal digits only, and a single message: through a pooler, two may use two
            // connections.
            let beat = message::beat(heartbeats.node, next);
            format!("{UNLISTEN}NOTIFY {CHANNEL}, '{beat}'")
        };
        match store.0.notify(Limit::of(SEND_LIMIT), notify).await {
            Ok(()) => heartbeats.arrived(mark),
            Err(fault) => {
                hearing.send_replace(Hearing::Cannot(fault.causes()));
                // If the store has no connection now, it cannot write either, and nothing is wrong
                // with the connection that listens.
                if mark.is_some() {
                    return;
                }
            }
        }
    }
}
