//! Every route enforces exactly the requirement in the contract: each scope of the vocabulary is
//! tried on each route.
//!
//! Also covers unknown paths and methods, CORS, `HEAD`, and the two paths that all profiles have.

use std::collections::BTreeSet;

use crate::common::{Answer, Call, Issued, Server, USER, assert_refused};
use serde_json::{Value, json};

/// A route: method, path, the status if permitted, and the required scope or alternative scopes.
type Route = (&'static str, &'static str, u16, &'static [&'static str]);

const ALLSIGN: &[Route] = &[
    ("GET", "/v2/documents", 200, &["document:read"]),
    (
        "POST",
        "/v2/documents",
        201,
        &["document:write", "document:*"],
    ),
    (
        "DELETE",
        "/v2/documents/document_0",
        404,
        &["document:delete"],
    ),
    ("GET", "/v2/signatures", 200, &["signature:read"]),
    ("POST", "/v2/signatures", 201, &["signature:write"]),
];

const ALLSIGN_SCOPES: &[&str] = &[
    "document:read",
    "document:write",
    "document:delete",
    "document:*",
    "signature:read",
    "signature:write",
    "signature:*",
    "*",
];

const INSIGNER: &[Route] = &[
    ("GET", "/api/v1/documents", 200, &["documents.read"]),
    ("POST", "/api/v1/documents", 201, &["documents.create"]),
    (
        "GET",
        "/api/v1/documents/document_0",
        404,
        &["documents.read"],
    ),
    (
        "PUT",
        "/api/v1/documents/document_0",
        404,
        &["documents.write"],
    ),
    (
        "DELETE",
        "/api/v1/documents/document_0",
        404,
        &["documents.delete"],
    ),
    (
        "POST",
        "/api/v1/documents/document_0/send",
        404,
        &["documents.send"],
    ),
    ("GET", "/api/v1/templates", 200, &["templates.read"]),
    ("GET", "/api/v1/campaigns", 200, &["campaigns.read"]),
    ("POST", "/api/v1/campaigns", 201, &["campaigns.create"]),
    (
        "PUT",
        "/api/v1/campaigns/campaign_0",
        404,
        &["campaigns.update"],
    ),
    (
        "DELETE",
        "/api/v1/campaigns/campaign_0",
        404,
        &["campaigns.delete"],
    ),
    ("GET", "/api/v1/webhooks", 200, &["webhooks.read"]),
    ("POST", "/api/v1/webhooks", 201, &["webhooks.create"]),
    (
        "PUT",
        "/api/v1/webhooks/webhook_0",
        404,
        &["webhooks.update"],
    ),
    (
        "DELETE",
        "/api/v1/webhooks/webhook_0",
        404,
        &["webhooks.delete"],
    ),
    ("GET", "/api/v1/bulk_sends", 200, &["bulk_sends.read"]),
    ("POST", "/api/v1/bulk_sends", 201, &["bulk_sends.create"]),
    (
        "DELETE",
        "/api/v1/bulk_sends/bulk_send_0",
        404,
        &["bulk_sends.delete"],
    ),
    ("GET", "/api/v1/org", 200, &["org.read"]),
];

const INSIGNER_SCOPES: &[&str] = &[
    "*",
    "documents.*",
    "documents.read",
    "documents.create",
    "documents.write",
    "documents.send",
    "documents.delete",
    "templates.*",
    "templates.read",
    "campaigns.*",
    "campaigns.read",
    "campaigns.create",
    "campaigns.update",
    "campaigns.delete",
    "bulk_sends.*",
    "bulk_sends.read",
    "bulk_sends.create",
    "bulk_sends.delete",
    "webhooks.*",
    "webhooks.read",
    "webhooks.create",
    "webhooks.update",
    "webhooks.delete",
    "org.*",
    "org.read",
];

