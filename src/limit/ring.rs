//! The units of one window, as times or counts: small numbers in a ring. See `window`.

use super::kind::{Kind, MOST_TIMES, in_ticks, step};

/// A time that does not come.
const NEVER: u64 = u64::MAX;

/// The most numbers of a ring. More are needed if many counts do not fit, and then wider numbers.
const MOST_NUMBERS: usize = 384;

/// A ring grows by a multiple of this many words of 32 bits.
const CHUNK: usize = 2;

/// The most words of a ring, enough for the most numbers of 32 bits.
const MOST_WORDS: usize = u8::MAX as usize * CHUNK;

/// The units of one window. Its numbers are in words that `Recorders` keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    /// When the oldest unit is dropped.
    pub(super) gone_at: u64,
    pub(super) live: u64,
    /// The place of the oldest number.
    head: u16,
    len: u16,
    /// The number of slots from the oldest that holds units to the newest; 0 for times.
    slots: u16,
    pub(super) kind: Kind,
    /// The capacity, in chunks of words.
    chunks: u8,
}

impl Ring {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            gone_at: NEVER,
            live: 0,
            head: 0,
            len: 0,
            slots: 0,
            kind,
            chunks: 0,
        }
    }

    pub(super) fn words(&self) -> usize {
        usize::from(self.chunks) * CHUNK
    }

    /// Returns how many numbers there is room for.
    fn capacity(&self) -> usize {
        (self.words() * 32) >> self.kind.log2_bits()
    }

    fn len(&self) -> usize {
        self.len.into()
    }

    /// Returns the place of the nth oldest number, counted from 0.
    #[inline]
    fn place(&self, n: usize) -> usize {
        let place = usize::from(self.head) + n;
        match place.checked_sub(self.capacity()) {
            Some(wrapped) => wrapped,
            None => place,
        }
    }

    /// Returns the word of the nth oldest number, counted from 0, and how far it is shifted in it.
    #[inline]
    fn bits(&self, n: usize) -> (usize, usize) {
        let (place, log2_bits) = (self.place(n), self.kind.log2_bits());
        let per_word = 5 - log2_bits;
        (
            place >> per_word,
            (place & ((1 << per_word) - 1)) << log2_bits,
        )
    }

    #[inline]
    fn get(&self, words: &[u32], n: usize) -> u32 {
        let (word, shift) = self.bits(n);
        (words[word] >> shift) & self.kind.most()
    }

    #[inline]
    fn set(&self, words: &mut [u32], n: usize, number: u32) {
        let (word, shift) = self.bits(n);
        let word = &mut words[word];
        *word = (*word & !(self.kind.most() << shift)) | number << shift;
    }

    /// Appends a number, for which there must be room.
    #[inline]
    fn push(&mut self, words: &mut [u32], number: u32) {
        self.len += 1;
        self.set(words, self.len() - 1, number);
    }

    #[inline]
    fn pop(&mut self, words: &[u32]) -> u32 {
        let number = self.get(words, 0);
        self.head = u16::try_from(self.place(1)).unwrap_or(0);
        self.len -= 1;
        number
    }

    /// Returns whether units fit under a limit, and none of the recorded ones is past.
    #[inline]
    pub(super) fn fits(&self, now: u64, units: u64, limit: u64) -> bool {
        now < self.gone_at && self.live.saturating_add(units) <= limit
    }

    /// Drops the units that cannot be in one interval of this length with `now`.
    pub(super) fn advance(&mut self, words: &[u32], now: u64, length: u64) {
        if now >= self.gone_at {
            self.drop_past(words, now, length);
        }
    }

    fn drop_past(&mut self, words: &[u32], now: u64, length: u64) {
        if self.kind.is_times() {
            let (_, tick) = in_ticks(0, length);
            while self.live > 0 && now >= self.gone_at {
                let number = self.pop(words);
                self.live -= 1;
                self.gone_at = match self.live {
                    0 => NEVER,
                    _ => self.later(number, self.get(words, 0), tick),
                };
            }
            return;
        }
        let step = step(length);
        while self.live > 0 && (now >= self.gone_at || self.get(words, 0) == 0) {
            loop {
                let number = self.pop(words);
                self.live -= u64::from(number);
                if !self.kind.continues(number) {
                    break;
                }
            }
            self.slots -= 1;
            self.gone_at = self.gone_at.saturating_add(step);
        }
        if self.live == 0 {
            *self = Self {
                chunks: self.chunks,
                ..Self::new(self.kind)
            };
        }
    }

    /// Returns when a time is dropped, if `first`, the oldest, is dropped at `gone_at`.
    #[inline]
    fn later(&self, first: u32, time: u32, tick: u64) -> u64 {
        let ticks = time.wrapping_sub(first) & self.kind.most();
        self.gone_at.saturating_add(u64::from(ticks) * tick)
    }

    /// Records units at `now`. Returns how many numbers there must be room for if there is not; then
    /// nothing is recorded. Call `advance` first.
    #[inline]
    pub(super) fn add(
        &mut self,
        words: &mut [u32],
        now: u64,
        units: u64,
        length: u64,
    ) -> Result<(), usize> {
        // Usually others are in the same slot.
        if now < self.newest_end(length) && self.increase_newest(words, units) {
            return Ok(());
        }
        self.add_numbers(words, now, units, length)
    }

    /// Returns the end of the newest slot; 0 if there is none.
    #[inline]
    fn newest_end(&self, length: u64) -> u64 {
        match self.slots {
            0 => 0,
            slots => (self.gone_at - length).saturating_add(u64::from(slots - 1) * step(length)),
        }
    }

    /// Adds units to the newest number, unless it is too small for them.
    #[inline]
    fn increase_newest(&mut self, words: &mut [u32], units: u64) -> bool {
        let (word, shift) = self.bits(self.len() - 1);
        let (word, most) = (&mut words[word], self.kind.most());
        let newest = (*word >> shift) & most;
        let more = u32::try_from(units).unwrap_or(u32::MAX);
        let fits = more < most - newest;
        if fits {
            *word += more << shift;
            self.live += units;
        }
        fits
    }

    fn add_numbers(
        &mut self,
        words: &mut [u32],
        now: u64,
        units: u64,
        length: u64,
    ) -> Result<(), usize> {
        if self.kind.is_times() {
            self.add_times(words, now, units, length)
        } else if now < self.newest_end(length) {
            self.add_to_newest(words, units)
        } else {
            self.add_slot(words, now, units, length)
        }
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the low bits are kept"
    )]
    fn add_times(
        &mut self,
        words: &mut [u32],
        now: u64,
        units: u64,
        length: u64,
    ) -> Result<(), usize> {
        let more = usize::try_from(units).unwrap_or(usize::MAX);
        let needed = self.len().saturating_add(more);
        if needed > self.capacity() {
            return Err(needed);
        }
        let (ticks, tick) = in_ticks(now, length);
        if self.live == 0 {
            // One nanosecond past W, because a unit is dropped once it is strictly older than W.
            let past = length.saturating_add(1);
            self.gone_at = ticks.saturating_mul(tick).saturating_add(past);
        }
        for _ in 0..units {
            self.push(words, ticks as u32 & self.kind.most());
        }
        self.live += units;
        Ok(())
    }

    /// Adds a slot for units that are later than the newest one.
    fn add_slot(
        &mut self,
        words: &mut [u32],
        now: u64,
        units: u64,
        length: u64,
    ) -> Result<(), usize> {
        let (step, newest_end) = (step(length), self.newest_end(length));
        let later = match self.live {
            0 => 1,
            _ if now - newest_end < step => 1,
            _ => (now - newest_end) / step + 1,
        };
        // The slots in between are empty.
        let empty = usize::try_from(later - 1).unwrap_or(usize::MAX);
        let needed = self.len().saturating_add(empty);
        let needed = needed.saturating_add(self.kind.numbers(units));
        if needed > self.capacity() {
            return Err(needed);
        }
        if self.live == 0 {
            let end = (now / step).saturating_add(1).saturating_mul(step);
            self.gone_at = end.saturating_add(length);
        }
        (0..empty).for_each(|_| self.push(words, 0));
        self.slots += u16::try_from(later).unwrap_or(0);
        self.push_count(words, units);
        Ok(())
    }

    /// Adds units to the newest slot, as more numbers.
    fn add_to_newest(&mut self, words: &mut [u32], units: u64) -> Result<(), usize> {
        let newest = self.get(words, self.len() - 1);
        let count = u64::from(newest).saturating_add(units);
        let needed = self.len().saturating_add(self.kind.numbers(count) - 1);
        if needed > self.capacity() {
            return Err(needed);
        }
        self.len -= 1;
        self.live -= u64::from(newest);
        self.push_count(words, count);
        Ok(())
    }

    /// Appends a count, for whose numbers there must be room. Adds only what can be stored:
    /// `advance` relies on `live` being the sum of the counts.
    fn push_count(&mut self, words: &mut [u32], count: u64) {
        let most = self.kind.most();
        let mut left = count;
        loop {
            let number = u32::try_from(left).unwrap_or(most).min(most);
            self.push(words, number);
            self.live += u64::from(number);
            left -= u64::from(number);
            if !self.kind.continues(number) {
                return;
            }
        }
    }

    /// Returns each slot's count, or a 1 for each time, and when its units are dropped, oldest first.
    pub(super) fn each<'w>(
        &'w self,
        words: &'w [u32],
        length: u64,
    ) -> impl Iterator<Item = (u64, u64)> + 'w {
        let (_, tick) = in_ticks(0, length);
        let mut n = 0;
        let mut slot = self.gone_at;
        std::iter::from_fn(move || {
            if n >= self.len() {
                return None;
            }
            if self.kind.is_times() {
                n += 1;
                let (first, time) = (self.get(words, 0), self.get(words, n - 1));
                return Some((1, self.later(first, time, tick)));
            }
            let mut count = 0;
            loop {
                let number = self.get(words, n);
                count += u64::from(number);
                n += 1;
                if !self.kind.continues(number) {
                    break;
                }
            }
            let gone_at = slot;
            slot = slot.saturating_add(step(length));
            Some((count, gone_at))
        })
    }

    /// Returns how long units must wait until they fit under a limit. Call `advance` first.
    pub(super) fn wait(&self, words: &[u32], now: u64, units: u64, length: u64, limit: u64) -> u64 {
        match self.live.saturating_add(units).saturating_sub(limit) {
            0 => 0,
            excess => self.gone_at(words, excess, length).saturating_sub(now),
        }
    }

    /// Returns the time at which this many of the oldest units are dropped.
    fn gone_at(&self, words: &[u32], units: u64, length: u64) -> u64 {
        let (mut left, mut at) = (units, self.gone_at);
        for (count, gone_at) in self.each(words, length) {
            (left, at) = (left.saturating_sub(count), gone_at);
            if left == 0 {
                break;
            }
        }
        at
    }

    /// Returns a ring with room for this many numbers and the same units, with its words.
    pub(super) fn with_room(&self, words: &[u32], needed: usize, length: u64) -> (Self, Vec<u32>) {
        let kind = match self.kind {
            times if times.is_times() && needed as u64 <= MOST_TIMES => times,
            times if times.is_times() => Kind::of_counts(needed as u64),
            counts if needed <= MOST_NUMBERS => counts,
            counts => counts.wider(),
        };
        let mut ring = Self::new(kind);
        let room = |ring: &mut Self, numbers: usize| {
            let words = (numbers << kind.log2_bits()).div_ceil(32);
            // A ring grows by more than it needs, so that it is seldom copied. Narrow numbers are for
            // small quotas, of which most services have many buckets: a few words are many numbers.
            let spare = match kind {
                Kind::Counts8 | Kind::Counts16 | Kind::Counts32 => words / 2,
                _ if words > 20 => 0,
                _ => CHUNK,
            };
            let words = (words + spare).next_multiple_of(CHUNK).min(MOST_WORDS);
            ring.chunks = u8::try_from(words / CHUNK).unwrap_or(u8::MAX);
            vec![0; ring.words()]
        };
        if kind.is_times() || kind == self.kind {
            let mut own = room(&mut ring, needed.min(MOST_NUMBERS));
            ring = Self {
                chunks: ring.chunks,
                head: 0,
                len: 0,
                ..*self
            };
            (0..self.len()).for_each(|n| ring.push(&mut own, self.get(words, n)));
            return (ring, own);
        }
        let counts: Vec<_> = self.each(words, length).collect();
        let numbers: usize = counts.iter().map(|(count, _)| kind.numbers(*count)).sum();
        if self.kind.is_times() {
            let mut own = room(&mut ring, MOST_NUMBERS);
            for (count, gone_at) in counts {
                let _ = ring.add(&mut own, gone_at - length - 1, count, length);
            }
            return (ring, own);
        }
        let mut own = room(&mut ring, numbers);
        for (count, _) in counts {
            ring.push_count(&mut own, count);
        }
        (ring.gone_at, ring.slots) = (self.gone_at, self.slots);
        (ring, own)
    }
}
