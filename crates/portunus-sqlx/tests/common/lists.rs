//! Lists: their order, their pages, their filters.

use std::collections::HashMap;

use portunus::key::{KeyFamily, KeyStatus, PlanName, WorkspaceId};
use portunus::store::{Cursor, MemoryStore, Page, UsageDelta};

use super::*;

async fn pages(store: &impl KeyStore, mut query: ListQuery) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page: Page = store.list(&query).await.unwrap();
        pages.push(page.items.iter().map(|item| item.id.to_string()).collect());
        query.after = page.next;
        if query.after.is_none() {
            return pages;
        }
    }
}

pub(crate) async fn a_list_is_newest_first_and_then_by_id(home: &impl Home) {
    let store = home.open().await;
    // By bytes, whatever the database's collation is.
    for (number, (name, made)) in
        (0..).zip([("b", 5), ("a", 5), ("B", 5), ("c", 9), ("_", 5), ("d", 1)])
    {
        let mut record = record(name);
        record.created_at = at(made);
        store
            .apply(&batch([insert(digest(number), record)]))
            .await
            .unwrap();
    }
    let order = ["c", "B", "_", "a", "b", "d"];
    for limit in [1, 2, 3, 5, 6, 50] {
        let mut query = ListQuery::new(at(1_000));
        query.limit = limit;
        let pages = pages(&store, query).await;
        assert!(
            pages
                .iter()
                .all(|page| !page.is_empty() && page.len() <= limit),
            "{pages:?}"
        );
        assert_eq!(pages.concat(), order, "{limit} per page");
        assert_eq!(
            pages.len(),
            order.len().div_ceil(limit),
            "no page more than needed"
        );
    }
    let mut query = ListQuery::new(at(1_000));
    query.after = Some(Cursor::new(at(5) + Duration::from_nanos(1), id("zzz")));
    assert_eq!(
        pages(&store, query).await.concat(),
        order[1..],
        "a place between two milliseconds"
    );
}

pub(crate) async fn pages_hold_every_key_once_while_others_are_added_and_deleted(home: &impl Home) {
    let store = home.open().await;
    let changes = (0..60_u32).map(|number| {
        let mut record = record(&format!("old{number:02}"));
        record.created_at = at(u64::from(number / 7));
        insert(digest(number), record)
    });
    store.apply(&batch(changes)).await.unwrap();
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for number in 0..60_u32 {
            let mut record = record(&format!("new{number:02}"));
            record.created_at = at(u64::from(number / 5));
            let name = record.id.to_string();
            writer
                .apply(&batch([insert(digest(1_000 + number), record)]))
                .await
                .unwrap();
            if number % 3 == 0 {
                writer
                    .apply(&batch([Change::Delete(id(&name))]))
                    .await
                    .unwrap();
            }
        }
    });
    let mut query = ListQuery::new(at(1_000));
    query.limit = 3;
    for _ in 0..5 {
        let mut seen = pages(&store, query.clone()).await.concat();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all, "no duplicates");
        assert_eq!(
            seen.iter().filter(|name| name.starts_with("old")).count(),
            60,
            "none missing"
        );
    }
    writing.await.unwrap();
}

/// Five keys that differ in the fields that lists filter by.
async fn five<H: Home>(home: &H) -> H::Store {
    let store = home.open().await;
    let mut a = record("a");
    a.name = "Payments LIVE".into();
    let mut b = record("b");
    b.description = Some("for the payments team".into());
    b.environment = test();
    let mut c = record("c");
    c.owner = Owner::tenant(tenant("other"));
    c.masked = "acme_live_sk_…PayM".into();
    let mut d = record("d");
    d.revoked = Some(Revocation::new(at(1_000), None));
    let mut e = record("e");
    e.expires_at = Some(at(2_000));
    for (number, record) in (0..).zip([a, b, c, d, e]) {
        store
            .apply(&batch([insert(digest(number), record)]))
            .await
            .unwrap();
    }
    store
}

pub(crate) async fn a_list_is_filtered_by_tenant_status_environment_and_text(home: &impl Home) {
    let store = five(home).await;
    type Change = fn(&mut ListQuery);
    let cases: [(&str, Change, &[&str]); 9] = [
        ("all", |_| {}, &["a", "b", "c", "d", "e"]),
        ("a tenant", |q| q.tenant = Some(tenant("other")), &["c"]),
        (
            "a tenant that is not there",
            |q| q.tenant = Some(tenant("acm")),
            &[],
        ),
        (
            "active",
            |q| q.status = Some(KeyStatus::Active),
            &["a", "b", "c", "e"],
        ),
        (
            "active later",
            |q| {
                q.status = Some(KeyStatus::Active);
                q.now = at(2_000);
            },
            &["a", "b", "c"],
        ),
        ("revoked", |q| q.status = Some(KeyStatus::Revoked), &["d"]),
        ("an environment", |q| q.environment = Some(test()), &["b"]),
        (
            "a text in name, description or mask",
            |q| q.text = Some("pAYm".into()),
            &["a", "b", "c"],
        ),
        (
            "a text and a tenant",
            |q| {
                q.text = Some("paym".into());
                q.tenant = Some(tenant("acme"));
            },
            &["a", "b"],
        ),
    ];
    for (what, change, expected) in cases {
        for limit in [1, 50] {
            let mut query = ListQuery::new(at(1_000));
            change(&mut query);
            query.limit = limit;
            assert_eq!(
                pages(&store, query).await.concat(),
                expected,
                "{what}, {limit} a page"
            );
        }
    }
}

