//! The request id: the caller's if it is safe to record, or else a generated one.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::request::{FieldName, RequestHead, Single};

/// The id of a request, which links its event, log lines and response.
///
/// Has 1 to 128 visible ASCII characters. If auditing is on, adapters add it to the extensions of
/// the request and of the response.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// The maximum length, in bytes.
    pub const MAX_LENGTH: usize = 128;

    /// Creates a request id, or returns `None` if the string is empty, too long, or has other
    /// characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let harmless = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic());
        harmless.then(|| Self(text.to_owned()))
    }

    /// Returns the id in `X-Request-Id`, if the field occurs once and is valid.
    #[must_use]
    pub fn of(head: &dyn RequestHead) -> Option<Self> {
        match head.single(FieldName::RequestId) {
            Single::One(value) => Self::new(str::from_utf8(value).ok()?),
            Single::Absent | Single::Repeated => None,
        }
    }

    /// Returns the id as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            serde::de::Error::custom("a request id must be 1 to 128 visible ASCII characters")
        })
    }
}
