//! Strict JSON parsing: no value is lost or changed.
//!
//! Duplicate members (one of them would be lost) and integers beyond 64 bits (which would be
//! rounded) are refused at any depth. Fractions become the nearest double, as in JavaScript.
//!
//! [`Metadata::from_json`](crate::key::Metadata::from_json) and the management API follow these
//! rules.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Number, Value};

/// Maximum number of characters of a caller's text that an error quotes.
const LONGEST_QUOTE: usize = 60;

/// Error returned by [`parse`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text starts with a byte order mark, which JSON does not allow (RFC 8259 §8.1).
    #[error("the text starts with a byte order mark: send UTF-8 without one (RFC 8259 §8.1)")]
    ByteOrderMark,
    /// The text is not JSON.
    #[error("the text is not JSON: {0}")]
    Syntax(#[source] serde_json::Error),
    /// The text is JSON, but not a value of the type requested from [`from_slice`].
    #[error("{0}")]
    Shape(#[source] serde_json::Error),
    /// An object has two members with this name, which is cut to 60 characters.
    #[error("duplicate field `{0}`")]
    DuplicateMember(String),
    /// A number is outside the range of a double.
    #[error("{0}")]
    NumberOutOfRange(#[source] serde_json::Error),
    /// An integer needs more than 64 bits. Contains its first characters, at most 20.
    #[error("the integer {0}… has more than 64 bits: send it as a string")]
    IntegerTooLarge(String),
}

/// Parses a JSON text (RFC 8259).
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
/// [`JsonError`] if the text is not valid JSON, an object has duplicate members, or a number cannot
/// be represented.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    refuse_byte_order_marks(text)?;
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

/// Deserializes a value of this type from a JSON text, in one pass and without an intermediate
/// copy.
///
/// Derived implementations refuse duplicate members themselves. A [`Value`] inside such a type must
/// be read with [`deserialize`].
///
/// # Errors
/// [`JsonError`] if the text is not valid JSON, is not a value of this type, or contains an integer
/// of more than 64 bits.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    refuse_byte_order_marks(text)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    let value = value.map_err(|error| match refused(error) {
        // The rest was not read: a text that is not JSON at all is reported as such.
        JsonError::Shape(error) => serde_json::from_slice::<IgnoredAny>(text)
            .map_or_else(refused, |IgnoredAny| JsonError::Shape(error)),
        error => error,
    })?;
    too_large(text).map_or(Ok(value), |number| Err(JsonError::IntegerTooLarge(number)))
}

fn refuse_byte_order_marks(text: &[u8]) -> Result<(), JsonError> {
    const MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];
    match MARKS.iter().any(|mark| text.starts_with(mark)) {
        true => Err(JsonError::ByteOrderMark),
        false => Ok(()),
    }
}

/// Deserializes a value from any deserializer; for `#[serde(deserialize_with)]`.
///
/// # Errors
/// The deserializer's errors, and an error if an object has two members with the same name.
pub fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Value, D::Error> {
    let twice = RefCell::new(None);
    let value = Tree(&twice).deserialize(reader)?;
    match twice.into_inner() {
        Some(name) => Err(D::Error::custom(JsonError::DuplicateMember(name))),
        None => Ok(value),
    }
}

fn refused(error: serde_json::Error) -> JsonError {
    // Valid JSON, but the number cannot be represented.
    if error.to_string().starts_with("number out of range") {
        JsonError::NumberOutOfRange(error)
    } else if error.is_data() {
        JsonError::Shape(error)
    } else {
        JsonError::Syntax(error)
    }
}

/// Returns the beginning of the first integer in a JSON text that has more than 64 bits. serde_json
/// would read it as the nearest double.
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

/// Returns what follows a string whose opening quote has been consumed.
fn after_string(mut rest: &[u8]) -> &[u8] {
    loop {
        rest = match rest {
            [b'"', more @ ..] => return more,
            [b'\\', _, more @ ..] | [_, more @ ..] => more,
            [] => return rest,
        };
    }
}

/// Reads a value and records the first member name that occurs twice in one object.
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
