//! AllSign's actor modes from outside: an application as itself, as a user, or on behalf of a user;
//! and users whose standing changes while their keys are in use.

use crate::common::manage::{assert_problem, ids, list};
use crate::common::{
    Answer, Call, Issued, MEMBER, MEMBER_EMAIL, NOBODY, OUTSIDER, PLATFORM, Server, USER,
    assert_refused,
};
use serde_json::{Value, json};

const FORBIDDEN: &str = r#"{"detail": "The API key is not allowed to act for this user"}"#;
const SUSPENDED: &str = r#"{"detail": "The owner of the API key is suspended"}"#;

/// The platform's application key.
fn platform(server: &Server) -> Issued {
    let owner = json!({ "user_id": PLATFORM, "user_email": "platform@app.com" });
    server.issue(json!({ "name": "platform", "scopes": ["document:read", "document:write"], "owner": owner }))
}

fn whoami(server: &Server, key: &str, name: &str, value: &str) -> Answer {
    server.send(&Call::get("/whoami").bearer(key).field(name, value))
}

/// `PUT /demo/users/{id}` by this operator.
fn put_user(server: &Server, operator: &str, id: &str, body: &Value) -> Answer {
    let call = Call::new("PUT", &format!("/demo/users/{id}")).bearer(&server.operator(operator));
    server.send(&call.json(body))
}

