//! A listener that records what it receives and when, and what it must have received by then.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::report::{Checked, Failure};
use portunus::key::TenantId;
use portunus::store::{Invalidation, InvalidationBus, InvalidationListener};

/// The first `caught_up` may take this many times the bound, since the bus may have to connect.
const FIRST: u32 = 5;
/// The polling interval.
pub(super) const EVERY: Duration = Duration::from_millis(1);

/// The most of a step of waiting that counts: what is longer, the machine or the process stood still.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// A time limit while something is polled. In any case, it is over after four times as long.
struct Limit {
    left: Duration,
    last: Instant,
    ends: Instant,
}

impl Limit {
    fn new(longest: Duration) -> Self {
        let last = Instant::now();
        Self {
            left: longest,
            last,
            ends: last + longest * 4,
        }
    }

    /// Waits until the next look. Returns whether the time limit was over before.
    async fn passes(&mut self) -> bool {
        let is_over = self.left.is_zero() || self.last >= self.ends;
        tokio::time::sleep(EVERY).await;
        let step = self.last.elapsed().min(LONGEST_STEP);
        (self.left, self.last) = (self.left.saturating_sub(step), Instant::now());
        is_over
    }
}

/// A change by a node.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) began: Instant,
    /// From then on it counts as published; `None` if it was not acknowledged.
    pub(super) acknowledged: Option<Instant>,
    pub(super) what: Invalidation,
}

#[derive(Debug, Clone)]
enum Received {
    Changed(Invalidation),
    /// Everything that was published before this moment.
    All(Instant),
}

/// Records everything received so far.
#[derive(Debug)]
pub(super) struct RecordingListener {
    received: Mutex<Vec<(Instant, Received)>>,
    /// When the bus had registered it. Earlier changes are of no interest to it.
    since: Mutex<Instant>,
    is_lossless: bool,
}

impl InvalidationListener for RecordingListener {
    fn invalidated(&self, what: &Invalidation) {
        self.received
            .lock()
            .push((Instant::now(), Received::Changed(what.clone())));
    }

    fn caught_up(&self, as_of: Instant) {
        self.received
            .lock()
            .push((Instant::now(), Received::All(as_of)));
    }
}

impl RecordingListener {
    pub(super) fn on(bus: &dyn InvalidationBus) -> Arc<Self> {
        let (received, since) = (Mutex::default(), Mutex::new(Instant::now()));
        let listener = Arc::new(Self {
            received,
            since,
            is_lossless: bus.is_lossless(),
        });
        let weak: Weak<Self> = Arc::downgrade(&listener);
        bus.subscribe(weak);
        *listener.since.lock() = Instant::now();
        listener
    }

    /// The number of `caught_up` calls, and the latest moment that they cover.
    pub(super) fn proofs(&self) -> (usize, Option<Instant>) {
        let received = self.received.lock();
        let proofs = received.iter().filter_map(|(_, received)| match received {
            Received::All(as_of) => Some(*as_of),
            Received::Changed(_) => None,
        });
        (proofs.clone().count(), proofs.max())
    }

    /// Whether `caught_up` covers everything up to this moment. On a lossless bus a single call is
    /// enough.
    fn covers(&self, moment: Instant) -> bool {
        let (count, latest) = self.proofs();
        latest.is_some_and(|latest| latest > moment) || (self.is_lossless && count > 0)
    }

    /// Whether it was registered before a change began.
    pub(super) fn was_registered_before(&self, change: &Change) -> bool {
        change.began >= *self.since.lock()
    }

    /// Waits until `caught_up` covers everything up to now.
    pub(super) async fn wait_until_current(&self, longest: Duration) -> Checked {
        self.wait_until_covered(Instant::now(), longest).await
    }

    /// Waits until `caught_up` covers everything up to this moment.
    async fn wait_until_covered(&self, moment: Instant, longest: Duration) -> Checked {
        let mut limit = Limit::new(longest);
        while !self.covers(moment) {
            ensure!(
                !limit.passes().await,
                "caught_up was not called in time for {longest:?}, {}",
                self.shown()
            );
        }
        Ok(())
    }

    /// The same for several listeners, where connections may have to be made.
    pub(super) async fn all_catch_up(listeners: &[Arc<Self>], bound: Duration) -> Checked {
        let now = Instant::now();
        for listener in listeners {
            listener.wait_until_covered(now, bound * FIRST).await?;
        }
        Ok(())
    }

    /// Waits until each acknowledged change was received.
    pub(super) async fn receives(&self, changes: &[Change], longest: Duration) -> Checked {
        let mut limit = Limit::new(longest);
        for change in changes
            .iter()
            .filter(|change| change.acknowledged.is_some())
        {
            while self.place_of(change).is_none() {
                ensure!(
                    !limit.passes().await,
                    "{} was not received within {longest:?}, {}",
                    shown(&change.what),
                    self.shown()
                );
            }
        }
        Ok(())
    }

