//! The middleware that demands a requirement of whoever was authenticated further out.

use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::body::EitherBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use pin_project_lite::pin_project;

use super::{answer, check, into_response, is_nobody};
use crate::policy::Requirement;
use crate::scope::Scope;

/// Middleware that demands a requirement.
///
/// Where no [`Auth`](super::Auth) ran further out, it refuses.
pub fn require(requirement: impl Into<Requirement>) -> Require {
    Require {
        requirement: Arc::new(requirement.into()),
        key_optional: false,
    }
}

/// Middleware that demands one scope: `require_scope(scope!("document:read"))`.
pub fn require_scope(scope: Scope) -> Require {
    require(scope)
}

/// Made by [`require`].
#[derive(Debug, Clone)]
#[must_use = "middleware does nothing until it wraps something"]
pub struct Require {
    requirement: Arc<Requirement>,
    key_optional: bool,
}

impl Require {
    /// Demands it of keys only: whoever [`Auth::optional_key`](super::Auth::optional_key), or an
    /// authenticator that is optional, has let pass as nobody passes here, too.
    pub fn optional_key(mut self) -> Self {
        self.key_optional = true;
        self
    }
}

impl<S, B> Transform<S, ServiceRequest> for Require
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = S::Error;
    type Transform = RequireMiddleware<S>;
    type InitError = ();
    type Future = Ready<Result<RequireMiddleware<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(RequireMiddleware {
            service,
            requirement: Arc::clone(&self.requirement),
            key_optional: self.key_optional,
        }))
    }
}

/// The service that [`Require`] makes.
#[derive(Debug, Clone)]
pub struct RequireMiddleware<S> {
    service: S,
    requirement: Arc<Requirement>,
    key_optional: bool,
}

impl<S, B> Service<ServiceRequest> for RequireMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>>,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = S::Error;
    type Future = RequireFuture<S::Future, B>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let checked = match self.key_optional && is_nobody(request.request()) {
            true => Ok(()),
            false => check(&self.requirement, request.request()).map(drop),
        };
        let state = match checked {
            Ok(()) => State::Inner {
                future: self.service.call(request),
            },
            Err(error) => {
                let response = into_response(answer(&error, request.request()), &error);
                State::Refused {
                    response: Some(request.into_response(response).map_into_right_body()),
                }
            }
        };
        RequireFuture { state }
    }
}

pin_project! {
    /// The future of [`RequireMiddleware`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RequireFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        Inner { #[pin] future: F },
        Refused { response: Option<ServiceResponse<EitherBody<B>>> },
    }
}

impl<F, B, E> Future for RequireFuture<F, B>
where
    F: Future<Output = Result<ServiceResponse<B>, E>>,
{
    type Output = Result<ServiceResponse<EitherBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Inner { future } => {
                Poll::Ready(ready!(future.poll(cx)).map(ServiceResponse::map_into_left_body))
            }
            StateProjection::Refused { response } => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
        }
    }
}

impl<F, B> fmt::Debug for RequireFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequireFuture")
    }
}
