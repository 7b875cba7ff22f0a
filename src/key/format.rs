//! The format of keys, described as data.
//!
//! A key has the form `prefix [environment _] [kind _] random [checksum]`. Parsing borrows from the
//! input and does not allocate; it keeps malformed input away from the store. Generation uses the
//! operating system's random source.

use std::fmt;
use std::ops::RangeInclusive;

use zeroize::Zeroizing;

use super::alphabet::{Alphabet, is_token68};
use super::checksum::Checksum;
use super::kind::{Environment, KeyKind};
use super::secret::PlaintextKey;
use crate::text::ParseError;

/// The maximum length of a key, in bytes.
pub const MAX_KEY_LENGTH: usize = 256;

/// The minimum bits of randomness in a generated key.
const LEAST_BITS: f64 = 128.0;

/// Error returned when building an invalid key format or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The alphabet has fewer than two characters, a duplicate, or a character that is not allowed
    /// in an `Authorization` header.
    #[error("an alphabet must have at least two distinct characters of A-Z a-z 0-9 - . _ ~ + /")]
    Alphabet,
    /// The environment's name is not 1 to 32 characters of `a-z0-9-`.
    #[error("invalid environment {0:?}: expected 1 to 32 characters of a-z 0-9 -")]
    Environment(String),
    /// The kind of key is unknown.
    #[error("unknown kind {0:?}: expected app, user or access_token")]
    Kind(String),
    /// A prefix or token has characters that are not allowed in an `Authorization` header, or a
    /// token is empty.
    #[error("invalid prefix or token {0:?}: expected characters of A-Z a-z 0-9 - . _ ~ + /")]
    Token(String),
    /// Two tokens for the same part cannot be distinguished.
    #[error("tokens {0:?} and {1:?} are ambiguous: one begins with the other")]
    Ambiguous(String, String),
    /// A generated key would have too little randomness.
    #[error(
        "a generated key would have {0} bits of randomness; 128 is the minimum, 190 is advised"
    )]
    TooWeak(u32),
    /// The accepted lengths are empty, start at zero, or do not include the generated length.
    #[error("the accepted lengths must include the generated length")]
    Lengths,
    /// A key could be longer than [`MAX_KEY_LENGTH`].
    #[error("a key of this format could have {0} bytes; the maximum is {MAX_KEY_LENGTH}")]
    TooLong(usize),
    /// The random part is missing.
    #[error("a format needs a random part: call random(alphabet, length)")]
    NoRandom,
}

/// Error returned when a key or an id cannot be generated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot generate: {reason}")]
pub struct GenerateError {
    reason: String,
}

impl GenerateError {
    pub(super) fn new(reason: String) -> Self {
        Self { reason }
    }
}

impl From<ParseError> for GenerateError {
    fn from(error: ParseError) -> Self {
        Self::new(error.to_string())
    }
}

/// Error returned when parsing text that does not match a key format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatMismatch {
    /// The prefix, environment, kind, length or alphabet does not match.
    #[error("not a key of this format")]
    Shape,
    /// Everything matches except the checksum: probably a typing error.
    #[error("the checksum is wrong")]
    Checksum,
}

/// A key format.
///
/// ```
/// use portunus::key::{Alphabet, Checksum, Environment, KeyFormat, KeyKind};
///
/// let format = KeyFormat::builder("acme_")
///     .environment("live", Environment::new("live")?)
///     .environment("test", Environment::new("test")?)
///     .kind("sk", KeyKind::App)
///     .random(Alphabet::BASE62, 32) // 190 bits
///     .checksum(Checksum::Crc32Base62)
///     .build()?;
///
/// let key = format.generate(Some(&Environment::new("live")?), Some(KeyKind::App))?.reveal();
/// assert!(key.starts_with("acme_live_sk_"));
/// assert_eq!(format.parse(&key)?.kind(), Some(KeyKind::App));
/// assert!(format.parse("acme_live_sk_tooshort").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFormat {
    prefix: String,
    // Including their separators, so that parsing only strips prefixes.
    environments: Vec<(String, Environment)>,
    kinds: Vec<(String, KeyKind)>,
    alphabet: Alphabet,
    length: usize,
    accepted: RangeInclusive<usize>,
    checksum: Option<Checksum>,
}

