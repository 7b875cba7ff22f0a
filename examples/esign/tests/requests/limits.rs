//! Rate limits of a key, and the fields in its responses: 60 a minute and 1000 an hour by default.

use std::thread;

use crate::common::manage::assert_invalid;
use crate::common::{Answer, Call, Server};
use serde_json::json;

const POLICY: &str = r#""minute";q=60;w=60, "hour";q=1000;w=3600"#;

fn one(answer: &Answer, name: &str) -> String {
    let [value] = answer.fields(name)[..] else {
        panic!("{name} occurs {} times", answer.fields(name).len())
    };
    value.to_owned()
}

/// Returns `r` and `t` of a window.
fn window(answer: &Answer, name: &str) -> (u64, u64) {
    let state = one(answer, "ratelimit");
    let item = state
        .split(", ")
        .find(|item| item.starts_with(&format!("\"{name}\"")))
        .unwrap();
    let parameter = |key: &str| {
        item.split(';')
            .find_map(|part| part.strip_prefix(key))
            .unwrap()
            .parse()
            .unwrap()
    };
    (parameter("r="), parameter("t="))
}

#[test]
fn the_sixty_first_request_of_a_minute_is_refused_on_every_profile() {
    for profile in ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"] {
        let server = Server::of(profile);
        let key = server.issue(json!({})).key;
        for left in (0..60).rev() {
            let answer = server.get("/whoami", &key);
            assert_eq!(answer.status, 200, "{profile}: {left} left");
            assert_eq!(one(&answer, "ratelimit-policy"), POLICY);
            assert_eq!(
                (window(&answer, "minute").0, window(&answer, "hour").0),
                (left, 940 + left),
                "{profile}"
            );
        }
        let refused = server.get("/whoami", &key);
        assert_eq!(refused.status, 429, "{profile}");
        assert_eq!(one(&refused, "ratelimit-policy"), POLICY);
        // The refusal changed no window.
        let (left, reset) = window(&refused, "minute");
        assert_eq!((left, window(&refused, "hour").0), (0, 940), "{profile}");
        let wait: u64 = one(&refused, "retry-after").parse().unwrap();
        assert!(
            (1..=61).contains(&wait) && wait >= reset,
            "{profile}: Retry-After {wait}, t={reset}"
        );
        assert_eq!(one(&refused, "cache-control"), "no-store");
        assert_eq!(refused.fields("x-ratelimit-limit"), [""; 0]);
        if matches!(profile, "yousign" | "iusign") {
            assert_eq!(one(&refused, "content-type"), "application/problem+json");
            let problem = refused.json();
            assert_eq!(
                problem["type"],
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            );
            assert_eq!(
                (&problem["status"], &problem["code"]),
                (&json!(429), &json!("RATE_LIMITED"))
            );
            assert_eq!(problem["violated-policies"], json!(["minute"]));
        }
        // Another key is counted separately.
        let other = server.issue(json!({})).key;
        assert_eq!(
            window(&server.get("/whoami", &other), "minute").0,
            59,
            "{profile}"
        );
    }
}

#[test]
fn a_key_is_limited_as_it_was_issued() {
    let server = Server::of("allsign");
    let limits = json!({ "requests_per_minute": 5, "requests_per_hour": 3 });
    let issued = server.issue(json!({ "rate_limit_config": limits }));
    assert_eq!(issued.record["rate_limit_config"], limits);
    let statuses: Vec<_> = (0..5)
        .map(|_| server.get("/whoami", &issued.key).status)
        .collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    // Refused by the hour: the minute window is unchanged.
    let refused = server.get("/whoami", &issued.key);
    assert_eq!(
        (window(&refused, "minute").0, window(&refused, "hour").0),
        (2, 0)
    );
    let wait: u64 = one(&refused, "retry-after").parse().unwrap();
    assert!((3590..=3601).contains(&wait), "{wait}");

    let half = server.issue(json!({ "rate_limit_config": { "requests_per_minute": 7 } }));
    let shown = json!({ "requests_per_minute": 7, "requests_per_hour": 1000 });
    assert_eq!(half.record["rate_limit_config"], shown);
    assert_eq!(
        one(&server.get("/whoami", &half.key), "ratelimit-policy"),
        r#""minute";q=7;w=60, "hour";q=1000;w=3600"#
    );
}

