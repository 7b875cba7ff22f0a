//! Reading does not write, and includes usage that this node has counted but not yet written.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use portunus::audit::{Action, AuditError, AuditReader, EventPage, EventQuery};
use portunus::key::{
    Alphabet, DigestScheme, KeyDigest, KeyFormat, KeyId, KeyKind, KeyRecord, WorkspaceId,
};
use portunus::manage::{ByRole, Denied, KeyManager, NewKey, Operator, OperatorPolicy, Role};
use portunus::store::{
    Change, HourOfUse, KeyLookup, KeyStore, ListQuery, MemoryStore, OwnerRef, Page, StoreError,
    StoredKey, Usage, WriteBatch,
};
use portunus::testing::{Call, FaultyStore, Point};

use portunus_test_support::{Head, Setup, live, tenant, test};

use crate::life::{Desk, HOUR, SECOND, acme, issue, named, operator};

/// The manager and the authenticator of one node, and a key that was used three times.
async fn used(desk: &Desk) -> (KeyManager, portunus::Authenticator, KeyId, String) {
    let keys = desk.builder().keys();
    let (manager, authenticator) = (keys.manager().clone(), keys.authenticator().clone());
    let issued = manager
        .issue(NewKey::new(
            "key",
            portunus::key::Owner::tenant(tenant("tenant_1")),
        ))
        .await
        .unwrap();
    let secret = issued.key.reveal();
    for _ in 0..3 {
        authenticator
            .authenticate(&Head::bearer(&secret).from("192.0.2.7"))
            .await
            .unwrap();
    }
    (manager, authenticator, issued.record.id.clone(), secret)
}

async fn stored(desk: &Desk, id: &KeyId) -> Usage {
    let counts = desk.store.inner().usage().unwrap();
    portunus_test_support::used(&*counts, id).await
}

#[tokio::test]
async fn every_read_shows_the_uses_that_are_not_written_and_writes_none() {
    let desk = Desk::new();
    let (manager, authenticator, id, secret) = used(&desk).await;
    for written in [false, true] {
        if written {
            authenticator.usage().flush(&desk.store).await.unwrap();
        } else {
            desk.store.hold(Point::Before(Call::RecordUsage));
        }
        let writes = desk.store.writes();
        let page = manager.list(ListQuery::new(desk.now())).await.unwrap();
        let shown = manager.get(&id).await.unwrap();
        let verified = manager.verify(&secret).await.unwrap().unwrap();
        for key in [&page.items[0], &shown, &verified] {
            assert_eq!(
                (key.usage.count, key.usage.last_used_at),
                (3, Some(desk.now()))
            );
            assert_eq!(key.usage.last_ip, "192.0.2.7".parse().ok());
        }
        let hours = async |from, to| manager.usage_by_hour(&id, from, to).await.unwrap().hours;
        let (now, start) = (desk.now(), HourOfUse::start_of(desk.now()));
        assert_eq!(hours(now, now + SECOND).await, [HourOfUse::new(start, 3)]);
        assert_eq!(hours(start + HOUR, start + 2 * HOUR).await, []);
        assert_eq!(hours(start - HOUR, start).await, []);
        assert_eq!(desk.store.writes(), writes);
        assert_eq!(stored(&desk, &id).await.count == 3, written);
        desk.store.release(Point::Before(Call::RecordUsage));
    }
    // Without a recorder: the stored usage.
    let other = desk.host().get(&id).await.unwrap();
    assert_eq!(other.usage.count, 3);
}

#[tokio::test]
async fn new_uses_are_merged_with_the_stored_hours_in_order() {
    let desk = Desk::new();
    let (manager, authenticator, id, secret) = used(&desk).await;
    authenticator.usage().flush(&desk.store).await.unwrap();
    let use_once = async || {
        let head = Head::bearer(&secret);
        authenticator.authenticate(&head).await.unwrap();
    };
    let start = HourOfUse::start_of(desk.now());
    let hours = async || {
        let to = desk.now() + HOUR;
        manager.usage_by_hour(&id, start, to).await.unwrap().hours
    };
    use_once().await;
    assert_eq!(hours().await, [HourOfUse::new(start, 4)]);
    authenticator.usage().flush(&desk.store).await.unwrap();
    desk.clock.advance(2 * HOUR);
    use_once().await;
    let later = HourOfUse::start_of(desk.now());
    let both = [HourOfUse::new(start, 4), HourOfUse::new(later, 1)];
    assert_eq!(hours().await, both);
    assert_eq!(manager.get(&id).await.unwrap().usage.count, 5);
}

