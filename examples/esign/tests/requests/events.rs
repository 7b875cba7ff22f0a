//! The audit log over HTTP: every response is recorded completely and at once, and visible only to
//! the operators concerned.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::manage::{change, delete, events, items, patch, rotate};
use crate::common::{
    Answer, Call, Issued, MEMBER, MEMBER_EMAIL, NOBODY, OUTSIDER, PLATFORM, Server, TICK, USER,
};
use serde_json::{Value, json};

/// The platform's application key.
fn platform(server: &Server) -> Issued {
    let owner = json!({ "user_id": PLATFORM, "user_email": "platform@app.com" });
    server.issue(json!({ "name": "platform", "scopes": ["document:read", "document:write"], "owner": owner }))
}

/// The last event of a key.
fn last(server: &Server, id: &str) -> Value {
    items(&events(server, "owner", &format!("?key_id={id}&limit=1")))
        .first()
        .expect("an event")
        .clone()
}

#[test]
fn every_request_that_was_answered_is_there_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let issued = server.issue(json!({}));
        for number in 0..50 {
            let name = format!("request-{number}");
            let call = Call::get("/whoami")
                .bearer(&issued.key)
                .field("X-Request-Id", &name);
            assert_eq!(server.send(&call).status, 200);
            assert_eq!(last(&server, issued.id())["request_id"], name, "{store}");
        }
        let all = events(
            &server,
            "owner",
            &format!("?key_id={}&limit=500", issued.id()),
        );
        assert_eq!(items(&all).len(), 51, "one for each request, and the issue");
    }
}

#[test]
fn many_at_once_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(
        &format!("sqlite:{}", folder.path().join("keys.db").display()),
        "allsign",
    );
    let plenty = json!({ "requests_per_minute": 100_000, "requests_per_hour": 100_000 });
    let issued = server.issue(json!({ "rate_limit_config": plenty }));
    crate::common::at_once(16, |thread| {
        for number in 0..10 {
            let name = format!("request-{thread}-{number}");
            let call = Call::get("/whoami")
                .bearer(&issued.key)
                .field("X-Request-Id", &name);
            assert_eq!(server.send(&call).status, 200);
            let page = events(&server, "owner", "?limit=500");
            assert!(
                items(&page).iter().any(|event| event["request_id"] == name),
                "{name} was answered"
            );
        }
    });
    let page = events(&server, "owner", "?limit=500");
    let ids: BTreeSet<_> = items(&page)
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert_eq!((items(&page).len(), ids.len()), (161, 161));
}

#[test]
fn an_event_records_actor_action_address_and_outcome() {
    let server = Server::of("allsign");
    let issued = platform(&server);
    let before = jiff::Timestamp::now();
    let call = Call::post("/v2/documents?title=in+the+query")
        .bearer(&issued.key)
        .field("X-Request-Id", "abc-1");
    assert_eq!(
        server.send(&call.json(&json!({ "title": "t" }))).status,
        201
    );
    let mut event = last(&server, issued.id());
    let at: jiff::Timestamp = event["at"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        event["at"].as_str().unwrap().len(),
        "2026-01-01T00:00:00.000Z".len()
    );
    assert!(at >= before - TICK && at <= jiff::Timestamp::now());
    assert_eq!(event["id"].as_str().unwrap().len(), 32);
    let platform = json!({ "user_id": PLATFORM, "user_email": "platform@app.com" });
    let members = event.as_object_mut().unwrap();
    members.remove("at");
    members.remove("id");
    assert_eq!(
        event,
        json!({
            "action": "request", "outcome": "OK", "status": 201,
            "tenant_id": "tenant_abc123", "key_id": issued.id(),
            "environment": "live", "mode": "app", "subject": platform, "actor": platform,
            "scopes": ["document:read", "document:write"],
            "client_ip": "127.0.0.1", "method": "POST",
            "route": "/v2/documents", "request_id": "abc-1",
            "metadata": {
                "apiKeyOwner": "platform@app.com",
                "scopes": ["document:read", "document:write"],
                "mode": "app",
            },
        })
    );
}

