//! Nodes behind a PgBouncer in transaction mode, with a bus that bypasses it.

use std::time::{Duration, Instant};

use crate::common::nodes::{BOUND, accepted, ask, may_read, node_with, revoked, said, took_until};
use crate::common::stores::assert_refused_to_start;
use crate::common::{Call, Issued, Process, Server, at_once};
use portunus_test_support::pgbouncer::PgBouncer;
use portunus_test_support::postgres::{Postgres, free_port};
use serde_json::json;

/// How many clients work concurrently, and how often each does everything.
const CLIENTS: usize = 8;
const ROUNDS: usize = 12;

/// Sends a management call that must succeed, and returns when it was acknowledged.
#[track_caller]
fn call(node: &Server, status: u16, call: Call) -> (serde_json::Value, Instant) {
    let what = format!("{} {}", call.method, call.target);
    let answer = node.admin("owner", call);
    let acknowledged = Instant::now();
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    (answer.json(), acknowledged)
}

#[test]
fn two_nodes_behind_a_pooler_work_under_load_without_a_single_failure() {
    let postgres = Postgres::start();
    let direct = postgres.database("keys");
    let pooler = PgBouncer::before(&postgres);
    let address = pooler.address("keys");
    let start = |_| node_with(&address, &["--bus", &direct]);
    let nodes = [0, 1].map(start);
    nodes[0].issue(may_read());
    let work = |number: usize| {
        let mut waits = Vec::new();
        for round in 0..ROUNDS {
            let (here, there) = (
                &nodes[(number + round) % 2],
                &nodes[(number + round + 1) % 2],
            );
            let (issued, _) = call(here, 201, Call::post("/keys").json(&may_read()));
            let issued = Issued {
                key: issued["key"].as_str().unwrap().to_owned(),
                record: issued["record"].clone(),
            };
            for node in [there, here, there] {
                assert_eq!(ask(node, &issued.key), accepted());
            }
            let rotate = Call::post(&format!("/keys/{}/rotate", issued.id()));
            let rotate = rotate.json(&json!({ "grace_seconds": 0 }));
            let (successor, at) = call(there, 201, rotate);
            let key = successor["key"].as_str().unwrap();
            for node in [here, there, here] {
                assert_eq!(ask(node, key), accepted());
            }
            waits.push(took_until(here, &issued.key, &accepted(), &revoked(), at).first_new);
            let id = successor["record"]["id"].as_str().unwrap();
            let (_, at) = call(here, 200, Call::post(&format!("/keys/{id}/revoke")));
            assert_eq!(ask(here, key), revoked(), "at once where it was done");
            waits.push(took_until(there, key, &accepted(), &revoked(), at).first_new);
            call(there, 200, Call::get("/keys?limit=5"));
            call(here, 200, Call::get("/events?limit=5"));
            let unknown = format!("isk_{:044}", number * 1_000 + round);
            assert_eq!(ask(there, &unknown), said(401, "INVALID_KEY"));
        }
        waits
    };
    let mut waits = at_once(CLIENTS, work).concat();
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    println!(
        "behind PgBouncer, {} keys were refused on the other node after {:?} (p50), {:?} (p99), \
         {:?} (max)",
        waits.len(),
        at(50),
        at(99),
        at(100)
    );
    assert!(at(100) <= BOUND);
    for node in nodes {
        let ended = node.stop();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    }
}

fn refused(flags: &[&str]) -> String {
    let flags = [&["--ready-json"], flags].concat();
    assert_refused_to_start(&Process::start(&flags, &[]).wait())
}

#[test]
fn a_start_that_needs_another_bus_is_refused_and_names_the_flag() {
    let postgres = Postgres::start();
    let (direct, other) = (postgres.database("keys"), postgres.database("other"));
    for more in ["", "ignore_startup_parameters = extra_float_digits"] {
        let pooler = PgBouncer::with(&postgres, more);
        let store = pooler.address("keys");
        let began = Instant::now();
        for flags in [
            &["--store", &store][..],
            // The same address with another scheme is not a different address.
            &[
                "--store",
                &store,
                "--bus",
                &store.replace("postgres:", "postgresql:"),
            ],
        ] {
            let line = refused(flags);
            assert!(line.contains("--bus") && line.contains("pooler"), "{line}");
        }
        // Addresses that are unreachable, of another database, and of the pooler by another name.
        let closed = format!(
            "postgres://tester@127.0.0.1:{}/keys?sslmode=disable",
            free_port()
        );
        let by_name = store.replace("127.0.0.1", "localhost");
        for (bus, told) in [
            (&closed, "Connection refused"),
            (&other, "received nothing"),
            (&by_name, ""),
        ] {
            let line = refused(&["--store", &store, "--bus", bus]);
            assert!(
                line.contains("--bus") && line.contains(told),
                "{bus}: {line}"
            );
        }
        let server = Server::start_on(&store, "allsign", &["--bus", &direct], &[]);
        server.assert_alive();
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{:?}",
            began.elapsed()
        );
    }
    // Without a pooler, the flag is harmless.
    for bus in [
        &direct,
        &direct.replace("postgres:", "postgresql:"),
        &format!("{direct}&application_name=bus"),
    ] {
        Server::start_on(&direct, "allsign", &["--bus", bus], &[]).assert_alive();
    }
    for store in ["memory", "sqlite:keys.db"] {
        let line = refused(&["--store", store, "--bus", &direct]);
        assert!(line.contains("--bus"), "{line}");
    }
}

#[test]
fn an_address_that_cannot_be_parsed_is_not_shown() {
    for address in [
        "postgres:/user:hunter2@host/db",
        "postgresql//user:hunter2@host/db",
        "postgres//user:hunter2@host/db",
        "postgres;//user:hunter2@host/db",
        "pg://user:hunter2@host/db",
        "Postgres://user:hunter2@host/db",
        "postgres:user:hunter2",
        "postgres://host/db?password=hunter2&port=x",
        "user:hunter2@host",
        " postgres://user:hunter2@host/db",
        "postgres://user:hunter2@host:port/db",
        "postgres://user:hunter2@host:99999/db",
        "postgres://user:hunter2%ff@host/db",
        "postgres://user:hunter2%zz#@host:x/db",
        "postgres://user:pass@hunter2@[host/db",
        "postgres://user:hunter2/x@host/db",
        "postgres://user@host/db?sslmode=hunter2",
        "postgres://user:12?sslmode=hunter2@host/db",
    ] {
        let good = "postgres://tester@127.0.0.1:1/keys?sslmode=disable";
        let joined =
            ["--store", "--bus", "--listen", "--profile"].map(|flag| format!("{flag}={address}"));
        let unknown = format!("--stroe={address}");
        for flags in [
            &["--store", address][..],
            &["--store", good, "--bus", address],
            &[&joined[0]],
            &["--store", good, &joined[1]],
            &[&joined[2]],
            &[&joined[3]],
            &[&unknown],
            &[address],
            &["--stroe", address],
        ] {
            // A value that is refused for another reason is shown.
            let line = refused(flags);
            let is_told = ["hunter2", "user:", "pass@"]
                .iter()
                .any(|part| line.contains(part));
            assert!(!is_told, "{flags:?}: {line}");
        }
    }
}
