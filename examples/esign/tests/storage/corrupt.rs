//! Corrupt rows in lists over HTTP.

use crate::common::manage::{events, ids, items, list};
use crate::common::{Issued, Server, until};
use crate::newer::change_one_row;
use serde_json::{Value, json};

/// Returns the corrupt rows that a page reports, with only table, id and column.
fn named(page: &Value) -> Vec<&str> {
    let rows = page.get("corrupt").map(|rows| rows.as_array().unwrap());
    let rows = rows.into_iter().flatten();
    rows.map(|row| row.as_str().unwrap()).collect()
}

#[test]
fn corrupt_rows_are_skipped_and_reported_only_to_unrestricted_operators_of_the_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let server = Server::on(&format!("sqlite:{}", path.display()), "allsign");
    let [broken, moved, both, whole] = [(); 4].map(|()| server.issue(json!({})));
    let theirs = server.issue_as("outsider", json!({}));
    let of_ours = |key: &Issued| format!("?key_id={}", key.id());
    for key in [&broken, &moved, &both, &whole] {
        until("the event of an issue", || {
            !items(&events(&server, "owner", &of_ours(key))).is_empty()
        });
    }
    let others = "tenant_id = 'tenant_xyz789'";
    for (key, fault) in [
        (&broken, "record = 'nonsense'".to_owned()),
        (&moved, others.to_owned()),
        (&both, format!("{others}, name = 'x', kind = 'x'")),
    ] {
        let sql = format!("UPDATE portunus_keys SET {fault} WHERE id = '{}'", key.id());
        change_one_row(&path, sql);
    }
    let unread = "event = replace(event, '\"action\"', '\"act\"')";
    for (key, fault) in [
        (&broken, unread.to_owned()),
        (&moved, others.to_owned()),
        (&both, format!("{others}, {unread}")),
    ] {
        let sql = format!(
            "UPDATE portunus_events SET {fault} WHERE key_id = '{}' AND action = 'key.issue'",
            key.id()
        );
        change_one_row(&path, sql);
    }

    let page = list(&server, "owner", "");
    assert_eq!(ids(&page), [whole.id()]);
    let row = format!("portunus_keys row {:?}, column record", broken.id());
    assert_eq!(named(&page), [row]);
    let page = events(&server, "owner", "");
    assert_eq!(items(&page).len(), 1, "{page}");
    let [row] = named(&page)[..] else {
        panic!("{page}")
    };
    assert!(
        row.starts_with("portunus_events row ") && row.ends_with(", column event"),
        "{row}"
    );

    for (operator, shown) in [("admin", whole.id()), ("outsider", theirs.id())] {
        let page = list(&server, operator, "");
        assert_eq!(ids(&page), [shown], "{operator}");
        let log = events(&server, operator, "");
        assert_eq!(items(&log).len(), 1, "{operator}: {log}");
        for page in [page, log] {
            assert!(page.get("corrupt").is_none(), "{operator}: {page}");
            for hidden in [&broken, &moved, &both] {
                assert!(
                    !page.to_string().contains(hidden.id()),
                    "{operator}: {page}"
                );
            }
        }
    }
    server.assert_alive();
}
