//! Chunked bodies (RFC 9112 §7.1) that are unusual, malformed or endless, and upgrades to
//! unsupported protocols. The content of a body is never parsed as the next request.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::common::{Answer, Connection, Issued, Server, on_actix};
use serde_json::json;

/// A response that does not wait for anything arrives within this time.
const PROMPT: Duration = Duration::from_secs(3);

/// A server, a key, and a caller: a plain route with and without a key, and management calls.
struct Site {
    server: Server,
    issued: Issued,
    targets: Vec<Target>,
}

struct Target {
    head: String,
    body: String,
    /// The status for this body if it is read completely.
    good: u16,
    /// The responses to malformed bodies: the body of a refused request need not be read, nor the
    /// rest of one that a call does not use.
    broken: Vec<u16>,
}

impl Site {
    fn new() -> Self {
        let server = Server::of("allsign");
        let issued = server.issue_scoped(&["*"]);
        let owner = server.operator("owner");
        let of = |target: &str, token: &str| {
            format!(
                "{target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\n"
            )
        };
        let key = json!({ "key": issued.key }).to_string();
        let one = format!("/admin/keys/{}", issued.id());
        let targets = [
            (
                "POST /v2/documents".into(),
                &issued.key,
                "{}",
                201,
                vec![400],
            ),
            (
                "POST /v2/documents".into(),
                &"x".into(),
                "{}",
                401,
                vec![401],
            ),
            ("POST /admin/verify".into(), &owner, &*key, 200, vec![400]),
            (
                format!("PATCH {one}"),
                &owner,
                r#"{"name":"n"}"#,
                200,
                vec![400],
            ),
            (
                format!("POST {one}/primary"),
                &owner,
                "{}",
                200,
                vec![200, 400],
            ),
            ("POST /unknown".into(), &owner, "{}", 404, vec![404]),
        ];
        let targets = targets.map(|(target, token, body, good, broken)| Target {
            head: of(&target, token),
            body: body.to_owned(),
            good,
            broken,
        });
        Self {
            targets: targets.into(),
            server,
            issued,
        }
    }

    /// A request with the key, which would succeed if it were parsed as one.
    fn smuggled(&self) -> String {
        format!(
            "GET /whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            self.issued.key
        )
    }

    /// How often the key was used.
    fn uses(&self) -> u64 {
        let record = self.server.record(self.issued.id());
        record["request_count"].as_u64().unwrap()
    }
}

/// The responses to these bytes, until the server closes the connection or `most` of them have
/// arrived.
fn ask(server: &Server, request: &[u8], most: usize) -> Vec<Answer> {
    let mut connection = Connection::open(server.address);
    connection.write_beside(request);
    let begun = Instant::now();
    let mut all = Vec::new();
    while all.len() < most
        && let Some(answer) = connection.try_answer()
    {
        all.push(answer);
    }
    let waited = begun.elapsed();
    assert!(waited < PROMPT, "{waited:?} {all:?}");
    all
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

/// A body with one chunk, whose size line has this extension, and with these trailers.
fn in_chunks(body: &str, extension: &str, trailers: &str) -> String {
    let size = body.len();
    format!(
        "Transfer-Encoding: chunked\r\n\r\n{size:x}{extension}\r\n{body}\r\n0\r\n{trailers}\r\n"
    )
}

#[test]
fn content_of_another_type_is_refused_by_its_first_byte() {
    let site = Site::new();
    let owner = site.server.operator("owner");
    let one = format!("/admin/keys/{}", site.issued.id());
    for (method, path) in [
        ("POST", "/admin/keys"),
        ("POST", "/admin/import"),
        ("POST", "/admin/verify"),
        ("PATCH", &one),
        ("DELETE", &one),
        ("POST", &format!("{one}/revoke")),
        ("POST", &format!("{one}/rotate")),
        ("POST", &format!("{one}/primary")),
    ] {
        let head = |fields: &str| {
            format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {owner}\r\n{fields}\
                 Transfer-Encoding: chunked\r\n\r\n"
            )
        };
        for (fields, status) in [
            ("Content-Type: text/plain\r\n", 415),
            ("", 415),
            (
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
                415,
            ),
            (
                "Content-Type: application/json\r\nOrigin: https://evil.example\r\n",
                403,
            ),
        ] {
            // One byte of many, and then nothing.
            let request = format!("{}5\r\nh", head(fields));
            let answers = ask(&site.server, request.as_bytes(), 1);
            assert_eq!(statuses(&answers), [status], "{method} {path} {fields}");
            // actix-web's server reads chunks to their end, or closes the connection when they stop
            // arriving.
            if !on_actix() {
                assert_eq!(
                    answers[0].fields("connection"),
                    ["close"],
                    "{method} {path}"
                );
            }
        }
    }
    assert_eq!(site.server.record(site.issued.id())["status"], "active");
}

