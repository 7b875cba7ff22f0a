//! One strict sliding window: for every interval of length W, its ends included, at most N units.
//!
//! Small quotas keep the exact time of each unit in a ring. Large ones count units in slots of at most W/256, and a slot
//! is forgotten only once all that may be in it is older than W: never too early, and at most W/256 late.
//!
//! Times are nanoseconds of a monotonic clock. A time that goes back is taken as the last one seen.

use std::time::Duration;

use super::Quota;

/// Up to this many units, exact times are smaller than slots, and exact.
const MOST_EXACT: u64 = 64;

/// A slot is W/256 long.
const SLOTS_PER_WINDOW: u64 = 256;

/// The admissions that a window must remember.
#[derive(Debug)]
pub(super) struct Window {
    limit: u64,
    length: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Exact(Exact),
    Slotted(Slotted),
}

/// The time of each unit that is still in the window, oldest first from `oldest`.
#[derive(Debug)]
struct Exact {
    times: Box<[u64]>,
    oldest: usize,
    live: usize,
}

/// Units by slot. Slot number s holds times from s·step to just before (s+1)·step.
#[derive(Debug)]
struct Slotted {
    counts: Counts,
    step: u64,
    /// The number of the oldest slot that may hold units; none before it does.
    oldest: u64,
    live: u64,
}

