//! A layer or middleware that checks a requirement against the principal that an outer layer
//! authenticated.

use std::sync::Arc;

use super::carrier::{Incoming, Inward};
use super::exchange::DecidedFuture;
use super::inside::{check, is_anonymous, refused, serves_grpc};
use crate::policy::Requirement;

/// Checks a requirement: `require(scope!("document:read"))`, as a tower layer or actix-web
/// middleware.
///
/// Refuses every request with 500 `INTERNAL_ERROR` if no outer layer authenticated it, which is a fault
/// of the service: with the feature `tracing`, it is logged with the route and the remedy. With
/// `.optional_key()`, the requirement applies only to requests with a key: a request that the outer
/// layer let pass as anonymous passes here too.
pub fn require(requirement: impl Into<Requirement>) -> Require {
    Require {
        requirement: Arc::new(requirement.into()),
        key_optional: false,
    }
}

/// The layer or middleware returned by [`require`].
#[derive(Debug, Clone)]
#[must_use = "a requirement does nothing until it wraps something"]
pub struct Require {
    requirement: Arc<Requirement>,
    key_optional: bool,
}

impl Require {
    /// Applies the requirement only to requests with a key. A request passes without a check if the
    /// outer layer let it pass as anonymous, because of its own `optional_key()` or because its
    /// authenticator is optional.
    pub fn optional_key(mut self) -> Self {
        self.key_optional = true;
        self
    }

    /// Forwards a request that meets the requirement and refuses any other.
    #[inline]
    pub(super) fn exchange<Q: Incoming, S: Inward<Q>>(
        &self,
        request: Q,
        service: &mut S,
    ) -> DecidedFuture<S, Q> {
        let passes = self.key_optional && is_anonymous(request.carrier());
        if !passes && let Err(error) = check(&self.requirement, &request) {
            let serves_grpc = serves_grpc(request.carrier());
            return DecidedFuture::refusing(refused::<Q, S>(request, error, serves_grpc));
        }
        DecidedFuture::passing(service.forward(request))
    }
}

/// The service produced by [`Require`].
#[derive(Debug, Clone)]
pub struct Requiring<S> {
    pub(super) service: S,
    pub(super) demanded: Require,
}
