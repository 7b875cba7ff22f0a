//! Fuzzed requests: the rows' requests, mutated at random from a fixed seed. All adapters must give
//! the same answer.
//!
//! Mutations are limited to what both servers parse: methods, the paths that all adapters serve,
//! and field values without control characters. The behavior of servers and routers themselves is
//! covered in `routers.http` and `bytes.http`.

use std::net::{IpAddr, Ipv4Addr};

use crate::all_rows;
use crate::fixture::key;
use crate::row::Row;
use crate::run::{Servers, Store};
use portunus_test_support::random::Random;

const REQUESTS: usize = 800;

const METHODS: [&str; 9] = [
    "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW", "get",
];
const PATHS: [&str; 17] = [
    "/any",
    "/any",
    "/read",
    "/write",
    "/write-one",
    "/both",
    "/nobody",
    "/user",
    "/plan",
    "/search",
    "/change",
    "/maybe",
    "/perhaps",
    "/organization",
    "/workspaces/ws1/templates",
    "/workspaces/ws%31/templates?ws=ws1",
    "/by-header",
];
const NAMES: [&str; 9] = [
    "Authorization",
    "authorization",
    "X-API-Key",
    "X-User-Id",
    "X-On-Behalf-Of",
    "X-On-Behalf-Email",
    "X-Forwarded-For",
    "Forwarded",
    "X-Workspace",
];
const KEYS: [&str; 12] = [
    "reader", "writer", "app", "user", "readonly", "ws1", "listed", "revoked", "stranger", "a_app",
    "y_read", "d_token",
];
const HOUSES: [&str; 8] = [
    "neutral",
    "ways",
    "limited",
    "delegating",
    "proxied",
    "optional",
    "allsign",
    "dropbox-sign",
];

/// A head as lines, and everything after it.
#[derive(Clone)]
struct Request {
    lines: Vec<Vec<u8>>,
}

impl Request {
    fn of(row: &Row) -> Option<Self> {
        // Rows state where servers differ.
        if row.is_over_http_2() || !row.reason.is_empty() {
            return None;
        }
        let head = row
            .request
            .windows(4)
            .position(|window| window == b"\r\n\r\n")?;
        // One Host, no body and no other framing fields: servers handle errors in those themselves.
        const FRAMING: [&[u8]; 5] = [b"content-", b"transfer-", b"trailer", b"expect", b"upgrade"];
        let text = std::str::from_utf8(&row.request[..head]).ok()?;
        let lines: Vec<_> = text
            .split("\r\n")
            .map(|line| line.as_bytes().to_vec())
            .collect();
        let frames = |line: &[u8]| {
            FRAMING
                .iter()
                .any(|name| line.to_ascii_lowercase().starts_with(name))
        };
        // Well below the size at which a head is too large for one of them.
        let fit = lines.len() < 50 && lines.iter().all(|line| line.len() < 6000 && !frames(line));
        let once = |of: &[u8], line: &str| {
            let mut found = lines
                .iter()
                .filter(|line| line.to_ascii_lowercase().starts_with(of));
            found.next().is_some_and(|found| found == line.as_bytes()) && found.next().is_none()
        };
        let fit = fit
            && !lines[0].is_empty()
            && once(b"host:", "Host: corpus")
            && once(b"connection:", "Connection: close");
        fit.then_some(Self { lines })
    }

    fn bytes(&self) -> Vec<u8> {
        [self.lines.join(&b"\r\n"[..]), b"\r\n\r\n".to_vec()].concat()
    }

    /// Adds one line, which must not be a framing field.
    fn push(&mut self, line: Vec<u8>) {
        let name = line.to_ascii_lowercase();
        if !name.starts_with(b"connection") && !name.starts_with(b"host") {
            self.lines.push(line);
        }
    }

