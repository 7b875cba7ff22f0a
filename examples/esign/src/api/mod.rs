//! The five APIs: thin handlers over lists in memory. All that concerns keys is Portunus.

mod allsign;
mod dropbox_sign;
mod insigner;
mod iusign;
mod shelves;
mod yousign;

use axum::Json;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use portunus::adapter::axum::ProtectedRouter;
use portunus::profile::Profile;
use portunus::{AuthError, ErrorCode, KeyPrincipal};
use serde_json::{Map, Value, json};

pub(crate) use shelves::Shelves;

use crate::app::App;

/// Adds the routes of a profile.
pub(crate) fn routes(app: &App, router: ProtectedRouter<App>) -> ProtectedRouter<App> {
    match app.profile {
        Profile::AllSign => allsign::routes(router),
        Profile::InSigner => insigner::routes(router),
        Profile::DropboxSign => dropbox_sign::routes(router),
        Profile::Yousign => yousign::routes(router),
        Profile::IuSign => iusign::routes(router, &app.standard_plan),
        _ => router,
    }
}

/// A body that is a JSON object; nothing counts as an empty one.
fn object(body: &Bytes) -> Result<Map<String, Value>, AuthError> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body)
        .map_err(|_| AuthError::with_detail(ErrorCode::InvalidRequest, "The body is not a JSON object"))
}

/// All things of one kind that this caller's tenant has in this environment.
fn list(app: &App, caller: &KeyPrincipal, kind: &str) -> Response {
    Json(json!({ kind: app.shelves.all(caller, kind) })).into_response()
}

fn create(app: &App, caller: &KeyPrincipal, kind: &str, body: &Bytes) -> Response {
    match object(body).and_then(|thing| app.shelves.add(caller, kind, thing)) {
        Ok(made) => (axum::http::StatusCode::CREATED, Json(made)).into_response(),
        Err(error) => app.refuse(&error),
    }
}

fn show(app: &App, caller: &KeyPrincipal, kind: &str, id: &str) -> Response {
    answer(app, app.shelves.one(caller, kind, id))
}

fn change(app: &App, caller: &KeyPrincipal, kind: &str, id: &str, body: &Bytes) -> Response {
    answer(app, object(body).and_then(|facts| app.shelves.change(caller, kind, id, facts)))
}

fn remove(app: &App, caller: &KeyPrincipal, kind: &str, id: &str) -> Response {
    match app.shelves.remove(caller, kind, id) {
        Ok(()) => axum::http::StatusCode::NO_CONTENT.into_response(),
        Err(error) => app.refuse(&error),
    }
}

fn answer(app: &App, outcome: Result<Value, AuthError>) -> Response {
    match outcome {
        Ok(thing) => Json(thing).into_response(),
        Err(error) => app.refuse(&error),
    }
}
