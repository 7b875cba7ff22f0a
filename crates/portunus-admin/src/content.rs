//! The content of a write: JSON by its media type (of the dashboard: a form), in UTF-8, without
//! content codings, bounded.
//!
//! A form on another site can send `text/plain`, `multipart/form-data` and
//! `application/x-www-form-urlencoded`, but not `application/json`: so the media type is a second
//! line of defence behind [`origin`](crate::origin). A write without content needs no media type.
//!
//! The announced length, or else the first byte, shows that there is content. Content of the wrong
//! type is refused at that point, before the rest is read.

use std::error::Error;
use std::iter::successors;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, LengthLimitError};
use portunus::ErrorCode;

use crate::Fault;
use crate::import::ImportFormat;
use crate::wiped::Wiped;

/// Maximum size of a body in bytes. The largest fields have their own, smaller limits.
const MAX_BODY: usize = 4 << 20;

/// Maximum memory allocated for a body before its content arrives.
const MAX_INITIAL_CAPACITY: usize = 64 << 10;

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_LINES: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

/// What `POST /import` accepts: one key, or many. HTML forms can send none of these types.
pub(crate) const ACCEPTED_BY_IMPORT: &str = "application/json, application/x-ndjson, text/csv";

/// The unread content of a request. A call that can be refused without its content is refused
/// before the content is read.
#[derive(Debug)]
pub(crate) struct Content(Request);

impl<S: Send + Sync> FromRequest<S> for Content {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(request))
    }
}

impl Content {
    /// Reads the whole content; empty if there is none.
    ///
    /// # Errors
    /// 415 for content that is not JSON or has a content coding, 413 if it is too long, 400 if it
    /// is incomplete.
    pub(crate) async fn bytes(self) -> Result<Wiped, Fault> {
        let types = accepted(self.0.method());
        read(self.0, types, MAX_BODY).await
    }

    /// Returns the content in parts, if its type is one of those that describe many keys. It has no
    /// maximum length.
    ///
    /// # Errors
    /// 415 if it has a content coding.
    pub(crate) fn lines(self) -> Result<Result<(ImportFormat, Lines), Self>, Fault> {
        let headers = self.0.headers();
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let only = types.next().filter(|_| types.next().is_none());
        let only = only.and_then(|value| value.to_str().ok());
        let is = |name| only.is_some_and(|text| is_of(text, &[name]));
        let format = match (is(JSON_LINES), is(CSV)) {
            (true, _) => ImportFormat::JsonLines,
            (_, true) => ImportFormat::Csv,
            _ => return Ok(Err(self)),
        };
        check_coding(headers).map_err(|fault| fault.with_field("accept", ACCEPTED_BY_IMPORT))?;
        Ok(Ok((format, Lines(self.0.into_body()))))
    }

    /// Checks the content of a call that takes none: it must have a type that pages of other sites
    /// cannot send. It is not read.
    ///
    /// # Errors
    /// As for [`bytes`](Self::bytes), except that the length is not limited.
    pub(crate) async fn ignored(self) -> Result<(), Fault> {
        let announced = announced(&self.0);
        let (head, mut body) = self.0.into_parts();
        if announced == 0 && next(&mut body, MAX_BODY).await?.is_none() {
            return Ok(());
        }
        check(accepted(&head.method), &head.headers)
    }
}

/// Reads the whole content, which has one of these types and at most this length.
async fn read(request: Request, types: Accepted, most: usize) -> Result<Wiped, Fault> {
    let announced = announced(&request);
    let (head, mut body) = request.into_parts();
    // Content with an announced length is checked before it is read.
    if announced > 0 {
        check(types, &head.headers)?;
    }
    if announced > most as u64 {
        return Err(too_large(most));
    }
    // Announced content may never arrive: allocate more only when it does.
    let first = usize::try_from(announced)
        .unwrap_or(most)
        .min(MAX_INITIAL_CAPACITY);
    let mut whole = Wiped::with_capacity(first);
    while let Some(data) = next(&mut body, most).await? {
        if whole.is_empty() {
            check(types, &head.headers)?;
        }
        if data.len() > most - whole.len() {
            return Err(too_large(most));
        }
        whole.take(data);
    }
    Ok(whole)
}

/// Reads the content of a form.
///
/// # Errors
/// As for [`Content::bytes`].
#[cfg(feature = "dashboard")]
pub(crate) async fn read_form(request: Request) -> Result<Wiped, Fault> {
    /// Maximum size of a form in bytes: all that a key can have fits, with each character encoded.
    const MAX_FORM: usize = 1 << 20;
    const FORM: &str = "application/x-www-form-urlencoded";
    read(request, ("accept", FORM, &[FORM]), MAX_FORM).await
}

