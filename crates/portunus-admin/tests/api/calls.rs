//! What each call answers of its own.

use std::time::Duration;

use portunus::actor::ActorMode;
use portunus::audit::{Action, AuditEvent, AuditOutcome, Party, RequestId};
use portunus::key::{Environment, KeyId, TenantId, UserId, WorkspaceId};
use portunus::{Clock, ErrorCode};
use serde_json::{Value, json};

use crate::everywhere::fresh_hex;
use crate::world::{Ask, Mood, World};

/// Everything that can be said of a key.
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

pub(crate) async fn keys_are_made_taken_over_and_listed(world: &World) {
    let issue = || Ask::new("POST", "/keys");
    let first = world.expect(201, issue().json(&rich())).await.json();
    assert!(first["key"].is_string());
    world.expect(201, issue().raw(NULLS)).await;
    world
        .expect(
            201,
            issue()
                .by("host")
                .json(&json!({ "name": "h", "owner": { "tenant_id": "t" } })),
        )
        .await;
    world.expect(400, issue().raw("{")).await;
    world
        .expect(400, issue().json(&json!({ "name": "n", "workspaces": [] })))
        .await;
    world
        .expect(
            403,
            issue().json(&json!({ "name": "n", "owner": { "tenant_id": "tenant_theirs" } })),
        )
        .await;
    world
        .expect(
            403,
            issue()
                .by("admin")
                .json(&json!({ "name": "n", "workspaces": ["ws2"] })),
        )
        .await;
    what_the_operator_may_not_set_is_refused(world).await;
    world.expect(422, issue()).await;
    world
        .expect(422, issue().json(&json!({ "name": "n", "unknown": 1 })))
        .await;
    for status in [201, 201, 409] {
        world
            .expect(status, issue().by("crowded").json(&json!({ "name": "n" })))
            .await;
    }
    // Done once, told twice.
    let once = || {
        issue()
            .header("idempotency-key", "issue-1")
            .json(&json!({ "name": "once" }))
    };
    let made = world.expect(201, once()).await.json();
    let again = world.expect(200, once()).await.json();
    assert_eq!(
        (&again["key"], &again["record"]["id"]),
        (&Value::Null, &made["record"]["id"])
    );
    world
        .expect(422, once().json(&json!({ "name": "other" })))
        .await;
    world
        .expect(400, once().header("idempotency-key", "second"))
        .await;
    world
        .expect(
            422,
            issue()
                .header("idempotency-key", "x".repeat(256))
                .json(&json!({ "name": "n" })),
        )
        .await;
    world
        .expect(
            204,
            Ask::new("DELETE", "/keys/{id}").of(made["record"]["id"].as_str().unwrap()),
        )
        .await;
    world.expect(409, once()).await;

    let import = || Ask::new("POST", "/import");
    let digest = json!({ "scheme": "sha256", "hex": fresh_hex() });
    let mut body = rich();
    body["digest"] = digest.clone();
    body["last_four"] = json!("wxyz");
    world.expect(201, import().json(&body)).await;
    world
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
    world.expect(201, import().json(&body)).await;
    world.expect(400, import().raw("nonsense")).await;
    world
        .expect(422, import().json(&json!({ "name": "n" })))
        .await;
    world
        .expect(
            422,
            import()
                .json(&json!({ "name": "n", "digest": { "scheme": "md5", "hex": fresh_hex() } })),
        )
        .await;

    let list = || Ask::new("GET", "/keys");
    let page = world.expect(200, list().query("limit=1")).await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    world
        .expect(
            200,
            list().query(&format!(
                "limit=500&cursor={cursor}&status=active&environment=live"
            )),
        )
        .await;
    world
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
        world.expect(400, list().query(wrong)).await;
    }
}

/// Each is refused as the policy's table says; users alike, whether there is such a user elsewhere
/// or nowhere.
async fn what_the_operator_may_not_set_is_refused(world: &World) {
    let id = world.plain().await;
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
            world.expect(403, ask).await;
        }
    }
    let of = |user: &str| {
        let owner = json!({ "user_id": user });
        Ask::new("POST", "/keys").json(&json!({ "name": "n", "owner": owner }))
    };
    let unknown = world.expect(403, of("nobody")).await;
    assert_eq!(world.expect(403, of("u9")).await.body, unknown.body);
    world.expect(201, of("u1")).await;
}

