//! A partial update never widens a key: fields that are not named stay unchanged, at any depth.

use std::time::Duration;

use portunus::quota::{Quota, Quotas};
use serde_json::{Value, json};

use crate::everywhere::fresh_hex;
use crate::fixture::{Ask, Fixture};

async fn patch(fixture: &Fixture, id: &str, body: &Value) -> Value {
    let ask = Ask::new("PATCH", "/keys/{id}").of(id).json(body);
    fixture.expect(200, ask).await.json()
}

/// A fixture whose keys have 60 a minute, 1000 an hour and 5000 a day.
async fn with_a_day() -> Fixture {
    let day = Quota::new("day", 5000, Duration::from_secs(86_400)).unwrap();
    let usual = Quotas::default();
    let all = usual.as_slice().iter().cloned().chain([day]);
    Fixture::limiting(Quotas::new(all).unwrap()).await
}

fn limits(minute: u64, hour: u64) -> Value {
    json!({ "requests_per_minute": minute, "requests_per_hour": hour })
}

#[tokio::test]
async fn limits_that_are_not_named_stay() {
    let fixture = Fixture::new().await;
    for (own, change, expected) in [
        // For a key with 5 a minute and 50 an hour:
        (true, json!({ "requests_per_minute": 6 }), limits(6, 50)),
        (true, json!({ "requests_per_hour": 40 }), limits(5, 40)),
        (true, json!({}), limits(5, 50)),
        // `null` restores the default of one window or of all.
        (true, json!({ "requests_per_minute": null }), limits(60, 50)),
        (true, json!({ "requests_per_hour": null }), limits(5, 1000)),
        (
            true,
            json!({ "requests_per_minute": null, "requests_per_hour": 7 }),
            limits(60, 7),
        ),
        (
            true,
            json!({ "requests_per_minute": null, "requests_per_hour": null }),
            limits(60, 1000),
        ),
        (true, Value::Null, limits(60, 1000)),
        // For a key without limits of its own:
        (false, json!({ "requests_per_minute": 6 }), limits(6, 1000)),
        (false, json!({}), limits(60, 1000)),
        (false, Value::Null, limits(60, 1000)),
        (
            false,
            json!({ "requests_per_hour": null }),
            limits(60, 1000),
        ),
    ] {
        let mut body = json!({ "name": "key" });
        if own {
            body["rate_limit_config"] = limits(5, 50);
        }
        let (id, _) = fixture.key(body).await;
        let changed = patch(&fixture, &id, &json!({ "rate_limit_config": change })).await;
        assert_eq!(changed["rate_limit_config"], expected, "{own}: {change}");
        let show = Ask::new("GET", "/keys/{id}").of(&id);
        assert_eq!(fixture.expect(200, show).await.json(), changed);
    }
}

#[tokio::test]
async fn windows_of_the_hosts_own_are_shown_and_stay() {
    let fixture = with_a_day().await;
    let all = |minute: u64, hour: u64, day: u64| {
        json!({
            "requests_per_minute": minute, "requests_per_hour": hour, "requests_per_day": day,
        })
    };
    for (issued, shown) in [
        (Value::Null, all(60, 1000, 5000)),
        (json!({ "requests_per_minute": 5 }), all(5, 1000, 5000)),
        (json!({ "requests_per_day": 50 }), all(60, 1000, 50)),
        (json!({ "requests_per_day": null }), all(60, 1000, 5000)),
    ] {
        let body = json!({ "name": "key", "rate_limit_config": issued });
        let (id, _) = fixture.key(body.clone()).await;
        let show = || Ask::new("GET", "/keys/{id}").of(&id);
        let record = fixture.expect(200, show()).await.json();
        assert_eq!(record["rate_limit_config"], shown, "{issued}");
        let mut import = body;
        import["digest"] = json!({ "scheme": "sha256", "hex": fresh_hex() });
        let import = Ask::new("POST", "/import").json(&import);
        let imported = fixture.expect(201, import).await.json();
        assert_eq!(imported["record"]["rate_limit_config"], shown, "{issued}");
        let list = fixture.expect(200, Ask::new("GET", "/keys")).await.json();
        assert_eq!(list["items"][1]["rate_limit_config"], shown, "{issued}");
        // A record that was read can be sent back.
        let back = patch(&fixture, &id, &json!({ "rate_limit_config": shown })).await;
        assert_eq!(back["rate_limit_config"], shown);
        let hour = patch(
            &fixture,
            &id,
            &json!({ "rate_limit_config": { "requests_per_hour": 100 } }),
        )
        .await;
        assert_eq!(
            hour["rate_limit_config"]["requests_per_day"],
            shown["requests_per_day"]
        );
    }
    for (member, status) in [("requests_per_day", 200), ("requests_per_week", 422)] {
        let ask = Ask::new("PATCH", "/keys/{id}").of(&fixture.plain().await);
        let body = json!({ "rate_limit_config": { member: 9 } });
        fixture.expect(status, ask.json(&body)).await;
    }
}

#[tokio::test]
async fn metadata_is_merged_at_every_depth() {
    let fixture = Fixture::new().await;
    let before = json!({ "team": "billing", "contact": { "name": "Ann", "tags": [1, 2] } });
    for (change, expected) in [
        (json!({}), before.clone()),
        (
            json!({ "cost": 7 }),
            json!({ "team": "billing", "contact": { "name": "Ann", "tags": [1, 2] }, "cost": 7 }),
        ),
        (
            json!({ "team": null }),
            json!({ "contact": { "name": "Ann", "tags": [1, 2] } }),
        ),
        (
            json!({ "contact": { "name": "Bob" } }),
            json!({ "team": "billing", "contact": { "name": "Bob", "tags": [1, 2] } }),
        ),
        (
            json!({ "contact": { "tags": [null], "name": null } }),
            json!({ "team": "billing", "contact": { "tags": [null] } }),
        ),
        (
            json!({ "contact": "nobody" }),
            json!({ "team": "billing", "contact": "nobody" }),
        ),
        // RFC 7396 §2: an object that replaces another type is merged into an empty one.
        (
            json!({ "team": { "a": { "b": null, "c": 1 } } }),
            json!({ "team": { "a": { "c": 1 } }, "contact": { "name": "Ann", "tags": [1, 2] } }),
        ),
        (json!({ "unknown": null }), before.clone()),
        (Value::Null, json!({})),
    ] {
        let (id, _) = fixture
            .key(json!({ "name": "key", "metadata": before }))
            .await;
        let changed = patch(&fixture, &id, &json!({ "metadata": change })).await;
        assert_eq!(changed["metadata"], expected, "{change}");
    }
}

#[tokio::test]
async fn metadata_has_its_bound_after_the_merge_too() {
    let fixture = Fixture::new().await;
    let half = "x".repeat(9000);
    let (id, _) = fixture
        .key(json!({ "name": "key", "metadata": { "one": half } }))
        .await;
    let ask = Ask::new("PATCH", "/keys/{id}").of(&id);
    let fault = fixture
        .expect(422, ask.json(&json!({ "metadata": { "two": half } })))
        .await
        .json();
    assert!(
        fault["detail"].as_str().unwrap().starts_with("metadata"),
        "{fault}"
    );
}

#[tokio::test]
async fn required_fields_cannot_be_null() {
    let fixture = Fixture::new().await;
    let id = fixture.plain().await;
    for member in ["name", "scopes", "access", "enabled"] {
        let ask = Ask::new("PATCH", "/keys/{id}").of(&id);
        fixture
            .expect(422, ask.json(&json!({ member: null })))
            .await;
    }
}
