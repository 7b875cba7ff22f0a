//! Several caches on one store: what one node writes is effective on the others at once while they
//! receive invalidations, and within the bound on staleness while they do not.
//!
//! The bus in these tests is driven manually: it holds back, loses or delivers published messages,
//! and reports to be connected on demand.

use portunus::store::KeyLookup;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portunus::audit::{AuditOutcome, AuditTrail, MemoryAudit};
use portunus::key::{KeyDigest, KeyRecord, Owner, Revocation};
use portunus::manage::{ImportedDigest, KeyChange, ManageError, NewImport, NewKey};
use portunus::network::AllowList;
use portunus::store::{
    BusError, Cache, CachedStore, Change, Invalidation, InvalidationBus, InvalidationListener,
    KeyStore, LocalBus, MemoryStore, WriteBatch,
};
use portunus::testing::ManualClock;
use portunus_test_support::gated::{begin, digest, insert, is_active, record, revoke, soon};
use portunus_test_support::{Behind, Setup, scope, tenant};
use proptest::prelude::*;
use tokio::sync::watch;

const BOUND: Duration = Duration::from_secs(2);
const MILLISECOND: Duration = Duration::from_millis(1);

// ---- a manually driven bus ----

/// One node's connection to the bus.
#[derive(Clone, Default)]
struct Link(Arc<Wire>);

#[derive(Default)]
struct Wire {
    hub: Mutex<Vec<Link>>,
    listener: Mutex<Option<Weak<dyn InvalidationListener>>>,
    /// Not received by anyone until it is delivered.
    waiting: Mutex<Vec<Invalidation>>,
    /// Everything that was published here.
    published: Mutex<Vec<Invalidation>>,
    broken: AtomicBool,
    attempts: AtomicUsize,
    /// Publishing does not return while this is true.
    held: watch::Sender<bool>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    /// The connections of two nodes.
    fn two() -> (Self, Self) {
        let (one, other) = (Self::default(), Self::default());
        for link in [&one, &other] {
            *link.0.hub.lock().unwrap() = vec![one.clone(), other.clone()];
        }
        (one, other)
    }
    fn listener(&self) -> Arc<dyn InvalidationListener> {
        self.0
            .listener
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .upgrade()
            .unwrap()
    }
    /// Delivers pending messages in order.
    fn deliver(&self) {
        let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap());
        waiting
            .iter()
            .for_each(|what| self.listener().invalidated(what));
    }
    fn lose(&self) {
        self.0.waiting.lock().unwrap().clear();
    }
    /// Reports that the node's own message came back after this time.
    fn beat(&self, age: Duration) {
        self.deliver();
        self.listener()
            .caught_up(Instant::now().checked_sub(age).unwrap());
    }
    fn break_down(&self, broken: bool) {
        self.0.broken.store(broken, Ordering::SeqCst);
    }
    fn hold_returns(&self, hold: bool) {
        self.0.held.send_replace(hold);
    }
}

#[async_trait]
impl InvalidationBus for Link {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        *self.0.listener.lock().unwrap() = Some(listener);
    }
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        self.0.attempts.fetch_add(1, Ordering::SeqCst);
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(BusError::unavailable("the broker is gone"));
        }
        self.0.published.lock().unwrap().push(what.clone());
        for link in self.0.hub.lock().unwrap().iter() {
            link.0.waiting.lock().unwrap().push(what.clone());
        }
        self.0
            .held
            .subscribe()
            .wait_for(|held| !*held)
            .await
            .unwrap();
        Ok(())
    }
}

/// Two nodes on one store and one bus, and another process that writes without publishing.
struct Nodes {
    clock: ManualClock,
    store: MemoryStore,
    one: CachedStore,
    other: CachedStore,
    link: Link,
    others: Link,
}

impl Nodes {
    fn new() -> Self {
        let (clock, store, (link, others)) = (ManualClock::new(), MemoryStore::new(), Link::two());
        let node = |bus: &Link| {
            Cache::new()
                .bus(bus.clone())
                .around(store.clone(), Behind(clock.clone()))
        };
        let (one, other) = (node(&link), node(&others));
        Self {
            clock,
            store,
            one,
            other,
            link,
            others,
        }
    }
    fn beat(&self) {
        self.link.beat(Duration::ZERO);
        self.others.beat(Duration::ZERO);
    }
}

