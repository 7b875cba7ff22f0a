//! Refusals of the management API: always a problem document.

use std::error::Error;
use std::fmt;

use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use portunus::adapter::tower::{HttpHead, into_response};
use portunus::manage::ManageError;
use portunus::respond::Responder;
use portunus::{AuthError, ErrorCode};

/// A refusal.
#[derive(Debug)]
pub struct Fault(AuthError);

impl Fault {
    pub(crate) fn error(&self) -> &AuthError {
        &self.0
    }

    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(AuthError::with_detail(code, detail.into()))
    }

    /// 422, with the field that cannot be accepted.
    pub(crate) fn invalid(field: &str, reason: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidBody, format!("{field}: {reason}"))
    }

    /// 400: what cannot be understood at all.
    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, reason)
    }

    /// The same for an id that is unknown, malformed, or another tenant's.
    pub(crate) fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "There is no such key")
    }

    /// 503: the storage gave no answer.
    pub(crate) fn store(error: impl Error + Send + Sync + 'static) -> Self {
        Self(AuthError::unavailable(ErrorCode::StoreUnavailable, error))
    }
}

impl From<AuthError> for Fault {
    fn from(error: AuthError) -> Self {
        Self(error)
    }
}

impl From<Fault> for AuthError {
    fn from(fault: Fault) -> Self {
        fault.0
    }
}

impl From<ManageError> for Fault {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::NotFound(_) => Self::not_found(),
            ManageError::Refused(error) => Self(error),
            ManageError::Store(_) | ManageError::Generate(_) => Self::store(error),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut answer =
            Responder::default().answer(&self.0, &HttpHead::new(&Request::new(()), None));
        // A challenge is for credentials; what else is wrong with a request is none of its
        // business.
        if self.0.code() == ErrorCode::InvalidRequest {
            answer
                .fields
                .retain(|(name, _)| *name != "www-authenticate");
        }
        into_response(answer, &self.0)
    }
}

/// There is nothing at this path.
pub(crate) async fn unknown() -> Fault {
    Fault(AuthError::new(ErrorCode::NotFound))
}

/// There is something, but not for this method; axum adds which there are.
pub(crate) async fn method_not_allowed() -> Response {
    let body = concat!(
        r#"{"type":"about:blank","title":"Method Not Allowed","status":405,"#,
        r#""detail":"This path has other methods"}"#
    );
    let fields = [
        (CONTENT_TYPE, "application/problem+json"),
        (CACHE_CONTROL, "no-store"),
    ];
    let mut response = (StatusCode::METHOD_NOT_ALLOWED, fields, body).into_response();
    response.headers_mut().remove(ALLOW);
    response
}
