//! Refusals of a real key for its environment, its validity period or its revocation, and to whom
//! the reason is disclosed.

use std::thread;
use std::time::Duration;

use crate::common::{Answer, Call, Server, assert_refused};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

const INVALID: &str = r#"{"detail": "Invalid or expired API key"}"#;
const CHALLENGE: &[&str] = &[r#"Bearer realm="allsign", error="invalid_token""#];

fn assert_invalid(answer: &Answer) {
    assert_refused(answer, 401, "application/json", INVALID, CHALLENGE);
}

#[test]
fn a_server_bound_to_live_refuses_test_keys_without_a_reason() {
    let server = Server::start("allsign", &["--environment", "live"], &[]);
    let test = server.issue(json!({ "environment": "test", "scopes": ["*"] }));
    let live = server.issue(json!({ "scopes": ["*"] }));
    assert_eq!(live.record["environment"], "live");
    let answer = server.get("/v2/documents", &test.key);
    assert_invalid(&answer);
    let refused = answer.timeless();
    for unknown in [
        "allsign_test_sk_0123456789abcdefghijABCDEFGHIJ01",
        "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01",
    ] {
        assert_eq!(server.get("/v2/documents", unknown).timeless(), refused);
    }
    assert_eq!(
        server.get("/v2/documents", &live.key).text(),
        r#"{"documents":[]}"#
    );
}

#[test]
fn a_key_of_another_environment_reaches_no_handler() {
    let server = Server::start("allsign", &["--environment", "live"], &[]);
    let test = server.issue(json!({ "environment": "test", "scopes": ["*"] }));
    let live = server.issue(json!({ "scopes": ["*"] }));
    assert_invalid(
        &server.send(
            &Call::post("/v2/documents")
                .bearer(&test.key)
                .json(&json!({ "title": "t" })),
        ),
    );
    assert_eq!(
        server.get("/v2/documents", &live.key).text(),
        r#"{"documents":[]}"#
    );
    assert_eq!(server.record(test.id())["request_count"], 0);
    assert_eq!(server.record(test.id())["last_used_at"], json!(null));
}

#[test]
fn the_bound_environment_is_the_default_for_new_keys() {
    for (profile, bound, other) in [
        ("allsign", "test", "live"),
        ("yousign", "sandbox", "production"),
        ("iusign", "staging", "development"),
    ] {
        let server = Server::start(profile, &["--environment", bound], &[]);
        let issued = server.issue(json!({}));
        assert_eq!(issued.record["environment"], bound);
        assert_eq!(server.get("/whoami", &issued.key).status, 200);
        let other = server.issue(json!({ "environment": other }));
        assert_eq!(server.get("/whoami", &other.key).status, 401, "{profile}");
    }
}

#[test]
fn opaque_keys_of_another_environment_are_identified_only_to_their_holder() {
    let server = Server::start("iusign", &["--environment", "production"], &[]);
    let staging = server.issue(json!({ "environment": "staging" }));
    assert_refused(
        &server.get("/whoami", &staging.key),
        401,
        "application/problem+json",
        concat!(
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"#,
            r#""detail":"The API key belongs to another environment","code":"WRONG_ENVIRONMENT"}"#
        ),
        &[r#"Bearer realm="iusign", error="invalid_token""#],
    );
    let wrong = format!(
        "{}{}",
        &staging.key[..39],
        if staging.key.ends_with('0') { '1' } else { '0' }
    );
    assert_eq!(server.get("/whoami", &wrong).json()["code"], "INVALID_KEY");
}

#[test]
fn an_unbound_server_keeps_the_data_of_environments_apart() {
    let server = Server::of("allsign");
    let test = server.issue(json!({ "environment": "test", "scopes": ["*"] }));
    let live = server.issue(json!({ "environment": "live", "scopes": ["*"] }));
    let made = server.send(
        &Call::post("/v2/documents")
            .bearer(&test.key)
            .json(&json!({ "title": "only a test" })),
    );
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        server.get("/v2/documents", &live.key).text(),
        r#"{"documents":[]}"#
    );
    let remove = |key: &str| {
        server
            .send(&Call::new("DELETE", &format!("/v2/documents/{id}")).bearer(key))
            .status
    };
    assert_eq!(remove(&live.key), 404);
    assert_eq!(
        server.get("/v2/documents", &test.key).json()["documents"][0]["title"],
        "only a test"
    );
    assert_eq!(remove(&test.key), 204);
}

#[test]
fn a_revoked_key_is_refused_on_the_next_request() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["document:read"]);
    // The key was used many times before, so its cache entry must be dropped.
    for _ in 0..10 {
        assert_eq!(server.get("/v2/documents", &issued.key).status, 200);
    }
    assert_eq!(server.revoke(issued.id()).status, 200);
    assert_invalid(&server.get("/v2/documents", &issued.key));
    assert_invalid(&server.get("/whoami", &issued.key));
    assert_eq!(
        server.record(issued.id())["request_count"],
        10,
        "refused requests do not count as usage"
    );
}

