//! How soon a change on one of four nodes is effective on the others.

use std::time::Instant;

use serde_json::json;

use crate::common::nodes::{
    BOUND, Latencies, SOON, accepted, ask, assert_accepted, done, may_read, revoke, revoked, said,
    took_until,
};
use crate::common::{Call, Server, at_once, until};
use crate::{Bus, Site, rounds};

fn changes_are_soon_effective(bus: Bus) {
    let site = Site::start(bus, "local");
    let nodes = &site.nodes;
    // The owner's primary key, which is not changed.
    nodes[0].issue(may_read());
    let mut latencies = Latencies::of(format!("{bus:?} bus, revoke"), 3);
    for _ in 0..rounds(34) {
        let issued = nodes[0].issue(may_read());
        assert_accepted(nodes, &issued.key);
        let acknowledged = revoke(&nodes[0], &issued);
        latencies.measure(nodes, &issued.key, &accepted(), &revoked(), acknowledged);
    }
    latencies.assert_soon();
    for (what, change, refused) in [
        (
            "disable",
            json!({ "enabled": false }),
            said(401, "KEY_DISABLED"),
        ),
        (
            "narrow",
            json!({ "scopes": ["org.read"] }),
            said(403, "INSUFFICIENT_SCOPE"),
        ),
    ] {
        let mut latencies = Latencies::of(format!("{bus:?} bus, {what}"), 3);
        for _ in 0..rounds(10) {
            let issued = nodes[0].issue(may_read());
            assert_accepted(nodes, &issued.key);
            let path = format!("/keys/{}", issued.id());
            let acknowledged = done(&nodes[0], Call::new("PATCH", &path).json(&change));
            latencies.measure(nodes, &issued.key, &accepted(), &refused, acknowledged);
        }
        latencies.assert_soon();
    }
}

#[test]
fn changes_on_one_node_are_soon_effective_on_the_others_by_redis() {
    changes_are_soon_effective(Bus::Redis);
}

#[test]
fn changes_on_one_node_are_soon_effective_on_the_others_by_postgresql() {
    changes_are_soon_effective(Bus::Postgres);
}

#[test]
fn while_redis_is_suspended_a_revocation_holds_within_the_bound() {
    let site = Site::start(Bus::Redis, "local");
    let nodes = &site.nodes;
    nodes[0].issue(may_read());
    let mut latencies = Latencies::of("Redis suspended, revoke", 3);
    for _ in 0..rounds(4) {
        let issued = nodes[0].issue(may_read());
        assert_accepted(nodes, &issued.key);
        site.redis.pause();
        let began = Instant::now();
        let waited = at_once(nodes.len(), |number| {
            if number > 0 {
                let node = &nodes[number];
                return Some(took_until(
                    node,
                    &issued.key,
                    &accepted(),
                    &revoked(),
                    began,
                ));
            }
            let path = format!("/keys/{}/revoke", issued.id());
            let answer = nodes[0].admin("owner", Call::post(&path));
            // The operator is told that the other nodes are not.
            assert_eq!(answer.status, 503, "{}", answer.text());
            let applied = answer.text().contains("The change was applied");
            assert!(applied, "{}", answer.text());
            println!("acknowledged after {:?}", began.elapsed());
            assert_eq!(ask(&nodes[0], &issued.key), revoked());
            None
        });
        let waited: Vec<_> = waited.into_iter().flatten().collect();
        latencies.add(&waited);
        site.redis.resume();
    }
    // Usually sooner: the periodic job of each node reads in the database what is to be published,
    // and its own cache is told first.
    latencies.assert_within_the_bound();
    // A node that hears nothing asks the database, at the latest when its answers are too old. After
    // the return, changes are soon effective again.
    assert_changes_arrive(nodes);
}

/// Waits until a revocation is soon effective on all nodes; it is so within the bound at any time.
pub(crate) fn assert_changes_arrive(nodes: &[Server]) {
    until("changes are soon effective", || {
        let issued = nodes[0].issue(may_read());
        assert_accepted(nodes, &issued.key);
        let path = format!("/keys/{}/revoke", issued.id());
        let is_published = nodes[0].admin("owner", Call::post(&path)).status == 200;
        let acknowledged = Instant::now();
        let is_everywhere = || {
            nodes[1..]
                .iter()
                .all(|node| ask(node, &issued.key) == revoked())
        };
        while !is_everywhere() {
            let took = acknowledged.elapsed();
            assert!(took <= BOUND, "{took:?}");
        }
        is_published && acknowledged.elapsed() <= SOON
    });
}
