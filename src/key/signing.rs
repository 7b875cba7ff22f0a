//! What signs events with a key without being able to authenticate as it: the keyed state of HMAC-SHA256.
//!
//! HMAC (RFC 2104 §4) may be computed from the two chaining values that its padded key leaves behind. They sign whatever
//! the key would sign, and the key cannot be computed from them. They are a secret all the same: whoever has them can
//! forge events.

use std::fmt;

use zeroize::Zeroize;

/// The two chaining values of HMAC-SHA256 under a key, as bytes with a version in front.
///
/// `Debug` shows nothing of it, and it is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningState([u8; SigningState::LENGTH]);

/// Stored bytes that are no signing state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no signing state")]
pub struct ParseSigningStateError;

impl SigningState {
    /// The length in bytes: the version, and two values of 32 bytes.
    pub const LENGTH: usize = 65;

    const VERSION: u8 = 1;

    /// The state that was stored before.
    ///
    /// # Errors
    /// Where the length or the version is another one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseSigningStateError> {
        match <[u8; Self::LENGTH]>::try_from(bytes) {
            Ok(state) if state[0] == Self::VERSION => Ok(Self(state)),
            _ => Err(ParseSigningStateError),
        }
    }

    /// The bytes, for a store to keep: a secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
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
