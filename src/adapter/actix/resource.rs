//! The resource of a path of a [`ProtectedRouter`](super::ProtectedRouter).

use std::cmp::Reverse;
use std::str::FromStr;

use actix_web::dev::HttpServiceFactory;
use actix_web::guard::{self, Guard};
use actix_web::http::Method;
use actix_web::http::header::HeaderValue;
use actix_web::{Route, web};

use super::Auth;
use super::checks::Checks;
use super::methods::MakeRoute;
use crate::adapter::routes::{KeyCheck, RouteDemand, classes};

/// A handler of a path, with its demand and the middleware that authenticates it.
pub(super) struct Handled {
    pub(super) demand: RouteDemand,
    pub(super) make: MakeRoute,
    pub(super) auth: Auth,
    /// How many routers deep it was nested.
    pub(super) depth: usize,
}

impl Handled {
    /// Creates the handler's route for one method, or for all.
    fn route(&self, method: Option<Method>) -> Route {
        let asked = guard::fn_guard(move |context| {
            let answers = |method: &Method| context.head().method == *method;
            method.as_ref().is_none_or(answers)
        });
        (self.make)().guard(asked)
    }

    /// Returns what is checked before the handler.
    fn check(&self) -> Option<Auth> {
        let classes = classes(std::iter::once(&self.demand), self.auth.authenticator());
        let auth = self.auth.clone().with_classes(classes);
        let auth = checking(auth, self.demand.key_check())?;
        Some(match &self.demand.requirement {
            Some(requirement) => auth.of_route(requirement, self.demand.key_optional),
            None => auth,
        })
    }

    /// Returns the methods that it answers; `None` is all.
    fn methods(&self, head_is_taken: bool) -> Vec<Option<&'static str>> {
        match self.demand.method {
            Some("GET") if !head_is_taken => vec![Some("GET"), Some("HEAD")],
            method => vec![method],
        }
    }
}

/// Returns the middleware for a key check; `None` if there is nothing to do.
fn checking(auth: Auth, check: KeyCheck) -> Option<Auth> {
    match check {
        KeyCheck::None => auth.without_key(),
        KeyCheck::Optional => Some(auth.optional_key()),
        KeyCheck::Required => Some(auth),
    }
}

/// Builds the resource of a path. `not_allowed` answers other methods, after the strictest key
/// check of the path.
pub(super) fn resource(
    path: &str,
    mut handled: Vec<Handled>,
    not_allowed: Route,
    literals_match: impl Guard + 'static,
) -> impl HttpServiceFactory + 'static {
    let head_is_taken = handled.iter().any(|one| one.demand.method == Some("HEAD"));
    // Ordered as in axum's `Allow`; a handler for every method comes last.
    handled.sort_by_key(|one| {
        let (of_every_method, depth) = (one.demand.method.is_none(), Reverse(one.depth));
        (of_every_method, depth, one.demand.key_check())
    });
    let strictest = handled.iter().max_by_key(|one| one.demand.key_check());
    let of_others = strictest.and_then(|one| {
        let check = one.demand.key_check();
        let auth = checking(one.auth.clone(), check)?;
        Some(match check.of_others() {
            Some(requirement) => auth.of_route(&requirement, false),
            None => auth,
        })
    });
    let mut resource = web::resource(path)
        .guard(literals_match)
        .default_service(not_allowed);
    let mut of_handlers = Vec::new();
    for one in &handled {
        let check = one.check();
        for method in one.methods(head_is_taken) {
            // All names are valid. One that were not would have no route.
            let Ok(method) = method.map(Method::from_str).transpose() else {
                continue;
            };
            resource = resource.route(one.route(method.clone()));
            of_handlers.push((method, check.clone()));
        }
    }
    let named = of_handlers.iter().filter_map(|(method, _)| method.as_ref());
    let listed: Vec<_> = named.map(Method::as_str).collect();
    let allow = HeaderValue::from_str(&listed.join(",")).unwrap_or(HeaderValue::from_static(""));
    resource.wrap(Checks {
        of_handlers,
        of_others,
        allow,
    })
}
