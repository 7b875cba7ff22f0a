//! Contents of events: harmless ids, the operator of each act, nothing secret, and bounded sizes.

use std::collections::BTreeSet;

use crate::common::manage::{change, delete, events, items, make_primary, outcomes, patch, rotate};
use crate::common::{Call, OUTSIDER, PLATFORM, Server, USER, hex};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The last event of a key.
fn last(server: &Server, id: &str) -> Value {
    items(&events(server, "owner", &format!("?key_id={id}&limit=1")))
        .first()
        .expect("an event")
        .clone()
}

#[test]
fn a_request_id_is_kept_where_it_is_harmless_and_replaced_where_it_is_not() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let longest = "x".repeat(128);
    for id in ["a", "0b1c-2D3e_4.5~6", &*longest, "\"'<>&{}\\"] {
        server.send(
            &Call::get("/whoami")
                .bearer(&issued.key)
                .field("X-Request-Id", id),
        );
        assert_eq!(last(&server, issued.id())["request_id"], id);
    }
    let call = || Call::get("/whoami").bearer(&issued.key);
    let huge = "x".repeat(10_240);
    let mut made = BTreeSet::new();
    for call in [
        call(),
        call().field("X-Request-Id", ""),
        call().field("X-Request-Id", &huge),
        call().field("X-Request-Id", "x".repeat(129)),
        call().field("X-Request-Id", "a\tb"),
        call().field("X-Request-Id", "a b"),
        call().field("X-Request-Id", "a\u{e9}b"),
        call().field("X-Request-Id", b"a\xffb"),
        call()
            .field("X-Request-Id", "twice")
            .field("X-Request-Id", "twice"),
        call()
            .field("X-Request-Id", "first")
            .field("x-request-id", "second"),
    ] {
        assert_eq!(server.send(&call).status, 200);
        let id = last(&server, issued.id())["request_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        assert!(
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        assert!(made.insert(id), "a new one each time");
    }
    // Bytes that are not HTTP never cause an event.
    for byte in [0_u8, 1, 0x1b, 0x7f] {
        let answer = server.try_send(&call().field("X-Request-Id", [b'a', byte, b'b']));
        assert!(answer.is_none_or(|answer| answer.status == 400), "{byte}");
    }
}

#[test]
fn an_act_of_management_has_a_request_id_too() {
    let server = Server::of("allsign");
    let issue = |ids: &[&str]| {
        let call = Call::post("/keys").json(&json!({ "name": "n" }));
        let call = ids
            .iter()
            .fold(call, |call, id| call.field("X-Request-Id", id));
        let id = server.admin("owner", call).json()["record"]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        last(&server, &id)["request_id"].clone()
    };
    assert_eq!(issue(&["mine-1"]), "mine-1");
    for replaced in [&[][..], &["a\tb"], &["twice", "twice"]] {
        let id = issue(replaced);
        assert!(
            id.as_str().is_some_and(|id| id.len() == 32),
            "{replaced:?}: {id}"
        );
    }
}

