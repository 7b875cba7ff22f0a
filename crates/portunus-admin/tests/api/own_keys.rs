//! Self-serve over HTTP: another owner's key is an unknown key, byte for byte, and nothing that a
//! body, a query or a header says makes a key wider or somebody else's.

use serde_json::{Value, json};

use crate::document::Document;
use crate::fixture::{Answer, Ask, Fixture, send};

/// The self-serve API and its document.
struct Own {
    fixture: Fixture,
    document: Document,
}

impl Own {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let document = send(&fixture.own, &ask("u1", "GET", "/openapi.json")).await;
        let document = Document::new(document.json());
        Self { fixture, document }
    }

    async fn ask(&self, ask: &Ask) -> Answer {
        let answer = send(&self.fixture.own, ask).await;
        self.document.check(ask, &answer);
        answer
    }

    async fn expect(&self, status: u16, ask: Ask) -> Answer {
        let answer = self.ask(&ask).await;
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{ask:?}: {body}");
        answer
    }

    /// Issues a key of this user through the API for self-serve. Returns its id and secret.
    async fn issue(&self, user: &str, body: &Value) -> (String, String) {
        let answer = self
            .expect(201, ask(user, "POST", "/keys").json(body))
            .await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let issued = answer.json();
        (text(&issued["record"]["id"]), text(&issued["key"]))
    }
}

fn ask(user: &str, method: &str, template: &str) -> Ask {
    Ask::new(method, template).by(user)
}

/// Every call about one key.
fn every_call(id: &str) -> Vec<Ask> {
    let of = |method, template| ask("u1", method, template).of(id);
    let empty = || json!({});
    let calls = vec![
        of("GET", "/keys/{id}"),
        of("GET", "/keys/{id}/usage"),
        of("PATCH", "/keys/{id}").json(&json!({ "name": "mine" })),
        of("PATCH", "/keys/{id}").json(&json!({ "scopes": ["*"], "nonsense": 1 })),
        of("POST", "/keys/{id}/revoke").json(&json!({ "reason": "mine" })),
        of("POST", "/keys/{id}/rotate").json(&json!({ "grace_seconds": 60 })),
        of("POST", "/keys/{id}/rotate")
            .json(&empty())
            .header("idempotency-key", "1"),
        of("POST", "/keys/{id}/primary").json(&empty()),
        of("DELETE", "/keys/{id}"),
    ];
    // A condition is evaluated last, so it tells nothing either.
    let conditional = calls.iter().flat_map(|call| {
        let with = |name, value| call.clone().header(name, value);
        [
            with("if-match", "\"1\""),
            with("if-match", "\"9\""),
            with("if-none-match", "*"),
        ]
    });
    let conditional: Vec<_> = conditional.collect();
    calls.into_iter().chain(conditional).collect()
}

#[tokio::test]
async fn a_key_of_another_owner_is_an_unknown_key_byte_for_byte() {
    let own = Own::new().await;
    let (of_ann, secret) = own.issue("ann", &json!({ "name": "ann's" })).await;
    let (of_tenant, tenants_secret) = own.fixture.key(json!({ "name": "the tenant's" })).await;
    let unknown = "key_0000000000000000000000";
    let before = own.fixture.keys().await;
    for id in [&of_ann, &of_tenant] {
        for (theirs, nobodys) in every_call(id).iter().zip(every_call(unknown)) {
            let (theirs, nobodys) = (own.ask(theirs).await, own.ask(&nobodys).await);
            assert_eq!(theirs.status, 404);
            assert_eq!(
                (theirs.status, &theirs.headers, &theirs.body),
                (nobodys.status, &nobodys.headers, &nobodys.body)
            );
        }
    }
    assert_eq!(own.fixture.keys().await, before, "nothing happened");
    for secret in [secret, tenants_secret] {
        let verify = ask("u1", "POST", "/verify").json(&json!({ "key": secret }));
        assert_eq!(
            own.expect(200, verify).await.json(),
            json!({ "active": false })
        );
    }
}

