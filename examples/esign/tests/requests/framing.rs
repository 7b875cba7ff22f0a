//! Requests with ambiguous boundaries: several on one connection, two lengths, trailers, unread
//! bodies.
//!
//! One request's key must never count for another, and a request without a key must not consume
//! resources.

use crate::common::{Answer, Call, Connection, Server, read_answer};
use serde_json::json;

const UNKNOWN: &str = "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01";

/// Parses all responses in these bytes.
fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut all = Vec::new();
    while let Some((answer, rest)) = read_answer(bytes, false) {
        all.push(answer);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(bytes));
    all
}

fn statuses(bytes: &[u8]) -> Vec<u16> {
    answers(bytes).iter().map(|answer| answer.status).collect()
}

#[test]
fn a_key_counts_for_its_own_request_only() {
    let server = Server::of("allsign");
    let one = server.issue(json!({ "name": "one" }));
    let other = server.issue(json!({ "name": "other" }));
    let get = |authorization: &str| {
        format!("GET /whoami HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n")
    };
    let bearer = |key: &str| get(&format!("Authorization: Bearer {key}\r\n"));
    // All at once, on one connection.
    let requests = [
        bearer(&one.key),
        get(""),
        bearer(&other.key),
        get("Authorization: Bearer\r\n"),
        bearer(UNKNOWN),
        bearer(&one.key),
        get("Connection: close\r\n"),
    ];
    let all = answers(&server.exchange(requests.concat().as_bytes()));
    assert_eq!(
        all.iter().map(|answer| answer.status).collect::<Vec<_>>(),
        [200, 401, 200, 400, 401, 200, 401]
    );
    for (at, issued) in [(0, &one), (2, &other), (5, &one)] {
        assert_eq!(all[at].json()["key_id"], issued.record["id"]);
    }
}

#[test]
fn connections_side_by_side_never_take_each_others_key() {
    let server = Server::of("allsign");
    let keys: Vec<_> = (0..8).map(|_| server.issue(json!({}))).collect();
    std::thread::scope(|scope| {
        for issued in &keys {
            let server = &server;
            scope.spawn(move || {
                let mut connection = Connection::open(server.address);
                let request = format!(
                    "GET /whoami HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
                    issued.key
                );
                for _ in 0..30 {
                    connection.write(request.as_bytes());
                    assert_eq!(connection.answer().json()["key_id"], issued.record["id"]);
                    connection.write(b"GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    assert_eq!(connection.answer().status, 401);
                }
            });
        }
    });
}

#[test]
fn the_content_of_a_body_is_not_a_request() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let inner = format!(
        "GET /whoami HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        issued.key
    );
    let outer = format!(
        "POST /v2/documents HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{inner}\
         GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        inner.len()
    );
    // The refused request's body is skipped, or the connection is closed: it is never parsed as a
    // request.
    let statuses = statuses(&server.exchange(outer.as_bytes()));
    assert!(statuses == [401, 200] || statuses == [401], "{statuses:?}");
    assert_eq!(server.record(issued.id())["request_count"], 0);
}

#[test]
fn unclear_lengths_are_one_refusal_and_the_end_of_the_connection() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let smuggled = format!(
        "GET /whoami HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        issued.key
    );
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 99999999999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: xchunked",
        "Content-Length : 5",
        "Host: a\r\n Content-Length: 5",
    ] {
        let request = format!(
            "POST /v2/documents HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\n0\r\n\r\n{smuggled}"
        );
        let bytes = server.exchange(request.as_bytes());
        let statuses = statuses(&bytes);
        assert_eq!(statuses, [400], "{lengths:?}");
    }
    // With both, the length must be ignored (RFC 9112 §6.3), and nothing after it is a request on
    // this connection.
    let both = format!(
        "POST /v2/documents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    );
    let mut connection = Connection::open(server.address);
    connection.write(both.as_bytes());
    assert!([400, 401].contains(&connection.answer().status));
    server.assert_alive();
}

#[test]
fn a_key_in_a_trailer_is_not_read() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let request = format!(
        "POST /v2/documents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
         Trailer: Authorization\r\nConnection: close\r\n\r\n\
         2\r\n{{}}\r\n0\r\nAuthorization: Bearer {}\r\n\r\n",
        issued.key
    );
    assert_eq!(statuses(&server.exchange(request.as_bytes())), [401]);
    assert_eq!(
        server.get("/v2/documents", &issued.key).text(),
        r#"{"documents":[]}"#
    );
}

