//! The schema, in numbered steps: 1 has keys, digests, primary keys and usage; 2 has audit events
//! and, on SQLite, the counter of changes; 3 has the tenants of deleted keys and, on SQLite, the
//! content of the latest changes; 4 has the days of last uses, indexes for lists, and the changes to
//! publish on the host's own bus; 5 has bulk operations, and indexes for lists of all tenants; 6 has
//! credits.
//!
//! A released step is never changed. Each states the oldest schema that a program must know to use
//! it, so that a program that is one step behind continues to work where that is harmless.

use async_trait::async_trait;

use super::Operation;
use crate::fault::{Fault, OpenError};
use crate::share::Purpose;
use crate::sql;
use crate::value::{Row, Session};

/// A step of the schema.
pub(crate) struct Migration {
    pub(crate) script: &'static str,
    /// The oldest schema that a program must know.
    pub(crate) oldest: i64,
}

/// From this step on, the table of steps has the column `oldest`.
const FIRST_WITH_OLDEST: i64 = 3;

/// The schema of a database; all 0 if it has none.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: i64,
    oldest: i64,
    /// Why the role cannot read the version of the schema.
    hidden: Option<String>,
}

impl Found {
    /// The schema that this crate creates.
    pub(crate) fn known(session: &dyn Session) -> i64 {
        i64::try_from(session.dialect().migrations.len()).unwrap_or(i64::MAX)
    }

    /// Whether the schema must be brought up to date; an error if this crate must not use the
    /// database.
    pub(crate) fn is_behind(&self, known: i64) -> Result<bool, OpenError> {
        if let Some(cause) = &self.hidden {
            return Err(OpenError::Schema {
                found: 0,
                known,
                cause: cause.clone(),
            });
        }
        if self.oldest > known {
            return Err(OpenError::Newer {
                found: self.version,
                oldest: self.oldest,
                known,
            });
        }
        Ok(self.version < known)
    }
}

/// Reads the schema of a database, and the one that this crate creates. Writes nothing.
pub(crate) struct Inspect;

#[async_trait]
impl Operation for Inspect {
    type Answer = (Found, i64);
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let known = Found::known(session);
        let hidden = |fault: Fault| Found {
            hidden: Some(fault.causes()),
            ..Found::default()
        };
        match found(session).await {
            Err(fault) if fault.is_forbidden() => Ok((hidden(fault), known)),
            found => Ok((found?, known)),
        }
    }
}

async fn found(session: &mut dyn Session) -> Result<Found, Fault> {
    let mut found = Found::default();
    let has_schema = session.dialect().has_schema;
    if number(session, has_schema).await? != 0 {
        found.version = number(session, sql::NEWEST_STEP).await?;
    }
    if found.version >= FIRST_WITH_OLDEST {
        found.oldest = number(session, sql::OLDEST_PROGRAM).await?;
    }
    Ok(found)
}

/// The number that a statement without values returns, or 0 if it returns none.
async fn number(session: &mut dyn Session, sql: &'static str) -> Result<i64, Fault> {
    let mut rows = session.rows(sql, Vec::new()).await?.into_iter();
    let read = |row: Row| row.of("portunus_schema", "newest").maybe_int("version");
    Ok(rows.next().map(read).transpose()?.flatten().unwrap_or(0))
}

/// Brings the schema up to date, in a transaction. Does nothing if that was done meanwhile.
pub(crate) struct Migrate;

#[async_trait]
impl Operation for Migrate {
    type Answer = ();

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        let dialect = session.dialect();
        hold_schema(session).await?;
        session.change(dialect.version_table, Vec::new()).await?;
        let (found, _) = Inspect.run(session).await?;
        for (version, migration) in (1_i64..).zip(dialect.migrations) {
            if version <= found.version {
                continue;
            }
            session.script(migration.script).await?;
            let (note, values) = if version < FIRST_WITH_OLDEST {
                (sql::NOTE_EARLY_STEP, vec![version.into()])
            } else {
                let values = vec![version.into(), migration.oldest.into()];
                (sql::NOTE_STEP, values)
            };
            session.change(note, values).await?;
        }
        if found.version == 0
            && let Some(indexes) = dialect.indexes_at_once
        {
            // No table has rows yet.
            session.script(indexes).await?;
        }
        Ok(())
    }
}

/// Waits until no other transaction changes the schema, and excludes others until the end of this
/// one.
pub(crate) async fn hold_schema(session: &mut dyn Session) -> Result<(), Fault> {
    if let Some(hold) = session.dialect().hold {
        let values = vec!["[\"schema\"]".into(), super::apply::SCHEMA.into()];
        session.change(hold, values).await?;
    }
    Ok(())
}
