//! Handlers for the methods of a path, for a [`ProtectedRouter`](super::ProtectedRouter).

use actix_web::{FromRequest, Handler, Responder, Route, web};

use crate::adapter::routes::Unguarded;

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