fn local_nodes(store: &MemoryStore, clock: &ManualClock) -> (CachedStore, CachedStore) {
    let bus = LocalBus::new();
    let node = || {
        Cache::new()
            .bus(bus.clone())
            .around(store.clone(), clock.clone())
    };
    (node(), node())
}

// ---- while invalidations arrive ----

#[tokio::test]
async fn every_change_of_a_key_is_effective_for_the_next_request_on_every_node_of_a_process() {
    let (store, clock) = (MemoryStore::new(), ManualClock::new());
    let (one, other) = local_nodes(&store, &clock);
    one.apply(&insert(1)).await.unwrap();
    type Narrow = fn(&mut KeyRecord);
    let changes: [Narrow; 9] = [
        |record| record.scopes = vec![scope("document:read")],
        |record| record.enabled = false,
        |record| record.enabled = true,
        |record| record.allowed_ips = Some(AllowList::parse(["192.0.2.0/24"]).unwrap()),
        |record| record.allowed_ips = None,
        |record| record.expires_at = Some(record.created_at),
        |record| record.expires_at = None,
        |record| record.plan = Some(portunus::key::PlanName::new("free").unwrap()),
        |record| record.revoked = Some(Revocation::new(record.created_at, None)),
    ];
    for change in changes {
        for node in [&one, &other] {
            assert!(node.find(&[digest(1)]).await.unwrap().is_some());
            assert!(node.find_now(&[digest(1)]).is_some(), "remembered");
        }
        let mut changed = (*store.get(&record(1).id).await.unwrap().unwrap()).clone();
        change(&mut changed);
        one.apply(&WriteBatch::new().update(changed.clone()))
            .await
            .unwrap();
        changed.version += 1;
        for node in [&one, &other] {
            assert_eq!(
                **node.find(&[digest(1)]).await.unwrap().unwrap().record(),
                changed
            );
        }
    }
    one.apply(&WriteBatch::new().change(Change::Delete(record(1).id)))
        .await
        .unwrap();
    assert_eq!(
        (is_active(&one, 1).await, is_active(&other, 1).await),
        (None, None)
    );
}

#[tokio::test]
async fn a_key_that_was_unknown_works_everywhere_as_soon_as_it_is_issued() {
    let (store, clock) = (MemoryStore::new(), ManualClock::new());
    let (one, other) = local_nodes(&store, &clock);
    assert_eq!(
        (is_active(&one, 1).await, is_active(&other, 1).await),
        (None, None)
    );
    assert!(
        other.find_now(&[digest(1)]).unwrap().unwrap().is_none(),
        "remembered"
    );
    one.apply(&insert(1)).await.unwrap();
    assert_eq!(
        (is_active(&one, 1).await, is_active(&other, 1).await),
        (Some(true), Some(true))
    );
}

#[tokio::test]
async fn a_bus_within_the_process_is_healthy_for_good_and_answers_live_their_time() {
    let (store, clock) = (MemoryStore::new(), ManualClock::new());
    let (one, _) = local_nodes(&store, &clock);
    clock.advance(Duration::from_secs(86_400));
    assert!(one.is_healthy());
    one.apply(&insert(1)).await.unwrap();
    is_active(&one, 1).await;
    clock.advance(Duration::from_secs(60) - MILLISECOND);
    assert!(one.find_now(&[digest(1)]).is_some());
    clock.advance(MILLISECOND);
    assert!(one.find_now(&[digest(1)]).is_none());
    let wrapped: Arc<Box<dyn InvalidationBus>> = Arc::new(Box::new(LocalBus::new()));
    assert!(wrapped.is_lossless());
}

/// A bus on which nobody learns of the writes of a node that was killed.
#[derive(Debug)]
struct AfterTheWrite(LocalBus);

#[async_trait]
impl InvalidationBus for AfterTheWrite {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.0.subscribe(listener);
    }
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        self.0.publish(what).await
    }
}

