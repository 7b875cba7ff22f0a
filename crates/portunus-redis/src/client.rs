//! `Redis`: the servers, how requests are sent to them, and the check at start.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, ServerErrorKind, Value};
use tokio::time::{Instant, timeout, timeout_at};

use crate::address::{Address, Place};
use crate::node::{self, Link, Node};
use crate::reply::{Reply, unexpected};
use crate::routes::{Finder, Router, Routes};
use crate::script::Call;
use crate::server::{explained, is_not_permitted, says_read_only};
use crate::slot::{SLOTS, slot};
use crate::{RedisBus, RedisError, RedisLimiter};

/// The time within which a request must be answered.
const DEADLINE: Duration = Duration::from_millis(50);
/// The shortest one of a bus, for which no request waits.
const BUS_DEADLINE: Duration = Duration::from_millis(500);
const LONGEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long the check waits for connections, unless the deadline is longer.
const CHECK_LIMIT: Duration = Duration::from_secs(3);
/// How often a request is sent on when a cluster says that its slot is elsewhere.
const MOST_REDIRECTIONS: usize = 3;

/// A Redis or Valkey server, a primary that Sentinels name, or a cluster.
///
/// Nothing is connected until [`limiter`](Self::limiter) or [`bus`](Self::bus) is called, and then
/// in the background: a service starts while its servers are down. Addresses have the form
/// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, of which only the host is needed; `rediss://` is with
/// TLS and needs the feature `tls`.
#[derive(Clone)]
#[must_use = "a description of servers does nothing until limiter() or bus()"]
pub struct Redis {
    finder: Finder,
    prefix: String,
    deadline: Duration,
}

impl Redis {
    /// Describes a single server.
    ///
    /// # Errors
    /// Returns an error if the address is invalid.
    pub fn single(address: &str) -> Result<Self, RedisError> {
        Ok(Self::new(Finder::Single(Address::read(address)?)))
    }

    /// Describes a primary that Sentinels name. The host of the address is the primary's name; its
    /// user, password, database and TLS are those of the servers. Each Sentinel has an address of
    /// its own, with the port 26379 where it names none.
    ///
    /// A primary that was cut off from its Sentinels takes writes until it is demoted, and what it
    /// counted is then lost. Set `min-replicas-to-write 1` and `min-replicas-max-lag`: a primary
    /// without replicas then refuses, which this crate treats as no answer.
    ///
    /// # Errors
    /// Returns an error if an address is invalid, or there are no Sentinels.
    pub fn sentinel<'a>(
        address: &str,
        sentinels: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RedisError> {
        let asked: Result<Vec<_>, _> = sentinels.into_iter().map(Address::of_sentinel).collect();
        let asked = some(asked?, "the address of at least one Sentinel is needed")?;
        Ok(Self::new(Finder::Asking {
            credentials: Address::read(address)?,
            sentinels: true,
            asked,
        }))
    }

    /// Describes a cluster by some of its nodes, which name the others. The user, the password and
    /// TLS of the first address apply to all nodes.
    ///
    /// The buckets of a tenant, its users and its keys are on one node, those of an address on one,
    /// and shared ones on one: a service with a policy per address or a shared one that also counts
    /// requests with a key is not built.
    ///
    /// # Errors
    /// Returns an error if an address is invalid or names a database other than 0, or if there is
    /// none.
    pub fn cluster<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Result<Self, RedisError> {
        let nodes: Result<Vec<_>, _> = nodes.into_iter().map(Address::read).collect();
        let asked = some(nodes?, "the address of at least one node is needed")?;
        if asked.iter().any(|address| address.database() != 0) {
            let why = "a cluster has no database other than 0";
            return Err(RedisError::Address(why.to_owned()));
        }
        Ok(Self::new(Finder::Asking {
            credentials: asked[0].clone(),
            sentinels: false,
            asked,
        }))
    }

    fn new(finder: Finder) -> Self {
        Self {
            finder,
            prefix: "portunus".to_owned(),
            deadline: DEADLINE,
        }
    }

    /// Sets what all keys and channels begin with: 1 to 64 letters, digits, `-`, `_`, `.` and `:`;
    /// `portunus` by default. Services that share a server need different prefixes. All nodes of a
    /// service need the same one.
    ///
    /// # Errors
    /// Returns an error if the prefix has another form.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, RedisError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(fits) {
            let why = "a prefix of keys must be 1 to 64 letters, digits and - _ . :";
            return Err(RedisError::Address(why.to_owned()));
        }
        prefix.clone_into(&mut self.prefix);
        Ok(self)
    }

    /// Sets the time within which a request must be answered; 50 milliseconds by default, at least
    /// one and at most ten seconds. A request of a limiter that is not answered by then is an
    /// [outage](portunus::Limits::on_outage) for this request. A connection may take a second, or
    /// the deadline if that is longer.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.clamp(Duration::from_millis(1), LONGEST_DEADLINE);
        self
    }

    /// Starts a limiter.
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn limiter(&self) -> RedisLimiter {
        RedisLimiter::new(self.connect())
    }

    /// Starts a bus.
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn bus(&self) -> RedisBus {
        let deadline = self.deadline.max(BUS_DEADLINE);
        RedisBus::new(self.clone().deadline(deadline).connect())
    }

    pub(crate) fn connect(&self) -> Client {
        Client {
            router: Router::start(self.finder.clone(), self.deadline),
            is_cluster: matches!(
                self.finder,
                Finder::Asking {
                    sentinels: false,
                    ..
                }
            ),
            prefix: self.prefix.clone(),
            deadline: self.deadline,
        }
    }
}

