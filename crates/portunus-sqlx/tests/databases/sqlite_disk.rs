//! SQLite on a disk that is full for a while, and files that the operating system does not let it
//! use.

use portunus::store::KeyLookup;
use portunus::store::UsageStore;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Home, SqliteHome, at, batch, digest, found, get, id, insert, record, with_a};
use portunus::key::{KeyHasher, Revocation};
use portunus::store::{KeyStore, StoreError, UsageDelta, WriteBatch};
use portunus_sqlx::{OpenError, SqliteStore};
use portunus_test_support::disk::Disk;
use sqlx::sqlite::SqliteConnectOptions;

const FILE: &str = "PORTUNUS_SQLX_FILE_ON_A_SMALL_DISK";
/// A user without any permissions.
const NOBODY: u32 = 65_534;
const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|mine| std::os::unix::fs::MetadataExt::uid(&mine) == 0)
}

fn revoked(mut record: portunus::key::KeyRecord) -> WriteBatch {
    record.revoked = Some(Revocation::new(at(2_000), None));
    WriteBatch::new().update(record)
}

/// Not a test: runs in its own process, whose resources can be limited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_follows_commands() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let store = SqliteStore::open(path).await.unwrap();
    let said = |done: Result<(), StoreError>| match done {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("failed {}", std::error::Error::source(&error).unwrap()),
    };
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, name) = line.split_once(' ').unwrap();
        let digest = KeyHasher::sha256().digest(name);
        let answer = match what {
            "issue" => {
                let mut record = record(name);
                record.description = Some("x".repeat(2_000));
                said(store.apply(&batch([insert(digest, record)])).await)
            }
            // Many large records at once.
            "bulk" => {
                let large = |number: u32| {
                    let mut record = record(&format!("{name}{number}"));
                    record.description = Some("x".repeat(20_000));
                    insert(
                        KeyHasher::sha256().digest(&format!("{name}{number}")),
                        record,
                    )
                };
                said(store.apply(&batch((0..120).map(large))).await)
            }
            "revoke" => match store.get(&id(name)).await {
                Ok(listed) => said(store.apply(&revoked((*listed.unwrap()).clone())).await),
                Err(error) => said(Err(error)),
            },
            "use" => {
                let delta = UsageDelta::new(id(name), 1, at(7_200), None);
                said(store.record_usage(&[delta]).await)
            }
            // Started, and aborted after a while.
            "forsake" => {
                let write = batch([insert(digest, record(name))]);
                let write = store.apply(&write);
                let limit = Duration::from_micros(u64::from(name.len() as u32) * 40);
                let _ = tokio::time::timeout(limit, write).await;
                "done".to_owned()
            }
            // More digests than one statement takes: read in a transaction.
            "find" => {
                let mut digests: Vec<_> = (0..9).map(crate::common::digest).collect();
                digests.insert(0, digest);
                match store.find(&digests).await {
                    Ok(Some(key)) if key.record().revoked.is_some() => "revoked".to_owned(),
                    Ok(Some(_)) => "working".to_owned(),
                    Ok(None) => "unknown".to_owned(),
                    Err(error) => format!("{error}"),
                }
            }
            other => panic!("{other}"),
        };
        std::io::stderr()
            .write_all(format!("answer {answer}\n").as_bytes())
            .unwrap();
    }
}

