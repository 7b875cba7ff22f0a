//! What comes before all routes and after all answers: requests that no server may take, and bodies
//! that nobody has read.
//!
//! A client that sends its whole body before it reads would never see its refusal: a server that
//! closes while bytes arrive resets the connection. So the rest is read for a while, and
//! `Connection: close` announces what follows (RFC 9112 §9.6). HTTP/2 ends the stream alone, after
//! the answer (RFC 9113 §8.1), yet there are clients that give up an answer whose stream is reset
//! while they send: so the rest is read there, too.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::activity::InFlight;
use crate::limits::{FIELDS, LINGER, LINGER_BYTES};

/// A rest of so many bytes is read without closing the connection.
const SHORT: u64 = 64 * 1024;

pub(super) async fn answer(
    routes: Router,
    request: Request,
    in_flight: InFlight,
) -> Result<Response, Infallible> {
    // HTTP/2 ends one stream without harm to the others.
    let http_1 = request.version() < Version::HTTP_2;
    // Whoever waits to be asked for the body may send it or not, nobody knows.
    let expects = request.headers().contains_key(EXPECT);
    let refusal = refusal(&request);
    let unread = Unread::default();
    let body = unread.clone();
    let request = request.map(|inner| {
        Body::new(Asked {
            inner,
            unread: body,
            ended: false,
        })
    });
    let mut response = if let Some(status) = refusal {
        drop(request);
        status.into_response()
    } else {
        let answered = routes.oneshot(request).await;
        answered.unwrap_or_else(|never| match never {})
    };
    let rest = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
    let is_long = |rest: &Body| rest.size_hint().upper().is_none_or(|bytes| bytes > SHORT);
    let closes = refusal.is_some() || rest.as_ref().is_some_and(|rest| expects || is_long(rest));
    let closes = http_1 && closes;
    if closes {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    // What comes on a connection that closes is read behind it: see `Lingering`.
    let rest = rest.filter(|_| !closes);
    Ok(response.map(|inner| {
        Body::new(Answered {
            inner,
            _rest: Rest(rest),
            _in_flight: in_flight,
        })
    }))
}

/// What actix-web's server refuses and hyper leaves to others: no `Host` or several (RFC 9112
/// §3.2), codings of the whole message besides chunks (§6.1), bytes in the target that no URI has
/// (RFC 3986 §2), a `POST` of HTTP/1.0 whose end is unknown (RFC 1945 §7.2.2). And more fields than
/// HTTP/1.1 has place for.
fn refusal(request: &Request) -> Option<StatusCode> {
    let (version, target) = (request.version(), request.uri().path_and_query());
    let fields = request.headers();
    let hosts = match fields.get_all(HOST).iter().count() {
        0 => version == Version::HTTP_11,
        1 => false,
        _ => version < Version::HTTP_2,
    };
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| {
        let coding = coding.as_bytes().trim_ascii();
        coding.eq_ignore_ascii_case(b"chunked")
    };
    let coded = codings.next().is_some_and(|first| !is_chunked(first)) || codings.next().is_some();
    let endless = version == Version::HTTP_10
        && request.method() == Method::POST
        && !fields.contains_key(CONTENT_LENGTH);
    let raw = target.is_some_and(|target| !target.as_str().is_ascii());
    if hosts || coded || endless || raw {
        Some(StatusCode::BAD_REQUEST)
    } else if fields.len() > FIELDS {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else {
        None
    }
}

/// What was left of a request's body when nobody wanted more of it.
type Unread = Arc<Mutex<Option<Body>>>;

/// The body of a request: what is left of it outlives whoever drops it.
struct Asked {
    inner: Body,
    unread: Unread,
    /// Whether it was read to its end: of chunks, the server does not say so itself.
    ended: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            let rest = std::mem::take(&mut self.inner);
            *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        self.ended = matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer: what is left of the request's is read when this has been sent.
struct Answered {
    inner: Body,
    _rest: Rest,
    _in_flight: InFlight,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Not read before the answer is on its way: reading would ask for a body that is not wanted
/// (`100 Continue`).
struct Rest(Option<Body>);

impl Drop for Rest {
    fn drop(&mut self) {
        // While the process ends there is no runtime any more.
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(timeout(LINGER, drain(rest)));
        }
    }
}

async fn drain(rest: Body) {
    let mut rest = rest.into_data_stream();
    let mut read = 0;
    while let Some(Ok(bytes)) = rest.next().await {
        read += bytes.len();
        if read > LINGER_BYTES {
            return;
        }
    }
}
