//! Events about what a host must act on: each occurs once, when it is due, on any number of nodes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use portunus::actor::{DirectoryError, OwnerStanding, Standing};
use portunus::audit::{Action, AuditEvent, AuditTrail, MemoryAudit};
use portunus::config::{Actors, Limits};
use portunus::key::{KeyId, Owner};
use portunus::manage::{KeyChange, NewKey, Rotated};
use portunus::store::StoreError;
use portunus::testing::{Call, FaultyStore, ManualClock, Point};
use portunus::{Clock, Portunus, PortunusBuilder};
use portunus_test_support::{Head, format, tenant, user};

use crate::desk::{Remote, names};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Several nodes on one store.
struct Nodes {
    clock: ManualClock,
    store: FaultyStore,
    log: MemoryAudit,
    nodes: Vec<Portunus>,
}

impl Nodes {
    fn new(number: usize) -> Self {
        Self::with(number, |keys| keys)
    }

    fn with(number: usize, also: impl Fn(PortunusBuilder) -> PortunusBuilder) -> Self {
        let (clock, log) = (ManualClock::new(), MemoryAudit::new(10_000));
        let store = FaultyStore::new();
        let mut all = Self {
            clock,
            store,
            log,
            nodes: Vec::new(),
        };
        all.nodes = (0..number).map(|_| all.node(&also)).collect();
        all
    }

    fn node(&self, also: impl Fn(PortunusBuilder) -> PortunusBuilder) -> Portunus {
        let keys = Portunus::builder(format())
            .store(self.store.clone())
            .limits(Limits::none())
            .audit(AuditTrail::new([self.log.clone()]))
            .clock(self.clock.clone());
        also(keys).build().unwrap()
    }

    async fn issue(&self, name: &str, lifetime: Option<Duration>) -> (KeyId, String) {
        let mut new = NewKey::new(name, Owner::tenant(tenant("acme")));
        new.expires_at = lifetime.map(|lifetime| self.clock.now() + lifetime);
        let issued = self.nodes[0].manager().issue(new).await.unwrap();
        (issued.record.id.clone(), issued.key.reveal())
    }

    async fn use_key(&self, secret: &str) {
        let used = self.nodes[0].authenticator();
        used.authenticate(&Head::bearer(secret)).await.unwrap();
    }

    /// Runs the jobs of all nodes some hours later.
    async fn later(&self, later: Duration) {
        self.clock.advance(later);
        for node in &self.nodes {
            assert_eq!(names(&node.maintain().await), [""; 0]);
        }
    }

    /// The events so far, oldest first.
    fn events(&self) -> Vec<AuditEvent> {
        let is_notice = |event: &AuditEvent| {
            use Action::{KeyExpiring, KeyOwnerLeft, KeyRotatedInUse, KeyUnused};
            [KeyExpiring, KeyOwnerLeft, KeyRotatedInUse, KeyUnused].contains(&event.action)
        };
        self.log.all().into_iter().filter(is_notice).collect()
    }

    fn seen(&self) -> Vec<(Action, Option<u64>)> {
        self.events()
            .iter()
            .map(|event| (event.action, event.count))
            .collect()
    }
}

fn expiring(days: &[u64]) -> Vec<(Action, Option<u64>)> {
    days.iter()
        .map(|days| (Action::KeyExpiring, Some(*days)))
        .collect()
}

#[tokio::test]
async fn an_expiry_is_announced_once_for_each_threshold() {
    let nodes = Nodes::with(2, |keys| keys.notices([1, 7, 30, 60], []));
    let (id, _) = nodes.issue("a key", Some(DAY * 100)).await;
    let (mut seen, hour) = (Vec::new(), DAY / 24);
    for hours in 1..=100 * 24 {
        nodes.later(hour).await;
        let all = nodes.seen();
        // The jobs read the list again after an hour, and begin a second late at most.
        if all.len() > seen.len() {
            assert_eq!(all.len(), seen.len() + 1);
            let days = [60, 30, 7, 1][seen.len()];
            assert_eq!(all.last(), expiring(&[days]).last());
            let due = (100 - days) * 24;
            assert!(
                (due..=due + 1).contains(&hours),
                "{days} days: after {hours} hours"
            );
            seen = all;
        }
    }
    assert_eq!(seen, expiring(&[60, 30, 7, 1]));
    let event = &nodes.events()[0];
    assert_eq!(
        (event.key_id.as_ref(), event.tenant_id.as_ref()),
        (Some(&id), Some(&tenant("acme")))
    );
    let detail = event.detail.as_deref().unwrap();
    assert!(
        detail.starts_with("expires at 2") && detail.ends_with("within 60 days"),
        "{detail}"
    );
    assert!(event.actor.is_none(), "nobody did this");
}

#[tokio::test]
async fn a_key_that_never_lived_that_long_is_not_announced() {
    let nodes = Nodes::new(1);
    nodes.issue("ten days", Some(DAY * 10)).await;
    nodes.issue("an hour", Some(DAY / 24)).await;
    nodes.issue("for ever", None).await;
    for _ in 0..11 {
        nodes.later(DAY).await;
    }
    assert_eq!(nodes.seen(), expiring(&[7, 1]));
}

