//! `doctor` on installations with and without problems.

use std::time::{Duration, SystemTime};

use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditSink};
use portunus::key::KeyId;
use portunus_sqlx::SqliteStore;
use portunus_test_support::pgbouncer::PgBouncer;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::redis::{Cluster, Redis, Sentinels};
use serde_json::Value;

use crate::common::{Place, Server, TOKEN, text};

/// The status and the text of a check.
fn check(place: &Place, more: &[&str], name: &str) -> (String, String) {
    let run = place.run(&[&["doctor", "--json"], more].concat());
    let checks: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run:?}"));
    let checks = checks.as_array().unwrap();
    let found = checks.iter().find(|it| it["check"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name}: {run:?}"));
    let is_bad = |it: &Value| matches!(it["status"].as_str(), Some("failed" | "warning"));
    assert_eq!(
        run.code,
        if checks.iter().any(is_bad) { 8 } else { 0 },
        "{run:?}"
    );
    // What is wrong, also how to fix it.
    assert!(
        checks.iter().all(|it| is_bad(it) == it["fix"].is_string()),
        "{run:?}"
    );
    (text(&found["status"]), text(&found["detail"]))
}

#[test]
fn a_healthy_file_passes() {
    let place = Place::sqlite();
    place.issue("first", &[]);
    let table = place.done(&["doctor", "--service", "service.toml"]);
    assert!(
        table.contains("schema") && table.contains("agrees with keys"),
        "{table}"
    );
}

#[test]
fn a_healthy_server_passes_and_a_pooler_is_reported() {
    let server = Postgres::start();
    let place = Place::at(&server.database("keys"));
    place.done(&["migrate"]);
    let table = place.done(&["doctor"]);
    for part in [
        "notifications of the database arrive",
        "the server's clock",
        "no pooler",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let pooler = PgBouncer::before(&server);
    let pooled = Place::at(&pooler.address("keys"));
    let (status, detail) = check(&pooled, &[], "pooler");
    assert_eq!(status, "warning", "{detail}");
    assert_eq!(check(&pooled, &[], "bus").0, "skipped");
    let direct = server.address("keys");
    assert_eq!(check(&pooled, &["--bus", &direct], "bus").0, "ok");
    let through = pooler.address("keys");
    assert_eq!(check(&pooled, &["--bus", &through], "bus").0, "failed");
    // The commands work through it.
    let (_, record) = pooled.issue("first", &[]);
    assert_eq!(pooled.json(&["keys", "list"])[0]["id"], record["id"]);
}

#[test]
fn a_role_that_may_not_write_is_reported() {
    let server = Postgres::start();
    let place = Place::at(&server.database("keys"));
    place.done(&["migrate"]);
    server.sql("keys", "CREATE ROLE reader LOGIN");
    server.sql(
        "keys",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    );
    let reader = Place::at(&server.address_for("reader", "keys"));
    assert_eq!(reader.json(&["keys", "list"]), serde_json::json!([]));
    let (status, detail) = check(&reader, &[], "writing");
    assert!(status == "failed" && detail.contains("denied"), "{detail}");
    let issue = [
        "keys",
        "issue",
        "x",
        "--tenant",
        "t",
        "--service",
        "service.toml",
    ];
    reader.run(&issue).failed(6, "");
}

#[test]
fn a_limiter_that_may_forget_is_reported() {
    let place = Place::sqlite();
    let good = Redis::start();
    let (status, detail) = check(&place, &["--limiter", &good.address()], "limiter");
    assert_eq!(status, "ok", "{detail}");
    let evicting = Redis::with(&["--maxmemory-policy", "allkeys-lru", "--maxmemory", "50mb"]);
    let (status, detail) = check(&place, &["--limiter", &evicting.address()], "limiter");
    assert!(
        status == "warning" && detail.contains("allkeys-lru"),
        "{detail}"
    );
    good.crash();
    assert_eq!(
        check(&place, &["--limiter", &good.address()], "limiter").0,
        "failed"
    );
}

#[test]
fn limiters_of_sentinels_and_of_a_cluster_are_checked() {
    let place = Place::sqlite();
    let sentinels = Sentinels::start();
    let named = format!("sentinel:redis://{}", Sentinels::NAME);
    let addresses = [vec![named], sentinels.addresses()].concat().join(",");
    let cluster = Cluster::start();
    let nodes = format!("cluster:{}", cluster.addresses().join(","));
    for servers in [&addresses, &nodes] {
        for part in ["limiter", "bus"] {
            let flag = format!("--{part}");
            let (status, detail) = check(&place, &[&flag, servers], part);
            assert_eq!(status, "ok", "{servers}: {detail}");
        }
    }
    // A single server is not what was described, and no flag takes a password.
    let alone = Redis::start();
    let wrong = format!("cluster:{}", alone.address());
    assert_eq!(check(&place, &["--limiter", &wrong], "limiter").0, "failed");
    for secret in [
        "cluster:redis://u:hunter2@h,redis://i",
        "sentinel:redis://main,redis://:hunter2@h",
    ] {
        let run = place.run(&["doctor", "--limiter", secret]);
        run.failed(2, "");
        assert!(!run.err.contains("hunter2"), "{run:?}");
    }
}

#[test]
fn use_that_was_never_written_is_reported() {
    let place = Place::sqlite();
    let (_, record) = place.issue("first", &[]);
    let id = text(&record["id"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(place.file()).await.unwrap();
        let at = SystemTime::now() - Duration::from_secs(600);
        let number = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let mut event = AuditEvent::new(number, at, Action::Request, AuditOutcome::Ok);
        event.key_id = Some(KeyId::new(&id).unwrap());
        event.tenant_id = Some("acme".parse().unwrap());
        store.audit().record(&[event]).await.unwrap();
    });
    let server = Server::on(&place.file());
    for place in [&place, &Place::over_http(&server)] {
        let (status, detail) = check(place, &[], "usage");
        assert!(status == "failed" && detail.contains(&id), "{detail}");
    }
}

#[test]
fn changes_that_no_bus_took_are_reported() {
    let place = Place::sqlite();
    let (_, record) = place.issue("first", &[]);
    let id = text(&record["id"]);
    assert_eq!(check(&place, &[], "changes").0, "ok");
    // Without a description, the service may have another bus: the change is recorded.
    place.done(&["keys", "revoke", &id, "--yes"]);
    assert_eq!(check(&place, &[], "changes").0, "warning");
    assert_eq!(
        check(&place, &["--service", "service.toml"], "changes").0,
        "ok"
    );
}

#[test]
fn a_description_of_another_service_is_reported() {
    let place = Place::sqlite();
    place.issue("first", &[]);
    std::fs::write(place.path("other.toml"), "[format]\nprefix = \"other_\"\n").unwrap();
    assert_eq!(
        check(&place, &["--service", "other.toml"], "description").0,
        "warning"
    );
    assert_eq!(
        check(&place, &["--service", "service.toml"], "description").0,
        "ok"
    );
}

#[test]
fn a_management_api_is_checked() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    let http = Place::over_http(&server);
    let table = http.done(&["doctor"]);
    assert!(table.contains("the management API answers"), "{table}");
    let wrong = Place::at(&server.address).with("PORTUNUS_TOKEN", "wrong");
    let (status, detail) = check(&wrong, &[], "operator");
    assert!(
        status == "failed" && detail.contains("INVALID_KEY"),
        "{detail}"
    );
    drop(server);
    let gone = http.run(&["doctor"]);
    gone.failed(8, "found a problem");
    assert!(!gone.out.contains(TOKEN), "{gone:?}");
}