const DROPBOX: &[Route] = &[
    ("GET", "/v3/account", 200, &["account_access"]),
    ("GET", "/v3/template/list", 200, &["template_access"]),
    (
        "GET",
        "/v3/signature_request/list",
        200,
        &["signature_request_access"],
    ),
    (
        "POST",
        "/v3/signature_request/send",
        200,
        &["signature_request_access"],
    ),
];

const DROPBOX_SCOPES: &[&str] = &[
    "account_access",
    "template_access",
    "signature_request_access",
    "*",
];

/// The grants that satisfy a requirement: the scope itself, `*`, and the wildcard of its family.
fn meets(grant: &str, demanded: &[&str]) -> bool {
    let family = |scope: &str| {
        scope
            .rfind([':', '.'])
            .map(|at| format!("{}*", &scope[..=at]))
    };
    grant == "*"
        || demanded
            .iter()
            .any(|scope| grant == *scope || family(scope).as_deref() == Some(grant))
}

/// Tries every key on every route.
fn assert_requirements(
    server: &Server,
    routes: &[Route],
    keys: &[(&str, Issued)],
    send: impl Fn(Call, &str) -> Answer,
) {
    for (method, path, allowed, demanded) in routes {
        for (grant, issued) in keys {
            let call = if *method == "GET" {
                Call::get(path)
            } else {
                Call::new(method, path).body("{}")
            };
            let answer = send(call, &issued.key);
            let wanted = if meets(grant, demanded) {
                *allowed
            } else {
                403
            };
            assert_eq!(
                answer.status,
                wanted,
                "{grant:?} on {method} {path}: {}",
                answer.text()
            );
            let realm = &server.profile;
            let challenge = format!(
                r#"Bearer realm="{realm}", error="insufficient_scope", scope="{}""#,
                demanded[0]
            );
            let challenges = if wanted == 403 {
                vec![challenge.as_str()]
            } else {
                vec![]
            };
            assert_eq!(
                answer.fields("www-authenticate"),
                challenges,
                "{grant:?} on {method} {path}"
            );
        }
    }
}

fn scoped_keys<'s>(server: &Server, scopes: &[&'s str]) -> Vec<(&'s str, Issued)> {
    let mut keys: Vec<_> = scopes
        .iter()
        .map(|scope| (*scope, server.issue_scoped(&[scope])))
        .collect();
    keys.push(("", server.issue_scoped(&[])));
    keys
}

#[test]
fn allsign_routes_enforce_the_contract() {
    let server = Server::of("allsign");
    let keys = scoped_keys(&server, ALLSIGN_SCOPES);
    assert_requirements(&server, ALLSIGN, &keys, |call, key| {
        server.send(&call.bearer(key))
    });
}

#[test]
fn insigner_routes_enforce_the_contract() {
    let server = Server::of("insigner");
    let keys = scoped_keys(&server, INSIGNER_SCOPES);
    assert_requirements(&server, INSIGNER, &keys, |call, key| {
        server.send(&call.bearer(key))
    });
}

#[test]
fn dropbox_routes_require_oauth_scopes_for_access_tokens() {
    let server = Server::of("dropbox-sign");
    let token = |scopes: &[&str]| {
        server.issue(
            json!({ "kind": "access_token", "owner": { "user_id": USER }, "scopes": scopes }),
        )
    };
    let mut keys: Vec<_> = DROPBOX_SCOPES
        .iter()
        .map(|scope| (*scope, token(&[scope])))
        .collect();
    keys.push(("", token(&[])));
    assert_requirements(&server, DROPBOX, &keys, |call, key| {
        server.send(&call.bearer(key))
    });
}

#[test]
fn dropbox_api_keys_may_do_everything() {
    let server = Server::of("dropbox-sign");
    let keys = [("*", server.issue(json!({})))];
    assert_requirements(&server, DROPBOX, &keys, |call, key| {
        server.send(&call.basic(format!("{key}:")))
    });
}

