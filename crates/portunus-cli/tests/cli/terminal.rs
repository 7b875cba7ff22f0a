//! What others wrote must not control the operator's terminal.

use axum::Router;
use axum::routing::any;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::common::{Place, Server, TOKEN, text};

/// A title, colors, a cleared screen, an override of direction, a separate line.
const HOSTILE: &str = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}gnp\u{2066}\r\nportunus: fine";

fn controls(text: &str) -> String {
    let all = text.chars().filter(|&c| c != '\n');
    all.filter(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .collect()
}

/// A server whose every answer contains this text.
fn hostile() -> Server {
    let record = json!({
        "id": HOSTILE, "name": HOSTILE, "status": HOSTILE, "masked": HOSTILE, "primary": true,
        "owner": { "tenant_id": HOSTILE }, "metadata": { HOSTILE: HOSTILE }, "at": HOSTILE,
        "action": HOSTILE, "detail": HOSTILE, "actor": { "user_id": HOSTILE },
    });
    let with = move |mut members: Value| {
        let all = members.as_object_mut().unwrap();
        for (name, value) in record.as_object().unwrap() {
            all.entry(name.clone()).or_insert(value.clone());
        }
        all.insert("items".to_owned(), json!([record.clone()]));
        members
    };
    let answer = with(json!({
        "key": "acme_x", "record": { "id": HOSTILE }, "rotated": { "works_until": HOSTILE },
        "active": true, "allowed": true, "explain": HOSTILE, "next_cursor": null,
        "corrupt": [HOSTILE],
    }));
    let answer = answer.to_string();
    let answer = move || {
        let answer = answer.clone();
        async move { ([("content-type", "application/json")], answer) }
    };
    Server::of(Router::new().fallback(any(answer)))
}

#[test]
fn answers_of_a_service_do_not_control_the_terminal() {
    let server = hostile();
    let place = Place::at(&server.address)
        .with("PORTUNUS_TOKEN", TOKEN)
        .with("PORTUNUS_KEY", "k");
    for command in [
        &["keys", "list"][..],
        &["keys", "list", "--json"],
        &["keys", "show", "x"],
        &["keys", "show", "x", "--json"],
        &["keys", "issue", "x"],
        &["keys", "rotate", "x", "--yes"],
        &["keys", "rotate", "x", "--yes", "--json"],
        &["keys", "revoke", "x", "--yes"],
        &["keys", "export"],
        &["keys", "export", "--format", "csv"],
        &["events", "list"],
        &["verify"],
        &["doctor"],
    ] {
        let run = place.run(command);
        assert_eq!(controls(&run.out), "", "{command:?}: {run:?}");
        assert_eq!(controls(&run.err), "", "{command:?}: {run:?}");
        // Nor do they begin a line.
        let lines = run.out.lines().chain(run.err.lines());
        assert!(
            !lines.clone().any(|line| line.starts_with("portunus: fine")),
            "{command:?}: {run:?}"
        );
    }
    let shown = place.json(&["keys", "show", "x"]);
    assert_eq!(shown["name"], HOSTILE, "programs get the text as it is");
}

#[test]
fn errors_of_a_service_do_not_control_the_terminal() {
    let problem = json!({ "title": "x", "status": 409, "detail": HOSTILE, "code": HOSTILE });
    let answer = (axum::http::StatusCode::CONFLICT, axum::Json(problem));
    let server = Server::of(Router::new().fallback(any(move || async { answer })));
    let place = Place::at(&server.address).with("PORTUNUS_TOKEN", TOKEN);
    let run = place.run(&["keys", "show", "x"]);
    run.failed(5, "\\u{1b}");
    assert_eq!(controls(&run.err), "", "{run:?}");
    assert_eq!(run.err.lines().count(), 1, "{run:?}");
}

#[test]
fn names_that_were_written_before_the_rule_on_names_are_shown_safely() {
    let place = Place::sqlite();
    let (_, record) = place.issue("harmless", &[]);
    let name = "\u{1b}[2J\u{202e}x";
    let update = "UPDATE portunus_keys SET name = $1, record = replace(record, '\"harmless\"', $2)";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let changed = runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(place.file());
        let mut connection = options.connect().await.unwrap();
        let update = sqlx::query(update).bind(name).bind(json!(name).to_string());
        let changed = update.execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        changed.rows_affected()
    });
    assert_eq!(changed, 1);
    let id = text(&record["id"]);
    for command in [
        &["keys", "list"][..],
        &["keys", "show", &id],
        &["keys", "export"],
    ] {
        let run = place.run(command);
        assert_eq!(controls(&run.out), "", "{command:?}: {run:?}");
    }
    assert!(
        place
            .done(&["keys", "list"])
            .contains("\\u{1b}[2J\\u{202e}x")
    );
    let revoked = place.json(&["keys", "revoke", &id, "--yes"]);
    assert_eq!(revoked["status"], "revoked");
}

#[test]
fn names_of_every_script_are_shown_and_stay_in_their_column() {
    let place = Place::sqlite();
    let names = [
        "契約書の鍵",
        "מפתח ראשי",
        "مفتاح الفواتير",
        "👩\u{200d}🔧 fixer",
        "plain",
    ];
    for name in names {
        place.issue(name, &[]);
    }
    let table = place.done(&["keys", "list"]);
    let column = table.lines().next().unwrap().find("NAME").unwrap();
    for name in names {
        // Everything before the name is ASCII except the ellipsis of the masked secret.
        let line = table.lines().find(|line| line.ends_with(name)).unwrap();
        let before = line.strip_suffix(name).unwrap();
        assert_eq!(before.chars().count(), column, "{table}");
    }
    let listed = place.json(&["keys", "list"]);
    let listed: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| text(&it["name"]))
        .collect();
    assert_eq!(listed.len(), names.len());
    assert!(names.iter().all(|name| listed.iter().any(|it| it == name)));
}
