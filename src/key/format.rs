//! The shape of a key, described as data.
//!
//! A key reads `prefix [environment _] [kind _] random [checksum]`. Parsing borrows and allocates
//! nothing, and is what keeps garbage away from the store; generation takes the operating system's
//! randomness.

use std::fmt;
use std::ops::RangeInclusive;

use zeroize::Zeroizing;

use super::alphabet::{Alphabet, is_token68};
use super::checksum::Checksum;
use super::kind::{Environment, KeyKind};
use super::secret::PlaintextKey;
use crate::text::ParseError;

/// No key is longer than this, in bytes.
pub const MAX_KEY_LENGTH: usize = 256;

/// The fewest bits of randomness that a generated key may have.
const LEAST_BITS: f64 = 128.0;

/// Why a format, or a part of one, cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The alphabet has under two characters, one twice, or one that an `Authorization` field
    /// cannot carry.
    #[error("an alphabet needs two or more distinct characters of A-Z a-z 0-9 - . _ ~ + /")]
    Alphabet,
    /// The environment's name is not 1 to 32 of `a-z0-9-`.
    #[error("environment {0:?} is not 1 to 32 characters of a-z 0-9 -")]
    Environment(String),
    /// There is no such kind of key.
    #[error("kind {0:?} is none of app, user, access_token")]
    Kind(String),
    /// A prefix or token has characters that an `Authorization` field cannot carry, or a token is
    /// empty.
    #[error("prefix or token {0:?} must be characters of A-Z a-z 0-9 - . _ ~ + /")]
    Token(String),
    /// Two tokens of one place cannot be told apart.
    #[error("tokens {0:?} and {1:?} cannot be told apart: one begins with the other")]
    Ambiguous(String, String),
    /// A generated key would be guessable.
    #[error("a generated key would have {0} bits of randomness; 128 is the least, 190 is advised")]
    TooWeak(u32),
    /// The accepted lengths do not include the generated one, or are empty.
    #[error("the accepted lengths must include the generated length")]
    Lengths,
    /// A key could be longer than [`MAX_KEY_LENGTH`].
    #[error("a key of this format could take {0} bytes; {MAX_KEY_LENGTH} is the most")]
    TooLong(usize),
    /// The random part has not been described.
    #[error("a format needs a random part: call random(alphabet, length)")]
    NoRandom,
}

/// Why a key could not be generated.
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

/// What is wrong with a presented text, as far as its shape tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatMismatch {
    /// It has another prefix, environment, kind, length or alphabet.
    #[error("not a key of this format")]
    Shape,
    /// All of that is right and the checksum is wrong: a typing error.
    #[error("the checksum is wrong")]
    Checksum,
}

/// One format of keys.
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
    // With their separators, so that parsing is stripping.
    environments: Vec<(String, Environment)>,
    kinds: Vec<(String, KeyKind)>,
    alphabet: Alphabet,
    length: usize,
    accepted: RangeInclusive<usize>,
    checksum: Option<Checksum>,
}

/// A key whose shape is right, borrowed from the text.
#[derive(Clone, Copy)]
pub struct ParsedKey<'a> {
    environment: Option<&'a Environment>,
    kind: Option<KeyKind>,
    random: &'a str,
}