#[test]
fn acts_of_management_name_the_operator_also_where_they_are_refused() {
    let server = Server::of("allsign");
    let issued = server.issue_as("admin", json!({}));
    let id = issued.id();
    change(&server, id, &json!({ "name": "renamed", "metadata": {} }));
    change(&server, id, &json!({ "enabled": false }));
    change(&server, id, &json!({ "enabled": true }));
    assert_eq!(
        patch(
            &server,
            id,
            &json!({ "expires_at": "2001-01-01T00:00:00Z" })
        )
        .status,
        422
    );
    assert_eq!(make_primary(&server, id).status, 200);
    assert_eq!(
        rotate(&server, id, &json!({ "grace_seconds": 60 })).status,
        201
    );
    assert_eq!(rotate(&server, id, &json!({})).status, 409);
    assert_eq!(server.revoke(id).status, 200);
    assert_eq!(make_primary(&server, id).status, 409);
    assert_eq!(delete(&server, id).status, 204);
    let page = events(&server, "owner", &format!("?key_id={id}&limit=500"));
    let told: Vec<_> = items(&page)
        .iter()
        .rev()
        .map(|event| {
            (
                event["action"].as_str().unwrap(),
                event["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("key.issue", "OK"),
            ("key.update", "OK"),
            ("key.disable", "OK"),
            ("key.enable", "OK"),
            ("key.update", "INVALID_BODY"),
            ("key.make_primary", "OK"),
            ("key.rotate", "OK"),
            ("key.rotate", "CONFLICT"),
            ("key.revoke", "OK"),
            ("key.make_primary", "CONFLICT"),
            ("key.delete", "OK"),
        ]
    );
    for (number, event) in items(&page).iter().rev().enumerate() {
        let (id, email) = match number {
            0 => (PLATFORM, "platform@app.com"),
            _ => (USER, "user@example.com"),
        };
        let operator = json!({ "user_id": id, "user_email": email });
        assert_eq!(event["actor"], operator, "{event}");
        assert_eq!(
            (&event["client_ip"], &event["tenant_id"]),
            (&json!("127.0.0.1"), &json!("tenant_abc123"))
        );
    }
}

#[test]
fn an_operators_forbidden_call_is_also_an_event() {
    let server = Server::of("yousign");
    for body in [
        json!({ "name": "n", "workspaces": ["ws2"] }),
        json!({ "name": "n", "plan": "enterprise" }),
        json!({ "name": "n", "owner": { "tenant_id": "tenant_xyz789" } }),
        json!({ "name": "n", "kind": "user", "owner": { "user_id": OUTSIDER } }),
    ] {
        let answer = server.admin("admin", Call::post("/keys").json(&body));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (403, Some("FORBIDDEN")),
            "{body}"
        );
        let page = events(
            &server,
            "owner",
            "?actor=platform@app.com&outcome=FORBIDDEN&limit=1",
        );
        assert_eq!(items(&page).len(), 1, "{body}: nothing was noted");
        assert_eq!(items(&page)[0]["action"], "key.issue");
    }
    let page = events(&server, "owner", "?actor=platform@app.com&limit=500");
    assert_eq!(
        outcomes(&page),
        ["FORBIDDEN"; 4],
        "each refusal is an event"
    );
}

#[test]
fn an_operators_forbidden_call_on_a_key_is_also_an_event() {
    let server = Server::of("yousign");
    let hidden = server.issue(json!({ "name": "hidden", "workspaces": ["ws2"] }));
    let path = format!("/keys/{}", hidden.id());
    for (call, action) in [
        (Call::new("DELETE", &path), "key.delete"),
        (Call::post(&format!("{path}/primary")), "key.make_primary"),
        (
            Call::new("PATCH", &path).json(&json!({ "name": "n" })),
            "key.update",
        ),
        (Call::post(&format!("{path}/rotate")), "key.rotate"),
        (Call::post(&format!("{path}/revoke")), "key.revoke"),
    ] {
        assert_eq!(server.admin("admin", call).status, 403, "{action}");
        let page = events(
            &server,
            "owner",
            &format!(
                "?actor=platform@app.com&outcome=FORBIDDEN&key_id={}&limit=1",
                hidden.id()
            ),
        );
        assert_eq!(
            items(&page)
                .first()
                .map(|event| event["action"].as_str().unwrap()),
            Some(action)
        );
    }
}

#[test]
fn a_flood_of_failures_is_bounded_and_hides_no_other_key() {
    let server = Server::of("allsign");
    let [flooded, other] = [server.issue(json!({})), server.issue(json!({}))];
    server.revoke(flooded.id());
    server.revoke(other.id());
    let request = format!(
        "GET /whoami HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        flooded.key
    );
    let mut connection = crate::common::Connection::open(server.address);
    for _ in 0..1000 {
        connection.write(request.as_bytes());
        assert!([401, 429].contains(&connection.answer().status));
    }
    let page = events(
        &server,
        "owner",
        &format!("?key_id={}&limit=500", flooded.id()),
    );
    let requests = items(&page)
        .iter()
        .filter(|event| event["action"] == "request")
        .count();
    assert!(
        (20..=210).contains(&requests),
        "{requests} events of 1000 failures"
    );
    // Management acts are recorded regardless of other events.
    change(
        &server,
        server.issue(json!({})).id(),
        &json!({ "name": "renamed" }),
    );
    assert_eq!(
        items(&events(&server, "owner", "?limit=1"))[0]["action"],
        "key.update"
    );
    // For a few seconds the client may be rate limited; then the other key's failure is visible.
    crate::common::until("the other key's failure", || {
        server.get("/whoami", &other.key);
        !items(&events(
            &server,
            "owner",
            &format!("?key_id={}&outcome=KEY_REVOKED", other.id()),
        ))
        .is_empty()
    });
}

// ---- secrets ----

/// Traces of a secret: pieces of its random part, raw and encoded.
fn traces(secret: &str) -> Vec<String> {
    let random = &secret[secret.len() - 32..];
    let mut traces: Vec<_> = (0..=random.len() - 10)
        .map(|from| random[from..from + 10].to_owned())
        .collect();
    let whole = [secret.to_owned(), format!("{secret}:"), random.to_owned()];
    for text in &whole {
        for skipped in 0..3 {
            let bytes = &text.as_bytes()[skipped..];
            let bytes = &bytes[bytes.len() / 9 * 3..bytes.len() / 3 * 3];
            traces.extend([STANDARD_NO_PAD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)]);
        }
    }
    traces.push(hex(random));
    traces
}

