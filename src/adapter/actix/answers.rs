//! Method-specific parts of a response, as on axum: no body for `HEAD`, and `Allow` for a method
//! that is not served.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Bytes;

/// An empty body with the length of the body that it replaces.
pub(super) struct EmptyBody(BodySize);

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

/// Forwards to the inner service and removes the body if the method is `HEAD`. Sets `Allow` if it
/// is given and the response has none.
pub(super) async fn by_method<B: MessageBody>(
    allow: Option<HeaderValue>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, EmptyBody>>, Error> {
    let is_head = request.method() == Method::HEAD;
    let mut response = next.call(request).await?;
    if let Some(allow) = allow.filter(|_| !response.headers().contains_key(ALLOW)) {
        response.headers_mut().insert(ALLOW, allow);
    }
    Ok(response.map_body(|_, body| match is_head {
        true => EitherBody::right(EmptyBody(body.size())),
        false => EitherBody::left(body),
    }))
}