#[test]
fn a_delegated_call_has_the_metadata_that_allsign_logs() {
    let server = Server::of("allsign");
    let issued = platform(&server);
    for (field, value, mode) in [
        ("X-On-Behalf-Of", MEMBER_EMAIL, "delegated"),
        ("X-On-Behalf-Of", MEMBER, "delegated"),
        ("X-User-Id", MEMBER, "app_user"),
        ("X-On-Behalf-Email", "Member@Example.COM", "app_user"),
    ] {
        let call = Call::get("/v2/documents")
            .bearer(&issued.key)
            .field(field, value);
        assert_eq!(server.send(&call).status, 200);
        let event = last(&server, issued.id());
        assert_eq!(
            event["metadata"],
            json!({
                "apiKeyOwner": "platform@app.com",
                "onBehalfOf": "member@example.com",
                "scopes": ["document:read", "document:write"],
                "mode": mode,
            })
        );
        assert_eq!(
            event["subject"],
            json!({ "user_id": MEMBER, "user_email": MEMBER_EMAIL })
        );
        assert_eq!(
            event["actor"],
            json!({ "user_id": PLATFORM, "user_email": "platform@app.com" })
        );
    }
    let text = server.admin("owner", Call::get("/events?limit=1")).text();
    let metadata = concat!(
        r#""metadata":{"apiKeyOwner":"platform@app.com","onBehalfOf":"member@example.com","#,
        r#""scopes":["document:read","document:write"],"mode":"app_user"}"#
    );
    assert!(text.contains(metadata), "{text}");
}

#[test]
fn a_refusal_is_recorded_with_its_code() {
    let server = Server::start("allsign", &["--environment", "live"], &[]);
    let get = |key: &str| server.get("/v2/documents", key);
    let issue = |body: Value| {
        let mut body = body;
        body["scopes"] = json!(["document:read"]);
        server.issue(body)
    };
    let revoked = issue(json!({}));
    server.revoke(revoked.id());
    let disabled = issue(json!({}));
    change(&server, disabled.id(), &json!({ "enabled": false }));
    let expired = issue(json!({}));
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(200);
    change(
        &server,
        expired.id(),
        &json!({ "expires_at": end.to_string() }),
    );
    crate::common::until("the key's end", || jiff::Timestamp::now() > end);
    let limited = issue(json!({ "rate_limit_config": { "requests_per_minute": 1 } }));
    assert_eq!(get(&limited.key).status, 200);
    let plain = issue(json!({}));
    for (issued, expected) in [
        (&revoked, (401, "KEY_REVOKED")),
        (&disabled, (401, "KEY_DISABLED")),
        (&expired, (401, "KEY_EXPIRED")),
        (&limited, (429, "RATE_LIMITED")),
        (
            &issue(json!({ "environment": "test" })),
            (401, "WRONG_ENVIRONMENT"),
        ),
        (
            &issue(json!({ "allowed_ips": ["192.0.2.0/24"] })),
            (403, "IP_NOT_ALLOWED"),
        ),
    ] {
        assert_eq!(get(&issued.key).status, expected.0, "{expected:?}");
        let event = last(&server, issued.id());
        assert_eq!(
            (event["status"].clone(), event["outcome"].clone()),
            (json!(expected.0), json!(expected.1))
        );
        assert_eq!(
            (event["action"].as_str(), event["tenant_id"].as_str()),
            (Some("request"), Some("tenant_abc123"))
        );
        assert_eq!(event["route"], "/v2/documents");
    }
    for (call, status, code) in [
        (Call::post("/v2/documents"), 403, "INSUFFICIENT_SCOPE"),
        (
            Call::get("/v2/documents").field("X-User-Id", NOBODY),
            403,
            "UNKNOWN_ACTOR",
        ),
        (
            Call::get("/v2/documents").field("X-User-Id", OUTSIDER),
            403,
            "UNKNOWN_ACTOR",
        ),
        (
            Call::get("/v2/documents").field("X-User-Id", ""),
            400,
            "INVALID_REQUEST",
        ),
    ] {
        assert_eq!(server.send(&call.bearer(&plain.key)).status, status);
        let event = last(&server, plain.id());
        assert_eq!(
            (event["status"].clone(), event["outcome"].clone()),
            (json!(status), json!(code))
        );
    }
}

