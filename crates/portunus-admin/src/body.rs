//! Bodies: JSON objects of a known shape, bounded, and nothing else.

use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use crate::content::Content;
use crate::{Fault, json};

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
    let read = serde_json::from_value::<Object<T>>(json::parse(bytes)?).map_err(|error| {
        let about: String = error.to_string().chars().take(200).collect();
        Fault::invalid("body", about)
    })?;
    Ok((read.0, whole))
}

/// What is written as a JSON object; never as a list of its values, which serde would take too.
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

/// A whole number. JSON has one kind of number: `60.0` is 60, and `60.5` is refused.
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        // Beyond 2^53 a float says only roughly which integer was meant.
        let exact =
            |float: &f64| float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(float);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = number
            .as_u64()
            .or_else(|| number.as_f64().filter(exact).map(|float| float as u64));
        let refused = || D::Error::custom(format!("{number}: a whole number, not negative"));
        whole.map(Self).ok_or_else(refused)
    }
}
