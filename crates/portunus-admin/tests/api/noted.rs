//! Every refusal is recorded as one event, without the presented data; and unknown secrets are
//! counted for the caller who verifies them.

use std::time::Duration;

use portunus::quota::{Quota, Quotas};
use serde_json::{Value, json};

use crate::failures::{HERE, LimitedApi, outcomes};

#[tokio::test]
async fn a_failed_proof_is_an_event_that_the_host_sees_and_no_tenant() {
    let api = LimitedApi::new();
    let secret = "Bearer op_5ca1ab1e5ca1ab1e";
    api.status(HERE, secret, "GET /keys/op_5ca1ab1e?query=op_5ca1ab1e")
        .await;
    api.status(HERE, "", "POST /op_5ca1ab1e").await;
    api.status(HERE, "down", "OP_5CA1AB1E /keys").await;
    api.trail.flush().await.unwrap();
    let (_, page) = api.send(HERE, "host", "GET /events", None).await;
    let events = page["items"].as_array().unwrap();
    let told = |member: &str| {
        events
            .iter()
            .map(|event| event[member].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(told("action"), ["manage", "manage", "manage"]);
    assert_eq!(told("outcome"), ["NOT_FOUND", "NOT_FOUND", "INVALID_KEY"]);
    assert_eq!(told("status"), [405, 404, 401]);
    assert_eq!(told("client_ip"), [HERE; 3]);
    assert_eq!(
        told("route"),
        [json!("/keys"), json!(null), json!("/keys/{id}")]
    );
    assert!(
        !page.to_string().to_lowercase().contains("5ca1ab1e"),
        "{page}"
    );
    for nobody in ["actor", "tenant_id", "key_id"] {
        assert_eq!(told(nobody), [(); 3].map(|()| Value::Null));
    }
    let (_, page) = api.send(HERE, "owner", "GET /events", None).await;
    assert_eq!(page["items"], json!([]));
}

#[tokio::test]
async fn a_flood_leaves_a_hundred_events_and_how_many_are_missing() {
    let api = LimitedApi::new();
    for _ in 0..300 {
        api.status(HERE, "stranger", "GET /keys").await;
    }
    let events = api.events().await;
    assert_eq!(events.len(), 101);
    assert_eq!(events.last().unwrap().count, Some(200));
}

#[tokio::test]
async fn every_refusal_of_a_proven_operator_is_one_event_of_its_own() {
    let api = LimitedApi::new();
    let (id, secret) = api.issue().await;
    api.events().await;
    let of = |ask: &str| ask.replace("{id}", &id);
    let text = format!("{{\"key\":\"{secret}\",\"method\":\"{secret} \"}}");
    for (by, ask, body, event) in [
        ("member", "GET /keys", None, "manage FORBIDDEN"),
        ("member", "GET /openapi.json", None, "manage FORBIDDEN"),
        (
            "owner",
            "GET /keys?limit=0",
            None,
            "key.read INVALID_REQUEST",
        ),
        (
            "owner",
            "GET /keys?acme_secret=a%2Bb",
            None,
            "key.read INVALID_REQUEST",
        ),
        ("owner", "GET /keys/key_unknown", None, "key.read NOT_FOUND"),
        ("owner", "GET /keys/%FF", None, "key.read NOT_FOUND"),
        ("outsider", "GET /keys/{id}", None, "key.read NOT_FOUND"),
        (
            "owner",
            "GET /keys/{id}/usage?from=x",
            None,
            "key.read INVALID_REQUEST",
        ),
        (
            "outsider",
            "GET /keys/{id}/usage",
            None,
            "key.read NOT_FOUND",
        ),
        (
            "owner",
            "GET /events?outcome=x",
            None,
            "manage INVALID_REQUEST",
        ),
        (
            "owner",
            "POST /keys",
            Some("{"),
            "key.issue INVALID_REQUEST",
        ),
        (
            "owner",
            "POST /keys",
            Some("{\"a\":1}"),
            "key.issue INVALID_BODY",
        ),
        (
            "owner",
            "POST /keys/bulk",
            Some("{\"filter\":{},\"action\":\"revoke\"}"),
            "key.bulk INVALID_BODY",
        ),
        (
            "owner",
            "POST /keys/bulk",
            Some("{\"filter\":{\"all\":true},\"action\":\"plan\"}"),
            "key.bulk INVALID_BODY",
        ),
        (
            "owner",
            "GET /keys/bulk/key_unknown",
            None,
            "key.read NOT_FOUND",
        ),
        (
            "owner",
            "POST /import",
            Some("[]"),
            "key.import INVALID_BODY",
        ),
        (
            "owner",
            "POST /verify",
            Some("{}"),
            "key.verify INVALID_BODY",
        ),
        (
            "owner",
            "POST /verify",
            Some(&text),
            "key.verify INVALID_BODY",
        ),
        (
            "owner",
            "PATCH /keys/{id}",
            Some("{\"a\":1}"),
            "key.update INVALID_BODY",
        ),
        (
            "owner",
            "POST /keys/{id}/revoke",
            Some("{\"a\":1}"),
            "key.revoke INVALID_BODY",
        ),
        (
            "owner",
            "POST /keys/{id}/rotate",
            Some("7"),
            "key.rotate INVALID_BODY",
        ),
        (
            "owner",
            "DELETE /keys/key_unknown",
            None,
            "key.delete NOT_FOUND",
        ),
        ("owner", "GET /nowhere", None, "manage NOT_FOUND"),
        ("owner", "DELETE /events", None, "manage NOT_FOUND"),
    ] {
        let (status, _) = api.send(HERE, by, &of(ask), body).await;
        assert!((400..500).contains(&status), "{ask}: {status}");
        let events = api.events().await;
        let told: Vec<_> = events
            .iter()
            .map(|event| format!("{} {}", event.action, event.outcome))
            .collect();
        assert_eq!(told, [event], "{ask}");
        let whole = serde_json::to_string(&events).unwrap();
        assert!(
            !whole.contains(&secret) && !whole.contains("acme_secret"),
            "{whole}"
        );
        let actor = events[0]
            .actor
            .as_ref()
            .and_then(|actor| actor.user_id.as_ref());
        assert_eq!(
            (actor.map(AsRef::as_ref), events[0].client_ip),
            (Some(by), HERE.parse().ok()),
            "{ask}"
        );
        assert!(events[0].tenant_id.is_some(), "{ask}");
        if ask.contains("{id}") && ask.starts_with("POST") {
            assert!(events[0].key_id.is_some(), "{ask}");
        }
    }
    // A successful read is not an event.
    for ask in [
        "GET /keys",
        "GET /keys/{id}",
        "GET /keys/{id}/usage",
        "GET /openapi.json",
    ] {
        assert_eq!(api.status(HERE, "owner", &of(ask)).await, 200);
    }
    assert_eq!(outcomes(&api.events().await), [""; 0]);
}

#[tokio::test]
async fn the_refusals_of_an_operator_beyond_its_quota_do_not_fill_the_log() {
    let one = Quotas::new([Quota::per_minute(1).unwrap()]).unwrap();
    let api = LimitedApi::with(|admin| admin.quotas(Some(one)));
    for _ in 0..301 {
        api.status(HERE, "owner", "GET /keys").await;
    }
    let events = api.events().await;
    assert_eq!(events.len(), 101);
    assert_eq!(events[0].outcome.as_str(), "RATE_LIMITED");
    assert_eq!(events.last().unwrap().count, Some(200));
}

#[tokio::test]
async fn unknown_keys_are_counted_for_the_operator_who_verifies_them_and_known_ones_are_shown() {
    let quota = Quotas::new([Quota::per_minute(3).unwrap()]).unwrap();
    let api = LimitedApi::with(|admin| admin.failed_verifications(Some(quota)));
    let (_, secret) = api.issue().await;
    let known = json!({ "key": secret }).to_string();
    let unknown = json!({ "key": format!("acme_live_{}", "x".repeat(32)) }).to_string();
    for body in [&unknown, "{\"key\":\"no key\"}", &known] {
        let (status, answer) = api.send(HERE, "owner", "POST /verify", Some(body)).await;
        assert_eq!((status, &answer["active"]), (200, &json!(body == known)));
    }
    // Another tenant's key is unknown too, and counts for the caller.
    for status in [200, 200, 200, 429] {
        assert_eq!(
            api.send(HERE, "outsider", "POST /verify", Some(&known))
                .await
                .0,
            status
        );
    }
    api.send(HERE, "owner", "POST /verify", Some(&unknown))
        .await;
    api.events().await;
    let (status, problem) = api
        .send(HERE, "owner", "POST /verify", Some(&unknown))
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (429, &json!("TOO_MANY_FAILURES"))
    );
    let events = api.events().await;
    assert_eq!(outcomes(&events), ["TOO_MANY_FAILURES"]);
    let (status, answer) = api.send(HERE, "owner", "POST /verify", Some(&known)).await;
    assert_eq!((status, &answer["active"]), (200, &json!(true)));
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 200);
    api.clock.advance(Duration::from_secs(61));
    assert_eq!(
        api.send(HERE, "owner", "POST /verify", Some(&unknown))
            .await
            .0,
        200
    );
}
