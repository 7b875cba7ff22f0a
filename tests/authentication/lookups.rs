//! The lookup budget: clients that often fail are slowed down, without affecting others. Time is
//! the fixture's clock, except while a request waits for a permit.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use portunus::AuthError;
use portunus::authenticator::Authenticated;
use portunus::key::{KeyDigest, KeyHasher, Owner};
use portunus::limit::LookupBudget;
use portunus::manage::NewKey;
use portunus::quota::{Quota, Quotas};
use portunus::store::{Cache, KeyLookup, LocalBus, MemoryStore, StoreError, StoredKey};
use portunus::{Authenticator, ErrorCode, Limits, Portunus};
use portunus_test_support::random::Random;
use portunus_test_support::{FIND, Fixture, Head, Setup, stranger, tenant};

const SECOND: Duration = Duration::from_secs(1);

/// A node in front of a store that must be awaited.
struct Node {
    fixture: Fixture,
    authenticator: Authenticator,
}

impl Node {
    fn new() -> Self {
        Self::with(LookupBudget::default())
    }

    fn with(budget: LookupBudget) -> Self {
        let fixture = Fixture::new();
        fixture.store.answer_late(1);
        Self::started(&fixture, budget)
    }

    /// A node that was just started and knows no key.
    fn started(fixture: &Fixture, budget: LookupBudget) -> Self {
        let cache = Cache::new()
            .bus(LocalBus::new())
            .around(fixture.store.clone(), fixture.clock.clone());
        let authenticator = Setup::on(cache)
            .bearer([portunus_test_support::format()])
            .clock(fixture.clock.clone())
            .lookup_budget(budget);
        Self {
            fixture: fixture.clone(),
            authenticator: authenticator.build().unwrap(),
        }
    }

    /// Without a bus, every cache entry is stale after two seconds.
    fn forgetful() -> Self {
        let fixture = Fixture::new();
        fixture.store.answer_late(1);
        let cache = Cache::new().around(fixture.store.clone(), fixture.clock.clone());
        let authenticator = Setup::on(cache)
            .bearer([portunus_test_support::format()])
            .clock(fixture.clock.clone());
        Self {
            authenticator: authenticator.build().unwrap(),
            fixture,
        }
    }

    async fn ask(&self, key: &str, ip: &str) -> Result<Authenticated, AuthError> {
        self.authenticator
            .authenticate(&Head::bearer(key).from(ip))
            .await
    }

    async fn code(&self, key: &str, ip: &str) -> &'static str {
        told(&self.ask(key, ip).await)
    }

    /// Retries as told by Retry-After; returns how long it took until the key passed.
    async fn passes_after(&self, key: &str, ip: &str) -> Duration {
        let mut waited = Duration::ZERO;
        while let Err(error) = self.ask(key, ip).await {
            assert_eq!(error.code(), ErrorCode::TooManyFailures);
            let wait = error.retry_after().unwrap();
            waited += wait;
            self.fixture.clock.advance(wait);
            assert!(waited < 60 * SECOND, "locked out");
        }
        waited
    }

    async fn issue(&self) -> String {
        self.fixture.issue(&[]).await.0
    }
}

fn told(outcome: &Result<Authenticated, AuthError>) -> &'static str {
    outcome
        .as_ref()
        .map_or_else(|error| error.code().as_str(), |_| "OK")
}

fn counted<'a>(codes: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for code in codes {
        *counts.entry(code).or_default() += 1;
    }
    counts
}

/// Starts all of them in order; none can be decided immediately.
fn begun<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<Pin<Box<F>>> {
    let mut begun: Vec<_> = futures.into_iter().map(Box::pin).collect();
    for one in &mut begun {
        assert!(one.now_or_never().is_none(), "decided without its lookup");
    }
    begun
}

/// Unknown keys, generated in advance, because generating one takes longer than refusing it.
fn strangers(count: usize) -> Vec<String> {
    (0..count).map(|_| stranger()).collect()
}

// ---- failures ----

