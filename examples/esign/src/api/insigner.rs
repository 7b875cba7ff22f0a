//! inSigner: documents, templates, campaigns, bulk sends, webhooks and the organization under `/api/v1`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use portunus::adapter::axum::{ProtectedRouter, Unguarded, delete, get, post, put};
use portunus::{KeyPrincipal, Principal, scope};
use serde_json::json;

use crate::app::App;

pub(super) fn routes(router: ProtectedRouter<App>) -> ProtectedRouter<App> {
    router
        .route("/api/v1/documents", list("documents").require(scope!("documents.read")))
        .route("/api/v1/documents", create("documents").require(scope!("documents.create")))
        .route("/api/v1/documents/{id}", show("documents").require(scope!("documents.read")))
        .route("/api/v1/documents/{id}", change("documents").require(scope!("documents.write")))
        .route("/api/v1/documents/{id}", remove("documents").require(scope!("documents.delete")))
        .route("/api/v1/documents/{id}/send", post(send).require(scope!("documents.send")))
        .route("/api/v1/templates", list("templates").require(scope!("templates.read")))
        .route("/api/v1/campaigns", list("campaigns").require(scope!("campaigns.read")))
        .route("/api/v1/campaigns", create("campaigns").require(scope!("campaigns.create")))
        .route("/api/v1/campaigns/{id}", change("campaigns").require(scope!("campaigns.update")))
        .route("/api/v1/campaigns/{id}", remove("campaigns").require(scope!("campaigns.delete")))
        .route("/api/v1/webhooks", list("webhooks").require(scope!("webhooks.read")))
        .route("/api/v1/webhooks", create("webhooks").require(scope!("webhooks.create")))
        .route("/api/v1/webhooks/{id}", change("webhooks").require(scope!("webhooks.update")))
        .route("/api/v1/webhooks/{id}", remove("webhooks").require(scope!("webhooks.delete")))
        .route("/api/v1/bulk_sends", list("bulk_sends").require(scope!("bulk_sends.read")))
        .route("/api/v1/bulk_sends", create("bulk_sends").require(scope!("bulk_sends.create")))
        .route("/api/v1/bulk_sends/{id}", remove("bulk_sends").require(scope!("bulk_sends.delete")))
        .route("/api/v1/org", get(org).require(scope!("org.read")))
}

fn list(kind: &'static str) -> Unguarded<App> {
    get(move |State(app): State<App>, caller: KeyPrincipal| async move { super::list(&app, &caller, kind) })
}

fn create(kind: &'static str) -> Unguarded<App> {
    post(move |State(app): State<App>, caller: KeyPrincipal, body: Bytes| async move {
        super::create(&app, &caller, kind, &body)
    })
}

fn show(kind: &'static str) -> Unguarded<App> {
    get(move |State(app): State<App>, caller: KeyPrincipal, Path(id): Path<String>| async move {
        super::show(&app, &caller, kind, &id)
    })
}

fn change(kind: &'static str) -> Unguarded<App> {
    put(move |State(app): State<App>, caller: KeyPrincipal, Path(id): Path<String>, body: Bytes| async move {
        super::change(&app, &caller, kind, &id, &body)
    })
}

fn remove(kind: &'static str) -> Unguarded<App> {
    delete(move |State(app): State<App>, caller: KeyPrincipal, Path(id): Path<String>| async move {
        super::remove(&app, &caller, kind, &id)
    })
}

async fn send(State(app): State<App>, caller: KeyPrincipal, Path(id): Path<String>) -> Response {
    let sent = json!({ "status": "sent" }).as_object().cloned().unwrap_or_default();
    super::answer(&app, app.shelves.change(&caller, "documents", &id, sent))
}

async fn org(caller: KeyPrincipal) -> Response {
    Json(json!({ "id": caller.owner().tenant_id, "members": [] })).into_response()
}
