//! One scope: a name, or a wildcard over names.
//!
//! The text is checked once, here, for the characters of an RFC 6749 §3.3 scope token, its length
//! and its segments; whoever holds a [`Scope`] holds a valid one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::{ParseError, start};

/// No scope is longer than this, in bytes.
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
    /// A scope that is known when the program is written. [`scope!`](crate::scope!) checks it at
    /// compile time.
    ///
    /// # Panics
    /// Where the text is no scope; in a `const` that is a compile error.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        match check(text.as_bytes()) {
            Ok(wildcard) => Self {
                text: Text::Static(text),
                wildcard,
            },
            Err(_) => panic!("not a scope: see portunus::scope::Scope"),
        }
    }

    /// A scope that is known at run time.
    ///
    /// # Errors
    /// Where the text is empty or over [`MAX_SCOPE_LENGTH`] bytes, has other than scope-token
    /// characters, an empty segment, or a `*` that is not its whole last segment.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        match check(text.as_bytes()) {
            Ok(wildcard) => Ok(Self {
                text: Text::Shared(text.into()),
                wildcard,
            }),
            Err(reason) => {
                let why = format!("{:?} is no scope: {reason}", start(text, 64));
                Err(ParseError::new("scope", why))
            }
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.text {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }

    /// Whether it ends in `*`.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether a grant of `self` covers all of `required`. A wildcard is covered only by a wildcard
    /// as wide.
    #[must_use]
    pub fn covers(&self, required: &Self) -> bool {
        let required = required.as_str();
        match self.as_str().strip_suffix('*') {
            // `document:*` keeps its separator, so the bare prefix and the other separator do not
            // start with it; a valid scope never ends in a separator, so whatever starts with it is
            // deeper.
            Some(prefix) if self.wildcard => required.starts_with(prefix),
            _ => self.as_str() == required,
        }
    }

    /// The narrowest wildcard above this scope: `document:*` for `document:read`; none for a name
    /// of one segment.
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

/// Whether the text is a wildcard, or what is wrong with it.
const fn check(text: &[u8]) -> Result<bool, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > MAX_SCOPE_LENGTH {
        return Err("it is longer than 128 bytes");
    }
    let mut at = 0;
    let mut segment_start = 0;
    while at < text.len() {
        let byte = text[at];
        match byte {
            b':' | b'.' => {
                if at == segment_start {
                    return Err("a segment is empty");
                }
                segment_start = at + 1;
            }
            b'*' => {
                if at != segment_start || at + 1 != text.len() {
                    return Err("a * must be the whole last segment");
                }
            }
            // RFC 6749 §3.3: %x21 / %x23-5B / %x5D-7E.
            0x21 | 0x23..=0x5B | 0x5D..=0x7E => {}
            _ => return Err("only the characters of RFC 6749 §3.3 are allowed"),
        }
        at += 1;
    }
    if segment_start == text.len() {
        return Err("a segment is empty");
    }
    Ok(text[text.len() - 1] == b'*')
}

/// A [`Scope`](crate::scope::Scope) that is checked when the program is compiled.
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
    ($text:expr) => {
        const { $crate::scope::Scope::from_static($text) }
    };
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
