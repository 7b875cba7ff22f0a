//! A key from its issue to its end, in the same way everywhere.

use portunus_test_support::postgres::Postgres;
use portunus_test_support::wait::until;
use serde_json::json;

use crate::common::{Place, Server, text};

const DESCRIBED: [&str; 2] = ["--service", "service.toml"];

/// Every command on a key, and what the next one shows.
fn a_key_lives_and_ends(place: &Place, operator: &str) {
    let (secret, record) = place.issue(
        "billing",
        &["--scope", "document:read", "--expires-in", "90d"],
    );
    assert!(secret.starts_with("acme_live_sk_"), "{secret}");
    let id = text(&record["id"]);
    assert_eq!(record["owner"]["tenant_id"], "acme");
    assert_eq!(record["scopes"], json!(["document:read"]));

    let listed = place.json(&["keys", "list", "--query", "bill"]);
    assert_eq!(listed, json!([place.json(&["keys", "show", &id])]));
    let table = place.done(&["keys", "list"]);
    assert!(table.contains(&id) && table.contains("active primary") && table.contains("billing"));
    assert_eq!(
        place.json(&["keys", "rename", &id, "accounts"])["name"],
        "accounts"
    );

    let verify = ["verify", "--key-file", "-", "--require"];
    let run = place.run_with(
        &[&verify[..], &["document:read"], &DESCRIBED].concat(),
        &secret,
    );
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.starts_with("allowed: ") && run.out.contains("document:read"),
        "{run:?}"
    );
    let run = place.run_with(
        &[&verify[..], &["document:write"], &DESCRIBED].concat(),
        &secret,
    );
    run.failed(8, "would be refused");
    assert!(
        run.out.starts_with("refused: ") && !run.out.contains(&secret),
        "{run:?}"
    );

    let rotate = ["keys", "rotate", &id, "--grace", "1h"];
    let rotated = place.json(&[&rotate[..], &DESCRIBED].concat());
    let (next, next_id) = (text(&rotated["key"]), text(&rotated["record"]["id"]));
    assert_eq!(rotated["record"]["predecessor"], json!(id));
    assert!(rotated["rotated"]["works_until"].is_string());
    let primary = place.json(&[&["keys", "primary", &next_id][..], &DESCRIBED].concat());
    assert_eq!(primary["primary"], true);

    let revoked = place.json(&["keys", "revoke", &id, "--reason", "leaked", "--yes"]);
    assert_eq!(
        (&revoked["status"], &revoked["revoke_reason"]),
        (&json!("revoked"), &json!("leaked"))
    );
    let active = [
        "verify",
        "--key-file",
        "-",
        "--json",
        "--service",
        "service.toml",
    ];
    let run = place.run_with(&active, &secret);
    assert_eq!((run.code, run.out.trim()), (8, "{\n  \"active\": false\n}"));
    assert_eq!(place.run_with(&active, &next).code, 0);

    let events = place.json(&["events", "list", "--key", &id, "--action", "key.revoke"]);
    assert_eq!(events[0]["actor"]["user_id"], operator);
    assert_eq!(events[0]["tenant_id"], "acme");
}

#[test]
fn a_key_lives_and_ends_on_sqlite() {
    a_key_lives_and_ends(&Place::sqlite(), "ann");
}

#[test]
fn a_key_lives_and_ends_on_postgres() {
    let server = Postgres::start();
    let place = Place::at(&server.database("keys"));
    place
        .run(&["keys", "list"])
        .failed(5, "run `portunus migrate`");
    assert!(place.done(&["migrate"]).contains("from schema 0"));
    a_key_lives_and_ends(&place, "ann");
    server.sql("postgres", "CREATE DATABASE other");
    let other = Place::at(&server.address("other"));
    other.done(&["migrate", "--schema", "mine"]);
    let (_, record) = other.issue("elsewhere", &["--schema", "mine"]);
    let tables = server.sql("other", "SELECT id FROM mine.portunus_keys");
    assert_eq!(tables.trim(), text(&record["id"]));
}

#[test]
fn a_key_lives_and_ends_over_http() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    a_key_lives_and_ends(&Place::over_http(&server), "oona");
}

#[test]
fn a_key_that_was_issued_on_the_store_works_in_the_service() {
    let place = Place::sqlite();
    let server = Server::on(&place.file());
    let (secret, record) = place.issue("first", &["--scope", "*"]);
    let http = Place::over_http(&server);
    let run = http.run_with(&["verify", "--key-file", "-", "--json"], &secret);
    assert_eq!(run.code, 0, "{run:?}");
    let id = text(&record["id"]);
    place.done(&["keys", "revoke", &id, "--yes"]);
    // The service watches the file.
    until("the service refuses the key", || {
        http.run_with(&["verify", "--key-file", "-"], &secret).code == 8
    });
}