#[test]
fn two_scopes_permit_only_what_each_of_them_permits() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["document:read", "signature:write"]);
    let statuses = ALLSIGN.iter().map(|(method, path, ..)| {
        server
            .send(&Call::new(method, path).body("").bearer(&issued.key))
            .status
    });
    assert_eq!(statuses.collect::<Vec<_>>(), [200, 403, 403, 403, 201]);
}

#[test]
fn every_route_needs_a_key() {
    for (profile, routes) in [
        ("allsign", ALLSIGN),
        ("insigner", INSIGNER),
        ("dropbox-sign", DROPBOX),
    ] {
        let server = Server::of(profile);
        for (method, path, ..) in routes {
            let answer = server.send(&Call::new(method, path).body("{}"));
            assert_eq!(answer.status, 401, "{profile} {method} {path}");
        }
    }
}

#[test]
fn an_unknown_path_is_404_in_the_profiles_words_with_and_without_a_key() {
    for (profile, body) in [
        ("allsign", r#"{"detail": "Not Found"}"#),
        (
            "insigner",
            concat!(
                r#"{ "type": "https://docs.insigner.com/errors/not-found", "#,
                r#""title": "Not Found", "status": 404, "#,
                r#""detail": "Not found", "code": "NOT_FOUND"}"#
            ),
        ),
        (
            "yousign",
            concat!(
                r#"{"type":"about:blank","title":"Not Found","status":404,"#,
                r#""detail":"Not found","code":"NOT_FOUND"}"#
            ),
        ),
        (
            "iusign",
            concat!(
                r#"{"type":"about:blank","title":"Not Found","status":404,"#,
                r#""detail":"Not found","code":"NOT_FOUND"}"#
            ),
        ),
        (
            "dropbox-sign",
            r#"{"error":{"error_msg":"Not found","error_name":"not_found"}}"#,
        ),
    ] {
        let server = Server::of(profile);
        let issued = server.issue(json!({}));
        for path in [
            "/nowhere",
            "/",
            "/v2",
            "/whoami/",
            "/healthz/x",
            "//whoami",
            "/WHOAMI",
        ] {
            let without = server.send(&Call::get(path));
            assert_eq!(
                (without.status, without.text().as_str()),
                (404, body),
                "{profile} {path}"
            );
            assert_eq!(without.fields("www-authenticate"), [""; 0]);
            assert_eq!(
                server.get(path, &issued.key).timeless(),
                without.timeless(),
                "{profile} {path}"
            );
        }
    }
}

#[test]
fn no_spelling_of_a_path_gets_around_the_key() {
    let server = Server::of("allsign");
    for target in [
        "/v2/documents/",
        "/v2//documents",
        "/v2/./documents",
        "/v2/x/../documents",
        "/v2/%64ocuments",
        "/v2/documents%2f",
        "/v2/documents;a=b",
        "/v2/documents%00",
        "/healthz/../v2/documents",
        "/healthz/..%2fv2/documents",
        "/V2/Documents",
        "/v2/documents?x=/healthz",
        "/v2/documents#/healthz",
        "http://localhost/v2/documents",
        "http://user:password@localhost/v2/documents",
        "http://other.example/v2/documents",
    ] {
        let status = server.send(&Call::get(target)).status;
        assert!([400, 401, 404].contains(&status), "{target}: {status}");
    }
    server.assert_alive();
}

#[test]
fn an_absolute_target_is_the_same_route() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["document:read"]);
    assert_eq!(
        server
            .get("http://localhost/v2/documents", &issued.key)
            .text(),
        r#"{"documents":[]}"#
    );
    assert_eq!(
        server
            .send(&Call::get("http://localhost/v2/documents"))
            .status,
        401
    );
}

