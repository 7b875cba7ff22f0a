//! Unusual, large or slow request heads, and unwanted bodies: both servers give the same response,
//! or the difference is explained.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Answer, Call, Connection, Server, on_actix, read_answer};
use serde_json::json;

/// Sends a request, and reads the single response.
#[track_caller]
fn ask(server: &Server, request: &[u8]) -> Answer {
    let bytes = server.exchange(request);
    let text = String::from_utf8_lossy(&bytes);
    let (answer, rest) = read_answer(&bytes, false).unwrap_or_else(|| panic!("no answer: {text}"));
    assert!(rest.is_empty(), "{text}");
    answer
}

fn with_fields(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n").into_bytes()
}

#[test]
fn an_invalid_head_is_refused_with_or_without_a_key() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let bearer = format!("Authorization: Bearer {}\r\n", issued.key);
    for key in ["", &bearer] {
        for (line, fields) in [
            ("GET /whoami HTTP/1.1", ""),
            ("GET /healthz HTTP/1.1", ""),
            ("GET http://x/whoami HTTP/1.1", ""),
            ("OPTIONS /whoami HTTP/1.1", ""),
            ("GET /whoami HTTP/1.1", "Host: x\r\nHost: x\r\n"),
            ("GET /whoami HTTP/1.1", "Host: x\r\nhost: y\r\n"),
            ("GET /whoami HTTP/1.0", "Host: x\r\nHost: y\r\n"),
            ("GET /admin/keys HTTP/1.1", ""),
            ("GET /whoami?\u{e9} HTTP/1.1", "Host: x\r\n"),
            ("GET /caf\u{e9} HTTP/1.1", "Host: x\r\n"),
            ("GET /v2/documents/\u{e9} HTTP/1.1", "Host: x\r\n"),
            ("GET /admin/keys/\u{e9} HTTP/1.1", "Host: x\r\n"),
            (
                "POST /v2/documents HTTP/1.1",
                "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "POST /v2/documents HTTP/1.1",
                "Host: x\r\nTransfer-Encoding: chunked, chunked\r\n",
            ),
            (
                "POST /v2/documents HTTP/1.1",
                "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
            ),
            (
                "POST /v2/documents HTTP/1.1",
                "Host: x\r\nTransfer-Encoding: identity\r\n",
            ),
            ("POST /v2/documents HTTP/1.0", "Host: x\r\n"),
            ("PRI * HTTP/2.0", "Host: x\r\n"),
        ] {
            // The end of the chunks, if there are any.
            let body = if line.starts_with("POST") {
                "0\r\n\r\n"
            } else {
                ""
            };
            let request = format!("{line}\r\n{fields}{key}\r\n{body}");
            let answer = ask(&server, request.as_bytes());
            assert_eq!((answer.status, answer.text().as_str()), (400, ""), "{line}");
            assert_eq!(answer.fields("connection"), ["close"], "{line} {fields}");
        }
        // RFC 9112 §3.2: HTTP/1.0 clients need not send Host.
        let old = format!("GET /whoami HTTP/1.0\r\n{key}\r\n");
        let status = if key.is_empty() { 401 } else { 200 };
        assert_eq!(ask(&server, old.as_bytes()).status, status);
    }
    assert_eq!(server.record(issued.id())["request_count"], 1);
}

#[test]
fn a_head_has_96_fields_and_128_kib_on_either_server() {
    let server = Server::of("allsign");
    let fields = |count| {
        (0..count).fold(String::new(), |mut fields, number| {
            let _ = write!(fields, "X-{number}: y\r\n");
            fields
        })
    };
    // Including Host and Connection.
    assert_eq!(
        ask(&server, &with_fields("/healthz", &fields(94))).status,
        200
    );
    assert_eq!(
        ask(&server, &with_fields("/healthz", &fields(95))).status,
        431
    );
    let long = |bytes| format!("X: {}\r\n", "a".repeat(bytes));
    assert_eq!(
        ask(&server, &with_fields("/healthz", &long(130_000))).status,
        200
    );
    assert_eq!(
        ask(&server, &with_fields("/healthz", &long(140_000))).status,
        431
    );
    let target = |bytes| format!("/healthz?{}", "a".repeat(bytes));
    assert_eq!(ask(&server, &with_fields(&target(65_000), "")).status, 200);
    // Both parse URIs of up to 64 KiB. RFC 9112 §3 requires 414; actix-web's server has one status
    // for everything that it cannot parse. A proxy's own limit on request lines makes them equal.
    let too_long = if on_actix() { 400 } else { 414 };
    assert_eq!(
        ask(&server, &with_fields(&target(66_000), "")).status,
        too_long
    );
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = &u32::try_from(payload.len()).unwrap().to_be_bytes()[1..];
    [length, &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The start of HTTP/2 without TLS: the preface, and default settings.
fn preface() -> Vec<u8> {
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, b""),
    ]
    .concat()
}

