//! Credits of a tenant: operators grant them over HTTP, and requests spend them.

use crate::common::manage::assert_problem;
use crate::common::{Call, Server};
use serde_json::{Value, json};

const OURS: &str = "/credits/tenant:tenant_abc123";

fn start() -> Server {
    Server::start("allsign", &["--credits"], &[])
}

fn grant(body: &Value) -> Call {
    Call::post(&format!("{OURS}/grants")).json(body)
}

fn available(server: &Server) -> u64 {
    let shown = server.admin("owner", Call::get(OURS));
    assert_eq!(shown.status, 200, "{}", shown.text());
    shown.json()["available"].as_u64().unwrap()
}

#[test]
fn requests_spend_what_an_owner_grants() {
    let server = start();
    let key = server.issue(json!({ "scopes": ["document:read"] })).key;
    let request = || server.get("/v2/documents", &key);
    let refused = request();
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(
        refused.fields("retry-after").is_empty(),
        "no period refills them"
    );
    let three = json!({ "units": 3 });
    let made = server.admin("owner", grant(&three).field("Idempotency-Key", "pay-1"));
    assert_eq!(made.status, 201, "{}", made.text());
    let again = server.admin("owner", grant(&three).field("Idempotency-Key", "pay-1"));
    assert_eq!((again.status, again.json()), (200, made.json()));
    let other = grant(&json!({ "units": 4 })).field("Idempotency-Key", "pay-1");
    assert_problem(&server.admin("owner", other), 422, "INVALID_BODY", &[]);
    for left in [2, 1, 0] {
        let answer = request();
        assert_eq!(answer.status, 200);
        let (state, policy) = (
            answer.fields("ratelimit")[0],
            answer.fields("ratelimit-policy")[0],
        );
        assert!(state.ends_with(&format!("\"credits\";r={left}")), "{state}");
        assert!(policy.ends_with("\"credits\";q=3"), "{policy}");
    }
    assert_eq!(request().status, 429);
    let ledger = server.admin("owner", Call::get(&format!("{OURS}/ledger?limit=1")));
    let page = ledger.json();
    assert_eq!(
        (&page["items"][0]["kind"], &page["next_cursor"]),
        (&json!("granted"), &json!("1"))
    );
}

#[test]
fn others_neither_see_nor_change_the_credits_of_a_tenant() {
    let server = start();
    let made = server.admin("owner", grant(&json!({ "units": 3, "id": "invoice-7" })));
    assert_eq!(made.status, 201, "{}", made.text());
    let void = || Call::post(&format!("{OURS}/grants/invoice-7/void"));
    for call in [Call::get(OURS), grant(&json!({ "units": 1 })), void()] {
        assert_problem(&server.admin("outsider", call), 404, "NOT_FOUND", &[]);
    }
    for call in [grant(&json!({ "units": 1 })), void()] {
        assert_problem(&server.admin("admin", call), 403, "FORBIDDEN", &[]);
    }
    assert_eq!(server.admin("admin", Call::get(OURS)).status, 200);
    let stale = void().field("If-Match", "\"1\"");
    assert_problem(
        &server.admin("owner", stale),
        412,
        "PRECONDITION_FAILED",
        &[],
    );
    assert_eq!(available(&server), 3);
    let voided = server.admin("owner", void());
    assert_eq!((voided.status, voided.json()), (200, json!({ "units": 3 })));
    assert_problem(&server.admin("owner", void()), 404, "NOT_FOUND", &[]);
    assert_eq!(available(&server), 0);
}

#[test]
fn without_the_flag_there_are_no_credits() {
    let server = Server::of("allsign");
    assert_problem(
        &server.admin("owner", Call::get(OURS)),
        404,
        "NOT_FOUND",
        &[],
    );
    let answer = server.get("/whoami", &server.issue(json!({})).key);
    assert!(!answer.fields("ratelimit")[0].contains("credits"));
}
