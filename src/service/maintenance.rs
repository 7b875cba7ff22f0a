//! What the periodic jobs have done, what still waits, and what was lost.

use std::error::Error;

/// What the periodic jobs have come to, since the last time that somebody was told.
///
/// `maintain` counts from the call before; `run` counts from when it began to its end.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Maintenance {
    /// Uses of keys that were written to the store.
    pub uses_written: u64,
    /// Audit events that were written: to the sink that took the most.
    pub events_written: u64,
    /// Changes of keys that other nodes were told of.
    pub changes_published: u64,
    /// Keys that were stored under a newer digest.
    pub rehashes_written: u64,
    /// Hours of keys whose counts were deleted because they were too old.
    pub hours_deleted: u64,
    /// Audit events that were deleted because they were too old.
    pub events_deleted: u64,
    /// Uses that were lost because too many keys were in use at once.
    pub uses_lost: u64,
    /// Audit events that were lost because a sink took none for too long.
    pub events_lost: u64,
    /// Refusals that were left out of the audit because their source had been refused too often.
    pub events_throttled: u64,
    /// Uses that wait to be written, now. At the end of `run` they are lost with the process.
    pub uses_waiting: u64,
    /// Audit events that some sink has yet to take, now. At the end of `run` they are lost with the
    /// process.
    pub events_waiting: u64,
    /// Changes that other nodes have yet to be told of, now.
    pub changes_waiting: u64,
    /// The jobs that failed in this call, or in the last round of `run`, by name, and why. What a job
    /// could not do waits for the next time.
    pub failures: Vec<(String, Box<dyn Error + Send + Sync>)>,
}
