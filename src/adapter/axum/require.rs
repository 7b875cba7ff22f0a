//! `.require(…)` on axum's own routers.

use std::convert::Infallible;

use axum::Router;
use axum::routing::MethodRouter;

use crate::adapter::tower::require;
use crate::policy::Requirement;

/// Demands a requirement of all routes so far.
///
/// ```
/// use axum::Router;
/// use axum::routing::get;
/// use portunus::adapter::axum::RequireExt;
/// use portunus::scope;
///
/// let app: Router = Router::new().route(
///     "/documents",
///     get(|| async { "[]" }).require(scope!("document:read")),
/// );
/// ```
pub trait RequireExt: Sized {
    /// The same routes, for those only who meet the requirement.
    #[must_use]
    fn require(self, requirement: impl Into<Requirement>) -> Self;
}

impl<S: Clone + Send + Sync + 'static> RequireExt for MethodRouter<S, Infallible> {
    /// Methods without a handler, and a fallback of the host's, are demanded of too.
    fn require(self, requirement: impl Into<Requirement>) -> Self {
        // Not `route_layer`, which leaves a fallback of the method router open and panics on
        // `any(…)`.
        self.layer(require(requirement))
    }
}

impl<S: Clone + Send + Sync + 'static> RequireExt for Router<S> {
    /// Unknown paths stay 404. Routes that are added or merged later are not demanded of.
    ///
    /// # Panics
    /// Where the router has no routes, as axum's `route_layer` does.
    fn require(self, requirement: impl Into<Requirement>) -> Self {
        self.route_layer(require(requirement))
    }
}
