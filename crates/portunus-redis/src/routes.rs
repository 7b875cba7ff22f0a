//! Which server has which hash slot: one server for all, the primary that Sentinels name, or the
//! nodes of a cluster. A task finds out, every second and when a request was sent to a wrong server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::RedisError;
use crate::address::{Address, Place};
use crate::node::{Connector, Node};
use crate::server::{Role, explained};
use crate::slot::SLOTS;
use crate::task::Task;

/// How often the routes are looked up.
const EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two look-ups.
const PAUSE: Duration = Duration::from_millis(50);
/// The time limit for the answer of one Sentinel or node.
const ASK_LIMIT: Duration = Duration::from_millis(500);

/// How servers are found.
#[derive(Clone)]
pub(crate) enum Finder {
    /// The address of the only server.
    Single(Address),
    /// The servers to ask. The address has the credentials of the servers that are found; its host
    /// is the name by which Sentinels know the primary. Without Sentinels, nodes of the cluster are
    /// asked.
    Asking {
        credentials: Address,
        sentinels: bool,
        asked: Vec<Address>,
    },
}

/// The servers by their slots: each has those from the end of the one before.
#[derive(Debug, Clone)]
pub(crate) enum Routes {
    /// They are not known yet.
    Unknown,
    Known(Arc<[(u16, Arc<Node>)]>),
    /// They cannot be found.
    Lost(RedisError),
}

impl Routes {
    /// Returns the server of a slot.
    pub(crate) fn node(&self, slot: u16) -> Result<Arc<Node>, RedisError> {
        match self {
            Self::Known(nodes) => {
                let place = nodes.partition_point(|(last, _)| *last < slot);
                let found = nodes.get(place).or(nodes.last());
                let lost = || RedisError::Unavailable("no server is known".to_owned());
                Ok(Arc::clone(&found.ok_or_else(lost)?.1))
            }
            Self::Unknown => Err(RedisError::Unavailable(
                "the servers are not known yet".to_owned(),
            )),
            Self::Lost(error) => Err(error.clone()),
        }
    }

    /// Returns the server in a place.
    pub(crate) fn at(&self, place: &Place) -> Option<Arc<Node>> {
        let Self::Known(nodes) = self else {
            return None;
        };
        let found = nodes.iter().find(|(_, node)| node.place == *place);
        found.map(|(_, node)| Arc::clone(node))
    }
}

/// Keeps the routes.
#[derive(Debug)]
pub(crate) struct Router {
    routes: watch::Receiver<Routes>,
    stale: Arc<Notify>,
    _task: Option<Task>,
}

impl Router {
    /// Starts to look for the servers.
    pub(crate) fn start(finder: Finder, deadline: Duration) -> Self {
        let stale = Arc::new(Notify::new());
        let (told, routes) = watch::channel(Routes::Unknown);
        let task = match finder {
            Finder::Single(address) => {
                let node = node(&address, &address.place, Role::Alone, deadline);
                told.send_replace(Routes::Known([(SLOTS - 1, node)].into()));
                None
            }
            Finder::Asking {
                credentials,
                sentinels,
                asked,
            } => {
                let asked = Asked::new(credentials, sentinels, &asked);
                let work = keep_looking(asked, deadline, told, Arc::clone(&stale));
                Some(Task::spawn(work))
            }
        };
        Self {
            routes,
            stale,
            _task: task,
        }
    }

    /// Returns the routes. Waits only until they are known for the first time.
    pub(crate) async fn routes(&self) -> Routes {
        let routes = self.now();
        if !matches!(routes, Routes::Unknown) {
            return routes;
        }
        let is_known = |routes: &Routes| !matches!(routes, Routes::Unknown);
        let mut routes = self.routes.clone();
        let known = routes.wait_for(is_known).await;
        known.map_or(Routes::Unknown, |routes| routes.clone())
    }

    /// Returns the routes as they are known.
    pub(crate) fn now(&self) -> Routes {
        self.routes.borrow().clone()
    }

    /// Says that a request was sent to a server that is not the right one, or that does not answer.
    pub(crate) fn is_stale(&self) {
        self.stale.notify_one();
    }
}

fn node(address: &Address, place: &Place, role: Role, deadline: Duration) -> Arc<Node> {
    Arc::new(Node::start(Connector {
        place: place.clone(),
        info: address.at(place),
        role,
        deadline,
    }))
}

