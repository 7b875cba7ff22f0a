//! The valid ways to present a key in a request, and many invalid ones.
//!
//! A case is a header value and the expected refusal, byte for byte. After each table the process
//! must still respond.

use crate::common::{Answer, Call, Server, assert_refused};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use serde_json::json;

const JSON: &str = "application/json";
const UNKNOWN: &str = "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01";

/// A refusal by AllSign: status, body, challenge.
type Refusal = (u16, &'static str, &'static str);

const MISSING: Refusal = (
    401,
    r#"{"detail": "Missing Authorization header. Use: Authorization: Bearer allsign_live_sk_xxx"}"#,
    r#"Bearer realm="allsign""#,
);
const UNCLEAR: Refusal = (
    400,
    r#"{"detail": "The credentials are repeated, ambiguous or malformed"}"#,
    r#"Bearer realm="allsign", error="invalid_request""#,
);
const FORMAT: Refusal = (
    401,
    r#"{"detail": "Invalid API key format. Expected: allsign_{env}_{type}_{random}"}"#,
    r#"Bearer realm="allsign", error="invalid_token""#,
);
const INVALID: Refusal = (
    401,
    r#"{"detail": "Invalid or expired API key"}"#,
    r#"Bearer realm="allsign", error="invalid_token""#,
);

#[track_caller]
fn assert_is(answer: &Answer, (status, body, challenge): Refusal) {
    assert_refused(answer, status, JSON, body, &[challenge]);
}

/// Asserts a refusal by Dropbox Sign: its name, and the parameters of its Bearer challenge after
/// the realm.
#[track_caller]
fn assert_dropbox(answer: &Answer, status: u16, message: &str, name: &str, error: &str) {
    let body = format!(r#"{{"error":{{"error_msg":"{message}","error_name":"{name}"}}}}"#);
    let bearer = format!(r#"Bearer realm="dropbox-sign"{error}"#);
    assert_refused(
        answer,
        status,
        JSON,
        &body,
        &[r#"Basic realm="dropbox-sign", charset="UTF-8""#, &bearer],
    );
}

#[track_caller]
fn assert_dropbox_unauthorized(answer: &Answer) {
    assert_dropbox(
        answer,
        401,
        "Unauthorized api key",
        "unauthorized",
        r#", error="invalid_token""#,
    );
}

#[test]
fn the_scheme_is_case_insensitive_and_may_be_followed_by_several_spaces() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let key = &issued.key;
    for value in [
        format!("Bearer {key}"),
        format!("bearer {key}"),
        format!("bEaReR  {key}"),
        format!("BEARER          {key}"),
        format!("  Bearer {key}  "),
        format!("\tBearer {key}\t"),
    ] {
        let answer = server.send(&Call::get("/whoami").authorization(&value));
        assert_eq!(answer.status, 200, "{value:?}: {}", answer.text());
    }
    for name in ["authorization", "AUTHORIZATION", "aUtHoRiZaTiOn"] {
        let answer = server.send(&Call::get("/whoami").field(name, format!("Bearer {key}")));
        assert_eq!(answer.status, 200, "{name}");
    }
}

#[test]
fn a_valid_key_within_other_text_is_not_accepted() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let key = &issued.key;
    for (value, refusal) in [
        (format!("Bearer {key}, Bearer {key}"), UNCLEAR),
        (format!("Bearer {key}, Bearer b"), UNCLEAR),
        (format!("Bearer {key},Bearer b"), UNCLEAR),
        (format!("Bearer {key} {key}"), UNCLEAR),
        (format!("Bearer {key} x"), UNCLEAR),
        (format!("Bearer \"{key}\""), UNCLEAR),
        (format!("Bearer '{key}'"), UNCLEAR),
        (format!("Bearer <{key}>"), UNCLEAR),
        (format!("Bearer {key};"), UNCLEAR),
        (format!("Bearer {key}%00"), UNCLEAR),
        (format!("Bearer \t{key}"), UNCLEAR),
        (format!("Bearer token={key}"), UNCLEAR),
        (format!("Bearer Bearer {key}"), UNCLEAR),
        (format!("Bearer {key}\u{200b}"), UNCLEAR),
        (format!("Bearer {key}="), FORMAT),
        (format!("Bearer {key}."), FORMAT),
        (format!("Bearer x{key}"), FORMAT),
        (format!("Bearer {}", key.to_uppercase()), FORMAT),
        (format!("Bearer\t{key}"), MISSING),
        (format!("Bearer:{key}"), MISSING),
        (format!("Bearer={key}"), MISSING),
        (format!("Bearer{key}"), MISSING),
        (format!(", Bearer {key}"), MISSING),
        (key.clone(), MISSING),
    ] {
        let answer = server.send(&Call::get("/whoami").authorization(&value));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (refusal.0, refusal.1),
            "{value:?}"
        );
        assert_is(&answer, refusal);
    }
}

