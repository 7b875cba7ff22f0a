//! Query strings: known parameters of the right shape, each once, and nothing else.

use axum::extract::Query;
use axum::http::Uri;
use serde::de::DeserializeOwned;

use crate::Fault;

/// The parameters of a query string. An empty one is absent: forms send the fields that nobody
/// filled in.
pub(crate) fn parameters<T: DeserializeOwned>(raw: Option<&str>) -> Result<T, Fault> {
    let pairs = raw.unwrap_or_default().split('&');
    let given: Vec<_> = pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    if let Some((name, _)) = given.iter().find(|(name, value)| mistakes(name, value)) {
        return Err(Fault::bad(format!(
            "{name}: a `+` in a query stands for a space; write `%2B` for a plus sign"
        )));
    }
    let given = given.iter().map(|(name, value)| format!("{name}={value}"));
    let given = given.collect::<Vec<_>>().join("&");
    let uri = Uri::builder().path_and_query(format!("/?{given}")).build();
    let uri = uri.map_err(|error| Fault::bad(error.to_string()))?;
    let parameters =
        Query::<T>::try_from_uri(&uri).map_err(|error| Fault::bad(error.body_text()))?;
    Ok(parameters.0)
}

/// Whether a value has a `+` that its author took for one: forms write it for a space, and a space
/// stands only where people's words are looked for.
fn mistakes(name: &str, value: &str) -> bool {
    let words = match name {
        "query" => true,
        "actor" => !value.contains('@') && !value.contains("%40"),
        _ => false,
    };
    value.contains('+') && !words
}

/// How many items a page may have.
pub(crate) fn limit(asked: Option<usize>, otherwise: usize) -> Result<usize, Fault> {
    match asked {
        None => Ok(otherwise),
        Some(limit) if (1..=500).contains(&limit) => Ok(limit),
        Some(_) => Err(Fault::bad("limit: 1 to 500")),
    }
}
