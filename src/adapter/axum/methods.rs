//! Handlers for the methods of a path, as a [`ProtectedRouter`](super::ProtectedRouter) takes them.

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};

use crate::adapter::require::require;
use crate::adapter::routes::{Door, Guarded, RouteDemand, Unguarded};
use crate::adapter::tower::AuthLayer;

/// Handlers of a path, and what of them a requirement is put on.
#[derive(Debug)]
pub struct Handlers<S> {
    router: MethodRouter<S>,
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

/// A whole method router of axum's, its fallback included.
pub fn guard<S>(router: MethodRouter<S>) -> Unguarded<Handlers<S>> {
    let reach = Reach::Fallback;
    Unguarded::new(None, Handlers { router, reach })
}

impl<S: Clone + Send + Sync + 'static> Handlers<S> {
    /// Demands what was said.
    fn behind(self, demand: &RouteDemand) -> MethodRouter<S> {
        let Some(requirement) = &demand.requirement else {
            return self.router;
        };
        let mut layer = require(requirement.clone());
        if demand.key_optional {
            layer = layer.optional_key();
        }
        match self.reach {
            Reach::Methods => self.router.route_layer(layer),
            Reach::Fallback => self.router.layer(layer),
        }
    }
}

/// All handlers of a path, each behind what it demands. `not_allowed` answers other methods, unless
/// one of the handlers does.
pub(super) fn path<S: Clone + Send + Sync + 'static>(
    guarded: Guarded<Handlers<S>>,
    auth: &AuthLayer,
    not_allowed: Option<&MethodRouter<S>>,
) -> MethodRouter<S> {
    let has_fallback = |(_, handlers): &(_, Handlers<S>)| handlers.reach == Reach::Fallback;
    let not_allowed = not_allowed.filter(|_| !guarded.handlers.iter().any(has_fallback));
    let doors = guarded.handlers.iter().map(|(demand, _)| demand.door());
    let strictest = doors.max();
    let mut handlers = guarded.handlers;
    let mut whole = MethodRouter::new();
    // The strictest last: merging keeps the fallback of the second.
    for door in [Door::Open, Door::KeyOptional, Door::Keyed] {
        let of_door = handlers.extract_if(.., |(demand, _)| demand.door() == door);
        let routers = of_door.map(|(demand, handlers)| handlers.behind(&demand));
        let Some(routers) = routers.reduce(MethodRouter::merge) else {
            continue;
        };
        let routers = match not_allowed.filter(|_| strictest == Some(door)) {
            Some(not_allowed) => routers.merge(not_allowed.clone()),
            None => routers,
        };
        whole = whole.merge(match door {
            Door::Open => routers,
            Door::KeyOptional => routers.layer(auth.clone().optional_key()),
            Door::Keyed => routers.layer(auth.clone()),
        });
    }
    whole
}
