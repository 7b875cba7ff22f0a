//! The content of a write: JSON by its media type, in UTF-8, without content codings, bounded.
//!
//! A form on another site can send `text/plain`, `multipart/form-data` and
//! `application/x-www-form-urlencoded`, but not `application/json`: so the media type is a second
//! line of defence behind [`origin`](crate::origin). A write without content needs no media type.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::IntoResponse;
use portunus::ErrorCode;

use crate::Fault;

/// No body is read beyond this: the largest fields have limits of their own, told by name.
const MOST_BODY: usize = 4 << 20;

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The content of a request, not read yet. Whoever is refused without it is refused before.
#[derive(Debug)]
pub(crate) struct Content(Request);

impl<S: Send + Sync> FromRequest<S> for Content {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(request))
    }
}

impl Content {
    /// The whole content; empty where there is none.
    ///
    /// # Errors
    /// 415 for content that is not JSON or has a content coding, 413 for too much of it, 400 where
    /// it breaks off.
    pub(crate) async fn bytes(self) -> Result<Bytes, Fault> {
        let Self(mut request) = self;
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let announced = announced(&request);
        // What announces its length is refused before it is read.
        if announced > 0 {
            check(&method, &headers)?;
        }
        if announced > MOST_BODY as u64 {
            return Err(too_large());
        }
        DefaultBodyLimit::max(MOST_BODY).apply(&mut request);
        let whole = Bytes::from_request(request, &())
            .await
            .map_err(|rejection| {
                // A limit of the host's own, around this router, counts too.
                match rejection.into_response().status().as_u16() {
                    413 => too_large(),
                    _ => broken_off(),
                }
            })?;
        if !whole.is_empty() {
            check(&method, &headers)?;
        }
        Ok(whole)
    }

    /// For a call that takes no content: whatever there is, is of a type that other sites cannot
    /// send, and is not read.
    ///
    /// # Errors
    /// As for [`bytes`](Self::bytes), but that no length is too large.
    pub(crate) async fn ignored(self) -> Result<(), Fault> {
        let Self(mut request) = self;
        let mut there = announced(&request) > 0;
        // In chunks, the first says whether there is any content.
        while !there {
            let body = request.body_mut();
            let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
            match frame {
                None => return Ok(()),
                Some(Err(_)) => return Err(broken_off()),
                Some(Ok(frame)) => there = frame.data_ref().is_some_and(|data| !data.is_empty()),
            }
        }
        check(request.method(), request.headers())
    }
}

/// How long the content is at least, in bytes, by what is known before it is read.
fn announced(request: &Request) -> u64 {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    request.body().size_hint().lower().max(length.unwrap_or(0))
}

fn broken_off() -> Fault {
    Fault::bad("The body broke off")
}

fn too_large() -> Fault {
    Fault::new(
        ErrorCode::TooLarge,
        format!("The body is longer than {MOST_BODY} bytes"),
    )
}

/// Whether content with these fields may be read.
fn check(method: &Method, headers: &HeaderMap) -> Result<(), Fault> {
    // RFC 9110 §12.5.1, RFC 5789 §3.1.
    let (field, accepted, types): (_, _, &[&str]) = match *method {
        Method::PATCH => (
            "accept-patch",
            "application/json, application/merge-patch+json",
            &[JSON, MERGE_PATCH],
        ),
        _ => ("accept", JSON, &[JSON]),
    };
    let refused =
        |why: String| Fault::new(ErrorCode::UnsupportedMediaType, why).with_field(field, accepted);
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let is_identity = |value: &HeaderValue| {
        let codings = value.to_str().unwrap_or("?").split(',').map(str::trim);
        codings
            .filter(|coding| !coding.is_empty())
            .all(|coding| coding.eq_ignore_ascii_case("identity"))
    };
    if !encodings.all(is_identity) {
        let why = "Content-Encoding: send the body without a content coding".to_owned();
        // RFC 7694 §3.
        return Err(refused(why).with_field("accept-encoding", "identity"));
    }
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (lines.next(), lines.next());
    let text = first.and_then(|value| value.to_str().ok());
    match text.filter(|_| second.is_none()) {
        Some(text) if is_json(text, types) => Ok(()),
        _ => Err(refused(format!("Content-Type: send {accepted}, in UTF-8"))),
    }
}

/// Whether a media type (RFC 9110 §8.3.1) is one of these, in UTF-8 if it names a charset.
fn is_json(text: &str, types: &[&str]) -> bool {
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
        // `a/b;` and `a/b; ;c=d` are grammatical: parameters may be missing.
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

/// `name=value` or `name="value"` (RFC 9110 §5.6.6), and what follows.
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
