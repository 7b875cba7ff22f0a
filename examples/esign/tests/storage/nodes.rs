//! Several processes on one store: a change to a key is effective for the next request on the node
//! that made it, and soon on the others.
//!
//! Each key was just used on every node, so that it is cached everywhere.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::nodes::{
    Latencies, Said, accepted, ask, assert_accepted, done, may_read, node, revoke, revoked, said,
};
use crate::common::{Call, Issued, Server, USER, hex};
use jiff::Timestamp;
use portunus_test_support::postgres::Postgres;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How many keys are revoked one after the other.
const REVOCATIONS: usize = 120;
/// How often every other change is made.
const TIMES: usize = 8;

#[test]
fn three_nodes_on_postgresql_agree() {
    let postgres = Postgres::start();
    let store = postgres.database("keys");
    let [one, two, three] = [node(&store), node(&store), node(&store)];
    agree("PostgreSQL", &[one, two, three]);
}

#[test]
fn two_nodes_on_one_sqlite_file_agree() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("keys.db").display());
    let [one, two] = [node(&store), node(&store)];
    agree("SQLite", &[one, two]);
}

fn agree(kind: &str, nodes: &[Server]) {
    // The owner's primary key, which is not changed.
    nodes[0].issue(may_read());
    an_issued_key_works_everywhere_at_once(nodes);
    an_imported_key_works_where_it_was_unknown(kind, nodes);
    a_revoked_key_is_refused_at_once_where_it_was_revoked_and_soon_elsewhere(kind, nodes);
    every_restriction_of_a_key_is_soon_effective_on_other_nodes(kind, nodes);
    an_expiry_that_was_set_on_one_node_holds_on_all(kind, nodes);
    an_enabled_key_works_again(kind, nodes);
    an_owners_standing_is_asked_of_each_nodes_own_directory(nodes);
}

fn an_issued_key_works_everywhere_at_once(nodes: &[Server]) {
    for _ in 0..TIMES {
        assert_accepted(nodes, &nodes[0].issue(may_read()).key);
    }
}

fn an_imported_key_works_where_it_was_unknown(kind: &str, nodes: &[Server]) {
    let unknown = said(401, "INVALID_KEY");
    let mut latencies = Latencies::of(format!("{kind}, import"), nodes.len() - 1);
    for number in 0..TIMES {
        let key = format!("isk_{number:044}");
        for node in nodes {
            // Twice: the second time it is cached as unknown.
            assert_eq!(
                [ask(node, &key), ask(node, &key)],
                [unknown.clone(), unknown.clone()]
            );
        }
        let mut body = may_read();
        let hex = hex(Sha256::digest(key.as_bytes()));
        body["digest"] = json!({ "scheme": "sha256", "hex": hex });
        let acknowledged = done(&nodes[0], Call::post("/import").json(&body));
        latencies.measure(nodes, &key, &unknown, &accepted(), acknowledged);
    }
    latencies.assert_soon();
}

fn a_revoked_key_is_refused_at_once_where_it_was_revoked_and_soon_elsewhere(
    kind: &str,
    nodes: &[Server],
) {
    let keys: Vec<_> = (0..REVOCATIONS)
        .map(|_| nodes[0].issue(may_read()))
        .collect();
    let mut latencies = Latencies::of(format!("{kind}, revoke"), nodes.len() - 1);
    for (number, issued) in keys.iter().enumerate() {
        assert_accepted(nodes, &issued.key);
        // Spread over the interval at which a node checks the file for changes.
        thread::sleep(Duration::from_millis(number as u64 * 7 % 50));
        let acknowledged = revoke(&nodes[0], issued);
        latencies.measure(nodes, &issued.key, &accepted(), &revoked(), acknowledged);
    }
    latencies.assert_soon();
    for issued in &keys {
        for node in nodes {
            assert_eq!(ask(node, &issued.key), revoked(), "it stays so");
        }
    }
}

fn patch(issued: &Issued, body: &Value) -> Call {
    Call::new("PATCH", &format!("/keys/{}", issued.id())).json(body)
}