pub(crate) async fn pattern_characters_are_literal(home: &impl Home) {
    let store = home.open().await;
    let names = ["100%", "a_b", "aXb", "back\\slash", "[abc]", "a*b?", "É"];
    for (number, name) in (0..).zip(names) {
        let mut record = record(&format!("key{number}"));
        record.name = name.into();
        store
            .apply(&batch([insert(digest(number), record)]))
            .await
            .unwrap();
    }
    for (text, expected) in [
        ("%", vec!["100%"]),
        ("_", vec!["a_b"]),
        ("A_B", vec!["a_b"]),
        ("\\", vec!["back\\slash"]),
        ("[", vec!["[abc]"]),
        ("*", vec!["a*b?"]),
        ("?", vec!["a*b?"]),
        ("É", vec!["É"]),
        ("é", vec![]),
    ] {
        let mut query = ListQuery::new(at(1_000));
        query.text = Some(text.into());
        let found: Vec<_> = store
            .list(&query)
            .await
            .unwrap()
            .items
            .iter()
            .map(|k| k.name.clone())
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }
}

pub(crate) async fn a_list_within_workspaces_fills_its_pages(home: &impl Home) {
    let store = home.open().await;
    let workspace = |name: &str| WorkspaceId::new(name).unwrap();
    let mut changes = Vec::new();
    for number in 0..700_u32 {
        let mut record = record(&format!("key{number:03}"));
        record.workspaces = match number {
            _ if number % 100 == 0 => Some(vec![workspace("own")]),
            _ if number % 100 == 1 => Some(vec![workspace("own"), workspace("other")]),
            350 => None,
            _ => Some(vec![workspace("other")]),
        };
        changes.push(insert(digest(number), record));
    }
    for part in changes.chunks(100) {
        store.apply(&batch(part.iter().cloned())).await.unwrap();
    }
    let mut query = ListQuery::new(at(1_000));
    query.within_workspaces = Some(vec![workspace("own")]);
    let expected = [
        "key000", "key100", "key200", "key300", "key350", "key400", "key500", "key600",
    ];
    for limit in [1, 3, 8, 50] {
        query.limit = limit;
        let pages = pages(&store, query.clone()).await;
        assert_eq!(pages.concat(), expected);
        assert_eq!(
            pages.len(),
            expected.len().div_ceil(limit),
            "every page but the last is full"
        );
    }
}

