//! The part of the connections that management reads share, so that look-ups find one at any time.
//!
//! Whoever reads for management takes a place before a connection. The place is given back once the
//! connection can be used again: where a read is dropped in the middle of a statement, that is when
//! the statement has ended, which [`Stop`] brings about on SQLite, and the server's own time limit
//! on PostgreSQL (see the module `lease`).

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

/// The longest that a management read waits for its place.
pub(crate) const PLACE_LIMIT: Duration = Duration::from_secs(5);
/// The longest that a connection with a statement that nobody waits for is kept.
#[cfg(feature = "sqlite")]
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// What a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A request looks its key up.
    LookUp,
    /// A request or a write waits for something else, or the start of the process does.
    Request,
    /// Somebody looks at keys, usage or events.
    Management,
}

/// How many management reads there are at once.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Semaphore>);

impl Share {
    pub(crate) fn new(at_once: u32) -> Self {
        let at_once = usize::try_from(at_once).unwrap_or(1).max(1);
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// A place for a read: at once for requests, in order for the rest.
    pub(crate) async fn place(&self, purpose: Purpose) -> Result<Place, Fault> {
        if purpose != Purpose::Management {
            return Ok(Place(None));
        }
        let permit = tokio::time::timeout(PLACE_LIMIT, Arc::clone(&self.0).acquire_owned()).await;
        let permit = permit.map_err(|_| Refusal::NoPlace(PLACE_LIMIT))?;
        Ok(Place(Some(Arc::new(permit.map_err(|_| Refusal::Closed)?))))
    }
}

/// A place among the management reads, or none because none is needed.
#[derive(Debug, Clone)]
pub(crate) struct Place(Option<Arc<OwnedSemaphorePermit>>);

impl Place {
    /// None, because none is needed.
    #[cfg(feature = "postgres")]
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_some()
    }

    /// A connection that keeps this place until it can be used again.
    #[cfg(feature = "sqlite")]
    pub(crate) fn lend<DB: Database>(&self, connection: PoolConnection<DB>) -> Lent<DB> {
        Lent {
            connection: Some(connection),
            place: self.clone(),
            stop: None,
        }
    }
}

/// A connection with a place.
#[cfg(feature = "sqlite")]
pub(crate) struct Lent<DB: Database> {
    connection: Option<PoolConnection<DB>>,
    place: Place,
    stop: Option<Stop>,
}

#[cfg(feature = "sqlite")]
impl<DB: Database> Lent<DB> {
    pub(crate) fn connection(&mut self) -> Result<&mut DB::Connection, Fault> {
        // Only `done` and `drop` take it away.
        let connection = self.connection.as_deref_mut();
        connection.ok_or_else(|| Refusal::Closed.into())
    }

    /// What ends a statement on this connection once nobody waits for it.
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

    /// Gives the connection back after its last statement has ended.
    pub(crate) fn done(mut self) {
        if let Some(stop) = &self.stop {
            stop.set(DONE);
        }
        drop(self.connection.take());
    }
}

#[cfg(feature = "sqlite")]
impl<DB: Database> Drop for Lent<DB> {
    /// Nobody waits for the statement any more.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let place = Place(self.place.0.take());
        let stop = self.stop.take().inspect(|stop| stop.set(STOPPED));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            // Answers after what was going on before it.
            let ended = tokio::time::timeout(DRAIN_LIMIT, connection.ping()).await;
            if let Some(stop) = stop {
                stop.set(DONE);
            }
            if !matches!(ended, Ok(Ok(()))) {
                connection.close_on_drop();
            }
            drop((connection, place));
        });
    }
}

/// Ends the statements of one read on SQLite: at a time, or as soon as nobody waits for it.
#[cfg(feature = "sqlite")]
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicU8>);

#[cfg(feature = "sqlite")]
const GOING_ON: u8 = 0;
#[cfg(feature = "sqlite")]
const STOPPED: u8 = 1;
/// The connection is others' now.
#[cfg(feature = "sqlite")]
const DONE: u8 = 2;

/// How many instructions of a statement there are between two looks: some microseconds.
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