#[test]
fn more_than_one_authorization_line_is_always_400() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let good = format!("Bearer {}", issued.key);
    for (first, second) in [
        (good.as_str(), good.as_str()),
        (&good, "Bearer b"),
        ("Bearer a", &good),
        ("Basic YTo=", &good),
        (&good, "Token t"),
        (&good, ""),
        ("", ""),
        ("Token t", "Digest d"),
    ] {
        for name in ["Authorization", "authorization"] {
            let call = Call::get("/whoami")
                .authorization(first)
                .field(name, second);
            assert_is(&server.send(&call), UNCLEAR);
        }
    }
}

#[test]
fn an_empty_bearer_value_is_400() {
    let server = Server::of("allsign");
    for value in ["Bearer", "Bearer ", "bearer    ", "Bearer =", "Bearer ==="] {
        assert_is(
            &server.send(&Call::get("/whoami").authorization(value)),
            UNCLEAR,
        );
    }
}

#[test]
fn a_scheme_that_is_not_accepted_counts_as_no_key() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let key = &issued.key;
    for value in [
        format!("Token {key}"),
        format!("Digest username=\"{key}\", realm=\"allsign\""),
        format!("Basic {}", STANDARD.encode(format!("{key}:"))),
        format!("ApiKey {key}"),
        format!("Negotiate {key}"),
        format!("DPoP {key}"),
        format!("Bearers {key}"),
        "?".to_owned(),
        String::new(),
    ] {
        assert_is(
            &server.send(&Call::get("/whoami").authorization(&value)),
            MISSING,
        );
    }
}

#[test]
fn dropbox_challenges_an_unknown_scheme_without_an_error() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    for value in [format!("Token {}", issued.key), "Digest d".into()] {
        let answer = server.send(&Call::get("/whoami").authorization(value));
        assert_dropbox(&answer, 401, "No API key was presented", "unauthorized", "");
    }
}

#[test]
fn a_key_is_read_from_the_authorization_field_only() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let key = &issued.key;
    for call in [
        Call::get(&format!("/v2/documents?api_key={key}")),
        Call::get(&format!("/v2/documents?access_token={key}")),
        Call::get(&format!("/v2/documents?authorization=Bearer%20{key}")),
        Call::get(&format!("http://{key}:@localhost/v2/documents")),
        Call::post("/v2/documents")
            .field("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("access_token={key}")),
        Call::post("/v2/documents").json(&json!({ "api_key": key, "access_token": key })),
        Call::get("/v2/documents").field(
            "Cookie",
            format!("access_token={key}; Authorization=Bearer {key}"),
        ),
        Call::get("/v2/documents").field("X-API-Key", key),
        Call::get("/v2/documents").field("Proxy-Authorization", format!("Bearer {key}")),
        Call::get("/v2/documents").field("X-Authorization", format!("Bearer {key}")),
        Call::get("/v2/documents").field("X-Forwarded-Authorization", format!("Bearer {key}")),
    ] {
        assert_is(&server.send(&call), MISSING);
    }
}

#[test]
fn a_malformed_key_is_reported_as_the_wrong_format() {
    let server = Server::of("allsign");
    let random = "0123456789abcdefghijABCDEFGHIJ01";
    for key in [
        "x".to_owned(),
        "allsign_live_sk_".to_owned(),
        format!("allsign_live_sk_{}", &random[..15]),
        format!("allsign_live_sk_{}", "a".repeat(65)),
        format!("allsign_Live_sk_{random}"),
        format!("ALLSIGN_live_sk_{random}"),
        format!("allsign_prod_sk_{random}"),
        format!("allsign_live_pk_{random}"),
        format!("allsign_live_{random}"),
        format!("allsign__sk_{random}"),
        format!("allsign_live_sk_{}-", &random[..31]),
        format!("allsign_live_sk_{}_", &random[..31]),
        format!("allsign-live-sk-{random}"),
        "a".repeat(300),
    ] {
        let answer = server.send(&Call::get("/whoami").bearer(&key));
        assert_eq!(answer.text(), FORMAT.1, "{key}");
        assert_is(&answer, FORMAT);
    }
    for length in [16, 32, 64] {
        let key = format!("allsign_live_sk_{}", "a".repeat(length));
        assert_is(&server.send(&Call::get("/whoami").bearer(&key)), INVALID);
    }
}

