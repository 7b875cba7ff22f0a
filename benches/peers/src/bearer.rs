//! `tower-http`'s layer for one bearer token, which it compares with `==`.

use tower::Layer;
#[expect(deprecated, reason = "the only bearer check of that crate")]
use tower_http::auth::require_authorization::Bearer;
use tower_http::validate_request::ValidateRequestHeaderLayer;

use crate::contender::{Check, Contender, Credentials};
use crate::shape::{Body, Inner, secret};

/// The layer knows one key only, so all requests have it. It has been deprecated since 0.6.7 as too
/// basic, without a successor.
pub fn contender() -> Contender {
    #[expect(deprecated, reason = "the only bearer check of that crate")]
    let layer = ValidateRequestHeaderLayer::<Bearer<Body>>::bearer(&secret(0));
    let service = Layer::<Inner>::layer(&layer, Inner);
    let credentials = Credentials {
        good: vec![format!("Bearer {}", secret(0))],
        unknown: format!("Bearer {}", secret(u64::MAX)),
        ..Credentials::default()
    };
    Contender::tower("tower-http bearer", &[Check::Key], credentials, service)
}
