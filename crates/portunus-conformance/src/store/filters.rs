//! The selection of a list: as defined by [`ListQuery::selects`], for every filter and pages of any
//! size.

use super::paging::pages;
use super::tools::{
    Store, apply, at, environment, id, insert, made_at, owned_by, record, tenant, user,
};
use crate::report::{Checked, Failure, valid};
use portunus::key::{
    KeyFamily, KeyKind, KeyRecord, KeyStatus, Metadata, PlanName, Revocation, WorkspaceId,
};
use portunus::store::{ListQuery, Usage};

checks!(CHECKS: Store {
    "a list is filtered by tenant"
        => by_tenant depends on [whole_list],
    "a list is filtered by status at an instant"
        => by_status depends on [whole_list],
    "a list is filtered by environment"
        => by_environment depends on [whole_list],
    "a list is filtered by owner, plan, family and kind"
        => by_names depends on [whole_list],
    "a list of keys that expire before an instant omits keys that never expire"
        => by_expiry depends on [whole_list],
    "a list within workspaces omits keys that reach another workspace"
        => by_workspaces depends on [whole_list],
    "a search text matches name, description and mask, ignoring case"
        => by_text depends on [whole_list],
    "a search text is matched literally, whatever characters it contains"
        => text_is_literal depends on [by_text],
    "a search ignores the case of ASCII letters only"
        => ascii_case depends on [by_text],
    "filters combine"
        => together depends on [
            by_tenant, by_status, by_environment, by_names, by_expiry, by_workspaces, by_text
        ],
});

async fn put(store: &Store, records: Vec<KeyRecord>) -> Result<Vec<KeyRecord>, Failure> {
    apply(
        store,
        (1..)
            .zip(records.iter().cloned())
            .map(|(number, record)| insert(number, record)),
    )
    .await?;
    Ok(records)
}

/// The keys of a page, and the most keys that are examined for it.
type PageSize = (usize, Option<usize>);

const PAGE_SIZES: [PageSize; 5] = [
    (1, None),
    (3, None),
    (50, None),
    (2, Some(1)),
    (50, Some(4)),
];

/// Compares a list with what the query selects from all records.
async fn agrees(store: &Store, records: &[KeyRecord], what: &str, query: ListQuery) -> Checked {
    agrees_in(&PAGE_SIZES, store, records, what, query).await
}

/// The same in pages of these sizes only.
async fn agrees_in(
    sizes: &[PageSize],
    store: &Store,
    records: &[KeyRecord],
    what: &str,
    query: ListQuery,
) -> Checked {
    let mut expected: Vec<_> = records
        .iter()
        .filter(|record| query.selects(record, &Usage::default()))
        .collect();
    expected.sort_by_key(|record| (std::cmp::Reverse(record.created_at), record.id.clone()));
    let expected: Vec<_> = expected.iter().map(|record| record.id.clone()).collect();
    for &(limit, scanned) in sizes {
        let mut query = query.clone();
        (query.limit, query.scanned) = (limit, scanned);
        ensure_eq!(
            pages(store, query).await?.concat(),
            expected,
            "{what}, {limit} per page, of {scanned:?} examined"
        );
    }
    Ok(())
}

fn query(change: impl FnOnce(&mut ListQuery)) -> ListQuery {
    let mut query = ListQuery::new(at(1_000));
    change(&mut query);
    query
}

async fn by_tenant(store: Store) -> Checked {
    let records = vec![
        record("a"),
        owned_by("b", "acme", "u1"),
        owned_by("c", "other", "u1"),
        owned_by("d", "Acme", "u1"),
    ];
    let records = put(&store, records).await?;
    for name in ["acme", "other", "acm", "acme1", "ACME", "%", "_cme"] {
        agrees(
            &store,
            &records,
            &format!("of tenant {name}"),
            query(|q| q.tenant = Some(tenant(name))),
        )
        .await?;
    }
    agrees(&store, &records, "of any tenant", query(|_| {})).await
}

async fn by_status(store: Store) -> Checked {
    let mut records: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .into_iter()
        .map(record)
        .collect();
    records[1].enabled = false;
    records[2].not_before = Some(at(2_000));
    records[3].expires_at = Some(at(2_000));
    records[4].revoked = Some(Revocation::new(at(900), None));
    // Several states at once: final ones take precedence.
    (records[5].enabled, records[5].expires_at) = (false, Some(at(2_000)));
    (records[6].revoked, records[6].expires_at) =
        (Some(Revocation::new(at(900), None)), Some(at(2_000)));
    (records[7].not_before, records[7].expires_at) = (Some(at(2_000)), Some(at(3_000)));
    let records = put(&store, records).await?;
    let statuses = [
        KeyStatus::Active,
        KeyStatus::NotYetValid,
        KeyStatus::Expired,
        KeyStatus::Disabled,
        KeyStatus::Revoked,
    ];
    for now in [1_000, 1_999, 2_000, 2_001, 3_000] {
        for status in statuses {
            let query = query(|query| (query.status, query.now) = (Some(status), at(now)));
            agrees(
                &store,
                &records,
                &format!("{status} at second {now}"),
                query,
            )
            .await?;
        }
    }
    Ok(())
}

