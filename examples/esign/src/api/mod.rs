//! The five APIs: thin handlers over in-memory lists, independent of the framework. Portunus does
//! everything that concerns keys.

mod allsign;
mod document_store;
mod dropbox_sign;
mod insigner;
mod iusign;
mod route;
mod yousign;

use portunus::{KeyPrincipal, Principal, Requirement};
use portunus_profiles::Profile;
use serde_json::{Value, json};

pub(crate) use document_store::DocumentStore;
pub(crate) use route::{Call, Method, Outcome, Reply, Route};

use crate::app::App;

/// Returns a profile's routes that require a key.
pub(crate) fn routes(app: &App) -> Vec<Route> {
    let mut routes = match app.profile {
        Profile::AllSign => allsign::routes(),
        Profile::InSigner => insigner::routes(),
        Profile::DropboxSign => dropbox_sign::routes(),
        Profile::Yousign => yousign::routes(),
        Profile::IuSign => iusign::routes(&app.standard_plan),
        _ => Vec::new(),
    };
    let any_key = Requirement::none().any_workspace();
    routes.push(route::get("/whoami", any_key, |call| {
        Ok(Reply::Ok(describe(&call.caller)))
    }));
    routes
}

/// The body of `/healthz`, which needs no key.
pub(crate) fn health() -> Value {
    json!({ "status": "ok" })
}

fn describe(principal: &KeyPrincipal) -> Value {
    let actor = principal.actor();
    json!({
        "key_id": principal.key_id(),
        "environment": principal.environment(),
        "mode": principal.mode(),
        "owner": principal.owner(),
        "actor": { "user_id": actor.user_id, "user_email": actor.user_email },
        "tenant_id": principal.owner().tenant_id,
        "scopes": principal.scopes().names(),
    })
}
