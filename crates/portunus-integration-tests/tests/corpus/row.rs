//! A row and its syntax: a request as `curl -v` shows it, byte for byte, and its complete response.
//!
//! ```text
//! === the row's name                   what comes before the first row is for readers only, and so is
//!                                      every `#`
//! in neutral                           the configuration
//! given 3 x {reader} /any              what happened before, step by step: see [`Given`]
//! > GET /any HTTP/1.1                  the request; `Host` (or `{absent}`) and `Connection: close`
//!                                      are added
//! > Authorization: Bearer {reader}\xff {name} is a key, {3*a} is aaa, {b64 a:} is base64,
//!                                      {unpadded a:} without `=`;
//! > X-Odd: \s\t\0\\                    a space, a tab, a NUL, a backslash, and \xNN any byte
//! < 401                                the answer: status, fields in any order, an empty line, the
//!                                      body
//! < cache-control: no-store
//! <
//! < the body
//! <actix 400                           the answer of one server, where they differ: `tower`, `axum`,
//! ! why they differ                    `actix`, and `hyper` for the two that run on it
//! = what makes them equal              the setting, or that there is none
//! ```
//!
//! A request line that ends with ` HTTP/2` is sent over HTTP/2; see `wire.rs`.

use std::fmt::Write;

use crate::fixture::key;
use portunus_test_support::base64;

/// The adapter that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapter {
    Tower,
    Axum,
    Actix,
}

impl Adapter {
    pub(crate) const ALL: [Self; 3] = [Self::Tower, Self::Axum, Self::Actix];

    /// The tags under which a row may list the answer of this adapter.
    fn tags(self) -> &'static [&'static str] {
        match self {
            Self::Tower => &["", "hyper", "tower"],
            Self::Axum => &["", "hyper", "axum"],
            Self::Actix => &["", "actix"],
        }
    }
}

/// A step before the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    /// `given 3 x {reader} /any`: this many requests with a key as Bearer, with any responses.
    Requests(usize, String, String),
    /// `given 3 x the same`: the row's own request.
    TheSame(usize),
    /// `given clock +60s`, `+500ms`: time passes.
    Clock(std::time::Duration),
    /// `given wall clock -3600s`: the wall clock is set, and no time passes.
    WallClock(i64),
    /// `given store down`, `store corrupt`, `limiter down`, `directory down`.
    Down(String),
    /// `given revoked reader`: the key is revoked.
    Revoked(String),
    /// `given from 127.0.0.2`: the address that the client's socket is bound to. 127.0.0.1 by
    /// default.
    From(std::net::IpAddr),
}

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) fixture: String,
    pub(crate) given: Vec<Given>,
    /// The bytes of the request.
    pub(crate) request: Vec<u8>,
    /// Responses by tag, as written.
    pub(crate) answers: Vec<(String, Vec<String>)>,
    /// Why servers differ.
    pub(crate) reason: String,
    /// The setting that makes the servers equal.
    pub(crate) setting: String,
}

impl Row {
    /// Whether the request is sent over HTTP/2.
    pub(crate) fn is_over_http_2(&self) -> bool {
        let mut lines = self.request.split(|&byte| byte == b'\r');
        lines.next().is_some_and(|line| line.ends_with(b" HTTP/2"))
    }

    /// The lines of the response that an adapter must give. If several tags match, the most
    /// specific one counts.
    pub(crate) fn answer(&self, adapter: Adapter) -> &[String] {
        let fitting = adapter.tags().iter().rev();
        let found = fitting
            .filter_map(|tag| self.answers.iter().find(|(of, _)| of == tag))
            .next();
        &found
            .unwrap_or_else(|| panic!("{}: no answer of {adapter:?}", self.name))
            .1
    }
}

