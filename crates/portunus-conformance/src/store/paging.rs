//! Pages: a position in the order rather than a number of rows, so that no key is skipped or
//! repeated while keys are added and deleted.

use std::cmp::Reverse;
use std::time::Duration;

use super::tools::{Store, apply, at, delete, id, insert, made_at, record, stored};
use crate::report::{Checked, Failure};
use portunus::key::KeyId;
use portunus::store::{Cursor, ListQuery};

checks!(CHECKS: Store {
    "an empty list is a single page without a next one"
        => empty_list depends on [whole_digest],
    "all pages together are the whole list, newest first and then by id"
        => whole_list depends on [whole_digest],
    "a page has 1 to 500 keys, whatever limit is requested"
        => limits depends on [whole_list],
    "keys added or deleted between pages cause no other key to be skipped or repeated"
        => while_changing depends on [whole_list, deleted],
    "a cursor that matches no key still divides the list"
        => between depends on [while_changing],
    "keys created within a second are ordered by the millisecond"
        => milliseconds depends on [whole_list, times],
    "keys of one instant are ordered by the bytes of their ids, and no nanosecond makes a page \
     skip or repeat one"
        => instants depends on [between, milliseconds],
});

/// Inserts 57 keys, several of them created at the same instant, in no particular order. Returns
/// their ids in list order.
async fn crowd(store: &Store) -> Result<Vec<KeyId>, Failure> {
    let mut sorted = Vec::new();
    let mut changes = Vec::new();
    for number in 0..57_u64 {
        let record = made_at(
            &format!("key{:02}", (number * 23) % 57),
            1_000 + number * 7 % 11,
        );
        sorted.push((Reverse(record.created_at), record.id.clone()));
        changes.push(insert(number, record));
    }
    apply(store, changes).await?;
    sorted.sort();
    Ok(sorted.into_iter().map(|(_, id)| id).collect())
}

/// All pages of a query, in sequence.
pub(super) async fn pages(store: &Store, mut query: ListQuery) -> Result<Vec<Vec<KeyId>>, Failure> {
    let mut pages = Vec::new();
    loop {
        let page = store.list(&query).await?;
        pages.push(page.items.iter().map(|key| key.id.clone()).collect());
        ensure!(pages.len() <= 1_000, "the pages do not end");
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(pages),
        }
    }
}

async fn whole_list(store: Store) -> Checked {
    let sorted = crowd(&store).await?;
    for limit in [1, 2, 5, 19, 56, 57, 58, 500] {
        let mut query = ListQuery::new(at(1_000));
        query.limit = limit;
        let pages = pages(&store, query).await?;
        ensure_eq!(pages.concat(), sorted, "{limit} per page");
        let full = pages.iter().rev().skip(1).all(|page| page.len() == limit);
        ensure!(
            full,
            "{limit} per page: the pages have {:?} keys",
            pages.iter().map(Vec::len).collect::<Vec<_>>()
        );
        ensure!(
            pages.iter().all(|page| !page.is_empty()),
            "{limit} per page: the last page is empty"
        );
    }
    Ok(())
}

async fn empty_list(store: Store) -> Checked {
    let page = store.list(&ListQuery::new(at(1_000))).await?;
    ensure_eq!(
        (page.items.len(), page.next),
        (0, None),
        "keys and next page of an empty store"
    );
    Ok(())
}

async fn limits(store: Store) -> Checked {
    for part in 0..6_u64 {
        apply(
            &store,
            (0..84).map(|n| insert(part * 84 + n, record(&format!("key{}", part * 84 + n)))),
        )
        .await?;
    }
    for (asked, given) in [
        (0, 1),
        (1, 1),
        (499, 499),
        (500, 500),
        (501, 500),
        (usize::MAX, 500),
    ] {
        let mut query = ListQuery::new(at(1_000));
        query.limit = asked;
        let page = store.list(&query).await?;
        ensure_eq!(
            (page.items.len(), page.next.is_some()),
            (given, true),
            "a page of 504 keys at a limit of {asked}"
        );
    }
    Ok(())
}