/// `GET /healthz` over HTTP/2 without TLS, with this block of additional fields.
fn over_http_2(fields: &[u8]) -> Vec<u8> {
    const LARGEST: usize = 16_384;
    let mut request = preface();
    let block = [b"\x82\x86\x04\x08/healthz\x01\x01x", fields].concat();
    let frames = block.len().div_ceil(LARGEST);
    for (number, part) in block.chunks(LARGEST).enumerate() {
        // HEADERS with END_STREAM, then CONTINUATION frames; the last one ends the head.
        let (kind, end) = if number == 0 { (1, 1) } else { (9, 0) };
        let end = if number + 1 == frames { end | 4 } else { end };
        request.extend(frame(kind, end, 1, part));
    }
    request
}

#[test]
fn a_head_has_96_fields_and_128_kib_over_http_2_too() {
    let server = Server::of("allsign");
    // `:status` 200 from the static table; 431 as a Huffman-coded literal (RFC 7541 §6).
    let (fine, too_large) = (&b"\x88"[..], &b"\x48\x83\x69\x90\xff"[..]);
    // Literals without indexing: `x: y`, and `x` with 30 000 bytes, whose length is encoded as 127
    // and the rest in groups of seven bits (RFC 7541 §5.1).
    let short = b"\0\x01x\x01y";
    let long = [&b"\0\x01x\x7f"[..], &[0xb1, 0xe9, 0x01], &[b'a'; 30_000]].concat();
    for (fields, status) in [
        (short.repeat(96), fine),
        (short.repeat(97), too_large),
        (short.repeat(500), too_large),
        (long.repeat(4), fine),
        (long.repeat(5), too_large),
    ] {
        let mut connection = Connection::open(server.address);
        connection.write(&over_http_2(&fields));
        assert!(connection.reads(status), "{} bytes", fields.len());
        if status == fine {
            assert!(connection.reads(br#"{"status":"ok"}"#));
        }
    }
    server.assert_alive();
}

/// The frames that a server sent: type, flags, stream.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u8)> {
    let mut all = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, stream, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(rest) = rest.get(length..) else {
            break;
        };
        all.push((*kind, *flags, *stream));
        bytes = rest;
    }
    all
}

/// RFC 9113 §8.1 permits a reset without an error after the complete response. But clients that are
/// still sending treat it as a failure and show no response (curl 7.88).
#[test]
fn over_http_2_a_refusal_before_the_body_resets_no_stream() {
    let server = Server::of("allsign");
    for path in ["/v2/documents", "/admin/keys", "/unknown", "/healthz"] {
        let length = u8::try_from(path.len()).unwrap();
        let head = [
            b"\x83\x86\x04",
            &[length][..],
            path.as_bytes(),
            b"\x01\x01x",
        ]
        .concat();
        let mut connection = Connection::open(server.address);
        connection.write(&[preface(), frame(1, 4, 1, &head)].concat());
        // The response is complete, and the server's side of its stream has ended.
        let ended = |bytes: &[u8]| {
            let of_stream = |&(kind, flags, stream): &_| stream == 1 && kind < 2 && flags & 1 == 1;
            frames(bytes).iter().any(of_stream)
        };
        assert!(connection.reads_until(ended), "{path}: no answer");
        let body = frame(0, 0, 1, &[b'a'; 16_000]);
        let end = frame(0, 1, 1, &[b'a'; 16_000]);
        let ping = frame(6, 0, 0, b"12345678");
        connection.write(&[body, end, ping].concat());
        let answered = |bytes: &[u8]| frames(bytes).contains(&(6, 1, 0));
        assert!(
            connection.reads_until(answered),
            "{path}: the connection is closed"
        );
        let reset = frames(connection.unread())
            .iter()
            .any(|&(kind, _, _)| kind == 3);
        assert!(!reset, "{path}: {:?}", frames(connection.unread()));
    }
    server.assert_alive();
}

#[test]
fn over_http_2_the_response_to_head_has_no_body() {
    let server = Server::of("allsign");
    for path in [
        "/v2/documents",
        "/v2//documents",
        "/unknown",
        "/admin/keys",
        "/healthz",
    ] {
        let length = u8::try_from(path.len()).unwrap();
        let head = [
            b"\x02\x04HEAD\x86\x04",
            &[length][..],
            path.as_bytes(),
            b"\x01\x01x",
        ]
        .concat();
        let mut connection = Connection::open(server.address);
        connection.write(&[preface(), frame(1, 5, 1, &head)].concat());
        let ended = |bytes: &[u8]| {
            let of_stream = |&(kind, flags, stream): &_| stream == 1 && kind < 2 && flags & 1 == 1;
            frames(bytes).iter().any(of_stream)
        };
        assert!(connection.reads_until(ended), "{path}: no answer");
        let sent = String::from_utf8_lossy(connection.unread()).into_owned();
        let body = ["\"detail\"", "\"status\""];
        assert!(
            !body.iter().any(|name| sent.contains(name)),
            "{path}: {sent}"
        );
    }
}

