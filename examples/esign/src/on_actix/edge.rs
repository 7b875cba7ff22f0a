//! Middleware around all routes: tracks the connection's requests, enforces limits that actix-web
//! lacks for HTTP/2, and bounds the body of requests that ask for a protocol upgrade.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING, UPGRADE};
use actix_web::http::{StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage, HttpResponse};
use futures_util::{Stream, StreamExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::activity::{Activity, InFlight};
use crate::limits::{FIELDS, HEAD_BYTES, LINGER, LINGER_BYTES};

/// Applies the same limits to HTTP/2 as to HTTP/1.1, and the same as on axum, to request heads and
/// to the rest of unread bodies.
pub(super) async fn answer<B: MessageBody>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let activity = request.request().conn_data::<Arc<Activity>>();
    let _in_flight = activity.map(InFlight::begin);
    if request.version() != Version::HTTP_2 {
        if is_websocket_upgrade(&request) {
            let left = length(&request);
            let inner = Some(request.take_payload());
            let payload = Box::pin(FixedLength { inner, left });
            request.set_payload(Payload::Stream { payload });
        }
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let (unread, rest) = oneshot::channel();
    let inner = Some(request.take_payload());
    let unread = Some(unread);
    let payload = Box::pin(RequestBody { inner, unread });
    request.set_payload(Payload::Stream { payload });
    actix_web::rt::spawn(async move {
        if let Ok(rest) = rest.await {
            let _ = timeout(LINGER, drain(rest)).await;
        }
    });
    if is_too_large(&request) {
        let refusal = HttpResponse::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        return Ok(request.into_response(refusal).map_into_right_body());
    }
    Ok(next.call(request).await?.map_into_left_body())
}

/// Whether actix-web treats a request as a WebSocket upgrade. It then passes everything after the
/// head as the body, regardless of `Content-Length`, and closes the connection afterwards. The demo
/// does not use WebSockets.
fn is_websocket_upgrade(request: &ServiceRequest) -> bool {
    let has = |name: &HeaderName, text: &[u8]| {
        let mut lines = request.headers().get_all(name);
        lines.any(|line| line.as_bytes().trim_ascii().eq_ignore_ascii_case(text))
    };
    has(&UPGRADE, b"websocket") && !has(&TRANSFER_ENCODING, b"chunked")
}

fn length(request: &ServiceRequest) -> usize {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.trim().parse().ok());
    length.unwrap_or(0)
}

/// The first `left` bytes of a body that may continue past its declared length.
struct FixedLength {
    inner: Option<Payload>,
    left: usize,
}

impl Stream for FixedLength {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let left = self.left;
        let Some(inner) = self.inner.as_mut().filter(|_| left > 0) else {
            return Poll::Ready(None);
        };
        let polled = match ready!(inner.poll_next_unpin(context)) {
            Some(Ok(mut bytes)) => {
                bytes.truncate(left);
                self.left -= bytes.len();
                Some(Ok(bytes))
            }
            Some(Err(error)) => Some(Err(error)),
            // The body ended before its declared length.
            None => Some(Err(PayloadError::Incomplete(None))),
        };
        if !matches!(polled, Some(Ok(_))) {
            self.inner = None;
        }
        Poll::Ready(polled)
    }
}

/// Whether the head exceeds the limits. A field counts the bytes of its name and value plus 32
/// (RFC 9113 §6.5.2).
fn is_too_large(request: &ServiceRequest) -> bool {
    let fields = request.headers();
    let sizes = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32);
    let target = request.uri().path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    fields.len() > FIELDS || sizes.sum::<usize>() + target > HEAD_BYTES as usize
}

/// The body of a request. When it is dropped, the unread rest is passed on to be drained: HTTP/2
/// resets a stream that ends before its request body, and some clients then discard the response.
struct RequestBody {
    inner: Option<Payload>,
    unread: Option<oneshot::Sender<Payload>>,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let polled = inner.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.inner = None;
        }
        polled
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(rest), Some(unread)) = (self.inner.take(), self.unread.take()) {
            let _ = unread.send(rest);
        }
    }
}

async fn drain(mut rest: Payload) {
    let mut read = 0;
    while let Some(Ok(bytes)) = rest.next().await {
        read += bytes.len();
        if read > LINGER_BYTES {
            return;
        }
    }
}