/// Parses all rows of a file.
pub(crate) fn parse(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut requests: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            let fixture = String::new();
            let (given, request, answers) = (Vec::new(), Vec::new(), Vec::new());
            rows.push(Row {
                name: name.into(),
                fixture,
                given,
                request,
                answers,
                reason: String::new(),
                setting: String::new(),
            });
            requests.push(Vec::new());
            continue;
        }
        let (Some(row), Some(request)) = (rows.last_mut(), requests.last_mut()) else {
            continue;
        };
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" => {}
            "in" => row.fixture = rest.into(),
            "given" => row.given.push(given(rest)),
            ">" => request.push(rest),
            "!" => {
                let _ = write!(row.reason, "{rest} ");
            }
            "=" => {
                let _ = write!(row.setting, "{rest} ");
            }
            _ => {
                let tag = mark
                    .strip_prefix('<')
                    .unwrap_or_else(|| panic!("{}: {line:?}", row.name));
                if row.answers.last().is_none_or(|(of, _)| of != tag) {
                    row.answers.push((tag.into(), Vec::new()));
                }
                if let Some((_, lines)) = row.answers.last_mut() {
                    lines.push(rest.into());
                }
            }
        }
    }
    for (row, lines) in rows.iter_mut().zip(requests) {
        row.request = request(&lines);
    }
    rows
}

fn given(text: &str) -> Given {
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        [times, "x", "the", "same"] => Given::TheSame(times.parse().unwrap()),
        [times, "x", key, path] => {
            Given::Requests(times.parse().unwrap(), (*key).into(), (*path).into())
        }
        ["clock", by] => {
            let by = by.strip_prefix('+').unwrap();
            Given::Clock(match by.strip_suffix("ms") {
                Some(millis) => std::time::Duration::from_millis(millis.parse().unwrap()),
                None => {
                    std::time::Duration::from_secs(by.strip_suffix('s').unwrap().parse().unwrap())
                }
            })
        }
        ["wall", "clock", by] => Given::WallClock(by.strip_suffix('s').unwrap().parse().unwrap()),
        ["store", "down" | "corrupt"] | ["limiter" | "directory", "down"] => {
            Given::Down(text.into())
        }
        ["revoked", key] => Given::Revoked((*key).into()),
        ["from", ip] => Given::From(ip.parse().unwrap()),
        _ => panic!("unknown step {text:?}"),
    }
}

/// Returns the bytes of a request.
fn request(lines: &[&str]) -> Vec<u8> {
    let end = lines
        .iter()
        .position(|line| line.is_empty())
        .unwrap_or(lines.len());
    let (head, body) = lines.split_at(end);
    let has = |name: &str| {
        head.iter()
            .any(|line| line.to_ascii_lowercase().starts_with(name))
    };
    let mut bytes = Vec::new();
    for line in head.iter().filter(|line| **line != "Host: {absent}") {
        bytes.extend(expand(line));
        bytes.extend(b"\r\n");
    }
    if !has("host:") {
        bytes.extend(b"Host: corpus\r\n");
    }
    if !has("connection:") {
        bytes.extend(b"Connection: close\r\n");
    }
    bytes.extend(b"\r\n");
    let body: Vec<_> = body.iter().skip(1).map(|line| expand(line)).collect();
    bytes.extend(body.join(&b"\r\n"[..]));
    bytes
}

/// Returns the bytes of a line with its keys, repetitions and escapes expanded.
pub(crate) fn expand(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find(['\\', '{']) {
        bytes.extend(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if rest.starts_with('{') {
            let (inner, after) = braces(rest);
            bytes.extend(placeholder(inner));
            rest = after;
            continue;
        }
        let (byte, length) = match rest.as_bytes()[1] {
            b't' => (b'\t', 2),
            b'0' => (0, 2),
            b'\\' => (b'\\', 2),
            b's' => (b' ', 2),
            b'x' => (u8::from_str_radix(&rest[2..4], 16).unwrap(), 4),
            other => panic!("\\{}?", char::from(other)),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes.extend(rest.as_bytes());
    bytes
}

/// Returns the text between the first brace and its closing brace, and the rest.
fn braces(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return (&text[1..at], &text[at + 1..]),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    panic!("unclosed brace: {text}")
}

fn placeholder(inner: &str) -> Vec<u8> {
    if let Some(text) = inner.strip_prefix("b64 ") {
        return base64(&expand(text)).into_bytes();
    }
    if let Some(text) = inner.strip_prefix("unpadded ") {
        return base64(&expand(text)).trim_end_matches('=').into();
    }
    match inner.split_once('*') {
        Some((times, what)) => expand(what).repeat(times.parse().unwrap()),
        None => key(inner).into_bytes(),
    }
}
