//! Writes to the management API: from the same site or a trusted one, as JSON, on the wire; and
//! what pages of other sites can read.

use std::process::Command;

use crate::common::manage::{assert_problem, ids, list};
use crate::common::{Answer, Call, Process, Server, read_answer};
use serde_json::json;

const CONSOLE: &str = "https://console.example";

fn named() -> Call {
    Call::post("/keys").json(&json!({ "name": "n" }))
}

fn with(call: Call, fields: &[(&str, &str)]) -> Call {
    fields
        .iter()
        .fold(call, |call, (name, value)| call.field(name, value))
}

#[test]
fn writes_come_from_the_own_site_a_trusted_one_or_no_browser() {
    let server = Server::start(
        "allsign",
        &[
            "--trusted-origin",
            CONSOLE,
            "--trusted-origin",
            "http://[::1]:3000",
        ],
        &[],
    );
    for (fields, passes) in [
        (&[][..], true),
        (&[("Origin", CONSOLE)], true),
        (
            &[("Origin", CONSOLE), ("Sec-Fetch-Site", "cross-site")],
            true,
        ),
        (
            &[
                ("Origin", "http://[::1]:3000"),
                ("Sec-Fetch-Site", "same-site"),
            ],
            true,
        ),
        (&[("Origin", "http://console.example")], false),
        (
            &[("Origin", CONSOLE), ("Origin", "https://evil.example")],
            false,
        ),
        (
            &[("Origin", "https://evil.example"), ("Origin", CONSOLE)],
            false,
        ),
        (&[("Sec-Fetch-Site", "same-origin")], true),
        (&[("Sec-Fetch-Site", "none")], true),
        (&[("Sec-Fetch-Site", "same-site")], false),
        (&[("Sec-Fetch-Site", "cross-site")], false),
        (&[("Sec-Fetch-Site", "")], false),
        (
            &[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
            false,
        ),
        (
            &[
                ("Sec-Fetch-Site", "same-site"),
                ("Origin", "http://localhost"),
            ],
            false,
        ),
        // The tests use the host `localhost` by default.
        (&[("Origin", "http://localhost")], true),
        (&[("Origin", "https://localhost")], true),
        (&[("Origin", "http://localhost:80")], true),
        (&[("Origin", "http://localhost:8080")], false),
        (&[("Origin", "http://127.0.0.1")], false),
        (&[("Origin", "null")], false),
        (&[("Origin", "")], false),
        (&[("Origin", "http://localhost"), ("Origin", "null")], false),
        (
            &[("Host", "[::1]:8080"), ("Origin", "http://[::1]:8080")],
            true,
        ),
        (
            &[("Host", "[0::1]:8080"), ("Origin", "http://[::1]:8080")],
            true,
        ),
        (
            &[
                ("Host", "keys.example:443"),
                ("Origin", "https://keys.example"),
            ],
            true,
        ),
        (
            &[
                ("Host", "keys.example:443"),
                ("Origin", "http://keys.example"),
            ],
            false,
        ),
    ] {
        let before = ids(&list(&server, "owner", "")).len();
        let answer = server.admin("owner", with(named(), fields));
        let after = ids(&list(&server, "owner", "")).len();
        if passes {
            assert_eq!((answer.status, after), (201, before + 1), "{fields:?}");
        } else {
            assert_problem(&answer, 403, "CROSS_SITE", &[]);
            assert_eq!(after, before, "{fields:?}");
        }
    }
}

#[test]
fn every_write_is_judged_by_its_site_first() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let one = format!("/keys/{}", issued.id());
    for (method, path) in [
        ("POST", "/keys".to_owned()),
        ("POST", "/import".to_owned()),
        ("POST", "/verify".to_owned()),
        ("PATCH", one.clone()),
        ("DELETE", one.clone()),
        ("POST", format!("{one}/revoke")),
        ("POST", format!("{one}/rotate")),
        ("POST", format!("{one}/primary")),
        ("DELETE", "/keys/key_unknown".to_owned()),
    ] {
        for body in [None, Some("{}"), Some("x")] {
            let call = Call::new(method, &path).field("Origin", "https://evil.example");
            let call = body.into_iter().fold(call, Call::body);
            assert_problem(&server.admin("owner", call.clone()), 403, "CROSS_SITE", &[]);
            let unproven = server.send(&call.under("/admin"));
            assert_problem(&unproven, 403, "CROSS_SITE", &[]);
        }
    }
    assert_eq!(server.record(issued.id()), issued.record);
    for method in ["GET", "HEAD"] {
        let call = Call::new(method, "/keys").field("Origin", "https://evil.example");
        assert_eq!(server.admin("owner", call).status, 200, "{method}");
    }
    for method in ["OPTIONS", "TRACE"] {
        let call = Call::new(method, "/keys").field("Origin", "https://evil.example");
        assert_eq!(server.admin("owner", call).status, 405, "{method}");
    }
    // The APIs take keys in a header that browsers never add by themselves.
    let issued = server.issue_scoped(&["document:*"]);
    let call = Call::post("/v2/documents")
        .json(&json!({ "title": "t" }))
        .field("Origin", "https://evil.example")
        .field("Sec-Fetch-Site", "cross-site");
    assert_eq!(server.send(&call.bearer(&issued.key)).status, 201);
}

