//! The listeners of a bus, and what a new listener receives first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use portunus::clock::{Clock, SystemClock};
use portunus::store::{Invalidation, InvalidationListener};

/// The listeners of a bus.
///
/// A single task forwards what it receives to them, in order. A new listener receives
/// [`Invalidation::everything`] before anything else from the task: a `caught_up` also covers what
/// was published before the listener subscribed.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<Listener>>);

struct Listener {
    who: Weak<dyn InvalidationListener>,
    is_new: bool,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self, who: Weak<dyn InvalidationListener>) {
        let mut all = self.lock();
        all.retain(|known| known.who.strong_count() > 0);
        all.push(Listener { who, is_new: true });
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Forwards what this process published, in addition to what the task forwards.
    pub(super) fn published(&self, what: &Invalidation) {
        let all: Vec<_> = self
            .lock()
            .iter()
            .filter_map(|listener| listener.who.upgrade())
            .collect();
        all.iter().for_each(|listener| listener.invalidated(what));
    }

    /// All listeners, for the task; new ones have received `everything`.
    fn all(&self) -> Vec<Arc<dyn InvalidationListener>> {
        let (mut all, mut new) = (Vec::new(), Vec::new());
        self.lock()
            .retain_mut(|listener| match listener.who.upgrade() {
                Some(who) => {
                    if std::mem::take(&mut listener.is_new) {
                        new.push(Arc::clone(&who));
                    }
                    all.push(who);
                    true
                }
                None => false,
            });
        new.iter()
            .for_each(|listener| listener.invalidated(&Invalidation::everything()));
        all
    }

    /// Forwards what the task received.
    pub(super) fn invalidated(&self, what: &Invalidation) {
        self.all()
            .iter()
            .for_each(|listener| listener.invalidated(what));
    }

    /// Reports that the task has received everything that was published before this time of a clock
    /// that does not stop while the machine sleeps.
    pub(super) fn caught_up(&self, clock: &SystemClock, then: Duration) {
        // Read first: a process that is suspended in between gets an earlier time.
        let now = Instant::now();
        let Some(as_of) = now.checked_sub(clock.monotonic().saturating_sub(then)) else {
            return;
        };
        self.all()
            .iter()
            .for_each(|listener| listener.caught_up(as_of));
    }
}
