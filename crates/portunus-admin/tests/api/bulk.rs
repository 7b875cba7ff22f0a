//! Operations on many keys.

use serde_json::{Value, json};

use crate::everywhere::fresh_hex;
use crate::fixture::{Ask, Fixture, send};

fn start(body: &Value) -> Ask {
    Ask::new("POST", "/keys/bulk").json(body)
}

/// Runs the service's jobs until the operation has ended.
async fn ended(fixture: &Fixture, id: &str) -> Value {
    for _ in 0..100 {
        let ask = Ask::new("GET", "/keys/bulk/{id}").of(id);
        let operation = fixture.expect(200, ask).await.json();
        if !operation["ended_at"].is_null() {
            return operation;
        }
        fixture.clock.advance(std::time::Duration::from_secs(1));
        fixture.keys.maintain().await;
    }
    panic!("operation {id} does not end");
}

pub(crate) async fn many_keys_are_changed(fixture: &Fixture) {
    let mut ids = Vec::new();
    for number in 0..3 {
        let name = format!("bulky {number}");
        ids.push(fixture.key(json!({ "name": name })).await.0);
    }
    let filter = json!({ "query": "BULKY", "status": "active", "kind": "app" });
    let dry = json!({ "filter": filter, "action": "disable", "dry_run": true });
    let counted = fixture.expect(200, start(&dry)).await.json();
    assert_eq!(counted, json!({ "count": 3 }));

    let body = json!({ "filter": filter, "action": "disable" });
    let once = start(&body).header("idempotency-key", "bulk-1");
    let answer = fixture.expect(202, once.clone()).await;
    let operation = answer.json();
    let id = operation["id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("bulk/{id}"));
    assert_eq!(
        (&operation["done"], &operation["left"]),
        (&json!(0), &Value::Null)
    );
    let again = fixture.expect(202, once).await.json();
    assert_eq!(again["id"], id);
    let other = start(&dry).header("idempotency-key", "bulk-1");
    fixture.expect(200, other).await;
    let other = json!({ "filter": filter, "action": "enable" });
    fixture
        .expect(422, start(&other).header("idempotency-key", "bulk-1"))
        .await;

    let operation = ended(fixture, id).await;
    assert_eq!(
        (&operation["done"], &operation["left"], &operation["failed"]),
        (&json!(3), &json!(0), &json!(0))
    );
    for id in &ids {
        let key = fixture
            .expect(200, Ask::new("GET", "/keys/{id}").of(id))
            .await
            .json();
        assert_eq!(key["status"], "disabled");
    }

    // By digest; one of them is unknown.
    let hex = fresh_hex();
    let digest = json!({ "scheme": "sha256", "hex": hex });
    let import = json!({ "name": "bulky", "digest": digest });
    let import = Ask::new("POST", "/import").json(&import);
    let imported = fixture.expect(201, import).await.json();
    let digests = json!([digest, { "scheme": "sha256", "hex": fresh_hex() }]);
    let body = json!({ "filter": { "digests": digests }, "action": "revoke", "reason": "leaked" });
    let operation = fixture.expect(202, start(&body)).await.json();
    let operation = ended(fixture, operation["id"].as_str().unwrap()).await;
    assert_eq!(
        (&operation["done"], &operation["failed"]),
        (&json!(1), &json!(1))
    );
    let failure = json!({ "key": "digest 2", "reason": "no key has it" });
    assert_eq!(operation["failures"], json!([failure]));
    let key = Ask::new("GET", "/keys/{id}").of(imported["record"]["id"].as_str().unwrap());
    let key = fixture.expect(200, key).await.json();
    assert_eq!(key["status"], "revoked");

    let body = json!({ "filter": { "query": "bulky" }, "action": "plan", "plan": null });
    let operation = fixture.expect(202, start(&body)).await.json();
    let operation = ended(fixture, operation["id"].as_str().unwrap()).await;
    assert_eq!(
        (&operation["done"], &operation["failed"]),
        (&json!(3), &json!(1))
    );
    let body = json!({ "filter": { "all": true }, "action": "enable", "dry_run": true });
    let counted = fixture.expect(200, start(&body)).await.json();
    assert!(counted["count"].as_u64().unwrap() > 4, "{counted}");

    // A tenant has at most 20 open ones.
    let body = json!({ "filter": filter, "action": "disable" });
    let mut last = String::new();
    for _ in 0..20 {
        let started = fixture.expect(202, start(&body)).await.json();
        started["id"].as_str().unwrap().clone_into(&mut last);
    }
    let refused = fixture.expect(409, start(&body)).await.json();
    assert_eq!(refused["code"], "CONFLICT");
    ended(fixture, &last).await;
    fixture.expect(202, start(&body)).await;
}

#[tokio::test]
async fn requests_that_could_mean_too_much_are_refused() {
    let fixture = Fixture::new().await;
    fixture.plain().await;
    let digest = json!({ "scheme": "sha256", "hex": fresh_hex() });
    let many = vec![digest.clone(); 1_001];
    for (body, field) in [
        (json!({ "action": "revoke" }), "body"),
        (json!({ "filter": {}, "action": "revoke" }), "filter"),
        (json!({ "filter": null, "action": "revoke" }), "body"),
        (
            json!({ "filter": { "all": false }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "all": null }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "query": "" }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "owner": "" }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "status": "gone" }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "limit": 5 }, "action": "revoke" }),
            "body",
        ),
        (
            json!({ "filter": { "tenant": "other" }, "action": "revoke" }),
            "body",
        ),
        (
            json!({ "filter": { "all": true, "kind": "app" }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "digests": [digest], "kind": "app" }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "digests": [digest], "all": true }, "action": "revoke" }),
            "filter",
        ),
        (
            json!({ "filter": { "digests": [] }, "action": "revoke" }),
            "digests",
        ),
        (
            json!({ "filter": { "digests": many }, "action": "revoke" }),
            "digests",
        ),
        (
            json!({ "filter": { "all": true }, "action": "delete" }),
            "body",
        ),
        (
            json!({ "filter": { "all": true }, "action": "plan" }),
            "plan",
        ),
        (
            json!({ "filter": { "all": true }, "action": "revoke", "plan": null }),
            "plan",
        ),
        (
            json!({ "filter": { "all": true }, "action": "disable", "reason": "x" }),
            "reason",
        ),
        (
            json!({ "filter": { "all": true }, "action": "plan", "plan": "A b" }),
            "plan",
        ),
        (
            json!({ "filter": { "all": true }, "action": "revoke", "dry_run": "no" }),
            "body",
        ),
    ] {
        let answer = fixture.expect(422, start(&body)).await.json();
        let detail = answer["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&format!("{field}: ")),
            "{body}: {detail}"
        );
    }
    assert!(fixture.open_operations().await.is_empty());
}

#[tokio::test]
async fn an_operation_of_another_tenant_is_unknown() {
    let fixture = Fixture::new().await;
    let body = json!({ "filter": { "all": true }, "action": "disable" });
    let started = fixture.expect(202, start(&body)).await.json();
    let id = started["id"].as_str().unwrap();
    for (by, status) in [("owner", 200), ("outsider", 404)] {
        let ask = Ask::new("GET", "/keys/bulk/{id}").of(id).by(by);
        assert_eq!(send(&fixture.router, &ask).await.status, status, "{by}");
    }
}