#[test]
fn a_handlers_refusal_is_recorded_with_its_status() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "scopes": ["document:*"] }));
    let call = Call::new("DELETE", "/v2/documents/1").bearer(&issued.key);
    assert_eq!(server.send(&call).status, 404);
    let event = last(&server, issued.id());
    assert_eq!(
        (event["status"].clone(), event["route"].clone()),
        (json!(404), json!("/v2/documents/{id}"))
    );
    assert_eq!(event["outcome"], "NOT_FOUND");
}

#[test]
fn an_unknown_key_is_visible_to_no_tenant() {
    let server = Server::of("allsign");
    for call in [
        Call::get("/whoami"),
        Call::get("/whoami").bearer("allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01"),
        Call::get("/whoami").bearer("garbage"),
        Call::get("/whoami").basic("a:b"),
        Call::get("/nowhere"),
    ] {
        assert!(server.send(&call).status >= 400);
    }
    for operator in ["owner", "admin", "outsider"] {
        assert_eq!(
            events(&server, operator, ""),
            json!({ "items": [], "next_cursor": null }),
            "{operator}"
        );
        assert_eq!(
            items(&events(&server, operator, "?outcome=INVALID_KEY")).len(),
            0,
            "{operator}"
        );
    }
}

#[test]
fn tenants_are_walls() {
    let server = Server::of("allsign");
    let ours = platform(&server);
    let theirs = server.issue_as("outsider", json!({ "scopes": ["document:read"] }));
    for _ in 0..3 {
        assert_eq!(server.get("/whoami", &ours.key).status, 200);
        assert_eq!(server.get("/whoami", &theirs.key).status, 200);
        assert_eq!(server.get("/v2/signatures", &ours.key).status, 403);
        // Knowing an id of the other tenant leaves no trace there.
        assert_eq!(
            server
                .admin(
                    "outsider",
                    Call::post(&format!("/keys/{}/primary", ours.id()))
                )
                .status,
            404
        );
        assert_eq!(delete(&server, theirs.id()).status, 404);
    }
    let cursor = events(&server, "owner", "?limit=1")["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    for (operator, tenant, other) in [
        ("owner", "tenant_abc123", &theirs),
        ("outsider", "tenant_xyz789", &ours),
        ("admin", "tenant_abc123", &theirs),
    ] {
        for query in [
            "?limit=500".to_owned(),
            format!("?key_id={}", other.id()),
            format!("?actor={PLATFORM}"),
            "?actor=platform@app.com".into(),
            "?actor=user@example.com".into(),
            "?actor=outsider@example.com".into(),
            "?outcome=OK".into(),
            format!("?limit=500&cursor={cursor}"),
        ] {
            for event in items(&events(&server, operator, &query)) {
                assert_eq!(event["tenant_id"], tenant, "{operator} {query}: {event}");
                let by_other = event["action"] == "request" && event["key_id"] == other.id();
                assert!(!by_other, "{operator} {query}: {event}");
            }
        }
    }
    for (operator, asked) in [
        ("outsider", "actor=platform@app.com"),
        ("outsider", "actor=user@example.com"),
        ("owner", "actor=outsider@example.com"),
    ] {
        assert_eq!(
            items(&events(&server, operator, &format!("?{asked}"))).len(),
            0,
            "{operator} {asked}"
        );
    }
}

