//! One server: the connection to it, which a separate task makes and replaces, so that no request
//! waits for a connection.
//!
//! A connection is used only once the server has told the time on it within the deadline of
//! requests. It is asked again every second and when a request got no answer; without an answer, the
//! connection is given up. So it is if too many requests get no answer ([`Breaker`]), or if the
//! server turns out to be a replica. Until there is another connection, requests are told at once
//! that there is no answer.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::RedisError;
use crate::address::Place;
use crate::breaker::Breaker;
use crate::server::{self, Role, explained};
use crate::task::Task;

/// The time limit for connecting, with TLS and authentication, unless the deadline is longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// The pauses before connecting again: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often the server is asked for the time.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a connection is in use before the next pause is the first one again.
const STABLE: Duration = Duration::from_secs(2);
/// The number of requests that wait to be written, beyond which senders wait.
const BUFFERED: usize = 1024;

/// How to connect to a server.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) place: Place,
    pub(crate) info: ConnectionInfo,
    pub(crate) role: Role,
    /// The time within which a request must be answered.
    pub(crate) deadline: Duration,
}

/// A server, and the task that connects to it.
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) info: ConnectionInfo,
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
    _task: Task,
}

#[derive(Debug)]
struct Shared {
    /// A request got no answer.
    suspect: Notify,
    /// The connection must be replaced, and why.
    rebuild: Notify,
    why: Mutex<Option<RedisError>>,
    /// The number of the connection in use. Requests on earlier ones are not counted.
    generation: AtomicU64,
    breaker: Breaker,
    start: Instant,
    /// The server's time at `start`, at the earliest, in microseconds; 0 until it is known.
    clock: AtomicI64,
}

/// Whether there is a connection to a server.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// The first connection is being made.
    Starting,
    Up(Link),
    Down(RedisError),
}

/// A connection to a server.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    generation: u64,
    /// The server's eviction policy, if it may evict live limits.
    pub(crate) evicting: Option<String>,
}

/// Shows no credentials.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.place)
    }
}

impl Node {
    /// Starts connecting.
    pub(crate) fn start(connector: Connector) -> Self {
        let shared = Arc::new(Shared {
            suspect: Notify::new(),
            rebuild: Notify::new(),
            why: Mutex::new(None),
            generation: AtomicU64::new(0),
            breaker: Breaker::new(),
            start: Instant::now(),
            clock: AtomicI64::new(0),
        });
        let (told, state) = watch::channel(State::Starting);
        let (place, info) = (connector.place.clone(), connector.info.clone());
        Self {
            place,
            info,
            state,
            _task: Task::spawn(run(connector, Arc::clone(&shared), told)),
            shared,
        }
    }

    /// Returns the connection, or why there is none. Waits only for the first one, and its caller
    /// has a deadline.
    pub(crate) async fn link(&self) -> Result<Link, RedisError> {
        match self.settled().await {
            State::Up(link) => Ok(link),
            State::Down(error) => Err(error),
            State::Starting => Err(RedisError::Unavailable(format!(
                "{} does not answer",
                self.place
            ))),
        }
    }

    /// Returns the state once the first attempt to connect has ended.
    async fn settled(&self) -> State {
        let is_known = |state: &State| !matches!(state, State::Starting);
        let state = self.state.borrow().clone();
        if is_known(&state) {
            return state;
        }
        let mut state = self.state.clone();
        let known = state.wait_for(is_known).await;
        known.map_or(State::Starting, |state| state.clone())
    }

