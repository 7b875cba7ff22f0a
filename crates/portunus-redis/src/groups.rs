//! Equal requests that are made at the same time share a call of the script, which decides them one
//! after the other.
//!
//! The first request is sent at once. Those that come before it is answered wait, and go together in
//! the next call. A request does not wait if the group is complete, or if it has waited for long: then
//! all that wait are sent, although the call before them is not answered. So a request alone costs
//! nothing more, and a key that many requests use costs the server less for each of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::RedisError;
use crate::reply::Reply;
use crate::request::Request;

/// The number of requests in a call.
const MOST_TOGETHER: usize = 64;

/// A request that waits for its decision.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// When its sender gives up.
    pub(crate) ends: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The reply to a group, and the place of a request in it.
pub(crate) type Answer = Result<(Arc<Reply>, u64), RedisError>;

impl Waiter {
    pub(crate) fn until(ends: Instant) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Self { ends, answer }, answered)
    }

    /// Whether its sender still waits for it.
    pub(crate) fn waits(&self, now: Instant) -> bool {
        self.ends > now && !self.answer.is_closed()
    }

    pub(crate) fn answer(self, answer: Answer) {
        // The sender may have given up meanwhile.
        let _ = self.answer.send(answer);
    }
}

/// The requests for which a call is on its way, and those that wait for the next one.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<Waiting>);

type Waiting = HashMap<Arc<Request>, Vec<Waiter>>;

/// What happens with a request that joins the others.
#[derive(Debug)]
pub(crate) enum Joined {
    /// There are none. It is sent, and then [`Groups::next`] or [`Groups::end`] must be called.
    First(Waiter),
    /// It waits for the next call.
    Waits,
    /// It completed a group, which is sent now.
    Complete(Vec<Waiter>),
}

impl Groups {
    pub(crate) fn join(&self, request: &Arc<Request>, waiter: Waiter) -> Joined {
        match self.waiting().entry(Arc::clone(request)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Vec::new());
                Joined::First(waiter)
            }
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                waiting.push(waiter);
                if waiting.len() < MOST_TOGETHER {
                    return Joined::Waits;
                }
                Joined::Complete(std::mem::take(waiting))
            }
        }
    }

    /// Takes the requests that wait, before the call before them is answered.
    pub(crate) fn take(&self, request: &Request) -> Vec<Waiter> {
        let mut waiting = self.waiting();
        waiting
            .get_mut(request)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Takes the requests for the next call. If there are none, returns `None`, and the next request
    /// is a first one again.
    pub(crate) fn next(&self, request: &Request) -> Option<Vec<Waiter>> {
        let mut waiting = self.waiting();
        let group = waiting.get_mut(request).map(std::mem::take)?;
        if group.is_empty() {
            waiting.remove(request);
            return None;
        }
        Some(group)
    }

    /// Forgets the requests that wait, which get no answer.
    pub(crate) fn end(&self, request: &Request) {
        self.waiting().remove(request);
    }

    #[cfg(test)]
    pub(crate) fn are_none(&self) -> bool {
        self.waiting().is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
