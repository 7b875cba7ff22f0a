//! The fields of a body that requests a key; everything else is refused with the name of the field.

use crate::common::manage::{PROBLEM, assert_invalid, assert_problem, ids, list};
use crate::common::{Call, Server, USER};
use serde_json::json;

#[test]
fn an_issued_key_is_answered_in_full_once() {
    let server = Server::of("allsign");
    let body = json!({
        "name": "Production – billing",
        "description": "for invoices",
        "kind": "user",
        "environment": "test",
        "owner": { "user_id": USER, "user_email": "user@example.com", "tenant_id": "tenant_abc123" },
        "scopes": ["document:read", "signature:*"],
        "access": "read-only",
        "expires_at": "2099-01-02T03:04:05.678Z",
        "not_before": "2020-01-01T00:00:00Z",
        "metadata": { "team": "billing", "nested": { "a": [1, null] } },
    });
    let answer = server.admin("owner", Call::post("/keys").json(&body));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    assert_eq!(answer.fields("content-type"), ["application/json"]);
    let answer = answer.json();
    assert_eq!(
        answer.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["key", "record"]
    );
    let (key, record) = (answer["key"].as_str().unwrap(), answer["record"].clone());
    for field in [
        "name",
        "description",
        "kind",
        "environment",
        "owner",
        "scopes",
        "access",
        "metadata",
        "expires_at",
    ] {
        assert_eq!(record[field], body[field], "{field}");
    }
    for (field, expected) in [
        ("not_before", json!("2020-01-01T00:00:00.000Z")),
        ("status", json!("active")),
        ("enabled", json!(true)),
        ("version", json!(1)),
        ("key_family", record["id"].clone()),
        ("revoked_at", json!(null)),
        ("revoke_reason", json!(null)),
        ("last_used_at", json!(null)),
        ("request_count", json!(0)),
        (
            "masked",
            json!(format!("allsign_test_user_sk_…{}", &key[key.len() - 4..])),
        ),
    ] {
        assert_eq!(record[field], expected, "{field}");
    }
    let created: jiff::Timestamp = record["created_at"].as_str().unwrap().parse().unwrap();
    assert!(
        jiff::Timestamp::now().duration_since(created).abs() < jiff::SignedDuration::from_secs(20)
    );
    assert_eq!(
        record["created_at"].as_str().unwrap().len(),
        "2026-01-01T00:00:00.000Z".len(),
        "milliseconds"
    );
    assert_eq!(server.record(record["id"].as_str().unwrap()), record);
    assert_eq!(
        list(&server, "owner", ""),
        json!({ "items": [record], "next_cursor": null })
    );
}

#[test]
fn only_a_name_is_needed() {
    let server = Server::of("allsign");
    let issued = server.issue(json!({ "name": "n" }));
    for (field, expected) in [
        ("kind", json!("app")),
        ("environment", json!("live")),
        ("owner", json!({ "tenant_id": "tenant_abc123" })),
        ("scopes", json!([])),
        ("access", json!("full-access")),
        ("expires_at", json!(null)),
        ("not_before", json!(null)),
        ("metadata", json!({})),
        ("description", json!(null)),
    ] {
        assert_eq!(issued.record[field], expected, "{field}");
    }
}

#[test]
fn a_body_with_a_field_that_is_not_known_is_refused() {
    let server = Server::of("allsign");
    for (body, field) in [
        (
            json!({ "name": "n", "scope": "document:read" }),
            "body: unknown field `scope`",
        ),
        (
            json!({ "name": "n", "key": "allsign_live_sk_mine" }),
            "body: unknown field `key`",
        ),
        (
            json!({ "name": "n", "id": "key_mine" }),
            "body: unknown field `id`",
        ),
        (
            json!({ "name": "n", "tenant_id": "tenant_xyz789" }),
            "body: unknown field `tenant_id`",
        ),
        (
            json!({ "name": "n", "Scopes": [] }),
            "body: unknown field `Scopes`",
        ),
        (
            json!({ "name": "n", "__proto__": {} }),
            "body: unknown field `__proto__`",
        ),
        (
            json!({ "name": "n", "owner": { "tenant": "t" } }),
            "body: unknown field `tenant`",
        ),
    ] {
        assert_invalid(&server, &body, field);
    }
}

