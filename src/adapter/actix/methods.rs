//! Handlers for the methods of a path, as a [`ProtectedRouter`](super::ProtectedRouter) takes them.

use std::cmp::Reverse;

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, FromRequest, Handler, Resource, Responder, Route, body, guard, web};

use super::{Auth, require};
use crate::adapter::routes::{Door, RouteDemand, Unguarded};

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $method:expr),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name<F, Args>(handler: F) -> Unguarded<Route>
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            Unguarded::new($method, web::to(handler))
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

/// A handler of a path, with its demand and who is asked for the key.
pub(super) struct Handled {
    pub(super) demand: RouteDemand,
    pub(super) route: Route,
    pub(super) auth: Auth,
    /// How many routers it has been taken over from.
    pub(super) depth: usize,
}

impl Handled {
    /// What the handler answers, behind what it demands.
    fn behind(self, methods: Vec<&'static str>) -> Route {
        let asked = guard::fn_guard(move |context| {
            methods.is_empty() || methods.contains(&context.head().method.as_str())
        });
        let route = self.route.guard(asked);
        let Some(requirement) = self.demand.requirement.clone() else {
            return route;
        };
        match self.demand.door() {
            Door::KeyOptional => route
                .wrap(require(requirement).optional_key())
                .wrap(self.auth.optional_key()),
            _ => route.wrap(require(requirement)).wrap(self.auth),
        }
    }

    /// The methods that it answers; none stands for all.
    fn methods(&self, head_is_taken: bool) -> Vec<&'static str> {
        match self.demand.method {
            Some("GET") if !head_is_taken => vec!["GET", "HEAD"],
            method => method.into_iter().collect(),
        }
    }
}

/// All handlers of a path. `not_allowed` answers other methods, behind the strictest door.
pub(super) fn resource(path: &str, mut handled: Vec<Handled>, not_allowed: Route) -> Resource {
    let head_is_taken = handled.iter().any(|one| one.demand.method == Some("HEAD"));
    // In the order in which axum lists them; a handler for every method comes last.
    handled.sort_by_key(|one| {
        let (of_every_method, depth) = (one.demand.method.is_none(), Reverse(one.depth));
        (of_every_method, depth, one.demand.door())
    });
    let listed = handled.iter().flat_map(|one| one.methods(head_is_taken));
    let listed: Vec<_> = listed.collect();
    let strictest = handled.iter().max_by_key(|one| one.demand.door());
    let not_allowed = match strictest.map(|one| (one.demand.door(), one.auth.clone())) {
        Some((Door::Keyed, auth)) => not_allowed.wrap(auth),
        Some((Door::KeyOptional, auth)) => not_allowed.wrap(auth.optional_key()),
        _ => not_allowed,
    };
    let allow = HeaderValue::from_str(&listed.join(",")).unwrap_or(HeaderValue::from_static(""));
    let not_allowed = not_allowed.wrap(from_fn(move |request, next| {
        telling(allow.clone(), request, next)
    }));
    let resource = web::resource(path).default_service(not_allowed);
    handled.into_iter().fold(resource, |resource, one| {
        let methods = one.methods(head_is_taken);
        resource.route(one.behind(methods))
    })
}

/// As on axum, whoever asks by a method that is not allowed is told which are.
async fn telling<B: body::MessageBody>(
    allow: HeaderValue,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut response = next.call(request).await?;
    if !response.headers().contains_key(ALLOW) {
        response.headers_mut().insert(ALLOW, allow);
    }
    Ok(response)
}
