//! Reading writes nothing, and shows what this node has counted although it is not written yet.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use portunus::key::KeyId;
use portunus::manage::{KeyManager, NewKey};
use portunus::store::{HourOfUse, KeyStore, ListQuery, Usage};
use portunus::testing::{Call, Point};

use portunus_test_support::{Head, tenant};

use crate::life::{Desk, HOUR, SECOND};

/// A manager and an authenticator of one node, and a key that was used three times.
async fn used(desk: &Desk) -> (KeyManager, portunus::Authenticator, KeyId, String) {
    let authenticator = desk.authenticator();
    let manager = desk.host().with_authenticator(&authenticator);
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
    desk.store.inner().get(id).await.unwrap().unwrap().usage
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
        let hours = async |from, to| manager.usage_by_hour(&id, from, to).await.unwrap();
        let (now, start) = (desk.now(), HourOfUse::start_of(desk.now()));
        assert_eq!(hours(now, now + SECOND).await, [HourOfUse::new(start, 3)]);
        assert_eq!(hours(start + HOUR, start + 2 * HOUR).await, []);
        assert_eq!(hours(start - HOUR, start).await, []);
        assert_eq!(desk.store.writes(), writes);
        assert_eq!(stored(&desk, &id).await.count == 3, written);
        desk.store.release(Point::Before(Call::RecordUsage));
    }
    // Without a recorder: what is stored.
    let other = desk.host().get(&id).await.unwrap();
    assert_eq!(other.usage.count, 3);
}

#[tokio::test]
async fn new_uses_are_added_to_the_hour_that_is_stored_and_put_in_order_beside_others() {
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
        manager.usage_by_hour(&id, start, to).await.unwrap()
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
    // Dropped after each number of polls, until it needs no more of them.
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
    // One that hangs, and goes away.
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
async fn a_store_that_takes_no_usage_keeps_nobody_from_reading() {
    let desk = Desk::new();
    let (manager, authenticator, id, _) = used(&desk).await;
    desk.store.fail(Point::Before(Call::RecordUsage));
    authenticator.usage().flush(&desk.store).await.unwrap_err();
    assert_eq!(manager.get(&id).await.unwrap().usage.count, 3);
    desk.store.recover();
    authenticator.usage().flush(&desk.store).await.unwrap();
    assert_eq!(manager.get(&id).await.unwrap().usage.count, 3);
}
