//! Answers: what every refusal looks like, by status, and the fields that answers carry.

use portunus::ErrorCode;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::Header;
use utoipa::openapi::{Content, Object, Ref, RefOr, Response, ResponseBuilder, Schema};

use super::shape::{
    about, at_least, line, list, matching, members, named, names, one_of, text, within,
};

/// A refusal: its status, its name, the reason phrase (RFC 9110 §15, RFC 6585 §4), and when it is
/// the answer.
struct Refusal(u16, &'static str, &'static str, &'static str);

/// Every refusal with a status of its own.
const REFUSALS: &[Refusal] = &[
    Refusal(
        400,
        "BadRequest",
        "Bad Request",
        "The request cannot be understood.",
    ),
    Refusal(
        401,
        "Unauthorized",
        "Unauthorized",
        "Nobody is proven to make this request.",
    ),
    Refusal(
        403,
        "Forbidden",
        "Forbidden",
        "The operator may not do this, or a page of another site asked for it (`CROSS_SITE`).",
    ),
    Refusal(
        404,
        "NotFound",
        "Not Found",
        "There is no such key, or it is another tenant's.",
    ),
    Refusal(
        409,
        "Conflict",
        "Conflict",
        "It clashes with what is stored, or too many keys would be active.",
    ),
    Refusal(
        412,
        "PreconditionFailed",
        "Precondition Failed",
        "The key is not at a version that `If-Match` and `If-None-Match` demand.",
    ),
    Refusal(
        413,
        "ContentTooLarge",
        "Content Too Large",
        "The body is longer than is read: 4 MiB, or what the service allows.",
    ),
    Refusal(
        415,
        "UnsupportedMediaType",
        "Unsupported Media Type",
        "The body is not JSON by its `Content-Type`, not in UTF-8, or has a content coding.",
    ),
    Refusal(
        422,
        "UnprocessableContent",
        "Unprocessable Content",
        "The body cannot be accepted; `detail` names a field.",
    ),
    Refusal(
        429,
        "TooManyRequests",
        "Too Many Requests",
        "The operator made too many requests or asked about too many unknown keys, or too many calls \
         without a proven operator came from the client's address.",
    ),
    Refusal(
        503,
        "ServiceUnavailable",
        "Service Unavailable",
        "Storage, or who proves operators, gave no answer.",
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

/// The refusal of a host's own with a status that the call does not have.
pub(super) const OTHER: &str = "Refused";

/// The schemas of refusals, by name.
pub(super) fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let each = REFUSALS.iter().map(|Refusal(status, name, title, _)| {
        let schema = match status {
            429 => too_many_requests(title),
            _ => problem(*status, title, &codes(*status)).into(),
        };
        (format!("{name}Problem"), schema)
    });
    let method = members()
        .with("type", names(["about:blank"]))
        .with("title", names(["Method Not Allowed"]))
        .with("status", within(405, 405))
        .with("detail", text());
    let any = members()
        .with("type", text())
        .with("title", text())
        .with("status", within(400, 599))
        .with("detail", text())
        .with(
            "code",
            names(ErrorCode::ALL.iter().map(|code| code.as_str())),
        )
        .perhaps("violated-policies", list(text()));
    each.chain([
        ("MethodNotAllowedProblem".into(), method.into()),
        (format!("{OTHER}Problem"), any.into()),
    ])
    .collect()
}

fn codes(status: u16) -> Vec<&'static str> {
    ErrorCode::ALL
        .iter()
        .filter(|code| code.status() == status)
        .map(|code| code.as_str())
        .collect()
}

/// A problem document (RFC 9457).
fn problem(status: u16, title: &str, codes: &[&str]) -> Object {
    let members = members()
        .with("type", names(["about:blank"]))
        .with("title", names([title]))
        .with("status", within(status.into(), status.into()))
        .with(
            "detail",
            about(text(), "What is wrong, for people. It may change."),
        )
        .with(
            "code",
            about(
                names(codes.iter().copied()),
                "What is wrong, for programs. It never changes its meaning.",
            ),
        );
    members.into()
}

/// Either a quota that is used up (draft-ietf-httpapi-ratelimit-headers-10), or what a host's proof
/// has counted itself.
fn too_many_requests(title: &str) -> RefOr<Schema> {
    let quota = members()
        .with(
            "type",
            names(["https://iana.org/assignments/http-problem-types#quota-exceeded"]),
        )
        .with(
            "title",
            names(["Request cannot be satisfied as assigned quota has been exceeded"]),
        )
        .with("status", within(429, 429))
        .with("detail", text())
        .with("code", names([ErrorCode::RateLimited.as_str()]))
        .perhaps("violated-policies", list(text()));
    let failures = problem(429, title, &[ErrorCode::TooManyFailures.as_str()]);
    one_of(
        "A quota is used up, or too many attempts failed.",
        [quota.into(), failures.into()],
    )
}

/// The refusals, by name.
pub(super) fn responses() -> Vec<(&'static str, RefOr<Response>)> {
    let each = REFUSALS
        .iter()
        .map(|Refusal(status, name, _, when)| (*name, refusal(*status, name, when).into()));
    let method = "This path has other methods. It is no operation's answer: paths answer so to \
                  methods that are not listed.";
    let other = "A refusal of the service's own, with a status of its choice.";
    each.chain([
        (
            "MethodNotAllowed",
            refusal(405, "MethodNotAllowed", method)
                .header("Allow", always("Allow"))
                .into(),
        ),
        (OTHER, refusal(0, OTHER, other).into()),
    ])
    .collect()
}

fn refusal(status: u16, name: &str, when: &str) -> ResponseBuilder {
    let content = Content::new(Some(named(&format!("{name}Problem"))));
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

/// A field that may be there.
fn field(name: &str) -> Header {
    let (schema, description) = match name {
        "Accept" => (text(), "The media types of bodies (RFC 9110 §12.5.1)."),
        "Accept-Encoding" => (
            text(),
            "The content codings of bodies, where the one sent is not accepted (RFC 7694 §3).",
        ),
        "Accept-Patch" => (text(), "The media types of changes (RFC 5789 §3.1)."),
        "Allow" => (text(), "The methods of the path (RFC 9110 §10.2.1)."),
        "Cache-Control" => (names(["no-store"]), "No cache keeps it."),
        "ETag" => (
            matching("^\"[0-9]+\"$"),
            "The version of the key, for `If-Match` and `If-None-Match`. Usage does not change it.",
        ),
        "RateLimit" => (
            line(4096),
            "How the quota stands (draft-ietf-httpapi-ratelimit-headers-10).",
        ),
        "RateLimit-Policy" => (
            line(4096),
            "What the quota is (draft-ietf-httpapi-ratelimit-headers-10).",
        ),
        "Retry-After" => (at_least(0), "When to try again, in seconds."),
        _ => (text(), "How to prove who one is (RFC 6750 §3)."),
    };
    let mut header = Header::new(schema);
    header.description = Some(description.to_owned());
    header
}

/// A field that is always there.
pub(super) fn always(name: &str) -> Header {
    let mut header = field(name);
    // utoipa 6.0 has no member for `required` of a Header Object (OpenAPI 3.1 §4.8.21), and writes
    // extensions as they are.
    header.extensions = Some(Extensions::from_iter([("required", true)]));
    header
}

/// An answer of JSON.
pub(super) fn json(when: &str, schema: Ref) -> ResponseBuilder {
    let content = Content::new(Some(schema));
    nothing(when).content("application/json", content)
}

/// An answer without content.
pub(super) fn nothing(when: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(when)
        .header("Cache-Control", always("Cache-Control"))
}