#[tokio::test]
async fn where_a_killed_node_may_have_told_nobody_answers_live_as_long_as_the_bound() {
    let (store, clock) = (MemoryStore::new(), ManualClock::new());
    let bus: Arc<Box<dyn InvalidationBus>> = Arc::new(Box::new(AfterTheWrite(LocalBus::new())));
    let node = Cache::new().bus(bus).around(store.clone(), clock.clone());
    store.apply(&insert(1)).await.unwrap();
    assert_eq!(is_active(&node, 1).await, Some(true));
    // The other node was killed between this and its publication.
    store.apply(&revoke(1)).await.unwrap();
    assert!(node.is_healthy());
    clock.advance(BOUND - MILLISECOND);
    assert_eq!(is_active(&node, 1).await, Some(true));
    clock.advance(MILLISECOND);
    assert_eq!(is_active(&node, 1).await, Some(false));
}

#[tokio::test]
async fn a_bus_across_processes_notifies_both_nodes() {
    let nodes = Nodes::new();
    nodes.beat();
    nodes.one.apply(&insert(1)).await.unwrap();
    is_active(&nodes.other, 1).await;
    nodes.one.apply(&revoke(1)).await.unwrap();
    assert_eq!(
        is_active(&nodes.one, 1).await,
        Some(false),
        "without hearing it back"
    );
    nodes.others.deliver();
    assert_eq!(is_active(&nodes.other, 1).await, Some(false));
}

// ---- while they do not ----

#[tokio::test]
async fn without_a_bus_every_answer_lives_as_long_as_the_bound_and_no_longer() {
    let (store, clock) = (MemoryStore::new(), ManualClock::new());
    let node = Cache::new()
        .staleness(Duration::from_secs(5))
        .around(store.clone(), Behind(clock.clone()));
    store.apply(&insert(1)).await.unwrap();
    assert_eq!(
        (
            is_active(&node, 1).await,
            is_active(&node, 2).await,
            node.is_healthy()
        ),
        (Some(true), None, false)
    );
    store.apply(&revoke(1)).await.unwrap();
    store.apply(&insert(2)).await.unwrap();
    clock.advance(Duration::from_secs(5) - MILLISECOND);
    assert_eq!(
        (is_active(&node, 1).await, is_active(&node, 2).await),
        (Some(true), None)
    );
    clock.advance(MILLISECOND);
    assert_eq!(
        (is_active(&node, 1).await, is_active(&node, 2).await),
        (Some(false), Some(true))
    );
}

#[tokio::test]
async fn whenever_the_bus_dies_a_revocation_holds_everywhere_within_the_bound() {
    // In steps of 100 ms: the key is looked up, the bus is last heard from (with messages that are
    // `age` old), the key is revoked.
    let steps = |count: u32| (0..=count).map(|step| Duration::from_millis(100) * step);
    for (until_heard, until_revoked) in steps(25).flat_map(|a| steps(25).map(move |b| (a, b))) {
        for (age, looked_up_again) in [(0, false), (0, true), (700, true), (5000, false)] {
            let nodes = Nodes::new();
            nodes.store.apply(&insert(1)).await.unwrap();
            nodes.beat();
            is_active(&nodes.other, 1).await;
            nodes.clock.advance(until_heard);
            nodes
                .others
                .beat(Duration::from_millis(age).min(until_revoked));
            nodes.clock.advance(until_revoked);
            if looked_up_again {
                is_active(&nodes.other, 1).await;
            }
            nodes.one.apply(&revoke(1)).await.unwrap();
            nodes.others.lose();
            nodes.clock.advance(BOUND);
            let case = (until_heard, until_revoked, age, looked_up_again);
            assert_eq!(is_active(&nodes.other, 1).await, Some(false), "{case:?}");
        }
    }
}

#[tokio::test]
async fn news_that_are_older_than_the_bound_prove_nothing() {
    let nodes = Nodes::new();
    assert!(!nodes.other.is_healthy(), "nothing was heard yet");
    for (age, healthy) in [
        (BOUND, false),
        (BOUND * 100, false),
        (BOUND / 2, true),
        (BOUND, true),
    ] {
        nodes.others.beat(age);
        assert_eq!(nodes.other.is_healthy(), healthy, "{age:?}");
    }
    nodes.clock.advance(BOUND / 2);
    assert!(
        !nodes.other.is_healthy(),
        "an older proof does not prolong a newer one"
    );
}

