//! The routes of a path, for the exchange.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};

use super::response::{into_response, with_fields};
use crate::adapter::carrier::Inward;
use crate::adapter::exchange::ResponseFields;
use crate::error::AuthError;
use crate::respond::Answer;

/// A service whose body can hold a refusal.
#[derive(Debug)]
pub(super) struct Boxed<S>(Rc<S>);

impl<S> Boxed<S> {
    pub(super) fn new(service: S) -> Self {
        Self(Rc::new(service))
    }
}

impl<S> Clone for Boxed<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S> Inward<ServiceRequest> for Boxed<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Future = S::Future;

    fn forward(&mut self, request: ServiceRequest) -> S::Future {
        self.0.call(request)
    }

    fn poll(
        future: Pin<&mut Self::Future>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ServiceResponse, Error>> {
        future.poll(cx)
    }

    fn refused(request: ServiceRequest, answer: Answer, error: &AuthError) -> ServiceResponse {
        request.into_response(into_response(answer, error))
    }

    fn failed(error: Error, fields: &ResponseFields) -> Error {
        with_fields(error, fields)
    }
}