impl<'a> ParsedKey<'a> {
    /// The environment that the key names, where its format has one.
    #[must_use]
    pub fn environment(&self) -> Option<&'a Environment> {
        self.environment
    }

    /// The kind that the key names, where its format has one.
    #[must_use]
    pub fn kind(&self) -> Option<KeyKind> {
        self.kind
    }

    /// The length of the random part, without the checksum.
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
    /// Starts a format whose keys begin with `prefix`, as it is written (`acme_`); it may be empty.
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

    /// Reads a presented text. Nothing is copied, nothing is hashed but the checksum of a few dozen
    /// bytes.
    ///
    /// # Errors
    /// [`FormatMismatch::Checksum`] where only the checksum is wrong, else
    /// [`FormatMismatch::Shape`].
    pub fn parse<'a>(&'a self, text: &'a str) -> Result<ParsedKey<'a>, FormatMismatch> {
        let rest = text
            .strip_prefix(self.prefix.as_str())
            .ok_or(FormatMismatch::Shape)?;
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
        if !self.alphabet.contains_all(random.as_bytes()) {
            return Err(FormatMismatch::Shape);
        }
        if self
            .checksum
            .is_some_and(|checksum| checksum.of(random.as_bytes()) != sum.as_bytes())
        {
            // A checksum of foreign characters is no typing error of one of ours, but it costs the
            // same answer.
            return Err(FormatMismatch::Checksum);
        }
        Ok(ParsedKey {
            environment,
            kind: kind.copied(),
            random,
        })
    }

    /// Makes a new key from the operating system's randomness.
    ///
    /// `environment` and `kind` select the tokens; where the format has none for that place, they
    /// are not written.
    ///
    /// # Errors
    /// Where the format has tokens for a place and none for what was asked, or the system gives no
    /// randomness.
    pub fn generate(
        &self,
        environment: Option<&Environment>,
        kind: Option<KeyKind>,
    ) -> Result<PlaintextKey, GenerateError> {
        let environment = token_for(&self.environments, environment, "environment")?;
        let kind = token_for(&self.kinds, kind.as_ref(), "kind")?;
        // The exact capacity, so that no reallocation leaves a copy of the secret behind.
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

    /// Whether a text must be taken to have a key in it, whatever stands around: the prefix and
    /// something long enough after it; where there is no prefix, any run of its characters that is
    /// long enough.
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

    /// What people may see of a key: prefix, environment, kind, `…` and the last four characters.
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

    /// Whether the format writes this environment, or writes none at all.
    #[must_use]
    pub fn allows_environment(&self, environment: &Environment) -> bool {
        self.environments.is_empty() || self.environments.iter().any(|(_, e)| e == environment)
    }

    /// The environments that the format writes, in the order in which they were added.
    pub(crate) fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.environments.iter().map(|(_, environment)| environment)
    }

    /// Whether the format writes this kind, or writes none at all.
    #[must_use]
    pub fn allows_kind(&self, kind: KeyKind) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|(_, k)| *k == kind)
    }

    /// The bits of randomness in a generated key.
    #[must_use]
    pub fn bits(&self) -> f64 {
        self.alphabet.bits(self.length)
    }

    /// The length of the longest key that is accepted, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        let around =
            self.prefix.len() + longest_token(&self.environments) + longest_token(&self.kinds);
        around
            .saturating_add(*self.accepted.end())
            .saturating_add(self.checksum.map_or(0, Checksum::length))
    }
}

fn strip_token<'a, T>(
    tokens: &'a [(String, T)],
    text: &'a str,
) -> Result<(Option<&'a T>, &'a str), FormatMismatch> {
    if tokens.is_empty() {
        return Ok((None, text));
    }
    tokens
        .iter()
        .find_map(|(token, value)| {
            text.strip_prefix(token.as_str())
                .map(|rest| (Some(value), rest))
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
        .ok_or_else(|| GenerateError::new(format!("this format writes no {place} for {wanted:?}")))
}

fn longest_token<T>(tokens: &[(String, T)]) -> usize {
    tokens
        .iter()
        .map(|(token, _)| token.len())
        .max()
        .unwrap_or(0)
}

/// Describes a [`KeyFormat`] part by part.
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
    /// What follows each environment and kind token; `_` unless set.
    pub fn separator(mut self, separator: impl Into<String>) -> Self {
        self.separator = separator.into();
        self
    }

    /// Adds an environment and the token that keys write for it.
    pub fn environment(mut self, token: impl Into<String>, environment: Environment) -> Self {
        self.environments.push((token.into(), environment));
        self
    }

    /// Adds a kind and the token that keys write for it.
    pub fn kind(mut self, token: impl Into<String>, kind: KeyKind) -> Self {
        self.kinds.push((token.into(), kind));
        self
    }

    /// The random part: its alphabet and how many characters are generated.
    pub fn random(mut self, alphabet: Alphabet, length: usize) -> Self {
        self.random = Some((alphabet, length));
        self
    }

    /// Accepts random parts of other lengths too, such as those of keys made elsewhere.
    pub fn accept_lengths(mut self, lengths: RangeInclusive<usize>) -> Self {
        self.accepted = Some(lengths);
        self
    }

    /// Ends each key with a checksum.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// The format.
    ///
    /// # Errors
    /// A [`FormatError`] that names the part which cannot work: characters that a field cannot
    /// carry, tokens that cannot be told apart, under 128 bits of randomness, or keys longer than
    /// [`MAX_KEY_LENGTH`].
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
