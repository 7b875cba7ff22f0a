//! Behavior specific to each call.

use std::time::Duration;

use portunus::actor::ActorMode;
use portunus::audit::{Action, AuditEvent, AuditOutcome, Party, RequestId};
use portunus::key::{Environment, KeyId, TenantId, UserId, WorkspaceId};
use portunus::{Clock, ErrorCode};
use serde_json::{Value, json};

use crate::everywhere::fresh_hex;
use crate::fixture::{Ask, Fixture, Health};

/// A key with every field set.
fn rich() -> Value {
    json!({
        "name": "rich", "description": "with all\nthat there is",
        "kind": "user", "environment": "test",
        "owner": { "user_id": "u1", "user_email": "u1@example.com", "tenant_id": "tenant_ours" },
        "scopes": ["document:read", "documents.*", "*", "a:b.c:*"],
        "access": "read-only", "workspaces": ["ws1", "ws-2"],
        "allowed_ips": ["203.0.113.7", "2001:db8::/32"],
        "rate_limit_config": { "requests_per_minute": 5, "requests_per_hour": null },
        "not_before": "2027-01-15T08:00:00Z", "expires_at": "2099-12-31T23:59:59.999+01:00",
        "plan": "standard_1",
        "metadata": { "nested": { "list": [1, null, "x"] } },
    })
}

const NULLS: &str = concat!(
    r#"{"name":"n","description":null,"kind":null,"environment":null,"owner":null,"scopes":null,"#,
    "\n    ",
    r#""access":null,"workspaces":null,"allowed_ips":null,"rate_limit_config":null,"#,
    r#""not_before":null,"expires_at":null,"#,
    "\n    ",
    r#""plan":null,"metadata":null}"#
);

pub(crate) async fn keys_are_made_taken_over_and_listed(fixture: &Fixture) {
    let issue = || Ask::new("POST", "/keys");
    let first = fixture.expect(201, issue().json(&rich())).await.json();
    assert!(first["key"].is_string());
    fixture.expect(201, issue().raw(NULLS)).await;
    fixture
        .expect(
            201,
            issue()
                .by("host")
                .json(&json!({ "name": "h", "owner": { "tenant_id": "t" } })),
        )
        .await;
    fixture.expect(400, issue().raw("{")).await;
    fixture
        .expect(400, issue().json(&json!({ "name": "n", "workspaces": [] })))
        .await;
    fixture
        .expect(
            403,
            issue().json(&json!({ "name": "n", "owner": { "tenant_id": "tenant_theirs" } })),
        )
        .await;
    fixture
        .expect(
            403,
            issue()
                .by("admin")
                .json(&json!({ "name": "n", "workspaces": ["ws2"] })),
        )
        .await;
    what_the_operator_may_not_set_is_refused(fixture).await;
    fixture.expect(422, issue()).await;
    fixture
        .expect(422, issue().json(&json!({ "name": "n", "unknown": 1 })))
        .await;
    for status in [201, 201, 409] {
        fixture
            .expect(status, issue().by("crowded").json(&json!({ "name": "n" })))
            .await;
    }
    // Executed once, answered twice.
    let once = || {
        issue()
            .header("idempotency-key", "issue-1")
            .json(&json!({ "name": "once" }))
    };
    let made = fixture.expect(201, once()).await.json();
    let again = fixture.expect(200, once()).await.json();
    assert_eq!(
        (&again["key"], &again["record"]["id"]),
        (&Value::Null, &made["record"]["id"])
    );
    fixture
        .expect(422, once().json(&json!({ "name": "other" })))
        .await;
    fixture
        .expect(400, once().header("idempotency-key", "second"))
        .await;
    fixture
        .expect(
            422,
            issue()
                .header("idempotency-key", "x".repeat(256))
                .json(&json!({ "name": "n" })),
        )
        .await;
    fixture
        .expect(
            204,
            Ask::new("DELETE", "/keys/{id}").of(made["record"]["id"].as_str().unwrap()),
        )
        .await;
    fixture.expect(409, once()).await;

    let import = || Ask::new("POST", "/import");
    let digest = json!({ "scheme": "sha256", "hex": fresh_hex() });
    let mut body = rich();
    body["digest"] = digest.clone();
    body["last_four"] = json!("wxyz");
    fixture.expect(201, import().json(&body)).await;
    fixture
        .expect(
            409,
            import().json(&json!({ "name": "n", "digest": digest })),
        )
        .await;
    let base64 = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=";
    let body = json!({
        "name": "n",
        "last_four": null,
        "digest": { "scheme": "sha256", "base64": base64, "hex": null },
    });
    fixture.expect(201, import().json(&body)).await;
    fixture.expect(400, import().raw("nonsense")).await;
    fixture
        .expect(422, import().json(&json!({ "name": "n" })))
        .await;
    fixture
        .expect(
            422,
            import()
                .json(&json!({ "name": "n", "digest": { "scheme": "md5", "hex": fresh_hex() } })),
        )
        .await;

    let list = || Ask::new("GET", "/keys");
    let page = fixture.expect(200, list().query("limit=1")).await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    fixture
        .expect(
            200,
            list().query(&format!(
                "limit=500&cursor={cursor}&status=active&environment=live"
            )),
        )
        .await;
    fixture
        .expect(200, list().query("query=rich%20key&status=&cursor="))
        .await;
    for wrong in [
        "limit=0",
        "limit=501",
        "limit=x",
        "status=odd",
        "environment=A",
        "cursor=1",
        "odd=1",
    ] {
        fixture.expect(400, list().query(wrong)).await;
    }
}

