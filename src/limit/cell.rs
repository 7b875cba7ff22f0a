//! The state of one bucket: a recorder for each window of its quotas.

use std::cmp::Reverse;

use super::kind::is_small;
use super::window::Recorders;
use super::{Decision, WindowState};
use crate::quota::{Quota, Quotas};

/// The maximum number of recorders, including those of former quotas; the narrowest are dropped
/// first.
const MOST_RECORDERS: usize = 32;

/// The state of a bucket; empty while the bucket is idle. What each request needs comes first.
#[derive(Clone, Default)]
#[repr(C)]
pub(super) struct State {
    /// The latest time seen.
    pub(super) now: u64,
    pub(super) quotas: Option<Quotas>,
    /// One for each quota.
    windows: Recorders,
    /// The recorders of former quotas, while they hold units: a quota that is set again finds what
    /// was admitted in between, and no history is converted twice.
    #[expect(
        clippy::box_collection,
        reason = "a cell is small, and seldom has a list"
    )]
    former: Option<Box<Vec<Former>>>,
}

/// A recorder that is not for a current quota.
#[derive(Clone)]
struct Former {
    length: u64,
    /// Whether it was created for a small quota, however many units it holds now.
    small: bool,
    /// Has one window.
    units: Recorders,
}

impl Former {
    /// Returns whether it serves a quota. Small quotas have exact recorders of their own.
    fn serves(&self, quota: &Quota) -> bool {
        self.length == quota.nanos() && self.small == is_small(quota.limit())
    }

    fn is_empty(&self) -> bool {
        self.units.states(0).all(|(live, _)| live == 0)
    }
}

/// Returns the quotas; none if the bucket is idle.
fn list(quotas: &Option<Quotas>) -> &[Quota] {
    quotas.as_ref().map_or(&[], Quotas::as_slice)
}

/// Returns the length and the limit of a quota's window.
fn window(quota: &Quota) -> (u64, u64) {
    (quota.nanos(), quota.limit())
}

impl State {
    /// Drops the units that are past. Returns how long units must wait until they fit into all
    /// windows; zero if they fit now.
    #[inline]
    pub(super) fn wait(&mut self, now: u64, units: u64) -> u64 {
        self.now = now;
        let quotas = list(&self.quotas);
        self.windows.wait(quotas.iter().map(window), now, units)
    }

    /// Counts the units if the decision admits them, and adds the state of the windows to it.
    #[inline]
    pub(super) fn settle(&mut self, decision: &mut Decision, now: u64, units: u64) {
        if !decision.is_admitted() {
            self.report(decision, now, units);
            return;
        }
        let windows = list(&self.quotas).iter().map(window);
        self.windows
            .count(&windows, now, units, |limit, live, gone_at| {
                let left = limit.saturating_sub(live);
                let reset = Some(gone_at.saturating_sub(now));
                decision.push(WindowState::of_nanos(left, reset));
            });
        if let Some(former) = &mut self.former {
            for Former {
                length, units: of, ..
            } in &mut **former
            {
                of.wait([(*length, 0)], now, 0);
                of.remember(&[(*length, 0)], now, units);
            }
        }
    }

    /// Returns what these quotas would find at a time that is not before that of the state.
    pub(super) fn read(mut self, quotas: &Quotas, now: u64) -> Vec<WindowState> {
        if self.quotas.as_ref() != Some(quotas) {
            self.take(quotas, now);
        }
        self.wait(now, 0);
        self.states(now).map(|(_, state)| state).collect()
    }

    /// Returns each quota with the state of its window. Call `wait` first.
    fn states(&self, now: u64) -> impl Iterator<Item = (&Quota, WindowState)> {
        let quotas = list(&self.quotas).iter();
        quotas
            .zip(self.windows.states(now))
            .map(|(quota, (live, reset))| {
                let left = quota.limit().saturating_sub(live);
                (quota, WindowState::of_nanos(left, reset))
            })
    }

    /// Adds the state of the windows to a decision that refuses the units.
    fn report(&self, decision: &mut Decision, now: u64, units: u64) {
        for (at, (quota, state)) in self.states(now).enumerate() {
            let violated = self.windows.wait_for(at, window(quota), now, units) > 0;
            decision.push(if violated { state.violated() } else { state });
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

    /// Drops the units that are past. Returns whether none is left, so that nothing it counted can
    /// matter any more. Refused requests count nothing: they do not keep a bucket.
    pub(super) fn is_idle(&mut self, now: u64) -> bool {
        let quotas = list(&self.quotas);
        self.windows.wait(quotas.iter().map(window), now, 0);
        let former = self.former.iter_mut().flat_map(|all| &mut **all);
        let held = former.fold(false, |held, former| {
            former.units.wait([(former.length, 0)], now, 0);
            held | !former.is_empty()
        });
        !held && self.windows.states(now).all(|(live, _)| live == 0)
    }

    /// Sets new quotas. A recorder for a new length starts with the history of all others.
    pub(super) fn take(&mut self, quotas: &Quotas, now: u64) {
        let current = list(&self.quotas).iter().enumerate();
        let mut known: Vec<_> = current
            .map(|(window, quota)| Former {
                length: quota.nanos(),
                small: is_small(quota.limit()),
                units: self.windows.copied(window),
            })
            .collect();
        known.extend(self.former.take().into_iter().flat_map(|former| *former));
        for Former { length, units, .. } in &mut known {
            units.wait([(*length, 0)], now, 0);
        }
        self.windows = Recorders::default();
        let mut history = None;
        for quota in quotas.as_slice() {
            match known.iter().find(|former| former.serves(quota)) {
                Some(former) => self.windows.push_copy(&former.units, 0),
                None => {
                    let history = history.get_or_insert_with(|| combined(&known, now));
                    let own = Recorders::inheriting(window(quota), history, now);
                    self.windows.push_copy(&own, 0);
                }
            }
        }
        let needed = |former: &Former| quotas.as_slice().iter().any(|quota| former.serves(quota));
        known.retain(|former| !needed(former) && !former.is_empty());
        // Widest first: wide recorders hold the units of narrow ones too, only less precisely.
        known.sort_by_key(|former| Reverse(former.length));
        known.truncate(MOST_RECORDERS.saturating_sub(self.windows.len()));
        self.former = (!known.is_empty()).then(|| Box::new(known));
        self.now = self.now.max(now);
        self.quotas = Some(quotas.clone());
    }
}

/// Returns the combined history of recorders, oldest first, with the most precise times available.
/// Call `advance` first.
fn combined(recorders: &[Former], now: u64) -> Vec<(u64, u64)> {
    let mut recorders: Vec<_> = recorders.iter().collect();
    recorders.sort_by_key(|former| (former.length, !former.units.is_exact(0)));
    let mut history: Vec<(u64, u64)> = Vec::new();
    let mut covered = 0;
    for Former { length, units, .. } in recorders {
        let mut older = units.history(0, *length);
        if *length == covered {
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
            // Units at the edge that this recorder dates before it: they are among the known ones.
            let mut twice = known.saturating_sub(recent);
            while let Some((_, units)) = older.last_mut().filter(|_| twice > 0) {
                let fewer = twice.min(*units);
                (*units, twice) = (*units - fewer, twice - fewer);
                if *units == 0 {
                    older.pop();
                }
            }
            // Units on the older side of a slot that spans the edge.
            older.extend(
                Some((since, recent.saturating_sub(known))).filter(|(_, units)| *units > 0),
            );
        }
        older.append(&mut history);
        history = older;
        covered = *length;
    }
    history
}
