//! Checks before all routes and cleanup after all responses: rejects requests that a server must
//! not accept, and drains bodies that no handler has read.
//!
//! A client that sends its whole body before it reads would never see an early refusal, because a
//! server that closes while bytes arrive resets the connection. So the rest of the body is read for
//! a limited time, and `Connection: close` announces that the connection ends (RFC 9112 §9.6).
//! HTTP/2 resets only the stream, after the response (RFC 9113 §8.1), but some clients discard a
//! response if the stream is reset while they send, so the rest is read there too.

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

/// Up to this many unread bytes are drained without closing the connection.
const SHORT: u64 = 64 * 1024;

pub(super) async fn answer(
    routes: Router,
    request: Request,
    in_flight: InFlight,
) -> Result<Response, Infallible> {
    // HTTP/2 can end one stream without affecting the others.
    let http_1 = request.version() < Version::HTTP_2;
    // A client that waits for `100 Continue` may or may not send its body after the final response.
    let expects = request.headers().contains_key(EXPECT);
    let refusal = refusal(&request);
    let unread = Unread::default();
    let body = unread.clone();
    let request = request.map(|inner| {
        Body::new(RequestBody {
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
    // On a connection that closes, `Lingering` reads the rest.
    let rest = rest.filter(|_| !closes);
    Ok(response.map(|inner| {
        Body::new(ResponseBody {
            inner,
            _rest: UnreadRest(rest),
            _in_flight: in_flight,
        })
    }))
}

/// Rejects requests that actix-web's server refuses and hyper accepts: a missing or repeated `Host`
/// (RFC 9112 §3.2), transfer codings other than chunked (§6.1), bytes in the target that are not
/// allowed in a URI (RFC 3986 §2), and a `POST` of HTTP/1.0 without a length (RFC 1945 §7.2.2).
/// Also rejects heads with more fields than are accepted over HTTP/1.1.
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

/// The rest of a request's body that the handler did not read.
type Unread = Arc<Mutex<Option<Body>>>;

/// The body of a request. When it is dropped, the unread rest is kept in `unread`.
struct RequestBody {
    inner: Body,
    unread: Unread,
    /// Whether the body was read to its end. hyper does not report this for chunked bodies.
    ended: bool,
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            let rest = std::mem::take(&mut self.inner);
            *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}

impl HttpBody for RequestBody {
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

/// The body of a response. When it has been sent, the rest of the request's body is drained.
struct ResponseBody {
    inner: Body,
    _rest: UnreadRest,
    _in_flight: InFlight,
}

impl HttpBody for ResponseBody {
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

/// The unread rest of a request's body, drained on drop. It must not be read before the response is
/// sent, because reading would send `100 Continue` and so ask for an unwanted body.
struct UnreadRest(Option<Body>);

impl Drop for UnreadRest {
    fn drop(&mut self) {
        // There is no runtime any more while the process exits.
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