    fn mutate(&mut self, random: &mut Random, others: &[Self]) {
        let fields = self.lines.len() - 1;
        match random.index(8) {
            // A line of another row, or a repeated line of this one.
            0 => {
                let other = random.one(others);
                let line = random.one(&other.lines[1..]).clone();
                self.push(line);
            }
            1 => self.push(self.lines[1 + random.index(fields)].clone()),
            2 if fields > 2 => {
                let at = 1 + random.index(fields);
                if self.lines[at] != b"Host: corpus" && self.lines[at] != b"Connection: close" {
                    self.lines.remove(at);
                }
            }
            3 => {
                let text = key(random.one::<&str>(&KEYS));
                let credentials = match random.index(4) {
                    0 => format!(
                        "Authorization: Basic {}",
                        portunus_test_support::base64(format!("{text}:").as_bytes())
                    ),
                    1 => format!("X-API-Key: {text}"),
                    _ => format!("Authorization: Bearer {text}"),
                };
                self.lines.push(credentials.into_bytes());
            }
            4 => {
                let value = random.one(&[
                    "u1",
                    "u2",
                    "",
                    "203.0.113.42",
                    "for=203.0.113.42",
                    "u1@acme.example",
                    "ws1",
                ]);
                self.lines
                    .push(format!("{}: {value}", random.one(&NAMES)).into_bytes());
            }
            // Replaces a byte of a value by another one that is allowed in a field (RFC 9110 §5.5).
            _ => {
                let at = 1 + random.index(fields);
                let line = &mut self.lines[at];
                let start = line
                    .iter()
                    .position(|&byte| byte == b':')
                    .map_or(0, |colon| colon + 2);
                if start < line.len()
                    && !line.starts_with(b"Connection")
                    && !line.starts_with(b"Host")
                {
                    let place = start + random.index(line.len() - start);
                    let byte = *random.one(b"aZ0 ,;=:\"\\@%._~\t\x80\xff");
                    if random.index(2) == 0 {
                        line[place] = byte;
                    } else {
                        line.insert(place, byte);
                    }
                }
            }
        }
        if random.index(3) == 0 {
            self.lines[0] =
                format!("{} {} HTTP/1.1", random.one(&METHODS), random.one(&PATHS)).into_bytes();
        }
    }
}

#[actix_web::test]
async fn mutated_requests_are_answered_identically() {
    let rows = all_rows();
    let asks = |row: &Row, path: &str| {
        row.request
            .windows(path.len() + 6)
            .any(|at| at == format!(" {path} HTTP").as_bytes())
    };
    let fit = rows
        .iter()
        .filter(|row| PATHS.iter().any(|path| asks(row, path)));
    let seeds: Vec<_> = fit.filter_map(Request::of).collect();
    assert!(seeds.len() > 100, "{}", seeds.len());
    let mut random = Random(20_270_115);
    let mut statuses = std::collections::BTreeMap::<String, usize>::new();
    for fixture in HOUSES {
        for store in [Store::Now, Store::Late] {
            let servers = Servers::start(fixture, store).await;
            for _ in 0..REQUESTS / HOUSES.len() / 2 {
                let mut request = random.one(&seeds).clone();
                for _ in 0..=random.index(4) {
                    request.mutate(&mut random, &seeds);
                }
                let from = IpAddr::V4(if random.index(3) == 0 {
                    Ipv4Addr::new(127, 0, 0, 2)
                } else {
                    Ipv4Addr::LOCALHOST
                });
                let [tower, axum, actix] = servers.ask(from, &request.bytes()).await;
                let asked = request.bytes().escape_ascii().to_string();
                assert_eq!(
                    tower.to_string(),
                    axum.to_string(),
                    "tower and axum, {fixture}, {store:?}: {asked}"
                );
                assert_eq!(
                    tower.to_string(),
                    actix.to_string(),
                    "tower and actix, {fixture}, {store:?}: {asked}"
                );
                *statuses.entry(tower.status).or_default() += 1;
                servers
                    .fixture
                    .clock
                    .advance(std::time::Duration::from_millis(random.any() % 20_000));
            }
            servers.stop().await;
        }
    }
    // The answers covered more than one outcome.
    for status in ["200", "400", "401", "403"] {
        assert!(
            statuses
                .get(status)
                .is_some_and(|&times| times > REQUESTS / 50),
            "{statuses:?}"
        );
    }
}
