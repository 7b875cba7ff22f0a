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

/// A time that does not come.
const NEVER: u64 = u64::MAX;

/// The number of slots per window: a slot is W/256 long.
const SLOTS_PER_WINDOW: u64 = 256;

/// The units that were admitted within the last `length` nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    length: u64,
    /// Whether it was created for a small quota, however many units it holds now.
    small: bool,
    kind: Kind,
}

fn is_small(limit: u64) -> bool {
    limit <= MOST_EXACT as u64
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(Exact),
    Slotted(Slotted),
}

/// The time of each unit, oldest first from `oldest`.
#[derive(Debug, Clone)]
struct Exact {
    times: Box<[u64]>,
    oldest: usize,
    live: usize,
}

/// Units by slot. Slot s holds times from s·step to just before (s+1)·step.
///
/// Most requests find the newest slot current and the oldest not yet past: the ends of both are kept,
/// so that these requests divide nothing.
#[derive(Debug, Clone)]
struct Slotted {
    counts: Counts,
    step: u64,
    /// The oldest slot that holds units.
    oldest: u64,
    /// When the oldest slot is dropped; the end of time if there is none.
    oldest_gone_at: u64,
    /// The end of the newest slot that holds units, and its place in the ring.
    newest_end: u64,
    newest_place: usize,
    live: u64,
}

/// Counters of the smallest type that holds all counts so far.
#[derive(Debug, Clone)]
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
    #[inline]
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
    #[inline]
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
                    let length = self.length;
                    (1..=ring.live as u64).for_each(|n| slotted.add(ring.nth(n), 1, length));
                    self.kind = Kind::Slotted(slotted);
                }
            }
        }
        if let Kind::Slotted(ring) = &mut self.kind {
            ring.add(now, units, self.length);
        }
    }

    /// Returns the time from `now` until this many units fit under a limit, if nothing else is
    /// admitted; zero if they fit now. Call `advance` first.
    #[inline]
    pub(crate) fn wait(&self, now: u64, units: u64, limit: u64) -> u64 {
        match (self.live() + units).saturating_sub(limit) {
            0 => 0,
            excess => self.gone_at(excess).saturating_sub(now),
        }
    }

    /// Drops the units that are past, and returns how long units must wait: see
    /// [`advance`](Self::advance) and [`wait`](Self::wait).
    #[inline]
    pub(super) fn check(&mut self, now: u64, units: u64, limit: u64) -> u64 {
        if let Kind::Slotted(ring) = &mut self.kind {
            ring.advance(now, self.length);
            if ring.live + units <= limit {
                return 0;
            }
        } else {
            self.advance(now);
        }
        self.wait(now, units, limit)
    }

    /// Records units, if any, at `now`. Returns the recorded units, and the time from `now` until
    /// the first are dropped: see [`remember`](Self::remember) and [`reset`](Self::reset).
    #[inline]
    pub(super) fn settle(&mut self, now: u64, units: u64) -> (u64, Option<u64>) {
        if let Kind::Slotted(ring) = &mut self.kind {
            if units > 0 {
                ring.add(now, units, self.length);
            }
            let first_gone_at = ring.oldest_gone_at;
            let reset = (first_gone_at != NEVER).then(|| first_gone_at.saturating_sub(now));
            return (ring.live, reset);
        }
        if units > 0 {
            self.remember(now, units);
        }
        (self.live(), self.reset(now))
    }

    /// Returns the time from `now` until the first units are dropped; `None` if there are none.
    /// Call `advance` first.
    pub(super) fn reset(&self, now: u64) -> Option<u64> {
        let first_gone_at = match &self.kind {
            Kind::Slotted(ring) => ring.oldest_gone_at,
            Kind::Exact(_) if self.live() > 0 => self.gone_at(1),
            Kind::Exact(_) => NEVER,
        };
        (first_gone_at != NEVER).then(|| first_gone_at.saturating_sub(now))
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

    /// Returns the place of the nth oldest unit, counted from 0; there is a place for each.
    fn place(&self, n: usize) -> usize {
        let place = self.oldest + n;
        match place.checked_sub(self.times.len()) {
            Some(wrapped) => wrapped,
            None => place,
        }
    }

    fn forget(&mut self) {
        self.oldest = self.place(1);
        self.live -= 1;
    }

    fn push(&mut self, now: u64) {
        let place = self.place(self.live);
        self.times[place] = now;
        self.live += 1;
    }

    /// Returns the time of the nth oldest unit, counted from 1.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "n is at most the number of live units"
    )]
    fn nth(&self, n: u64) -> u64 {
        self.times[self.place(n as usize - 1)]
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
            oldest_gone_at: NEVER,
            newest_end: 0,
            newest_place: 0,
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

    #[inline]
    fn advance(&mut self, now: u64, length: u64) {
        if now >= self.oldest_gone_at {
            self.drop_past(now, length);
        }
    }

    fn drop_past(&mut self, now: u64, length: u64) {
        while self.live > 0
            && (self.counts.get(self.oldest) == 0 || self.slot_gone_at(self.oldest, length) <= now)
        {
            self.live -= self.counts.get(self.oldest);
            let place = self.counts.place(self.oldest);
            self.counts.set(place, 0);
            self.oldest += 1;
        }
        self.oldest_gone_at = match self.live {
            0 => NEVER,
            _ => self.slot_gone_at(self.oldest, length),
        };
    }

    /// Adds units. Times never decrease.
    #[inline]
    fn add(&mut self, time: u64, units: u64, length: u64) {
        if self.live == 0 || time >= self.newest_end {
            let slot = time / self.step;
            if self.live == 0 {
                self.oldest = slot;
                self.oldest_gone_at = self.slot_gone_at(slot, length);
            }
            let slot = slot.max(self.oldest);
            self.newest_end = slot.saturating_add(1).saturating_mul(self.step);
            self.newest_place = self.counts.place(slot);
        }
        // Add only what the slot could take: `advance` relies on `live` being the sum of the
        // counts.
        self.live += self.counts.add(self.newest_place, units);
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

    /// Adds units to a place. Returns how many it could take.
    #[inline]
    fn add(&mut self, place: usize, units: u64) -> u64 {
        if let Self::Narrow(counts) = self
            && let Some(count) = counts.get_mut(place)
            && let Ok(sum) = u16::try_from(u64::from(*count).saturating_add(units))
        {
            *count = sum;
            return units;
        }
        self.add_many(place, units)
    }

    fn add_many(&mut self, place: usize, units: u64) -> u64 {
        let before = match self {
            Self::Narrow(counts) => counts[place].into(),
            Self::Wide(counts) => counts[place].into(),
        };
        self.set(place, u64::saturating_add(before, units));
        match self {
            Self::Narrow(counts) => u64::from(counts[place]) - before,
            Self::Wide(counts) => u64::from(counts[place]) - before,
        }
    }

    fn set(&mut self, place: usize, units: u64) {
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
