//! The request id: the caller's if it is safe to record, or else a generated one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::request::{FieldName, RequestHead, Single};

/// The id of a request, which links its event, log lines and response.
///
/// Has 1 to 128 visible ASCII characters; `Display` writes them. If auditing is on, adapters add it
/// to the extensions of the request, and to those of a response that refuses it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Id);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Id {
    /// Written as 32 hexadecimal digits in lower case. A generated id, which becomes text only when
    /// it is read, or a given one of this form.
    Number([u8; 16]),
    /// Any other id.
    Text(Arc<str>),
}

impl RequestId {
    /// The maximum length, in bytes.
    pub const MAX_LENGTH: usize = 128;

    /// Creates a request id, or returns `None` if the string is empty, too long, or has other
    /// characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let harmless = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic());
        let is_digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let is_number = text.len() == 32 && text.bytes().all(is_digit);
        let number = is_number.then(|| u128::from_str_radix(text, 16).ok());
        harmless.then(|| match number.flatten() {
            Some(number) => Self::of_number(number),
            None => Self(Id::Text(text.into())),
        })
    }

    pub(super) const fn of_number(number: u128) -> Self {
        Self(Id::Number(number.to_le_bytes()))
    }

    /// Returns the id in `X-Request-Id`, if the field occurs once and is valid.
    #[must_use]
    pub fn of(head: &dyn RequestHead) -> Option<Self> {
        // Cheaper than to look up a field that most requests do not have.
        if !head.may_have_any(&[FieldName::RequestId]) {
            return None;
        }
        match head.single(FieldName::RequestId) {
            Single::One(value) => Self::new(str::from_utf8(value).ok()?),
            Single::Absent | Single::Repeated => None,
        }
    }

    /// Returns the memory that the id refers to, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Id::Number(_) => 0,
            Id::Text(text) => text.len(),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Number(number) => write!(f, "{:032x}", u128::from_le_bytes(*number)),
            Id::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({:?})", self.to_string())
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
