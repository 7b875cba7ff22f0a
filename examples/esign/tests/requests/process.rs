//! The process: its start, its output, and its exit.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Call, Connection, Ended, Process, Server};
use serde_json::{Value, json};

const PROFILES: [&str; 5] = ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"];

/// Asserts that the process refuses to start: one line on stderr, nothing on stdout, exit code 2.
/// Returns the line.
#[track_caller]
fn assert_refused_to_start(ended: &Ended) -> String {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let line = ended.stderr.strip_suffix('\n').expect("a whole line");
    assert!(
        !line.contains('\n') && !line.trim().is_empty(),
        "{:?}",
        ended.stderr
    );
    line.to_owned()
}

fn start(flags: &[&str]) -> Ended {
    Process::start(flags, &[]).wait()
}

#[test]
fn a_bad_flag_is_one_line_and_exit_code_2() {
    for (flags, named) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["--profile"], "--profile"),
        (&["--profile", "docusign"], "docusign"),
        (&["--profile", "AllSign"], "AllSign"),
        (&["--profile", ""], "profile"),
        (
            &["--profile", "allsign", "--profile", "insigner"],
            "--profile",
        ),
        (&["--adapter", "rocket"], "rocket"),
        (&["--store", "floppy"], "floppy"),
        (&["--listen", "nowhere"], "nowhere"),
        (&["--listen", "127.0.0.1"], "127.0.0.1"),
        (&["--listen", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (&["--listen", "localhost:0"], "localhost:0"),
        (&["--ready-json=yes"], "--ready-json"),
        (&["surprise"], "surprise"),
        (&["--listen", "two\nlines"], "two"),
    ] {
        let line = assert_refused_to_start(&start(flags));
        assert!(
            line.contains(named),
            "{flags:?}: {line:?} does not say {named}"
        );
    }
}

#[test]
fn an_environment_that_the_profile_has_not_is_refused() {
    for (profile, environment, known) in [
        ("allsign", "production", "live, test"),
        ("allsign", "Live", "Live"),
        ("allsign", "", "environment"),
        ("insigner", "sandbox", "production"),
        ("yousign", "staging", "production, sandbox"),
        ("iusign", "sandbox", "production, staging, development"),
        ("dropbox-sign", "test", "production"),
    ] {
        let line = assert_refused_to_start(&start(&[
            "--profile",
            profile,
            "--environment",
            environment,
        ]));
        assert!(
            line.contains(known),
            "{profile}: {line:?} does not name {known}"
        );
    }
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = assert_refused_to_start(&start(&["--ready-json", "--listen", &address]));
    assert!(line.contains(&address), "{line}");
}

#[test]
fn help_goes_to_stdout_with_exit_code_0() {
    let ended = start(&["--help"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for flag in [
        "--profile",
        "--listen",
        "--adapter",
        "--store",
        "--environment",
        "--ready-json",
    ] {
        assert!(
            ended.stdout.contains(flag),
            "{flag} is not in {}",
            ended.stdout
        );
    }
}

#[test]
fn the_ready_line_is_complete_and_the_only_output_on_stdout() {
    for profile in PROFILES {
        let server = Server::of(profile);
        let fields: Vec<_> = server
            .ready
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            fields,
            ["url", "admin_url", "dashboard_url", "operators", "pid"]
        );
        let url = format!("http://{}", server.address);
        assert_eq!(server.ready["url"], url);
        assert_eq!(server.ready["admin_url"], format!("{url}/admin"));
        assert_eq!(server.ready["dashboard_url"], format!("{url}/dashboard"));
        assert_eq!(server.ready["pid"], server.pid());
        let operators: Vec<_> = server.ready["operators"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(operators, ["owner", "admin", "member", "outsider"]);
        let ready = server.ready.clone();
        let issued = server.issue(json!({}));
        assert_eq!(server.get("/whoami", &issued.key).status, 200);
        server.send(&Call::get("/nowhere"));
        let ended = server.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let line = ended.stdout.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Value>(line).unwrap(), ready);
    }
}

#[test]
fn operators_tokens_are_long_and_new_at_each_start() {
    let mut tokens = Vec::new();
    for server in [Server::of("allsign"), Server::of("allsign")] {
        tokens.extend(["owner", "admin", "member", "outsider"].map(|name| server.operator(name)));
    }
    assert!(tokens.iter().all(|token| token.len() >= 43), "{tokens:?}");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 8);
}

