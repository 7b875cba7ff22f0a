//! Flush requests: readers request a flush and may wait for it, which wakes the task that flushes
//! on an interval.
//!
//! A reader never flushes itself, so that nothing depends on how long it is polled.

use std::future::{Pending, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable, Shared, abortable};

use crate::lock::Mutex;

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
            on_request: Event::default(),
            on_end: Event::default(),
        }
    }

    /// Requests a flush, and waits until every sink has finished one that began after this call.
    pub(super) fn request(self: Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let number = self.requested.fetch_add(1, Ordering::SeqCst) + 1;
        self.on_request.notify();
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
        self.on_end.notify();
    }

    /// Returns the number of the last request for which all sinks have finished a flush. Without
    /// sinks, there is nothing to wait for.
    fn all_ended(&self) -> u64 {
        let ended = self.ended.iter().map(|ended| ended.load(Ordering::SeqCst));
        ended.min().unwrap_or(u64::MAX)
    }
}

/// Wakes all tasks that wait for it. A waiter that is dropped leaves nothing behind.
#[derive(Debug, Default)]
struct Event(Mutex<Option<(AbortHandle, Listener)>>);

/// Ends with the next notification.
type Listener = Shared<Abortable<Pending<()>>>;

impl Event {
    fn listen(&self) -> Listener {
        let mut next = self.0.lock();
        let (_, listener) = next.get_or_insert_with(|| {
            let (listener, notify) = abortable(pending());
            (notify, listener.shared())
        });
        listener.clone()
    }

    fn notify(&self) {
        // Not under the lock: waking runs code of the host's runtime.
        let waiting = self.0.lock().take();
        if let Some((notify, _)) = waiting {
            notify.abort();
        }
    }
}

async fn wait_until(event: &Event, holds: impl Fn() -> bool) {
    while !holds() {
        let listener = event.listen();
        // The condition may have become true before the listener was registered.
        if holds() {
            return;
        }
        let _ = listener.await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use super::*;

    /// A waker that counts, and looks at the requests while it is called, as a runtime may.
    struct Counting(Arc<FlushRequests>, AtomicU64);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            let listener = self.0.on_request.listen();
            self.1.fetch_add(1, Ordering::SeqCst);
            drop(listener);
        }
    }

    #[test]
    fn a_request_wakes_everyone_who_waits_and_the_end_of_its_flush_those_who_asked() {
        let requests = Arc::new(FlushRequests::of(2));
        let counting = Arc::new(Counting(Arc::clone(&requests), AtomicU64::new(0)));
        let waker = Waker::from(Arc::clone(&counting));
        let cx = &mut Context::from_waker(&waker);
        let (mut one, mut other) = (
            pin!(requests.requested()),
            pin!(requests.requested_since(0)),
        );
        assert!(one.as_mut().poll(cx).is_pending() && other.as_mut().poll(cx).is_pending());
        let mut asked = pin!(Arc::clone(&requests).request());
        let woken = || counting.1.swap(0, Ordering::SeqCst);
        assert_eq!(woken(), 2);
        assert!(one.poll(cx).is_ready() && other.poll(cx).is_ready());
        assert!(asked.as_mut().poll(cx).is_pending());
        woken();
        requests.end(0, requests.begin());
        assert_eq!(woken(), 1);
        assert!(asked.as_mut().poll(cx).is_pending(), "a sink is missing");
        woken();
        requests.end(1, requests.begin());
        assert_eq!(woken(), 1);
        assert_eq!(asked.poll(cx), Poll::Ready(()));
    }

    #[test]
    fn a_waiter_that_is_dropped_leaves_nothing_behind() {
        let requests = Arc::new(FlushRequests::of(1));
        let counting = Arc::new(Counting(Arc::clone(&requests), AtomicU64::new(0)));
        for _ in 0..100 {
            let waker = Waker::from(Arc::clone(&counting));
            let waits = pin!(requests.requested());
            assert!(waits.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(Arc::strong_count(&counting), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_wake_up_is_lost_between_threads() {
        let requests = Arc::new(FlushRequests::of(1));
        let flushing = tokio::spawn({
            let requests = Arc::clone(&requests);
            async move {
                loop {
                    requests.requested().await;
                    requests.end(0, requests.begin());
                }
            }
        });
        let asking = (0..4).map(|_| {
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                for _ in 0..5_000 {
                    Arc::clone(&requests).request().await;
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        for asking in asking {
            let done = tokio::time::timeout(Duration::from_secs(60), asking).await;
            done.unwrap().unwrap();
        }
        flushing.abort();
    }
}
