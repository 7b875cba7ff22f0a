//! `PATCH /keys/{id}`: each change is effective for the next request, and only a caller with the
//! latest version can make it.

use crate::common::manage::{assert_problem, change, delete, patch};
use crate::common::{Answer, Call, Issued, Server};
use serde_json::{Value, json};

fn patch_as(server: &Server, operator: &str, id: &str, body: &Value) -> Answer {
    server.admin(
        operator,
        Call::new("PATCH", &format!("/keys/{id}")).json(body),
    )
}

/// A change with this condition.
fn patch_if(server: &Server, id: &str, matches: &[&str]) -> Answer {
    let call =
        Call::new("PATCH", &format!("/keys/{id}")).json(&json!({ "name": format!("{matches:?}") }));
    server.admin(
        "owner",
        matches
            .iter()
            .fold(call, |call, tag| call.field("If-Match", tag)),
    )
}

fn etag(answer: &Answer) -> String {
    match answer.fields("etag")[..] {
        [tag] => tag.to_owned(),
        _ => panic!("no ETag: {answer:?}"),
    }
}

fn etag_of(server: &Server, id: &str) -> String {
    etag(&server.admin("owner", Call::get(&format!("/keys/{id}"))))
}

fn status(server: &Server, target: &str, issued: &Issued) -> u16 {
    server.get(target, &issued.key).status
}

#[test]
fn descriptive_fields_can_be_changed_and_removed() {
    let server = Server::of("allsign");
    let issued =
        server.issue(json!({ "name": "old", "description": "about", "metadata": { "a": 1 } }));
    let id = issued.id();
    let mut expected = issued.record.clone();
    for (version, (body, field, kept)) in [
        (json!({ "name": "Ünï – new" }), "name", json!("Ünï – new")),
        (
            json!({ "description": "other\nlines" }),
            "description",
            json!("other\nlines"),
        ),
        (json!({ "description": null }), "description", json!(null)),
        (
            json!({ "metadata": { "b": [1, { "c": null }] } }),
            "metadata",
            json!({ "a": 1, "b": [1, { "c": null }] }),
        ),
        (
            json!({ "metadata": { "a": null } }),
            "metadata",
            json!({ "b": [1, { "c": null }] }),
        ),
        (json!({ "metadata": null }), "metadata", json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        expected[field] = kept;
        expected["version"] = (version + 2).into();
        assert_eq!(change(&server, id, &body), expected);
        assert_eq!(server.record(id), expected, "{body}: nothing else changes");
    }
    // Unchanged values are not a change.
    for body in [
        json!({}),
        json!({ "name": "Ünï – new" }),
        json!({ "metadata": {}, "description": null }),
    ] {
        assert_eq!(change(&server, id, &body), expected, "{body}");
    }
    assert_eq!(status(&server, "/whoami", &issued), 200);
}

#[test]
fn each_change_holds_for_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let issued = server.issue(json!({ "scopes": ["document:read"] }));
        let read = || status(&server, "/v2/documents", &issued);
        let sign = || status(&server, "/v2/signatures", &issued);
        let write = || {
            server
                .send(
                    &Call::post("/v2/documents")
                        .bearer(&issued.key)
                        .json(&json!({})),
                )
                .status
        };
        let set = |body: Value| drop(change(&server, issued.id(), &body));
        assert_eq!([read(), sign(), write()], [200, 403, 403]);
        set(json!({ "scopes": ["signature:read", "document:write", "signature:read"] }));
        assert_eq!([read(), sign(), write()], [403, 200, 201]);
        assert_eq!(
            server.record(issued.id())["scopes"],
            json!(["signature:read", "document:write"])
        );
        set(json!({ "access": "read-only" }));
        assert_eq!([sign(), write()], [200, 403]);
        set(json!({ "access": "full-access", "scopes": [] }));
        assert_eq!([read(), sign(), write()], [403; 3]);
        set(json!({ "scopes": ["document:*"], "enabled": false }));
        assert_eq!(read(), 401);
        set(json!({ "enabled": true }));
        assert_eq!(read(), 200);
        set(json!({ "allowed_ips": ["192.0.2.1"] }));
        assert_eq!(read(), 403);
        set(json!({ "allowed_ips": ["192.0.2.1", "127.0.0.1"] }));
        assert_eq!(read(), 200);
        set(json!({ "allowed_ips": ["192.0.2.1"] }));
        set(json!({ "allowed_ips": null }));
        assert_eq!(read(), 200);
        // Times are truncated to milliseconds.
        let end = jiff::Timestamp::now().as_millisecond() + 200;
        let end = jiff::Timestamp::from_millisecond(end).unwrap();
        set(json!({ "expires_at": end.to_string() }));
        crate::common::until("the key's end", || read() == 401);
        assert!(jiff::Timestamp::now() >= end, "{store}: it ended too early");
        set(json!({ "expires_at": null }));
        assert_eq!(
            (read(), server.record(issued.id())["expires_at"].clone()),
            (200, json!(null))
        );
        set(json!({ "not_before": "2099-01-01T00:00:00Z" }));
        assert_eq!(read(), 401);
        set(json!({ "not_before": null }));
        assert_eq!(read(), 200);
        set(json!({ "rate_limit_config": { "requests_per_minute": 1 } }));
        assert_eq!([read(), read()].last(), Some(&429), "{store}");
        set(json!({ "rate_limit_config": null }));
        assert_eq!(read(), 200, "{store}");
    }
}

