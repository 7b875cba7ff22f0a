//! The alphabet of a key's random part.
//!
//! An alphabet tests membership quickly and generates unbiased random text. Only `token68`
//! characters (RFC 9110 §11.2) are allowed, so that every key fits into an `Authorization` header.

use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::format::{FormatError, GenerateError};

/// A set of 2 to 68 distinct characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Alphabet {
    characters: &'static [u8],
    members: [bool; 256],
}

impl Alphabet {
    /// `0-9A-Za-z`: 5.95 bits per character.
    pub const BASE62: Self =
        Self::from_static(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    /// `A-Za-z0-9-_`, the URL-safe alphabet of RFC 4648 §5: 6 bits per character.
    pub const URL_SAFE: Self =
        Self::from_static(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
    /// `0-9a-f`: 4 bits per character.
    pub const HEX: Self = Self::from_static(b"0123456789abcdef");

    /// Creates an alphabet of the given characters.
    ///
    /// # Errors
    /// Returns [`FormatError::Alphabet`] for fewer than two characters, a duplicate, or a character
    /// that is not allowed in `token68`.
    pub fn new(characters: &'static str) -> Result<Self, FormatError> {
        match members(characters.as_bytes()) {
            Some(members) => Ok(Self {
                characters: characters.as_bytes(),
                members,
            }),
            None => Err(FormatError::Alphabet),
        }
    }

    const fn from_static(characters: &'static [u8]) -> Self {
        match members(characters) {
            Some(members) => Self {
                characters,
                members,
            },
            None => panic!("invalid built-in alphabet"),
        }
    }

    /// Whether every byte of `text` belongs to the alphabet.
    #[must_use]
    pub fn contains_all(&self, text: &[u8]) -> bool {
        all_in(&self.members, text)
    }

    /// Returns the bits of randomness in `length` characters.
    #[must_use]
    pub fn bits(&self, length: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
        let bits = (self.characters.len() as f64).log2() * length as f64;
        bits
    }

    /// Appends `length` uniformly random characters from the operating system's random source.
    pub(super) fn fill(
        &self,
        length: usize,
        into: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), GenerateError> {
        // Rejection sampling: values beyond the alphabet are discarded. Folding them back would
        // favour some characters.
        let mask = u8::try_from(self.characters.len().next_power_of_two() - 1).unwrap_or(u8::MAX);
        let wanted = into.len() + length;
        let mut pool = Zeroizing::new([0_u8; 64]);
        while into.len() < wanted {
            SysRng
                .try_fill_bytes(&mut pool[..])
                .map_err(|error| GenerateError::new(error.to_string()))?;
            for byte in pool.iter() {
                if let Some(&character) = self.characters.get(usize::from(byte & mask)) {
                    into.push(character);
                    if into.len() == wanted {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the membership table, or `None` if the characters are not a valid alphabet.
const fn members(characters: &[u8]) -> Option<[bool; 256]> {
    let mut members = [false; 256];
    let mut at = 0;
    while at < characters.len() {
        let byte = characters[at];
        if !is_token68(byte) || members[byte as usize] {
            return None;
        }
        members[byte as usize] = true;
        at += 1;
    }
    if characters.len() < 2 {
        None
    } else {
        Some(members)
    }
}

/// Whether the byte is allowed in `token68` (RFC 9110 §11.2), without the padding.
pub(crate) const fn is_token68(byte: u8) -> bool {
    TOKEN68[byte as usize]
}

/// Returns whether all characters are allowed in a token68.
pub(crate) fn are_token68(text: &[u8]) -> bool {
    all_in(&TOKEN68, text)
}

// A table, because every character of a value that is not a key is tested.
const TOKEN68: [bool; 256] = {
    let (mut allowed, mut byte) = ([false; 256], 0);
    while byte < 128 {
        let c = byte as u8;
        allowed[byte] =
            c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
        byte += 1;
    }
    allowed
};

/// Returns whether the set has all bytes of a text.
#[inline]
fn all_in(set: &[bool; 256], text: &[u8]) -> bool {
    // No early exit: this keeps the loops free of branches, and the text is short.
    let each = |all: bool, &byte: &u8| all & set[byte as usize];
    let (eights, rest) = text.as_chunks::<8>();
    let of_eights = eights.iter().flatten().fold(true, each);
    rest.iter().fold(of_eights, each)
}

impl std::fmt::Debug for Alphabet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Alphabet({})", String::from_utf8_lossy(self.characters))
    }
}