#[test]
fn folded_and_broken_field_lines_carry_no_key() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let key = &issued.key;
    for lines in [
        format!("Authorization:\r\n Bearer {key}"),
        format!("Authorization: Bearer\r\n {key}"),
        format!("X: y\r\n Authorization: Bearer {key}"),
        format!("Authorization : Bearer {key}"),
        format!(" Authorization: Bearer {key}"),
        format!("Authorization\0: Bearer {key}"),
        format!("Author\u{131}zation: Bearer {key}"),
        format!("Authorization Bearer {key}"),
    ] {
        let request = format!(
            "GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n\r\n"
        );
        let statuses = statuses(&server.exchange(request.as_bytes()));
        assert!(
            statuses == [400] || statuses == [401],
            "{lines:?}: {statuses:?}"
        );
    }
    assert_eq!(server.record(issued.id())["request_count"], 0);
}

#[test]
fn a_client_without_a_key_is_refused_before_it_sends_the_body() {
    let server = Server::of("allsign");
    let weak = server.issue_scoped(&["document:read"]);
    for (authorization, path, status) in [
        (String::new(), "/v2/documents", 401),
        (
            format!("Authorization: Bearer {UNKNOWN}\r\n"),
            "/v2/documents",
            401,
        ),
        (
            format!("Authorization: Bearer {}\r\n", weak.key),
            "/v2/documents",
            403,
        ),
        (String::new(), "/admin/keys", 401),
        (
            format!("Authorization: Bearer {}\r\n", server.operator("member")),
            "/admin/keys",
            403,
        ),
    ] {
        for expect in ["Expect: 100-continue\r\n", ""] {
            let mut connection = Connection::open(server.address);
            connection.write(
                format!(
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}{expect}\
                     Content-Length: 1000000000000\r\n\r\n"
                )
                .as_bytes(),
            );
            let mut answer = connection.answer();
            // actix-web's server asks for the body before any middleware sees the request, but does
            // not read it.
            if crate::common::on_actix() && !expect.is_empty() && answer.status == 100 {
                answer = connection.answer();
            }
            assert_eq!(
                answer.status, status,
                "{path} {authorization}: not 100, and not after the body"
            );
        }
    }
}

#[test]
fn a_flood_of_fields_does_no_harm() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let many = (0..5000).fold(Call::get("/whoami"), |call, number| {
        call.field(&format!("X-{number}"), "y")
    });
    let answer = server
        .try_send(&many.bearer(&issued.key))
        .expect("an answer");
    assert!([400, 431].contains(&answer.status), "{}", answer.status);
    // As many as possible, with a repeated Authorization line at any position among them.
    let mut call = Call::get("/whoami").bearer(&issued.key);
    for number in 0..60 {
        call = call.field(&format!("X-{number}"), "y");
    }
    assert_eq!(server.send(&call).status, 200);
    assert_eq!(server.send(&call.bearer(&issued.key)).status, 400);
    server.assert_alive();
}

#[test]
fn older_versions_of_http_also_need_a_key() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let get = |version: &str, line: &str| format!("GET /whoami{version}\r\n{line}\r\n");
    let bearer = format!("Authorization: Bearer {}\r\n", issued.key);
    assert_eq!(
        statuses(&server.exchange(get(" HTTP/1.0", "").as_bytes())),
        [401]
    );
    assert_eq!(
        statuses(&server.exchange(get(" HTTP/1.0", &bearer).as_bytes())),
        [200]
    );
    for version in [
        "",
        " HTTP/0.9",
        " HTTP/1.2",
        " HTTP/3.0",
        " http/1.1",
        " HTTP/1.1 x",
    ] {
        let answer = server.exchange(get(version, &bearer).as_bytes());
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains(issued.id()), "{version:?}: {text}");
    }
    server.assert_alive();
}

#[test]
fn http_2_without_tls_gets_the_same_refusal() {
    let server = Server::of("allsign");
    // The preface, an empty SETTINGS frame, then HEADERS on stream 1: `:method GET`, `:scheme
    // http`, `:path /whoami`, `:authority x`.
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let block = b"\x82\x86\x04\x07/whoami\x01\x01x";
    request.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    request.extend(block);
    let mut connection = Connection::open(server.address);
    connection.write(&request);
    let expected = concat!(
        r#"{"detail": "Missing Authorization header. "#,
        r#"Use: Authorization: Bearer allsign_live_sk_xxx"}"#
    )
    .as_bytes();
    assert!(
        connection.reads(expected),
        "{}",
        String::from_utf8_lossy(connection.unread())
    );
    server.assert_alive();
}

#[test]
fn garbage_does_no_harm() {
    let server = Server::of("allsign");
    for bytes in [
        &b"\0\0\0\0\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /whoami\xff HTTP/1.1\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/documents/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let answer = server.exchange(bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            !text.starts_with("HTTP/1.1 2") && !text.starts_with("HTTP/1.1 5"),
            "{bytes:?}: {text}"
        );
    }
    server.assert_alive();
}
