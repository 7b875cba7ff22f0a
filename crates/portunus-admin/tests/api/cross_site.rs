//! Writes from pages of other sites: refused before any other check, with every kind of operator
//! proof.

use axum::body::Body;
use axum::http::Request;
use portunus_admin::Origin;
use serde_json::json;
use tower::ServiceExt;

use crate::everywhere::good;
use crate::fixture::{Ask, Fixture, NEST, TRUSTED, send};

const UNSAFE: [(&str, &str); 8] = [
    ("POST", "/keys"),
    ("POST", "/import"),
    ("POST", "/verify"),
    ("PATCH", "/keys/{id}"),
    ("DELETE", "/keys/{id}"),
    ("POST", "/keys/{id}/revoke"),
    ("POST", "/keys/{id}/rotate"),
    ("POST", "/keys/{id}/primary"),
];

/// Fields of a request, whether it was sent to `keys.example`, and whether it passes.
type Row = (&'static [(&'static str, &'static str)], bool);

const TO_KEYS_EXAMPLE: &[Row] = &[
    (&[], true),
    // A trusted origin passes before other fields are checked.
    (&[("origin", "https://console.example")], true),
    (
        &[
            ("origin", "https://console.example"),
            ("sec-fetch-site", "cross-site"),
        ],
        true,
    ),
    (
        &[
            ("origin", "HTTPS://Console.Example:443"),
            ("sec-fetch-site", "same-site"),
        ],
        true,
    ),
    (
        &[
            ("origin", "http://[0:0:0:0:0:0:0:1]:3000"),
            ("sec-fetch-site", "cross-site"),
        ],
        true,
    ),
    (&[("origin", "http://console.example")], false),
    (&[("origin", "https://console.example:444")], false),
    (&[("origin", "https://console.example.evil.example")], false),
    (&[("origin", "https://console.example/")], false),
    (
        &[("origin", "https://console.example https://evil.example")],
        false,
    ),
    (
        &[("origin", "https://console.example, https://evil.example")],
        false,
    ),
    (
        &[
            ("origin", "https://console.example"),
            ("origin", "https://evil.example"),
        ],
        false,
    ),
    (
        &[
            ("origin", "https://evil.example"),
            ("origin", "https://console.example"),
        ],
        false,
    ),
    (&[("origin", "http://[::1]")], false),
    // Then Sec-Fetch-Site decides.
    (&[("sec-fetch-site", "same-origin")], true),
    (&[("sec-fetch-site", "none")], true),
    (
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://evil.example"),
        ],
        true,
    ),
    (
        &[("sec-fetch-site", "same-origin"), ("origin", "null")],
        true,
    ),
    (&[("sec-fetch-site", "same-site")], false),
    (&[("sec-fetch-site", "cross-site")], false),
    (
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://keys.example"),
        ],
        false,
    ),
    (
        &[
            ("sec-fetch-site", "same-site"),
            ("origin", "https://keys.example"),
        ],
        false,
    ),
    (&[("sec-fetch-site", "")], false),
    (&[("sec-fetch-site", "Same-Origin")], false),
    (&[("sec-fetch-site", "same-origin, cross-site")], false),
    (
        &[
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "cross-site"),
        ],
        false,
    ),
    (
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-site", "none")],
        false,
    ),
    (&[("sec-fetch-site", "anything")], false),
    // Then the request's own host and port.
    (&[("origin", "https://keys.example")], true),
    (&[("origin", "https://keys.example:443")], true),
    (&[("origin", "http://keys.example")], true),
    (&[("origin", "http://KEYS.example:80")], true),
    (&[("origin", "http://keys.example:443")], false),
    (&[("origin", "https://keys.example:80")], false),
    (&[("origin", "https://keys.example:8443")], false),
    (&[("origin", "https://evil.example")], false),
    (&[("origin", "https://keys.example.evil.example")], false),
    (&[("origin", "https://evilkeys.example")], false),
    (&[("origin", "https://keys.example@evil.example")], false),
    (&[("origin", "ftp://keys.example")], false),
    (&[("origin", "null")], false),
    (&[("origin", "")], false),
    (&[("origin", "keys.example")], false),
    (&[("origin", "//keys.example")], false),
    (
        &[
            ("origin", "https://keys.example"),
            ("origin", "https://evil.example"),
        ],
        false,
    ),
    (
        &[("origin", "https://keys.example"), ("origin", "null")],
        false,
    ),
];

