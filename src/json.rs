//! JSON read once and strictly: nothing that is read differs from what was written.
//!
//! Of members with the same name one would be lost, and an integer beyond 64 bits would become
//! another number: both are refused, at any depth. A fraction is the nearest double, as in every
//! JSON reader of JavaScript's.
//!
//! [`Metadata::from_json`](crate::key::Metadata::from_json) and the management API read by these
//! rules.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most characters of a caller's text that an error repeats.
const LONGEST_QUOTE: usize = 60;

/// Error returned by [`parse`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text starts with a byte order mark, which JSON has none of (RFC 8259 §8.1).
    #[error("it starts with a byte order mark: send UTF-8 without one (RFC 8259 §8.1)")]
    ByteOrderMark,
    /// The text is not JSON.
    #[error("it is not JSON: {0}")]
    Syntax(#[source] serde_json::Error),
    /// An object has two members with this name, cut to 60 characters.
    #[error("duplicate field `{0}`")]
    DuplicateMember(String),
    /// A number is beyond what a double can be.
    #[error("{0}")]
    NumberOutOfRange(#[source] serde_json::Error),
    /// An integer needs more than 64 bits. Its first digits, at most 20 characters.
    #[error("the integer {0}… has more than 64 bits: send it as a string")]
    IntegerTooLarge(String),
}

/// The value of a JSON text (RFC 8259).
///
/// ```
/// use portunus::json::{JsonError, parse};
///
/// assert_eq!(parse(br#"{"a":[1,0.5]}"#)?.to_string(), r#"{"a":[1,0.5]}"#);
/// assert!(matches!(parse(br#"{"a":1,"a":2}"#), Err(JsonError::DuplicateMember(name)) if name == "a"));
/// assert!(matches!(parse(b"18446744073709551616"), Err(JsonError::IntegerTooLarge(_))));
/// # Ok::<_, JsonError>(())
/// ```
///
/// # Errors
/// Where the text is not JSON, has members with the same name in one object, or a number that
/// cannot be kept.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    const MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];
    if MARKS.iter().any(|mark| text.starts_with(mark)) {
        return Err(JsonError::ByteOrderMark);
    }
    let twice = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Tree(&twice)
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    let value = value.map_err(refused)?;
    if let Some(name) = twice.into_inner() {
        return Err(JsonError::DuplicateMember(name));
    }
    too_large(text).map_or(Ok(value), |number| Err(JsonError::IntegerTooLarge(number)))
}

/// A value from any deserializer.
///
/// # Errors
/// The deserializer's, and where an object has two members with the same name.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Value, D::Error> {
    let twice = RefCell::new(None);
    let value = Tree(&twice).deserialize(reader)?;
    match twice.into_inner() {
        Some(name) => Err(D::Error::custom(JsonError::DuplicateMember(name))),
        None => Ok(value),
    }
}

fn refused(error: serde_json::Error) -> JsonError {
    // It is JSON, but no number that can be kept.
    if error.to_string().starts_with("number out of range") {
        JsonError::NumberOutOfRange(error)
    } else {
        JsonError::Syntax(error)
    }
}

/// The beginning of the first integer in a JSON text that has more than 64 bits: it would be read
/// as the nearest double.
fn too_large(text: &[u8]) -> Option<String> {
    let mut rest = text;
    while let Some((&first, more)) = rest.split_first() {
        rest = match first {
            b'"' => after_string(more),
            b'-' | b'0'..=b'9' => {
                let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let length = rest.iter().take_while(|byte| part(byte)).count();
                let (number, more) = rest.split_at(length);
                let number = str::from_utf8(number).unwrap_or_default();
                let fits = number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
                if !fits && !number.contains(['.', 'e', 'E']) {
                    return Some(number.chars().take(20).collect());
                }
                more
            }
            _ => more,
        };
    }
    None
}

/// What follows a string whose opening quote was read.
fn after_string(mut rest: &[u8]) -> &[u8] {
    loop {
        rest = match rest {
            [b'"', more @ ..] => return more,
            [b'\\', _, more @ ..] | [_, more @ ..] => more,
            [] => return rest,
        };
    }
}

/// Reads a value, and keeps the first name that stands twice in one object.
#[derive(Clone, Copy)]
struct Tree<'t>(&'t RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"));
        number.map(Value::Number)
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if object.contains_key(&name) {
                let short = || name.chars().take(LONGEST_QUOTE).collect();
                self.0.borrow_mut().get_or_insert_with(short);
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
