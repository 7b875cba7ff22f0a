//! The requirement that a layer or middleware makes of whoever was authenticated further out.

use std::sync::Arc;

use super::carrier::{Incoming, Inward};
use super::exchange::ExchangeFuture;
use super::inside::{check, decided, is_nobody};
use crate::policy::Requirement;

/// Demands a requirement: `require(scope!("document:read"))`, as a layer of tower and as middleware
/// of actix-web.
///
/// Where no authentication ran further out, it refuses.
pub fn require(requirement: impl Into<Requirement>) -> Require {
    Require {
        requirement: Arc::new(requirement.into()),
        key_optional: false,
    }
}

/// Made by [`require`].
#[derive(Debug, Clone)]
#[must_use = "a requirement does nothing until it wraps something"]
pub struct Require {
    requirement: Arc<Requirement>,
    key_optional: bool,
}

impl Require {
    /// Demands it of keys only: whoever the `optional_key()` of the layer or middleware further
    /// out, or an authenticator that is optional, has let pass as nobody passes here, too.
    pub fn optional_key(mut self) -> Self {
        self.key_optional = true;
        self
    }

    /// Passes a request on that meets the requirement, and refuses others.
    pub(super) fn exchange<Q: Incoming, S: Inward<Q>>(
        &self,
        request: Q,
        service: &mut S,
    ) -> ExchangeFuture<S, Q> {
        let carrier = request.carrier();
        let checked = if self.key_optional && is_nobody(carrier) {
            Ok(())
        } else {
            check(&self.requirement, carrier, &request.head_inside()).map(drop)
        };
        decided(request, service, checked)
    }
}

/// The service that [`Require`] makes.
#[derive(Debug, Clone)]
pub struct Requiring<S> {
    pub(super) service: S,
    pub(super) demanded: Require,
}