pub(crate) async fn keys_are_shown_changed_and_ended(world: &World) {
    let (id, _) = world.key(rich()).await;
    world.used(&id, 3).await;
    let show = || Ask::new("GET", "/keys/{id}").of(&id);
    let shown = world.expect(200, show()).await;
    assert_eq!(shown.json()["request_count"], 3);
    let tag = shown.headers["etag"].to_str().unwrap().to_owned();
    let (elsewhere, _) = world
        .key(json!({ "name": "n", "workspaces": ["ws2"] }))
        .await;
    world
        .expect(
            403,
            Ask::new("GET", "/keys/{id}").of(&elsewhere).by("admin"),
        )
        .await;

    let known = Ask::new("GET", "/keys/{id}").of(&id);
    world
        .expect(304, known.clone().header("if-none-match", &tag))
        .await;
    world.expect(412, known.header("if-match", "\"0\"")).await;

    let change = || Ask::new("PATCH", "/keys/{id}").of(&id);
    world
        .expect(
            200,
            change()
                .header("if-match", &tag)
                .json(&json!({ "enabled": false, "scopes": [] })),
        )
        .await;
    world
        .expect(
            412,
            change()
                .header("if-match", &tag)
                .json(&json!({ "name": "n" })),
        )
        .await;
    world
        .expect(
            412,
            change()
                .header("if-match", [0xff])
                .json(&json!({ "name": "n" })),
        )
        .await;
    world
        .expect(
            200,
            change()
                .header("if-match", "\"0\", *")
                .raw(NULLS_OF_A_CHANGE),
        )
        .await;
    world.expect(200, change()).await;
    world.expect(400, change().raw("{")).await;
    world
        .expect(400, change().json(&json!({ "workspaces": [] })))
        .await;
    world
        .expect(422, change().json(&json!({ "kind": "app" })))
        .await;
    for always_there in ["name", "scopes", "access", "enabled"] {
        world
            .expect(422, change().json(&json!({ always_there: null })))
            .await;
    }
    world
        .expect(
            403,
            change().by("admin").json(&json!({ "workspaces": ["ws2"] })),
        )
        .await;
    // Whoever has as many keys as may be cannot have one live again.
    let crowded = |ask: Ask| ask.by("crowded");
    let keys = world
        .expect(200, crowded(Ask::new("GET", "/keys")))
        .await
        .json();
    let one = keys["items"][0]["id"].as_str().unwrap().to_owned();
    let end = portunus_admin::time_text(world.clock.now() + Duration::from_secs(60));
    let own = || crowded(Ask::new("PATCH", "/keys/{id}").of(&one));
    world
        .expect(200, own().json(&json!({ "expires_at": end })))
        .await;
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(
        world
            .expect(200, crowded(Ask::new("GET", "/keys/{id}").of(&one)))
            .await
            .json()["status"],
        "expired"
    );
    world
        .expect(
            201,
            crowded(Ask::new("POST", "/keys").json(&json!({ "name": "n" }))),
        )
        .await;
    let full = world
        .expect(409, own().json(&json!({ "expires_at": null })))
        .await
        .json();
    assert_eq!(full["code"], "QUOTA_EXCEEDED");

    let usage = || Ask::new("GET", "/keys/{id}/usage").of(&id);
    let counts = world.expect(200, usage()).await.json();
    assert_eq!(
        (&counts["hours"][0]["count"], &counts["last_ip"]),
        (&json!(3), &json!("2001:db8::7"))
    );
    world
        .expect(
            200,
            usage().query("from=2027-01-01T00:00:00Z&to=2027-02-01T00:00:00Z"),
        )
        .await;
    world
        .expect(400, usage().query("from=2020-01-01T00:00:00Z"))
        .await;
    world
        .expect(
            403,
            Ask::new("GET", "/keys/{id}/usage")
                .of(&elsewhere)
                .by("admin"),
        )
        .await;

    let revoke = || Ask::new("POST", "/keys/{id}/revoke").of(&id);
    world.feel(Mood::Contended);
    world.expect(409, revoke()).await;
    world.feel(Mood::Well);
    world.expect(400, revoke().raw("[")).await;
    world
        .expect(422, revoke().json(&json!({ "reason": "x".repeat(1001) })))
        .await;
    world
        .expect(200, revoke().json(&json!({ "reason": "leaked" })))
        .await;
    world
        .expect(200, revoke().json(&json!({ "reason": null })))
        .await;
    assert_eq!(
        world.expect(200, show()).await.json()["revoke_reason"],
        "leaked"
    );
    world
        .expect(409, change().json(&json!({ "name": "n" })))
        .await;
    world
        .expect(204, Ask::new("DELETE", "/keys/{id}").of(&id))
        .await;
    world.expect(404, show()).await;
}

const NULLS_OF_A_CHANGE: &str = r#"{"description":null,"workspaces":null,"plan":null,"allowed_ips":null,
    "rate_limit_config":null,"metadata":null,"not_before":null,"expires_at":null}"#;