#[test]
fn workspaces_change_for_the_next_request() {
    let server = Server::of("yousign");
    let issued = server.issue(json!({ "workspaces": ["ws1"] }));
    let reach = || {
        ["ws1", "ws2"].map(|ws| status(&server, &format!("/v3/workspaces/{ws}/templates"), &issued))
    };
    assert_eq!(reach(), [200, 403]);
    change(&server, issued.id(), &json!({ "workspaces": ["ws2"] }));
    assert_eq!(reach(), [403, 200]);
    change(&server, issued.id(), &json!({ "workspaces": null }));
    assert_eq!(reach(), [200, 200]);
    assert_eq!(
        patch(&server, issued.id(), &json!({ "workspaces": [] })).status,
        400
    );
    assert_eq!(
        patch(&server, issued.id(), &json!({ "workspaces": ["ws3"] })).status,
        422
    );
    assert_eq!(reach(), [200, 200]);
}

#[test]
fn invalid_values_are_refused_and_change_nothing() {
    let server = Server::of("allsign");
    let issued =
        server.issue(json!({ "scopes": ["document:read"], "expires_at": "2099-01-01T00:00:00Z" }));
    for (body, field) in [
        (json!({ "scope": [] }), "body: unknown field `scope`"),
        (json!({ "kind": "user" }), "body: unknown field `kind`"),
        (
            json!({ "owner": { "tenant_id": "tenant_xyz789" } }),
            "body: unknown field `owner`",
        ),
        (
            json!({ "environment": "test" }),
            "body: unknown field `environment`",
        ),
        (json!({ "id": "key_x" }), "body: unknown field `id`"),
        (json!({ "key": "x" }), "body: unknown field `key`"),
        (json!({ "primary": true }), "body: unknown field `primary`"),
        (json!({ "version": 9 }), "body: unknown field `version`"),
        (json!({ "revoked": null }), "body: unknown field `revoked`"),
        (
            json!({ "status": "active" }),
            "body: unknown field `status`",
        ),
        (
            json!({ "delegation": "on" }),
            "body: unknown field `delegation`",
        ),
        (
            json!({ "key_family": "key_x" }),
            "body: unknown field `key_family`",
        ),
        (
            json!({ "successor": null }),
            "body: unknown field `successor`",
        ),
        (json!({ "Name": "n" }), "body: unknown field `Name`"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "name": "x".repeat(1001) }), "name"),
        (json!({ "name": "x".repeat(1 << 20) }), "name"),
        (json!({ "name": 1 }), "body"),
        (json!({ "description": "a\u{0}" }), "description"),
        (json!({ "description": 1 }), "body"),
        (json!({ "scopes": ["Document:Read"] }), "scopes"),
        (json!({ "scopes": ["document:read "] }), "scopes"),
        (json!({ "scopes": ["other:read"] }), "scopes"),
        (json!({ "scopes": "document:read" }), "body"),
        (json!({ "access": "all" }), "body"),
        (json!({ "allowed_ips": [] }), "allowed_ips"),
        (json!({ "allowed_ips": ["010.0.0.0/8"] }), "allowed_ips"),
        (json!({ "allowed_ips": ["10.0.0.0/33"] }), "allowed_ips"),
        (json!({ "allowed_ips": ["fe80::1%eth0"] }), "allowed_ips"),
        (json!({ "allowed_ips": "127.0.0.1" }), "body"),
        (
            json!({ "rate_limit_config": { "requests_per_minute": 0 } }),
            "rate_limit_config",
        ),
        (
            json!({ "rate_limit_config": { "requests_per_minute": -1 } }),
            "body",
        ),
        (
            json!({ "rate_limit_config": { "requests_per_day": 1 } }),
            "body",
        ),
        (json!({ "rate_limit_config": [1, 2] }), "body"),
        (
            json!({ "expires_at": "2001-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (json!({ "expires_at": "tomorrow" }), "expires_at"),
        (json!({ "expires_at": 4_070_908_800_u64 }), "body"),
        (
            json!({ "not_before": "2099-01-01T00:00:00Z" }),
            "not_before",
        ),
        (json!({ "metadata": [] }), "body"),
        (
            json!({ "metadata": { "a": "x".repeat(1 << 20) } }),
            "metadata",
        ),
        (json!({ "enabled": "false" }), "body"),
        (json!({ "plan": "gold" }), "plan"),
        (json!([]), "body"),
        (json!(null), "body"),
        (json!("name"), "body"),
    ] {
        let detail = assert_problem(
            &patch(&server, issued.id(), &body),
            422,
            "INVALID_BODY",
            &[],
        );
        assert!(detail.starts_with(field), "{detail:?} is not about {field}");
        assert!(detail.len() < 1000, "{} bytes of detail", detail.len());
    }
    for body in [
        "{",
        "name=n",
        "{\"name\":\"n\",}",
        "{\"name\":\"a\u{7}\"}",
        "\u{feff}{}",
    ] {
        let call = Call::new("PATCH", &format!("/keys/{}", issued.id())).body(body);
        assert_problem(&server.admin("owner", call), 400, "INVALID_REQUEST", &[]);
    }
    for body in [
        r#"{"name":"n","name":"m"}"#,
        r#"{"enabled":true,"enabled":false}"#,
    ] {
        let call = Call::new("PATCH", &format!("/keys/{}", issued.id())).body(body);
        assert_problem(&server.admin("owner", call), 422, "INVALID_BODY", &[]);
    }
    assert_eq!(server.record(issued.id()), issued.record);
}

#[test]
fn required_fields_cannot_be_null() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "scopes": ["document:read"] }));
    for field in ["name", "scopes", "access", "enabled"] {
        let answer = patch(&server, issued.id(), &json!({ field: null }));
        assert_eq!(
            answer.status, 422,
            "{field}: null is answered as if it were done"
        );
    }
    assert_eq!(server.record(issued.id()), issued.record);
}

