//! Secrets: never an argument, never in an output, an error or a file.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use portunus_test_support::postgres::free_port;
use portunus_test_support::wait::until;

use crate::common::{Place, Run, Running, Server, TOKEN};

const SECRET: &str = "hunter2";

/// The arguments and the environment of a process, as every process of the user can read them.
fn arguments(pid: u32) -> String {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
    String::from_utf8_lossy(&read("cmdline")).into_owned()
}

#[test]
fn a_key_to_verify_is_in_no_argument_and_no_output() {
    let place = Place::sqlite();
    let (secret, _) = place.issue("first", &[]);
    let verify = ["verify", "--key-file", "-", "--service", "service.toml"];
    let mut command = place.command(&verify);
    let mut running = Running(command.stdin(Stdio::piped()).spawn().unwrap());
    let pid = running.0.id();
    // It waits for the key.
    until("the program runs", || arguments(pid).contains("verify"));
    assert!(!arguments(pid).contains(&secret));
    running
        .0
        .stdin
        .take()
        .unwrap()
        .write_all(secret.as_bytes())
        .unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    running
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    running
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert!(running.0.wait().unwrap().success(), "{err}");
    assert!(
        !out.contains(&secret) && !err.contains(&secret),
        "{out}{err}"
    );
}

#[test]
fn keys_are_read_from_a_file_and_the_environment_too() {
    let place = Place::sqlite();
    let (secret, _) = place.issue("first", &[]);
    std::fs::write(place.path("key"), format!("{secret}\r\n")).unwrap();
    place.done(&["verify", "--key-file", "key", "--service", "service.toml"]);
    let nowhere = ["verify", "--service", "service.toml"];
    place
        .run(&nowhere)
        .failed(2, "set PORTUNUS_KEY, or name a file by --key-file");
    place.with("PORTUNUS_KEY", &secret).done(&nowhere);
}

#[test]
fn no_flag_takes_a_secret() {
    let place = Place::at("");
    for command in [
        &["--help"][..],
        &["keys", "--help"],
        &["keys", "issue", "--help"],
        &["keys", "rotate", "--help"],
        &["keys", "import", "--help"],
        &["keys", "export", "--help"],
        &["events", "verify", "--help"],
        &["verify", "--help"],
        &["doctor", "--help"],
        &["migrate", "--help"],
    ] {
        let help = place.done(command);
        for word in help
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
        {
            let flag = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let names_a_secret = ["pass", "secret", "token", "pepper"]
                .iter()
                .any(|it| flag.contains(it));
            assert!(
                !names_a_secret || flag.ends_with("-file"),
                "{flag} in {command:?}"
            );
        }
    }
}

#[test]
fn an_address_with_a_password_is_no_argument() {
    let place = Place::at("");
    for address in [
        "postgres://portunus:hunter2@localhost/keys",
        "postgres://portunus:hunter2/x@localhost/keys",
        "postgres://localhost/keys?password=hunter2",
        "postgres://localhost/keys?p%61ssword=hunter2",
        "https://oona:hunter2@localhost/admin",
    ] {
        let run = place.run(&["keys", "list", "--store", address]);
        run.failed(2, "PORTUNUS_STORE");
        assert!(
            run.err.contains("PGPASSWORD") && !run.err.contains(SECRET),
            "{run:?}"
        );
    }
    for flag in ["--bus", "--limiter"] {
        let run = place.run(&[
            "doctor",
            "--store",
            "sqlite:x",
            flag,
            "redis://:hunter2@localhost",
        ]);
        run.failed(
            2,
            if flag == "--bus" {
                "PORTUNUS_BUS"
            } else {
                "PORTUNUS_LIMITER"
            },
        );
        assert!(!run.err.contains(SECRET), "{run:?}");
    }
}

#[test]
fn an_error_about_a_database_does_not_show_its_password() {
    let port = free_port();
    let reached = format!("postgres://portunus:hunter2@127.0.0.1:{port}/keys?sslmode=disable");
    for (address, code) in [
        (reached.as_str(), 6),
        ("postgres://portunus:hunter2@[::1/keys", 6),
        ("postgres://portunus:hunter2@host:port/keys", 6),
        ("postgres:/portunus:hunter2@host/keys", 2),
        ("mysql://portunus:hunter2@host/keys", 2),
        ("hunter2", 2),
        ("https://oona:hunter2@localhost/admin", 2),
    ] {
        for command in [
            &["keys", "list"][..],
            &["migrate"],
            &["keys", "list", "--json"],
        ] {
            let run = Place::at(address).run(command);
            run.failed(code, "");
            assert!(
                !run.err.contains(SECRET) && !run.out.contains(SECRET),
                "{address}: {run:?}"
            );
        }
        let place = Place::at("");
        std::fs::write(place.path("store"), address).unwrap();
        let run = place.run(&["keys", "list", "--store-file", "store"]);
        run.failed(code, "");
        assert!(!run.err.contains(SECRET), "{address}: {run:?}");
    }
    let run = Place::at(&reached).run(&["doctor"]);
    run.failed(8, "found a problem");
    assert!(
        run.out.contains("refused") && !run.out.contains(SECRET),
        "{run:?}"
    );
}

