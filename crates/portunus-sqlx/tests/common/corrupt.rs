//! Rows that were changed behind the store's back: unreadable data is reported, never
//! misinterpreted.

use portunus::store::UsageDelta;

use super::contract::full_record;
use super::*;

/// Every read of the key `full`, as text: an error, or what it found.
async fn read(store: &impl KeyStore) -> Vec<String> {
    let reported = |name: &str, result: Result<bool, StoreError>| match result {
        Ok(found) => format!("{name} found it: {found}"),
        Err(error) => error.to_string(),
    };
    let mut query = ListQuery::new(at(1_000));
    query.text = None;
    vec![
        reported(
            "find",
            store.find(&[digest(1)]).await.map(|found| found.is_some()),
        ),
        reported(
            "get",
            store.get(&id("full")).await.map(|found| found.is_some()),
        ),
        // A list reports it and continues.
        match store.list(&query).await {
            Ok(page) if page.items.is_empty() && page.corrupt.len() == 1 => {
                format!("a stored key cannot be read: {}", page.corrupt[0])
            }
            Ok(page) => format!("list found {page:?}"),
            Err(error) => error.to_string(),
        },
    ]
}

fn assert_corrupt(reported: &[String], column: &str) {
    for reported in reported {
        let names_it = reported.starts_with("a stored key cannot be read: portunus_")
            && reported.contains("row \"");
        assert!(
            names_it && reported.ends_with(&format!("column {column}")),
            "column {column}: {reported}"
        );
        assert!(
            !reported.contains(&hex(&digest(1).to_bytes()[4..10])),
            "a digest is reported: {reported}"
        );
    }
}

async fn home_with_full<H: Home>(home: &H) -> H::Store {
    let store = home.open().await;
    store
        .apply(&batch([insert(digest(1), full_record("full"))]))
        .await
        .unwrap();
    store
}

pub(crate) async fn no_column_can_be_changed_unnoticed(home: &impl Home) {
    let store = home_with_full(home).await;
    let garbage: [(&str, &[&str]); 15] = [
        ("family", &["'other'", "''"]),
        ("version", &["4", "-1", "0"]),
        ("kind", &["'app'", "'access_token'", "'nonsense'"]),
        ("environment", &["'test'", "''"]),
        ("tenant_id", &["'other'", "''"]),
        ("user_id", &["NULL", "'u2'"]),
        ("name", &["'other'"]),
        ("description", &["NULL", "''"]),
        ("masked", &["''"]),
        ("created_at", &["0", "-1", "9223372036854775807"]),
        ("not_before", &["NULL", "0"]),
        (
            "expires_at",
            &["NULL", "9223372036854775807", "-9223372036854775808"],
        ),
        ("enabled", &["1", "2", "-1"]),
        ("revoked_at", &["NULL", "0"]),
        ("may_be_primary", &["1", "7"]),
    ];
    for (column, values) in garbage {
        for value in values {
            home.execute(format!(
                "CREATE TABLE kept AS SELECT {column} AS old FROM portunus_keys"
            ))
            .await;
            assert_eq!(
                home.execute(format!("UPDATE portunus_keys SET {column} = {value}"))
                    .await,
                1
            );
            assert_corrupt(&read(&store).await, column);
            let change = WriteBatch::new().update(full_record("full"));
            assert_corrupt(
                &[store.apply(&change).await.unwrap_err().to_string()],
                column,
            );
            home.execute(format!(
                "UPDATE portunus_keys SET {column} = (SELECT old FROM kept)"
            ))
            .await;
            home.execute("DROP TABLE kept".into()).await;
        }
    }
    assert_eq!(get(&store, "full").await, full_record("full"));
    home.execute("UPDATE portunus_keys SET id = 'other'".into())
        .await;
    assert_corrupt(&read(&store).await[..1], "id");
    let error = store.get(&id("other")).await.unwrap_err().to_string();
    assert!(error.contains("row \"other\", column id"), "{error}");
}

