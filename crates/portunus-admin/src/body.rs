//! JSON bodies: objects of a known type, bounded in size and wiped after use.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use portunus::json::{self, JsonError};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::Fault;
use crate::content::Content;
use crate::wiped::Wiped;

/// Reads a body of this type. An absent body counts as `{}`.
pub(crate) async fn read<T: DeserializeOwned>(body: Content) -> Result<T, Fault> {
    read_whole(body).await.map(|(read, _)| read)
}

/// Reads a body of this type and returns its bytes too.
///
/// # Errors
/// 400 if the body is not JSON; 422 if it has another type, duplicate members, or numbers that
/// would lose precision.
pub(crate) async fn read_whole<T: DeserializeOwned>(body: Content) -> Result<(T, Wiped), Fault> {
    let whole = body.bytes().await?;
    let bytes: &[u8] = if whole.trim_ascii().is_empty() {
        b"{}"
    } else {
        &whole
    };
    Ok((parse(bytes)?, whole))
}

/// Parses a JSON object.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let read = json::from_slice::<Object<T>>(bytes).map_err(|error| match error {
        JsonError::ByteOrderMark => Fault::bad(
            "The body starts with a byte order mark: send UTF-8 without one (RFC 8259 §8.1)",
        ),
        JsonError::Syntax(error) => Fault::bad(format!("The body is not JSON: {}", short(&error))),
        error => Fault::malformed("body", short(&error)),
    })?;
    Ok(read.0)
}

/// Truncates an error, since serde's messages can quote input.
pub(crate) fn short(error: &dyn std::error::Error) -> String {
    error.to_string().chars().take(200).collect()
}

/// A value written as a JSON object. Derived types would also accept an array of member values.
#[derive(Clone)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

/// Deserializes an optional member that can be `null` to remove a value.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Deserializes an optional member that must not be `null`.
pub(crate) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Deserializes a JSON object with arbitrary members, without duplicates at any depth, or `null`.
pub(crate) fn members<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Map<String, Value>>, D::Error> {
    match json::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Object(members) => Ok(Some(members)),
        _ => Err(D::Error::custom("metadata: expected a JSON object")),
    }
}

/// Deserializes the same for an optional member.
pub(crate) fn nullable_members<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Map<String, Value>>>, D::Error> {
    members(deserializer).map(Some)
}

/// A secret in a body, wiped on drop.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(value_type = String, format = Password)]
pub(crate) struct Secret(pub(crate) Zeroizing<String>);

/// Builds a JSON response that must not be cached. Its bytes may contain a secret.
pub(crate) fn private(status: StatusCode, value: &impl Serialize) -> Response {
    // Larger than a response with one key, so that such a response needs no reallocation.
    let mut bytes = Wiped::with_capacity(4096);
    if let Err(error) = serde_json::to_writer(&mut bytes, value) {
        return Fault::store(error).into_response();
    }
    let fields = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_TYPE, "application/json"),
    ];
    (status, fields, Body::from(bytes.into_bytes())).into_response()
}

/// A non-negative integer. JSON has one kind of number: `60.0` is 60, and `60.5` is refused.
#[derive(Clone, Copy)]
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        // Beyond 2^53, a float does not identify an exact integer.
        let exact =
            |float: &f64| float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(float);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = number
            .as_u64()
            .or_else(|| number.as_f64().filter(exact).map(|float| float as u64));
        let refused = || D::Error::custom(format!("{number}: expected a non-negative integer"));
        whole.map(Self).ok_or_else(refused)
    }
}
