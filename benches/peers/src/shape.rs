//! The shape that the keys of all contenders share, the requests, and the service they protect.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use sha2_010::{Digest, Sha256};
use tower::Service;

pub type Body = Full<Bytes>;

/// The networks of each key. The peer is in the last one, so that all of them are compared.
pub const NETWORKS: [&str; 3] = ["2001:db8::/32", "10.0.0.0/8", "192.0.2.0/24"];
pub const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 50_000);
/// The scopes of each key, of which a request needs [`NEEDED`].
pub const SCOPES: [&str; 3] = ["document:write", "signature:read", "document:read"];
pub const NEEDED: &str = "document:read";
pub const ENVIRONMENT: &str = "live";
pub const PATH: &str = "/v2/documents";

/// The number of keys, and the quotas of each.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub keys: usize,
    pub per_minute: u32,
    pub per_hour: u32,
}

impl Settings {
    /// Quotas that are never used up.
    pub const fn plenty(keys: usize) -> Self {
        Self {
            keys,
            per_minute: 50_000_000,
            per_hour: 3_000_000_000,
        }
    }
}

/// A key of 48 bytes, for contenders that do not generate their own.
pub fn secret(number: u64) -> String {
    let (high, low) = (mixed(number), mixed(number ^ 0x5bd1_e995_0000));
    format!("example_live_sk_{high:016x}{low:016x}")
}

/// A number that looks random (the last step of `SplitMix64`).
pub const fn mixed(number: u64) -> u64 {
    let word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

pub fn next_year() -> SystemTime {
    SystemTime::now() + Duration::from_secs(365 * 24 * 60 * 60)
}

pub fn request(authorization: &str) -> Request<Body> {
    Request::get(PATH)
        .header(AUTHORIZATION, authorization)
        .extension(ConnectInfo(PEER))
        .body(Body::default())
        .expect("a valid request")
}

/// The key in a request, if it is sent as a bearer token.
pub fn bearer<B>(request: &Request<B>) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

pub fn peer<B>(request: &Request<B>) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip())
}

pub fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// A response with a header, as nearly all have.
pub fn answer<B: Default>() -> Response<B> {
    let mut response = Response::new(B::default());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The protected service, which does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(&request);
        ready(Ok(answer()))
    }
}

/// Runs a future that only lets other tasks run in between.
pub fn soon<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// Runs a future that is ready immediately.
pub fn now<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}