#[test]
fn limits_that_cannot_be_are_refused_where_they_are_set() {
    let server = Server::of("allsign");
    for (limits, field) in [
        (json!({ "requests_per_minute": 0 }), "rate_limit_config"),
        (json!({ "requests_per_hour": 0 }), "rate_limit_config"),
        (
            json!({ "requests_per_hour": 4_294_967_296_u64 }),
            "rate_limit_config",
        ),
        (json!({ "requests_per_minute": -1 }), "body"),
        (json!({ "requests_per_minute": 1.5 }), "body"),
        (json!({ "requests_per_day": 5 }), "body"),
        (json!([5, 5]), "body"),
        (json!("60"), "body"),
    ] {
        assert_invalid(
            &server,
            &json!({ "name": "n", "rate_limit_config": limits }),
            field,
        );
    }
}

#[test]
fn every_response_to_a_counted_request_has_rate_limit_fields() {
    let server = Server::of("allsign");
    let key = server.issue_scoped(&["document:read"]).key;
    for (call, status) in [
        (Call::get("/v2/documents"), 200),
        (Call::get("/v2/signatures"), 403),
        (Call::post("/v2/documents"), 403),
        (Call::new("PATCH", "/v2/documents"), 405),
        (
            Call::get("/whoami").field("X-User-Id", crate::common::NOBODY),
            403,
        ),
    ] {
        let answer = server.send(&server.with_key(call, &key));
        assert_eq!(answer.status, status);
        assert_eq!(one(&answer, "ratelimit-policy"), POLICY, "{status}");
    }
    assert_eq!(window(&server.get("/whoami", &key), "minute").0, 54);
    // Requests that were not counted have no fields: no key, an unknown key, an unknown path.
    let unknown = "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01";
    for call in [
        Call::get("/whoami"),
        Call::get("/whoami").bearer(unknown),
        Call::get("/nope").bearer(&key),
    ] {
        assert_eq!(server.send(&call).fields("ratelimit"), [""; 0]);
    }
    assert_eq!(window(&server.get("/whoami", &key), "minute").0, 53);
}

#[test]
fn two_hundred_requests_at_once_are_sixty() {
    let server = Server::of("allsign");
    let key = server.issue(json!({})).key;
    let passed: usize = thread::scope(|scope| {
        let ask = || {
            (0..20)
                .filter(|_| server.get("/whoami", &key).status == 200)
                .count()
        };
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 60);
}

#[test]
fn a_flood_of_unknown_keys_is_limited_and_affects_no_real_key() {
    let server = Server::of("allsign");
    let key = server.issue(json!({})).key;
    let flood = |number: usize| {
        let unknown = format!("allsign_live_sk_{number:032}");
        server.send(&Call::get("/whoami").bearer(&unknown))
    };
    let statuses: Vec<_> = (0..110).map(|number| flood(number).status).collect();
    assert_eq!(statuses, [vec![401; 100], vec![429; 10]].concat());
    let refused = flood(0);
    assert_eq!(refused.text(), r#"{"detail": "Too many failed attempts"}"#);
    let wait: u64 = one(&refused, "retry-after").parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(one(&refused, "cache-control"), "no-store");
    // Malformed keys are not counted, and a real key is not refused because of them.
    assert_eq!(
        server.send(&Call::get("/whoami").bearer("garbage")).status,
        401
    );
    let real = server.get("/whoami", &key);
    assert_eq!(
        (
            real.status,
            window(&real, "minute").0,
            window(&real, "hour").0
        ),
        (200, 59, 999)
    );
    // Its success did not reset the count.
    assert_eq!(flood(1).status, 429);
}

#[test]
fn garbage_and_unauthenticated_requests_are_never_limited() {
    let server = Server::of("allsign");
    for _ in 0..150 {
        assert_eq!(server.send(&Call::get("/whoami")).status, 401);
        assert_eq!(
            server
                .send(&Call::get("/whoami").bearer("allsign_live_sk_short"))
                .status,
            401
        );
        assert_eq!(server.send(&Call::get("/healthz")).status, 200);
    }
}
