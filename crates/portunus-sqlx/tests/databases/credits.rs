//! Nodes that spend credits and are killed with `kill -9`: at every step, in the middle of a
//! transaction, and at random instants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portunus::Portunus;
use portunus::credit::{
    CreditAccount, CreditAccounts, CreditId, CreditStore, Credits, NewGrant, Period,
};
use portunus::manage::ManageError;
use portunus::testing::ManualClock;
use portunus_test_support::format;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::random::Random;
use portunus_test_support::wait::{eventually_async, until_async};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

use super::credit_nodes::{AT_ONCE, BLOCK, LARGE_BLOCK, Node, account};
use crate::common::{Home, PostgresHome, SqliteHome};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
/// The units of a day, and those of a top-up.
const DAILY: u64 = 12;
const TOP_UP: u64 = 20;

/// How many nodes are killed at random; `scripts/measure credit-crashes` sets more.
fn rounds() -> u64 {
    let set = std::env::var("CREDIT_ROUNDS").ok();
    set.map_or(12, |rounds| rounds.parse().unwrap())
}

/// Asserts that the entries of each grant add up to what is left of it.
async fn assert_explained(accounts: &CreditAccounts, of: &CreditAccount) {
    let (mut sums, mut after) = (BTreeMap::<CreditId, i64>::new(), 0);
    loop {
        let page = accounts.ledger(of, after, 1000).await.unwrap();
        for entry in &page {
            assert_eq!(entry.number, after + 1);
            after = entry.number;
            let sum = sums.entry(entry.grant.clone()).or_default();
            *sum += entry.change;
            assert!(*sum >= 0, "{entry:?}");
        }
        if page.is_empty() {
            break;
        }
    }
    for grant in accounts.balance(of).await.unwrap().grants {
        let sum = sums.remove(&grant.id).unwrap_or(0);
        assert_eq!(sum, i64::try_from(grant.left).unwrap(), "{}", grant.id);
    }
    assert!(sums.values().all(|sum| *sum == 0), "{sums:?}");
}

/// What a node left behind that was killed at a step.
async fn assert_kept(accounts: &CreditAccounts, clock: &ManualClock, name: &str, spent: u64) {
    let of = &account(name);
    let balance = accounts.balance(of).await.unwrap();
    let out = DAILY + TOP_UP - balance.available;
    assert!(spent <= out, "{spent} were spent, {out} of them taken");
    let sum = |reserved: bool| {
        let taken = balance.taken.iter();
        let taken = taken.filter(|one| one.ends_at.is_some() == reserved);
        taken.map(|one| one.units).collect::<Vec<_>>()
    };
    let (blocks, reserved) = (sum(false), sum(true));
    assert!(blocks.len() <= 1 && reserved.len() <= 1, "{balance:?}");
    let held = blocks.iter().chain(&reserved).sum::<u64>();
    // Of a settlement without an answer, it is not known whether two units were used.
    assert!(
        out - held <= spent + 2,
        "{out} out, {held} held, {spent} spent"
    );
    assert!(blocks.iter().sum::<u64>() <= BLOCK);
    assert_explained(accounts, of).await;
    let used = out - held;
    // The reservation has ended then, and the block is abandoned.
    clock.advance(3 * MINUTE);
    if spent.is_multiple_of(2) {
        // The rest of the block comes back by an operator, and a reservation at its end.
        let mut reported = 0;
        for block in balance.taken.iter().filter(|one| one.ends_at.is_none()) {
            reported += block.used;
            let back = accounts.give_back(of, &block.id).await.unwrap();
            assert_eq!(back, block.units - block.used);
        }
        let balance = accounts.balance(of).await.unwrap();
        assert_eq!(balance.available, DAILY + TOP_UP - used - reported);
        assert_eq!(balance.taken, []);
    } else {
        // Without one, it counts as used until the day ends.
        let kept = accounts.balance(of).await.unwrap().available;
        assert_eq!(kept, DAILY + TOP_UP - out + reserved.iter().sum::<u64>());
        clock.advance(DAY);
        let next = accounts.balance(of).await.unwrap();
        let left = |at: usize| next.grants[at].left;
        assert_eq!(left(0), DAILY, "the whole day's");
        assert!(left(1) <= TOP_UP && next.grants.len() == 2);
        accounts.grant(of, NewGrant::new(1)).await.unwrap();
    }
    assert_explained(accounts, of).await;
}

