//! The keyed state of HMAC-SHA256, which signs events for a key but cannot authenticate as it.
//!
//! HMAC (RFC 2104 §4) can be computed from the two chaining values that result from its padded key.
//! They sign whatever the key would sign, and the key cannot be computed from them. They are a
//! secret nevertheless: anyone who has them can forge events.

use std::fmt;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::sha256::{self, BLOCK, INITIAL};
use crate::text::ParseError;

/// The two chaining values of HMAC-SHA256 under a key, as bytes after a version byte.
///
/// It is redacted in `Debug` and zeroized on drop.
#[derive(Clone)]
pub struct SigningState([u8; SigningState::LENGTH]);

impl PartialEq for SigningState {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for SigningState {}

impl SigningState {
    /// The length in bytes: the version and two values of 32 bytes.
    pub const LENGTH: usize = 65;

    const VERSION: u8 = 1;

    /// Computes the state of a key.
    pub(crate) fn of(key: &[u8]) -> Self {
        // RFC 2104 §2: keys longer than a block are hashed first.
        let mut block = Zeroizing::new([0_u8; BLOCK]);
        match key.len() {
            ..=BLOCK => block[..key.len()].copy_from_slice(key),
            _ => block[..32].copy_from_slice(&Sha256::digest(key)),
        }
        let mut state = [Self::VERSION; Self::LENGTH];
        let (inner, outer) = state[1..].split_at_mut(32);
        for (half, pad) in [(inner, 0x36), (outer, 0x5c)] {
            let padded = Zeroizing::new(block.map(|byte| byte ^ pad));
            let mut words = INITIAL;
            compress256(&mut words, std::slice::from_ref(&*padded));
            write_words(half, &words);
            words.zeroize();
        }
        Self(state)
    }

    /// Computes the HMAC-SHA256 of a message under the state's key.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let (inner, outer) = self.0[1..].split_at(32);
        let inner = finish(inner, message);
        finish(outer, &inner)
    }

    /// Creates a state from its stored bytes.
    ///
    /// # Errors
    /// Returns an error if the length or the version is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        match <[u8; Self::LENGTH]>::try_from(bytes) {
            Ok(state) if state[0] == Self::VERSION => Ok(Self(state)),
            _ => Err(ParseError::new(
                "signing state",
                "not a signing state: wrong length or version",
            )),
        }
    }

    /// Returns the bytes, for storage. They are a secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// Continues a SHA-256 that has hashed one block into `state` with a message, and finishes it.
fn finish(state: &[u8], message: &[u8]) -> [u8; 32] {
    let mut words = [0_u32; 8];
    for (word, bytes) in words.iter_mut().zip(state.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    sha256::finish(&mut words, BLOCK, message);
    let mut digest = [0; 32];
    write_words(&mut digest, &words);
    words.zeroize();
    digest
}

fn write_words(bytes: &mut [u8], words: &[u32; 8]) {
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
}

impl Drop for SigningState {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SigningState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningState([redacted])")
    }
}
