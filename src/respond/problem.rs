//! Problem details (RFC 9457): the dialect unless a host chooses another.

use super::{ErrorBody, RejectionRenderer};
use crate::error::AuthError;
use crate::request::RequestHead;

/// Renders `application/problem+json` with the stable code as extension member `code`.
///
/// `title` is the status' reason phrase and never varies with the occurrence; `type` is `about:blank` unless a base is set.
#[derive(Debug, Clone, Default)]
pub struct ProblemDetails {
    type_base: Option<String>,
}

impl ProblemDetails {
    /// Problems of type `about:blank`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Problems whose type is a base, which ends in `/`, and the code in lower case: `…/invalid-key`.
    #[must_use]
    pub fn with_type_base(base: impl Into<String>) -> Self {
        Self { type_base: Some(base.into()) }
    }
}

#[derive(serde::Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

impl RejectionRenderer for ProblemDetails {
    fn render(&self, error: &AuthError, _: &dyn RequestHead) -> ErrorBody {
        let r#type = match &self.type_base {
            Some(base) => format!("{base}{}", slug(error.code().as_str())),
            None => "about:blank".into(),
        };
        let problem = Problem {
            r#type: &r#type,
            title: reason_phrase(error.status()),
            status: error.status(),
            detail: error.detail(),
            code: error.code().as_str(),
        };
        ErrorBody::problem_json(serde_json::to_string(&problem).unwrap_or_default())
    }
}

/// `INVALID_KEY` as `invalid-key`.
pub(crate) fn slug(code: &str) -> String {
    code.to_ascii_lowercase().replace('_', "-")
}

/// The reason phrase of RFC 9110 §15 (RFC 6585 for 429) for a status that the library uses.
pub(crate) const fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Error",
    }
}