/// Each is refused according to the policy's table; unknown users get the same refusal whether or
/// not they exist in another tenant.
async fn what_the_operator_may_not_set_is_refused(fixture: &Fixture) {
    let id = fixture.plain().await;
    for (member, beyond) in [
        ("plan", json!("standard_2")),
        ("rate_limit_config", json!({ "requests_per_minute": 61 })),
        (
            "rate_limit_config",
            json!({ "requests_per_hour": 4_294_967_295_u32 }),
        ),
    ] {
        for ask in [
            Ask::new("POST", "/keys").json(&json!({ "name": "n", member: beyond })),
            Ask::new("PATCH", "/keys/{id}")
                .of(&id)
                .json(&json!({ member: beyond })),
        ] {
            fixture.expect(403, ask).await;
        }
    }
    let of = |user: &str| {
        let owner = json!({ "user_id": user });
        Ask::new("POST", "/keys").json(&json!({ "name": "n", "owner": owner }))
    };
    let unknown = fixture.expect(403, of("nobody")).await;
    assert_eq!(fixture.expect(403, of("u9")).await.body, unknown.body);
    fixture.expect(201, of("u1")).await;
}

pub(crate) async fn keys_are_shown_changed_and_ended(fixture: &Fixture) {
    let (id, _) = fixture.key(rich()).await;
    fixture.used(&id, 3).await;
    let show = || Ask::new("GET", "/keys/{id}").of(&id);
    let shown = fixture.expect(200, show()).await;
    assert_eq!(shown.json()["request_count"], 3);
    let tag = shown.headers["etag"].to_str().unwrap().to_owned();
    let (elsewhere, _) = fixture
        .key(json!({ "name": "n", "workspaces": ["ws2"] }))
        .await;
    fixture
        .expect(
            403,
            Ask::new("GET", "/keys/{id}").of(&elsewhere).by("admin"),
        )
        .await;

    let known = Ask::new("GET", "/keys/{id}").of(&id);
    fixture
        .expect(304, known.clone().header("if-none-match", &tag))
        .await;
    fixture.expect(412, known.header("if-match", "\"0\"")).await;

    let change = || Ask::new("PATCH", "/keys/{id}").of(&id);
    fixture
        .expect(
            200,
            change()
                .header("if-match", &tag)
                .json(&json!({ "enabled": false, "scopes": [] })),
        )
        .await;
    fixture
        .expect(
            412,
            change()
                .header("if-match", &tag)
                .json(&json!({ "name": "n" })),
        )
        .await;
    fixture
        .expect(
            412,
            change()
                .header("if-match", [0xff])
                .json(&json!({ "name": "n" })),
        )
        .await;
    fixture
        .expect(
            200,
            change()
                .header("if-match", "\"0\", *")
                .raw(NULLS_OF_A_CHANGE),
        )
        .await;
    fixture.expect(200, change()).await;
    fixture.expect(400, change().raw("{")).await;
    fixture
        .expect(400, change().json(&json!({ "workspaces": [] })))
        .await;
    fixture
        .expect(422, change().json(&json!({ "kind": "app" })))
        .await;
    for always_there in ["name", "scopes", "access", "enabled"] {
        fixture
            .expect(422, change().json(&json!({ always_there: null })))
            .await;
    }
    fixture
        .expect(
            403,
            change().by("admin").json(&json!({ "workspaces": ["ws2"] })),
        )
        .await;
    // An owner at the maximum number of keys cannot re-enable one.
    let crowded = |ask: Ask| ask.by("crowded");
    let keys = fixture
        .expect(200, crowded(Ask::new("GET", "/keys")))
        .await
        .json();
    let one = keys["items"][0]["id"].as_str().unwrap().to_owned();
    let end = portunus_admin::time_text(fixture.clock.now() + Duration::from_secs(60));
    let own = || crowded(Ask::new("PATCH", "/keys/{id}").of(&one));
    fixture
        .expect(200, own().json(&json!({ "expires_at": end })))
        .await;
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(
        fixture
            .expect(200, crowded(Ask::new("GET", "/keys/{id}").of(&one)))
            .await
            .json()["status"],
        "expired"
    );
    fixture
        .expect(
            201,
            crowded(Ask::new("POST", "/keys").json(&json!({ "name": "n" }))),
        )
        .await;
    let full = fixture
        .expect(409, own().json(&json!({ "expires_at": null })))
        .await
        .json();
    assert_eq!(full["code"], "QUOTA_EXCEEDED");

    let usage = || Ask::new("GET", "/keys/{id}/usage").of(&id);
    let counts = fixture.expect(200, usage()).await.json();
    assert_eq!(
        (&counts["hours"][0]["count"], &counts["last_ip"]),
        (&json!(3), &json!("2001:db8::7"))
    );
    fixture
        .expect(
            200,
            usage().query("from=2027-01-01T00:00:00Z&to=2027-02-01T00:00:00Z"),
        )
        .await;
    fixture
        .expect(400, usage().query("from=2020-01-01T00:00:00Z"))
        .await;
    fixture
        .expect(
            403,
            Ask::new("GET", "/keys/{id}/usage")
                .of(&elsewhere)
                .by("admin"),
        )
        .await;

    let revoke = || Ask::new("POST", "/keys/{id}/revoke").of(&id);
    fixture.feel(Health::Contended);
    fixture.expect(409, revoke()).await;
    fixture.feel(Health::Well);
    fixture.expect(400, revoke().raw("[")).await;
    fixture
        .expect(422, revoke().json(&json!({ "reason": "x".repeat(1001) })))
        .await;
    fixture
        .expect(200, revoke().json(&json!({ "reason": "leaked" })))
        .await;
    fixture
        .expect(200, revoke().json(&json!({ "reason": null })))
        .await;
    assert_eq!(
        fixture.expect(200, show()).await.json()["revoke_reason"],
        "leaked"
    );
    fixture
        .expect(409, change().json(&json!({ "name": "n" })))
        .await;
    fixture
        .expect(204, Ask::new("DELETE", "/keys/{id}").of(&id))
        .await;
    fixture.expect(404, show()).await;
}

