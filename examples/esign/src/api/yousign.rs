//! Yousign: resources of workspaces, and the organization's workspaces and users, under `/v3`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use portunus::adapter::axum::{ProtectedRouter, delete, get, patch, post};
use portunus::policy::WorkspaceOf;
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal, Requirement};
use serde_json::json;

use crate::app::App;
use crate::operators::WORKSPACES;

pub(super) fn routes(mut router: ProtectedRouter<App>) -> ProtectedRouter<App> {
    // Writing needs full access, which every requirement asks for by the method.
    let reaches = || Requirement::workspace(WorkspaceOf::path_after("workspaces"));
    for kind in ["signature_requests", "templates", "electronic_seals"] {
        let (all, one) = (format!("/v3/workspaces/{{ws}}/{kind}"), format!("/v3/workspaces/{{ws}}/{kind}/{{id}}"));
        router = router
            .route(&all, get(move |app, caller, ws| list(app, caller, ws, kind)).require(reaches()))
            .route(&all, post(move |app, caller, ws, body| create(app, caller, ws, kind, body)).require(reaches()))
            .route(&one, get(move |app, caller, ids| show(app, caller, ids, kind)).require(reaches()))
            .route(&one, patch(move |app, caller, ids, body| change(app, caller, ids, kind, body)).require(reaches()))
            .route(&one, delete(move |app, caller, ids| remove(app, caller, ids, kind)).require(reaches()));
    }
    router
        .route("/v3/workspaces", get(workspaces).require(Requirement::organization()))
        .route("/v3/workspaces", post(new_workspace).require(Requirement::organization()))
        .route("/v3/users", get(users).require(Requirement::organization()))
        .route("/v3/users", post(new_user).require(Requirement::organization()))
}

/// The list of a kind in a workspace, if there is such a workspace.
fn shelf(kind: &str, workspace: &str) -> Result<String, AuthError> {
    let known = WORKSPACES.contains(&workspace);
    known.then(|| format!("{workspace}/{kind}")).ok_or_else(|| AuthError::new(ErrorCode::NotFound))
}

async fn list(State(app): State<App>, caller: KeyPrincipal, Path(ws): Path<String>, kind: &'static str) -> Response {
    match shelf(kind, &ws) {
        Ok(shelf) => Json(json!({ "data": app.shelves.all(&caller, &shelf) })).into_response(),
        Err(error) => app.refuse(&error),
    }
}

async fn create(
    State(app): State<App>,
    caller: KeyPrincipal,
    Path(ws): Path<String>,
    kind: &'static str,
    body: Bytes,
) -> Response {
    match shelf(kind, &ws) {
        Ok(shelf) => super::create(&app, &caller, &shelf, &body),
        Err(error) => app.refuse(&error),
    }
}

type Ids = Path<(String, String)>;

async fn show(State(app): State<App>, caller: KeyPrincipal, Path((ws, id)): Ids, kind: &'static str) -> Response {
    match shelf(kind, &ws) {
        Ok(shelf) => super::show(&app, &caller, &shelf, &id),
        Err(error) => app.refuse(&error),
    }
}

async fn change(
    State(app): State<App>,
    caller: KeyPrincipal,
    Path((ws, id)): Ids,
    kind: &'static str,
    body: Bytes,
) -> Response {
    match shelf(kind, &ws) {
        Ok(shelf) => super::change(&app, &caller, &shelf, &id, &body),
        Err(error) => app.refuse(&error),
    }
}

async fn remove(State(app): State<App>, caller: KeyPrincipal, Path((ws, id)): Ids, kind: &'static str) -> Response {
    match shelf(kind, &ws) {
        Ok(shelf) => super::remove(&app, &caller, &shelf, &id),
        Err(error) => app.refuse(&error),
    }
}

async fn workspaces(State(app): State<App>, caller: KeyPrincipal) -> Response {
    let mut reached: Vec<_> = WORKSPACES.iter().filter(|ws| caller.reaches(ws)).map(|ws| json!({ "id": ws })).collect();
    if caller.workspaces().is_none() {
        reached.extend(app.shelves.all(&caller, "workspaces"));
    }
    Json(json!({ "data": reached })).into_response()
}

async fn new_workspace(State(app): State<App>, caller: KeyPrincipal, body: Bytes) -> Response {
    super::create(&app, &caller, "workspaces", &body)
}

async fn users(State(app): State<App>, caller: KeyPrincipal) -> Response {
    let mut users: Vec<_> =
        app.directory.of_tenant(&caller.owner().tenant_id).into_iter().map(|user| json!(user)).collect();
    users.extend(app.shelves.all(&caller, "users"));
    Json(json!({ "data": users })).into_response()
}

async fn new_user(State(app): State<App>, caller: KeyPrincipal, body: Bytes) -> Response {
    super::create(&app, &caller, "users", &body)
}
