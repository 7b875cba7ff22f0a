//! Access to the management API: operators manage keys in their own tenant only.

use crate::common::manage::{assert_problem, ids, list};
use crate::common::{Call, Server};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Every call of the management API, for this key.
fn every_call(id: &str) -> [Call; 4] {
    [
        Call::get("/admin/keys"),
        Call::post("/admin/keys").json(&json!({ "name": "n" })),
        Call::get(&format!("/admin/keys/{id}")),
        Call::post(&format!("/admin/keys/{id}/revoke")),
    ]
}

#[test]
fn without_a_token_nothing_is_managed() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    for call in every_call(issued.id()) {
        let answer = server.send(&call);
        let detail = assert_problem(&answer, 401, "MISSING_KEY", &[r#"Bearer realm="api""#]);
        assert_eq!(detail, "An operator token is required");
    }
    assert_eq!(ids(&list(&server, "owner", "")), [issued.id()]);
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
}

#[test]
fn with_a_wrong_token_nothing_is_managed() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let owner = server.operator("owner");
    for value in [
        "Bearer nobody".to_owned(),
        format!("Bearer op_{}", "0".repeat(64)),
        format!("Bearer {}", &owner[..owner.len() - 1]),
        format!("Bearer {owner}0"),
        format!("Bearer {}", owner.to_uppercase()),
        format!("Bearer {}", issued.key),
    ] {
        for call in every_call(issued.id()) {
            let answer = server.send(&call.authorization(&value));
            assert_problem(
                &answer,
                401,
                "INVALID_KEY",
                &[r#"Bearer realm="api", error="invalid_token""#],
            );
        }
    }
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
    assert_eq!(ids(&list(&server, "owner", "")), [issued.id()]);
}

#[test]
fn another_scheme_counts_as_no_token_and_two_tokens_are_an_error() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let owner = server.operator("owner");
    for value in [
        format!("Basic {}", STANDARD.encode(format!("{owner}:"))),
        format!("Token {owner}"),
        owner.clone(),
        String::new(),
    ] {
        for call in every_call(issued.id()) {
            let answer = server.send(&call.authorization(&value));
            assert_problem(&answer, 401, "MISSING_KEY", &[r#"Bearer realm="api""#]);
        }
    }
    for value in [
        format!("Bearer {owner}, Bearer {owner}"),
        format!("Bearer {owner} {owner}"),
        "Bearer ".to_owned(),
    ] {
        for call in every_call(issued.id()) {
            assert_problem(
                &server.send(&call.authorization(&value)),
                400,
                "INVALID_REQUEST",
                &[],
            );
        }
    }
    for call in every_call(issued.id()) {
        assert_problem(
            &server.send(&call.bearer(&owner).bearer(&owner)),
            400,
            "INVALID_REQUEST",
            &[],
        );
    }
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
}

#[test]
fn a_token_in_the_query_or_a_cookie_is_not_read() {
    let server = Server::of("allsign");
    let owner = server.operator("owner");
    for call in [
        Call::get(&format!("/admin/keys?access_token={owner}")),
        Call::get("/admin/keys").field("Cookie", format!("token={owner}")),
        Call::get("/admin/keys").field("X-API-Key", &owner),
    ] {
        assert_problem(
            &server.send(&call),
            401,
            "MISSING_KEY",
            &[r#"Bearer realm="api""#],
        );
    }
}

#[test]
fn members_manage_nothing() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    for call in every_call(issued.id()) {
        let answer = server.send(&call.bearer(&server.operator("member")));
        assert_problem(&answer, 403, "FORBIDDEN", &[]);
    }
    assert_eq!(ids(&list(&server, "owner", "")), [issued.id()]);
    assert_eq!(server.record(issued.id())["status"], "active");
}

#[test]
fn another_tenants_keys_are_as_unknown_as_unknown_ones() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "name": "secret plan" }));
    let unknown = [
        "key_0000000000000000000000",
        "key_",
        "x",
        "..%2fkeys",
        "%20",
        "%00",
    ];
    let show = |id: &str| {
        server
            .admin("outsider", Call::get(&format!("/keys/{id}")))
            .timeless()
    };
    let revoke = |id: &str| {
        server
            .admin("outsider", Call::post(&format!("/keys/{id}/revoke")))
            .timeless()
    };
    let (shown, revoked) = (show(issued.id()), revoke(issued.id()));
    assert_eq!(
        assert_problem(&shown, 404, "NOT_FOUND", &[]),
        "Key not found"
    );
    assert_problem(&revoked, 404, "NOT_FOUND", &[]);
    for id in unknown {
        assert_eq!(show(id), shown, "{id}");
        assert_eq!(revoke(id), revoked, "{id}");
    }
    // The body is not read for an unknown key, so it reveals nothing either.
    for body in ["{", r#"{"reason":1}"#] {
        let call = |id: &str| Call::post(&format!("/keys/{id}/revoke")).body(body);
        let answer = server.admin("outsider", call(issued.id())).timeless();
        assert_eq!(
            answer,
            server.admin("outsider", call(unknown[0])).timeless()
        );
    }
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
    assert_eq!(server.record(issued.id())["status"], "active");
}

#[test]
fn an_operator_cannot_issue_into_another_tenant() {
    let server = Server::of("allsign");
    for (operator, tenant) in [
        ("owner", "tenant_xyz789"),
        ("outsider", "tenant_abc123"),
        ("owner", "tenant_unknown"),
        ("owner", "TENANT_ABC123"),
        ("owner", "tenant_abc123 "),
        ("owner", ""),
        ("owner", "*"),
    ] {
        let body = json!({ "name": "n", "owner": { "tenant_id": tenant } });
        let answer = server.admin(operator, Call::post("/keys").json(&body));
        assert_problem(&answer, 403, "FORBIDDEN", &[]);
    }
    for operator in ["owner", "outsider"] {
        assert_eq!(ids(&list(&server, operator, "")), [""; 0]);
    }
    let own = server.issue(json!({ "owner": { "tenant_id": "tenant_abc123" } }));
    assert_eq!(own.record["owner"], json!({ "tenant_id": "tenant_abc123" }));
}

#[test]
fn unknown_management_paths_are_404_problems_and_methods_405() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    for path in [
        "/admin",
        "/admin/nowhere",
        "/admin/keys/",
        "/admin/keys/x/y",
        "/admin/keys/x/revoke/",
    ] {
        let answer = server.send(&Call::get(path).bearer(&server.operator("owner")));
        assert_problem(&answer, 404, "NOT_FOUND", &[]);
    }
    for (method, path) in [
        ("PUT", "/keys"),
        ("PUT", "/keys/x"),
        ("GET", "/keys/x/revoke"),
        ("DELETE", "/keys"),
    ] {
        assert_eq!(
            server.admin("owner", Call::new(method, path)).status,
            405,
            "{method} {path}"
        );
    }
    assert_eq!(server.record(issued.id())["status"], "active");
}

#[test]
fn no_path_below_admin_answers_in_the_profiles_words() {
    let server = Server::of("allsign");
    for path in ["/admin/", "/admin//", "/admin//keys", "/admin/%6beys"] {
        assert_problem(&server.send(&Call::get(path)), 404, "NOT_FOUND", &[]);
    }
}
