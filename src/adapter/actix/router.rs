//! A router that denies by default: every route says what it requires, or does not compile.

use actix_web::dev::{AppService, HttpServiceFactory};
use actix_web::{FromRequest, Handler, HttpResponse, Responder, web};

use super::Auth;
use super::methods::MakeRoute;
use super::table::Table;
use crate::adapter::routes::{Guarded, RouteDemand};

/// Routes that all name what they require: `.require(…)`, `.any_key()`, `.optional_key()` or
/// `.public()`.
///
/// It is a service of an `App` or of a scope. As on axum, a `GET` handler answers `HEAD`, the more
/// particular path is asked first, and a path that is percent-encoded where the route is literal is
/// another path. Unknown paths are the `App`'s, or its scope's: they stay 404.
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
///         .route("/", get(|_: Option<KeyPrincipal>| async { "you, or nobody" }).optional_key())
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
/// router.route("/documents", get(|| async { "[]" })); // says nothing: does not compile
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a router does nothing until it is a service of an App or a scope"]
pub struct ProtectedRouter {
    auth: Auth,
    table: Table,
}

impl ProtectedRouter {
    /// A router without routes, whose keyed routes are authenticated by this middleware.
    pub fn new(auth: Auth) -> Self {
        let method_not_allowed = || web::to(async || HttpResponse::MethodNotAllowed());
        Self {
            auth,
            table: Table::new(method_not_allowed),
        }
    }

    /// Adds a route. A path may be added again with other methods.
    ///
    /// # Panics
    /// Where a path has two handlers for one method, or is there already with other names of its
    /// parameters, as on axum: one of them would never be asked.
    pub fn route(mut self, path: &str, route: Guarded<MakeRoute>) -> Self {
        self.table.add(path, route, &self.auth);
        self
    }

    /// Adds all routes of another protected router under a prefix. They keep that router's
    /// middleware.
    ///
    /// # Panics
    /// Where paths clash, as [`route`](Self::route).
    pub fn nest(mut self, prefix: &str, router: Self) -> Self {
        self.table.add_all(prefix, router.table);
        self
    }

    /// Adds all routes of another protected router, as [`nest`](Self::nest) without a prefix.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    pub fn merge(self, router: Self) -> Self {
        self.nest("", router)
    }

    /// What the routes demand, in the order in which they were added.
    #[must_use]
    pub fn demands(&self) -> &[RouteDemand] {
        &self.table.demands
    }

    /// Answers known paths with a method that has no handler, after the key was checked where the
    /// path is keyed; an empty 405 unless set.
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
