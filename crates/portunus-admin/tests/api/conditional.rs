//! Conditional requests (RFC 9110 §13): preconditions of every call about a key, evaluated last;
//! refused calls have no effect.

use serde_json::{Value, json};

use crate::everywhere::{fresh_hex, good};
use crate::fixture::{Ask, Fixture, send};

const ON_A_KEY: [(&str, &str); 5] = [
    ("PATCH", "/keys/{id}"),
    ("DELETE", "/keys/{id}"),
    ("POST", "/keys/{id}/revoke"),
    ("POST", "/keys/{id}/rotate"),
    ("POST", "/keys/{id}/primary"),
];

/// Fields of a request about a key at version 1, and whether it succeeds.
const ON_VERSION_1: &[(&[(&str, &str)], bool)] = &[
    (&[], true),
    (&[("if-match", "\"1\"")], true),
    (&[("if-match", "*")], true),
    (&[("if-match", "\"0\", \"1\"")], true),
    (&[("if-match", "\"0\",,\t\"1\" ,")], true),
    (&[("if-match", "\"0\""), ("if-match", "\"1\"")], true),
    (&[("if-match", "\"0\"")], false),
    (&[("if-match", "\"2\"")], false),
    (&[("if-match", "\"01\"")], false),
    (&[("if-match", "\"1 \"")], false),
    (&[("if-match", "1")], false),
    (&[("if-match", "\"1")], false),
    (&[("if-match", "'1'")], false),
    (&[("if-match", "")], false),
    // If-Match uses the strong comparison.
    (&[("if-match", "W/\"1\"")], false),
    (&[("if-match", "W/\"1\", \"0\"")], false),
    // The content of a tag is not a list.
    (&[("if-match", "\"0, *, 2\"")], false),
    (&[("if-match", "\"a,*\"")], false),
    (&[("if-none-match", "*")], false),
    (&[("if-none-match", "\"1\"")], false),
    (&[("if-none-match", "W/\"1\"")], false),
    (&[("if-none-match", "\"0\", W/\"1\"")], false),
    (&[("if-none-match", "\"0\"")], true),
    (&[("if-none-match", "\"0, *\"")], true),
    (&[("if-match", "\"1\""), ("if-none-match", "\"0\"")], true),
    (&[("if-match", "\"1\""), ("if-none-match", "*")], false),
    (&[("if-match", "\"0\""), ("if-none-match", "\"0\"")], false),
    // There is no modification time to compare with.
    (
        &[("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")],
        true,
    ),
    (
        &[("if-modified-since", "Fri, 31 Dec 9999 23:59:59 GMT")],
        true,
    ),
];

fn under(ask: Ask, fields: &[(&'static str, &'static str)]) -> Ask {
    fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value))
}

#[tokio::test]
async fn a_write_is_done_only_at_a_version_that_the_caller_expects() {
    for (method, template) in ON_A_KEY {
        let fixture = Fixture::new().await;
        for (fields, done) in ON_VERSION_1 {
            // None is its owner's primary key: without a condition each call succeeds.
            let ask = under(good(&fixture, method, template).await, fields);
            let before = fixture.keys().await;
            let answer = send(&fixture.router, &ask).await;
            let context = format!("{method} {template} {fields:?}: {}", answer.status);
            if *done {
                assert!(answer.status < 300, "{context}");
                continue;
            }
            fixture.document.check_as("412", &ask, &answer);
            assert_eq!(answer.json()["code"], "PRECONDITION_FAILED", "{context}");
            assert_eq!(fixture.keys().await, before, "{context}");
        }
    }
}