#[test]
fn a_stale_version_changes_nothing() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let id = issued.id();
    let first = etag_of(&server, id);
    assert!(
        first.starts_with('"') && first.ends_with('"'),
        "a strong tag: {first}"
    );
    let changed = patch_if(&server, id, &[&first]);
    assert_eq!(changed.status, 200);
    let second = etag(&changed);
    assert_ne!(second, first);
    assert_eq!(etag_of(&server, id), second);
    let (weak, bare) = (format!("W/{second}"), second.trim_matches('"').to_owned());
    let both = format!("{first}, \"x\" ,{second}");
    let before = server.record(id);
    for stale in [
        vec![&*first],
        vec!["\"\""],
        vec!["\"99\""],
        vec![&*weak],
        vec![&*bare],
        vec![""],
        vec!["W/*"],
        vec!["\"*\""],
        vec!["\"a,b\", \"c\""],
        vec![&*first, "\"99\""],
        vec!["garbage"],
    ] {
        let answer = patch_if(&server, id, &stale);
        assert!(
            matches!(answer.status, 412 | 400),
            "{stale:?}: {}",
            answer.status
        );
        if stale == [&*first] {
            let detail = assert_problem(&answer, 412, "PRECONDITION_FAILED", &[]);
            assert!(!detail.is_empty());
        }
        assert_eq!(server.record(id), before, "{stale:?}");
    }
    let mut current = second.clone();
    for matching in [
        vec![both.as_str()],
        vec!["*"],
        vec!["\"99\"", "HERE"],
        vec![" HERE "],
        vec!["\"99\", *"],
    ] {
        let tags: Vec<_> = matching
            .iter()
            .map(|tag| tag.replace("HERE", &current).replace(&second, &current))
            .collect();
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        let answer = patch_if(&server, id, &tags);
        assert_eq!(answer.status, 200, "{tags:?}: {}", answer.text());
        current = etag(&answer);
    }
}