async fn by_environment(store: Store) -> Checked {
    let mut records = vec![record("a"), record("b"), record("c")];
    (records[1].environment, records[2].environment) = (environment("test"), environment("live-2"));
    let records = put(&store, records).await?;
    for name in ["live", "test", "live-2", "staging"] {
        agrees(
            &store,
            &records,
            name,
            query(|q| q.environment = Some(environment(name))),
        )
        .await?;
    }
    Ok(())
}

async fn by_names(store: Store) -> Checked {
    let mut records = vec![
        record("a"),
        owned_by("b", "acme", "u1"),
        owned_by("c", "other", "u1"),
        owned_by("d", "acme", "U1"),
        owned_by("e", "acme", "u10"),
    ];
    let plan = |name| Some(valid(PlanName::new(name)));
    records[0].plan = plan("pro");
    records[1].plan = plan("pro-2");
    // The plan of a record is not whatever has that name in it.
    records[2].metadata = valid(Metadata::from_json(r#"{"plan":"pro"}"#));
    records[3].name = r#""plan":"pro""#.into();
    records[4].family = records[1].family.clone();
    (records[1].kind, records[2].kind) = (KeyKind::User, KeyKind::AccessToken);
    let records = put(&store, records).await?;
    let mut queries = Vec::new();
    for name in ["u1", "U1", "u10", "u", "%", "acme"] {
        queries.push(query(|query| query.owner = Some(user(name))));
    }
    for name in ["pro", "pro-2", "pr", "pro_2"] {
        queries.push(query(|query| query.plan = plan(name)));
    }
    for name in ["a", "b", "e", "B", "%"] {
        let family = valid(KeyFamily::new(name));
        queries.push(query(|query| query.family = Some(family)));
    }
    for kind in [KeyKind::App, KeyKind::User, KeyKind::AccessToken] {
        queries.push(query(|query| query.kind = Some(kind)));
    }
    for query in queries {
        for tenant in [None, Some(tenant("acme"))] {
            let mut query = query.clone();
            query.tenant = tenant;
            agrees(&store, &records, &format!("{query:?}"), query).await?;
        }
    }
    Ok(())
}

async fn by_expiry(store: Store) -> Checked {
    let mut records: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(record).collect();
    records[1].expires_at = Some(at(2_000));
    records[2].expires_at = Some(at(3_000));
    (records[3].expires_at, records[3].enabled) = (Some(at(900)), false);
    (records[4].expires_at, records[4].revoked) =
        (Some(at(2_000)), Some(Revocation::new(at(900), None)));
    let records = put(&store, records).await?;
    let statuses = [None, Some(KeyStatus::Active), Some(KeyStatus::Expired)];
    for before in [0, 900, 901, 2_000, 2_001, 10_000] {
        for status in statuses {
            let query = query(|query| {
                query.expires_before = Some(at(before));
                query.status = status;
            });
            let what = format!("{status:?} before second {before}");
            agrees(&store, &records, &what, query).await?;
        }
    }
    Ok(())
}

async fn by_workspaces(store: Store) -> Checked {
    let workspaces = |names: &[&str]| {
        Some(
            names
                .iter()
                .map(|name| valid(WorkspaceId::new(name)))
                .collect(),
        )
    };
    let mut records: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(record).collect();
    records[1].workspaces = workspaces(&["w1"]);
    records[2].workspaces = workspaces(&["w1", "w2"]);
    records[3].workspaces = workspaces(&["w10"]);
    records[4].workspaces = workspaces(&[]);
    let records = put(&store, records).await?;
    for own in [
        &["w1"][..],
        &["w2"],
        &["w1", "w2"],
        &["w2", "w1", "w3"],
        &["w10"],
        &["W1"],
        &[],
    ] {
        let query = query(|query| query.within_workspaces = workspaces(own));
        agrees(&store, &records, &format!("within {own:?}"), query).await?;
    }
    Ok(())
}

async fn by_text(store: Store) -> Checked {
    let mut records: Vec<_> = ["a", "b", "c", "d"].into_iter().map(record).collect();
    records[0].name = "Payments LIVE".into();
    records[1].description = Some("for the payments team".into());
    records[2].masked = "acme_live_sk_…PayM".into();
    (records[3].name, records[3].description) = ("begin".into(), Some("end".into()));
    let records = put(&store, records).await?;
    for text in [
        "pAYm",
        "payments",
        "PAYMENTS live",
        "team",
        "…",
        "acme_",
        "",
        "nend",
        "begin end",
        "nothing",
    ] {
        agrees(
            &store,
            &records,
            &format!("with {text:?}"),
            query(|q| q.text = Some(text.into())),
        )
        .await?;
    }
    Ok(())
}

async fn text_is_literal(store: Store) -> Checked {
    let names = [
        "100% sure",
        "100 x sure",
        "snake_case",
        "snakeXcase",
        r"back\slash",
        "backslash",
        "it's",
        "its",
        "say \"hi\"",
        "[a-z]*",
        "bracket",
        "a.c",
        "abc",
        "x^2$",
        "(one|two)",
        "two",
        "tab\ttab",
        "a\nb",
        r"\%",
        r"\_",
        "-- end",
        "a+b",
        "aab",
    ];
    let mut records = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let mut record = record(&format!("key{number:02}"));
        (record.name, record.masked) = ((*name).into(), "m".into());
        records.push(record);
    }
    let records = put(&store, records).await?;
    let searched = [
        "%",
        "_",
        "100%",
        "0% s",
        "e_c",
        r"\",
        r"\\",
        r"k\s",
        "'",
        "''",
        "\"",
        "[a-z]",
        "*",
        "?",
        ".",
        "a.c",
        "^",
        "$",
        "|",
        "(one",
        r"\%",
        r"\_",
        "\n",
        "\t",
        "--",
        "+",
        "x_",
        "%%",
        "' OR 1=1 --",
    ];
    for text in searched {
        agrees(
            &store,
            &records,
            &format!("with {text:?}"),
            query(|q| q.text = Some(text.into())),
        )
        .await?;
    }
    Ok(())
}

async fn ascii_case(store: Store) -> Checked {
    let names = [
        "ÄRGER",
        "ärger",
        "arger",
        "Kelvin \u{212a}",
        "kelvin k",
        "STRASSE",
        "straße",
        "İstanbul",
        "istanbul",
        "\u{17f}ong",
    ];
    let mut records = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let mut record = record(&format!("key{number:02}"));
        (record.name, record.masked) = ((*name).into(), "m".into());
        records.push(record);
    }
    let records = put(&store, records).await?;
    for text in [
        "ärger", "ÄRGER", "äRGER", "\u{212a}", "KELVIN K", "ss", "SS", "ß", "i", "I", "İ", "Song",
        "\u{17f}",
    ] {
        agrees(
            &store,
            &records,
            &format!("with {text:?}"),
            query(|q| q.text = Some(text.into())),
        )
        .await?;
    }
    Ok(())
}

