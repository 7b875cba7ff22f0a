//! A process that is killed between the commit of a revocation and its publication.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portunus::store::{BusError, Invalidation, InvalidationBus, InvalidationListener, KeyStore};
use portunus_sqlx::PostgresStore;
use portunus_test_support::postgres::Postgres;

use crate::common::outbox::{HostBus, node, revoke, works};
use crate::common::{Home, PostgresHome, batch, digest, id, insert, record};

const ADDRESS: &str = "PORTUNUS_SQLX_OUTBOX_ADDRESS";
const KEY: &str = "PORTUNUS_SQLX_OUTBOX_KEY";

/// The number of processes that are killed; `scripts/measure outbox` sets more.
fn rounds() -> u32 {
    let set = std::env::var("OUTBOX_ROUNDS").ok();
    set.map_or(10, |rounds| rounds.parse().unwrap())
}

/// A bus on which nothing is ever published.
#[derive(Debug)]
struct Stuck;

#[async_trait]
impl InvalidationBus for Stuck {
    fn subscribe(&self, _: Weak<dyn InvalidationListener>) {}

    async fn publish(&self, _: &Invalidation) -> Result<(), BusError> {
        std::io::stderr().write_all(b"publishing\n").unwrap();
        std::future::pending().await
    }
}

/// Not a test: the next test runs this in its own process.
#[tokio::test]
async fn a_process_that_revokes_a_key_and_does_not_publish_it() {
    let (Ok(address), Ok(key)) = (std::env::var(ADDRESS), std::env::var(KEY)) else {
        return;
    };
    let store = PostgresStore::connect(&address).await.unwrap();
    let _ = node(store, Stuck).apply(&revoke(&key)).await;
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_whose_node_is_killed_before_it_publishes_reaches_the_others() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let (store, bus) = (home.open().await, HostBus::default());
    let other = node(home.open().await, bus.clone());
    let publisher = node(home.open().await, bus);
    let mut longest = Duration::ZERO;
    for round in 0..rounds() {
        let (name, digest) = (format!("key{round}"), digest(round));
        store
            .apply(&batch([insert(digest, record(&name))]))
            .await
            .unwrap();
        assert!(works(&other, digest).await);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "outbox::a_process_that_revokes_a_key_and_does_not_publish_it",
                "--nocapture",
            ])
            .env(ADDRESS, server.address(&home.name))
            .env(KEY, &name)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let is_publishing = lines.any(|line| line.unwrap() == "publishing");
        // SIGKILL
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_publishing, "the other process ended");
        let killed = Instant::now();
        let stored = store.get(&id(&name)).await.unwrap().unwrap();
        assert!(stored.revoked.is_some(), "it was killed before the commit");
        assert!(works(&other, digest).await, "it was published");
        // The periodic job of any other node.
        let publisher = publisher.clone();
        let job = tokio::spawn(async move {
            loop {
                publisher.publish_outbox().await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        while works(&other, digest).await {
            assert!(
                killed.elapsed() < Duration::from_secs(2),
                "{:?}",
                killed.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest = longest.max(killed.elapsed());
        job.abort();
    }
    println!(
        "{} processes were killed: revoked after {longest:?} (longest)",
        rounds()
    );
    assert!(longest <= Duration::from_secs(2), "{longest:?}");
    // The last job may have been stopped after it published.
    other.publish_outbox().await.unwrap();
    assert_eq!(store.recorded_changes().await.unwrap(), []);
}
