//! Export and import.

use std::time::SystemTime;

use portunus::Portunus;
use portunus::key::KeyId;
use portunus::store::{UsageDelta, UsageStore};
use portunus_sqlx::SqliteStore;
use portunus_test_support::format;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::wait::until;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::common::{Place, Server, text};

const IMPORT: [&str; 5] = ["keys", "import", "keys.jsonl", "--service", "service.toml"];

fn export(place: &Place) -> Vec<Value> {
    let lines = place.done(&["keys", "export", "--with-digests"]);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What an import keeps of a record.
fn kept(record: &Value) -> Value {
    let not_kept = [
        "id",
        "version",
        "key_family",
        "masked",
        "primary",
        "predecessor",
        "successor",
    ];
    let mut record = record.clone();
    record
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !not_kept.contains(&name.as_str()));
    record
}

fn counts(created: u64, already_there: u64) -> Value {
    json!({ "created": created, "already_there": already_there, "refused": 0, "refusals": [] })
}

/// Disables a key and counts uses of another, as the service does.
fn disable_and_use(place: &Place, disabled: &Value, used: &Value) {
    let id = |record: &Value| -> KeyId { text(&record["id"]).parse().unwrap() };
    Runtime::new().unwrap().block_on(async {
        let store = SqliteStore::open(place.file()).await.unwrap();
        let keys = Portunus::builder(format()).store(store.clone());
        let manager = keys.build().unwrap().manager().clone();
        manager.disable(&id(disabled)).await.unwrap();
        let delta = UsageDelta::new(id(used), 7, SystemTime::now(), None);
        store.record_usage(&[delta]).await.unwrap();
        store.close().await;
    });
}

/// A store with keys of two tenants in every state, and the secrets of one that works and one that was
/// revoked.
fn keys_in_every_state() -> (Place, String, String) {
    let from = Place::sqlite();
    let everything = [
        "--scope",
        "document:read",
        "--scope",
        "user:*",
        "--environment",
        "test",
        "--kind",
        "user",
        "--user",
        "u1",
        "--email",
        "u1@example.com",
        "--description",
        "a, \"b\"",
        "--read-only",
        "--workspace",
        "ws1",
        "--allow-ip",
        "192.0.2.0/24",
        "--plan",
        "gold",
        "--expires-in",
        "90d",
    ];
    let (secret, used) = from.issue("full", &everything);
    from.issue("simple", &[]);
    let (_, over) = from.issue("over soon", &["--expires-in", "1s"]);
    let (_, record) = from.issue("rotated", &[]);
    let rotate = ["keys", "rotate", &text(&record["id"]), "--grace", "1h"];
    from.done(&[&rotate[..], &["--service", "service.toml"]].concat());
    let (ended, record) = from.issue("ended", &[]);
    let revoke = ["keys", "revoke", &text(&record["id"]), "--yes"];
    from.done(&[&revoke[..], &["--reason", "leaked"]].concat());
    let (_, disabled) = from.issue("disabled", &[]);
    disable_and_use(&from, &disabled, &used);
    let other = ["keys", "issue", "of another tenant", "--tenant", "other"];
    from.done(&[&other[..], &["--service", "service.toml"]].concat());
    until("the key expires", || {
        from.json(&["keys", "show", &text(&over["id"])])["status"] == "expired"
    });
    (from, secret, ended)
}

#[test]
fn exported_keys_are_the_same_where_they_are_imported() {
    let (from, secret, ended) = keys_in_every_state();
    let lines = from.done(&["keys", "export", "--with-digests"]);
    assert!(
        !lines.contains(&secret) && !lines.contains(&secret[20..30]),
        "no secrets"
    );
    let before = export(&from);
    assert_eq!(before.len(), 8);
    let server = Postgres::start();
    let postgres = Place::at(&server.database("keys"));
    postgres.done(&["migrate"]);
    for to in [Place::sqlite(), postgres] {
        std::fs::write(to.path("keys.jsonl"), &lines).unwrap();
        assert_eq!(to.json(&IMPORT), counts(8, 0));
        let after = export(&to);
        assert_eq!(after.len(), 8);
        for record in &before {
            let found = after.iter().find(|it| it["digest"] == record["digest"]);
            assert_eq!(kept(record), kept(found.unwrap()));
        }
        // A key and its successor are one family there, too.
        let family = |name: &str| {
            let of = after.iter().filter(|it| it["name"] == name);
            of.map(|it| text(&it["key_family"])).collect::<Vec<_>>()
        };
        let rotated = family("rotated");
        assert!(
            rotated.len() == 2 && rotated[0] == rotated[1],
            "{rotated:?}"
        );
        assert_ne!(rotated, family("simple"));
        let verify = ["verify", "--key-file", "-", "--ip", "192.0.2.7"];
        let verify = [&verify[..], &["--service", "service.toml"]].concat();
        assert_eq!(to.run_with(&verify, &secret).code, 0);
        to.run_with(&verify, &ended).failed(8, "");
        // Events name the person, although the keys are of two tenants.
        let imports = ["events", "list", "--action", "key.import", "--actor", "ann"];
        assert_eq!(to.json(&imports).as_array().unwrap().len(), 8);
        // Again: every line is there already, and nothing changes.
        assert_eq!(to.json(&IMPORT), counts(0, 8));
        assert_eq!(export(&to), after);
    }
}

