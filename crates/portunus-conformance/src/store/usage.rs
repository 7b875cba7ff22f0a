//! Usage of keys: counts that only grow, times that never decrease, and hours that can be read and
//! deleted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use super::paging::pages;
use super::tools::{
    Store, apply, at, batch, counts, delete, digest, found_id, id, insert, made_at, peppered,
    put_a, record, rehash, rejected, stored, tenant, update, used as used_by,
};
use crate::report::{Checked, Failure};
use portunus::store::{Change, Condition, HourOfUse, ListQuery, Rejected, Usage, UsageDelta};

checks!(CHECKS: Store {
    "usage accumulates, and its time never decreases"
        => adds_up depends on [whole_digest],
    "a count saturates instead of overflowing"
        => saturates depends on [adds_up],
    "usage of unknown keys is ignored, and that of others is recorded"
        => skips depends on [adds_up],
    "uses that a batch adds count in the totals and in no hour, or nothing of the batch is applied"
        => added_by_batch depends on [adds_up, late_change, whole_list],
    "usage survives updates and rehashes, and does not change versions"
        => outlives depends on [adds_up, versions, rehashed],
    "usage is the same whether read for one key or for several"
        => alike depends on [adds_up],
    "no usage is lost when it is recorded concurrently"
        => concurrent_usage depends on [adds_up],
    "hourly usage is returned oldest first, without hours of no use"
        => by_hour depends on [adds_up],
    "a list of unused keys has those that existed at the instant and were not used since"
        => unused depends on [adds_up, whole_list],
    "old hours are deleted and totals are kept"
        => forgotten depends on [by_hour],
    "the hours of a key are deleted with it"
        => hours_gone depends on [by_hour, deleted, early_condition],
});

const HOUR: u64 = 3600;

/// A number of seconds after a full hour.
fn hour(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(500_000 * HOUR + seconds)
}

fn ip(last: u8) -> Option<IpAddr> {
    Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
}

fn used(name: &str, count: u64, last: SystemTime, ip: Option<IpAddr>) -> UsageDelta {
    UsageDelta::new(id(name), count, last, ip)
}

async fn usage(store: &Store) -> Result<(u64, Option<SystemTime>, Option<IpAddr>), Failure> {
    let usage = used_by(store, "a").await?;
    Ok((usage.count, usage.last_used_at, usage.last_ip))
}

async fn adds_up(store: Store) -> Checked {
    put_a(&store).await?;
    ensure_eq!(
        usage(&store).await?,
        (0, None, None),
        "of a key that was never used"
    );
    counts(&store)?
        .record_usage(&[used("a", 2, at(5_000), ip(1))])
        .await?;
    counts(&store)?
        .record_usage(&[used("a", 3, at(4_000), ip(2))])
        .await?;
    ensure_eq!(
        usage(&store).await?,
        (5, Some(at(5_000)), ip(1)),
        "after a late batch of another node"
    );
    counts(&store)?
        .record_usage(&[used("a", 1, at(6_000), None)])
        .await?;
    ensure_eq!(
        usage(&store).await?,
        (6, Some(at(6_000)), ip(1)),
        "after a use from an unknown address"
    );
    let v6 = Some(IpAddr::V6(Ipv6Addr::new(
        0x2001, 0xdb8, 0, 0, 0, 0, 0xffff, 1,
    )));
    let later = at(6_000) + Duration::from_millis(1);
    counts(&store)?
        .record_usage(&[
            used("a", 1, at(6_000), ip(3)),
            used("a", 1, later, v6),
            used("a", 1, at(10), ip(4)),
        ])
        .await?;
    ensure_eq!(
        usage(&store).await?,
        (9, Some(later), v6),
        "after three deltas of one key in one batch"
    );
    Ok(())
}

async fn added_by_batch(store: Store) -> Checked {
    let late = hour(3 * HOUR);
    let added = |name: &str, last| Change::AddUsage(used(name, 7, last, None));
    apply(
        &store,
        [
            insert(1, made_at("a", 1_000)),
            insert(2, made_at("b", 1_000)),
            insert(3, made_at("c", 1_000)),
            added("a", late),
            added("b", at(5_000)),
            added("a", at(5_000)),
        ],
    )
    .await?;
    ensure_eq!(
        usage(&store).await?,
        (14, Some(late), None),
        "added with its key"
    );
    let (key, counts) = (id("a"), counts(&store)?);
    let hours = counts.usage_by_hour(&key, at(0), hour(9 * HOUR)).await?;
    ensure_eq!(hours.hours, [], "hours");
    let mut query = ListQuery::new(hour(9 * HOUR));
    query.unused_since = Some(hour(2 * HOUR));
    let listed = store.list(&query).await?.items;
    let mut names: Vec<_> = listed.iter().map(|record| record.id.clone()).collect();
    names.sort();
    ensure_eq!(names, [id("b"), id("c")], "keys without a late use");
    apply(&store, [added("c", late)]).await?;
    ensure_eq!(used_by(&store, "c").await?.count, 7, "added later");
    let failing = [insert(4, record("d")), added("a", late), added("e", late)];
    ensure_eq!(
        rejected(&store, &batch(failing)).await?,
        Rejected::Missing(id("e")),
        "uses of a key that does not exist"
    );
    ensure_eq!(usage(&store).await?.0, 14, "after a rejected batch");
    ensure!(
        stored(&store, "a").await?.version == 1,
        "the version was changed"
    );
    Ok(())
}