    /// Returns why requests are not sent, if that is known without waiting.
    pub(crate) fn why_down(&self) -> Option<RedisError> {
        match &*self.state.borrow() {
            State::Down(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Counts a request that was answered, or was not.
    pub(crate) fn count(&self, link: &Link, answered: bool) {
        let shared = &self.shared;
        if link.generation != shared.generation.load(Ordering::Relaxed) {
            return;
        }
        if shared.breaker.count(!answered) {
            let why = "too many requests of the last second got no answer";
            self.rebuild(RedisError::Unavailable(format!("{}: {why}", self.place)));
        } else if !answered {
            shared.suspect.notify_one();
        }
    }

    /// Replaces the connection: the server is no longer the one to use.
    pub(crate) fn rebuild(&self, why: RedisError) {
        *self.shared.why() = Some(why);
        self.shared.rebuild.notify_one();
    }

    /// Records that the server gave this time, in microseconds, in a reply that came now.
    pub(crate) fn learn_clock(&self, time: i64) {
        self.shared.learn_clock(time);
    }

    /// Returns the server's time after this span, at the earliest, in microseconds; 0 if unknown.
    pub(crate) fn clock_after(&self, span: Duration) -> i64 {
        match self.shared.clock.load(Ordering::Relaxed) {
            0 => 0,
            at_start => {
                let then = self.shared.start.elapsed() + span;
                at_start.saturating_add(i64::try_from(then.as_micros()).unwrap_or(0))
            }
        }
    }
}

impl Shared {
    fn why(&self) -> MutexGuard<'_, Option<RedisError>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn_clock(&self, time: i64) {
        let since = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.clock
            .store(time.saturating_sub(since), Ordering::Relaxed);
    }
}

/// Connects, and connects again.
async fn run(connector: Connector, shared: Arc<Shared>, state: watch::Sender<State>) {
    let place = &connector.place;
    let (mut pause, mut was_up, mut warned) = (PAUSES.0, None, None);
    loop {
        let error = match connector.ready(&shared).await {
            Ok((connection, evicting)) => {
                let since = Instant::now();
                if was_up == Some(false) {
                    tracing::info!(server = %place, "Redis answers again");
                }
                was_up = Some(true);
                if let Some(policy) = evicting.as_ref().filter(|_| warned != evicting) {
                    tracing::warn!(server = %place, "{}", evicts(place, policy));
                }
                warned.clone_from(&evicting);
                let link = Link {
                    connection: connection.clone(),
                    generation: shared.generation.load(Ordering::Relaxed),
                    evicting,
                };
                state.send_replace(State::Up(link));
                let error = connector.watch(connection, &shared).await;
                if since.elapsed() >= STABLE {
                    pause = PAUSES.0;
                }
                error
            }
            Err(error) => error,
        };
        if was_up != Some(false) {
            tracing::warn!(server = %place, cause = %error, "Redis does not answer");
        }
        was_up = Some(false);
        state.send_replace(State::Down(error));
        // Requests that are still on their way count no more.
        shared.generation.fetch_add(1, Ordering::Relaxed);
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// The warning about an eviction policy.
pub(crate) fn evicts(place: &Place, policy: &str) -> String {
    format!(
        "{place} has maxmemory-policy {policy} and may evict live limits, which then begin anew: \
         use noeviction"
    )
}

impl Connector {
    /// Makes a connection.
    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let place = &self.place;
        let connect = async {
            // The client's own time limits are others: a second, and half of one.
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(BUFFERED);
            let client = redis::Client::open(self.info.clone());
            let client = client.map_err(|error| explained(&error, place))?;
            let connection = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connection.await.map_err(|error| explained(&error, place))?;
            server::check(&mut connection, place, self.role).await?;
            Ok(connection)
        };
        let late = |_| RedisError::Unavailable(format!("{place} does not answer in time"));
        timeout(self.connect_limit(), connect).await.map_err(late)?
    }

    fn connect_limit(&self) -> Duration {
        CONNECT_LIMIT.max(self.deadline)
    }

    /// Makes a connection on which the server answers within the deadline of requests. Returns the
    /// eviction policy, if it may evict live limits.
    async fn ready(
        &self,
        shared: &Shared,
    ) -> Result<(MultiplexedConnection, Option<String>), RedisError> {
        let mut connection = self.connect().await?;
        let evicting = server::evicting_policy(&mut connection);
        let evicting = timeout(self.connect_limit(), evicting).await.ok().flatten();
        self.ask(&mut connection, shared).await?;
        Ok((connection, evicting))
    }

    /// Asks for the server's time.
    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        shared: &Shared,
    ) -> Result<(), RedisError> {
        let place = &self.place;
        let time = redis::cmd("TIME");
        match timeout(self.deadline, time.query_async::<(i64, i64)>(connection)).await {
            Ok(Ok((seconds, micros))) => {
                let time = seconds.saturating_mul(1_000_000).saturating_add(micros);
                shared.learn_clock(time);
                Ok(())
            }
            Ok(Err(error)) => Err(explained(&error, place)),
            Err(_) => Err(RedisError::Unavailable(format!(
                "{place} does not answer within {:?}",
                self.deadline
            ))),
        }
    }

    /// Returns why a connection must be given up, once that is so.
    async fn watch(&self, mut connection: MultiplexedConnection, shared: &Shared) -> RedisError {
        // What was said about an earlier connection.
        let _ = shared.rebuild.notified().now_or_never();
        shared.breaker.reset();
        let given_up = async {
            shared.rebuild.notified().await;
            let given_up = || RedisError::Unavailable(format!("{} was given up", self.place));
            shared.why().take().unwrap_or_else(given_up)
        };
        let asked = async {
            loop {
                let _ = timeout(ASK_EVERY, shared.suspect.notified()).await;
                if let Err(error) = self.ask(&mut connection, shared).await {
                    return error;
                }
            }
        };
        tokio::select! {
            error = given_up => error,
            error = asked => error,
        }
    }
}