#[tokio::test]
async fn lists_and_events_show_own_keys_only() {
    let own = Own::new().await;
    let (mine, _) = own.issue("u1", &json!({ "name": "mine" })).await;
    own.fixture.clock.advance(std::time::Duration::from_secs(1));
    let (theirs, _) = own.issue("ann", &json!({ "name": "theirs" })).await;
    own.fixture.plain().await;
    let list = async |path: &str, query: &str| {
        let page = own
            .expect(200, ask("u1", "GET", path).query(query))
            .await
            .json();
        let items = page["items"].as_array().unwrap().clone();
        let field = if path == "/keys" { "id" } else { "key_id" };
        let ids = items
            .iter()
            .map(|item| item[field].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), page["next_cursor"].clone())
    };
    let only_mine = (vec![mine.clone()], Value::Null);
    let nothing = (Vec::new(), Value::Null);
    for query in ["", "owner=u1", "query=mine", "limit=500"] {
        assert_eq!(list("/keys", query).await, only_mine, "{query}");
    }
    let foreign = format!("family={theirs}");
    for query in [
        "owner=ann",
        "owner=nobody",
        "owner=u9",
        "query=theirs",
        &*foreign,
    ] {
        assert_eq!(list("/keys", query).await, nothing, "{query}");
    }
    // Another user's cursor.
    let page = own.expect(200, ask("owner", "GET", "/keys")).await.json();
    assert_eq!(page["items"], json!([]), "the tenant's owner has no key");
    let millis = 4_000_000_000_000_u64;
    let cursor = format!("cursor={millis}.{theirs}");
    assert_eq!(list("/keys", &cursor).await, only_mine);
    assert_eq!(list("/events", "").await, only_mine);
    for query in [
        &*format!("key_id={theirs}"),
        "actor=ann",
        "actor=ann@ours.example",
    ] {
        assert_eq!(list("/events", query).await, nothing, "{query}");
    }
}

#[tokio::test]
async fn the_owner_is_never_taken_from_the_body() {
    let own = Own::new().await;
    let issued = async |owner: Value| {
        let body = json!({ "name": "key", "owner": owner });
        own.ask(&ask("u1", "POST", "/keys").json(&body)).await
    };
    let me = json!({
        "tenant_id": "tenant_ours", "user_id": "u1", "user_email": "u1@ours.example"
    });
    for owner in [
        Value::Null,
        json!({}),
        me.clone(),
        json!({ "user_email": "U1@Ours.example" }),
    ] {
        let record = issued(owner.clone()).await.json()["record"].clone();
        assert_eq!(
            (&record["owner"], &record["kind"]),
            (&me, &json!("user")),
            "{owner}"
        );
    }
    // Users who exist, do not exist, and belong to another tenant: the same bytes.
    let mut refusals = Vec::new();
    for user in ["ann", "two-keys", "nobody", "u9", "U1"] {
        let refused = issued(json!({ "user_id": user })).await;
        assert_eq!(refused.status, 403, "{user}");
        refusals.push(refused.body);
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1);
    for owner in [
        json!({ "tenant_id": "tenant_theirs" }),
        json!({ "tenant_id": "tenant_theirs", "user_id": "u1" }),
        json!({ "user_email": "ann@ours.example" }),
    ] {
        assert_eq!(issued(owner.clone()).await.status, 403, "{owner}");
    }
    // Neither can a change name one.
    let (id, _) = own.issue("u1", &json!({ "name": "key" })).await;
    let patch = json!({ "owner": { "user_id": "ann" } });
    own.expect(422, ask("u1", "PATCH", "/keys/{id}").of(&id).json(&patch))
        .await;
}

#[tokio::test]
async fn no_member_of_a_body_makes_a_key_wider_than_its_owner() {
    let own = Own::new().await;
    let narrow = json!({ "name": "key", "scopes": ["document:read", "user:list"] });
    let (id, _) = own.issue("u1", &narrow).await;
    let both = [
        json!({ "scopes": ["*"] }),
        json!({ "scopes": ["document:write"] }),
        json!({ "scopes": ["document:*"] }),
        json!({ "plan": "enterprise" }),
        json!({ "rate_limit_config": { "requests_per_minute": 1_000_000 } }),
    ];
    let at_first = [json!({ "kind": "app" })];
    for wide in both.iter().chain(&at_first) {
        let mut body = json!({ "name": "key" });
        body.as_object_mut()
            .unwrap()
            .extend(wide.as_object().unwrap().clone());
        own.expect(403, ask("u1", "POST", "/keys").json(&body))
            .await;
        body["digest"] = json!({ "scheme": "sha256", "hex": "ab".repeat(32) });
        own.expect(403, ask("u1", "POST", "/import").json(&body))
            .await;
    }
    for wide in &both {
        own.expect(403, ask("u1", "PATCH", "/keys/{id}").of(&id).json(wide))
            .await;
    }
    // Members that nobody may set in a body.
    for member in [
        "delegation",
        "authority",
        "id",
        "family",
        "predecessor",
        "role",
    ] {
        let body = json!({ "name": "key", member: "x" });
        own.expect(422, ask("u1", "POST", "/keys").json(&body))
            .await;
    }
}

