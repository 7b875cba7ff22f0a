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
            let requests = u16::try_from(group.len()).unwrap_or(u16::MAX);
            let call = Call {
                script: &self.script,
                keys: &request.keys,
                first: &request.asked_by(requests),
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