/// Returns the lines of a text that contain traces of a secret.
fn found<'t>(text: &'t str, secrets: &[&str]) -> Option<&'t str> {
    let traces: Vec<_> = secrets.iter().flat_map(|secret| traces(secret)).collect();
    text.lines()
        .find(|line| traces.iter().any(|trace| line.contains(trace)))
}

/// Asserts that after each of these calls neither the events nor the log reveal a key.
#[track_caller]
fn assert_untold(profile: &str, calls: impl Fn(&Server, &str) -> Vec<Call>) {
    let server = Server::start(profile, &[], &[("RUST_LOG", "trace")]);
    let primary = server.issue(json!({}));
    let key = server.issue(json!({})).key;
    let mut told = Vec::new();
    for call in calls(&server, &key) {
        server.send(&call);
        let page = server.admin("owner", Call::get("/events?limit=500")).text();
        if found(&page, &[&key]).is_some() {
            let event = page
                .split("},{")
                .find(|event| found(event, &[&key]).is_some())
                .unwrap_or_default();
            told.push(format!(
                "{} {}: {event}",
                call.method,
                call.target.replace(&key, "KEY")
            ));
            break;
        }
    }
    let log = server.log();
    assert!(log.contains("serving"));
    told.extend(found(&log, &[&key, &primary.key]).map(|line| format!("the log: {line}")));
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn a_key_in_request_headers_is_not_recorded() {
    for profile in ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"] {
        assert_untold(profile, |server, key| {
            let mut calls = Vec::new();
            for name in [
                "X-User-Id",
                "X-On-Behalf-Of",
                "X-On-Behalf-Email",
                "X-Request-Id",
                "Cookie",
                "X-API-Key",
                "Referer",
                "User-Agent",
            ] {
                for value in [key.to_owned(), format!("Bearer {key}")] {
                    calls.push(server.with_key(Call::get("/whoami").field(name, &value), key));
                    calls.push(Call::get("/whoami").field(name, &value));
                }
            }
            calls
        });
    }
}

#[test]
fn a_key_within_other_text_in_headers_is_not_recorded() {
    for profile in ["allsign", "yousign", "dropbox-sign"] {
        assert_untold(profile, |server, key| {
            let mut calls = Vec::new();
            for name in [
                "X-User-Id",
                "X-On-Behalf-Of",
                "X-On-Behalf-Email",
                "X-Request-Id",
            ] {
                for value in [
                    format!("id={key}"),
                    format!("{key};"),
                    format!("{key}@example.com"),
                    format!("\"{key}\""),
                ] {
                    calls.push(server.with_key(Call::get("/whoami").field(name, &value), key));
                }
            }
            calls
        });
    }
}

