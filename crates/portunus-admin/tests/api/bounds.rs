//! The document and the server agree on values: what the schema of a member allows is accepted, and
//! what it does not allow is refused.

use portunus_test_support::random::Random;
use serde_json::{Value, json};

use crate::everywhere::fresh_hex;
use crate::fixture::{Ask, Fixture, send};

/// Characters that the rules on texts tell apart, and some that they do not.
const CHARACTERS: [char; 34] = [
    'a',
    'Z',
    '9',
    '"',
    'é',
    '\u{5d0}',
    '\u{1f511}',
    ' ',
    '\t',
    '\n',
    '\r',
    '\u{0}',
    '\u{1b}',
    '\u{7f}',
    '\u{85}',
    '\u{a0}',
    '\u{ad}',
    '\u{61c}',
    '\u{180b}',
    '\u{200b}',
    '\u{200c}',
    '\u{200d}',
    '\u{2028}',
    '\u{202e}',
    '\u{2060}',
    '\u{2800}',
    '\u{2801}',
    '\u{28ff}',
    '\u{3000}',
    '\u{fe0f}',
    '\u{feff}',
    '\u{fff9}',
    '\u{e0041}',
    '\u{e0100}',
];

/// Whether a request with this body is allowed by the document, and whether it was accepted.
async fn judged(fixture: &Fixture, ask: Ask, body: &Value) -> (bool, bool) {
    let operation = fixture.document.operation(&ask.method, &ask.template);
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let is_allowed = fixture.document.faults(schema, body).is_empty();
    let answer = send(&fixture.router, &ask.json(body)).await;
    assert!(matches!(answer.status, 200 | 201 | 422), "{body}");
    (is_allowed, answer.status != 422)
}

/// Checks a member of `POST /keys` with each of these values.
async fn agree(fixture: &Fixture, values: impl IntoIterator<Item = Value>) {
    let (mut accepted, mut refused) = (0, 0);
    for members in values {
        let mut body = json!({ "name": "n" });
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        let ask = Ask::new("POST", "/keys");
        let (is_allowed, is_accepted) = judged(fixture, ask, &body).await;
        assert_eq!(is_allowed, is_accepted, "allowed, accepted: {body}");
        *(if is_accepted {
            &mut accepted
        } else {
            &mut refused
        }) += 1;
    }
    assert!(accepted > 0 && refused > 0, "{accepted}, {refused}");
}

#[tokio::test]
async fn texts_are_allowed_if_and_only_if_they_are_accepted() {
    let fixture = Fixture::new().await;
    let mut random = Random(7);
    let mut text = |most: u64| -> String {
        let length = random.below(most);
        let any = |_| random.pick(&CHARACTERS);
        (0..length).map(any).collect()
    };
    let mut all = Vec::new();
    for _ in 0..400 {
        // Short ones, of which many are accepted.
        all.push(json!({ "name": text(4) }));
        all.push(json!({ "description": text(4) }));
        all.push(json!({ "owner": { "user_email": text(4) } }));
        all.push(json!({ "name": format!("a{}b", text(4)) }));
        all.push(json!({ "description": format!("\u{2801}{}\u{2801}", text(5)) }));
    }
    for length in [999, 1000, 1001] {
        all.push(json!({ "name": "n".repeat(length) }));
        all.push(json!({ "description": "é".repeat(length) }));
    }
    agree(&fixture, all).await;
}

#[tokio::test]
async fn networks_and_times_are_allowed_if_and_only_if_they_are_accepted() {
    let fixture = Fixture::new().await;
    let networks = [
        "10.0.0.0/8",
        "10.0.0.1",
        "0.0.0.0/0",
        "255.255.255.255/32",
        "10.0.0.0/33",
        "10.0.0.256",
        "01.2.3.4",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4/",
        "1.2.3.4/08",
        "1.2.3.4/-1",
        "",
        "a",
        " ",
        "::",
        "::/0",
        "::1",
        "1::",
        "1::8",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        "2001:DB8::/32",
        "2001:db8::/129",
        "2001:db8::/128",
        ":::",
        "12345::",
        "::ffff:1.2.3.4",
        "1:2:3:4:5:6:1.2.3.4",
        "1::5:1.2.3.4",
        "1:2:3:4:5:1.2.3.4",
        "::1.2.3.4/96",
        "::1.2.3.256",
        "1:2:3:4:5:6:7:1.2.3.4",
        "fe80::1%eth0",
        "[::1]",
    ];
    let networks = networks.map(|network| json!({ "allowed_ips": [network] }));
    agree(&fixture, networks).await;
    let times = [
        "2100-01-15T08:00:00Z",
        "2100-01-15t08:00:00.123456789012z",
        "2100-01-15T08:00:00+23:59",
        "2100-13-15T08:00:00Z",
        "2100-00-15T08:00:00Z",
        "2100-01-32T08:00:00Z",
        "2100-01-15T24:00:00Z",
        "2100-01-15T08:60:00Z",
        "2100-01-15T08:00:61Z",
        "2100-01-15T08:00:00+24:00",
        "2100-01-15T08:00:00+01:60",
        "2100-01-15T08:00:00.Z",
        "2100-01-15T08:00:00",
        "2100-01-15",
        "2100-01-15 08:00:00Z",
        "9999-12-31T23:59:59.999Z",
        "10000-01-01T00:00:00Z",
        "",
    ];
    let times = times.map(|time| json!({ "expires_at": time }));
    agree(&fixture, times).await;
}

