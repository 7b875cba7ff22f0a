//! A router that denies by default: every route says what it requires, or does not compile.
//!
//! A path with a keyed method wants a key before any method is looked at; an unknown path is 404
//! with or without one.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};

use crate::adapter::tower::{AuthLayer, require};
use crate::policy::Requirement;

/// Routes that all name what they require.
///
/// ```
/// use portunus::{Authenticator, KeyPrincipal};
/// use portunus::adapter::axum::{ProtectedRouter, get, post};
/// use portunus::adapter::tower::AuthLayer;
/// # use portunus::key::{Alphabet, KeyFormat};
/// use portunus::scope;
/// # use portunus::store::MemoryStore;
///
/// # let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// # let authenticator = Authenticator::builder(MemoryStore::new()).bearer([format]).build()?;
/// let app: axum::Router = ProtectedRouter::new(AuthLayer::new(authenticator))
///     .route("/documents", get(|| async { "[]" }).require(scope!("document:read")))
///     .route("/documents", post(|| async { "{}" }).require(scope!("document:write")))
///     .route("/whoami", get(|| async { "you" }).any_key())
///     .route("/", get(|_: Option<KeyPrincipal>| async { "you, or nobody" }).optional_key())
///     .route("/healthz", get(|| async { "ok" }).public())
///     .into_router();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail
/// # use portunus::adapter::axum::{ProtectedRouter, get};
/// # fn with(router: ProtectedRouter) {
/// router.route("/documents", get(|| async { "[]" })); // says nothing: does not compile
/// # }
/// ```
#[must_use = "a router does nothing until into_router()"]
pub struct ProtectedRouter<S = ()> {
    auth: AuthLayer,
    routes: Vec<(String, Guarded<S>)>,
    demands: Vec<RouteDemand>,
    rest: Router<S>,
    method_not_allowed: Option<MethodRouter<S>>,
}

/// What a route of a [`ProtectedRouter`] demands: for documents of an API, which are made of what
/// is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteDemand {
    /// The path, as axum writes it.
    pub path: String,
    /// The method; `None` for every method that the path has no other route for. `GET` is `HEAD`
    /// too.
    pub method: Option<&'static str>,
    /// What is required; `None` where the route is public.
    pub requirement: Option<Requirement>,
    /// Whether a request that sends no credentials passes, too.
    pub key_optional: bool,
}

/// Handlers that have not said yet what they require.
#[must_use = "say what it requires: require(), any_key(), optional_key() or public()"]
pub struct Unguarded<S = ()> {
    router: MethodRouter<S>,
    method: Option<&'static str>,
    reach: Reach,
}

/// What of a method router a requirement is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The methods; there is no fallback but the empty 405.
    Methods,
    /// Everything: there may be a fallback of the host's, and it must not stay open.
    Fallback,
}

/// Handlers that have said what they require.
#[must_use = "a guarded route does nothing until a ProtectedRouter takes it"]
pub struct Guarded<S = ()> {
    keyed: Option<MethodRouter<S>>,
    key_optional: Option<MethodRouter<S>>,
    public: Option<MethodRouter<S>>,
    /// Of each route; the path is not known yet.
    demands: Vec<RouteDemand>,
    reach: Reach,
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $method:literal),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name<H, T, S>(handler: H) -> Unguarded<S>
        where
            H: Handler<T, S>,
            T: 'static,
            S: Clone + Send + Sync + 'static,
        {
            Unguarded { router: routing::$name(handler), method: Some($method), reach: Reach::Methods }
        }
    )*};
}

methods! {
    /// A handler for `GET` and, without its body, for `HEAD`.
    get = "GET",
    /// A handler for `POST`.
    post = "POST",
    /// A handler for `PUT`.
    put = "PUT",
    /// A handler for `PATCH`.
    patch = "PATCH",
    /// A handler for `DELETE`.
    delete = "DELETE",
    /// A handler for `HEAD`.
    head = "HEAD",
    /// A handler for `OPTIONS`.
    options = "OPTIONS",
}

/// A handler for every method.
pub fn any<H, T, S>(handler: H) -> Unguarded<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    guard(routing::any(handler))
}

/// A whole method router of axum's, its fallback included.
pub fn guard<S>(router: MethodRouter<S>) -> Unguarded<S> {
    Unguarded {
        router,
        method: None,
        reach: Reach::Fallback,
    }
}

impl<S: Clone + Send + Sync + 'static> Unguarded<S> {
    /// Only for keys that meet the requirement.
    pub fn require(self, requirement: impl Into<Requirement>) -> Guarded<S> {
        let requirement = requirement.into();
        let mut guarded = Guarded::saying(self.method, Some(requirement.clone()), self.reach);
        let demand = require(requirement);
        guarded.keyed = Some(match self.reach {
            Reach::Methods => self.router.route_layer(demand),
            Reach::Fallback => self.router.layer(demand),
        });
        guarded
    }

    /// For every valid key.
    pub fn any_key(self) -> Guarded<S> {
        self.require(Requirement::none())
    }

    /// For every valid key, and for requests that send no credentials at all: the handler takes
    /// `Option<KeyPrincipal>`. A wrong or revoked key is refused.
    pub fn optional_key(self) -> Guarded<S> {
        let mut guarded = Guarded::saying(self.method, Some(Requirement::none()), self.reach);
        guarded
            .demands
            .iter_mut()
            .for_each(|demand| demand.key_optional = true);
        // A key that is there is judged as by `any_key()`.
        let demand = require(Requirement::none()).optional_key();
        guarded.key_optional = Some(match self.reach {
            Reach::Methods => self.router.route_layer(demand),
            Reach::Fallback => self.router.layer(demand),
        });
        guarded
    }

    /// For everybody, without a look at any key.
    pub fn public(self) -> Guarded<S> {
        let mut guarded = Guarded::saying(self.method, None, self.reach);
        guarded.public = Some(self.router);
        guarded
    }
}

