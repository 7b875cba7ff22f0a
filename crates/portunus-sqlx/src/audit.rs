//! Events in the database of the keys: kept once, read page by page, and forgotten when they are
//! old.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::audit::{AuditError, AuditEvent, AuditReader, AuditSink, EventPage, EventQuery};

use crate::operation::{Events, FORGET_PAUSE, ForgetEvents, RecordEvents};
use crate::store::{Database, Store};

/// Events beside the keys of a [`Store`]. Cloning shares the connections.
///
/// - An event that is kept already, by its id, is not kept again: not in the same batch, and not
///   later.
/// - A batch is kept whole or not at all. Batches are kept one after the other, also those of
///   different processes; what is in the first page's place is what was kept last. Pages that follow
///   each other by [`EventPage::next`] hold each event once that was kept when the first was read
///   and is not forgotten meanwhile.
/// - A page may be shorter than asked for although there is a next one, where the events of
///   10 000 places hold too few that a filter lets through.
/// - An event that cannot be read, or contradicts the columns beside it, is an error, not a gap.
#[derive(Clone)]
pub struct Audit<D>(D);

/// Events beside the keys of a [`SqliteStore`](crate::SqliteStore).
#[cfg(feature = "sqlite")]
pub type SqliteAudit = Audit<crate::sqlite::Sqlite>;

/// Events beside the keys of a [`PostgresStore`](crate::PostgresStore).
#[cfg(feature = "postgres")]
pub type PostgresAudit = Audit<crate::postgres::Postgres>;

#[expect(private_bounds, reason = "there are two databases, and hosts add none")]
impl<D: Database> Store<D> {
    /// The events that are kept in this database, which [`migrate`](Self::migrate) has made ready.
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

    /// Two thousand at a time, so that writers need not wait for long.
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
