//! The digest of a key that is stored, and the scheme that produced it.
//!
//! A key has at least 128 bits of randomness, so one fast hash is enough at rest. With a pepper (a
//! secret kept outside the database), a stolen database alone is not even enough to confirm a
//! guess. A slow password hash would only slow down requests.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use sha2::{Digest, Sha256, Sha512};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use super::{SigningState, sha256};
use crate::text::{ParseError, start};

/// The scheme of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DigestScheme {
    /// SHA-256 (FIPS 180-4) of the whole key.
    Sha256,
    /// SHA-512 (FIPS 180-4) of the whole key, for keys imported from other systems. The SHA-256 of
    /// all its 64 bytes is stored.
    Sha512,
    /// HMAC-SHA256 (RFC 2104) of the whole key under the pepper of this version.
    HmacSha256 {
        /// The pepper's version.
        pepper: u32,
    },
}

/// Writes the scheme's name for storage: `sha256`, `hmac-sha256:3`.
impl fmt::Display for DigestScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256 => f.write_str("sha256"),
            Self::Sha512 => f.write_str("sha512"),
            Self::HmacSha256 { pepper } => write!(f, "hmac-sha256:{pepper}"),
        }
    }
}

impl FromStr for DigestScheme {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || {
            let why = format!("unknown digest scheme {:?}", start(text, 40));
            ParseError::new("digest scheme", why)
        };
        match text.strip_prefix("hmac-sha256:") {
            // One spelling of each version: no sign and no leading zeros.
            Some(version) => version
                .parse::<u32>()
                .ok()
                .filter(|pepper| pepper.to_string() == version)
                .map(|pepper| Self::HmacSha256 { pepper })
                .ok_or_else(unknown),
            None if text == "sha256" => Ok(Self::Sha256),
            None if text == "sha512" => Ok(Self::Sha512),
            None => Err(unknown()),
        }
    }
}

/// The digest of a key, with its scheme. Stores look up keys by it.
///
/// Comparison takes constant time. `Debug` shows the scheme only.
#[derive(Clone, Copy)]
pub struct KeyDigest {
    scheme: DigestScheme,
    // Words, not bytes: comparing four words in constant time takes a sixth of the time of 32
    // bytes.
    words: [u64; 4],
}

impl KeyDigest {
    /// Creates a digest from its stored bytes.
    #[must_use]
    pub fn new(scheme: DigestScheme, bytes: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self { scheme, words }
    }

    /// Creates a digest from a SHA-512 that another system stored.
    #[must_use]
    pub fn of_sha512(digest: &[u8; 64]) -> Self {
        Self::new(DigestScheme::Sha512, Sha256::digest(digest).into())
    }

    /// Returns the scheme.
    #[must_use]
    pub const fn scheme(&self) -> DigestScheme {
        self.scheme
    }

    /// Returns the bytes, for storage.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        // One comparison of all bits that differ: no branch depends on where they do.
        let pairs = self.words.iter().zip(&other.words);
        let differing = pairs.fold(0, |differing, (own, other)| differing | (own ^ other));
        self.scheme == other.scheme && bool::from(differing.ct_eq(&0))
    }
}
impl Eq for KeyDigest {}

impl Hash for KeyDigest {
    /// Hashes one word: a digest is uniformly distributed, so that even an identity hasher suffices
    /// for a map of digests.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.words[0]);
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({}, [redacted])", self.scheme)
    }
}

/// A secret that is kept outside the database, with a version that is stored with each digest.
#[derive(Clone)]
pub struct Pepper {
    version: u32,
    // Keyed once, so that HMAC's two key blocks are not hashed on each request.
    keyed: SigningState,
}

impl Pepper {
    /// Creates a pepper. The host assigns versions; they need not be in order.
    ///
    /// # Errors
    /// Returns an error if the secret has fewer than 32 bytes.
    pub fn new(version: u32, secret: &[u8]) -> Result<Self, ParseError> {
        if secret.len() < 32 {
            let why = "a pepper must be at least 32 random bytes; this one has";
            let why = format!("{why} {}", secret.len());
            return Err(ParseError::new("pepper", why));
        }
        let keyed = SigningState::of(secret);
        Ok(Self { version, keyed })
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper(version {}, [redacted])", self.version)
    }
}

/// The maximum number of schemes that one lookup tries.
const MAX_SCHEMES: usize = 8;

#[derive(Debug, Clone)]
enum Method {
    Sha256,
    Sha512,
    HmacSha256(Pepper),
}

impl Method {
    fn scheme(&self) -> DigestScheme {
        match self {
            Self::Sha256 => DigestScheme::Sha256,
            Self::Sha512 => DigestScheme::Sha512,
            Self::HmacSha256(pepper) => DigestScheme::HmacSha256 {
                pepper: pepper.version,
            },
        }
    }

    fn digest(&self, key: &[u8]) -> KeyDigest {
        let bytes: [u8; 32] = match self {
            Self::Sha256 => return sha256(key),
            Self::Sha512 => return KeyDigest::of_sha512(&Sha512::digest(key).into()),
            Self::HmacSha256(pepper) => pepper.keyed.sign(key),
        };
        KeyDigest::new(self.scheme(), bytes)
    }
}