async fn unused(store: Store) -> Checked {
    let names = ["never", "old", "often", "late", "new"];
    let keys = (1..).zip(names).map(|(number, name)| {
        let made = if name == "new" { 4_000 } else { 1_000 };
        insert(number, made_at(name, made))
    });
    apply(&store, keys).await?;
    let uses = [
        ("old", 2_000),
        ("often", 2_000),
        ("often", 3_000),
        ("late", 5_000),
    ];
    for (name, seconds) in uses {
        let delta = used(name, 1, at(seconds), None);
        counts(&store)?.record_usage(&[delta]).await?;
    }
    let cases: [(u64, &[&str]); 7] = [
        (1_000, &[]),
        (1_001, &["late", "never", "often", "old"]),
        (2_000, &["late", "never", "often", "old"]),
        (2_001, &["late", "never", "often", "old"]),
        (3_001, &["late", "never", "often", "old"]),
        (4_000, &["late", "never", "often", "old"]),
        (5_001, &["new", "late", "never", "often", "old"]),
    ];
    for (since, existed) in cases {
        for tenant in [None, Some(tenant("acme"))] {
            let mut query = ListQuery::new(at(10_000));
            (query.unused_since, query.tenant) = (Some(at(since)), tenant);
            let last = |name: &&str| uses.iter().rev().find(|(used, _)| used == name);
            let is_unused = |name: &&str| last(name).is_none_or(|(_, last)| *last < since);
            let expected: Vec<_> = existed.iter().copied().filter(is_unused).map(id).collect();
            for limit in [1, 50] {
                query.limit = limit;
                ensure_eq!(
                    pages(&store, query.clone()).await?.concat(),
                    expected,
                    "unused since second {since}, {limit} per page"
                );
            }
        }
    }
    Ok(())
}

async fn saturates(store: Store) -> Checked {
    put_a(&store).await?;
    counts(&store)?
        .record_usage(&[used("a", 5, at(5_000), None)])
        .await?;
    let mut before = 5;
    for count in [u64::MAX, u64::MAX, 1, 1_000] {
        counts(&store)?
            .record_usage(&[used("a", count, at(5_000), None)])
            .await?;
        let now = usage(&store).await?.0;
        ensure!(now >= before, "the count decreased from {before} to {now}");
        // Stores with signed numbers may saturate there.
        ensure!(
            now >= u64::MAX / 2,
            "{count} more uses than {before} were counted as {now}"
        );
        before = now;
    }
    Ok(())
}

async fn skips(store: Store) -> Checked {
    apply(
        &store,
        [insert(1, record("a")), insert(2, record("b")), delete("b")],
    )
    .await?;
    let deltas = ["b", "unknown", "a"].map(|name| used(name, 1, at(5_000), None));
    counts(&store)?.record_usage(&deltas).await?;
    ensure_eq!(
        usage(&store).await?.0,
        1,
        "the count of the key that exists"
    );
    for name in ["b", "unknown"] {
        ensure!(
            store.get(&id(name)).await?.is_none(),
            "usage created {name}"
        );
        let hours = counts(&store)?
            .usage_by_hour(&id(name), hour(0), at(9_000_000))
            .await?;
        ensure_eq!(hours.hours, [], "the hours of {name}, which does not exist");
    }
    counts(&store)?.record_usage(&[]).await?;
    Ok(())
}

async fn outlives(store: Store) -> Checked {
    put_a(&store).await?;
    counts(&store)?
        .record_usage(&[used("a", 7, at(5_000), ip(1))])
        .await?;
    ensure_eq!(
        stored(&store, "a").await?.version,
        1,
        "the version after usage"
    );
    update(&store, "a", |record| record.name = "renamed".into()).await?;
    apply(&store, [rehash("a", digest(1), peppered(1))]).await?;
    ensure_eq!(
        usage(&store).await?,
        (7, Some(at(5_000)), ip(1)),
        "after an update and a rehash"
    );
    ensure_eq!(
        found_id(&store, peppered(1)).await?,
        Some(id("a")),
        "the key, by its digest"
    );
    Ok(())
}

async fn alike(store: Store) -> Checked {
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    counts(&store)?
        .record_usage(&[used("b", 3, at(5_000), ip(9))])
        .await?;
    let ids = [id("a"), id("unknown"), id("b")];
    let together: Vec<Usage> = counts(&store)?.usage_of(&ids).await?;
    ensure_eq!(
        together.len(),
        ids.len(),
        "the number of keys in the result"
    );
    let got = [used_by(&store, "a").await?, used_by(&store, "b").await?];
    let [unknown, got_none] = [together[1], used_by(&store, "unknown").await?];
    ensure_eq!(
        [together[0], together[2]],
        got,
        "usage of several keys, compared to usage of each"
    );
    ensure_eq!(
        [unknown, got_none],
        [Usage::default(); 2],
        "of a key that does not exist"
    );
    ensure_eq!((got[0], got[1].count), (Usage::default(), 3), "usage");
    Ok(())
}

