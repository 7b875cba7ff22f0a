//! Identifiers of keys, key families, tenants, users, workspaces and plans.
//!
//! Each is a short printable string that the host may choose, with its own type so that they cannot
//! be confused.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::alphabet::Alphabet;
use super::format::GenerateError;
use crate::text::{ParseError, Short};

const MAX: usize = 128;

/// The characters that an identifier may contain.
trait Allowed {
    const NAMES: &'static str = "visible ASCII characters, without spaces";
    fn allows(byte: u8) -> bool {
        byte.is_ascii_graphic()
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident($text:ty)) => {
        $(#[$doc])*
        ///
        /// 1 to 128 characters.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name($text);

        impl $name {
            /// Creates an identifier.
            ///
            /// # Errors
            /// Returns an error if the text is empty, longer than 128 bytes, or has other
            /// characters.
            pub fn new(text: &str) -> Result<Self, ParseError> {
                if text.is_empty() || text.len() > MAX || !text.bytes().all(Self::allows) {
                    let allowed = Self::NAMES;
                    let why = format!("an identifier must be 1 to {MAX} {allowed}");
                    return Err(ParseError::new("identifier", why));
                }
                Ok(Self(text.into()))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = ParseError;
            fn try_from(text: String) -> Result<Self, ParseError> {
                Self::new(&text)
            }
        }
        impl TryFrom<&str> for $name {
            type Error = ParseError;
            fn try_from(text: &str) -> Result<Self, ParseError> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.as_str().into()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    };
}

text_id! {
    /// The public identifier of a key. It may be logged and shown; it grants no access.
    KeyId(Short<30>)
}
text_id! {
    /// The identifier shared by a key and all its successors by rotation. Rate limits are counted
    /// per family.
    KeyFamily(Short<30>)
}
text_id! {
    /// The organization, account or customer that a key belongs to.
    TenantId(Short<38>)
}
text_id! {
    /// A user of a tenant.
    UserId(Arc<str>)
}

text_id! {
    /// A workspace of a tenant: letters, digits, `-`, `_` and `.` only, so that it needs no
    /// encoding in a path.
    WorkspaceId(Arc<str>)
}
text_id! {
    /// A plan that a tenant pays for: lower-case letters, digits, `-` and `_`.
    PlanName(Arc<str>)
}

impl Allowed for KeyId {}
impl Allowed for KeyFamily {}
impl Allowed for TenantId {}
impl Allowed for UserId {}
impl Allowed for WorkspaceId {
    const NAMES: &'static str = "letters, digits, '-', '_' and '.'";
    fn allows(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
    }
}
impl Allowed for PlanName {
    const NAMES: &'static str = "lower-case letters, digits, '-' and '_'";
    fn allows(byte: u8) -> bool {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    }
}

impl KeyId {
    /// Whether the id has the shape of ids that the library creates: random ones, and those derived
    /// from an idempotency key.
    pub(crate) fn is_of_the_librarys_shape(&self) -> bool {
        let Some(rest) = self.as_str().strip_prefix("key_") else {
            return false;
        };
        match rest.strip_prefix("once_") {
            Some(hash) => hash.len() == 40 && Alphabet::HEX.contains_all(hash.as_bytes()),
            None => rest.len() == 22 && Alphabet::BASE62.contains_all(rest.as_bytes()),
        }
    }

    /// Generates a random identifier: `key_` and 22 base62 characters (131 bits).
    ///
    /// # Errors
    /// Returns an error if the operating system's random source fails.
    pub fn generate() -> Result<Self, GenerateError> {
        let mut text = Zeroizing::new(b"key_".to_vec());
        Alphabet::BASE62.fill(22, &mut text)?;
        Ok(Self(String::from_utf8_lossy(&text).as_ref().into()))
    }
}

impl From<&KeyId> for KeyFamily {
    /// Returns the family of a newly issued key.
    fn from(id: &KeyId) -> Self {
        Self(id.0.clone())
    }
}