pub(crate) async fn keys_are_rotated_and_made_primary(world: &World) {
    let id = world.plain().await;
    let rotate = |id: &str| Ask::new("POST", "/keys/{id}/rotate").of(id);
    world.expect(400, rotate(&id).raw("{")).await;
    world
        .expect(422, rotate(&id).json(&json!({ "grace_seconds": -1 })))
        .await;
    world
        .expect(422, rotate(&id).json(&json!({ "grace_seconds": u64::MAX })))
        .await;
    let once = || {
        rotate(&id)
            .header("idempotency-key", "rotate-1")
            .json(&json!({ "grace_seconds": 60 }))
    };
    let made = world.expect(201, once()).await.json();
    let again = world.expect(200, once()).await.json();
    assert_eq!(
        (&again["key"], &again["record"]["id"]),
        (&Value::Null, &made["record"]["id"])
    );
    world
        .expect(422, once().json(&json!({ "grace_seconds": 61 })))
        .await;
    world.expect(409, rotate(&id)).await;
    world
        .expect(201, rotate(made["record"]["id"].as_str().unwrap()))
        .await;
    world
        .expect(
            201,
            rotate(&world.plain().await).json(&json!({ "grace_seconds": null })),
        )
        .await;

    let user = || json!({ "name": "n", "kind": "user", "owner": { "user_id": "two-keys" } });
    let ((one, _), (two, _)) = (world.key(user()).await, world.key(user()).await);
    let primary = |id: &str| Ask::new("POST", "/keys/{id}/primary").of(id);
    assert_eq!(
        world.expect(200, primary(&two)).await.json()["primary"],
        true
    );
    world
        .expect(409, Ask::new("DELETE", "/keys/{id}").of(&two))
        .await;
    world
        .expect(200, Ask::new("POST", "/keys/{id}/revoke").of(&one))
        .await;
    world.expect(409, primary(&one)).await;
    world.expect(409, rotate(&one)).await;
    let (elsewhere, _) = world
        .key(json!({ "name": "n", "workspaces": ["ws2"] }))
        .await;
    for call in [
        "/keys/{id}/primary",
        "/keys/{id}/rotate",
        "/keys/{id}/revoke",
    ] {
        world
            .expect(403, Ask::new("POST", call).of(&elsewhere).by("admin"))
            .await;
    }
    world
        .expect(
            403,
            Ask::new("DELETE", "/keys/{id}").of(&elsewhere).by("admin"),
        )
        .await;
}

pub(crate) async fn secrets_are_verified(world: &World) {
    let verify = |body: Value| Ask::new("POST", "/verify").json(&body);
    let (id, secret) = world.key(rich()).await;
    let asked = json!({
        "key": secret, "require": ["document:read"], "ip": "203.0.113.7", "method": "GET",
        "workspace": "ws1",
    });
    let answer = world.expect(200, verify(asked)).await.json();
    assert_eq!(
        (&answer["active"], &answer["allowed"]),
        (&json!(true), &json!(true))
    );
    let asked =
        json!({ "key": secret, "require": "document:delete", "ip": "::1", "method": "POST" });
    assert_eq!(
        world.expect(200, verify(asked)).await.json()["allowed"],
        false
    );
    let (_, plain) = world.key(json!({ "name": "plain" })).await;
    world
        .expect(
            200,
            verify(json!({
                "key": plain, "require": null, "ip": null, "method": null, "workspace": null,
            })),
        )
        .await;
    world
        .expect(
            200,
            verify(json!({ "key": plain, "require": [], "ip": "198.51.100.1" })),
        )
        .await;
    world.feel(Mood::Down);
    world.expect(503, verify(json!({ "key": secret }))).await;
    world.feel(Mood::Well);
    world
        .expect(400, Ask::new("POST", "/verify").raw("{"))
        .await;
    world.expect(422, verify(json!({}))).await;
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
        world.expect(422, verify(body)).await;
    }
    let inactive = json!({ "active": false });
    let (_, elsewhere) = world
        .key(json!({ "name": "n", "workspaces": ["ws2"] }))
        .await;
    world
        .expect(403, verify(json!({ "key": elsewhere })).by("admin"))
        .await;
    assert_eq!(
        world
            .expect(200, verify(json!({ "key": secret })).by("outsider"))
            .await
            .json(),
        inactive
    );
    world
        .expect(200, Ask::new("POST", "/keys/{id}/revoke").of(&id))
        .await;
    assert_eq!(
        world
            .expect(200, verify(json!({ "key": secret })))
            .await
            .json(),
        inactive
    );
}

pub(crate) async fn what_happened_is_told(world: &World) {
    let mut event = AuditEvent::new(
        "0123456789abcdef0123456789abcdef".parse().unwrap(),
        world.clock.now(),
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
    event.detail = Some("more".into());
    event.count = Some(7);
    world.note(event).await;
    let list = || Ask::new("GET", "/events");
    let page = world
        .expect(200, list().query("key_id=key_full"))
        .await
        .json();
    assert_eq!(
        page["items"][0].as_object().unwrap().len(),
        19,
        "every member was there: {page}"
    );
    let page = world
        .expect(
            200,
            list().query("limit=1&outcome=OK&action=key.issue&actor=owner"),
        )
        .await
        .json();
    world
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
        world.expect(400, list().query(wrong)).await;
    }
}
