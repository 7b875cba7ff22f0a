//! The documented responses of each of the five APIs are returned on the wire, byte for byte.
//!
//! One table line per refusal: no header, a wrong format, an unknown key, a missing scope; and a
//! valid key for comparison.

use crate::common::{Answer, Call, Server, USER, assert_refused};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// The documented responses of a profile, with their requests.
struct Profile {
    name: &'static str,
    media: &'static str,
    /// Challenges without an error, and with `invalid_token`.
    missing_challenges: &'static [&'static str],
    invalid_challenges: &'static [&'static str],
    missing: &'static str,
    malformed_key: &'static str,
    malformed: &'static str,
    /// A well-formed, unknown key.
    unknown_key: &'static str,
    unknown: &'static str,
}

const PROFILES: [Profile; 5] = [
    Profile {
        name: "allsign",
        media: JSON,
        missing_challenges: &[r#"Bearer realm="allsign""#],
        invalid_challenges: &[r#"Bearer realm="allsign", error="invalid_token""#],
        missing: concat!(
            r#"{"detail": "Missing Authorization header. "#,
            r#"Use: Authorization: Bearer allsign_live_sk_xxx"}"#
        ),
        malformed_key: "allsign_prod_sk_0123456789abcdefghijABCDEFGHIJ01",
        malformed: r#"{"detail": "Invalid API key format. Expected: allsign_{env}_{type}_{random}"}"#,
        unknown_key: "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01",
        unknown: r#"{"detail": "Invalid or expired API key"}"#,
    },
    Profile {
        name: "insigner",
        media: PROBLEM,
        missing_challenges: &[r#"Bearer realm="insigner""#],
        invalid_challenges: &[r#"Bearer realm="insigner", error="invalid_token""#],
        missing: concat!(
            r#"{ "type": "https://docs.insigner.com/errors/unauthorized", "#,
            r#""title": "Unauthorized", "status": 401, "#,
            r#""detail": "Invalid or missing API key", "code": "MISSING_KEY"}"#
        ),
        malformed_key: "sk_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1v2",
        malformed: concat!(
            r#"{ "type": "https://docs.insigner.com/errors/unauthorized", "#,
            r#""title": "Unauthorized", "status": 401, "#,
            r#""detail": "Invalid or missing API key", "code": "INVALID_FORMAT"}"#
        ),
        unknown_key: "isk_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1v2",
        unknown: concat!(
            r#"{ "type": "https://docs.insigner.com/errors/unauthorized", "#,
            r#""title": "Unauthorized", "status": 401, "#,
            r#""detail": "Invalid or missing API key", "code": "INVALID_KEY"}"#
        ),
    },
    Profile {
        name: "yousign",
        media: PROBLEM,
        missing_challenges: &[r#"Bearer realm="yousign""#],
        invalid_challenges: &[r#"Bearer realm="yousign", error="invalid_token""#],
        missing: concat!(
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"#,
            r#""detail":"No API key was presented","code":"MISSING_KEY"}"#
        ),
        malformed_key: "too-short",
        malformed: concat!(
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"#,
            r#""detail":"The credentials do not have the format of an API key","code":"INVALID_FORMAT"}"#
        ),
        unknown_key: "0123456789abcdefghijABCDEFGHIJ01",
        unknown: concat!(
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"#,
            r#""detail":"The API key is not valid","code":"INVALID_KEY"}"#
        ),
    },
    Profile {
        name: "iusign",
        media: PROBLEM,
        missing_challenges: &[r#"Bearer realm="iusign""#],
        invalid_challenges: &[r#"Bearer realm="iusign", error="invalid_token""#],
        missing: concat!(
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"#,
            r#""detail":"No API key was presented","code":"MISSING_KEY"}"#
        ),
        malformed_key: "0123456789abcdefghijABCDEFGHIJ01",
        malformed: concat!(
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"#,
            r#""detail":"The credentials do not have the format of an API key","code":"INVALID_FORMAT"}"#
        ),
        unknown_key: "0123456789abcdefghijABCDEFGHIJ0123456789",
        unknown: concat!(
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"#,
            r#""detail":"The API key is not valid","code":"INVALID_KEY"}"#
        ),
    },
    Profile {
        name: "dropbox-sign",
        media: JSON,
        missing_challenges: &[
            r#"Basic realm="dropbox-sign", charset="UTF-8""#,
            r#"Bearer realm="dropbox-sign""#,
        ],
        invalid_challenges: &[
            r#"Basic realm="dropbox-sign", charset="UTF-8""#,
            r#"Bearer realm="dropbox-sign", error="invalid_token""#,
        ],
        missing: r#"{"error":{"error_msg":"No API key was presented","error_name":"unauthorized"}}"#,
        malformed_key: "YOUR_SECRET_API_KEY_HERE",
        malformed: r#"{"error":{"error_msg":"Unauthorized api key","error_name":"unauthorized"}}"#,
        unknown_key: "0123456789abcdef0123456789abcdef0123456789abcdef",
        unknown: r#"{"error":{"error_msg":"Unauthorized api key","error_name":"unauthorized"}}"#,
    },
];

#[test]
fn a_request_without_a_key_gets_instructions_for_presenting_one() {
    for profile in &PROFILES {
        let answer = Server::of(profile.name).send(&Call::get("/whoami"));
        assert_refused(
            &answer,
            401,
            profile.media,
            profile.missing,
            profile.missing_challenges,
        );
    }
}

#[test]
fn a_key_of_the_wrong_format_is_refused_as_documented() {
    for profile in &PROFILES {
        let answer = Server::of(profile.name).get("/whoami", profile.malformed_key);
        assert_refused(
            &answer,
            401,
            profile.media,
            profile.malformed,
            profile.invalid_challenges,
        );
    }
}

#[test]
fn an_unknown_key_of_the_right_format_is_refused_as_documented() {
    for profile in &PROFILES {
        let answer = Server::of(profile.name).get("/whoami", profile.unknown_key);
        assert_refused(
            &answer,
            401,
            profile.media,
            profile.unknown,
            profile.invalid_challenges,
        );
    }
}

#[test]
fn a_good_key_is_let_in_and_no_challenge_is_sent() {
    for profile in &PROFILES {
        let server = Server::of(profile.name);
        let issued = server.issue(json!({}));
        let answer = server.get("/whoami", &issued.key);
        assert_eq!(answer.status, 200, "{}: {}", profile.name, answer.text());
        assert_eq!(answer.fields("content-type"), ["application/json"]);
        assert_eq!(answer.fields("www-authenticate"), [""; 0]);
        assert_eq!(answer.json()["key_id"], issued.record["id"]);
    }
}

/// Whether it is this prefix followed by this many of these characters.
fn is_shaped(key: &str, prefix: &str, length: usize, member: fn(char) -> bool) -> bool {
    key.strip_prefix(prefix)
        .is_some_and(|random| random.len() == length && random.chars().all(member))
}

#[test]
fn issued_keys_have_the_documented_shape() {
    let base62 = |c: char| c.is_ascii_alphanumeric();
    let url_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let user = json!({ "user_id": USER });
    let token = json!({ "kind": "access_token", "owner": user });
    for (profile, body, prefix, length, member) in [
        (
            "allsign",
            json!({}),
            "allsign_live_sk_",
            32,
            base62 as fn(char) -> bool,
        ),
        (
            "allsign",
            json!({ "environment": "test" }),
            "allsign_test_sk_",
            32,
            base62,
        ),
        (
            "allsign",
            json!({ "kind": "user", "owner": user }),
            "allsign_live_user_sk_",
            32,
            base62,
        ),
        (
            "allsign",
            json!({ "kind": "user", "owner": user, "environment": "test" }),
            "allsign_test_user_sk_",
            32,
            base62,
        ),
        ("insigner", json!({}), "isk_", 44, url_safe),
        ("yousign", json!({}), "", 32, base62),
        ("iusign", json!({}), "", 40, base62),
        ("dropbox-sign", json!({}), "", 48, hex),
        ("dropbox-sign", token, "", 43, url_safe),
    ] {
        let server = Server::of(profile);
        let issued = server.issue(body.clone());
        assert!(
            is_shaped(&issued.key, prefix, length, member),
            "{profile} {body}: {}",
            issued.key
        );
        let masked = format!("{prefix}…{}", &issued.key[issued.key.len() - 4..]);
        assert_eq!(issued.record["masked"], masked.as_str());
    }
}

fn allsign(scopes: &[&str], call: Call) -> Answer {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(scopes);
    server.send(&call.bearer(&issued.key))
}

#[test]
fn allsign_names_the_one_scope_that_is_missing_and_its_wildcard() {
    assert_refused(
        &allsign(&["signature:read"], Call::get("/v2/documents")),
        403,
        JSON,
        concat!(
            r#"{"detail": "Insufficient permissions. Required: document:read or document:*. "#,
            r#"Your scopes: signature:read"}"#
        ),
        &[r#"Bearer realm="allsign", error="insufficient_scope", scope="document:read""#],
    );
    assert_refused(
        &allsign(
            &["document:read", "document:write"],
            Call::post("/v2/signatures"),
        ),
        403,
        JSON,
        concat!(
            r#"{"detail": "Insufficient permissions. Required: signature:write or signature:*. "#,
            r#"Your scopes: document:read, document:write"}"#
        ),
        &[r#"Bearer realm="allsign", error="insufficient_scope", scope="signature:write""#],
    );
}

#[test]
fn allsign_names_all_alternatives_where_several_scopes_would_do() {
    assert_refused(
        &allsign(
            &["document:read"],
            Call::post("/v2/documents").json(&json!({ "title": "contract" })),
        ),
        403,
        JSON,
        concat!(
            r#"{"detail": "Insufficient permissions. Requires ANY of these scopes: "#,
            r#"document:write, document:*. Your scopes: document:read"}"#
        ),
        &[r#"Bearer realm="allsign", error="insufficient_scope", scope="document:write""#],
    );
}

#[test]
fn allsign_says_none_to_a_key_without_scopes() {
    assert_refused(
        &allsign(&[], Call::get("/v2/signatures")),
        403,
        JSON,
        concat!(
            r#"{"detail": "Insufficient permissions. Required: signature:read or signature:*. "#,
            r#"Your scopes: none"}"#
        ),
        &[r#"Bearer realm="allsign", error="insufficient_scope", scope="signature:read""#],
    );
}

#[test]
fn allsign_answers_unknown_revoked_and_expired_keys_identically() {
    let server = Server::of("allsign");
    let unknown = server.get("/whoami", PROFILES[0].unknown_key).timeless();
    let revoked = server.issue(json!({}));
    server.revoke(revoked.id());
    assert_eq!(server.get("/whoami", &revoked.key).timeless(), unknown);
    assert_eq!(expired(&server, "/whoami").timeless(), unknown);
}

/// Waits for the first refusal of a key that is about to expire.
fn expired(server: &Server, target: &str) -> Answer {
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1200);
    let issued = server.issue(json!({ "expires_at": format!("{soon:.3}"), "scopes": ["*"] }));
    let look = || {
        let answer = server.get(target, &issued.key);
        assert!([200, 401].contains(&answer.status), "{}", answer.status);
        // Slowly enough not to use up the quota.
        std::thread::sleep(std::time::Duration::from_millis(50));
        (answer.status == 401).then_some(answer)
    };
    let answer = crate::common::eventually(look).expect("it expires");
    assert!(
        jiff::Timestamp::now() >= soon - jiff::SignedDuration::from_millis(1),
        "refused too early"
    );
    assert_eq!(server.record(issued.id())["status"], "expired");
    answer
}

#[test]
fn insigner_has_a_code_for_each_of_its_six_documented_refusals() {
    let server = Server::of("insigner");
    let read = server.issue_scoped(&["documents.read"]);
    let revoked = server.issue_scoped(&["*"]);
    server.revoke(revoked.id());
    let get = |key: &str| server.get("/api/v1/org", key);
    for (code, answer, challenge) in [
        (
            "MISSING_KEY",
            server.send(&Call::get("/api/v1/org")),
            r#"Bearer realm="insigner""#,
        ),
        (
            "MISSING_KEY",
            server.send(&Call::get("/api/v1/org").basic("a:")),
            r#"Bearer realm="insigner""#,
        ),
        (
            "INVALID_FORMAT",
            get("pk_nothing"),
            r#"Bearer realm="insigner", error="invalid_token""#,
        ),
        (
            "INVALID_KEY",
            get(PROFILES[1].unknown_key),
            r#"Bearer realm="insigner", error="invalid_token""#,
        ),
        (
            "KEY_REVOKED",
            get(&revoked.key),
            r#"Bearer realm="insigner", error="invalid_token""#,
        ),
        (
            "KEY_EXPIRED",
            expired(&server, "/api/v1/org"),
            r#"Bearer realm="insigner", error="invalid_token""#,
        ),
    ] {
        let body = format!(
            concat!(
                r#"{{ "type": "https://docs.insigner.com/errors/unauthorized", "#,
                r#""title": "Unauthorized", "status": 401, "#,
                r#""detail": "Invalid or missing API key", "code": "{}"}}"#
            ),
            code
        );
        assert_refused(&answer, 401, PROBLEM, &body, &[challenge]);
    }
    assert_refused(
        &get(&read.key),
        403,
        PROBLEM,
        concat!(
            r#"{ "type": "https://docs.insigner.com/errors/forbidden", "#,
            r#""title": "Forbidden", "status": 403, "#,
            r#""detail": "The API key lacks a required scope: missing org.read", "#,
            r#""code": "INSUFFICIENT_SCOPE"}"#
        ),
        &[r#"Bearer realm="insigner", error="insufficient_scope", scope="org.read""#],
    );
}

#[test]
fn dropbox_access_tokens_are_refused_for_a_missing_oauth_scope() {
    let server = Server::of("dropbox-sign");
    let token = server.issue(json!({
        "kind": "access_token",
        "owner": { "user_id": USER },
        "scopes": ["signature_request_access"],
    }));
    let list = server.send(&Call::get("/v3/signature_request/list").bearer(&token.key));
    assert_eq!(list.status, 200);
    assert_refused(
        &server.send(&Call::get("/v3/template/list").bearer(&token.key)),
        403,
        JSON,
        concat!(
            r#"{"error":{"error_msg":"The API key lacks a required scope: missing template_access","#,
            r#""error_name":"forbidden"}}"#
        ),
        &[r#"Bearer realm="dropbox-sign", error="insufficient_scope", scope="template_access""#],
    );
}

#[test]
fn dropbox_access_tokens_live_for_an_hour_and_act_for_their_user() {
    let server = Server::of("dropbox-sign");
    let token = server.issue(json!({ "kind": "access_token", "owner": { "user_id": USER } }));
    let time = |field: &str| {
        token.record[field]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert_eq!(
        time("expires_at").duration_since(time("created_at")),
        jiff::SignedDuration::from_hours(1)
    );
    let who = server.send(&Call::get("/whoami").bearer(&token.key)).json();
    assert_eq!(who["mode"], "user");
    assert_eq!(who["actor"]["user_id"], USER);
}

#[test]
fn dropbox_answers_the_public_shapes_with_an_unscoped_key() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    let info = json!({ "page": 1, "num_pages": 1, "num_results": 0, "page_size": 20 });
    for (target, expected) in [
        (
            "/v3/template/list",
            json!({ "list_info": info, "templates": [] }),
        ),
        (
            "/v3/signature_request/list",
            json!({ "list_info": info, "signature_requests": [] }),
        ),
    ] {
        assert_eq!(server.get(target, &issued.key).json(), expected);
    }
    assert_eq!(
        server.get("/v3/account", &issued.key).json()["account"]["is_locked"],
        false
    );
}

#[test]
fn dropbox_takes_test_mode_with_any_key_and_echoes_it() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    for (media, body, expected) in [
        (
            "application/json",
            r#"{"test_mode":true,"title":"NDA"}"#,
            true,
        ),
        ("application/json", r#"{"title":"NDA"}"#, false),
        (
            "application/x-www-form-urlencoded",
            "test_mode=1&title=NDA",
            true,
        ),
        (
            "application/x-www-form-urlencoded",
            "test_mode=0&title=NDA",
            false,
        ),
    ] {
        let call = Call::post("/v3/signature_request/send")
            .field("Content-Type", media)
            .body(body);
        let answer = server.send(&server.with_key(call, &issued.key));
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        let made: Value = answer.json()["signature_request"].clone();
        assert_eq!(
            (&made["test_mode"], &made["title"]),
            (&json!(expected), &json!("NDA")),
            "{body}"
        );
    }
}
