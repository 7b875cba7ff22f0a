//! Events in the database of the keys: kept once, read page by page, and forgotten when they are
//! old.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::audit::{AuditError, AuditEvent, AuditReader, AuditSink, EventPage, EventQuery};

use crate::operation::{Events, FORGET_PAUSE, ForgetEvents, RecordEvents};

macro_rules! audit_on {
    ($(#[$doc:meta])* $audit:ident, $store:ty) => {
        $(#[$doc])*
        ///
        /// - An event that is kept already, by its id, is not kept again: not in the same batch,
        ///   and not later.
        /// - A batch is kept whole or not at all. Batches are kept one after the other, also those
        ///   of different processes; what is in the first page's place is what was kept last. Pages
        ///   that follow each other by [`EventPage::next`] hold each event once that was kept when
        ///   the first was read and is not forgotten meanwhile.
        /// - A page may be shorter than asked for although there is a next one, where the events of
        ///   10 000 places hold too few that a filter lets through.
        /// - An event that cannot be read, or contradicts the columns beside it, is an error, not a
        ///   gap.
        #[derive(Clone)]
        pub struct $audit($store);

        impl $store {
            /// The events that are kept in this database, which [`migrate`](Self::migrate) has made
            /// ready.
            #[must_use]
            pub fn audit(&self) -> $audit {
                $audit(self.clone())
            }
        }

        impl $audit {
            /// Forgets the events of before an instant, by the time that they tell; returns how
            /// many. Two thousand at a time, so that writers need not wait for long.
            ///
            /// # Errors
            /// Where the database gave no answer. Some may be forgotten already; it goes on when it
            /// is called again.
            pub async fn forget_events_before(&self, at: SystemTime) -> Result<u64, AuditError> {
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
        impl AuditSink for $audit {
            async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
                if events.is_empty() {
                    return Ok(());
                }
                Ok(self.0.write(RecordEvents(events)).await?)
            }
        }

        #[async_trait]
        impl AuditReader for $audit {
            async fn events(&self, query: &EventQuery) -> Result<EventPage, AuditError> {
                Ok(self.0.read(Events(query)).await?)
            }
        }

        impl fmt::Debug for $audit {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($audit), "({:?})"), self.0)
            }
        }
    };
}

#[cfg(feature = "sqlite")]
audit_on! {
    /// Events beside the keys of a [`SqliteStore`](crate::SqliteStore). Cloning shares the
    /// connections.
    SqliteAudit, crate::SqliteStore
}

#[cfg(feature = "postgres")]
audit_on! {
    /// Events beside the keys of a [`PostgresStore`](crate::PostgresStore). Cloning shares the
    /// connections.
    PostgresAudit, crate::PostgresStore
}
