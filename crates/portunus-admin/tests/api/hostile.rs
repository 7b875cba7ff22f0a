//! Invalid input: every response is documented, and nothing is accepted that the document forbids.

use serde_json::{Value, json};

use crate::everywhere::{fresh_hex, good, id_for};
use crate::fixture::{Ask, Fixture};

/// Values that are invalid in most places.
fn odd_values() -> Vec<Value> {
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("\u{0}"),
        json!("\n"),
        json!("ä"),
        json!("\u{202e}x"),
        json!("x".repeat(200)),
        json!("x".repeat(1001)),
        json!("é".repeat(1000)),
        json!([]),
        json!([null]),
        json!([""]),
        json!(["a", "a"]),
        json!(["a b"]),
        json!([[]]),
        json!({}),
        json!({ "a": 1 }),
        json!({ "user_id": "" }),
        json!({ "requests_per_minute": 0 }),
        json!({ "requests_per_hour": 4_294_967_296_u64 }),
        json!({ "scheme": "sha256" }),
        json!("2027-01-15 08:00:00Z"),
        json!("2027-02-30T08:00:00Z"),
        json!("1969-12-31T23:59:59Z"),
        json!("9999-12-31T23:59:59Z"),
        json!("*"),
        json!("document:*"),
        json!("10.0.0.0/8"),
        json!(["10.0.0.0/33"]),
        json!(["0.0.0.0/0"]),
        json!("app"),
        json!("read-only"),
        deep,
    ]
}

#[tokio::test]
async fn no_value_of_any_member_brings_an_answer_that_is_not_documented() {
    let fixture = Fixture::new().await;
    for (method, template, operation) in fixture.document.operations() {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let Some(members) = fixture.document.resolved(schema)["properties"].as_object() else {
            continue;
        };
        let mut ask = good(&fixture, &method, &template).await;
        for name in members.keys().map(String::as_str).chain(["unknown", ""]) {
            for value in odd_values() {
                let mut body: Value = ask
                    .body
                    .as_deref()
                    .map_or(json!({}), |body| serde_json::from_slice(body).unwrap());
                body[name] = value;
                let answer = fixture.ask(&ask.clone().json(&body)).await;
                let allowed = fixture.document.faults(schema, &body).is_empty();
                assert!(
                    allowed || answer.status >= 400,
                    "{method} {template} took {body}"
                );
                if answer.status < 300 {
                    ask = good(&fixture, &method, &template).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn no_body_brings_an_answer_that_is_not_documented() {
    let fixture = Fixture::new().await;
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies: [&[u8]; 14] = [
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b"1",
        b"\"x\"",
        b"{}{}",
        b"\xff\xfe",
        b"{\"name\":\"a\",\"name\":\"b\"}",
        b"{\"name\":\"\\ud800\"}",
        b"{\"name\":1e999}",
        b"[\"n\"]",
        nested.as_bytes(),
    ];
    let large = vec![b' '; (4 << 20) + 1];
    for (method, template, operation) in fixture.document.operations() {
        let takes = operation["requestBody"].is_object();
        for body in bodies.iter().copied().chain([large.as_slice()]) {
            let ask = good(&fixture, &method, &template).await.raw(body);
            let ask = ask.header("content-type", "application/json");
            let answer = crate::fixture::send(&fixture.router, &ask).await;
            fixture
                .document
                .check_as(&answer.status.to_string(), &ask, &answer);
            let nothing = body.trim_ascii().is_empty() && body.len() < 10;
            let may_be_left_out = operation["requestBody"]["required"] == false;
            let fine = !takes || (nothing && may_be_left_out);
            assert_eq!(
                answer.status < 300,
                fine,
                "{method} {template} {:?}",
                String::from_utf8_lossy(&body[..body.len().min(40)])
            );
        }
    }
}

#[tokio::test]
async fn no_parameter_brings_an_answer_that_is_not_documented() {
    let fixture = Fixture::new().await;
    let id = fixture.plain().await;
    let odd = [
        "",
        "0",
        "1",
        "-1",
        "500",
        "501",
        "1.0",
        "+5",
        "007",
        "18446744073709551616",
        "%00",
        "%FF",
        "%C3%A4",
        "%",
        "%zz",
        "a+b",
        "a%20b",
        "*",
        "1.key_x",
        "99999999999999999999.key_x",
        "1.",
        "active",
        "ACTIVE",
        "ok",
        "OK",
        "key.issue",
        "2027-01-15T08:00:00Z",
        "2027-01-15T08:00:00+01:00",
        "9999-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "live",
    ];
    for (method, template, operation) in fixture.document.operations() {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let names = parameters
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| &parameter["name"]);
        for name in names.map(|name| name.as_str().unwrap()) {
            for value in odd {
                let ask = Ask::new(&method, &template)
                    .of(id_for(&template, &id))
                    .query(&format!("{name}={value}"));
                let answer = crate::fixture::send(&fixture.router, &ask).await;
                fixture
                    .document
                    .check_as(&answer.status.to_string(), &ask, &answer);
            }
        }
        if !template.contains("/events")
            && operation["parameters"].to_string().contains("\"query\"")
        {
            fixture
                .expect(
                    400,
                    Ask::new(&method, &template)
                        .of(id_for(&template, &id))
                        .query("unknown=1"),
                )
                .await;
        }
    }
}

#[tokio::test]
async fn no_field_of_a_request_brings_an_answer_that_is_not_documented() {
    let fixture = Fixture::new().await;
    let odd: [&[u8]; 12] = [
        b"",
        b" ",
        b"*",
        b"\"1\"",
        b"W/\"1\"",
        b"\"1",
        b",,",
        b"\"1\",\"2\"",
        b"\xff",
        b"a b",
        b"\t",
        b"\"0\", *",
    ];
    for (method, template) in [
        ("POST", "/keys"),
        ("POST", "/keys/{id}/rotate"),
        ("PATCH", "/keys/{id}"),
    ] {
        for name in [
            "if-match",
            "idempotency-key",
            "content-type",
            "accept",
            "x-request-id",
            "content-encoding",
        ] {
            for value in odd {
                let ask = good(&fixture, method, template).await.header(name, value);
                let answer = crate::fixture::send(&fixture.router, &ask).await;
                fixture
                    .document
                    .check_as(&answer.status.to_string(), &ask, &answer);
                let twice = good(&fixture, method, template)
                    .await
                    .header(name, value)
                    .header(name, "second");
                let answer = crate::fixture::send(&fixture.router, &twice).await;
                fixture
                    .document
                    .check_as(&answer.status.to_string(), &twice, &answer);
            }
        }
    }
    let import = Ask::new("POST", "/import").header("idempotency-key", "x");
    let body = json!({ "name": "n", "digest": { "scheme": "sha256", "hex": fresh_hex() } });
    let answer = crate::fixture::send(&fixture.router, &import.json(&body)).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn an_id_that_is_not_text_is_unknown() {
    let fixture = Fixture::new().await;
    for (method, template, _) in fixture
        .document
        .operations()
        .into_iter()
        .filter(|(_, path, _)| path.contains("{id}"))
    {
        fixture
            .expect(404, good(&fixture, &method, &template).await.of("%FF"))
            .await;
    }
}
