//! The content of a write: JSON by its media type, in UTF-8, without content codings, bounded.
//!
//! A form on another site can send `text/plain`, `multipart/form-data` and
//! `application/x-www-form-urlencoded`, but not `application/json`: so the media type is a second
//! line of defence behind [`origin`](crate::origin). A write without content needs no media type.
//!
//! Whether there is content is known from its announced length, or else from its first byte. What
//! has the wrong type is refused then, whatever is still to come.

use std::error::Error;
use std::iter::successors;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, LengthLimitError};
use portunus::ErrorCode;

use crate::Fault;
use crate::wiped::Wiped;

/// No body is read beyond this: the largest fields have limits of their own, told by name.
const MOST_BODY: usize = 4 << 20;

/// The most memory that is taken for a body before its content arrives.
const MOST_FIRST: usize = 64 << 10;

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
    pub(crate) async fn bytes(self) -> Result<Wiped, Fault> {
        let announced = announced(&self.0);
        let (head, mut body) = self.0.into_parts();
        // What announces its length is refused before it is read.
        if announced > 0 {
            check(&head.method, &head.headers)?;
        }
        if announced > MOST_BODY as u64 {
            return Err(too_large());
        }
        // What is announced may never come: more is taken when it does.
        let first = usize::try_from(announced)
            .unwrap_or(MOST_BODY)
            .min(MOST_FIRST);
        let mut whole = Wiped::with_capacity(first);
        while let Some(data) = next(&mut body).await? {
            if whole.is_empty() {
                check(&head.method, &head.headers)?;
            }
            if data.len() > MOST_BODY - whole.len() {
                return Err(too_large());
            }
            whole.take(data);
        }
        Ok(whole)
    }

    /// For a call that takes no content: whatever there is, is of a type that other sites cannot
    /// send, and is not read.
    ///
    /// # Errors
    /// As for [`bytes`](Self::bytes), but that no length is too large.
    pub(crate) async fn ignored(self) -> Result<(), Fault> {
        let announced = announced(&self.0);
        let (head, mut body) = self.0.into_parts();
        if announced == 0 && next(&mut body).await?.is_none() {
            return Ok(());
        }
        check(&head.method, &head.headers)
    }
}

/// The next bytes of the content; `None` at its end, whatever trailers are there.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Fault> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            // A limit of the host's own, around this router, counts too.
            let first: &(dyn Error + 'static) = &error;
            let mut causes = successors(Some(first), |&error| error.source());
            match causes.any(<dyn Error>::is::<LengthLimitError>) {
                true => too_large(),
                false => broken_off(),
            }
        })?;
        match frame.into_data() {
            Ok(data) if !data.is_empty() => return Ok(Some(data)),
            _ => {}
        }
    }
    Ok(None)
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
