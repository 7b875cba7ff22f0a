//! Audit events: lists, and new ones as they come.

use std::io::{BufRead, BufReader};

use portunus::audit::{AuditSink, ChainKey, JsonLines};
use portunus_test_support::wait::eventually;
use serde_json::{Value, json};

use crate::common::{Place, Running, Server, text};

#[test]
fn new_events_are_printed_once_and_in_order() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    for (name, place) in [("store", &place), ("http", &Place::over_http(&server))] {
        place.issue(&format!("old {name}"), &[]);
        let mut command = place.command(&["events", "tail", "--json", "--limit", "1"]);
        let mut running = Running(command.spawn().unwrap());
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let mut next =
            || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
        let old = next();
        assert_eq!(old["action"], "key.issue");
        let (_, record) = place.issue(&format!("new {name}"), &[]);
        let id = text(&record["id"]);
        let issued = next();
        assert_eq!(
            (&issued["action"], &issued["key_id"]),
            (&json!("key.issue"), &record["id"])
        );
        assert_ne!(issued["id"], old["id"]);
        place.done(&["keys", "rename", &id, "renamed"]);
        place.done(&["keys", "revoke", &id, "--yes"]);
        assert_eq!(next()["action"], "key.update");
        assert_eq!(next()["action"], "key.revoke");
    }
}

#[test]
fn following_ends_silently_with_its_reader() {
    let place = Place::sqlite();
    let mut running = Running(place.command(&["events", "tail"]).spawn().unwrap());
    drop(running.0.stdout.take());
    // The next event cannot be written.
    let ended = eventually(|| {
        place.issue("more", &[]);
        running.0.try_wait().unwrap()
    });
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[test]
fn following_survives_an_outage() {
    let place = Place::sqlite();
    place.issue("first", &[]);
    let server = Server::on(&place.file());
    let http = Place::over_http(&server);
    let mut command = http.command(&["events", "tail"]);
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("key.issue"));
    drop(server);
    let mut errors = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let line = errors.next().unwrap().unwrap();
    assert!(line.ends_with("trying again"), "{line}");
    assert!(running.0.try_wait().unwrap().is_none());
}

#[test]
fn events_are_listed_with_who_did_it() {
    let place = Place::sqlite();
    place.issue("first", &["--operator", "carol"]);
    let table = place.done(&["events", "list"]);
    assert!(
        table.starts_with("TIME") && table.contains("carol") && table.contains("key.issue"),
        "{table}"
    );
    assert_eq!(place.json(&["events", "list", "--actor", "ann"]), json!([]));
    assert_eq!(
        place.json(&["events", "list", "--tenant", "other"]),
        json!([])
    );
    place
        .run(&["events", "list", "--outcome", "odd"])
        .failed(2, "outcome");
}

#[test]
fn a_chain_of_lines_is_verified() {
    let place = Place::at("");
    let secret = "0123456789abcdef0123456789abcdef";
    let path = place.path("audit.jsonl");
    let source = Place::sqlite();
    for number in 0..3 {
        source.issue(&format!("key {number}"), &[]);
    }
    let head = {
        let lines = JsonLines::open(&path, ChainKey::new(secret.as_bytes())).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = portunus_sqlx::SqliteStore::open(source.file())
                .await
                .unwrap();
            let query = portunus::audit::EventQuery::new();
            let events = portunus::audit::AuditReader::events(&store.audit(), &query)
                .await
                .unwrap();
            lines.record(&events.items).await.unwrap();
        });
        lines.head().to_string()
    };
    let verify = ["events", "verify", "audit.jsonl", "--head", &head];
    let keyed = place.with("PORTUNUS_CHAIN_KEY", secret);
    assert!(keyed.done(&verify).contains("3 "));
    keyed
        .run(&["events", "verify", "audit.jsonl", "--head", "x"])
        .failed(2, "--head");
    let lines = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, lines.replacen("key.issue", "key.audit", 1)).unwrap();
    keyed.run(&verify).failed(8, "line 1");
    let cut: Vec<_> = lines.lines().take(2).collect();
    std::fs::write(&path, cut.join("\n") + "\n").unwrap();
    keyed.done(&["events", "verify", "audit.jsonl"]);
    keyed.run(&verify).failed(8, "missing");
    assert!(!keyed.run(&verify).err.contains(secret));
}
