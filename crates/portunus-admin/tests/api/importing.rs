//! Importing many keys as lines of JSON and as CSV.

use axum::Router;
use axum::http::Request;
use http_body_util::BodyExt;
use portunus::audit::{Action, AuditEvent, AuditTrail, MemoryAudit};
use portunus::key::{Alphabet, KeyFormat, KeyHasher, Pepper, TenantId, UserId};
use portunus::manage::{Operator, Role, own_keys};
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus_admin::{Admin, ImportFormat, KeyImport};
use portunus_test_support::Setup;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::content::{Then, chunks};
use crate::everywhere::fresh_hex;
use crate::fixture::{Ask, Fixture, Health, NEST, Names, send};

const LINES: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

fn import(media: &str, body: impl Into<Vec<u8>>) -> Ask {
    Ask::new("POST", "/import")
        .header("content-type", media)
        .raw(body)
}

fn line(name: &str) -> Value {
    json!({ "name": name, "digest": { "scheme": "sha256", "hex": fresh_hex() } })
}

/// The numbers of a report.
fn counts(report: &Value) -> (u64, u64, u64) {
    let count = |name: &str| report[name].as_u64().unwrap();
    (count("created"), count("already_there"), count("refused"))
}

/// The refusals of a report: line, code and reason.
fn refusals(report: &Value) -> Vec<(u64, String, String)> {
    let all = report["refusals"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.map(|one| {
        (
            one["line"].as_u64().unwrap(),
            text(&one["code"]),
            text(&one["detail"]),
        )
    })
    .collect()
}

pub(crate) async fn many_keys_are_imported(fixture: &Fixture) {
    let lines: String = (0..3)
        .map(|number| format!("{}\n", line(&format!("l{number}"))))
        .collect();
    let report = fixture
        .expect(200, import(LINES, lines.clone()))
        .await
        .json();
    assert_eq!(counts(&report), (3, 0, 0));
    let report = fixture.expect(200, import(LINES, lines)).await.json();
    assert_eq!(counts(&report), (0, 3, 0));
    // A row of CSV is the same import as its object.
    let hex = fresh_hex();
    let object = json!({
        "name": "one, \"two\"\n",
        "description": "a\nb",
        "kind": "user",
        "owner": { "user_id": "u1" },
        "scopes": ["a", "b"],
        "workspaces": ["ws1"],
        "allowed_ips": ["192.0.2.0/24", "2001:db8::/32"],
        "rate_limit_config": { "requests_per_minute": 7 },
        "metadata": { "a": [1] },
        "digest": { "scheme": "sha256", "hex": hex },
        "created_at": "1970-01-01T00:00:00Z",
        "last_used_at": "1970-01-01T00:00:01Z",
        "request_count": 12,
        "revoked_at": "1970-01-01T00:00:02Z",
        "revoke_reason": "leaked",
        "key_family": "f",
        "last_four": "abcd",
    });
    let header = "name,description,kind,owner.user_id,scopes,workspaces,allowed_ips,\
        rate_limit_config.requests_per_minute,metadata,digest.scheme,digest.hex,created_at,\
        last_used_at,request_count,revoked_at,revoke_reason,key_family,last_four,plan";
    let row = format!(
        "\"one, \"\"two\"\"\n\",\"a\nb\",user,u1,a  b,ws1,192.0.2.0/24 2001:db8::/32,7,\
         \"{{\"\"a\"\":[1]}}\",sha256,{hex},1970-01-01T00:00:00Z,1970-01-01T00:00:01Z,12,\
         1970-01-01T00:00:02Z,leaked,f,abcd,"
    );
    let csv = format!("\u{feff}{header}\r\n{row}");
    let report = fixture.expect(200, import(CSV, csv)).await.json();
    assert_eq!(counts(&report), (1, 0, 0), "{report}");
    let report = fixture
        .expect(200, import(LINES, object.to_string()))
        .await
        .json();
    assert_eq!(counts(&report), (0, 1, 0), "{report}");
    let listed = Ask::new("GET", "/keys").query("status=revoked&query=two");
    let key = fixture.expect(200, listed).await.json()["items"][0].clone();
    let shown = [
        "created_at",
        "last_used_at",
        "revoked_at",
        "revoke_reason",
        "status",
    ];
    let shown = shown.map(|name| key[name].as_str().unwrap().to_owned());
    let at = |second: u8| format!("1970-01-01T00:00:0{second}.000Z");
    assert_eq!(
        shown,
        [at(0), at(1), at(2), "leaked".into(), "revoked".into()]
    );
    assert_eq!(
        (&key["request_count"], &key["masked"]),
        (&json!(12), &json!("…abcd"))
    );
    // One key with its history.
    let mut one = line("with a history");
    one["created_at"] = json!("1970-01-01T00:00:00Z");
    one["status"] = json!("disabled");
    let ask = Ask::new("POST", "/import").json(&one);
    assert_eq!(
        fixture.expect(201, ask).await.json()["record"]["status"],
        "disabled"
    );
}

#[tokio::test]
async fn a_line_that_is_refused_stops_no_other() {
    let fixture = Fixture::new().await;
    let good = || line("good").to_string();
    let with = |change: fn(&mut Value)| {
        let mut object = line("bad");
        change(&mut object);
        object.to_string()
    };
    let salted = with(|line| {
        line["digest"] = json!({ "scheme": "bcrypt", "hex": "$2b$12$R9h/cIPz0gi.URNNX3kh2O" });
    });
    let wrong: [(Vec<u8>, &str, &str); 14] = [
        (b"{".to_vec(), "INVALID_REQUEST", "not JSON"),
        (b"[]".to_vec(), "INVALID_BODY", "JSON object"),
        (
            b"{\"name\":\"\xff\"}".to_vec(),
            "INVALID_REQUEST",
            "not JSON",
        ),
        (vec![b'x'; 10 << 20], "TOO_LARGE", "262144 bytes"),
        (
            with(|line| line["a"] = json!(1)).into(),
            "INVALID_BODY",
            "unknown field `a`",
        ),
        (
            with(|line| line["name"] = json!("a\u{1b}[2J")).into(),
            "INVALID_BODY",
            "name: U+001B",
        ),
        (
            with(|line| line["status"] = json!("gone")).into(),
            "INVALID_BODY",
            "unknown variant",
        ),
        (
            with(|line| line["status"] = json!("revoked")).into(),
            "INVALID_BODY",
            "revoked_at: required",
        ),
        (
            with(|line| line["status"] = json!("expired")).into(),
            "INVALID_BODY",
            "expires_at: ",
        ),
        (
            with(|line| line["created_at"] = json!("9999-01-01T00:00:00Z")).into(),
            "INVALID_BODY",
            "created_at: must not be in the future",
        ),
        (
            with(|line| line["request_count"] = json!(1)).into(),
            "INVALID_BODY",
            "request_count: needs last_used_at",
        ),
        (
            with(|line| line["owner"] = json!({ "tenant_id": "tenant_theirs" })).into(),
            "FORBIDDEN",
            "own tenant",
        ),
        (
            with(|line| line["plan"] = json!("gold")).into(),
            "FORBIDDEN",
            "gold",
        ),
        (
            salted.into(),
            "INVALID_BODY",
            "digest: salted digests (bcrypt, argon2) cannot be looked up",
        ),
    ];
    let mut body = Vec::new();
    for (line, _, _) in &wrong {
        body.extend(line);
        body.extend(b"\n\r\n");
        body.extend(good().into_bytes());
        body.extend(b"\n");
    }
    let report = fixture.expect(200, import(LINES, body)).await.json();
    assert_eq!(counts(&report), (14, 0, 14), "{report}");
    for (number, (found, (_, code, why))) in refusals(&report).iter().zip(&wrong).enumerate() {
        assert_eq!(
            (found.0, &*found.1),
            (3 * number as u64 + 1, *code),
            "{found:?}"
        );
        assert!(found.2.contains(why), "{found:?}");
    }
}

#[tokio::test]
async fn a_file_with_wrong_columns_is_refused_before_its_first_row() {
    let fixture = Fixture::new().await;
    for (header, why) in [
        (
            "name,digest.scheme",
            "missing column digest.hex or digest.base64",
        ),
        ("digest.scheme,digest.hex", "missing column name"),
        (
            "name,name,digest.scheme,digest.hex",
            "duplicate column \"name\"",
        ),
        ("name,digest.scheme,digest.hex,", "unknown column \"\""),
        (
            "name,digest.scheme,digest.hex,tenant",
            "unknown column \"tenant\"",
        ),
        ("name,digest.scheme,digest.hex,\u{1b}[2J", "\\u{1b}"),
        ("name;digest.scheme;digest.hex", "separated by commas"),
        (
            "name,digest.scheme,digest.hex,rate_limit_config.requests_per_",
            "unknown column",
        ),
        (
            "\"name,digest.scheme,digest.hex",
            "the closing quote is missing",
        ),
        ("", "the first line must name the columns"),
    ] {
        let body = format!("{header}\na,sha256,{}\n", fresh_hex());
        let body = if header.is_empty() {
            String::new()
        } else {
            body
        };
        let answer = fixture.expect(422, import(CSV, body)).await.json();
        let detail = answer["detail"].as_str().unwrap();
        assert!(
            detail.contains(why) && detail.contains("line 1"),
            "{header:?}: {detail}"
        );
    }
    // Somebody who may import for any tenant must name it.
    let body = format!("name,digest.scheme,digest.hex\na,sha256,{}\n", fresh_hex());
    let answer = fixture
        .expect(422, import(CSV, body).by("host"))
        .await
        .json();
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("missing column owner.tenant_id")
    );
    assert_eq!(fixture.keys().await["items"], json!([]));
}

