//! What can go wrong, and how it is told: a database that gives no answer, a row that cannot be
//! read, a condition that did not hold.
//!
//! Errors of a database are told by code and message only: PostgreSQL adds the values of the row
//! that it complains about.

use std::time::Duration;

use portunus::audit::AuditError;
use portunus::store::{Rejected, StoreError};

/// Why a database cannot be used. The text has the causes in it, as the disk, the server and the
/// driver told them, and nothing of an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer version of this crate wrote the database, and this version must not use it.
    #[error(
        "the database has schema {found}, for programs that know schema {oldest} or a newer one; \
         this version of portunus-sqlx knows {known}: update the program"
    )]
    Newer {
        /// The schema of the database.
        found: i64,
        /// The oldest that a program must know to use it.
        oldest: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The database has no schema, or an old one, and it could not be brought up to date: its role
    /// may not change tables, or its disk is full. Let a role that owns the tables call `migrate`.
    #[error(
        "the database has {}, this version of portunus-sqlx needs schema {known}, and it could not \
         be made: {cause}",
        schema(*.found)
    )]
    Schema {
        /// The schema of the database, 0 where it has none.
        found: i64,
        /// The one that is needed.
        known: i64,
        /// What the database said.
        cause: String,
    },
    /// A connection pooler stands before the database and gives each transaction another connection
    /// of the server, as PgBouncer does in its transaction mode. Use
    /// `PostgresStore::behind_pooler`, and `PostgresStore::bus_on` for the bus.
    #[error(
        "a connection pooler in transaction mode stands before the database ({cause}): use \
         PostgresStore::behind_pooler, and for the bus the server's own address"
    )]
    Pooler {
        /// How that was found out.
        cause: String,
    },
    /// A database in memory, or a temporary one, of which each connection would have its own.
    #[error(
        "a database in memory is another one for each connection: use a file, or MemoryStore to \
         keep nothing"
    )]
    InMemory,
    /// The database gave no answer, or cannot be opened.
    #[error("{cause}")]
    Unavailable {
        /// What the disk, the server or the driver said.
        cause: String,
    },
}

fn schema(found: i64) -> String {
    match found {
        0 => "no schema that its role can read".into(),
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

/// What went wrong inside.
#[derive(Debug)]
pub(crate) enum Fault {
    Database(sqlx::Error),
    Corrupt(String),
    Rejected(Rejected),
    Refused(Refusal),
}

/// Why a store did not even ask its database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "a {0} cannot be stored: a time is from 1970 to 9999-12-31T23:59:59.999Z, \
         a version has 63 bits at most"
    )]
    OutOfRange(&'static str),
    #[error("a record cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    #[error("an event cannot be written as JSON")]
    EventJson(#[source] serde_json::Error),
    #[error("this version of portunus-sqlx does not know such a {0}")]
    Unknown(&'static str),
    #[error("the database took longer than {0:?}")]
    TooLong(Duration),
    #[error("other writers took longer than {0:?}")]
    NoTurn(Duration),
    #[error("other reads of management took longer than {0:?}")]
    NoPlace(Duration),
    #[error("the store is closed")]
    Closed,
    #[cfg(feature = "postgres")]
    #[error(
        "the server is a replica, which may not know of a revocation yet: connect to the primary one"
    )]
    Replica,
    #[cfg(feature = "postgres")]
    #[error("the database's role may not read the table {0}: grant it the right to")]
    NoRight(String),
    #[cfg(feature = "postgres")]
    #[error("the database takes no connections: {0}")]
    Unreachable(String),
}

/// Why events are not told.
#[derive(Debug, thiserror::Error)]
#[error("a stored event cannot be read: {0}")]
struct Unreadable(String);

/// What a database answered, without the values that it adds.
#[derive(Debug, thiserror::Error)]
#[error("the database answered {code}: {message}")]
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

    /// SQLite's code, without what extends it.
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

    /// Whether the file may only be read.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_read_only(&self) -> bool {
        // SQLITE_READONLY
        self.primary_code() == Some(8)
    }

    /// Whether a statement was ended because its time was up.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_interrupted(&self) -> bool {
        // SQLITE_INTERRUPT
        self.code().is_some_and(|code| code == "9")
    }

    /// Whether the role may not do that.
    pub(crate) fn is_forbidden(&self) -> bool {
        // insufficient_privilege
        self.code().is_some_and(|code| code == "42501")
    }

    /// Whether the database gave the transaction up for the sake of another, so that it may be
    /// tried again at once.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_conflict(&self) -> bool {
        // serialization_failure, deadlock_detected
        self.code()
            .is_some_and(|code| matches!(code.as_str(), "40001" | "40P01"))
    }

    /// Whether the connection was lost, so that a read may be tried on another.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_lost_connection(&self) -> bool {
        match self {
            // What is no answer at all leaves the connection in the middle of one.
            Self::Database(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => true,
            // admin_shutdown, crash_shutdown, and what poolers say of the server's connection
            _ => self.code().is_some_and(|code| {
                matches!(code.as_str(), "57P01" | "57P02") || code.starts_with("08")
            }),
        }
    }

    /// Whether this is what comes of speaking to a pooler as if it were the server.
    #[cfg(feature = "postgres")]
    fn is_of_a_pooler(&self) -> bool {
        let Self::Database(sqlx::Error::Database(answer)) = self else {
            return false;
        };
        match answer.code().as_deref() {
            // Statements with names that others gave: duplicate_prepared_statement,
            // invalid_sql_statement_name
            Some("42P05" | "26000") => true,
            // protocol_violation, of a pooler that passes no such parameter on
            Some("08P01") => answer.message().contains("extra_float_digits"),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
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
    /// All that is known about it, on one line.
    pub(crate) fn causes(self) -> String {
        let source = self.into_source();
        let mut text = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            let more = error.to_string();
            // Some errors say what their causes say.
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text.replace('\n', " ")
    }

    /// Why there is no answer, for whoever asked for something else than a key.
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