#[test]
fn an_administrator_sees_no_events_of_other_workspaces_keys() {
    let server = Server::of("yousign");
    let hidden = server.issue(json!({ "name": "hidden", "workspaces": ["ws2"] }));
    let both = server.issue(json!({ "name": "both", "workspaces": ["ws1", "ws2"] }));
    let seen = server.issue(json!({ "name": "seen", "workspaces": ["ws1"] }));
    let whole = server.issue(json!({ "name": "whole" }));
    for issued in [&hidden, &both, &seen, &whole] {
        assert_eq!(server.get("/v3/workspaces", &issued.key).status, 200);
        server.get("/v3/workspaces/ws3/templates", &issued.key);
        change(&server, issued.id(), &json!({ "name": "renamed" }));
    }
    let page = events(&server, "admin", "?limit=500");
    let ids: BTreeSet<_> = items(&page)
        .iter()
        .map(|event| event["key_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, BTreeSet::from([seen.id(), whole.id()]));
    for issued in [&hidden, &both] {
        assert_eq!(
            items(&events(
                &server,
                "admin",
                &format!("?key_id={}", issued.id())
            ))
            .len(),
            0
        );
        assert_eq!(
            items(&events(
                &server,
                "owner",
                &format!("?key_id={}", issued.id())
            ))
            .len(),
            4
        );
    }
}

#[test]
fn an_administrator_sees_no_refused_acts_on_other_workspaces_keys() {
    let server = Server::of("yousign");
    let hidden = server.issue(json!({ "name": "hidden", "workspaces": ["ws2"] }));
    assert_eq!(
        rotate(&server, hidden.id(), &json!({ "grace_seconds": 60 })).status,
        201
    );
    assert_eq!(
        rotate(&server, hidden.id(), &json!({ "grace_seconds": 60 })).status,
        409
    );
    assert_eq!(
        patch(&server, hidden.id(), &json!({ "name": "" })).status,
        422
    );
    let page = events(&server, "admin", &format!("?key_id={}", hidden.id()));
    assert_eq!(
        items(&page),
        [] as [Value; 0],
        "the admin belongs to ws1 only"
    );
}

#[test]
fn members_and_anonymous_callers_see_no_events() {
    let server = Server::of("allsign");
    let code = |answer: &Answer| {
        (
            answer.status,
            answer.json()["code"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        code(&server.admin("member", Call::get("/events"))),
        (403, "FORBIDDEN".into())
    );
    assert_eq!(
        code(&server.admin("member", Call::get("/events?limit=0"))),
        (403, "FORBIDDEN".into())
    );
    assert_eq!(
        code(&server.send(&Call::get("/admin/events"))),
        (401, "MISSING_KEY".into())
    );
    assert_eq!(
        code(&server.send(&Call::get("/admin/events").bearer("x"))),
        (401, "INVALID_KEY".into())
    );
    let issued = server.issue(json!({}));
    assert_eq!(
        server
            .send(&Call::get("/admin/events").bearer(&issued.key))
            .status,
        401
    );
    assert_eq!(server.admin("owner", Call::post("/events")).status, 405);
}

#[test]
fn a_parameter_that_cannot_be_is_400() {
    let server = Server::of("allsign");
    server.issue(json!({}));
    for query in [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1.5",
        "limit=ten",
        "limit=%00",
        "limit=99999999999999999999999",
        "limit=1&limit=2",
        "cursor=x",
        "cursor=-1",
        "cursor=1.5",
        "cursor=99999999999999999999999",
        "cursor=%27%20or%201=1",
        "outcome=NOPE",
        "outcome=200",
        "outcome=OK,KEY_REVOKED",
        "outcome=OK&outcome=OK",
        "tenant=tenant_xyz789",
        "tenant_id=tenant_xyz789",
        "offset=1",
        "Limit=1",
        "workspace=ws2",
        "action=nothing",
        "key_id=a&key_id=b",
    ] {
        let answer = server.admin("owner", Call::get(&format!("/events?{query}")));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("INVALID_REQUEST")),
            "{query}"
        );
    }
    for query in ["?action=key.issue&limit=1", "?action=key.issue&limit=500"] {
        assert_eq!(items(&events(&server, "owner", query)).len(), 1, "{query}");
    }
    for key in ["unknown", "a%20b", "%00", "..%2f..%2fetc", "%ff"] {
        let answer = server.admin("owner", Call::get(&format!("/events?key_id={key}")));
        assert!(
            matches!(answer.status, 200 | 400),
            "{key}: {}",
            answer.status
        );
        assert!(!answer.text().contains("key.issue"), "{key}");
    }
    server.assert_alive();
}

#[test]
fn pages_have_no_gaps_and_no_duplicates_while_requests_go_on() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let issued = server.issue(json!({}));
        for number in 0..60 {
            let name = format!("before-{number}");
            server.send(
                &Call::get("/whoami")
                    .bearer(&issued.key)
                    .field("X-Request-Id", name),
            );
        }
        let go_on = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while go_on.load(Ordering::Relaxed) {
                        server.get("/whoami", &issued.key);
                    }
                });
            }
            for limit in [1, 7, 500] {
                let (mut seen, mut cursor, mut places) =
                    (Vec::new(), String::new(), BTreeSet::new());
                loop {
                    let page = events(
                        &server,
                        "owner",
                        &format!("?key_id={}&limit={limit}{cursor}", issued.id()),
                    );
                    assert!(items(&page).len() <= limit);
                    seen.extend(items(&page).to_vec());
                    let Some(next) = page["next_cursor"].as_str() else {
                        break;
                    };
                    assert!(places.insert(next.to_owned()), "a cursor twice");
                    assert!(seen.len() < 20_000);
                    cursor = format!("&cursor={next}");
                }
                let ids: BTreeSet<_> = seen
                    .iter()
                    .map(|event| event["id"].as_str().unwrap())
                    .collect();
                assert_eq!(
                    ids.len(),
                    seen.len(),
                    "{store}, limit {limit}: no duplicates"
                );
                let names: Vec<_> = seen
                    .iter()
                    .filter_map(|event| event["request_id"].as_str())
                    .collect();
                let before: Vec<_> = names
                    .into_iter()
                    .filter(|name| name.starts_with("before-"))
                    .collect();
                let expected: Vec<_> = (0..60)
                    .rev()
                    .map(|number| format!("before-{number}"))
                    .collect();
                assert_eq!(
                    before, expected,
                    "{store}, limit {limit}: no gaps, the last first"
                );
                assert_eq!(seen.last().unwrap()["action"], "key.issue");
            }
            go_on.store(false, Ordering::Relaxed);
        });
    }
}

