//! The stores compared with statements as one writes them by hand, in turn, round by round: inserts
//! in batches, lookups one at a time and by 64 tasks, a flush of usage, and filtered lists.
//!
//! `STORES_KEYS` is the number of keys (100 000); `STORES_ROUNDS` the number of rounds (20), and
//! `STORES_ON` one database, `sqlite` or `postgres`. By hand means a pool of the same size and
//! settings, and one statement that returns the same JSON, which is decoded the same way. `STORES_PARTS`
//! chooses among `lookups`, `tasks`, `flush` and `lists` (all).

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "stores/by_hand.rs"]
mod by_hand;
#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use by_hand::{ByHand, OnPostgres, OnSqlite};
use common::{Home, PostgresHome, SqliteHome, WholeStore, at, batch, insert, live, record};
use portunus::key::{
    DigestScheme, Environment, KeyDigest, KeyHasher, KeyId, KeyKind, KeyRecord, KeyStatus,
    PlanName, Revocation, UserId,
};
use portunus::store::{KeyStore, ListQuery, UsageDelta};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::random::Random;

/// The number of keys in one batch of inserts.
const BATCH: u32 = 500;
/// The number of lookups in one round, one at a time.
const ONE_AT_A_TIME: u32 = 500;
/// The number of concurrent tasks, and of lookups of each in one round.
const TASKS: u32 = 64;
const OF_EACH_TASK: u32 = 50;
/// The number of keys that one call records the use of, as the library's flush does.
const FLUSHED_AT_ONCE: usize = 1_000;
/// Of this many keys, one has any given rare property.
const RARE: u32 = 5_000;

/// Of these, one is never used.
const UNUSED: u32 = 10;

/// A number from the environment.
fn setting(name: &str, otherwise: u32) -> u32 {
    let set = std::env::var(name).ok();
    set.map_or(otherwise, |text| text.parse().unwrap())
}

fn id(number: u32) -> KeyId {
    // In no particular order, as real ids.
    KeyId::new(&format!(
        "{:08x}-{number}",
        number.wrapping_mul(2_654_435_761)
    ))
    .unwrap()
}

fn digest(number: u32) -> KeyDigest {
    let bytes = KeyHasher::sha256().digest(&number.to_string()).to_bytes();
    KeyDigest::new(DigestScheme::Sha256, bytes)
}

/// The instant of the lists.
fn now() -> SystemTime {
    at(2_000_000_000)
}

/// A usual key. Few of many have another status, environment, owner, plan or family.
fn key(number: u32) -> KeyRecord {
    let mut json = serde_json::to_value(record("template")).unwrap();
    json["plan"] = if number % RARE == 6 {
        "gold"
    } else {
        "standard"
    }
    .into();
    json["scopes"] = serde_json::json!(["document:read", "signature:write", "webhook:read"]);
    json["allowed_ips"] = serde_json::json!(["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"]);
    let mut record: KeyRecord = serde_json::from_value(json).unwrap();
    record.id = id(number);
    let first = if number % RARE == 7 { 7 } else { number };
    record.family = serde_json::from_value(id(first).as_str().into()).unwrap();
    record.created_at = at(1_000_000_000 + u64::from(number));
    record.expires_at = Some(at(3_000_000_000));
    record.environment = live();
    if number.is_multiple_of(2) {
        record.owner.user_id = portunus::key::UserId::new(&format!("user{}", number % 1_000)).ok();
    }
    match number % RARE {
        1 => record.revoked = Some(Revocation::new(at(1_900_000_000), None)),
        2 => record.enabled = false,
        3 => record.expires_at = Some(at(1_900_000_000)),
        4 => record.not_before = Some(at(2_900_000_000)),
        5 => record.environment = Environment::new("rare").unwrap(),
        8 => record.owner.user_id = portunus::key::UserId::new("rare").ok(),
        9 => record.kind = KeyKind::User,
        _ => {}
    }
    record
}

