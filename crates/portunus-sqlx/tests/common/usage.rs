//! Usage: totals and hours.

use std::net::IpAddr;

use portunus::store::{HourOfUse, Usage, UsageDelta};

use super::*;

fn ip(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([192, 0, 2, last]))
}

fn use_of(name: &str, count: u64, seconds: u64, ip: Option<IpAddr>) -> UsageDelta {
    UsageDelta::new(id(name), count, at(seconds), ip)
}

async fn usage(store: &impl WholeStore, name: &str) -> Usage {
    used(store, &id(name)).await
}

pub(crate) async fn usage_accumulates_and_its_time_never_decreases(home: &impl Home) {
    let store = with_a(home).await;
    assert_eq!(usage(&store, "a").await, Usage::default());
    store.record_usage(&[]).await.unwrap();
    store
        .record_usage(&[use_of("a", 2, 5_000, ip(1))])
        .await
        .unwrap();
    store
        .record_usage(&[use_of("a", 3, 4_000, ip(2))])
        .await
        .unwrap();
    let now = usage(&store, "a").await;
    assert_eq!(
        (now.count, now.last_used_at, now.last_ip),
        (5, Some(at(5_000)), ip(1)),
        "a late batch of another node"
    );
    store
        .record_usage(&[use_of("a", 1, 4_500, ip(4)), use_of("a", 1, 6_000, None)])
        .await
        .unwrap();
    let now = usage(&store, "a").await;
    assert_eq!(
        (now.count, now.last_used_at, now.last_ip),
        (7, Some(at(6_000)), ip(1)),
        "in sequence"
    );
    let six = Some("2001:db8::1".parse().unwrap());
    store
        .record_usage(&[
            use_of("a", u64::MAX, 6_000, six),
            use_of("a", 1, 6_000, None),
        ])
        .await
        .unwrap();
    let now = usage(&store, "a").await;
    assert_eq!(
        (now.count, now.last_used_at, now.last_ip),
        (u64::MAX, Some(at(6_000)), six)
    );
    let several = store.usage_of(&[id("nobody"), id("a")]).await.unwrap();
    assert_eq!(several, [Usage::default(), now], "of several keys");
}

pub(crate) async fn usage_of_deleted_keys_is_ignored_and_that_of_others_recorded(home: &impl Home) {
    let store = with_a(home).await;
    store
        .apply(&batch([
            insert(digest(2), record("b")),
            Change::Delete(id("b")),
        ]))
        .await
        .unwrap();
    store
        .record_usage(&["b", "nobody", "a"].map(|name| use_of(name, 1, 5_000, None)))
        .await
        .unwrap();
    assert_eq!(usage(&store, "a").await.count, 1);
    for gone in ["b", "nobody"] {
        assert!(
            store
                .usage_by_hour(&id(gone), at(0), at(10_000))
                .await
                .unwrap()
                .hours
                .is_empty()
        );
    }
}

pub(crate) async fn usage_survives_an_update_and_does_not_change_versions(home: &impl Home) {
    let store = with_a(home).await;
    store
        .record_usage(&[use_of("a", 7, 5_000, None)])
        .await
        .unwrap();
    store
        .apply(&WriteBatch::new().update(record("a")))
        .await
        .unwrap();
    store
        .apply(&batch([rehash("a", digest(1), peppered(1))]))
        .await
        .unwrap();
    let listed = store.get(&id("a")).await.unwrap().unwrap();
    assert_eq!((usage(&store, "a").await.count, listed.version), (7, 2));
}

pub(crate) async fn hours_accumulate_and_are_deleted(home: &impl Home) {
    let store = with_a(home).await;
    let hour = |number: u64, count| HourOfUse::new(at(number * 3_600), count);
    let uses = [
        (1, 3_600),
        (2, 7_199),
        (4, 7_200),
        (8, 18_000),
        (u64::MAX, 36_000),
        (5, 36_001),
    ];
    store
        .record_usage(&uses.map(|(count, seconds)| use_of("a", count, seconds, None)))
        .await
        .unwrap();
    let between = |from: u64, to: u64| {
        let store = store.clone();
        async move {
            store
                .usage_by_hour(&id("a"), at(from), at(to))
                .await
                .unwrap()
                .hours
        }
    };
    let every = [hour(1, 3), hour(2, 4), hour(5, 8), hour(10, u64::MAX)];
    assert_eq!(between(0, 100_000).await, every);
    assert_eq!(
        between(7_199, 7_200).await,
        [hour(1, 3)],
        "from the hour of `from` to before `to`"
    );
    assert_eq!(between(7_200, 18_000).await, [hour(2, 4)]);
    let later = at(18_000) + Duration::from_nanos(1);
    assert_eq!(
        store
            .usage_by_hour(&id("a"), at(18_000), later)
            .await
            .unwrap()
            .hours,
        [hour(5, 8)]
    );
    assert_eq!(
        store.forget_usage_before(at(7_200)).await.unwrap(),
        0,
        "an hour that ends now has not ended before"
    );
    assert_eq!(
        store
            .forget_usage_before(at(7_200) + Duration::from_nanos(1))
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.forget_usage_before(at(21_601)).await.unwrap(), 2);
    assert_eq!(between(0, 100_000).await, every[3..]);
    assert_eq!(usage(&store, "a").await.count, u64::MAX, "totals are kept");
}