#[tokio::test]
async fn a_key_that_an_administrator_widened_cannot_be_rotated_by_its_owner() {
    let own = Own::new().await;
    let (id, _) = own.issue("u1", &json!({ "name": "key" })).await;
    let widened = json!({ "scopes": ["document:write"] });
    let admins = Ask::new("PATCH", "/keys/{id}").of(&id).json(&widened);
    own.fixture.expect(200, admins).await;
    let of = |method, template| ask("u1", method, template).of(&id);
    own.expect(403, of("POST", "/keys/{id}/rotate")).await;
    own.expect(
        200,
        of("PATCH", "/keys/{id}").json(&json!({ "name": "renamed" })),
    )
    .await;
    own.expect(
        200,
        of("PATCH", "/keys/{id}").json(&json!({ "enabled": false })),
    )
    .await;
    own.expect(
        403,
        of("PATCH", "/keys/{id}").json(&json!({ "enabled": true })),
    )
    .await;
    own.expect(
        200,
        of("PATCH", "/keys/{id}").json(&json!({ "scopes": [] })),
    )
    .await;
    own.expect(
        200,
        of("PATCH", "/keys/{id}").json(&json!({ "enabled": true })),
    )
    .await;
    own.expect(201, of("POST", "/keys/{id}/rotate")).await;
}

#[tokio::test]
async fn an_idempotency_key_of_another_user_is_another_one() {
    let own = Own::new().await;
    let issue = |user: &str| {
        let body = json!({ "name": "key" });
        ask(user, "POST", "/keys")
            .json(&body)
            .header("idempotency-key", "the-same")
    };
    let anns = own.expect(201, issue("ann")).await.json();
    let mine = own.expect(201, issue("u1")).await.json();
    assert_ne!(anns["record"]["id"], mine["record"]["id"]);
    assert_eq!(mine["record"]["owner"]["user_id"], "u1");
    let again = own.expect(200, issue("u1")).await.json();
    assert_eq!(
        (&again["key"], &again["record"]),
        (&Value::Null, &mine["record"])
    );
}

#[tokio::test]
async fn a_primary_key_is_the_primary_of_its_own_user() {
    let own = Own::new().await;
    let (first, _) = own.issue("ann", &json!({ "name": "key" })).await;
    let (second, _) = own.issue("u1", &json!({ "name": "key" })).await;
    let (third, _) = own.issue("u1", &json!({ "name": "key" })).await;
    own.expect(200, ask("u1", "POST", "/keys/{id}/primary").of(&third))
        .await;
    for (user, id, expected) in [
        ("ann", &first, true),
        ("u1", &second, false),
        ("u1", &third, true),
    ] {
        let shown = own
            .expect(200, ask(user, "GET", "/keys/{id}").of(id))
            .await
            .json();
        assert_eq!(shown["primary"], json!(expected), "{id}");
    }
}

#[tokio::test]
async fn the_document_says_how_users_authenticate() {
    let fixture = Fixture::new().await;
    let document = send(&fixture.own, &ask("u1", "GET", "/openapi.json"))
        .await
        .json();
    assert_eq!(document["security"], json!([{ "session": [] }]));
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes.as_object().unwrap().len(), 1);
    let scheme = &schemes["session"];
    assert_eq!(
        (&scheme["type"], &scheme["in"]),
        (&json!("apiKey"), &json!("cookie"))
    );
    assert_eq!(scheme["name"], "session");
}

#[tokio::test]
async fn a_refusal_names_the_member_that_it_is_about() {
    let own = Own::new().await;
    let of_others = json!({ "name": "x", "owner": { "user_id": "u2" } });
    let with_email = json!({ "name": "x", "owner": { "user_email": "other@example.com" } });
    for (status, body, field) in [
        (403, of_others, Some("owner.user_id")),
        (403, with_email, Some("owner.user_email")),
        (403, json!({ "name": "x", "kind": "app" }), Some("kind")),
        (422, json!({ "name": " " }), Some("name")),
        (
            422,
            json!({ "name": "x", "allowed_ips": ["x"] }),
            Some("allowed_ips"),
        ),
        (422, json!({ "name": "x", "nonsense": 1 }), None),
    ] {
        let answer = own.expect(status, ask("u1", "POST", "/keys").json(&body));
        let problem = answer.await.json();
        assert_eq!(problem["field"].as_str(), field, "{body}: {problem}");
    }
}
