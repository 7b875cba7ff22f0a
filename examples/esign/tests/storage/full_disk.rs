//! A server whose disk is full for some time: reads continue, acknowledged writes are not lost, and
//! it reports what it could not write.

use std::time::{Duration, Instant};

use portunus_test_support::disk::Disk;
use serde_json::{Value, json};

use crate::common::manage::{change, events, items, rotate};
use crate::common::stores::assert_refused_to_start;
use crate::common::{Call, Ended, Issued, Process, Server, until};

const FLAGS: [&str; 3] = ["--ready-json", "--store", "sqlite:keys.db"];

fn on(disk: &Disk) -> Server {
    Server::ready("allsign", Process::start_on_disk(disk, &FLAGS))
}

fn status(server: &Server, issued: &Issued) -> u16 {
    server.get("/whoami", &issued.key).status
}

/// A key without a practical rate limit.
fn plenty(server: &Server) -> Issued {
    let limits = json!({ "requests_per_minute": 1_000_000, "requests_per_hour": 1_000_000 });
    server.issue(json!({ "rate_limit_config": limits }))
}

/// Issues keys until one is refused, and returns the acknowledged ones.
fn issue_until_full(server: &Server) -> Vec<Issued> {
    let body = json!({ "name": "a key", "description": "x".repeat(400) });
    let mut issued = Vec::new();
    loop {
        let answer = server.admin("owner", Call::post("/keys").json(&body));
        match answer.status {
            201 => {
                let answer: Value = answer.json();
                issued.push(Issued {
                    key: answer["key"].as_str().unwrap().to_owned(),
                    record: answer["record"].clone(),
                });
            }
            503 => return issued,
            status => panic!("{status}: {}", answer.text()),
        }
    }
}

/// Returns the one line that reports the loss.
fn numbers(ended: &Ended) -> Vec<u64> {
    let told = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("esign: "));
    let [line] = told.collect::<Vec<_>>()[..] else {
        panic!("not one line: {ended:?}");
    };
    line.split(' ')
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn while_the_disk_is_full_reads_continue_and_afterwards_writes_do() {
    for disk in Disk::all(6 << 10) {
        let server = on(&disk);
        let mut working = vec![plenty(&server)];
        let mut revoked: Vec<Issued> = Vec::new();
        for _ in 0..2 {
            let victim = plenty(&server);
            disk.fill(server.pid());
            working.extend(issue_until_full(&server));
            let id = victim.id().to_owned();
            for _ in 0..5 {
                assert_eq!(status(&server, &working[0]), 200);
                for read in [
                    "/keys",
                    &format!("/keys/{id}"),
                    &format!("/keys/{id}/usage"),
                ] {
                    let answer = server.admin("owner", Call::get(read));
                    assert_eq!(answer.status, 200, "{read}: {}", answer.text());
                }
                let revoke = server.revoke(&id).status;
                assert!(matches!(revoke, 200 | 503), "{revoke}");
                if revoke == 200 {
                    assert_eq!(status(&server, &victim), 401, "it was acknowledged");
                }
            }
            let unknown = server.get("/whoami", &"a".repeat(60)).status;
            assert_eq!(unknown, 401);

            disk.free_space(server.pid());
            let room = Instant::now();
            assert_eq!(server.revoke(&id).status, 200);
            assert_eq!(status(&server, &victim), 401);
            let fresh = plenty(&server);
            assert_eq!(status(&server, &fresh), 200);
            change(&server, fresh.id(), &json!({ "name": "another name" }));
            assert_eq!(rotate(&server, fresh.id(), &json!({})).status, 201);
            assert!(
                room.elapsed() < Duration::from_secs(4),
                "{:?}",
                room.elapsed()
            );
            revoked.extend([victim, fresh]);
        }
        until("what was noted is written", || {
            let query = format!("?key_id={}&limit=1", revoked[0].id());
            !items(&events(&server, "owner", &query)).is_empty()
        });
        let ended = server.stop();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let server = on(&disk);
        for issued in &working {
            assert_eq!(status(&server, issued), 200);
        }
        for issued in &revoked {
            assert_eq!(status(&server, issued), 401);
        }
    }
}

#[test]
fn when_stopped_on_a_full_disk_it_reports_what_is_lost() {
    for disk in Disk::all(4 << 10) {
        let server = on(&disk);
        let issued = plenty(&server);
        disk.fill(server.pid());
        issue_until_full(&server);
        // The remaining space is used up by usage counts.
        until("nothing can be written", || {
            assert_eq!(status(&server, &issued), 200);
            server.log().contains("write the events of audit sink 1")
        });
        let log = server.log();
        assert!(
            log.contains("disk is full") || log.contains("disk I/O error"),
            "with the cause: {log}"
        );
        let pid = server.pid();
        assert_eq!(status(&server, &issued), 200);
        let ended = server.stop();
        assert_eq!(ended.code, Some(3), "{pid}: {ended:?}");
        let lost = numbers(&ended);
        assert!(matches!(lost[..], [events, _] if events > 0), "{lost:?}");
    }
}

#[test]
fn a_disk_that_is_full_at_the_start_is_one_line_with_its_cause() {
    let Some(disk) = Disk::mounted(256) else {
        return;
    };
    disk.fill(std::process::id());
    let line = assert_refused_to_start(&Process::start_on_disk(&disk, &FLAGS).wait());
    assert!(line.contains("No space left on device"), "{line}");
    assert!(line.contains("keys.db"), "{line}");
}