async fn concurrent_usage(store: Store) -> Checked {
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    let mut tasks = JoinSet::new();
    for node in 0..8_u64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for turn in 0..10 {
                let last = at(5_000 + (node * 7 + turn * 3) % 50);
                // In either order, as batches of several nodes may be.
                let mut deltas = [used("a", 1, last, None), used("b", 2, last, None)];
                if node % 2 == 0 {
                    deltas.reverse();
                }
                counts(&store)?.record_usage(&deltas).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let counts =
        [used_by(&store, "a").await?, used_by(&store, "b").await?].map(|usage| usage.count);
    ensure_eq!(counts, [80, 160], "the counts after 80 concurrent batches");
    Ok(())
}

async fn by_hour(store: Store) -> Checked {
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    let deltas = [
        (8, 4 * HOUR + 17),
        (1, HOUR),
        (2, 2 * HOUR - 1),
        (4, 2 * HOUR),
    ];
    counts(&store)?
        .record_usage(&deltas.map(|(count, last)| used("a", count, hour(last), None)))
        .await?;
    counts(&store)?
        .record_usage(&[
            used("b", 100, hour(HOUR), None),
            used("a", 16, hour(4 * HOUR), None),
        ])
        .await?;
    let all = [
        HourOfUse::new(hour(HOUR), 3),
        HourOfUse::new(hour(2 * HOUR), 4),
        HourOfUse::new(hour(4 * HOUR), 24),
    ];
    let cases = [
        (0, 10 * HOUR, &all[..]),
        (2 * HOUR - 1, 10 * HOUR, &all[..]),
        (2 * HOUR, 10 * HOUR, &all[1..]),
        (0, 4 * HOUR, &all[..2]),
        (0, 4 * HOUR + 1, &all[..]),
        (3 * HOUR, 4 * HOUR, &[]),
        (10 * HOUR, 0, &[]),
    ];
    for (from, to, expected) in cases {
        let hourly = counts(&store)?
            .usage_by_hour(&id("a"), hour(from), hour(to))
            .await?;
        ensure_eq!(
            hourly.hours,
            expected,
            "from second {from} to before second {to}"
        );
    }
    Ok(())
}

async fn forgotten(store: Store) -> Checked {
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    for name in ["a", "b"] {
        let deltas = [1, 2, 5].map(|n| used(name, n, hour(n * HOUR + 7), None));
        counts(&store)?.record_usage(&deltas).await?;
    }
    for (before, what) in [
        (2 * HOUR - 1, "none has ended"),
        (2 * HOUR, "one ends just then"),
    ] {
        ensure_eq!(
            counts(&store)?.forget_usage_before(hour(before)).await?,
            0,
            "how many hours were deleted: {what}"
        );
    }
    ensure_eq!(
        counts(&store)?
            .forget_usage_before(hour(3 * HOUR + 1))
            .await?,
        4,
        "how many were: two of each key"
    );
    for name in ["a", "b"] {
        let hourly = counts(&store)?
            .usage_by_hour(&id(name), hour(0), hour(10 * HOUR))
            .await?;
        ensure_eq!(
            hourly.hours,
            [HourOfUse::new(hour(5 * HOUR), 5)],
            "what is left of {name}"
        );
        ensure_eq!(used_by(&store, name).await?.count, 8, "the total of {name}");
    }
    ensure_eq!(
        counts(&store)?
            .forget_usage_before(hour(3 * HOUR + 1))
            .await?,
        0,
        "how many were when asked again"
    );
    Ok(())
}

async fn hours_gone(store: Store) -> Checked {
    const DAYS: u64 = 366;
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    let mut deltas: Vec<_> = (0..DAYS)
        .map(|day| used("a", 1, hour(day * 24 * HOUR), None))
        .collect();
    deltas.push(used("b", 1, hour(0), None));
    counts(&store)?.record_usage(&deltas).await?;
    let end = hour(2 * DAYS * 24 * HOUR);
    let count = async |name: &str| -> Result<usize, Failure> {
        let hourly = counts(&store)?
            .usage_by_hour(&id(name), hour(0), end)
            .await?;
        Ok(hourly.hours.len())
    };
    let year = usize::try_from(DAYS)?;
    ensure_eq!(count("a").await?, year, "hours before");
    let never = Condition::Version {
        id: id("a"),
        version: 7,
    };
    rejected(&store, &batch([delete("a")]).require(never)).await?;
    ensure_eq!(
        count("a").await?,
        year,
        "hours after a deletion that was rejected"
    );
    apply(&store, [delete("a")]).await?;
    ensure_eq!(count("a").await?, 0, "hours of the deleted key");
    ensure_eq!(count("b").await?, 1, "hours of the other key");
    ensure_eq!(
        counts(&store)?.forget_usage_before(end).await?,
        1,
        "how many hours were left to delete"
    );
    Ok(())
}
