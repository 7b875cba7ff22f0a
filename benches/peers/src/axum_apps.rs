//! An axum app without a layer, with one that passes everything on, and with Portunus.

use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::{Extension, Router};
use http::Request;
use http::header::AUTHORIZATION;
use portunus::adapter::axum::get as get_protected;
use portunus::config::Responses;
use portunus::limit::LimitFields;
use portunus::store::MemoryStore;
use portunus::{Portunus, scope};
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

fn router_alone() -> Router {
    Router::new().route(PATH, get(handler))
}

fn router_protected(keys: &Portunus) -> Router {
    let handler = get_protected(handler).require(scope!("document:read"));
    keys.router().route(PATH, handler).into_router()
}

pub fn alone(settings: Settings) -> Contender {
    let credentials = bare(settings.keys).credentials;
    app("axum alone", &[], credentials, router_alone())
}

pub fn passing(settings: Settings) -> Contender {
    let credentials = bare(settings.keys).credentials;
    let router = router_alone().route_layer(layer_fn(PassOn));
    app("axum, passing on", &[], credentials, router)
}

pub fn protected(settings: Settings) -> Contender {
    let (format, store) = (format(false), MemoryStore::new());
    let keys = built(described(settings, store.clone(), format.clone()));
    let credentials = issued(settings, &keys, &format);
    let checks = Check::COMPLETE_WITH_FIELDS;
    let router = router_protected(&keys);
    app("axum, Portunus", checks, credentials, router).settling(writing_uses(&keys, &store))
}

/// An app to be served on a socket, and what its clients send.
pub struct Served {
    pub name: &'static str,
    pub router: Router,
    pub credentials: Credentials,
    /// Runs as long as the app is served, if the app has jobs.
    pub jobs: Option<Portunus>,
}

/// The app alone, with the layer, and with the layer and its fields. All clients have the address
/// [`PEER`], which the keys are allowed to be used from.
pub fn served(settings: Settings) -> [Served; 3] {
    let protected = |name, fields| {
        let (format, store) = (format(false), MemoryStore::new());
        let responses = Responses::new().limit_fields(fields);
        let builder = described(settings, store, format.clone());
        let keys = built(builder.responses(responses));
        Served {
            name,
            router: router_protected(&keys),
            credentials: issued(settings, &keys, &format),
            jobs: Some(keys),
        }
    };
    let alone = Served {
        name: "axum alone",
        router: router_alone(),
        credentials: bare(settings.keys).credentials,
        jobs: None,
    };
    let without_fields = protected("axum, Portunus, no fields", LimitFields::Off);
    let all = [
        alone,
        without_fields,
        protected("axum, Portunus", LimitFields::default()),
    ];
    all.map(|served| Served {
        router: served.router.layer(Extension(ConnectInfo(PEER))),
        ..served
    })
}