#[test]
fn a_path_that_is_encoded_where_it_is_literal_is_unknown() {
    let server = Server::of("allsign");
    let owner = server.operator("owner");
    let unknown = server.get("/unknown", &owner).timeless();
    assert_eq!(unknown.status, 404);
    for target in [
        "/%61dmin",
        "/%61dmin/keys",
        "/%61dmin/keys?limit=1",
        "/admin%2Fkeys",
        "/demo/%75sers/x",
        "/who%61mi",
        "/%68ealthz",
    ] {
        for method in ["GET", "POST", "PUT"] {
            let answer = server
                .send(&Call::new(method, target).bearer(&owner))
                .timeless();
            assert_eq!(answer, unknown, "{method} {target}");
        }
    }
}

#[test]
fn an_empty_segment_is_not_a_parameter() {
    for (profile, targets) in [
        (
            "insigner",
            ["/api/v1/documents//send", "/api/v1/documents//"],
        ),
        (
            "yousign",
            [
                "/v3/workspaces//templates",
                "/v3/workspaces//electronic_seals/x",
            ],
        ),
        ("iusign", ["/v1/envelopes//document", "//v1/envelopes"]),
    ] {
        let server = Server::of(profile);
        let key = server.issue(json!({ "name": "k" })).key;
        let unknown = server.get("/unknown", &key).timeless();
        assert_eq!(unknown.status, 404);
        for target in targets {
            for method in ["GET", "POST", "DELETE", "PUT"] {
                for call in [
                    Call::new(method, target),
                    Call::new(method, target).bearer(&key),
                ] {
                    let answer = server.send(&call).timeless();
                    assert_eq!(answer, unknown, "{profile}: {method} {target}");
                }
            }
        }
    }
}

