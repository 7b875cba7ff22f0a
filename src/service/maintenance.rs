//! Report of the periodic jobs: what was done, what is still waiting, and what was lost.

use std::error::Error;

/// Report of the periodic jobs.
///
/// `maintain` counts since the previous call, `run` from its start to its end.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Maintenance {
    /// Uses of keys written to the store.
    pub uses_written: u64,
    /// Audit events written, as counted by the sink that took the most.
    pub events_written: u64,
    /// Key changes published to other nodes.
    pub changes_published: u64,
    /// Keys stored under a newer digest.
    pub rehashes_written: u64,
    /// Hourly usage counts deleted because they were older than the retention.
    pub hours_deleted: u64,
    /// Audit events deleted because they were older than the retention.
    pub events_deleted: u64,
    /// Uses lost because more than a million keys had unwritten uses at once.
    pub uses_lost: u64,
    /// Audit events lost because a sink accepted none for too long.
    pub events_lost: u64,
    /// Refusals omitted from the audit because their source had been refused too often.
    pub events_throttled: u64,
    /// Uses waiting to be written. Those remaining at the end of `run` are lost with the process.
    pub uses_waiting: u64,
    /// Audit events that at least one sink has not accepted yet. Those remaining at the end of
    /// `run` are lost with the process.
    pub events_waiting: u64,
    /// Key changes not yet published to other nodes.
    pub changes_waiting: u64,
    /// The names of the jobs that failed in this call, or in the final round of `run`, with the
    /// reason. Their remaining work is done in the next round.
    pub failures: Vec<(String, Box<dyn Error + Send + Sync>)>,
}

/// What was done and lost since the start.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Totals {
    pub(super) uses: u64,
    pub(super) events: u64,
    pub(super) changes: u64,
    pub(super) rehashes: u64,
    pub(super) hours_deleted: u64,
    pub(super) events_deleted: u64,
    pub(super) uses_lost: u64,
    pub(super) events_lost: u64,
    pub(super) events_throttled: u64,
}
