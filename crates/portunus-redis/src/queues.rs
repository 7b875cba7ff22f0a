//! Requests that are made at the same time share a call of the script.
//!
//! The first request is sent at once. Those that come before it is answered wait, and go together in
//! the next call. A request does not wait if the call is complete, or if it has waited for long: then
//! all that wait are sent, although the call before them is not answered. So a request alone costs
//! nothing more, and many requests cost the server and the node less for each of them.
//!
//! As long as any call is on its way, no request is sent alone: those of a call that was answered may
//! ask again at once, and would otherwise go as one and the rest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;
use crate::request::Request;
use crate::waiter::Waiter;

/// Which requests wait for each other: all, or on a cluster only equal ones, because a script can use
/// only one slot, and while that moves to another node only keys that are on the same one.
pub(crate) type Queue = Option<Arc<Request>>;

/// The requests that wait in each queue. A queue exists while a call is on its way.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<HashMap<Queue, Waiting>>);

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    /// The calls on their way that are waited for: for each, [`Queues::next`] or [`Queues::end`] must be
    /// called.
    calls: usize,
}

/// What happens with a request that joins the others.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is sent at once, in a call.
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
                vacant.insert(Waiting {
                    batch: Batch::default(),
                    calls: 1,
                });
                Joined::First(Batch::of(request, waiter))
            }
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                waiting.batch.add(request, waiter);
                if !waiting.batch.is_complete() {
                    return Joined::Waits;
                }
                waiting.calls += 1;
                Joined::Complete(std::mem::take(&mut waiting.batch))
            }
        }
    }

    /// Takes the requests that wait for one more call, before the calls before them are answered.
    /// Returns `None` if there are none. Only this call is waited for from now on: the others are slow,
    /// or the host does not poll what sent them, and nothing may wait for that again and again.
    pub(crate) fn take(&self, queue: &Queue) -> Option<Batch> {
        let mut all = self.waiting();
        let waiting = all
            .get_mut(queue)
            .filter(|waiting| !waiting.batch.is_empty())?;
        waiting.calls = 1;
        Some(std::mem::take(&mut waiting.batch))
    }

    /// Takes the requests for the call after one that was answered. If there are none, returns `None`,
    /// and if no other call is on its way, the next request is a first one again.
    pub(crate) fn next(&self, queue: &Queue) -> Option<Batch> {
        let mut all = self.waiting();
        let waiting = all.get_mut(queue)?;
        if waiting.batch.is_empty() {
            waiting.calls -= 1;
            if waiting.calls == 0 {
                all.remove(queue);
            }
            return None;
        }
        Some(std::mem::take(&mut waiting.batch))
    }

    /// Returns how many requests wait.
    pub(crate) fn waiting_in(&self, queue: &Queue) -> usize {
        let all = self.waiting();
        all.get(queue).map_or(0, |waiting| waiting.batch.len())
    }

    /// Forgets the requests that wait, which get no answer.
    pub(crate) fn end(&self, queue: &Queue) {
        // What is woken by this may join a queue.
        let forgotten = self.waiting().remove(queue);
        drop(forgotten);
    }

    #[cfg(test)]
    pub(crate) fn are_none(&self) -> bool {
        self.waiting().is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Queue, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use portunus::limit::{BucketId, LimitBucket, LimitRequest};
    use portunus::quota::{Quota, Quotas};
    use tokio::time::Instant;

    use super::*;

    fn join(queues: &Queues, name: &str) -> Joined {
        let quotas = Quotas::new([Quota::per_minute(9).unwrap()]).unwrap();
        let bucket = [LimitBucket::new(BucketId::Custom(name), &quotas)];
        let request = Request::new(&LimitRequest::new(&bucket, 1), "p", false);
        let (waiter, _) = Waiter::until(Instant::now() + Duration::from_secs(9));
        queues.join(&None, &Arc::new(request.unwrap().unwrap()), waiter)
    }

    #[test]
    fn no_request_is_sent_alone_while_a_call_is_on_its_way() {
        let queues = Queues::default();
        assert!(matches!(join(&queues, "a"), Joined::First(_)));
        let mut complete = 0;
        for name in 0..20 {
            match join(&queues, &name.to_string()) {
                Joined::First(_) => panic!("{name} is sent alone"),
                Joined::Waits => {}
                Joined::Complete(batch) => complete = batch.len(),
            }
        }
        assert_eq!(complete, 16);
        // Those that wait go with the call after the first, beside the complete one.
        assert_eq!(queues.next(&None).unwrap().len(), 4);
        assert!(queues.take(&None).is_none());
        assert!(queues.next(&None).is_none(), "nothing waits");
        assert!(matches!(join(&queues, "b"), Joined::Waits));
        assert_eq!(queues.next(&None).unwrap().len(), 1);
        assert!(!queues.are_none());
        assert!(queues.next(&None).is_none() && queues.are_none());
        assert!(matches!(join(&queues, "c"), Joined::First(_)));
    }

    #[test]
    fn a_call_whose_sender_is_not_polled_is_waited_for_once() {
        let queues = Queues::default();
        assert!(matches!(join(&queues, "stalled"), Joined::First(_)));
        assert!(matches!(join(&queues, "a"), Joined::Waits));
        assert_eq!(queues.take(&None).unwrap().len(), 1);
        assert!(queues.next(&None).is_none() && queues.are_none());
        assert!(matches!(join(&queues, "b"), Joined::First(_)));
        assert!(matches!(join(&queues, "c"), Joined::Waits));
        // It ends, late: nobody is forgotten.
        assert_eq!(queues.next(&None).unwrap().len(), 1);
        assert!(queues.next(&None).is_none() && queues.are_none());
        assert!(queues.next(&None).is_none());
    }
}
