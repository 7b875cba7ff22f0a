//! The layer that demands a requirement of whoever was authenticated further out.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{HttpHead, RejectionBody, check, is_nobody, refuse};
use crate::policy::Requirement;
use crate::scope::Scope;

/// A layer that demands a requirement.
///
/// Where no [`AuthLayer`](super::AuthLayer) ran further out, it refuses.
pub fn require(requirement: impl Into<Requirement>) -> RequireLayer {
    RequireLayer {
        requirement: Arc::new(requirement.into()),
        key_optional: false,
    }
}

/// A layer that demands one scope: `require_scope(scope!("document:read"))`.
pub fn require_scope(scope: Scope) -> RequireLayer {
    require(scope)
}

/// Made by [`require`].
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RequireLayer {
    requirement: Arc<Requirement>,
    key_optional: bool,
}

impl RequireLayer {
    /// Demands it of keys only: whoever [`AuthLayer::optional_key`](super::AuthLayer::optional_key), or an
    /// authenticator that is optional, has let pass as nobody passes here, too.
    pub fn optional_key(mut self) -> Self {
        self.key_optional = true;
        self
    }
}

impl<S> Layer<S> for RequireLayer {
    type Service = RequireService<S>;
    fn layer(&self, inner: S) -> RequireService<S> {
        RequireService {
            inner,
            requirement: Arc::clone(&self.requirement),
            key_optional: self.key_optional,
        }
    }
}

/// The service that [`RequireLayer`] makes.
#[derive(Debug, Clone)]
pub struct RequireService<S> {
    inner: S,
    requirement: Arc<Requirement>,
    key_optional: bool,
}

impl<S, B, R> Service<Request<B>> for RequireService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: RejectionBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RequireFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let head = HttpHead::new(&request, None);
        let checked = match self.key_optional && is_nobody(request.extensions()) {
            true => Ok(()),
            false => check(request.extensions(), &self.requirement, &head),
        };
        match checked {
            Ok(()) => RequireFuture::inner(self.inner.call(request)),
            Err(error) => RequireFuture::refused(refuse(&error, &head, request.extensions())),
        }
    }
}

pin_project! {
    /// The future of [`RequireService`] and [`GrpcMethodsService`](super::GrpcMethodsService).
    #[must_use = "futures do nothing unless polled"]
    pub struct RequireFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R> {
        Inner { #[pin] future: F },
        Refused { response: Option<Response<R>> },
    }
}

impl<F, R> RequireFuture<F, R> {
    pub(super) fn inner(future: F) -> Self {
        Self {
            state: State::Inner { future },
        }
    }

    pub(super) fn refused(response: Response<R>) -> Self {
        Self {
            state: State::Refused {
                response: Some(response),
            },
        }
    }
}

impl<F, R, E> Future for RequireFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Inner { future } => future.poll(cx),
            StateProjection::Refused { response } => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
        }
    }
}

impl<F, R> fmt::Debug for RequireFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequireFuture")
    }
}