#[test]
fn a_key_with_one_wrong_character_is_an_unknown_key() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let unknown = server.get("/whoami", UNKNOWN);
    assert_is(&unknown, INVALID);
    let unknown = unknown.timeless();
    let start = "allsign_live_sk_".len();
    for at in [
        start,
        start + 15,
        issued.key.len() - 2,
        issued.key.len() - 1,
    ] {
        let mut wrong = issued.key.clone().into_bytes();
        // Including the same letter in the other case, if it is a letter.
        wrong[at] = if wrong[at].is_ascii_alphabetic() {
            wrong[at] ^ 0x20
        } else {
            b'x'
        };
        let wrong = String::from_utf8(wrong).unwrap();
        assert_eq!(
            server.get("/whoami", &wrong).timeless(),
            unknown,
            "position {at}"
        );
    }
    for wrong in [
        issued.key.replace("_live_", "_test_"),
        issued.key.replace("_sk_", "_user_sk_"),
        issued.key[..issued.key.len() - 1].to_owned(),
        format!("{}0", issued.key),
    ] {
        assert_eq!(server.get("/whoami", &wrong).timeless(), unknown, "{wrong}");
    }
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
}

#[test]
fn long_tokens_are_refused_and_do_no_harm() {
    let server = Server::of("allsign");
    for length in [4088, 4089, 4090, 8 << 10] {
        let answer = server.send(&Call::get("/whoami").bearer(&"a".repeat(length)));
        assert_is(&answer, FORMAT);
        // Also after a valid beginning.
        let answer = server
            .send(&Call::get("/whoami").bearer(&format!("allsign_live_sk_{}", "a".repeat(length))));
        assert_is(&answer, FORMAT);
    }
    for length in [64 << 10, 1 << 20, 16 << 20] {
        let answer = server.try_send(&Call::get("/whoami").bearer(&"a".repeat(length)));
        let status = answer.expect("an answer before the connection ends").status;
        assert!(
            [400, 401, 431].contains(&status),
            "{length} bytes: {status}"
        );
    }
    server.assert_alive();
}

#[test]
fn long_basic_values_are_refused_and_do_no_harm() {
    let server = Server::of("dropbox-sign");
    for length in [200, 257, 384, 385, 512, 513, 3000, 8 << 10] {
        assert_dropbox_unauthorized(
            &server.send(&Call::get("/whoami").basic(format!("{}:", "a".repeat(length)))),
        );
        let value = format!("Basic {}", "A".repeat(length));
        assert_dropbox_unauthorized(&server.send(&Call::get("/whoami").authorization(value)));
    }
    let answer = server.try_send(&Call::get("/whoami").basic("a".repeat(1 << 20)));
    assert!([400, 401, 431].contains(&answer.expect("an answer").status));
    server.assert_alive();
}

#[test]
fn bytes_that_no_field_may_have_are_refused() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    for odd in 0..=255_u8 {
        if odd.is_ascii_graphic() || [b' ', b'\t', b'\r', b'\n'].contains(&odd) {
            continue;
        }
        for key in [
            [b"Bearer ".as_slice(), issued.key.as_bytes(), &[odd]].concat(),
            [b"Bearer ".as_slice(), &[odd], issued.key.as_bytes()].concat(),
            [&[odd], b"Bearer ".as_slice(), issued.key.as_bytes()].concat(),
        ] {
            let status = server
                .send(&Call::get("/whoami").authorization(&key))
                .status;
            assert!([400, 401].contains(&status), "{odd:#04x}: {status}");
        }
    }
    for value in [
        &b"Bearer \xff\xfe"[..],
        b"Bearer \xc3\xa9",
        b"\xff",
        b"Bearer \x80",
    ] {
        assert!(
            [400, 401].contains(
                &server
                    .send(&Call::get("/whoami").authorization(value))
                    .status
            )
        );
    }
    server.assert_alive();
}

