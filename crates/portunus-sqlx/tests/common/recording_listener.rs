//! A listener that records what it receives, and when.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use portunus::store::{Invalidation, InvalidationBus, InvalidationListener};

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    Changed(Invalidation),
    /// Everything that was published before this moment.
    All(Instant),
}

/// Everything received so far.
#[derive(Debug, Default)]
pub(crate) struct RecordingListener(Mutex<Vec<(Instant, Received)>>);

impl InvalidationListener for RecordingListener {
    fn invalidated(&self, what: &Invalidation) {
        self.0
            .lock()
            .unwrap()
            .push((Instant::now(), Received::Changed(what.clone())));
    }

    fn caught_up(&self, as_of: Instant) {
        self.0
            .lock()
            .unwrap()
            .push((Instant::now(), Received::All(as_of)));
    }
}

impl RecordingListener {
    /// Subscribes a listener to a bus.
    pub(crate) fn on(bus: &impl InvalidationBus) -> Arc<Self> {
        let listener = Arc::new(Self::default());
        let weak = Arc::downgrade(&listener);
        bus.subscribe(weak);
        listener
    }

    /// Subscribes a listener, and waits until it has caught up.
    pub(crate) async fn awake_on(bus: &impl InvalidationBus) -> Arc<Self> {
        let listener = Self::on(bus);
        listener.wait_for_proof().await;
        listener.clear();
        listener
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn all(&self) -> Vec<(Instant, Received)> {
        self.0.lock().unwrap().clone()
    }

    /// The received changes.
    pub(crate) fn changes(&self) -> Vec<Invalidation> {
        let changed = |(_, received)| match received {
            Received::Changed(what) => Some(what),
            Received::All(_) => None,
        };
        self.all().into_iter().filter_map(changed).collect()
    }

    /// The latest moment that `caught_up` covers.
    pub(crate) fn proven(&self) -> Option<Instant> {
        let proven = |(_, received)| match received {
            Received::All(as_of) => Some(as_of),
            Received::Changed(_) => None,
        };
        self.all().into_iter().filter_map(proven).max()
    }

    /// Waits until the received entries meet a condition; returns when that happened.
    pub(crate) async fn wait_until(
        &self,
        what: &str,
        is_enough: impl Fn(&Received) -> bool,
    ) -> Instant {
        let look = async || {
            let all = self.all();
            let received = all.iter().find(|(_, received)| is_enough(received));
            received.map(|(at, _)| *at)
        };
        eventually_async(look)
            .await
            .unwrap_or_else(|| panic!("{what} was not received: {:?}", self.all()))
    }

    pub(crate) async fn wait_for_everything(&self) -> Instant {
        self.wait_until(
            "everything",
            |received| matches!(received, Received::Changed(what) if what.everything),
        )
        .await
    }

    pub(crate) async fn wait_for_key(&self, name: &str) -> Instant {
        let id = id(name);
        self.wait_until(
            name,
            |received| matches!(received, Received::Changed(what) if what.keys.contains(&id)),
        )
        .await
    }

    /// Waits until `caught_up` covers everything published before this moment.
    pub(crate) async fn wait_for_proof(&self) {
        let now = Instant::now();
        let look = async || self.proven().filter(|proven| *proven >= now);
        let proven = eventually_async(look).await;
        assert!(proven.is_some(), "no proof: {:?}", self.all());
    }

    /// Of the entries since the last `clear`, `everything` comes before the first `caught_up`.
    pub(crate) fn assert_everything_first(&self) {
        let all = self.all();
        let first = all
            .iter()
            .position(|(_, entry)| matches!(entry, Received::All(_)))
            .unwrap();
        let everything =
            |(_, it): &(_, Received)| matches!(it, Received::Changed(what) if what.everything);
        assert!(all[..first].iter().any(everything), "{all:?}");
    }

    /// Asserts that `caught_up` was never wrong: every write was received before a moment later
    /// than its acknowledgement was covered.
    pub(crate) fn assert_no_false_proof(&self, writes: &[(String, Instant)]) {
        let all = self.all();
        for (place, (_, received)) in all.iter().enumerate() {
            let Received::All(proven) = received else {
                continue;
            };
            for (name, _) in writes
                .iter()
                .filter(|(_, acknowledged)| acknowledged < proven)
            {
                let covers_it = |(_, received): &(_, Received)| match received {
                    Received::Changed(what) => what.everything || what.keys.contains(&id(name)),
                    Received::All(_) => false,
                };
                assert!(
                    all[..place].iter().any(covers_it),
                    "{name} was not received before caught_up covered it"
                );
            }
        }
    }
}