    /// The index of the entry that completes a change.
    fn place_of(&self, change: &Change) -> Option<usize> {
        let mut keys: HashSet<_> = change.what.keys.iter().collect();
        let mut known: HashSet<_> = change.what.known.iter().collect();
        let mut tenants: HashSet<_> = change.what.tenants.iter().collect();
        let received = self.received.lock();
        received.iter().position(|(at, received)| match received {
            // An entry before the change began does not refer to it.
            Received::Changed(what) if *at >= change.began => {
                for id in &what.keys {
                    keys.remove(id);
                }
                for fingerprint in &what.known {
                    known.remove(fingerprint);
                }
                what.tenants.iter().for_each(|tenant| {
                    tenants.remove(tenant);
                });
                let complete = keys.is_empty() && known.is_empty() && tenants.is_empty();
                what.everything || (complete && !change.what.everything)
            }
            Received::Changed(_) | Received::All(_) => false,
        })
    }

    /// Checks that every change acknowledged before a moment that `caught_up` covers was received
    /// before that call.
    pub(super) fn caught_up_was_correct(&self, changes: &[Change]) -> Checked {
        let since = *self.since.lock();
        let begun = changes.iter().filter(|change| change.began >= since);
        let places: Vec<_> = begun
            .map(|change| (change, self.place_of(change)))
            .collect();
        let mut wrong = Vec::new();
        for (place, (_, received)) in self.received.lock().iter().enumerate() {
            let Received::All(proven) = received else {
                continue;
            };
            let missed = |(change, received): &(&Change, Option<usize>)| {
                let before = proven
                    .checked_duration_since(change.acknowledged?)
                    .filter(|before| !before.is_zero())?;
                (received.is_none_or(|received| received > place))
                    .then(|| (before, shown(&change.what)))
            };
            if let Some((before, what)) = places.iter().filter_map(missed).max() {
                wrong.push((before, what));
            }
        }
        match wrong.iter().max() {
            None => Ok(()),
            Some((before, what)) => Err(Failure::new(format!(
                "caught_up was wrong {} times: {what} was acknowledged {before:?} before",
                wrong.len()
            ))),
        }
    }

    /// Checks that nothing was received that did not change.
    pub(super) fn received_nothing_else(&self, changes: &[Change]) -> Checked {
        let keys: HashSet<_> = changes
            .iter()
            .flat_map(|change| &change.what.keys)
            .collect();
        let known: HashSet<_> = changes
            .iter()
            .flat_map(|change| &change.what.known)
            .collect();
        for (_, received) in self.received.lock().iter() {
            let Received::Changed(what) = received else {
                continue;
            };
            let other = what.keys.iter().find(|id| !keys.contains(id));
            ensure!(other.is_none(), "the unchanged key {other:?} was received");
            let other = what
                .known
                .iter()
                .find(|fingerprint| !known.contains(fingerprint));
            ensure!(
                other.is_none(),
                "the unknown fingerprint {other:?} was received"
            );
            let is_other = |id: &&TenantId| {
                let mut tenants = changes.iter().flat_map(|change| &change.what.tenants);
                !tenants.any(|tenant| tenant == *id)
            };
            let other = what.tenants.iter().find(is_other);
            ensure!(
                other.is_none(),
                "the unchanged tenant {other:?} was received"
            );
        }
        Ok(())
    }

    /// Checks that `caught_up` covers nothing after this moment.
    pub(super) fn covers_nothing_after(&self, moment: Instant) -> Checked {
        let latest = self
            .proofs()
            .1
            .and_then(|latest| latest.checked_duration_since(moment));
        match latest {
            Some(late) if !late.is_zero() => Err(Failure::new(format!(
                "caught_up covers up to {late:?} after it had to end"
            ))),
            _ => Ok(()),
        }
    }

    /// The last entries, for a message.
    fn shown(&self) -> String {
        let received = self.received.lock();
        let last = received
            .iter()
            .rev()
            .take(8)
            .rev()
            .map(|(at, received)| match received {
                Received::Changed(what) => format!("{:?} ago {}", at.elapsed(), shown(what)),
                Received::All(as_of) => format!(
                    "{:?} ago caught_up as of {:?} before",
                    at.elapsed(),
                    at.saturating_duration_since(*as_of)
                ),
            });
        let last: Vec<_> = last.collect();
        format!(
            "but {} entries, the last: {}",
            received.len(),
            last.join("; ")
        )
    }
}

/// A short description of a change.
fn shown(what: &Invalidation) -> String {
    let some = |shown: String, count: usize| {
        if count > 1 {
            format!("{shown} and {} more", count - 1)
        } else {
            shown
        }
    };
    let key = what
        .keys
        .first()
        .map(|id| some(format!("key {id}"), what.keys.len()));
    let known = what
        .known
        .first()
        .map(|print| some(format!("fingerprint {print:016x}"), what.known.len()));
    let tenant = what
        .tenants
        .first()
        .map(|id| some(format!("tenant {id}"), what.tenants.len()));
    let everything = what.everything.then(|| "everything".to_owned());
    let all: Vec<_> = [everything, key, known, tenant]
        .into_iter()
        .flatten()
        .collect();
    if all.is_empty() {
        "nothing".to_owned()
    } else {
        all.join(", ")
    }
}
