//! Flush requests: readers request a flush and may wait for it, which wakes the task that flushes
//! on an interval.
//!
//! A reader never flushes itself, so that nothing depends on how long it is polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event_listener::Event;

/// The number of flush requests, and for each sink the number of the last request that is covered
/// by a finished flush, which began after that request.
#[derive(Debug)]
pub(super) struct FlushRequests {
    requested: AtomicU64,
    /// One counter for each sink.
    ended: Box<[AtomicU64]>,
    on_request: Event,
    on_end: Event,
}

impl FlushRequests {
    pub(super) fn of(sinks: usize) -> Self {
        Self {
            requested: AtomicU64::new(0),
            ended: (0..sinks).map(|_| AtomicU64::new(0)).collect(),
            on_request: Event::new(),
            on_end: Event::new(),
        }
    }

    /// Requests a flush, and waits until every sink has finished one that began after this call.
    pub(super) fn request(self: Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let number = self.requested.fetch_add(1, Ordering::SeqCst) + 1;
        self.on_request.notify(usize::MAX);
        async move {
            wait_until(&self.on_end, || self.all_ended() >= number).await;
        }
    }

    /// Waits until there is a request for which some sink has not finished a flush.
    pub(super) async fn requested(&self) {
        let waits = || self.requested.load(Ordering::SeqCst) > self.all_ended();
        wait_until(&self.on_request, waits).await;
    }

    /// Waits until there are more requests than this.
    pub(super) async fn requested_since(&self, number: u64) {
        let more = || self.requested.load(Ordering::SeqCst) > number;
        wait_until(&self.on_request, more).await;
    }

    /// Returns whether there is a request for which this sink has not finished a flush.
    pub(super) fn is_wanted(&self, sink: usize) -> bool {
        self.requested.load(Ordering::SeqCst) > self.ended[sink].load(Ordering::SeqCst)
    }

    /// Begins a flush, which covers all requests made so far.
    pub(super) fn begin(&self) -> u64 {
        self.requested.load(Ordering::SeqCst)
    }

    /// Ends a sink's flush, whether or not it succeeded.
    pub(super) fn end(&self, sink: usize, begun: u64) {
        self.ended[sink].fetch_max(begun, Ordering::SeqCst);
        self.on_end.notify(usize::MAX);
    }

    /// Returns the number of the last request for which all sinks have finished a flush. Without
    /// sinks, there is nothing to wait for.
    fn all_ended(&self) -> u64 {
        let ended = self.ended.iter().map(|ended| ended.load(Ordering::SeqCst));
        ended.min().unwrap_or(u64::MAX)
    }
}

async fn wait_until(event: &Event, holds: impl Fn() -> bool) {
    while !holds() {
        let listener = event.listen();
        // The condition may have become true before the listener was registered.
        if holds() {
            return;
        }
        listener.await;
    }
}
