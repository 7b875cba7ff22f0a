//! Asking for a flush: readers ask and may wait, whoever flushes on an interval is woken.
//!
//! A reader never flushes itself, so that nothing depends on how long it stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event_listener::Event;

/// How many flushes were asked for, and up to which of them one has ended that began later.
#[derive(Debug, Default)]
pub(super) struct FlushRequests {
    asked: AtomicU64,
    ended: AtomicU64,
    was_asked: Event,
    has_ended: Event,
}

impl FlushRequests {
    /// Asks, and waits until a flush has ended that began after this.
    pub(super) fn ask(self: Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.was_asked.notify(usize::MAX);
        async move {
            let ended = || self.ended.load(Ordering::SeqCst) >= number;
            wait_until(&self.has_ended, ended).await;
        }
    }

    /// Waits until a flush is asked for that no flush has ended for.
    pub(super) async fn asked(&self) {
        let waits = || self.asked.load(Ordering::SeqCst) > self.ended.load(Ordering::SeqCst);
        wait_until(&self.was_asked, waits).await;
    }

    /// A flush begins: for all who have asked by now.
    pub(super) fn begin(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// The flush that began so has ended, well or not.
    pub(super) fn end(&self, begun: u64) {
        self.ended.fetch_max(begun, Ordering::SeqCst);
        self.has_ended.notify(usize::MAX);
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
