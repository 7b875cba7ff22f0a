//! Forwards requests from actix-web to the axum router of the management API, in process and
//! unchanged.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use actix_web::body::None as NoBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};
use axum::Router;
use axum::body::{self, Body};
use axum::extract::ConnectInfo;
use axum::http::{self, Method, Request};
use futures_util::{StreamExt, stream};
use portunus::request::TlsVersion;
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::tls::Peer;

pub(super) async fn call(
    router: Router,
    tls: Option<TlsVersion>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let (mut feed, body) = Feed::new(payload);
    let Some(forwarded) = forwarded(&request, tls, body) else {
        return HttpResponse::BadRequest().finish();
    };
    let mut answer = pin!(router.oneshot(forwarded));
    // The body is fed from the same poll as the response: actix-web drops a request with malformed
    // chunks in the poll in which it detects them, and accepts no later response.
    let answer = poll_fn(|context| {
        loop {
            let polled = answer.as_mut().poll(context);
            if polled.is_ready() || !feed.forward_next(context) {
                return polled;
            }
        }
    });
    let answer = answer.await.unwrap_or_else(|never| match never {});
    let (parts, body) = answer.into_parts();
    let Ok(bytes) = body::to_bytes(body, usize::MAX).await else {
        return HttpResponse::InternalServerError().finish();
    };
    let status =
        StatusCode::from_u16(parts.status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // No `Content-Length: 0`: for a 304 it would be that of the 200 response (RFC 9110 §8.6).
    let mut response = match status {
        StatusCode::NOT_MODIFIED => {
            HttpResponse::with_body(status, NoBody::new()).map_into_boxed_body()
        }
        _ => HttpResponse::with_body(status, bytes).map_into_boxed_body(),
    };
    for (name, value) in &parts.headers {
        let (name, value) = (
            HeaderName::from_bytes(name.as_str().as_bytes()),
            HeaderValue::from_bytes(value.as_bytes()),
        );
        // actix-web sets the content length itself.
        if let (Ok(name), Ok(value)) = (name, value)
            && name != CONTENT_LENGTH
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

type Chunk = Result<Bytes, String>;

/// Streams the request's body through a channel, because actix-web's payload must stay on its
/// thread. A request that is refused without its body is refused before the body is read.
struct Feed {
    payload: web::Payload,
    /// `None` once the body has been read completely.
    sender: Option<mpsc::Sender<Chunk>>,
}

impl Feed {
    fn new(payload: web::Payload) -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(1);
        let sender = Some(sender);
        let body = stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        (Self { payload, sender }, Body::from_stream(body))
    }

    /// Forwards the next chunk, or the end of the body, if the receiver has taken the previous one.
    /// Returns whether there was anything to forward.
    fn forward_next(&mut self, context: &mut Context<'_>) -> bool {
        let waits = |sender: &&mpsc::Sender<_>| sender.capacity() > 0 && !sender.is_closed();
        let Some(sender) = self.sender.as_ref().filter(waits) else {
            return false;
        };
        match self.payload.poll_next_unpin(context) {
            Poll::Pending => return false,
            Poll::Ready(Some(chunk)) => {
                let _ = sender.try_send(chunk.map_err(|error| error.to_string()));
            }
            Poll::Ready(None) => self.sender = None,
        }
        true
    }
}

/// Converts a request to the types of `http` 1.
fn forwarded(request: &HttpRequest, tls: Option<TlsVersion>, body: Body) -> Option<Request<Body>> {
    let mut forwarded = Request::new(body);
    let method = Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
    // actix-web omits the body of the response.
    *forwarded.method_mut() = if method == Method::HEAD {
        Method::GET
    } else {
        method
    };
    *forwarded.uri_mut() = request.uri().to_string().parse().ok()?;
    for (name, value) in request.headers() {
        if *name != TRANSFER_ENCODING {
            let name = http::HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
            forwarded
                .headers_mut()
                .append(name, http::HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
    }
    if let Some(address) = request.peer_addr() {
        forwarded
            .extensions_mut()
            .insert(ConnectInfo(Peer { address, tls }));
    }
    Some(forwarded)
}
