//! Addresses of Redis that cannot be used: one clear line, never a password.

use crate::common::stores::assert_refused_to_start;
use crate::common::{Process, Server};
use portunus_test_support::postgres::{Postgres, free_port};
use portunus_test_support::redis::{Cluster, Redis};

fn refused(flags: &[&str]) -> String {
    let all = [&["--profile", "allsign", "--ready-json"][..], flags].concat();
    assert_refused_to_start(&Process::start(&all, &[]).wait())
}

#[test]
fn an_address_of_redis_that_is_invalid_is_not_shown() {
    for address in [
        "redis:/user:hunter2@host",
        "redis//user:hunter2@host",
        "redis:user:hunter2",
        "Redis://user:hunter2@host",
        "redis://user:hunter2@host:port",
        "redis://user:hunter2@host:99999",
        "redis://user:pass@hunter2@host",
        "redis://user:hunter2/x@host",
        "redis://user:hunter2@host/zero",
        "rediss://user:hunter2@host/0?x=1",
        "cluster:user:hunter2@host",
        "cluster:redis://user:hunter2@host:port",
        "cluster:redis://host,redis://user:hunter2@host:port",
        "cluster:redis://user:1,hunter2@host",
        "sentinel:redis://user:hunter2@main",
        "sentinel:redis://main,user:hunter2@host",
        "sentinel:redis://user:1,hunter2@main,redis://host",
        "http://user:hunter2@host",
        "user:hunter2@host",
        "hunter2",
        "",
    ] {
        let good = "postgres://tester@127.0.0.1:1/keys?sslmode=disable";
        let joined = ["--limiter", "--bus"].map(|flag| format!("{flag}={address}"));
        let unknown = format!("--limitter={address}");
        for flags in [
            &["--store", "memory", "--limiter", address][..],
            &["--store", "memory", &joined[0]],
            &["--store", good, "--bus", address],
            &["--store", good, &joined[1]],
            &["--store", "memory", &unknown],
        ] {
            let line = refused(flags);
            // A word alone is no address with a password.
            let shows = |part: &&str| line.contains(*part) && address.contains('@');
            let shown = ["hunter2", "user:", "pass@"]
                .iter()
                .find(|part| shows(part));
            assert_eq!(shown, None, "{flags:?}: {line}");
        }
        let line = refused(&["--store", "memory", "--limiter", address]);
        let says_what = line.contains("redis://") || line.contains("one Sentinel is needed");
        assert!(line.contains("--limiter") && says_what, "{line}");
    }
}

#[test]
fn a_redis_that_cannot_be_used_is_reported_at_start() {
    let postgres = Postgres::start();
    let store = postgres.database("keys");
    let closed = format!("redis://user:hunter2@127.0.0.1:{}", free_port());
    let locked = Redis::with(&["--requirepass", "right"]);
    let wrong = format!("redis://:hunter2@127.0.0.1:{}", locked.port());
    let cluster = Cluster::start();
    let port = locked.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]);
    for (address, told) in [
        (closed, "refused"),
        (wrong, "password"),
        (cluster.nodes[0].address(), "cluster"),
        (replica.address(), "replica"),
    ] {
        for flags in [
            &["--store", "memory", "--limiter", &address][..],
            &["--store", &store, "--bus", &address],
        ] {
            let line = refused(flags);
            assert!(line.contains(flags[2]) && line.contains(told), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
    }
    let good = Redis::start();
    for flags in [
        &["--bus", &good.address()][..],
        &["--store", "sqlite:keys.db", "--bus", &good.address()],
    ] {
        let line = refused(flags);
        assert!(line.contains("--bus requires --store postgres"), "{line}");
    }
    // A store in memory may count on Redis.
    let flags = ["--limiter", &good.address()];
    Server::start("allsign", &flags, &[]).assert_alive();
}
