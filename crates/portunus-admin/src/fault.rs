//! Error responses of the management API: problem documents.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use portunus::adapter::tower::{HttpHead, into_response};
use portunus::credit::CreditError;
use portunus::manage::{Denied, ManageError};
use portunus::respond::Responder;
use portunus::{AuthError, ErrorCode};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::import::{ImportStopped, ImportedKeys};
use crate::{AuthenticatedOperator, Shared, terms};

/// A problem document (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Problem<'p> {
    /// `about:blank`, or a URI that identifies the problem type.
    #[serde(rename = "type")]
    kind: &'p str,
    title: &'p str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// A human-readable explanation. The wording may change.
    detail: &'p str,
    #[schema(value_type = terms::Code)]
    code: &'p str,
    /// The member of the request that is wrong, with dots between nested names: `owner.user_id`.
    /// Absent if the problem is not about one.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'p str>,
    /// The exhausted quotas (draft-ietf-httpapi-ratelimit-headers-10).
    #[schema(value_type = Vec<String>, required = false)]
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated_policies: Option<&'p [String]>,
    /// Only for an import that stopped: what was done before.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<ImportedKeys<'p>>,
}

/// The code of 405, which no request with a key gets from the library.
pub(crate) const METHOD_NOT_ALLOWED: &str = "METHOD_NOT_ALLOWED";

/// An error response of the management API.
#[derive(Debug, Clone)]
pub struct Fault {
    error: AuthError,
    fields: Vec<(&'static str, &'static str)>,
}

impl Fault {
    pub(crate) fn error(&self) -> &AuthError {
        &self.error
    }

    /// Adds a header field to the response.
    pub(crate) fn with_field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        AuthError::with_detail(code, detail.into()).into()
    }

    /// 422: invalid field.
    pub(crate) fn invalid(field: &'static str, reason: impl fmt::Display) -> Self {
        let detail = format!("{field}: {reason}");
        AuthError::with_detail(ErrorCode::InvalidBody, detail)
            .about(field)
            .into()
    }

    /// 422: invalid content that is not about one of its members.
    pub(crate) fn malformed(part: &'static str, reason: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidBody, format!("{part}: {reason}"))
    }

    /// 400: malformed request.
    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, reason)
    }

    /// 404: the same response for an id that is unknown, malformed, or another tenant's.
    pub(crate) fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "Key not found")
    }

    /// 503: the storage is unavailable.
    pub(crate) fn store(error: impl Error + Send + Sync + 'static) -> Self {
        AuthError::unavailable(ErrorCode::StoreUnavailable, error).into()
    }
}

impl From<AuthError> for Fault {
    fn from(error: AuthError) -> Self {
        Self {
            error,
            fields: Vec::new(),
        }
    }
}

impl From<Fault> for AuthError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

impl From<ManageError> for Fault {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::NotFound(_) => Self::not_found(),
            ManageError::Refused(error) => error.into(),
            ManageError::NotPublished(_) => {
                let detail = sentence(&error.to_string());
                AuthError::with_detail(ErrorCode::StoreUnavailable, detail)
                    .caused_by(error)
                    .into()
            }
            ManageError::Store(_)
            | ManageError::Generate(_)
            | ManageError::Log(_)
            | ManageError::Credits(CreditError::Unavailable(_) | CreditError::Unreadable(_)) => {
                Self::store(error)
            }
            ManageError::Credits(CreditError::Invalid(error)) => {
                Self::invalid(error.what(), &error)
            }
            // These name no key, so they are sentences.
            ManageError::Credits(_) => Self::new(error.code(), sentence(&error.to_string())),
            ManageError::Invalid { field, reason } => Self::invalid(field, reason),
            ManageError::Forbidden(Denied {
                reason,
                field: Some(field),
                ..
            }) => AuthError::with_detail(ErrorCode::Forbidden, reason)
                .about(field)
                .into(),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

/// Capitalizes the first letter.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(rest).collect()
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut answer = Responder::default().answer(
            &self.error,
            &HttpHead::new(&axum::http::Request::new(()), None),
        );
        // A challenge is about credentials and does not belong to a malformed request.
        if self.error.code() == ErrorCode::InvalidRequest {
            answer
                .fields
                .retain(|(name, _)| *name != "www-authenticate");
        }
        if let Some(stopped) = self.error.source().and_then(|it| it.downcast_ref()) {
            answer.body = with_report(&answer.body, stopped);
        }
        let mut response = into_response(answer, &self.error);
        for (name, value) in self.fields {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Adds what was done to the problem document of an import that stopped.
fn with_report(problem: &[u8], stopped: &ImportStopped) -> Cow<'static, [u8]> {
    let report = ImportedKeys::of(&stopped.report, Some(stopped.line));
    let mut members: Map<String, Value> = serde_json::from_slice(problem).unwrap_or_default();
    members.insert("import".to_owned(), json!(report));
    Value::Object(members).to_string().into_bytes().into()
}

/// Responds to an unknown path.
pub(crate) async fn unknown(State(shared): State<Shared>, request: Request) -> Fault {
    let too_many = too_many(&shared, request).await;
    too_many.unwrap_or_else(|| AuthError::new(ErrorCode::NotFound).into())
}

/// Counts a request without a matching route against the operator, or against the client if there
/// is no authenticated operator. Returns the 429 if there are too many.
async fn too_many(shared: &Shared, request: Request) -> Option<Fault> {
    let (mut parts, _) = request.into_parts();
    let operator = AuthenticatedOperator::from_request_parts(&mut parts, shared).await;
    operator.err().filter(|fault| fault.error.status() == 429)
}

/// Responds to a method that the path does not support; axum adds `Allow`.
pub(crate) async fn method_not_allowed(State(shared): State<Shared>, request: Request) -> Response {
    if let Some(too_many) = too_many(&shared, request).await {
        return too_many.into_response();
    }
    let problem = Problem {
        kind: "about:blank",
        title: "Method Not Allowed",
        status: 405,
        detail: "This path does not support this method",
        code: METHOD_NOT_ALLOWED,
        field: None,
        violated_policies: None,
        import: None,
    };
    let mut response = (StatusCode::METHOD_NOT_ALLOWED, Json(problem)).into_response();
    let fields = response.headers_mut();
    fields.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.remove(ALLOW);
    response
}
