//! The test site on axum, with the deny-by-default router.

use std::net::SocketAddr;

use axum::Router;
use axum::routing;
use portunus::adapter::axum::{ProtectedRouter, RequireExt, any, get};
use portunus::{Authenticator, KeyPrincipal, Requirement};
use tokio::net::TcpListener;

use crate::configuration::layer;
use crate::routes::{FORGOTTEN, GET_ONLY, MAYBE, NEST, PERHAPS, PUBLIC, demands, nested, whoami};

/// Serves until the runtime ends.
pub(crate) async fn start(authenticator: Authenticator, configuration: &str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let layer = layer(configuration, authenticator);
    let mut site = ProtectedRouter::new(layer.clone())
        .route(GET_ONLY, get(handler).any_key())
        .route(PUBLIC, get(|| async { "ok" }).public());
    for (path, demand) in demands() {
        site = site.route(path, any(handler).require(demand));
    }
    let mut nest = ProtectedRouter::new(layer.clone());
    for (path, demand) in nested() {
        nest = nest.route(path, any(handler).require(demand));
    }
    let site = site
        .nest(NEST, nest)
        .route(PERHAPS, any(perhaps).optional_key());
    // Paths that anonymous requests may use are not routes of a deny-by-default router.
    let site: Router = site
        .into_router()
        .route(MAYBE, routing::any(perhaps).layer(layer))
        .route(
            FORGOTTEN,
            routing::any(perhaps).require(Requirement::none()),
        );
    let site = site.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, site).await });
    address
}

async fn handler(principal: KeyPrincipal) -> String {
    whoami(Some(&principal))
}

async fn perhaps(principal: Option<KeyPrincipal>) -> String {
    whoami(principal.as_ref())
}