#[tokio::test]
async fn a_flood_from_one_48_is_slowed_down_and_affects_no_other_network() {
    let node = Node::new();
    let mut asked = 0;
    for second in 0_u64..10 {
        let before = node.fixture.store.finds();
        for (number, key) in strangers(836).iter().enumerate() {
            let number = second * 836 + u64::try_from(number).unwrap();
            // A different /64 each time, and a different /56 every 256 times.
            let ip = format!("2001:db8:7:{:x}::1", number * 7 % 0x1_0000);
            node.code(key, &ip).await;
            if number % 200 == 0 {
                for elsewhere in ["192.0.2.1", "2001:db8:8::1", "2001:db9::1"] {
                    let key = node.issue().await;
                    assert_eq!(node.code(&key, elsewhere).await, "OK");
                    asked -= 1;
                }
            }
        }
        asked += i64::try_from(node.fixture.store.finds() - before).unwrap();
        node.fixture.clock.advance(SECOND);
    }
    // 1600 a minute, and four a second from then on.
    assert!((1_600..=1_600 + 4 * 10).contains(&asked), "{asked}");
}

#[tokio::test]
async fn each_prefix_of_ipv6_has_a_budget_of_its_own() {
    for (shape, most) in [
        ("2001:db8:0:0::", 100),
        ("2001:db8:0:", 400),
        ("2001:db8:0:x", 1_600),
    ] {
        let node = Node::new();
        let mut invalid = 0;
        for (number, key) in strangers(2_000).iter().enumerate() {
            let ip = match shape {
                "2001:db8:0:0::" => format!("2001:db8:0:0::{number:x}"),
                "2001:db8:0:" => format!("2001:db8:0:{:x}::1", number % 256),
                _ => format!("2001:db8:0:{:x}::1", number * 256 % 0x1_0000 + number / 256),
            };
            invalid += usize::from(node.code(key, &ip).await == "INVALID_KEY");
        }
        assert_eq!(invalid, most, "{shape}");
        assert_eq!(node.fixture.store.finds(), most + 4, "{shape}");
    }
}

#[tokio::test]
async fn a_neighbour_with_a_dead_key_at_two_a_second_locks_no_one_out_even_after_a_restart() {
    for same_key in [true, false] {
        let mut node = Node::new();
        let dead = strangers(601);
        for half_second in 0..600 {
            let key = &dead[if same_key { 600 } else { half_second }];
            assert_ne!(node.code(key, "192.0.2.1").await, "OK");
            if half_second % 20 == 0 {
                let real = node.issue().await;
                let waited = node.passes_after(&real, "192.0.2.1").await;
                assert!(waited <= 2 * SECOND, "{waited:?} at {half_second}");
                assert_eq!(node.code(&real, "192.0.2.1").await, "OK", "known");
            }
            if half_second == 300 {
                node = Node::started(&node.fixture, LookupBudget::default());
            }
            node.fixture.clock.advance(SECOND / 2);
        }
    }
}

#[tokio::test]
async fn after_a_restart_all_real_keys_behind_a_nat_pass_despite_a_flood() {
    let node = Node::new();
    for key in strangers(100) {
        node.code(&key, "192.0.2.1").await;
    }
    let mut left: Vec<String> = Vec::new();
    for _ in 0..10 {
        left.push(node.issue().await);
    }
    let mut seconds = 0;
    while !left.is_empty() {
        // The flood comes first in every second, but alternates with the real ones.
        let mut passed = Vec::new();
        for key in &left {
            if node.code(key, "192.0.2.1").await == "OK" {
                passed.push(key.clone());
            }
            for unknown in strangers(20) {
                node.code(&unknown, "192.0.2.1").await;
            }
        }
        left.retain(|key| !passed.contains(key));
        seconds += 1;
        assert!(seconds <= 10, "{} are locked out", left.len());
        node.fixture.clock.advance(SECOND + SECOND / 1000);
    }
}

#[tokio::test]
async fn keys_used_a_second_ago_pass_through_a_flood_from_their_own_address() {
    let node = Node::forgetful();
    let mut keys = Vec::new();
    for _ in 0..10 {
        keys.push(node.issue().await);
    }
    for key in &keys {
        assert_eq!(node.code(key, "192.0.2.1").await, "OK");
    }
    for round in 0..53 {
        // Stale, so that each is looked up again.
        node.fixture.clock.advance(3 * SECOND);
        for unknown in strangers(30) {
            assert_ne!(node.code(&unknown, "192.0.2.1").await, "OK");
        }
        let before = node.fixture.store.finds();
        for key in &keys {
            assert_eq!(node.code(key, "192.0.2.1").await, "OK", "round {round}");
        }
        assert_eq!(node.fixture.store.finds() - before, keys.len());
    }
}

