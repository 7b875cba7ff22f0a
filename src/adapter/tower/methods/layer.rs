//! The layer that looks up each call in the table.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};

use super::table::{Entry, Table};
use crate::adapter::carrier::{Incoming, ServesGrpc};
use crate::adapter::exchange::DecidedFuture;
use crate::adapter::inside::{check, decided, principal};
use crate::adapter::tower::RejectionBody;
use crate::error::{AuthError, ErrorCode};

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
        request.extensions_mut().insert(ServesGrpc);
        let checked = demand(&self.table, &request);
        decided(request, &mut self.inner, checked)
    }
}

fn demand<B>(table: &Table, request: &Request<B>) -> Result<(), AuthError> {
    match table.find(request.uri().path()) {
        Some(Entry::Public) => Ok(()),
        Some(Entry::Require(requirement)) => {
            check(requirement, request.extensions(), &request.head_inside()).map(drop)
        }
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
