//! IUSign: envelopes under `/v1`, from plan `standard` on.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use portunus::adapter::axum::{ProtectedRouter, get, post};
use portunus::{KeyPrincipal, Requirement};
use serde_json::json;

use crate::app::App;

pub(super) fn routes(router: ProtectedRouter<App>, standard: &Requirement) -> ProtectedRouter<App> {
    router
        .route("/v1/envelopes", get(envelopes).require(standard.clone()))
        .route("/v1/envelopes", post(new_envelope).require(standard.clone()))
        .route("/v1/envelopes/mass", post(new_envelopes).require(standard.clone()))
        .route("/v1/envelopes/{id}", get(envelope).require(standard.clone()))
        .route("/v1/envelopes/{id}/document", get(document).require(standard.clone()))
}

async fn envelopes(State(app): State<App>, caller: KeyPrincipal) -> Response {
    super::list(&app, &caller, "envelopes")
}

async fn new_envelope(State(app): State<App>, caller: KeyPrincipal, body: Bytes) -> Response {
    super::create(&app, &caller, "envelopes", &body)
}

async fn new_envelopes(State(app): State<App>, caller: KeyPrincipal, body: Bytes) -> Response {
    super::create(&app, &caller, "envelopes", &body)
}

async fn envelope(State(app): State<App>, caller: KeyPrincipal, Path(id): Path<String>) -> Response {
    super::show(&app, &caller, "envelopes", &id)
}

async fn document(State(app): State<App>, caller: KeyPrincipal, Path(id): Path<String>) -> Response {
    match app.shelves.one(&caller, "envelopes", &id) {
        Ok(_) => Json(json!({ "envelope_id": id, "media_type": "application/pdf", "pages": 0 })).into_response(),
        Err(error) => app.refuse(&error),
    }
}