#[test]
fn a_known_path_checks_the_key_before_the_method() {
    for (profile, path, allowed) in [
        ("allsign", "/v2/documents", "GET HEAD POST"),
        ("allsign", "/v2/documents/1", "DELETE"),
        ("allsign", "/whoami", "GET HEAD"),
        ("insigner", "/api/v1/documents/1", "DELETE GET HEAD PUT"),
        ("insigner", "/api/v1/documents/1/send", "POST"),
        ("dropbox-sign", "/v3/signature_request/send", "POST"),
    ] {
        let server = Server::of(profile);
        let issued = server.issue(json!({}));
        for method in ["PATCH", "TRACE", "OPTIONS", "BREW", "get"] {
            let without = server.send(&Call::new(method, path));
            assert_eq!(without.status, 401, "{profile} {method} {path}");
            assert_eq!(
                without.fields("www-authenticate").len(),
                if profile == "dropbox-sign" { 2 } else { 1 }
            );
            let with = server.send(&server.with_key(Call::new(method, path), &issued.key));
            assert_eq!(
                with.status,
                405,
                "{profile} {method} {path}: {}",
                with.text()
            );
            let allow: BTreeSet<_> = with.fields("allow")[0]
                .split(',')
                .map(str::trim)
                .map(str::to_owned)
                .collect();
            assert_eq!(
                allow.into_iter().collect::<Vec<_>>().join(" "),
                allowed,
                "{profile} {method} {path}"
            );
        }
    }
}

#[test]
fn a_method_override_is_not_listened_to() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["document:read"]);
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        let call = Call::get("/v2/documents?_method=DELETE")
            .field(name, "POST")
            .bearer(&issued.key);
        assert_eq!(server.send(&call).text(), r#"{"documents":[]}"#);
    }
    for name in ["X-Original-URL", "X-Rewrite-URL"] {
        assert_eq!(
            server
                .send(&Call::get("/v2/documents").field(name, "/healthz"))
                .status,
            401
        );
    }
}

#[test]
fn a_plain_options_is_a_request_like_any_other() {
    let server = Server::of("allsign");
    for call in [
        Call::new("OPTIONS", "/v2/documents"),
        Call::new("OPTIONS", "/v2/documents").field("Origin", "https://app.example"),
        Call::new("OPTIONS", "/v2/documents").field("Access-Control-Request-Method", "POST"),
    ] {
        assert_refused(
            &server.send(&call),
            401,
            "application/json",
            r#"{"detail": "Missing Authorization header. Use: Authorization: Bearer allsign_live_sk_xxx"}"#,
            &[r#"Bearer realm="allsign""#],
        );
    }
}

#[test]
fn a_preflight_is_answered_without_a_key() {
    for profile in ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"] {
        let server = Server::of(profile);
        for path in ["/whoami", "/healthz", "/administration", "/nowhere"] {
            let preflight = Call::new("OPTIONS", path)
                .field("Origin", "https://app.example")
                .field("Access-Control-Request-Method", "DELETE")
                .field("Access-Control-Request-Headers", "authorization,x-user-id");
            let answer = server.send(&preflight);
            assert_eq!(answer.status, 204, "{profile} {path}");
            assert_eq!(answer.body, b"");
            assert_eq!(answer.fields("access-control-allow-origin"), ["*"]);
            assert_eq!(answer.fields("access-control-allow-methods"), ["DELETE"]);
            assert_eq!(
                answer.fields("access-control-allow-headers"),
                ["authorization,x-user-id"]
            );
            assert_eq!(answer.fields("access-control-max-age"), ["600"]);
            assert_eq!(answer.fields("access-control-allow-credentials"), [""; 0]);
            assert_eq!(answer.fields("www-authenticate"), [""; 0]);
        }
    }
}

#[test]
fn a_preflight_carries_no_request_through() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let preflight = Call::new("OPTIONS", "/v2/documents")
        .field("Origin", "https://app.example")
        .field("Access-Control-Request-Method", "POST")
        .bearer(&issued.key)
        .json(&json!({ "title": "smuggled" }));
    assert_eq!(server.send(&preflight).status, 204);
    assert_eq!(
        server.get("/v2/documents", &issued.key).text(),
        r#"{"documents":[]}"#
    );
}

