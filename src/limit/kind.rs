//! What the numbers of a ring are: times or counts, their bits, and the units of time of both.

/// Up to this many units are recorded with their times.
pub(super) const MOST_TIMES: u64 = 64;

/// The number of slots per window: a slot is W/256 long.
const SLOTS_PER_WINDOW: u64 = 256;

/// Returns whether a quota of this limit is recorded by times.
pub(super) const fn is_small(limit: u64) -> bool {
    limit <= MOST_TIMES
}

/// What the numbers of a ring are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Times16,
    Times32,
    Counts4,
    Counts8,
    Counts16,
    Counts32,
}

impl Kind {
    /// Returns the kind for a window of this length and a quota of about this limit. Counts are
    /// narrow at first: most buckets use a small part of a large quota.
    pub(super) const fn of(length: u64, limit: u64) -> Self {
        match is_small(limit) {
            true if length <= LONGEST_16 => Self::Times16,
            true => Self::Times32,
            false => Self::Counts4,
        }
    }

    pub(super) const fn wider(self) -> Self {
        match self {
            Self::Times16 | Self::Times32 => Self::Counts4,
            Self::Counts4 => Self::Counts8,
            Self::Counts8 => Self::Counts16,
            Self::Counts16 | Self::Counts32 => Self::Counts32,
        }
    }

    pub(super) const fn is_times(self) -> bool {
        matches!(self, Self::Times16 | Self::Times32)
    }

    /// Returns the binary logarithm of the bits of a number.
    pub(super) const fn log2_bits(self) -> u32 {
        match self {
            Self::Counts4 => 2,
            Self::Counts8 => 3,
            Self::Times16 | Self::Counts16 => 4,
            Self::Times32 | Self::Counts32 => 5,
        }
    }

    /// Returns the largest number. As a part of a count, it stands for `gap` units and continues in the
    /// next number.
    pub(super) const fn most(self) -> u32 {
        u32::MAX >> (32 - (1 << self.log2_bits()))
    }

    /// Returns the number that announces how many slots are empty. A count that does not continue is
    /// less.
    pub(super) const fn gap(self) -> u32 {
        self.most() - 1
    }

    /// Returns how many numbers a count takes.
    pub(super) fn numbers(self, count: u32) -> usize {
        (count / self.gap()) as usize + 1
    }

    /// Returns how many numbers empty slots take: one, or two for up to `most` of them.
    pub(super) fn numbers_of_empty(self, slots: u32) -> usize {
        (slots / self.most() * 2 + (slots % self.most()).min(2)) as usize
    }
}

/// The longest window whose times have 16 bits, and the longest of these in ticks of 100 µs.
const LONGEST_16: u64 = 65_000_000_000;
const LONGEST_16_FINE: u64 = 6_500_000_000;

/// Returns a time in whole ticks, rounded up, and the length of a tick, for a window of this length.
/// The window has less than 2³² ticks, and less than 2¹⁶ if it is not over 65 seconds.
#[inline]
pub(super) fn in_ticks(time: u64, length: u64) -> (u64, u64) {
    // Divisions by constants are multiplications.
    const THOUSAND_SECONDS: u64 = 1_000_000_000_000;
    if length <= LONGEST_16_FINE {
        (time.div_ceil(100_000), 100_000)
    } else if length <= LONGEST_16 {
        (time.div_ceil(1_000_000), 1_000_000)
    } else if length <= 4 * THOUSAND_SECONDS {
        (time.div_ceil(1_000), 1_000)
    } else if length <= 40 * THOUSAND_SECONDS {
        (time.div_ceil(10_000), 10_000)
    } else if length <= 400 * THOUSAND_SECONDS {
        (time.div_ceil(100_000), 100_000)
    } else if length <= 4_000 * THOUSAND_SECONDS {
        (time.div_ceil(1_000_000), 1_000_000)
    } else {
        (time.div_ceil(10_000_000), 10_000_000)
    }
}

/// The length of a slot.
#[inline]
pub(super) fn step(length: u64) -> u64 {
    (length / SLOTS_PER_WINDOW).max(1)
}
