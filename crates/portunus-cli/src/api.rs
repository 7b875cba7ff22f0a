//! The management API, over HTTP or on a store: every command is written once, and its records are
//! the same everywhere.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};
use crate::http::Http;
use crate::local::Local;

/// The most items of a page.
const PAGE: usize = 500;
/// The longest wait that a server can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A call of the management API.
pub(crate) struct Call<'c> {
    pub(crate) method: &'static str,
    /// The path below that of the API, with its parameters.
    pub(crate) path: String,
    pub(crate) body: Option<&'c Value>,
    /// The body of an import, instead of JSON.
    pub(crate) lines: Option<&'c Lines>,
    pub(crate) idempotency_key: Option<&'c str>,
}

/// Many keys to import.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) media: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// The tenant that all of them are of.
    pub(crate) tenant: Option<String>,
}

impl<'c> Call<'c> {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            body: None,
            lines: None,
            idempotency_key: None,
        }
    }

    pub(crate) fn post(path: impl Into<String>, body: &'c Value) -> Self {
        Self {
            method: "POST",
            body: Some(body),
            ..Self::get(path)
        }
    }

    /// Returns the media type and the bytes of the body, if there is one.
    pub(crate) fn content(&self) -> Option<(&'static str, Zeroizing<Vec<u8>>)> {
        let lines = self.lines.map(|lines| (lines.media, lines.bytes.clone()));
        let json = || Some(("application/json", self.body?.to_string().into_bytes()));
        let (media, bytes) = lines.or_else(json)?;
        Some((media, Zeroizing::new(bytes)))
    }
}

/// An answer with any status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// The value of `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

/// A way to the management API.
pub(crate) enum Api {
    Http(Http),
    Local(Box<Local>),
}

impl Api {
    /// Makes a call, and returns the body of a success.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Value, Failure> {
        success(&self.answer(call)?)
    }

    /// Like [`call`](Self::call), and waits as long as the server asks for, a few times.
    pub(crate) fn call_patiently(&self, call: &Call<'_>) -> Result<Value, Failure> {
        let mut tries = 10;
        loop {
            let answer = self.answer(call)?;
            tries -= 1;
            let wait = answer.retry_after.filter(|wait| *wait <= LONGEST_WAIT);
            match wait {
                Some(wait) if answer.status == 429 && tries > 0 => {
                    std::thread::sleep(wait.max(Duration::from_secs(1)));
                }
                _ => return success(&answer),
            }
        }
    }

    fn answer(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        match self {
            Self::Http(http) => http.call(call),
            Self::Local(local) => local.call(call),
        }
    }

    /// Calls `each` with the first `most` items of a list, and returns the names of rows that cannot
    /// be read.
    pub(crate) fn each(
        &self,
        path: &str,
        filters: &[(&str, Option<&str>)],
        most: usize,
        each: &mut dyn FnMut(Value) -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let (mut left, mut cursor) = (most, None::<String>);
        let mut corrupt = Vec::new();
        while left > 0 {
            let limit = left.min(PAGE).to_string();
            let place = [
                ("limit", Some(limit.as_str())),
                ("cursor", cursor.as_deref()),
            ];
            let filters = filters.iter().copied().chain(place);
            let mut page = self.call(&Call::get(format!("{path}{}", query(filters))))?;
            let items = page.get_mut("items").map(Value::take);
            let Some(Value::Array(items)) = items else {
                return Err(Failure::other("the answer is not a list"));
            };
            for item in items.into_iter().take(left) {
                each(item)?;
                left -= 1;
            }
            let rows = page.get("corrupt").and_then(Value::as_array);
            let rows = rows.into_iter().flatten().filter_map(Value::as_str);
            corrupt.extend(rows.map(str::to_owned));
            let next = page.get("next_cursor").and_then(Value::as_str);
            match next {
                Some(next) if cursor.as_deref() == Some(next) => {
                    return Err(Failure::other(
                        "the list does not end: a page leads to itself",
                    ));
                }
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(corrupt)
    }

    /// Reports what could not be completed after the last call.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        match self {
            Self::Http(_) => Ok(()),
            Self::Local(local) => local.finish(),
        }
    }
}

/// Returns the body of a success.
fn success(answer: &Answer) -> Result<Value, Failure> {
    let body = match answer.body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
    };
    let is_answer = answer.status == 204 || body.is_object();
    match answer.status {
        200..=299 if is_answer => Ok(body),
        300..=399 => Err(Failure::other(format!(
            "the address leads elsewhere (status {}): give the final address of the management API",
            answer.status
        ))),
        status => Err(Failure::of_answer(status, &body)),
    }
}

/// The failure of a list that was not complete.
pub(crate) fn unless_complete(corrupt: &[String]) -> Result<(), Failure> {
    match corrupt {
        [] => Ok(()),
        [first, rest @ ..] => Err(Failure::other(format!(
            "rows that cannot be read were left out ({}), such as {first}",
            rest.len() + 1
        ))),
    }
}

/// Returns parameters as the end of a path, without those that are absent.
pub(crate) fn query<'q>(all: impl IntoIterator<Item = (&'q str, Option<&'q str>)>) -> String {
    let mut text = String::new();
    for (name, value) in all {
        if let Some(value) = value {
            let start = if text.is_empty() { '?' } else { '&' };
            let _ = write!(text, "{start}{name}={}", encoded(value));
        }
    }
    text
}

/// Returns a value percent-encoded, as a segment of a path or a value of a parameter.
pub(crate) fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => text.push(byte.into()),
            // Also dots: a segment of dots would change the path.
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// The failure of a call without an answer.
pub(crate) fn no_answer(call: &Call<'_>, why: &str) -> Failure {
    let failure = Failure::new(Exit::Unavailable, why);
    match call.method {
        "GET" => failure,
        _ => failure.and("it is not known whether this was done"),
    }
}