#[tokio::test]
async fn a_write_of_another_site_is_refused_and_does_nothing() {
    for (method, template) in UNSAFE {
        let fixture = Fixture::new().await;
        for (fields, passes) in TO_KEYS_EXAMPLE {
            let ask = good(&fixture, method, template)
                .await
                .header("host", "keys.example");
            let ask = fields
                .iter()
                .fold(ask, |ask, (name, value)| ask.header(name, value));
            let before = fixture.keys().await;
            let answer = send(&fixture.router, &ask).await;
            fixture
                .document
                .check_as(&answer.status.to_string(), &ask, &answer);
            let context = format!("{method} {template} {fields:?}");
            if *passes {
                assert!(answer.status < 300, "{context}: {}", answer.status);
                continue;
            }
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (403, &json!("CROSS_SITE")),
                "{context}"
            );
            assert_eq!(fixture.keys().await, before, "{context}");
        }
    }
}

#[tokio::test]
async fn the_site_is_judged_before_the_operator_the_key_and_the_body() {
    let fixture = Fixture::new().await;
    let from_elsewhere = |ask: Ask| {
        ask.header("origin", "https://evil.example")
            .header("host", "keys.example")
    };
    for ask in [
        Ask::new("POST", "/keys").by_nobody(),
        Ask::new("POST", "/keys").by("stranger"),
        Ask::new("POST", "/keys").by("member").raw("{"),
        Ask::new("DELETE", "/keys/{id}").of("key_unknown"),
        Ask::new("PATCH", "/keys/{id}")
            .of("%FF")
            .header("if-match", "\"9\""),
        Ask::new("POST", "/keys")
            .raw("x")
            .header("content-type", "text/plain"),
    ] {
        let answer = send(&fixture.router, &from_elsewhere(ask.clone())).await;
        assert_eq!(answer.json()["code"], "CROSS_SITE", "{ask:?}");
    }
}

#[tokio::test]
async fn reads_may_come_from_any_site() {
    let fixture = Fixture::new().await;
    let id = fixture.plain().await;
    for method in ["GET", "HEAD"] {
        for template in [
            "/keys",
            "/keys/{id}",
            "/keys/{id}/usage",
            "/events",
            "/openapi.json",
        ] {
            let ask = Ask::new(method, template)
                .of(&id)
                .header("origin", "null")
                .header("sec-fetch-site", "cross-site");
            assert_eq!(
                send(&fixture.router, &ask).await.status,
                200,
                "{method} {template}"
            );
        }
    }
    for method in ["OPTIONS", "TRACE"] {
        let ask = Ask::new(method, "/keys").header("origin", "null");
        assert_eq!(send(&fixture.router, &ask).await.status, 405, "{method}");
    }
}

