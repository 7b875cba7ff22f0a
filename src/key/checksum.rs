//! The optional checksum at the end of a key: a filter for typing errors, not a security feature.
//!
//! The layout is the one that GitHub published for its tokens: CRC-32 (IEEE 802.3) over the random
//! part, written in base62 (`0-9A-Za-z`), left-padded with `0` to six characters.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A checksum algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// CRC-32 over the random part, in six base62 characters.
    Crc32Base62,
}

impl Checksum {
    /// Returns its length in characters.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Crc32Base62 => 6,
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
}