async fn keep_looking(
    mut asked: Asked,
    deadline: Duration,
    routes: watch::Sender<Routes>,
    stale: Arc<Notify>,
) {
    let mut nodes: HashMap<Place, Arc<Node>> = HashMap::new();
    loop {
        match asked.find().await {
            Ok(found) => {
                let role = asked.role();
                let of = |place: &Place| {
                    let known = nodes.get(place).map(Arc::clone);
                    known.unwrap_or_else(|| node(&asked.credentials, place, role, deadline))
                };
                let all: Vec<_> = found
                    .iter()
                    .map(|(last, place)| (*last, of(place)))
                    .collect();
                // A server that has no slot any more is left.
                nodes = all
                    .iter()
                    .map(|(_, node)| (node.place.clone(), Arc::clone(node)))
                    .collect();
                routes.send_replace(Routes::Known(all.into()));
            }
            // What is known may still be right.
            Err(error) => {
                routes.send_if_modified(|routes| {
                    let is_lost = !matches!(routes, Routes::Known(_));
                    if is_lost {
                        *routes = Routes::Lost(error);
                    }
                    is_lost
                });
            }
        }
        sleep(PAUSE).await;
        tokio::select! {
            () = stale.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

/// The Sentinels or nodes that are asked for the routes.
struct Asked {
    credentials: Address,
    /// The name of the primary that Sentinels know.
    name: Option<String>,
    /// Those that the host named.
    given: Vec<Askable>,
    /// Those to ask: the one that answered last is first.
    askable: Vec<Askable>,
    connection: Option<MultiplexedConnection>,
}

type Askable = (Place, redis::ConnectionInfo);

/// The last slot of each server, in order.
type Found = Vec<(u16, Place)>;

impl Asked {
    fn new(credentials: Address, sentinels: bool, asked: &[Address]) -> Self {
        let at = |address: &Address| (address.place.clone(), address.at(&address.place));
        let given: Vec<_> = asked.iter().map(at).collect();
        Self {
            name: sentinels.then(|| credentials.place.host.clone()),
            credentials,
            askable: given.clone(),
            given,
            connection: None,
        }
    }

    /// What the servers that are found are for.
    fn role(&self) -> Role {
        match self.name {
            Some(_) => Role::Alone,
            None => Role::InCluster,
        }
    }

    /// Asks one after the other.
    async fn find(&mut self) -> Result<Found, RedisError> {
        let mut errors = Vec::new();
        for _ in 0..self.askable.len() {
            let asked = timeout(ASK_LIMIT, self.ask_first()).await;
            let place = &self.askable[0].0;
            let late = || RedisError::Unavailable(format!("{place} does not answer in time"));
            match asked.unwrap_or_else(|_| Err(late())) {
                Ok(found) => {
                    self.learn(&found);
                    return Ok(found);
                }
                Err(error) => errors.push(error),
            }
            self.connection = None;
            self.askable.rotate_left(1);
        }
        // One that says more than that it does not answer.
        let says_more = |error: &&RedisError| !matches!(error, RedisError::Unavailable(_));
        let error = errors.iter().find(says_more).or(errors.last());
        let none = RedisError::Unavailable("no server is known".to_owned());
        Err(error.cloned().unwrap_or(none))
    }

    /// Asks the nodes that a cluster named from now on, too.
    fn learn(&mut self, found: &Found) {
        if self.name.is_some() {
            return;
        }
        let found = found
            .iter()
            .map(|(_, place)| (place.clone(), self.credentials.at(place)));
        let others: Vec<_> = found.chain(self.given.iter().cloned()).collect();
        self.askable.truncate(1);
        for (place, info) in others {
            if !self.askable.iter().any(|(known, _)| *known == place) {
                self.askable.push((place, info));
            }
        }
    }

    async fn ask_first(&mut self) -> Result<Found, RedisError> {
        let (place, info) = self.askable[0].clone();
        let is_sentinel = self.name.is_some();
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connector = Connector {
                    place: place.clone(),
                    info,
                    role: if is_sentinel {
                        Role::Sentinel
                    } else {
                        Role::Node
                    },
                    deadline: ASK_LIMIT,
                };
                connector.connect().await?
            }
        };
        let connection = self.connection.insert(connection);
        match &self.name {
            Some(name) => primary(connection, &place, name).await,
            None => nodes(connection, &place).await,
        }
    }
}

/// Asks a Sentinel for the primary.
async fn primary(
    connection: &mut MultiplexedConnection,
    place: &Place,
    name: &str,
) -> Result<Found, RedisError> {
    let mut ask = redis::cmd("SENTINEL");
    let ask = ask.arg("get-master-addr-by-name").arg(name);
    let named: Option<(String, u16)> = ask
        .query_async(connection)
        .await
        .map_err(|error| explained(&error, place))?;
    let unknown = || {
        RedisError::Server(format!(
            "the Sentinel {place} knows no primary of the name {name:?}"
        ))
    };
    let (host, port) = named.ok_or_else(unknown)?;
    Ok(vec![(SLOTS - 1, Place { host, port })])
}

/// Asks a node of a cluster for all nodes.
async fn nodes(connection: &mut MultiplexedConnection, place: &Place) -> Result<Found, RedisError> {
    let down = |why: &str| RedisError::Unavailable(format!("{place}: the cluster is down: {why}"));
    let failed = |error: redis::RedisError| explained(&error, place);
    let mut ask = redis::cmd("CLUSTER");
    let info: String = ask
        .arg("INFO")
        .query_async(connection)
        .await
        .map_err(failed)?;
    let is_ok = info.lines().any(|line| line.trim() == "cluster_state:ok");
    if !is_ok {
        return Err(down("its state is not ok, as CLUSTER INFO says"));
    }
    let mut ask = redis::cmd("CLUSTER");
    let slots: Vec<Vec<Value>> = ask
        .arg("SLOTS")
        .query_async(connection)
        .await
        .map_err(failed)?;
    let mut found: Found = slots
        .iter()
        .filter_map(|range| range_of(range, place))
        .collect();
    found.sort_by_key(|(last, _)| *last);
    if found.is_empty() {
        return Err(down("no slot is served"));
    }
    Ok(found)
}

/// Reads a range of slots: the last one, and the node that serves it.
fn range_of(range: &[Value], asked: &Place) -> Option<(u16, Place)> {
    let [_, Value::Int(last), Value::Array(node), ..] = range else {
        return None;
    };
    let [host, Value::Int(port), ..] = node.as_slice() else {
        return None;
    };
    // A node that does not know its own name is where it was asked.
    let host = match host {
        Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
        _ => asked.host.clone(),
    };
    let port = u16::try_from(*port).ok()?;
    Some((u16::try_from(*last).ok()?, Place { host, port }))
}
