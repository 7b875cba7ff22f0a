//! Accounts of which much is used: an event for each threshold, once after each grant and each
//! refill, on any number of nodes.

use std::sync::Arc;
use std::time::Duration;

use portunus::audit::{Action, AuditEvent, AuditTrail, MemoryAudit};
use portunus::config::Limits;
use portunus::credit::{CreditAccount, CreditAccounts, Credits, NewGrant, Period};
use portunus::key::{KeyFamily, KeyId, Owner};
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus::{Clock, Portunus, PortunusBuilder};
use portunus_test_support::credits::FaultyCredits;
use portunus_test_support::{Head, format, tenant, user};

use crate::desk::{Remote, names};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Several nodes on one store, of which each spends from blocks of 10.
struct Nodes {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    bank: FaultyCredits,
    log: MemoryAudit,
    secret: String,
    nodes: Vec<Portunus>,
}

fn account() -> CreditAccount {
    CreditAccount::Tenant(tenant("acme"))
}

impl Nodes {
    async fn new(number: usize) -> Self {
        Self::with(number, Credits::per_tenant, |credits| credits).await
    }

    async fn with(
        number: usize,
        per: fn(FaultyCredits) -> Credits,
        also: fn(Credits) -> Credits,
    ) -> Self {
        let mut all = Self {
            clock: ManualClock::new(),
            store: Arc::default(),
            bank: FaultyCredits::default(),
            log: MemoryAudit::new(10_000),
            secret: String::new(),
            nodes: Vec::new(),
        };
        let trail = || AuditTrail::new([all.log.clone()]);
        let credits = || also(per(all.bank.clone()));
        let nodes = (0..number).map(|_| all.node(credits(), trail()));
        all.nodes = nodes.collect();
        let new = NewKey::new("first", Owner::user(tenant("acme"), user("ann")));
        let issued = all.nodes[0].manager().issue(new).await.unwrap();
        all.secret = issued.key.reveal();
        all
    }

    fn node(&self, credits: Credits, trail: AuditTrail) -> Portunus {
        let builder: PortunusBuilder = Portunus::builder(format())
            .store(Arc::clone(&self.store))
            .limits(Limits::none())
            .audit(trail)
            .credits(credits.block(10.try_into().unwrap()))
            .clock(self.clock.clone());
        builder.build().unwrap()
    }

    async fn grant(&self, grant: NewGrant) {
        let manager = self.nodes[0].manager();
        manager.grant_credits(&account(), grant).await.unwrap();
    }

    /// Makes this many requests on a node.
    async fn spend(&self, node: usize, units: u64) {
        for _ in 0..units {
            let request = self.nodes[node].authenticator();
            request
                .authenticate(&Head::bearer(&self.secret))
                .await
                .unwrap();
        }
    }

    /// Runs the jobs of all nodes until they have reported, and have announced what is due.
    async fn later(&self) {
        for _ in 0..3 {
            self.clock.advance(Duration::from_secs(10));
            for node in &self.nodes {
                assert_eq!(names(&node.maintain().await), [""; 0]);
            }
        }
    }

    fn events(&self) -> Vec<AuditEvent> {
        notices(self.log.all())
    }

    fn seen(&self) -> Vec<u64> {
        counts(&self.events())
    }
}

fn notices(all: Vec<AuditEvent>) -> Vec<AuditEvent> {
    let all = all.into_iter();
    all.filter(|event| event.action == Action::CreditLow)
        .collect()
}

fn counts(events: &[AuditEvent]) -> Vec<u64> {
    events.iter().filter_map(|event| event.count).collect()
}

