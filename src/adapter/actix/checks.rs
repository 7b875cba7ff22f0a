//! The middleware of a path of a router: the key check and the requirement of each method.
//!
//! It is one middleware around the routes of the path, because actix-web boxes a future for each
//! middleware of a route, and it keeps the body that is boxed already.

use std::future::{Ready, ready};

use actix_web::Error;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, always_ready};
use actix_web::http::Method;
use actix_web::http::header::HeaderValue;

use super::Auth;
use super::answers::Answering;
use super::boxed::Boxed;
use crate::adapter::carrier::Inward;
use crate::adapter::exchange::ExchangeFuture;

/// The checks of a path. There is none where no key is checked and nothing is counted.
#[derive(Clone)]
pub(super) struct Checks {
    /// By method, or for all methods. The first that matches applies.
    pub(super) of_handlers: Vec<(Option<Method>, Option<Auth>)>,
    /// For methods without a handler.
    pub(super) of_others: Option<Auth>,
    /// The methods that have a handler.
    pub(super) allow: HeaderValue,
}

/// The service produced by [`Checks`].
pub(super) struct CheckedPath<S> {
    checks: Checks,
    routes: Boxed<S>,
}

impl<S> Transform<S, ServiceRequest> for Checks
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Transform = CheckedPath<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, routes: S) -> Self::Future {
        let (checks, routes) = (self.clone(), Boxed::new(routes));
        ready(Ok(CheckedPath { checks, routes }))
    }
}

impl<S> Service<ServiceRequest> for CheckedPath<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Future = Answering<ExchangeFuture<Boxed<S>, ServiceRequest>>;

    // The routes of a resource always are.
    always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let asked = request.method();
        let mut of_handlers = self.checks.of_handlers.iter();
        let of_handler =
            of_handlers.find(|(method, _)| method.as_ref().is_none_or(|method| method == asked));
        let check = of_handler.map_or(&self.checks.of_others, |(_, check)| check);
        let allow = of_handler.is_none().then(|| self.checks.allow.clone());
        let is_head = *asked == Method::HEAD;
        let mut routes = self.routes.clone();
        let future = match check {
            Some(auth) => auth.exchange.begin(request, &mut routes),
            None => ExchangeFuture::forwarded(routes.forward(request), None),
        };
        Answering::new(future, is_head, allow)
    }
}
