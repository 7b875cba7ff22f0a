//! A bus on the server's publish and subscribe.
//!
//! All nodes publish on one server: in a cluster on the one that has the slot of the bus's key. They
//! publish by a script that also writes this key. So a server that may no longer be written, because
//! it was demoted or because it is cut off from the others, refuses to publish.
//!
//! A server delivers messages in the order in which they were published, in a cluster also those
//! that it passes on. A heartbeat that comes back therefore proves that everything that was
//! published on this server before it was sent has been received.

mod heartbeats;
mod listeners;
mod message;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use portunus::store::{BusError, Invalidation, InvalidationBus, InvalidationListener};
use redis::aio::PubSub;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::RedisError;
use crate::address::Place;
use crate::client::Client;
use crate::script::{Call, Script};
use crate::server::explained;
use crate::task::Task;
use heartbeats::Heartbeats;
use listeners::Listeners;
use message::Message;

/// How often a heartbeat is sent.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// After this many heartbeats that did not come back, the subscription is replaced.
const MOST_AWAITED: usize = 4;
/// The time limit for publishing a change, and for subscribing.
const LIMIT: Duration = Duration::from_secs(1);
/// How long the check waits.
const CHECK_LIMIT: Duration = Duration::from_secs(4);
/// The pauses before subscribing again: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Writes the key, which only a server that may be written does, and publishes.
const PUBLISH: &str = "redis.call('SET', KEYS[1], '1', 'PX', 60000)\n\
                       return redis.call('PUBLISH', ARGV[2], ARGV[3])";

/// An [`InvalidationBus`] on the publish and subscribe of Redis or Valkey. Clones share the task.
///
/// A change is published after the write of the store, so a node that is killed in between tells
/// nobody. Caches therefore use an answer for at most their staleness bound
/// ([`Cache::staleness`](portunus::store::Cache::staleness), 2 seconds by default), unless the store
/// records what it has to publish, as `portunus-sqlx` does.
///
/// A task subscribes on a separate connection and publishes a heartbeat every 250 milliseconds.
/// If four of them do not come back, or the server moved, it subscribes anew, and listeners receive
/// [`Invalidation::everything`]. So does a new listener. Messages contain ids of keys and of tenants
/// and 64-bit fingerprints, never digests. A client that may publish on the channel can make nodes discard
/// cached answers, but not keep them.
///
/// The task ends when the bus and all its clones are dropped.
#[derive(Clone)]
pub struct RedisBus {
    shared: Arc<Shared>,
    hears: watch::Receiver<Hears>,
    _task: Arc<Task>,
}

struct Shared {
    client: Client,
    listeners: Listeners,
    publish: Script,
    key: Vec<u8>,
    channel: String,
}

/// Whether the bus receives its own heartbeats.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hears {
    NotYet,
    Yes,
    No(RedisError),
}

impl RedisBus {
    pub(crate) fn new(client: Client) -> Self {
        let shared = Arc::new(Shared {
            key: format!("{}:{{bus}}", client.prefix).into_bytes(),
            channel: format!("{}:changes", client.prefix),
            client,
            listeners: Listeners::default(),
            publish: Script::new(PUBLISH),
        });
        let (told, hears) = watch::channel(Hears::NotYet);
        let task = Task::spawn(run(Arc::clone(&shared), told));
        Self {
            shared,
            hears,
            _task: Arc::new(task),
        }
    }

    /// Waits until the bus receives one of its heartbeats: ten seconds at most, with a deadline of up
    /// to three. Call it at start; later, the caches notice when nothing is received.
    ///
    /// # Errors
    /// Returns why nothing is received: no server answers, a server is of another kind, too old or
    /// a replica, a cluster is down, or a permission is missing.
    pub async fn check(&self) -> Result<(), RedisError> {
        let Shared {
            key,
            channel,
            client,
            ..
        } = &*self.shared;
        let mut set = redis::cmd("SET");
        set.arg(key).arg("1").arg("PX").arg(60_000);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(message::beat(0));
        client.check(&[set, publish]).await?;
        let mut hears = self.hears.clone();
        let is_known = |hears: &Hears| *hears != Hears::NotYet;
        let known = timeout(CHECK_LIMIT.max(client.deadline), hears.wait_for(is_known)).await;
        match known.ok().and_then(|known| Some(known.ok()?.clone())) {
            Some(Hears::Yes) => Ok(()),
            Some(Hears::No(error)) => Err(error),
            _ => Err(RedisError::Unavailable(
                "the bus received nothing that it sent".to_owned(),
            )),
        }
    }
}

