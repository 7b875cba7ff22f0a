//! A deny-by-default router: a route without a declared requirement does not compile.

use actix_web::dev::{AppService, HttpServiceFactory};
use actix_web::{FromRequest, Handler, HttpResponse, Responder, web};

use super::Auth;
use super::methods::MakeRoute;
use super::table::Table;
use crate::adapter::routes::{DeclaredRoute, RouteDemand, classes};

/// A router in which every route declares what it requires: `.require(…)`, `.any_key()`,
/// `.optional_key()` or `.public()`.
///
/// It is a service for an `App` or a scope. As on axum, a `GET` handler also answers `HEAD`, more
/// specific paths take precedence, and a path that is percent-encoded where the route is literal
/// does not match. Unknown paths are left to the `App` or scope, so they stay 404.
///
/// ```
/// use actix_web::{App, web};
/// use portunus::adapter::actix::{ProtectedRouter, get, post};
/// # use portunus::key::{Alphabet, KeyFormat};
/// # use portunus::store::MemoryStore;
/// use portunus::{KeyPrincipal, Portunus, scope};
///
/// # let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// # let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
/// let auth = keys.middleware(); // once: the clones share caches and limits
/// let routes = move || {
///     ProtectedRouter::new(auth.clone())
///         .route("/documents", get(|| async { "[]" }).require(scope!("document:read")))
///         .route("/documents", post(|| async { "{}" }).require(scope!("document:write")))
///         .route("/whoami", get(|| async { "you" }).any_key())
///         .route("/", get(|_: Option<KeyPrincipal>| async { "you, if known" }).optional_key())
///         .route("/healthz", get(|| async { "ok" }).public())
/// };
/// let app = move || App::new().service(web::scope("/v1").service(routes()));
/// # let _ = app;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// # use portunus::adapter::actix::{ProtectedRouter, get};
/// # fn with(router: ProtectedRouter) {
/// router.route("/documents", get(|| async { "[]" })); // no requirement: does not compile
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a router does nothing until it is a service of an App or a scope"]
pub struct ProtectedRouter {
    auth: Auth,
    table: Table,
}

impl ProtectedRouter {
    /// Creates an empty router whose routes are authenticated by this middleware.
    pub fn new(auth: Auth) -> Self {
        let method_not_allowed = || web::to(async || HttpResponse::MethodNotAllowed());
        Self {
            auth,
            table: Table::new(method_not_allowed),
        }
    }

    /// Adds a route. The same path can be added again with other methods.
    ///
    /// # Panics
    /// Panics, as axum does, if a path has two handlers for one method or was added before with
    /// other parameter names: one of them would never be reached. Panics if the limits do not
    /// declare the class of the route.
    pub fn route(mut self, path: &str, route: impl DeclaredRoute<MakeRoute>) -> Self {
        let route = route.declared();
        let demands: Vec<_> = route.demands(path).collect();
        classes(demands.iter(), self.auth.authenticator());
        self.table.add(path, route, &self.auth);
        self
    }

    /// Adds all routes of another protected router under a prefix. They keep that router's
    /// middleware.
    ///
    /// # Panics
    /// Panics if paths conflict, like [`route`](Self::route).
    pub fn nest(mut self, prefix: &str, router: Self) -> Self {
        self.table.add_all(prefix, router.table);
        self
    }

    /// Adds all routes of another protected router, like [`nest`](Self::nest) without a prefix.
    ///
    /// # Panics
    /// Panics like [`route`](Self::route).
    pub fn merge(self, router: Self) -> Self {
        self.nest("", router)
    }

    /// Returns the routes' demands, in the order in which they were added.
    #[must_use]
    pub fn demands(&self) -> &[RouteDemand] {
        &self.table.demands
    }

    /// Sets the handler for methods that a known path has no handler for. It runs after the key
    /// check if the path requires a key. By default: an empty 405.
    pub fn method_not_allowed<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.table.not_allowed = Box::new(move || web::to(handler.clone()));
        self
    }
}

impl HttpServiceFactory for ProtectedRouter {
    fn register(self, config: &mut AppService) {
        self.table.register(config);
    }
}