/// The durations of one way to do something.
#[derive(Default)]
struct Ways {
    store: Vec<Duration>,
    by_hand: Vec<Duration>,
}

impl Ways {
    /// Prints the medians of a single operation, if each duration is that of this many.
    fn report(mut self, what: &str, of: u32) {
        let mut medians = Vec::new();
        for took in [&mut self.store, &mut self.by_hand] {
            took.sort_unstable();
            medians.push(took[took.len() / 2].as_secs_f64() * 1e6 / f64::from(of));
        }
        let ratio = medians[0] / medians[1];
        println!(
            "  {what:<44} {:>9.1} µs  by hand {:>9.1} µs  {ratio:.2} times",
            medians[0], medians[1]
        );
    }
}

async fn timed<T>(took: &mut Vec<Duration>, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = work.await;
    took.push(started.elapsed());
    done
}

async fn fill<S: WholeStore, D: ByHand>(store: &S, by_hand: &D, keys: u32) {
    let mut ways = Ways::default();
    for first in (0..keys).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(keys);
        let records: Vec<_> = numbers
            .map(|number| (digest(number), key(number)))
            .collect();
        if (first / BATCH).is_multiple_of(2) {
            let inserts = records.into_iter().map(|(digest, key)| insert(digest, key));
            let inserts = batch(inserts);
            timed(&mut ways.store, store.apply(&inserts)).await.unwrap();
        } else {
            timed(&mut ways.by_hand, by_hand.insert(&records)).await;
        }
    }
    ways.report("insert, in batches of 500, a key", BATCH);
}

async fn one_at_a_time<S: WholeStore, D: ByHand>(store: &S, by_hand: &D, keys: u32, rounds: u32) {
    // The first to ask for a key finds its pages neither in the system's cache nor in the processor's.
    let (mut first, mut second) = (Ways::default(), Ways::default());
    let mut random = Random(1);
    for _ in 0..rounds {
        let mut pick = || u32::try_from(random.below(u64::from(keys))).unwrap();
        let asked: Vec<_> = (0..ONE_AT_A_TIME).map(|_| digest(pick())).collect();
        for (at, digest) in asked.iter().enumerate() {
            let (of_store, of_hand) = match at % 2 {
                0 => (&mut first, &mut second),
                _ => (&mut second, &mut first),
            };
            let store = async {
                let found = timed(&mut of_store.store, store.find(&[*digest])).await;
                assert!(found.unwrap().is_some());
            };
            let by_hand = async {
                let found = timed(&mut of_hand.by_hand, by_hand.find(digest)).await;
                assert!(found.is_some());
            };
            match at % 2 {
                0 => (store.await, by_hand.await),
                _ => (by_hand.await, store.await),
            };
        }
    }
    first.report("lookup, one at a time, first", 1);
    second.report("lookup, one at a time, second", 1);
}

