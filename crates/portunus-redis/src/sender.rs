//! Sends requests to the script, each alone or together with equal ones ([`Groups`]).

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use crate::RedisError;
use crate::client::Client;
use crate::groups::{Answer, Groups, Joined, Waiter};
use crate::reply::Reply;
use crate::request::Request;
use crate::script::{Call, Script};

/// A request waits for this part of its deadline until others are answered, and is then sent.
const PATIENCE: u32 = 16;

pub(crate) struct Sender {
    pub(crate) client: Client,
    script: Script,
    groups: Groups,
    /// The runtime of the connections. What is sent there does not depend on who asked for it.
    home: Handle,
}

impl Sender {
    /// Panics outside of a Tokio runtime.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            script: Script::new(include_str!("limit.lua")),
            groups: Groups::default(),
            home: Handle::current(),
        }
    }

    /// Sends a request and waits for the answer, until the deadline.
    pub(crate) async fn alone(&self, request: &Request) -> Answer {
        let (waiter, answer) = Waiter::until(Instant::now() + self.client.deadline);
        self.call(request, vec![waiter]).await;
        answer.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// Sends a request, together with equal ones if one of those is on its way, and waits for the
    /// answer, until the deadline.
    pub(crate) async fn with_equal(self: &Arc<Self>, request: &Arc<Request>) -> Answer {
        let deadline = self.client.deadline;
        let ends = Instant::now() + deadline;
        let (waiter, mut answer) = Waiter::until(ends);
        match self.groups.join(request, waiter) {
            Joined::First(waiter) => {
                let _first = First {
                    sender: self,
                    request,
                };
                self.call(request, vec![waiter]).await;
            }
            Joined::Complete(group) => self.send(request, group),
            Joined::Waits => match timeout(deadline / PATIENCE, &mut answer).await {
                Ok(answered) => return answered.unwrap_or_else(|_| Err(self.unanswered())),
                Err(_) => self.send(request, self.groups.take(request)),
            },
        }
        match timeout_at(ends, answer).await {
            Ok(Ok(answered)) => answered,
            _ => Err(self.unanswered()),
        }
    }

    fn unanswered(&self) -> RedisError {
        let deadline = self.client.deadline;
        RedisError::Unavailable(format!("there was no answer within {deadline:?}"))
    }

    /// Sends requests, whatever happens to those who asked for it.
    fn send(self: &Arc<Self>, request: &Arc<Request>, group: Vec<Waiter>) {
        if !group.is_empty() {
            let (sender, request) = (Arc::clone(self), Arc::clone(request));
            self.home
                .spawn(async move { sender.call(&request, group).await });
        }
    }

    /// Calls the script for requests, and answers those whose sender still waits.
    async fn call(&self, request: &Request, mut group: Vec<Waiter>) {
        // How many were sent when the server said that they are too late.
        let mut late = 0;
        let error = loop {
            let now = Instant::now();
            group.retain(|waiter| waiter.waits(now));
            let ends = group.iter().map(|waiter| waiter.ends);
            let (Some(first), Some(last)) = (ends.clone().min(), ends.max()) else {
                return;
            };
            let requests = match request.reads {
                true => 0,
                false => u16::try_from(group.len()).unwrap_or(u16::MAX),
            };
            let call = Call {
                script: &self.script,
                keys: &request.keys,
                first: [&requests.to_le_bytes(), &request.asks],
                args: &[],
                // What a sender has given up must not count.
                until: first,
            };
            let (reply, node) = match self.client.run(last, call).await {
                Ok((value, node)) => (Reply::of(value), node),
                Err(error) => break error,
            };
            let reply = match reply {
                Ok(reply) => reply,
                Err(error) => break error,
            };
            let Some(time) = reply.too_late() else {
                let reply = Arc::new(reply);
                for (place, waiter) in (0..).zip(group) {
                    waiter.answer(Ok((Arc::clone(&reply), place)));
                }
                return;
            };
            // Once more without those that are late. If none is, the server's clock was set forward:
            // once more with the time that the server returned.
            node.learn_clock(time);
            if late == group.len() {
                let why = "the request reached the server too late";
                break RedisError::Unavailable(why.to_owned());
            }
            late = group.len();
        };
        for waiter in group {
            waiter.answer(Err(error.clone()));
        }
    }
}

/// The first of equal requests. When it is answered, or its sender gives up, those that wait for it
/// are sent.
struct First<'a> {
    sender: &'a Arc<Sender>,
    request: &'a Arc<Request>,
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.sender.groups.next(self.request) {
            let rest = Rest {
                sender: Arc::clone(self.sender),
                request: Arc::clone(self.request),
                is_over: false,
            };
            self.sender.home.spawn(rest.send(group));
        }
    }
}

/// The requests that wait for an equal one: group after group, until none waits.
struct Rest {
    sender: Arc<Sender>,
    request: Arc<Request>,
    is_over: bool,
}

impl Rest {
    async fn send(mut self, mut group: Vec<Waiter>) {
        loop {
            self.sender.call(&self.request, group).await;
            // Those that were answered may ask again at once, and then go together.
            yield_now().await;
            match self.sender.groups.next(&self.request) {
                Some(next) => group = next,
                None => {
                    self.is_over = true;
                    return;
                }
            }
        }
    }
}

/// If the task does not end by itself, because its runtime is shut down, no request waits for it.
impl Drop for Rest {
    fn drop(&mut self) {
        if !self.is_over {
            self.sender.groups.end(&self.request);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

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
        let request = Request::new(&LimitRequest::new(&bucket, 1), "p", false);
        let request = request.unwrap().unwrap();
        (sender, Arc::new(request))
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
            server.pause();
            let sent = {
                let (sender, request) = (Arc::clone(&sender), Arc::clone(&request));
                tokio::spawn(async move { sender.call(&request, waiters).await })
            };
            sleep(Duration::from_millis(200)).await;
            server.resume();
            sent.await.unwrap();
            assert!(answers.remove(3).await.is_err(), "it gave up");
            assert!(answers.remove(1).await.is_err(), "it gave up");
            for (place, answer) in (1..).zip(answers) {
                assert_eq!(left(answer.await.unwrap()), 9 - 2 * turn - place);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_kept_of_requests_that_were_answered_or_given_up() {
        let server = Server::start();
        let (sender, request) = sender(&server).await;
        for round in 0..20 {
            let ask = |_| {
                let (sender, request) = (Arc::clone(&sender), Arc::clone(&request));
                tokio::spawn(async move { sender.with_equal(&request).await })
            };
            let asking: Vec<_> = (0..150).map(ask).collect();
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
        let idle = async || sender.groups.are_none().then_some(());
        let idle = portunus_test_support::wait::eventually_async(idle).await;
        assert!(idle.is_some(), "a request is waited for");
    }
}