#[tokio::test]
async fn reconnecting_drops_entries_cached_while_disconnected() {
    let nodes = Nodes::new();
    nodes.beat();
    nodes.store.apply(&insert(1)).await.unwrap();
    assert_eq!(
        (
            is_active(&nodes.other, 1).await,
            is_active(&nodes.other, 2).await
        ),
        (Some(true), None)
    );
    nodes.one.apply(&revoke(1)).await.unwrap();
    nodes.one.apply(&insert(2)).await.unwrap();
    nodes.others.lose();
    nodes
        .others
        .listener()
        .invalidated(&Invalidation::everything());
    nodes.others.beat(Duration::ZERO);
    assert_eq!(
        (
            is_active(&nodes.other, 1).await,
            is_active(&nodes.other, 2).await
        ),
        (Some(false), Some(true))
    );
}

#[tokio::test]
async fn a_bound_without_an_end_is_a_bound() {
    let (clock, link) = (ManualClock::new(), Link::default());
    let node = Cache::new()
        .bus(link.clone())
        .staleness(Duration::MAX)
        .time_to_live(Duration::MAX)
        .around(MemoryStore::new(), clock.clone());
    link.listener().caught_up(Instant::now());
    assert!(node.is_healthy());
    node.apply(&insert(1)).await.unwrap();
    is_active(&node, 1).await;
    clock.advance(Duration::from_secs(1 << 40));
    assert!(node.find_now(&[digest(1)]).is_some());
}

#[tokio::test]
async fn where_nothing_may_be_stale_nothing_is_remembered_unless_the_bus_is_healthy() {
    let clock = ManualClock::new();
    let node = |cache: Cache| {
        let cache = cache.staleness(Duration::ZERO);
        cache.around(MemoryStore::new(), clock.clone())
    };
    let (deaf, hearing) = (node(Cache::new()), node(Cache::new().bus(LocalBus::new())));
    for (store, remembers) in [(&deaf, false), (&hearing, true)] {
        store.apply(&insert(1)).await.unwrap();
        assert_eq!(
            (is_active(store, 1).await, is_active(store, 2).await),
            (Some(true), None)
        );
        assert_eq!(store.find_now(&[digest(1)]).is_some(), remembers);
        assert_eq!(store.find_now(&[digest(2)]).is_some(), remembers);
    }
}

// ---- publishing ----

#[tokio::test]
async fn a_failed_publication_is_an_error_and_is_published_later_in_order() {
    let nodes = Nodes::new();
    nodes.beat();
    for number in 1..=3 {
        nodes.store.apply(&insert(number)).await.unwrap();
        is_active(&nodes.other, number).await;
    }
    nodes.link.break_down(true);
    for number in [2, 1] {
        let error = nodes.one.apply(&revoke(number)).await.unwrap_err();
        assert!(error.as_rejected().is_none() && !error.is_corrupt());
        assert_eq!(
            is_active(&nodes.one, number).await,
            Some(false),
            "this node knows all the same"
        );
    }
    assert!(nodes.one.publish_outbox().await.is_err());
    nodes.link.break_down(false);
    nodes.one.apply(&revoke(3)).await.unwrap();
    let told: Vec<_> = nodes
        .link
        .0
        .published
        .lock()
        .unwrap()
        .iter()
        .map(|what| what.keys[0].clone())
        .collect();
    assert_eq!(told, [2, 1, 3].map(|number| record(number).id));
    nodes.others.deliver();
    for number in 1..=3 {
        assert_eq!(is_active(&nodes.other, number).await, Some(false));
    }
    nodes.one.publish_outbox().await.unwrap();
    assert_eq!(
        nodes.link.0.published.lock().unwrap().len(),
        3,
        "nothing is published twice"
    );
}