pub(crate) async fn no_part_of_a_record_can_be_lost_unnoticed(home: &impl Home) {
    let store = home_with_full(home).await;
    let json = home.text("SELECT record FROM portunus_keys").await;
    let whole: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert!(whole.len() > 20);
    let write = |text: String| {
        home.execute(format!(
            "UPDATE portunus_keys SET record = '{}'",
            text.replace('\'', "''")
        ))
    };
    for field in whole.keys() {
        // The predecessor and successor may be missing: they grant nothing.
        if ["predecessor", "successor", "origin"].contains(&field.as_str()) {
            continue;
        }
        let mut changed = whole.clone();
        changed.remove(field);
        write(serde_json::to_string(&changed).unwrap()).await;
        let reported = read(&store).await;
        let column = if field == "description" {
            "description"
        } else {
            "record"
        };
        assert_corrupt(&reported, column);
        for wrong in [
            serde_json::json!(-1),
            serde_json::json!([[]]),
            serde_json::json!({"x": 1}),
        ] {
            if field == "metadata" && wrong.is_object() {
                continue;
            }
            changed.insert(field.clone(), wrong);
            write(serde_json::to_string(&changed).unwrap()).await;
            assert_corrupt(&read(&store).await, "record");
        }
    }
    for text in [
        "",
        " ",
        "null",
        "{}",
        "[]",
        "{",
        "nonsense",
        &json[..json.len() - 1],
        &format!("{json}{json}"),
    ] {
        write(text.to_owned()).await;
        assert_corrupt(&read(&store).await, "record");
    }
    write(json).await;
    assert_eq!(get(&store, "full").await, full_record("full"));
}

pub(crate) async fn broken_schemes_states_and_usage_are_reported_with_row_and_column(
    home: &impl Home,
) {
    let store = home_with_full(home).await;
    let sign = Change::SetSigning {
        id: id("full"),
        state: Some(signing(1)),
    };
    store.apply(&batch([sign])).await.unwrap();
    store
        .record_usage(&[UsageDelta::new(id("full"), 3, at(7_200), None)])
        .await
        .unwrap();
    for scheme in ["''", "'md5'", "'hmac-sha256:'", "'hmac-sha256:x'"] {
        home.execute(format!("UPDATE portunus_keys SET scheme = {scheme}"))
            .await;
        assert_corrupt(&read(&store).await[..1], "scheme");
        let error = store
            .apply(&batch([rehash("full", digest(1), digest(2))]))
            .await
            .unwrap_err();
        assert_corrupt(&[error.to_string()], "scheme");
    }
    home.execute("UPDATE portunus_keys SET scheme = 'sha256'".into())
        .await;
    for bytes in [vec![], vec![1; 64], vec![2; 65], vec![1; 66]] {
        home.execute(format!(
            "UPDATE portunus_keys SET signing = {}",
            home.bytes(&bytes)
        ))
        .await;
        assert_corrupt(
            &[store
                .signing_state(&id("full"))
                .await
                .unwrap_err()
                .to_string()],
            "signing",
        );
    }
    for (column, value, back) in [
        ("uses", "-1", "3"),
        ("last_ip", "'nonsense'", "NULL"),
        ("last_ip", "''", "NULL"),
    ] {
        home.execute(format!("UPDATE portunus_usage SET {column} = {value}"))
            .await;
        let both = [id("other"), id("full")];
        for ids in [&both[1..], &both] {
            let error = store.usage_of(ids).await.unwrap_err();
            assert_corrupt(&[error.to_string()], column);
        }
        assert_eq!(used(&store, &both[0]).await, Usage::default());
        assert!(
            store.find(&[digest(1)]).await.unwrap().is_some(),
            "usage is not part of a lookup"
        );
        home.execute(format!("UPDATE portunus_usage SET {column} = {back}"))
            .await;
    }
    let full = id("full");
    let unreadable = async || {
        let reported = store
            .usage_by_hour(&full, at(0), at(100_000))
            .await
            .unwrap();
        assert_eq!(
            (reported.hours.len(), reported.corrupt.len()),
            (0, 1),
            "{reported:?}"
        );
        reported
            .corrupt
            .into_iter()
            .map(|row| StoreError::corrupt(row).to_string())
            .collect::<Vec<_>>()
    };
    home.execute("UPDATE portunus_usage_by_hour SET uses = -1".into())
        .await;
    assert_corrupt(&unreadable().await, "uses");
    home.execute("UPDATE portunus_usage_by_hour SET uses = 1, start = 5".into())
        .await;
    assert_corrupt(&unreadable().await, "start");
    let digest_of_other_length = format!("UPDATE portunus_keys SET digest = {}", home.bytes(&[1]));
    home.execute(digest_of_other_length).await;
    let error = store
        .apply(&batch([rehash("full", digest(1), digest(2))]))
        .await
        .unwrap_err();
    assert_corrupt(&[error.to_string()], "digest");
    // An unreadable row can still be deleted.
    store
        .apply(&batch([Change::Delete(id("full"))]))
        .await
        .unwrap();
}

