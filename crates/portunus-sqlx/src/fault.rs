//! Errors and how they are reported: a database that does not answer, a row that cannot be read, a
//! condition that does not hold.
//!
//! Database errors are reported by code and message only: PostgreSQL adds the values of the
//! offending row.

use std::time::Duration;

use portunus::audit::AuditError;
use portunus::store::{Rejected, StoreError};

/// Error returned when a database cannot be opened or used. Its text includes the causes, as
/// reported by the disk, the server and the driver, but no part of the address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database was written by a newer version of this crate and must not be used by this one.
    #[error(
        "the database has schema {found}, which requires a program that knows schema {oldest} or \
         newer; this version of portunus-sqlx knows schema {known}: update the program"
    )]
    Newer {
        /// The database's schema version.
        found: i64,
        /// The oldest schema version that a program must know to use the database.
        oldest: i64,
        /// The newest schema version that this version of the crate knows.
        known: i64,
    },
    /// The database has no schema or an old one, and migrating it failed: the role lacks the
    /// privilege to change tables, or the disk is full. Call `migrate` with a role that owns the
    /// tables.
    #[error(
        "the database has {}, this version of portunus-sqlx needs schema {known}, and creating it \
         failed: {cause}",
        schema(*.found)
    )]
    Schema {
        /// The database's schema version, or 0 if it has none.
        found: i64,
        /// The schema version that is needed.
        known: i64,
        /// The database's error.
        cause: String,
    },
    /// The database is behind a connection pooler that assigns a different server connection to
    /// each transaction, as PgBouncer does in transaction mode. Use `PostgresStore::behind_pooler`,
    /// and `PostgresStore::bus_on` for the bus.
    #[error(
        "the database is behind a connection pooler in transaction mode ({cause}): use \
         PostgresStore::behind_pooler, and the server's own address for the bus"
    )]
    Pooler {
        /// How the pooler was detected.
        cause: String,
    },
    /// An in-memory or temporary database, which would be separate for each connection.
    #[error(
        "an in-memory database is separate for each connection: use a file, or MemoryStore to \
         persist nothing"
    )]
    InMemory,
    /// The database did not answer or cannot be opened.
    #[error("{cause}")]
    Unavailable {
        /// The error of the disk, the server or the driver.
        cause: String,
    },
}

fn schema(found: i64) -> String {
    match found {
        0 => "no schema that the role can read".into(),
        found => format!("schema {found}"),
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        #[cfg(feature = "postgres")]
        if fault.is_of_a_pooler() {
            let cause = fault.causes();
            return Self::Pooler { cause };
        }
        Self::Unavailable {
            cause: fault.causes(),
        }
    }
}

/// Internal error of an operation.
#[derive(Debug)]
pub(crate) enum Fault {
    Database(sqlx::Error),
    Corrupt(String),
    Rejected(Rejected),
    Refused(Refusal),
}

/// Why a store returned an error without querying its database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "{0} cannot be stored: times must be from 1970 to 9999-12-31T23:59:59.999Z, \
         and versions must fit in 63 bits"
    )]
    OutOfRange(&'static str),
    #[error("the record cannot be serialized as JSON")]
    Json(#[source] serde_json::Error),
    #[error("the event cannot be serialized as JSON")]
    EventJson(#[source] serde_json::Error),
    #[error("the entries of the ledger cannot be serialized as JSON")]
    EntriesJson(#[source] serde_json::Error),
    #[error("the new keys cannot be serialized as JSON")]
    KeysJson(#[source] serde_json::Error),
    #[error("the usage cannot be serialized as JSON")]
    UsageJson(#[source] serde_json::Error),
    #[error("this version of portunus-sqlx does not support this {0}")]
    Unknown(&'static str),
    #[error("the database took longer than {0:?}")]
    TooLong(Duration),
    #[error("waited longer than {0:?} for other writers")]
    NoTurn(Duration),
    #[error("waited longer than {0:?} for other management reads")]
    NoPermit(Duration),
    /// A statement that was shared with other lookups has failed.
    #[error("{0}")]
    Shared(String),
    #[error("the store is closed")]
    Closed,
    #[error("the call in the host's transaction has ended, and the manager with it")]
    CallEnded,
    #[error("call `migrate` on the store first")]
    NotMigrated,
    #[error(
        "the transaction is not on the tables of the store: it uses {host:?}, the store uses {store:?}"
    )]
    Elsewhere { host: String, store: String },
    #[cfg(feature = "sqlite")]
    #[error("the transaction was not begun with BEGIN IMMEDIATE, so that it may fail at any write")]
    NotImmediate,
    #[cfg(feature = "postgres")]
    #[error(
        "the isolation level of the transaction is {0}: it must be READ COMMITTED, so that it sees \
         what others have committed"
    )]
    Isolation(String),
    #[cfg(feature = "postgres")]
    #[error(
        "the server is a replica (it is in recovery), which may lag behind a revocation: connect to \
         the primary server"
    )]
    Replica,
    #[cfg(feature = "postgres")]
    #[error("the database role cannot read the table {0}: grant it SELECT")]
    NoRight(String),
    #[cfg(feature = "postgres")]
    #[error("the database refuses connections: {0}")]
    Unreachable(String),
}

