//! The state of one bucket: a recorder for each window length of its quotas.

use std::cmp::Reverse;

use smallvec::SmallVec;

use super::window::{Recorder, nanos};
use super::{Decision, WindowState};
use crate::quota::{Quota, Quotas};

/// The maximum number of recorders, including those of former quotas; the narrowest are dropped
/// first.
const MOST_RECORDERS: usize = 32;

/// The state of a bucket; empty while the bucket is idle.
#[derive(Default)]
pub(super) struct State {
    pub(super) quotas: Option<Quotas>,
    /// One for each length of the quotas, and those of former quotas while they hold units: a quota
    /// that is set again finds what was admitted in between, and no history is converted twice.
    recorders: Vec<Recorder>,
    /// The index of each quota's recorder.
    places: SmallVec<[u8; 4]>,
    /// The latest time seen.
    pub(super) now: u64,
    /// The time from which the bucket has been idle for longer than its widest window.
    pub(super) idle_at: u64,
}

impl State {
    /// Returns each quota's recorder and limit, in the order of the quotas.
    fn windows(&self) -> impl Iterator<Item = (&Recorder, u64)> {
        let quotas = self.quotas.iter().flat_map(Quotas::as_slice);
        let recorders = self
            .places
            .iter()
            .filter_map(|place| self.recorders.get(usize::from(*place)));
        recorders.zip(quotas.map(Quota::limit))
    }

    /// Returns how long units must wait until they fit into all windows; zero if they fit now.
    pub(super) fn wait(&self, now: u64, units: u64) -> u64 {
        self.windows()
            .map(|(recorder, limit)| recorder.wait(now, units, limit))
            .max()
            .unwrap_or(0)
    }

    /// Counts the units if the decision admits them, and adds the state of the windows to it.
    pub(super) fn settle(&mut self, decision: &mut Decision, now: u64, units: u64) {
        let refused = !decision.is_admitted();
        if !refused {
            self.admit(now, units);
        }
        for (recorder, limit) in self.windows() {
            let remaining = limit.saturating_sub(recorder.live());
            let state = WindowState::of_nanos(remaining, recorder.reset(now));
            decision.push(if refused && recorder.wait(now, units, limit) > 0 {
                state.violated()
            } else {
                state
            });
        }
    }

    /// Drops the units that are past.
    pub(super) fn advance(&mut self, now: u64) {
        for recorder in &mut self.recorders {
            recorder.advance(now);
        }
    }

    /// Frees the recorders. The time is kept, because it must never decrease.
    pub(super) fn forget(&mut self) {
        *self = Self {
            now: self.now,
            ..Self::default()
        };
    }

    fn admit(&mut self, now: u64, units: u64) {
        let mut widest = 0;
        for recorder in &mut self.recorders {
            recorder.remember(now, units);
            widest = widest.max(recorder.length());
        }
        self.idle_at = now.saturating_add(widest).saturating_add(widest / 256);
    }

    /// Sets new quotas. A recorder for a new length starts with the history of all others.
    pub(super) fn take(&mut self, quotas: &Quotas, now: u64) {
        self.advance(now);
        let serves = |recorder: &Recorder, quota: &Quota| {
            recorder.serves(nanos(quota.window()), quota.limit())
        };
        let mut history = None;
        for quota in quotas.as_slice() {
            if self
                .recorders
                .iter()
                .all(|recorder| !serves(recorder, quota))
            {
                let mut recorder = Recorder::new(nanos(quota.window()), quota.limit());
                recorder.inherit(history.get_or_insert_with(|| self.history(now)), now);
                self.recorders.push(recorder);
            }
        }
        let needed = |recorder: &Recorder| {
            quotas
                .as_slice()
                .iter()
                .any(|quota| serves(recorder, quota))
        };
        self.recorders
            .retain(|recorder| needed(recorder) || recorder.live() > 0);
        // Widest first: wide recorders hold the units of narrow ones too, only less precisely.
        self.recorders
            .sort_by_key(|recorder| (!needed(recorder), Reverse(recorder.length())));
        self.recorders.truncate(MOST_RECORDERS);
        let place = |quota| {
            self.recorders
                .iter()
                .position(|recorder| serves(recorder, quota))
        };
        self.places = quotas
            .as_slice()
            .iter()
            .filter_map(place)
            .filter_map(|place| u8::try_from(place).ok())
            .collect();
        let live = self.recorders.iter().filter(|recorder| recorder.live() > 0);
        let widest = live.map(Recorder::length).max().unwrap_or(0);
        self.idle_at = self
            .idle_at
            .max(now.saturating_add(widest).saturating_add(widest / 256));
        self.quotas = Some(quotas.clone());
    }

    /// Returns the combined history of all recorders, oldest first, with the most precise times
    /// available. Call `advance` first.
    fn history(&self, now: u64) -> Vec<(u64, u64)> {
        let mut recorders: Vec<_> = self.recorders.iter().collect();
        recorders.sort_by_key(|recorder| (recorder.length(), !recorder.is_exact()));
        let mut history: Vec<(u64, u64)> = Vec::new();
        let mut covered = 0;
        for recorder in recorders {
            let mut older = recorder.history();
            if recorder.length() == covered {
                // A second recorder of this length; an exact one, if any, came first.
                continue;
            }
            if covered > 0 {
                let since = now.saturating_sub(covered);
                let known: u64 = history.iter().map(|(_, units)| units).sum();
                let recent: u64 = older
                    .iter()
                    .filter(|(time, _)| *time >= since)
                    .map(|(_, units)| units)
                    .sum();
                older.retain(|(time, _)| *time < since);
                // Units on the older side of a slot that spans the edge.
                older.extend(
                    Some((since, recent.saturating_sub(known))).filter(|(_, units)| *units > 0),
                );
            }
            older.append(&mut history);
            history = older;
            covered = recorder.length();
        }
        history
    }
}
