//! The texts of a record.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::Short;

/// A text of a [`KeyRecord`](super::KeyRecord), read like a `str`. One of up to 22 bytes needs no
/// memory besides the record; clones of a longer one share it.
///
/// ```
/// use portunus::key::Text;
///
/// let name = Text::from("Production server");
/// assert_eq!(name, "Production server");
/// assert!(name.starts_with("Prod"));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Short<22>);

impl Text {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_what_it_was_made_from() {
        for length in [0, 1, 21, 22, 23, 24, 255, 256, 278, 100_000] {
            for unit in ["a", "é", "\u{1f511}"] {
                let text: String = unit.chars().cycle().take(length).collect();
                let kept = Text::from(text.as_str());
                assert_eq!(kept.as_str(), text);
                assert_eq!(kept, kept.clone());
                assert_eq!(
                    (kept.to_string(), format!("{kept:?}")),
                    (text.clone(), format!("{text:?}"))
                );
                let json = serde_json::to_string(&text).unwrap_or_default();
                assert_eq!(serde_json::from_str::<Text>(&json).ok(), Some(kept.clone()));
                assert_eq!(serde_json::to_string(&kept).ok(), Some(json));
                assert_ne!(kept, Text::from(text + "a"));
            }
        }
    }
}
