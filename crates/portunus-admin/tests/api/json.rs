//! Bodies and queries are interpreted exactly: nothing is lost or changed.

use serde_json::{Value, json};

use crate::everywhere::{fresh_hex, good, id_for};
use crate::fixture::{Ask, Fixture, send};

/// Returns the refusal of a body: its status and detail.
async fn refusal(fixture: &Fixture, ask: Ask) -> (u16, String) {
    let answer = send(&fixture.router, &ask).await;
    let detail = answer.json()["detail"].as_str().unwrap_or_default().into();
    (answer.status, detail)
}

fn import(rest: &str) -> Ask {
    let digest = json!({ "scheme": "sha256", "hex": fresh_hex() });
    Ask::new("POST", "/import").raw(format!(r#"{{"digest":{digest},{rest}}}"#))
}

#[tokio::test]
async fn duplicate_members_are_refused_everywhere_and_at_every_depth() {
    let fixture = Fixture::new().await;
    for rest in [
        r#""name":"a","name":"b""#,
        r#""name":"a","name":"a""#,
        r#""name":"a","n\u0061me":"b""#,
        r#""name":"n","metadata":{},"metadata":{}"#,
        r#""name":"n","metadata":{"a":1,"a":2}"#,
        r#""name":"n","metadata":{"a":[[{"b":{"c":1,"d":2,"c":3}}]]}"#,
        r#""name":"n","metadata":{"":1,"":2}"#,
        r#""name":"n","owner":{"user_email":"a@b.c","user_email":"d@b.c"}"#,
        r#""name":"n","rate_limit_config":{"requests_per_minute":1,"requests_per_minute":2}"#,
    ] {
        let id = fixture.plain().await;
        let asks = [
            Ask::new("POST", "/keys").raw(format!("{{{rest}}}")),
            Ask::new("PATCH", "/keys/{id}")
                .of(&id)
                .raw(format!("{{{rest}}}")),
            import(rest),
        ];
        for ask in asks {
            let (status, detail) = refusal(&fixture, ask.clone()).await;
            assert_eq!(status, 422, "{ask:?}: {detail}");
            // A change has no owner, whose name comes first.
            let is_named = detail.contains("duplicate field")
                || (ask.method == "PATCH" && detail.contains("unknown field `owner`"));
            assert!(is_named, "{ask:?}: {detail}");
        }
        let show = Ask::new("GET", "/keys/{id}").of(&id);
        assert_eq!(fixture.expect(200, show).await.json()["version"], 1);
    }
    let others = [
        import(r#""name":"n","digest":{"scheme":"sha256"}"#),
        Ask::new("POST", "/verify").raw(r#"{"key":"a","key":"b"}"#),
        Ask::new("POST", "/keys/{id}/revoke")
            .of(&fixture.plain().await)
            .raw(r#"{"reason":"a","reason":"b"}"#),
        Ask::new("POST", "/keys/{id}/rotate")
            .of(&fixture.plain().await)
            .raw(r#"{"grace_seconds":1,"grace_seconds":2}"#),
    ];
    for ask in others {
        assert_eq!(refusal(&fixture, ask.clone()).await.0, 422, "{ask:?}");
    }
}

#[tokio::test]
async fn numbers_in_metadata_are_kept() {
    let fixture = Fixture::new().await;
    for number in [
        "31.245270191439438",
        "0.1",
        "1e-320",
        "5e-324",
        "1.7976931348623157e308",
        "2.2250738585072014e-308",
        "9007199254740993",
        "9223372036854775807",
        "18446744073709551615",
        "-9223372036854775808",
        "0",
        "-1",
        "1e3",
    ] {
        let metadata = format!(r#"{{"n":{number},"deep":[{{"n":{number}}}]}}"#);
        let rest = format!(r#""name":"n","metadata":{metadata}"#);
        for ask in [
            Ask::new("POST", "/keys").raw(format!("{{{rest}}}")),
            import(&rest),
        ] {
            let made = fixture.expect(201, ask).await.json();
            let ask = Ask::new("GET", "/keys/{id}").of(made["record"]["id"].as_str().unwrap());
            let shown = send(&fixture.router, &ask).await.json();
            let (top, deep) = (&shown["metadata"]["n"], &shown["metadata"]["deep"][0]["n"]);
            assert_eq!(top, deep);
            match number.parse::<i128>() {
                Ok(_) => assert_eq!(top.to_string(), number),
                Err(_) => assert_eq!(top.as_f64().unwrap(), number.parse::<f64>().unwrap()),
            }
        }
    }
    for number in [
        "18446744073709551616",
        "-9223372036854775809",
        "99999999999999999999",
        "12345678901234567890123456789012345678901234567890",
        &"9".repeat(400),
        "1e400",
    ] {
        for metadata in [
            format!(r#"{{"n":{number}}}"#),
            format!(r#"{{"a\"1":[1,{{"n":[{number}]}}]}}"#),
        ] {
            let rest = format!(r#""name":"n","metadata":{metadata}"#);
            let id = fixture.plain().await;
            for ask in [
                Ask::new("POST", "/keys").raw(format!("{{{rest}}}")),
                Ask::new("PATCH", "/keys/{id}")
                    .of(&id)
                    .raw(format!("{{{rest}}}")),
                import(&rest),
            ] {
                let (status, detail) = refusal(&fixture, ask.clone()).await;
                assert_eq!(status, 422, "{ask:?}: {detail}");
            }
        }
    }
    // In strings they are not numbers.
    let text = json!({ "name": "n", "metadata": { "n": "\\\"99999999999999999999\"" } });
    fixture
        .expect(201, Ask::new("POST", "/keys").json(&text))
        .await;
}

#[tokio::test]
async fn json_has_one_kind_of_number() {
    let fixture = Fixture::new().await;
    for (number, whole) in [
        ("60", Some(60)),
        ("60.0", Some(60)),
        ("6e1", Some(60)),
        ("6.0E+1", Some(60)),
        ("60.5", None),
        ("60.00001", None),
        ("-60.0", None),
        ("\"60\"", None),
        ("1e20", None),
        ("true", None),
    ] {
        let limits = format!(r#"{{"rate_limit_config":{{"requests_per_minute":{number}}}}}"#);
        let id = fixture.plain().await;
        let change = Ask::new("PATCH", "/keys/{id}").of(&id).raw(limits);
        let rotate = Ask::new("POST", "/keys/{id}/rotate")
            .of(&id)
            .raw(format!(r#"{{"grace_seconds":{number}}}"#));
        match whole {
            None => {
                fixture.expect(422, change).await;
                fixture.expect(422, rotate).await;
            }
            Some(whole) => {
                let changed = fixture.expect(200, change).await.json();
                let limits = &changed["rate_limit_config"];
                assert_eq!(limits["requests_per_minute"], json!(whole), "{number}");
                fixture.expect(201, rotate).await;
            }
        }
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_named() {
    let fixture = Fixture::new().await;
    for (method, template) in [
        ("POST", "/keys"),
        ("PATCH", "/keys/{id}"),
        ("POST", "/import"),
        ("POST", "/verify"),
        ("POST", "/keys/{id}/revoke"),
        ("POST", "/keys/{id}/rotate"),
    ] {
        for mark in [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"] {
            let ask = good(&fixture, method, template).await;
            let body = [mark, ask.body.as_deref().unwrap_or(b"{}")].concat();
            let (status, detail) = refusal(&fixture, ask.raw(body)).await;
            assert_eq!(status, 400, "{method} {template}");
            assert!(detail.contains("byte order mark"), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_plus_in_a_query_is_named_where_it_cannot_be_a_space() {
    let fixture = Fixture::new().await;
    let (id, _) = fixture.key(json!({ "name": "two words" })).await;
    for (template, query) in [
        ("/keys/{id}/usage", "from=2027-01-15T08:00:00+01:00"),
        ("/keys/{id}/usage", "to=2027-01-15T08:00:00+01:00"),
        ("/keys", "limit=+5"),
        ("/keys", "status=active+"),
        ("/keys", "cursor=1+2"),
        ("/events", "actor=ann+keys@example.com"),
        ("/events", "actor=ann+keys%40example.com"),
    ] {
        let ask = Ask::new("GET", template).of(&id).query(query);
        let (status, detail) = refusal(&fixture, ask).await;
        assert_eq!(status, 400, "{query}");
        assert!(detail.contains("%2B"), "{query}: {detail}");
    }
    // In a text search, it means a space, as in form encoding.
    for query in ["query=two+words", "query=two%20words"] {
        let page = send(&fixture.router, &Ask::new("GET", "/keys").query(query)).await;
        assert_eq!(page.json()["items"].as_array().unwrap().len(), 1, "{query}");
    }
    let escaped = Ask::new("GET", "/keys/{id}/usage").of(&id);
    let escaped = escaped.query("from=2027-01-15T08:00:00%2B01:00&to=2027-01-16T08:00:00Z");
    assert_eq!(send(&fixture.router, &escaped).await.status, 200);
}

#[tokio::test]
async fn an_empty_parameter_is_absent_and_the_document_says_so() {
    let fixture = Fixture::new().await;
    let id = fixture.plain().await;
    for (method, template, operation) in fixture.document.operations() {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            assert_eq!(parameter["allowEmptyValue"], true, "{template} {name}");
            let about = parameter["description"].as_str().unwrap();
            assert!(about.contains("empty"), "{template} {name}: {about}");
            let ask = Ask::new(&method, &template).of(id_for(&template, &id));
            let usual = fixture.expect(200, ask.clone()).await.json();
            for query in [
                format!("{name}="),
                name.to_owned(),
                format!("{name}=&{name}="),
            ] {
                let answer = fixture.expect(200, ask.clone().query(&query)).await.json();
                assert_eq!(answer, usual, "{template}?{query}");
            }
        }
    }
    let every = "status=&environment=&query=&limit=&cursor=";
    let all = fixture
        .expect(200, Ask::new("GET", "/keys").query(every))
        .await;
    let given = fixture
        .expect(200, Ask::new("GET", "/keys").query("limit=&limit=50"))
        .await;
    assert_eq!(all.json(), given.json());
    assert_ne!(all.json()["items"], Value::Array(Vec::new()));
}
