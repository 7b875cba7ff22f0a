//! The kinds of periodic jobs: their names, how often each is due, and what deletion keeps.

use std::fmt;
use std::time::Duration;

/// The work of a periodic job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Takes the counts of uses from keys, if they are many.
    Collect,
    /// Takes them in any case: keys that a cache has evicted then need no memory.
    Release,
    /// Writes usage.
    Usage,
    /// Writes the events of one sink.
    Events(usize),
    /// Publishes key changes that other nodes have not received yet.
    Publish,
    /// Stores keys under newer digests.
    Rehash,
    /// Continues bulk operations.
    Bulk,
    /// Reports the use of credits, and gives back those that are not used.
    Credits,
    /// Looks through the accounts of credits.
    Accounts,
    SweepLimiter,
    SweepCaches,
    /// Records what a host must act on as audit events.
    Notices,
    /// Deletes usage that is older than its retention.
    DeleteUsage,
    /// Deletes the events of one sink that are older than their retention.
    DeleteEvents(usize),
}

impl Work {
    /// Returns how soon the job is due again after a success, and after a failure.
    pub(super) const fn every(self) -> (Duration, Duration) {
        let (every, again) = match self {
            Self::Collect => (100, 100),
            Self::Release => (5_000, 5_000),
            Self::Events(_) | Self::Publish | Self::Rehash => (200, 500),
            Self::Usage | Self::Bulk | Self::Credits => (500, 500),
            Self::SweepLimiter => (20_000, 20_000),
            Self::Accounts | Self::Notices => (10_000, 10_000),
            Self::SweepCaches => (60_000, 60_000),
            Self::DeleteUsage | Self::DeleteEvents(_) => (3_600_000, 10_000),
        };
        (Duration::from_millis(every), Duration::from_millis(again))
    }

    /// Returns whether unfinished work of this job is lost when the process exits.
    #[cfg(feature = "tokio")]
    pub(super) const fn saves(self) -> bool {
        matches!(
            self,
            Self::Usage | Self::Events(_) | Self::Publish | Self::Rehash | Self::Credits
        )
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collect => f.write_str("collect usage"),
            Self::Release => f.write_str("release evicted keys"),
            Self::Usage => f.write_str("write usage"),
            Self::Events(sink) => write!(f, "write the events of audit sink {}", sink + 1),
            Self::Publish => f.write_str("publish key changes"),
            Self::Rehash => f.write_str("write new digests"),
            Self::Bulk => f.write_str("continue bulk operations"),
            Self::Credits => f.write_str("report credits"),
            Self::Accounts => f.write_str("look through the accounts of credits"),
            Self::SweepLimiter => f.write_str("sweep the limiter"),
            Self::SweepCaches => f.write_str("sweep the caches"),
            Self::Notices => f.write_str("report what is due"),
            Self::DeleteUsage => f.write_str("delete old usage"),
            Self::DeleteEvents(sink) => {
                write!(f, "delete the old events of audit sink {}", sink + 1)
            }
        }
    }
}

/// Retention periods: 90 days by default, `None` means forever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Hourly usage counts.
    pub(crate) usage: Option<Duration>,
    /// Audit events.
    pub(crate) events: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        let ninety_days = Duration::from_secs(90 * 24 * 60 * 60);
        Self {
            usage: Some(ninety_days),
            events: Some(ninety_days),
        }
    }
}
