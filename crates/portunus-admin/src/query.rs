//! Query strings: only known, well-formed parameters, each at most once.

use std::fmt::Display;

use axum::extract::Query;
use axum::http::Uri;
use serde::de::DeserializeOwned;

use crate::Fault;

/// Parses the parameters of a query string. An empty value counts as absent, because forms send
/// empty fields.
pub(crate) fn parameters<T: DeserializeOwned>(raw: Option<&str>) -> Result<T, Fault> {
    let pairs = raw.unwrap_or_default().split('&');
    let given: Vec<_> = pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    if let Some((name, _)) = given
        .iter()
        .find(|(name, value)| has_misplaced_plus(name, value))
    {
        return Err(Fault::bad(format!(
            "{name}: a `+` in a query means a space; write `%2B` for a plus sign"
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

/// Returns whether a value has a `+` that the caller probably meant as a plus sign. Forms encode a
/// space as `+`, and only parameters for free text can contain a space.
fn has_misplaced_plus(name: &str, value: &str) -> bool {
    let words = match name {
        "query" => true,
        "actor" => !value.contains('@') && !value.contains("%40"),
        _ => false,
    };
    value.contains('+') && !words
}

/// Wrong values, each with the name of its parameter and the reason.
pub(crate) type Wrong = Vec<(&'static str, String)>;

/// Parses the value of a parameter, if there is one; notes why it is wrong.
pub(crate) fn read<V, T, E: Display>(
    name: &'static str,
    value: Option<V>,
    wrong: &mut Wrong,
    parse: impl FnOnce(V) -> Result<T, E>,
) -> Option<T> {
    match parse(value?) {
        Ok(value) => Some(value),
        Err(error) => {
            wrong.push((name, error.to_string()));
            None
        }
    }
}

/// Validates the maximum number of items in a page.
pub(crate) fn limit(asked: Option<usize>, otherwise: usize) -> Result<usize, Fault> {
    match asked {
        None => Ok(otherwise),
        Some(limit) if (1..=500).contains(&limit) => Ok(limit),
        Some(_) => Err(Fault::bad("limit: expected 1 to 500")),
    }
}