#[test]
fn filters_select() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let app = platform(&server);
        let owner = json!({ "user_id": USER, "user_email": "user@example.com" });
        let user = server.issue_as(
            "admin",
            json!({ "kind": "user", "owner": owner, "scopes": ["document:read"] }),
        );
        server.get("/v2/documents", &user.key);
        server.get("/v2/signatures", &user.key);
        server.send(
            &Call::get("/v2/documents")
                .bearer(&app.key)
                .field("X-User-Id", MEMBER),
        );
        server.get("/v2/documents", &app.key);
        let upper = USER.to_uppercase();
        for (query, expected) in [
            ("", 6),
            (&*format!("?key_id={}", user.id()), 3),
            (&format!("?key_id={}&outcome=OK", user.id()), 2),
            (&format!("?actor={USER}"), 3),
            (&format!("?actor={upper}"), 3),
            ("?actor=user@example.com", 3),
            ("?actor=USER%40Example.Com", 3),
            ("?actor=member%40example.com", 1),
            (&format!("?actor={MEMBER}&key_id={}", app.id()), 1),
            (&format!("?actor={PLATFORM}"), 3),
            ("?actor=owner", 0),
            ("?actor=user", 0),
            ("?actor=user@example.co", 0),
            ("?actor=%25", 0),
            ("?actor=nobody@example.com", 0),
            ("?outcome=OK", 5),
            ("?outcome=INSUFFICIENT_SCOPE", 1),
            ("?outcome=KEY_REVOKED", 0),
            ("?outcome=INSUFFICIENT_SCOPE&actor=user@example.com", 1),
            ("?outcome=INSUFFICIENT_SCOPE&actor=platform@app.com", 0),
            ("?actor=&outcome=&key_id=&cursor=", 6),
        ] {
            let page = events(&server, "owner", query);
            assert_eq!(items(&page).len(), expected, "{store} {query}: {page}");
        }
    }
}
