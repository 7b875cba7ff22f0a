//! The optional checksum at the end of a key: a filter for typing errors, not a security feature.
//!
//! The layout is the one that GitHub published for its tokens: CRC-32 (IEEE 802.3) over the random
//! part, written in base62 (`0-9A-Za-z`), left-padded with `0` to six characters.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The value of each byte as a digit, or [`NONE`].
const VALUES: [u8; 256] = {
    let (mut values, mut value) = ([NONE; 256], 0);
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};
const NONE: u8 = u8::MAX;

/// A checksum algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// CRC-32 over the random part, in six base62 characters.
    Crc32Base62,
}

/// The length of the longest checksum, in characters.
pub(crate) const LONGEST_CHECKSUM: usize = 6;

impl Checksum {
    /// Returns its length in characters.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Crc32Base62 => 6,
        }
    }

    /// Returns whether this is the checksum of a random part: reads it, instead of writing another.
    pub(super) fn is(self, random: &[u8], sum: &[u8]) -> bool {
        match self {
            Self::Crc32Base62 => {
                let digit = |sum: u64, &digit: &u8| match VALUES[usize::from(digit)] {
                    NONE => None,
                    value => Some(sum * 62 + u64::from(value)),
                };
                sum.len() == self.length()
                    && sum.iter().try_fold(0, digit) == Some(crc32fast::hash(random).into())
            }
        }
    }

    /// Computes the checksum of a random part.
    #[must_use]
    pub fn of(self, random: &[u8]) -> [u8; 6] {
        match self {
            Self::Crc32Base62 => {
                let mut rest = crc32fast::hash(random);
                let mut text = [b'0'; 6];
                for place in text.iter_mut().rev() {
                    *place = DIGITS[(rest % 62) as usize];
                    rest /= 62;
                }
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32_in_base62_padded_to_six() {
        // CRC-32 of "123456789" is 0xCBF43926, the check value of the IEEE 802.3 polynomial; 3 421
        // 780 262 in base62.
        let mut value = 0_u64;
        for digit in Checksum::Crc32Base62.of(b"123456789") {
            let place = DIGITS.iter().position(|&d| d == digit);
            value = value * 62 + place.map_or(u64::MAX, |p| p as u64);
        }
        assert_eq!(value, 0xCBF4_3926);
        assert_eq!(&Checksum::Crc32Base62.of(b""), b"000000");
    }

    #[test]
    fn only_the_checksum_that_would_be_written_is_right() {
        let checksum = Checksum::Crc32Base62;
        assert!(checksum.length() <= LONGEST_CHECKSUM);
        for random in [&b""[..], b"a", b"123456789", &[b'z'; 250]] {
            let right = checksum.of(random);
            assert!(checksum.is(random, &right));
            for (place, byte) in (0..6).flat_map(|place| (0..=255).map(move |byte| (place, byte))) {
                let mut sum = right;
                sum[place] = byte;
                assert_eq!(checksum.is(random, &sum), sum == right, "{place} {byte}");
            }
            assert!(!checksum.is(random, &right[..5]));
            assert!(!checksum.is(random, &[&b"0"[..], &right].concat()));
        }
        // As many bits as six digits have: 2^32 more than the CRC is not the CRC.
        let mut value = u64::from(crc32fast::hash(b"a")) + (1 << 32);
        let mut sum = [0; 6];
        for place in sum.iter_mut().rev() {
            *place = DIGITS[(value % 62) as usize];
            value /= 62;
        }
        assert!(!checksum.is(b"a", &sum));
    }
}