impl<S> Guarded<S> {
    /// No handler yet, and what it will demand.
    fn saying(
        method: Option<&'static str>,
        requirement: Option<Requirement>,
        reach: Reach,
    ) -> Self {
        let demand = RouteDemand {
            path: String::new(),
            method,
            requirement,
            key_optional: false,
        };
        Self {
            keyed: None,
            key_optional: None,
            public: None,
            demands: vec![demand],
            reach,
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Guarded<S> {
    /// These methods and those of another, each with its own requirement.
    ///
    /// # Panics
    /// Where both have a handler for one method, as axum does.
    pub fn and(mut self, other: Self) -> Self {
        if other.reach == Reach::Fallback {
            self.reach = Reach::Fallback;
        }
        self.demands.extend(other.demands);
        self.keyed = merge(self.keyed, other.keyed);
        self.key_optional = merge(self.key_optional, other.key_optional);
        self.public = merge(self.public, other.public);
        self
    }
}

fn merge<S: Clone + Send + Sync + 'static>(
    one: Option<MethodRouter<S>>,
    other: Option<MethodRouter<S>>,
) -> Option<MethodRouter<S>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.merge(other)),
        (one, other) => one.or(other),
    }
}

impl<S: Clone + Send + Sync + 'static> ProtectedRouter<S> {
    /// A router without routes, whose keyed routes are authenticated by this layer.
    pub fn new(auth: AuthLayer) -> Self {
        Self {
            auth,
            routes: Vec::new(),
            demands: Vec::new(),
            rest: Router::new(),
            method_not_allowed: None,
        }
    }

    /// Adds a route. A path may be added again with other methods.
    ///
    /// # Panics
    /// Where a path has two handlers for one method, or is malformed, as axum does.
    pub fn route(mut self, path: &str, route: Guarded<S>) -> Self {
        self.demands
            .extend(route.demands.iter().map(|demand| RouteDemand {
                path: path.to_owned(),
                ..demand.clone()
            }));
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
    /// Where paths clash, as axum does.
    pub fn nest(mut self, prefix: &str, router: Self) -> Self {
        let within = prefix.strip_suffix('/').unwrap_or(prefix);
        self.demands.extend(router.demands.iter().map(|demand| {
            let path = if demand.path == "/" {
                prefix.to_owned()
            } else {
                format!("{within}{}", demand.path)
            };
            RouteDemand {
                path,
                ..demand.clone()
            }
        }));
        self.rest = self.rest.nest(prefix, router.into_router());
        self
    }

    /// Adds all routes of another protected router. They keep that router's layer.
    ///
    /// # Panics
    /// Where paths clash, as axum does.
    pub fn merge(mut self, router: Self) -> Self {
        self.demands.extend(router.demands.iter().cloned());
        self.rest = self.rest.merge(router.into_router());
        self
    }

    /// What the routes demand, in the order in which they were added.
    #[must_use]
    pub fn demands(&self) -> &[RouteDemand] {
        &self.demands
    }

    /// Answers unknown paths, for everybody; axum's empty 404 unless set.
    pub fn not_found<H: Handler<T, S>, T: 'static>(mut self, handler: H) -> Self {
        self.rest = self.rest.fallback(handler);
        self
    }

    /// Answers known paths with a method that has no handler, after the key was checked where the
    /// path is keyed; axum's empty 405 unless set.
    pub fn method_not_allowed<H: Handler<T, S>, T: 'static>(mut self, handler: H) -> Self {
        self.method_not_allowed = Some(MethodRouter::new().fallback(handler));
        self
    }

    /// The axum router.
    ///
    /// # Panics
    /// Where paths clash or are malformed, as axum does.
    pub fn into_router(self) -> Router<S> {
        let optional_key = self.auth.clone().optional_key();
        let mut router = self.rest;
        for (path, guarded) in self.routes {
            let Guarded {
                mut keyed,
                mut key_optional,
                mut public,
                ..
            } = guarded;
            // Whoever brought a fallback keeps it. It wants what the strictest method wants.
            let wanted = self
                .method_not_allowed
                .clone()
                .filter(|_| guarded.reach == Reach::Methods);
            if keyed.is_some() {
                keyed = merge(keyed, wanted);
            } else if key_optional.is_some() {
                key_optional = merge(key_optional, wanted);
            } else {
                public = merge(public, wanted);
            }
            let keyed = keyed.map(|keyed| keyed.layer(self.auth.clone()));
            let key_optional = key_optional.map(|methods| methods.layer(optional_key.clone()));
            // The strictest last: merging keeps the fallback of the second.
            let methods = merge(merge(public, key_optional), keyed);
            if let Some(methods) = methods {
                router = router.route(&path, methods);
            }
        }
        router
    }
}

impl<S> std::fmt::Debug for ProtectedRouter<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<_> = self.routes.iter().map(|(path, _)| path).collect();
        f.debug_struct("ProtectedRouter")
            .field("routes", &paths)
            .finish_non_exhaustive()
    }
}
impl<S> std::fmt::Debug for Unguarded<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unguarded")
    }
}
impl<S> std::fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded")
            .field("keyed", &self.keyed.is_some())
            .field("key_optional", &self.key_optional.is_some())
            .field("public", &self.public.is_some())
            .finish()
    }
}