/// A key that matches its format, borrowed from the input.
#[derive(Clone, Copy)]
pub struct ParsedKey<'a> {
    environment: Option<&'a Environment>,
    kind: Option<KeyKind>,
    random: &'a [u8],
}

impl<'a> ParsedKey<'a> {
    /// Returns the key's environment, if the format has environments.
    #[must_use]
    pub fn environment(&self) -> Option<&'a Environment> {
        self.environment
    }

    /// Returns the key's kind, if the format has kinds.
    #[must_use]
    pub fn kind(&self) -> Option<KeyKind> {
        self.kind
    }

    /// Returns the length of the random part, without the checksum.
    #[must_use]
    pub fn random_length(&self) -> usize {
        self.random.len()
    }
}

impl fmt::Debug for ParsedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedKey")
            .field("environment", &self.environment)
            .field("kind", &self.kind)
            .field("random", &"[redacted]")
            .finish()
    }
}

impl KeyFormat {
    /// Starts building a format whose keys begin with `prefix`, including its separator (`acme_`).
    /// The prefix may be empty.
    pub fn builder(prefix: impl Into<String>) -> KeyFormatBuilder {
        KeyFormatBuilder {
            prefix: prefix.into(),
            separator: "_".into(),
            environments: Vec::new(),
            kinds: Vec::new(),
            random: None,
            accepted: None,
            checksum: None,
        }
    }

    /// Parses presented text. Copies nothing, and hashes nothing except for the checksum, over the
    /// random part.
    ///
    /// # Errors
    /// Returns [`FormatMismatch::Checksum`] if only the checksum is wrong, otherwise
    /// [`FormatMismatch::Shape`].
    pub fn parse<'a>(&'a self, text: &'a str) -> Result<ParsedKey<'a>, FormatMismatch> {
        self.parse_bytes(text.as_bytes())
    }

