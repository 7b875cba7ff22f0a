//! A primary server that is lost, and a streaming standby that is promoted, behind one address.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::recording_listener::RecordingListener;
use crate::common::{
    PostgresHome, assert_unavailable, batch, digest, found, get, id, insert, record, tenant, with_a,
};
use portunus::credit::{CreditAccount, CreditAccounts, NewGrant};
use portunus::store::{KeyLookup, KeyStore, ListQuery, StoreError, WriteBatch};
use portunus_sqlx::PostgresStore;
use portunus_test_support::pgbouncer::PgBouncer;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::proxy::{Failing, Proxy, Which};
use portunus_test_support::wait::{eventually_async, until_async};

/// The time within which a promoted server is used.
const BACK: Duration = Duration::from_secs(5);
/// How long the address leads to the standby before it is promoted.
const IN_RECOVERY: Duration = Duration::from_millis(1_500);

/// A primary server with a synchronous standby, and an address that leads to the primary.
struct Pair {
    home: PostgresHome,
    standby: Arc<Postgres>,
    proxy: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let primary = Arc::new(Postgres::start());
        let home = PostgresHome::new(&primary);
        with_a(&home).await.close().await;
        let standby = Arc::new(Postgres::synchronous_standby_of(&primary));
        let proxy = Proxy::before(primary.socket());
        Self {
            home,
            standby,
            proxy,
        }
    }

    async fn store(&self) -> PostgresStore {
        let address = self.proxy.address(&self.home.name);
        PostgresStore::connect(&address).await.unwrap()
    }

    /// A store on the promoted standby itself.
    async fn beside(&self) -> PostgresStore {
        let address = self.standby.address(&self.home.name);
        PostgresStore::connect(&address).await.unwrap()
    }
}

/// One operation: when it began and ended, and why it failed.
struct Done {
    began: Instant,
    ended: Instant,
    failed: Option<String>,
}

/// Lookups and writes, repeated until they are told to stop.
#[derive(Default)]
struct Load {
    lookups: Mutex<Vec<Done>>,
    writes: Mutex<Vec<Done>>,
    /// The numbers of the keys whose insertion was acknowledged.
    acknowledged: Mutex<Vec<u32>>,
    numbers: AtomicU32,
    is_over: AtomicBool,
}

