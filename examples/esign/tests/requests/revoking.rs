//! Revoking through the management API: once, permanently, and with the first reason.

use crate::common::{Call, Server};
use serde_json::json;

#[test]
fn revoking_twice_keeps_the_first_time_and_reason() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let revoke = |body: &str| {
        let answer = server.admin(
            "owner",
            Call::post(&format!("/keys/{}/revoke", issued.id())).body(body),
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.fields("cache-control"), ["no-store"]);
        answer.json()
    };
    let first = revoke(r#"{"reason":"leaked on a forum"}"#);
    assert_eq!(
        (&first["status"], &first["revoke_reason"]),
        (&json!("revoked"), &json!("leaked on a forum"))
    );
    assert_eq!(first["version"], 2);
    assert!(first["revoked_at"].as_str().unwrap() >= first["created_at"].as_str().unwrap());
    for body in [r#"{"reason":"another"}"#, "{}", "", r#"{"reason":null}"#] {
        assert_eq!(revoke(body), first);
    }
    assert_eq!(server.record(issued.id()), first);
}

#[test]
fn a_revocation_that_cannot_be_understood_is_not_done() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let revoke = |body: &str| {
        server.admin(
            "owner",
            Call::post(&format!("/keys/{}/revoke", issued.id())).body(body),
        )
    };
    for (status, body) in [
        (400, "{".to_owned()),
        (422, r#"{"because":"x"}"#.to_owned()),
        (422, r#"{"reason":1}"#.to_owned()),
        (422, r#"{"reason":"a\u0000b"}"#.to_owned()),
        (422, json!({ "reason": "x".repeat(1 << 20) }).to_string()),
    ] {
        assert_eq!(revoke(&body).status, status);
    }
    assert_eq!(server.record(issued.id())["status"], "active");
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
}

#[test]
fn many_revocations_at_once_agree() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let body = json!({ "reason": format!("reason {number}") });
                let call = Call::post(&format!("/keys/{}/revoke", issued.id())).json(&body);
                let server = &server;
                scope.spawn(move || server.admin("owner", call))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let kept = server.record(issued.id());
    assert_eq!(kept["version"], 2, "one change");
    for answer in answers {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), kept);
    }
}
