//! A deny-by-default router: a route without a declared requirement does not compile.
//!
//! A path with a method that requires a key requires it before the method is checked. An unknown
//! path is 404 with or without a key.

use std::fmt;

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodRouter;

use super::methods::{Handlers, path};
use crate::adapter::routes::{DeclaredRoute, Guarded, RouteDemand, classes, nested};
use crate::adapter::tower::AuthLayer;

/// A router in which every route declares what it requires.
///
/// ```
/// use portunus::{KeyPrincipal, Portunus};
/// use portunus::adapter::axum::{get, post};
/// # use portunus::key::{Alphabet, KeyFormat};
/// use portunus::scope;
/// # use portunus::store::MemoryStore;
///
/// # let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// # let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
/// let app: axum::Router = keys
///     .router()
///     .route("/documents", get(|| async { "[]" }).require(scope!("document:read")))
///     .route("/documents", post(|| async { "{}" }).require(scope!("document:write")))
///     .route("/whoami", get(|| async { "you" }).any_key())
///     .route("/", get(|_: Option<KeyPrincipal>| async { "you, if known" }).optional_key())
///     .route("/healthz", get(|| async { "ok" }).public())
///     .into_router();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// # use portunus::adapter::axum::{ProtectedRouter, get};
/// # fn with(router: ProtectedRouter) {
/// router.route("/documents", get(|| async { "[]" })); // no requirement: does not compile
/// # }
/// ```
#[must_use = "a router does nothing until into_router()"]
pub struct ProtectedRouter<S = ()> {
    auth: AuthLayer,
    routes: Vec<(String, Guarded<Handlers<S>>)>,
    demands: Vec<RouteDemand>,
    rest: Router<S>,
    method_not_allowed: Option<MethodRouter<S>>,
}

impl<S: Clone + Send + Sync + 'static> ProtectedRouter<S> {
    /// Creates an empty router whose routes are authenticated by this layer.
    pub fn new(auth: AuthLayer) -> Self {
        Self {
            auth,
            routes: Vec::new(),
            demands: Vec::new(),
            rest: Router::new(),
            method_not_allowed: None,
        }
    }

    /// Adds a route. The same path can be added again with other methods.
    ///
    /// # Panics
    /// Panics if the limits do not declare the class of the route. `into_router` panics if a path is
    /// malformed or has two handlers for one method, as axum does.
    pub fn route(mut self, path: &str, route: impl DeclaredRoute<Handlers<S>>) -> Self {
        let route = route.declared();
        let demands: Vec<_> = route.demands(path).collect();
        classes(demands.iter(), self.auth.authenticator());
        self.demands.extend(demands);
        // Taken out and put back: `and` takes both by value.
        let known = self.routes.iter().position(|(known, _)| known == path);
        match known.map(|place| self.routes.remove(place)) {
            Some((path, guarded)) => self.routes.push((path, guarded.and(route))),
            None => self.routes.push((path.to_owned(), route)),
        }
        self
    }

    /// Adds all routes of another protected router under a prefix. They keep that router's layer.
    ///
    /// # Panics
    /// Panics if paths conflict, as axum does.
    pub fn nest(mut self, prefix: &str, router: Self) -> Self {
        self.demands
            .extend(router.demands.iter().map(|demand| RouteDemand {
                path: nested(prefix, &demand.path),
                ..demand.clone()
            }));
        self.rest = self.rest.nest(prefix, router.into_router());
        self
    }

    /// Adds all routes of another protected router. They keep that router's layer.
    ///
    /// # Panics
    /// Panics if paths conflict, as axum does.
    pub fn merge(mut self, router: Self) -> Self {
        self.demands.extend(router.demands.iter().cloned());
        self.rest = self.rest.merge(router.into_router());
        self
    }

    /// Returns the routes' demands, in the order in which they were added.
    #[must_use]
    pub fn demands(&self) -> &[RouteDemand] {
        &self.demands
    }

    /// Sets the handler for unknown paths, which needs no key. By default: axum's empty 404.
    pub fn not_found<H: Handler<T, S>, T: 'static>(mut self, handler: H) -> Self {
        self.rest = self.rest.fallback(handler);
        self
    }

    /// Sets the handler for methods that a known path has no handler for. It runs after the key
    /// check if the path requires a key. By default: axum's empty 405.
    pub fn method_not_allowed<H: Handler<T, S>, T: 'static>(mut self, handler: H) -> Self {
        self.method_not_allowed = Some(MethodRouter::new().fallback(handler));
        self
    }

    /// Builds the axum router.
    ///
    /// # Panics
    /// Panics if paths conflict or are malformed, or if a path has two handlers for one method, as
    /// axum does.
    pub fn into_router(self) -> Router<S> {
        let not_allowed = self.method_not_allowed.as_ref();
        let routes = self.routes.into_iter();
        routes.fold(self.rest, |router, (known, guarded)| {
            router.route(&known, path(guarded, &self.auth, not_allowed))
        })
    }
}

impl<S> fmt::Debug for ProtectedRouter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.routes.iter().map(|(path, _)| path).collect();
        f.debug_struct("ProtectedRouter")
            .field("routes", &paths)
            .finish_non_exhaustive()
    }
}