#[test]
fn a_revocation_holds_on_connections_that_are_open() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let request = format!(
        "GET /whoami HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        issued.key
    );
    let mut connection = crate::common::Connection::open(server.address);
    connection.write(request.as_bytes());
    assert_eq!(connection.answer().status, 200);
    server.revoke(issued.id());
    connection.write(request.as_bytes());
    assert_invalid(&connection.answer());
}

#[test]
fn a_revocation_under_fire_lets_nothing_through_afterwards() {
    let server = Server::of("insigner");
    for _ in 0..5 {
        let issued = server.issue_scoped(&["*"]);
        thread::scope(|scope| {
            let users: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let statuses =
                            (0..10).map(|_| server.get("/api/v1/org", &issued.key).status);
                        statuses.collect::<Vec<_>>()
                    })
                })
                .collect();
            assert_eq!(server.revoke(issued.id()).status, 200);
            assert_eq!(
                server.get("/api/v1/org", &issued.key).json()["code"],
                "KEY_REVOKED"
            );
            for user in users {
                let statuses = user.join().unwrap();
                // Once refused, always refused.
                assert!(statuses.is_sorted(), "{statuses:?}");
                assert!(
                    statuses.iter().all(|status| [200, 401].contains(status)),
                    "{statuses:?}"
                );
            }
        });
    }
}

#[test]
fn revoking_one_key_touches_no_other() {
    let server = Server::of("allsign");
    let (one, other) = (server.issue(json!({})), server.issue(json!({})));
    server.revoke(one.id());
    assert_eq!(server.get("/whoami", &one.key).status, 401);
    assert_eq!(server.get("/whoami", &other.key).status, 200);
    assert_eq!(server.record(other.id())["status"], "active");
}

/// Repeats a request until the status changes, within the usual time limit.
fn until_not(server: &Server, key: &str, status: u16) -> (Answer, Timestamp) {
    let look = || {
        let (answer, at) = (server.get("/whoami", key), Timestamp::now());
        // Slowly enough not to use up the quota.
        thread::sleep(Duration::from_millis(40));
        (answer.status != status).then_some((answer, at))
    };
    crate::common::eventually(look).unwrap_or_else(|| panic!("still {status}"))
}

#[test]
fn a_key_expires_at_its_instant() {
    let server = Server::of("allsign");
    let end = Timestamp::now() + SignedDuration::from_millis(1200);
    let issued = server.issue(json!({ "expires_at": format!("{end:.3}") }));
    assert_eq!(issued.record["expires_at"], format!("{end:.3}"));
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
    let (answer, at) = until_not(&server, &issued.key, 200);
    assert!(
        at >= end - SignedDuration::from_millis(1) && at < end + SignedDuration::from_secs(2),
        "{at} for {end}"
    );
    assert_invalid(&answer);
    let record = server.record(issued.id());
    assert_eq!(
        (&record["status"], &record["expires_at"]),
        (&json!("expired"), &json!(format!("{end:.3}")))
    );
}

#[test]
fn a_key_works_from_its_first_instant_on() {
    let server = Server::of("insigner");
    let start = Timestamp::now() + SignedDuration::from_millis(1200);
    let issued = server.issue(json!({ "not_before": format!("{start:.3}") }));
    assert_eq!(issued.record["status"], "not_yet_valid");
    assert_refused(
        &server.get("/whoami", &issued.key),
        401,
        "application/problem+json",
        concat!(
            r#"{ "type": "https://docs.insigner.com/errors/unauthorized", "#,
            r#""title": "Unauthorized", "status": 401, "#,
            r#""detail": "Invalid or missing API key", "code": "KEY_DISABLED"}"#
        ),
        &[r#"Bearer realm="insigner", error="invalid_token""#],
    );
    let (answer, at) = until_not(&server, &issued.key, 401);
    assert_eq!(answer.status, 200);
    assert!(
        at >= start - SignedDuration::from_millis(1),
        "{at} for {start}"
    );
    assert_eq!(server.record(issued.id())["status"], "active");
}

#[test]
fn revoked_outlasts_expired() {
    let server = Server::of("insigner");
    let end = Timestamp::now() + SignedDuration::from_millis(800);
    let issued = server.issue(json!({ "expires_at": format!("{end:.3}") }));
    server.revoke(issued.id());
    let code = || server.get("/whoami", &issued.key).json()["code"].clone();
    crate::common::until("its end", || {
        assert_eq!(code(), "KEY_REVOKED");
        // Slowly enough not to be rate limited.
        thread::sleep(Duration::from_millis(50));
        Timestamp::now() > end
    });
    assert_eq!(code(), "KEY_REVOKED");
    assert_eq!(server.record(issued.id())["status"], "revoked");
}