#[tokio::test]
async fn an_account_is_announced_once_by_all_nodes_when_80_percent_are_used() {
    let nodes = Nodes::new(3).await;
    nodes.grant(NewGrant::new(100)).await;
    for (node, units) in [(0, 30), (1, 30), (2, 19)] {
        nodes.spend(node, units).await;
    }
    nodes.later().await;
    // What nodes hold in their blocks is not used yet.
    assert_eq!(nodes.seen(), [0; 0], "79 are used");
    nodes.spend(1, 1).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
    for (node, units) in [(0, 5), (1, 5), (2, 5)] {
        nodes.spend(node, units).await;
        nodes.later().await;
    }
    assert_eq!(nodes.seen(), [80]);
    let event = &nodes.events()[0];
    assert_eq!(event.tenant_id, Some(tenant("acme")));
    let detail = event.detail.as_deref().unwrap();
    assert_eq!(detail, "20 of 100 units are left in tenant:acme");
    assert!(event.actor.is_none() && event.key_id.is_none());
}

#[tokio::test]
async fn each_period_and_each_grant_is_announced_anew() {
    let nodes = Nodes::new(2).await;
    nodes
        .grant(NewGrant::new(10).refilled(Period::weekly()))
        .await;
    for week in 1..=3 {
        nodes.spend(week % 2, 9).await;
        nodes.later().await;
        assert_eq!(nodes.seen().len(), week);
        nodes.clock.advance(7 * DAY);
        nodes.later().await;
    }
    nodes.spend(0, 8).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80; 4]);
    // 12 of 20 are left after a top-up, and 4 of them after 8 more: 80 %.
    nodes.grant(NewGrant::new(10)).await;
    nodes.spend(1, 7).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80; 4]);
    nodes.spend(1, 1).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80; 5]);
    let events = nodes.events();
    let ids: std::collections::HashSet<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn the_host_sets_the_percentages() {
    let several = |credits: Credits| credits.notices([100, 50, 90, 0, 101]);
    let nodes = Nodes::with(2, Credits::per_tenant, several).await;
    nodes.grant(NewGrant::new(20)).await;
    for _ in 0..20 {
        nodes.spend(0, 1).await;
        nodes.later().await;
    }
    assert_eq!(nodes.seen(), [50, 90, 100]);
    let none = |credits: Credits| credits.notices([]);
    let nodes = Nodes::with(1, Credits::per_tenant, none).await;
    nodes.grant(NewGrant::new(10)).await;
    nodes.spend(0, 10).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [0; 0]);
}

#[tokio::test]
async fn of_several_percentages_that_are_passed_at_once_the_highest_is_announced() {
    let several = |credits: Credits| credits.notices([50, 80]);
    let nodes = Nodes::with(1, Credits::per_tenant, several).await;
    // One block takes everything, and the grant has ended when its use is reported.
    nodes.grant(NewGrant::new(10)).await;
    nodes.spend(0, 10).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
    // A void leaves nothing either.
    let id = "gift".parse().unwrap();
    nodes.grant(NewGrant::new(10).with_id(id)).await;
    let manager = nodes.nodes[0].manager();
    let gift = "gift".parse().unwrap();
    manager.void_credits(&account(), &gift).await.unwrap();
    nodes.later().await;
    assert_eq!(nodes.seen(), [80, 80]);
}

#[tokio::test]
async fn units_that_come_back_are_not_used() {
    let nodes = Nodes::new(1).await;
    nodes.grant(NewGrant::new(10)).await;
    let accounts = nodes.nodes[0].credits().unwrap();
    let length = Duration::from_secs(60);
    let reserved = accounts.reserve(&account(), 9, length).await.unwrap();
    nodes.later().await;
    reserved.settle(3).await.unwrap();
    nodes.later().await;
    assert_eq!(nodes.seen(), [0; 0]);
    let reserved = accounts.reserve(&account(), 7, length).await.unwrap();
    reserved.settle(5).await.unwrap();
    nodes.later().await;
    assert_eq!(nodes.seen(), [80], "reserved and settled by a handler");
}

