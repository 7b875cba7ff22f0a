//! SQLite on a disk where the log can grow but the file cannot, and on one that is read-only for a
//! while: acknowledged writes are kept, reads continue, and everything works again soon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::get;
use crate::sqlite_disk::Other;
use portunus::store::KeyStore;
use portunus_sqlx::SqliteStore;
use portunus_test_support::disk::Disk;
use sqlx::{Connection, Row, SqliteConnection};

/// The size of the log after which SQLite writes it back to the file.
const CHECKPOINT: u64 = 1_000 * 4_096;
/// The time within which everything works again: a connection would wait five seconds for a lock.
const BACK: Duration = Duration::from_secs(4);

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn a_failed_checkpoint_loses_nothing_and_is_retried() {
    let disk = Disk::limited();
    let mut other = Other::on(&disk);
    let (file, log) = (disk.path().join("keys.db"), disk.path().join("keys.db-wal"));
    assert_eq!(other.tell("issue", "first"), "done");
    let mut bulks = 0;
    while size(&file) < CHECKPOINT * 3 / 2 {
        assert_eq!(other.tell("bulk", &format!("bulk{bulks}-")), "done");
        bulks += 1;
        assert!(bulks < 20);
    }
    // The log may become as large as the file.
    let before = size(&file);
    disk.limit_files(other.pid(), before);
    let issued = other.issue_until_full(0);
    assert!(issued.len() > 20, "{}", issued.len());
    assert_eq!(size(&file), before, "no checkpoint succeeded");
    let logged = size(&log);
    assert!(logged > CHECKPOINT, "{logged}: none was due");
    for name in issued.iter().step_by(10) {
        assert_eq!(other.tell("find", name), "working");
    }
    assert_ne!(other.tell("revoke", &issued[0]), "done");
    disk.free_space(other.pid());
    let room = Instant::now();
    assert_eq!(other.tell("revoke", &issued[0]), "done");
    assert_eq!(other.tell("find", &issued[0]), "revoked");
    assert_eq!(other.tell("issue", "fresh"), "done");
    assert!(room.elapsed() < BACK, "{:?}", room.elapsed());
    assert!(size(&file) > before, "the checkpoint was retried");
    // In the middle of the next failing one.
    disk.limit_files(other.pid(), size(&file));
    let more = other.issue_until_full(1);
    assert!(more.len() > 20, "{}", more.len());
    other.kill();

    let store = SqliteStore::open(&file).await.unwrap();
    for name in issued.iter().chain(&more).map(String::as_str) {
        let is_revoked = get(&store, name).await.revoked.is_some();
        assert_eq!(is_revoked, name == issued[0], "{name}");
    }
    get(&store, "fresh").await;
    get(&store, "bulk0-0").await;
    store.close().await;
    let mut raw = SqliteConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    let checked = sqlx::query("PRAGMA integrity_check").fetch_one(&mut raw);
    assert_eq!(checked.await.unwrap().get::<String, _>(0), "ok");
}

/// A file system that becomes read-only does not prevent reads of open files. Connections opened
/// meanwhile remain read-only afterwards.
#[tokio::test]
async fn a_file_that_was_read_only_for_a_while_becomes_writable_again() {
    let disk = Disk::limited();
    let mut other = Other::of_nobody(&disk);
    assert_eq!(other.tell("issue", "mine"), "done");
    let mode = |folder, files| {
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
            set(&disk.path().join(name), files);
        }
        set(disk.path(), folder);
    };
    for round in 0..3 {
        mode(0o555, 0o444);
        // Every connection that writes fails, and is replaced.
        disk.limit_files(other.pid(), 0);
        for number in 0..6 {
            let name = format!("refused{round}-{number}");
            assert_ne!(other.tell("issue", &name), "done");
            assert_eq!(other.tell("find", "mine"), "working");
        }
        disk.free_space(other.pid());
        for number in 0..6 {
            for what in ["issue", "revoke", "use"] {
                let name = match what {
                    "issue" => format!("refused{round}-{number}"),
                    _ => "mine".to_owned(),
                };
                let answer = other.tell(what, &name);
                assert!(answer.starts_with("failed"), "{what}: {answer}");
            }
            assert_eq!(other.tell("find", "mine"), "working");
        }
        mode(0o755, 0o644);
        let back = Instant::now();
        let fresh = format!("fresh{round}");
        assert_eq!(other.tell("issue", &fresh), "done");
        assert_eq!(other.tell("use", &fresh), "done");
        assert_eq!(other.tell("revoke", &fresh), "done");
        for _ in 0..8 {
            assert_eq!(other.tell("find", &fresh), "revoked");
            assert_eq!(other.tell("find", "mine"), "working");
        }
        assert!(back.elapsed() < BACK, "{:?}", back.elapsed());
    }
    other.kill();
    let store = SqliteStore::open(disk.path().join("keys.db"))
        .await
        .unwrap();
    for round in 0..3 {
        assert!(
            get(&store, &format!("fresh{round}"))
                .await
                .revoked
                .is_some()
        );
    }
    let refused = portunus::key::KeyId::new("refused0-0").unwrap();
    assert!(store.get(&refused).await.unwrap().is_none());
}
