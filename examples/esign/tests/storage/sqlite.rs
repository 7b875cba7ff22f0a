//! Storage in SQLite: the default file, a restart, and two processes on one file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::manage::{change, events, ids, items, list, rotate};
use crate::common::stores::{
    assert_both_agree, assert_no_secret, assert_one_quota, assert_refused_to_start,
};
use crate::common::{Call, Ended, Issued, Process, Server, USER, until};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

fn at(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn status(server: &Server, issued: &Issued) -> u16 {
    server.get("/whoami", &issued.key).status
}

#[test]
fn by_default_keys_are_in_a_file_of_the_working_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::ready(
        "allsign",
        Process::start_in(folder.path(), &["--ready-json"], &[]),
    );
    let issued = server.issue(json!({}));
    assert_eq!(server.stop().code, Some(0));
    let names: BTreeSet<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        names.contains(std::ffi::OsStr::new("esign.db")),
        "{names:?}"
    );
    assert!(
        names
            .iter()
            .all(|name| name.to_str().unwrap().starts_with("esign.db")),
        "{names:?}"
    );
    let server = Server::ready(
        "allsign",
        Process::start_in(folder.path(), &["--ready-json"], &[]),
    );
    assert_eq!(status(&server, &issued), 200);
}

#[test]
fn everything_is_still_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = at(&folder.path().join("keys.db"));
    let server = Server::on(&store, "allsign");
    let used = server.issue(json!({
        "scopes": ["document:read"],
        "metadata": { "a": [1] },
        "allowed_ips": ["127.0.0.1"],
    }));
    let revoked = server.issue(json!({}));
    let disabled = server.issue(json!({}));
    let rotated = server.issue(json!({}));
    for _ in 0..3 {
        assert_eq!(status(&server, &used), 200);
    }
    server.admin(
        "owner",
        Call::post(&format!("/keys/{}/revoke", revoked.id())).json(&json!({ "reason": "leaked" })),
    );
    change(&server, disabled.id(), &json!({ "enabled": false }));
    assert_eq!(
        rotate(&server, rotated.id(), &json!({ "grace_seconds": 3600 })).status,
        201
    );
    // Usage and events are not requested before the stop: SIGTERM writes what is pending.
    assert_eq!(server.get("/v2/signatures", &used.key).status, 403);
    assert_eq!(status(&server, &used), 200);
    assert_eq!(server.stop().code, Some(0));

    let server = Server::on(&store, "allsign");
    assert_eq!(
        [&used, &revoked, &disabled, &rotated].map(|issued| status(&server, issued)),
        [200, 401, 401, 200]
    );
    let record = server.record(used.id());
    // A request that was refused for a missing scope also counts as usage.
    assert_eq!(record["request_count"], 6);
    for field in [
        "scopes",
        "metadata",
        "allowed_ips",
        "created_at",
        "owner",
        "masked",
    ] {
        assert_eq!(record[field], used.record[field], "{field}");
    }
    assert_eq!(server.record(revoked.id())["revoke_reason"], "leaked");
    let page = events(
        &server,
        "owner",
        &format!("?key_id={}&limit=500", used.id()),
    );
    let told: Vec<_> = items(&page)
        .iter()
        .map(|event| event["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(
        told,
        ["OK", "OK", "INSUFFICIENT_SCOPE", "OK", "OK", "OK", "OK"]
    );
    assert_eq!(ids(&list(&server, "owner", "")).len(), 5);
}