#[tokio::test]
async fn an_account_counts_as_announced_only_once_the_sink_has_the_event() {
    let nodes = Nodes::new(1).await;
    let remote = Remote::default();
    let trail = AuditTrail::builder().sink(remote.clone());
    let trail = trail.failures_per_source(None).build();
    let node = nodes.node(Credits::per_tenant(nodes.bank.clone()), trail);
    let nodes = Nodes {
        nodes: vec![node],
        ..nodes
    };
    nodes.grant(NewGrant::new(10)).await;
    nodes.spend(0, 8).await;
    remote.fail(true);
    for _ in 0..5 {
        nodes.clock.advance(Duration::from_secs(10));
        nodes.nodes[0].maintain().await;
    }
    assert_eq!(counts(&notices(remote.all())), [0; 0]);
    remote.fail(false);
    // The account cannot say yet that it was announced.
    for is_down in [true, true, false, false, false] {
        nodes.bank.fails(is_down);
        nodes.clock.advance(Duration::from_secs(10));
        nodes.nodes[0].maintain().await;
    }
    nodes.spend(0, 1).await;
    nodes.later().await;
    assert_eq!(
        counts(&notices(remote.all())),
        [80],
        "neither lost nor repeated"
    );
}

#[tokio::test]
async fn a_node_that_starts_again_announces_nothing_twice_even_to_a_sink_that_forgets() {
    let nodes = Nodes::new(1).await;
    nodes.grant(NewGrant::new(100)).await;
    nodes.spend(0, 85).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
    let empty = MemoryAudit::new(100);
    let trail = AuditTrail::new([empty.clone()]);
    let node = nodes.node(Credits::per_tenant(nodes.bank.clone()), trail);
    let nodes = Nodes {
        nodes: vec![node],
        ..nodes
    };
    nodes.spend(0, 5).await;
    nodes.later().await;
    assert_eq!(counts(&notices(empty.all())), [0; 0]);
}

#[tokio::test]
async fn what_a_crashed_node_did_not_announce_is_announced_by_the_next_one() {
    let nodes = Nodes::new(1).await;
    nodes.grant(NewGrant::new(100)).await;
    nodes.spend(0, 85).await;
    // Its use is reported, and its event is not.
    let remote = Remote::default();
    remote.fail(true);
    let trail = AuditTrail::new([remote.clone()]);
    let crashes = nodes.node(Credits::per_tenant(nodes.bank.clone()), trail);
    drop(nodes.nodes);
    let nodes = Nodes {
        nodes: vec![crashes],
        ..nodes
    };
    nodes.spend(0, 10).await;
    nodes.clock.advance(Duration::from_secs(1));
    nodes.nodes[0].maintain().await;
    drop(remote);
    let trail = AuditTrail::new([nodes.log.clone()]);
    let next = nodes.node(Credits::per_tenant(nodes.bank.clone()), trail);
    let nodes = Nodes {
        nodes: vec![next],
        ..nodes
    };
    assert_eq!(nodes.seen(), [0; 0]);
    // Nothing is left, so this request is refused.
    let request = nodes.nodes[0].authenticator();
    let refused = request.authenticate(&Head::bearer(&nodes.secret)).await;
    assert!(refused.is_err());
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
}

/// Two nodes; the second one crashes when it has reported its use and its event is with no sink. Nobody
/// uses the account afterwards.
async fn crashed() -> Nodes {
    let nodes = Nodes::new(1).await;
    let remote = Remote::default();
    remote.fail(true);
    let trail = AuditTrail::new([remote.clone()]);
    let crashes = nodes.node(Credits::per_tenant(nodes.bank.clone()), trail);
    nodes.later().await;
    nodes.grant(NewGrant::new(100)).await;
    let request = crashes.authenticator();
    for _ in 0..90 {
        let head = Head::bearer(&nodes.secret);
        request.authenticate(&head).await.unwrap();
    }
    nodes.clock.advance(Duration::from_secs(1));
    crashes.maintain().await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [0; 0]);
    nodes
}

#[tokio::test]
async fn what_a_crashed_node_did_not_announce_is_announced_by_another_within_an_hour() {
    let nodes = crashed().await;
    nodes.clock.advance(Duration::from_secs(3600));
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
    nodes.clock.advance(Duration::from_secs(3600));
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
}

#[tokio::test]
async fn what_a_crashed_node_did_not_announce_is_announced_by_the_one_that_starts_next() {
    let nodes = crashed().await;
    let trail = AuditTrail::new([nodes.log.clone()]);
    let next = nodes.node(Credits::per_tenant(nodes.bank.clone()), trail);
    let nodes = Nodes {
        nodes: vec![next],
        ..nodes
    };
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
}