#[test]
fn a_request_without_a_host_has_no_site() {
    let server = Server::of("allsign");
    let token = server.operator("owner");
    for (origin, status) in [("", 422), ("Origin: http://localhost\r\n", 403)] {
        let bytes = format!(
            "POST /admin/keys HTTP/1.0\r\nAuthorization: Bearer {token}\r\n{origin}\
             Content-Length: 0\r\n\r\n"
        );
        let came = server.exchange(bytes.as_bytes());
        let (answer, _) = read_answer(&came, false).expect("an answer");
        assert_eq!(answer.status, status, "{origin}");
    }
    // An absolute target determines the host, whatever the field contains (RFC 9112 §3.2.2).
    for (origin, status) in [("http://keys.example", 201), ("http://other.example", 403)] {
        let call = Call::post("http://keys.example/admin/keys")
            .json(&json!({ "name": "n" }))
            .field("Host", "other.example")
            .field("Origin", origin);
        assert_eq!(server.send(&call.bearer(&token)).status, status, "{origin}");
    }
}

#[test]
fn over_http_2_the_authority_is_the_host() {
    let server = Server::of("allsign");
    let own = format!("http://{}", server.address);
    // Without content: actix-web may reset a stream whose content it has not read.
    for (origin, expected) in [
        (own.as_str(), "422 2"),
        ("http://localhost", "403 2"),
        ("null", "403 2"),
    ] {
        let token = server.operator("owner");
        let curl = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "--http2-prior-knowledge"])
            .args(["--max-time", "20", "-w", "%{http_code} %{http_version}"])
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .args(["-H", &format!("Origin: {origin}")])
            .args(["-X", "POST", &format!("{own}/admin/keys")])
            .output()
            .expect("curl");
        assert_eq!(
            String::from_utf8(curl.stdout).unwrap(),
            expected,
            "{origin}"
        );
    }
}

