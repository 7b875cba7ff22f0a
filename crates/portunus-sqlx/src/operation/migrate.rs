//! The schema: made where there is none, brought up to date where it is old, refused where it is
//! newer.
//!
//! Schema 1 is keys, digests, primary keys and usage. Schema 2 is audit events and, on SQLite, the
//! counter of changes.

use async_trait::async_trait;

use super::Operation;
use crate::fault::Fault;
use crate::value::Session;

/// Brings the schema up to date, in a transaction.
pub(crate) struct Migrate;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Migrated {
    UpToDate,
    Newer { found: i64, known: i64 },
}

#[async_trait]
impl Operation for Migrate {
    type Answer = Migrated;

    async fn run(&self, session: &mut dyn Session) -> Result<Migrated, Fault> {
        let dialect = session.dialect();
        if let Some(hold) = dialect.hold {
            session
                .change(
                    hold,
                    vec!["[\"schema\"]".into(), super::apply::SCHEMA.into()],
                )
                .await?;
        }
        session.change(dialect.version_table, Vec::new()).await?;
        let versions = session
            .rows("SELECT MAX(version) FROM portunus_schema", Vec::new())
            .await?;
        let found = match versions.into_iter().next() {
            Some(row) => row
                .of("portunus_schema", "newest")
                .maybe_int("version")?
                .unwrap_or(0),
            None => 0,
        };
        let known = i64::try_from(dialect.migrations.len()).unwrap_or(i64::MAX);
        if found > known {
            return Ok(Migrated::Newer { found, known });
        }
        for (version, migration) in (1_i64..).zip(dialect.migrations) {
            if version > found {
                session.script(migration).await?;
                session
                    .change(
                        "INSERT INTO portunus_schema (version) VALUES ($1)",
                        vec![version.into()],
                    )
                    .await?;
            }
        }
        Ok(Migrated::UpToDate)
    }
}
