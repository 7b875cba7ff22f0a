//! What a method has of an answer, as on axum: `HEAD` no body, and a method that is not served the
//! names of those that are.

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

/// No body, of which it is known how long it would be.
pub(super) struct Silent(BodySize);

impl MessageBody for Silent {
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

/// Answers as the service further in does, without the body where the method is `HEAD`. Where
/// methods are given, `Allow` names them.
pub(super) async fn by_method<B: MessageBody>(
    allow: Option<HeaderValue>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, Silent>>, Error> {
    let is_head = request.method() == Method::HEAD;
    let mut response = next.call(request).await?;
    if let Some(allow) = allow.filter(|_| !response.headers().contains_key(ALLOW)) {
        response.headers_mut().insert(ALLOW, allow);
    }
    Ok(response.map_body(|_, body| match is_head {
        true => EitherBody::right(Silent(body.size())),
        false => EitherBody::left(body),
    }))
}
