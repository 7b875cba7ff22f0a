//! The services produced by the layers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use tower::{Layer, Service};

use super::{AuthLayer, RejectionBody, into_response};
use crate::adapter::carrier::Inward;
use crate::adapter::exchange::{Authenticating, DecidedFuture, ExchangeFuture, ResponseFields};
use crate::adapter::require::{Require, Requiring};
use crate::error::AuthError;
use crate::respond::Answer;

impl<S, B, R> Inward<Request<B>> for S
where
    S: Service<Request<B>, Response = Response<R>>,
    R: RejectionBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn forward(&mut self, request: Request<B>) -> S::Future {
        self.call(request)
    }

    #[inline]
    fn poll(
        future: Pin<&mut S::Future>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<R>, S::Error>> {
        future.poll(cx)
    }

    fn refused(_: Request<B>, answer: Answer, error: &AuthError) -> Response<R> {
        into_response(answer, error)
    }

    fn failed(error: S::Error, _: &ResponseFields) -> S::Error {
        error
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticating<S, Extensions>;

    fn layer(&self, service: S) -> Self::Service {
        let exchange = Arc::clone(&self.exchange);
        Authenticating { service, exchange }
    }
}

impl<S, B, R> Service<Request<B>> for Authenticating<S, Extensions>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: RejectionBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ExchangeFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.exchange.begin(request, &mut self.service)
    }
}

impl<S> Layer<S> for Require {
    type Service = Requiring<S>;

    fn layer(&self, service: S) -> Requiring<S> {
        let demanded = self.clone();
        Requiring { service, demanded }
    }
}

impl<S, B, R> Service<Request<B>> for Requiring<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: RejectionBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = DecidedFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.demanded.exchange(request, &mut self.service)
    }
}
