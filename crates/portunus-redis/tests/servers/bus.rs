//! The bus: its suite with a network that fails, what others can do on its channel, and its end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use portunus::key::{KeyId, TenantId};
use portunus::store::{Invalidation, InvalidationBus, InvalidationListener};
use portunus_conformance::{self as conformance, BusNodes};
use portunus_redis::Redis;
use portunus_test_support::redis::Redis as Server;
use portunus_test_support::wait::until_async;

use crate::common::redis;
use crate::network::{Failing, Network};

/// Runs the suite, each check under another prefix. The second node is behind a network.
async fn passes_the_bus_suite(near: &Redis, far: &Redis, network: &Arc<Network>) {
    let with_faults = |nodes: BusNodes| {
        let (cut, restored) = (Arc::clone(network), Arc::clone(network));
        let cut = move || {
            cut.fail(Failing::Silent);
            async {}
        };
        let restore = move || {
            restored.heal();
            async {}
        };
        nodes.with_faults(cut, restore)
    };
    run_the_suite(near, far, with_faults).await;
}

/// Runs the suite without failures of the network.
pub(crate) async fn passes_the_bus_suite_without_faults(near: &Redis, far: &Redis) {
    run_the_suite(near, far, |nodes| nodes).await;
}

async fn run_the_suite(near: &Redis, far: &Redis, change: impl Fn(BusNodes) -> BusNodes) {
    let count = AtomicU32::new(0);
    let make = || {
        let prefix = format!("bus{}", count.fetch_add(1, Ordering::Relaxed));
        let bus = |redis: &Redis| redis.clone().prefix(&prefix).unwrap().bus();
        let (near, far) = (bus(near), bus(far));
        let nodes = change(BusNodes::new(near.clone(), far.clone()));
        async move {
            near.check().await.unwrap();
            far.check().await.unwrap();
            nodes
        }
    };
    conformance::invalidation_bus(make).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_on_a_single_server_passes() {
    let server = Server::start();
    let network = Arc::new(Network::before(server.port()));
    let far = Redis::single(&network.address()).unwrap();
    passes_the_bus_suite(&redis(&server), &far, &network).await;
}

/// What a listener was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    changes: Mutex<Vec<Invalidation>>,
    caught_up: AtomicU32,
}

impl InvalidationListener for Told {
    fn invalidated(&self, what: &Invalidation) {
        self.changes.lock().unwrap().push(what.clone());
    }

    fn caught_up(&self, _: Instant) {
        self.caught_up.fetch_add(1, Ordering::SeqCst);
    }
}

impl Told {
    pub(crate) fn on(bus: &impl InvalidationBus) -> Arc<Self> {
        let listener = Arc::<Self>::default();
        let weak: Weak<Self> = Arc::downgrade(&listener);
        bus.subscribe(weak);
        listener
    }

    pub(crate) fn proofs(&self) -> u32 {
        self.caught_up.load(Ordering::SeqCst)
    }

    pub(crate) fn was_told(&self, what: &Invalidation) -> bool {
        self.changes.lock().unwrap().contains(what)
    }

    pub(crate) fn everythings(&self) -> usize {
        let changes = self.changes.lock().unwrap();
        changes.iter().filter(|what| what.everything).count()
    }
}

#[tokio::test]
async fn heartbeats_of_others_prove_nothing_and_other_messages_are_a_change_of_everything() {
    let server = Server::start();
    let bus = redis(&server).bus();
    bus.check().await.unwrap();
    let listener = Told::on(&bus);
    until_async("it is told", || listener.proofs() > 0).await;
    // The server goes on sending what others publish, and refuses what the bus would send.
    server.cli(&["config", "set", "min-replicas-to-write", "1"]);
    let proofs = || listener.proofs();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, everything) = (proofs(), listener.everythings());
    for forged in ["beat:0000000000000001", "beat:ffffffffffffffff", "beat:"] {
        server.cli(&["publish", "portunus:changes", forged]);
    }
    for other in ["x", "[[],[]]", ""] {
        server.cli(&["publish", "portunus:changes", other]);
    }
    until_async("all are told", || listener.everythings() >= everything + 3).await;
    assert_eq!(proofs(), before, "a forged heartbeat counts");
    // A change cannot be published either.
    let mut what = Invalidation::default();
    what.tenants.push(TenantId::new("t").unwrap());
    assert!(bus.publish(&what).await.is_err());
    server.cli(&["config", "set", "min-replicas-to-write", "0"]);
    until_async("it is told again", || proofs() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_or_restarted_server_ends_the_proofs_and_then_everything_is_told() {
    let server = Server::start();
    let bus = redis(&server).bus();
    bus.check().await.unwrap();
    let listener = Told::on(&bus);
    for turn in 0..2 {
        let before = listener.proofs();
        until_async("it is told", || listener.proofs() > before).await;
        let everything = listener.everythings();
        if turn == 0 {
            server.pause();
        } else {
            server.crash();
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
        let silent = listener.proofs();
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(listener.proofs(), silent, "turn {turn}");
        if turn == 0 {
            server.resume();
        } else {
            server.start_again();
        }
        let back = std::time::Instant::now();
        until_async("it is told again", || listener.proofs() > silent).await;
        let took = back.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(listener.everythings() > everything, "turn {turn}");
    }
}

#[tokio::test]
async fn a_dropped_bus_leaves_no_connection() {
    let server = Server::start();
    let connections = || {
        let clients = server.cli(&["client", "list"]);
        clients
            .lines()
            .filter(|line| !line.contains("cmd=client"))
            .count()
    };
    let (bus, limiter) = (redis(&server).bus(), redis(&server).limiter());
    bus.check().await.unwrap();
    limiter.check().await.unwrap();
    assert_eq!(
        connections(),
        3,
        "one to publish, one to subscribe, one of the limiter"
    );
    drop(bus);
    until_async("the bus is gone", || connections() == 1).await;
    drop(limiter);
    until_async("the limiter is gone", || connections() == 0).await;
}

#[tokio::test]
async fn a_change_is_told_on_every_node_within_a_moment() {
    let server = Server::start();
    let buses: Vec<_> = (0..4).map(|_| redis(&server).bus()).collect();
    let mut listeners = Vec::new();
    for bus in &buses {
        bus.check().await.unwrap();
        listeners.push(Told::on(bus));
    }
    for listener in &listeners {
        until_async("it is told", || listener.proofs() > 0).await;
    }
    let mut what = Invalidation::default();
    what.keys.push(KeyId::new("k").unwrap());
    let mut longest = Duration::ZERO;
    for turn in 0..50 {
        what.known = vec![turn];
        let began = std::time::Instant::now();
        buses[turn as usize % 4].publish(&what).await.unwrap();
        for listener in &listeners {
            while !listener.was_told(&what) {
                assert!(began.elapsed() < Duration::from_secs(2), "turn {turn}");
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        longest = longest.max(began.elapsed());
    }
    println!("told on four nodes within {longest:?}");
}
