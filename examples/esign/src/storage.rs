//! Where keys, usage and events are kept: in memory, in a SQLite file, or in PostgreSQL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use portunus::KeyStore;
use portunus::actor::UserIds;
use portunus::audit::{AuditReader, AuditSink, MemoryAudit};
use portunus::store::{Cache, MemoryStore, StoreError};
use portunus_sqlx::{OpenError, PostgresBus, PostgresStore, SqliteStore};
use tracing::warn;

/// How old what a node remembers may be while it does not know that it hears everything. No request
/// shall be let through by a key two seconds after that was revoked elsewhere: what is left of them
/// is for the look-up and the answer.
const STALENESS: Duration = Duration::from_millis(1750);

/// How many events the demo remembers where it keeps nothing.
const EVENTS_IN_MEMORY: usize = 100_000;

/// The flag `--store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    Sqlite(PathBuf),
    Postgres(String),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", path)) => file(path).map(Self::Sqlite),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(Self::Postgres(text.into()))
            }
            // One word is named; of what may be an address nothing is told.
            _ if text.chars().all(|c| c.is_ascii_alphanumeric()) => Err(format!(
                "{text:?} is none of sqlite:PATH, postgres://… and memory"
            )),
            _ => Err("it must be sqlite:PATH, postgres://… or memory".into()),
        }
    }
}

/// The flag `--bus`: an address of a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BusAddress(String);

impl FromStr for BusAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Place::Postgres(address)) => Ok(Self(address)),
            _ => Err("it must be postgres://…".into()),
        }
    }
}

/// The file of `sqlite:PATH`, which may be written `sqlite://PATH`, too.
fn file(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("//").unwrap_or(text);
    let lower = path.to_ascii_lowercase();
    if lower.is_empty() || lower.contains(":memory:") || lower.contains("mode=memory") {
        return Err(
            "SQLite keeps nothing there: give memory to keep nothing, or sqlite:PATH".into(),
        );
    }
    // What would be a part of the file's name here, and is none elsewhere.
    if lower.starts_with("file:") || lower.contains('?') {
        return Err("sqlite:PATH takes a path, without file: and without parameters".into());
    }
    Ok(path.into())
}

/// An open storage. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) keys: Arc<dyn KeyStore>,
    pub(crate) cache: Cache,
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) events: Arc<dyn AuditReader>,
}

impl Storage {
    /// Opens a storage, brings its schema up to date, and gives each user one spelling where ids
    /// are UUIDs.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub(crate) async fn open(
        place: &Place,
        bus: Option<&BusAddress>,
        ids: UserIds,
    ) -> Result<Self, String> {
        if bus.is_some() && !matches!(place, Place::Postgres(_)) {
            return Err("--bus is for --store postgres://… only".into());
        }
        match place {
            Place::Memory => {
                let log = MemoryAudit::new(EVENTS_IN_MEMORY);
                Ok(Self::with(MemoryStore::new(), Cache::new(), log))
            }
            Place::Sqlite(path) => {
                let unusable =
                    |error: &dyn fmt::Display| format!("cannot use {}: {error}", path.display());
                let store = SqliteStore::open(path)
                    .await
                    .map_err(|error| unusable(&error))?;
                if ids == UserIds::Uuid {
                    folded(store.fold_user_ids().await)
                        .map_err(|error| unusable(&Chain(&error)))?;
                }
                let log = store.audit();
                Ok(Self::with(store, Cache::new().staleness(STALENESS), log))
            }
            Place::Postgres(address) => {
                // The address may hold a password.
                let unusable = |error: &dyn fmt::Display| {
                    format!("cannot use the PostgreSQL database: {error}")
                };
                let (store, bus) = open_postgres(address, bus)
                    .await
                    .map_err(|error| unusable(&error))?;
                if ids == UserIds::Uuid {
                    folded(store.fold_user_ids().await)
                        .map_err(|error| unusable(&Chain(&error)))?;
                }
                let log = store.audit();
                let cache = Cache::new().staleness(STALENESS).bus(bus);
                Ok(Self::with(store, cache, log))
            }
        }
    }

    fn with(keys: impl KeyStore, cache: Cache, log: impl AuditSink + AuditReader + Clone) -> Self {
        Self {
            keys: Arc::new(keys),
            cache,
            sink: Arc::new(log.clone()),
            events: Arc::new(log),
        }
    }
}

/// What comes of giving each user one spelling: a key that cannot be read keeps nobody from the others.
fn folded(folded: Result<u64, StoreError>) -> Result<(), StoreError> {
    match folded {
        Err(error) if error.is_corrupt() => {
            warn!(
                error = %Chain(&error),
                "not every user has one spelling yet: repair the key, and start again"
            );
            Ok(())
        }
        folded => folded.map(drop),
    }
}

/// A store on PostgreSQL and its bus, which hears what the store writes. Where the bus has another
/// address, the store's is that of a pooler.
async fn open_postgres(
    address: &str,
    bus: Option<&BusAddress>,
) -> Result<(PostgresStore, PostgresBus), String> {
    let place = |address: &str| address.split_once("://").map(|(_, place)| place.to_owned());
    let elsewhere = bus.filter(|bus| place(&bus.0) != place(address));
    let store = match elsewhere {
        Some(_) => PostgresStore::behind_pooler(address).await,
        None => PostgresStore::connect(address).await,
    };
    let store = store.map_err(|error| match error {
        OpenError::Pooler { cause } => format!(
            "a connection pooler in transaction mode stands before it: name the server's own \
             address with --bus ({cause})"
        ),
        error => error.to_string(),
    })?;
    let of_the_bus = |error: OpenError| format!("{error}; its address is given with --bus");
    let bus = match elsewhere {
        Some(bus) => store.bus_on(&bus.0).map_err(of_the_bus)?,
        None => store.bus(),
    };
    bus.check().await.map_err(of_the_bus)?;
    Ok((store, bus))
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// An error with what caused it, on one line.
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
