//! Storage for keys, usage and audit events: in memory, in a SQLite file, or in PostgreSQL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use portunus::KeyStore;
use portunus::actor::UserIds;
use portunus::audit::{AuditReader, AuditSink, MemoryAudit};
use portunus::credit::{CreditStore, MemoryCreditStore};
use portunus::store::{Cache, MemoryStore, StoreError};
use portunus_profiles::Profile;
use portunus_sqlx::{OpenError, PostgresBus, PostgresStore, SqliteStore};
use tracing::warn;

use crate::redis::RedisServer;

/// The maximum age of a cache entry while the node cannot be sure that it receives every
/// invalidation. A key that was revoked on another node must be refused within two seconds; the
/// remainder is for the lookup and the response.
const STALENESS: Duration = Duration::from_millis(1750);

/// How many audit events the memory store keeps.
const EVENTS_IN_MEMORY: usize = 100_000;

/// The value of `--store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    Memory,
    Sqlite(PathBuf),
    Postgres(String),
}

impl FromStr for Location {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", path)) => file(path).map(Self::Sqlite),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(Self::Postgres(text.into()))
            }
            // A single word is quoted in the error; anything else may be a URL with a password.
            _ if text.chars().all(|c| c.is_ascii_alphanumeric()) => Err(format!(
                "unknown store {text:?}: expected sqlite:PATH, postgres://… or memory"
            )),
            _ => Err("expected sqlite:PATH, postgres://… or memory".into()),
        }
    }
}

/// The value of `--bus`: the URL of a PostgreSQL database, or Redis.
#[derive(Debug, Clone)]
pub(crate) enum BusAddress {
    Postgres(String),
    Redis(RedisServer),
}

impl BusAddress {
    fn of_postgres(&self) -> Option<&str> {
        match self {
            Self::Postgres(address) => Some(address),
            Self::Redis(_) => None,
        }
    }
}

impl FromStr for BusAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if RedisServer::is_meant(text) {
            return text.parse().map(Self::Redis);
        }
        match text.parse() {
            Ok(Location::Postgres(address)) => Ok(Self::Postgres(address)),
            _ => Err(
                "expected postgres://…, redis://…, cluster:redis://… or sentinel:redis://…".into(),
            ),
        }
    }
}

/// Parses the path of `sqlite:PATH`, which may also be written `sqlite://PATH`.
fn file(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("//").unwrap_or(text);
    let lower = path.to_ascii_lowercase();
    if lower.is_empty() || lower.contains(":memory:") || lower.contains("mode=memory") {
        return Err("SQLite would not persist this database: use memory or sqlite:PATH".into());
    }
    // Other tools parse these; here they would become part of the file name.
    if lower.starts_with("file:") || lower.contains('?') {
        return Err("sqlite:PATH takes a plain path, without file: and without parameters".into());
    }
    Ok(path.into())
}

/// An open storage. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) keys: Arc<dyn KeyStore>,
    pub(crate) credits: Arc<dyn CreditStore>,
    pub(crate) cache: Cache,
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) events: Arc<dyn AuditReader>,
}

