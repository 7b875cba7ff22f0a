//! `POST /verify` describes a key to a caller with its secret, and reveals nothing to anyone else;
//! and how usage is counted.

use crate::common::manage::{assert_problem, change, delete, events, items, rotate};
use crate::common::{Answer, Call, Server, TICK, USER};
use serde_json::{Value, json};

const INACTIVE: &str = r#"{"active":false}"#;
const UNKNOWN: &str = "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01";

fn verify_as(server: &Server, operator: &str, body: &Value) -> Answer {
    server.admin(operator, Call::post("/verify").json(body))
}

fn verify(server: &Server, body: &Value) -> Answer {
    verify_as(server, "owner", body)
}

#[test]
fn a_key_that_does_not_work_is_exactly_inactive() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let issue = |body: Value| server.issue(body);
        issue(json!({ "name": "primary" }));
        let [revoked, disabled, deleted, rotated, later] = [
            json!({}),
            json!({}),
            json!({}),
            json!({}),
            json!({ "not_before": "2099-01-01T00:00:00Z" }),
        ]
        .map(issue);
        server.revoke(revoked.id());
        change(&server, disabled.id(), &json!({ "enabled": false }));
        assert_eq!(delete(&server, deleted.id()).status, 204);
        assert_eq!(rotate(&server, rotated.id(), &json!({})).status, 201);
        let theirs = server.issue_as("outsider", json!({}));
        let ours = issue(json!({}));
        let last = if ours.key.ends_with('x') { 'y' } else { 'x' };
        let wrong = format!("{}{last}", &ours.key[..ours.key.len() - 1]);
        let (colon, spaced, mega) = (
            format!("{}:", ours.key),
            format!(" {}", ours.key),
            "x".repeat(1 << 20),
        );
        let expected = verify(&server, &json!({ "key": UNKNOWN }));
        assert_eq!(
            (expected.status, expected.text()),
            (200, INACTIVE.to_owned())
        );
        assert_eq!(expected.fields("cache-control"), ["no-store"]);
        for key in [
            &*revoked.key,
            &disabled.key,
            &deleted.key,
            &rotated.key,
            &later.key,
            &theirs.key,
            UNKNOWN,
            "",
            " ",
            "garbage",
            "\u{0}",
            "\u{e4}",
            "Bearer x",
            &wrong,
            &colon,
            &spaced,
            &mega,
            ours.id(),
        ] {
            let body = json!({ "key": key, "require": "document:read", "ip": "127.0.0.1", "method": "GET" });
            for body in [json!({ "key": key }), body] {
                assert_eq!(
                    verify(&server, &body).timeless(),
                    expected.clone().timeless(),
                    "{store}: {key:.60}"
                );
            }
        }
        assert_eq!(
            verify_as(&server, "outsider", &json!({ "key": ours.key })).timeless(),
            expected.timeless()
        );
        assert_eq!(
            verify_as(&server, "outsider", &json!({ "key": theirs.key })).json()["active"],
            true
        );
    }
}

#[test]
fn a_working_key_is_described_in_full() {
    let server = Server::of("allsign");
    let owner = json!({ "user_id": USER, "user_email": "user@example.com" });
    let body = json!({
        "scopes": ["document:read", "signature:*"],
        "owner": owner,
        "expires_at": "2099-01-01T00:00:00Z",
    });
    let issued = server.issue(body);
    let answer = verify(&server, &json!({ "key": issued.key })).json();
    for (field, expected) in [
        ("active", json!(true)),
        ("scope", json!("document:read signature:*")),
        ("client_id", json!(issued.id())),
        ("sub", json!(USER)),
        ("username", json!("user@example.com")),
        ("exp", json!(4_070_908_800_u64)),
        ("nbf", json!(null)),
        ("allowed", json!(true)),
        ("record", server.record(issued.id())),
    ] {
        assert_eq!(answer[field], expected, "{field}");
    }
    assert!(
        !answer
            .to_string()
            .contains(&issued.key["allsign_live_sk_".len()..issued.key.len() - 4])
    );
    let successor = rotate(&server, issued.id(), &json!({ "grace_seconds": 60 })).json();
    for key in [&issued.key, successor["key"].as_str().unwrap()] {
        assert_eq!(
            verify(&server, &json!({ "key": key })).json()["active"],
            true,
            "in its grace, too"
        );
    }
}

