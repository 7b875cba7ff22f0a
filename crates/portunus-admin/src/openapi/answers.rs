//! Answers: the refusals by their status, and the header fields of answers.

use portunus::ErrorCode;
use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::Header;
use utoipa::openapi::{Content, Object, Ref, RefOr, Response, ResponseBuilder, Type};

use crate::fault::Problem;

/// A refusal: its status, its name, and when it is the answer.
struct Refusal(u16, &'static str, &'static str);

/// Every refusal with a status of its own.
const REFUSALS: &[Refusal] = &[
    Refusal(400, "BadRequest", "The request cannot be parsed."),
    Refusal(401, "Unauthorized", "The operator is not authenticated."),
    Refusal(
        403,
        "Forbidden",
        "The operator may not do this, or the request came from a page of another site.",
    ),
    Refusal(
        404,
        "NotFound",
        "The key does not exist, or it belongs to another tenant.",
    ),
    Refusal(
        409,
        "Conflict",
        "The change conflicts with what is stored, or too many keys would be active.",
    ),
    Refusal(
        412,
        "PreconditionFailed",
        "The key is not at a version that `If-Match` and `If-None-Match` demand.",
    ),
    Refusal(
        413,
        "ContentTooLarge",
        "The body is longer than 4 MiB, or than the service allows.",
    ),
    Refusal(
        415,
        "UnsupportedMediaType",
        "The body is not JSON by its `Content-Type`, not in UTF-8, or has a content coding.",
    ),
    Refusal(
        422,
        "UnprocessableContent",
        "The body is not valid; `detail` names a field.",
    ),
    Refusal(
        429,
        "TooManyRequests",
        "The operator made too many requests or verified too many unknown keys, or too many calls \
         without an authenticated operator came from the client's address.",
    ),
    Refusal(
        503,
        "ServiceUnavailable",
        "Storage, or the authentication of operators, does not answer.",
    ),
];

/// Every status of a refusal.
pub(super) fn statuses() -> impl Iterator<Item = u16> {
    REFUSALS.iter().map(|refusal| refusal.0)
}

/// The name of the refusal with this status.
pub(super) fn name_of(status: u16) -> &'static str {
    REFUSALS
        .iter()
        .find(|refusal| refusal.0 == status)
        .map_or(OTHER, |refusal| refusal.1)
}

/// A refusal by the host, with a status that the call does not have.
pub(super) const OTHER: &str = "Refused";

/// The refusals, by name.
pub(super) fn responses() -> Vec<(&'static str, RefOr<Response>)> {
    let each = REFUSALS.iter().map(|Refusal(status, name, when)| {
        let codes = ErrorCode::ALL
            .iter()
            .filter(|code| code.status() == *status);
        let codes: Vec<_> = codes.map(|code| format!("`{code}`")).collect();
        let when = format!("{when} Codes: {}.", codes.join(", "));
        (*name, refusal(*status, &when).into())
    });
    let method = "The path has other methods. This is the answer to methods that are not listed.";
    let other = "A refusal by the service, with a status of its choice.";
    each.chain([
        (
            "MethodNotAllowed",
            refusal(405, method).header("Allow", always("Allow")).into(),
        ),
        (OTHER, refusal(0, other).into()),
    ])
    .collect()
}

fn refusal(status: u16, when: &str) -> ResponseBuilder {
    let content = Content::new(Some(of::<Problem<'static>>()));
    let response = ResponseBuilder::new()
        .description(when)
        .content("application/problem+json", content);
    let response = response.header("Cache-Control", always("Cache-Control"));
    let fields: &[(&str, bool)] = match status {
        401 => &[("WWW-Authenticate", true)],
        403 => &[("WWW-Authenticate", false)],
        415 => &[
            ("Accept", false),
            ("Accept-Encoding", false),
            ("Accept-Patch", false),
        ],
        429 => &[
            ("Retry-After", false),
            ("RateLimit", false),
            ("RateLimit-Policy", false),
        ],
        503 => &[("Retry-After", false)],
        0 => &[
            ("WWW-Authenticate", false),
            ("Retry-After", false),
            ("RateLimit", false),
            ("RateLimit-Policy", false),
        ],
        _ => &[],
    };
    fields.iter().fold(response, |response, (name, surely)| {
        response.header(*name, if *surely { always(name) } else { field(name) })
    })
}

/// A header field that may be present.
fn field(name: &str) -> Header {
    let text = || Object::with_type(Type::String);
    let (schema, description) = match name {
        "Accept" => (text(), "The media types of bodies (RFC 9110 §12.5.1)."),
        "Accept-Encoding" => (
            text(),
            "The content codings of bodies, where the one sent is not accepted (RFC 7694 §3).",
        ),
        "Accept-Patch" => (text(), "The media types of changes (RFC 5789 §3.1)."),
        "Allow" => (text(), "The methods of the path (RFC 9110 §10.2.1)."),
        "Cache-Control" => (matching("^no-store$"), "No cache stores the answer."),
        "ETag" => (
            matching("^\"[0-9]+\"$"),
            "The version of the key, for `If-Match` and `If-None-Match`. Usage does not change it.",
        ),
        "RateLimit" => (
            text(),
            "The state of the quota (draft-ietf-httpapi-ratelimit-headers-10).",
        ),
        "RateLimit-Policy" => (
            text(),
            "The quota (draft-ietf-httpapi-ratelimit-headers-10).",
        ),
        "Retry-After" => {
            let mut seconds = Object::with_type(Type::Integer);
            seconds.minimum = Some(utoipa::Number::UInt(0));
            (seconds, "The seconds to wait before the next try.")
        }
        _ => (text(), "How to authenticate (RFC 6750 §3)."),
    };
    let mut header = Header::new(schema);
    header.description = Some(description.to_owned());
    header
}

/// A string that this regular expression (ECMA-262) describes.
pub(super) fn matching(pattern: &str) -> Object {
    let mut text = Object::with_type(Type::String);
    text.pattern = Some(pattern.to_owned());
    text
}

/// A header field that is always present.
pub(super) fn always(name: &str) -> Header {
    let mut header = field(name);
    // utoipa 6.0 has no member for `required` of a Header Object (OpenAPI 3.1 §4.8.21), and writes
    // extensions as they are.
    header.extensions = Some(Extensions::from_iter([("required", true)]));
    header
}

/// The schema of a type, by its name.
pub(super) fn of<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// An answer in JSON.
pub(super) fn json<T: ToSchema>(when: &str) -> ResponseBuilder {
    nothing(when).content("application/json", Content::new(Some(of::<T>())))
}

/// An answer without content.
pub(super) fn nothing(when: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(when)
        .header("Cache-Control", always("Cache-Control"))
}