#[test]
fn operators_tokens_can_be_given() {
    let given = [
        ("ESIGN_OPERATOR_OWNER", "owner-owner-owner"),
        ("ESIGN_OPERATOR_OUTSIDER", "outsider~outsider"),
        ("ESIGN_OPERATOR_MEMBER", "member/member+member=="),
    ];
    let server = Server::start("allsign", &[], &given);
    assert_eq!(server.operator("owner"), given[0].1);
    assert_eq!(server.operator("outsider"), given[1].1);
    assert_eq!(server.operator("member"), given[2].1);
    assert!(server.operator("admin").len() >= 43);
    let status = |token: &str| server.send(&Call::get("/admin/keys").bearer(token)).status;
    assert_eq!(given.map(|(_, token)| status(token)), [200, 200, 403]);
    assert_eq!(status("owner-owner-owneR"), 401);
}

#[test]
fn an_operators_token_that_is_too_weak_is_refused_and_not_printed() {
    for variable in
        ["OWNER", "ADMIN", "MEMBER", "OUTSIDER"].map(|name| format!("ESIGN_OPERATOR_{name}"))
    {
        for token in [
            "",
            "short",
            "fifteen-letters",
            "with a space inside it",
            "tab\tinside-of-it-all",
            "\u{e4}\u{f6}\u{fc}\u{e4}\u{f6}\u{fc}\u{e4}\u{f6}\u{fc}",
        ] {
            let ended = Process::start(&["--ready-json"], &[(&variable, token)]).wait();
            let line = assert_refused_to_start(&ended);
            assert!(line.contains(&variable), "{line}");
            assert!(token.is_empty() || !line.contains(token), "{line}");
        }
    }
}

#[test]
fn one_token_cannot_be_two_operators() {
    let token = "the-same-for-both-of-them";
    let process = Process::start(
        &["--ready-json"],
        &[
            ("ESIGN_OPERATOR_OWNER", token),
            ("ESIGN_OPERATOR_OUTSIDER", token),
        ],
    );
    assert!(
        !process.stdout.wait_for(|text| text.contains('\n')),
        "it serves"
    );
    assert_refused_to_start(&process.wait());
}

#[test]
fn the_banner_has_a_key_that_works() {
    for profile in PROFILES {
        let process = Process::start(&["--profile", profile, "--store", "memory"], &[]);
        assert!(
            process.stdout.wait_for(|text| text.contains("Ctrl-C")),
            "{}",
            process.stderr.text()
        );
        let banner = process.stdout.text();
        let after = |mark: &str| {
            let rest = &banner[banner
                .find(mark)
                .unwrap_or_else(|| panic!("no {mark:?} in {banner}"))
                + mark.len()..];
            rest.split(['\n', ' ', '\'']).next().unwrap().to_owned()
        };
        let key = after("shown this once: ");
        let address = after("http://");
        let address = address.split('/').next().unwrap().parse().unwrap();
        let present = |call: Call| match profile {
            "dropbox-sign" => call.basic(format!("{key}:")),
            _ => call.bearer(&key),
        };
        let curl = match profile {
            "dropbox-sign" => format!("-u '{key}:'"),
            _ => format!("-H 'Authorization: Bearer {key}'"),
        };
        assert!(banner.contains(&curl), "{banner}");
        // Each line to paste, with its expected response.
        let mut pasted = 0;
        for line in banner
            .lines()
            .filter(|line| line.trim_start().starts_with("curl"))
        {
            let target = line
                .split(' ')
                .find_map(|word| word.strip_prefix(&format!("http://{address}")))
                .unwrap();
            let call = Call::get(target);
            let (call, status) = match (line.contains(&curl), line.contains("/admin/")) {
                (true, _) => (present(call), 200),
                (false, true) if line.contains("Authorization: Bearer ") => {
                    let token = line
                        .split("Authorization: Bearer ")
                        .nth(1)
                        .unwrap()
                        .split('\'')
                        .next()
                        .unwrap();
                    (call.bearer(token), 200)
                }
                (false, _) => (call, 401),
            };
            let bytes = crate::common::exchange(address, &call.bytes());
            let (answer, _) = crate::common::read_answer(&bytes, false).unwrap();
            assert_eq!(answer.status, status, "{line}: {}", answer.text());
            pasted += 1;
        }
        assert_eq!(pasted, 5, "{banner}");
        process.signal("TERM");
        let ended = process.wait();
        assert_eq!(
            (ended.code, ended.stdout),
            (Some(0), banner),
            "nothing after the banner"
        );
    }
}

