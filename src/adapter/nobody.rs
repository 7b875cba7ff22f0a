//! What adapters leave in a request's extensions for those further in, besides the principal: who
//! is nobody, because a request passed without a key or no authentication has seen it, and whether
//! the service serves gRPC.

use std::sync::Arc;

use crate::error::{AuthError, ErrorCode};
use crate::respond::Responder;

/// Marks a request that passed as nobody, and knows how to refuse it after all.
#[derive(Clone)]
pub(crate) struct Anonymous(pub(crate) Arc<Responder>);

/// Marks a request to a service of which the host declared that it serves gRPC, for layers and
/// extractors further in.
#[derive(Clone, Copy)]
pub(crate) struct ServesGrpc;

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