#[test]
fn of_many_writers_with_the_same_version_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        "memory".to_owned(),
        format!("sqlite:{}", folder.path().join("keys.db").display()),
    ] {
        let server = Server::on(&store, "allsign");
        let issued = server.issue(json!({}));
        let tag = etag_of(&server, issued.id());
        let answers = crate::common::at_once(20, |number| {
            let call =
                Call::new("PATCH", &format!("/keys/{}", issued.id())).field("If-Match", &tag);
            (
                number,
                server
                    .admin(
                        "owner",
                        call.json(&json!({ "name": format!("name {number}") })),
                    )
                    .status,
            )
        });
        let done: Vec<_> = answers
            .iter()
            .filter(|(_, status)| *status == 200)
            .collect();
        assert_eq!(done.len(), 1, "{store}: {answers:?}");
        assert!(
            answers
                .iter()
                .all(|(_, status)| [200, 412].contains(status)),
            "{answers:?}"
        );
        let record = server.record(issued.id());
        assert_eq!(
            (&record["name"], &record["version"]),
            (&json!(format!("name {}", done[0].0)), &json!(2))
        );
    }
}

#[test]
fn changes_of_different_fields_at_once_are_all_kept() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let bodies = [
        json!({ "name": "n" }),
        json!({ "description": "d" }),
        json!({ "scopes": ["*"] }),
        json!({ "metadata": { "m": 1 } }),
        json!({ "expires_at": "2099-01-01T00:00:00.000Z" }),
        json!({ "access": "read-only" }),
        json!({ "allowed_ips": ["127.0.0.1"] }),
        json!({ "enabled": false }),
    ];
    let answers = crate::common::at_once(bodies.len(), |number| {
        patch(&server, issued.id(), &bodies[number]).status
    });
    assert_eq!(answers, [200; 8]);
    let record = server.record(issued.id());
    for (field, value) in bodies.iter().flat_map(|body| body.as_object().unwrap()) {
        let kept = &record[field];
        assert!(
            kept == value || (field == "allowed_ips" && kept.to_string().contains("127.0.0.1")),
            "{field}: {kept}"
        );
    }
    assert_eq!(record["version"], 9);
}

#[test]
fn merges_by_many_at_once_are_all_kept() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let answers = crate::common::at_once(40, |number| {
        patch_as(
            &server,
            "owner",
            issued.id(),
            &json!({ "metadata": { format!("m{number}"): number } }),
        )
    });
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let metadata = server.record(issued.id())["metadata"].clone();
    assert_eq!(metadata.as_object().unwrap().len(), 40, "{metadata}");
}

#[test]
fn usage_does_not_change_the_version() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let tag = etag_of(&server, issued.id());
    for _ in 0..5 {
        assert_eq!(status(&server, "/whoami", &issued), 200);
    }
    assert_eq!(server.record(issued.id())["request_count"], 5);
    assert_eq!(etag_of(&server, issued.id()), tag);
    assert_eq!(patch_if(&server, issued.id(), &[&tag]).status, 200);
}

#[test]
fn a_revoked_key_stays_as_it_is() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({}));
    let revoked = server.revoke(issued.id()).json();
    for body in [
        json!({ "name": "n" }),
        json!({ "enabled": true }),
        json!({ "expires_at": null }),
        json!({}),
    ] {
        assert_problem(&patch(&server, issued.id(), &body), 409, "CONFLICT", &[]);
    }
    assert_eq!(server.record(issued.id()), revoked);
    assert_eq!(status(&server, "/whoami", &issued), 401);
}

#[test]
fn another_tenants_key_is_not_found() {
    let server = Server::of("allsign");
    let ours = server.issue(json!({}));
    let deleted = server.issue(json!({}));
    assert_eq!(delete(&server, deleted.id()).status, 204);
    for body in [json!({ "name": "n" }), json!({ "nonsense": 1 }), json!([])] {
        let unknown = patch_as(&server, "outsider", "key_unknown", &body).timeless();
        assert_problem(&unknown, 404, "NOT_FOUND", &[]);
        let long = "x".repeat(5000);
        for id in [
            ours.id(),
            deleted.id(),
            "a%20b",
            "%00",
            "..",
            "%2e%2e",
            &long,
            "key_unknown%0d%0aX:y",
        ] {
            let answer = patch_as(&server, "outsider", id, &body).timeless();
            assert_eq!(answer.status, 404, "{id}: {}", answer.text());
            if !id.starts_with('.') {
                assert_eq!(answer, unknown, "{id}");
            }
        }
        let call = Call::new("PATCH", &format!("/keys/{}", ours.id()))
            .json(&body)
            .field("If-Match", "\"1\"");
        assert_eq!(server.admin("outsider", call).timeless(), unknown);
    }
    assert_eq!(server.record(ours.id()), ours.record);
}

