//! Responses: error responses by status, and response header fields.

use portunus::ErrorCode;
use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::Header;
use utoipa::openapi::{Content, Object, Ref, RefOr, Response, ResponseBuilder, Type};

use crate::fault::{METHOD_NOT_ALLOWED, Problem};

/// An error response: status, name and description.
struct Refusal(u16, &'static str, &'static str);

/// The error responses, one for each status.
const REFUSALS: &[Refusal] = &[
    Refusal(400, "BadRequest", "The request cannot be parsed."),
    Refusal(401, "Unauthorized", "The operator is not authenticated."),
    Refusal(
        403,
        "Forbidden",
        "The operator is not allowed to do this, or the request came from a page of another site.",
    ),
    Refusal(
        404,
        "NotFound",
        "The key, account, grant or block does not exist or belongs to another tenant.",
    ),
    Refusal(
        409,
        "Conflict",
        "The request conflicts with an existing resource, or too many keys would be active.",
    ),
    Refusal(
        412,
        "PreconditionFailed",
        "The version of the key does not satisfy `If-Match` or `If-None-Match`.",
    ),
    Refusal(
        413,
        "ContentTooLarge",
        "The body exceeds 4 MiB or the limit of the service.",
    ),
    Refusal(
        415,
        "UnsupportedMediaType",
        "`Content-Type` is not one that the call accepts, in UTF-8, or the body has a content coding.",
    ),
    Refusal(
        422,
        "UnprocessableContent",
        "The body is invalid; `detail` names the field.",
    ),
    Refusal(
        429,
        "TooManyRequests",
        "The operator made too many requests or verified too many unknown keys, or too many \
         unauthenticated calls came from the client's address.",
    ),
    Refusal(
        503,
        "ServiceUnavailable",
        "Storage or operator authentication is unavailable.",
    ),
];

/// Returns the name of the error response with this status.
pub(super) fn name_of(status: u16) -> &'static str {
    REFUSALS
        .iter()
        .find(|refusal| refusal.0 == status)
        .map_or(OTHER, |refusal| refusal.1)
}

/// Name of the error response by the host, with a status that the operation does not list.
pub(super) const OTHER: &str = "Refused";

/// Returns the error responses by name.
pub(super) fn responses() -> Vec<(&'static str, RefOr<Response>)> {
    let each = REFUSALS.iter().map(|Refusal(status, name, when)| {
        let codes = ErrorCode::ALL
            .iter()
            .filter(|code| code.status() == *status);
        let codes: Vec<_> = codes.map(|code| format!("`{code}`")).collect();
        let when = format!("{when} Codes: {}.", codes.join(", "));
        (*name, refusal(*status, &when).into())
    });
    let method = format!("The path does not support this method. Codes: `{METHOD_NOT_ALLOWED}`.");
    let other = "An error response with a status that the service chose.";
    each.chain([
        (
            "MethodNotAllowed",
            refusal(405, &method)
                .header("Allow", always("Allow"))
                .into(),
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

/// An optional header field.
fn field(name: &str) -> Header {
    let text = || Object::with_type(Type::String);
    let (schema, description) = match name {
        "Accept" => (text(), "The accepted media types (RFC 9110 §12.5.1)."),
        "Accept-Encoding" => (
            text(),
            "The accepted content codings, if the one sent is not accepted (RFC 7694 §3).",
        ),
        "Accept-Patch" => (
            text(),
            "The media types accepted by `PATCH` (RFC 5789 §3.1).",
        ),
        "Allow" => (
            text(),
            "The methods that the path supports (RFC 9110 §10.2.1).",
        ),
        "Cache-Control" => (matching("^no-store$"), "The response must not be cached."),
        "ETag" => (
            matching("^\"[0-9]+\"$"),
            "The version of the key, for `If-Match` and `If-None-Match`. Usage does not change it.",
        ),
        "Location" => (
            text(),
            "Where to find the operation, relative to the path of the request (RFC 9110 §10.2.2).",
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
            (seconds, "Seconds to wait before a retry.")
        }
        _ => (text(), "How to authenticate (RFC 6750 §3)."),
    };
    let mut header = Header::new(schema);
    header.description = Some(description.to_owned());
    header
}

/// A string that matches this regular expression (ECMA-262).
pub(super) fn matching(pattern: &str) -> Object {
    let mut text = Object::with_type(Type::String);
    text.pattern = Some(pattern.to_owned());
    text
}

/// A required header field.
pub(super) fn always(name: &str) -> Header {
    let mut header = field(name);
    // utoipa 6.0 has no member for `required` of a Header Object (OpenAPI 3.1 §4.8.21), and writes
    // extensions as they are.
    header.extensions = Some(Extensions::from_iter([("required", true)]));
    header
}

/// Returns a reference to the schema of a type.
pub(super) fn of<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// A JSON response.
pub(super) fn json<T: ToSchema>(when: &str) -> ResponseBuilder {
    nothing(when).content("application/json", Content::new(Some(of::<T>())))
}

/// A response without content.
pub(super) fn nothing(when: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(when)
        .header("Cache-Control", always("Cache-Control"))
}
