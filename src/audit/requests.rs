//! Asking for a flush: readers ask and may wait, whoever flushes on an interval is woken.
//!
//! A reader never flushes itself, so that nothing depends on how long it stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event_listener::Event;

/// How many flushes were asked for, and up to which of them each sink has ended one that began
/// later.
#[derive(Debug)]
pub(super) struct FlushRequests {
    asked: AtomicU64,
    /// One for each sink.
    ended: Box<[AtomicU64]>,
    was_asked: Event,
    has_ended: Event,
}

impl FlushRequests {
    pub(super) fn of(sinks: usize) -> Self {
        Self {
            asked: AtomicU64::new(0),
            ended: (0..sinks).map(|_| AtomicU64::new(0)).collect(),
            was_asked: Event::new(),
            has_ended: Event::new(),
        }
    }

    /// Asks, and waits until every sink has ended a flush that began after this.
    pub(super) fn ask(self: Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.was_asked.notify(usize::MAX);
        async move {
            wait_until(&self.has_ended, || self.all_ended() >= number).await;
        }
    }

    /// Waits until a flush is asked for that some sink has ended none for.
    pub(super) async fn asked(&self) {
        let waits = || self.asked.load(Ordering::SeqCst) > self.all_ended();
        wait_until(&self.was_asked, waits).await;
    }

    /// Waits until more flushes are asked for than so many.
    pub(super) async fn asked_since(&self, number: u64) {
        let more = || self.asked.load(Ordering::SeqCst) > number;
        wait_until(&self.was_asked, more).await;
    }

    /// Whether a flush was asked for that this sink has ended none for.
    pub(super) fn is_wanted(&self, sink: usize) -> bool {
        self.asked.load(Ordering::SeqCst) > self.ended[sink].load(Ordering::SeqCst)
    }

    /// A flush begins: for all who have asked by now.
    pub(super) fn begin(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// The flush of a sink that began so has ended, well or not.
    pub(super) fn end(&self, sink: usize, begun: u64) {
        self.ended[sink].fetch_max(begun, Ordering::SeqCst);
        self.has_ended.notify(usize::MAX);
    }

    /// Up to which request all sinks have ended a flush; without sinks nobody has to wait.
    fn all_ended(&self) -> u64 {
        let ended = self.ended.iter().map(|ended| ended.load(Ordering::SeqCst));
        ended.min().unwrap_or(u64::MAX)
    }
}

async fn wait_until(event: &Event, holds: impl Fn() -> bool) {
    while !holds() {
        let listener = event.listen();
        // It may have happened before anybody listened.
        if holds() {
            return;
        }
        listener.await;
    }
}
