//! Runs the README's walk through the management API: its commands, with the documented output.
//!
//! A line that begins with `$ ` is a command; a comment after it begins with the status; the lines
//! below it are its output, where `…` matches any text. Variables such as `ID=…` are taken from the
//! previous response.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::common::{Call, Process, Server};
use serde_json::Value;

/// A command and its documented result.
#[derive(Debug)]
struct Step {
    command: String,
    status: Option<u16>,
    /// Expected lines of output, in this order, possibly with others between them.
    writes: Vec<String>,
}

/// Returns the steps in the console blocks of a section.
fn steps(readme: &str, section: &str) -> Vec<Step> {
    let (_, after) = readme
        .split_once(&format!("\n## {section}\n"))
        .expect(section);
    let section = after.split("\n## ").next().unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for block in section.split("```console\n").skip(1) {
        for line in block.split("\n```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    let (command, comment) = command.split_once(" # ").unwrap_or((command, ""));
                    let status = comment.get(..3).and_then(|digits| digits.parse().ok());
                    steps.push(Step {
                        command: command.trim().to_owned(),
                        status,
                        writes: Vec::new(),
                    });
                }
                None => steps
                    .last_mut()
                    .expect("a command first")
                    .writes
                    .push(line.to_owned()),
            }
        }
    }
    steps
}

/// Whether a line matches the pattern, in which each `…` matches any text.
fn is_like(line: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap()) else {
        return false;
    };
    let mut last = "";
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else {
            return false;
        };
        (rest, last) = (after, piece);
    }
    // If the pattern does not end in `…`, the line must end with the last piece.
    rest.is_empty() || (pattern.contains('…') && line.ends_with(last))
}

/// Starts the server as in the README, but on its own port.
fn start(command: &str) -> Server {
    let words: Vec<_> = command.split(' ').collect();
    let program = words
        .windows(4)
        .position(|words| words == ["cargo", "run", "-p", "esign"])
        .expect(command);
    let variables: Vec<_> = words[..program]
        .iter()
        .map(|word| word.split_once('=').expect(command))
        .collect();
    let flags: Vec<_> = words[program + 4..]
        .iter()
        .copied()
        .filter(|word| *word != "--")
        .collect();
    Server::ready(
        "allsign",
        Process::start(&[&flags[..], &["--ready-json"]].concat(), &variables),
    )
}

/// Definitions from earlier steps: assignments and functions, in bash syntax.
#[derive(Default)]
struct Told(String);

/// Makes curl report the request and the response on stderr.
const TELLING: &str = concat!(
    "curl() { command curl --max-time 20 ",
    r#"-w '%{stderr}%{http_code} %{method} %{url_effective}\n' "$@"; }"#
);

impl Told {
    /// Runs a command; returns its output, and the status, method and URL of its one request.
    fn run(&self, command: &str) -> (String, u16, String, String) {
        let script = format!("set -eu\n{TELLING}\n{}{command}\n", self.0);
        let bash = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        let (out, told) = (
            String::from_utf8(bash.stdout).unwrap(),
            String::from_utf8(bash.stderr).unwrap(),
        );
        assert!(bash.status.success(), "{command}: {told}{out}");
        let [status, method, url] = told.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{command}: {told}")
        };
        (
            out,
            status.parse().unwrap(),
            method.to_owned(),
            url.to_owned(),
        )
    }

    /// Takes variables such as `ID=… KEY=…` from a response.
    fn take(&mut self, command: &str, answer: &str) {
        let answer: Value = serde_json::from_str(answer).expect("an answer to take it from");
        for name in command
            .split(' ')
            .map(|word| word.strip_suffix("=…").expect(command))
        {
            let value = if name.ends_with("KEY") {
                &answer["key"]
            } else {
                answer["record"].get("id").unwrap_or(&answer["id"])
            };
            self.0
                .push_str(&format!("{name}={}\n", value.as_str().expect(name)));
        }
    }
}

/// Returns the calls in an OpenAPI document: methods, and paths with placeholders.
fn described(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let calls = paths.iter().flat_map(|(path, calls)| {
        calls
            .as_object()
            .unwrap()
            .keys()
            .map(|method| (method.to_uppercase(), path.clone()))
    });
    calls.collect()
}

/// Whether a path matches one with placeholders.
fn is_path(path: &str, described: &str) -> bool {
    let (path, described): (Vec<_>, Vec<_>) =
        (path.split('/').collect(), described.split('/').collect());
    path.len() == described.len()
        && path
            .iter()
            .zip(described)
            .all(|(part, one)| one == *part || one == "{id}")
}

#[test]
fn the_readmes_walk_through_the_management_api_works() {
    let readme = include_str!("../../../../README.md");
    let steps = steps(readme, "Manage keys");
    let (first, walk) = steps.split_first().unwrap();
    let server = start(&first.command);
    let document = server.admin("owner", Call::get("/openapi.json")).json();
    let (mut told, mut last) = (Told::default(), String::new());
    let mut left = described(&document);
    assert!(!left.is_empty(), "{document}");
    for Step {
        command,
        status,
        writes,
    } in walk
    {
        let command = command.replace("127.0.0.1:8080", &server.address.to_string());
        if !command.contains("curl -s $") && !command.starts_with("admin ") {
            assert!(
                writes.is_empty() && status.is_none(),
                "{command}: it asks nothing"
            );
            if command.contains("=…") {
                told.take(&command, &last);
            } else {
                told.0.push_str(&format!("{command}\n"));
            }
            continue;
        }
        let (out, answered, method, url) = told.run(&command);
        assert_eq!(Some(answered), *status, "{command}: {out}");
        let mut lines = out.lines().map(str::trim_end);
        for pattern in writes {
            assert!(
                lines.any(|line| is_like(line, pattern)),
                "{command}\nis said to write\n{pattern}\nand wrote\n{out}"
            );
        }
        let path = url
            .split('?')
            .next()
            .unwrap()
            .split_once("/admin")
            .map_or("", |(_, path)| path);
        left.retain(|(known, described)| *known != method || !is_path(path, described));
        last = out;
    }
    assert!(left.is_empty(), "the README says nothing of {left:?}");
}

#[test]
fn an_ellipsis_matches_any_text_and_nothing_else_does() {
    for (line, pattern) in [
        ("ab", "ab"),
        ("ab", "a…"),
        ("ab", "…b"),
        ("acb", "a…b"),
        ("xaxbx", "…a…b…"),
        ("abb", "a…b"),
    ] {
        assert!(is_like(line, pattern), "{line} {pattern}");
    }
    for (line, pattern) in [
        ("abc", "ab"),
        ("ab", "b…"),
        ("ab", "…a"),
        ("ba", "…a…b…"),
        ("", "a"),
        ("abc", "a…b"),
    ] {
        assert!(!is_like(line, pattern), "{line} {pattern}");
    }
}