#[test]
fn too_much_of_another_type_is_of_another_type() {
    let site = Site::new();
    let owner = site.server.operator("owner");
    for (media, status) in [("text/plain", 415), ("application/json", 413)] {
        for path in ["/admin/verify", "/admin/keys", "/admin/import"] {
            let mut request = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {owner}\r\n\
                 Content-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            for _ in 0..5 {
                let _ = write!(request, "100000\r\n{}\r\n", " ".repeat(1 << 20));
            }
            let answers = ask(&site.server, (request + "0\r\n\r\n").as_bytes(), 1);
            assert_eq!(statuses(&answers), [status], "{path} {media}");
        }
    }
}

#[test]
fn chunks_without_content_need_no_type_and_leave_the_connection_open() {
    let site = Site::new();
    let owner = site.server.operator("owner");
    let mut connection = Connection::open(site.server.address);
    for _ in 0..3 {
        let request = format!(
            "POST /admin/keys/{}/primary HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {owner}\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            site.issued.id()
        );
        connection.write(request.as_bytes());
        let answer = connection.answer();
        assert_eq!((answer.status, answer.fields("connection")), (200, vec![]));
    }
}

#[test]
fn chunks_that_are_read_to_their_end_leave_the_connection_open() {
    let site = Site::new();
    let fine = [
        ("", ""),
        (";a", ""),
        (";a=b;c=\"d;\"", ""),
        (" ", ""),
        ("", "X-A: b\r\n"),
    ];
    // The rest of a body that was refused or is not used may remain unread.
    for target in site.targets.iter().filter(|target| target.broken == [400]) {
        for (extension, trailers) in fine {
            let request = target.head.clone() + &in_chunks(&target.body, extension, trailers);
            let both = request + &site.smuggled();
            let answers = ask(&site.server, both.as_bytes(), 2);
            assert_eq!(
                statuses(&answers),
                [target.good, 200],
                "{} {extension:?}",
                target.head
            );
            assert_eq!(answers[1].json()["key_id"], site.issued.id());
        }
    }
}

#[test]
fn long_extensions_and_trailers_are_read_or_refused_and_nothing_else() {
    let site = Site::new();
    let many = (0..100).fold(String::new(), |mut all, number| {
        let _ = write!(all, "X-{number}: y\r\n");
        all
    });
    let long = format!("X: {}\r\n", "y".repeat(65_536));
    for target in &site.targets {
        for (extension, trailers) in [
            (format!(";a={}", "b".repeat(20_000)), String::new()),
            (";a".repeat(10_000), String::new()),
            (String::new(), many.clone()),
            (String::new(), long.clone()),
            (
                String::new(),
                format!("Authorization: Bearer {}\r\n", site.issued.key),
            ),
            (
                String::new(),
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            ),
            (String::new(), "no field\r\n".to_owned()),
        ] {
            let before = site.uses();
            let request = target.head.clone() + &in_chunks(&target.body, &extension, &trailers);
            let both = request + &site.smuggled();
            let answers = ask(&site.server, both.as_bytes(), 2);
            let statuses = statuses(&answers);
            // hyper reads 16 KiB of extensions and of trailers, and no more trailers than fields of
            // a head; actix-web's server reads all of them and has no such setting. A proxy that
            // re-frames bodies makes them equal.
            let read = statuses == [target.good, 200] || statuses == [target.good];
            let refused = statuses.len() == 1 && target.broken.contains(&statuses[0]);
            let context = format!(
                "{} {:.40} {trailers:.40}: {statuses:?}",
                target.head, extension
            );
            assert!(read || refused && !on_actix(), "{context}");
            let own = u64::from(target.head.contains("/v2/") && target.good == 201);
            let served = statuses.iter().filter(|status| **status == 200).count() as u64;
            assert!(site.uses() - before <= own + served, "{context}");
        }
    }
    site.server.assert_alive();
}

#[test]
fn broken_chunks_are_one_refusal_and_the_end_of_the_connection() {
    let site = Site::new();
    let smuggled = site.smuggled();
    let lines = smuggled.trim_end();
    for target in &site.targets {
        let body = &target.body;
        let size = format!("{:x}", body.len());
        let after = |size: &str| format!("{size}\r\n{body}\r\n0\r\n\r\n");
        for broken in [
            after("xyz"),
            after(&format!("-{size}")),
            after(&format!("+{size}")),
            after("11111111111111111"),
            after("0x10"),
            after(&format!("0x{size}")),
            after(&format!(" {size}")),
            after(&format!("{size} {size}")),
            after(&format!("{size},")),
            after(&format!("{size};a\nb")),
            after(&format!("{size};a\rb")),
            after(""),
            // Missing or incomplete line ends.
            format!("{size}\r\n{body}0\r\n\r\n"),
            format!("{size}\r\n{body}{lines}\r\n"),
            format!("{size}\n{body}\n0\n\n"),
            format!("{size}\r{body}\r\n0\r\n\r\n"),
            format!("{size}\r\n{body}\n0\r\n\r\n"),
            format!("{size}\r\n{body}\r\n0\n\n"),
            // A malformed last chunk.
            format!("{size}\r\n{body}\r\nxyz\r\n\r\n"),
            format!("{size}\r\n{body}\r\n-0\r\n\r\n"),
            // The next request in place of a chunk.
            format!("{size}\r\n{body}\r\n"),
            String::new(),
        ] {
            let before = site.uses();
            let request = format!(
                "{}Transfer-Encoding: chunked\r\n\r\n{broken}{smuggled}",
                target.head
            );
            let answers = ask(&site.server, request.as_bytes(), 2);
            let statuses = statuses(&answers);
            let context = format!("{} {broken:?}: {statuses:?}", target.head);
            assert_eq!(statuses.len(), 1, "{context}");
            assert!(target.broken.contains(&statuses[0]), "{context}");
            let own = u64::from(target.head.contains("/v2/") && target.broken == [400]);
            assert_eq!(site.uses() - before, own, "{context}");
        }
    }
    site.server.assert_alive();
}

