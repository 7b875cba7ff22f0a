//! Checks for responses of the management API: problem documents, and pages of records.

use serde_json::Value;

use super::{Answer, Call, Server, assert_refused};

pub(crate) const PROBLEM: &str = "application/problem+json";

/// Asserts a problem document and returns its detail.
#[track_caller]
pub(crate) fn assert_problem(
    answer: &Answer,
    status: u16,
    code: &str,
    challenges: &[&str],
) -> String {
    let title = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        _ => panic!("unexpected {status}"),
    };
    assert_eq!(
        answer.status,
        status,
        "{}",
        answer.text().chars().take(500).collect::<String>()
    );
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    // Which member of the request is wrong, if it is about one.
    let field = match &answer.json()["field"] {
        Value::Null => String::new(),
        field => format!(r#","field":{field}"#),
    };
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":{},"code":"{code}"{field}}}"#,
        Value::from(detail.as_str())
    );
    assert_refused(answer, status, PROBLEM, &body, challenges);
    detail
}

/// Asserts that a body is refused with 422, with a detail that names this field.
#[track_caller]
pub(crate) fn assert_invalid(server: &Server, body: &Value, field: &str) {
    let answer = server.admin("owner", Call::post("/keys").json(body));
    let detail = assert_problem(&answer, 422, "INVALID_BODY", &[]);
    assert!(detail.starts_with(field), "{detail:?} is not about {field}");
    assert!(detail.len() < 1000, "{} bytes of detail", detail.len());
    assert_eq!(
        ids(&list(server, "owner", "")),
        [""; 0],
        "nothing may be issued"
    );
}

pub(crate) fn list(server: &Server, operator: &str, query: &str) -> Value {
    let answer = server.admin(operator, Call::get(&format!("/keys{query}")));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    assert_eq!(answer.fields("content-type"), ["application/json"]);
    answer.json()
}

pub(crate) fn ids(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect()
}

/// Returns a page of events that this operator can see.
#[track_caller]
pub(crate) fn events(server: &Server, operator: &str, query: &str) -> Value {
    let answer = server.admin(operator, Call::get(&format!("/events{query}")));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    answer.json()
}

/// Returns the events of a page.
pub(crate) fn items(page: &Value) -> &[Value] {
    page["items"].as_array().unwrap()
}

/// Returns the outcome of each event of a page, the latest first.
pub(crate) fn outcomes(page: &Value) -> Vec<&str> {
    items(page)
        .iter()
        .map(|event| event["outcome"].as_str().unwrap())
        .collect()
}

/// Sends a change of a key as the owner.
pub(crate) fn patch(server: &Server, id: &str, body: &Value) -> Answer {
    server.admin(
        "owner",
        Call::new("PATCH", &format!("/keys/{id}")).json(body),
    )
}

/// Changes a key as the owner, and asserts success.
#[track_caller]
pub(crate) fn change(server: &Server, id: &str, body: &Value) -> Value {
    let answer = patch(server, id, body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

/// Sends a rotation of a key as the owner, with this body.
pub(crate) fn rotate(server: &Server, id: &str, body: &Value) -> Answer {
    server.admin(
        "owner",
        Call::post(&format!("/keys/{id}/rotate")).json(body),
    )
}

/// Sends a request as the owner to make a key primary.
pub(crate) fn make_primary(server: &Server, id: &str) -> Answer {
    server.admin("owner", Call::post(&format!("/keys/{id}/primary")))
}

/// Sends a deletion of a key as the owner.
pub(crate) fn delete(server: &Server, id: &str) -> Answer {
    server.admin("owner", Call::new("DELETE", &format!("/keys/{id}")))
}
