//! Acknowledged writes survive any crash, and no operation is left half done: the process or the
//! database is repeatedly killed with `kill -9` during revocations and rotations.
//!
//! Ten rounds of each; `scripts/measure crashes` runs a hundred, by setting `ESIGN_CRASH_ROUNDS`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::manage::list;
use crate::common::{Answer, Call, Issued, Server, USER};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::wait::spin_until;
use serde_json::{Value, json};

/// How many keys are revoked or rotated concurrently in each round.
const AT_ONCE: usize = 6;

fn rounds() -> usize {
    std::env::var("ESIGN_CRASH_ROUNDS").map_or(10, |text| text.parse().unwrap())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Revoke,
    Rotate,
}

/// The process that is killed.
trait Victim {
    /// The server that receives the requests.
    fn server(&self) -> &Server;
    /// Kills it.
    fn crash(&mut self);
    /// Restarts it.
    fn resume(&mut self);
}

/// Every client has its own address, so that none is limited for too many failures.
const FLAGS: [&str; 2] = ["--trusted-proxy", "127.0.0.1/32"];

/// A server process on a SQLite file.
struct OnSqlite {
    store: String,
    server: Option<Server>,
}

impl OnSqlite {
    fn start(folder: &tempfile::TempDir) -> Self {
        let store = format!("sqlite:{}", folder.path().join("keys.db").display());
        let server = Some(Server::start_on(&store, "allsign", &FLAGS, &[]));
        Self { store, server }
    }
}

impl Victim for OnSqlite {
    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn crash(&mut self) {
        self.server.take().unwrap().kill();
    }

    fn resume(&mut self) {
        self.server = Some(Server::start_on(&self.store, "allsign", &FLAGS, &[]));
    }
}

/// A database server, with a server process that keeps running.
struct OnPostgres {
    postgres: Postgres,
    server: Server,
}

impl OnPostgres {
    fn start() -> Self {
        let postgres = Postgres::start();
        let server = Server::start_on(&postgres.database("keys"), "allsign", &FLAGS, &[]);
        Self { postgres, server }
    }
}

impl Victim for OnPostgres {
    fn server(&self) -> &Server {
        &self.server
    }

    fn crash(&mut self) {
        self.postgres.crash();
    }

    fn resume(&mut self) {
        self.postgres.start_again();
        crate::common::until("it recovers", || {
            self.server
                .admin("owner", Call::get("/keys?limit=1"))
                .status
                == 200
        });
    }
}

/// Returns the response to a call, if it is complete.
fn ask(address: SocketAddr, call: &Call) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(crate::common::PATIENCE))
        .ok()?;
    stream.write_all(&call.bytes()).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    crate::common::read_answer(&answer, false).map(|(answer, _)| answer)
}

/// The result for one key.
struct Tried {
    issued: Issued,
    /// The response, if the operation was acknowledged.
    done: Option<Value>,
}

/// Returns the response to a key, requested from a new client address.
fn status(server: &Server, key: &str) -> u16 {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let from = format!(
        "10.{}.{}.{}",
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255
    );
    server
        .send(
            &Call::get("/whoami")
                .bearer(key)
                .field("X-Forwarded-For", from),
        )
        .status
}

/// One round: an operation on each of several keys concurrently, and a crash and a restart as soon
/// as some are acknowledged, or slightly later. Also returns whether some were not acknowledged by
/// then.
fn round(victim: &mut impl Victim, act: Act, number: usize) -> (Vec<Tried>, bool) {
    let owner = json!({ "user_id": USER });
    let keys: Vec<_> = (0..=AT_ONCE)
        .map(|_| {
            victim
                .server()
                .issue(json!({ "name": format!("round {number}."), "owner": owner }))
        })
        .collect();
    let (address, token) = (victim.server().address, victim.server().operator("owner"));
    let (acknowledged, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let threads: Vec<_> = keys[..AT_ONCE]
            .iter()
            .map(|issued| {
                let (acknowledged, asked, token) = (&acknowledged, &asked, &token);
                scope.spawn(move || {
                    let call = match act {
                        Act::Revoke => Call::post(&format!("/admin/keys/{}/revoke", issued.id())),
                        Act::Rotate => Call::post(&format!("/admin/keys/{}/rotate", issued.id()))
                            .json(&json!({ "grace_seconds": 3600 })),
                    };
                    asked.fetch_add(1, Ordering::SeqCst);
                    let answer =
                        ask(address, &call.bearer(token)).filter(|answer| answer.status < 300);
                    acknowledged.fetch_add(usize::from(answer.is_some()), Ordering::SeqCst);
                    answer.map(|answer| answer.json())
                })
            })
            .collect();
        spin_until("some are acknowledged", || {
            asked.load(Ordering::SeqCst) == AT_ONCE
                && acknowledged.load(Ordering::SeqCst) >= number % AT_ONCE
        });
        // Not always directly after a response.
        thread::sleep(Duration::from_micros(number as u64 * 37 % 1500));
        victim.crash();
        let in_the_middle = acknowledged.load(Ordering::SeqCst) < AT_ONCE;
        // Some calls may still be waiting: they may yet succeed on the restarted database.
        victim.resume();
        let done = threads.into_iter().map(|thread| thread.join().unwrap());
        let tried = keys
            .iter()
            .cloned()
            .zip(done.chain([None]))
            .map(|(issued, done)| Tried { issued, done });
        (tried.collect(), in_the_middle)
    })
}

