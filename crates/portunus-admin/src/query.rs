//! Query strings: known parameters of the right shape, each once, and nothing else.

use axum::extract::Query;
use axum::http::Uri;
use serde::de::DeserializeOwned;

use crate::Fault;

/// The parameters of a query string.
pub(crate) fn parameters<T: DeserializeOwned>(raw: Option<&str>) -> Result<T, Fault> {
    let uri = Uri::builder()
        .path_and_query(format!("/?{}", raw.unwrap_or_default()))
        .build();
    let uri = uri.map_err(|error| Fault::bad(error.to_string()))?;
    let parameters =
        Query::<T>::try_from_uri(&uri).map_err(|error| Fault::bad(error.body_text()))?;
    Ok(parameters.0)
}

/// A parameter that says something.
pub(crate) fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// How many items a page may have.
pub(crate) fn limit(asked: Option<usize>, otherwise: usize) -> Result<usize, Fault> {
    match asked {
        None => Ok(otherwise),
        Some(limit) if (1..=500).contains(&limit) => Ok(limit),
        Some(_) => Err(Fault::bad("limit: 1 to 500")),
    }
}
