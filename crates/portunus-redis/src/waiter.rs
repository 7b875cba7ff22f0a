//! A request that waits for its decision. Those of a call are woken together.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::RedisError;
use crate::reply::Reply;

/// The reply to a group, and the place of a request in it.
pub(crate) type Answer = Result<(Arc<Reply>, u64), RedisError>;

/// A request that waits for its decision.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// When its sender gives up.
    pub(crate) ends: Instant,
    shared: Arc<Shared>,
}

/// What the sender waits for: the answer, or `None` if the waiter was dropped without one.
#[derive(Debug)]
pub(crate) struct Answered(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    answer: OnceLock<Option<Answer>>,
    waker: AtomicWaker,
}

impl Waiter {
    pub(crate) fn until(ends: Instant) -> (Self, Answered) {
        let shared = Arc::new(Shared::default());
        let answered = Answered(Arc::clone(&shared));
        (Self { ends, shared }, answered)
    }

    /// Whether its sender still waits for it.
    pub(crate) fn waits(&self, now: Instant) -> bool {
        self.ends > now && Arc::strong_count(&self.shared) > 1
    }

    /// Answers it. Returns what wakes its sender, unless that does not wait yet.
    pub(crate) fn answer(self, answer: Answer) -> Option<Waker> {
        // It has no answer before, because this takes it.
        let _ = self.shared.answer.set(Some(answer));
        self.shared.waker.take()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.shared.answer.set(None).is_ok() {
            self.shared.waker.wake();
        }
    }
}

impl Future for Answered {
    type Output = Option<Answer>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.waker.register(context.waker());
        match self.0.answer.get() {
            Some(answer) => Poll::Ready(answer.clone()),
            None => Poll::Pending,
        }
    }
}

/// What wakes the senders of requests that were answered. It does when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    pub(crate) fn new(wakers: Vec<Waker>) -> Self {
        Self(Mutex::new(wakers))
    }

    pub(crate) fn len(&self) -> usize {
        self.list().len()
    }

    /// Wakes all, and returns when that is done.
    ///
    /// A task that wakes others makes the runtime look for a thread that helps, for each of them. If
    /// that thread gets the same processor, it finds only one, and the next one costs as much: two
    /// changes of threads for each request. So the runtime wakes them in place of this task, which
    /// yields. It wakes such tasks when it has looked for I/O, and then looks for a helper once. Until
    /// then they wait for the other tasks of this thread: one that blocks it delays them.
    pub(crate) async fn wake(self) {
        let (all, mut yielding) = (Arc::new(self), pin!(yield_now()));
        let waker = Waker::from(Arc::clone(&all));
        let mut is_first = true;
        let yielded = std::future::poll_fn(|context| {
            if std::mem::take(&mut is_first) {
                all.list().push(context.waker().clone());
            }
            yielding.as_mut().poll(&mut Context::from_waker(&waker))
        });
        yielded.await;
    }

    fn list(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut *self.list());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        self.wake_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::reply::unexpected;

    fn waiter() -> (Waiter, Answered) {
        Waiter::until(Instant::now() + Duration::from_secs(9))
    }

    /// A task that waits for an answer and then counts. Returns once it waits.
    async fn waiting(answered: Answered, count: &Arc<AtomicUsize>) -> JoinHandle<bool> {
        let count = Arc::clone(count);
        let task = tokio::spawn(async move {
            let answer = answered.await;
            count.fetch_add(1, Ordering::Relaxed);
            answer.is_some()
        });
        yield_now().await;
        task
    }

    #[tokio::test]
    async fn an_answer_is_there_before_and_after_its_sender_waits() {
        let (one, answered) = waiter();
        assert!(one.waits(Instant::now()) && !one.waits(one.ends));
        assert!(one.answer(Err(unexpected())).is_none(), "nobody is woken");
        assert!(answered.await.unwrap().is_err());

        let (other, answered) = waiter();
        let task = waiting(answered, &Arc::default()).await;
        other.answer(Err(unexpected())).unwrap().wake();
        assert!(task.await.unwrap());

        let (given_up, answered) = waiter();
        drop(answered);
        assert!(!given_up.waits(Instant::now()));
    }

    #[tokio::test]
    async fn a_waiter_that_is_dropped_is_no_answer() {
        let (one, answered) = waiter();
        let task = waiting(answered, &Arc::default()).await;
        drop(one);
        assert!(!task.await.unwrap());
        let (other, answered) = waiter();
        drop(other);
        assert!(answered.await.is_none());
    }

    /// Also if the task that wakes them is aborted, before it begins or while it yields.
    #[tokio::test]
    async fn all_are_woken_and_run_before_the_task_that_yields_once_more() {
        for aborted_after in [None, Some(0), Some(1)] {
            let count = Arc::new(AtomicUsize::new(0));
            let (mut tasks, mut wakers) = (Vec::new(), Vec::new());
            for _ in 0..40 {
                let (waiter, answered) = waiter();
                tasks.push(waiting(answered, &count).await);
                wakers.extend(waiter.answer(Err(unexpected())));
            }
            assert_eq!((wakers.len(), count.load(Ordering::Relaxed)), (40, 0));
            let mut waking = Box::pin(Wakers::new(wakers).wake());
            if let Some(polls) = aborted_after {
                assert!((0..polls).all(|_| (&mut waking).now_or_never().is_none()));
                drop(waking);
            } else {
                waking.await;
                yield_now().await;
                assert_eq!(count.load(Ordering::Relaxed), 40);
            }
            for task in tasks {
                assert!(task.await.unwrap());
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_wake_is_lost_between_threads() {
        for round in 0..3_000 {
            let pairs: Vec<_> = (0..4).map(|_| waiter()).collect();
            let (waiters, answers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let tasks: Vec<_> = answers.into_iter().map(tokio::spawn).collect();
            let answering = tokio::spawn(async move {
                let answer = |waiter: Waiter| waiter.answer(Err(unexpected()));
                let wakers = waiters.into_iter().filter_map(answer).collect();
                Wakers::new(wakers).wake().await;
            });
            for task in tasks {
                let answer = tokio::time::timeout(Duration::from_secs(9), task).await;
                let answer = answer.unwrap_or_else(|_| panic!("round {round}: not woken"));
                assert!(answer.unwrap().is_some());
            }
            answering.await.unwrap();
        }
    }
}
