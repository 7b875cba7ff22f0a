//! The record of the units admitted within the last W, for a strict sliding window.
//!
//! Up to 64 units are recorded with their exact times, more are counted in slots of W/256. Units
//! are never dropped too early, and at most W/256 too late. A recorder does not enforce a limit, so
//! it survives changes of the quotas that it serves. Times are nanoseconds of a monotonic clock;
//! the caller ensures that they never decrease.
//!
//! # Why no unit is dropped too early
//! - An exact time is dropped once `time + W < now`, so every unit in `[now - W, now]` is kept.
//! - Slot s holds times in `[s·step, (s+1)·step)` and is dropped once `(s+1)·step + W <= now`; then
//!   all of its times are before `now - W`.
//! - Slots share no place in the ring: while slot s is kept, `now < (s+1)·step + W`, so the slot of
//!   `now` is at most `s + ⌊W/step⌋ + 1`, and the ring has `⌊W/step⌋ + 2` places.
//! - A unit that another recorder hands over is dated at the latest time at which it can have been
//!   admitted, so it is kept longer, not shorter.

use std::time::Duration;

/// Up to this many units, exact times take less memory than slots.
const MOST_EXACT: usize = 64;

/// The number of slots per window: a slot is W/256 long.
const SLOTS_PER_WINDOW: u64 = 256;

/// The units that were admitted within the last `length` nanoseconds.
#[derive(Debug)]
pub(crate) struct Recorder {
    length: u64,
    /// Whether it was created for a small quota, however many units it holds now.
    small: bool,
    kind: Kind,
}

fn is_small(limit: u64) -> bool {
    limit <= MOST_EXACT as u64
}

#[derive(Debug)]
enum Kind {
    Exact(Exact),
    Slotted(Slotted),
}

/// The time of each unit, oldest first from `oldest`.
#[derive(Debug)]
struct Exact {
    times: Box<[u64]>,
    oldest: usize,
    live: usize,
}

/// Units by slot. Slot s holds times from s·step to just before (s+1)·step.
#[derive(Debug)]
struct Slotted {
    counts: Counts,
    step: u64,
    /// The oldest slot that may hold units.
    oldest: u64,
    live: u64,
}

/// Counters of the smallest type that holds all counts so far.
#[derive(Debug)]
enum Counts {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Recorder {
    /// Creates a recorder of this length for quotas of about this limit.
    pub(crate) fn new(length: u64, limit: u64) -> Self {
        let kind = match usize::try_from(limit) {
            Ok(limit) if limit <= MOST_EXACT => Kind::Exact(Exact::new(limit)),
            _ => Kind::Slotted(Slotted::new(length)),
        };
        Self {
            length,
            small: is_small(limit),
            kind,
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether it serves a quota of this length and limit. Small quotas have exact
    /// recorders of their own.
    pub(super) fn serves(&self, length: u64, limit: u64) -> bool {
        self.length == length && self.small == is_small(limit)
    }

    /// Returns whether it holds exact times.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self.kind, Kind::Exact(_))
    }

    /// Drops the units that cannot be in one interval of this length with `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        match &mut self.kind {
            Kind::Exact(ring) => {
                while ring.live > 0 && ring.times[ring.oldest].saturating_add(self.length) < now {
                    ring.forget();
                }
            }
            Kind::Slotted(ring) => ring.advance(now, self.length),
        }
    }

    /// Returns the number of recorded units. Call [`advance`](Self::advance) first.
    pub(super) fn live(&self) -> u64 {
        match &self.kind {
            Kind::Exact(ring) => ring.live as u64,
            Kind::Slotted(ring) => ring.live,
        }
    }

    /// Records units at `now`. Call `advance` first.
    pub(crate) fn remember(&mut self, now: u64, units: u64) {
        if let Kind::Exact(ring) = &mut self.kind {
            match usize::try_from(units)
                .ok()
                .and_then(|units| units.checked_add(ring.live))
            {
                Some(live) if live <= MOST_EXACT => {
                    ring.hold(live);
                    (0..units).for_each(|_| ring.push(now));
                    return;
                }
                _ => {
                    let mut slotted = Slotted::new(self.length);
                    (1..=ring.live as u64).for_each(|n| slotted.add(ring.nth(n), 1));
                    self.kind = Kind::Slotted(slotted);
                }
            }
        }
        if let Kind::Slotted(ring) = &mut self.kind {
            ring.add(now, units);
        }
    }

    /// Returns the time from `now` until this many units fit under a limit, if nothing else is
    /// admitted; zero if they fit now. Call `advance` first.
    pub(crate) fn wait(&self, now: u64, units: u64, limit: u64) -> u64 {
        match (self.live() + units).saturating_sub(limit) {
            0 => 0,
            excess => self.gone_at(excess).saturating_sub(now),
        }
    }

    /// Returns the time from `now` until the first units are dropped; `None` if there are none.
    /// Call `advance` first.
    pub(super) fn reset(&self, now: u64) -> Option<u64> {
        (self.live() > 0).then(|| self.gone_at(1).saturating_sub(now))
    }

