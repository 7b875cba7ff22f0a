//! inSigner: problem documents with its own base for `type`, and the error code as an extension
//! member.

use portunus::AuthError;
use portunus::request::RequestHead;
use portunus::respond::{ErrorBody, RejectionRenderer};
use portunus::scope;
use portunus::scope::Scope;

pub(super) const SCOPES: &[Scope] = &[
    scope!("documents.*"),
    scope!("documents.read"),
    scope!("documents.create"),
    scope!("documents.write"),
    scope!("documents.send"),
    scope!("documents.delete"),
    scope!("templates.read"),
    scope!("campaigns.*"),
    scope!("campaigns.read"),
    scope!("campaigns.create"),
    scope!("campaigns.update"),
    scope!("campaigns.delete"),
    scope!("bulk_sends.*"),
    scope!("bulk_sends.read"),
    scope!("bulk_sends.create"),
    scope!("bulk_sends.delete"),
    scope!("webhooks.*"),
    scope!("webhooks.read"),
    scope!("webhooks.create"),
    scope!("webhooks.update"),
    scope!("webhooks.delete"),
    scope!("org.read"),
];

pub(super) struct Dialect;

impl RejectionRenderer for Dialect {
    fn render(&self, error: &AuthError, _: &dyn RequestHead) -> ErrorBody {
        let title = error.reason_phrase();
        let slug = title.to_ascii_lowercase().replace(' ', "-");
        let detail = if error.status() == 401 {
            "Invalid or missing API key"
        } else {
            error.detail()
        };
        // The example in the documentation, including its spaces, with the code as the last member.
        ErrorBody::problem_json(format!(
            concat!(
                r#"{{ "type": "https://docs.insigner.com/errors/{}", "title": "{}", "#,
                r#""status": {}, "detail": {}, "code": "{}"}}"#
            ),
            slug,
            title,
            error.status(),
            super::json(detail),
            error.code(),
        ))
    }
}
