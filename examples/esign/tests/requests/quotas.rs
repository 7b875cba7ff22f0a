//! The maximum number of keys, enforced exactly under concurrency.

use std::collections::BTreeSet;

use crate::common::manage::{assert_invalid, assert_problem, ids, list};
use crate::common::{Call, Server, USER};
use serde_json::json;

#[test]
fn dropbox_has_four_keys_and_a_fifth_is_409() {
    let server = Server::of("dropbox-sign");
    let four: Vec<_> = (0..4).map(|_| server.issue(json!({}))).collect();
    let fifth = || {
        server.admin(
            "owner",
            Call::post("/keys").json(&json!({ "name": "fifth" })),
        )
    };
    let detail = assert_problem(&fifth(), 409, "QUOTA_EXCEEDED", &[]);
    assert_eq!(detail, "5 active keys would exceed the limit of 4");
    for issued in &four {
        assert_eq!(server.get("/whoami", &issued.key).status, 200);
    }
    // Access tokens do not count as keys, and the other tenant has its own quota.
    server.issue(json!({ "kind": "access_token", "owner": { "user_id": USER } }));
    for _ in 0..4 {
        server.issue_as("outsider", json!({}));
    }
    assert_eq!(
        server
            .admin(
                "outsider",
                Call::post("/keys").json(&json!({ "name": "fifth" }))
            )
            .status,
        409
    );
    server.revoke(four[1].id());
    assert_eq!(fifth().status, 201);
    assert_eq!(fifth().status, 409);
    assert_eq!(
        ids(&list(&server, "owner", "?status=active")).len(),
        5,
        "four keys and a token"
    );
}

#[test]
fn dropbox_keys_take_neither_scopes_nor_an_expiry() {
    let server = Server::of("dropbox-sign");
    for (body, field) in [
        (json!({ "scopes": ["account_access"] }), "scopes"),
        (json!({ "scopes": ["*"] }), "scopes"),
        (
            json!({ "expires_at": "2099-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "kind": "user", "owner": { "user_id": USER }, "scopes": ["account_access"] }),
            "scopes",
        ),
        (json!({ "kind": "access_token" }), "owner.user_id"),
        (
            json!({ "kind": "access_token", "owner": { "user_id": USER }, "scopes": ["document:read"] }),
            "scopes",
        ),
        (
            json!({
                "kind": "access_token",
                "owner": { "user_id": USER },
                "expires_at": "2020-01-01T00:00:00Z",
            }),
            "expires_at",
        ),
        (json!({ "environment": "sandbox" }), "environment"),
    ] {
        let mut body = body;
        body["name"] = "n".into();
        assert_invalid(&server, &body, field);
    }
}

#[test]
fn of_two_hundred_issues_at_once_exactly_four_succeed() {
    let server = Server::of("dropbox-sign");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|thread| {
                let server = &server;
                scope.spawn(move || {
                    let issue = |number: u32| {
                        let body = json!({ "name": format!("key {thread}.{number}") });
                        server.admin("owner", Call::post("/keys").json(&body))
                    };
                    (0..10).map(issue).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (4, 196));
    for answer in refused {
        assert_problem(answer, 409, "QUOTA_EXCEEDED", &[]);
    }
    let page = list(&server, "owner", "?limit=500");
    let listed: BTreeSet<_> = ids(&page).into_iter().collect();
    let bodies: Vec<_> = made.iter().map(|answer| answer.json()).collect();
    assert_eq!(
        listed,
        bodies
            .iter()
            .map(|body| body["record"]["id"].as_str().unwrap())
            .collect()
    );
    for body in &bodies {
        assert_eq!(
            server.get("/whoami", body["key"].as_str().unwrap()).status,
            200
        );
    }
}

#[test]
fn yousign_organizations_have_two_hundred_active_keys() {
    let server = Server::of("yousign");
    let issue = |number: usize| {
        let environment = if number.is_multiple_of(2) {
            "production"
        } else {
            "sandbox"
        };
        let body = json!({ "name": "same description", "environment": environment });
        server.admin("owner", Call::post("/keys").json(&body))
    };
    let first = issue(0).json()["record"]["id"].as_str().unwrap().to_owned();
    for number in 1..200 {
        assert_eq!(issue(number).status, 201, "key {number}");
    }
    let detail = assert_problem(&issue(200), 409, "QUOTA_EXCEEDED", &[]);
    assert_eq!(detail, "201 active keys would exceed the limit of 200");
    server.revoke(&first);
    assert_eq!(issue(201).status, 201);
}
