//! Who hears, and what somebody who came late hears first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use portunus::store::{Invalidation, InvalidationListener};

/// The listeners of a bus.
///
/// One task tells them what it hears, in order. A listener that is new hears
/// [`Invalidation::everything`] before anything else from it: a `caught_up` also speaks of what was
/// published before the listener came.
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

    /// Tells what somebody in this process published, beside what the task tells.
    pub(super) fn published(&self, what: &Invalidation) {
        let all: Vec<_> = self
            .lock()
            .iter()
            .filter_map(|listener| listener.who.upgrade())
            .collect();
        all.iter().for_each(|listener| listener.invalidated(what));
    }

    /// All of them, for the task; those that are new have been told of everything.
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

    /// Tells what the task heard.
    pub(super) fn invalidated(&self, what: &Invalidation) {
        self.all()
            .iter()
            .for_each(|listener| listener.invalidated(what));
    }

    /// Tells that the task has heard everything that was published this long ago.
    pub(super) fn caught_up(&self, age: Duration) {
        self.all()
            .iter()
            .for_each(|listener| listener.caught_up(age));
    }
}