#[tokio::test]
async fn what_depends_on_the_service_is_allowed_if_and_only_if_it_is_accepted() {
    let fixture = Fixture::new().await;
    let owner = json!({ "user_id": "u1" });
    let values = [
        json!({ "kind": "app" }),
        json!({ "kind": null }),
        json!({ "kind": "user" }),
        json!({ "kind": "user", "owner": null }),
        json!({ "kind": "user", "owner": { "user_id": null } }),
        json!({ "kind": "user", "owner": owner }),
        json!({ "kind": "access_token", "owner": owner }),
        json!({ "kind": "admin" }),
        json!({ "environment": "live" }),
        json!({ "environment": "nowhere" }),
        json!({ "environment": null }),
        json!({ "rate_limit_config": { "requests_per_minute": 6, "requests_per_hour": null } }),
        json!({ "rate_limit_config": { "requests_per_day": 6 } }),
        json!({ "rate_limit_config": { "requests_per_minute": 0 } }),
    ];
    agree(&fixture, values).await;
    for (scheme, digest) in [
        ("sha256", json!({ "hex": fresh_hex() })),
        ("sha256", json!({ "hex": &fresh_hex()[1..] })),
        ("sha256", json!({ "hex": fresh_hex().repeat(2) })),
        ("sha512", json!({ "hex": fresh_hex() })),
        (
            "sha256",
            json!({ "base64": "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=" }),
        ),
        (
            "sha256",
            json!({ "base64": "n5bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg" }),
        ),
        (
            "sha256",
            json!({ "base64": "n6bQgYhMfWWaL+qgxVrQFaO_TxsrC4Is0V1sFbDwCgg" }),
        ),
        (
            "sha256",
            json!({ "base64": "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgh=" }),
        ),
        ("hmac-sha256:01", json!({ "hex": fresh_hex() })),
        ("hmac-sha256:+1", json!({ "hex": fresh_hex() })),
        ("hmac-sha256:9", json!({ "hex": fresh_hex() })),
        ("bcrypt", json!({ "hex": fresh_hex() })),
    ] {
        let mut digest = digest;
        digest["scheme"] = scheme.into();
        let body = json!({ "name": "n", "digest": digest });
        let ask = Ask::new("POST", "/import");
        let (is_allowed, is_accepted) = judged(&fixture, ask, &body).await;
        assert_eq!(is_allowed, is_accepted, "allowed, accepted: {body}");
    }
    for (seconds, expected) in [(3_155_760_000_u64, true), (3_155_760_001, false)] {
        let body = json!({ "grace_seconds": seconds });
        let ask = Ask::new("POST", "/keys/{id}/rotate").of(&fixture.plain().await);
        assert_eq!(
            judged(&fixture, ask, &body).await,
            (expected, expected),
            "{seconds}"
        );
    }
}

#[tokio::test]
async fn every_parameter_of_a_list_is_checked_whatever_the_others_are() {
    let fixture = Fixture::new().await;
    for (template, wrong) in [
        ("/events", "key_id=%C2%B0"),
        ("/events", "outcome=nonsense&key_id=%C2%B0"),
        ("/events", "cursor=1234567890123456789"),
        ("/events", "cursor=%2B1"),
        ("/keys", "cursor=9999999999999999.key_1"),
        ("/keys", "cursor=%2B1.key_1"),
        ("/keys", "cursor=1_1234567.key_1"),
        ("/keys", "owner=a%20b"),
        ("/keys", "plan=Gold"),
        ("/keys", "family=%C2%B0"),
        ("/keys", "kind=odd&status=active"),
        ("/keys", "expires_before=2026-02-30T00:00:00Z"),
        ("/keys", "unused_since=1969-12-31T23:59:59Z"),
        ("/keys", "unused_since=2026-02-28T00:00:00%2B24:00"),
    ] {
        let ask = Ask::new("GET", template).query(wrong);
        assert_eq!(send(&fixture.router, &ask).await.status, 400, "{wrong}");
    }
    for (template, right) in [
        ("/events", "key_id=unknown"),
        ("/events", "cursor=123456789012345678"),
        ("/keys", "cursor=249999999999999_999999.key_1"),
        (
            "/keys",
            "owner=unknown&plan=gold&family=f&kind=access_token",
        ),
        ("/keys", "expires_before=9999-12-31T23:59:59.999Z"),
        ("/keys", "unused_since=1970-01-01T00:00:00Z"),
    ] {
        let ask = Ask::new("GET", template).query(right);
        assert_eq!(send(&fixture.router, &ask).await.status, 200, "{right}");
    }
}

/// Each name is compared with those before it, so their number is bounded.
#[tokio::test]
async fn a_body_of_very_many_windows_is_refused_at_once() {
    let fixture = Fixture::new().await;
    let windows = |count: usize| -> Value {
        let each = (0..count).map(|at| (format!("requests_per_{at}"), json!(1)));
        json!({ "name": "n", "rate_limit_config": each.collect::<serde_json::Map<_, _>>() })
    };
    let ask = Ask::new("POST", "/keys").json(&windows(100_000));
    assert!(ask.body.as_ref().is_some_and(|body| body.len() < 4 << 20));
    let began = std::time::Instant::now();
    let answer = send(&fixture.router, &ask).await;
    assert_eq!(answer.status, 422);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("at most 64 members"), "{detail}");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}