/// Hours of the key `a` from the earliest time on, with one use each.
async fn many_hours(home: &impl Home, count: u32) {
    let sql = format!(
        "INSERT INTO portunus_usage_by_hour (key_id, start, uses) \
         WITH RECURSIVE hours (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM hours \
         WHERE number < {count}) SELECT 'a', CAST(number AS BIGINT) * 3600000, 1 FROM hours"
    );
    assert_eq!(home.execute(sql).await, u64::from(count));
}

const COUNT_HOURS: &str = "SELECT CAST(COUNT(*) AS TEXT) FROM portunus_usage_by_hour";

pub(crate) async fn very_many_hours_are_deleted_in_steps(home: &impl Home) {
    let store = with_a(home).await;
    many_hours(home, 5_000).await;
    let until = at(4_001 * 3_600 + 1);
    // An aborted deletion keeps its progress.
    let mut left = 5_000;
    for limit in (0..).map(Duration::from_millis) {
        let _ = tokio::time::timeout(limit, store.forget_usage_before(until)).await;
        let now: u32 = home.text(COUNT_HOURS).await.parse().unwrap();
        assert!(
            now <= left && (now == 1_000 || now.is_multiple_of(1_000)),
            "{now}"
        );
        left = now;
        if left < 5_000 {
            break;
        }
    }
    let forgotten = store.forget_usage_before(until).await.unwrap();
    // The aborted step may have been applied meanwhile.
    let gone = u64::from(left) - 1_000;
    assert!(
        forgotten == gone || forgotten + 2_000 == gone,
        "{forgotten}"
    );
    assert_eq!(home.text(COUNT_HOURS).await, "1000");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let other = home.open().await;
        tasks.spawn(async move { other.forget_usage_before(at(100_000 * 3_600)).await });
    }
    let sums = tasks.join_all().await;
    let sum: u64 = sums.into_iter().map(Result::unwrap).sum();
    assert_eq!(sum, 1_000, "none is counted twice");
}

pub(crate) async fn the_hours_of_a_deleted_key_are_deleted(home: &impl Home) {
    let store = with_a(home).await;
    many_hours(home, 8_000).await;
    store
        .record_usage(&[use_of("a", 1, 5_000, None)])
        .await
        .unwrap();
    store
        .apply(&batch([insert(digest(2), record("b"))]))
        .await
        .unwrap();
    store
        .record_usage(&[use_of("b", 1, 5_000, None)])
        .await
        .unwrap();
    store
        .apply(&batch([Change::Delete(id("a"))]))
        .await
        .unwrap();
    assert_eq!(home.text(COUNT_HOURS).await, "1");
}

pub(crate) async fn a_large_batch_of_usage_is_recorded_completely(home: &impl Home) {
    let store = home.open().await;
    let names: Vec<String> = (0..1_500).map(|number| format!("key{number:04}")).collect();
    for (part, names) in (0_u32..).zip(names.chunks(100)) {
        let inserts = (0..)
            .zip(names)
            .map(|(number, name)| insert(digest(part * 100 + number), record(name)));
        store.apply(&batch(inserts)).await.unwrap();
    }
    let deltas: Vec<_> = names
        .iter()
        .chain(&names)
        .map(|name| use_of(name, 2, 5_000, ip(1)))
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for reversed in [false, true] {
        let (store, mut deltas) = (store.clone(), deltas.clone());
        if reversed {
            deltas.reverse();
        }
        tasks.spawn(async move { store.record_usage(&deltas).await });
    }
    for done in tasks.join_all().await {
        done.unwrap();
    }
    for name in [&names[0], &names[999], &names[1_000], &names[1_499]] {
        assert_eq!(usage(&store, name).await.count, 8);
    }
}

/// Lists of unused keys are right at any time, whatever the rows of keys know.
pub(crate) async fn rows_of_keys_learn_of_their_use_a_few_at_a_time<H: Home>(home: &H) {
    let store = home.open().await;
    let names: Vec<_> = (0..25).map(|number| format!("key{number}")).collect();
    let keys = (0..).zip(&names);
    let keys = keys.map(|(number, name)| insert(digest(number), record(name)));
    store.apply(&batch(keys)).await.unwrap();
    let day = |number: u64| at(number * 86_400 + 10);
    let mut query = ListQuery::new(day(9));
    for (last, known) in [
        (3, 10),
        (3, 20),
        (3, 25),
        (4, 10),
        (4, 20),
        (4, 25),
        (2, 25),
    ] {
        let deltas = names
            .iter()
            .map(|name| UsageDelta::new(id(name), 1, day(last), None));
        store
            .record_usage(&deltas.collect::<Vec<_>>())
            .await
            .unwrap();
        let newest = "SELECT CAST(count(*) AS TEXT) FROM portunus_keys \
            WHERE used_on = (SELECT MAX(used_on) FROM portunus_keys)";
        assert_eq!(home.text(newest).await, known.to_string(), "day {last}");
        let truth = last.max(if last == 2 { 4 } else { 0 });
        for (since, unused) in [(day(truth), 0), (day(truth + 1), 25)] {
            query.unused_since = Some(since);
            assert_eq!(store.list(&query).await.unwrap().items.len(), unused);
        }
    }
}