    /// Like [`parse`](Self::parse). A key consists of ASCII characters, so bytes need not be UTF-8.
    pub(crate) fn parse_bytes<'a>(
        &'a self,
        text: &'a [u8],
    ) -> Result<ParsedKey<'a>, FormatMismatch> {
        let rest = strip(&self.prefix, text).ok_or(FormatMismatch::Shape)?;
        let (environment, rest) = strip_token(&self.environments, rest)?;
        let (kind, rest) = strip_token(&self.kinds, rest)?;
        let checked = self.checksum.map_or(0, Checksum::length);
        let length = rest
            .len()
            .checked_sub(checked)
            .ok_or(FormatMismatch::Shape)?;
        if !self.accepted.contains(&length) {
            return Err(FormatMismatch::Shape);
        }
        let (random, sum) = rest.split_at_checked(length).ok_or(FormatMismatch::Shape)?;
        if !self.alphabet.contains_all(random) {
            return Err(FormatMismatch::Shape);
        }
        if self
            .checksum
            .is_some_and(|checksum| !checksum.is(random, sum))
        {
            // This includes checksums with characters outside base62.
            return Err(FormatMismatch::Checksum);
        }
        Ok(ParsedKey {
            environment,
            kind: kind.copied(),
            random,
        })
    }

    /// Generates a new key from the operating system's random source.
    ///
    /// `environment` and `kind` select the tokens. They are ignored if the format has no tokens for
    /// that part.
    ///
    /// # Errors
    /// Returns an error if the format has tokens for a part but none for the requested value, or if
    /// the random source fails.
    pub fn generate(
        &self,
        environment: Option<&Environment>,
        kind: Option<KeyKind>,
    ) -> Result<PlaintextKey, GenerateError> {
        let environment = token_for(&self.environments, environment, "environment")?;
        let kind = token_for(&self.kinds, kind.as_ref(), "kind")?;
        // Sufficient capacity, so that no reallocation leaves a copy of the secret behind.
        let mut text = Zeroizing::new(Vec::with_capacity(self.longest()));
        text.extend_from_slice(self.prefix.as_bytes());
        text.extend_from_slice(environment.as_bytes());
        text.extend_from_slice(kind.as_bytes());
        let start = text.len();
        self.alphabet.fill(self.length, &mut text)?;
        if let Some(checksum) = self.checksum {
            let sum = checksum.of(&text[start..]);
            text.extend_from_slice(&sum);
        }
        match String::from_utf8(std::mem::take(&mut *text)) {
            Ok(text) => Ok(PlaintextKey::new(text)),
            Err(_) => Err(GenerateError::new("the alphabet is not ASCII".into())),
        }
    }

    /// Whether the text may contain a key: the prefix followed by enough characters or, if the
    /// prefix is empty, any run of the alphabet's characters that is long enough.
    pub(crate) fn looks_like_key(&self, text: &str) -> bool {
        let shortest = *self.accepted.start();
        if text.len() < self.prefix.len() + shortest {
            return false;
        }
        if self.prefix.is_empty() {
            return text
                .as_bytes()
                .split(|&byte| !self.alphabet.contains_all(&[byte]))
                .any(|run| run.len() >= shortest);
        }
        text.match_indices(&self.prefix).any(|(place, prefix)| {
            let rest = &text.as_bytes()[place + prefix.len()..];
            rest.get(..shortest)
                .is_some_and(|random| random.iter().all(u8::is_ascii_graphic))
        })
    }

    /// Returns the displayable form of a key: prefix, environment, kind, `…` and the last four
    /// characters.
    #[must_use]
    pub fn mask(&self, key: &PlaintextKey) -> String {
        let text = key.as_str();
        let secret = self.parse(text).map_or(text.len(), |parsed| {
            parsed.random.len() + self.checksum.map_or(0, Checksum::length)
        });
        let last = text.len().saturating_sub(4);
        let visible = text.get(..text.len() - secret).unwrap_or_default();
        format!("{visible}…{}", text.get(last..).unwrap_or_default())
    }

    /// Whether the format has a token for this environment, or no environments at all.
    #[must_use]
    pub fn allows_environment(&self, environment: &Environment) -> bool {
        self.environments.is_empty() || self.environments.iter().any(|(_, e)| e == environment)
    }

    /// Returns the format's environments, in the order in which they were added.
    pub(crate) fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.environments.iter().map(|(_, environment)| environment)
    }

    /// Whether the format has a token for this kind, or no kinds at all.
    #[must_use]
    pub fn allows_kind(&self, kind: KeyKind) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|(_, k)| *k == kind)
    }

    /// Returns the bits of randomness in a generated key.
    #[must_use]
    pub fn bits(&self) -> f64 {
        self.alphabet.bits(self.length)
    }

    /// Returns the length of the longest accepted key, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        let around =
            self.prefix.len() + longest_token(&self.environments) + longest_token(&self.kinds);
        around
            .saturating_add(*self.accepted.end())
            .saturating_add(self.checksum.map_or(0, Checksum::length))
    }
}

/// Returns what follows this start of a text. A short one is compared here, without a call.
#[inline]
fn strip<'a>(start: &str, text: &'a [u8]) -> Option<&'a [u8]> {
    let (begin, rest) = text.split_at_checked(start.len())?;
    let start = start.as_bytes();
    // Two parts that may overlap.
    let is_equal = match start.len() {
        1 | 2 => ends::<1>(begin) == ends(start),
        3 | 4 => ends::<3>(begin) == ends(start),
        5..=8 => ends::<4>(begin) == ends(start),
        9..=16 => ends::<8>(begin) == ends(start),
        _ => begin == start,
    };
    is_equal.then_some(rest)
}

/// Returns the first and the last bytes.
fn ends<const N: usize>(text: &[u8]) -> (Option<&[u8; N]>, Option<&[u8; N]>) {
    (text.first_chunk(), text.last_chunk())
}

fn strip_token<'a, T>(
    tokens: &'a [(String, T)],
    text: &'a [u8],
) -> Result<(Option<&'a T>, &'a [u8]), FormatMismatch> {
    if tokens.is_empty() {
        return Ok((None, text));
    }
    tokens
        .iter()
        .find_map(|(token, value)| {
            let rest = strip(token, text)?;
            Some((Some(value), rest))
        })
        .ok_or(FormatMismatch::Shape)
}