#[test]
fn basic_takes_the_key_as_user_name_and_an_empty_password() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    let pair = format!("{}:", issued.key);
    let (padded, bare) = (STANDARD.encode(&pair), STANDARD_NO_PAD.encode(&pair));
    assert_ne!(padded, bare);
    for value in [
        format!("Basic {padded}"),
        format!("basic {padded}"),
        format!("bAsIc   {padded}"),
        // RFC 7617 requires padding; without it, the decoded bytes are the same.
        format!("Basic {bare}"),
    ] {
        let answer = server.send(&Call::get("/v3/account").authorization(&value));
        assert_eq!(answer.status, 200, "{value}: {}", answer.text());
    }
}

#[test]
fn malformed_basic_is_401() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    let key = &issued.key;
    let encoded = STANDARD.encode(format!("{key}:"));
    let pair = |bytes: &[u8]| STANDARD.encode(bytes);
    for value in [
        pair(key.as_bytes()),                                // no colon
        pair(format!("{key}:password").as_bytes()),          // a password
        pair(format!("{key}::").as_bytes()),                 // a colon as password
        pair(format!("{key}: ").as_bytes()),                 // a space as password
        pair(format!(":{key}").as_bytes()),                  // the key as password
        pair(format!(" {key}:").as_bytes()),                 // a space before it
        pair(format!("{key} :").as_bytes()),                 // a space after it
        pair(format!("{}:", key.to_uppercase()).as_bytes()), // hexadecimal in upper case
        pair(format!("{key}\0:").as_bytes()),                // control characters
        pair(format!("{key}\n:").as_bytes()),
        pair(format!("{key}:\n").as_bytes()),
        pair(format!("{key}:\0").as_bytes()),
        pair(format!("{key}:\x7f").as_bytes()),
        pair(b":"),
        pair(b""),
        pair(b"\xff\xfe:"), // not UTF-8
        pair(&[key.as_bytes(), b"\xc3:"].concat()),
        pair(&[key.as_bytes(), b":\xff"].concat()),
        pair("\u{e9}:".as_bytes()),
        "%%%".into(), // not base64
        "=".into(),
        "====".into(),
        "A".into(),
        "YTo==".into(),
        format!("{encoded}="),
        format!("{encoded}!"),
        format!("={encoded}"),
        format!("{} {}", &encoded[..8], &encoded[8..]),
        format!("{encoded}, Basic {encoded}"),
        format!("\"{encoded}\""),
        format!("{key}:"), // not encoded
        key.clone(),
        URL_SAFE.encode([key.as_bytes(), b":\xff\xfe\xff"].concat()),
        format!("{}a", &encoded[..encoded.len() - 1]), // bits after the end
    ] {
        let answer = server.send(&Call::get("/whoami").authorization(format!("Basic {value}")));
        assert_eq!(answer.status, 401, "{value:?}");
        assert_dropbox_unauthorized(&answer);
    }
    assert_dropbox_unauthorized(&server.send(&Call::get("/whoami").authorization("Basic")));
    assert_eq!(server.get("/whoami", key).status, 200);
}

#[test]
fn dropbox_refuses_two_authorization_lines_and_bearer_lists_with_400() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    let good = format!("{}:", issued.key);
    for call in [
        Call::get("/whoami").basic(&good).basic(&good),
        Call::get("/whoami").basic(&good).bearer("a"),
        Call::get("/whoami").bearer("a, Bearer b"),
        Call::get("/whoami").authorization("Bearer"),
    ] {
        assert_dropbox(
            &server.send(&call),
            400,
            "The credentials are repeated, ambiguous or malformed",
            "bad_request",
            r#", error="invalid_request""#,
        );
    }
}

#[test]
fn an_operators_token_opens_no_route_and_a_key_manages_nothing() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    for operator in ["owner", "admin", "member", "outsider"] {
        assert_is(
            &server.get("/v2/documents", &server.operator(operator)),
            FORMAT,
        );
    }
    let answer = server.send(&Call::get("/admin/keys").bearer(&issued.key));
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (401, Some("INVALID_KEY"))
    );
}

#[test]
fn a_key_of_another_server_is_unknown_here() {
    let (here, there) = (Server::of("allsign"), Server::of("allsign"));
    let issued = there.issue_scoped(&["*"]);
    assert_eq!(there.get("/whoami", &issued.key).status, 200);
    assert_is(&here.get("/whoami", &issued.key), INVALID);
}