#[test]
fn csv_is_imported_for_one_tenant() {
    let digest = |number: u8| format!("{number:02x}").repeat(32);
    let csv = format!(
        "\u{feff}name,digest.scheme,digest.hex,scopes,\"description\"\r\n\
         one,sha256,{},document:read user:*,\"two\nlines, \"\"quoted\"\"\"\r\n\
         \r\n\
         two,md5,{},,\r\n\
         three,sha256,{},,plain",
        digest(1),
        digest(2),
        digest(3)
    );
    let import = ["keys", "import", "keys.csv", "--service", "service.toml"];
    let place = Place::sqlite();
    std::fs::write(place.path("keys.csv"), &csv).unwrap();
    place.run(&import).failed(2, "--tenant");
    let run = place.run(&[&import[..], &["--tenant", "acme", "--json"]].concat());
    run.failed(2, "a line was refused");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (&report["created"], &report["refused"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(report["refusals"][0]["line"], 5, "{report}");
    let listed = export(&place);
    let one = listed.iter().find(|it| it["name"] == "one").unwrap();
    assert_eq!(one["description"], "two\nlines, \"quoted\"");
    assert_eq!(one["scopes"], json!(["document:read", "user:*"]));

    let server = Server::on(&Place::sqlite().file());
    let http = Place::over_http(&server);
    let run = http.run_with(
        &["keys", "import", "-", "--format", "csv", "--tenant", "acme"],
        &csv,
    );
    run.failed(2, "owner.tenant_id");
    let run = http.run_with(&["keys", "import", "-", "--format", "csv"], &csv);
    assert!(
        run.out
            .starts_with("2 imported, 0 already there, 1 refused"),
        "{run:?}"
    );
    assert!(run.err.contains("line 5: "), "{run:?}");
    let no_header = http.run_with(&["keys", "import", "-", "--format", "csv"], "name\nx\n");
    no_header.failed(2, "stopped at line 2");
}

#[test]
fn many_keys_of_many_tenants_take_few_calls() {
    let place = Place::sqlite();
    let line = |number: u32| {
        let digest = json!({ "scheme": "sha256", "hex": format!("{number:08x}").repeat(8) });
        let owner = json!({ "tenant_id": format!("t{}", number % 3) });
        // One line in a hundred is refused, on every page of the import.
        let name = if number % 100 == 7 {
            json!(7)
        } else {
            json!("k")
        };
        json!({ "name": name, "digest": digest, "owner": owner }).to_string()
    };
    let lines: Vec<String> = (1..=3_000).map(line).collect();
    std::fs::write(place.path("keys.jsonl"), lines.join("\n")).unwrap();
    let run = place.run(&[&IMPORT[..], &["--json"]].concat());
    run.failed(1, "30 lines were refused");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (&report["created"], &report["refused"]),
        (&json!(2_970), &json!(30))
    );
    let refused = report["refusals"].as_array().unwrap().iter();
    let expected: Vec<u32> = (0..30).map(|page| page * 100 + 7).collect();
    assert_eq!(
        json!(refused.map(|it| &it["line"]).collect::<Vec<_>>()),
        json!(expected)
    );
}

#[test]
fn a_line_that_fails_does_not_stop_the_others() {
    let place = Place::sqlite();
    let digest =
        |number: u8| json!({ "scheme": "sha256", "hex": format!("{number:02x}").repeat(32) });
    let lines = [
        json!({ "name": "one", "digest": digest(1) }).to_string(),
        "{".to_owned(),
        String::new(),
        "[1]".to_owned(),
        json!({ "name": "two", "digest": digest(2), "scope": "*" }).to_string(),
        r#"{"name":"three","name":"four","digest":{}}"#.to_owned(),
        json!({ "name": "five", "digest": { "scheme": "sha256", "hex": "00" } }).to_string(),
        json!({ "name": "six", "digest": digest(6), "owner": { "user_id": "u1" }, "kind": "user" })
            .to_string(),
        "\u{feff}{}".to_owned(),
        json!({ "name": "seven", "digest": { "scheme": "md5", "hex": "00" } }).to_string(),
        json!({ "name": "eight", "digest": digest(8), "owner": "acme" }).to_string(),
        json!({ "name": "nine", "digest": digest(9), "owner": { "tenant_id": "other" } })
            .to_string(),
    ];
    std::fs::write(place.path("keys.jsonl"), lines.join("\n")).unwrap();
    let run = place.run(&[&IMPORT[..], &["--tenant", "acme", "--json"]].concat());
    run.failed(1, "9 lines were refused");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (&report["created"], &report["already_there"]),
        (&json!(2), &json!(0))
    );
    let failed = report["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["line"]);
    assert_eq!(
        json!(failed.collect::<Vec<_>>()),
        json!([2, 4, 5, 6, 7, 9, 10, 11, 12])
    );
    let listed = place.json(&["keys", "list", "--tenant", "acme"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);

    let without_tenant = place.run(&IMPORT);
    without_tenant.failed(1, "lines were refused");
    assert!(
        without_tenant.err.contains("--tenant"),
        "{without_tenant:?}"
    );
}

#[test]
fn keys_are_imported_over_http_and_from_standard_input() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    let http = Place::over_http(&server);
    let digest = json!({ "scheme": "sha256", "hex": "ab".repeat(32) });
    let line = json!({ "name": "legacy", "digest": digest }).to_string();
    let run = http.run_with(&["keys", "import", "-"], &line);
    assert!(
        run.code == 0 && run.out.starts_with("1 imported"),
        "{run:?}"
    );
    assert!(run.err.is_empty(), "no bar without a terminal: {run:?}");
    let wrong = Place::at(&server.address).with("PORTUNUS_TOKEN", "wrong");
    // The first refusal ends it.
    wrong
        .run_with(&["keys", "import", "-"], &format!("{line}\n{line}"))
        .failed(3, "stopped at line 1");
    http.run(&["keys", "export", "--with-digests"])
        .failed(2, "shows no digests");
    assert!(!http.done(&["keys", "export"]).contains("digest"));
}

#[test]
fn a_line_that_is_too_long_is_refused_and_the_others_are_imported() {
    let place = Place::sqlite();
    let digest = json!({ "scheme": "sha256", "hex": "ab".repeat(32) });
    let line = json!({ "name": "k", "digest": digest });
    let lines = format!("\u{feff}{line}\n{}\n\n{{", "x".repeat(3 << 20));
    let import = [
        "keys",
        "import",
        "-",
        "--service",
        "service.toml",
        "--tenant",
        "acme",
    ];
    let run = place.run_with(&import, &lines);
    run.failed(1, "2 lines were refused");
    assert!(run.out.starts_with("1 imported"), "{run:?}");
    assert!(run.err.contains("line 2: longer than 256 KiB"), "{run:?}");
    assert!(run.err.contains("line 4: no JSON"), "{run:?}");
}

#[test]
fn csv_has_a_row_for_each_key_and_no_formulas() {
    let place = Place::sqlite();
    place.issue("=HYPERLINK(\"http://x\")", &[]);
    place.issue(
        "a, \"b\"",
        &["--scope", "document:read", "--scope", "user:read"],
    );
    let csv = place.done(&["keys", "export", "--format", "csv"]);
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(
        lines[0].starts_with("id,name,status,kind,environment,tenant_id,"),
        "{csv}"
    );
    assert!(
        lines[1].contains(",\"a, \"\"b\"\"\",active,app,live,acme,"),
        "{csv}"
    );
    assert!(lines[1].contains("document:read user:read"), "{csv}");
    assert!(
        lines[2].contains(",\"'=HYPERLINK(\"\"http://x\"\")\",active"),
        "{csv}"
    );
    place
        .run(&["keys", "export", "--format", "csv", "--with-digests"])
        .failed(2, "jsonl");
}

#[test]
fn an_export_to_a_file_is_private_and_replaces_nothing() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::sqlite();
    place.issue("first", &[]);
    let export = ["keys", "export", "--with-digests", "--output", "out.jsonl"];
    assert_eq!(place.done(&export), "");
    let file = std::fs::metadata(place.path("out.jsonl")).unwrap();
    assert_eq!(file.mode() & 0o777, 0o600);
    place.run(&export).failed(1, "cannot create");
}