#[test]
fn a_body_whose_values_cannot_be_is_refused_by_field() {
    let server = Server::of("allsign");
    let mega = "x".repeat(1 << 20);
    for (body, field) in [
        (json!({}), "body: missing field `name`"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "  \n " }), "name"),
        (json!({ "name": null }), "body"),
        (json!({ "name": 1 }), "body"),
        (json!({ "name": ["n"] }), "body"),
        (json!({ "name": "a\0b" }), "name"),
        (json!({ "name": "a\u{1b}[31mb" }), "name"),
        (json!({ "name": "a\u{7f}b" }), "name"),
        (json!({ "name": "x".repeat(1001) }), "name"),
        (json!({ "name": mega }), "name"),
        (json!({ "name": "n", "description": mega }), "description"),
        (
            json!({ "name": "n", "description": "a\u{0}" }),
            "description",
        ),
        (
            json!({ "name": "n", "metadata": { "a": mega } }),
            "metadata",
        ),
        (
            json!({ "name": "n", "metadata": { mega.clone(): 1 } }),
            "metadata",
        ),
        (json!({ "name": "n", "metadata": [] }), "body"),
        (json!({ "name": "n", "metadata": "{}" }), "body"),
        (json!({ "name": "n", "kind": "root" }), "kind"),
        (json!({ "name": "n", "kind": "App" }), "kind"),
        (json!({ "name": "n", "kind": mega }), "kind"),
        (
            json!({ "name": "n", "kind": "access_token", "owner": { "user_id": USER } }),
            "kind",
        ),
        (json!({ "name": "n", "kind": "user" }), "owner.user_id"),
        (
            json!({ "name": "n", "kind": "user", "owner": { "user_email": "user@example.com" } }),
            "owner.user_id",
        ),
        (
            json!({ "name": "n", "kind": "user", "owner": { "user_id": "" } }),
            "owner.user_id",
        ),
        (
            json!({ "name": "n", "kind": "user", "owner": { "user_id": "a b" } }),
            "owner.user_id",
        ),
        (
            json!({ "name": "n", "owner": { "user_id": "a\u{0}" } }),
            "owner.user_id",
        ),
        (
            json!({ "name": "n", "owner": { "user_id": mega } }),
            "owner.user_id",
        ),
        (
            json!({ "name": "n", "owner": { "user_email": "a\r\nX: y" } }),
            "owner.user_email",
        ),
        (
            json!({ "name": "n", "owner": { "user_email": mega } }),
            "owner.user_email",
        ),
        (json!({ "name": "n", "environment": "prod" }), "environment"),
        (
            json!({ "name": "n", "environment": "production" }),
            "environment",
        ),
        (json!({ "name": "n", "environment": "Live" }), "environment"),
        (
            json!({ "name": "n", "environment": "live " }),
            "environment",
        ),
        (json!({ "name": "n", "environment": "" }), "environment"),
        (json!({ "name": "n", "environment": mega }), "environment"),
        (json!({ "name": "n", "access": "all" }), "body"),
        (json!({ "name": "n", "access": "full_access" }), "body"),
    ] {
        assert_invalid(&server, &body, field);
    }
}

#[test]
fn a_scope_that_cannot_be_or_is_not_known_is_not_issued() {
    let server = Server::of("allsign");
    for scope in [
        "Document:Write",
        "DOCUMENT:WRITE",
        "document:write ",
        " document:write",
        "document:write\0",
        "document:write\n",
        "document:write document:read",
        "document:write,document:read",
        "document",
        "document:",
        ":read",
        "document.read",
        "documents:read",
        "document::read",
        "document:read:own",
        "document:write:*",
        "doc*",
        "document*",
        "document:re*",
        "*:read",
        "*:*",
        "**",
        ":*",
        "",
        "\"",
        "d\u{f6}cument:read",
        "document\u{ff1a}read",
        "other:*",
        "admin",
    ] {
        assert_invalid(
            &server,
            &json!({ "name": "n", "scopes": [scope] }),
            "scopes",
        );
        assert_invalid(
            &server,
            &json!({ "name": "n", "scopes": ["document:read", scope] }),
            "scopes",
        );
    }
    assert_invalid(
        &server,
        &json!({ "name": "n", "scopes": ["a".repeat(1 << 20)] }),
        "scopes",
    );
    assert_invalid(
        &server,
        &json!({ "name": "n", "scopes": "document:read" }),
        "body",
    );
    assert_invalid(&server, &json!({ "name": "n", "scopes": [null] }), "body");
}

