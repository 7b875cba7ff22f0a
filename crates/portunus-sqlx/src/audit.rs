//! Audit events in the database of the keys: stored once, read page by page, and deleted when they
//! are old.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::audit::{AuditError, AuditEvent, AuditReader, AuditSink, EventPage, EventQuery};

use crate::operation::{Events, FORGET_PAUSE, ForgetEvents, RecordEvents};
use crate::store::{Database, Store};

/// Audit events in the database of a [`Store`]. Clones share the connections.
///
/// - An event whose id is already stored is not stored again, neither within a batch nor later.
/// - A batch is stored whole or not at all. Batches are stored one after the other, also those of
///   different processes; the first page holds the events that were stored last. A sequence of
///   pages linked by [`EventPage::next`] holds exactly once each event that was stored when the
///   first page was read and has not been deleted since.
/// - A page may be shorter than its limit although there is a next one, if too few of the 10 000
///   events that it examined match a filter.
/// - An event that cannot be read, or contradicts its columns, is an error, not a gap.
#[derive(Clone)]
pub struct Audit<D>(D);

/// Audit events in the database of a [`SqliteStore`](crate::SqliteStore).
#[cfg(feature = "sqlite")]
pub type SqliteAudit = Audit<crate::sqlite::Sqlite>;

/// Audit events in the database of a [`PostgresStore`](crate::PostgresStore).
#[cfg(feature = "postgres")]
pub type PostgresAudit = Audit<crate::postgres::Postgres>;

#[expect(
    private_bounds,
    reason = "only the two built-in databases are supported"
)]
impl<D: Database> Store<D> {
    /// The audit events stored in this database, which [`migrate`](Self::migrate) has prepared.
    #[must_use]
    pub fn audit(&self) -> Audit<D> {
        Audit(self.0.clone())
    }
}

#[async_trait]
impl<D: Database> AuditSink for Audit<D> {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        if events.is_empty() {
            return Ok(());
        }
        Ok(self.0.write(RecordEvents(events)).await?)
    }

    /// Deletes two thousand events at a time, so that writers do not wait for long.
    async fn forget_before(&self, at: SystemTime) -> Result<u64, AuditError> {
        let mut all = 0;
        loop {
            let (forgotten, more) = self.0.write(ForgetEvents(at)).await?;
            all += forgotten;
            if !more {
                return Ok(all);
            }
            tokio::time::sleep(FORGET_PAUSE).await;
        }
    }
}

#[async_trait]
impl<D: Database> AuditReader for Audit<D> {
    async fn events(&self, query: &EventQuery) -> Result<EventPage, AuditError> {
        Ok(self.0.read(Events(query)).await?)
    }
}

impl<D: fmt::Debug> fmt::Debug for Audit<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Audit({:?})", self.0)
    }
}
