//! The gRPC column of the corpus. Every refusal of a `GET` or `POST` is repeated as a call to a
//! service whose host declared that it serves gRPC. The answer must be a trailers-only status with
//! the number for the row's HTTP status, its stable code, and its challenges and rate limit fields
//! as metadata.
//!
//! Sent over HTTP/1.1, because only the request's head decides how it is refused. `tests/grpc.rs`
//! has real gRPC clients and servers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;

use crate::all_rows;
use crate::configuration::SERVES_GRPC;
use crate::row::{Adapter, Row};
use crate::run::{Store, answers};
use crate::wire::Answer;

/// The gRPC status number for an HTTP status, as mapped in `google/rpc/code.proto`.
fn expected_status(http: &str) -> &'static str {
    match http {
        "400" => "3",
        "401" => "16",
        "403" => "7",
        "402" | "429" => "8",
        "503" => "14",
        other => panic!("no request is refused with {other}"),
    }
}

/// Sends the row as a call and returns the answer in HTTP's terms. Returns `None` if the row
/// passes, if a server or router answers by itself, or if the row is about another method or
/// content type.
fn as_call(row: &Row) -> Option<(Row, Answer)> {
    let answer = Answer::of_lines(row.answer(Adapter::Tower));
    let ours = answer
        .fields
        .iter()
        .any(|(name, _)| name == "cache-control");
    let line = row.request.iter().position(|&byte| byte == b'\n')? + 1;
    let (first, rest) = row.request.split_at(line);
    let target = first
        .strip_prefix(b"GET ")
        .or_else(|| first.strip_prefix(b"POST "))?;
    let has_type = rest
        .to_ascii_lowercase()
        .windows(13)
        .any(|at| at == b"content-type:");
    // HTTP/1.0 has no POST without a length, and gRPC does not use HTTP/1.0.
    let other = !ours || has_type || row.answers.len() > 1 || target.ends_with(b"HTTP/1.0\r\n");
    // Without its layer, nothing says that a route serves gRPC.
    let other = other || target.starts_with(b"/forgotten/");
    let request = [
        b"POST ",
        target,
        b"Content-Type: application/grpc\r\n",
        rest,
    ]
    .concat();
    (!other).then(|| {
        (
            Row {
                fixture: format!("{SERVES_GRPC}{}", row.fixture),
                request,
                ..row.clone()
            },
            answer,
        )
    })
}

/// Describes what is wrong with the answer to a call, if anything.
fn fault(http: &Answer, call: &Answer) -> Option<String> {
    let of = |answer: &Answer, name: &str| -> Vec<String> {
        answer
            .fields
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .collect()
    };
    let one = |name: &str| of(call, name).join(" and ");
    if call.status != "200" || !call.body.is_empty() || one("content-type") != "application/grpc" {
        return Some("is not a trailers-only response".into());
    }
    if one("grpc-status") != expected_status(&http.status) {
        return Some(format!("has grpc-status {}", one("grpc-status")));
    }
    for same in [
        "www-authenticate",
        "ratelimit",
        "ratelimit-policy",
        "x-user-id",
    ] {
        if of(http, same) != of(call, same) {
            return Some(format!("has another {same}"));
        }
    }
    // With a 200, these two fields would have another meaning.
    if !of(call, "retry-after").is_empty() || !of(call, "cache-control").is_empty() {
        return Some("has a field that is for errors of HTTP".into());
    }
    let seconds: Option<u64> = of(http, "retry-after")
        .first()
        .map(|wait| wait.parse().unwrap_or(0));
    let millis: Option<u64> = of(call, "grpc-retry-pushback-ms")
        .first()
        .map(|wait| wait.parse().unwrap_or(0));
    if seconds != millis.map(|millis| millis.div_ceil(1000)) {
        return Some(format!("says to retry in {millis:?} ms"));
    }
    let details = STANDARD_NO_PAD
        .decode(one("grpc-status-details-bin"))
        .unwrap_or_default();
    let has = |text: &str| {
        !text.is_empty() && details.windows(text.len()).any(|at| at == text.as_bytes())
    };
    let problem: Value = serde_json::from_str(&http.body).unwrap();
    let code = problem.get("code").and_then(Value::as_str);
    if code.is_some_and(|code| !has(code)) || !has("google.rpc.ErrorInfo") {
        return Some("does not tell the stable code".into());
    }
    // The message of the library's own format; other formats are for people who read HTTP
    // responses.
    let own = problem.get("violated-policies").is_some()
        || http.body.starts_with(r#"{"type":"about:blank""#);
    let detail = problem
        .get("detail")
        .and_then(Value::as_str)
        .filter(|_| own);
    if detail.is_some_and(|detail| one("grpc-message") != detail) || one("grpc-message").is_empty()
    {
        return Some(format!("says {:?}", one("grpc-message")));
    }
    None
}

#[actix_web::test]
async fn no_refusal_of_a_host_that_serves_no_grpc_changes_with_the_clients_content_type() {
    let calls: Vec<_> = all_rows().iter().filter_map(as_call).collect();
    for (row, _) in calls {
        // It is sent as a call nevertheless.
        let fixture = row.fixture[SERVES_GRPC.len()..].to_owned();
        let row = Row { fixture, ..row };
        for (adapter, answer) in Adapter::ALL
            .into_iter()
            .zip(answers(&row, Store::Now).await)
        {
            assert!(
                !answer
                    .fields
                    .iter()
                    .any(|(name, _)| name.starts_with("grpc-")),
                "=== {} ({adapter:?}):\n{answer}",
                row.name
            );
            assert!(
                answer.status.starts_with(['4', '5']),
                "=== {}: {answer}",
                row.name
            );
        }
    }
}

#[actix_web::test]
async fn every_refusal_is_the_same_decision_for_a_call_of_grpc() {
    let calls: Vec<_> = all_rows().iter().filter_map(as_call).collect();
    assert!(calls.len() >= 150, "{}", calls.len());
    for (row, http) in calls {
        for store in [Store::Now, Store::Late] {
            for (adapter, call) in Adapter::ALL.into_iter().zip(answers(&row, store).await) {
                if let Some(fault) = fault(&http, &call) {
                    panic!(
                        "=== {} ({adapter:?}, store answers {store:?}) {fault}:\n{call}",
                        row.name
                    );
                }
            }
        }
    }
}

#[actix_web::test]
async fn an_answer_to_a_call_that_is_altered_in_one_thing_is_at_fault() {
    let row = all_rows()
        .into_iter()
        .find(|row| row.name == "one too many")
        .unwrap();
    let (row, http) = as_call(&row).unwrap();
    let [right, ..] = answers(&row, Store::Now).await;
    assert_eq!(fault(&http, &right), None);
    assert!(right.fields.len() >= 7, "{right}");
    for at in 0..right.fields.len() {
        for value in ["", "9", "AAAA"] {
            let mut wrong = right.clone();
            wrong.fields[at].1 = value.into();
            assert!(fault(&http, &wrong).is_some(), "{wrong}");
        }
        let mut wrong = right.clone();
        wrong.fields.remove(at);
        assert!(fault(&http, &wrong).is_some(), "{wrong}");
    }
    let body = Answer {
        body: "x".into(),
        ..right.clone()
    };
    let status = Answer {
        status: "429".into(),
        ..right
    };
    assert!(fault(&http, &body).is_some() && fault(&http, &status).is_some());
}
