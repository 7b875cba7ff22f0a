//! A record written by a newer version, over HTTP.

use std::path::Path;

use crate::common::manage::{assert_problem, ids, list, make_primary, patch, rotate};
use crate::common::{Issued, Server};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

/// Turns the stored record of a key into one of a newer version.
fn from_the_future(path: &Path, key: &Issued) {
    let sql = format!(
        "UPDATE portunus_keys SET record = \
         replace(replace(record, '{{\"id\"', '{{\"understands\":2,\"countries\":[\"CH\"],\"id\"'), \
         '\"full-access\"', '\"sign-only\"') WHERE id = '{}'",
        key.id()
    );
    change_one_row(path, sql);
}

/// Changes one row directly in the database.
pub(crate) fn change_one_row(path: &Path, sql: String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let changed = sqlx::query(AssertSqlSafe(sql)).execute(&mut connection);
        assert_eq!(changed.await.unwrap().rows_affected(), 1);
        connection.close().await.unwrap();
    });
}

#[test]
fn a_key_of_a_newer_version_is_503_listed_as_unreadable_and_can_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = format!("sqlite:{}", path.display());
    let server = Server::on(&store, "allsign");
    let (old, beside) = (server.issue(json!({})), server.issue(json!({})));
    assert_eq!(server.stop().code, Some(0));
    from_the_future(&path, &old);

    let server = Server::on(&store, "allsign");
    let answer = server.get("/whoami", &old.key);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!answer.fields("retry-after").is_empty());
    assert_eq!(server.get("/whoami", &beside.key).status, 200);

    assert_eq!(server.record(old.id())["status"], "unreadable");
    assert_eq!(ids(&list(&server, "owner", "")).len(), 2);
    assert_eq!(
        ids(&list(&server, "owner", "?status=unreadable")),
        [old.id()]
    );
    assert_eq!(
        ids(&list(&server, "owner", "?status=active")),
        [beside.id()]
    );

    for answer in [
        patch(&server, old.id(), &json!({ "name": "other" })),
        patch(&server, old.id(), &json!({ "enabled": true })),
        patch(
            &server,
            old.id(),
            &json!({ "enabled": false, "scopes": [] }),
        ),
        rotate(&server, old.id(), &json!({})),
        rotate(&server, old.id(), &json!({ "grace_seconds": 60 })),
        make_primary(&server, old.id()),
    ] {
        assert_problem(&answer, 409, "CONFLICT", &[]);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("requires format 2"), "{detail}");
    }
    let disabled = patch(&server, old.id(), &json!({ "enabled": false }));
    assert_eq!(disabled.status, 200, "{}", disabled.text());
    assert_eq!(server.get("/whoami", &old.key).status, 401);
    let enable = patch(&server, old.id(), &json!({ "enabled": true }));
    assert_problem(&enable, 409, "CONFLICT", &[]);
    assert_eq!(server.revoke(old.id()).status, 200);
    assert_eq!(server.get("/whoami", &old.key).status, 401);
    assert_eq!(server.record(old.id())["status"], "revoked");
}
