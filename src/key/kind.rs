//! The environment of a key and its kind.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::format::FormatError;
use crate::text::shared;

/// A data partition such as `live` or `test`. A key of one environment never works in another.
///
/// 1 to 32 lower-case letters, digits and hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Environment(Arc<str>);

impl Environment {
    /// Creates an environment with this name.
    ///
    /// # Errors
    /// Returns [`FormatError::Environment`] if the name is empty, longer than 32 bytes, or has
    /// other characters.
    pub fn new(name: &str) -> Result<Self, FormatError> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(valid) {
            return Err(FormatError::Environment(name.chars().take(40).collect()));
        }
        Ok(Self(shared(name)))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({})", self.0)
    }
}
impl FromStr for Environment {
    type Err = FormatError;
    fn from_str(name: &str) -> Result<Self, FormatError> {
        Self::new(name)
    }
}
impl TryFrom<String> for Environment {
    type Error = FormatError;
    fn try_from(name: String) -> Result<Self, FormatError> {
        Self::new(&name)
    }
}
impl From<Environment> for String {
    fn from(environment: Environment) -> Self {
        environment.0.as_ref().into()
    }
}

/// The kind of principal that a key represents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyKind {
    /// An application of a tenant.
    App,
    /// One user.
    User,
    /// One user, by a token from an OAuth flow: scoped and short-lived.
    AccessToken,
}

impl KeyKind {
    /// Returns the name used in records and responses: `app`, `user`, `access_token`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::User => "user",
            Self::AccessToken => "access_token",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for KeyKind {
    type Err = FormatError;
    fn from_str(name: &str) -> Result<Self, FormatError> {
        match name {
            "app" => Ok(Self::App),
            "user" => Ok(Self::User),
            "access_token" => Ok(Self::AccessToken),
            _ => Err(FormatError::Kind(name.chars().take(40).collect())),
        }
    }
}