impl Storage {
    /// Opens a store, migrates its schema, and normalizes the user ids if they are UUIDs.
    ///
    /// # Errors
    /// One line that says why the store cannot be used.
    pub(crate) async fn open(
        location: &Location,
        bus: Option<&BusAddress>,
        profile: Profile,
    ) -> Result<Self, String> {
        let ids = profile.user_ids();
        if bus.is_some() && !matches!(location, Location::Postgres(_)) {
            return Err("--bus requires --store postgres://…".into());
        }
        match location {
            Location::Memory => {
                let log = MemoryAudit::new(EVENTS_IN_MEMORY);
                let credits = MemoryCreditStore::new();
                Ok(Self::with(MemoryStore::new(), credits, Cache::new(), log))
            }
            Location::Sqlite(path) => {
                let unusable =
                    |error: &dyn fmt::Display| format!("cannot use {}: {error}", path.display());
                let store = SqliteStore::open(path)
                    .await
                    .map_err(|error| unusable(&error))?;
                if ids == UserIds::Uuid {
                    tolerate_corrupt(store.fold_user_ids().await)
                        .map_err(|error| unusable(&Chain(&error)))?;
                }
                let log = store.audit();
                let cache = Cache::new().staleness(STALENESS);
                Ok(Self::with(store.clone(), store, cache, log))
            }
            Location::Postgres(address) => {
                // The URL is not shown, as it may contain a password.
                let unusable = |error: &dyn fmt::Display| {
                    format!("cannot use the PostgreSQL database: {error}")
                };
                let (store, cache) = match bus {
                    Some(BusAddress::Redis(server)) => {
                        let store = open_any(address).await.map_err(|error| unusable(&error))?;
                        // From now on, changes are recorded until they are published.
                        store.record_changes();
                        (store, Cache::new().bus(server.bus(profile).await?))
                    }
                    Some(BusAddress::Postgres(_)) | None => {
                        let bus = bus.and_then(BusAddress::of_postgres);
                        let opened = open_postgres(address, bus).await;
                        let (store, bus) = opened.map_err(|error| unusable(&error))?;
                        (store, Cache::new().bus(bus))
                    }
                };
                if ids == UserIds::Uuid {
                    tolerate_corrupt(store.fold_user_ids().await)
                        .map_err(|error| unusable(&Chain(&error)))?;
                }
                let log = store.audit();
                let cache = cache.staleness(STALENESS);
                Ok(Self::with(store.clone(), store, cache, log))
            }
        }
    }

    fn with(
        keys: impl KeyStore,
        credits: impl CreditStore,
        cache: Cache,
        log: impl AuditSink + AuditReader + Clone,
    ) -> Self {
        Self {
            keys: Arc::new(keys),
            credits: Arc::new(credits),
            cache,
            sink: Arc::new(log.clone()),
            events: Arc::new(log),
        }
    }
}

/// Downgrades the error of a corrupt record to a warning: one unreadable key must not make the
/// other keys unavailable.
fn tolerate_corrupt(folded: Result<u64, StoreError>) -> Result<(), StoreError> {
    match folded {
        Err(error) if error.is_corrupt() => {
            warn!(
                error = %Chain(&error),
                "not all user ids are normalized yet: repair the corrupt key and restart"
            );
            Ok(())
        }
        folded => folded.map(drop),
    }
}

/// Opens a PostgreSQL store whose bus is elsewhere, also behind a connection pooler.
async fn open_any(address: &str) -> Result<PostgresStore, OpenError> {
    match PostgresStore::connect(address).await {
        Err(OpenError::Pooler { .. }) => PostgresStore::behind_pooler(address).await,
        opened => opened,
    }
}

/// Opens a PostgreSQL store and the bus that publishes its changes. If the bus has a different
/// address, the store is assumed to be behind a connection pooler.
async fn open_postgres(
    address: &str,
    bus: Option<&str>,
) -> Result<(PostgresStore, PostgresBus), String> {
    let target = |address: &str| {
        address
            .split_once("://")
            .map(|(_, target)| target.to_owned())
    };
    let elsewhere = bus.filter(|bus| target(bus) != target(address));
    let store = match elsewhere {
        Some(_) => PostgresStore::behind_pooler(address).await,
        None => PostgresStore::connect(address).await,
    };
    let store = store.map_err(|error| match error {
        OpenError::Pooler { cause } => format!(
            "it is behind a connection pooler in transaction mode: set --bus to the server's own \
             address ({cause})"
        ),
        error => error.to_string(),
    })?;
    let bus_error = |error: OpenError| format!("{error}; check the address in --bus");
    let bus = match elsewhere {
        Some(bus) => store.bus_on(bus).map_err(bus_error)?,
        None => store.bus(),
    };
    bus.check().await.map_err(bus_error)?;
    Ok((store, bus))
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Displays an error and its sources on one line.
pub(crate) struct Chain<'e>(pub(crate) &'e dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {}", error.to_string().replace('\n', " "))?;
            cause = error.source();
        }
        Ok(())
    }
}
