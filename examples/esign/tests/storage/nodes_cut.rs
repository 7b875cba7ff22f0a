//! Nodes on one PostgreSQL database while one of them receives no invalidations: no cached answer
//! is used for longer than the bound on staleness, and an undecidable request is a 503.
//!
//! Each node reaches the database through its own network, which fails only for the second node.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::nodes::{
    BOUND, Latencies, SOON, accepted, ask, assert_accepted, may_read, node, revoke, revoked, said,
    took_until,
};
use crate::common::{Issued, Server, at_once};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::proxy::{Failing, Proxy, Which};

/// How many keys are revoked while no invalidations arrive.
const REVOCATIONS: usize = 20;

/// Two nodes, and the network between the second one and its database.
struct Cluster {
    nodes: [Server; 2],
    proxy: Proxy,
    _other: Proxy,
    _postgres: Postgres,
}

impl Cluster {
    fn start() -> Self {
        let postgres = Postgres::start();
        postgres.database("keys");
        let proxies = [0, 1].map(|_| Proxy::before(postgres.socket()));
        let nodes = [0, 1].map(|number: usize| node(&proxies[number].address("keys")));
        let [other, proxy] = proxies;
        let cluster = Self {
            nodes,
            proxy,
            _other: other,
            _postgres: postgres,
        };
        // The owner's primary key, which is not changed.
        cluster.issue();
        cluster.wait_until_it_hears();
        cluster
    }

    fn issue(&self) -> Issued {
        self.nodes[0].issue(may_read())
    }

    /// Revokes a key that was just used, and returns how long the second node took.
    fn revoke_one(&self, latencies: &mut Latencies, issued: &Issued) {
        assert_accepted(&self.nodes, &issued.key);
        let acknowledged = revoke(&self.nodes[0], issued);
        latencies.measure(
            &self.nodes,
            &issued.key,
            &accepted(),
            &revoked(),
            acknowledged,
        );
    }

    /// Waits until the second node receives the first one's changes promptly.
    fn wait_until_it_hears(&self) {
        crate::common::until("it hears", || {
            let mut latencies = Latencies::of("", 1);
            self.revoke_one(&mut latencies, &self.issue());
            latencies.shortest() <= SOON
        });
    }

    /// Asserts that ten more revocations, one after the other, are received promptly.
    fn assert_healed(&self, what: &str, since: Instant) {
        self.wait_until_it_hears();
        println!(
            "{what}: heard again {:.1?} after it was healed",
            since.elapsed()
        );
        let mut latencies = Latencies::of(format!("{what}, healed"), 1);
        (0..10).for_each(|_| self.revoke_one(&mut latencies, &self.issue()));
        latencies.assert_soon();
    }

    /// Revokes this many keys, one every 100 milliseconds from the start of the failure.
    fn revoke_while(&self, what: &str, count: usize, fail: impl FnOnce(&Proxy)) -> Latencies {
        let keys: Vec<_> = (0..count).map(|_| self.issue()).collect();
        let heard = self.proxy.listening();
        assert!(heard > 0, "nobody listens");
        fail(&self.proxy);
        let waited = at_once(count, |number| {
            thread::sleep(Duration::from_millis(number as u64 * 100));
            let key = &keys[number].key;
            // Looked up at the last moment, so that it stays cached as long as possible.
            assert_accepted(&self.nodes, key);
            let acknowledged = revoke(&self.nodes[0], &keys[number]);
            assert_eq!(
                ask(&self.nodes[0], key),
                revoked(),
                "the next request where it was revoked"
            );
            took_until(&self.nodes[1], key, &accepted(), &revoked(), acknowledged)
        });
        let mut latencies = Latencies::of(what, 1);
        waited
            .into_iter()
            .for_each(|waited| latencies.add(&[waited]));
        latencies.assert_within_the_bound();
        for issued in &keys {
            assert_eq!(ask(&self.nodes[1], &issued.key), revoked(), "it stays so");
        }
        latencies
    }
}

#[test]
fn where_the_bus_is_reset_again_and_again_a_revocation_holds_within_the_bound() {
    let cluster = Cluster::start();
    let latencies = cluster.revoke_while("reset again and again", REVOCATIONS, |p| {
        p.fail(Failing::Reset, Which::Listening);
    });
    assert!(latencies.shortest() > SOON, "the bus was not cut");
    cluster.proxy.heal();
    cluster.assert_healed("reset again and again", Instant::now());
    // Once, because the node reconnects by itself.
    cluster.revoke_while("reset once", 10, |proxy| {
        proxy.fail_present(Failing::Reset, Which::Listening);
    });
    cluster.assert_healed("reset once", Instant::now());
}

#[test]
fn where_the_bus_is_half_open_a_revocation_holds_within_the_bound() {
    let cluster = Cluster::start();
    let latencies = cluster.revoke_while("half-open", REVOCATIONS, |p| {
        p.fail(Failing::Silent, Which::Listening);
    });
    assert!(latencies.shortest() > SOON, "the bus was not silent");
    // What was held back is delivered now, late.
    cluster.proxy.heal();
    cluster.assert_healed("half-open", Instant::now());
    // This connection is lost permanently; the node opens another one.
    cluster.revoke_while("half-open once", 10, |proxy| {
        proxy.fail_present(Failing::Silent, Which::Listening);
    });
    cluster.assert_healed("half-open once", Instant::now());
}