/// Reads what [`single`](Redis::single), [`cluster`](Redis::cluster) and
/// [`sentinel`](Redis::sentinel) take as one text: `redis://…`, `cluster:redis://…,redis://…` with
/// some of the nodes, or `sentinel:redis://NAME,redis://…` with the primary's name and its Sentinels.
/// A comma in a password is written `%2C`. An error contains no part of the text.
impl FromStr for Redis {
    type Err = RedisError;

    fn from_str(text: &str) -> Result<Self, RedisError> {
        match text.split_once(':') {
            Some(("cluster", nodes)) => Self::cluster(nodes.split(',')),
            Some(("sentinel", addresses)) => {
                let (primary, sentinels) = addresses.split_once(',').unwrap_or((addresses, ""));
                let sentinels = sentinels.split(',').filter(|_| !sentinels.is_empty());
                Self::sentinel(primary, sentinels)
            }
            _ => Self::single(text),
        }
    }
}

fn some(addresses: Vec<Address>, why: &str) -> Result<Vec<Address>, RedisError> {
    if addresses.is_empty() {
        return Err(RedisError::Address(why.to_owned()));
    }
    Ok(addresses)
}

/// Shows no credentials.
impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = match &self.finder {
            Finder::Single(address) => vec![address.place.to_string()],
            Finder::Asking { asked, .. } => asked.iter().map(|at| at.place.to_string()).collect(),
        };
        f.debug_struct("Redis")
            .field("at", &places)
            .field("prefix", &self.prefix)
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// Sends requests to the servers.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) router: Router,
    pub(crate) is_cluster: bool,
    pub(crate) prefix: String,
    pub(crate) deadline: Duration,
}

impl Client {
    /// Returns the server that has a key.
    pub(crate) async fn node_of(&self, key: &[u8]) -> Result<Arc<Node>, RedisError> {
        self.router.routes().await.node(slot(key))
    }

    /// Returns whether requests to some server are not sent.
    pub(crate) fn is_any_down(&self) -> bool {
        match self.router.now() {
            Routes::Unknown => false,
            Routes::Known(nodes) => nodes.iter().any(|(_, node)| node.why_down().is_some()),
            Routes::Lost(_) => true,
        }
    }

    /// Returns why a request for this key is not sent, if that is known without waiting.
    pub(crate) fn why_down(&self, key: &[u8]) -> Option<RedisError> {
        match self.router.now() {
            Routes::Unknown => None,
            routes => match routes.node(slot(key)) {
                Ok(node) => node.why_down(),
                Err(error) => Some(error),
            },
        }
    }

    /// Runs the limiter's script. Returns a reply or an error for each group, and the server.
    ///
    /// # Errors
    /// Returns an error if there is no answer until `ends`.
    pub(crate) async fn decide(
        &self,
        ends: Instant,
        call: Call<'_>,
    ) -> Result<(Vec<Result<Reply, RedisError>>, Arc<Node>), RedisError> {
        let (answer, node) = self.run(ends, call).await?;
        let Value::Array(replies) = answer else {
            return Err(unexpected());
        };
        let reply = |reply| match reply {
            Value::ServerError(error) => Err(self.failed(&error.into(), &node)),
            reply => Reply::of(reply),
        };
        Ok((replies.into_iter().map(reply).collect(), node))
    }

    /// Runs a script on the server that has its keys. Returns also the server.
    ///
    /// # Errors
    /// Returns an error if there is no answer until `ends`.
    pub(crate) async fn run(
        &self,
        ends: Instant,
        call: Call<'_>,
    ) -> Result<(Value, Arc<Node>), RedisError> {
        let (began, mut on) = (Instant::now(), None);
        let sent = self.send(call, &mut on);
        if let Ok(answer) = timeout_at(ends, sent).await {
            return answer;
        }
        self.router.is_stale();
        let Some((node, link)) = on else {
            let why = "no server is connected yet";
            return Err(RedisError::Unavailable(why.to_owned()));
        };
        node.count(&link, false);
        let waited = began.elapsed();
        let why = format!("{} does not answer within {waited:.1?}", node.place);
        Err(RedisError::Unavailable(why))
    }

