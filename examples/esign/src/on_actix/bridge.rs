//! From actix-web to the axum router of the management API, in this process: requests and answers
//! as they are.

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
    // In one step with the server: it gives up a request whose chunks are broken in the step in which
    // it sees that, and takes no later answer.
    let answer = poll_fn(|context| {
        loop {
            let polled = answer.as_mut().poll(context);
            if polled.is_ready() || !feed.gives(context) {
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
    // No length of zero: the length of 304 is that of the answer it stands for (RFC 9110 §8.6).
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
        // The server counts the bytes itself.
        if let (Ok(name), Ok(value)) = (name, value)
            && name != CONTENT_LENGTH
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

type Chunk = Result<Bytes, String>;

/// The body as it comes, to whom a payload cannot be given: it stays on its thread. Whoever is
/// refused without it is refused before it is read.
struct Feed {
    payload: web::Payload,
    /// Absent once all has been read.
    taker: Option<mpsc::Sender<Chunk>>,
}

impl Feed {
    fn new(payload: web::Payload) -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(1);
        let taker = Some(sender);
        let body = stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        (Self { payload, taker }, Body::from_stream(body))
    }

    /// Gives the next chunk, or the end, to whoever has taken the last one; whether there was any.
    fn gives(&mut self, context: &mut Context<'_>) -> bool {
        let waits = |taker: &&mpsc::Sender<_>| taker.capacity() > 0 && !taker.is_closed();
        let Some(taker) = self.taker.as_ref().filter(waits) else {
            return false;
        };
        match self.payload.poll_next_unpin(context) {
            Poll::Pending => return false,
            Poll::Ready(Some(chunk)) => {
                let _ = taker.try_send(chunk.map_err(|error| error.to_string()));
            }
            Poll::Ready(None) => self.taker = None,
        }
        true
    }
}

/// The same request in the types of `http` 1.
fn forwarded(request: &HttpRequest, tls: Option<TlsVersion>, body: Body) -> Option<Request<Body>> {
    let mut forwarded = Request::new(body);
    let method = Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
    // The server leaves the body out of the answer.
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