const NULLS_OF_A_CHANGE: &str = r#"{"description":null,"workspaces":null,"plan":null,"allowed_ips":null,
    "rate_limit_config":null,"metadata":null,"not_before":null,"expires_at":null}"#;

pub(crate) async fn keys_are_rotated_and_made_primary(fixture: &Fixture) {
    let id = fixture.plain().await;
    let rotate = |id: &str| Ask::new("POST", "/keys/{id}/rotate").of(id);
    fixture.expect(400, rotate(&id).raw("{")).await;
    fixture
        .expect(422, rotate(&id).json(&json!({ "grace_seconds": -1 })))
        .await;
    fixture
        .expect(422, rotate(&id).json(&json!({ "grace_seconds": u64::MAX })))
        .await;
    let once = || {
        rotate(&id)
            .header("idempotency-key", "rotate-1")
            .json(&json!({ "grace_seconds": 60 }))
    };
    let made = fixture.expect(201, once()).await.json();
    let again = fixture.expect(200, once()).await.json();
    assert_eq!(
        (&again["key"], &again["record"]["id"]),
        (&Value::Null, &made["record"]["id"])
    );
    fixture
        .expect(422, once().json(&json!({ "grace_seconds": 61 })))
        .await;
    fixture.expect(409, rotate(&id)).await;
    fixture
        .expect(201, rotate(made["record"]["id"].as_str().unwrap()))
        .await;
    fixture
        .expect(
            201,
            rotate(&fixture.plain().await).json(&json!({ "grace_seconds": null })),
        )
        .await;

    let user = || json!({ "name": "n", "kind": "user", "owner": { "user_id": "two-keys" } });
    let ((one, _), (two, _)) = (fixture.key(user()).await, fixture.key(user()).await);
    let primary = |id: &str| Ask::new("POST", "/keys/{id}/primary").of(id);
    assert_eq!(
        fixture.expect(200, primary(&two)).await.json()["primary"],
        true
    );
    fixture
        .expect(409, Ask::new("DELETE", "/keys/{id}").of(&two))
        .await;
    fixture
        .expect(200, Ask::new("POST", "/keys/{id}/revoke").of(&one))
        .await;
    fixture.expect(409, primary(&one)).await;
    fixture.expect(409, rotate(&one)).await;
    let (elsewhere, _) = fixture
        .key(json!({ "name": "n", "workspaces": ["ws2"] }))
        .await;
    for call in [
        "/keys/{id}/primary",
        "/keys/{id}/rotate",
        "/keys/{id}/revoke",
    ] {
        fixture
            .expect(403, Ask::new("POST", call).of(&elsewhere).by("admin"))
            .await;
    }
    fixture
        .expect(
            403,
            Ask::new("DELETE", "/keys/{id}").of(&elsewhere).by("admin"),
        )
        .await;
}