#[test]
fn only_the_secret_of_a_new_key_is_on_standard_output() {
    let place = Place::sqlite();
    let issue = ["keys", "issue", "first", "--tenant", "acme"];
    let run = place.run(&[&issue[..], &DESCRIBED].concat());
    assert_eq!(run.code, 0, "{run:?}");
    let secret = run.out.trim();
    assert!(secret.starts_with("acme_live_sk_") && !secret.contains(char::is_whitespace));
    assert!(
        run.err.contains("shown only now") && !run.err.contains(secret),
        "{run:?}"
    );
    assert!(run.err.contains("created at"), "{run:?}");

    let once = ["--idempotency-key", "7f9c"];
    let first = place.run(&[&issue[..], &DESCRIBED, &once].concat());
    let again = place.run(&[&issue[..], &DESCRIBED, &once].concat());
    assert!(first.code == 0 && !first.out.is_empty(), "{first:?}");
    assert!(
        again.code == 0 && again.out.is_empty() && again.err.contains("before"),
        "{again:?}"
    );
}

#[test]
fn what_cannot_be_undone_needs_yes_without_a_terminal() {
    let place = Place::sqlite();
    let (_, record) = place.issue("first", &[]);
    let id = text(&record["id"]);
    place
        .run_with(&["keys", "revoke", &id], "y\n")
        .failed(2, "--yes");
    let rotate = ["keys", "rotate", &id, "--service", "service.toml"];
    place.run_with(&rotate, "y\n").failed(2, "--yes");
    assert_eq!(place.json(&["keys", "show", &id])["status"], "active");
}

#[test]
fn commands_that_need_the_format_of_keys_ask_for_the_description() {
    let place = Place::sqlite();
    for command in [
        &["keys", "issue", "x", "--tenant", "acme"][..],
        &["keys", "rotate", "key_x", "--yes"],
        &["keys", "primary", "key_x"],
        &["keys", "import", "-"],
        &["verify", "--key-file", "service.toml"],
    ] {
        place.run(command).failed(2, "needs --service");
    }
    place
        .run(&["keys", "issue", "x", "--service", "service.toml"])
        .failed(2, "needs --tenant");
}

#[test]
fn the_description_must_be_right() {
    let place = Place::sqlite();
    let format = "[format]\nprefix = \"a_\"\n";
    let check = |text: &str, says: &str| {
        std::fs::write(place.path("x.toml"), text).unwrap();
        let issue = ["keys", "issue", "x", "--tenant", "t", "--service", "x.toml"];
        place.run(&issue).failed(2, says);
    };
    check("", "missing field `format`");
    check(
        "[format]\nprefix = \"a_\"\npepper = \"hunter2\"",
        "unknown field `pepper`",
    );
    check(&format!("{format}length = 4"), "bits of randomness");
    check(&format!("{format}kinds = {{ sk = \"admin\" }}"), "admin");
    check(&format!("{format}[hash]\nscheme = \"md5\""), "md5");
    check(
        &format!("{format}[hash]\nscheme = \"hmac-sha256:2\""),
        "PORTUNUS_PEPPER_2",
    );
    check(&format!("scopes = [\"a b\"]\n{format}"), "scopes");
}

#[test]
fn keys_are_hashed_with_the_pepper() {
    let place = Place::sqlite();
    let peppered = format!(
        "{}\n[hash]\nscheme = \"hmac-sha256:2\"\n",
        crate::common::SERVICE
    );
    std::fs::write(place.path("service.toml"), peppered).unwrap();
    let place = place.with("PORTUNUS_PEPPER_2", "0123456789abcdef0123456789abcdef");
    let (secret, _) = place.issue("first", &[]);
    let verify = ["verify", "--key-file", "-", "--service", "service.toml"];
    assert_eq!(place.run_with(&verify, &secret).code, 0);
    let export = place.done(&["keys", "export", "--with-digests"]);
    assert!(export.contains("hmac-sha256:2"), "{export}");
    // Another pepper of the same version finds nothing.
    let place = place.with("PORTUNUS_PEPPER_2", "ffffffffffffffffffffffffffffffff");
    place
        .run_with(&verify, &secret)
        .failed(8, "would be refused");
}