/// `PUT /demo/users/{id}` by the owner, who is permitted.
fn change_user(server: &Server, id: &str, body: &Value) -> Value {
    let answer = put_user(server, "owner", id, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    answer.json()
}

// ---- modes ----

#[test]
fn every_mode_reports_the_actor_and_the_key_owner() {
    let server = Server::of("allsign");
    let app = platform(&server);
    let user = server.issue(json!({
        "kind": "user",
        "owner": { "user_id": USER, "user_email": "user@example.com" },
        "scopes": ["document:read", "document:write"],
    }));
    let platforms = json!({
        "tenant_id": "tenant_abc123",
        "user_id": PLATFORM,
        "user_email": "platform@app.com",
    });
    let users =
        json!({ "tenant_id": "tenant_abc123", "user_id": USER, "user_email": "user@example.com" });
    let (upper, shouted) = (MEMBER.to_uppercase(), MEMBER_EMAIL.to_uppercase());
    let who = |id: &str, email: &str| json!({ "user_id": id, "user_email": email });
    let member = || who(MEMBER, MEMBER_EMAIL);
    for (issued, field, mode, owner, actor) in [
        (&user, None, "user", &users, who(USER, "user@example.com")),
        (
            &user,
            Some(("X-User-Id", USER)),
            "user",
            &users,
            who(USER, "user@example.com"),
        ),
        (
            &app,
            None,
            "app",
            &platforms,
            who(PLATFORM, "platform@app.com"),
        ),
        (
            &app,
            Some(("X-User-Id", MEMBER)),
            "app_user",
            &platforms,
            member(),
        ),
        (
            &app,
            Some(("X-User-Id", &*upper)),
            "app_user",
            &platforms,
            member(),
        ),
        (
            &app,
            Some(("x-user-id", PLATFORM)),
            "app_user",
            &platforms,
            who(PLATFORM, "platform@app.com"),
        ),
        (
            &app,
            Some(("X-On-Behalf-Email", MEMBER_EMAIL)),
            "app_user",
            &platforms,
            member(),
        ),
        (
            &app,
            Some(("X-On-Behalf-Email", &*shouted)),
            "app_user",
            &platforms,
            member(),
        ),
        (
            &app,
            Some(("X-On-Behalf-Of", MEMBER_EMAIL)),
            "delegated",
            &platforms,
            member(),
        ),
        (
            &app,
            Some(("X-On-Behalf-Of", &*shouted)),
            "delegated",
            &platforms,
            member(),
        ),
        (
            &app,
            Some(("X-On-Behalf-Of", MEMBER)),
            "delegated",
            &platforms,
            member(),
        ),
        (
            &app,
            Some(("X-On-Behalf-Of", &*upper)),
            "delegated",
            &platforms,
            member(),
        ),
    ] {
        let mut call = Call::get("/whoami").bearer(&issued.key);
        if let Some((name, value)) = field {
            call = call.field(name, value);
        }
        let answer = server.send(&call);
        let expected = json!({
            "key_id": issued.record["id"],
            "environment": "live",
            "mode": mode,
            "owner": owner,
            "actor": actor,
            "tenant_id": "tenant_abc123",
            "scopes": ["document:read", "document:write"],
        });
        assert_eq!((answer.status, answer.json()), (200, expected), "{field:?}");
        // A client that names a user by email receives the id for later requests.
        let by_email = field.is_some_and(|(name, _)| name == "X-On-Behalf-Email");
        assert_eq!(
            answer.fields("x-user-id"),
            if by_email { vec![MEMBER] } else { vec![] },
            "{field:?}"
        );
    }
}

#[test]
fn the_id_is_also_returned_on_refusals_by_the_route_and_never_for_unknown_users() {
    let server = Server::of("allsign");
    let app = platform(&server);
    let ask = |email: &str| {
        server.send(
            &Call::get("/v2/signatures")
                .bearer(&app.key)
                .field("X-On-Behalf-Email", email),
        )
    };
    let member = ask(MEMBER_EMAIL);
    assert_eq!(
        (member.status, member.fields("x-user-id")),
        (403, vec![MEMBER])
    );
    for email in ["nobody@example.com", "outsider@example.com"] {
        let answer = ask(email);
        assert_eq!(
            (answer.status, answer.fields("x-user-id")),
            (403, vec![]),
            "{email}"
        );
    }
}

#[test]
fn documents_created_for_a_user_belong_to_the_tenant() {
    let server = Server::of("allsign");
    let app = platform(&server);
    let made = |title: &str, name: &str, value: &str| {
        let call = Call::post("/v2/documents")
            .bearer(&app.key)
            .field(name, value);
        let answer = server.send(&call.json(&json!({ "title": title })));
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    made("one", "X-User-Id", MEMBER);
    made("two", "X-On-Behalf-Of", MEMBER_EMAIL);
    let titles = |answer: &Answer| {
        let documents = answer.json()["documents"].as_array().unwrap().clone();
        documents
            .iter()
            .map(|document| document["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        titles(&server.get("/v2/documents", &app.key)),
        ["one", "two"]
    );
    let as_member = server.send(
        &Call::get("/v2/documents")
            .bearer(&app.key)
            .field("X-User-Id", MEMBER),
    );
    assert_eq!(titles(&as_member), ["one", "two"]);
    let theirs = server.issue_as("outsider", json!({ "scopes": ["*"] }));
    assert_eq!(
        server.get("/v2/documents", &theirs.key).text(),
        r#"{"documents":[]}"#
    );
}

#[test]
fn acting_for_a_user_widens_nothing() {
    let server = Server::of("allsign");
    let app = server.issue_scoped(&["document:read"]);
    for (name, value) in [
        ("X-User-Id", PLATFORM),
        ("X-On-Behalf-Of", PLATFORM),
        ("X-On-Behalf-Email", "platform@app.com"),
    ] {
        let with = |call: Call| server.send(&call.bearer(&app.key).field(name, value));
        assert_eq!(with(Call::get("/v2/documents")).status, 200);
        let refused = with(Call::post("/v2/documents").json(&json!({})));
        assert_eq!(refused.status, 403);
        assert_eq!(
            refused.text(),
            concat!(
                r#"{"detail": "Insufficient permissions. Requires ANY of these scopes: "#,
                r#"document:write, document:*. Your scopes: document:read"}"#
            )
        );
    }
}

#[test]
fn a_key_has_one_quota_for_all_the_users_it_acts_for() {
    let server = Server::of("allsign");
    let limits = json!({ "requests_per_minute": 4 });
    let app = server.issue(json!({ "scopes": ["*"], "rate_limit_config": limits }));
    assert_eq!(whoami(&server, &app.key, "X-User-Id", MEMBER).status, 200);
    assert_eq!(
        whoami(&server, &app.key, "X-On-Behalf-Of", PLATFORM).status,
        200
    );
    let refused = whoami(&server, &app.key, "X-User-Id", NOBODY);
    assert_eq!(
        (refused.status, refused.fields("ratelimit").len()),
        (403, 1)
    );
    assert!(
        refused.fields("ratelimit")[0].starts_with(r#""minute";r=1;"#),
        "{refused:?}"
    );
    assert_eq!(whoami(&server, &app.key, "X-User-Id", "").status, 400);
    for value in [MEMBER, NOBODY, ""] {
        assert_eq!(
            whoami(&server, &app.key, "X-User-Id", value).status,
            429,
            "{value:?}"
        );
    }
}

// ---- whom a key may act for ----

#[test]
fn unknown_foreign_and_suspended_users_are_indistinguishable() {
    let server = Server::of("allsign");
    let app = platform(&server);
    change_user(&server, MEMBER, &json!({ "suspended": true }));
    for (name, refused) in [
        ("X-User-Id", [NOBODY, OUTSIDER, MEMBER]),
        ("X-On-Behalf-Of", [NOBODY, OUTSIDER, MEMBER]),
        (
            "X-On-Behalf-Of",
            ["nobody@example.com", "outsider@example.com", MEMBER_EMAIL],
        ),
        (
            "X-On-Behalf-Email",
            ["nobody@example.com", "outsider@example.com", MEMBER_EMAIL],
        ),
    ] {
        let [unknown, foreign, suspended] =
            refused.map(|value| whoami(&server, &app.key, name, value).timeless());
        assert_refused(&unknown, 403, "application/json", FORBIDDEN, &[]);
        assert_eq!(foreign, unknown, "{name}");
        assert_eq!(suspended, unknown, "{name}");
    }
}

#[test]
fn a_key_cannot_act_for_a_suspended_user() {
    let server = Server::of("allsign");
    let app = platform(&server);
    let statuses = || {
        [
            ("X-User-Id", MEMBER),
            ("X-On-Behalf-Of", MEMBER_EMAIL),
            ("X-On-Behalf-Email", MEMBER_EMAIL),
        ]
        .map(|(name, value)| whoami(&server, &app.key, name, value).status)
    };
    assert_eq!(statuses(), [200; 3]);
    for _ in 0..2 {
        let changed = change_user(&server, MEMBER, &json!({ "suspended": true }));
        assert_eq!(changed["suspended"], true);
        assert_eq!(statuses(), [403; 3]);
        assert_eq!(
            server.get("/whoami", &app.key).status,
            200,
            "the application itself still works"
        );
        assert_eq!(
            whoami(&server, &app.key, "X-User-Id", USER).status,
            200,
            "and acts for others"
        );
        change_user(&server, MEMBER, &json!({ "suspended": false }));
        assert_eq!(statuses(), [200; 3]);
    }
}

#[test]
fn an_application_of_another_tenant_acts_for_its_own_users_only() {
    let server = Server::of("allsign");
    let theirs = server.issue_as("outsider", json!({ "scopes": ["*"] }));
    let own = whoami(&server, &theirs.key, "X-User-Id", OUTSIDER);
    assert_eq!((own.status, &own.json()["mode"]), (200, &json!("app_user")));
    for value in [MEMBER, USER, NOBODY] {
        let answer = whoami(&server, &theirs.key, "X-User-Id", value);
        assert_refused(&answer, 403, "application/json", FORBIDDEN, &[]);
    }
}

// ---- keys of suspended owners ----

#[test]
fn keys_of_a_suspended_user_stop_and_come_back() {
    let server = Server::of("allsign");
    let owner = json!({ "user_id": USER });
    let upper = json!({ "user_id": USER.to_uppercase() });
    let keys = [
        server
            .issue(json!({ "kind": "user", "owner": owner, "scopes": ["*"] }))
            .key,
        server
            .issue(json!({ "kind": "user", "owner": upper, "scopes": ["*"] }))
            .key,
        server
            .issue(json!({ "kind": "app", "owner": owner, "scopes": ["*"] }))
            .key,
    ];
    let others = [server.issue_scoped(&["*"]).key, platform(&server).key];
    for _ in 0..2 {
        for key in keys.iter().chain(&others) {
            assert_eq!(server.get("/v2/documents", key).status, 200);
        }
        change_user(&server, USER, &json!({ "suspended": true }));
        for key in &keys {
            for path in ["/v2/documents", "/whoami"] {
                assert_refused(
                    &server.get(path, key),
                    403,
                    "application/json",
                    SUSPENDED,
                    &[],
                );
            }
        }
        for key in &others {
            assert_eq!(server.get("/v2/documents", key).status, 200);
        }
        change_user(&server, USER, &json!({ "suspended": false }));
    }
}

#[test]
fn a_suspension_is_reported_only_to_the_holder_of_the_key() {
    let server = Server::of("allsign");
    let issued =
        server.issue(json!({ "kind": "user", "owner": { "user_id": USER }, "scopes": ["*"] }));
    let wrong = format!(
        "{}{}",
        &issued.key[..issued.key.len() - 1],
        if issued.key.ends_with('0') { '1' } else { '0' }
    );
    let before = server.get("/whoami", &wrong).timeless();
    change_user(&server, USER, &json!({ "suspended": true }));
    assert_eq!(server.get("/whoami", &wrong).timeless(), before);
    assert_eq!(before.status, 401);
    // Revocation is reported before suspension.
    server.revoke(issued.id());
    assert_eq!(server.get("/whoami", &issued.key).status, 401);
}

#[test]
fn a_role_matters_to_no_key_of_this_api() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "kind": "user", "owner": { "user_id": USER } }));
    for role in ["member", "owner", "admin"] {
        assert_eq!(
            change_user(&server, USER, &json!({ "role": role }))["role"],
            role
        );
        assert_eq!(server.get("/whoami", &issued.key).status, 200, "{role}");
    }
}

// ---- PUT /demo/users/{id} ----

#[test]
fn a_changed_user_is_answered_whole() {
    let server = Server::of("allsign");
    let user = |role: &str, suspended: bool| {
        let (id, email) = (MEMBER, MEMBER_EMAIL);
        json!({
            "id": id,
            "email": email,
            "tenant_id": "tenant_abc123",
            "role": role,
            "suspended": suspended,
        })
    };
    assert_eq!(
        change_user(&server, MEMBER, &json!({})),
        user("member", false)
    );
    assert_eq!(
        change_user(&server, MEMBER, &json!({ "suspended": true })),
        user("member", true)
    );
    assert_eq!(
        change_user(&server, &MEMBER.to_uppercase(), &json!({ "role": "admin" })),
        user("admin", true)
    );
    assert_eq!(
        change_user(
            &server,
            MEMBER,
            &json!({ "role": "owner", "suspended": false })
        ),
        user("owner", false)
    );
}

#[test]
fn only_the_owner_can_change_users() {
    let server = Server::of("allsign");
    let app = platform(&server);
    let suspend = json!({ "suspended": true });
    for operator in ["admin", "member"] {
        for id in [MEMBER, NOBODY, OUTSIDER] {
            assert_problem(
                &put_user(&server, operator, id, &suspend),
                403,
                "FORBIDDEN",
                &[],
            );
        }
    }
    let path = format!("/demo/users/{MEMBER}");
    for call in [
        Call::new("PUT", &path).json(&suspend),
        Call::new("PUT", &path).bearer(&app.key).json(&suspend),
        Call::new("PUT", &path)
            .bearer("op_0000000000000000")
            .json(&suspend),
    ] {
        assert_eq!(server.send(&call).status, 401);
    }
    assert_eq!(
        whoami(&server, &app.key, "X-User-Id", MEMBER).status,
        200,
        "nothing was changed"
    );
}

#[test]
fn another_tenants_user_is_the_404_of_an_unknown_one() {
    let server = Server::of("allsign");
    let app = platform(&server);
    let suspend = json!({ "suspended": true });
    for (operator, ids) in [
        ("outsider", &[MEMBER, USER, PLATFORM][..]),
        ("owner", &[OUTSIDER]),
    ] {
        let unknown = put_user(&server, operator, NOBODY, &suspend);
        assert_problem(&unknown, 404, "NOT_FOUND", &[]);
        for id in ids {
            assert_eq!(
                put_user(&server, operator, id, &suspend).timeless(),
                unknown.clone().timeless(),
                "{id}"
            );
        }
        for odd in ["%00", "a%20b", "*", MEMBER_EMAIL] {
            assert_eq!(
                put_user(&server, operator, odd, &suspend).status,
                404,
                "{odd}"
            );
        }
    }
    for id in [MEMBER, USER, PLATFORM] {
        assert_eq!(
            whoami(&server, &app.key, "X-User-Id", id).status,
            200,
            "nothing was changed"
        );
    }
    let own = put_user(&server, "outsider", OUTSIDER, &suspend);
    assert_eq!((own.status, &own.json()["suspended"]), (200, &json!(true)));
}

#[test]
fn an_invalid_body_changes_no_user() {
    let server = Server::of("allsign");
    let app = platform(&server);
    for body in [
        json!({ "role": "king" }),
        json!({ "role": "Member" }),
        json!({ "suspended": "true" }),
        json!({ "suspended": 1 }),
        json!({ "suspended": true, "role": "" }),
        json!({ "suspended": true, "tenant_id": "tenant_xyz789" }),
        json!({ "suspended": true, "Suspended": true }),
        json!([true]),
        json!(["member", true]),
        json!(true),
        json!("suspended"),
        json!(null),
    ] {
        assert_problem(
            &put_user(&server, "owner", MEMBER, &body),
            422,
            "INVALID_BODY",
            &[],
        );
    }
    let path = format!("/demo/users/{MEMBER}");
    for body in [
        "{",
        "{\"suspended\":true",
        "suspended=true",
        "{\"suspended\":tru}",
        "\u{0}",
    ] {
        let call = Call::new("PUT", &path)
            .bearer(&server.operator("owner"))
            .body(body);
        assert_problem(&server.send(&call), 400, "INVALID_REQUEST", &[]);
    }
    assert_eq!(
        whoami(&server, &app.key, "X-User-Id", MEMBER).status,
        200,
        "nothing was changed"
    );
}

/// Well-formed JSON of another shape: the error describes the shape.
#[test]
fn json_of_another_shape_is_not_reported_as_malformed() {
    let server = Server::of("allsign");
    for role in [json!(1), json!(true), json!(["member"]), json!([])] {
        let answer = put_user(&server, "owner", MEMBER, &json!({ "role": role }));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    for access in [json!(1), json!(["read-only"])] {
        let call = Call::post("/keys").json(&json!({ "name": "n", "access": access }));
        assert_problem(&server.admin("owner", call), 422, "INVALID_BODY", &[]);
    }
}

// ---- owners of keys ----

#[test]
fn a_key_for_a_user_of_another_tenant_or_of_none_cannot_be_issued() {
    let server = Server::of("allsign");
    let mut texts = Vec::new();
    let body =
        |kind: &str, id: &str| json!({ "name": "a key", "kind": kind, "owner": { "user_id": id } });
    for kind in ["user", "app"] {
        for (operator, id) in [
            ("owner", OUTSIDER.to_owned()),
            ("owner", OUTSIDER.to_uppercase()),
            ("admin", OUTSIDER.to_owned()),
            ("outsider", USER.to_owned()),
            ("outsider", MEMBER.to_uppercase()),
            ("owner", NOBODY.to_owned()),
            ("admin", NOBODY.to_uppercase()),
            ("outsider", NOBODY.to_owned()),
        ] {
            let issue = body(kind, &id);
            let mut import = issue.clone();
            import["digest"] = json!({ "scheme": "sha256", "hex": "ab".repeat(32) });
            for (path, body) in [("/keys", issue), ("/import", import)] {
                let answer = server.admin(operator, Call::post(path).json(&body));
                assert_problem(&answer, 403, "FORBIDDEN", &[]);
                texts.push(answer.timeless());
            }
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "one identical refusal");
    for operator in ["owner", "outsider"] {
        assert_eq!(ids(&list(&server, operator, "")), [""; 0]);
    }
}
