//! A layer without allocations around a synchronous check, for contenders that bring no layer.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response, StatusCode};
use tower::Service;

use crate::shape::{Body, Inner, refusal};

/// Decides about a request.
pub trait Gate: Send + Sync + 'static {
    /// Returns the status of the refusal, if the request is refused.
    ///
    /// # Errors
    /// The status of the refusal.
    fn admit(&self, request: &mut Request<Body>) -> Result<(), StatusCode>;
}

/// The service behind a gate.
#[derive(Debug)]
pub struct Gated<G> {
    gate: Arc<G>,
    inner: Inner,
}

impl<G> Gated<G> {
    pub fn new(gate: G) -> Self {
        let gate = Arc::new(gate);
        Self { gate, inner: Inner }
    }
}

impl<G> Clone for Gated<G> {
    fn clone(&self) -> Self {
        let gate = Arc::clone(&self.gate);
        Self { gate, ..*self }
    }
}

type Answer = Result<Response<Body>, Infallible>;

impl<G: Gate> Service<Request<Body>> for Gated<G> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Answer>, <Inner as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.gate.admit(&mut request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(refusal(status)))),
        }
    }
}