#[tokio::test]
async fn after_a_pause_only_the_nearest_threshold_is_announced() {
    let nodes = Nodes::new(1);
    nodes.issue("a key", Some(DAY * 100)).await;
    nodes.later(DAY * 99 + DAY / 2).await;
    assert_eq!(nodes.seen(), expiring(&[1]));
    // What became due more than a week ago may have been announced, and deleted.
    let nodes = Nodes::new(1);
    nodes.issue("a key", Some(DAY * 100)).await;
    nodes.later(DAY * 50).await;
    assert_eq!(nodes.seen(), []);
}

#[tokio::test]
async fn a_node_that_starts_again_announces_nothing_twice() {
    let mut nodes = Nodes::new(1);
    nodes.issue("a key", Some(DAY * 100)).await;
    nodes.later(DAY * 40).await;
    for _ in 0..3 {
        nodes.nodes = vec![nodes.node(|keys| keys)];
        nodes.later(DAY / 24).await;
    }
    assert_eq!(nodes.seen(), expiring(&[60]));
}

#[tokio::test]
async fn a_new_expiry_is_announced_anew_and_keys_that_do_not_work_are_not() {
    let nodes = Nodes::new(1);
    let (extended, _) = nodes.issue("extended", Some(DAY * 40)).await;
    let (revoked, _) = nodes.issue("revoked", Some(DAY * 40)).await;
    let (disabled, _) = nodes.issue("disabled", Some(DAY * 40)).await;
    nodes.later(DAY * 9).await;
    let manager = nodes.nodes[0].manager();
    manager.revoke(&revoked, None).await.unwrap();
    manager.disable(&disabled).await.unwrap();
    nodes.later(DAY).await;
    assert_eq!(nodes.seen(), expiring(&[30]));
    let end = nodes.clock.now() + DAY * 31;
    let mut change = KeyChange::new();
    change.expires_at = Some(Some(end));
    manager.update(&extended, change, None).await.unwrap();
    nodes.later(DAY).await;
    assert_eq!(nodes.seen(), expiring(&[30, 30]));
    let ids: Vec<_> = nodes
        .events()
        .into_iter()
        .map(|event| event.key_id.unwrap())
        .collect();
    assert_eq!(ids, [extended.clone(), extended]);
}

#[tokio::test]
async fn an_event_is_announced_only_once_the_sink_has_it() {
    let remote = Remote::default();
    let trail = AuditTrail::builder().sink(remote.clone());
    let trail = trail.failures_per_source(None).build();
    let nodes = Nodes::with(1, |keys| keys.audit(trail.clone()));
    nodes.issue("a key", Some(DAY * 100)).await;
    nodes.clock.advance(DAY * 40);
    remote.fail(true);
    let node = &nodes.nodes[0];
    for _ in 0..5 {
        let failed = node.maintain().await;
        assert!(names(&failed).contains(&"report what is due"), "{failed:?}");
        nodes.clock.advance(Duration::from_secs(10));
    }
    remote.fail(false);
    for _ in 0..5 {
        nodes.later(DAY / 24).await;
    }
    let of = remote
        .all()
        .into_iter()
        .filter(|event| event.action == Action::KeyExpiring);
    assert_eq!(of.count(), 1, "neither lost nor repeated");
}

#[tokio::test]
async fn a_store_that_does_not_answer_delays_and_loses_nothing() {
    let nodes = Nodes::new(1);
    nodes.issue("a key", Some(DAY * 100)).await;
    nodes.clock.advance(DAY * 40);
    nodes.store.fail(Point::Before(Call::List));
    let failed = nodes.nodes[0].maintain().await;
    assert_eq!(names(&failed), ["report what is due"]);
    nodes.store.recover();
    nodes.later(Duration::from_secs(10)).await;
    assert_eq!(nodes.seen(), expiring(&[60]));
}

#[tokio::test]
async fn unreadable_counts_and_records_hold_up_nothing() {
    let nodes = Nodes::new(1);
    nodes.issue("a key", Some(DAY * 100)).await;
    let (spoilt, _) = nodes.issue("spoilt", Some(DAY * 100)).await;
    let manager = nodes.nodes[0].manager();
    let rotated = manager.rotate(&spoilt, Some(DAY * 90)).await.unwrap();
    nodes.store.spoil(&rotated.record.id);
    let corrupt = || StoreError::corrupt("portunus_usage.count of a key");
    nodes.store.fail_with(Point::Before(Call::UsageOf), corrupt);
    nodes.later(DAY * 40).await;
    assert_eq!(nodes.seen(), expiring(&[60]));
}

