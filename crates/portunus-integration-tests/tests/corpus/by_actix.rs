//! The test site on actix-web, with the deny-by-default router.

use std::net::SocketAddr;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use portunus::adapter::actix::{Auth, ProtectedRouter, any, get, require};
use portunus::{Authenticator, KeyPrincipal, Requirement};

use crate::configuration::{customer, is_mapped, serves_grpc};
use crate::routes::{FORGOTTEN, GET_ONLY, MAYBE, NEST, PERHAPS, PUBLIC, demands, nested, whoami};

/// Serves until it is stopped: HTTP/1.1 on one port, HTTP/1.1 and HTTP/2 on the other.
pub(crate) fn start(
    authenticator: Authenticator,
    configuration: &str,
) -> ([SocketAddr; 2], ServerHandle) {
    let auth = Auth::new(authenticator);
    let auth = if serves_grpc(configuration) {
        auth.grpc()
    } else {
        auth
    };
    let auth = if is_mapped(configuration) {
        auth.try_map_principal(customer)
    } else {
        auth
    };
    let site = move |site: &mut web::ServiceConfig| {
        let mut routes = ProtectedRouter::new(auth.clone())
            .route(GET_ONLY, get(handler).any_key())
            .route(PUBLIC, get(|| async { "ok" }).public());
        for (path, demand) in demands() {
            routes = routes.route(path, any(handler).require(demand));
        }
        let mut nest = ProtectedRouter::new(auth.clone());
        for (path, demand) in nested() {
            nest = nest.route(path, any(handler).require(demand));
        }
        site.service(
            routes
                .nest(NEST, nest)
                .route(PERHAPS, any(perhaps).optional_key()),
        );
        // Paths that anonymous requests may use are not routes of a deny-by-default router.
        site.service(web::resource(MAYBE).to(perhaps).wrap(auth.clone()));
        let alone = require(Requirement::none());
        site.service(web::resource(FORGOTTEN).to(perhaps).wrap(alone));
    };
    let server = HttpServer::new(move || App::new().configure(site.clone()))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .and_then(|server| server.bind_auto_h2c(("127.0.0.1", 0)))
        .unwrap();
    let addresses = [server.addrs()[0], server.addrs()[1]];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (addresses, handle)
}

async fn handler(principal: KeyPrincipal) -> String {
    whoami(Some(&principal))
}

async fn perhaps(principal: Option<KeyPrincipal>) -> String {
    whoami(principal.as_ref())
}
