//! A single check: runs on its own thread if possible, and is dropped when its time is over or one
//! of its calls does not return.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::calls::{Calls, Fault, caught};
use crate::report::{Checked, Checking};

/// How a check ended.
pub(super) enum Ended {
    Done(Checked),
    Panicked(String),
    /// A call of its subject hung or panicked.
    Fault(Fault),
    /// Its time was over.
    Late,
}

/// Runs a check to its end.
pub(super) async fn ended(check: Checking, calls: &Calls, limit: Duration) -> Ended {
    let (stop, stopped) = oneshot::channel::<()>();
    let (sender, receiver) = oneshot::channel();
    let check = async move {
        if let Some(outcome) = first(caught(check), stopped).await {
            // If the receiver is gone, the check was already ended.
            let _ = sender.send(outcome);
        }
    };
    let runtime = Handle::current();
    let has_threads = runtime.runtime_flavor() != RuntimeFlavor::CurrentThread;
    if has_threads {
        thread::spawn(move || runtime.block_on(check));
    } else {
        runtime.spawn(check);
    }
    let (alarm, _awake) = alarm(limit, has_threads);
    let answer = async {
        match receiver.await {
            Ok(outcome) => outcome.map_or_else(Ended::Panicked, Ended::Done),
            Err(_) => Ended::Panicked("the check was dropped with its runtime".into()),
        }
    };
    let fault = async { Ended::Fault(calls.fault().await) };
    let outcome = first(first_of(answer, fault), alarm).await;
    drop(stop);
    // The outcome of a check is void if one of its calls did not return.
    match calls.first_fault() {
        Some(fault) => Ended::Fault(fault),
        None => outcome.unwrap_or(Ended::Late),
    }
}

/// Ends after a time limit. On a multi-threaded runtime it uses its own thread, since every runtime
/// thread may be blocked. That thread ends when the returned sender is dropped.
fn alarm(limit: Duration, has_threads: bool) -> (impl Future<Output = ()>, mpsc::Sender<()>) {
    let (awake, asleep) = mpsc::channel();
    let (ring, rung) = oneshot::channel::<()>();
    if has_threads {
        thread::spawn(move || {
            let _ = asleep.recv_timeout(limit);
            drop(ring);
        });
    }
    let alarm = async move {
        if has_threads {
            let _ = rung.await;
        } else {
            tokio::time::sleep(limit).await;
        }
    };
    (alarm, awake)
}

/// The output of a future, unless the other one ends first.
async fn first<T>(future: impl Future<Output = T>, end: impl Future) -> Option<T> {
    first_of(async { Some(future.await) }, async {
        end.await;
        None
    })
    .await
}

async fn first_of<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Pending => other.as_mut().poll(context),
        ready @ Poll::Ready(_) => ready,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::calls::Hangs;
    use super::*;

    /// The thread of the check stays blocked; neither the suite nor the runtime waits for it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_call_that_blocks_its_thread_is_named_and_stops_no_other_check() {
        let limit = Duration::from_millis(50);
        let calls = Calls::new(&Hangs::default());
        let blocking = calls.clone();
        let check = Box::pin(async move {
            blocking
                .call("find", async { thread::sleep(Duration::MAX) })
                .await;
            Ok(())
        });
        assert!(matches!(ended(check, &calls, limit).await, Ended::Late));
        // On a loaded machine its thread may not have started yet.
        let began = std::time::Instant::now();
        while calls.running(limit).is_none() && began.elapsed() < Duration::from_secs(30) {
            thread::sleep(limit);
        }
        assert_eq!(calls.running(limit), Some("find"));
        let next = Box::pin(async { Ok(()) });
        let next = ended(
            next,
            &Calls::new(&Hangs::default()),
            Duration::from_secs(30),
        )
        .await;
        assert!(matches!(next, Ended::Done(Ok(()))));
    }
}