    /// Returns the time at which this many of the oldest units are dropped.
    fn gone_at(&self, units: u64) -> u64 {
        match &self.kind {
            // One nanosecond past W, because a unit is dropped once it is strictly older than W.
            Kind::Exact(ring) => ring
                .nth(units)
                .saturating_add(self.length)
                .saturating_add(1),
            Kind::Slotted(ring) => ring.gone_at(units, self.length),
        }
    }

    /// Returns the recorded units, oldest first, as (latest possible time, units).
    pub(super) fn history(&self) -> Vec<(u64, u64)> {
        match &self.kind {
            Kind::Exact(ring) => (1..=ring.live as u64).map(|n| (ring.nth(n), 1)).collect(),
            Kind::Slotted(ring) => (ring.oldest..ring.oldest + ring.counts.len())
                .map(|slot| {
                    (
                        slot.saturating_add(1).saturating_mul(ring.step) - 1,
                        ring.counts.get(slot),
                    )
                })
                .filter(|(_, units)| *units > 0)
                .collect(),
        }
    }

    /// Adds the history of other recorders, oldest first, except for what is past.
    pub(super) fn inherit(&mut self, history: &[(u64, u64)], now: u64) {
        for &(time, units) in history {
            let time = time.min(now);
            let past = match &self.kind {
                Kind::Exact(_) => time.saturating_add(self.length) < now,
                Kind::Slotted(ring) => ring.slot_gone_at(time / ring.step, self.length) <= now,
            };
            if !past {
                self.remember(time, units);
            }
        }
        self.advance(now);
    }
}

impl Exact {
    fn new(capacity: usize) -> Self {
        Self {
            times: vec![0; capacity.max(1)].into(),
            oldest: 0,
            live: 0,
        }
    }

    /// Grows to hold this many units in total.
    fn hold(&mut self, live: usize) {
        if live > self.times.len() {
            let mut wider = Self::new(live.next_power_of_two().min(MOST_EXACT));
            (1..=self.live as u64).for_each(|n| wider.push(self.nth(n)));
            *self = wider;
        }
    }

    fn forget(&mut self) {
        self.oldest = (self.oldest + 1) % self.times.len();
        self.live -= 1;
    }

    fn push(&mut self, now: u64) {
        let place = (self.oldest + self.live) % self.times.len();
        self.times[place] = now;
        self.live += 1;
    }

    /// Returns the time of the nth oldest unit, counted from 1.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "n is at most the number of live units"
    )]
    fn nth(&self, n: u64) -> u64 {
        self.times[(self.oldest + n as usize - 1) % self.times.len()]
    }
}

impl Slotted {
    fn new(length: u64) -> Self {
        let step = (length / SLOTS_PER_WINDOW).max(1);
        // The slot of now, the oldest slot that is not past, and all between.
        let slots = usize::try_from(length / step + 2).unwrap_or(usize::MAX);
        Self {
            counts: Counts::Narrow(vec![0; slots].into()),
            step,
            oldest: 0,
            live: 0,
        }
    }

    /// Returns the first instant at which no unit of the slot can be in one interval of this length
    /// with it. A unit at the very start of the slot is kept `step` longer than necessary, one at
    /// its very end no longer.
    fn slot_gone_at(&self, slot: u64, length: u64) -> u64 {
        slot.saturating_add(1)
            .saturating_mul(self.step)
            .saturating_add(length)
    }

    fn advance(&mut self, now: u64, length: u64) {
        while self.live > 0
            && (self.counts.get(self.oldest) == 0 || self.slot_gone_at(self.oldest, length) <= now)
        {
            self.live -= self.counts.get(self.oldest);
            self.counts.set(self.oldest, 0);
            self.oldest += 1;
        }
    }

    fn add(&mut self, time: u64, units: u64) {
        if self.live == 0 {
            self.oldest = time / self.step;
        }
        let slot = (time / self.step).max(self.oldest);
        let before = self.counts.get(slot);
        self.counts.set(slot, before.saturating_add(units));
        // Add only what the slot could take: `advance` relies on `live` being the sum of the
        // counts.
        self.live += self.counts.get(slot) - before;
    }

    /// Returns the time at which this many of the oldest units are dropped.
    fn gone_at(&self, units: u64, length: u64) -> u64 {
        let mut left = units;
        let mut slot = self.oldest;
        for _ in 1..self.counts.len() {
            left = left.saturating_sub(self.counts.get(slot));
            if left == 0 {
                break;
            }
            slot += 1;
        }
        self.slot_gone_at(slot, length)
    }
}

impl Counts {
    fn len(&self) -> u64 {
        match self {
            Self::Narrow(counts) => counts.len() as u64,
            Self::Wide(counts) => counts.len() as u64,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a remainder by the length fits the length's type"
    )]
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
        if let (Self::Narrow(counts), Err(_)) = (&*self, u16::try_from(units)) {
            *self = Self::Wide(counts.iter().copied().map(u32::from).collect());
        }
        match self {
            Self::Narrow(counts) => counts[place] = u16::try_from(units).unwrap_or(u16::MAX),
            // A quota is below 2³² units, so it refuses before a count can saturate.
            Self::Wide(counts) => counts[place] = u32::try_from(units).unwrap_or(u32::MAX),
        }
    }
}
