//! Bodies: JSON objects of a known shape, bounded, and nothing else.

use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Fault;
use crate::content::Content;

/// A body that is JSON of this shape. An absent one counts as `{}`.
pub(crate) async fn read<T: DeserializeOwned>(body: Content) -> Result<T, Fault> {
    read_whole(body).await.map(|(read, _)| read)
}

/// The same, with its bytes.
pub(crate) async fn read_whole<T: DeserializeOwned>(body: Content) -> Result<(T, Bytes), Fault> {
    let whole = body.bytes().await?;
    let bytes: &[u8] = if whole.trim_ascii().is_empty() {
        b"{}"
    } else {
        &whole
    };
    let about = |error: &serde_json::Error| error.to_string().chars().take(200).collect::<String>();
    // First whether it is JSON at all: serde_json calls some values of a wrong type a syntax error.
    serde_json::from_slice::<Value>(bytes)
        .map_err(|error| Fault::bad(format!("The body is not JSON: {}", about(&error))))?;
    let read = serde_json::from_slice::<Object<T>>(bytes)
        .map_err(|error| Fault::invalid("body", about(&error)))?;
    Ok((read.0, whole))
}

/// What is written as a JSON object; never as a list of its values, which serde would take too.
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

/// A member that is there, perhaps as `null`: told apart from one that is not.
pub(crate) fn stated<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// JSON that no cache keeps.
pub(crate) fn private(status: StatusCode, value: &Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(value)).into_response()
}