#[test]
fn why_is_explained() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({
        "scopes": ["document:*"], "access": "read-only", "allowed_ips": ["192.0.2.0/24", "2001:db8::/32"],
    }));
    for (asked, allowed, words) in [
        (json!({}), false, "allow-list"),
        (
            json!({ "require": "document:read" }),
            false,
            "document:read",
        ),
        (
            json!({ "require": "document:read", "ip": "192.0.2.7" }),
            true,
            "document:read",
        ),
        (
            json!({ "require": ["document:read", "document:write"], "ip": "192.0.2.7" }),
            true,
            "document:write",
        ),
        (
            json!({ "require": "signature:read" }),
            false,
            "signature:read",
        ),
        (
            json!({ "require": ["document:read", "signature:read"] }),
            false,
            "signature:read",
        ),
        (
            json!({ "require": "documents:read" }),
            false,
            "documents:read",
        ),
        (json!({ "ip": "192.0.2.7" }), true, "192.0.2.7"),
        (json!({ "ip": "::ffff:192.0.2.7" }), true, ""),
        (json!({ "ip": "2001:db8::1" }), true, "2001:db8::1"),
        (json!({ "ip": "198.51.100.1" }), false, "198.51.100.1"),
        (json!({ "method": "GET", "ip": "192.0.2.7" }), true, "GET"),
        (json!({ "method": "POST" }), false, "POST"),
        (json!({ "method": "DELETE" }), false, "DELETE"),
        (
            json!({ "require": "document:read", "ip": "192.0.2.7", "method": "POST" }),
            false,
            "POST",
        ),
    ] {
        let mut body = asked.clone();
        body["key"] = issued.key.as_str().into();
        let answer = verify(&server, &body);
        assert_eq!(answer.status, 200, "{asked}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(
            (&answer["active"], &answer["allowed"]),
            (&json!(true), &json!(allowed)),
            "{asked}: {answer}"
        );
        assert!(
            answer["explain"].as_str().unwrap().contains(words),
            "{asked}: {}",
            answer["explain"]
        );
    }
}

#[test]
fn an_invalid_query_is_refused_for_any_key() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    for key in [&*issued.key, UNKNOWN] {
        for body in [
            json!({ "key": key, "ip": "nowhere" }),
            json!({ "key": key, "ip": "192.0.2.0/24" }),
            json!({ "key": key, "ip": "010.0.0.1" }),
            json!({ "key": key, "require": "document read" }),
            json!({ "key": key, "require": 1 }),
            json!({ "key": key, "scope": "document:read" }),
            json!({ "key": 1 }),
            json!({}),
            json!([key]),
        ] {
            assert_problem(&verify(&server, &body), 422, "INVALID_BODY", &[]);
        }
        assert_problem(
            &verify_as(&server, "member", &json!({ "key": key })),
            403,
            "FORBIDDEN",
            &[],
        );
    }
    assert_problem(
        &server.admin("owner", Call::post("/verify").body("{")),
        400,
        "INVALID_REQUEST",
        &[],
    );
}

#[test]
fn an_administrator_verifies_no_key_of_other_workspaces() {
    let server = Server::of("yousign");
    let hidden = server.issue(json!({ "workspaces": ["ws2"] }));
    let seen = server.issue(json!({ "workspaces": ["ws1"] }));
    assert_eq!(
        verify_as(&server, "admin", &json!({ "key": seen.key })).json()["active"],
        true
    );
    let answer = verify_as(&server, "admin", &json!({ "key": hidden.key }));
    assert!(!answer.text().contains(hidden.id()), "{}", answer.text());
    assert!(
        answer.status == 403 || answer.text() == INACTIVE,
        "{}",
        answer.text()
    );
}

#[test]
fn verifying_is_neither_use_nor_failure() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "rate_limit_config": { "requests_per_minute": 2 } }));
    let revoked = server.issue(json!({}));
    server.revoke(revoked.id());
    for _ in 0..60 {
        assert_eq!(
            verify(&server, &json!({ "key": issued.key })).json()["active"],
            true
        );
        assert_eq!(verify(&server, &json!({ "key": UNKNOWN })).text(), INACTIVE);
        assert_eq!(
            verify(&server, &json!({ "key": revoked.key })).text(),
            INACTIVE
        );
    }
    let record = server.record(issued.id());
    assert_eq!(
        (&record["request_count"], &record["last_used_at"]),
        (&json!(0), &json!(null))
    );
    assert_eq!(
        [0, 1, 2].map(|_| server.get("/whoami", &issued.key).status),
        [200, 200, 429]
    );
    // These calls are not limited as failures.
    assert_eq!(server.get("/whoami", UNKNOWN).status, 401);
    let page = events(
        &server,
        "owner",
        "?actor=user@example.com&action=key.verify&limit=500",
    );
    assert_eq!(
        items(&page).len(),
        120,
        "each verification of a real key is recorded"
    );
}

// ---- use ----

