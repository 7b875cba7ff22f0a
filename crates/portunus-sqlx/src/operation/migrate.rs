//! The schema, in numbered steps: 1 is keys, digests, primary keys and usage; 2 is audit events
//! and, on SQLite, the counter of changes; 3 is whose deleted keys were and, on SQLite, what the
//! latest changes were.
//!
//! A step that is recorded is never changed. Each says which the oldest schema is that a program
//! must know to use it, so that a program that is one step behind goes on where that does no harm.

use async_trait::async_trait;

use super::Operation;
use crate::fault::{Fault, OpenError};
use crate::share::Purpose;
use crate::sql;
use crate::value::{Row, Session};

/// One step.
pub(crate) struct Migration {
    pub(crate) script: &'static str,
    /// A program must know this schema at least.
    pub(crate) oldest: i64,
}

/// From this step on, the table of steps has the column `oldest`.
const FIRST_WITH_OLDEST: i64 = 3;

/// The schema that a database has; all 0 where it has none.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: i64,
    oldest: i64,
    /// Why the role may not read which one that is.
    hidden: Option<String>,
}

impl Found {
    /// The schema that this crate makes.
    pub(crate) fn known(session: &dyn Session) -> i64 {
        i64::try_from(session.dialect().migrations.len()).unwrap_or(i64::MAX)
    }

    /// Whether this crate may use the database, and whether its schema is to be brought up to date
    /// first.
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

/// Reads which schema a database has, and which one this crate makes. Writes nothing.
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

/// The number that a statement without values answers, 0 where there is none.
async fn number(session: &mut dyn Session, sql: &'static str) -> Result<i64, Fault> {
    let mut rows = session.rows(sql, Vec::new()).await?.into_iter();
    let read = |row: Row| row.of("portunus_schema", "newest").maybe_int("version");
    Ok(rows.next().map(read).transpose()?.flatten().unwrap_or(0))
}

/// Brings the schema up to date, in a transaction. Does nothing where that was done meanwhile.
pub(crate) struct Migrate;

#[async_trait]
impl Operation for Migrate {
    type Answer = ();

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        let dialect = session.dialect();
        hold(session).await?;
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

/// Waits until nobody else changes the schema, to the end of the transaction.
async fn hold(session: &mut dyn Session) -> Result<(), Fault> {
    if let Some(hold) = session.dialect().hold {
        let values = vec!["[\"schema\"]".into(), super::apply::SCHEMA.into()];
        session.change(hold, values).await?;
    }
    Ok(())
}