#[test]
fn an_id_that_is_not_text_is_not_found() {
    let server = Server::of("allsign");
    let (unknown, no_text) = ("/keys/key_unknown", "/keys/%ff");
    for (method, rest) in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/usage"),
        ("POST", "/revoke"),
        ("POST", "/rotate"),
        ("POST", "/primary"),
    ] {
        let ask = |id: &str| {
            server
                .admin(
                    "owner",
                    Call::new(method, &format!("{id}{rest}")).body("{}"),
                )
                .timeless()
        };
        assert_eq!(ask(no_text), ask(unknown), "{method} {rest}");
    }
}

#[test]
fn an_administrator_widens_nothing_beyond_its_workspaces() {
    let server = Server::of("yousign");
    let mine = server.issue(json!({ "workspaces": ["ws1"] }));
    let other = server.issue(json!({ "workspaces": ["ws2"] }));
    let as_admin = |id: &str, body: Value| patch_as(&server, "admin", id, &body);
    for body in [
        json!({ "workspaces": ["ws2"] }),
        json!({ "workspaces": ["ws1", "ws2"] }),
    ] {
        assert_problem(&as_admin(mine.id(), body), 403, "FORBIDDEN", &[]);
    }
    for body in [
        json!({ "workspaces": ["ws1"] }),
        json!({ "workspaces": null }),
        json!({ "name": "n" }),
        json!({}),
    ] {
        assert_problem(&as_admin(other.id(), body), 403, "FORBIDDEN", &[]);
    }
    assert_eq!(
        [server.record(mine.id()), server.record(other.id())],
        [mine.record.clone(), other.record.clone()]
    );
    assert_eq!(as_admin(mine.id(), json!({ "name": "n" })).status, 200);
    assert_problem(
        &patch_as(&server, "member", mine.id(), &json!({ "name": "m" })),
        403,
        "FORBIDDEN",
        &[],
    );
}

#[test]
fn iusign_restricts_addresses_on_the_highest_plan_only() {
    let server = Server::of("iusign");
    let issued = server.issue(json!({}));
    let refused = |body: Value| {
        let answer = patch(&server, issued.id(), &body);
        (
            answer.status,
            answer.json()["code"].as_str().unwrap().to_owned(),
        )
    };
    let required = || (403, "PLAN_REQUIRED".to_owned());
    assert_eq!(refused(json!({ "allowed_ips": ["127.0.0.1"] })), required());
    assert_eq!(
        refused(json!({ "allowed_ips": ["127.0.0.1"], "plan": "standard" })),
        required()
    );
    assert_eq!(
        patch_as(
            &server,
            "admin",
            issued.id(),
            &json!({ "plan": "enterprise" })
        )
        .status,
        403
    );
    assert_eq!(server.record(issued.id()), issued.record);
    change(
        &server,
        issued.id(),
        &json!({ "allowed_ips": ["127.0.0.1"], "plan": "enterprise" }),
    );
    assert_eq!(refused(json!({ "plan": "standard" })), required());
    assert_eq!(refused(json!({ "plan": null })), required());
    change(&server, issued.id(), &json!({ "name": "n" }));
    change(
        &server,
        issued.id(),
        &json!({ "allowed_ips": null, "plan": "free" }),
    );
    assert_eq!(
        status(&server, "/v1/envelopes", &issued),
        403,
        "the plan is too low"
    );
    change(&server, issued.id(), &json!({ "plan": null }));
    assert_eq!(
        (
            status(&server, "/v1/envelopes", &issued),
            server.record(issued.id())["plan"].clone()
        ),
        (200, json!("standard"))
    );
}

#[test]
fn a_dropbox_key_takes_neither_scopes_nor_an_end() {
    let server = Server::of("dropbox-sign");
    let issued = server.issue(json!({}));
    for (body, field) in [
        (json!({ "scopes": ["account_access"] }), "scopes"),
        (
            json!({ "expires_at": "2099-01-01T00:00:00Z" }),
            "expires_at",
        ),
    ] {
        let detail = assert_problem(
            &patch(&server, issued.id(), &body),
            422,
            "INVALID_BODY",
            &[],
        );
        assert!(detail.starts_with(field), "{detail}");
    }
    change(
        &server,
        issued.id(),
        &json!({ "expires_at": null, "name": "n" }),
    );
}