#[test]
fn a_body_ends_where_it_says_although_an_upgrade_is_asked_for() {
    let server = Server::of("allsign");
    let (key, owner) = (
        server.issue_scoped(&["document:write"]).key,
        server.operator("owner"),
    );
    for fields in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Upgrade: WebSocket\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
    ] {
        for (target, token, body, status) in [
            ("/v2/documents", &key, r#"{"title":"Lease"}"#, 201),
            ("/v2/documents", &key, "{", 400),
            ("/v2/documents", &key, "", 201),
            ("/admin/keys", &owner, r#"{"name":"billing"}"#, 201),
            ("/admin/keys", &owner, "", 422),
        ] {
            let request = format!(
                "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{fields}\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut connection = Connection::open(server.address);
            connection.write(request.as_bytes());
            let answer = connection.answer();
            assert_eq!(answer.status, status, "{request}: {answer:?}");
        }
    }
}

#[test]
fn a_client_that_sends_a_whole_body_before_reading_receives_the_refusal() {
    const LENGTH: usize = 16 << 20;
    let server = Server::of("allsign");
    let weak = server.issue_scoped(&["document:read"]);
    let able = server.issue_scoped(&["document:write"]);
    let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let sized = format!("Content-Length: {LENGTH}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (path, fields, framing, status) in [
        ("/v2/documents", String::new(), sized.as_str(), 401),
        ("/v2/documents", String::new(), chunked, 401),
        (
            "/v2/documents",
            "Expect: 100-continue\r\n".into(),
            &sized,
            401,
        ),
        ("/v2/documents", bearer(&weak.key), &sized, 403),
        ("/v2/documents", bearer(&able.key), &sized, 413),
        ("/admin/keys", String::new(), &sized, 401),
        ("/unknown", String::new(), &sized, 404),
    ] {
        let mut connection = Connection::open(server.address);
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}{framing}\r\n");
        connection.write(head.as_bytes());
        // The buffers of both sockets are smaller than this, so a peer that does not read blocks
        // the sender.
        let block = vec![b'a'; 1 << 20];
        for _ in 0..LENGTH / block.len() {
            match framing == chunked {
                true => connection.write(&[b"100000\r\n", &block[..], b"\r\n"].concat()),
                false => connection.write(&block),
            }
        }
        if framing == chunked {
            connection.write(b"0\r\n\r\n");
        }
        let mut answer = connection.answer();
        if answer.status == 100 {
            answer = connection.answer();
        }
        assert_eq!(answer.status, status, "{path} {fields}{framing}");
        // actix-web's server reads chunks to their end, and keeps the connection open.
        if !(on_actix() && framing == chunked) {
            assert_eq!(
                answer.fields("connection"),
                ["close"],
                "{path} {fields}{framing}"
            );
            assert_eq!(connection.try_answer(), None, "it was announced");
        }
    }
    server.assert_alive();
}

#[test]
fn a_client_that_sends_a_whole_body_after_an_invalid_head_receives_the_refusal() {
    let server = Server::of("allsign");
    let many = "X: y\r\n".repeat(97);
    for (head, status) in [
        ("POST /v2/documents HTTP/1.1\r\nHost: x\r\nX y: z\r\n", 400),
        ("POST /v2/documents HTTP/7.7\r\nHost: x\r\n", 400),
        ("POST /v2/documents\r\n", 400),
        (
            &format!("POST /v2/documents HTTP/1.1\r\nHost: x\r\n{many}"),
            431,
        ),
    ] {
        let mut connection = Connection::open(server.address);
        connection.write(head.as_bytes());
        connection.write(b"Content-Length: 16777216\r\n\r\n");
        for _ in 0..16 {
            connection.write(&vec![b'a'; 1 << 20]);
        }
        assert_eq!(connection.answer().status, status, "{head}");
        assert_eq!(connection.try_answer(), None, "{head}");
    }
    server.assert_alive();
}

/// A client that already had a response gets no more time than a new one.
#[test]
fn waiting_for_the_next_head_and_an_unwanted_body_is_limited() {
    let server = Server::of("allsign");
    let chunked = "POST /v2/documents HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (begun, broken_off) = (
        format!("{chunked}5\r\nhello\r\n"),
        format!("{chunked}50000\r\nhello"),
    );
    let first = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    thread::scope(|scope| {
        for (first, status, next) in [
            (first, 200, "GET /hea"),
            (first, 200, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: "),
            (first, 200, "P"),
            (chunked, 401, "5\r\nhello\r\n"),
            (chunked, 401, "50000\r\nhello"),
            // The whole body is sent before the response.
            (&begun, 401, ""),
            (&broken_off, 401, ""),
        ] {
            let server = &server;
            scope.spawn(move || {
                let mut connection = Connection::open(server.address);
                connection.write(first.as_bytes());
                assert_eq!(connection.answer().status, status);
                connection.write(next.as_bytes());
                let begun = Instant::now();
                assert_eq!(connection.try_answer(), None, "{next}");
                let waited = begun.elapsed();
                assert!(waited < Duration::from_secs(12), "{next}: {waited:?}");
            });
        }
    });
    server.assert_alive();
}

#[test]
fn the_end_of_a_connection_after_a_refusal_is_not_waited_for() {
    let server = Server::of("allsign");
    let mut connection = Connection::open(server.address);
    let begun = Instant::now();
    connection.write(b"POST /v2/documents HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n");
    assert_eq!(connection.answer().status, 401);
    assert_eq!(connection.try_answer(), None);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
}

#[test]
fn a_short_unread_body_does_not_close_the_connection_on_axum() {
    let server = Server::of("allsign");
    let mut connection = Connection::open(server.address);
    let request = "POST /v2/documents HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
    for _ in 0..3 {
        connection.write(request.as_bytes());
        let answer = connection.answer();
        assert_eq!(answer.status, 401);
        if on_actix() {
            // actix-web's server closes the connection unless it knows that the body was read.
            assert_eq!(answer.fields("connection"), ["close"]);
            return;
        }
        assert_eq!(answer.fields("connection"), [""; 0]);
        connection.write(b"hello");
    }
}

#[test]
fn half_a_head_is_not_waited_for() {
    let server = Server::of("allsign");
    let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..];
    let cases = [
        &b""[..],
        b"GET /healthz HTTP/1.1\r\nHost: lo",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ",
        b"G",
        b"P",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea",
        // Idle between two requests.
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        &preface[..9],
        preface,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    thread::scope(|scope| {
        for bytes in cases {
            let server = &server;
            scope.spawn(move || {
                let begun = Instant::now();
                let answer = server.exchange(bytes);
                let (waited, text) = (begun.elapsed(), String::from_utf8_lossy(&answer));
                assert!(waited < Duration::from_secs(15), "{bytes:?}: {waited:?}");
                // actix-web's server sends 408 before it closes the connection, hyper only closes
                // it.
                let whole = bytes.ends_with(b"\r\n\r\n") || bytes.ends_with(b"/hea");
                assert!(
                    whole
                        || bytes.starts_with(preface)
                        || text.is_empty()
                        || text.starts_with("HTTP/1.1 408 "),
                    "{bytes:?}: {text}"
                );
            });
        }
    });
    server.assert_alive();
}
