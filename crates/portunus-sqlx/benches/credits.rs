//! Credits on both databases, of an account with a long ledger: taking a block, reporting its use, a
//! reservation, pages of the ledger, and nodes that take blocks of many accounts at once.
//!
//! `CREDIT_ENTRIES` is the length of the ledger (100 000).

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Home, PostgresHome, SqliteHome, tenant};
use portunus::Portunus;
use portunus::config::Limits;
use portunus::credit::{
    CreditAccount, CreditAccounts, CreditStore, CreditWrite, Credits, LedgerEntry, LedgerKind,
    NewGrant,
};
use portunus::key::Owner;
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::{Head, format};

const TIMES: u32 = 300;
/// The number of accounts that are used at once.
const ACCOUNTS: u32 = 64;
const OF_EACH: u32 = 10;

fn account(name: &str) -> CreditAccount {
    CreditAccount::Tenant(tenant(name))
}

/// Prints the median and the 99th percentile.
fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let [median, late] = [took.len() / 2, took.len() * 99 / 100].map(|at| took[at]);
    println!("  {what:<44} {median:>9.1?}  99 %: {late:>9.1?}");
}

/// Makes the ledger of an account long.
async fn lengthen(store: &impl CreditStore, of: &CreditAccount, length: u64) {
    let stored = store.load(of).await.unwrap().unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&stored.state).unwrap();
    let mut number = state["entries"].as_u64().unwrap();
    let mut version = stored.version;
    state["entries"] = length.into();
    let grant: portunus::credit::CreditId = "long".parse().unwrap();
    while number < length {
        let last = (number + 1000).min(length);
        let entry =
            |number| LedgerEntry::new(number, number, grant.clone(), LedgerKind::GivenBack, 1);
        let entries = (number + 1..=last).map(entry).collect();
        let write = CreditWrite::new(version, state.to_string(), entries);
        assert!(store.save(of, &write).await.unwrap());
        (version, number) = (version + 1, last);
    }
}

async fn node(
    store: &(impl CreditStore + Clone),
    name: &str,
    block: u64,
    clock: &ManualClock,
) -> (Portunus, String) {
    let credits = Credits::per_tenant(store.clone()).block(block.try_into().unwrap());
    let node = Portunus::builder(format())
        .store(MemoryStore::new())
        .limits(Limits::none())
        .clock(clock.clone())
        .credits(credits)
        .build()
        .unwrap();
    let new = NewKey::new("first", Owner::tenant(tenant(name)));
    let secret = node.manager().issue(new).await.unwrap().key.reveal();
    (node, secret)
}

async fn measure<H: Home>(home: &H)
where
    H::Store: CreditStore,
{
    let length = std::env::var("CREDIT_ENTRIES").map_or(100_000, |set| set.parse().unwrap());
    let (store, clock) = (home.open().await, ManualClock::new());
    let accounts = CreditAccounts::new(store.clone()).with_clock(Arc::new(clock.clone()));
    let of = account("acme");
    for grant in [NewGrant::new(1_000_000), NewGrant::new(1).with_priority(9)] {
        accounts.grant(&of, grant).await.unwrap();
    }
    lengthen(&store, &of, length).await;

    let (small, secret) = node(&store, "acme", 1, &clock).await;
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        let paid = small.authenticator().authenticate(&Head::bearer(&secret));
        paid.await.unwrap();
        took.push(started.elapsed());
    }
    report("a request that takes a block", took);

    let (large, secret) = node(&store, "acme", 10_000, &clock).await;
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let paid = large.authenticator().authenticate(&Head::bearer(&secret));
        paid.await.unwrap();
        clock.advance(Duration::from_secs(1));
        let started = Instant::now();
        let done = large.maintain().await;
        took.push(started.elapsed());
        assert!(done.failures.is_empty(), "{:?}", done.failures);
    }
    report("a report", took);

    let mut took = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        let reserved = accounts.reserve(&of, 5, Duration::from_secs(60)).await;
        reserved.unwrap().settle(3).await.unwrap();
        took.push(started.elapsed());
    }
    report("a reservation and its settlement", took);

    for (what, after, most) in [
        ("the first 100 entries", 0, 100),
        ("100 entries in the middle", length / 2, 100),
        ("1000 entries in the middle", length / 2, 1000),
    ] {
        let mut took = Vec::new();
        for _ in 0..TIMES {
            let started = Instant::now();
            let page = accounts.ledger(&of, after, most).await.unwrap();
            took.push(started.elapsed());
            assert_eq!(page.len(), most);
        }
        report(what, took);
    }

    let mut nodes = Vec::new();
    for number in 0..ACCOUNTS {
        let name = format!("tenant{number}");
        let grant = NewGrant::new(1_000);
        accounts.grant(&account(&name), grant).await.unwrap();
        nodes.push(node(&store, &name, 1, &clock).await);
    }
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (node, secret) in nodes {
        tasks.spawn(async move {
            for _ in 0..OF_EACH {
                let paid = node.authenticator().authenticate(&Head::bearer(&secret));
                paid.await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let each = f64::from(ACCOUNTS * OF_EACH) / started.elapsed().as_secs_f64();
    println!("  {ACCOUNTS} accounts at once: {each:.0} blocks a second");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("SQLite");
    measure(&SqliteHome::new()).await;
    println!("PostgreSQL");
    let server = Arc::new(Postgres::start());
    measure(&PostgresHome::new(&server)).await;
}
