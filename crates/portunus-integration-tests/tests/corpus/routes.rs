//! The site that all adapters serve: paths, requirements, and the responses of handlers.

use portunus::policy::{PlanOrder, WorkspaceOf};
use portunus::{KeyPrincipal, Principal, Requirement};

use portunus_test_support::scope;

/// Every path that needs a key, in the syntax of axum and actix-web, with its requirement. All
/// methods are served.
pub(crate) fn demands() -> Vec<(&'static str, Requirement)> {
    let one = |text| Requirement::scope(scope(text));
    let plans = PlanOrder::new(["free", "standard", "enterprise"]).unwrap();
    let standard = || plans.at_least("standard").unwrap();
    vec![
        ("/any", Requirement::none().any_workspace()),
        ("/none", Requirement::none()),
        ("/read-any-workspace", one("document:read").any_workspace()),
        ("/read", one("document:read")),
        ("/write-one", one("document:write")),
        (
            "/write",
            Requirement::any_of([scope("document:write"), scope("document:*")]),
        ),
        ("/delete", one("document:delete")),
        (
            "/both",
            Requirement::all_of([scope("document:read"), scope("signature:read")]),
        ),
        ("/every-document", one("document:*")),
        ("/bare", one("document")),
        ("/plural", one("documents:read")),
        ("/dotted", one("document.read")),
        ("/nobody", Requirement::any_of::<Requirement>([])),
        ("/documents.read", one("documents.read")),
        ("/documents.create", one("documents.create")),
        ("/account", one("account_access")),
        ("/template", one("template_access")),
        ("/plan", standard()),
        ("/user", Requirement::user()),
        ("/organization", Requirement::organization()),
        ("/search", one("document:read").and(Requirement::reading())),
        ("/change", Requirement::writing()),
        ("/scope-or-plan", one("document:write").or(standard())),
        ("/workspaces/{ws}/templates", after_workspaces()),
        ("/spaces/{ws}/templates", by_parameter()),
        ("/no-parameter", by_parameter()),
        (
            "/by-header",
            Requirement::workspace(WorkspaceOf::header("X-Workspace")),
        ),
    ]
}

fn after_workspaces() -> Requirement {
    Requirement::workspace(WorkspaceOf::path_after("workspaces"))
}

fn by_parameter() -> Requirement {
    Requirement::workspace(WorkspaceOf::parameter("ws"))
}

/// The path of a nested router.
pub(crate) const NEST: &str = "/nest/workspaces/{ws}";
/// The paths in the nested router that need a key.
pub(crate) fn nested() -> Vec<(&'static str, Requirement)> {
    vec![
        ("/templates", after_workspaces()),
        ("/workspaces/{id}", after_workspaces()),
        ("/seals", by_parameter()),
    ]
}

/// Served for valid keys, and for requests without credentials.
pub(crate) const PERHAPS: &str = "/perhaps";
/// Served for `GET` only, with any key.
pub(crate) const GET_ONLY: &str = "/get";
/// Public; the response describes the caller.
pub(crate) const MAYBE: &str = "/maybe";
/// Requires a key, but its layer was forgotten.
pub(crate) const FORGOTTEN: &str = "/forgotten/{id}";
/// Public; keys are not checked.
pub(crate) const PUBLIC: &str = "/healthz";

/// The response of every handler: the principal.
pub(crate) fn whoami(principal: Option<&KeyPrincipal>) -> String {
    let Some(principal) = principal else {
        return "nobody".into();
    };
    let actor = principal.actor();
    let ip = principal
        .client_ip()
        .map_or("no address".into(), |ip| ip.to_string());
    let scopes = match principal.scopes().names() {
        none if none.is_empty() => "nothing".into(),
        some => some.join(","),
    };
    let (user, tenant) = (
        actor.user_id.map_or("-", |id| id.as_str()),
        &principal.owner().tenant_id,
    );
    format!(
        "{} {} {user} of {tenant} in {} from {ip} may {scopes}",
        principal.key_id(),
        actor.mode,
        principal.environment()
    )
}