#[tokio::test]
async fn reading_a_key_at_a_known_version_is_304_with_its_tag() {
    let fixture = Fixture::new().await;
    let id = fixture.plain().await;
    for (fields, status) in [
        (&[("if-none-match", "\"1\"")][..], 304),
        (&[("if-none-match", "W/\"1\"")], 304),
        (&[("if-none-match", "\"0\", \"1\"")], 304),
        (
            &[("if-none-match", "\"0\""), ("if-none-match", "W/\"1\"")],
            304,
        ),
        (&[("if-none-match", "*")], 304),
        (&[("if-match", "\"1\""), ("if-none-match", "\"1\"")], 304),
        (&[("if-none-match", "\"0\"")], 200),
        (&[("if-none-match", "1")], 200),
        (&[("if-none-match", "")], 200),
        (&[("if-none-match", "\"*\"")], 200),
        (&[("if-match", "\"1\"")], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", "\"0\"")], 412),
        (&[("if-match", "\"0\""), ("if-none-match", "\"1\"")], 412),
    ] {
        let ask = under(Ask::new("GET", "/keys/{id}").of(&id), fields);
        let answer = fixture.expect(status, ask.clone()).await;
        if status == 304 {
            assert_eq!(answer.headers["etag"], "\"1\"");
            assert_eq!(answer.headers["cache-control"], "no-store");
            assert!(answer.body.is_empty() && !answer.headers.contains_key("content-type"));
        }
        let head = Ask {
            method: "HEAD".into(),
            ..ask
        };
        assert_eq!(
            send(&fixture.router, &head).await.status,
            status,
            "{fields:?}"
        );
    }
    // Usage does not change the version.
    fixture.used(&id, 3).await;
    let ask = Ask::new("GET", "/keys/{id}").of(&id);
    fixture
        .expect(304, ask.clone().header("if-none-match", "\"1\""))
        .await;
    let change = Ask::new("PATCH", "/keys/{id}").of(&id);
    fixture
        .expect(200, change.json(&json!({ "name": "n" })))
        .await;
    fixture
        .expect(200, ask.header("if-none-match", "\"1\""))
        .await;
}

#[tokio::test]
async fn where_no_key_is_concerned_any_version_will_do_and_no_tag() {
    let fixture = Fixture::new().await;
    let dry_run = json!({ "filter": { "all": true }, "action": "revoke", "dry_run": true });
    for (method, template) in [
        ("POST", "/keys"),
        ("POST", "/import"),
        ("POST", "/verify"),
        ("POST", "/keys/bulk"),
    ] {
        for (fields, done) in [
            (&[("if-match", "*")][..], true),
            (&[("if-none-match", "*")], true),
            (&[("if-none-match", "\"1\"")], true),
            (&[("if-match", "\"1\"")], false),
            (&[("if-match", "\"0\", \"1\"")], false),
            (&[("if-match", "W/\"1\"")], false),
            (&[("if-match", "")], false),
        ] {
            let ask = match template {
                "/keys/bulk" => Ask::new(method, template).json(&dry_run),
                _ => good(&fixture, method, template).await,
            };
            let ask = under(ask, fields);
            let before = fixture.keys().await;
            let answer = send(&fixture.router, &ask).await;
            let context = format!("{template} {fields:?}: {}", answer.status);
            if done {
                assert!(answer.status < 300, "{context}");
            } else {
                fixture.document.check_as("412", &ask, &answer);
                assert_eq!(fixture.keys().await, before, "{context}");
            }
        }
    }
}