/// Computes digests: under the current scheme for new keys, and under older schemes that stored
/// keys may still have.
///
/// When a key that is stored under an older scheme is used, its digest is replaced by one under the
/// current scheme. Callers do not notice.
///
/// ```
/// use portunus::key::{KeyHasher, Pepper};
///
/// # let (this_year, last_year) = ([7_u8; 32], [6_u8; 32]);
/// let hasher = KeyHasher::hmac_sha256(Pepper::new(2, &this_year)?)
///     .accept_pepper(Pepper::new(1, &last_year)?)? // rotated out, still accepted
///     .accept_sha256()?; // from before there was a pepper
/// # Ok::<(), portunus::error::ParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct KeyHasher {
    current: Method,
    older: Vec<Method>,
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::sha256()
    }
}

impl KeyHasher {
    /// Uses SHA-256 without a pepper.
    #[must_use]
    pub fn sha256() -> Self {
        Self {
            current: Method::Sha256,
            older: Vec::new(),
        }
    }

    /// Uses HMAC-SHA256 with a pepper.
    #[must_use]
    pub fn hmac_sha256(pepper: Pepper) -> Self {
        Self {
            current: Method::HmacSha256(pepper),
            older: Vec::new(),
        }
    }

    /// Also accepts keys stored under an older pepper.
    ///
    /// # Errors
    /// Returns an error if a pepper of this version is already accepted, or eight schemes and
    /// peppers are.
    pub fn accept_pepper(self, pepper: Pepper) -> Result<Self, ParseError> {
        self.accept(Method::HmacSha256(pepper))
    }

    /// Also accepts keys stored under plain SHA-256.
    ///
    /// # Errors
    /// Returns an error if eight schemes and peppers are already accepted.
    pub fn accept_sha256(self) -> Result<Self, ParseError> {
        self.accept(Method::Sha256)
    }

    /// Also accepts keys that were imported by their SHA-512.
    ///
    /// # Errors
    /// Returns an error if eight schemes and peppers are already accepted.
    pub fn accept_sha512(self) -> Result<Self, ParseError> {
        self.accept(Method::Sha512)
    }

    /// Whether keys stored under this scheme are accepted.
    #[must_use]
    pub fn accepts(&self, scheme: DigestScheme) -> bool {
        self.schemes().any(|accepted| accepted == scheme)
    }

    /// Returns the accepted schemes, the current one first.
    pub fn schemes(&self) -> impl Iterator<Item = DigestScheme> {
        let all = std::iter::once(&self.current).chain(&self.older);
        all.map(Method::scheme)
    }

    fn accept(mut self, method: Method) -> Result<Self, ParseError> {
        let known = std::iter::once(&self.current)
            .chain(&self.older)
            .any(|m| m.scheme() == method.scheme());
        match method.scheme() {
            DigestScheme::HmacSha256 { pepper } if known => {
                let why = format!("pepper version {pepper} is configured twice");
                return Err(ParseError::new("pepper", why));
            }
            _ if known => return Ok(self),
            _ if self.older.len() + 1 == MAX_SCHEMES => {
                let why = "schemes and peppers can be accepted at once";
                return Err(ParseError::new(
                    "pepper",
                    format!("at most {MAX_SCHEMES} {why}"),
                ));
            }
            _ => self.older.push(method),
        }
        Ok(self)
    }

    /// Returns the scheme of new digests.
    #[must_use]
    pub fn scheme(&self) -> DigestScheme {
        self.current.scheme()
    }

    /// Computes the digest of a key under the current scheme.
    #[must_use]
    pub fn digest(&self, key: &str) -> KeyDigest {
        self.current.digest(key.as_bytes())
    }

    /// Adds all digests that the key may be stored under, the current scheme's first.
    #[inline]
    pub(crate) fn candidates(&self, key: &[u8], all: &mut Candidates) {
        all.push(self.current.digest(key));
        for method in &self.older {
            all.push(method.digest(key));
        }
    }
}

/// The digests of a presented key under every accepted scheme, without an allocation.
pub(crate) type Candidates = SmallVec<[KeyDigest; MAX_SCHEMES]>;

/// Returns the SHA-256 of a text.
fn sha256(text: &[u8]) -> KeyDigest {
    let mut words = sha256::INITIAL;
    sha256::finish(&mut words, 0, text);
    let pair = |at: usize| {
        let [low, high] = [words[at], words[at + 1]].map(|word| u64::from(word.swap_bytes()));
        low | high << 32
    };
    KeyDigest {
        scheme: DigestScheme::Sha256,
        words: [pair(0), pair(2), pair(4), pair(6)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digest: &KeyDigest) -> String {
        digest
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    #[test]
    fn sha_256_agrees_with_the_standard() {
        // FIPS 180-4, example "abc".
        assert_eq!(
            hex(&KeyHasher::sha256().digest("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_text_of_any_length_has_its_sha_256() {
        let text: Vec<u8> = (0..=u8::MAX).collect();
        for length in 0..text.len() {
            let text = &text[..length];
            assert_eq!(
                Method::Sha256.digest(text).to_bytes(),
                <[u8; 32]>::from(Sha256::digest(text)),
                "{length}"
            );
        }
    }

    #[test]
    fn hmac_sha_256_agrees_with_the_standard() {
        // RFC 4231, test case 6: a key of 131 bytes 0xaa.
        let Ok(pepper) = Pepper::new(1, &[0xaa; 131]) else {
            panic!("131 bytes are enough")
        };
        assert_eq!(
            hex(&KeyHasher::hmac_sha256(pepper)
                .digest("Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn bytes_and_words_are_one_value() {
        let bytes = std::array::from_fn(|place| u8::try_from(place).unwrap_or(0));
        assert_eq!(
            KeyDigest::new(DigestScheme::Sha256, bytes).to_bytes(),
            bytes
        );
    }
}