#[tokio::test]
async fn a_key_that_was_deleted_is_known_no_more() {
    let mut budget = LookupBudget::default();
    budget.per_second_past_failures = 0;
    let fixture = Fixture::new();
    fixture.store.answer_late(1);
    let cache = Cache::new().around(fixture.store.clone(), fixture.clock.clone());
    let authenticator = Setup::on(cache.clone())
        .bearer([portunus_test_support::format()])
        .clock(fixture.clock.clone())
        .lookup_budget(budget);
    let node = Node {
        authenticator: authenticator.build().unwrap(),
        fixture,
    };
    let (key, record) = node.fixture.issue(&[]).await;
    assert_eq!(node.code(&key, "192.0.2.1").await, "OK");
    for unknown in strangers(100) {
        node.code(&unknown, "192.0.2.1").await;
    }
    node.fixture.manager().delete(&record.id).await.unwrap();
    node.fixture.clock.advance(3 * SECOND);
    // It is looked up at once, because it was known before.
    for looked_up in [1, 0, 0] {
        let before = node.fixture.store.finds();
        assert_eq!(node.code(&key, "192.0.2.1").await, "TOO_MANY_FAILURES");
        assert_eq!(node.fixture.store.finds() - before, looked_up);
        node.fixture.clock.advance(3 * SECOND);
    }
}

#[tokio::test]
async fn without_peer_addresses_failures_lock_no_one_out() {
    let node = Node::new();
    let ask = async |key: &str| {
        let asked = node.authenticator.authenticate(&Head::bearer(key));
        told(&asked.await)
    };
    for unknown in strangers(500) {
        assert_eq!(ask(&unknown).await, "INVALID_KEY");
    }
    for _ in 0..20 {
        assert_eq!(ask(&node.issue().await).await, "OK");
    }
}

#[tokio::test]
async fn without_a_failure_quota_only_lookups_in_flight_are_bounded() {
    let mut budget = LookupBudget::default();
    budget.failures = None;
    let node = Node::with(budget);
    for unknown in strangers(500) {
        assert_eq!(node.code(&unknown, "192.0.2.1").await, "INVALID_KEY");
    }
    node.fixture.store.hold(FIND);
    let before = node.fixture.store.finds();
    let keys = strangers(20);
    let asked = begun(keys.iter().map(|key| node.ask(key, "192.0.2.1")));
    assert_eq!(node.fixture.store.finds() - before, 16);
    node.fixture.store.release(FIND);
    let codes = join_all(asked).await;
    assert_eq!(counted(codes.iter().map(told))["INVALID_KEY"], 20);
}

// ---- lookups in flight ----

#[tokio::test]
async fn a_burst_of_a_thousand_unknown_keys_is_limited_like_a_flood() {
    let node = Node::new();
    let keys = strangers(1_000);
    let outcomes = join_all(keys.iter().map(|key| node.ask(key, "192.0.2.1"))).await;
    let codes = counted(outcomes.iter().map(told));
    let (invalid, refused) = (codes["INVALID_KEY"], codes["TOO_MANY_FAILURES"]);
    assert_eq!(invalid + refused, 1_000, "{codes:?}");
    assert_eq!(invalid, 100, "{codes:?}");
    // Plus those that were in flight at the hundredth failure, and four.
    let finds = node.fixture.store.finds();
    assert!((100..=100 + 15 + 4).contains(&finds), "{finds}");
}

#[tokio::test]
async fn one_address_has_at_most_sixteen_lookups_in_flight_and_does_not_block_others() {
    let node = Node::new();
    let keys = strangers(300);
    node.fixture.store.hold(FIND);
    let flood = begun(keys.iter().map(|key| node.ask(key, "192.0.2.1")));
    assert_eq!(node.fixture.store.finds(), 16);
    let (mut others, mut in_flight) = (Vec::new(), 16);
    for number in 0..60 {
        let key = stranger();
        let head = Head::bearer(&key).from(&format!("198.51.100.{number}"));
        others.extend(begun([node.authenticator.authenticate(&head)]));
        in_flight = (in_flight + 1).min(64);
        assert_eq!(node.fixture.store.finds(), in_flight);
    }
    node.fixture.store.release(FIND);
    let outcomes = join_all(others).await;
    assert_eq!(counted(outcomes.iter().map(told))["INVALID_KEY"], 60);
    drop(flood);
}