pub(crate) async fn secrets_are_verified(fixture: &Fixture) {
    let verify = |body: Value| Ask::new("POST", "/verify").json(&body);
    let (id, secret) = fixture.key(rich()).await;
    let asked = json!({
        "key": secret, "require": ["document:read"], "ip": "203.0.113.7", "method": "GET",
        "workspace": "ws1",
    });
    let answer = fixture.expect(200, verify(asked)).await.json();
    assert_eq!(
        (&answer["active"], &answer["allowed"]),
        (&json!(true), &json!(true))
    );
    let asked =
        json!({ "key": secret, "require": "document:delete", "ip": "::1", "method": "POST" });
    assert_eq!(
        fixture.expect(200, verify(asked)).await.json()["allowed"],
        false
    );
    let (_, plain) = fixture.key(json!({ "name": "plain" })).await;
    fixture
        .expect(
            200,
            verify(json!({
                "key": plain, "require": null, "ip": null, "method": null, "workspace": null,
            })),
        )
        .await;
    fixture
        .expect(
            200,
            verify(json!({ "key": plain, "require": [], "ip": "198.51.100.1" })),
        )
        .await;
    fixture.feel(Health::Down);
    fixture.expect(503, verify(json!({ "key": secret }))).await;
    fixture.feel(Health::Well);
    fixture
        .expect(400, Ask::new("POST", "/verify").raw("{"))
        .await;
    fixture.expect(422, verify(json!({}))).await;
    for wrong in [
        json!({ "ip": "nowhere" }),
        json!({ "require": "a b" }),
        json!({ "require": 1 }),
        json!({ "workspace": "w s" }),
        json!({ "odd": 1 }),
    ] {
        let mut body = json!({ "key": secret });
        body.as_object_mut()
            .unwrap()
            .extend(wrong.as_object().unwrap().clone());
        fixture.expect(422, verify(body)).await;
    }
    let inactive = json!({ "active": false });
    let (_, elsewhere) = fixture
        .key(json!({ "name": "n", "workspaces": ["ws2"] }))
        .await;
    fixture
        .expect(403, verify(json!({ "key": elsewhere })).by("admin"))
        .await;
    assert_eq!(
        fixture
            .expect(200, verify(json!({ "key": secret })).by("outsider"))
            .await
            .json(),
        inactive
    );
    fixture
        .expect(200, Ask::new("POST", "/keys/{id}/revoke").of(&id))
        .await;
    assert_eq!(
        fixture
            .expect(200, verify(json!({ "key": secret })))
            .await
            .json(),
        inactive
    );
}

pub(crate) async fn what_happened_is_told(fixture: &Fixture) {
    let mut event = AuditEvent::new(
        "0123456789abcdef0123456789abcdef".parse().unwrap(),
        fixture.clock.now(),
        Action::Request,
        AuditOutcome::Refused(ErrorCode::RateLimited),
    );
    event.status = Some(429);
    event.tenant_id = TenantId::new("tenant_ours").ok();
    event.key_id = KeyId::new("key_full").ok();
    event.environment = Environment::new("live").ok();
    event.workspaces = Some(vec![WorkspaceId::new("ws1").unwrap()]);
    event.mode = Some(ActorMode::Delegated);
    event.subject = Party::user(UserId::new("u1").ok().as_ref(), Some("u1@example.com"));
    event.actor = Some(Party::operator("somebody"));
    event.scopes = vec!["document:read".into()];
    event.client_ip = "203.0.113.9".parse().ok();
    event.method = Some("GET".into());
    event.route = Some("/documents/{id}".into());
    event.request_id = RequestId::new("req-1");
    event.operation = KeyId::new("key_of_operation").ok();
    event.detail = Some("more".into());
    event.count = Some(7);
    fixture.note(event).await;
    let list = || Ask::new("GET", "/events");
    let page = fixture
        .expect(200, list().query("key_id=key_full"))
        .await
        .json();
    assert_eq!(
        page["items"][0].as_object().unwrap().len(),
        20,
        "every member was there: {page}"
    );
    let page = fixture
        .expect(
            200,
            list().query("limit=1&outcome=OK&action=key.issue&actor=owner"),
        )
        .await
        .json();
    fixture
        .expect(
            200,
            list().query(&format!(
                "limit=500&cursor={}",
                page["next_cursor"].as_str().unwrap()
            )),
        )
        .await;
    for wrong in [
        "limit=0",
        "limit=501",
        "outcome=odd",
        "action=odd",
        "cursor=x",
        "odd=1",
        "actor=a&actor=b",
    ] {
        fixture.expect(400, list().query(wrong)).await;
    }
}
