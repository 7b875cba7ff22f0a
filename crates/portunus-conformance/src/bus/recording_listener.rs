//! A listener that keeps what it hears and when, and what it must have heard by then.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::report::{Checked, Failure};
use portunus::store::{Invalidation, InvalidationBus, InvalidationListener};

/// So many times the bound a bus may take at first: it may have to connect.
const FIRST: u32 = 5;
/// Between the bus's look at its clock and the listener's, a thread may be made to wait. Proofs
/// that are too young by no more than this are told only where there are several.
const STOPPED: Duration = Duration::from_millis(25);
/// So many are several.
const SEVERAL: usize = 3;
/// How often what was heard is looked at.
pub(super) const EVERY: Duration = Duration::from_millis(1);

/// Something that a node changed.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) began: Instant,
    /// From then on it counts as published. Never, where nobody was told that it is.
    pub(super) acknowledged: Option<Instant>,
    pub(super) what: Invalidation,
}

#[derive(Debug, Clone)]
enum Heard {
    Changed(Invalidation),
    All(Duration),
}

/// What was heard so far.
#[derive(Debug)]
pub(super) struct RecordingListener {
    heard: Mutex<Vec<(Instant, Heard)>>,
    /// When the bus had taken it in. What changed earlier, nobody who listens here can remember.
    since: Mutex<Instant>,
    is_lossless: bool,
}

impl InvalidationListener for RecordingListener {
    fn invalidated(&self, what: &Invalidation) {
        self.heard
            .lock()
            .push((Instant::now(), Heard::Changed(what.clone())));
    }

    fn caught_up(&self, age: Duration) {
        self.heard.lock().push((Instant::now(), Heard::All(age)));
    }
}

impl RecordingListener {
    pub(super) fn on(bus: &dyn InvalidationBus) -> Arc<Self> {
        let (heard, since) = (Mutex::default(), Mutex::new(Instant::now()));
        let listener = Arc::new(Self {
            heard,
            since,
            is_lossless: bus.is_lossless(),
        });
        let weak: Weak<Self> = Arc::downgrade(&listener);
        bus.subscribe(weak);
        *listener.since.lock() = Instant::now();
        listener
    }

    /// How often it was told that everything was heard, and up to when at the latest.
    pub(super) fn proofs(&self) -> (usize, Option<Instant>) {
        let heard = self.heard.lock();
        let proofs = heard.iter().filter_map(|(at, heard)| match heard {
            Heard::All(age) => Some(at.checked_sub(*age)),
            Heard::Changed(_) => None,
        });
        (proofs.clone().count(), proofs.flatten().max())
    }

    /// Whether everything up to this moment is said to have been heard. One word of a bus that
    /// never misses anything holds for good.
    fn is_sure_of(&self, moment: Instant) -> bool {
        let (count, latest) = self.proofs();
        latest.is_some_and(|latest| latest > moment) || (self.is_lossless && count > 0)
    }

    /// Whether it listened before a change began.
    pub(super) fn was_there_before(&self, change: &Change) -> bool {
        change.began >= *self.since.lock()
    }

    /// Waits until everything up to now is said to have been heard.
    pub(super) async fn is_sure_within(&self, longest: Duration) -> Checked {
        self.becomes_sure_of(Instant::now(), longest).await
    }

    /// Waits until everything up to this moment is said to have been heard.
    async fn becomes_sure_of(&self, moment: Instant, longest: Duration) -> Checked {
        while !self.is_sure_of(moment) {
            ensure!(
                moment.elapsed() <= longest,
                "nothing said for {longest:?} that all was heard, {}",
                self.shown()
            );
            tokio::time::sleep(EVERY).await;
        }
        Ok(())
    }

    /// The same of several, where connections may have to be made.
    pub(super) async fn wake(ears: &[Arc<Self>], bound: Duration) -> Checked {
        let now = Instant::now();
        for listener in ears {
            listener.becomes_sure_of(now, bound * FIRST).await?;
        }
        Ok(())
    }

    /// Waits until each of these was heard.
    pub(super) async fn hears(&self, changes: &[Change], longest: Duration) -> Checked {
        let started = Instant::now();
        for change in changes
            .iter()
            .filter(|change| change.acknowledged.is_some())
        {
            while self.place_of(change).is_none() {
                ensure!(
                    started.elapsed() <= longest,
                    "{} was not heard within {longest:?}, {}",
                    shown(&change.what),
                    self.shown()
                );
                tokio::time::sleep(EVERY).await;
            }
        }
        Ok(())
    }