#[test]
fn a_bare_line_feed_ends_no_chunks() {
    let site = Site::new();
    for target in &site.targets {
        let before = site.uses();
        let (size, smuggled) = (target.body.len(), site.smuggled());
        let mut connection = Connection::open(site.server.address);
        let request = format!(
            "{}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{}\r\n0\r\n\n{smuggled}",
            target.head, target.body
        );
        connection.write(request.as_bytes());
        connection.end_writing();
        // hyper parses what follows as trailers.
        let status = connection.answer().status;
        assert!(
            status == target.good || target.broken.contains(&status),
            "{}",
            target.head
        );
        assert_eq!(connection.try_answer(), None, "{}", target.head);
        let own = u64::from(target.head.contains("/v2/") && target.broken == [400]);
        assert_eq!(site.uses() - before, own, "{}", target.head);
    }
}

/// A handler that reads the body waits for announced bytes; a refusal does not wait.
#[test]
fn a_chunk_with_the_largest_size_is_only_as_long_as_the_data_received() {
    let site = Site::new();
    let owner = site.server.operator("owner");
    for (path, token, status) in [
        ("/v2/documents", "x", 401),
        ("/admin/verify", "x", 401),
        ("/admin/verify", &owner, 413),
        ("/v2/documents", &site.issued.key, 413),
    ] {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
        );
        request.push_str(&" ".repeat((4 << 20) + 1));
        request.push_str(&site.smuggled());
        let answers = ask(&site.server, request.as_bytes(), 1);
        assert_eq!(statuses(&answers), [status], "{path} {token}");
    }
    site.server.assert_alive();
}

#[test]
fn an_unsupported_upgrade_is_ignored_and_its_body_is_not_a_request() {
    let site = Site::new();
    let smuggled = site.smuggled();
    let lines = smuggled.trim_end();
    let settings = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    for (upgrade, more) in [
        (
            "websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        ),
        ("h2c", settings),
        ("h2c, websocket", settings),
        ("HTTP/2.0", ""),
        ("TLS/1.0, HTTP/1.1", ""),
    ] {
        let fields = format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n{more}");
        for target in &site.targets {
            for (body, good) in [(target.body.as_str(), target.good), (lines, 400)] {
                let framings = [
                    in_chunks(body, "", ""),
                    format!("Content-Length: {}\r\n\r\n{body}", body.len()),
                ];
                for framing in framings {
                    let before = site.uses();
                    let request = format!("{}{fields}{framing}", target.head);
                    let answers = ask(&site.server, request.as_bytes(), 1);
                    let context = format!("{request}: {answers:?}");
                    let expected = [target.good, good];
                    assert!(expected.contains(&answers[0].status), "{context}");
                    assert!(answers[0].fields("upgrade").is_empty(), "{context}");
                    let own = u64::from(target.head.contains("/v2/") && target.good == 201);
                    assert_eq!(site.uses() - before, own, "{context}");
                }
            }
        }
    }
    site.server.assert_alive();
}

#[test]
fn a_client_that_closes_its_write_half_after_the_request_is_answered() {
    let site = Site::new();
    for target in &site.targets {
        for (framing, may_be) in [
            (in_chunks(&target.body, "", ""), vec![target.good]),
            (
                format!(
                    "Content-Length: {}\r\n\r\n{}",
                    target.body.len(),
                    target.body
                ),
                vec![target.good],
            ),
            // In the middle of its body.
            (
                "Transfer-Encoding: chunked\r\n\r\n5\r\n{".into(),
                target.broken.clone(),
            ),
            ("Content-Length: 5\r\n\r\n{".into(), target.broken.clone()),
        ] {
            let mut connection = Connection::open(site.server.address);
            connection.write((target.head.clone() + &framing).as_bytes());
            connection.end_writing();
            let answer = connection.try_answer().map(|answer| answer.status);
            let context = format!("{} {framing}: {answer:?}", target.head);
            assert!(
                answer.is_some_and(|status| may_be.contains(&status)),
                "{context}"
            );
            assert_eq!(connection.try_answer(), None, "{context}");
        }
    }
    site.server.assert_alive();
}