#[test]
fn use_is_counted_by_the_hour() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::start_on(&store, "allsign", &["--trusted-proxy", "127.0.0.1/32"], &[]);
        let issued = server.issue(json!({}));
        let usage = |query: &str| {
            server.admin(
                "owner",
                Call::get(&format!("/keys/{}/usage{query}", issued.id())),
            )
        };
        let none = usage("").json();
        assert_eq!(
            (&none["request_count"], &none["hours"], &none["last_ip"]),
            (&json!(0), &json!([]), &json!(null))
        );
        let before = jiff::Timestamp::now();
        for number in 1..=5 {
            let from = format!("198.51.100.{number}");
            let call = Call::get("/whoami")
                .bearer(&issued.key)
                .field("X-Forwarded-For", from);
            assert_eq!(server.send(&call).status, 200);
        }
        let answer = usage("");
        assert_eq!(
            (answer.status, answer.fields("cache-control")),
            (200, vec!["no-store"])
        );
        let answer = answer.json();
        assert_eq!(
            (&answer["id"], &answer["request_count"]),
            (&json!(issued.id()), &json!(5))
        );
        assert_eq!(answer["last_ip"], "198.51.100.5", "{store}");
        let last: jiff::Timestamp = answer["last_used_at"].as_str().unwrap().parse().unwrap();
        assert!(last >= before - TICK && last <= jiff::Timestamp::now());
        let hours = answer["hours"].as_array().unwrap();
        assert_eq!(
            hours
                .iter()
                .map(|hour| hour["count"].as_u64().unwrap())
                .sum::<u64>(),
            5
        );
        for hour in hours {
            assert!(
                hour["start"].as_str().unwrap().ends_with(":00:00.000Z"),
                "{hour}"
            );
        }
        for (query, count) in [
            ("?from=2001-01-01T00:00:00Z&to=2001-01-02T00:00:00Z", 0),
            ("?to=2001-01-02T00:00:00Z", 0),
            ("?from=2099-01-01T00:00:00Z", 0),
            (&*format!("?from={before}"), hours.len()),
            ("?from=&to=", hours.len()),
        ] {
            let found = usage(query).json();
            assert_eq!(found["hours"].as_array().unwrap().len(), count, "{query}");
        }
    }
}

#[test]
fn a_time_that_cannot_be_is_400_and_another_tenants_key_404() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let path = format!("/keys/{}/usage", issued.id());
    for query in [
        "from=yesterday",
        "to=1",
        "from=2026-01-01",
        "to=2026-13-01T00:00:00Z",
        "from=1960-01-01T00:00:00Z",
        "since=x",
        "from=2026-01-01T00:00:00Z&from=2026-01-02T00:00:00Z",
        "from=2001-01-01T00:00:00Z&to=2099-01-01T00:00:00Z",
        "from=%00",
        "limit=1",
    ] {
        let answer = server.admin("owner", Call::get(&format!("{path}?{query}")));
        assert_problem(&answer, 400, "INVALID_REQUEST", &[]);
    }
    let reversed = server.admin(
        "owner",
        Call::get(&format!(
            "{path}?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z"
        )),
    );
    assert!(matches!(reversed.status, 200 | 400), "{}", reversed.status);
    let foreign = server.admin("outsider", Call::get(&path)).timeless();
    assert_problem(&foreign, 404, "NOT_FOUND", &[]);
    assert_eq!(
        server
            .admin("outsider", Call::get("/keys/key_unknown/usage"))
            .timeless(),
        foreign
    );
}

#[test]
fn a_list_of_scopes_that_is_too_long_is_422_and_the_service_goes_on() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "scopes": ["*"] }));
    let ask = |key: &str, count: usize| {
        let require = vec!["document:read"; count];
        let body = json!({ "key": key, "require": require });
        server.admin("owner", Call::post("/verify").json(&body))
    };
    let most = ask(&issued.key, 256);
    assert_eq!((most.status, &most.json()["allowed"]), (200, &json!(true)));
    for (key, count) in [
        (&*issued.key, 257),
        (&*issued.key, 2_000),
        (&*issued.key, 200_000),
        ("x", 200_000),
    ] {
        let answer = ask(key, count);
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    for method in ["", "G ET", "GET\n", &"x".repeat(65)] {
        let body = json!({ "key": issued.key, "method": method });
        let answer = server.admin("owner", Call::post("/verify").json(&body));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    server.assert_alive();
}

#[test]
fn the_name_of_an_access_is_a_string_and_nothing_else() {
    let server = Server::of("yousign");
    let issued = server.issue(json!({}));
    for access in [
        json!({ "read-only": null }),
        json!(["read-only"]),
        json!(1),
        json!(true),
    ] {
        let body = json!({ "name": "a", "access": access });
        let answer = server.admin("owner", Call::post("/keys").json(&body));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
        let change = Call::new("PATCH", &format!("/keys/{}", issued.id()));
        let answer = server.admin("owner", change.json(&json!({ "access": access })));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
}