    /// With which word the whole of a change had been heard.
    fn place_of(&self, change: &Change) -> Option<usize> {
        let mut keys: HashSet<_> = change.what.keys.iter().collect();
        let mut known: HashSet<_> = change.what.known.iter().collect();
        let heard = self.heard.lock();
        heard.iter().position(|(at, heard)| match heard {
            // What is said before it begins does not speak of it.
            Heard::Changed(what) if *at >= change.began => {
                for id in &what.keys {
                    keys.remove(id);
                }
                for fingerprint in &what.known {
                    known.remove(fingerprint);
                }
                what.everything || (keys.is_empty() && known.is_empty() && !change.what.everything)
            }
            Heard::Changed(_) | Heard::All(_) => false,
        })
    }

    /// Whatever was acknowledged by a moment up to which everything is said to have been heard, was
    /// heard before that was said.
    pub(super) fn was_told_the_truth(&self, changes: &[Change]) -> Checked {
        let since = *self.since.lock();
        let begun = changes.iter().filter(|change| change.began >= since);
        let places: Vec<_> = begun
            .map(|change| (change, self.place_of(change)))
            .collect();
        let mut young = Vec::new();
        for (place, (at, heard)) in self.heard.lock().iter().enumerate() {
            let Heard::All(age) = heard else { continue };
            let Some(proven) = at.checked_sub(*age) else {
                continue;
            };
            let missed = |(change, heard): &(&Change, Option<usize>)| {
                let before = proven
                    .checked_duration_since(change.acknowledged?)
                    .filter(|before| !before.is_zero())?;
                (heard.is_none_or(|heard| heard > place)).then(|| (before, shown(&change.what)))
            };
            if let Some((before, what)) = places.iter().filter_map(missed).max() {
                young.push((
                    before,
                    format!("{what} was acknowledged {before:?} before, age {age:?}"),
                ));
            }
        }
        let Some((most, seen)) = young.iter().max() else {
            return Ok(());
        };
        ensure!(
            *most < STOPPED && young.len() < SEVERAL,
            "{} times it was said that all was heard, and was not: {seen}",
            young.len()
        );
        Ok(())
    }

    /// Nothing was heard that was not changed.
    pub(super) fn heard_nothing_else(&self, changes: &[Change]) -> Checked {
        let keys: HashSet<_> = changes
            .iter()
            .flat_map(|change| &change.what.keys)
            .collect();
        let known: HashSet<_> = changes
            .iter()
            .flat_map(|change| &change.what.known)
            .collect();
        for (_, heard) in self.heard.lock().iter() {
            let Heard::Changed(what) = heard else {
                continue;
            };
            let other = what.keys.iter().find(|id| !keys.contains(id));
            ensure!(
                other.is_none(),
                "the key {other:?} was heard, which nobody changed"
            );
            let other = what
                .known
                .iter()
                .find(|fingerprint| !known.contains(fingerprint));
            ensure!(
                other.is_none(),
                "the fingerprint {other:?} was heard, which is nobody's"
            );
        }
        Ok(())
    }

    /// Says nothing of moments after this one.
    pub(super) fn was_sure_of_nothing_after(&self, moment: Instant) -> Checked {
        let latest = self
            .proofs()
            .1
            .and_then(|latest| latest.checked_duration_since(moment));
        match latest {
            Some(late) if !late.is_zero() => Err(Failure::new(format!(
                "it was said that all was heard up to {late:?} after it had to end"
            ))),
            _ => Ok(()),
        }
    }

    /// The last that was heard, for a message.
    fn shown(&self) -> String {
        let heard = self.heard.lock();
        let last = heard
            .iter()
            .rev()
            .take(8)
            .rev()
            .map(|(at, heard)| match heard {
                Heard::Changed(what) => format!("{:?} ago {}", at.elapsed(), shown(what)),
                Heard::All(age) => format!(
                    "{:?} ago that all of {age:?} before was heard",
                    at.elapsed()
                ),
            });
        let last: Vec<_> = last.collect();
        format!("but {} words, at last: {}", heard.len(), last.join("; "))
    }
}

/// A change in few words.
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
    let everything = what.everything.then(|| "everything".to_owned());
    let all: Vec<_> = [everything, key, known].into_iter().flatten().collect();
    if all.is_empty() {
        "nothing".to_owned()
    } else {
        all.join(", ")
    }
}