pub(crate) async fn every_filter_agrees_with_the_definition(home: &impl Home) {
    let store = home.open().await;
    let mut random = Random(11);
    let mut changes = Vec::new();
    for number in 0..150_u32 {
        let mut record = record(&format!("key{number}"));
        record.created_at = at(random.below(6));
        record.owner = Owner::tenant(tenant(random.pick(&["acme", "other"])));
        record.owner.user_id = random.pick(&[None, Some(user("u1")), Some(user("u2"))]);
        record.plan = random.pick(&[None, PlanName::new("free").ok(), PlanName::new("pro").ok()]);
        record.kind = random.pick(&[KeyKind::App, KeyKind::User, KeyKind::AccessToken]);
        if random.one_in(3) {
            record.family = KeyFamily::new("key1").unwrap();
        }
        record.environment = random.pick(&[live(), test()]);
        record.enabled = !random.one_in(3);
        record.not_before = random.one_in(3).then(|| at(random.below(6)));
        record.expires_at = random.one_in(3).then(|| at(random.below(6)));
        record.revoked = random.one_in(4).then(|| Revocation::new(at(1), None));
        record.name = random.pick(&["Alpha", "beta%", "GAMMA_"]).into();
        record.description = random.pick(&[None, Some("delta".into())]);
        record.workspaces = random.pick(&[None, Some(vec![WorkspaceId::new("w").unwrap()])]);
        changes.push(insert(digest(number), record));
    }
    store.apply(&batch(changes)).await.unwrap();
    let mut deltas = Vec::new();
    for number in 0..150 {
        let (key, last) = (id(&format!("key{number}")), at(random.below(6)));
        if random.one_in(2) {
            deltas.push(UsageDelta::new(key, 1, last, None));
        }
    }
    store.record_usage(&deltas).await.unwrap();
    let whole = {
        let mut query = ListQuery::new(at(0));
        query.limit = 500;
        store.list(&query).await.unwrap().items
    };
    assert_eq!(whole.len(), 150);
    let ids: Vec<_> = whole.iter().map(|key| key.id.clone()).collect();
    let usage = store.usage_of(&ids).await.unwrap();
    let usage: HashMap<_, _> = ids.into_iter().zip(usage).collect();
    let statuses = [
        KeyStatus::Active,
        KeyStatus::NotYetValid,
        KeyStatus::Expired,
        KeyStatus::Disabled,
        KeyStatus::Revoked,
    ];
    for _ in 0..600 {
        let mut query = ListQuery::new(at(random.below(7)) + Duration::from_nanos(random.below(2)));
        let mut soon = |chance| {
            let after = Duration::from_nanos(random.below(2));
            random.one_in(chance).then(|| at(random.below(7)) + after)
        };
        (query.expires_before, query.unused_since) = (soon(3), soon(3));
        query.owner = random.one_in(4).then(|| user("u1"));
        query.plan = PlanName::new("pro").ok().filter(|_| random.one_in(4));
        query.family = KeyFamily::new("key1").ok().filter(|_| random.one_in(5));
        query.kind = random.one_in(4).then_some(KeyKind::User);
        query.limit = usize::try_from(1 + random.below(40)).unwrap();
        query.status = random.one_in(2).then(|| random.pick(&statuses));
        query.tenant = random.one_in(2).then(|| tenant("acme"));
        query.environment = random.one_in(3).then(live);
        query.text = random.pick(&[
            None,
            None,
            Some("A".to_owned()),
            Some("%".into()),
            Some("DELTA".into()),
        ]);
        query.within_workspaces = random.one_in(4).then(Vec::new);
        let selected = |item: &&Arc<KeyRecord>| query.selects(item, &usage[&item.id]);
        let expected: Vec<_> = whole.iter().filter(selected).collect();
        let expected: Vec<_> = expected.iter().map(|item| item.id.to_string()).collect();
        assert_eq!(
            pages(&store, query.clone()).await.concat(),
            expected,
            "{query:?}"
        );
    }
}

pub(crate) async fn keys_of_one_millisecond_are_paged_in_the_order_of_their_bytes(
    home: &impl Home,
) {
    let (store, memory) = (home.open().await, MemoryStore::new());
    let mut random = Random(5);
    let mut changes = Vec::new();
    for number in 0..300_u32 {
        // Letters that a locale, ignoring case, or comparing numbers would sort differently.
        let first = random.pick(&["-", "_", "A", "a", "B", "b", "Z", "z", "0", "9", "10"]);
        let mut record = record(&format!("{first}{}k{number}", random.pick(&["", "-", "_"])));
        let nanos = if random.one_in(8) {
            random.below(3_000_000)
        } else {
            // Many at the same nanosecond, too.
            1_000_000 + random.below(40)
        };
        record.created_at = at(1_000) + Duration::from_nanos(nanos);
        changes.push(insert(digest(number), record));
    }
    store.apply(&batch(changes.clone())).await.unwrap();
    memory.apply(&batch(changes)).await.unwrap();
    assert_paged_by_bytes(&memory).await;
    assert_paged_by_bytes(&store).await;
}

/// Asserts that pages of any size hold every key once, newest first and then by the bytes of their
/// ids, and can be continued after any of them.
async fn assert_paged_by_bytes(store: &impl KeyStore) {
    let mut query = ListQuery::new(at(5_000));
    query.limit = 500;
    let listed = store.list(&query).await.unwrap().items;
    let place = |key: &Arc<KeyRecord>| {
        let id = key.id.as_str().as_bytes().to_vec();
        (std::cmp::Reverse(key.created_at), id)
    };
    assert!(listed.is_sorted_by_key(place));
    let expected: Vec<_> = listed.iter().map(|key| key.id.to_string()).collect();
    assert_eq!(expected.len(), 300);
    for limit in [1, 7, 50, 299, 300] {
        query.limit = limit;
        let pages = pages(store, query.clone()).await;
        assert_eq!(pages.concat(), expected, "{limit} per page");
        assert_eq!(pages.len(), 300_usize.div_ceil(limit));
    }
    query.limit = 2;
    for (number, key) in listed.iter().enumerate() {
        let record = &key;
        query.after = Some(Cursor::new(record.created_at, record.id.clone()));
        let next = store.list(&query).await.unwrap().items;
        let next: Vec<_> = next.iter().map(|key| key.id.to_string()).collect();
        let rest = &expected[number + 1..];
        assert_eq!(next, rest[..rest.len().min(2)], "after {}", record.id);
    }
}