#[test]
fn a_key_in_the_path_or_the_query_is_not_recorded() {
    for profile in ["allsign", "yousign", "dropbox-sign"] {
        assert_untold(profile, |server, key| {
            let coded = format!("%{:02x}{}", key.as_bytes()[0], &key[1..]);
            let paths = [
                format!("/whoami?key={key}"),
                format!("/{key}"),
                format!("/v2/documents/{key}"),
                format!("/nowhere/{key}/rest"),
                format!("/{coded}"),
                format!("//{key}"),
                format!("/nowhere?{key}"),
                format!("/v3/workspaces/{key}/templates"),
            ];
            paths
                .iter()
                .map(|path| server.with_key(Call::get(path), key))
                .collect()
        });
    }
}

#[test]
fn a_key_within_other_text_in_the_path_is_not_recorded() {
    for profile in ["allsign", "yousign", "dropbox-sign"] {
        assert_untold(profile, |server, key| {
            let paths = [
                format!("/{key}.json"),
                format!("/key={key}"),
                format!("/{key}:"),
                format!("/nowhere;key={key}"),
                format!("/a-{key}"),
                format!("/https:%2f%2f{key}:@localhost"),
            ];
            paths
                .iter()
                .map(|path| server.with_key(Call::get(path), key))
                .collect()
        });
    }
}

#[test]
fn a_key_in_the_request_id_of_a_management_call_is_not_recorded() {
    for profile in ["allsign", "dropbox-sign"] {
        assert_untold(profile, |server, key| {
            let call = Call::post("/admin/keys")
                .json(&json!({ "name": "n" }))
                .field("X-Request-Id", key);
            vec![call.bearer(&server.operator("owner"))]
        });
    }
}

#[test]
fn a_key_in_place_of_an_id_is_not_recorded() {
    for profile in ["allsign", "dropbox-sign"] {
        for (method, rest) in [
            ("GET", ""),
            ("PATCH", ""),
            ("GET", "/usage"),
            ("POST", "/revoke"),
            ("POST", "/rotate"),
            ("POST", "/primary"),
            ("DELETE", ""),
        ] {
            assert_untold(profile, |server, key| {
                vec![
                    Call::new(method, &format!("/admin/keys/{key}{rest}"))
                        .bearer(&server.operator("owner")),
                ]
            });
        }
    }
}

#[test]
fn a_key_in_a_management_body_or_query_is_not_recorded() {
    assert_untold("dropbox-sign", |server, key| {
        let post = |path: &str, body: Value| {
            Call::post(path)
                .json(&body)
                .bearer(&server.operator("owner"))
        };
        vec![
            post("/admin/verify", json!({ "key": key })),
            post("/admin/verify", json!({ "key": format!("{key}:") })),
            post("/admin/keys", json!({ "name": "n", "scopes": [key] })),
            post("/admin/keys", json!({ "name": "n", "environment": key })),
            post(
                "/admin/import",
                json!({ "name": "n", "digest": { "scheme": key, "hex": key } }),
            ),
            Call::get(&format!("/admin/events?actor={key}")).bearer(&server.operator("owner")),
            Call::get(&format!("/admin/events?key_id={key}")).bearer(&server.operator("owner")),
            Call::get(&format!("/admin/events?outcome={key}")).bearer(&server.operator("owner")),
            Call::get(&format!("/admin/keys?query={key}")).bearer(&server.operator("owner")),
        ]
    });
}

#[test]
fn acts_that_create_a_secret_do_not_record_it() {
    let server = Server::start("allsign", &[], &[("RUST_LOG", "trace")]);
    let issued = server.issue(json!({ "kind": "user", "owner": { "user_id": USER } }));
    let successor = rotate(&server, issued.id(), &json!({ "grace_seconds": 60 })).json();
    let successor = successor["key"].as_str().unwrap();
    for key in [issued.key.as_str(), successor] {
        assert_eq!(server.get("/whoami", key).status, 200);
        assert_eq!(server.get("/v2/documents", key).status, 403);
    }
    let page = server.admin("owner", Call::get("/events?limit=500")).text();
    let tokens = ["owner", "admin", "member", "outsider"].map(|name| server.operator(name));
    let mut secrets: Vec<_> = tokens.iter().map(String::as_str).collect();
    secrets.extend([issued.key.as_str(), successor]);
    assert_eq!(found(&page, &secrets), None);
    assert_eq!(found(&server.log(), &secrets), None);
}