/// As narrow as the limit allows: a slot never holds more units than the limit.
#[derive(Debug)]
enum Counts {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

impl Counts {
    fn new(limit: u64, slots: usize) -> Self {
        if limit <= u64::from(u16::MAX) {
            Self::Narrow(vec![0; slots].into())
        } else {
            Self::Wide(vec![0; slots].into())
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Narrow(counts) => counts.len() as u64,
            Self::Wide(counts) => counts.len() as u64,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder by the length fits the length's type")]
    fn place(&self, slot: u64) -> usize {
        (slot % self.len()) as usize
    }

    fn get(&self, slot: u64) -> u64 {
        let place = self.place(slot);
        match self {
            Self::Narrow(counts) => counts[place].into(),
            Self::Wide(counts) => counts[place].into(),
        }
    }

    fn set(&mut self, slot: u64, units: u64) {
        let place = self.place(slot);
        match self {
            // The caller keeps units at or below the limit, which chose the width.
            Self::Narrow(counts) => counts[place] = u16::try_from(units).unwrap_or(u16::MAX),
            Self::Wide(counts) => counts[place] = u32::try_from(units).unwrap_or(u32::MAX),
        }
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Window {
    pub(super) fn new(quota: &Quota) -> Self {
        let (limit, length) = (quota.limit(), nanos(quota.window()));
        let kind = if limit <= MOST_EXACT {
            let times = vec![0; usize::try_from(limit).unwrap_or(0)].into();
            Kind::Exact(Exact { times, oldest: 0, live: 0 })
        } else {
            let step = (length / SLOTS_PER_WINDOW).max(1);
            // One slot for now, one for the oldest that is not yet past, and all between.
            let slots = usize::try_from(length / step + 2).unwrap_or(usize::MAX);
            Kind::Slotted(Slotted { counts: Counts::new(limit, slots), step, oldest: 0, live: 0 })
        };
        Self { limit, length, kind }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Forgets what can no longer share an interval with `now`.
    pub(super) fn advance(&mut self, now: u64) {
        match &mut self.kind {
            Kind::Exact(ring) => {
                while ring.live > 0 && ring.times[ring.oldest].saturating_add(self.length) < now {
                    ring.forget();
                }
            }
            Kind::Slotted(ring) => ring.advance(now, self.length),
        }
    }

    /// How many units are left, after [`advance`](Self::advance).
    pub(super) fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.live())
    }

    fn live(&self) -> u64 {
        match &self.kind {
            Kind::Exact(ring) => ring.live as u64,
            Kind::Slotted(ring) => ring.live,
        }
    }

    /// Remembers units at `now`. The caller has advanced, and seen that they fit.
    pub(super) fn admit(&mut self, now: u64, units: u64) {
        match &mut self.kind {
            Kind::Exact(ring) => (0..units).for_each(|_| ring.remember(now)),
            Kind::Slotted(ring) => ring.remember(now, units, self.limit),
        }
    }

    /// The time from `now` until this many units fit, if nothing else is admitted; zero if they fit. After `advance`.
    pub(super) fn wait(&self, now: u64, units: u64) -> u64 {
        let excess = (self.live() + units).saturating_sub(self.limit);
        if excess == 0 {
            return 0;
        }
        let free_at = match &self.kind {
            // Strictly older than W: one nanosecond past.
            Kind::Exact(ring) => ring.nth(excess).saturating_add(self.length).saturating_add(1),
            Kind::Slotted(ring) => ring.gone_at(excess, self.length),
        };
        free_at.saturating_sub(now)
    }

    /// The time from `now` until the first units come back; `None` if all are there. After `advance`.
    pub(super) fn reset(&self, now: u64) -> Option<u64> {
        let free_at = match &self.kind {
            _ if self.live() == 0 => return None,
            Kind::Exact(ring) => ring.nth(1).saturating_add(self.length).saturating_add(1),
            Kind::Slotted(ring) => ring.gone_at(1, self.length),
        };
        Some(free_at.saturating_sub(now))
    }

    /// What is remembered, oldest first, as (the latest time at which it may have been, units).
    pub(super) fn history(&self) -> Vec<(u64, u64)> {
        match &self.kind {
            Kind::Exact(ring) => (1..=ring.live as u64).map(|n| (ring.nth(n), 1)).collect(),
            Kind::Slotted(ring) => (ring.oldest..ring.oldest + ring.counts.len())
                .map(|slot| (slot.saturating_add(1).saturating_mul(ring.step) - 1, ring.counts.get(slot)))
                .filter(|(_, units)| *units > 0)
                .collect(),
        }
    }

    /// Takes over what other windows remembered, oldest first. Units over the limit keep the window full until enough of
    /// them are past.
    pub(super) fn inherit(&mut self, history: &[(u64, u64)], now: u64) {
        for &(time, units) in history {
            let time = time.min(now);
            match &mut self.kind {
                Kind::Exact(ring) => {
                    let most = ring.times.len() as u64;
                    for _ in 0..units.min(most) {
                        if ring.live as u64 == most {
                            ring.forget();
                        }
                        ring.remember(time);
                    }
                }
                Kind::Slotted(ring) if ring.slot_gone_at(time / ring.step, self.length) > now => {
                    ring.remember(time, units, self.limit);
                }
                Kind::Slotted(_) => {}
            }
        }
        self.advance(now);
    }
}

impl Exact {
    fn forget(&mut self) {
        self.oldest = (self.oldest + 1) % self.times.len();
        self.live -= 1;
    }

    fn remember(&mut self, now: u64) {
        let place = (self.oldest + self.live) % self.times.len();
        self.times[place] = now;
        self.live += 1;
    }

    /// The time of the nth oldest unit, from 1.
    #[expect(clippy::cast_possible_truncation, reason = "n is at most the number of live units")]
    fn nth(&self, n: u64) -> u64 {
        self.times[(self.oldest + n as usize - 1) % self.times.len()]
    }
}

impl Slotted {
    /// The first instant at which nothing in the slot can share an interval of this length with it: a unit at the very
    /// start of the slot is then kept `step` longer than need be, one at its very end not at all.
    fn slot_gone_at(&self, slot: u64, length: u64) -> u64 {
        slot.saturating_add(1).saturating_mul(self.step).saturating_add(length)
    }

    fn advance(&mut self, now: u64, length: u64) {
        if self.live == 0 {
            self.oldest = now / self.step;
            return;
        }
        while self.live > 0 && (self.counts.get(self.oldest) == 0 || self.slot_gone_at(self.oldest, length) <= now) {
            self.live -= self.counts.get(self.oldest);
            self.counts.set(self.oldest, 0);
            self.oldest += 1;
        }
        if self.live == 0 {
            self.oldest = now / self.step;
        }
    }

    fn remember(&mut self, time: u64, units: u64, limit: u64) {
        if self.live == 0 {
            self.oldest = time / self.step;
        }
        let slot = (time / self.step).max(self.oldest);
        let before = self.counts.get(slot);
        let after = (before + units).min(limit);
        self.counts.set(slot, after);
        self.live += after - before;
    }

    /// When this many of the oldest units are gone.
    fn gone_at(&self, units: u64, length: u64) -> u64 {
        let mut left = units;
        let mut slot = self.oldest;
        for _ in 0..self.counts.len() {
            left = left.saturating_sub(self.counts.get(slot));
            if left == 0 {
                break;
            }
            slot += 1;
        }
        self.slot_gone_at(slot, length)
    }
}