#[test]
fn a_list_of_scopes_cannot_be_made_huge() {
    let server = Server::of("allsign");
    // A refusal lists the caller's scopes, so their number must be limited.
    let body = json!({ "name": "n", "scopes": vec!["document:read"; 20_000] });
    let answer = server.admin("owner", Call::post("/keys").json(&body));
    match answer.status {
        422 => drop(assert_problem(&answer, 422, "INVALID_BODY", &[])),
        201 => assert!(
            answer.body.len() < 4096,
            "a record of {} bytes",
            answer.body.len()
        ),
        status => panic!("{status}"),
    }
}

#[test]
fn a_refusal_does_not_give_a_megabyte_back() {
    let server = Server::of("allsign");
    let mega = "x".repeat(1 << 20);
    for body in [
        json!({ "name": "n", mega.clone(): 1 }),
        json!({ "name": "n", "access": mega }),
        json!({ "name": "n", "scopes": mega }),
        json!({ "name": "n", "owner": { mega.clone(): 1 } }),
    ] {
        let answer = server.admin("owner", Call::post("/keys").json(&body));
        assert_eq!(answer.status, 422);
        assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
    }
}

#[test]
fn times_are_rfc_3339_and_in_the_right_order() {
    let server = Server::of("allsign");
    let at = |offset: i64| {
        (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(offset)).to_string()
    };
    for (body, field) in [
        (json!({ "expires_at": at(-1) }), "expires_at"),
        (
            json!({ "expires_at": "2020-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "expires_at": "1969-12-31T23:59:59Z" }),
            "expires_at",
        ),
        (
            json!({ "expires_at": "0000-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "expires_at": "-009999-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (json!({ "expires_at": "" }), "expires_at"),
        (json!({ "expires_at": "never" }), "expires_at"),
        (json!({ "expires_at": "tomorrow" }), "expires_at"),
        (json!({ "expires_at": "2099-01-01" }), "expires_at"),
        (json!({ "expires_at": "2099-01-01T00:00:00" }), "expires_at"),
        (
            json!({ "expires_at": "2099-13-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "expires_at": "2099-02-30T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "expires_at": "2099-01-01T25:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "expires_at": " 2099-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            json!({ "expires_at": "2099-01-01T00:00:00Z\u{0}" }),
            "expires_at",
        ),
        (json!({ "expires_at": "4070908800" }), "expires_at"),
        (json!({ "expires_at": 4_070_908_800_u64 }), "body"),
        (json!({ "expires_at": true }), "body"),
        (json!({ "expires_at": "9".repeat(1 << 20) }), "expires_at"),
        (json!({ "not_before": "soon" }), "not_before"),
        (
            json!({ "not_before": at(100), "expires_at": at(50) }),
            "not_before",
        ),
        (
            json!({ "not_before": "2099-01-01T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z" }),
            "not_before",
        ),
    ] {
        let mut body = body;
        body["name"] = "n".into();
        assert_invalid(&server, &body, field);
    }
    for (text, kept) in [
        ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00.000Z"),
        ("2099-01-01T02:00:00+02:00", "2099-01-01T00:00:00.000Z"),
        ("2098-12-31T16:00:00.9999-08:00", "2099-01-01T00:00:00.999Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ("2099-06-30T23:59:60Z", "2099-06-30T23:59:59.999Z"),
        (
            "2099-01-01T00:00:00.0009999999Z",
            "2099-01-01T00:00:00.000Z",
        ),
    ] {
        assert_eq!(
            server.issue(json!({ "expires_at": text })).record["expires_at"],
            kept
        );
    }
}

#[test]
fn a_time_that_rfc_3339_does_not_know_is_refused() {
    let server = Server::of("allsign");
    for text in [
        "2099-01-01T00:00:60Z",
        "2099-01-01T00:00:00+24:00",
        "2099-01-01T00:00:00-25:59",
        "9999-12-31T23:59:59-00:01",
        "2099-01-01T00:00Z",
        "2099-01-01T00Z",
        "20990101T000000Z",
        "2099-01-01T00:00:00Z[Europe/Paris]",
        "2099-01-01T00:00:00+01:00[Europe/Paris]",
        "2099-01-01T00:00:00+01",
        "2099-01-01T00:00:00,5Z",
        "+002099-01-01T00:00:00Z",
    ] {
        assert_invalid(
            &server,
            &json!({ "name": "n", "expires_at": text }),
            "expires_at",
        );
    }
}

#[test]
fn a_body_that_is_not_json_is_400() {
    let server = Server::of("allsign");
    let deep = format!(
        r#"{{"name":"n","metadata":{{"a":{}{}}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let broken: [&[u8]; 11] = [
        b"{",
        b"}",
        b"name=n",
        b"{\"name\":\"n\"",
        b"{\"name\":\"n\",}",
        b"{'name':'n'}",
        b"{\"name\":\"n\"}{\"name\":\"m\"}",
        b"{\"name\":\"n\"} x",
        b"{\"name\":\"a\xff\"}",
        b"\xef\xbb\xbf{\"name\":\"n\"}",
        deep.as_bytes(),
    ];
    for body in broken {
        for media in ["application/json", "Application/JSON; charset=\"UTF-8\""] {
            let call = Call::post("/keys").field("Content-Type", media).body(body);
            let answer = server.admin("owner", call);
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (400, Some("INVALID_REQUEST"))
            );
            assert_eq!(answer.fields("content-type"), [PROBLEM]);
        }
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
    server.assert_alive();
}

#[test]
fn a_body_that_is_json_and_no_object_is_422() {
    let server = Server::of("allsign");
    for body in [
        "[]",
        "null",
        "1",
        "\"n\"",
        "true",
        "[\"n\"]",
        "[{\"name\":\"n\"}]",
        "",
        " \r\n",
    ] {
        let answer = server.admin("owner", Call::post("/keys").body(body));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
}

#[test]
fn a_list_of_values_is_not_an_object() {
    let server = Server::of("allsign");
    // As many values as a body has fields today, and more, and fewer.
    for length in 1..30 {
        let body: Vec<_> = std::iter::once(json!("n"))
            .chain(std::iter::repeat_n(json!(null), length))
            .collect();
        let answer = server.admin("owner", Call::post("/keys").json(&json!(body)));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
}

#[test]
fn a_duplicate_member_is_refused() {
    let server = Server::of("allsign");
    for body in [
        r#"{"name":"n","name":"m"}"#,
        r#"{"name":"n","scopes":["document:read"],"scopes":["*"]}"#,
        r#"{"name":"n","owner":{"tenant_id":"tenant_abc123","tenant_id":"tenant_xyz789"}}"#,
        r#"{"name":"n","owner":{},"owner":{"tenant_id":"tenant_xyz789"}}"#,
        r#"{"name":"n","n\u0061me":"m"}"#,
    ] {
        let answer = server.admin("owner", Call::post("/keys").body(body));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    assert_eq!(ids(&list(&server, "owner", "")), [""; 0]);
}

#[test]
fn a_body_of_many_megabytes_is_not_taken() {
    let server = Server::of("allsign");
    let body = json!({ "name": "x".repeat(8 << 20) });
    let call = Call::post("/admin/keys")
        .json(&body)
        .bearer(&server.operator("owner"));
    let answer = server.try_send(&call).expect("an answer");
    assert_problem(&answer, 413, "TOO_LARGE", &[]);
    server.assert_alive();
}
