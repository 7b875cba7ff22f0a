//! The listeners of a bus. One task tells them, in order, what it receives. A listener that
//! subscribed since receives [`Invalidation::everything`] first: `caught_up` also speaks of what was
//! published before it subscribed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use portunus::store::{Invalidation, InvalidationListener};

#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<Listener>>);

struct Listener {
    is_new: bool,
    who: Weak<dyn InvalidationListener>,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, who: Weak<dyn InvalidationListener>) {
        self.lock().push(Listener { is_new: true, who });
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells what this process publishes, besides what the task tells.
    pub(super) fn published(&self, what: &Invalidation) {
        let present = |listener: &Listener| listener.who.upgrade();
        let all: Vec<_> = self.lock().iter().filter_map(present).collect();
        all.iter().for_each(|listener| listener.invalidated(what));
    }

    /// Tells what the task received.
    pub(super) fn changed(&self, what: &Invalidation) {
        for listener in self.present() {
            listener.invalidated(what);
        }
    }

    /// Tells that the task has received everything that was published before this moment.
    pub(super) fn caught_up(&self, as_of: Instant) {
        for listener in self.present() {
            listener.caught_up(as_of);
        }
    }

    /// Returns all listeners; new ones were told `everything`. Those that were dropped are removed.
    fn present(&self) -> Vec<Arc<dyn InvalidationListener>> {
        let mut present = Vec::new();
        self.lock().retain_mut(|listener| {
            let who = listener.who.upgrade();
            let stays = who.is_some();
            present.extend(who.map(|who| (who, std::mem::take(&mut listener.is_new))));
            stays
        });
        // Without the lock: a listener may subscribe another one.
        let told = |(who, is_new): (Arc<dyn InvalidationListener>, bool)| {
            if is_new {
                who.invalidated(&Invalidation::everything());
            }
            who
        };
        present.into_iter().map(told).collect()
    }
}
