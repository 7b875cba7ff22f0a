//! What a server says about itself when a connection is made, and whether it can be used.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, ServerErrorKind, Value};

use crate::RedisError;
use crate::address::Place;

/// The oldest versions of Redis and of Valkey.
const OLDEST_REDIS: (u32, u32) = (6, 2);
const OLDEST_VALKEY: (u32, u32) = (7, 2);

const REPLICA: &str = "a replica, which cannot be written: use the address of the primary, or \
                       Redis::sentinel, which finds it";

/// What a server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A server alone, or the primary that Sentinels name.
    Alone,
    /// A node of a cluster that serves slots.
    InCluster,
    /// A node of a cluster that says where slots are.
    Node,
    /// A Sentinel.
    Sentinel,
}

/// Checks kind, version and mode of a server, and that it is no replica.
pub(crate) async fn check(
    connection: &mut MultiplexedConnection,
    place: &Place,
    role: Role,
) -> Result<(), RedisError> {
    let hello = redis::cmd("HELLO")
        .query_async::<Vec<Value>>(connection)
        .await;
    let hello = match hello {
        Ok(hello) => Hello::of(&hello),
        // `HELLO` is in every version that can be used.
        Err(error) if error.code() == Some("ERR") => None,
        Err(error) => return Err(explained(&error, place)),
    };
    let Some(hello) = hello else {
        return Err(RedisError::Server(format!(
            "{place} is no Redis of version {}.{} or newer",
            OLDEST_REDIS.0, OLDEST_REDIS.1
        )));
    };
    hello.check(place, role)
}

/// The answer to `HELLO`.
#[derive(Debug, Default)]
struct Hello {
    server: String,
    version: String,
    mode: String,
    role: String,
}