#[tokio::test]
async fn a_flush_that_ends_while_the_store_is_read_is_seen_once() {
    for call in [Call::Get, Call::List] {
        for point in [Point::Before(call), Point::After(call)] {
            let desk = Desk::new();
            let (manager, authenticator, id, _) = used(&desk).await;
            let store = desk.store.clone();
            desk.store.once(point, async move {
                authenticator.usage().flush(&store).await.unwrap();
            });
            let count = match call {
                Call::Get => manager.get(&id).await.unwrap().usage.count,
                _ => {
                    let query = ListQuery::new(desk.now());
                    manager.list(query).await.unwrap().items[0].usage.count
                }
            };
            assert_eq!(count, 3, "{point:?}");
            assert_eq!(stored(&desk, &id).await.count, 3);
        }
    }
}

#[tokio::test]
async fn a_usage_flush_that_is_dropped_at_any_await_loses_nothing() {
    let desk = Desk::new();
    let (manager, authenticator, id, _) = used(&desk).await;
    desk.store.answer_late(3);
    // Dropped after each number of polls, until no more are needed.
    let mut dropped = 0;
    for polls in 1.. {
        desk.store.fail(Point::Before(Call::RecordUsage));
        let mut flush = Box::pin(authenticator.usage().flush(&desk.store));
        let mut context = Context::from_waker(Waker::noop());
        let ended = (0..polls).any(|_| flush.as_mut().poll(&mut context).is_ready());
        drop(flush);
        assert_eq!(manager.get(&id).await.unwrap().usage.count, 3);
        if ended {
            break;
        }
        dropped += 1;
    }
    assert!(dropped > 0);
    desk.store.recover();
    // One call hangs and is dropped.
    desk.store.hold(Point::Before(Call::RecordUsage));
    let mut flush = Box::pin(authenticator.usage().flush(&desk.store));
    for _ in 0..20 {
        let polled = flush.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    assert_eq!(manager.get(&id).await.unwrap().usage.count, 3);
    drop(flush);
    desk.store.release(Point::Before(Call::RecordUsage));
    authenticator.usage().flush(&desk.store).await.unwrap();
    assert_eq!(stored(&desk, &id).await.count, 3);
    assert_eq!(manager.get(&id).await.unwrap().usage.count, 3);
}

#[tokio::test]
async fn a_store_that_refuses_usage_does_not_block_reading() {
    let desk = Desk::new();
    let (manager, authenticator, id, _) = used(&desk).await;
    desk.store.fail(Point::Before(Call::RecordUsage));
    authenticator.usage().flush(&desk.store).await.unwrap_err();
    assert_eq!(manager.get(&id).await.unwrap().usage.count, 3);
    desk.store.recover();
    authenticator.usage().flush(&desk.store).await.unwrap();
    assert_eq!(manager.get(&id).await.unwrap().usage.count, 3);
}

/// A policy that shows Admins only keys of one environment.
#[derive(Debug)]
struct OnlyTest;

impl OperatorPolicy for OnlyTest {
    fn allows(&self, operator: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied> {
        ByRole::new().allows(operator, action, key)
    }
    fn lists(&self, operator: &Operator, mut query: ListQuery) -> Result<ListQuery, Denied> {
        if operator.role() == Role::Admin {
            query.environment = Some(test());
        }
        Ok(query)
    }
}

/// A log with one corrupt row.
#[derive(Debug)]
struct Corrupt;

#[async_trait]
impl AuditReader for Corrupt {
    async fn events(&self, _: &EventQuery) -> Result<EventPage, AuditError> {
        let mut page = EventPage::default();
        page.corrupt.push("row 7".into());
        Ok(page)
    }
}

#[tokio::test]
async fn corrupt_rows_are_reported_to_the_host_and_to_unrestricted_operators() {
    let desk = Desk::new();
    let (_, key) = issue(&desk.host(), named("key")).await;
    desk.store.spoil(&key.id);
    let by_role = desk.builder().manager();
    let only_test = desk.builder().policy(OnlyTest).manager();
    let of = |role| operator("olga", "acme", role);
    let workspace = WorkspaceId::new("w1").unwrap();
    for (manager, is_told) in [
        (by_role.clone(), true),
        (by_role.by(Operator::host()), true),
        (by_role.by(of(Role::Owner)), true),
        (
            by_role.by(of(Role::Admin).in_workspaces([workspace])),
            false,
        ),
        (only_test.by(of(Role::Owner)), true),
        (only_test.by(of(Role::Admin)), false),
    ] {
        let who = manager.operator().clone();
        // It makes no difference whether the operator requests the limit that the policy would
        // impose.
        for environment in [None, Some(test())] {
            let mut query = ListQuery::new(desk.now());
            query.environment.clone_from(&environment);
            let is_in_list = environment.is_none();
            let page = manager.list(query).await.unwrap();
            assert_eq!(page.items, []);
            assert_eq!(!page.corrupt.is_empty(), is_told && is_in_list, "{who:?}");
        }
        let page = manager.events(&Corrupt, EventQuery::new()).await.unwrap();
        assert_eq!(!page.corrupt.is_empty(), is_told, "events for {who:?}");
    }
    // Of another tenant.
    let other = by_role.by(operator("olga", "globex", Role::Owner));
    let page = other.list(ListQuery::new(desk.now())).await.unwrap();
    assert_eq!((page.items, page.corrupt), (vec![], vec![]));
}

#[tokio::test]
async fn a_short_page_is_passed_on_with_its_place_and_asked_for_once() {
    let desk = Desk::new();
    for number in 0..=ListQuery::MOST_SCANNED as u64 {
        let id = KeyId::new(&format!("key_{number}")).unwrap();
        let made = desk.now() - SECOND / 1_000 * u32::try_from(number).unwrap();
        let mut record = KeyRecord::new(id, "hay", KeyKind::App, live(), acme(), made);
        if number == ListQuery::MOST_SCANNED as u64 {
            record.name = "needle".into();
        }
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let insert = Change::Insert {
            digest: KeyDigest::new(DigestScheme::Sha256, bytes),
            record: Box::new(record),
        };
        let batch = WriteBatch::new().change(insert);
        desk.store.inner().apply(&batch).await.unwrap();
    }
    for manager in [
        desk.host(),
        desk.host().by(operator("olga", "acme", Role::Owner)),
    ] {
        let mut query = ListQuery::new(desk.now());
        query.text = Some("needle".into());
        let asked = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let asked = Arc::clone(&asked);
            desk.store.once(Point::Before(Call::List), async move {
                asked.fetch_add(1, Ordering::SeqCst);
            });
        }
        let first = manager.list(query.clone()).await.unwrap();
        assert_eq!(
            asked.load(Ordering::SeqCst),
            1,
            "how often the store was asked"
        );
        assert_eq!(first.items, []);
        let stored = desk.store.inner().list(&query).await.unwrap();
        assert!(
            first.next.is_some() && first.next == stored.next,
            "{first:?}"
        );
        query.after = first.next;
        let rest = manager.list(query).await.unwrap();
        assert_eq!((rest.items.len(), rest.next), (1, None));
    }
}

#[tokio::test]
async fn keys_that_operators_ask_about_are_looked_up_in_turn() {
    let store = FaultyStore::new();
    store.answer_late(1);
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let keys = Setup::on(store.clone())
        .bearer([format.build().unwrap()])
        .keys();
    let find = Point::Before(Call::Find);
    store.hold(find);
    let verify = |number: u32| {
        let (manager, key) = (keys.manager().clone(), format!("acme_{number:032}"));
        tokio::spawn(async move { manager.verify(&key).await })
    };
    let asked: Vec<_> = (0..100).map(verify).collect();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    // The quarter that is reserved for addresses without failures is not available to them.
    assert_eq!(store.in_flight(), 48);
    store.release(find);
    for asked in asked {
        assert!(asked.await.unwrap().unwrap().is_none());
    }
    assert_eq!(store.finds(), 100);
}

#[tokio::test]
async fn a_use_that_is_not_written_yet_counts_in_a_list_of_unused_keys() {
    let desk = Desk::new();
    let (manager, authenticator, id, secret) = used(&desk).await;
    authenticator.usage().flush(&desk.store).await.unwrap();
    desk.clock.advance(SECOND);
    let mut query = ListQuery::new(desk.now());
    query.unused_since = Some(desk.now());
    let listed = async || {
        let page = manager.list(query.clone()).await.unwrap();
        let ids = page.items.iter().map(|key| key.record.id.clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(listed().await, [id]);
    authenticator
        .authenticate(&Head::bearer(&secret).from("192.0.2.7"))
        .await
        .unwrap();
    assert_eq!(listed().await, []);
}

/// A store that counts no uses.
#[derive(Debug)]
struct Uncounted(MemoryStore);

#[async_trait]
impl KeyLookup for Uncounted {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.0.find(digests).await
    }
}

#[async_trait]
impl KeyStore for Uncounted {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.0.get(id).await
    }
    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.0.list(query).await
    }
    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: std::time::SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        self.0.primaries(owners, at).await
    }
    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.0.apply(batch).await
    }
}

/// A host that revokes unused keys would revoke every key.
#[tokio::test]
async fn unused_keys_are_not_listed_if_nothing_counts_uses() {
    let setup = Setup::on(Uncounted(MemoryStore::new()));
    let manager = setup.bearer([portunus_test_support::format()]).manager();
    let mut query = ListQuery::new(manager.now());
    manager.list(query.clone()).await.unwrap();
    query.unused_since = Some(manager.now());
    let error = manager.list(query).await.unwrap_err().to_string();
    assert!(error.contains("does not count uses"), "{error}");
}