/// Returns the number of primary keys of the single owner, among the keys of all rounds.
fn primaries(server: &Server) -> usize {
    let (mut found, mut cursor) = (0, String::new());
    loop {
        let page = list(
            server,
            "owner",
            &format!("?limit=500&query=round&cursor={cursor}"),
        );
        let records = page["items"].as_array().unwrap().iter();
        found += records.filter(|record| record["primary"] == true).count();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return found,
        }
    }
}

/// Asserts that acknowledged operations are effective, and that all others are either complete or
/// absent.
fn check(server: &Server, act: Act, number: usize, tried: &[Tried]) {
    let page = list(
        server,
        "owner",
        &format!("?limit=500&query=round+{number}."),
    );
    let records = page["items"].as_array().unwrap();
    let record = |id: &Value| records.iter().find(|record| record["id"] == *id);
    assert_eq!(primaries(server), 1, "round {number}: {page}");
    for Tried { issued, done } in tried {
        let kept =
            record(&issued.record["id"]).unwrap_or_else(|| panic!("{} is gone", issued.id()));
        match (act, done) {
            (Act::Revoke, Some(_)) => {
                assert_eq!(
                    kept["status"], "revoked",
                    "an acknowledged revocation is lost: {kept}"
                );
                assert_eq!(status(server, &issued.key), 401);
            }
            (Act::Revoke, None) => match kept["status"].as_str() {
                Some("active") => assert_eq!(status(server, &issued.key), 200),
                // Completed without acknowledgment: it must be effective for every request.
                Some("revoked") => {
                    crate::common::until("it is refused", || status(server, &issued.key) == 401);
                }
                _ => panic!("{kept}"),
            },
            (Act::Rotate, done) => {
                if let Some(answer) = done {
                    assert_eq!(
                        kept["successor"], answer["record"]["id"],
                        "an acknowledged rotation is lost"
                    );
                    assert_eq!(status(server, answer["key"].as_str().unwrap()), 200);
                }
                assert_eq!(
                    status(server, &issued.key),
                    200,
                    "in its grace, or not rotated at all"
                );
                assert_eq!(
                    kept["successor"].is_null(),
                    kept["expires_at"].is_null(),
                    "half a rotation: {kept}"
                );
            }
        }
    }
    for kept in records {
        for (forth, back) in [("successor", "predecessor"), ("predecessor", "successor")] {
            if !kept[forth].is_null() {
                let other = record(&kept[forth])
                    .unwrap_or_else(|| panic!("half a rotation: no {forth} of {kept}"));
                assert_eq!(other[back], kept["id"], "half a rotation");
                assert_eq!(other["key_family"], kept["key_family"]);
            }
        }
    }
}

fn crash_again_and_again(victim: &mut impl Victim, act: Act) {
    let (began, mut all, mut in_the_middle) = (Instant::now(), Vec::new(), 0);
    for number in 0..rounds() {
        let (tried, some_were_not) = round(victim, act, number);
        check(victim.server(), act, number, &tried);
        in_the_middle += usize::from(some_were_not);
        all.extend(tried);
    }
    // Also after everything that followed.
    for Tried { issued, done } in &all {
        if let (Act::Revoke, Some(_)) = (act, done) {
            assert_eq!(status(victim.server(), &issued.key), 401);
        }
        if let (Act::Rotate, Some(answer)) = (act, done) {
            assert_eq!(
                status(victim.server(), answer["key"].as_str().unwrap()),
                200
            );
        }
    }
    let done = all.iter().filter(|tried| tried.done.is_some()).count();
    let (rounds, took) = (rounds(), began.elapsed());
    println!(
        "{act:?}: {rounds} kills, {in_the_middle} of them in the middle; {done} acknowledged; {took:?}"
    );
    assert!(
        in_the_middle * 4 > rounds,
        "the crashes came too late: {in_the_middle} of {rounds}"
    );
}

#[test]
fn a_killed_process_loses_no_acknowledged_revocation() {
    let folder = tempfile::tempdir().unwrap();
    crash_again_and_again(&mut OnSqlite::start(&folder), Act::Revoke);
}

#[test]
fn a_killed_process_leaves_no_rotation_half_done() {
    let folder = tempfile::tempdir().unwrap();
    crash_again_and_again(&mut OnSqlite::start(&folder), Act::Rotate);
}

#[test]
fn a_killed_database_loses_no_acknowledged_revocation() {
    crash_again_and_again(&mut OnPostgres::start(), Act::Revoke);
}

#[test]
fn a_killed_database_leaves_no_rotation_half_done() {
    crash_again_and_again(&mut OnPostgres::start(), Act::Rotate);
}
