//! AllSign: documents and signatures under `/v2`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use portunus::adapter::axum::{ProtectedRouter, delete, get, post};
use portunus::{KeyPrincipal, Requirement, scope};

use crate::app::App;

pub(super) fn routes(router: ProtectedRouter<App>) -> ProtectedRouter<App> {
    let write = Requirement::any_of([scope!("document:write"), scope!("document:*")]);
    router
        .route("/v2/documents", get(documents).require(scope!("document:read")))
        .route("/v2/documents", post(new_document).require(write))
        .route("/v2/documents/{id}", delete(no_document).require(scope!("document:delete")))
        .route("/v2/signatures", get(signatures).require(scope!("signature:read")))
        .route("/v2/signatures", post(new_signature).require(scope!("signature:write")))
}

async fn documents(State(app): State<App>, caller: KeyPrincipal) -> axum::response::Response {
    super::list(&app, &caller, "documents")
}

async fn new_document(State(app): State<App>, caller: KeyPrincipal, body: Bytes) -> axum::response::Response {
    super::create(&app, &caller, "documents", &body)
}

async fn no_document(State(app): State<App>, caller: KeyPrincipal, Path(id): Path<String>) -> axum::response::Response {
    super::remove(&app, &caller, "documents", &id)
}

async fn signatures(State(app): State<App>, caller: KeyPrincipal) -> axum::response::Response {
    super::list(&app, &caller, "signatures")
}

async fn new_signature(State(app): State<App>, caller: KeyPrincipal, body: Bytes) -> axum::response::Response {
    super::create(&app, &caller, "signatures", &body)
}
