//! `.require(…)` for axum's own routers.

use std::convert::Infallible;

use axum::Router;
use axum::routing::MethodRouter;

use crate::adapter::tower::require;
use crate::policy::Requirement;

/// Adds a requirement to all routes added so far.
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
    /// Lets only requests that meet the requirement reach these routes.
    #[must_use]
    fn require(self, requirement: impl Into<Requirement>) -> Self;
}

impl<S: Clone + Send + Sync + 'static> RequireExt for MethodRouter<S, Infallible> {
    /// Also covers methods without a handler and a fallback set by the host.
    fn require(self, requirement: impl Into<Requirement>) -> Self {
        // Not `route_layer`, which leaves a fallback of the method router open and panics on
        // `any(…)`.
        self.layer(require(requirement))
    }
}

impl<S: Clone + Send + Sync + 'static> RequireExt for Router<S> {
    /// Unknown paths stay 404. Routes that are added or merged later are not covered.
    ///
    /// # Panics
    /// Panics if the router has no routes, as axum's `route_layer` does.
    fn require(self, requirement: impl Into<Requirement>) -> Self {
        self.route_layer(require(requirement))
    }
}
