//! A scope: a name, or a wildcard over names.
//!
//! The text is validated here: the characters of an RFC 6749 §3.3 scope token, the length and the
//! segments. Every [`Scope`] is therefore valid.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::{ParseError, shared, start};

/// The maximum length of a scope, in bytes.
pub const MAX_SCOPE_LENGTH: usize = 128;

/// A scope, as granted to a key or required by a route.
///
/// ```
/// use portunus::scope::Scope;
///
/// assert!("document:read".parse::<Scope>().is_ok());
/// assert!("document:*".parse::<Scope>().is_ok());
/// for wrong in ["", "doc*", "*:read", "a::b", "document:", "document:read ", "d\u{e9}"] {
///     assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
/// }
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    text: Text,
    wildcard: bool,
}

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Scope {
    /// Creates a scope from a constant. [`scope!`](crate::scope!) validates it at compile time.
    ///
    /// # Panics
    /// Panics if the text is not a valid scope, with the reason; in a `const`, this is a compile
    /// error.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        match check(text.as_bytes()) {
            Ok(wildcard) => Self {
                text: Text::Static(text),
                wildcard,
            },
            // A constant's panic can have no other text.
            Err(reason) => panic!("{}", reason),
        }
    }

    /// Creates a scope at run time.
    ///
    /// # Errors
    /// Returns an error if the text is empty or longer than [`MAX_SCOPE_LENGTH`] bytes, or has a
    /// character that is not allowed in a scope token, an empty segment, or a `*` that is not the
    /// whole last segment.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        match check(text.as_bytes()) {
            Ok(wildcard) => Ok(Self {
                text: Text::Shared(shared(text)),
                wildcard,
            }),
            Err(reason) => {
                let why = format!("invalid scope {:?}: {reason}", start(text, 64));
                Err(ParseError::new("scope", why))
            }
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.text {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }

    /// Whether the scope is a wildcard.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether a grant of `self` covers all of `required`. A wildcard is covered only by a wildcard
    /// that is at least as wide.
    #[must_use]
    pub fn covers(&self, required: &Self) -> bool {
        let (own, required) = (self.as_str(), required.as_str());
        // The prefix of `document:*` keeps its separator, so neither the bare prefix nor a name with
        // the other separator starts with it. A valid scope never ends in a separator, so any scope
        // that starts with the prefix is deeper.
        match self.wildcard {
            true => required.starts_with(own.trim_end_matches('*')),
            false => own == required,
        }
    }

    /// Returns the narrowest wildcard above this scope: `document:*` for `document:read`; `None`
    /// for a name of one segment.
    #[must_use]
    pub fn parent_wildcard(&self) -> Option<Self> {
        let name = self.as_str().trim_end_matches([':', '.', '*']);
        let cut = if self.wildcard { name } else { self.as_str() }.rfind([':', '.'])?;
        self.as_str().get(..=cut).map(|prefix| Self {
            text: Text::Shared(format!("{prefix}*").into()),
            wildcard: true,
        })
    }
}

/// Returns whether the text is a wildcard, or why it is invalid.
const fn check(text: &[u8]) -> Result<bool, &'static str> {
    if text.is_empty() {
        return Err("a scope must not be empty");
    }
    if text.len() > MAX_SCOPE_LENGTH {
        return Err("a scope must be at most 128 bytes long");
    }
    let mut at = 0;
    let mut segment_start = 0;
    while at < text.len() {
        let byte = text[at];
        match byte {
            b':' | b'.' => {
                if at == segment_start {
                    return Err("a segment of a scope must not be empty");
                }
                segment_start = at + 1;
            }
            b'*' => {
                if at != segment_start || at + 1 != text.len() {
                    return Err("in a scope, * must be the whole last segment, as in document:*");
                }
            }
            // RFC 6749 §3.3: %x21 / %x23-5B / %x5D-7E.
            0x21 | 0x23..=0x5B | 0x5D..=0x7E => {}
            _ => {
                return Err(
                    "a scope must have only the characters of a scope token (RFC 6749 §3.3)",
                );
            }
        }
        at += 1;
    }
    if segment_start == text.len() {
        return Err("a segment of a scope must not be empty");
    }
    Ok(text[text.len() - 1] == b'*')
}

/// Creates a [`Scope`](crate::scope::Scope) that is validated at compile time.
///
/// ```
/// let scope = portunus::scope!("document:write");
/// assert_eq!(scope.as_str(), "document:write");
/// ```
/// ```compile_fail
/// let scope = portunus::scope!("doc*"); // a compile error
/// ```
#[macro_export]
macro_rules! scope {
    ($text:expr) => {{
        // An item: the compiler evaluates it also where it generates no code (`cargo check`).
        const SCOPE: $crate::scope::Scope = $crate::scope::Scope::from_static($text);
        SCOPE
    }};
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for Scope {}
impl PartialOrd for Scope {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scope {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl std::hash::Hash for Scope {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.as_str())
    }
}
impl FromStr for Scope {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::new(text)
    }
}
impl TryFrom<&str> for Scope {
    type Error = ParseError;
    fn try_from(text: &str) -> Result<Self, ParseError> {
        Self::new(text)
    }
}
impl TryFrom<String> for Scope {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::new(&text)
    }
}
impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.as_str().into()
    }
}