#[test]
fn refusals_can_be_read_across_origins() {
    let server = Server::of("allsign");
    let weak = server.issue_scoped(&["signature:read"]);
    let origin = |call: Call| call.field("Origin", "https://app.example");
    for (status, call) in [
        (200, Call::get("/healthz")),
        (400, Call::get("/v2/documents").bearer("a, Bearer b")),
        (401, Call::get("/v2/documents")),
        (403, Call::get("/v2/documents").bearer(&weak.key)),
        (404, Call::get("/nowhere")),
        (405, Call::new("PATCH", "/v2/documents").bearer(&weak.key)),
        // Not a preflight.
        (401, Call::new("OPTIONS", "/v2/documents")),
        (405, Call::new("OPTIONS", "/v2/documents").bearer(&weak.key)),
    ] {
        let answer = server.send(&origin(call));
        assert_eq!(answer.status, status);
        assert_eq!(
            answer.fields("access-control-allow-origin"),
            ["*"],
            "{status}"
        );
        assert_eq!(
            answer.fields("access-control-allow-credentials"),
            [""; 0],
            "{status}"
        );
        let exposed = answer.fields("access-control-expose-headers").join(",");
        for name in ["www-authenticate", "retry-after"] {
            assert!(
                exposed.split(',').any(|known| known.trim() == name),
                "{status}: {exposed}"
            );
        }
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["document:read"]);
    for (target, key, status) in [
        ("/healthz", None, 200),
        ("/v2/documents", None, 401),
        ("/v2/documents", Some(&issued.key), 200),
        ("/v2/signatures", Some(&issued.key), 403),
        ("/nowhere", None, 404),
    ] {
        let call = |method: &str| match key {
            Some(key) => Call::new(method, target).bearer(key),
            None => Call::new(method, target),
        };
        let (head, get) = (
            server.send(&call("HEAD")).timeless(),
            server.send(&call("GET")).timeless(),
        );
        assert_eq!(get.status, status, "{target}");
        assert_eq!(
            head,
            Answer {
                body: Vec::new(),
                ..get
            },
            "{target}"
        );
    }
    let call = Call::new("HEAD", "/v2/documents/1").bearer(&issued.key);
    assert_eq!(
        server.send(&call).status,
        405,
        "only what can be got has a head"
    );
}

#[test]
fn healthz_needs_no_key_and_looks_at_none() {
    for profile in ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"] {
        let server = Server::of(profile);
        server.assert_alive();
        for call in [
            Call::get("/healthz").bearer("no key at all"),
            Call::get("/healthz").bearer("a").bearer("b"),
            Call::get("/healthz").field("X-User-Id", ""),
        ] {
            assert_eq!(server.send(&call).text(), r#"{"status":"ok"}"#, "{profile}");
        }
        assert_eq!(server.send(&Call::post("/healthz")).status, 405);
    }
}

