//! Lists of keys: tenant, order, pages, and usage counts.

use std::collections::BTreeSet;

use crate::common::manage::{ids, list};
use crate::common::{Call, Server, TICK};
use serde_json::{Value, json};

#[test]
fn a_list_holds_the_operators_tenant_only() {
    let server = Server::of("allsign");
    let ours: Vec<_> = (0..3)
        .map(|_| server.issue(json!({ "name": "shared name" })))
        .collect();
    assert_eq!(
        list(&server, "outsider", ""),
        json!({ "items": [], "next_cursor": null })
    );
    let theirs = server.issue_as("outsider", json!({ "name": "shared name" }));
    assert_eq!(
        theirs.record["owner"],
        json!({ "tenant_id": "tenant_xyz789" })
    );
    // No parameter crosses tenants, not even a cursor of the other tenant.
    let cursor = list(&server, "owner", "?limit=1")["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let last = ours[0].key[ours[0].key.len() - 4..].to_owned();
    for (query, expected) in [
        (String::new(), vec![theirs.id()]),
        ("?query=shared".into(), vec![theirs.id()]),
        ("?status=active&limit=500".into(), vec![theirs.id()]),
        (format!("?query={last}"), vec![]),
    ] {
        assert_eq!(ids(&list(&server, "outsider", &query)), expected, "{query}");
    }
    for item in list(&server, "outsider", &format!("?cursor={cursor}"))["items"]
        .as_array()
        .unwrap()
    {
        assert_eq!(item["owner"]["tenant_id"], "tenant_xyz789");
    }
    assert_eq!(
        server
            .admin("outsider", Call::get("/keys?tenant_id=tenant_abc123"))
            .status,
        400
    );
    assert_eq!(ids(&list(&server, "owner", "")).len(), 3);
}

#[test]
fn pages_hold_each_key_exactly_once() {
    let server = Server::of("allsign");
    let issued: Vec<_> = (0..25)
        .map(|number| server.issue(json!({ "name": format!("key {number}") })))
        .collect();
    let all: BTreeSet<_> = issued.iter().map(|issued| issued.id().to_owned()).collect();
    for (limit, lengths) in [
        (10, &[10, 10, 5][..]),
        (25, &[25]),
        (24, &[24, 1]),
        (5, &[5; 5]),
        (500, &[25]),
    ] {
        let (mut seen, mut sizes, mut cursor) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = list(&server, "owner", &format!("?limit={limit}{cursor}"));
            sizes.push(ids(&page).len());
            seen.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else {
                break;
            };
            assert!(seen.len() < 25, "a cursor after the last key");
            cursor = format!("&cursor={next}");
        }
        assert_eq!(sizes, lengths, "limit {limit}");
        assert_eq!(seen.len(), 25);
        let ids: BTreeSet<_> = seen
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids, all, "limit {limit}");
        let times: Vec<_> = seen
            .iter()
            .map(|item| item["created_at"].as_str().unwrap())
            .collect();
        assert!(
            times.is_sorted_by(|newer, older| newer >= older),
            "newest first: {times:?}"
        );
    }
    assert_eq!(ids(&list(&server, "owner", "")).len(), 25);
}

#[test]
fn pages_stay_exact_while_keys_are_issued_and_revoked() {
    let server = Server::of("allsign");
    let issued: Vec<_> = (0..9).map(|_| server.issue(json!({}))).collect();
    let first = list(&server, "owner", "?limit=3");
    server.issue(json!({}));
    server.revoke(ids(&first)[2]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = list(&server, "owner", &format!("?limit=100&cursor={cursor}"));
    let mut seen: Vec<_> = [ids(&first), ids(&rest)].concat();
    seen.sort_unstable();
    let mut all: Vec<_> = issued.iter().map(crate::common::Issued::id).collect();
    all.sort_unstable();
    assert_eq!(seen, all);
}

#[test]
fn a_list_parameter_that_cannot_be_is_400() {
    let server = Server::of("allsign");
    server.issue(json!({}));
    for query in [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1.5",
        "limit=ten",
        "limit=99999999999999999999999",
        "limit=%00",
        "limit=1&limit=2",
        "cursor=x",
        "cursor=.",
        "cursor=1.",
        "cursor=.key_x",
        "cursor=-1.key_x",
        "cursor=1.key%20x",
        "cursor=1e3.key_x",
        "cursor=99999999999999999999999.key_x",
        "cursor=..%2f..%2fetc",
        "cursor='%20or%201=1",
        "status=ACTIVE",
        "status=deleted",
        "status=active,revoked",
        "environment=Live",
        "environment=%00",
        "tenant=tenant_xyz789",
        "offset=1",
        "status=active&status=revoked",
    ] {
        let answer = server.admin("owner", Call::get(&format!("/keys?{query}")));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("INVALID_REQUEST")),
            "{query}"
        );
    }
    let huge = server.admin(
        "owner",
        Call::get(&format!("/keys?query={}", "x".repeat(1 << 20))),
    );
    assert!([400, 414, 431].contains(&huge.status), "{}", huge.status);
    server.assert_alive();
}