#[tokio::test]
async fn rows_of_csv_are_read_strictly() {
    let fixture = Fixture::new().await;
    let header = "name,digest.scheme,digest.hex,workspaces,request_count\n";
    let row = |rest: &str| format!("{rest}\n");
    let hex = fresh_hex;
    let rows = [
        (row(&format!("a,sha256,{},*,", hex())), ""),
        (row("a,sha256"), "2 fields, but the file has 5 columns"),
        (
            row(&format!("a\"b,sha256,{},*,", hex())),
            "field 1: a quote in a field",
        ),
        (
            row(&format!("\"a\"b,sha256,{},*,", hex())),
            "field 1: text after",
        ),
        (
            row(&format!("a,sha256,{},,", hex())),
            "workspaces: an empty field is ambiguous",
        ),
        (
            row(&format!("a,sha256,{},*,+1", hex())),
            "request_count: expected a whole number",
        ),
        (
            row(&format!("a,sha256,{},*,1e3", hex())),
            "request_count: expected a whole number",
        ),
        (
            row(&format!("a,sha256,{},*,18446744073709551616", hex())),
            "request_count",
        ),
        (row(",sha256,,*,"), "missing field `name`"),
        (row(&format!("=1+1,sha256,{},*,", hex())), ""),
        ("\n\n".to_owned(), ""),
        (format!("a,sha256,{},*,", hex()), ""),
    ];
    let body: String = rows.iter().map(|(row, _)| row.as_str()).collect();
    let report = fixture
        .expect(200, import(CSV, format!("{header}{body}")))
        .await
        .json();
    assert_eq!(counts(&report), (3, 0, 8), "{report}");
    let refused = rows.iter().filter(|(_, why)| !why.is_empty());
    for ((line, code, detail), (_, why)) in refusals(&report).iter().zip(refused) {
        assert_eq!(code, "INVALID_BODY");
        assert!(detail.contains(why), "{line}: {detail}");
    }
    let lines: Vec<_> = refusals(&report).iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_stops_the_import_at_a_line() {
    let fixture = Fixture::new().await;
    let lines: Vec<String> = (0..600)
        .map(|number| line(&format!("{number}")).to_string())
        .collect();
    let manager = fixture.keys.manager().by(Operator::new(
        "owner".parse().unwrap(),
        "tenant_ours".parse().unwrap(),
        Role::Owner,
    ));
    let mut import = KeyImport::new(&manager, ImportFormat::JsonLines);
    import
        .push((lines[..500].join("\n") + "\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(import.report().created, 500);
    fixture.feel(Health::Down);
    import
        .push((lines[500..].join("\n") + "\n").as_bytes())
        .await
        .unwrap();
    let stopped = import.finish().await.unwrap_err();
    assert_eq!((stopped.line, stopped.report.created), (501, 500));
    assert_eq!(stopped.error.status(), 503);
    let body = lines.join("\n");
    let answer = fixture
        .expect(503, self::import(LINES, body.clone()))
        .await
        .json();
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("The import stopped at line 1 (0 created"),
        "{detail}"
    );
    let done = json!({
        "created": 0, "already_there": 0, "refused": 0, "refusals": [], "stopped_at": 1,
    });
    assert_eq!(answer["import"], done);
    // The same content again.
    fixture.feel(Health::Well);
    let report = fixture.expect(200, self::import(LINES, body)).await.json();
    assert_eq!(counts(&report), (100, 500, 0));
}

#[tokio::test]
async fn only_the_first_refusals_are_named() {
    let fixture = Fixture::new().await;
    let body = "{}\n".repeat(700);
    let report = fixture.expect(200, import(LINES, body)).await.json();
    assert_eq!(counts(&report), (0, 0, 700));
    let lines: Vec<_> = refusals(&report).iter().map(|(line, ..)| *line).collect();
    assert!(lines.iter().copied().eq(1..=500));
}

#[tokio::test]
async fn an_import_is_sent_by_no_form_and_without_a_coding() {
    let fixture = Fixture::new().await;
    for media in [
        "text/plain",
        "text/csv; charset=utf-16",
        "application/x-ndjson, text/csv",
    ] {
        let answer = fixture.ask(&import(media, "x")).await;
        assert_eq!(answer.status, 415, "{media}");
        assert_eq!(
            answer.headers["accept"],
            "application/json, application/x-ndjson, text/csv"
        );
    }
    let coded = import(CSV, "x").header("content-encoding", "gzip");
    assert_eq!(
        fixture.ask(&coded).await.headers["accept-encoding"],
        "identity"
    );
    let foreign = import(CSV, "x").header("sec-fetch-site", "cross-site");
    assert_eq!(send(&fixture.router, &foreign).await.status, 403);
    let conditional = import(LINES, line("a").to_string()).header("if-match", "\"1\"");
    assert_eq!(fixture.ask(&conditional).await.status, 412);
    let member = import(LINES, line("a").to_string()).by("member");
    assert_eq!(send(&fixture.router, &member).await.status, 403);
    assert_eq!(fixture.keys().await["items"], json!([]));
}

#[tokio::test]
async fn a_line_that_was_cut_off_is_not_imported() {
    let fixture = Fixture::new().await;
    let header = "digest.scheme,digest.hex,name";
    let whole = format!(
        "{header}\nsha256,{},whole\nsha256,{},cut o",
        fresh_hex(),
        fresh_hex()
    );
    let request = Request::post(format!("{NEST}/import"))
        .header("authorization", "Bearer owner")
        .header("content-type", CSV)
        .body(chunks(&[whole.as_bytes()], Then::Error))
        .unwrap();
    let response = fixture.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("incomplete"));
    assert_eq!(
        fixture.keys().await["items"],
        json!([]),
        "the rest comes with a retry"
    );
}

/// A service whose keys have peppered digests, and that accepts SHA-256 as an older scheme.
struct Peppered {
    /// The API of the administrators.
    api: Router,
    /// The API for self-serve.
    own: Router,
    trail: AuditTrail,
    log: MemoryAudit,
}

impl Peppered {
    fn new() -> Self {
        let log = MemoryAudit::new(100_000);
        let trail = AuditTrail::builder().sink(log.clone()).build();
        let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
        let hasher = KeyHasher::hmac_sha256(Pepper::new(1, &[7; 32]).unwrap());
        let keys = Setup::on(MemoryStore::new())
            .bearer([format.build().unwrap()])
            .hasher(hasher.accept_sha256().unwrap())
            .clock(ManualClock::new())
            .audit(trail.clone())
            .keys();
        let nest = |admin: Admin| Router::new().nest(NEST, admin.into_router());
        Self {
            api: nest(Admin::new(&keys, Names)),
            own: nest(Admin::new(&keys, Names).operators(own_keys())),
            trail,
            log,
        }
    }

    /// Returns everything that was recorded.
    async fn events(&self) -> Vec<AuditEvent> {
        self.trail.flush().await.unwrap();
        self.log.all()
    }
}

/// Outcome and detail of each event, sorted.
fn told(events: &[AuditEvent]) -> Vec<(&str, Option<&str>)> {
    let told = events
        .iter()
        .map(|event| (event.outcome.as_str(), event.detail.as_deref()));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    told
}

#[tokio::test]
async fn an_operator_who_does_not_see_all_keys_imports_no_older_digest() {
    let service = Peppered::new();
    let issue = Ask::new("POST", "/keys").json(&json!({ "name": "the tenant's" }));
    let issued = send(&service.api, &issue).await.json();
    let secret = issued["key"].as_str().unwrap();
    let digest = KeyHasher::sha256().digest(secret).to_bytes();
    let of_secret: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let older = |hex: &str| {
        let digest = json!({ "scheme": "sha256", "hex": hex });
        json!({ "name": "squatted", "digest": digest }).to_string()
    };
    // An operator who sees all keys.
    let known = older(&fresh_hex());
    let report = send(&service.api, &import(LINES, known.clone())).await;
    assert_eq!(counts(&report.json()), (1, 0, 0));
    for (router, operator) in [
        (&service.api, "admin"),
        (&service.own, "u1"),
        (&service.own, "owner"),
    ] {
        let lines = [older(&of_secret), known.clone(), older(&fresh_hex())];
        let ask = import(LINES, lines.join("\n")).by(operator);
        let report = send(router, &ask).await.json();
        assert_eq!(counts(&report), (0, 0, 3), "{operator}: {report}");
        let refusals = refusals(&report);
        for (_, code, detail) in &refusals {
            assert_eq!((&**code, detail), ("FORBIDDEN", &refusals[0].2));
        }
        for line in lines {
            let ask = Ask::new("POST", "/import").raw(line).by(operator);
            let answer = send(router, &ask).await;
            let problem = answer.json();
            assert_eq!(answer.status, 403, "{operator}: {problem}");
            assert_eq!(problem["field"], "digest");
            assert_eq!(problem["detail"], refusals[0].2);
        }
    }
    let verify = Ask::new("POST", "/verify").json(&json!({ "key": secret }));
    let verified = send(&service.api, &verify).await.json();
    assert_eq!(verified["active"], true);
}

#[tokio::test]
async fn each_refused_line_is_an_event_without_its_content() {
    let service = Peppered::new();
    let with = |change: fn(&mut Value)| {
        let mut object = line("5ca1ab1e");
        change(&mut object);
        object.to_string()
    };
    let lines = [
        with(|line| line["owner"] = json!({ "tenant_id": "tenant_ours" })),
        with(|line| line["digest"]["hex"] = json!("5ca1ab1e")),
        with(|line| line["acme_5ca1ab1e"] = json!(1)),
        "{5ca1ab1e".to_owned(),
        "5ca1ab1e".repeat(40_000),
        // Only the manager refuses this one.
        with(|line| line["name"] = json!("")),
        line("good").to_string(),
    ];
    let ask = import(LINES, lines.join("\n")).by("outsider");
    let report = send(&service.api, &ask).await.json();
    assert_eq!(counts(&report), (1, 0, 6), "{report}");
    let events = service.events().await;
    let expected = [
        ("FORBIDDEN", None),
        ("INVALID_BODY", None),
        ("INVALID_BODY", Some("digest")),
        ("INVALID_BODY", Some("name")),
        ("INVALID_REQUEST", None),
        ("OK", None),
        ("TOO_LARGE", None),
    ];
    assert_eq!(told(&events), expected);
    for event in &events {
        assert_eq!(event.action, Action::KeyImport);
        let tenant = event.tenant_id.as_ref().map(TenantId::as_str);
        assert_eq!(tenant, Some("tenant_theirs"));
        let actor = event.actor.as_ref();
        let actor = actor.and_then(|actor| actor.user_id.as_ref());
        assert_eq!(actor.map(UserId::as_str), Some("outsider"));
    }
    let whole = serde_json::to_string(&events).unwrap();
    assert!(!whole.contains("5ca1ab1e"), "{whole}");
    let header = "name,digest.scheme,digest.hex,request_count";
    let rows = format!("{header}\n5ca1ab1e\na,sha256,5ca1ab1e,\na,sha256,,5ca1ab1e\n");
    let ask = import(CSV, rows).by("outsider");
    let report = send(&service.api, &ask).await.json();
    assert_eq!(counts(&report), (0, 0, 3), "{report}");
    let events = service.events().await.split_off(expected.len());
    let expected = [
        ("INVALID_BODY", None),
        ("INVALID_BODY", None),
        ("INVALID_BODY", Some("digest")),
    ];
    assert_eq!(told(&events), expected);
}

#[tokio::test]
async fn many_refused_lines_leave_a_hundred_events_and_how_many_are_missing() {
    let service = Peppered::new();
    let mut foreign = line("foreign");
    foreign["owner"] = json!({ "tenant_id": "tenant_ours" });
    let mut unnamed = line("");
    unnamed["owner"] = json!({ "tenant_id": "tenant_theirs" });
    // Half of them are refused by the manager: they count together.
    let body = format!("{foreign}\n{unnamed}\n").repeat(250);
    let ask = import(LINES, body).by("outsider");
    let report = send(&service.api, &ask).await.json();
    assert_eq!(counts(&report), (0, 0, 500));
    let events = service.events().await.into_iter();
    let (lost, kept): (Vec<_>, Vec<_>) =
        events.partition(|event| event.action == Action::EventsLost);
    let expected: [(&str, Option<&str>); 100] = [("FORBIDDEN", None); 100];
    assert_eq!(told(&kept), expected);
    let lost = lost.iter().filter_map(|event| event.count);
    assert_eq!(lost.sum::<u64>(), 400);
    // The same body as a single import is one event, as before.
    let service = Peppered::new();
    let ask = Ask::new("POST", "/import").json(&foreign).by("outsider");
    assert_eq!(send(&service.api, &ask).await.status, 403);
    assert_eq!(service.events().await.len(), 1);
}
