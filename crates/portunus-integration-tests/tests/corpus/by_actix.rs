//! The site on actix-web, with its middleware around each resource.

use std::net::SocketAddr;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use portunus::adapter::actix::{Auth, require};
use portunus::{Authenticator, KeyPrincipal, Requirement};

use crate::configuration::{customer, is_mapped, serves_grpc};
use crate::routes::{GET_ONLY, MAYBE, NEST, PERHAPS, PUBLIC, demands, nested, whoami};

/// Serves until it is stopped: on one port HTTP/1.1, on the other HTTP/2 as well.
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
        for (path, demand) in demands() {
            site.service(
                web::resource(path)
                    .to(handler)
                    .wrap(require(demand))
                    .wrap(auth.clone()),
            );
        }
        let mut nest = web::scope(NEST);
        for (path, demand) in nested() {
            nest = nest.service(
                web::resource(path)
                    .to(handler)
                    .wrap(require(demand))
                    .wrap(auth.clone()),
            );
        }
        site.service(nest);
        site.service(
            web::resource(PERHAPS)
                .to(perhaps)
                .wrap(require(Requirement::none().any_workspace()).optional_key())
                .wrap(auth.clone().optional_key()),
        );
        let any_key = require(Requirement::none().any_workspace());
        site.service(
            web::resource(GET_ONLY)
                .route(web::get().to(handler).wrap(any_key))
                .wrap(auth.clone()),
        );
        site.service(web::resource(MAYBE).to(perhaps).wrap(auth.clone()));
        site.service(web::resource(PUBLIC).route(web::get().to(|| async { "ok" })));
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