async fn by_many_tasks<S, D>(store: &S, by_hand: &D, keys: u32, rounds: u32)
where
    S: WholeStore + Clone,
    D: ByHand,
{
    let mut ways = Ways::default();
    for round in 0..rounds {
        let number = move |task: u32, of: u32| {
            let number = (round * TASKS + task) * OF_EACH_TASK + of;
            number.wrapping_mul(7_919) % keys
        };
        let mut tasks = tokio::task::JoinSet::new();
        let started = Instant::now();
        for task in 0..TASKS {
            let store = store.clone();
            tasks.spawn(async move {
                for of in 0..OF_EACH_TASK {
                    let found = store.find(&[digest(number(task, of))]).await;
                    assert!(found.unwrap().is_some());
                }
            });
        }
        tasks.join_all().await;
        ways.store.push(started.elapsed());
        let mut tasks = tokio::task::JoinSet::new();
        let started = Instant::now();
        for task in 0..TASKS {
            let by_hand = by_hand.clone();
            tasks.spawn(async move {
                for of in 0..OF_EACH_TASK {
                    by_hand.find(&digest(number(task, of))).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        ways.by_hand.push(started.elapsed());
    }
    ways.report("lookup by 64 tasks, a lookup", TASKS * OF_EACH_TASK);
}

async fn flush<S: WholeStore, D: ByHand>(store: &S, by_hand: &D, keys: u32, rounds: u32) {
    let mut random = Random(2);
    let mut deltas = |hour: u64, is_sorted: bool| {
        let mut deltas: Vec<_> = (0..keys)
            .filter(|number| number % RARE != UNUSED)
            .map(|number| {
                let used_at = at(1_900_000_000 + hour * 3_600);
                UsageDelta::new(id(number), 3, used_at, "192.0.2.7".parse().ok())
            })
            .collect();
        for last in (1..deltas.len()).rev() {
            let other = random.below(last as u64 + 1);
            deltas.swap(last, usize::try_from(other).unwrap());
        }
        if is_sorted {
            deltas.sort_by(|one, other| one.id.cmp(&other.id));
        }
        deltas
    };
    for (what, is_sorted, hour) in [
        ("usage flush, first use of every key", true, Some(1)),
        ("usage flush, same hour", true, None),
        ("usage flush, next hour", true, Some(2)),
        ("usage flush, same hour, in no order", false, None),
    ] {
        let mut ways = Ways::default();
        for _ in 0..if hour.is_some() { 1 } else { rounds.min(5) } {
            let deltas = deltas(hour.unwrap_or(1), is_sorted);
            timed(&mut ways.store, async {
                for part in deltas.chunks(FLUSHED_AT_ONCE) {
                    store.record_usage(part).await.unwrap();
                }
            })
            .await;
            timed(&mut ways.by_hand, async {
                for part in deltas.chunks(FLUSHED_AT_ONCE) {
                    by_hand.record_usage(part).await;
                }
            })
            .await;
        }
        ways.report(what, 1);
    }
}

/// Lists of which each matches few keys, with their condition by hand.
fn lists() -> Vec<(String, ListQuery, String)> {
    type Filter = (&'static str, String, fn(&mut ListQuery));
    let filters: [Filter; 11] = [
        ("revoked", "revoked_at IS NOT NULL".into(), |query| {
            query.status = Some(KeyStatus::Revoked);
        }),
        ("disabled", "enabled = 0".into(), |query| {
            query.status = Some(KeyStatus::Disabled);
        }),
        ("expired", "expires_at <= 2000000000000".into(), |query| {
            query.status = Some(KeyStatus::Expired);
        }),
        (
            "not yet valid",
            "not_before > 2000000000000".into(),
            |query| {
                query.status = Some(KeyStatus::NotYetValid);
            },
        ),
        ("environment", "environment = 'rare'".into(), |query| {
            query.environment = Environment::new("rare").ok();
        }),
        ("owner", "user_id = 'rare'".into(), |query| {
            query.owner = UserId::new("rare").ok();
        }),
        (
            "plan",
            "record LIKE '%\"plan\":\"gold\"%'".into(),
            |query| {
                query.plan = PlanName::new("gold").ok();
            },
        ),
        ("family", format!("family = '{}'", id(7)), |query| {
            query.family = Some((&id(7)).into());
        }),
        ("kind", "kind = 'user'".into(), |query| {
            query.kind = Some(KeyKind::User);
        }),
        (
            "expires before",
            "expires_at < 2500000000000".into(),
            |query| {
                query.expires_before = Some(at(2_500_000_000));
            },
        ),
        (
            "unused since",
            "NOT EXISTS (SELECT 1 FROM portunus_usage \
             WHERE key_id = id AND last_used_at >= 1890000000000)"
                .into(),
            |query| query.unused_since = Some(at(1_890_000_000)),
        ),
    ];
    let mut lists = Vec::new();
    for (name, condition, change) in filters {
        for (of, tenant) in [("a tenant", Some("acme")), ("all", None)] {
            let mut query = ListQuery::new(now());
            query.tenant = tenant.map(portunus_test_support::tenant);
            change(&mut query);
            let tenant = tenant.map_or(String::new(), |name| format!("tenant_id = '{name}' AND "));
            let condition = format!("{tenant}{condition}");
            lists.push((format!("list, {name}, of {of}"), query, condition));
        }
    }
    lists
}

/// Reads a list to its end; returns the number of pages and of keys.
async fn whole_list(store: &impl KeyStore, query: &ListQuery) -> (usize, usize) {
    let (mut query, mut pages, mut keys) = (query.clone(), 0, 0);
    loop {
        let page = store.list(&query).await.unwrap();
        (pages, keys) = (pages + 1, keys + page.items.len());
        query.after = page.next;
        if query.after.is_none() {
            return (pages, keys);
        }
    }
}

async fn list<S: WholeStore, D: ByHand>(store: &S, by_hand: &D, keys: u32, rounds: u32) {
    // In use for a while, so that the row of each key knows it.
    let used = (0..keys).filter(|number| number % RARE != UNUSED);
    let used: Vec<_> = used
        .map(|number| UsageDelta::new(id(number), 1, at(1_900_000_000), None))
        .collect();
    for part in used.chunks(10) {
        store.record_usage(part).await.unwrap();
    }
    for (what, query, condition) in lists() {
        let (mut first, mut whole) = (Ways::default(), Ways::default());
        let mut pages = 0;
        for _ in 0..rounds.min(10) {
            timed(&mut first.store, store.list(&query)).await.unwrap();
            let found = timed(&mut whole.store, whole_list(store, &query)).await;
            pages = found.0;
            assert_eq!(found.1, (keys / RARE) as usize, "{what}");
            let started = Instant::now();
            assert_eq!(by_hand.list(&condition).await, found.1);
            first.by_hand.push(started.elapsed());
            whole.by_hand.push(started.elapsed());
        }
        first.report(&format!("{what}: a page"), 1);
        if pages > 1 {
            whole.report(&format!("{what}: all {pages} pages"), 1);
        }
    }
}

async fn run<H: Home, D: ByHand>(what: &str, home: &H, by_hand: impl Future<Output = D>) {
    let (keys, rounds) = (
        setting("STORES_KEYS", 100_000),
        setting("STORES_ROUNDS", 20),
    );
    println!("{what}, {keys} keys, {rounds} rounds: medians");
    let store = home.open().await;
    let by_hand = by_hand.await;
    fill(&store, &by_hand, keys).await;
    by_hand.analyze().await;
    let parts = std::env::var("STORES_PARTS").unwrap_or_default();
    let has = |part: &str| parts.is_empty() || parts.split(',').any(|name| name == part);
    if has("lookups") {
        one_at_a_time(&store, &by_hand, keys, rounds).await;
    }
    if has("tasks") {
        by_many_tasks(&store, &by_hand, keys, rounds).await;
    }
    if has("flush") {
        flush(&store, &by_hand, keys, rounds).await;
    }
    if has("lists") {
        list(&store, &by_hand, keys, rounds).await;
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let on = std::env::var("STORES_ON").unwrap_or_default();
    runtime.block_on(async {
        // A service that runs the periodic jobs has one that is due soon: then no other wakes the thread
        // that waits for all.
        tokio::spawn(async {
            let mut often = tokio::time::interval(Duration::from_millis(100));
            loop {
                often.tick().await;
            }
        });
        if on != "postgres" {
            let home = SqliteHome::new();
            run("SQLite", &home, OnSqlite::open(home.path())).await;
        }
        if on != "sqlite" {
            let home = PostgresHome::new(&Arc::new(Postgres::start()));
            let address = home.server.address(&home.name);
            run("PostgreSQL", &home, OnPostgres::connect(address)).await;
        }
    });
}
