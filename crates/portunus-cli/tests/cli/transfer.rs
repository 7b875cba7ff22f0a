//! Export and import.

use serde_json::{Value, json};

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
    let names = [
        "name",
        "description",
        "kind",
        "environment",
        "owner",
        "scopes",
        "access",
        "workspaces",
        "plan",
        "allowed_ips",
        "rate_limit_config",
        "not_before",
        "expires_at",
        "metadata",
        "digest",
        "last_four",
    ];
    names
        .iter()
        .map(|name| ((*name).to_owned(), record[name].clone()))
        .collect()
}

#[test]
fn exported_keys_work_where_they_are_imported() {
    let (from, to) = (Place::sqlite(), Place::sqlite());
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
    let (secret, _) = from.issue("full", &everything);
    from.issue("simple", &[]);
    let (ended, record) = from.issue("ended", &[]);
    from.done(&["keys", "revoke", &text(&record["id"]), "--yes"]);

    let lines = from.done(&["keys", "export", "--with-digests"]);
    assert!(
        !lines.contains(&secret) && !lines.contains(&secret[20..30]),
        "no secrets"
    );
    std::fs::write(to.path("keys.jsonl"), &lines).unwrap();
    let report = to.json(&IMPORT);
    assert_eq!(
        report,
        json!({ "imported": 2, "skipped": 1, "failures": [] })
    );

    let (before, after) = (export(&from), export(&to));
    let named = |all: &[Value], name: &str| kept(all.iter().find(|it| it["name"] == name).unwrap());
    for name in ["full", "simple"] {
        assert_eq!(named(&before, name), named(&after, name));
    }
    let verify = [
        "verify",
        "--key-file",
        "-",
        "--ip",
        "192.0.2.7",
        "--service",
        "service.toml",
    ];
    assert_eq!(to.run_with(&verify, &secret).code, 0);
    to.run_with(&verify, &ended).failed(8, "");

    // Again: every line is there already, and nothing changes.
    let run = to.run(&IMPORT);
    run.failed(1, "2 lines were not imported");
    assert!(
        run.err.contains("line 2: ") && run.err.contains("CONFLICT"),
        "{run:?}"
    );
    assert_eq!(export(&to).len(), 2);
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
    run.failed(1, "9 lines were not imported");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (&report["imported"], &report["skipped"]),
        (&json!(2), &json!(0))
    );
    let failed = report["failures"]
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
    without_tenant.failed(1, "lines were not imported");
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
fn a_line_without_an_end_is_not_read_to_it() {
    let place = Place::sqlite();
    let endless = "x".repeat(3 << 20);
    let import = ["keys", "import", "-", "--service", "service.toml"];
    place
        .run_with(&import, &endless)
        .failed(2, "line 1 is longer");
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
