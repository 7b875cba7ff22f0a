//! Responses of a service: the format of refusals, and the fields that report limits.

use std::fmt;
use std::sync::Arc;

use crate::limit::LimitFields;
use crate::respond::{ProblemDetails, RejectionRenderer};

/// Format of refusals, and the fields that responses carry.
#[derive(Clone)]
#[must_use = "responses do nothing until they are given to a builder"]
pub struct Responses {
    pub(crate) renderer: Arc<dyn RejectionRenderer>,
    pub(crate) realm: String,
    pub(crate) limit_fields: LimitFields,
}

impl Responses {
    /// Returns the default: problem documents (RFC 9457), realm `api`, and the `RateLimit` fields.
    pub fn new() -> Self {
        Self {
            renderer: Arc::new(ProblemDetails::new()),
            realm: "api".into(),
            limit_fields: LimitFields::default(),
        }
    }

    /// Sets the format of refusals.
    pub fn renderer(mut self, renderer: impl RejectionRenderer) -> Self {
        self.renderer = Arc::new(renderer);
        self
    }

    /// Sets the `realm` of challenges (RFC 9110 §11.5). Quotes, backslashes and characters other
    /// than visible ASCII are removed.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// Sets which fields report the state of a key's quotas.
    pub fn limit_fields(mut self, fields: LimitFields) -> Self {
        self.limit_fields = fields;
        self
    }
}

impl Default for Responses {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses")
            .field("realm", &self.realm)
            .field("limit_fields", &self.limit_fields)
            .finish_non_exhaustive()
    }
}