#[test]
fn told_to_stop_under_load_it_loses_neither_usage_nor_events() {
    let folder = tempfile::tempdir().unwrap();
    let store = at(&folder.path().join("keys.db"));
    let server = Server::on(&store, "allsign");
    let plenty = json!({ "requests_per_minute": 100_000, "requests_per_hour": 100_000 });
    let issued = server.issue(json!({ "rate_limit_config": plenty }));
    let (address, pid) = (server.address, server.pid());
    let bytes = Call::get("/whoami").bearer(&issued.key).bytes();
    let answers = AtomicUsize::new(0);
    let answered: usize = thread::scope(|scope| {
        let client = || {
            let mut answered = 0;
            while let Ok(mut stream) = std::net::TcpStream::connect(address) {
                use std::io::{Read, Write};
                stream
                    .set_read_timeout(Some(crate::common::PATIENCE))
                    .unwrap();
                let (mut answer, _) = (Vec::new(), stream.write_all(&bytes));
                let _ = stream.read_to_end(&mut answer);
                let is_whole = usize::from(answer.starts_with(b"HTTP/1.1 200"));
                answers.fetch_add(is_whole, Ordering::Relaxed);
                answered += is_whole;
            }
            answered
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        crate::common::until("load", || answers.load(Ordering::Relaxed) > 20);
        server.signal("TERM");
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    assert!(answered > 20, "{answered} answers of {pid}");
    assert_eq!(server.wait().code, Some(0));
    let server = Server::on(&store, "allsign");
    assert_eq!(server.record(issued.id())["request_count"], answered);
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let page = events(
            &server,
            "owner",
            &format!("?key_id={}&limit=500{cursor}", issued.id()),
        );
        seen += items(&page)
            .iter()
            .filter(|event| event["action"] == "request")
            .count();
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, answered);
}

#[test]
fn changes_by_one_process_are_effective_in_the_other() {
    let folder = tempfile::tempdir().unwrap();
    assert_both_agree("SQLite", &at(&folder.path().join("keys.db")));
}

#[test]
fn two_processes_keep_one_quota_of_keys_and_one_primary() {
    let folder = tempfile::tempdir().unwrap();
    assert_one_quota(&at(&folder.path().join("keys.db")));
}

// ---- unusable files ----

fn start(store: &str) -> Ended {
    Process::start(&["--ready-json", "--store", store], &[]).wait()
}

#[test]
fn a_store_that_cannot_be_is_one_line_and_exit_code_2() {
    for store in [
        "",
        "sqlite",
        "sqlite:",
        "mysql://x",
        "postgres:x",
        "postgres",
        "Memory",
        "memory:",
        "redis://x",
        "/tmp/keys.db",
    ] {
        let line = assert_refused_to_start(&start(store));
        assert!(line.contains("--store"), "{store}: {line}");
    }
}

#[test]
fn a_database_in_memory_is_refused_with_the_value_to_give_instead() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "sqlite:",
        "sqlite://",
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite:///:memory:",
        "sqlite:./:memory:",
        "sqlite::MEMORY:",
        "sqlite::memory:?cache=shared",
        "sqlite:file::memory:?cache=shared",
        "sqlite:file:keys.db?mode=memory",
        "sqlite:keys.db?mode=memory",
        "sqlite://keys.db?cache=shared&mode=memory",
    ] {
        let flags = ["--ready-json", "--store", store];
        let line = assert_refused_to_start(&Process::start_in(folder.path(), &flags, &[]).wait());
        assert!(line.contains("--store"), "{store}: {line}");
        assert!(line.contains("memory"), "{store}: {line}");
    }
    for store in [
        "sqlite:keys.db?mode=ro",
        "sqlite:keys.db?",
        "sqlite:file:keys.db",
        "sqlite://keys.db?cache=shared",
    ] {
        let flags = ["--ready-json", "--store", store];
        let line = assert_refused_to_start(&Process::start_in(folder.path(), &flags, &[]).wait());
        assert!(line.contains("parameters"), "{store}: {line}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file");
}

#[test]
fn one_file_has_several_spellings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rel.db");
    let absolute = path.display();
    let mut issued = None;
    for store in [
        "sqlite:rel.db".to_owned(),
        "sqlite://rel.db".into(),
        "sqlite:./rel.db".into(),
        format!("sqlite:{absolute}"),
        format!("sqlite://{absolute}"),
    ] {
        let flags = ["--ready-json", "--store", &store];
        let process = Process::start_in(folder.path(), &flags, &[]);
        let server = Server::ready("allsign", process);
        let first = issued.get_or_insert_with(|| server.issue(json!({})));
        assert_eq!(status(&server, first), 200, "{store}");
        assert_eq!(server.stop().code, Some(0));
    }
}