#[test]
fn filters_select() {
    let server = Server::of("allsign");
    let billing = server.issue(json!({ "name": "Billing", "environment": "live" }));
    let tests = server.issue(
        json!({ "name": "nightly", "description": "runs BILLING tests", "environment": "test" }),
    );
    let gone = server.issue(json!({ "name": "old 100%_" }));
    let later = server.issue(json!({ "name": "later", "not_before": "2099-01-01T00:00:00Z" }));
    server.revoke(gone.id());
    let [billing, tests, gone, later] =
        [&billing, &tests, &gone, &later].map(|issued| issued.id().to_owned());
    let last = server.record(&tests)["masked"]
        .as_str()
        .unwrap()
        .chars()
        .rev()
        .take(4)
        .collect::<Vec<_>>();
    let last: String = last.iter().rev().collect();
    for (query, expected) in [
        ("", vec![&billing, &tests, &gone, &later]),
        (
            "?status=&environment=&query=&cursor=",
            vec![&billing, &tests, &gone, &later],
        ),
        ("?status=active", vec![&billing, &tests]),
        ("?status=revoked", vec![&gone]),
        ("?status=not_yet_valid", vec![&later]),
        ("?status=expired", vec![]),
        ("?status=disabled", vec![]),
        ("?environment=test", vec![&tests]),
        ("?environment=live", vec![&billing, &gone, &later]),
        ("?environment=nowhere", vec![]),
        ("?query=billing", vec![&billing, &tests]),
        ("?query=billing&environment=test", vec![&tests]),
        ("?query=billing&environment=test&status=revoked", vec![]),
        ("?query=100%25_", vec![&gone]),
        ("?query=%25", vec![&gone]),
        ("?query=.*", vec![]),
        ("?query=nothing+like+this", vec![]),
        (&format!("?query={last}"), vec![&tests]),
    ] {
        let page = list(&server, "owner", query);
        let found: BTreeSet<_> = ids(&page).into_iter().collect();
        assert_eq!(
            found,
            expected.iter().map(|id| id.as_str()).collect(),
            "{query}"
        );
    }
}

#[test]
fn usage_is_seen_at_once_and_refused_requests_are_none() {
    let server = Server::of("allsign");
    let issued = server.issue_scoped(&["document:read"]);
    let before = jiff::Timestamp::now();
    for _ in 0..3 {
        assert_eq!(server.get("/whoami", &issued.key).status, 200);
    }
    let usage = |record: &Value| {
        (
            record["request_count"].clone(),
            record["last_used_at"].clone(),
        )
    };
    let record = server.record(issued.id());
    assert_eq!(record["request_count"], 3);
    let last: jiff::Timestamp = record["last_used_at"].as_str().unwrap().parse().unwrap();
    assert!(
        last >= before - TICK && last <= jiff::Timestamp::now(),
        "{last}"
    );
    assert_eq!(
        usage(&list(&server, "owner", "")["items"][0]),
        usage(&record)
    );
    // Management calls, failures and other keys are not counted.
    let other = server.issue(json!({}));
    server.get("/whoami", &other.key);
    server.get("/whoami", &format!("{}x", issued.key));
    server.send(&Call::get("/whoami").bearer(&issued.key).bearer(&issued.key));
    assert_eq!(server.record(issued.id()), record);
    assert_eq!(record["version"], 1, "usage is not a change");
    assert_eq!(server.record(other.id())["request_count"], 1);
}