#[test]
fn without_rust_log_stderr_is_silent() {
    let server = Server::of("allsign");
    server.send(&Call::get("/whoami").bearer("x"));
    server.exchange(b"garbage\r\n\r\n");
    assert_eq!(server.stop().stderr, "");
}

#[test]
fn a_rust_log_that_cannot_be_read_does_not_stop_it() {
    let server = Server::start("allsign", &[], &[("RUST_LOG", "not,a=valid=filter[")]);
    server.assert_alive();
    assert_eq!(server.stop().code, Some(0));
}

/// Begins to send a document, and waits until its handler asks for the body.
fn begin(server: &Server, key: &str, length: usize) -> Connection {
    let mut connection = Connection::open(server.address);
    connection.write(
        format!(
            "POST /v2/documents HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
             Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(connection.answer().status, 100);
    connection
}

/// Waits until new connections are refused.
fn until_closed(server: &Server) {
    crate::common::until("new connections are refused", || {
        TcpStream::connect(server.address).is_err()
    });
}

#[test]
fn on_a_stop_signal_it_answers_requests_in_flight_and_exits_0() {
    for signal in ["TERM", "INT"] {
        let server = Server::of("allsign");
        let issued = server.issue_scoped(&["*"]);
        let mut connection = begin(&server, &issued.key, 13);
        server.signal(signal);
        until_closed(&server);
        connection.write(br#"{"title":"x"}"#);
        let answer = connection.answer();
        assert_eq!(
            (answer.status, answer.json()["title"].as_str()),
            (201, Some("x")),
            "{signal}"
        );
        assert!(connection.try_answer().is_none(), "the connection ends");
        assert_eq!(server.wait().code, Some(0), "{signal}");
    }
}

#[test]
fn told_to_stop_as_soon_as_it_is_ready_it_exits_0() {
    for signal in ["TERM", "INT"] {
        for _ in 0..10 {
            let process = Process::start(&["--ready-json"], &[]);
            // A shell that is already running; starting one later would give the process time.
            let script = format!("read go; kill -{signal} {}", process.child.id());
            let mut shell = Command::new("sh")
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            assert!(
                process.stdout.wait_for(|text| text.contains('\n')),
                "{}",
                process.stderr.text()
            );
            shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
            assert!(shell.wait().unwrap().success());
            let ended = process.wait();
            assert_eq!(
                (ended.code, ended.stderr.as_str()),
                (Some(0), ""),
                "{signal}"
            );
        }
    }
}

#[test]
fn idle_connections_do_not_hold_it() {
    let server = Server::of("allsign");
    let mut used = Connection::open(server.address);
    used.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(used.answer().status, 200);
    let told = Instant::now();
    assert_eq!(server.stop().code, Some(0));
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
}

#[test]
fn a_request_that_never_ends_does_not_hold_it_for_ever() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    let _body = begin(&server, &issued.key, 13);
    let mut head = Connection::open(server.address);
    head.write(b"GET /healthz HTTP/1.1\r\nHost: local");
    let told = Instant::now();
    let ended = server.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        told.elapsed() < Duration::from_secs(15),
        "{:?}",
        told.elapsed()
    );
}

#[test]
fn a_client_that_goes_away_does_no_harm() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["*"]);
    for _ in 0..20 {
        drop(begin(&server, &issued.key, 1 << 20));
        drop(Connection::open(server.address));
    }
    server.assert_alive();
    assert_eq!(
        server.get("/v2/documents", &issued.key).text(),
        r#"{"documents":[]}"#
    );
    assert_eq!(server.stop().code, Some(0));
}