#[test]
fn a_mistyped_store_is_refused_without_the_password() {
    for store in [
        "postgress://tester:Tweety0Secret@127.0.0.1/keys",
        "tester:Tweety0Secret@127.0.0.1/keys",
        "mysql://tester:Tweety0Secret@127.0.0.1/keys",
        "postgres:tester:Tweety0Secret@127.0.0.1",
        "sqlite:keys.db?password=Tweety0Secret",
    ] {
        let line = assert_refused_to_start(&start(store));
        assert!(line.contains("--store"), "{line}");
        assert!(!line.contains("Tweety0"), "{line}");
    }
}

#[test]
fn a_database_that_is_not_there_is_one_line_without_the_password() {
    for store in [
        "postgres://tester:Tweety0Secret@127.0.0.1:1/keys",
        "postgres://tester:Tweety0Secret@/keys?host=%2Fnowhere",
        "postgresql://tester:Tweety0Secret@does-not-exist.invalid/keys",
        "postgres://tester:Tweety0Secret@127.0.0.1:notaport/keys",
        "postgres://tester:Tweety0Secret@[::1/keys",
        "postgres://tester:Tweety0%zz@127.0.0.1:1/keys?sslmode=nonsense",
        "postgres://",
    ] {
        let line = assert_refused_to_start(&start(store));
        assert!(!line.contains("Tweety0"), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_one_line_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let garbage: Vec<u8> = (0..20_000_u32)
        .map(|number| (number * 7 % 251) as u8)
        .collect();
    let named = |name: &str| folder.path().join(name);
    fs::write(named("garbage"), &garbage).unwrap();
    fs::write(named("text"), b"hello\nworld\n").unwrap();
    fs::write(
        named("broken"),
        [b"SQLite format 3\0", &garbage[..]].concat(),
    )
    .unwrap();
    fs::create_dir(named("folder")).unwrap();
    for name in [
        "garbage",
        "text",
        "broken",
        "folder",
        "missing/keys.db",
        "text/keys.db",
        "two\nlines/x",
    ] {
        let before = fs::read(named(name)).ok();
        let line = assert_refused_to_start(&start(&at(&named(name))));
        let cause = match name {
            "folder" => "Is a directory",
            "missing/keys.db" | "two\nlines/x" => "No such file or directory",
            "text/keys.db" => "Not a directory",
            _ => "",
        };
        assert!(
            line.contains(cause) || name.contains('\n'),
            "{name}: {line}"
        );
        assert!(
            line.contains(name.lines().next().unwrap()),
            "{name}: {line}"
        );
        assert_eq!(fs::read(named(name)).ok(), before, "{name}");
    }
}

#[test]
fn a_file_that_was_written_by_a_newer_version_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let server = Server::on(&at(&path), "allsign");
    server.issue(json!({}));
    assert_eq!(server.stop().code, Some(0));
    set_schema(&path, 2, 99);
    let before = fs::read(&path).unwrap();
    let line = assert_refused_to_start(&start(&at(&path)));
    assert!(line.contains("99"), "{line}");
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
    set_schema(&path, 99, 2);
    assert_eq!(
        ids(&list(&Server::on(&at(&path), "allsign"), "owner", "")).len(),
        1
    );
}

/// Changes the schema version of a database.
fn set_schema(path: &Path, from: u32, to: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let update = "UPDATE portunus_schema SET version = $1 WHERE version = $2";
        let done = sqlx::query(update)
            .bind(to)
            .bind(from)
            .execute(&mut connection)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 1);
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_file_of_many_damages_never_ends_in_a_panic_or_a_wrong_yes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let server = Server::on(&at(&path), "allsign");
    let revoked = server.issue(json!({}));
    server.revoke(revoked.id());
    assert_eq!(server.stop().code, Some(0));
    let whole = fs::read(&path).unwrap();
    for at_byte in (4096..whole.len()).step_by(whole.len() / 12) {
        let mut damaged = whole.clone();
        let end = (at_byte + 3000).min(damaged.len());
        damaged[at_byte..end].fill(0x5a);
        fs::write(&path, &damaged).unwrap();
        let process = Process::start(&["--ready-json", "--store", &at(&path)], &[]);
        if process.stdout.wait_for(|text| text.contains('\n')) {
            let server = Server::ready("allsign", process);
            let answer = server.get("/whoami", &revoked.key);
            assert!(
                matches!(answer.status, 401 | 503),
                "{at_byte}: {}",
                answer.status
            );
            assert!(!server.stop().stderr.contains("panicked"));
        } else {
            assert_refused_to_start(&process.wait());
        }
        for rest in ["keys.db-wal", "keys.db-shm"] {
            let _ = fs::remove_file(folder.path().join(rest));
        }
    }
}