#[tokio::test]
async fn a_quarter_is_reserved_for_addresses_that_have_not_failed() {
    let node = Node::new();
    for number in 0..10 {
        node.code(&stranger(), &format!("192.0.2.{number}")).await;
    }
    let before = node.fixture.store.finds();
    node.fixture.store.hold(FIND);
    let keys = strangers(160);
    let flood = begun(keys.iter().enumerate().map(|(at, key)| {
        let head = Head::bearer(key).from(&format!("192.0.2.{}", at % 10));
        node.authenticator.authenticate(&head)
    }));
    assert_eq!(node.fixture.store.finds() - before, 48);
    // Requests without a known address count as those that failed.
    let unknown = begun([node.authenticator.authenticate(&Head::bearer(&stranger()))]);
    assert_eq!(node.fixture.store.finds() - before, 48);
    let key = node.issue().await;
    let clean = begun([node.ask(&key, "198.51.100.1")]);
    assert_eq!(node.fixture.store.finds() - before, 49, "it is in flight");
    node.fixture.store.release(FIND);
    assert_eq!(told(&join_all(clean).await[0]), "OK");
    drop((flood, unknown));
    // A minute later no failures count.
    node.fixture.clock.advance(61 * SECOND);
    node.fixture.store.hold(FIND);
    let before = node.fixture.store.finds();
    let keys = strangers(160);
    let _flood = begun(keys.iter().enumerate().map(|(at, key)| {
        let head = Head::bearer(key).from(&format!("192.0.2.{}", at % 10));
        node.authenticator.authenticate(&head)
    }));
    assert_eq!(node.fixture.store.finds() - before, 64);
}

#[tokio::test]
async fn a_request_that_gets_no_permit_is_told_to_retry() {
    let mut budget = LookupBudget::default();
    budget.longest_wait = Duration::from_millis(30);
    let node = Node::with(budget);
    let keys = strangers(40);
    node.fixture.store.hold(FIND);
    let mut waiting = begun(keys.iter().map(|key| node.ask(key, "192.0.2.1")));
    let in_flight: Vec<_> = waiting.drain(..16).collect();
    for outcome in join_all(waiting).await {
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.code(), error.status(), error.retry_after()),
            (ErrorCode::StoreUnavailable, 503, Some(SECOND))
        );
    }
    node.fixture.store.release(FIND);
    let outcomes = join_all(in_flight).await;
    assert_eq!(counted(outcomes.iter().map(told))["INVALID_KEY"], 16);
}

#[tokio::test]
async fn a_known_key_is_looked_up_regardless_of_lookups_in_flight() {
    let node = Node::forgetful();
    let key = node.issue().await;
    assert_eq!(node.code(&key, "192.0.2.1").await, "OK");
    node.fixture.clock.advance(3 * SECOND);
    node.fixture.store.hold(FIND);
    let keys = strangers(100);
    let flood = begun(keys.iter().enumerate().map(|(at, key)| {
        let head = Head::bearer(key).from(&format!("192.0.2.{}", at % 10));
        node.authenticator.authenticate(&head)
    }));
    let in_flight = node.fixture.store.finds() - 1;
    assert_eq!(in_flight, 64);
    let known = begun([node.ask(&key, "192.0.2.1")]);
    assert_eq!(node.fixture.store.finds() - 1, 65);
    node.fixture.store.release(FIND);
    assert_eq!(told(&join_all(known).await[0]), "OK");
    drop(flood);
}