#[test]
fn a_resumed_node_refuses_revoked_keys_from_its_first_request() {
    let cluster = Cluster::start();
    let [one, two] = &cluster.nodes;
    let keys = [cluster.issue(), cluster.issue(), cluster.issue()];
    keys.iter()
        .for_each(|issued| assert_accepted(&cluster.nodes, &issued.key));
    two.signal("STOP");
    let acknowledged = keys.each_ref().map(|issued| revoke(one, issued));
    // The requests are sent while the node is suspended, and wait for it.
    let answers = thread::scope(|scope| {
        let asked = keys.each_ref().map(|issued| {
            let began = acknowledged[2] + BOUND;
            scope.spawn(move || {
                thread::sleep(began.saturating_duration_since(Instant::now()));
                ask(two, &issued.key)
            })
        });
        thread::sleep((acknowledged[2] + BOUND + SOON).saturating_duration_since(Instant::now()));
        two.signal("CONT");
        asked.map(|asked| asked.join().unwrap())
    });
    assert_eq!(answers, [revoked(), revoked(), revoked()]);
    cluster.assert_healed("stood still", Instant::now());
}

/// The maximum time for a response, including an error.
const LONGEST: Duration = Duration::from_secs(11);

/// Cuts the second node off from the database several times for less than the bound, and heals the
/// network in this way: keys revoked meanwhile are refused within the bound.
fn away_for_a_moment(cluster: &Cluster, what: &str, heal: impl Fn(&Proxy)) {
    let [one, two] = &cluster.nodes;
    let mut latencies = Latencies::of(format!("{what}, for a moment"), 1);
    for millis in [100, 500, 1000, 1500] {
        cluster.wait_until_it_hears();
        let issued = cluster.issue();
        assert_accepted(&cluster.nodes, &issued.key);
        cluster.proxy.fail(Failing::Silent, Which::All);
        let acknowledged = revoke(one, &issued);
        thread::sleep(Duration::from_millis(millis));
        heal(&cluster.proxy);
        latencies.add(&[took_until(
            two,
            &issued.key,
            &accepted(),
            &revoked(),
            acknowledged,
        )]);
    }
    latencies.assert_within_the_bound();
}

/// Cuts the second node off from the database for several seconds, and heals the network in this
/// way.
fn away(cluster: &Cluster, what: &str, heal: impl Fn(&Proxy)) {
    let [one, two] = &cluster.nodes;
    let [good, gone] = [cluster.issue(), cluster.issue()];
    let never_used: Vec<_> = (0..12).map(|_| cluster.issue()).collect();
    for issued in [&good, &gone] {
        assert_accepted(&cluster.nodes, &issued.key);
    }
    let unavailable = said(503, "STORE_UNAVAILABLE");
    cluster.proxy.fail(Failing::Silent, Which::All);
    let away = Instant::now();
    revoke(one, &gone);
    // Two keys in use, repeatedly, and then some that must be looked up, even if other requests are
    // still waiting.
    let in_use = (0..60_u64).map(|number| {
        (
            Duration::from_millis(number * 50),
            [&good, &gone][number as usize % 2],
        )
    });
    let others = never_used
        .iter()
        .map(|issued| (BOUND + Duration::from_millis(500), issued));
    let asked: Vec<_> = in_use.chain(others).collect();
    let answers = at_once(asked.len(), |number| {
        let (at, issued) = asked[number];
        thread::sleep(at.saturating_sub(away.elapsed()));
        let began = away.elapsed();
        (began, ask(two, &issued.key), away.elapsed() - began)
    });
    let last = answers
        .iter()
        .filter(|(_, said, _)| *said == accepted())
        .map(|(began, ..)| *began)
        .max();
    let refused: Vec<_> = answers
        .iter()
        .filter(|(_, said, _)| *said != accepted())
        .collect();
    let took = |percent: usize| {
        let mut all: Vec<_> = refused.iter().map(|(.., took)| *took).collect();
        all.sort_unstable();
        all[(all.len() - 1) * percent / 100]
    };
    let (shortest, median, longest) = (took(0), took(50), took(100));
    println!(
        "{what}: a key in use was accepted until {last:.1?}; 503 came after {shortest:.1?}, \
         {median:.1?} (p50), {longest:.1?} (max)"
    );
    assert!(
        last.is_some_and(|last| last > SOON && last <= BOUND),
        "what is remembered counts for as long as it may"
    );
    assert!(
        refused.iter().all(|(_, said, _)| *said == unavailable),
        "{refused:?}"
    );
    assert!(longest <= LONGEST, "{longest:?}");
    assert_eq!(
        ask(one, &good.key),
        accepted(),
        "the other node sees nothing of it"
    );

    heal(&cluster.proxy);
    let healed = Instant::now();
    let (back, refusal) = thread::scope(|scope| {
        let back = scope.spawn(|| took_until(two, &good.key, &unavailable, &accepted(), healed));
        let refusal = scope.spawn(|| took_until(two, &gone.key, &unavailable, &revoked(), healed));
        (back.join().unwrap(), refusal.join().unwrap())
    });
    let (back, refusal) = (back.first_new, refusal.first_new);
    println!(
        "{what}: healed, a good key was accepted after {back:.1?}, one that was revoked meanwhile \
         refused after {refusal:.1?}"
    );
    cluster.assert_healed(what, healed);
    for issued in &never_used {
        assert_eq!(ask(two, &issued.key), accepted());
    }
}

#[test]
fn without_its_database_a_node_answers_503_and_afterwards_refuses_revoked_keys() {
    let (cluster, what) = (Cluster::start(), "away, and back as it was");
    away_for_a_moment(&cluster, what, Proxy::heal);
    away(&cluster, what, Proxy::heal);
}

#[test]
fn after_losing_all_connections_a_node_refuses_revoked_keys() {
    let (cluster, what) = (Cluster::start(), "away, and all connections lost");
    let heal = |proxy: &Proxy| proxy.fail_present(Failing::Reset, Which::All);
    away_for_a_moment(&cluster, what, heal);
    away(&cluster, what, heal);
}
