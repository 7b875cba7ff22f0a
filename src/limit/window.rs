//! The record of the units admitted within the last W, for a strict sliding window.
//!
//! Up to 64 units are recorded with their times, more are counted in slots of W/256. Units are
//! never dropped too early; a slot is dropped at most W/256 too late, a time at most a millisecond
//! (ten for windows of more than 46 days). A recorder does not enforce a limit, so it survives
//! changes of the quotas that it serves. Times are nanoseconds of a monotonic clock; the caller
//! ensures that they never decrease.
//!
//! # Memory
//! Times and counts are small numbers in a ring that grows as it is used. A time is the low 16 bits
//! of a number of ticks, or 32 bits in a window of more than 65 seconds: all times in the ring are
//! within the window, so the low bits tell them apart. Ticks are powers of ten, so that a clock in
//! whole milliseconds loses nothing. A count takes 4 bits, and continues in the next number if it does
//! not fit; if that happens often, all numbers become wider. Two numbers are enough for several empty
//! slots. The count of the newest slot is not in the ring: most requests write no number.
//!
//! # Why no unit is dropped too early
//! - A time is rounded up to a tick and dropped once `time + W < now`, so every unit in
//!   `[now - W, now]` is kept.
//! - A slot holds times before its end and is dropped once `end + W <= now`; then all of its times
//!   are before `now - W`.
//! - A unit that another recorder hands over is dated at the latest time at which it can have been
//!   admitted, so it is kept longer, not shorter.

use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

use super::kind::Kind;
use super::ring::Ring;

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The recorders of several windows, in one piece of memory. The caller keeps the length of each
/// window, in nanoseconds, and passes it to each call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorders {
    rings: SmallVec<[Ring; 2]>,
    /// The words of all rings, in order.
    words: Words,
}

/// As many as the usual quotas need for some requests a minute are beside the rings.
type Words = SmallVec<[u32; 6]>;

impl Recorders {
    /// Creates a recorder for each window, of this length and quotas of about this limit.
    pub(crate) fn of(windows: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let ring = |(length, limit)| Ring::new(Kind::of(length, limit));
        Self {
            rings: windows.into_iter().map(ring).collect(),
            words: Words::new(),
        }
    }

    /// Adds a recorder with the units of one of others.
    pub(super) fn push_copy(&mut self, other: &Self, window: usize) {
        self.words
            .extend_from_slice(&other.words[other.range(window)]);
        self.rings.push(other.rings[window]);
    }

    /// Returns a recorder with the units of one of these.
    pub(super) fn copied(&self, window: usize) -> Self {
        let mut own = Self::default();
        own.push_copy(self, window);
        own
    }

    fn range(&self, window: usize) -> Range<usize> {
        let start = self.rings[..window].iter().map(Ring::words).sum();
        start..start + self.rings[window].words()
    }

    /// Returns the number of windows.
    pub(super) fn len(&self) -> usize {
        self.rings.len()
    }

    /// Returns whether a recorder holds times.
    pub(super) fn is_exact(&self, window: usize) -> bool {
        self.rings[window].kind.is_times()
    }

    /// Drops the units that cannot be in one interval of a window's length with `now`. Returns how
    /// long units must wait until they fit into all windows, of these lengths and limits, if nothing
    /// else is admitted; zero if they fit now.
    #[inline]
    pub(crate) fn wait(
        &mut self,
        windows: impl IntoIterator<Item = (u64, u64)> + Clone,
        now: u64,
        units: u64,
    ) -> u64 {
        // Usually nothing is to be dropped, and the units fit: the words need not be read.
        let mut each = self.rings.iter().zip(windows.clone());
        if each.all(|(ring, (_, limit))| ring.fits(now, units, limit)) {
            return 0;
        }
        self.drop_and_wait(windows, now, units)
    }

    fn drop_and_wait(
        &mut self,
        windows: impl IntoIterator<Item = (u64, u64)>,
        now: u64,
        units: u64,
    ) -> u64 {
        let (mut wait, mut rest) = (0, &*self.words);
        for (ring, (length, limit)) in self.rings.iter_mut().zip(windows) {
            let (own, more) = rest.split_at(ring.words());
            rest = more;
            ring.advance(own, now, length);
            wait = wait.max(ring.wait(own, now, units, length, limit));
        }
        wait
    }

    /// Records units at `now` in all windows, of these lengths and limits. Call `wait` first.
    pub(crate) fn remember(
        &mut self,
        windows: &(impl IntoIterator<Item = (u64, u64)> + Clone),
        now: u64,
        units: u64,
    ) {
        self.count(windows, now, units, |_, _, _| ());
    }

    /// The same. Calls a function for each window with its limit, the number of recorded units, and
    /// when the first of them are dropped.
    #[inline]
    pub(super) fn count(
        &mut self,
        windows: &(impl IntoIterator<Item = (u64, u64)> + Clone),
        now: u64,
        units: u64,
        mut then: impl FnMut(u64, u64, u64),
    ) {
        let mut begin = 0;
        for (ring, (length, limit)) in self.rings.iter_mut().zip(windows.clone()) {
            // Usually others are in the same slot.
            if !ring.add_to_newest(now, units, length) {
                add(ring, &mut self.words, begin, (now, units, length));
            }
            begin += ring.words();
            then(limit, ring.live, ring.gone_at);
        }
    }

    /// Returns for each window the number of recorded units, and the time from `now` until the
    /// first of them are dropped; `None` if there are none. Call `wait` first.
    #[inline]
    pub(super) fn states(&self, now: u64) -> impl Iterator<Item = (u64, Option<u64>)> {
        self.rings.iter().map(move |ring| {
            let reset = (ring.live > 0).then(|| ring.gone_at.saturating_sub(now));
            (ring.live, reset)
        })
    }

    /// Returns how long units must wait for one window; see [`wait`](Self::wait).
    pub(super) fn wait_for(
        &self,
        window: usize,
        (length, limit): (u64, u64),
        now: u64,
        units: u64,
    ) -> u64 {
        let words = &self.words[self.range(window)];
        self.rings[window].wait(words, now, units, length, limit)
    }

    /// Returns the units recorded in a window, oldest first, as (latest possible time, units).
    pub(super) fn history(&self, window: usize, length: u64) -> Vec<(u64, u64)> {
        let words = &self.words[self.range(window)];
        let each = self.rings[window].each(words, length);
        let counted = each.filter(|(units, _)| *units > 0);
        counted
            .map(|(units, gone_at)| (gone_at - length - 1, units))
            .collect()
    }

    /// Creates a recorder with the history of others, oldest first, except for what is past.
    pub(super) fn inheriting(
        (length, limit): (u64, u64),
        history: &[(u64, u64)],
        now: u64,
    ) -> Self {
        let mut own = Self::of([(length, limit)]);
        for &(time, units) in history {
            own.remember(&[(length, limit)], time.min(now), units);
            // What is past is not mixed with what is not.
            own.wait([(length, limit)], now, 0);
        }
        own
    }
}

/// Records units in a ring whose words begin at this place.
fn add(ring: &mut Ring, words: &mut Words, begin: usize, (now, units, length): (u64, u64, u64)) {
    loop {
        let end = begin + ring.words();
        let Err(needed) = ring.add(&mut words[begin..end], now, units, length) else {
            return;
        };
        let (wider, own) = ring.with_room(&words[begin..end], needed, length);
        *words = [&words[..begin], &own, &words[end..]].concat().into();
        *ring = wider;
    }
}
