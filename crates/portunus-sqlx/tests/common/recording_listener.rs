//! A listener that keeps what it hears, and when.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use portunus::store::{Invalidation, InvalidationBus, InvalidationListener};

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Changed(Invalidation),
    All(Duration),
}

/// What was heard so far.
#[derive(Debug, Default)]
pub(crate) struct RecordingListener(Mutex<Vec<(Instant, Heard)>>);

impl InvalidationListener for RecordingListener {
    fn invalidated(&self, what: &Invalidation) {
        self.0
            .lock()
            .unwrap()
            .push((Instant::now(), Heard::Changed(what.clone())));
    }

    fn caught_up(&self, age: Duration) {
        self.0
            .lock()
            .unwrap()
            .push((Instant::now(), Heard::All(age)));
    }
}

impl RecordingListener {
    /// One that listens to a bus.
    pub(crate) fn on(bus: &impl InvalidationBus) -> Arc<Self> {
        let listener = Arc::new(Self::default());
        let weak = Arc::downgrade(&listener);
        bus.subscribe(weak);
        listener
    }

    /// One that listens, and has heard that it hears everything.
    pub(crate) async fn awake_on(bus: &impl InvalidationBus) -> Arc<Self> {
        let listener = Self::on(bus);
        listener.wait_for_proof().await;
        listener.clear();
        listener
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn all(&self) -> Vec<(Instant, Heard)> {
        self.0.lock().unwrap().clone()
    }

    /// What changed, as it was told.
    pub(crate) fn changes(&self) -> Vec<Invalidation> {
        let changed = |(_, heard)| match heard {
            Heard::Changed(what) => Some(what),
            Heard::All(_) => None,
        };
        self.all().into_iter().filter_map(changed).collect()
    }

    /// Up to when everything has been heard: the latest that was told.
    pub(crate) fn proven(&self) -> Option<Instant> {
        let proven = |(at, heard)| match heard {
            Heard::All(age) => Instant::checked_sub(&at, age),
            Heard::Changed(_) => None,
        };
        self.all().into_iter().filter_map(proven).max()
    }

    /// Waits until what was heard fulfils a condition; returns when that was heard.
    pub(crate) async fn wait_until(
        &self,
        what: &str,
        is_enough: impl Fn(&Heard) -> bool,
    ) -> Instant {
        let look = async || {
            let all = self.all();
            let heard = all.iter().find(|(_, heard)| is_enough(heard));
            heard.map(|(at, _)| *at)
        };
        eventually_async(look)
            .await
            .unwrap_or_else(|| panic!("{what} was not heard: {:?}", self.all()))
    }

    pub(crate) async fn wait_for_everything(&self) -> Instant {
        self.wait_until(
            "everything",
            |heard| matches!(heard, Heard::Changed(what) if what.everything),
        )
        .await
    }

    pub(crate) async fn wait_for_key(&self, name: &str) -> Instant {
        let id = id(name);
        self.wait_until(
            name,
            |heard| matches!(heard, Heard::Changed(what) if what.keys.contains(&id)),
        )
        .await
    }

    /// Waits until everything that was published before this moment is known to have been heard.
    pub(crate) async fn wait_for_proof(&self) {
        let now = Instant::now();
        let look = async || self.proven().filter(|proven| *proven >= now);
        let proven = eventually_async(look).await;
        assert!(proven.is_some(), "no proof: {:?}", self.all());
    }

    /// Of what was heard since it was cleared, everything comes before the first proof.
    pub(crate) fn assert_everything_first(&self) {
        let all = self.all();
        let first = all
            .iter()
            .position(|(_, heard)| matches!(heard, Heard::All(_)))
            .unwrap();
        let everything =
            |(_, heard): &(_, Heard)| matches!(heard, Heard::Changed(what) if what.everything);
        assert!(all[..first].iter().any(everything), "{all:?}");
    }

    /// Nothing was said to be heard that was not: every write, by when it was acknowledged, was
    /// heard before a later moment was proven.
    pub(crate) fn assert_no_false_proof(&self, writes: &[(String, Instant)]) {
        let all = self.all();
        for (place, (at, heard)) in all.iter().enumerate() {
            let Heard::All(age) = heard else { continue };
            let Some(proven) = at.checked_sub(*age) else {
                continue;
            };
            for (name, _) in writes
                .iter()
                .filter(|(_, acknowledged)| *acknowledged < proven)
            {
                let tells = |(_, heard): &(_, Heard)| match heard {
                    Heard::Changed(what) => what.everything || what.keys.contains(&id(name)),
                    Heard::All(_) => false,
                };
                assert!(
                    all[..place].iter().any(tells),
                    "{name} was not heard before it was said to be"
                );
            }
        }
    }
}
