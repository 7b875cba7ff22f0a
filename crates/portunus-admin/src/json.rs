//! JSON as callers send it, by the rules of [`portunus::json`].

use portunus::json::JsonError;
use serde_json::Value;

use crate::Fault;

/// The value of a JSON text (RFC 8259).
///
/// # Errors
/// 400 for what is no JSON; 422 for members with the same name, and for numbers that cannot be
/// kept.
pub(crate) fn parse(text: &[u8]) -> Result<Value, Fault> {
    portunus::json::parse(text).map_err(|error| match error {
        JsonError::DuplicateMember(_)
        | JsonError::NumberOutOfRange(_)
        | JsonError::IntegerTooLarge(_) => Fault::invalid("body", short(&error)),
        JsonError::ByteOrderMark => Fault::bad(
            "The body starts with a byte order mark: send UTF-8 without one (RFC 8259 §8.1)",
        ),
        JsonError::Syntax(error) => Fault::bad(format!("The body is not JSON: {}", short(&error))),
        error => Fault::bad(format!("The body cannot be read: {}", short(&error))),
    })
}

/// What serde says may quote the caller.
fn short(error: &dyn std::error::Error) -> String {
    error.to_string().chars().take(200).collect()
}