/// Changes that restrict a key: the name, the call, and the response from then on.
type Narrowing = (&'static str, fn(&Issued) -> Call, Said);

fn narrowings() -> [Narrowing; 6] {
    [
        (
            "disable",
            |issued| patch(issued, &json!({ "enabled": false })),
            said(401, "KEY_DISABLED"),
        ),
        (
            "scopes",
            |issued| patch(issued, &json!({ "scopes": ["org.read"] })),
            said(403, "INSUFFICIENT_SCOPE"),
        ),
        (
            "networks",
            |issued| patch(issued, &json!({ "allowed_ips": ["192.0.2.0/24"] })),
            said(403, "IP_NOT_ALLOWED"),
        ),
        (
            "limits",
            |issued| {
                patch(
                    issued,
                    &json!({ "rate_limit_config": { "requests_per_minute": 1 } }),
                )
            },
            said(429, "RATE_LIMITED"),
        ),
        (
            "rotate",
            |issued| {
                Call::post(&format!("/keys/{}/rotate", issued.id()))
                    .json(&json!({ "grace_seconds": 0 }))
            },
            said(401, "KEY_REVOKED"),
        ),
        (
            "delete",
            |issued| Call::new("DELETE", &format!("/keys/{}", issued.id())),
            said(401, "INVALID_KEY"),
        ),
    ]
}

fn every_restriction_of_a_key_is_soon_effective_on_other_nodes(kind: &str, nodes: &[Server]) {
    for (name, call, refused) in narrowings() {
        let mut latencies = Latencies::of(format!("{kind}, {name}"), nodes.len() - 1);
        for _ in 0..TIMES {
            let issued = nodes[0].issue(may_read());
            assert_accepted(nodes, &issued.key);
            let acknowledged = done(&nodes[0], call(&issued));
            latencies.measure(nodes, &issued.key, &accepted(), &refused, acknowledged);
        }
        latencies.assert_soon();
    }
}

fn an_expiry_that_was_set_on_one_node_holds_on_all(kind: &str, nodes: &[Server]) {
    let expired = said(401, "KEY_EXPIRED");
    let mut latencies = Latencies::of(format!("{kind}, expiry"), nodes.len() - 1);
    for _ in 0..TIMES {
        let issued = nodes[0].issue(may_read());
        assert_accepted(nodes, &issued.key);
        // Later than a write takes, because a time in the past is refused.
        let (now, to_come) = (Timestamp::now(), Duration::from_millis(700));
        let end = Instant::now() + to_come;
        let body = json!({ "expires_at": format!("{:.3}", now + to_come) });
        done(&nodes[0], patch(&issued, &body));
        thread::sleep(end.saturating_duration_since(Instant::now()));
        latencies.measure(nodes, &issued.key, &accepted(), &expired, end);
    }
    latencies.assert_soon();
}

fn an_enabled_key_works_again(kind: &str, nodes: &[Server]) {
    let disabled = said(401, "KEY_DISABLED");
    let mut latencies = Latencies::of(format!("{kind}, enable"), nodes.len() - 1);
    for _ in 0..TIMES {
        let issued = nodes[0].issue(may_read());
        done(&nodes[0], patch(&issued, &json!({ "enabled": false })));
        for node in nodes {
            assert_eq!(ask(node, &issued.key), disabled);
        }
        let acknowledged = done(&nodes[0], patch(&issued, &json!({ "enabled": true })));
        latencies.measure(nodes, &issued.key, &disabled, &accepted(), acknowledged);
    }
    latencies.assert_soon();
}

/// The directory belongs to the host. The demo's is in each process's memory: a suspension is
/// effective only in the process that receives it, for the next request.
fn an_owners_standing_is_asked_of_each_nodes_own_directory(nodes: &[Server]) {
    let mut body = may_read();
    body["owner"] = json!({ "user_id": USER });
    let issued = nodes[0].issue(body);
    assert_accepted(nodes, &issued.key);
    let suspended = said(403, "OWNER_SUSPENDED");
    let set = |node: &Server, suspended: bool| {
        let call = Call::new("PUT", &format!("/demo/users/{USER}"))
            .json(&json!({ "suspended": suspended }));
        assert_eq!(node.send(&call.bearer(&node.operator("owner"))).status, 200);
    };
    for told in 0..nodes.len() {
        set(&nodes[told], true);
        for (number, node) in nodes.iter().enumerate() {
            let expected = if number <= told {
                suspended.clone()
            } else {
                accepted()
            };
            assert_eq!(
                ask(node, &issued.key),
                expected,
                "node {} of {told}",
                number + 1
            );
        }
    }
    for node in nodes {
        set(node, false);
    }
    assert_accepted(nodes, &issued.key);
}
