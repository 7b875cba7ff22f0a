//! Handlers for the methods of a path, for a [`ProtectedRouter`](super::ProtectedRouter).

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};

use crate::adapter::routes::{Guarded, KeyCheck, RouteDemand, Unguarded, classes};
use crate::adapter::tower::AuthLayer;

/// The handlers of a path, and the part of them that a requirement covers.
#[derive(Debug)]
pub struct Handlers<S> {
    router: MethodRouter<S>,
    reach: Reach,
}

/// The part of a method router that a requirement covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The methods; the only fallback is axum's empty 405.
    Methods,
    /// Everything: the host may have set a fallback, which must not stay open.
    Fallback,
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $method:literal),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name<H, T, S>(handler: H) -> Unguarded<Handlers<S>>
        where
            H: Handler<T, S>,
            T: 'static,
            S: Clone + Send + Sync + 'static,
        {
            let (router, reach) = (routing::$name(handler), Reach::Methods);
            Unguarded::new(Some($method), Handlers { router, reach })
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
pub fn any<H, T, S>(handler: H) -> Unguarded<Handlers<S>>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    guard(routing::any(handler))
}

/// An axum method router as a whole, including its fallback.
pub fn guard<S>(router: MethodRouter<S>) -> Unguarded<Handlers<S>> {
    let reach = Reach::Fallback;
    Unguarded::new(None, Handlers { router, reach })
}

impl<S: Clone + Send + Sync + 'static> Handlers<S> {
    /// Applies the demand, and the layer of its key check if there is one.
    ///
    /// A requirement of methods is one layer with the key check: axum clones and boxes a service for
    /// each layer of each request. Its own answer to other methods needs a key, and what the layer
    /// requires, but nothing more.
    fn behind(self, demand: &RouteDemand, auth: Option<&AuthLayer>) -> MethodRouter<S> {
        let Some(auth) = auth else {
            return self.router;
        };
        let Some(requirement) = &demand.requirement else {
            return self.router.layer(auth.clone());
        };
        let both = auth.clone().of_route(requirement, demand.key_optional);
        match self.reach {
            Reach::Methods => {
                let others = of_others(auth.clone(), demand.key_check());
                let others = MethodRouter::<S>::new().layer(others);
                self.router.route_layer(both).merge(others)
            }
            Reach::Fallback => self.router.layer(both),
        }
    }
}

/// Returns the layer for a key check; `None` if there is nothing to do.
fn checking(auth: &AuthLayer, check: KeyCheck) -> Option<AuthLayer> {
    match check {
        KeyCheck::None => auth.clone().without_key(),
        KeyCheck::Optional => Some(auth.clone().optional_key()),
        KeyCheck::Required => Some(auth.clone()),
    }
}

/// Returns the layer for methods without a handler.
fn of_others(auth: AuthLayer, check: KeyCheck) -> AuthLayer {
    match check.of_others() {
        Some(requirement) => auth.of_route(&requirement, false),
        None => auth,
    }
}

/// Builds the method router of a path, with each handler behind its demand. `not_allowed` answers
/// other methods unless one of the handlers does.
pub(super) fn path<S: Clone + Send + Sync + 'static>(
    guarded: Guarded<Handlers<S>>,
    auth: &AuthLayer,
    not_allowed: Option<&MethodRouter<S>>,
) -> MethodRouter<S> {
    let has_fallback = |(_, handlers): &(_, Handlers<S>)| handlers.reach == Reach::Fallback;
    let not_allowed = not_allowed.filter(|_| !guarded.handlers.iter().any(has_fallback));
    let checks = guarded
        .handlers
        .iter()
        .map(|(demand, _)| demand.key_check());
    let strictest = checks.max();
    let classes = classes(
        guarded.handlers.iter().map(|(demand, _)| demand),
        auth.authenticator(),
    );
    let auth = auth.clone().with_classes(classes);
    let mut handlers = guarded.handlers;
    let mut whole = MethodRouter::new();
    // The strictest last: `merge` keeps the second router's fallback.
    for check in [KeyCheck::None, KeyCheck::Optional, KeyCheck::Required] {
        let layer = checking(&auth, check);
        let matching = handlers.extract_if(.., |(demand, _)| demand.key_check() == check);
        let routers = matching.map(|(demand, handlers)| handlers.behind(&demand, layer.as_ref()));
        whole = routers.fold(whole, MethodRouter::merge);
        if let Some(not_allowed) = not_allowed.filter(|_| strictest == Some(check)) {
            let not_allowed = not_allowed.clone();
            whole = whole.merge(match layer {
                Some(layer) => not_allowed.layer(of_others(layer, check)),
                None => not_allowed,
            });
        }
    }
    whole
}
