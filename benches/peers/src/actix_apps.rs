//! An actix-web app without middleware, with one that passes everything on, with
//! `actix-web-httpauth`, and with Portunus.

use std::collections::HashSet;
use std::future::ready;
use std::sync::Arc;

use actix_http::Request;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::test::TestRequest;
use actix_web::{App, Error, error, test, web};
use actix_web_httpauth::extractors::bearer::BearerAuth;
use actix_web_httpauth::middleware::HttpAuthentication;
use portunus::adapter::actix::{ProtectedRouter, get as get_protected};
use portunus::scope;
use portunus::store::MemoryStore;

use crate::contender::{Check, Client, Contender, Credentials, bare, client};
use crate::library::{built, described, format, issued, writing_uses};
use crate::shape::{PATH, PEER, Settings, now, secret};

async fn handler() -> &'static str {
    ""
}

fn request(authorization: &str) -> Request {
    TestRequest::get()
        .uri(PATH)
        .peer_addr(PEER)
        .insert_header((AUTHORIZATION, authorization))
        .to_request()
}

fn served<B, S>(service: S) -> Box<dyn Client>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: 'static,
{
    client(request, move |request| match now(service.call(request)) {
        Ok(response) => response.status().as_u16(),
        Err(error) => error.as_response_error().status_code().as_u16(),
    })
}

pub fn alone(settings: Settings) -> Contender {
    Contender::new("actix alone", &[], bare(settings.keys).credentials, || {
        let resource = web::resource(PATH).route(web::get().to(handler));
        served(now(test::init_service(App::new().service(resource))))
    })
}

pub fn passing(settings: Settings) -> Contender {
    Contender::new(
        "actix, passing on",
        &[],
        bare(settings.keys).credentials,
        || {
            let resource = web::resource(PATH)
                .route(web::get().to(handler))
                .wrap_fn(|request, service| service.call(request));
            served(now(test::init_service(App::new().service(resource))))
        },
    )
}

/// The crate finds the token in the header; what it is compared with is ours: a set of plaintext
/// keys.
pub fn httpauth(settings: Settings) -> Contender {
    let numbers = 0..settings.keys as u64;
    let known: Arc<HashSet<String>> = Arc::new(numbers.map(secret).collect());
    let credentials = Credentials {
        good: known
            .iter()
            .map(|secret| format!("Bearer {secret}"))
            .collect(),
        unknown: format!("Bearer {}", secret(u64::MAX)),
        ..Credentials::default()
    };
    Contender::new(
        "actix-web-httpauth",
        &[Check::Key],
        credentials,
        move || {
            let known = Arc::clone(&known);
            let check = move |request: ServiceRequest, given: BearerAuth| {
                ready(if known.contains(given.token()) {
                    Ok(request)
                } else {
                    Err((error::ErrorUnauthorized("unknown key"), request))
                })
            };
            let resource = web::resource(PATH)
                .route(web::get().to(handler))
                .wrap(HttpAuthentication::bearer(check));
            served(now(test::init_service(App::new().service(resource))))
        },
    )
}

pub fn protected(settings: Settings) -> Contender {
    let (format, store) = (format(false), MemoryStore::new());
    let keys = built(described(settings, store.clone(), format.clone()));
    let credentials = issued(settings, &keys, &format);
    let (checks, write) = (Check::COMPLETE_WITH_FIELDS, writing_uses(&keys, &store));
    Contender::new("actix, Portunus", checks, credentials, move || {
        let router = ProtectedRouter::new(keys.middleware());
        let router = router.route(
            PATH,
            get_protected(handler).require(scope!("document:read")),
        );
        served(now(test::init_service(App::new().service(router))))
    })
    .settling(write)
}
