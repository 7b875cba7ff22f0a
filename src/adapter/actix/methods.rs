//! Handlers for the methods of a path, for a [`ProtectedRouter`](super::ProtectedRouter).

use std::cmp::Reverse;

use actix_web::http::header::HeaderValue;
use actix_web::middleware::from_fn;
use actix_web::{FromRequest, Handler, Resource, Responder, Route, guard, web};

use super::answers::by_method;
use super::checked::Checked;
use super::routed::behind_strictest;
use super::{Auth, require};
use crate::adapter::routes::{RouteDemand, Unguarded, classes};

/// Creates a route from a handler: called once for each method that the handler answers.
pub(super) type MakeRoute = Box<dyn Fn() -> Route>;

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $method:expr),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name<F, Args>(handler: F) -> Unguarded<MakeRoute>
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            Unguarded::new($method, Box::new(move || web::to(handler.clone())))
        }
    )*};
}

methods! {
    /// A handler for `GET` and, without its body, for `HEAD`.
    get = Some("GET"),
    /// A handler for `POST`.
    post = Some("POST"),
    /// A handler for `PUT`.
    put = Some("PUT"),
    /// A handler for `PATCH`.
    patch = Some("PATCH"),
    /// A handler for `DELETE`.
    delete = Some("DELETE"),
    /// A handler for `HEAD`.
    head = Some("HEAD"),
    /// A handler for `OPTIONS`.
    options = Some("OPTIONS"),
    /// A handler for every method that the path has no other handler for.
    any = None,
}

/// A handler of a path, with its demand and the middleware that authenticates it.
pub(super) struct Handled {
    pub(super) demand: RouteDemand,
    pub(super) make: MakeRoute,
    pub(super) auth: Auth,
    /// How many routers deep it was nested.
    pub(super) depth: usize,
}

impl Handled {
    /// Creates the handler's route for one method, or for all, behind its demand.
    fn behind(&self, method: Option<&'static str>) -> Route {
        let asked = guard::fn_guard(move |context| {
            method.is_none_or(|method| context.head().method.as_str() == method)
        });
        let mut route = (self.make)().guard(asked);
        let classes = classes(std::iter::once(&self.demand), self.auth.authenticator());
        let auth = self.auth.clone().with_classes(classes);
        if let Some(requirement) = self.demand.requirement.clone() {
            let (mut auth, mut demanded) = (auth, require(requirement));
            if self.demand.key_optional {
                (auth, demanded) = (auth.optional_key(), demanded.optional_key());
            }
            route = route.wrap(Checked { auth, demanded });
        } else if let Some(counting) = auth.without_key() {
            route = route.wrap(counting);
        }
        match method {
            None | Some("HEAD") => {
                route.wrap(from_fn(|request, next| by_method(None, request, next)))
            }
            Some(_) => route,
        }
    }

    /// Returns the methods that it answers; empty means all.
    fn methods(&self, head_is_taken: bool) -> Vec<&'static str> {
        match self.demand.method {
            Some("GET") if !head_is_taken => vec!["GET", "HEAD"],
            method => method.into_iter().collect(),
        }
    }
}

/// Builds the resource of a path. `not_allowed` answers other methods, after the strictest key
/// check of the path.
pub(super) fn resource(path: &str, mut handled: Vec<Handled>, not_allowed: Route) -> Resource {
    let head_is_taken = handled.iter().any(|one| one.demand.method == Some("HEAD"));
    // Ordered as in axum's `Allow`; a handler for every method comes last.
    handled.sort_by_key(|one| {
        let (of_every_method, depth) = (one.demand.method.is_none(), Reverse(one.depth));
        (of_every_method, depth, one.demand.key_check())
    });
    let listed = handled.iter().flat_map(|one| one.methods(head_is_taken));
    let listed: Vec<_> = listed.collect();
    let not_allowed = behind_strictest(not_allowed, &handled);
    let allow = HeaderValue::from_str(&listed.join(",")).unwrap_or(HeaderValue::from_static(""));
    let not_allowed = not_allowed.wrap(from_fn(move |request, next| {
        by_method(Some(allow.clone()), request, next)
    }));
    let routes = handled.iter().flat_map(|one| {
        let methods = match one.methods(head_is_taken) {
            all if all.is_empty() => vec![None],
            some => some.into_iter().map(Some).collect(),
        };
        methods.into_iter().map(|method| one.behind(method))
    });
    let resource = web::resource(path).default_service(not_allowed);
    routes.fold(resource, Resource::route)
}