/// Kills a node at every step that it takes.
async fn kill_at_every_step(store: impl CreditStore + Clone, address: &str) {
    let mut steps = 0;
    for step in 0.. {
        let name = format!("step{step}");
        let clock = ManualClock::new();
        let accounts = CreditAccounts::new(store.clone());
        let accounts = accounts.with_clock(Arc::new(clock.clone()));
        let of = account(&name);
        let daily = NewGrant::new(DAILY).refilled(Period::daily());
        accounts.grant(&of, daily).await.unwrap();
        let top_up = NewGrant::new(TOP_UP).with_priority(1);
        accounts.grant(&of, top_up).await.unwrap();
        let mut node = Node::start(address, &name, Some(step));
        let last = tokio::task::block_in_place(|| node.last_line());
        if last == "stopped" {
            let spent = node.kill();
            let balance = accounts.balance(&of).await.unwrap();
            assert_eq!(balance.available, DAILY + TOP_UP - spent);
            assert_eq!(balance.taken, []);
            assert_explained(&accounts, &of).await;
            break;
        }
        assert_eq!(last, "halted");
        assert_kept(&accounts, &clock, &name, node.kill()).await;
        steps = step + 1;
    }
    println!("killed at {steps} steps");
    assert!(steps >= 20, "{steps}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_at_any_step_has_spent_at_most_its_block_on_sqlite() {
    let home = SqliteHome::new();
    let store = home.open().await;
    kill_at_every_step(store, home.path().to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_at_any_step_has_spent_at_most_its_block_on_postgresql() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let store = home.open().await;
    kill_at_every_step(store, &server.address(&home.name)).await;
}

/// Kills nodes, and at times the database, at random instants while they spend from one account.
async fn kill_at_random(
    store: impl CreditStore + Clone,
    address: &str,
    crash: impl Fn(),
    seed: u64,
) {
    let granted = 250 * rounds();
    let (accounts, of) = (CreditAccounts::new(store), account("acme"));
    let grant = NewGrant::new(granted);
    accounts.grant(&of, grant).await.unwrap();
    let start = || Node::start(address, "acme", None);
    let (mut nodes, mut random) = ([start(), start(), start()], Random(seed));
    let mut spent = 0;
    for round in 0..rounds() {
        let pause = Duration::from_millis(random.between(100, 400));
        tokio::time::sleep(pause).await;
        if round % 4 == 3 {
            crash();
        }
        let killed = std::mem::replace(&mut nodes[random.index(3)], start());
        spent += tokio::task::block_in_place(|| killed.kill());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for node in nodes {
        spent += tokio::task::block_in_place(|| node.stop());
    }
    let balance = accounts.balance(&of).await.unwrap();
    let blocks = balance.taken.len() as u64;
    assert!(spent + balance.available <= granted, "{spent}: {balance:?}");
    let lost = granted - spent - balance.available;
    println!("{spent} of {granted} units spent, {lost} lost with {blocks} blocks");
    assert!(spent > LARGE_BLOCK * 4, "hardly anything was spent");
    assert!(
        blocks <= rounds(),
        "more than one block of a node that was killed"
    );
    // A unit that was spent just before the kill may not have been written.
    assert!(lost <= rounds() * (LARGE_BLOCK + AT_ONCE), "{balance:?}");
    assert_explained(&accounts, &of).await;
    // Everything else can be spent, and no unit more.
    let node = Node::start(address, "acme", None);
    let rest = balance.available;
    let counted = Arc::clone(&node.spent);
    let so_far = || counted.load(Ordering::SeqCst);
    while so_far() < rest {
        let before = so_far();
        until_async("more of the rest is spent", || so_far() > before).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tokio::task::block_in_place(|| node.stop()), rest);
    assert_eq!(accounts.balance(&of).await.unwrap().available, 0);
    assert_explained(&accounts, &of).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_killed_at_random_never_spend_too_much_on_sqlite() {
    let home = SqliteHome::new();
    let store = home.open().await;
    kill_at_random(store, home.path().to_str().unwrap(), || {}, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_a_database_that_are_killed_at_random_never_spend_too_much() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let store = home.open().await;
    let crash = || {
        tokio::task::block_in_place(|| {
            server.crash();
            server.start_again();
        });
    };
    kill_at_random(store, &server.address(&home.name), crash, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_are_kept_with_the_keys_and_outside_of_the_hosts_transaction() {
    let home = SqliteHome::new();
    let store = home.open().await;
    let keys = Portunus::builder(format())
        .store(store.clone())
        .credits(Credits::per_tenant(store.clone()))
        .build()
        .unwrap();
    let options = SqliteConnectOptions::new().filename(home.path());
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let joined = store.in_transaction(&mut transaction, keys.manager(), |keys| async move {
        let grant = NewGrant::new(5);
        keys.grant_credits(&account("acme"), grant).await
    });
    let refused = joined.await.err().unwrap();
    assert!(matches!(refused, ManageError::Conflict(_)), "{refused:?}");
    transaction.commit().await.unwrap();
    let of = account("acme");
    assert_eq!(keys.manager().credits(&of).await.unwrap().available, 0);
    let grant = keys.manager().grant_credits(&of, NewGrant::new(5));
    grant.await.unwrap();
    let other = CreditAccounts::new(home.open().await);
    assert_eq!(other.balance(&of).await.unwrap().available, 5);
}

/// Kills a node, and then its database, between the statements of the transaction with which the
/// node takes a block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_is_taken_by_half_is_not_taken() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let accounts = CreditAccounts::new(home.open().await);
    let of = account("acme");
    accounts.grant(&of, NewGrant::new(DAILY)).await.unwrap();
    let before = accounts.balance(&of).await.unwrap();
    for crashes in [false, true] {
        // The row of the account is written, and the entries wait.
        let mut lock = home.connection().await;
        let held = "BEGIN; LOCK TABLE portunus_credit_entries IN SHARE ROW EXCLUSIVE MODE";
        sqlx::raw_sql(held).execute(&mut lock).await.unwrap();
        let node = Node::start(&server.address(&home.name), "acme", None);
        let waiting = "SELECT CAST(count(*) AS TEXT) FROM pg_locks WHERE NOT granted \
                       AND relation = to_regclass('portunus_credit_entries')";
        let is_waiting = async || (home.text(waiting).await == "1").then_some(());
        eventually_async(is_waiting).await.unwrap();
        let written = "SELECT CAST(count(*) AS TEXT) FROM pg_locks WHERE granted \
                       AND relation = to_regclass('portunus_credits') \
                       AND mode = 'RowExclusiveLock'";
        assert_eq!(home.text(written).await, "1");
        assert_eq!(tokio::task::block_in_place(|| node.kill()), 0);
        if crashes {
            tokio::task::block_in_place(|| {
                server.crash();
                server.start_again();
            });
        }
        drop(lock);
        let is_over = async || (home.text(written).await == "0").then_some(());
        eventually_async(is_over).await.unwrap();
        assert_eq!(accounts.balance(&of).await.unwrap(), before);
        assert_explained(&accounts, &of).await;
    }
}
