//! Helpers that shorten strings, and the error type of invalid values.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;

/// The maximum number of shared texts, and the length of one in bytes.
const MOST_SHARED: usize = 1000;
const LONGEST_SHARED: usize = 64;

/// Returns a text that other values share, if it is short. For names of which a service has few,
/// and many keys have the same.
pub(crate) fn shared(text: &str) -> Arc<str> {
    static SHARED: LazyLock<Cache<String, Arc<str>>> = LazyLock::new(|| Cache::new(MOST_SHARED));
    if text.len() > LONGEST_SHARED {
        return text.into();
    }
    let own = || Ok::<_, Infallible>(text.into());
    match SHARED.get_or_insert_with(text, own) {
        Ok(shared) => shared,
    }
}

/// A text that is kept in place if it has at most `N` bytes; clones of a longer one share it.
#[derive(Clone)]
pub(crate) enum Short<const N: usize> {
    InPlace(u8, [u8; N]),
    Shared(Arc<str>),
}

impl<const N: usize> From<&str> for Short<N> {
    fn from(text: &str) -> Self {
        let mut bytes = [0; N];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self::InPlace(length, bytes)
            }
            _ => Self::Shared(text.into()),
        }
    }
}

impl<const N: usize> Short<N> {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Shared(text) => text.as_bytes(),
        }
    }
}

impl<const N: usize> Deref for Short<N> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            // It was made from a text.
            Self::InPlace(..) => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Self::Shared(text) => text,
        }
    }
}

impl<const N: usize> PartialEq for Short<N> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
impl<const N: usize> Eq for Short<N> {}
impl<const N: usize> PartialOrd for Short<N> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<const N: usize> Ord for Short<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}
impl<const N: usize> Hash for Short<N> {
    /// As `str` does it, by which maps look up identifiers.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
        state.write_u8(0xff);
    }
}

/// Error returned for an invalid value: a string that does not parse as its type, or a list or
/// number out of bounds.
///
/// The message quotes the given value, shortened, and says what is accepted. It never contains a
/// secret.
///
/// ```
/// use portunus::error::ParseError;
/// use portunus::Scope;
///
/// let error: ParseError = Scope::new("document:").unwrap_err();
/// assert_eq!(error.what(), "scope");
/// assert!(error.to_string().contains("\"document:\""));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    what: &'static str,
    message: Cow<'static, str>,
}

impl ParseError {
    /// Creates an error for a kind of value (`scope`) with the reason why it is invalid.
    pub fn new(what: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what,
            message: message.into(),
        }
    }

    /// Returns the kind of value that was expected: `scope`, `identifier`, `quota`, …
    #[must_use]
    pub const fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ParseError {}

/// Returns the first characters of a string, for a message.
pub(crate) fn start(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Returns the end of the longest prefix of at most this many bytes that consists of whole
/// characters (`str::floor_char_boundary`, which is newer than the minimum supported Rust version).
pub(crate) fn floor_char_boundary(text: &str, longest: usize) -> usize {
    (0..=longest.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::{Short, floor_char_boundary};

    #[test]
    fn a_string_is_cut_between_characters_only() {
        for (longest, end) in [(0, 0), (1, 1), (2, 1), (3, 3), (4, 4), (9, 4)] {
            assert_eq!(floor_char_boundary("aßb", longest), end, "{longest}");
        }
        assert_eq!(floor_char_boundary("", 3), 0);
    }

    #[test]
    fn a_short_text_is_like_the_text_itself() {
        let texts = ["", "a", "b", "aß", "12345", "123456", "1234567"];
        let random = RandomState::new();
        for one in texts {
            let short = Short::<5>::from(one);
            assert_eq!(&*short, one);
            assert_eq!(matches!(short, Short::InPlace(..)), one.len() <= 5);
            // Maps of identifiers are also queried by text.
            assert_eq!(random.hash_one(&short), random.hash_one(one));
            for other in texts {
                let than = Short::<5>::from(other);
                assert_eq!(
                    (short == than, short.cmp(&than)),
                    (one == other, one.cmp(other))
                );
            }
        }
        assert_eq!(size_of::<Short<38>>(), 40);
    }
}