#[async_trait]
impl InvalidationBus for RedisBus {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.shared.listeners.add(listener);
    }

    /// Tells the listeners of this bus at once, and those of other nodes by a message.
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        if what.is_empty() {
            return Ok(());
        }
        self.shared.listeners.published(what);
        let sent = self.shared.send(message::change(what), LIMIT).await;
        sent.map_err(BusError::unavailable)
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (channel, count) = (&self.shared.channel, self.shared.listeners.count());
        write!(f, "RedisBus({channel}, {count} listeners)")
    }
}

/// Subscribes, and subscribes again.
async fn run(shared: Arc<Shared>, hears: watch::Sender<Hears>) {
    let mut pause = PAUSES.0;
    loop {
        let heartbeats = Heartbeats::new();
        let mut came_back = false;
        let error = match shared.subscribed().await {
            Ok((place, messages)) => {
                // From here on everything is received; what was published before is not.
                shared.listeners.changed(&Invalidation::everything());
                let heard = || {
                    came_back = true;
                    hears.send_if_modified(|hears| {
                        std::mem::replace(hears, Hears::Yes) != Hears::Yes
                    });
                };
                tokio::select! {
                    error = shared.receive(messages, &heartbeats, heard) => error,
                    error = shared.beat(&place, &heartbeats) => error,
                }
            }
            Err(error) => error,
        };
        hears.send_replace(Hears::No(error));
        pause = if came_back {
            PAUSES.0
        } else {
            (pause * 2).min(PAUSES.1)
        };
        sleep(pause).await;
    }
}

impl Shared {
    /// Publishes a message.
    async fn send(&self, text: String, limit: Duration) -> Result<(), RedisError> {
        let until = Instant::now() + limit;
        let call = Call {
            script: &self.publish,
            keys: &[&self.key],
            asked: &[],
            args: &[self.channel.as_bytes(), text.as_bytes()],
            until,
        };
        self.client.run(until, call).await.map(|_| ())
    }

    /// Subscribes on the server on which is published.
    async fn subscribed(&self) -> Result<(Place, PubSub), RedisError> {
        let subscribe = async {
            let node = self.client.node_of(&self.key).await?;
            let failed = |error| explained(&error, &node.place);
            let client = redis::Client::open(node.info.clone()).map_err(failed)?;
            let mut messages = client.get_async_pubsub().await.map_err(failed)?;
            messages.subscribe(&self.channel).await.map_err(failed)?;
            Ok((node.place.clone(), messages))
        };
        let late = |_| RedisError::Unavailable("no subscription within a second".to_owned());
        timeout(LIMIT, subscribe).await.map_err(late)?
    }

    /// Tells the listeners what comes, until nothing can come.
    async fn receive(
        &self,
        mut messages: PubSub,
        heartbeats: &Heartbeats,
        mut heard: impl FnMut(),
    ) -> RedisError {
        let mut messages = messages.on_message();
        while let Some(message) = messages.next().await {
            match message::read(message.get_payload_bytes()) {
                Message::Changed(what) => self.listeners.changed(&what),
                Message::Beat(mark) => {
                    if let Some(sent) = heartbeats.came_back(mark) {
                        heard();
                        self.listeners.caught_up(sent);
                    }
                }
            }
            // Heartbeats are sent even under a flood of messages.
            tokio::task::consume_budget().await;
        }
        RedisError::Unavailable("the subscription was closed".to_owned())
    }

    /// Sends heartbeats until too many do not come back, or another server has the key.
    async fn beat(&self, place: &Place, heartbeats: &Heartbeats) -> RedisError {
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut error = RedisError::Unavailable("no heartbeat came back".to_owned());
        loop {
            ticks.tick().await;
            // They are counted, not timed: a process that was suspended may have lost nothing.
            if heartbeats.awaited() >= MOST_AWAITED {
                return error;
            }
            let text = message::beat(heartbeats.next());
            if let Err(of_this) = self.send(text, BEAT_EVERY).await {
                error = of_this;
            }
            match self.client.node_of(&self.key).await {
                Ok(node) if node.place == *place => {}
                Ok(_) => return RedisError::Unavailable(format!("{place} was replaced")),
                Err(error) => return error,
            }
        }
    }
}