#[tokio::test]
async fn every_write_publishes_pending_changes_even_if_it_changes_no_key_or_is_rejected() {
    let nodes = Nodes::new();
    nodes.one.apply(&insert(1)).await.unwrap();
    nodes.link.break_down(true);
    nodes.one.apply(&revoke(1)).await.unwrap_err();
    for batch in [WriteBatch::new(), revoke(1)] {
        let before = nodes.link.0.attempts.load(Ordering::SeqCst);
        let _ = nodes.one.apply(&batch).await;
        assert_eq!(
            nodes.link.0.attempts.load(Ordering::SeqCst),
            before + 1,
            "{batch:?}"
        );
    }
}

#[tokio::test]
async fn a_dropped_publication_is_repeated() {
    let nodes = Nodes::new();
    nodes.beat();
    nodes.one.apply(&insert(1)).await.unwrap();
    is_active(&nodes.other, 1).await;
    nodes.link.hold_returns(true);
    drop(begin(nodes.one.apply(&revoke(1))));
    nodes.others.lose();
    nodes.link.hold_returns(false);
    nodes.one.publish_outbox().await.unwrap();
    nodes.others.deliver();
    assert_eq!(is_active(&nodes.other, 1).await, Some(false));
}

#[tokio::test]
async fn each_of_two_equal_changes_is_published_after_it_was_made() {
    let nodes = Nodes::new();
    nodes.beat();
    nodes.one.apply(&insert(1)).await.unwrap();
    // A first change is being published, by its writer and by another call.
    let mut disabled = record(1);
    disabled.enabled = false;
    nodes.link.hold_returns(true);
    let disable = WriteBatch::new().update(disabled.clone());
    let first = begin(nodes.one.apply(&disable));
    let passing = begin(nodes.one.publish_outbox());
    nodes.link.hold_returns(false);
    first.await.unwrap();
    nodes.others.deliver();
    assert_eq!(
        is_active(&nodes.other, 1).await,
        Some(true),
        "it is disabled, not revoked"
    );
    // While another key's change is being published, the first key is changed again; only now does
    // the second publication of its first change end.
    nodes.link.hold_returns(true);
    let elsewhere = insert(2);
    let beside = begin(nodes.one.apply(&elsewhere));
    disabled.version = 2;
    disabled.revoked = Some(Revocation::new(disabled.created_at, None));
    let revoke = WriteBatch::new().update(disabled);
    let second = begin(nodes.one.apply(&revoke));
    nodes.link.hold_returns(false);
    soon(passing).await.unwrap();
    soon(second).await.unwrap();
    soon(beside).await.unwrap();
    nodes.others.deliver();
    assert_eq!(is_active(&nodes.other, 1).await, Some(false));
}

#[tokio::test]
async fn a_revocation_that_is_acknowledged_after_the_bus_failed_holds_everywhere_within_the_bound()
{
    let nodes = Nodes::new();
    nodes.beat();
    nodes.one.apply(&insert(1)).await.unwrap();
    is_active(&nodes.other, 1).await;
    let manager = Setup::on(nodes.one.clone())
        .bearer([portunus_test_support::format()])
        .environments([portunus_test_support::live()]);
    let manager = manager.clock(nodes.clock.clone()).manager();
    nodes.link.break_down(true);
    assert!(manager.revoke(&record(1).id, None).await.is_err());
    nodes.link.break_down(false);
    // The retry reports that the key is revoked.
    assert!(
        manager
            .revoke(&record(1).id, None)
            .await
            .unwrap()
            .record
            .revoked
            .is_some()
    );
    for _ in 0..20 {
        nodes.clock.advance(BOUND / 20);
        nodes.beat();
    }
    assert_eq!(is_active(&nodes.other, 1).await, Some(false));
}

// ---- any order of events ----

/// Possible events, for key `0..4` and node 0 or 1.
#[derive(Debug, Clone)]
enum Step {
    Issue(u64),
    Change(u64, u8),
    Delete(u64),
    Rehash(u64, u64),
    Find(usize, Vec<u64>),
    Wait(u64),
    Clear(usize),
}