/// The request's own host and port in every notation, an origin, and whether they are equal.
#[tokio::test]
async fn a_requests_own_host_is_its_authority_or_its_only_host_field() {
    let fixture = Fixture::new().await;
    for (authority, hosts, origin, same) in [
        (
            "",
            &["keys.example:8443"][..],
            "https://keys.example:8443",
            true,
        ),
        ("", &["keys.example:443"], "https://keys.example", true),
        ("", &["keys.example:443"], "http://keys.example", false),
        ("", &["keys.example:80"], "http://keys.example", true),
        ("", &["keys.example:80"], "https://keys.example", false),
        ("", &["keys.example:"], "https://keys.example", true),
        ("", &["KEYS.EXAMPLE"], "https://keys.example", true),
        ("", &["keys.example"], "https://keys.example:8443", false),
        ("", &["keys.example."], "https://keys.example", false),
        ("", &["[::1]:8080"], "http://[::1]:8080", true),
        ("", &["[0:0:0:0:0:0:0:1]:8080"], "http://[::1]:8080", true),
        ("", &["[::1]"], "http://[::1]:80", true),
        ("", &["[::1]:8080"], "http://[::1]:8081", false),
        ("", &["[::1]:8080"], "http://[::2]:8080", false),
        ("", &["[::1"], "http://[::1", false),
        ("", &["127.0.0.1:8080"], "http://127.0.0.1:8080", true),
        ("", &["127.0.0.1:8080"], "http://localhost:8080", false),
        ("", &["127.0.0.1:8080"], "http://127.0.0.1:8081", false),
        ("", &["127.0.0.1:65536"], "http://127.0.0.1:65536", false),
        // Without a host, no origin is equal; with two, the host is ambiguous.
        ("", &[], "https://keys.example", false),
        ("", &[""], "https://keys.example", false),
        (
            "",
            &["keys.example", "keys.example"],
            "https://keys.example",
            false,
        ),
        (
            "",
            &["keys.example", "evil.example"],
            "https://evil.example",
            false,
        ),
        ("", &["user@keys.example"], "https://keys.example", false),
        // HTTP/2's authority and that of an absolute target take precedence over the field.
        ("http://keys.example", &[], "https://keys.example", true),
        (
            "https://keys.example:8443",
            &[],
            "https://keys.example:8443",
            true,
        ),
        (
            "http://keys.example",
            &["evil.example"],
            "https://evil.example",
            false,
        ),
        (
            "http://keys.example",
            &["evil.example"],
            "https://keys.example",
            true,
        ),
        ("http://[::1]:8080", &[], "http://[::1]:8080", true),
    ] {
        let body = json!({ "name": "n" }).to_string();
        let mut request = Request::post(format!("{authority}{NEST}/keys"))
            .header("authorization", "Bearer owner")
            .header("content-type", "application/json")
            .header("origin", origin);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(Body::from(body)).unwrap();
        let status = fixture
            .router
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .status();
        let expected = if same { 201 } else { 403 };
        assert_eq!(status, expected, "{authority:?} {hosts:?} {origin}");
    }
}

#[test]
fn a_trusted_origin_is_a_scheme_a_host_and_a_port_and_nothing_else() {
    for (text, shown) in [
        ("https://console.example", "https://console.example"),
        ("HTTPS://Console.Example:443", "https://console.example"),
        ("http://console.example:80", "http://console.example"),
        ("http://console.example:443", "http://console.example:443"),
        ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
        ("https://[2001:DB8:0::1]:8443", "https://[2001:db8::1]:8443"),
        (
            "https://xn--exmple-cua.example",
            "https://xn--exmple-cua.example",
        ),
    ] {
        assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        "null",
        "*",
        "console.example",
        "//console.example",
        "https:console.example",
        "https://",
        "https://:443",
        "https://console.example/",
        "https://console.example/path",
        "https://console.example?",
        "https://console.example#",
        "https://user@console.example",
        "https://*.example",
        "https://console.example:port",
        "https://console.example:+443",
        "https://console.example:65536",
        "https://exämple.example",
        "https://[::1",
        "https://[::1]443",
        "https://::1",
        "https://a b",
        "https://a,b",
        " https://console.example",
        "chrome-extension://abcdefgh",
        "file:///etc/passwd",
    ] {
        let error = text.parse::<Origin>().unwrap_err();
        assert!(error.to_string().starts_with("invalid origin: "), "{text}");
    }
    assert!(
        TRUSTED
            .iter()
            .all(|origin| origin.parse::<Origin>().is_ok())
    );
}
