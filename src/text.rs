//! Text that is cut to a length, and the one error of values that cannot be.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Why a value cannot be: a text that is not of its type, or a list or a number out of its bounds.
///
/// Its text says what was given, shortened, and what would be accepted. It never carries a secret.
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
    /// The value would be this (`scope`), and why it is none.
    pub fn new(what: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what,
            message: message.into(),
        }
    }

    /// What the value was to be: `scope`, `identifier`, `quota`, …
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

/// The first characters of a text, for a message.
pub(crate) fn start(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// The end of the longest prefix of at most this many bytes that is whole characters
/// (`str::floor_char_boundary`, which is newer than the oldest Rust that is supported).
pub(crate) fn floor_char_boundary(text: &str, longest: usize) -> usize {
    (0..=longest.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::floor_char_boundary;

    #[test]
    fn a_text_is_cut_between_characters_only() {
        for (longest, end) in [(0, 0), (1, 1), (2, 1), (3, 3), (4, 4), (9, 4)] {
            assert_eq!(floor_char_boundary("aßb", longest), end, "{longest}");
        }
        assert_eq!(floor_char_boundary("", 3), 0);
    }
}
