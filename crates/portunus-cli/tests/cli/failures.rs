//! What goes wrong, and the exit code that says so.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::{any, get};
use portunus_test_support::postgres::free_port;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::common::{Place, Run, Running, Server, TOKEN, text};

#[test]
fn every_refusal_has_its_code() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    let http = Place::over_http(&server);
    http.run(&["keys", "show", "key_unknown"])
        .failed(4, "NOT_FOUND");
    http.run(&["keys", "show", "../../openapi.json"])
        .failed(4, "NOT_FOUND");
    http.run(&["keys", "show", ".."]).failed(4, "NOT_FOUND");
    http.run(&["keys", "list", "--status", "odd"])
        .failed(2, "status");
    http.run(&["keys", "issue", "x", "--scope", "a b"])
        .failed(2, "scope");
    http.run(&["keys", "issue", "x", "--tenant", "other"])
        .failed(3, "FORBIDDEN");
    http.run(&["keys", "list", "--tenant", "other"])
        .failed(2, "--tenant");
    let member = Place::at(&server.address).with("PORTUNUS_TOKEN", "member");
    member.run(&["keys", "list"]).failed(3, "FORBIDDEN");
    let (_, record) = place.issue("first", &[]);
    let id = text(&record["id"]);
    place.done(&["keys", "revoke", &id, "--yes"]);
    let run = place.run(&["keys", "rotate", &id, "--yes", "--service", "service.toml"]);
    run.failed(5, "CONFLICT");
    place
        .run(&["keys", "show", "key_unknown"])
        .failed(4, "NOT_FOUND");
}

#[test]
fn a_store_that_does_not_answer_is_unavailable() {
    let port = free_port();
    for address in [
        format!("http://127.0.0.1:{port}/admin"),
        format!("postgres://portunus@127.0.0.1:{port}/keys?sslmode=disable"),
    ] {
        let place = Place::at(&address).with("PORTUNUS_TOKEN", TOKEN);
        place.run(&["keys", "list"]).failed(6, "");
        let run = place.run(&["keys", "revoke", "key_x", "--yes"]);
        run.failed(6, "");
        assert!(
            !run.err.contains("not known whether"),
            "nothing was sent: {run:?}"
        );
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}/admin", listener.local_addr().unwrap());
    let closing = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let place = Place::at(&silent).with("PORTUNUS_TOKEN", TOKEN);
    place
        .run(&["keys", "revoke", "key_x", "--yes"])
        .failed(6, "not known whether");
    closing.join().unwrap();
    let place = Place::at("sqlite:missing.db");
    place.run(&["keys", "list"]).failed(6, "");
    assert!(
        !place.path("missing.db").exists(),
        "a mistyped path creates no database"
    );
    std::fs::write(
        place.path("missing.db"),
        "this is no database, but a long enough text",
    )
    .unwrap();
    place.run(&["keys", "list"]).failed(6, "not a database");
    Place::at("")
        .run(&["keys", "list"])
        .failed(2, "the address of the store");
}

#[test]
fn answers_of_something_else_are_reported() {
    let api = Router::new()
        .route("/html/keys", get(|| async { "<html>welcome</html>" }))
        .route(
            "/list/keys",
            get(|| async { axum::Json(json!({ "items": 7 })) }),
        )
        .route(
            "/bad/keys",
            get(|| async { (StatusCode::BAD_GATEWAY, "<html>nginx</html>") }),
        )
        .route(
            "/moved/keys",
            get(|| async { Redirect::temporary("/stolen/keys") }),
        )
        .route(
            "/stolen/keys",
            get(|| async { axum::Json(json!({ "items": [], "next_cursor": null })) }),
        )
        .route(
            "/same/keys",
            get(|| async { axum::Json(json!({ "items": [], "next_cursor": "1.x" })) }),
        )
        .fallback(any(|| async { StatusCode::NOT_FOUND }));
    let server = Server::of(api);
    for (path, code, says) in [
        ("html", 1, "not one of a management API"),
        ("list", 1, "not a list"),
        ("bad", 6, "status 502"),
        ("moved", 1, "leads elsewhere"),
        ("same", 1, "does not end"),
        ("unknown", 4, "not one of a management API"),
    ] {
        let place = Place::at(&format!("{}/{path}/", server.address)).with("PORTUNUS_TOKEN", TOKEN);
        place.run(&["keys", "list"]).failed(code, says);
    }
}

