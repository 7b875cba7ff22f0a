//! Requests to which the limiter does not answer: how they are handled, and when that begins and
//! ends.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::Clock;
use crate::limit::{
    Decision, LimitBucket, LimitRequest, LimiterError, LocalLimiter, OnOutage, nanos,
};
use crate::quota::Quotas;
use crate::telemetry;

/// How long the limiter answers before an outage is over, in nanoseconds. While only some requests
/// get an answer, the outage goes on, so that it is logged once.
const OVER_AFTER: u64 = 5_000_000_000;

/// The outage mode, and whether it applies now.
pub(super) struct Outage {
    mode: OnOutage,
    clock: Arc<dyn Clock>,
    /// Counts requests while the limiter does not answer, in the local modes.
    pub(super) stand_in: LocalLimiter,
    /// The number of requests without an answer.
    count: AtomicU64,
    applies: AtomicBool,
    /// When the limiter last did not answer.
    last: AtomicU64,
}

impl Outage {
    pub(super) fn new(mode: OnOutage, clock: &Arc<dyn Clock>) -> Self {
        Self {
            mode,
            clock: Arc::clone(clock),
            stand_in: LocalLimiter::builder().clock(Arc::clone(clock)).build(),
            count: AtomicU64::new(0),
            applies: AtomicBool::new(false),
            last: AtomicU64::new(0),
        }
    }

    /// Returns the number of requests to which the limiter did not answer.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Records that the limiter answered.
    #[inline]
    pub(super) fn answered(&self) {
        if self.applies.load(Ordering::Relaxed) {
            self.end();
        }
    }

    #[cold]
    fn end(&self) {
        let since = nanos(self.clock.monotonic()).saturating_sub(self.last.load(Ordering::Relaxed));
        if since >= OVER_AFTER && self.applies.swap(false, Ordering::Relaxed) {
            telemetry::limiter_mode("normal");
        }
    }

    /// Applies the mode to a request that the limiter did not answer.
    pub(super) fn decide(
        &self,
        error: LimiterError,
        request: &LimitRequest<'_>,
    ) -> Result<Decision, LimiterError> {
        let now = nanos(self.clock.monotonic());
        self.last.fetch_max(now, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        telemetry::limiter_outage(self.mode.as_str());
        if !self.applies.swap(true, Ordering::Relaxed) {
            telemetry::limiter_mode(self.mode.as_str());
        }
        match self.mode {
            OnOutage::Closed => Err(error),
            OnOutage::Open => Ok(Decision::admitted()),
            OnOutage::Local => self.stand_in.decide(request),
            OnOutage::LocalShare(nodes) => self.decide_by_share(request, nodes),
        }
    }

    /// Counts a request in this process, with the share of one of this many nodes.
    fn decide_by_share(
        &self,
        request: &LimitRequest<'_>,
        nodes: NonZeroU32,
    ) -> Result<Decision, LimiterError> {
        let share = |bucket: &LimitBucket<'_>| bucket.quotas.share(nodes, request.cost);
        let shares: Vec<Quotas> = request.buckets.iter().map(share).collect();
        let pairs = request.buckets.iter().zip(&shares);
        let buckets: Vec<LimitBucket<'_>> = pairs
            .map(|(bucket, quotas)| LimitBucket { quotas, ..*bucket })
            .collect();
        let request = LimitRequest {
            buckets: &buckets,
            ..*request
        };
        self.stand_in.decide(&request)
    }
}