    async fn send(
        &self,
        call: Call<'_>,
        on: &mut Option<(Arc<Node>, Link)>,
    ) -> Result<(Value, Arc<Node>), RedisError> {
        let routes = self.router.routes().await;
        let mut node = routes.node(call.keys.first().map_or(0, |key| slot(key)))?;
        let mut asking = false;
        for _ in 0..=MOST_REDIRECTIONS {
            let link = node.link().await.inspect_err(|_| self.router.is_stale())?;
            let (_, link) = on.insert((Arc::clone(&node), link));
            let latest = node.clock_after(call.until.saturating_duration_since(Instant::now()));
            let error = match evaluate(&mut link.connection, call, latest, asking).await {
                Ok(answer) => {
                    node.count(link, true);
                    return Ok((answer, node));
                }
                Err(error) => error,
            };
            let redirected = error.redirect_node().map(|(place, _)| place.to_owned());
            asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            if redirected.is_none() || !self.is_cluster {
                node.count(link, !is_lost(&error));
                return Err(self.failed(&error, &node));
            }
            self.router.is_stale();
            let place = redirected.and_then(|place| parsed(&place, &node.place));
            let other = || {
                let why = format!("{}: the slot moved to an unknown server", node.place);
                RedisError::Unavailable(why)
            };
            node = place
                .and_then(|place| self.router.now().at(&place))
                .ok_or_else(other)?;
        }
        Err(RedisError::Unavailable(format!(
            "{}: the slot moved too often",
            node.place
        )))
    }

    /// Evaluates an error of a server or of the network.
    fn failed(&self, error: &redis::RedisError, node: &Node) -> RedisError {
        let is_replica =
            says_read_only(error) || error.kind() == ErrorKind::Server(ServerErrorKind::MasterDown);
        // A demoted primary stays connected. Another connection finds out what it is.
        let explained = explained(error, &node.place);
        if is_lost(error) || is_replica {
            node.rebuild(explained.clone());
            self.router.is_stale();
        }
        explained
    }

    /// Waits for the first connections, and tries commands that a script uses, whose errors name
    /// what is not permitted. Returns warnings.
    pub(crate) async fn check(&self, commands: &[Cmd]) -> Result<Vec<String>, RedisError> {
        let late = |what: &str| RedisError::Unavailable(format!("{what} in time"));
        let limit = CHECK_LIMIT.max(self.deadline);
        let routes = timeout(limit, self.router.routes()).await;
        let nodes = match routes.map_err(|_| late("no server answers"))? {
            Routes::Known(nodes) => nodes,
            Routes::Lost(error) => return Err(error),
            Routes::Unknown => return Err(late("no server answers")),
        };
        let mut warnings = Vec::new();
        for (_, node) in nodes.iter() {
            let link = timeout(limit, node.link()).await;
            let link = link.map_err(|_| late(&format!("{} does not answer", node.place)))??;
            for command in commands {
                let mut connection = link.connection.clone();
                let tried = command.query_async::<Value>(&mut connection);
                match timeout(limit, tried).await {
                    Ok(Err(error)) if is_not_permitted(&error) => {
                        return Err(explained(&error, &node.place));
                    }
                    // Other errors, as that another node has the key, are for the script.
                    _ => {}
                }
            }
            let warning = link
                .evicting
                .map(|policy| node::evicts(&node.place, &policy));
            warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
        }
        if self.is_cluster && nodes.last().is_none_or(|(last, _)| *last != SLOTS - 1) {
            let why = "the cluster is down: not all slots are served";
            return Err(RedisError::Unavailable(why.to_owned()));
        }
        Ok(warnings)
    }
}

/// Runs a script by its digest, or in full where the server does not know it.
async fn evaluate(
    connection: &mut MultiplexedConnection,
    call: Call<'_>,
    latest: i64,
    asking: bool,
) -> redis::RedisResult<Value> {
    if asking {
        // The slot is being moved here, where only the next command may use it.
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore();
        both.add_command(call.script.command(true, &call, latest));
        let (answer,) = both.query_async::<(Value,)>(connection).await?;
        return Ok(answer);
    }
    match sent(connection, &call.script.command(false, &call, latest)).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            sent(connection, &call.script.command(true, &call, latest)).await
        }
        answer => answer,
    }
}

/// Sends a command. An error in a reply of several parts is no error of the command.
async fn sent(connection: &mut MultiplexedConnection, command: &Cmd) -> redis::RedisResult<Value> {
    match connection.send_packed_command(command).await? {
        Value::ServerError(error) => Err(error.into()),
        answer => Ok(answer),
    }
}

/// Whether the connection is lost, or seems to be.
fn is_lost(error: &redis::RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_timeout()
}

/// Reads the place in a redirection. Without a host, it is where the redirection came from.
fn parsed(place: &str, from: &Place) -> Option<Place> {
    let (host, port) = place.rsplit_once(':')?;
    let host = if host.is_empty() { &from.host } else { host };
    Some(Place {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}