// ---- what is written ----

#[test]
fn the_files_hold_no_secret() {
    for profile in ["allsign", "dropbox-sign"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::on(&at(&folder.path().join("keys.db")), profile);
        let issued = server.issue(json!({}));
        let successor: Value = rotate(&server, issued.id(), &json!({})).json();
        let successor = successor["key"].as_str().unwrap();
        let unknown = issued.key.chars().rev().collect::<String>();
        for key in [&*issued.key, successor, &unknown] {
            server.get("/whoami", key);
            server.send(&server.with_key(Call::get("/whoami").field("X-User-Id", USER), key));
        }
        let tokens = ["owner", "admin"].map(|name| server.operator(name));
        events(&server, "owner", "");
        assert_eq!(server.stop().code, Some(0));
        for entry in fs::read_dir(folder.path()).unwrap() {
            let stored = fs::read(entry.unwrap().path()).unwrap();
            assert_no_secret(&stored, &[&issued.key, successor, &tokens[0], &tokens[1]]);
        }
    }
}

#[test]
fn a_read_only_file_gives_one_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let path = folder.path().join("keys.db");
    if fs::write(folder.path().join("probe"), b"").is_ok() {
        // Root can write everywhere except here.
        let line = assert_refused_to_start(&start("sqlite:/proc/keys.db"));
        assert!(line.contains("/proc/keys.db"), "{line}");
        return;
    }
    let line = assert_refused_to_start(&start(&at(&path)));
    assert!(line.contains("keys.db"), "{line}");
}

#[test]
fn losses_on_a_full_disk_are_reported_with_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--ready-json"];
    let server = Server::ready("allsign", Process::start_in(folder.path(), &flags, &[]));
    let many = json!({ "requests_per_minute": 1_000_000, "requests_per_hour": 1_000_000 });
    let issued = server.issue(json!({ "rate_limit_config": many }));
    assert_eq!(server.stop().code, Some(0));
    // Enough space for SQLite's shared memory (32 KiB), which is needed to open a database; the log
    // soon exceeds this.
    let size = fs::metadata(folder.path().join("esign.db")).unwrap().len();
    let size = size.max(128 << 10);

    let full = Process::start_in_a_full(folder.path(), size, &flags);
    let server = Server::ready("allsign", full);
    // By default, without RUST_LOG.
    until("both warnings", || {
        assert_eq!(status(&server, &issued), 200);
        let log = server.log();
        log.contains("write the events of audit sink 1") && log.contains("write usage")
    });
    assert_eq!(status(&server, &issued), 200);
    let ended = server.stop();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let told: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("esign: "))
        .collect();
    let [line] = told[..] else {
        panic!("not one line: {ended:?}");
    };
    let numbers: Vec<u64> = line
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    assert!(
        matches!(numbers[..], [events, uses] if events > 0 && uses > 0),
        "{line}"
    );
}
