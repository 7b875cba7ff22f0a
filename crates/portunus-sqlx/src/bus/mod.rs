//! How the nodes that share a database learn of each other's changes: notifications on PostgreSQL,
//! a counter and the latest changes on SQLite.

#[cfg(feature = "postgres")]
mod heartbeats;
mod listeners;
#[cfg_attr(
    not(feature = "postgres"),
    allow(dead_code, reason = "only PostgreSQL has heartbeats")
)]
pub(crate) mod message;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "postgres")]
pub use postgres::PostgresBus;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteWatch;

/// A task that is aborted when this is dropped.
#[derive(Debug)]
struct Task(tokio::task::JoinHandle<()>);

impl Task {
    /// Panics outside of a Tokio runtime.
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