/// Content that is read in parts.
pub(crate) struct Lines(Body);

impl Lines {
    /// Returns the next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        next(&mut self.0, MAX_BODY).await
    }
}

/// Returns the next bytes of the content; `None` at its end. Trailers are ignored.
async fn next(body: &mut Body, most: usize) -> Result<Option<Bytes>, Fault> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            // The host may have its own limit around this router.
            let first: &(dyn Error + 'static) = &error;
            let mut causes = successors(Some(first), |&error| error.source());
            match causes.any(<dyn Error>::is::<LengthLimitError>) {
                true => too_large(most),
                false => incomplete(),
            }
        })?;
        match frame.into_data() {
            Ok(data) if !data.is_empty() => return Ok(Some(data)),
            _ => {}
        }
    }
    Ok(None)
}

/// Returns the minimum length of the content in bytes, as far as known before it is read.
fn announced(request: &Request) -> u64 {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    request.body().size_hint().lower().max(length.unwrap_or(0))
}

fn incomplete() -> Fault {
    Fault::bad("The body is incomplete")
}

fn too_large(most: usize) -> Fault {
    Fault::new(
        ErrorCode::TooLarge,
        format!("The body is longer than {most} bytes"),
    )
}

/// The header field that names the accepted types, its value, and the types.
type Accepted = (&'static str, &'static str, &'static [&'static str]);

/// The types of JSON that a method accepts (RFC 9110 §12.5.1, RFC 5789 §3.1).
fn accepted(method: &Method) -> Accepted {
    match *method {
        Method::PATCH => (
            "accept-patch",
            "application/json, application/merge-patch+json",
            &[JSON, MERGE_PATCH],
        ),
        _ => ("accept", JSON, &[JSON]),
    }
}

/// Checks whether content with these header fields is accepted.
fn check((field, accepted, types): Accepted, headers: &HeaderMap) -> Result<(), Fault> {
    check_coding(headers).map_err(|fault| fault.with_field(field, accepted))?;
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (lines.next(), lines.next());
    let text = first.and_then(|value| value.to_str().ok());
    match text.filter(|_| second.is_none()) {
        Some(text) if is_of(text, types) => Ok(()),
        _ => {
            let why = format!("Content-Type: send {accepted}, in UTF-8");
            Err(Fault::new(ErrorCode::UnsupportedMediaType, why).with_field(field, accepted))
        }
    }
}

/// Checks that the content has no coding.
fn check_coding(headers: &HeaderMap) -> Result<(), Fault> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let is_identity = |value: &HeaderValue| {
        let codings = value.to_str().unwrap_or("?").split(',').map(str::trim);
        codings
            .filter(|coding| !coding.is_empty())
            .all(|coding| coding.eq_ignore_ascii_case("identity"))
    };
    if encodings.all(is_identity) {
        return Ok(());
    }
    let why = "Content-Encoding: send the body without a content coding";
    // RFC 7694 §3.
    let fault = Fault::new(ErrorCode::UnsupportedMediaType, why);
    Err(fault.with_field("accept-encoding", "identity"))
}

/// Returns whether a media type (RFC 9110 §8.3.1) is one of `types`, with UTF-8 as its charset if
/// it has one.
fn is_of(text: &str, types: &[&str]) -> bool {
    let end = text.find(';').unwrap_or(text.len());
    let (essence, mut rest) = text.split_at(end);
    let essence = essence.trim_matches([' ', '\t']);
    if !types
        .iter()
        .any(|known| known.eq_ignore_ascii_case(essence))
    {
        return false;
    }
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches([' ', '\t']);
        // `a/b;` and `a/b; ;c=d` are valid: parameters may be empty.
        if parameter.is_empty() || parameter.starts_with(';') {
            rest = parameter;
            continue;
        }
        let Some((name, value, after)) = parameter_of(parameter) else {
            return false;
        };
        let utf8 = || {
            ["utf-8", "utf8"]
                .iter()
                .any(|name| value.eq_ignore_ascii_case(name))
        };
        if name.eq_ignore_ascii_case("charset") && !utf8() {
            return false;
        }
        rest = after.trim_start_matches([' ', '\t']);
    }
    rest.is_empty()
}

/// Parses `name=value` or `name="value"` (RFC 9110 §5.6.6). Returns name, value and the remaining
/// text.
fn parameter_of(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let is_token = |text: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(known)
    };
    if !is_token(name) {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        return is_token(value).then(|| (name, value.to_owned(), after));
    };
    let (mut value, mut characters) = (String::new(), quoted.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}