/// The digests of a secret: mostly one of a few lists, so that queries repeat.
fn list() -> impl Strategy<Value = Vec<u64>> {
    const FEW: [&[u64]; 5] = [&[0, 1, 2], &[2, 1], &[1, 3, 0], &[3, 4, 2], &[0]];
    prop_oneof![
        2 => prop::sample::select(&FEW[..]).prop_map(<[u64]>::to_vec),
        1 => prop::collection::vec(0..8_u64, 1..4),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..4_u64;
    prop_oneof![
        2 => key.clone().prop_map(Step::Issue),
        4 => (key.clone(), 0..4_u8).prop_map(|(key, what)| Step::Change(key, what)),
        1 => key.clone().prop_map(Step::Delete),
        2 => (key, 0..8_u64).prop_map(|(key, to)| Step::Rehash(key, to)),
        8 => (0..2_usize, list()).prop_map(|(node, list)| Step::Find(node, list)),
        1 => (0..90_000_u64).prop_map(Step::Wait),
        1 => (0..2_usize).prop_map(Step::Clear),
    ]
}

#[tokio::test]
async fn a_miss_of_several_digests_ends_when_one_of_them_changes_although_others_are_known() {
    let (store, clock) = (MemoryStore::new(), ManualClock::new());
    let (node, _) = local_nodes(&store, &clock);
    let insert = |key: u64, of: &str| {
        let mut record = record(key);
        record.owner = Owner::tenant(tenant(of));
        Change::Insert {
            digest: digest(key),
            record: Box::new(record),
        }
    };
    let id = |key: u64| record(key).id;
    for change in [
        insert(3, "another"),
        insert(0, "acme"),
        Change::Delete(id(0)),
        insert(1, "acme"),
    ] {
        node.apply(&WriteBatch::new().change(change)).await.unwrap();
    }
    // The first digest is a key's whose tenant has ended the secret.
    let all = [1, 3, 0].map(digest);
    assert!(node.find(&all).await.unwrap().is_none());
    let change = Change::Rehash {
        id: id(1),
        from: digest(1),
        to: digest(4),
    };
    node.apply(&WriteBatch::new().change(change)).await.unwrap();
    assert!(node.find(&all[..1]).await.unwrap().is_none());
    let found = node.find(&all).await.unwrap().expect("the other tenant's");
    assert_eq!(found.record().id, id(3));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_every_write_every_node_answers_as_the_bare_store_does(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, clock) = (MemoryStore::new(), ManualClock::new());
            let (one, other) = local_nodes(&store, &clock);
            let nodes = [&one, &other];
            let mut digests: [KeyDigest; 4] = std::array::from_fn(|key| digest(key as u64));
            for (number, step) in steps.iter().enumerate() {
                let by = nodes[number % 2];
                match step {
                    Step::Issue(key) => {
                        let mut record = record(*key);
                        if *key == 3 {
                            record.owner = Owner::tenant(tenant("another"));
                        }
                        let (digest, record) = (digest(*key), Box::new(record));
                        let change = Change::Insert { digest, record };
                        drop(by.apply(&WriteBatch::new().change(change)).await);
                    }
                    Step::Change(key, what) => {
                        let Some(listed) = store.get(&record(*key).id).await.unwrap() else { continue };
                        let mut changed = (*listed).clone();
                        match what {
                            0 => changed.enabled = !changed.enabled,
                            1 => changed.scopes.push(scope("document:read")),
                            2 => changed.revoked = Some(Revocation::new(changed.created_at, None)),
                            _ => changed.version = 99, // and is rejected
                        }
                        let _ = by.apply(&WriteBatch::new().update(changed)).await;
                    }
                    Step::Delete(key) => {
                        let change = Change::Delete(record(*key).id);
                        drop(by.apply(&WriteBatch::new().change(change)).await);
                    }
                    Step::Rehash(key, to) => {
                        let place = usize::try_from(*key).unwrap();
                        let (from, to) = (digests[place], digest(*to));
                        let change = Change::Rehash { id: record(*key).id, from, to };
                        if by.apply(&WriteBatch::new().change(change)).await.is_ok() {
                            digests[place] = to;
                        }
                    }
                    Step::Find(node, list) => {
                        let list: Vec<_> = list.iter().map(|number| digest(*number)).collect();
                        let told = |found: Option<Arc<portunus::store::StoredKey>>| {
                            found.map(|stored| (*stored.digest(), stored.record().clone()))
                        };
                        let expected = told(store.find(&list).await.unwrap());
                        let found = told(nodes[*node].find(&list).await.unwrap());
                        assert_eq!(found, expected, "step {number} of {steps:?}");
                    }
                    Step::Wait(milliseconds) => clock.advance(Duration::from_millis(*milliseconds)),
                    Step::Clear(node) => nodes[*node].clear(),
                }
            }
        });
    }
}

