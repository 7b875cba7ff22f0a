//! One check as it runs: in a thread of its own where that is possible, and dropped when its time
//! is over or one of its calls gives no answer.

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
    /// By a call of its subject.
    Fault(Fault),
    /// Its time was over.
    Late,
}

/// Runs a check to its end.
pub(super) async fn ended(check: Checking, calls: &Calls, limit: Duration) -> Ended {
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    let check = async move {
        if let Some(outcome) = first(caught(check), stopped).await {
            // Who no longer listens has ended it.
            let _ = tell.send(outcome);
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
        match told.await {
            Ok(outcome) => outcome.map_or_else(Ended::Panicked, Ended::Done),
            Err(_) => Ended::Panicked("the check was dropped with its runtime".into()),
        }
    };
    let fault = async { Ended::Fault(calls.fault().await) };
    let outcome = first(first_of(answer, fault), alarm).await;
    drop(stop);
    // What a check says that had no answer from a call is no answer.
    match calls.first_fault() {
        Some(fault) => Ended::Fault(fault),
        None => outcome.unwrap_or(Ended::Late),
    }
}

/// Ends when a time is over. Where there are threads, by one of its own: no thread of the runtime
/// may be left to tell the time. That one ends with what is returned beside it.
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

/// The output of a future, unless another one ends before.
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
        // On a loaded machine its thread may begin only now.
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
