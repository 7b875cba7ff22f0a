//! The id of a request: the caller's, where it can be trusted to be harmless, else one that is
//! made.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::request::{FieldName, RequestHead, Single};

/// The id of a request, to find its event, its log lines and its answer by.
///
/// 1 to 128 visible ASCII characters. Adapters put it into the extensions of the request and of the
/// response, where auditing is on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// The longest that is accepted, in bytes.
    pub const MAX_LENGTH: usize = 128;

    /// The id that this text is; `None` where it is empty, too long, or has other characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let harmless = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic());
        harmless.then(|| Self(text.to_owned()))
    }

    /// The one in `X-Request-Id`, if the field stands once and is harmless.
    #[must_use]
    pub fn of(head: &dyn RequestHead) -> Option<Self> {
        match head.single(FieldName::RequestId) {
            Single::One(value) => Self::new(str::from_utf8(value).ok()?),
            Single::Absent | Single::Repeated => None,
        }
    }

    /// The text.
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
            serde::de::Error::custom("a request id is 1 to 128 visible ASCII characters")
        })
    }
}
