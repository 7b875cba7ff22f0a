//! The refusal of a handler's argument, or of a charge.

use std::fmt;

use crate::error::AuthError;
use crate::respond::Answer;

/// An extractor's refusal: the error and the rendered response.
#[derive(Debug)]
pub struct Rejection {
    pub(super) error: AuthError,
    pub(super) answer: Answer,
}

impl Rejection {
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(super) fn new<C: super::carrier::Carrier>(
        error: AuthError,
        carrier: &C,
        head: &dyn crate::request::RequestHead,
    ) -> Self {
        let (error, answer) = super::inside::answer(error, carrier, head);
        Self { error, answer }
    }

    /// Logs a fault of the service, before the rejection becomes a response.
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(super) fn log(&self) {
        crate::telemetry::set_up_incorrectly(&self.error);
    }

    /// Returns the error.
    #[must_use]
    pub fn error(&self) -> &AuthError {
        &self.error
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Rejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
