//! The state of one bucket: a recorder for each window length of its quotas.

use std::cmp::Reverse;

use super::window::{Recorder, nanos};
use super::{Decision, WindowState};
use crate::quota::{Quota, Quotas};

/// The maximum number of recorders, including those of former quotas; the narrowest are dropped
/// first.
const MOST_RECORDERS: usize = 32;

/// The state of a bucket; empty while the bucket is idle.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) quotas: Option<Quotas>,
    /// The limit of each quota, and what it counts.
    windows: Vec<Window>,
    /// The recorders of former quotas, while they hold units: a quota that is set again finds what
    /// was admitted in between, and no history is converted twice.
    former: Vec<Recorder>,
    /// How long after an admission the bucket is idle.
    span: u64,
    /// The latest time seen.
    pub(super) now: u64,
    /// The time from which the bucket has been idle for longer than its widest window.
    pub(super) idle_at: u64,
}

#[derive(Clone)]
struct Window {
    limit: u64,
    recorder: Recorder,
}

impl State {
    /// Drops the units that are past. Returns how long units must wait until they fit into all
    /// windows; zero if they fit now.
    #[inline]
    pub(super) fn wait(&mut self, now: u64, units: u64) -> u64 {
        self.now = now;
        let mut wait = 0;
        for Window { limit, recorder } in &mut self.windows {
            wait = wait.max(recorder.check(now, units, *limit));
        }
        wait
    }

    /// Counts the units if the decision admits them, and adds the state of the windows to it.
    #[inline]
    pub(super) fn settle(&mut self, decision: &mut Decision, now: u64, units: u64) {
        let admitted = decision.is_admitted();
        for Window { limit, recorder } in &mut self.windows {
            let (live, reset) = recorder.settle(now, if admitted { units } else { 0 });
            let state = WindowState::of_nanos(limit.saturating_sub(live), reset);
            let violated = !admitted && recorder.wait(now, units, *limit) > 0;
            decision.push(if violated { state.violated() } else { state });
        }
        if admitted {
            for recorder in &mut self.former {
                recorder.advance(now);
                recorder.remember(now, units);
            }
            self.idle_at = now.saturating_add(self.span);
        }
    }

    /// Creates the state of an idle bucket whose time is not before this one.
    pub(super) fn not_before(now: u64) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    /// Frees the recorders. The time is kept, because it must never decrease.
    pub(super) fn forget(&mut self) {
        *self = Self::not_before(self.now);
    }

    /// Sets new quotas. A recorder for a new length starts with the history of all others.
    pub(super) fn take(&mut self, quotas: &Quotas, now: u64) {
        let windows = std::mem::take(&mut self.windows);
        let mut known: Vec<_> = windows.into_iter().map(|window| window.recorder).collect();
        known.append(&mut self.former);
        known.iter_mut().for_each(|recorder| recorder.advance(now));
        let serves = |recorder: &Recorder, quota: &Quota| {
            recorder.serves(nanos(quota.window()), quota.limit())
        };
        let mut history = None;
        self.windows.reserve_exact(quotas.as_slice().len());
        for quota in quotas.as_slice() {
            let recorder = match known.iter().find(|recorder| serves(recorder, quota)) {
                Some(recorder) => recorder.clone(),
                None => {
                    let mut recorder = Recorder::new(nanos(quota.window()), quota.limit());
                    recorder.inherit(history.get_or_insert_with(|| combined(&known, now)), now);
                    recorder
                }
            };
            let limit = quota.limit();
            self.windows.push(Window { limit, recorder });
        }
        let needed = |recorder: &Recorder| {
            quotas
                .as_slice()
                .iter()
                .any(|quota| serves(recorder, quota))
        };
        known.retain(|recorder| !needed(recorder) && recorder.live() > 0);
        // Widest first: wide recorders hold the units of narrow ones too, only less precisely.
        known.sort_by_key(|recorder| Reverse(recorder.length()));
        known.truncate(MOST_RECORDERS.saturating_sub(self.windows.len()));
        self.former = known;
        let span = |length: u64| length.saturating_add(length / 256);
        let all = || {
            let current = self.windows.iter().map(|window| &window.recorder);
            current.chain(&self.former)
        };
        let widest = all().map(Recorder::length).max().unwrap_or(0);
        let live = all().filter(|recorder| recorder.live() > 0);
        let idle_at = span(live.map(Recorder::length).max().unwrap_or(0)).saturating_add(now);
        self.span = span(widest);
        self.idle_at = self.idle_at.max(idle_at);
        self.quotas = Some(quotas.clone());
    }
}

/// Returns the combined history of recorders, oldest first, with the most precise times available.
/// Call `advance` first.
fn combined(recorders: &[Recorder], now: u64) -> Vec<(u64, u64)> {
    let mut recorders: Vec<_> = recorders.iter().collect();
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
