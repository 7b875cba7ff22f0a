//! The middleware of a route with a requirement.

use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::{Error, HttpRequest};

use super::Auth;
use super::response::{into_response, with_fields};
use crate::adapter::carrier::Inward;
use crate::adapter::exchange::{Authenticating, ResponseFields};
use crate::adapter::require::{Require, Requiring};
use crate::error::AuthError;
use crate::respond::Answer;

/// A key check and a requirement. actix-web boxes a future for each middleware of a route, and
/// converts the body of its response; this is one, and keeps the route's boxed body.
pub(super) struct Checked {
    pub(super) auth: Auth,
    pub(super) demanded: Require,
}

/// A service whose body can hold a refusal.
#[derive(Debug)]
pub(super) struct Boxed<S> {
    service: Rc<S>,
}

impl<S> Boxed<S> {
    fn new(service: S) -> Self {
        let service = Rc::new(service);
        Self { service }
    }
}

impl<S> Clone for Boxed<S> {
    fn clone(&self) -> Self {
        let service = Rc::clone(&self.service);
        Self { service }
    }
}

impl<S> Transform<S, ServiceRequest> for Checked
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Transform = Authenticating<Boxed<Requiring<Boxed<S>>>, HttpRequest>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let requiring = Requiring {
            service: Boxed::new(service),
            demanded: self.demanded.clone(),
        };
        ready(Ok(Authenticating {
            service: Boxed::new(requiring),
            exchange: Arc::clone(&self.auth.exchange),
        }))
    }
}

impl<S> Service<ServiceRequest> for Boxed<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Future = S::Future;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> S::Future {
        self.service.call(request)
    }
}

impl<S> Inward<ServiceRequest> for Boxed<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    type Answer = ServiceResponse;
    type Response = ServiceResponse;
    type Error = Error;
    type Future = S::Future;

    fn forward(&mut self, request: ServiceRequest) -> S::Future {
        self.service.call(request)
    }

    fn passed(answer: ServiceResponse) -> ServiceResponse {
        answer
    }

    fn refused(request: ServiceRequest, answer: Answer, error: &AuthError) -> ServiceResponse {
        request.into_response(into_response(answer, error))
    }

    fn failed(error: Error, fields: &ResponseFields) -> Error {
        with_fields(error, fields)
    }
}