#[test]
fn what_was_typed_in_the_wrong_place_is_not_repeated() {
    let place = Place::at("sqlite:x");
    let wrong: [&[&str]; 8] = [
        &["verify", SECRET],
        &["verify", "--key", SECRET],
        &["verify", "--key=hunter2"],
        &["keys", "list", "--token", SECRET],
        &["keys", "list", "--limit", SECRET],
        &["keys", "list", "--limit=hunter2"],
        &["keys", "export", "--format", SECRET],
        &[SECRET],
    ];
    for arguments in wrong {
        let run = place.run(arguments);
        run.failed(2, "see `portunus --help`");
        assert!(!run.err.contains(SECRET), "{arguments:?}: {run:?}");
    }
}

#[test]
fn a_token_is_in_no_output() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    let hides = |run: &Run| assert!(!format!("{run:?}").contains(TOKEN), "{run:?}");
    let http = Place::over_http(&server);
    hides(&http.run(&["keys", "list"]));
    hides(&http.run(&["doctor", "--json"]));
    let unknown = Place::at(&server.address).with("PORTUNUS_TOKEN", "op_wrong");
    let run = unknown.run(&["keys", "list"]);
    run.failed(3, "INVALID_KEY");
    assert!(!run.err.contains("op_wrong"), "{run:?}");
    // Only one line, and nothing that could be another field.
    let split = Place::at(&server.address).with("PORTUNUS_TOKEN", "op_x\r\nx-y: z");
    split.run(&["keys", "list"]).failed(2, "visible ASCII");
    Place::at(&server.address)
        .run(&["keys", "list"])
        .failed(2, "set PORTUNUS_TOKEN");
    let place = Place::at(&server.address);
    let run = place.run_with(
        &["keys", "list", "--token-file", "-"],
        &format!("{TOKEN}\n"),
    );
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn a_token_is_sent_to_another_machine_by_tls_only() {
    let place = Place::at("http://192.0.2.1/admin").with("PORTUNUS_TOKEN", TOKEN);
    place.run(&["keys", "list"]).failed(2, "clear text");
    let named = Place::at("http://localhost.example.com/admin").with("PORTUNUS_TOKEN", TOKEN);
    named.run(&["keys", "list"]).failed(2, "clear text");
}

/// Runs a program of OpenSSL.
fn openssl(place: &Place, arguments: &str) -> Command {
    let mut openssl = Command::new("openssl");
    openssl
        .args(arguments.split(' '))
        .current_dir(place.folder.path());
    openssl
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    openssl
}

#[test]
fn a_token_is_sent_to_a_trusted_server_only() {
    let port = free_port();
    let place = Place::at(&format!("https://127.0.0.1:{port}/admin")).with("PORTUNUS_TOKEN", TOKEN);
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x \
                -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
                -keyout key.pem -out cert.pem";
    let made = openssl(&place, make).status();
    let made = made.expect("openssl is missing: on Debian, apt-get install openssl");
    assert!(made.success());
    let serve = format!("s_server -accept 127.0.0.1:{port} -cert cert.pem -key key.pem -www");
    let _server = Running(openssl(&place, &serve).spawn().unwrap());
    let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    until("the server listens", answers);

    let run = place.run(&["keys", "revoke", "key_x", "--yes"]);
    run.failed(6, "certificate");
    assert!(
        !run.err.contains("not known whether"),
        "nothing was sent: {run:?}"
    );
    let certificate = place.path("cert.pem").display().to_string();
    let place = place.with("SSL_CERT_FILE", &certificate);
    // It shows its own page.
    place
        .run(&["keys", "list"])
        .failed(1, "not one of a management API (status 200)");
    let other_name = format!("https://localhost:{port}/admin");
    place
        .run(&["keys", "list", "--store", &other_name])
        .failed(6, "certificate");
}

#[test]
fn nothing_is_stored() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    let http = Place::over_http(&server);
    http.done(&["keys", "list"]);
    http.issue("first", &[]);
    let left: Vec<_> = std::fs::read_dir(http.folder.path())
        .unwrap()
        .flatten()
        .collect();
    let names: Vec<_> = left.iter().map(std::fs::DirEntry::file_name).collect();
    assert_eq!(names, ["service.toml"]);
}
