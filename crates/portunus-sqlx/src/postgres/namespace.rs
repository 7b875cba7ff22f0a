//! The PostgreSQL schema in which the tables are, if the host chose one.
//!
//! Statements name tables without a schema. Instead of relying on a session, which may belong to the
//! host or to a pooler, each transaction sets its own search path.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::fault::{Fault, OpenError};

/// PostgreSQL cuts longer names.
const LONGEST: usize = 63;

/// The name of a schema: letters, digits and underscores, so that it can be part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace(Arc<str>);

impl Namespace {
    pub(super) fn new(name: &str) -> Result<Self, OpenError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_valid = (1..=LONGEST).contains(&name.len())
            && name.bytes().all(is_word)
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.to_ascii_lowercase().starts_with("pg_");
        if is_valid {
            return Ok(Self(name.into()));
        }
        let cause = format!(
            "the name of a schema must be 1 to {LONGEST} ASCII letters, digits and underscores, not \
             begin with a digit, and not with pg_"
        );
        Err(OpenError::Unavailable { cause })
    }

    /// Sets the search path until the end of the transaction. Temporary tables come last, so that
    /// none hides a table.
    pub(crate) fn set(&self) -> String {
        format!("SET LOCAL search_path = {}", self.path())
    }

    pub(crate) fn path(&self) -> String {
        format!("\"{}\", pg_temp", self.0)
    }

    /// The name of an index or a table outside of a transaction.
    pub(super) fn qualified(&self, name: &str) -> String {
        format!("\"{}\".{name}", self.0)
    }

    /// Creates the schema if it does not exist, and sets the search path. The transaction must
    /// exclude others that do the same.
    pub(super) async fn make(&self, transaction: &mut PgConnection) -> Result<(), Fault> {
        // Creating it needs a privilege, even if it exists.
        let count = "SELECT count(*) FROM pg_namespace WHERE nspname =";
        let count = sqlx::raw_sql(AssertSqlSafe(format!("{count} '{}'", self.0)));
        let count: i64 = count.fetch_one(&mut *transaction).await?.try_get(0)?;
        let make = match count {
            0 => format!("CREATE SCHEMA \"{}\"; ", self.0),
            _ => String::new(),
        };
        let make = sqlx::raw_sql(AssertSqlSafe(make + &self.set()));
        make.execute(transaction).await?;
        Ok(())
    }
}
