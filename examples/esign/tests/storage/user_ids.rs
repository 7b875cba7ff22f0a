//! User ids are normalized where the API's ids are UUIDs: for new keys, and for those in an
//! existing file.

use crate::common::manage::{ids, list};
use crate::common::{Call, Issued, Server, USER};
use crate::newer::change_one_row;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

fn of(user: &str) -> Value {
    json!({ "kind": "user", "owner": { "user_id": user }, "scopes": ["*"] })
}

fn is_primary(server: &Server, issued: &Issued) -> Value {
    server.record(issued.id())["primary"].clone()
}

fn owner_of(server: &Server, issued: &Issued) -> Value {
    server.get("/whoami", &issued.key).json()["owner"]["user_id"].clone()
}

#[test]
fn an_upper_case_user_is_the_same_user() {
    for adapter in ["axum", "actix"] {
        let server = Server::start("allsign", &["--adapter", adapter], &[]);
        let (first, second) = (
            server.issue(of(USER)),
            server.issue(of(&USER.to_uppercase())),
        );
        assert_eq!(second.record["owner"]["user_id"], USER);
        assert_eq!(owner_of(&server, &second), USER);
        assert_eq!(first.record["primary"], true);
        assert_eq!(second.record["primary"], false, "one primary key");
        let mut import = of(&USER.to_uppercase());
        import["name"] = "imported".into();
        import["digest"] = json!({ "scheme": "sha256", "hex": "ab".repeat(32) });
        let imported = server.admin("owner", Call::post("/import").json(&import));
        assert_eq!(imported.status, 201, "{}", imported.text());
        assert_eq!(imported.json()["record"]["owner"]["user_id"], USER);
    }
}

/// Writes the user's ids in upper case, as earlier versions did.
fn spoil(path: &std::path::Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let upper = USER.to_uppercase();
        for sql in [
            format!(
                "UPDATE portunus_keys SET user_id = '{upper}', \
                 record = replace(record, '{USER}', '{upper}') WHERE name = 'old'"
            ),
            format!(
                "UPDATE portunus_primaries SET owner_user = '{upper}' \
                 WHERE key_id = (SELECT id FROM portunus_keys WHERE name = 'old')"
            ),
        ] {
            let changed = sqlx::query(AssertSqlSafe(sql)).execute(&mut connection);
            assert_eq!(changed.await.unwrap().rows_affected(), 1);
        }
        connection.close().await.unwrap();
    });
}

#[test]
fn a_corrupt_key_does_not_affect_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = format!("sqlite:{}", path.display());
    let server = Server::on(&store, "allsign");
    let mut old = of(USER);
    old["name"] = "old".into();
    let (old, other) = (server.issue(old), server.issue(json!({})));
    assert_eq!(server.stop().code, Some(0));
    spoil(&path);
    change_one_row(
        &path,
        "UPDATE portunus_keys SET record = 'nonsense' WHERE name = 'old'".into(),
    );
    let server = Server::on(&store, "allsign");
    assert_eq!(server.get("/whoami", &other.key).status, 200);
    assert_eq!(server.get("/whoami", &old.key).status, 503);
    assert!(server.log().contains(old.id()), "{}", server.log());
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_start_gives_the_keys_of_before_their_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = format!("sqlite:{}", path.display());
    let server = Server::on(&store, "allsign");
    let mut old = of(USER);
    old["name"] = "old".into();
    let old = server.issue(old);
    assert_eq!(server.stop().code, Some(0));
    spoil(&path);
    for start in 1..=2 {
        let server = Server::on(&store, "allsign");
        let record = server.record(old.id());
        assert_eq!(record["owner"]["user_id"], USER, "start {start}");
        assert_eq!(record["version"], 2, "once");
        assert_eq!(owner_of(&server, &old), USER);
        assert_eq!(is_primary(&server, &old), true);
        let next = server.issue(of(&USER.to_uppercase()));
        assert_eq!(is_primary(&server, &next), false);
        assert_eq!(ids(&list(&server, "owner", "")).len(), 1 + start);
        assert_eq!(server.stop().code, Some(0));
    }
}