async fn together(store: Store) -> Checked {
    let mut records = Vec::new();
    for number in 0..48_u64 {
        let mut record = made_at(&format!("key{number:02}"), 1_000 + number % 5);
        if number % 2 == 0 {
            record.owner.tenant_id = tenant("other");
        }
        if number % 3 == 0 {
            record.environment = environment("test");
        }
        record.enabled = number % 4 != 1;
        record.name = format!("{} {number}", if number % 5 < 3 { "Blue" } else { "green" }).into();
        if number % 7 < 3 {
            record.owner.user_id = Some(user("u1"));
            record.kind = KeyKind::User;
        }
        record.plan = (number % 6 < 2).then(|| valid(PlanName::new("pro")));
        record.expires_at = (number % 8 < 5).then(|| at(990 + 2 * number));
        records.push(record);
    }
    let records = put(&store, records).await?;
    for mask in 0..256_usize {
        let query = query(|query| {
            query.tenant = (mask & 1 > 0).then(|| tenant("other"));
            query.environment = (mask & 2 > 0).then(|| environment("test"));
            query.status = (mask & 4 > 0).then_some(KeyStatus::Active);
            query.text = (mask & 8 > 0).then(|| "bLUE".into());
            query.owner = (mask & 16 > 0).then(|| user("u1"));
            query.plan = (mask & 32 > 0).then(|| valid(PlanName::new("pro")));
            query.kind = (mask & 64 > 0).then_some(KeyKind::App);
            query.expires_before = (mask & 128 > 0).then(|| at(1_030));
        });
        // In one size each: in all of them, this would take a slow database longer than a check may take.
        let size = &PAGE_SIZES[mask % PAGE_SIZES.len()..][..1];
        let what = format!("{query:?}");
        agrees_in(size, &store, &records, &what, query).await?;
    }
    ensure!(
        store.get(&id("key00")).await?.is_some(),
        "a listed key was not found by its id"
    );
    Ok(())
}
