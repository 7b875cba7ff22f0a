//! Conditional requests on the wire, for every call about a key.

use crate::common::manage::assert_problem;
use crate::common::{Call, Server};
use serde_json::{Value, json};

#[test]
fn a_stale_tag_keeps_every_write_from_being_done() {
    let server = Server::of("allsign");
    server.issue(json!({}));
    for (method, rest, ok) in [
        ("PATCH", "", 200),
        ("POST", "/primary", 200),
        ("POST", "/rotate", 201),
        ("POST", "/revoke", 200),
        ("DELETE", "", 204),
    ] {
        let issued = server.issue(json!({}));
        let call = || {
            let call = Call::new(method, &format!("/keys/{}{rest}", issued.id()));
            call.json(&json!({}))
        };
        for (name, value) in [
            ("If-Match", "\"0\""),
            ("If-Match", "W/\"1\""),
            ("If-Match", "\"0, *\""),
            ("If-None-Match", "*"),
        ] {
            let answer = server.admin("owner", call().field(name, value));
            assert_problem(&answer, 412, "PRECONDITION_FAILED", &[]);
            assert_eq!(server.record(issued.id()), issued.record, "{method} {rest}");
        }
        assert_eq!(server.get("/whoami", &issued.key).status, 200);
        let answer = server.admin("owner", call().field("If-Match", "\"0\", \"1\""));
        assert_eq!(answer.status, ok, "{method} {rest}: {}", answer.text());
    }
}

#[test]
fn a_key_that_is_known_is_not_shown_again() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let path = format!("/keys/{}", issued.id());
    // Using a key does not change its version.
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
    for known in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*"] {
        for method in ["GET", "HEAD"] {
            let call = Call::new(method, &path).field("If-None-Match", known);
            let answer = server.admin("owner", call);
            assert_eq!((answer.status, answer.body.as_slice()), (304, &b""[..]));
            assert_eq!(answer.fields("etag"), ["\"1\""]);
            assert_eq!(answer.fields("cache-control"), ["no-store"]);
            // axum sends a HEAD response with the content length that GET would have.
            let absent: &[_] = match method {
                "HEAD" => &["content-type", "transfer-encoding"],
                _ => &["content-type", "transfer-encoding", "content-length"],
            };
            for absent in absent {
                assert_eq!(answer.fields(absent), [""; 0], "{method} {known}");
            }
        }
    }
    let call = Call::get(&path).field("If-None-Match", "\"0\"");
    assert_eq!(server.admin("owner", call).json()["id"], issued.id());
    let call = Call::get(&path).field("If-Match", "\"0\"");
    assert_problem(
        &server.admin("owner", call),
        412,
        "PRECONDITION_FAILED",
        &[],
    );
}

#[test]
fn where_no_key_is_concerned_only_a_star_matches() {
    let server = Server::of("allsign");
    let digest = json!({ "scheme": "sha256", "hex": "ab".repeat(32) });
    for (path, body, ok) in [
        ("/keys", json!({ "name": "n" }), 201),
        ("/import", json!({ "name": "n", "digest": digest }), 201),
        ("/verify", json!({ "key": "k" }), 200),
    ] {
        let call = |tag: &str| Call::post(path).json(&body).field("If-Match", tag);
        for tag in ["\"1\"", "W/\"1\"", "\"1\", \"2\"", "1"] {
            let answer = server.admin("owner", call(tag));
            assert_problem(&answer, 412, "PRECONDITION_FAILED", &[]);
        }
        assert_eq!(server.admin("owner", call("*")).status, ok, "{path}");
    }
}

/// The order of checks is the same on every store, even for errors that only the store detects.
#[test]
fn refusals_by_the_store_do_not_depend_on_preconditions() {
    let folder = tempfile::tempdir().unwrap();
    let mut places = vec!["memory".to_owned()];
    places.push(format!(
        "sqlite:{}",
        folder.path().join("keys.db").display()
    ));
    for place in &places {
        // At most four keys, one of them primary.
        let server = Server::on(place, "dropbox-sign");
        let keys: Vec<_> = (0..3).map(|_| server.issue(json!({}))).collect();
        let import = || {
            let digest = json!({ "scheme": "sha256", "hex": "ab".repeat(32) });
            Call::post("/import").json(&json!({ "name": "n", "digest": digest }))
        };
        assert_eq!(server.admin("owner", import()).status, 201);
        let shown = |call: Call| {
            let answer = server.admin("owner", call);
            (answer.status, answer.json())
        };
        for (code, call) in [
            ("CONFLICT", import()),
            (
                "QUOTA_EXCEEDED",
                Call::post("/keys").json(&json!({ "name": "n" })),
            ),
            (
                "QUOTA_EXCEEDED",
                Call::post(&format!("/keys/{}/rotate", keys[0].id())),
            ),
            (
                "CONFLICT",
                Call::new("DELETE", &format!("/keys/{}", keys[0].id())),
            ),
        ] {
            let plain: (u16, Value) = shown(call.clone());
            assert_eq!((plain.0, &plain.1["code"]), (409, &json!(code)), "{place}");
            assert_eq!(shown(call.field("If-Match", "\"0\"")), plain, "{place}");
        }
        let stale = Call::new("DELETE", &format!("/keys/{}", keys[1].id()));
        let answer = server.admin("owner", stale.field("If-Match", "\"0\""));
        assert_problem(&answer, 412, "PRECONDITION_FAILED", &[]);
        for key in &keys {
            assert_eq!(server.record(key.id())["version"], 1, "{place}");
        }
    }
}

#[test]
fn a_tag_may_have_any_byte() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let path = format!("/keys/{}", issued.id());
    let rename = json!({ "name": "other" });
    for tags in [&b"\"\xe9\""[..], b"W/\"\xe9\""] {
        let patch = Call::new("PATCH", &path)
            .json(&rename)
            .field("if-match", tags);
        assert_problem(
            &server.admin("owner", patch),
            412,
            "PRECONDITION_FAILED",
            &[],
        );
        let issue = Call::post("/keys").json(&json!({ "name": "a" }));
        let answer = server.admin("owner", issue.field("if-match", tags));
        assert_problem(&answer, 412, "PRECONDITION_FAILED", &[]);
    }
    let known = Call::get(&path).field("if-none-match", b"\"\xe9\", \"1\"");
    assert_eq!(server.admin("owner", known).status, 304);
    let unknown = Call::get(&path).field("if-none-match", b"\"\xe9\"");
    assert_eq!(server.admin("owner", unknown).status, 200);
}