/// Error of a read of events that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("a stored event cannot be read: {0}")]
struct Unreadable(String);

/// A database error without the values that it carries.
#[derive(Debug, thiserror::Error)]
#[error("the database returned error {code}: {message}")]
struct Answer {
    code: String,
    message: String,
}

impl Fault {
    fn code(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(answer)) => {
                answer.code().map(std::borrow::Cow::into_owned)
            }
            _ => None,
        }
    }

    /// The SQLite result code, without its extension.
    #[cfg(feature = "sqlite")]
    fn primary_code(&self) -> Option<u32> {
        let code = self.code()?.parse::<u32>().ok()?;
        Some(code & 0xff)
    }

    /// Whether another process held the file for longer than this one waits.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_busy(&self) -> bool {
        // SQLITE_BUSY
        self.primary_code() == Some(5)
    }

    /// Whether the file is read-only.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_read_only(&self) -> bool {
        // SQLITE_READONLY
        self.primary_code() == Some(8)
    }

    /// Whether a statement was interrupted at its time limit.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_interrupted(&self) -> bool {
        // SQLITE_INTERRUPT
        self.code().is_some_and(|code| code == "9")
    }

    /// Whether the role lacks a privilege.
    pub(crate) fn is_forbidden(&self) -> bool {
        // insufficient_privilege
        self.code().is_some_and(|code| code == "42501")
    }

    /// Whether the database aborted the transaction in favor of another one, so that it may be
    /// retried at once.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_conflict(&self) -> bool {
        // serialization_failure, deadlock_detected
        self.code()
            .is_some_and(|code| matches!(code.as_str(), "40001" | "40P01"))
    }

    /// Whether a lock was not available in time.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.code().is_some_and(|code| code == "55P03")
    }

    /// Whether the connection must not be used again: it was lost, or its server is in recovery.
    #[cfg(feature = "postgres")]
    pub(crate) fn ends_the_connection(&self) -> bool {
        self.is_lost_connection() || matches!(self, Self::Refused(Refusal::Replica))
    }

    /// The error of statements that begin by asking for permission to write, which a server in
    /// recovery refuses with feature_not_supported.
    #[cfg(feature = "postgres")]
    pub(crate) fn of_a_writer(self) -> Self {
        match self.code().as_deref() {
            Some("0A000") => Refusal::Replica.into(),
            _ => self,
        }
    }

    /// Whether the connection was lost, so that a read may be retried on another one.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_lost_connection(&self) -> bool {
        match self {
            // A malformed or missing answer leaves the connection in the middle of one.
            Self::Database(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => true,
            // admin_shutdown, crash_shutdown, and what poolers report about the server connection
            _ => self.code().is_some_and(|code| {
                matches!(code.as_str(), "57P01" | "57P02") || code.starts_with("08")
            }),
        }
    }

    /// Whether this error results from using a pooler as if it were the server.
    #[cfg(feature = "postgres")]
    fn is_of_a_pooler(&self) -> bool {
        let Self::Database(sqlx::Error::Database(answer)) = self else {
            return false;
        };
        match answer.code().as_deref() {
            // Statements with names that other clients chose: duplicate_prepared_statement,
            // invalid_sql_statement_name
            Some("42P05" | "26000") => true,
            // protocol_violation, from a pooler that does not pass this parameter on
            Some("08P01") => answer.message().contains("extra_float_digits"),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let fault = Self::Database(error);
        #[cfg(feature = "postgres")]
        // read_only_sql_transaction: everything here that writes asks for a transaction that may,
        // which only a server in recovery does not give.
        if fault.code().is_some_and(|code| code == "25006") {
            return Refusal::Replica.into();
        }
        fault
    }
}

impl From<Rejected> for Fault {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Fault {
    /// All known causes, on one line.
    pub(crate) fn causes(self) -> String {
        let source = self.into_source();
        let mut text = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            let more = error.to_string();
            // Some errors already include the text of their causes.
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text.replace('\n', " ")
    }

    /// The source of an error for operations other than those on keys.
    pub(crate) fn into_source(self) -> Box<dyn std::error::Error + Send + Sync> {
        let code = self.code().unwrap_or_default();
        match self {
            Self::Database(sqlx::Error::Database(answer)) => Answer {
                code,
                message: answer.message().to_owned(),
            }
            .into(),
            Self::Database(error) => error.into(),
            Self::Corrupt(what) => Unreadable(what).into(),
            Self::Rejected(rejected) => rejected.into(),
            Self::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt(what) => Self::corrupt(what),
            Fault::Rejected(rejected) => Self::rejected(rejected),
            Fault::Database(_) | Fault::Refused(_) => Self::unavailable(fault.into_source()),
        }
    }
}

impl From<Fault> for AuditError {
    fn from(fault: Fault) -> Self {
        Self::unavailable(fault.into_source())
    }
}