#[tokio::test]
async fn permits_are_granted_in_order_and_dropped_requests_release_theirs() {
    let node = Node::new();
    let mut random = Random(7);
    for round in 0..30 {
        node.fixture.store.hold(FIND);
        let keys = strangers(120);
        let asked = keys.iter().enumerate().map(|(at, key)| {
            let head = Head::bearer(key).from(&format!("198.51.{round}.{}", at % 11));
            Box::pin(node.authenticator.authenticate(&head))
        });
        let mut asked: Vec<_> = asked.map(Some).collect();
        let before = node.fixture.store.finds();
        // Some are dropped before they are polled, some in the queue, some in flight.
        for _ in 0..200 {
            let one = random.index(asked.len());
            match (random.below(3), &mut asked[one]) {
                (0, one) => drop(one.take()),
                (_, Some(one)) => assert!(one.now_or_never().is_none()),
                (_, None) => {}
            }
        }
        assert!(node.fixture.store.finds() - before > 0);
        if round % 2 == 0 {
            drop(asked);
            node.fixture.store.release(FIND);
        } else {
            node.fixture.store.release(FIND);
            let left = asked.into_iter().flatten();
            for outcome in join_all(left).await {
                assert_eq!(told(&outcome), "INVALID_KEY");
            }
        }
        // All permits are free again.
        node.fixture.store.hold(FIND);
        let before = node.fixture.store.finds();
        let keys = strangers(80);
        let _all = begun(keys.iter().enumerate().map(|(at, key)| {
            let head = Head::bearer(key).from(&format!("203.0.{round}.{at}"));
            node.authenticator.authenticate(&head)
        }));
        assert_eq!(node.fixture.store.finds() - before, 64, "round {round}");
        node.fixture.store.release(FIND);
    }
}

#[tokio::test]
async fn a_thousand_requests_with_one_uncached_real_key_all_pass() {
    let node = Node::new();
    let key = node.issue().await;
    for address in [Some("192.0.2.1"), None] {
        let node = Node::started(&node.fixture, LookupBudget::default());
        let head = match address {
            Some(ip) => Head::bearer(&key).from(ip),
            None => Head::bearer(&key),
        };
        let outcomes = join_all((0..1_000).map(|_| node.authenticator.authenticate(&head))).await;
        assert_eq!(counted(outcomes.iter().map(told)), [("OK", 1_000)].into());
    }
}

#[tokio::test]
async fn a_synchronous_store_is_always_queried() {
    let mut budget = LookupBudget::default();
    budget.in_flight = 1;
    let fixture = Fixture::new();
    let node = fixture.bearer().lookup_budget(budget).build().unwrap();
    let ask = async |key: &str| {
        let head = Head::bearer(key).from("192.0.2.1");
        told(&node.authenticate(&head).await)
    };
    for unknown in strangers(100) {
        assert_eq!(ask(&unknown).await, "INVALID_KEY");
    }
    for _ in 0..50 {
        let (key, _) = fixture.issue(&[]).await;
        assert_eq!(ask(&stranger()).await, "TOO_MANY_FAILURES");
        assert_eq!(ask(&key).await, "OK");
    }
}

/// A host's own lookup that must be awaited, and knows one key already.
#[derive(Debug)]
struct Remembers {
    store: MemoryStore,
    known: KeyDigest,
}

#[async_trait]
impl KeyLookup for Remembers {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.store.find(digests).await
    }

    fn knows(&self, digests: &[KeyDigest]) -> bool {
        digests.contains(&self.known)
    }
}

#[tokio::test]
async fn keys_known_to_the_hosts_lookup_are_queried_despite_failures_of_neighbours() {
    let format = portunus_test_support::format();
    let store = MemoryStore::new();
    let issuing = Portunus::builder(format.clone()).store(store.clone());
    let issuing = issuing.build().unwrap();
    let mut keys = Vec::new();
    for name in ["known", "new"] {
        let new = NewKey::new(name, Owner::tenant(tenant("acme")));
        keys.push(issuing.manager().issue(new).await.unwrap().key.reveal());
    }
    let known = KeyHasher::sha256().digest(&keys[0]);
    let mut budget = LookupBudget::default();
    budget.failures = Quotas::new([Quota::per_minute(1).unwrap()]).ok();
    budget.per_second_past_failures = 0;
    let service = Portunus::builder(format)
        .lookup(Remembers { store, known })
        .cache(Cache::none())
        .limits(Limits::none().lookups(budget))
        .build()
        .unwrap();
    let ask = async |key: &str| {
        let head = Head::bearer(key).from("192.0.2.1");
        told(&service.authenticator().authenticate(&head).await)
    };
    assert_eq!(ask(&stranger()).await, "INVALID_KEY");
    assert_eq!(ask(&keys[1]).await, "TOO_MANY_FAILURES");
    assert_eq!(ask(&keys[0]).await, "OK");
}
