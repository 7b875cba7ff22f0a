//! No secret is ever logged or shown twice: a process with the most verbose logging is used in
//! every way, and its output is searched.
//!
//! The search covers the raw secrets, pieces of them, and their encodings in base64, hexadecimal
//! and as a list of bytes.

use crate::common::{Answer, Call, MEMBER, Server, USER, hex};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A piece of a secret of this length counts as a leak.
const PIECE: usize = 10;

/// The traces of a secret: its pieces, and its encodings at any offset in a longer text.
fn traces(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut traces: Vec<_> = (0..=secret.len() - PIECE)
        .map(|at| secret[at..at + PIECE].to_owned())
        .collect();
    for skipped in 0..3 {
        // Complete groups of three bytes are encoded in the same way at every offset.
        let whole = &bytes[skipped..skipped + (bytes.len() - skipped) / 3 * 3];
        traces.push(STANDARD_NO_PAD.encode(whole));
        traces.push(URL_SAFE_NO_PAD.encode(whole));
    }
    let hex = hex(bytes);
    traces.push(hex.to_uppercase());
    traces.push(hex);
    let list: Vec<_> = bytes.iter().map(u8::to_string).collect();
    traces.push(list.join(", "));
    traces
}

/// Asserts that none of the secrets appears in the log. `public` is text that may appear although
/// it is part of a secret.
fn assert_unlogged(log: &str, secrets: &[String], public: &[&str]) {
    assert!(log.contains("serving"), "nothing was logged");
    for secret in secrets {
        let secret = public.iter().fold(secret.as_str(), |rest, prefix| {
            rest.strip_prefix(prefix).unwrap_or(rest)
        });
        for trace in traces(secret) {
            if let Some(line) = log.lines().find(|line| line.contains(&trace)) {
                panic!("{trace:?} of {secret:?} is in the log: {line}");
            }
        }
    }
}

/// Presents a key in every way that a caller might, valid or not.
fn present_everywhere(server: &Server, key: &str, path: &str) {
    for call in [
        Call::get(path).bearer(key),
        Call::get(path).basic(format!("{key}:")),
        Call::get(path).basic(key),
        Call::get(path).basic(format!("{key}:{key}")),
        Call::get(path).authorization(key),
        Call::get(path).authorization(format!("Token {key}")),
        Call::get(path).bearer(key).bearer(key),
        Call::get(path).bearer(&format!("{key}, Bearer {key}")),
        Call::get(path).bearer(&format!("{key}\u{e9}")),
        Call::get(path).bearer(&format!("{key}\0")),
        Call::get(path).bearer(&format!("{key}{}", "x".repeat(5000))),
        Call::get(path).bearer(key).field("X-User-Id", MEMBER),
        Call::get(path).bearer(key).field("X-On-Behalf-Of", ""),
        Call::get(&format!("{path}?api_key={key}")),
        Call::get(&format!("{path}?api_key={key}")).bearer(key),
        Call::get(&format!("/nowhere?api_key={key}")),
        Call::get(path).field("Cookie", format!("key={key}")),
        Call::get(path).field("X-API-Key", key),
        Call::post(path).bearer(key).body(key),
        Call::post(path).json(&json!({ "api_key": key })),
        Call::new("OPTIONS", path).bearer(key),
        Call::new("BREW", path).bearer(key),
        Call::get("/admin/keys").bearer(key),
        Call::get(&format!("/admin/keys?query={key}")).bearer(&server.operator("owner")),
        Call::get(&format!("/admin/keys?cursor={key}")).bearer(&server.operator("owner")),
        Call::post("/admin/keys")
            .json(&json!({ "name": "n", key: 1 }))
            .bearer(&server.operator("owner")),
        Call::post("/admin/keys")
            .json(&json!({ "name": "n", "kind": key }))
            .bearer(&server.operator("owner")),
    ] {
        server.send(&call);
    }
    // A line that is not HTTP, and one that is incomplete.
    server.exchange(format!("{key}\r\n\r\n").as_bytes());
    server
        .exchange(format!("GET {path} HTTP/1.1\r\nAuthorization Bearer {key}\r\n\r\n").as_bytes());
}

fn operators(server: &Server) -> Vec<String> {
    let tokens: Vec<_> = ["owner", "admin", "member", "outsider"]
        .map(|name| server.operator(name))
        .into();
    for token in &tokens {
        for call in [
            Call::get("/admin/keys").bearer(token),
            Call::get("/admin/keys").bearer(token).bearer(token),
            Call::get("/admin/keys").authorization(format!("Token {token}")),
            Call::get("/admin/keys").basic(format!("{token}:")),
            Call::get(&format!("/admin/keys?token={token}")),
            Call::get("/whoami").bearer(token),
        ] {
            server.send(&call);
        }
    }
    tokens
}