#[tokio::test]
async fn an_account_that_nobody_has_changed_for_a_week_is_not_announced() {
    let nodes = crashed().await;
    nodes.clock.advance(8 * DAY);
    nodes.later().await;
    assert_eq!(nodes.seen(), [0; 0]);
}

#[tokio::test]
async fn the_event_names_the_user_or_the_key_that_pays() {
    let nodes = Nodes::with(1, Credits::per_user, |credits| credits).await;
    let ann = CreditAccount::User(tenant("acme"), user("ann"));
    let grant = async |account: &CreditAccount| {
        let manager = nodes.nodes[0].manager();
        manager
            .grant_credits(account, NewGrant::new(10))
            .await
            .unwrap();
    };
    grant(&ann).await;
    nodes.spend(0, 8).await;
    nodes.later().await;
    let event = &nodes.events()[0];
    assert_eq!(event.tenant_id, Some(tenant("acme")));
    assert!(event.subject.as_ref().unwrap().is("ann"));

    let nodes = Nodes::with(1, Credits::per_key, |credits| credits).await;
    let manager = nodes.nodes[0].manager();
    let query = portunus::store::ListQuery::new(manager.now());
    let key = manager.list(query).await.unwrap().items[0]
        .record
        .id
        .clone();
    let family = KeyFamily::new(key.as_str()).unwrap();
    let account = CreditAccount::Key(family);
    manager
        .grant_credits(&account, NewGrant::new(10))
        .await
        .unwrap();
    nodes.spend(0, 8).await;
    nodes.later().await;
    let event = &nodes.events()[0];
    let expected: (Option<KeyId>, _) = (Some(key), Some(tenant("acme")));
    assert_eq!((event.key_id.clone(), event.tenant_id.clone()), expected);
}

#[tokio::test]
async fn a_store_of_credits_that_is_down_holds_up_no_notices_of_keys() {
    let nodes = Nodes::new(1).await;
    let remote = Remote::default();
    let trail = AuditTrail::new([remote.clone()]);
    let node = nodes.node(Credits::per_tenant(nodes.bank.clone()), trail);
    let nodes = Nodes {
        nodes: vec![node],
        ..nodes
    };
    nodes.grant(NewGrant::new(10)).await;
    nodes.spend(0, 8).await;
    let mut new = NewKey::new("expires", Owner::tenant(tenant("acme")));
    new.expires_at = Some(nodes.clock.now() + 100 * DAY);
    nodes.nodes[0].manager().issue(new).await.unwrap();
    // The event of the account is with the trail.
    remote.fail(true);
    for _ in 0..2 {
        nodes.clock.advance(Duration::from_secs(10));
        nodes.nodes[0].maintain().await;
    }
    remote.fail(false);
    nodes.bank.fails(true);
    nodes.clock.advance(40 * DAY);
    let failed = nodes.nodes[0].maintain().await;
    assert!(names(&failed).contains(&"report what is due"), "{failed:?}");
    assert_eq!(counts(&notices(remote.all())), [80]);
    let is_expiring = |event: &AuditEvent| event.action == Action::KeyExpiring;
    assert_eq!(remote.all().into_iter().filter(is_expiring).count(), 1);
}

/// Accounts that only the host's own code changes are evaluated where a service is built on them.
#[tokio::test]
async fn a_host_that_grants_by_itself_begins_a_new_account_of_use() {
    let nodes = Nodes::new(1).await;
    let accounts = CreditAccounts::new(nodes.bank.clone());
    let accounts = accounts.with_clock(Arc::new(nodes.clock.clone()));
    accounts.grant(&account(), NewGrant::new(10)).await.unwrap();
    nodes.spend(0, 8).await;
    nodes.later().await;
    accounts.grant(&account(), NewGrant::new(90)).await.unwrap();
    // The first grant has ended then: 71 of 90 are used.
    nodes.spend(0, 73).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80]);
    nodes.spend(0, 1).await;
    nodes.later().await;
    assert_eq!(nodes.seen(), [80, 80]);
}