#[tokio::test]
async fn keys_on_all_pages_are_announced() {
    let nodes = Nodes::new(1);
    for number in 0..1_100 {
        nodes.issue(&number.to_string(), Some(DAY * 20)).await;
    }
    nodes.later(DAY * 13).await;
    nodes.later(Duration::from_secs(10)).await;
    let events = nodes.events();
    let keys: std::collections::HashSet<_> = events.iter().map(|event| &event.key_id).collect();
    assert_eq!((events.len(), keys.len()), (1_100, 1_100));
}

#[tokio::test]
async fn a_key_without_use_is_announced_from_its_last_use() {
    let nodes = Nodes::new(2);
    nodes.issue("never used", None).await;
    let (used, secret) = nodes.issue("used", None).await;
    let unused = (Action::KeyUnused, Some(90));
    nodes.later(DAY * 50).await;
    nodes.use_key(&secret).await;
    nodes.later(DAY * 39).await;
    assert_eq!(nodes.seen(), []);
    nodes.later(DAY).await;
    assert_eq!(nodes.seen(), [unused]);
    for _ in 0..49 {
        nodes.later(DAY).await;
    }
    assert_eq!(nodes.seen(), [unused], "89 days");
    nodes.later(DAY).await;
    nodes.later(DAY).await;
    assert_eq!(nodes.seen(), [unused, unused]);
    assert_eq!(nodes.events()[1].key_id, Some(used));
}

#[tokio::test]
async fn the_host_sets_the_days() {
    let nodes = Nodes::with(1, |keys| keys.notices([14], [3, 5]));
    nodes.issue("a key", Some(DAY * 20)).await;
    for _ in 0..20 {
        nodes.later(DAY).await;
    }
    let seen = [(Action::KeyUnused, Some(3)), (Action::KeyUnused, Some(5))];
    let seen: Vec<_> = seen.into_iter().chain(expiring(&[14])).collect();
    assert_eq!(nodes.seen(), seen);
    let nodes = Nodes::with(1, |keys| keys.notices([], []));
    nodes.issue("a key", Some(DAY * 99)).await;
    for _ in 0..99 {
        nodes.later(DAY).await;
    }
    assert_eq!(nodes.seen(), []);
}

#[tokio::test]
async fn a_rotated_key_is_announced_while_it_is_used() {
    let nodes = Nodes::new(2);
    let manager = nodes.nodes[0].manager();
    let (silent, _) = nodes.issue("replaced everywhere", None).await;
    let (busy, secret) = nodes.issue("still used", None).await;
    nodes.use_key(&secret).await;
    nodes.later(Duration::from_secs(1)).await;
    for id in [&silent, &busy] {
        let grace = Some(DAY * 10);
        let _: Rotated = manager.rotate(id, grace).await.unwrap();
    }
    nodes.later(DAY * 6).await;
    assert_eq!(nodes.seen(), [], "used before the rotation only");
    nodes.use_key(&secret).await;
    nodes.later(DAY / 12).await;
    nodes.later(DAY).await;
    nodes.later(DAY).await;
    assert_eq!(nodes.seen(), [(Action::KeyRotatedInUse, None)]);
    let event = &nodes.events()[0];
    assert_eq!(event.key_id.as_ref(), Some(&busy));
    assert!(event.detail.as_deref().unwrap().contains(", ends at "));
}

/// Users who have left.
#[derive(Debug, Clone, Default)]
struct Gone(Arc<Mutex<Vec<&'static str>>>);

#[async_trait]
impl OwnerStanding for Gone {
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        let gone = self.0.lock().unwrap();
        let name = owner.user_id.as_ref().map_or("", |id| id.as_str());
        match name {
            "down" if !gone.contains(&"up") => Err(DirectoryError::unavailable("it is down")),
            _ if gone.contains(&name) => Ok(Standing::Suspended),
            _ => Ok(Standing::Good),
        }
    }
}

#[tokio::test]
async fn an_owner_who_left_is_announced_once_for_each_key() {
    let gone = Gone::default();
    let nodes = Nodes::with(2, |keys| keys.actors(Actors::new().standing(gone.clone())));
    let issue = async |name: &str| {
        let new = NewKey::new(name, Owner::user(tenant("acme"), user(name)));
        nodes.nodes[0].manager().issue(new).await.unwrap();
    };
    for name in ["ann", "ann", "bob"] {
        issue(name).await;
    }
    nodes.later(DAY).await;
    assert_eq!(nodes.seen(), []);
    gone.0.lock().unwrap().push("ann");
    for _ in 0..20 {
        nodes.later(DAY).await;
    }
    assert_eq!(nodes.seen(), [(Action::KeyOwnerLeft, None); 2]);
    let of_ann = |event: &AuditEvent| event.subject.as_ref().unwrap().is("ann");
    assert!(nodes.events().iter().all(of_ann));

    // A directory that does not answer is not an owner who has left.
    issue("down").await;
    nodes.clock.advance(DAY);
    assert_eq!(
        names(&nodes.nodes[0].maintain().await),
        ["report what is due"]
    );
    assert_eq!(nodes.seen().len(), 2);
    gone.0.lock().unwrap().push("up");
    nodes.later(Duration::from_secs(10)).await;
    assert_eq!(nodes.seen().len(), 2);
}
