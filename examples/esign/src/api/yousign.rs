//! Yousign: resources of workspaces, and the organization's workspaces and users, under `/v3`.

use portunus::policy::WorkspaceOf;
use portunus::{AuthError, ErrorCode, Principal, Requirement};
use serde_json::json;

use super::route::{delete, get, patch, post};
use super::{Call, Outcome, Reply, Route};
use crate::operators::WORKSPACES;

pub(super) fn routes() -> Vec<Route> {
    // Writing needs full access; every requirement derives that from the method.
    let reaches = || Requirement::workspace(WorkspaceOf::parameter("ws"));
    let mut routes = Vec::new();
    for kind in ["signature_requests", "templates", "electronic_seals"] {
        let (all, one) = (
            format!("/v3/workspaces/{{ws}}/{kind}"),
            format!("/v3/workspaces/{{ws}}/{kind}/{{id}}"),
        );
        routes.extend([
            get(&all, reaches(), move |call| list(call, kind)),
            post(&all, reaches(), move |call| {
                call.create(&list_name(call, kind)?)
            }),
            get(&one, reaches(), move |call| {
                call.show(&list_name(call, kind)?)
            }),
            patch(&one, reaches(), move |call| {
                call.change(&list_name(call, kind)?)
            }),
            delete(&one, reaches(), move |call| {
                call.remove(&list_name(call, kind)?)
            }),
        ]);
    }
    routes.extend([
        get("/v3/workspaces", Requirement::organization(), workspaces),
        post("/v3/workspaces", Requirement::organization(), |call| {
            call.create("workspaces")
        }),
        get("/v3/users", Requirement::organization(), users),
        post("/v3/users", Requirement::organization(), |call| {
            call.create("users")
        }),
    ]);
    routes
}

/// Returns the name of the list of a kind in the path's workspace, or 404 if the workspace is
/// unknown.
fn list_name(call: &Call, kind: &str) -> Result<String, AuthError> {
    let workspace = call.segments.first().map_or("", String::as_str);
    let known = WORKSPACES.contains(&workspace);
    known
        .then(|| format!("{workspace}/{kind}"))
        .ok_or_else(|| AuthError::new(ErrorCode::NotFound))
}

fn list(call: &Call, kind: &str) -> Outcome {
    let list_name = list_name(call, kind)?;
    Ok(Reply::Ok(
        json!({ "data": call.app.documents.all(&call.caller, &list_name) }),
    ))
}

fn workspaces(call: &Call) -> Outcome {
    let reached = WORKSPACES.iter().filter(|ws| call.caller.reaches(ws));
    let mut reached: Vec<_> = reached.map(|ws| json!({ "id": ws })).collect();
    if call.caller.workspaces().is_none() {
        reached.extend(call.app.documents.all(&call.caller, "workspaces"));
    }
    Ok(Reply::Ok(json!({ "data": reached })))
}

fn users(call: &Call) -> Outcome {
    let own = call.app.directory.of_tenant(&call.caller.owner().tenant_id);
    let mut users: Vec<_> = own.into_iter().map(|user| json!(user)).collect();
    users.extend(call.app.documents.all(&call.caller, "users"));
    Ok(Reply::Ok(json!({ "data": users })))
}
