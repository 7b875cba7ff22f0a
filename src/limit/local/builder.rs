//! The settings of a limiter.

use std::collections::hash_map::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Inner, LocalLimiter, SHARDS};
use crate::clock::{Clock, SystemClock};
use crate::limit::overflow::Overflow;
use crate::lock::Mutex;

/// Builder for [`LocalLimiter`].
#[derive(Debug)]
#[must_use = "a builder does nothing until build()"]
pub struct LocalLimiterBuilder {
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) most: usize,
    pub(super) most_addresses: Option<usize>,
}

impl LocalLimiterBuilder {
    /// Sets the maximum number of live buckets, besides those of addresses; 250 000 by default. With
    /// the default quotas, a live bucket takes less than 450 bytes. A request that needs one more is
    /// an [outage](crate::Limits::on_outage).
    pub fn most_buckets(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Sets the maximum number of live buckets of client addresses; half of
    /// [`most_buckets`](Self::most_buckets) by default. Further addresses share one bucket for
    /// each class, until there is room for them: nobody is admitted more often than the policy
    /// allows, and buckets of keys are not affected.
    pub fn most_addresses(mut self, most: usize) -> Self {
        self.most_addresses = Some(most);
        self
    }

    /// Sets the clock; the system's monotonic clock by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Builds the limiter.
    #[must_use]
    pub fn build(self) -> LocalLimiter {
        static IDS: AtomicU64 = AtomicU64::new(0);
        LocalLimiter {
            inner: Arc::new(Inner {
                id: IDS.fetch_add(1, Ordering::Relaxed),
                clock: self
                    .clock
                    .unwrap_or_else(|| Arc::new(SystemClock::default())),
                hasher: RandomState::new(),
                shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
                live: AtomicUsize::new(0),
                addresses: AtomicUsize::new(0),
                overflow: Overflow::default(),
                most: self.most,
                most_addresses: self.most_addresses.unwrap_or(self.most / 2),
                next_shard: AtomicUsize::new(0),
                next_full_sweep: AtomicU64::new(0),
            }),
        }
    }
}
