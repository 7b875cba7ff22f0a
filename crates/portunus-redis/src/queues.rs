//! Requests that are made at the same time share a call of the script.
//!
//! The first request is sent at once. Those that come before it is answered wait, and go together in
//! the next call. A request does not wait if the call is complete, or if it has waited for long: then
//! all that wait are sent, although the call before them is not answered. So a request alone costs
//! nothing more, and many requests cost the server and the node less for each of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::{Batch, Waiter};
use crate::request::Request;

/// Which requests wait for each other: all, or on a cluster only equal ones, because a script can use
/// only one slot, and while that moves to another node only keys that are on the same one.
pub(crate) type Queue = Option<Arc<Request>>;

/// The requests that wait in each queue. A queue exists while a call is on its way.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<HashMap<Queue, Batch>>);

/// What happens with a request that joins the others.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is sent at once, and then [`Queues::next`] or [`Queues::end`] must be called.
    First(Batch),
    /// It waits for the next call.
    Waits,
    /// It completed a call, which is sent now.
    Complete(Batch),
}

impl Queues {
    pub(crate) fn join(&self, queue: &Queue, request: &Arc<Request>, waiter: Waiter) -> Joined {
        match self.waiting().entry(queue.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Batch::default());
                Joined::First(Batch::of(request, waiter))
            }
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                waiting.add(request, waiter);
                if !waiting.is_complete() {
                    return Joined::Waits;
                }
                Joined::Complete(std::mem::take(waiting))
            }
        }
    }

    /// Takes the requests that wait, before the call before them is answered.
    pub(crate) fn take(&self, queue: &Queue) -> Batch {
        let mut waiting = self.waiting();
        waiting
            .get_mut(queue)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Takes the requests for the next call. If there are none, returns `None`, and the next request
    /// is a first one again.
    pub(crate) fn next(&self, queue: &Queue) -> Option<Batch> {
        let mut waiting = self.waiting();
        let batch = waiting.get_mut(queue).map(std::mem::take)?;
        if batch.is_empty() {
            waiting.remove(queue);
            return None;
        }
        Some(batch)
    }

    /// Forgets the requests that wait, which get no answer.
    pub(crate) fn end(&self, queue: &Queue) {
        self.waiting().remove(queue);
    }

    #[cfg(test)]
    pub(crate) fn are_none(&self) -> bool {
        self.waiting().is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Queue, Batch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