fn token_for<'a, T: PartialEq + fmt::Debug>(
    tokens: &'a [(String, T)],
    wanted: Option<&T>,
    place: &str,
) -> Result<&'a str, GenerateError> {
    if tokens.is_empty() {
        return Ok("");
    }
    tokens
        .iter()
        .find_map(|(token, value)| (Some(value) == wanted).then_some(token.as_str()))
        .ok_or_else(|| {
            GenerateError::new(format!("this format has no {place} token for {wanted:?}"))
        })
}

fn longest_token<T>(tokens: &[(String, T)]) -> usize {
    tokens
        .iter()
        .map(|(token, _)| token.len())
        .max()
        .unwrap_or(0)
}

/// Builder for [`KeyFormat`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build()"]
pub struct KeyFormatBuilder {
    prefix: String,
    separator: String,
    environments: Vec<(String, Environment)>,
    kinds: Vec<(String, KeyKind)>,
    random: Option<(Alphabet, usize)>,
    accepted: Option<RangeInclusive<usize>>,
    checksum: Option<Checksum>,
}

impl KeyFormatBuilder {
    /// Sets the separator after each environment and kind token. By default: `_`.
    pub fn separator(mut self, separator: impl Into<String>) -> Self {
        self.separator = separator.into();
        self
    }

    /// Adds an environment and its token in keys.
    pub fn environment(mut self, token: impl Into<String>, environment: Environment) -> Self {
        self.environments.push((token.into(), environment));
        self
    }

    /// Adds a kind and its token in keys.
    pub fn kind(mut self, token: impl Into<String>, kind: KeyKind) -> Self {
        self.kinds.push((token.into(), kind));
        self
    }

    /// Sets the random part: its alphabet and the number of generated characters.
    pub fn random(mut self, alphabet: Alphabet, length: usize) -> Self {
        self.random = Some((alphabet, length));
        self
    }

    /// Also accepts random parts of other lengths, for example of keys generated elsewhere.
    pub fn accept_lengths(mut self, lengths: RangeInclusive<usize>) -> Self {
        self.accepted = Some(lengths);
        self
    }

    /// Adds a checksum to the end of each key.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Builds the format.
    ///
    /// # Errors
    /// Returns a [`FormatError`] that names the invalid part: a missing random part, characters
    /// that are not allowed in a header, ambiguous tokens, less than 128 bits of randomness,
    /// lengths that do not include the generated one, or keys longer than [`MAX_KEY_LENGTH`].
    pub fn build(self) -> Result<KeyFormat, FormatError> {
        let (alphabet, length) = self.random.ok_or(FormatError::NoRandom)?;
        let bits = alphabet.bits(length);
        if bits < LEAST_BITS {
            return Err(FormatError::TooWeak(bits as u32));
        }
        let accepted = self.accepted.unwrap_or(length..=length);
        if !accepted.contains(&length) || *accepted.start() == 0 {
            return Err(FormatError::Lengths);
        }
        if !self.prefix.bytes().all(is_token68) {
            return Err(FormatError::Token(self.prefix));
        }
        let format = KeyFormat {
            prefix: self.prefix,
            environments: with_separator(self.environments, &self.separator)?,
            kinds: with_separator(self.kinds, &self.separator)?,
            alphabet,
            length,
            accepted,
            checksum: self.checksum,
        };
        match format.longest() {
            longest if longest > MAX_KEY_LENGTH => Err(FormatError::TooLong(longest)),
            _ => Ok(format),
        }
    }
}

fn with_separator<T>(
    tokens: Vec<(String, T)>,
    separator: &str,
) -> Result<Vec<(String, T)>, FormatError> {
    let mut ready: Vec<(String, T)> = Vec::with_capacity(tokens.len());
    for (token, value) in tokens {
        let written = format!("{token}{separator}");
        if token.is_empty() || !written.bytes().all(is_token68) {
            return Err(FormatError::Token(token));
        }
        let clash = ready
            .iter()
            .find(|(other, _)| other.starts_with(&written) || written.starts_with(other.as_str()));
        if let Some((other, _)) = clash {
            return Err(FormatError::Ambiguous(other.clone(), written));
        }
        ready.push((written, value));
    }
    Ok(ready)
}
