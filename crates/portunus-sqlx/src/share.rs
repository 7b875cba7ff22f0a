//! The share of the connections that management reads may use, so that a connection is always
//! available for lookups.
//!
//! A management read takes a permit before it takes a connection. The permit is returned once the
//! connection is usable again: if a read is dropped in the middle of a statement, that is when the
//! statement has ended, which [`Stop`] causes on SQLite, and the server's own time limit on
//! PostgreSQL (see the module `lease`).

use std::sync::Arc;
#[cfg(feature = "sqlite")]
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
#[cfg(feature = "sqlite")]
use std::time::Instant;

#[cfg(feature = "sqlite")]
use sqlx::pool::PoolConnection;
#[cfg(feature = "sqlite")]
use sqlx::{Connection, Database};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fault::{Fault, Refusal};

/// The longest time that a management read waits for its permit.
pub(crate) const PERMIT_LIMIT: Duration = Duration::from_secs(5);
/// The longest time that a connection with an abandoned statement is kept.
#[cfg(feature = "sqlite")]
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// The purpose of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A request looks up its key.
    LookUp,
    /// A request, a write or the start of the process waits for something else.
    Request,
    /// A list of keys, usage or events.
    Management,
}

/// Limits the number of concurrent management reads.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Semaphore>);

impl Share {
    pub(crate) fn new(at_once: u32) -> Self {
        let at_once = usize::try_from(at_once).unwrap_or(1).max(1);
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Takes a permit for a read: at once for requests, in order for management reads.
    pub(crate) async fn permit(&self, purpose: Purpose) -> Result<Permit, Fault> {
        if purpose != Purpose::Management {
            return Ok(Permit(None));
        }
        let permit = tokio::time::timeout(PERMIT_LIMIT, Arc::clone(&self.0).acquire_owned()).await;
        let permit = permit.map_err(|_| Refusal::NoPermit(PERMIT_LIMIT))?;
        Ok(Permit(Some(Arc::new(permit.map_err(|_| Refusal::Closed)?))))
    }
}

/// A permit for a management read, or none if the read does not need one.
#[derive(Debug, Clone)]
pub(crate) struct Permit(Option<Arc<OwnedSemaphorePermit>>);

impl Permit {
    /// No permit, for reads that do not need one.
    #[cfg(feature = "postgres")]
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_some()
    }

    /// Wraps a connection so that it holds this permit until it is usable again.
    #[cfg(feature = "sqlite")]
    pub(crate) fn lend<DB: Database>(&self, connection: PoolConnection<DB>) -> Lent<DB> {
        Lent {
            connection: Some(connection),
            permit: self.clone(),
            stop: None,
        }
    }
}

/// A connection with its permit.
#[cfg(feature = "sqlite")]
pub(crate) struct Lent<DB: Database> {
    connection: Option<PoolConnection<DB>>,
    permit: Permit,
    stop: Option<Stop>,
}

#[cfg(feature = "sqlite")]
impl<DB: Database> Lent<DB> {
    pub(crate) fn connection(&mut self) -> Result<&mut DB::Connection, Fault> {
        // Only `done` and `drop` take it.
        let connection = self.connection.as_deref_mut();
        connection.ok_or_else(|| Refusal::Closed.into())
    }

    /// Sets what ends a statement on this connection once it is abandoned.
    pub(crate) fn stop_with(&mut self, stop: Stop) {
        self.stop = Some(stop);
    }

    /// Closes a connection that failed.
    pub(crate) fn discard(mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
        self.done();
    }

    /// Returns the connection after its last statement has ended.
    pub(crate) fn done(mut self) {
        if let Some(stop) = &self.stop {
            stop.set(DONE);
        }
        drop(self.connection.take());
    }
}

#[cfg(feature = "sqlite")]
impl<DB: Database> Drop for Lent<DB> {
    /// The statement is abandoned.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let permit = Permit(self.permit.0.take());
        let stop = self.stop.take().inspect(|stop| stop.set(STOPPED));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            // The ping is answered after the statement in progress.
            let ended = tokio::time::timeout(DRAIN_LIMIT, connection.ping()).await;
            if let Some(stop) = stop {
                stop.set(DONE);
            }
            if !matches!(ended, Ok(Ok(()))) {
                connection.close_on_drop();
            }
            drop((connection, permit));
        });
    }
}

/// Ends the statements of one read on SQLite: at a time limit, or as soon as it is abandoned.
#[cfg(feature = "sqlite")]
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicU8>);

#[cfg(feature = "sqlite")]
const GOING_ON: u8 = 0;
#[cfg(feature = "sqlite")]
const STOPPED: u8 = 1;
/// The connection belongs to another operation.
#[cfg(feature = "sqlite")]
const DONE: u8 = 2;

/// The number of instructions of a statement between two checks: some microseconds.
#[cfg(feature = "sqlite")]
const INSTRUCTIONS: i32 = 1_000;

#[cfg(feature = "sqlite")]
impl Stop {
    /// Watches the statements of a connection from now on.
    pub(crate) async fn on(
        connection: &mut sqlx::SqliteConnection,
        deadline: Instant,
    ) -> Result<Self, Fault> {
        let stop = Self(Arc::new(AtomicU8::new(GOING_ON)));
        let seen = stop.clone();
        let may_go_on = move || match seen.0.load(Ordering::Relaxed) {
            GOING_ON => Instant::now() < deadline,
            state => state == DONE,
        };
        let mut handle = connection.lock_handle().await?;
        handle.set_progress_handler(INSTRUCTIONS, may_go_on);
        Ok(stop)
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }
}