impl Hello {
    fn of(fields: &[Value]) -> Option<Self> {
        let mut hello = Self::default();
        for (name, value) in fields
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[name, value]| (name, value))
        {
            let (Some(name), Some(value)) = (text(name), text(value)) else {
                continue;
            };
            match name.as_str() {
                "server" => hello.server = value,
                "version" => hello.version = value,
                "mode" => hello.mode = value,
                "role" => hello.role = value,
                _ => {}
            }
        }
        (!hello.version.is_empty()).then_some(hello)
    }

    fn check(&self, place: &Place, role: Role) -> Result<(), RedisError> {
        let Self {
            server, version, ..
        } = self;
        let oldest = match server.as_str() {
            "redis" => OLDEST_REDIS,
            "valkey" => OLDEST_VALKEY,
            _ => {
                let why = format!("{place} is a {server:?}, not Redis or Valkey");
                return Err(RedisError::Server(why));
            }
        };
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if found < oldest {
            let why = format!(
                "{place} is {server} {version}, and {}.{} or newer is needed",
                oldest.0, oldest.1
            );
            return Err(RedisError::Server(why));
        }
        let wrong = match (self.mode.as_str(), role) {
            ("cluster", Role::Alone) => "a node of a cluster: use Redis::cluster",
            ("cluster", Role::Sentinel) => "a node of a cluster, not a Sentinel",
            ("sentinel", Role::Alone) => "a Sentinel: use Redis::sentinel",
            ("sentinel", Role::InCluster | Role::Node) => "a Sentinel, not a node of a cluster",
            ("standalone", Role::InCluster | Role::Node) => "a server alone: use Redis::single",
            ("standalone", Role::Sentinel) => "a server that is no Sentinel",
            (_, Role::Alone | Role::InCluster) if self.role != "master" => REPLICA,
            _ => return Ok(()),
        };
        Err(RedisError::Server(format!("{place} is {wrong}")))
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// Returns the eviction policy under which the server may evict live limits, if it has one.
pub(crate) async fn evicting_policy(connection: &mut MultiplexedConnection) -> Option<String> {
    let mut info = redis::cmd("INFO");
    let memory: String = info.arg("memory").query_async(connection).await.ok()?;
    let policy = memory
        .lines()
        .find_map(|line| line.strip_prefix("maxmemory_policy:"))?
        .trim();
    (policy != "noeviction").then(|| policy.to_owned())
}

/// The error that a server or the network returned, as one line.
pub(crate) fn explained(error: &redis::RedisError, place: &Place) -> RedisError {
    // The texts of servers name users, commands and keys, but no passwords.
    let said = || one_line(&error.to_string());
    match error.kind() {
        ErrorKind::AuthenticationFailed => RedisError::Permission(format!(
            "{place} refuses the user and the password of the address"
        )),
        _ if is_not_permitted(error) => RedisError::Permission(format!(
            "{place} does not permit what is needed (the documentation of portunus-redis lists \
             it): {}",
            said()
        )),
        _ if error.code() == Some("NOAUTH") => {
            RedisError::Permission(format!("{place} wants a user and a password"))
        }
        _ if says_read_only(error) => RedisError::Server(format!("{place} is {REPLICA}")),
        ErrorKind::Parse => {
            RedisError::Server(format!("{place} does not speak the protocol of Redis"))
        }
        ErrorKind::Server(ServerErrorKind::ClusterDown) => {
            RedisError::Unavailable(format!("{place}: the cluster is down: {}", said()))
        }
        _ => RedisError::Unavailable(format!("{place} does not answer: {}", said())),
    }
}

/// Whether the user lacks a permission, for a command or for one in a script.
pub(crate) fn is_not_permitted(error: &redis::RedisError) -> bool {
    let text = error.to_string();
    let in_script = ["ACL failure", "The user executing the script can't"];
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || in_script.iter().any(|said| text.contains(said))
}

/// Whether the server is a replica. Redis 6 says it in the middle of what a script failed of.
pub(crate) fn says_read_only(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error.to_string().contains("READONLY")
}

/// Abbreviates a text to one line.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(hello: [&str; 4], role: Role) -> Option<String> {
        let [server, version, mode, of] = hello.map(str::to_owned);
        let hello = Hello {
            server,
            version,
            mode,
            role: of,
        };
        let place = Place {
            host: "h".to_owned(),
            port: 1,
        };
        hello
            .check(&place, role)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn other_servers_versions_and_modes_are_refused_with_what_they_are() {
        for (hello, role, why) in [
            (
                ["redis", "6.2.0", "standalone", "master"],
                Role::Alone,
                None,
            ),
            (
                ["redis", "7.0.15", "cluster", "master"],
                Role::InCluster,
                None,
            ),
            (["redis", "7.0.15", "sentinel", ""], Role::Sentinel, None),
            (
                ["valkey", "8.0.1", "standalone", "master"],
                Role::Alone,
                None,
            ),
            (
                ["redis", "6.0.20", "standalone", "master"],
                Role::Alone,
                Some("h:1 is redis 6.0.20, and 6.2 or newer is needed"),
            ),
            (
                ["dragonfly", "1.0", "standalone", "master"],
                Role::Alone,
                Some("h:1 is a \"dragonfly\", not Redis or Valkey"),
            ),
            (
                ["redis", "7.0.15", "cluster", "master"],
                Role::Alone,
                Some("h:1 is a node of a cluster: use Redis::cluster"),
            ),
            (
                ["redis", "7.0.15", "standalone", "master"],
                Role::InCluster,
                Some("h:1 is a server alone: use Redis::single"),
            ),
            (
                ["redis", "7.0.15", "sentinel", "sentinel"],
                Role::Alone,
                Some("h:1 is a Sentinel: use Redis::sentinel"),
            ),
        ] {
            assert_eq!(refused(hello, role).as_deref(), why, "{hello:?}");
        }
        let replica = ["redis", "7.0.15", "standalone", "replica"];
        let why = refused(replica, Role::Alone).unwrap_or_default();
        assert!(why.contains("h:1 is a replica"), "{why}");
    }
}
