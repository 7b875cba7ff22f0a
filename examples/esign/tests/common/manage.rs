//! What answers of the management API look like: problem documents, and pages of records.

use serde_json::Value;

use super::{Answer, Call, Server, assert_refused};

pub(crate) const PROBLEM: &str = "application/problem+json";

/// Asserts a problem document; returns its detail.
#[track_caller]
pub(crate) fn assert_problem(answer: &Answer, status: u16, code: &str, challenges: &[&str]) -> String {
    let title = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        422 => "Unprocessable Content",
        _ => panic!("unexpected {status}"),
    };
    assert_eq!(answer.status, status, "{}", answer.text().chars().take(500).collect::<String>());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":{},"code":"{code}"}}"#,
        Value::from(detail.as_str())
    );
    assert_refused(answer, status, PROBLEM, &body, challenges);
    detail
}

/// Asserts that a body is refused with 422, for a reason that names this field.
#[track_caller]
pub(crate) fn assert_invalid(server: &Server, body: &Value, field: &str) {
    let answer = server.admin("owner", Call::post("/keys").json(body));
    let detail = assert_problem(&answer, 422, "INVALID_BODY", &[]);
    assert!(detail.starts_with(field), "{detail:?} is not about {field}");
    assert!(detail.len() < 1000, "{} bytes of detail", detail.len());
    assert_eq!(ids(&list(server, "owner", "")), [""; 0], "nothing may be issued");
}

pub(crate) fn list(server: &Server, operator: &str, query: &str) -> Value {
    let answer = server.admin(operator, Call::get(&format!("/keys{query}")));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    assert_eq!(answer.fields("content-type"), ["application/json"]);
    answer.json()
}

pub(crate) fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}
