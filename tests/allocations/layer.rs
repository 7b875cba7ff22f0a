//! A cached request through the layer allocates only what the first value in a request's extensions
//! allocates.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body_util::Full;
use portunus::adapter::tower::{AuthLayer, require};
use portunus::audit::{AuditTrail, MemoryAudit};
use portunus::key::KeyHasher;
use portunus::store::MemoryStore;
use portunus::{KeyPrincipal, scope};
use portunus_test_support::{Setup, format};
use tower::{Layer, Service};

use super::hot_path::{allocations, issue};

#[derive(Clone)]
struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(request.extensions().get::<KeyPrincipal>().is_some());
        ready(Ok(Response::new(Full::default())))
    }
}

fn answered<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a hit is answered at once"),
    }
}

/// Returns the allocations of a hundred requests through the layer and a requirement, without those
/// of the requests themselves.
fn added(describe: impl FnOnce(Setup) -> Setup) -> u64 {
    let (store, hasher) = (MemoryStore::new(), KeyHasher::sha256());
    let key = issue(&store, &hasher, &["document:read"]);
    let authenticator = describe(Setup::on(store).bearer([format()]))
        .build()
        .unwrap();
    let request = || {
        let value = format!("Bearer {key}");
        Request::get("/v2/documents/0190f6a0-0000-7000-8000-000000000001")
            .header("authorization", value)
            .body(())
            .unwrap()
    };
    let mut service =
        AuthLayer::new(authenticator).layer(require(scope!("document:read")).layer(Handler));
    let asking = allocations(|| drop(black_box(request())));
    let through = allocations(|| {
        let response = answered(service.call(request())).unwrap();
        assert_eq!(response.status(), 200);
    });
    through - asking
}

#[test]
fn a_hit_through_the_layer_and_a_requirement_allocates_one_first_insert() {
    let first_insert = allocations(|| {
        let mut extensions = Extensions::new();
        extensions.insert(0_u64);
        black_box(extensions);
    });
    assert_eq!(added(|setup| setup), first_insert);
}

#[test]
fn audit_allocates_the_event_and_the_request_id_that_handlers_read() {
    let audited = |setup: Setup| setup.audit(AuditTrail::new([MemoryAudit::new(1)]));
    assert_eq!(added(audited), added(|setup| setup) + 2 * 100);
}