/// A call that is refused without a condition gets the same bytes under a condition that does not
/// hold.
#[tokio::test]
async fn conditions_are_evaluated_last() {
    let fixture = Fixture::new().await;
    let taken = fresh_hex();
    let import = |hex: &str| {
        let digest = json!({ "scheme": "sha256", "hex": hex });
        Ask::new("POST", "/import").json(&json!({ "name": "n", "digest": digest }))
    };
    fixture.expect(201, import(&taken)).await;
    let revoked = fixture.plain().await;
    fixture
        .expect(200, Ask::new("POST", "/keys/{id}/revoke").of(&revoked))
        .await;
    let key = fixture.plain().await;
    let primary = primary_of(&fixture).await;
    let crowd = |name: &str| {
        Ask::new("POST", "/keys")
            .by("crowded")
            .json(&json!({ "name": name }))
    };
    let first = fixture.expect(201, crowd("a")).await.json();
    fixture.expect(201, crowd("b")).await;
    let crowded = first["record"]["id"].as_str().unwrap().to_owned();
    let change = |id: &str, body: Value| Ask::new("PATCH", "/keys/{id}").of(id).json(&body);
    let rotate = |id: &str, body: Value| Ask::new("POST", "/keys/{id}/rotate").of(id).json(&body);
    for (status, ask) in [
        (401, change(&key, json!({ "name": "n" })).by_nobody()),
        (403, change(&key, json!({ "name": "n" })).by("member")),
        (404, change("key_unknown", json!({ "name": "n" }))),
        (
            404,
            Ask::new("DELETE", "/keys/{id}").of(&key).by("outsider"),
        ),
        (400, change(&key, json!({})).raw("{")),
        (422, change(&key, json!({ "name": "" }))),
        (
            422,
            change(&key, json!({ "expires_at": "2000-01-01T00:00:00Z" })),
        ),
        (
            415,
            change(&key, json!({})).header("content-type", "text/plain"),
        ),
        (409, change(&revoked, json!({ "name": "n" }))),
        (409, rotate(&revoked, json!({}))),
        (422, rotate(&key, json!({ "grace_seconds": u64::MAX }))),
        (409, Ask::new("POST", "/keys/{id}/primary").of(&revoked)),
        (409, Ask::new("DELETE", "/keys/{id}").of(&primary)),
        (
            422,
            Ask::new("POST", "/keys/{id}/revoke")
                .of(&key)
                .json(&json!({ "reason": 1 })),
        ),
        (409, crowd("c")),
        (409, import(&taken)),
        (422, import("00")),
        (422, Ask::new("POST", "/verify").json(&json!({}))),
    ] {
        let plain = fixture.expect(status, ask.clone()).await;
        for tag in ["\"0\"", "W/\"1\""] {
            let conditional = send(&fixture.router, &ask.clone().header("if-match", tag)).await;
            assert_eq!(
                (conditional.status, conditional.json()),
                (plain.status, plain.json()),
                "{ask:?}"
            );
        }
    }
    // Without a grace period, a rotation does not change the number of keys, so the quota does not
    // matter.
    let rotated = rotate(&crowded, json!({}))
        .by("crowded")
        .header("if-match", "\"0\"");
    fixture.expect(412, rotated).await;
}

/// The id of our tenant's primary key.
async fn primary_of(fixture: &Fixture) -> String {
    let page = fixture.keys().await;
    let mut keys = page["items"].as_array().unwrap().iter();
    let primary = keys.find(|key| key["primary"] == true).unwrap();
    primary["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_repeated_request_is_recognized_before_its_conditions() {
    let fixture = Fixture::new().await;
    let id = fixture.plain().await;
    for ask in [
        Ask::new("POST", "/keys").json(&json!({ "name": "once" })),
        Ask::new("POST", "/keys/{id}/rotate")
            .of(&id)
            .json(&json!({ "grace_seconds": 60 })),
    ] {
        let once = ask.header("idempotency-key", "k");
        let stale = once.clone().header("if-match", "\"0\"");
        // Not executed before, and not executed now.
        fixture.expect(412, stale.clone()).await;
        let made = fixture.expect(201, once).await.json();
        let again = fixture.expect(200, stale).await.json();
        assert_eq!(again["key"], Value::Null);
        assert_eq!(again["record"]["id"], made["record"]["id"]);
    }
}

#[tokio::test]
async fn a_refused_condition_is_in_the_audit() {
    let fixture = Fixture::new().await;
    let id = fixture.plain().await;
    let stale = Ask::new("DELETE", "/keys/{id}")
        .of(&id)
        .header("if-match", "\"0\"");
    fixture.expect(412, stale).await;
    let events = Ask::new("GET", "/events").query(&format!("key_id={id}&limit=1"));
    let event = &fixture.expect(200, events).await.json()["items"][0];
    assert_eq!(event["action"], "key.delete");
    assert_eq!(event["outcome"], "PRECONDITION_FAILED");
}
