//! The layer that looks up each call in the table.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use tower::{Layer, Service};

use super::table::{Entry, Table};
use crate::adapter::carrier::{Anonymous, Inward};
use crate::adapter::exchange::DecidedFuture;
use crate::adapter::inside::{check, principal, refused};
use crate::adapter::tower::RejectionBody;
use crate::error::{AuthError, ErrorCode};
use crate::principal::KeyPrincipal;

/// The layer built by [`GrpcMethods::build`](super::GrpcMethods::build).
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct GrpcMethodsLayer {
    pub(super) table: Arc<Table>,
}

impl<S> Layer<S> for GrpcMethodsLayer {
    type Service = GrpcMethodsService<S>;
    fn layer(&self, inner: S) -> GrpcMethodsService<S> {
        GrpcMethodsService {
            inner,
            table: Arc::clone(&self.table),
        }
    }
}

/// The service produced by [`GrpcMethodsLayer`].
#[derive(Debug, Clone)]
pub struct GrpcMethodsService<S> {
    inner: S,
    table: Arc<Table>,
}

impl<S, B, R> Service<Request<B>> for GrpcMethodsService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: RejectionBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = DecidedFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        declare_grpc(request.extensions_mut());
        match demand(&self.table, &request) {
            Ok(()) => DecidedFuture::passing(self.inner.forward(request)),
            Err(error) => DecidedFuture::refusing(refused::<_, S>(request, error, true)),
        }
    }
}

/// Declares to inner layers that the service serves gRPC.
fn declare_grpc(extensions: &mut Extensions) {
    if let Some(principal) = extensions.get_mut::<KeyPrincipal>() {
        principal.set_serves_grpc();
    } else if let Some(anonymous) = extensions.get_mut::<Anonymous>() {
        anonymous.grpc = true;
    }
}

fn demand<B>(table: &Table, request: &Request<B>) -> Result<(), AuthError> {
    match table.find(request.uri().path()) {
        Some(Entry::Public) => Ok(()),
        Some(Entry::Require(requirement)) => check(requirement, request),
        None => {
            // As everywhere, a missing key is reported first.
            principal(request.extensions())?;
            Err(AuthError::with_detail(
                ErrorCode::Forbidden,
                "This method is not available to API keys",
            ))
        }
    }
}
