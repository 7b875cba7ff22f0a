//! Problem details (RFC 9457): the default error format.

use super::{ErrorBody, RejectionRenderer};
use crate::error::{AuthError, ErrorCode};
use crate::limit::LimitReport;
use crate::request::RequestHead;

/// Renders `application/problem+json` with the stable code as extension member `code`, and the
/// [member of the request](AuthError::field) that is wrong, if any, as `field`.
///
/// `title` depends on the type only; `type` is `about:blank` by default. An exhausted quota is
/// reported as the registered type `quota-exceeded` with `violated-policies`
/// (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Debug, Clone, Default)]
pub struct ProblemDetails {
    type_base: Option<String>,
}

impl ProblemDetails {
    /// Creates a renderer whose problems have the type `about:blank`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a renderer whose problem types are `base` followed by the code in lower case with
    /// hyphens: `…/invalid-key`. The base must end in `/`.
    #[must_use]
    pub fn with_type_base(base: impl Into<String>) -> Self {
        Self {
            type_base: Some(base.into()),
        }
    }
}

#[derive(serde::Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    violated_policies: Vec<&'a str>,
}

const QUOTA_EXCEEDED: (&str, &str) = (
    "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "Request cannot be satisfied as assigned quota has been exceeded",
);

impl RejectionRenderer for ProblemDetails {
    fn render(&self, error: &AuthError, _: &dyn RequestHead) -> ErrorBody {
        let violated_policies = error
            .limits()
            .map(LimitReport::violated)
            .unwrap_or_default();
        let (r#type, title) = match &self.type_base {
            _ if error.code() == ErrorCode::RateLimited => {
                (QUOTA_EXCEEDED.0.into(), QUOTA_EXCEEDED.1)
            }
            Some(base) => (
                format!("{base}{}", slug(error.code())),
                error.reason_phrase(),
            ),
            None => ("about:blank".into(), error.reason_phrase()),
        };
        let problem = Problem {
            r#type: &r#type,
            title,
            status: error.status(),
            detail: error.detail(),
            code: error.code().as_str(),
            field: error.field(),
            violated_policies,
        };
        ErrorBody::problem_json(serde_json::to_string(&problem).unwrap_or_default())
    }
}

/// Converts `INVALID_KEY` to `invalid-key`.
fn slug(code: ErrorCode) -> String {
    code.as_str().to_ascii_lowercase().replace('_', "-")
}
