//! The units of one window, as times or counts: small numbers in a ring. See `window`.

use super::kind::{Kind, MOST_TIMES, in_ticks, step};

/// A time that does not come.
const NEVER: u64 = u64::MAX;

/// The most numbers of a ring of counts. If more are needed, they become wider.
const MOST_NUMBERS: usize = 384;

/// The units of one window. Its numbers are in words that `Recorders` keeps: times, or the counts of
/// all slots but the newest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    /// When the oldest unit is dropped.
    pub(super) gone_at: u64,
    pub(super) live: u64,
    /// The count of the newest slot; 0 for times.
    newest: u32,
    /// The number of slots from the oldest that holds units to the newest; 0 for times.
    slots: u32,
    /// The place of the oldest number.
    head: u16,
    len: u16,
    /// The capacity in words.
    words: u16,
    pub(super) kind: Kind,
}

/// What one number or several of a ring mean: a slot's units, or empty slots.
#[derive(Clone, Copy)]
struct Item {
    units: u32,
    slots: u32,
    numbers: usize,
}

impl Ring {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            gone_at: NEVER,
            live: 0,
            newest: 0,
            slots: 0,
            head: 0,
            len: 0,
            words: 0,
            kind,
        }
    }

    #[inline]
    pub(super) fn words(&self) -> usize {
        self.words.into()
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

    /// Appends a number, for which there must be room.
    #[inline]
    fn push(&mut self, words: &mut [u32], number: u32) {
        let (word, shift) = self.bits(self.len());
        let word = &mut words[word];
        *word = (*word & !(self.kind.most() << shift)) | number << shift;
        self.len += 1;
    }

    /// Removes the oldest numbers.
    #[inline]
    fn pop(&mut self, numbers: usize) {
        self.head = u16::try_from(self.place(numbers)).unwrap_or(0);
        self.len -= u16::try_from(numbers).unwrap_or(0);
    }

    /// Appends a slot's count, for which there must be room.
    fn push_count(&mut self, words: &mut [u32], mut count: u32) {
        while count >= self.kind.gap() {
            self.push(words, self.kind.most());
            count -= self.kind.gap();
        }
        self.push(words, count);
    }

    /// Appends empty slots, for which there must be room.
    fn push_empty(&mut self, words: &mut [u32], mut slots: u32) {
        while slots > 0 {
            let run = slots.min(self.kind.most());
            if run == 1 {
                self.push(words, 0);
            } else {
                self.push(words, self.kind.gap());
                self.push(words, run);
            }
            slots -= run;
        }
    }

    /// Reads the nth oldest number of counts and those that belong to it. After the last number is
    /// the newest slot.
    fn item(&self, words: &[u32], n: usize) -> Item {
        let (mut units, mut numbers) = (0, 0);
        while n + numbers < self.len() {
            let number = self.get(words, n + numbers);
            numbers += 1;
            if number < self.kind.gap() {
                units += number;
                return Item {
                    units,
                    slots: 1,
                    numbers,
                };
            }
            if number == self.kind.gap() {
                return Item {
                    units: 0,
                    slots: self.get(words, n + numbers),
                    numbers: numbers + 1,
                };
            }
            units += self.kind.gap();
        }
        Item {
            units: self.newest,
            slots: 1,
            numbers,
        }
    }

    /// Returns what is in the numbers of counts, oldest first.
    fn items<'w>(&'w self, words: &'w [u32]) -> impl Iterator<Item = Item> + 'w {
        let mut n = 0;
        std::iter::from_fn(move || {
            let item = (n < self.len()).then(|| self.item(words, n))?;
            n += item.numbers;
            Some(item)
        })
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
                let first = self.get(words, 0);
                self.pop(1);
                self.live -= 1;
                self.gone_at = match self.live {
                    0 => NEVER,
                    _ => self.later(first, self.get(words, 0), tick),
                };
            }
            return;
        }
        let step = step(length);
        while self.live > 0 {
            let oldest = self.item(words, 0);
            if now < self.gone_at && oldest.units > 0 {
                return;
            }
            self.pop(oldest.numbers);
            self.live -= u64::from(oldest.units);
            self.slots -= oldest.slots;
            let later = u64::from(oldest.slots) * step;
            self.gone_at = self.gone_at.saturating_add(later);
        }
        *self = Self {
            words: self.words,
            ..Self::new(self.kind)
        };
    }

    /// Returns when a time is dropped, if `first`, the oldest, is dropped at `gone_at`.
    #[inline]
    fn later(&self, first: u32, time: u32, tick: u64) -> u64 {
        let ticks = time.wrapping_sub(first) & self.kind.most();
        self.gone_at.saturating_add(u64::from(ticks) * tick)
    }

    /// Returns the end of the newest slot; 0 if there is none.
    #[inline]
    fn newest_end(&self, length: u64) -> u64 {
        match self.slots {
            0 => 0,
            slots => (self.gone_at - length).saturating_add(u64::from(slots - 1) * step(length)),
        }
    }

    /// Records units at `now` if it is in the newest slot, which needs no words. Call `advance` first.
    #[inline]
    pub(super) fn add_to_newest(&mut self, now: u64, units: u64, length: u64) -> bool {
        let is_newest = now < self.newest_end(length);
        if is_newest {
            self.add_units(units);
        }
        is_newest
    }

    /// Adds only what can be stored: `advance` relies on `live` being the sum of the counts.
    #[inline]
    fn add_units(&mut self, units: u64) {
        let most = u32::MAX - self.newest;
        let units = u32::try_from(units).unwrap_or(most).min(most);
        self.newest += units;
        self.live += u64::from(units);
    }

    /// Records units at `now`. Returns how many numbers there must be room for if there is not; then
    /// nothing is recorded. Call `advance` first.
    pub(super) fn add(
        &mut self,
        words: &mut [u32],
        now: u64,
        units: u64,
        length: u64,
    ) -> Result<(), usize> {
        if self.kind.is_times() {
            return self.add_times(words, now, units, length);
        }
        if !self.add_to_newest(now, units, length) {
            self.add_slot(words, now, length)?;
            self.add_units(units);
        }
        Ok(())
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

    /// Adds a slot without units, which is later than the newest one.
    fn add_slot(&mut self, words: &mut [u32], now: u64, length: u64) -> Result<(), usize> {
        let step = step(length);
        if self.live == 0 {
            let end = (now / step).saturating_add(1).saturating_mul(step);
            self.gone_at = end.saturating_add(length);
            self.slots = 1;
            return Ok(());
        }
        // The slots in between are empty; there are not more than 256, because none is past.
        let empty = (now - self.newest_end(length)) / step;
        let empty = u16::try_from(empty).unwrap_or(u16::MAX).into();
        let more = self.kind.numbers(self.newest) + self.kind.numbers_of_empty(empty);
        let needed = self.len() + more;
        if needed > self.capacity() {
            return Err(needed);
        }
        self.push_count(words, self.newest);
        self.push_empty(words, empty);
        self.slots += empty + 1;
        self.newest = 0;
        Ok(())
    }

    /// Returns each slot's count, or a 1 for each time, and when its units are dropped, oldest first.
    pub(super) fn each<'w>(
        &'w self,
        words: &'w [u32],
        length: u64,
    ) -> impl Iterator<Item = (u64, u64)> + 'w {
        let (_, tick) = in_ticks(0, length);
        let mut gone_at = self.gone_at;
        let counts = move |item: Item| {
            let own = gone_at;
            gone_at = gone_at.saturating_add(u64::from(item.slots) * step(length));
            (item.units.into(), own)
        };
        let (times, newest) = match self.kind.is_times() {
            true => (self.len(), None),
            false => (0, Some(self.item(words, self.len()))),
        };
        let time = move |n| (1, self.later(self.get(words, 0), self.get(words, n), tick));
        let counted = newest.map(|newest| self.items(words).chain([newest]).map(counts));
        (0..times).map(time).chain(counted.into_iter().flatten())
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
        let is_enough = match self.kind {
            Kind::Counts32 => true,
            times if times.is_times() => needed as u64 <= MOST_TIMES,
            _ => needed <= MOST_NUMBERS,
        };
        if is_enough {
            let (mut ring, mut own) = self.emptied(self.kind, needed);
            (0..self.len()).for_each(|n| ring.push(&mut own, self.get(words, n)));
            return (ring, own);
        }
        let kind = self.kind.wider();
        if self.kind.is_times() {
            let (ring, mut own) = self.emptied(kind, MOST_NUMBERS);
            let mut ring = Self {
                words: ring.words,
                ..Self::new(kind)
            };
            for (units, gone_at) in self.each(words, length) {
                let _ = ring.add(&mut own, gone_at - length - 1, units, length);
            }
            return (ring, own);
        }
        let numbers = |item: Item| match item.units {
            0 => kind.numbers_of_empty(item.slots),
            units => kind.numbers(units),
        };
        let (mut ring, mut own) = self.emptied(kind, self.items(words).map(numbers).sum());
        for item in self.items(words) {
            match item.units {
                0 => ring.push_empty(&mut own, item.slots),
                units => ring.push_count(&mut own, units),
            }
        }
        (ring, own)
    }

    /// Returns the ring without its numbers, with words for some of another kind.
    fn emptied(&self, kind: Kind, numbers: usize) -> (Self, Vec<u32>) {
        let words = (numbers << kind.log2_bits()).div_ceil(32);
        // A ring grows by more than it needs, so that it is seldom copied. Narrow numbers are for
        // small quotas, of which most services have many buckets.
        let spare = match kind {
            Kind::Counts8 | Kind::Counts16 | Kind::Counts32 => words / 2,
            _ => 1 + words / 8,
        };
        let words = words + spare;
        let ring = Self {
            head: 0,
            len: 0,
            words: u16::try_from(words).unwrap_or(u16::MAX),
            kind,
            ..*self
        };
        (ring, vec![0; words])
    }
}
