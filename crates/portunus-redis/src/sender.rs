//! Sends requests to the script, each alone or together with others ([`Queues`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use crate::RedisError;
use crate::batch::Batch;
use crate::client::Client;
use crate::queues::{Joined, Queue, Queues};
use crate::request::Request;
use crate::script::{Call, Script};
use crate::waiter::{Answer, Waiter, Wakers};

/// A request waits for this part of its deadline until others are answered, and is then sent.
const PATIENCE: u32 = 16;

/// How often other tasks may run before the next call is sent.
const TURNS: usize = 4;

/// The time after which they may not run once more: about as long as those of a large call take to ask
/// again. On a busy node, it is over after the first turn.
const LONG: Duration = Duration::from_micros(100);

pub(crate) struct Sender {
    pub(crate) client: Client,
    script: Script,
    queues: Queues,
    /// The runtime of the connections. What is sent there does not depend on who asked for it.
    home: Handle,
}

impl Sender {
    /// Panics outside of a Tokio runtime.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            script: Script::new(include_str!("limit.lua")),
            queues: Queues::default(),
            home: Handle::current(),
        }
    }

    /// Sends a request and waits for the answer, until the deadline.
    pub(crate) async fn alone(&self, request: &Arc<Request>) -> Answer {
        let (waiter, answer) = Waiter::until(Instant::now() + self.client.deadline);
        drop(self.call(Batch::of(request, waiter)).await);
        answer.await.unwrap_or_else(|| Err(self.unanswered()))
    }

    /// Sends a request, together with others if a call is on its way, and waits for the answer, until
    /// the deadline.
    pub(crate) async fn together(self: &Arc<Self>, request: &Arc<Request>) -> Answer {
        let deadline = self.client.deadline;
        let ends = Instant::now() + deadline;
        let queue = self.client.is_cluster.then(|| Arc::clone(request));
        let (waiter, mut answer) = Waiter::until(ends);
        match self.queues.join(&queue, request, waiter) {
            Joined::First(batch) => {
                let _first = First {
                    sender: self,
                    queue: &queue,
                };
                drop(self.call(batch).await);
            }
            Joined::Complete(batch) => self.send(queue, batch),
            Joined::Waits => match timeout(deadline / PATIENCE, &mut answer).await {
                Ok(answered) => return answered.unwrap_or_else(|| Err(self.unanswered())),
                Err(_) => {
                    if let Some(batch) = self.queues.take(&queue) {
                        self.send(queue, batch);
                    }
                }
            },
        }
        match timeout_at(ends, answer).await {
            Ok(Some(answered)) => answered,
            _ => Err(self.unanswered()),
        }
    }

    fn unanswered(&self) -> RedisError {
        let deadline = self.client.deadline;
        RedisError::Unavailable(format!("there was no answer within {deadline:?}"))
    }

    /// Sends requests, and those that wait for their answer, whatever happens to those who asked for
    /// it.
    fn send(self: &Arc<Self>, queue: Queue, batch: Batch) {
        let calls = Calls {
            sender: Arc::clone(self),
            queue,
            are_over: false,
        };
        self.home.spawn(calls.send(batch));
    }

    /// Calls the script for requests, and answers those whose sender still waits. Returns what wakes
    /// these.
    async fn call(&self, mut batch: Batch) -> Wakers {
        // How many were sent when the server said that they are too late.
        let mut late = 0;
        let error = loop {
            let Some((first, last)) = batch.keep_waiting(Instant::now()) else {
                return Wakers::default();
            };
            let (keys, asked) = batch.packed();
            let call = Call {
                script: &self.script,
                keys: &keys,
                asked: &asked,
                args: &[],
                // What a sender has given up must not count.
                until: first,
            };
            let (replies, node) = match self.client.decide(last, call).await {
                Ok(answer) => answer,
                Err(error) => break error,
            };
            let too_late = match &replies[..] {
                [Ok(reply)] => reply.too_late(),
                _ => None,
            };
            let Some(time) = too_late else {
                return batch.answer(replies);
            };
            // Once more without those that are late. If none is, the server's clock was set forward:
            // once more with the time that the server returned.
            node.learn_clock(time);
            if late == batch.len() {
                let why = "the request reached the server too late";
                break RedisError::Unavailable(why.to_owned());
            }
            late = batch.len();
        };
        batch.fail(&error)
    }
}

/// The first request of a queue. When it is answered, or its sender gives up, those that wait for it
/// are sent.
struct First<'a> {
    sender: &'a Arc<Sender>,
    queue: &'a Queue,
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.sender.queues.next(self.queue) {
            self.sender.send(self.queue.clone(), batch);
        }
    }
}

/// Call after call, until no request of the queue waits.
struct Calls {
    sender: Arc<Sender>,
    queue: Queue,
    are_over: bool,
}