/// Sends content in chunks of these lengths, so that the total length is not known in advance.
fn in_chunks(server: &Server, method: &str, path: &str, fields: &str, chunks: &[&str]) -> Answer {
    let token = server.operator("owner");
    let mut bytes = format!(
        "{method} /admin{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"
    );
    for chunk in chunks {
        bytes.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    bytes.push_str("0\r\n\r\n");
    let came = server.exchange(bytes.as_bytes());
    read_answer(&came, false).expect("an answer").0
}

#[test]
fn content_is_json_or_415_and_none_at_all_needs_no_type() {
    let server = Server::of("allsign");
    // The first key is the primary one, which cannot be deleted while there are others.
    server.issue(json!({}));
    let json = "Content-Type: application/json\r\n";
    for (method, rest, ok) in [
        ("PATCH", "", 200),
        ("POST", "/revoke", 200),
        ("POST", "/primary", 200),
        ("POST", "/rotate", 201),
        ("DELETE", "", 204),
    ] {
        for (fields, chunks, taken) in [
            ("", &[][..], true),
            ("Content-Type: text/plain\r\n", &[], true),
            (json, &[], true),
            (json, &["{", "}"], true),
            (
                "Content-Type: APPLICATION/JSON;Charset=\"utf-8\"\r\n",
                &["{}"],
                true,
            ),
            ("", &["{}"], false),
            ("Content-Type: text/plain\r\n", &["{}"], false),
            (
                "Content-Type: multipart/form-data; boundary=x\r\n",
                &["{}"],
                false,
            ),
            (
                "Content-Type: application/json; charset=latin1\r\n",
                &["{}"],
                false,
            ),
            (
                "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
                &["{}"],
                false,
            ),
            (
                "Content-Type: text/plain\r\nContent-Type: application/json\r\n",
                &["{}"],
                false,
            ),
            (
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
                &["{}"],
                false,
            ),
        ] {
            let id = server.issue(json!({})).id().to_owned();
            let path = format!("/keys/{id}{rest}");
            let context = format!("{method} {rest} {fields:?} {chunks:?}");
            let in_chunks = in_chunks(&server, method, &path, fields, chunks);
            if taken {
                assert_eq!(in_chunks.status, ok, "{context}: {}", in_chunks.text());
                continue;
            }
            assert_problem(&in_chunks, 415, "UNSUPPORTED_MEDIA_TYPE", &[]);
            let accepted = match method {
                "PATCH" => (
                    "accept-patch",
                    "application/json, application/merge-patch+json",
                ),
                _ => ("accept", "application/json"),
            };
            assert_eq!(in_chunks.fields(accepted.0), [accepted.1], "{context}");
            let encoded = fields.contains("gzip");
            let codings = if encoded { &["identity"][..] } else { &[] };
            assert_eq!(in_chunks.fields("accept-encoding"), codings, "{context}");
            assert_eq!(server.record(&id)["version"], 1, "{context}");
            // The same with a known length.
            let known = fields.lines().fold(Call::new(method, &path), |call, line| {
                let (name, value) = line.split_once(": ").unwrap();
                call.field(name, value)
            });
            let known = known
                .body("{}")
                .under("/admin")
                .bearer(&server.operator("owner"));
            assert_eq!(
                server.send(&known).timeless(),
                in_chunks.timeless(),
                "{context}"
            );
        }
    }
}

#[test]
fn a_change_may_be_a_merge_patch_and_nothing_else_may() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let merge = |method: &str, path: &str| {
        let call = Call::new(method, path).field("Content-Type", "application/merge-patch+json");
        server.admin("owner", call.body(r#"{"name":"n"}"#))
    };
    assert_eq!(
        merge("PATCH", &format!("/keys/{}", issued.id())).json()["name"],
        "n"
    );
    assert_problem(&merge("POST", "/keys"), 415, "UNSUPPORTED_MEDIA_TYPE", &[]);
}

#[test]
fn too_much_content_is_413_in_any_framing() {
    let server = Server::of("allsign");
    let blanks = " ".repeat(1 << 20);
    let chunks = ["{\"name\":\"n\"}", &blanks, &blanks, &blanks, &blanks];
    let fields = "Content-Type: application/json\r\n";
    let answer = in_chunks(&server, "POST", "/keys", fields, &chunks);
    assert_problem(&answer, 413, "TOO_LARGE", &[]);
    let body = chunks.concat();
    let call = Call::post("/keys").field("Content-Type", "application/json");
    let known = server.admin("owner", call.clone().body(&body));
    assert_eq!(known.timeless(), answer.timeless());
    let most = server.admin("owner", call.body(&body[..4 << 20]));
    assert_eq!(most.status, 201, "{}", most.text());
    assert_eq!(ids(&list(&server, "owner", "")).len(), 1);
}

// ---- CORS ----

#[test]
fn only_pages_of_trusted_origins_read_the_management_api() {
    let untrusting = Server::of("allsign");
    let server = Server::start("allsign", &["--trusted-origin", CONSOLE], &[]);
    for (server, origin, allowed) in [
        (&server, CONSOLE, true),
        (&server, "https://evil.example", false),
        (&server, "http://console.example", false),
        (&server, "null", false),
        (&untrusting, CONSOLE, false),
        (&untrusting, "http://localhost", false),
    ] {
        let expected = if allowed { &[origin][..] } else { &[] };
        for path in ["/admin", "/admin/", "/admin/keys", "/admin/nowhere"] {
            let call = Call::new("OPTIONS", path)
                .field("Origin", origin)
                .field("Access-Control-Request-Method", "PATCH")
                .field("Access-Control-Request-Headers", "authorization,if-match");
            let preflight = server.send(&call);
            assert_eq!(preflight.status, 204, "{origin} {path}");
            assert_eq!(preflight.fields("access-control-allow-origin"), expected);
            assert_eq!(
                preflight.fields("access-control-allow-credentials"),
                [""; 0]
            );
            assert!(
                preflight.fields("vary").join(",").contains("origin"),
                "{path}"
            );
        }
        let issued = server.issue(json!({}));
        let read = Call::get(&format!("/keys/{}", issued.id())).field("Origin", origin);
        let answer = server.admin("owner", read);
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.fields("access-control-allow-origin"),
            expected,
            "{origin}"
        );
        assert!(
            answer.fields("vary").join(",").contains("origin"),
            "{origin}"
        );
        let exposed = answer.fields("access-control-expose-headers").join(",");
        for name in ["etag", "www-authenticate", "retry-after", "ratelimit"] {
            assert!(exposed.split(',').any(|known| known == name), "{exposed}");
        }
        // Refusals as well: for a missing proof, and for the site.
        let unproven = server.send(&Call::get("/admin/keys").field("Origin", origin));
        assert_eq!(unproven.status, 401);
        assert_eq!(unproven.fields("access-control-allow-origin"), expected);
    }
    // Without an origin, no origin is allowed.
    let answer = server.admin("owner", Call::get("/keys"));
    assert_eq!(answer.fields("access-control-allow-origin"), [""; 0]);
    let other = server.send(&Call::get("/healthz").field("Origin", "https://app.example"));
    assert_eq!(other.fields("access-control-allow-origin"), ["*"]);
}

#[test]
fn an_invalid_origin_is_not_trusted() {
    for wrong in [
        "console.example",
        "*",
        "null",
        "https://console.example/",
        "https://a b",
    ] {
        let ended = Process::start(&["--trusted-origin", wrong], &[]).wait();
        assert_eq!(ended.code, Some(2), "{wrong}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("invalid origin"), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}
