//! IUSign's terms from outside: the plans that the API requires, who may set one, and keys that
//! stop working when their administrator loses the role.

use crate::common::manage::{assert_problem, ids, list};
use crate::common::{Call, Connection, Issued, MEMBER, NOBODY, PLATFORM, Server, USER};
use serde_json::{Value, json};

/// Every route that requires a plan.
fn calls() -> [Call; 5] {
    [
        Call::get("/v1/envelopes"),
        Call::post("/v1/envelopes"),
        Call::post("/v1/envelopes/mass"),
        Call::get("/v1/envelopes/envelope_1"),
        Call::get("/v1/envelopes/envelope_1/document"),
    ]
}

fn change_user(server: &Server, id: &str, body: &Value) {
    let call = Call::new("PUT", &format!("/demo/users/{id}")).bearer(&server.operator("owner"));
    let answer = server.send(&call.json(body));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

// ---- plans ----

#[test]
fn the_api_is_open_from_the_standard_plan_on() {
    let server = Server::of("iusign");
    for (plan, open) in [
        (None, true),
        (Some("free"), false),
        (Some("standard"), true),
        (Some("enterprise"), true),
    ] {
        let body = plan.map_or(json!({}), |plan| json!({ "plan": plan }));
        let issued = server.issue(body);
        assert_eq!(issued.record["plan"], plan.unwrap_or("standard"));
        let made = server.send(
            &Call::post("/v1/envelopes")
                .bearer(&issued.key)
                .json(&json!({ "subject": "s" })),
        );
        assert_eq!(made.status, if open { 201 } else { 403 }, "{plan:?}");
        for call in calls() {
            let answer = server.send(&call.clone().bearer(&issued.key));
            if open {
                // The envelope may belong to another key of the same tenant.
                assert!(
                    [200, 201].contains(&answer.status),
                    "{plan:?} {}: {}",
                    call.target,
                    answer.text()
                );
            } else {
                let detail = assert_problem(&answer, 403, "PLAN_REQUIRED", &[]);
                assert_eq!(detail, "This requires plan standard or higher");
            }
        }
        assert_eq!(
            server.get("/whoami", &issued.key).status,
            200,
            "{plan:?}: who one is can always be asked"
        );
    }
}

#[test]
fn a_plan_that_there_is_not_cannot_be_set() {
    let server = Server::of("iusign");
    for plan in [
        json!("premium"),
        json!(""),
        json!("Standard"),
        json!("standard "),
        json!(1),
        json!(["free"]),
    ] {
        let body = json!({ "name": "n", "plan": plan });
        assert_problem(
            &server.admin("owner", Call::post("/keys").json(&body)),
            422,
            "INVALID_BODY",
            &[],
        );
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
}

#[test]
fn only_the_owner_sets_another_plan_than_the_tenants() {
    let server = Server::of("iusign");
    for plan in ["free", "enterprise", "premium"] {
        for operator in ["admin", "member"] {
            let body = json!({ "name": "n", "plan": plan });
            assert_problem(
                &server.admin(operator, Call::post("/keys").json(&body)),
                403,
                "FORBIDDEN",
                &[],
            );
        }
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
    for body in [json!({}), json!({ "plan": "standard" })] {
        let issued = server.issue_as("admin", body);
        assert_eq!(issued.record["plan"], "standard");
        let to = |plan: &str| {
            let change = Call::new("PATCH", &format!("/keys/{}", issued.id()));
            server.admin("admin", change.json(&json!({ "plan": plan })))
        };
        assert_problem(&to("enterprise"), 403, "FORBIDDEN", &[]);
        assert_eq!(to("standard").status, 200);
    }
    for operator in ["owner", "outsider"] {
        assert_eq!(
            server
                .issue_as(operator, json!({ "plan": "enterprise" }))
                .record["plan"],
            "enterprise"
        );
    }
}

#[test]
fn plans_and_policies_are_shown_by_name() {
    let server = Server::of("iusign");
    let policies = json!([
        { "name": "minute", "limit": 60, "window_seconds": 60 },
        { "name": "hour", "limit": 1000, "window_seconds": 3600 },
    ]);
    let issued = server.issue_as("owner", json!({}));
    let shown = server.admin("owner", Call::new("GET", &format!("/keys/{}", issued.id())));
    let body = json!({ "key": issued.key });
    let verified = server.admin("owner", Call::post("/verify").json(&body));
    for record in [&issued.record, &shown.json(), &verified.json()["record"]] {
        assert_eq!(
            (&record["plan"], &record["policies"]),
            (&json!("standard"), &policies)
        );
    }
    let own = json!({ "rate_limit_config": { "requests_per_minute": 5 } });
    let issued = server.issue_as("owner", own);
    assert_eq!(issued.record["policies"][0]["limit"], 5);
    let document = server
        .admin("owner", Call::new("GET", "/openapi.json"))
        .json();
    let plan = &document["components"]["schemas"]["IssueRequest"]["properties"]["plan"];
    assert_eq!(
        plan["enum"],
        json!(["free", "standard", "enterprise", null])
    );
}

// ---- addresses ----

#[test]
fn addresses_are_restricted_on_the_highest_plan_only() {
    let server = Server::of("iusign");
    for (operator, plan) in [
        ("owner", None),
        ("owner", Some("free")),
        ("owner", Some("standard")),
        ("admin", None),
        ("outsider", None),
    ] {
        for addresses in [json!(["127.0.0.1"]), json!(["0.0.0.0/0"])] {
            let mut body = json!({ "name": "n", "allowed_ips": addresses });
            if let Some(plan) = plan {
                body["plan"] = plan.into();
            }
            let detail = assert_problem(
                &server.admin(operator, Call::post("/keys").json(&body)),
                403,
                "PLAN_REQUIRED",
                &[],
            );
            assert!(
                detail.contains("allowed_ips") && detail.contains("enterprise"),
                "{detail}"
            );
        }
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
    for (addresses, status) in [(json!(["127.0.0.1"]), 200), (json!(["192.0.2.0/24"]), 403)] {
        let issued = server.issue(json!({ "plan": "enterprise", "allowed_ips": addresses }));
        let answer = server.get("/v1/envelopes", &issued.key);
        assert_eq!(answer.status, status);
        if status == 403 {
            assert_problem(&answer, 403, "IP_NOT_ALLOWED", &[]);
        }
    }
    let empty = json!({ "name": "n", "plan": "enterprise", "allowed_ips": [] });
    assert_problem(
        &server.admin("owner", Call::post("/keys").json(&empty)),
        422,
        "INVALID_BODY",
        &[],
    );
}

#[test]
fn other_apis_restrict_addresses_on_any_plan() {
    for profile in ["allsign", "insigner", "yousign", "dropbox-sign"] {
        let server = Server::of(profile);
        for plan in ["free", "standard"] {
            let issued = server.issue(json!({ "plan": plan, "allowed_ips": ["192.0.2.0/24"] }));
            assert_eq!(
                server.get("/whoami", &issued.key).status,
                403,
                "{profile} {plan}"
            );
        }
    }
}

// ---- administrators ----

fn key_of(server: &Server, user: &str) -> Issued {
    server.issue(json!({ "name": user, "owner": { "user_id": user } }))
}

#[track_caller]
fn assert_stopped(server: &Server, issued: &Issued) {
    for call in calls().into_iter().chain([Call::get("/whoami")]) {
        let detail = assert_problem(
            &server.send(&call.bearer(&issued.key)),
            403,
            "OWNER_SUSPENDED",
            &[],
        );
        assert!(!detail.is_empty());
    }
}

#[track_caller]
fn assert_works(server: &Server, issued: &Issued) {
    for path in ["/v1/envelopes", "/whoami"] {
        assert_eq!(server.get(path, &issued.key).status, 200, "{path}");
    }
}

#[test]
fn the_keys_of_an_administrator_stop_with_the_role_and_come_back_with_it() {
    let server = Server::of("iusign");
    let (keys, others) = (
        [key_of(&server, USER), key_of(&server, USER)],
        [key_of(&server, PLATFORM), server.issue(json!({}))],
    );
    for back in ["admin", "owner"] {
        keys.iter()
            .chain(&others)
            .for_each(|issued| assert_works(&server, issued));
        change_user(&server, USER, &json!({ "role": "member" }));
        keys.iter()
            .for_each(|issued| assert_stopped(&server, issued));
        others
            .iter()
            .for_each(|issued| assert_works(&server, issued));
        change_user(&server, USER, &json!({ "role": back }));
    }
    keys.iter().for_each(|issued| assert_works(&server, issued));
}

#[test]
fn a_suspended_administrators_keys_stop_in_any_role() {
    let server = Server::of("iusign");
    let issued = key_of(&server, USER);
    for role in ["owner", "admin"] {
        change_user(&server, USER, &json!({ "role": role, "suspended": true }));
        assert_stopped(&server, &issued);
        change_user(&server, USER, &json!({ "suspended": false }));
        assert_works(&server, &issued);
    }
}

#[test]
fn a_members_key_works_from_when_the_member_is_an_administrator() {
    let server = Server::of("iusign");
    let issued = key_of(&server, MEMBER);
    assert_stopped(&server, &issued);
    assert_eq!(server.record(issued.id())["request_count"], 0);
    change_user(&server, MEMBER, &json!({ "role": "admin" }));
    assert_works(&server, &issued);
    change_user(&server, MEMBER, &json!({ "role": "member" }));
    assert_stopped(&server, &issued);
}

#[test]
fn a_lost_role_holds_on_connections_that_are_open() {
    let server = Server::of("iusign");
    let issued = key_of(&server, USER);
    let request = format!(
        "GET /v1/envelopes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        issued.key
    );
    let mut connection = Connection::open(server.address);
    for (role, status) in [("admin", 200), ("member", 403), ("admin", 200)] {
        change_user(&server, USER, &json!({ "role": role }));
        connection.write(request.as_bytes());
        assert_eq!(connection.answer().status, status, "{role}");
    }
}

#[test]
fn the_owners_standing_is_reported_before_the_plan_and_only_with_the_key() {
    let server = Server::of("iusign");
    let issued = server.issue(json!({ "plan": "free", "owner": { "user_id": USER } }));
    assert_problem(
        &server.get("/v1/envelopes", &issued.key),
        403,
        "PLAN_REQUIRED",
        &[],
    );
    let wrong = format!(
        "{}{}",
        &issued.key[..39],
        if issued.key.ends_with('0') { '1' } else { '0' }
    );
    let before = server.get("/v1/envelopes", &wrong).timeless();
    change_user(&server, USER, &json!({ "role": "member" }));
    assert_problem(
        &server.get("/v1/envelopes", &issued.key),
        403,
        "OWNER_SUSPENDED",
        &[],
    );
    assert_eq!(server.get("/v1/envelopes", &wrong).timeless(), before);
    assert_eq!(before.json()["code"], "INVALID_KEY");
    server.revoke(issued.id());
    assert_eq!(
        server.get("/v1/envelopes", &issued.key).json()["code"],
        "KEY_REVOKED"
    );
}

#[test]
fn keys_of_this_api_cannot_act_for_users() {
    let server = Server::of("iusign");
    let issued = key_of(&server, USER);
    for id in [USER, MEMBER, NOBODY] {
        let answer = server.send(
            &Call::get("/v1/envelopes")
                .bearer(&issued.key)
                .field("X-User-Id", id),
        );
        assert_problem(&answer, 403, "UNKNOWN_ACTOR", &[]);
    }
}
