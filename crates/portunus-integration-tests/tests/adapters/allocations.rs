//! A route of a router allocates what a layer that passes requests on allocates in that framework,
//! and what the tower layer allocates; nothing for its requirement.
//!
//! There is one allocation more, of the table of the request's extensions: on axum, it grows for the
//! principal, because the route and its parameters are in there; on actix-web, it was empty.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use actix_web::dev::Service as _;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, web};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing;
use futures_util::FutureExt;
use http::{Request, Response};
use portunus::adapter::actix::{Auth, ProtectedRouter};
use portunus::adapter::axum::AuthLayer;
use portunus::adapter::{actix, axum as on_axum};
use portunus::scope;
use portunus_test_support::Fixture;
use tower::layer::layer_fn;
use tower::util::MapRequest;
use tower::{Layer, Service};

#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::empty())))
    }
}

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 50_000))
}

/// Returns the allocations of the second call: the first one allocates what is kept.
fn second<Q>(request: impl Fn() -> Q, mut answered: impl FnMut(Q) -> u16) -> u64 {
    assert_eq!(answered(request()), 200);
    let request = request();
    let mut status = 0;
    let allocated = allocation_counter::measure(|| status = answered(request));
    assert_eq!(status, 200);
    allocated.count_total
}

fn of_tower<S>(mut service: S, key: &str) -> u64
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let request = || {
        Request::get("/x")
            .header("authorization", format!("Bearer {key}"))
            .extension(ConnectInfo(peer()))
            .body(Body::empty())
            .unwrap()
    };
    second(request, |request| {
        let answer = service.call(request).now_or_never();
        let Ok(response) = answer.expect("answered at once");
        response.status().as_u16()
    })
}

fn of_actix(routes: impl actix_web::dev::HttpServiceFactory + 'static, key: &str) -> u64 {
    let service = init_service(App::new().service(routes)).now_or_never();
    let service = service.expect("built at once");
    let request = || {
        let field = ("authorization", format!("Bearer {key}"));
        let request = TestRequest::with_uri("/x").peer_addr(peer());
        request.insert_header(field).to_request()
    };
    second(request, |request| {
        let answer = service.call(request).now_or_never();
        let response = answer.expect("answered at once").unwrap();
        response.status().as_u16()
    })
}

#[tokio::test]
async fn a_route_of_a_router_allocates_as_a_passing_layer_and_the_tower_layer() {
    let fixture = Fixture::new();
    let key = fixture.issue(&["a"]).await.0;
    let authenticator = fixture.bearer().build().unwrap();
    let layer = AuthLayer::new(authenticator.clone());
    let service = layer.clone().require(scope!("a")).layer(Inner);
    let added = of_tower(service, &key) - of_tower(Inner, &key);
    assert!(added > 0, "the principal is allocated");

    let pass_on = layer_fn(|inner| MapRequest::new(inner, |request: Request<Body>| request));
    let handler = || async { "" };
    let passing = Router::new()
        .route("/x", routing::get(handler))
        .route_layer(pass_on);
    let route = on_axum::get(handler).require(scope!("a"));
    let protected = on_axum::ProtectedRouter::new(layer).route("/x", route);
    let (passing, protected) = (
        of_tower(passing, &key),
        of_tower(protected.into_router(), &key),
    );
    let table = 1;
    assert!(
        protected <= passing + added + table,
        "axum: {protected}, not {passing} + {added} + {table}"
    );

    let alone = web::resource("/x").route(web::get().to(async || ""));
    let route = actix::get(async || "").require(scope!("a"));
    let protected = ProtectedRouter::new(Auth::new(authenticator)).route("/x", route);
    let (alone, protected) = (of_actix(alone, &key), of_actix(protected, &key));
    assert!(
        protected <= alone + added + table,
        "actix-web: {protected}, not {alone} + {added} + {table}"
    );
}
