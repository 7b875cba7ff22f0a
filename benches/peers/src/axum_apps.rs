//! An axum app without a layer, with one that passes everything on, and with Portunus.

use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use http::Request;
use http::header::AUTHORIZATION;
use portunus::adapter::axum::get as get_protected;
use portunus::scope;
use portunus::store::MemoryStore;
use tower::Service;
use tower::layer::layer_fn;

use crate::contender::{Check, Contender, Credentials, bare, client};
use crate::library::{built, described, format, issued, writing_uses};
use crate::shape::{PATH, PEER, Settings, now};

async fn handler() {}

#[derive(Clone)]
struct PassOn<S>(S);

impl<Q, S: Service<Q>> Service<Q> for PassOn<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Q) -> S::Future {
        self.0.call(request)
    }
}

fn request(authorization: &str) -> Request<Body> {
    Request::get(PATH)
        .header(AUTHORIZATION, authorization)
        .extension(ConnectInfo(PEER))
        .body(Body::empty())
        .expect("a valid request")
}

fn app(
    name: &'static str,
    checks: &'static [Check],
    credentials: Credentials,
    router: Router,
) -> Contender {
    Contender::new(name, checks, credentials, move || {
        let mut router = router.clone();
        client(request, move |request| {
            let Ok(response) = now(Service::<Request<Body>>::call(&mut router, request));
            response.status().as_u16()
        })
    })
}

pub fn alone(settings: Settings) -> Contender {
    let router = Router::new().route(PATH, get(handler));
    app("axum alone", &[], bare(settings.keys).credentials, router)
}

pub fn passing(settings: Settings) -> Contender {
    let router = Router::new()
        .route(PATH, get(handler))
        .route_layer(layer_fn(PassOn));
    app(
        "axum, passing on",
        &[],
        bare(settings.keys).credentials,
        router,
    )
}

pub fn protected(settings: Settings) -> Contender {
    let (format, store) = (format(false), MemoryStore::new());
    let keys = built(described(settings, store.clone(), format.clone()));
    let credentials = issued(settings, &keys, &format);
    let router = keys
        .router()
        .route(
            PATH,
            get_protected(handler).require(scope!("document:read")),
        )
        .into_router();
    app(
        "axum, Portunus",
        Check::COMPLETE_WITH_FIELDS,
        credentials,
        router,
    )
    .settling(writing_uses(&keys, &store))
}