pub(crate) async fn a_digest_that_is_recorded_for_another_key_is_reported(home: &impl Home) {
    let store = home_with_full(home).await;
    store
        .apply(&batch([
            insert(digest(2), record("other")),
            rehash("other", digest(2), peppered(2)),
            insert(digest(3), record("gone")),
            Change::Delete(id("gone")),
        ]))
        .await
        .unwrap();
    for number in [2, 3] {
        let bytes = home.bytes(&digest(number).to_bytes());
        home.execute(format!(
            "UPDATE portunus_keys SET digest = {bytes} WHERE id = 'full'"
        ))
        .await;
        for asked in [&[digest(number)][..], &[peppered(9), digest(number)]] {
            let error = store.find(asked).await.unwrap_err();
            assert_corrupt(&[error.to_string()], "id");
        }
    }
}

pub(crate) async fn a_corrupt_row_is_named_only_to_its_own_tenant(home: &impl Home) {
    let store = home_with_full(home).await;
    let mut others = record("others");
    others.owner.tenant_id = tenant("other");
    store
        .apply(&batch([insert(digest(2), others)]))
        .await
        .unwrap();
    let json = home
        .text("SELECT record FROM portunus_keys WHERE id = 'full'")
        .await;
    let broken = "record = REPLACE(record, '\"kind\"', '\"sort\"')";
    let cases = [
        ("name = 'x'".to_owned(), 1),
        (broken.to_owned(), 1),
        ("record = 'nonsense'".to_owned(), 1),
        ("tenant_id = 'other'".to_owned(), 0),
        ("tenant_id = 'other', name = 'x'".to_owned(), 0),
        ("tenant_id = 'other', kind = 'x'".to_owned(), 0),
        (format!("tenant_id = 'other', {broken}"), 0),
    ];
    for (fault, named) in cases {
        let write = async |set: &str| {
            let update = format!("UPDATE portunus_keys SET {set} WHERE id = 'full'");
            assert_eq!(home.execute(update).await, 1);
        };
        write(&fault).await;
        for (of, rows) in [
            (Some("acme"), (0, named)),
            (Some("other"), (1, 0)),
            (None, (1, 1)),
        ] {
            for limit in [1, 50] {
                let mut query = ListQuery::new(at(1_000));
                (query.tenant, query.limit) = (of.map(tenant), limit);
                let (mut items, mut corrupt, mut pages) = (0, 0, 0);
                loop {
                    let page = store.list(&query).await.unwrap();
                    (items, corrupt) = (items + page.items.len(), corrupt + page.corrupt.len());
                    pages += 1;
                    assert!(pages < 5, "the pages do not end");
                    let Some(next) = page.next else { break };
                    query.after = Some(next);
                }
                assert_eq!(
                    (items, corrupt),
                    rows,
                    "{fault}: the list of {of:?}, {limit} a page"
                );
            }
        }
        let whole = json.replace('\'', "''");
        write(&format!(
            "tenant_id = 'acme', name = '{}', kind = 'user', record = '{whole}'",
            full_record("full").name.replace('\'', "''")
        ))
        .await;
        assert_eq!(get(&store, "full").await, full_record("full"));
    }
}