/// Such a process.
pub(crate) struct Other {
    child: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Other {
    pub(crate) fn on(disk: &Disk) -> Self {
        Self::run(disk, disk.command(std::env::current_exe().unwrap()))
    }

    /// As a user without any permissions, who owns this folder from now on.
    pub(crate) fn of_nobody(disk: &Disk) -> Self {
        // Where only its owner may read the file, the same applies to the program.
        let program = disk.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        if !is_root() {
            return Self::run(disk, disk.command(program));
        }
        std::os::unix::fs::chown(disk.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = disk.command("setpriv");
        command.args(AS_NOBODY).arg(program);
        Self::run(disk, command)
    }

    fn run(disk: &Disk, mut command: Command) -> Self {
        let mut child = command
            .args([
                "--exact",
                "sqlite_disk::a_process_that_follows_commands",
                "--nocapture",
            ])
            .env(FILE, disk.path().join("keys.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv of the package util-linux");
        Self {
            commands: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, what: &str, name: &str) -> String {
        writeln!(self.commands, "{what} {name}").unwrap();
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some(answer) = line.strip_prefix("answer ") {
                return answer.to_owned();
            }
            seen.push(line);
        }
        panic!("it ended: {seen:#?}")
    }

    /// Issues keys until that fails; returns the acknowledged ones.
    pub(crate) fn issue_until_full(&mut self, round: usize) -> Vec<String> {
        let mut issued = Vec::new();
        for number in 0..10_000 {
            let name = format!("key{round}-{number}");
            match &*self.tell("issue", &name) {
                "done" => issued.push(name),
                failed => {
                    assert!(
                        failed.contains("full") || failed.contains("I/O"),
                        "{failed}"
                    );
                    return issued;
                }
            }
        }
        panic!("the disk never got full")
    }
}

#[tokio::test]
async fn a_full_disk_rejects_only_writes_until_there_is_space() {
    for disk in Disk::all(4_096) {
        let mut other = Other::on(&disk);
        // By name, whether the key was revoked.
        let mut acknowledged = BTreeMap::new();
        for round in 0..3 {
            let mine = format!("mine{round}");
            assert_eq!(other.tell("issue", &mine), "done");
            acknowledged.insert(mine.clone(), false);
            disk.fill(other.pid());
            let issued = other.issue_until_full(round);
            acknowledged.extend(issued.into_iter().map(|name| (name, false)));
            for number in 0..12 {
                for what in ["issue", "revoke", "use"] {
                    let name = match what {
                        "issue" => format!("refused{round}-{number}"),
                        _ => mine.clone(),
                    };
                    let answer = other.tell(what, &name);
                    if answer == "done" && what != "use" {
                        acknowledged.insert(name, what == "revoke");
                    }
                }
                other.tell("forsake", &"x".repeat(1 + number * 5));
                let state = if acknowledged[&mine] {
                    "revoked"
                } else {
                    "working"
                };
                assert_eq!(other.tell("find", &mine), state);
            }
            disk.free_space(other.pid());
            let room = Instant::now();
            assert_eq!(other.tell("revoke", &mine), "done");
            assert_eq!(other.tell("find", &mine), "revoked");
            let fresh = format!("fresh{round}");
            assert_eq!(other.tell("issue", &fresh), "done");
            assert_eq!(other.tell("use", &fresh), "done");
            assert!(
                room.elapsed() < Duration::from_secs(4),
                "{:?}",
                room.elapsed()
            );
            acknowledged.extend([(mine, true), (fresh, false)]);
        }
        other.kill();
        let store = SqliteStore::open(disk.path().join("keys.db"))
            .await
            .unwrap();
        for (name, is_revoked) in acknowledged {
            let stored = get(&store, &name).await;
            assert!(!is_revoked || stored.revoked.is_some(), "{name}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_write_leaves_a_usable_connection() {
    let home = SqliteHome::new();
    let store = with_a(&home).await;
    for number in 0_u32..150 {
        let given_up = batch([insert(digest(100 + number), record(&format!("b{number}")))]);
        let limit = Duration::from_micros(u64::from(number) * 20);
        let _ = tokio::time::timeout(limit, store.apply(&given_up)).await;
        let many: Vec<_> = (0..9)
            .map(|more| digest(9_000 + more))
            .chain([digest(1)])
            .collect();
        let _ = tokio::time::timeout(limit, store.find(&many)).await;
        if number % 10 == 0 {
            let current = get(&store, "a").await;
            let version = current.version + 1;
            store
                .apply(&WriteBatch::new().update(current))
                .await
                .unwrap();
            for _ in 0..8 {
                let key = store.find(&many).await.unwrap().unwrap();
                assert_eq!(key.record().version, version, "an old snapshot");
            }
        }
    }
}

// ---- what cannot be opened ----

async fn refusal(path: &Path) -> String {
    SqliteStore::open(path).await.unwrap_err().to_string()
}

#[tokio::test]
async fn the_operating_systems_reason_is_reported() {
    let home = SqliteHome::new();
    let folder = home.path().parent().unwrap().to_owned();
    let error = refusal(&folder.join("missing/keys.db")).await;
    assert!(error.contains("No such file or directory"), "{error}");
    let error = refusal(&folder).await;
    assert!(error.contains("Is a directory"), "{error}");
    fs::write(folder.join("text"), "text").unwrap();
    let error = refusal(&folder.join("text/keys.db")).await;
    assert!(error.contains("Not a directory"), "{error}");
    let options = SqliteConnectOptions::new().filename(folder.join("keys.db"));
    let error = SqliteStore::open_with(options)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("No such file or directory"), "{error}");
    let left = fs::read_dir(&folder).unwrap().count();
    assert_eq!(left, 1, "nothing is left except the text");
}

/// Not a test: opens a file as another user.
#[tokio::test]
async fn a_process_that_opens_a_file() {
    if let Ok(path) = std::env::var("PORTUNUS_SQLX_FILE_TO_OPEN") {
        let error = SqliteStore::open(path)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string());
        std::io::stderr()
            .write_all(format!("opened {error:?}\n").as_bytes())
            .unwrap();
    }
}

/// The error for a user without any permissions.
fn opened_by_nobody(path: &Path) -> String {
    // Where only its owner may read the file, the same applies to the program.
    let program = path.parent().unwrap().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(AS_NOBODY).arg(&program);
        command
    } else {
        Command::new(&program)
    };
    let output = command
        .args([
            "--exact",
            "sqlite_disk::a_process_that_opens_a_file",
            "--nocapture",
        ])
        .env("PORTUNUS_SQLX_FILE_TO_OPEN", path)
        .output()
        .expect("setpriv of the package util-linux");
    let output = String::from_utf8(output.stderr).unwrap();
    let error = output.lines().find_map(|line| line.strip_prefix("opened "));
    error.unwrap_or_else(|| panic!("{output}")).to_owned()
}

#[tokio::test]
async fn a_foreign_or_read_only_file_is_rejected_with_the_cause() {
    use std::os::unix::fs::PermissionsExt;
    let home = SqliteHome::new();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = home.path().parent().unwrap().to_owned();
    home.close(with_a(&home).await).await;
    // In a world-writable folder, where SQLite could create its other files.
    mode(&folder, 0o777);
    for (rights, what) in [(0o000, "another user's"), (0o444, "read-only")] {
        mode(&home.path(), rights);
        let error = opened_by_nobody(&home.path());
        assert!(error.contains("Permission denied"), "{what}: {error}");
    }
    // A folder in which nothing may be created.
    mode(&folder, 0o555);
    let error = opened_by_nobody(&folder.join("new.db"));
    assert!(error.contains("Permission denied"), "{error}");
    mode(&folder, 0o755);
}

#[tokio::test]
async fn a_full_disk_at_startup_is_reported() {
    let Some(disk) = Disk::mounted(256) else {
        return;
    };
    disk.fill(std::process::id());
    let error = refusal(&disk.path().join("keys.db")).await;
    assert!(error.contains("No space left on device"), "{error}");
}

#[tokio::test]
async fn a_file_that_another_process_locks_is_reported_after_a_while() {
    let home = SqliteHome::new();
    let mut other = home.connection().await;
    sqlx::raw_sql("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; CREATE TABLE t (x)")
        .execute(&mut other)
        .await
        .unwrap();
    let options = SqliteConnectOptions::new()
        .filename(home.path())
        .busy_timeout(Duration::from_millis(50));
    let error = SqliteStore::open_with(options.clone()).await.unwrap_err();
    assert!(matches!(error, OpenError::Schema { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("another process holds it"), "{error}");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    let store = SqliteStore::open_with(options).await.unwrap();
    assert!(store.find(&[digest(1)]).await.unwrap().is_none());
}

/// It will contain signing states: also if SQLite finds it by a link or by a URI.
#[cfg(unix)]
#[tokio::test]
async fn a_file_is_created_for_its_owner_only_however_it_is_named() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    symlink("target.db", at.join("link.db")).unwrap();
    symlink(at.join("link to.db"), at.join("far.db")).unwrap();
    symlink("far target.db", at.join("link to.db")).unwrap();
    symlink("none/target.db", at.join("broken.db")).unwrap();
    let uri = |rest: &str| format!("file:{}/{rest}", at.display());
    for (name, made) in [
        ("plain ?#%41.db".to_owned(), "plain ?#%41.db"),
        ("link.db".to_owned(), "target.db"),
        ("far.db".to_owned(), "far target.db"),
        (uri("uri.db"), "uri.db"),
        (uri("a%41%3f%zz.db?cache=private"), "aA?%zz.db"),
        (uri("b.db?mode=rwc#fragment"), "b.db"),
        (format!("file://localhost{}/c.db", at.display()), "c.db"),
    ] {
        let path = at.join(&name);
        let path = if name.starts_with("file:") {
            name.clone().into()
        } else {
            path
        };
        let store = SqliteStore::open(path).await.unwrap();
        for ending in ["", "-wal", "-shm"] {
            let file = at.join(format!("{made}{ending}"));
            let mode = fs::metadata(&file).map(|about| about.permissions().mode() & 0o777);
            assert_eq!(mode.unwrap(), 0o600, "{name}: {file:?}");
        }
        store.close().await;
    }
    let count = || fs::read_dir(at).unwrap().count();
    let before = count();
    for none in [
        at.join(std::ffi::OsStr::from_bytes(b"no\xfftext.db")),
        at.join("broken.db"),
        uri("none.db?mode=ro").into(),
        uri("none.db?mode=rw").into(),
        uri("none/none.db").into(),
    ] {
        assert!(SqliteStore::open(&none).await.is_err(), "{none:?}");
        assert_eq!(count(), before, "{none:?} left something");
    }
}

#[tokio::test]
async fn a_database_in_memory_is_refused() {
    let names = [
        ":memory:",
        "",
        "file::memory:",
        "file::memory:?cache=shared",
        "file:keys?mode=memory",
        "file:keys?mode=memory&cache=shared",
    ];
    for name in names {
        let error = SqliteStore::open(name).await.unwrap_err();
        assert!(matches!(error, OpenError::InMemory), "{name}: {error:?}");
        assert!(error.to_string().contains("memory"), "{error}");
    }
    let addresses = [
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite:keys?mode=memory",
    ];
    let options = addresses.map(|address| address.parse().unwrap());
    let more = [
        SqliteConnectOptions::new(),
        SqliteConnectOptions::new().filename("keys").in_memory(true),
        SqliteConnectOptions::new()
            .filename("keys")
            .in_memory(true)
            .shared_cache(true),
    ];
    for options in options.into_iter().chain(more) {
        let error = SqliteStore::open_with(options).await.unwrap_err();
        assert!(matches!(error, OpenError::InMemory), "{error:?}");
    }
    assert!(!Path::new("keys").exists(), "no file was made");
    let home = SqliteHome::new();
    assert_eq!(found(&with_a(&home).await, digest(1)).await, Some(id("a")));
}
