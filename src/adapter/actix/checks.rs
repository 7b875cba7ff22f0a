//! The middleware of a path of a router: the key check and the requirement of each method.
//!
//! It is one middleware around the routes of the path, because actix-web boxes a future for each
//! middleware of a route, and it keeps the body that is boxed already.

use std::future::{Ready, ready};
use std::rc::Rc;

use actix_web::Error;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, always_ready};
use actix_web::http::header::HeaderValue;

use super::Auth;
use super::answers::Answering;
use super::demanding::{Boxed, Demanding};
use crate::adapter::carrier::Inward;
use crate::adapter::exchange::ExchangeFuture;
use crate::adapter::require::Require;

/// What is checked before a handler.
#[derive(Clone)]
pub(super) struct Check {
    /// `None` if there is neither a key to check nor anything to count.
    pub(super) auth: Option<Auth>,
    pub(super) demanded: Option<Require>,
}

/// The checks of a path.
pub(super) struct Checks {
    /// By method, or for all methods. The first that matches applies.
    pub(super) of_handlers: Vec<(Option<&'static str>, Check)>,
    /// For methods without a handler.
    pub(super) of_others: Check,
    /// The methods that have a handler.
    pub(super) allow: HeaderValue,
}

/// A check in front of the routes of a path.
#[derive(Debug)]
pub(super) struct Checked<S> {
    auth: Option<Auth>,
    service: Boxed<Demanding<S>>,
}

/// The service produced by [`Checks`].
pub(super) struct CheckedPath<S> {
    of_handlers: Vec<(Option<&'static str>, Checked<S>)>,
    of_others: Checked<S>,
    allow: HeaderValue,
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
        let routes = Boxed(Rc::new(routes));
        let checked = |check: &Check| Checked {
            auth: check.auth.clone(),
            service: Boxed(Rc::new(Demanding {
                routes: routes.clone(),
                demanded: check.demanded.clone(),
            })),
        };
        let of_handlers = self.of_handlers.iter();
        ready(Ok(CheckedPath {
            of_handlers: of_handlers
                .map(|(method, check)| (*method, checked(check)))
                .collect(),
            of_others: checked(&self.of_others),
            allow: self.allow.clone(),
        }))
    }
}

impl<S> Service<ServiceRequest> for CheckedPath<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Future = Answering<ExchangeFuture<Boxed<Demanding<S>>, ServiceRequest>>;

    // The routes of a resource always are.
    always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let asked = request.method().as_str();
        let answers = |method: Option<&str>| method.is_none_or(|method| method == asked);
        let of_handler = self.of_handlers.iter().find(|(method, _)| answers(*method));
        let checked = of_handler.map_or(&self.of_others, |(_, checked)| checked);
        let allow = of_handler.is_none().then(|| self.allow.clone());
        let is_head = asked == "HEAD";
        let mut service = checked.service.clone();
        let future = match &checked.auth {
            Some(auth) => auth.exchange.begin(request, &mut service),
            None => ExchangeFuture::passing(service.forward(request), None),
        };
        Answering::new(future, is_head, allow)
    }
}