// ---- applied, and not yet published ----

#[tokio::test]
async fn a_bus_that_is_down_makes_no_issue_import_or_rotation_fail() {
    let nodes = Nodes::new();
    let log = MemoryAudit::new(100);
    let trail = AuditTrail::new([log.clone()]);
    let manager = Setup::on(nodes.one.clone())
        .bearer([portunus_test_support::format()])
        .environments([portunus_test_support::live()])
        .audit(trail.clone());
    let manager = manager.clock(nodes.clock.clone()).manager();
    let new = || NewKey::new("a key", Owner::tenant(tenant("acme")));
    nodes.link.break_down(true);
    let issued = manager.issue(new()).await.unwrap();
    let digest = ImportedDigest::new("sha256", &[7; 32]).unwrap();
    let imported = manager.import(NewImport::new(digest, new())).await.unwrap();
    let rotated = manager.rotate(&issued.record.id, None).await.unwrap();
    assert!(rotated.old.revoked.is_some());
    let id = rotated.record.id.clone();
    manager.make_primary(&id).await.unwrap();
    // A change that does not restrict the key succeeds.
    let mut wider = KeyChange::new();
    wider.name = Some("another name".into());
    wider.scopes = Some(vec![scope("document:read")]);
    manager.update(&id, wider, None).await.unwrap();
    // A change that restricts the key succeeds too, and reports that other nodes are not up to date
    // yet.
    let mut narrower = KeyChange::new();
    narrower.scopes = Some(Vec::new());
    let mut results = vec![manager.update(&id, narrower, None).await.map(drop)];
    results.push(manager.disable(&id).await.map(drop));
    manager.enable(&id).await.unwrap();
    results.push(manager.revoke(&id, None).await.map(drop));
    results.push(manager.revoke(&id, None).await.map(drop));
    results.push(manager.delete(&id).await);
    results.push(manager.delete(&imported.record.id).await);
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, ManageError::NotPublished(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the change was applied, but is not published to other nodes yet; they will see it \
             within 2 seconds"
        );
    }
    assert!(nodes.store.get(&id).await.unwrap().is_none(), "it was done");
    trail.flush().await.unwrap();
    let outcomes = log.all().into_iter().map(|event| event.outcome);
    let outcomes: Vec<_> = outcomes.collect();
    assert_eq!(outcomes, vec![AuditOutcome::Ok; outcomes.len()]);
    assert_eq!(outcomes.len(), 12);
    // As soon as the bus works, the same call publishes all of it.
    nodes.link.break_down(false);
    nodes.one.publish_outbox().await.unwrap();
}

#[tokio::test]
async fn a_bus_that_hangs_makes_no_write_wait_for_ever() {
    let nodes = Nodes::new();
    nodes.link.hold_returns(true);
    let began = std::time::Instant::now();
    let error = nodes.one.apply(&insert(1)).await.unwrap_err();
    assert!(error.is_not_published(), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(is_active(&nodes.one, 1).await, Some(true));
}

#[tokio::test]
async fn the_outbox_is_bounded_and_overflows_to_a_full_invalidation() {
    let nodes = Nodes::new();
    nodes.link.break_down(true);
    for number in 0..1500 {
        nodes.one.apply(&insert(number)).await.unwrap_err();
    }
    nodes.link.break_down(false);
    nodes.one.publish_outbox().await.unwrap();
    let published = nodes.link.0.published.lock().unwrap();
    assert!(
        published.len() <= 1000 && published[0].everything,
        "{}",
        published.len()
    );
}