fn change_schema(place: &Place, sql: &'static str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(place.file());
        let mut connection = options.connect().await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_database_of_a_newer_version_is_not_used() {
    let place = Place::sqlite();
    place.issue("first", &[]);
    change_schema(
        &place,
        "UPDATE portunus_schema SET version = 99 WHERE version = (SELECT max(version) FROM portunus_schema)",
    );
    place.done(&["keys", "list"]);
    change_schema(
        &place,
        "UPDATE portunus_schema SET oldest = 99 WHERE version = 99",
    );
    for command in [&["keys", "list"][..], &["migrate"], &["keys", "export"]] {
        place.run(command).failed(5, "update the program");
    }
    let run = place.run(&["doctor"]);
    run.failed(8, "found a problem");
    assert!(run.out.contains("schema 99"), "{run:?}");
}

#[test]
fn an_older_schema_is_migrated_only_when_asked() {
    let place = Place::sqlite();
    change_schema(&place, "DELETE FROM portunus_schema WHERE version > 4");
    for sql in [
        "DROP TABLE portunus_bulk",
        "DROP TABLE portunus_credits",
        "DROP TABLE portunus_credit_entries",
    ] {
        change_schema(&place, sql);
    }
    place
        .run(&["keys", "list"])
        .failed(5, "run `portunus migrate`");
    let run = place.run(&["doctor", "--json"]);
    assert!(
        run.code == 8 && run.out.contains("run `portunus migrate`"),
        "{run:?}"
    );
}

#[test]
fn a_database_that_cannot_be_written_can_be_read() {
    let place = Place::sqlite();
    let (_, record) = place.issue("first", &[]);
    let id = text(&record["id"]);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&place.file(), 0o444);
    mode(place.folder.path(), 0o777);
    // Root may write to every file.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let run = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        Run::of(command.output().unwrap())
    };
    let shown = run(&["keys", "show", &id, "--json"]);
    assert!(
        shown.code == 0 && shown.out.contains("\"first\""),
        "{shown:?}"
    );
    run(&["keys", "revoke", &id, "--yes"]).failed(6, "");
    let checked = run(&["doctor"]);
    checked.failed(8, "found a problem");
    assert!(checked.out.contains("readonly"), "{checked:?}");
}

#[test]
fn an_audit_that_cannot_be_written_is_reported_after_the_deed() {
    let place = Place::sqlite();
    let (_, record) = place.issue("first", &[]);
    let id = text(&record["id"]);
    change_schema(
        &place,
        "CREATE TRIGGER full BEFORE INSERT ON portunus_events \
         BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    );
    let run = place.run(&["keys", "revoke", &id, "--yes", "--json"]);
    run.failed(9, "the audit event could not be written");
    assert!(run.out.contains("\"status\": \"revoked\""), "{run:?}");
    let issue = [
        "keys",
        "issue",
        "x",
        "--tenant",
        "acme",
        "--service",
        "service.toml",
    ];
    let run = place.run(&issue);
    run.failed(9, "");
    assert!(
        run.out.starts_with("acme_live_sk_"),
        "the secret is not lost: {run:?}"
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let place = Place::sqlite();
    for number in 0..30 {
        place.issue(&format!("key {number}"), &[]);
    }
    for command in [
        &["keys", "export"][..],
        &["keys", "list", "--json"],
        &["--help"],
        &["completions", "bash"],
    ] {
        let mut command = place.command(command);
        let mut running = Running(command.spawn().unwrap());
        // The pipe is closed before anything is read.
        drop(running.0.stdout.take());
        let mut err = String::new();
        running
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        let code = running.0.wait().unwrap().code();
        assert_eq!((code, err.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_secret_that_nobody_read_is_reported() {
    let place = Place::sqlite();
    let issue = [
        "keys",
        "issue",
        "lost",
        "--tenant",
        "acme",
        "--service",
        "service.toml",
    ];
    let mut command = place.command(&issue);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let run = Run::of(command.stdout(Stdio::from(full)).output().unwrap());
    run.failed(1, "rotate or revoke it");
    let mut running = Running(place.command(&issue).spawn().unwrap());
    drop(running.0.stdout.take());
    let mut err = String::new();
    running
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(1), "{err}");
    assert!(
        err.contains("its secret could not be shown: the output was closed"),
        "{err}"
    );
}

#[test]
fn help_has_examples_and_the_exit_codes() {
    let help = Place::at("").done(&["--help"]);
    for part in [
        "Examples:",
        "Exit codes:",
        "PORTUNUS_TOKEN",
        "--service",
        "own_bus",
    ] {
        assert!(help.contains(part), "{part}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            Place::at("")
                .done(&["completions", shell])
                .contains("portunus"),
            "{shell}"
        );
    }
    assert!(Place::at("").done(&["--version"]).starts_with("portunus "));
}

#[test]
fn who_acts_on_a_store_must_be_known() {
    let place = Place::sqlite().with("USER", "");
    place.run(&["keys", "list"]).failed(2, "--operator");
    place
        .run(&["keys", "list", "--operator", "a b"])
        .failed(2, "--operator");
    place.done(&["keys", "list", "--operator", "ann"]);
}