async fn while_changing(store: Store) -> Checked {
    let sorted = crowd(&store).await?;
    let mut query = ListQuery::new(at(1_000));
    query.limit = 10;
    let (mut seen, mut number) = (Vec::new(), 100);
    loop {
        let page = store.list(&query).await?;
        seen.extend(page.items.iter().map(|key| key.id.clone()));
        ensure!(seen.len() <= 200, "the pages do not end");
        let Some(next) = page.next else { break };
        // The last key shown is deleted; others are added at its instant, sorted before and after
        // it, and one that is the newest.
        for name in [
            format!("aaa{number}"),
            format!("zzz{number}"),
            format!("new{number}"),
        ] {
            let mut new = record(&name);
            new.created_at = if name.starts_with("new") {
                at(9_000 + number)
            } else {
                next.created_at
            };
            apply(&store, [insert(number, new)]).await?;
            number += 1;
        }
        apply(&store, [delete(next.id.as_str())]).await?;
        query.after = Some(next);
    }
    let old: Vec<_> = seen
        .iter()
        .filter(|id| id.as_str().starts_with("key"))
        .cloned()
        .collect();
    ensure_eq!(old, sorted, "the keys that existed from the beginning");
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    ensure_eq!(
        seen.len(),
        distinct.len(),
        "how many keys were listed, and how many distinct ones"
    );
    Ok(())
}

async fn between(store: Store) -> Checked {
    let sorted = crowd(&store).await?;
    for (seconds, name) in [
        (1_005, "key00a"),
        (1_005, "zzz"),
        (1_005, "!"),
        (999, "a"),
        (5_000, "a"),
    ] {
        let place = (Reverse(at(seconds)), id(name));
        let mut query = ListQuery::new(at(1_000));
        query.limit = 500;
        let all = store.list(&query).await?.items;
        query.after = Some(Cursor::new(at(seconds), id(name)));
        let rest = all
            .iter()
            .filter(|key| (Reverse(key.created_at), key.id.clone()) > place);
        let rest: Vec<_> = rest.map(|key| key.id.clone()).collect();
        let seen: Vec<_> = store
            .list(&query)
            .await?
            .items
            .iter()
            .map(|key| key.id.clone())
            .collect();
        ensure_eq!(seen, rest, "after second {seconds} and {name}");
        ensure!(
            sorted.ends_with(&seen),
            "the rest of the list is not its tail"
        );
    }
    Ok(())
}

async fn milliseconds(store: Store) -> Checked {
    let mut expected = Vec::new();
    for number in 0..20_u64 {
        let mut record = record(&format!("key{:02}", (number * 7) % 20));
        record.created_at = at(1_000) + Duration::from_millis(number);
        expected.insert(0, record.id.clone());
        apply(&store, [insert(number, record)]).await?;
    }
    for limit in [1, 3, 50] {
        let mut query = ListQuery::new(at(2_000));
        query.limit = limit;
        ensure_eq!(
            pages(&store, query).await?.concat(),
            expected,
            "{limit} per page"
        );
    }
    Ok(())
}

/// Ids that a locale would sort differently, at times that a store may truncate to the same one.
async fn instants(store: Store) -> Checked {
    let names = [
        "B", "a", "Z", "_", "b", "-", "A1", "A-", "a.b", "ab", "~", "0", "b~",
    ];
    let mut changes = Vec::new();
    for nanos in [0, 1, 999_999, 1_000_000, 1_000_001] {
        for name in names {
            let mut record = record(&format!("{name}{nanos}"));
            record.created_at = at(1_000) + Duration::from_nanos(nanos);
            changes.push(insert(changes.len() as u64, record));
        }
    }
    let count = changes.len();
    apply(&store, changes).await?;
    let mut query = ListQuery::new(at(2_000));
    query.limit = 500;
    let mut places = Vec::new();
    for key in store.list(&query).await?.items {
        let record = stored(&store, key.id.as_str()).await?;
        ensure_eq!(record, key, "get compared to list");
        places.push((Reverse(record.created_at), record.id.clone()));
    }
    let mut sorted = places.clone();
    sorted.sort();
    ensure_eq!(places, sorted, "the list, by the times that it returns");
    ensure_eq!(places.len(), count, "the number of keys");
    let ids = |rest: &[(_, KeyId)]| rest.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
    for limit in [1, 2, 3, 7, count - 1] {
        query.limit = limit;
        let seen = pages(&store, query.clone()).await?.concat();
        ensure_eq!(seen, ids(&places), "{limit} per page");
    }
    query.limit = 500;
    for nanos in [0, 1, 2, 999_999, 1_000_000, 1_000_002] {
        let place = (Reverse(at(1_000) + Duration::from_nanos(nanos)), id("a"));
        let rest = places.partition_point(|other| *other <= place);
        query.after = Some(Cursor::new(place.0.0, place.1));
        let seen = pages(&store, query.clone()).await?.concat();
        ensure_eq!(
            seen,
            ids(&places[rest..]),
            "after a and {nanos} nanoseconds"
        );
    }
    Ok(())
}