impl Load {
    /// Four that look up and four that write.
    fn start(store: &PostgresStore) -> (Arc<Self>, tokio::task::JoinSet<()>) {
        let load = Arc::new(Self::default());
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (load, store) = (Arc::clone(&load), store.clone());
            tasks.spawn(async move {
                while !load.is_over.load(Ordering::SeqCst) {
                    load.run_one(&store, number % 2 == 0).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        (load, tasks)
    }

    async fn run_one(&self, store: &PostgresStore, looks_up: bool) {
        let began = Instant::now();
        let (results, done) = if looks_up {
            (&self.lookups, look_up(store).await)
        } else {
            (&self.writes, self.write(store).await)
        };
        results.lock().unwrap().push(Done {
            began,
            ended: Instant::now(),
            failed: done.err().map(|error| cause(&error)),
        });
    }

    async fn write(&self, store: &PostgresStore) -> Result<(), StoreError> {
        let number = 1_000 + self.numbers.fetch_add(1, Ordering::SeqCst);
        let name = format!("key{number}");
        let write = batch([insert(digest(number), record(&name))]);
        store.apply(&write).await?;
        self.acknowledged.lock().unwrap().push(number);
        Ok(())
    }
}

async fn look_up(store: &PostgresStore) -> Result<(), StoreError> {
    let found = store.find(&[digest(1)]).await?;
    assert!(found.is_some(), "the key is unknown");
    Ok(())
}

/// Changes the key `a`.
async fn revise(store: &PostgresStore) {
    let current = get(store, "a").await;
    let update = WriteBatch::new().update(current);
    store.apply(&update).await.unwrap();
}

/// The cause of an unavailable store.
fn cause(error: &StoreError) -> String {
    assert_unavailable(error);
    std::error::Error::source(error).unwrap().to_string()
}

/// The operations that began from this time on.
fn since(all: &Mutex<Vec<Done>>, from: Instant, see: impl FnMut(&Done)) {
    let all = all.lock().unwrap();
    all.iter().filter(|done| done.began >= from).for_each(see);
}

async fn fails_over(what: &str, failing: Failing) {
    let pair = Pair::start().await;
    let store = pair.store().await;
    let bus = store.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    let (load, tasks) = Load::start(&store);
    let writes = || load.acknowledged.lock().unwrap().len();
    until_async("writes", || writes() >= 50).await;

    pair.proxy.fail(failing, Which::All);
    pair.home.server.crash();
    // The address leads to the standby too early.
    pair.proxy.lead_to(pair.standby.socket());
    pair.proxy.fail_present(failing, Which::All);
    let switched = Instant::now();
    listener.clear();
    tokio::time::sleep(IN_RECOVERY).await;
    let before = writes();
    let promoting = Instant::now();
    pair.standby.promote();
    let promoted = Instant::now();

    until_async("five seconds", || promoted.elapsed() >= BACK).await;
    listener.wait_for_proof().await;
    until_async("another second", || {
        promoted.elapsed() >= BACK + Duration::from_secs(1)
    })
    .await;
    load.is_over.store(true, Ordering::SeqCst);
    tasks.join_all().await;

    let mut refused_for_recovery = 0;
    for (kind, all) in [("lookup", &load.lookups), ("write", &load.writes)] {
        let (mut first, mut last_failed) = (None, None);
        since(all, switched, |done| {
            let failed = done.failed.as_deref();
            if failed.is_none() {
                // The promotion is complete somewhat earlier than this process knows.
                let early = promoting.saturating_duration_since(done.ended);
                assert!(
                    early.is_zero(),
                    "a {kind} succeeded {early:?} before the promotion"
                );
                let took = done.ended.saturating_duration_since(promoted);
                first = Some(first.map_or(took, |first: Duration| first.min(took)));
            } else {
                last_failed = last_failed.max(Some(done.ended));
            }
            refused_for_recovery +=
                u32::from(failed.is_some_and(|why| why.contains("in recovery")));
        });
        let last_failed = last_failed.map(|last| last.saturating_duration_since(promoted));
        println!(
            "{what}: the first {kind} succeeded {first:?} after the promotion, the last one that \
             failed ended after {last_failed:?}"
        );
        assert!(first.is_some_and(|first| first <= BACK), "{kind}");
        assert!(last_failed.is_none_or(|last| last <= BACK), "{kind}");
    }
    // Where connections are silent, all operations wait for them.
    assert!(
        refused_for_recovery > 0 || failing == Failing::Silent,
        "nobody asked the standby"
    );

    let beside = pair.beside().await;
    let acknowledged = load.acknowledged.lock().unwrap().clone();
    println!(
        "{what}: {} writes were acknowledged, {before} of them before",
        acknowledged.len()
    );
    assert!(acknowledged.len() > before, "no write afterwards");
    for number in acknowledged {
        let expected = Some(id(&format!("key{number}")));
        assert_eq!(found(&beside, digest(number)).await, expected, "lost");
    }
    revise(&beside).await;
    listener.wait_for_key("a").await;
    listener.assert_everything_first();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_is_used_after_connections_were_reset() {
    fails_over("reset", Failing::Reset).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_is_used_after_connections_became_silent() {
    fails_over("silent", Failing::Silent).await;
}

/// Nodes reserve and settle while the address leads to a synchronous standby that is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credits_are_spent_twice_across_a_failover() {
    const GRANTED: u64 = 1_000_000;
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let pair = Pair::start().await;
    let of = CreditAccount::Tenant(tenant("acme"));
    let nodes = [pair.store().await, pair.store().await].map(CreditAccounts::new);
    nodes[0].grant(&of, NewGrant::new(GRANTED)).await.unwrap();
    let (settled, unknown) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (node, of) = (nodes[number % 2].clone(), of.clone());
        let (settled, unknown) = (Arc::clone(&settled), Arc::clone(&unknown));
        tasks.spawn(async move {
            loop {
                let Ok(reserved) = node.reserve(&of, 3, HOUR).await else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                unknown.fetch_add(2, Ordering::SeqCst);
                if reserved.settle(2).await.is_ok() {
                    settled.fetch_add(2, Ordering::SeqCst);
                    unknown.fetch_sub(2, Ordering::SeqCst);
                }
            }
        });
    }
    let spent = || settled.load(Ordering::SeqCst);
    until_async("spending", || spent() >= 60).await;
    pair.proxy.fail(Failing::Reset, Which::All);
    pair.home.server.crash();
    pair.proxy.lead_to(pair.standby.socket());
    pair.proxy.fail_present(Failing::Reset, Which::All);
    pair.standby.promote();
    let before = spent();
    until_async("spending afterwards", || spent() >= before + 60).await;
    tasks.shutdown().await;

    let beside = CreditAccounts::new(pair.beside().await);
    // What was being written when the tasks ended may still come.
    let is_still = async || {
        let balance = beside.balance(&of).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        (beside.balance(&of).await.unwrap() == balance).then_some(balance)
    };
    let balance = eventually_async(is_still).await.unwrap();
    let held: u64 = balance.taken.iter().map(|one| one.units).sum();
    let used = GRANTED - balance.available - held;
    println!(
        "{} settled, {} unknown, {used} used",
        spent(),
        unknown.load(Ordering::SeqCst)
    );
    assert!(used >= spent(), "a settlement that was confirmed is lost");
    assert!(used <= spent() + unknown.load(Ordering::SeqCst));
    let (mut sum, mut last) = (0, 0);
    loop {
        let page = beside.ledger(&of, last, 1000).await.unwrap();
        for entry in &page {
            assert_eq!(entry.number, last + 1);
            (sum, last) = (sum + entry.change, entry.number);
        }
        if page.is_empty() {
            break;
        }
    }
    assert_eq!(sum, i64::try_from(balance.available).unwrap());
}

/// Looks up the key `a` with several connections at once.
async fn busy(store: &PostgresStore, count: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let store = store.clone();
        tasks.spawn(async move { found(&store, digest(1)).await });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_connections_lead_to_two_servers_leaves_the_old_one() {
    let pair = Pair::start().await;
    let old = Arc::clone(&pair.home.server);
    let store = pair.store().await;
    let bus = store.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    busy(&store, 3).await;
    let connected = || {
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
            pair.home.name
        );
        old.sql("postgres", &count).trim().parse::<u32>().unwrap()
    };
    assert!(connected() > 1);
    // Nobody stopped the old server.
    pair.standby.promote();
    pair.proxy.lead_to(pair.standby.socket());
    let promoted = Instant::now();
    listener.clear();
    let gone = eventually_async(async || {
        busy(&store, 20).await;
        (connected() == 0).then_some(())
    });
    gone.await.expect("connections to the old server remain");
    println!("the old server was left after {:?}", promoted.elapsed());
    assert!(promoted.elapsed() < BACK, "{:?}", promoted.elapsed());
    listener.wait_for_everything().await;
    listener.wait_for_proof().await;
    revise(&pair.beside().await).await;
    listener.wait_for_key("a").await;
}

/// Asserts that every kind of operation is refused because the server is in recovery.
async fn assert_refused(store: &PostgresStore) {
    let digests: Vec<_> = (1..20).map(digest).collect();
    let update = WriteBatch::new().update(record("a"));
    let refusals = async || {
        [
            store.find(&digests[..1]).await.err(),
            store.find(&digests[..3]).await.err(),
            store.find(&digests).await.err(),
            store.get(&id("a")).await.err(),
            store
                .list(&ListQuery::new(crate::common::at(1)))
                .await
                .err(),
            store.apply(&update).await.err(),
        ]
    };
    // Connections from before the restart may still be there.
    let clear = eventually_async(async || {
        let causes = refusals()
            .await
            .map(|error| cause(&error.expect("the operation succeeded")));
        let is_clear = |cause: &String| {
            cause.contains("the server is a replica (it is in recovery)")
                && cause.contains("connect to the primary server")
        };
        causes.iter().all(is_clear).then_some(())
    });
    clear.await.expect("the error says why");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_server_came_back_in_recovery_refuses() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let store = with_a(&home).await;
    let pooler = PgBouncer::before(&server);
    let address = pooler.address(&home.name);
    let pooled = PostgresStore::behind_pooler(&address).await.unwrap();
    assert_eq!(found(&pooled, digest(1)).await, Some(id("a")));
    server.become_a_replica();
    assert_refused(&store).await;
    assert_refused(&pooled).await;
    let behind = PostgresStore::behind_pooler(&address).await;
    let error = behind.unwrap_err().to_string();
    assert!(error.contains("in recovery"), "{error}");
}