impl Calls {
    async fn send(mut self, mut batch: Batch) {
        loop {
            let answered = self.sender.call(batch).await;
            let senders = answered.len();
            answered.wake().await;
            self.gather(senders).await;
            match self.sender.queues.next(&self.queue) {
                Some(next) => batch = next,
                None => {
                    self.are_over = true;
                    return;
                }
            }
        }
    }

    /// Lets those that were answered ask again, which many do at once, so that they go together. On an
    /// idle node another thread wakes for some of them, which takes longer than one turn of this task.
    async fn gather(&self, senders: usize) {
        let answered = Instant::now();
        for _ in 0..TURNS {
            yield_now().await;
            let wait = self.sender.queues.waiting_in(&self.queue);
            if wait >= senders || answered.elapsed() > LONG {
                return;
            }
        }
    }
}

/// If the task does not end by itself, because its runtime is shut down, no request waits for it.
impl Drop for Calls {
    fn drop(&mut self) {
        if !self.are_over {
            self.sender.queues.end(&self.queue);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use portunus::limit::{BucketId, LimitBucket, LimitRequest};
    use portunus::quota::{Quota, Quotas};
    use portunus_test_support::redis::Redis as Server;
    use tokio::time::sleep;

    use super::*;

    fn quotas() -> Quotas {
        Quotas::new([Quota::per_minute(9).unwrap()]).unwrap()
    }

    fn bucket(quotas: &Quotas) -> [LimitBucket<'_>; 1] {
        [LimitBucket::new(BucketId::Custom("b"), quotas)]
    }

    async fn sender(server: &Server) -> (Arc<Sender>, Arc<Request>) {
        let redis = crate::Redis::single(&server.address()).unwrap();
        let client = redis.deadline(Duration::from_secs(5)).connect();
        // The time of the server is known.
        client.node_of(b"b").await.unwrap().link().await.unwrap();
        let (sender, quotas) = (Arc::new(Sender::new(client)), quotas());
        let bucket = bucket(&quotas);
        (sender, request(&bucket))
    }

    fn request(buckets: &[LimitBucket<'_>]) -> Arc<Request> {
        let request = Request::new(&LimitRequest::new(buckets, 1), "p", false);
        Arc::new(request.unwrap().unwrap())
    }

    fn left(answer: Answer) -> u64 {
        let (quotas, (reply, place)) = (quotas(), answer.unwrap());
        let decided = reply.decision(&LimitRequest::new(&bucket(&quotas), 1), place);
        decided.unwrap().0.windows()[0].remaining()
    }

    /// A group has the deadline of its earliest request, as far as its units count. The others are
    /// then sent without it.
    #[tokio::test]
    async fn a_request_whose_sender_gave_up_is_not_counted_and_delays_no_other() {
        let server = Server::start();
        let (sender, request) = sender(&server).await;
        let ends = |millis| Waiter::until(Instant::now() + Duration::from_millis(millis));
        for turn in 0..3 {
            let (waiters, mut answers): (Vec<_>, Vec<_>) =
                [5_000, 60, 5_000, 120].map(ends).into_iter().unzip();
            let mut batch = Batch::default();
            for waiter in waiters {
                batch.add(&request, waiter);
            }
            server.pause();
            let sent = {
                let sender = Arc::clone(&sender);
                tokio::spawn(async move { drop(sender.call(batch).await) })
            };
            sleep(Duration::from_millis(200)).await;
            server.resume();
            sent.await.unwrap();
            assert!(answers.remove(3).await.is_none(), "it gave up");
            assert!(answers.remove(1).await.is_none(), "it gave up");
            for (place, answer) in (1..).zip(answers) {
                assert_eq!(left(answer.await.unwrap()), 9 - 2 * turn - place);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_kept_of_requests_that_were_answered_or_given_up() {
        let server = Server::start();
        let (sender, one) = sender(&server).await;
        let quotas = quotas();
        let other = |name| request(&[LimitBucket::new(BucketId::Custom(name), &quotas)]);
        let requests = [one, other("c"), other("d")];
        for round in 0..20 {
            let ask = |place: usize| {
                let (sender, request) = (Arc::clone(&sender), Arc::clone(&requests[place % 3]));
                tokio::spawn(async move { sender.together(&request).await })
            };
            let asking: Vec<_> = (0..150_usize).map(ask).collect();
            // Half of them give up, the first one among these in some rounds.
            for task in asking.iter().skip(round % 2).step_by(2) {
                task.abort();
            }
            for (place, task) in asking.into_iter().enumerate() {
                match task.await {
                    Ok(answer) => drop(answer.unwrap()),
                    Err(_) => assert_eq!(place % 2, round % 2),
                }
            }
        }
        let idle = async || sender.queues.are_none().then_some(());
        let idle = portunus_test_support::wait::eventually_async(idle).await;
        assert!(idle.is_some(), "a request is waited for");
    }
}
