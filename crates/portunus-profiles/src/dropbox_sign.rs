//! Dropbox Sign: `{"error":{"error_msg":…,"error_name":…}}`.

use portunus::request::RequestHead;
use portunus::respond::{ErrorBody, RejectionRenderer};
use portunus::scope;
use portunus::scope::Scope;
use portunus::{AuthError, ErrorCode};

pub(super) const SCOPES: &[Scope] = &[
    scope!("account_access"),
    scope!("signature_request_access"),
    scope!("template_access"),
];

pub(super) struct Dialect;

impl RejectionRenderer for Dialect {
    fn render(&self, error: &AuthError, _: &dyn RequestHead) -> ErrorBody {
        let name = match error.status() {
            400 | 413 | 415 | 422 => "bad_request",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            409 | 412 => "conflict",
            429 => "exceeded_rate",
            _ => "unavailable",
        };
        let message = match error.code() {
            code if code.status() == 401 && code != ErrorCode::MissingKey => "Unauthorized api key",
            _ => error.detail(),
        };
        ErrorBody::json(format!(
            r#"{{"error":{{"error_msg":{},"error_name":"{name}"}}}}"#,
            super::json(message)
        ))
    }
}
