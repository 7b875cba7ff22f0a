//! Failing calls of the management API: limited per client address, and never for a valid operator.

use crate::common::manage::{assert_problem, events, items};
use crate::common::{Answer, Call, Server};
use serde_json::json;

#[track_caller]
fn assert_too_many(answer: &Answer) {
    let code = &answer.json()["code"];
    assert_eq!((answer.status, code), (429, &json!("TOO_MANY_FAILURES")));
    let seconds: u64 = answer.fields("retry-after")[0].parse().unwrap();
    assert!((1..=61).contains(&seconds), "{seconds}");
}

#[test]
fn an_address_that_fails_too_often_is_limited_but_operators_there_are_not() {
    let server = Server::start("allsign", &[], &[("RUST_LOG", "warn")]);
    let token = |number: usize| format!("Bearer op_{number:064}");
    let failing = |number: usize| {
        let call = match number % 5 {
            0 => Call::get("/admin/keys"),
            1 => Call::get("/admin/nowhere"),
            2 => Call::new("PUT", "/admin/keys"),
            3 => Call::get("/admin/"),
            _ => Call::new("PUT", "/demo/users/u1"),
        };
        server.send(&call.authorization(token(number)))
    };
    for number in 0..100 {
        let expected = [401, 404, 405, 404, 401][number % 5];
        assert_eq!(failing(number).status, expected, "{number}");
    }
    (100..400).for_each(|number| assert_too_many(&failing(number)));
    // The owner has not made a call before.
    let issued = server.issue(json!({}));
    for _ in 0..150 {
        let answer = server.admin("owner", Call::post("/keys").json(&json!([])));
        assert_problem(&answer, 422, "INVALID_BODY", &[]);
    }
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
    assert_too_many(&failing(400));
    // A tenant sees the acts of its own operators, and none of unauthenticated callers.
    let page = events(&server, "owner", "?action=manage");
    assert_eq!(items(&page), &[] as &[serde_json::Value]);
    let page = events(
        &server,
        "owner",
        "?action=key.issue&outcome=invalid_body&limit=500",
    );
    assert!((100..=150).contains(&items(&page).len()));
    assert!(server.log().contains("INVALID_KEY"), "{}", server.log());
    assert!(!server.log().contains("op_000"), "{}", server.log());
}
