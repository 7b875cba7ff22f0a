//! Who is nobody: a request that passed without a key, or that no authentication has seen.

use std::sync::Arc;

use crate::error::{AuthError, ErrorCode};
use crate::respond::Responder;

/// Marks a request that passed as nobody, and knows how to refuse it after all.
#[derive(Clone)]
pub(crate) struct Anonymous(pub(crate) Arc<Responder>);

/// Why there is no principal.
pub(crate) fn no_principal(passed_as_nobody: bool) -> AuthError {
    if passed_as_nobody {
        AuthError::new(ErrorCode::MissingKey)
    } else {
        // Closed, and told apart for whoever forgot the layer.
        AuthError::with_detail(
            ErrorCode::MissingKey,
            "No authentication ran for this route, so nobody may use it",
        )
    }
}
