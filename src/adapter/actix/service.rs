//! The services produced by the middleware, one per worker.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::EitherBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::{Error, HttpRequest};

use super::Auth;
use super::response::{into_response, with_fields};
use crate::adapter::carrier::Inward;
use crate::adapter::exchange::{Authenticating, DecidedFuture, ExchangeFuture, ResponseFields};
use crate::adapter::require::{Require, Requiring};
use crate::error::AuthError;
use crate::respond::Answer;

impl<S, B> Inward<ServiceRequest> for Rc<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = S::Future;

    fn forward(&mut self, request: ServiceRequest) -> S::Future {
        self.call(request)
    }

    fn poll(
        future: Pin<&mut S::Future>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Response, Error>> {
        future.poll(cx).map_ok(ServiceResponse::map_into_left_body)
    }

    fn refused(request: ServiceRequest, answer: Answer, error: &AuthError) -> Self::Response {
        let response = into_response(answer, error);
        request.into_response(response).map_into_right_body()
    }

    fn failed(error: Error, fields: &ResponseFields) -> Error {
        with_fields(error, fields)
    }
}

impl<S, B> Transform<S, ServiceRequest> for Auth
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = Authenticating<Rc<S>, HttpRequest>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let (service, exchange) = (Rc::new(service), Arc::clone(&self.exchange));
        ready(Ok(Authenticating { service, exchange }))
    }
}

impl<S, B> Service<ServiceRequest> for Authenticating<Rc<S>, HttpRequest>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = ExchangeFuture<Rc<S>, ServiceRequest>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        self.exchange.begin(request, &mut Rc::clone(&self.service))
    }
}

impl<S, B> Transform<S, ServiceRequest> for Require
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = Requiring<Rc<S>>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let (service, demanded) = (Rc::new(service), self.clone());
        ready(Ok(Requiring { service, demanded }))
    }
}

impl<S, B> Service<ServiceRequest> for Requiring<Rc<S>>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = DecidedFuture<Rc<S>, ServiceRequest>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        self.demanded
            .exchange(request, &mut Rc::clone(&self.service))
    }
}