#[test]
fn whoami_returns_exactly_the_principal() {
    let user = json!({ "user_id": USER, "user_email": "user@example.com" });
    for (profile, body, environment, mode, owner, scopes) in [
        ("allsign", json!({}), "live", "app", json!({}), json!([])),
        (
            "allsign",
            json!({ "environment": "test", "scopes": ["document:read", "signature:*"] }),
            "test",
            "app",
            json!({}),
            json!(["document:read", "signature:*"]),
        ),
        (
            "allsign",
            json!({ "kind": "user", "owner": user }),
            "live",
            "user",
            user.clone(),
            json!([]),
        ),
        (
            "insigner",
            json!({ "scopes": ["*"] }),
            "production",
            "app",
            json!({}),
            json!(["*"]),
        ),
        (
            "yousign",
            json!({ "environment": "sandbox" }),
            "sandbox",
            "app",
            json!({}),
            json!([]),
        ),
        (
            "iusign",
            json!({ "environment": "staging" }),
            "staging",
            "app",
            json!({}),
            json!([]),
        ),
        (
            "dropbox-sign",
            json!({}),
            "production",
            "app",
            json!({}),
            json!(["*"]),
        ),
    ] {
        let server = Server::of(profile);
        let issued = server.issue(body.clone());
        let mut owner: Value = owner;
        let actor =
            json!({ "user_id": owner.get("user_id"), "user_email": owner.get("user_email") });
        owner["tenant_id"] = "tenant_abc123".into();
        let expected = json!({
            "key_id": issued.record["id"],
            "environment": environment,
            "mode": mode,
            "owner": owner,
            "actor": actor,
            "tenant_id": "tenant_abc123",
            "scopes": scopes,
        });
        assert_eq!(
            server.get("/whoami", &issued.key).json(),
            expected,
            "{profile} {body}"
        );
    }
}

#[test]
fn data_is_apart_by_tenant() {
    let server = Server::of("allsign");
    let ours = server.issue_scoped(&["*"]);
    let theirs = server.issue_as("outsider", json!({ "scopes": ["*"] }));
    let made = server
        .send(
            &Call::post("/v2/documents")
                .bearer(&ours.key)
                .json(&json!({ "title": "ours" })),
        )
        .json();
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        server.get("/v2/documents", &theirs.key).text(),
        r#"{"documents":[]}"#
    );
    let remove =
        |key: &str| server.send(&Call::new("DELETE", &format!("/v2/documents/{id}")).bearer(key));
    let unknown =
        server.send(&Call::new("DELETE", "/v2/documents/document_999").bearer(&theirs.key));
    assert_eq!(remove(&theirs.key).timeless(), unknown.timeless());
    assert_eq!(
        server.get("/v2/documents", &ours.key).json()["documents"],
        json!([made])
    );
    assert_eq!(remove(&ours.key).status, 204);
    assert_eq!(
        server.get("/v2/documents", &ours.key).text(),
        r#"{"documents":[]}"#
    );
    assert_eq!(
        server.get("/whoami", &theirs.key).json()["tenant_id"],
        "tenant_xyz789"
    );
}

#[test]
fn an_id_that_is_not_utf_8_is_unknown_like_any_other() {
    for (profile, method, path) in [
        ("allsign", "DELETE", "/v2/documents/"),
        ("insigner", "GET", "/api/v1/documents/"),
        ("insigner", "DELETE", "/api/v1/bulk_sends/"),
        ("iusign", "GET", "/v1/envelopes/"),
    ] {
        let server = Server::of(profile);
        let scopes = match profile {
            "iusign" => json!({}),
            _ => json!({ "scopes": ["*"] }),
        };
        let issued = server.issue(scopes);
        let of = |id: &str| {
            let call = Call::new(method, &format!("{path}{id}"));
            server.send(&server.with_key(call, &issued.key))
        };
        let unknown = of("unknown");
        assert_eq!(unknown.status, 404, "{path}: {}", unknown.text());
        for id in ["%FF", "%ED%A0%80", "a%C3"] {
            let answer = of(id);
            assert_eq!(answer.status, 404, "{path}{id}");
            assert_eq!(answer.text(), unknown.text(), "{path}{id}");
            assert_eq!(answer.fields("cache-control"), ["no-store"], "{path}{id}");
        }
    }
    let server = Server::of("allsign");
    let unknown = |id: &str| {
        let call = Call::new("PUT", &format!("/demo/users/{id}"));
        let call = call.json(&json!({ "suspended": true }));
        let answer = server.send(&call.bearer(&server.operator("owner")));
        (answer.status, answer.text())
    };
    assert_eq!(unknown("%FF"), unknown("nobody"));
    assert_eq!(unknown("%FF").0, 404);
}
