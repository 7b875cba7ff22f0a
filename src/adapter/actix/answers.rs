//! Method-specific parts of a response, as on axum: no body for `HEAD`, and `Allow` for a method
//! that is not served.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;

/// An empty body with the length of the body that it replaces.
struct EmptyBody(BodySize);

impl MessageBody for EmptyBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

pin_project! {
    /// Removes the body if the method is `HEAD`. Sets `Allow` if it is given and the response has
    /// none.
    pub(super) struct Answering<F> {
        #[pin]
        future: F,
        is_head: bool,
        allow: Option<HeaderValue>,
    }
}

impl<F> Answering<F> {
    pub(super) fn new(future: F, is_head: bool, allow: Option<HeaderValue>) -> Self {
        Self {
            future,
            is_head,
            allow,
        }
    }
}

impl<F: Future<Output = Result<ServiceResponse, Error>>> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut polled = this.future.poll(cx);
        if let Some(allow) = this.allow
            && let Poll::Ready(Ok(response)) = &mut polled
            && !response.headers().contains_key(ALLOW)
        {
            response.headers_mut().insert(ALLOW, allow.clone());
        }
        match this.is_head {
            true => polled.map_ok(without_body),
            false => polled,
        }
    }
}

fn without_body(response: ServiceResponse) -> ServiceResponse {
    response.map_body(|_, body| EmptyBody(body.size()).boxed())
}
