//! Processes of this program that spend credits. Each writes what it spent to its standard error,
//! which outlives it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use portunus::clock::SystemClock;
use portunus::config::Limits;
use portunus::credit::{
    CreditAccount, CreditError, CreditStore, CreditWrite, Credits, LedgerEntry, StoredCredits,
};
use portunus::key::Owner;
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus::{Clock, ErrorCode, Portunus};
use portunus_sqlx::{PostgresStore, SqliteStore};
use portunus_test_support::wait::eventually_async;
use portunus_test_support::{Head, format};

use crate::common::tenant;

const ADDRESS: &str = "PORTUNUS_SQLX_CREDITS_ADDRESS";
const TENANT: &str = "PORTUNUS_SQLX_CREDITS_TENANT";
const HALT_AT: &str = "PORTUNUS_SQLX_CREDITS_HALT_AT";

/// The units of a block: of a node that halts at a step, and of another one.
pub(crate) const BLOCK: u64 = 4;
pub(crate) const LARGE_BLOCK: u64 = 25;
/// How many requests a node makes at once that does not halt.
pub(crate) const AT_ONCE: u64 = 3;

pub(crate) fn account(name: &str) -> CreditAccount {
    CreditAccount::Tenant(tenant(name))
}

fn say(what: &str) {
    let line = format!("{what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Stops for ever before or after one of the calls that reach the store.
#[derive(Debug)]
struct Halting<S> {
    store: S,
    left: AtomicI64,
}

impl<S> Halting<S> {
    async fn step(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            say("halted");
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl<S: CreditStore> CreditStore for Halting<S> {
    async fn load(&self, account: &CreditAccount) -> Result<Option<StoredCredits>, CreditError> {
        self.step().await;
        self.store.load(account).await
    }

    async fn save(
        &self,
        account: &CreditAccount,
        write: &CreditWrite,
    ) -> Result<bool, CreditError> {
        self.step().await;
        let saved = self.store.save(account, write).await;
        self.step().await;
        saved
    }

    async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        self.store.ledger(account, after, most).await
    }
}

/// A service whose keys are in memory, and the secret of a key of the tenant.
async fn node(
    store: impl CreditStore,
    name: &str,
    block: u64,
    clock: impl Clock + 'static,
) -> (Portunus, String) {
    let credits = Credits::per_tenant(store).block(block.try_into().unwrap());
    let node = Portunus::builder(format())
        .store(MemoryStore::new())
        .limits(Limits::none())
        .clock(clock)
        .credits(credits)
        .build()
        .unwrap();
    let new = NewKey::new("first", Owner::tenant(tenant(name)));
    let secret = node.manager().issue(new).await.unwrap().key.reveal();
    (node, secret)
}

/// Makes a request. Returns the code of a refusal.
async fn request(node: &Portunus, secret: &str) -> Option<ErrorCode> {
    let asked = node.authenticator().authenticate(&Head::bearer(secret));
    let refused = asked.await.err()?;
    Some(refused.code())
}

/// Not a test: the tests run this in its own process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_spends() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let store: Box<dyn CreditStore> = if address.starts_with("postgres") {
        // The database may have been killed, and be about to come back.
        let connect = async || PostgresStore::connect(&address).await.ok();
        Box::new(eventually_async(connect).await.unwrap())
    } else {
        Box::new(SqliteStore::open(&address).await.unwrap())
    };
    let name = std::env::var(TENANT).unwrap();
    match std::env::var(HALT_AT) {
        Ok(step) => step_by_step(store, &name, step.parse().unwrap()).await,
        Err(_) => until_told_to_stop(store, &name).await,
    }
}

/// Takes every kind of step, one after the other.
async fn step_by_step(store: Box<dyn CreditStore>, name: &str, halts_at: i64) {
    let left = AtomicI64::new(halts_at);
    let store = Arc::new(Halting { store, left });
    let clock = ManualClock::new();
    let (node, secret) = node(store, name, BLOCK, clock.clone()).await;
    let spend = async |units: u64| {
        for _ in 0..units {
            assert_eq!(request(&node, &secret).await, None);
            say("spent 1");
        }
    };
    // A block and a part of the next one, whose use is reported.
    spend(BLOCK + 1).await;
    clock.advance(Duration::from_secs(1));
    let done = node.maintain().await;
    assert!(done.failures.is_empty(), "{:?}", done.failures);
    spend(1).await;
    let accounts = node.credits().unwrap();
    let reserved = accounts
        .reserve(&account(name), 5, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(reserved.settle(2).await.unwrap(), 3);
    say("spent 2");
    spend(BLOCK).await;
    node.run(std::future::ready(())).await;
    say("stopped");
}

/// Spends until the other process closes the standard input, and then stops as a service does.
async fn until_told_to_stop(store: Box<dyn CreditStore>, name: &str) {
    let (node, secret) = node(store, name, LARGE_BLOCK, SystemClock::default()).await;
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lines().count();
        drop(tell);
    });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (node, secret) = (node.clone(), secret.clone());
        tasks.spawn(async move {
            loop {
                match request(&node, &secret).await {
                    None => say("spent 1"),
                    Some(ErrorCode::CreditsExhausted) => say("exhausted"),
                    Some(ErrorCode::StoreUnavailable) => {}
                    Some(code) => {
                        say(code.as_str());
                        std::process::abort();
                    }
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
    }
    let stopping = async move {
        let _ = told.await;
        tasks.shutdown().await;
    };
    node.run(stopping).await;
    say("stopped");
}

/// A process that spends.
pub(crate) struct Node {
    child: Child,
    pub(crate) spent: Arc<AtomicU64>,
    reading: Option<std::thread::JoinHandle<Option<String>>>,
}

impl Node {
    pub(crate) fn start(address: &str, name: &str, halts_at: Option<i64>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "credit_nodes::a_node_that_spends", "--nocapture"])
            .env(ADDRESS, address)
            .env(TENANT, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(step) = halts_at {
            command.env(HALT_AT, step.to_string());
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let spent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&spent);
        let read = move || {
            let mut last = None;
            for line in lines {
                let line = line.unwrap();
                if let Some(units) = line.strip_prefix("spent ") {
                    counted.fetch_add(units.parse().unwrap(), Ordering::SeqCst);
                }
                let is_over = line == "halted";
                last = Some(line);
                if is_over {
                    break;
                }
            }
            last
        };
        Self {
            child,
            spent,
            reading: Some(std::thread::spawn(read)),
        }
    }

    /// Waits until it halts, stops or dies. Returns its last line.
    pub(crate) fn last_line(&mut self) -> String {
        let last = self.reading.take().unwrap().join().unwrap();
        last.unwrap_or_default()
    }

    /// Kills it with SIGKILL. Returns what it spent.
    pub(crate) fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if self.reading.is_some() {
            self.last_line();
        }
        self.spent.load(Ordering::SeqCst)
    }

    /// Stops it as a service is stopped. Returns what it spent.
    pub(crate) fn stop(mut self) -> u64 {
        drop(self.child.stdin.take());
        assert_eq!(self.last_line(), "stopped");
        assert!(self.child.wait().unwrap().success());
        self.spent.load(Ordering::SeqCst)
    }
}