#[test]
fn bearer_keys_and_operators_tokens_are_not_logged() {
    let server = Server::start(
        "allsign",
        &["--environment", "live"],
        &[("RUST_LOG", "trace")],
    );
    let app = server.issue_scoped(&["document:*"]);
    let user =
        server.issue(json!({ "kind": "user", "owner": { "user_id": USER }, "scopes": ["*"] }));
    let test = server.issue(json!({ "environment": "test", "scopes": ["*"] }));
    let revoked = server.issue_scoped(&["*"]);
    server.revoke(revoked.id());
    let unknown = "allsign_live_sk_Canary0Canary1Canary2Canary3Cana".to_owned();
    let malformed = "allsign_prod_sk_Tweety0Tweety1Tweety2Tweety3Twee".to_owned();
    let mut secrets = vec![app.key, user.key, test.key, revoked.key, unknown, malformed];
    for key in &secrets {
        present_everywhere(&server, key, "/v2/documents");
    }
    secrets.extend(operators(&server));
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    let public = [
        "op_",
        "allsign_live_sk_",
        "allsign_test_sk_",
        "allsign_prod_sk_",
        "allsign_live_user_sk_",
    ];
    assert_unlogged(&ended.stderr, &secrets, &public);
}

#[test]
fn basic_keys_and_access_tokens_are_not_logged() {
    let server = Server::start("dropbox-sign", &[], &[("RUST_LOG", "trace")]);
    let key = server.issue(json!({})).key;
    let token = server
        .issue(json!({ "kind": "access_token", "owner": { "user_id": USER }, "scopes": ["*"] }))
        .key;
    let unknown = "0c0ffee0c0ffee1c0ffee2c0ffee3c0ffee4c0ffee5c0ffe".to_owned();
    let mut secrets = vec![key, token, unknown];
    for key in &secrets {
        present_everywhere(&server, key, "/v3/account");
    }
    secrets.extend(operators(&server));
    assert_unlogged(&server.stop().stderr, &secrets, &["op_"]);
}

#[test]
fn opaque_keys_are_not_logged() {
    for profile in ["insigner", "yousign", "iusign"] {
        let server = Server::start(profile, &[], &[("RUST_LOG", "trace")]);
        let key = server.issue(json!({})).key;
        present_everywhere(&server, &key, "/whoami");
        assert_unlogged(&server.stop().stderr, &[key], &["isk_"]);
    }
}

#[test]
fn a_given_operators_token_is_not_logged() {
    let token = "Given-Token-For-The-Owner-0123456789";
    let variables = [("RUST_LOG", "trace"), ("ESIGN_OPERATOR_OWNER", token)];
    let server = Server::start("allsign", &[], &variables);
    operators(&server);
    assert_unlogged(&server.stop().stderr, &[token.to_owned()], &[]);
}

#[test]
fn no_refusal_gives_a_presented_key_back() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&[]);
    for key in [
        issued.key.as_str(),
        "allsign_live_sk_Canary0Canary1Canary2Canary3Cana",
        "Canary0-Canary1",
    ] {
        for call in [
            Call::get("/v2/documents").bearer(key),
            Call::get("/v2/documents").authorization(key),
            Call::get("/v2/documents").bearer(&format!("{key} x")),
            Call::get("/v2/documents").bearer(key).bearer(key),
            Call::get(&format!("/v2/documents?api_key={key}")),
            Call::get(&format!("/{key}")),
            Call::get("/admin/keys").bearer(key),
        ] {
            let answer = server.send(&call);
            assert!(answer.status >= 400);
            let all = format!("{:?} {}", answer.all, answer.text());
            assert!(!all.contains(&key[key.len() - 12..]), "{all}");
        }
    }
}

#[test]
fn a_secret_and_its_digest_are_nowhere_after_it_was_shown() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "scopes": ["*"], "metadata": { "a": 1 } }));
    server.get("/whoami", &issued.key);
    let digest = Sha256::digest(issued.key.as_bytes());
    let hex = hex(digest);
    let random = &issued.key["allsign_live_sk_".len()..];
    let answers = [
        server.admin("owner", Call::get("/keys")),
        server.admin("owner", Call::get(&format!("/keys/{}", issued.id()))),
        server.admin(
            "owner",
            Call::get(&format!(
                "/keys?query={}",
                &issued.key[issued.key.len() - 4..]
            )),
        ),
        server.get("/whoami", &issued.key),
        server.revoke(issued.id()),
        server.get("/whoami", &issued.key),
        server.admin("owner", Call::get("/keys?status=revoked")),
    ];
    let shown = server.issue(json!({})).record.to_string();
    for text in answers.iter().map(Answer::text).chain([shown]) {
        for (what, needle) in [
            ("secret", issued.key.clone()),
            ("random part", random.to_owned()),
            (
                "more than the last four",
                random[random.len() - 5..].to_owned(),
            ),
            (
                "more than the prefix",
                issued.key[.."allsign_live_sk_".len() + 1].to_owned(),
            ),
            ("digest", hex.clone()),
            ("digest", hex.to_uppercase()),
            ("digest", STANDARD.encode(digest)),
            ("digest", URL_SAFE_NO_PAD.encode(digest)),
            ("part of the digest", hex[..12].to_owned()),
            ("encoded secret", STANDARD.encode(&issued.key)),
        ] {
            assert!(!text.contains(&needle), "the {what} is in {text}");
        }
    }
    assert!(
        answers[0]
            .text()
            .contains(&format!("allsign_live_sk_…{}", &random[random.len() - 4..]))
    );
}
