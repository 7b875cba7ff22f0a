//! Behavior common to all calls: who may make them, and their responses during outages.

use portunus::ErrorCode;
use serde_json::json;

use crate::fixture::{Ask, Fixture, Health, send};

/// Returns an id for the path of this call: that of a key, or of an account of credits.
pub(crate) fn id_for<'i>(template: &str, key: &'i str) -> &'i str {
    match template.starts_with("/credits/") {
        true => "tenant:tenant_ours",
        false => key,
    }
}

/// A request that succeeds.
pub(crate) async fn good(fixture: &Fixture, method: &str, template: &str) -> Ask {
    let ask = Ask::new(method, template);
    let bulk = json!({ "filter": { "status": "expired" }, "action": "revoke" });
    if template == "/keys/bulk/{id}" {
        let start = Ask::new("POST", "/keys/bulk").json(&bulk);
        let started = send(&fixture.router, &start).await.json();
        return ask.of(started["id"].as_str().unwrap());
    }
    if template.starts_with("/credits/") {
        return good_for_credits(fixture, ask.of("tenant:tenant_ours")).await;
    }
    let ask = if template.contains("{id}") {
        ask.of(&fixture.plain().await)
    } else {
        ask
    };
    match (method, template) {
        ("POST", "/keys/bulk") => ask.json(&bulk),
        ("POST", "/keys") => ask.json(&json!({ "name": "good" })),
        ("POST", "/import") => ask
            .json(&json!({ "name": "good", "digest": { "scheme": "sha256", "hex": fresh_hex() } })),
        ("POST", "/verify") => ask.json(&json!({ "key": "acme_live_unknown" })),
        ("PATCH", _) => ask.json(&json!({ "name": "better" })),
        _ => ask,
    }
}

async fn good_for_credits(fixture: &Fixture, ask: Ask) -> Ask {
    match ask.template.as_str() {
        "/credits/{id}/blocks/{block}/give_back" => ask.part(&fixture.abandoned_block().await),
        "/credits/{id}/grants/{grant}/void" => {
            let grant = Ask::new("POST", "/credits/{id}/grants").of("tenant:tenant_ours");
            let made = send(&fixture.router, &grant.json(&json!({ "units": 5 }))).await;
            ask.part(made.json()["id"].as_str().unwrap())
        }
        "/credits/{id}/grants" => ask.json(&json!({ "units": 5 })),
        _ => ask,
    }
}

/// Returns 64 unused hexadecimal digits.
pub(crate) fn fresh_hex() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:064x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn each_call_is_refused_for_want_of_proof_standing_quota_or_storage(
    fixture: &Fixture,
) {
    for (method, template, operation) in fixture.document.operations() {
        let ask = good(fixture, &method, &template).await;
        fixture.expect(401, ask.clone().by_nobody()).await;
        fixture.expect(401, ask.clone().by("stranger")).await;
        fixture
            .expect(
                400,
                ask.clone()
                    .by_nobody()
                    .header("authorization", "Basic Og=="),
            )
            .await;
        fixture.expect(403, ask.clone().by("member")).await;
        // Making the request may have taken longer than the quota's minute.
        send(&fixture.limited, &Ask::new("GET", "/keys")).await;
        let limited = send(&fixture.limited, &ask).await;
        assert_eq!(limited.status, 429, "{ask:?}");
        fixture.document.check(&ask, &limited);
        for field in ["retry-after", "ratelimit", "ratelimit-policy"] {
            assert!(limited.headers.contains_key(field), "{field}");
        }
        // The host's proof may refuse with any code.
        for code in ErrorCode::ALL {
            let refused = ask.clone().by(&format!("refused:{code}"));
            let answer = send(&fixture.router, &refused).await;
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (code.status(), &json!(code.as_str()))
            );
            let own = !operation["responses"][code.status().to_string()].is_null();
            let name = if own {
                code.status().to_string()
            } else {
                "default".into()
            };
            match code.status() {
                // Codes that only the proof returns would hide that the call itself never does.
                404 | 409 | 412 | 413 | 415 | 422 if own => {
                    fixture.document.check_unseen(&name, &refused, &answer);
                }
                _ => fixture.document.check_as(&name, &refused, &answer),
            }
        }
        fixture.feel(Health::Down);
        let down = fixture.ask(&ask).await;
        fixture.feel(Health::Well);
        match template.as_str() {
            "/openapi.json" => assert_eq!(down.status, 200),
            // A malformed key is inactive, whether or not the store is available.
            "/verify" => assert_eq!(down.json(), json!({ "active": false })),
            _ => assert_eq!(
                (down.status, &down.json()["code"]),
                (503, &json!("STORE_UNAVAILABLE")),
                "{ask:?}"
            ),
        }
        if method != "GET" {
            let text = ask.clone().raw("{}").header("content-type", "text/plain");
            fixture.expect(415, text).await;
            fixture
                .expect(412, ask.clone().header("if-match", "\"0\""))
                .await;
        }
        if operation["requestBody"].is_object() {
            let large = vec![b' '; (4 << 20) + 1];
            fixture.expect(413, ask.clone().raw(large)).await;
        }
        let done = fixture.ask(&ask).await;
        assert!(done.status < 300, "{ask:?}: {}", done.status);
        if template.contains("{id}") {
            for id in [
                "key_unknown",
                "%C3%A4",
                "a%20b",
                "a%2Fb",
                "%00",
                &"x".repeat(129),
            ] {
                fixture.expect(404, ask.clone().of(id)).await;
            }
            let again = good(fixture, &method, &template).await;
            fixture.expect(404, again.clone().by("outsider")).await;
        }
    }
}
