//! The cache under concurrency: lookups that complete after their result was changed, abandoned
//! requests, writes with an unknown result, stores that panic.
//!
//! The store in these tests reads when a lookup begins and answers when it is released, like a
//! database on a slow connection. So each order of events is deterministic.

use portunus::clock::SystemClock;
use portunus::store::KeyLookup;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use portunus::Clock;
use portunus::key::Owner;
use portunus::store::{
    Cache, CachedStore, Change, KeyStore, LocalBus, MemoryStore, StoreError, WriteBatch,
};
use portunus_test_support::gated::{
    Node, PATIENCE, READ, WRITTEN, begin, digest, insert, is_active, record, revoke, soon,
};
use portunus_test_support::wait::until;
use portunus_test_support::{APPLY, FIND, FaultyStore, Setup, corrupt, format, tenant};

// ---- lookups and writes ----

#[tokio::test]
async fn a_lookup_that_began_before_a_revocation_and_ends_after_it_is_not_cached() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let early = begin(is_active(&node.cache, 1));
    node.cache.apply(&revoke(1)).await.unwrap();
    node.store.release(READ);
    // A lookup from before the revocation may return the old state, but later ones must not.
    assert_eq!(early.await, Some(true));
    assert!(
        node.cache.find_now(&[digest(1)]).is_none_or(|found| found
            .unwrap()
            .unwrap()
            .record()
            .revoked
            .is_some())
    );
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
}

#[tokio::test]
async fn a_request_after_a_revocation_does_not_join_an_earlier_lookup() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let early = begin(is_active(&node.cache, 1));
    let beside = begin(is_active(&node.cache, 1));
    assert_eq!(node.store.finds(), 1);
    node.cache.apply(&revoke(1)).await.unwrap();
    let late = begin(is_active(&node.cache, 1));
    let later = begin(is_active(&node.cache, 1));
    assert_eq!(node.store.finds(), 2);
    node.store.release(READ);
    assert_eq!(
        (late.await, early.await, later.await, beside.await),
        (Some(false), Some(true), Some(false), Some(true))
    );
    // Whichever of the two completed last.
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
    assert_eq!(node.store.in_flight(), 0);
}

#[tokio::test]
async fn a_revocation_by_another_node_counts_like_a_local_one() {
    let node = Node::new();
    let neighbour = node.other_node();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let early = begin(is_active(&node.cache, 1));
    neighbour.apply(&revoke(1)).await.unwrap();
    let late = begin(is_active(&node.cache, 1));
    node.store.release(READ);
    assert_eq!((early.await, late.await), (Some(true), Some(false)));
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
}

#[tokio::test]
async fn a_key_that_was_issued_during_a_lookup_is_not_cached_as_unknown() {
    let node = Node::new();
    node.store.hold(READ);
    let early = begin(is_active(&node.cache, 1));
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.release(READ);
    assert_eq!(early.await, None);
    assert_eq!(is_active(&node.cache, 1).await, Some(true));
}

#[tokio::test]
async fn a_key_that_was_given_a_new_digest_during_a_lookup_is_found_only_under_it() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let both = [digest(2), digest(1)];
    let (old, new) = (
        begin(node.cache.find(&both[1..])),
        begin(node.cache.find(&both[..1])),
    );
    let either = begin(node.cache.find(&both));
    let change = Change::Rehash {
        id: record(1).id,
        from: digest(1),
        to: digest(2),
    };
    node.cache
        .apply(&WriteBatch::new().change(change))
        .await
        .unwrap();
    node.store.release(READ);
    assert!(
        old.await.unwrap().is_some()
            && new.await.unwrap().is_none()
            && either.await.unwrap().is_some()
    );
    assert_eq!(
        node.cache.find(&both).await.unwrap().unwrap().digest(),
        &digest(2)
    );
    assert_eq!(
        (
            is_active(&node.cache, 1).await,
            is_active(&node.cache, 2).await
        ),
        (None, Some(true))
    );
}

#[tokio::test]
async fn a_cache_that_was_cleared_during_a_lookup_does_not_keep_its_answer() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let (known, unknown) = (
        begin(is_active(&node.cache, 1)),
        begin(is_active(&node.cache, 2)),
    );
    node.cache.clear();
    node.store.release(READ);
    assert_eq!((known.await, unknown.await), (Some(true), None));
    assert!(
        node.cache.find_now(&[digest(1)]).is_none() && node.cache.find_now(&[digest(2)]).is_none()
    );
}

#[tokio::test]
async fn changes_of_other_keys_rarely_cost_a_lookup() {
    let node = Node::new();
    for number in 0..65 {
        node.cache.apply(&insert(number)).await.unwrap();
    }
    for number in 1..65 {
        is_active(&node.cache, number).await;
    }
    let before = node.store.finds();
    node.cache.apply(&revoke(0)).await.unwrap();
    for number in 1..65 {
        assert_eq!(is_active(&node.cache, number).await, Some(true));
    }
    // Two of 4096 slots may collide by chance; more than a few would not be chance.
    assert!(
        node.store.finds() - before <= 3,
        "{}",
        node.store.finds() - before
    );
}

#[tokio::test]
async fn the_age_of_an_answer_counts_from_the_start_of_its_lookup() {
    let node = Node::without_bus();
    node.store.inner().apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let asked = begin(is_active(&node.cache, 1));
    node.store.inner().apply(&revoke(1)).await.unwrap(); // by another node
    node.clock.advance(Duration::from_millis(1999));
    node.store.release(READ);
    assert_eq!(asked.await, Some(true));
    assert_eq!(
        is_active(&node.cache, 1).await,
        Some(true),
        "within the bound"
    );
    node.clock.advance(Duration::from_millis(1));
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
}

#[tokio::test]
async fn no_request_joins_a_lookup_older_than_the_bound_on_staleness() {
    let node = Node::without_bus();
    node.store.inner().apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let early = begin(is_active(&node.cache, 1));
    node.store.inner().apply(&revoke(1)).await.unwrap(); // by another node
    node.clock.advance(Duration::from_secs(60));
    let late = begin(is_active(&node.cache, 1));
    node.store.release(READ);
    // A minute after a revocation, the key is never reported as active, however slow the store is.
    assert_eq!(late.await, Some(false));
    assert_eq!(early.await, Some(true));
}

// ---- single flight ----

#[tokio::test]
async fn a_thousand_concurrent_misses_of_one_digest_are_one_lookup() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    for number in [1, 2] {
        let before = node.store.finds();
        node.store.hold(READ);
        let all: Vec<_> = (0..1000)
            .map(|_| begin(is_active(&node.cache, number)))
            .collect();
        node.store.release(READ);
        let answers = join_all(all).await;
        assert!(
            answers
                .iter()
                .all(|answer| *answer == (number == 1).then_some(true))
        );
        assert_eq!(node.store.finds() - before, 1);
    }
    assert_eq!(node.store.in_flight(), 0);
}

#[tokio::test]
async fn a_thousand_concurrent_requests_with_one_key_are_one_lookup_and_all_pass() {
    let node = Node::new();
    let new = portunus::manage::NewKey::new("key", Owner::tenant(tenant("acme")));
    let key = node.manager().issue(new).await.unwrap().key.reveal();
    let authenticator = Setup::on(node.cache.clone())
        .bearer([format()])
        .build()
        .unwrap();
    let head = portunus_test_support::Head::bearer(&key);
    node.store.hold(READ);
    let before = node.store.finds();
    let all: Vec<_> = (0..1000)
        .map(|_| begin(authenticator.authenticate(&head)))
        .collect();
    node.store.release(READ);
    assert!(
        join_all(all)
            .await
            .into_iter()
            .all(|outcome| outcome.is_ok())
    );
    assert_eq!(node.store.finds() - before, 1);
}

/// Blocks the second reading of the time after it was set, until released.
#[derive(Debug, Clone, Default)]
struct StoppingClock(Arc<(AtomicUsize, AtomicBool, AtomicBool)>);

impl Clock for StoppingClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    fn monotonic(&self) -> Duration {
        let (countdown, stopped, go_on) = &*self.0;
        if countdown.load(Ordering::SeqCst) > 0 && countdown.fetch_sub(1, Ordering::SeqCst) == 1 {
            stopped.store(true, Ordering::SeqCst);
            while !go_on.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
        Duration::from_secs(1_000_000)
    }
}

#[tokio::test]
async fn a_miss_whose_answer_arrived_before_it_could_join_causes_no_lookup() {
    let (clock, store) = (StoppingClock::default(), FaultyStore::new());
    let cache = Cache::new()
        .bus(LocalBus::new())
        .around(store.clone(), clock.clone());
    cache.apply(&insert(1)).await.unwrap();
    store.hold(READ);
    let first = begin(is_active(&cache, 1));
    // The second lookup misses (it reads the time once), and is overtaken before it joins (when it
    // reads the time again).
    clock.0.0.store(2, Ordering::SeqCst);
    let second = std::thread::spawn({
        let cache = cache.clone();
        move || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(is_active(&cache, 1))
        }
    });
    until("the clock stops it", || clock.0.1.load(Ordering::SeqCst));
    store.release(READ);
    assert_eq!(first.await, Some(true));
    clock.0.2.store(true, Ordering::SeqCst);
    assert_eq!(second.join().unwrap(), Some(true));
    assert_eq!(store.finds(), 1);
}

#[tokio::test]
async fn an_outage_is_returned_to_all_waiters_and_not_cached() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    let down = || StoreError::unavailable("the connection was lost");
    for (error, is_corrupt) in [(down as fn() -> StoreError, false), (corrupt, true)] {
        let before = node.store.finds();
        node.store.hold(READ);
        node.store.fail_with(READ, error);
        let list = [digest(1)];
        let all: Vec<_> = (0..10).map(|_| begin(node.cache.find(&list))).collect();
        node.store.release(READ);
        for answer in join_all(all).await {
            let error = answer.unwrap_err();
            assert_eq!(
                (error.is_corrupt(), error.as_rejected()),
                (is_corrupt, None)
            );
        }
        assert_eq!(
            (node.store.finds() - before, node.store.in_flight()),
            (1, 0)
        );
        node.store.recover();
        assert_eq!(is_active(&node.cache, 1).await, Some(true));
        assert_eq!(node.store.finds() - before, 2);
        node.cache.clear();
    }
}

#[tokio::test]
async fn an_outage_after_an_answer_leaves_the_answer() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    is_active(&node.cache, 1).await;
    node.store.fail(READ);
    assert_eq!(is_active(&node.cache, 1).await, Some(true));
    assert!(node.cache.find(&[digest(2)]).await.is_err());
    node.cache.apply(&revoke(1)).await.unwrap();
    assert!(
        node.cache.find(&[digest(1)]).await.is_err(),
        "the old answer is no answer any more"
    );
}

// ---- abandoned lookups ----

#[tokio::test]
async fn the_first_requester_may_disconnect_and_the_others_are_answered() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    let ask = || {
        tokio::spawn({
            let cache = node.cache.clone();
            async move { is_active(&cache, 1).await }
        })
    };
    let (first, second, third) = (ask(), ask(), ask());
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    node.store.release(READ);
    assert_eq!(
        (soon(second).await.unwrap(), soon(third).await.unwrap()),
        (Some(true), Some(true))
    );
    assert_eq!((node.store.finds(), node.store.in_flight()), (1, 0));
}

#[tokio::test]
async fn a_lookup_without_waiters_is_dropped() {
    let node = Node::new();
    node.store.hold(READ);
    // A flood of unknown keys from clients that disconnect at once must not hold connections of the
    // store or memory.
    for number in 0..1000 {
        drop(begin(is_active(&node.cache, number)));
    }
    assert_eq!(node.store.in_flight(), 0);
}

#[tokio::test]
async fn an_abandoned_answer_is_not_returned_to_a_much_later_request() {
    let node = Node::without_bus();
    node.store.inner().apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    drop(begin(is_active(&node.cache, 1)));
    node.store.inner().apply(&revoke(1)).await.unwrap(); // by another node
    node.clock.advance(Duration::from_secs(3600));
    node.store.release(READ);
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
}

#[test]
fn an_abandoned_lookup_does_not_block_requests_after_a_change() {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(async {
                let node = Node::new();
                node.cache.apply(&insert(1)).await.unwrap();
                node.store.hold(READ);
                drop(begin(is_active(&node.cache, 1)));
                node.cache.apply(&revoke(1)).await.unwrap();
                node.store.release(READ);
                done.send(is_active(&node.cache, 1).await).unwrap();
            });
    });
    assert_eq!(
        ended
            .recv_timeout(PATIENCE)
            .expect("the call returns in time"),
        Some(false)
    );
}

#[tokio::test]
async fn a_panic_in_the_store_leaves_no_waiter_and_no_state_behind() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.hold(READ);
    node.store.fail_with(READ, || panic!("a store with a bug"));
    let ask = || {
        tokio::spawn({
            let cache = node.cache.clone();
            async move { cache.find(&[digest(1)]).await }
        })
    };
    let all = [ask(), ask(), ask()];
    tokio::task::yield_now().await;
    node.store.release(READ);
    for asked in all {
        // Its own panic, or an error; not a key, and not an endless wait.
        assert!(!matches!(soon(asked).await, Ok(Ok(_))));
    }
    assert_eq!(node.store.in_flight(), 0);
    node.store.recover();
    assert_eq!(soon(is_active(&node.cache, 1)).await, Some(true));
}

#[tokio::test]
async fn a_request_that_joins_while_the_store_panics_does_not_wait_forever() {
    let node = Node::new();
    let go_on = Arc::new(AtomicBool::new(false));
    node.store.fail_with(FIND, {
        let go_on = Arc::clone(&go_on);
        move || {
            while !go_on.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            panic!("a store with a bug")
        }
    });
    let first = std::thread::spawn({
        let cache = node.cache.clone();
        move || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(is_active(&cache, 1))
        }
    });
    until("the store is asked", || node.store.finds() > 0);
    let cache = node.cache.clone();
    let second = tokio::spawn(async move { cache.find(&[digest(1)]).await });
    tokio::task::yield_now().await;
    go_on.store(true, Ordering::SeqCst);
    assert!(first.join().is_err());
    assert!(!matches!(soon(second).await, Ok(Ok(_))));
}

// ---- writes with an unknown result ----

/// A node and its neighbor that both have a key in their caches.
async fn two_nodes_with_a_cached_key() -> (Node, CachedStore) {
    let node = Node::new();
    let neighbour = node.other_node();
    node.cache.apply(&insert(1)).await.unwrap();
    assert_eq!(
        (
            is_active(&node.cache, 1).await,
            is_active(&neighbour, 1).await
        ),
        (Some(true), Some(true))
    );
    (node, neighbour)
}

#[tokio::test]
async fn a_write_that_was_applied_without_an_answer_is_effective_everywhere() {
    let (node, neighbour) = two_nodes_with_a_cached_key().await;
    node.store.fail(WRITTEN);
    assert!(node.cache.apply(&revoke(1)).await.is_err());
    assert_eq!(
        (
            is_active(&node.cache, 1).await,
            is_active(&neighbour, 1).await
        ),
        (Some(false), Some(false))
    );
}

#[tokio::test]
async fn a_write_whose_operator_disconnected_is_effective_on_this_node() {
    let (node, _) = two_nodes_with_a_cached_key().await;
    node.store.hold(WRITTEN);
    drop(begin(node.cache.apply(&revoke(1))));
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
}

#[tokio::test]
async fn a_write_whose_operator_disconnected_is_published_at_the_next_opportunity() {
    let (node, neighbour) = two_nodes_with_a_cached_key().await;
    node.store.hold(WRITTEN);
    drop(begin(node.cache.apply(&revoke(1))));
    node.cache.publish_outbox().await.unwrap();
    assert_eq!(is_active(&neighbour, 1).await, Some(false));
}

#[tokio::test]
async fn a_write_that_panicked_after_it_was_applied_is_published_at_the_next_opportunity() {
    let (node, neighbour) = two_nodes_with_a_cached_key().await;
    node.store
        .fail_with(WRITTEN, || panic!("a store with a bug"));
    let cache = node.cache.clone();
    assert!(
        tokio::spawn(async move { cache.apply(&revoke(1)).await })
            .await
            .unwrap_err()
            .is_panic()
    );
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
    node.cache.publish_outbox().await.unwrap();
    assert_eq!(is_active(&neighbour, 1).await, Some(false));
}

#[tokio::test]
async fn a_revocation_that_was_applied_late_and_then_acknowledged_holds_for_the_next_request() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    node.store.fail(APPLY);
    assert!(node.manager().revoke(&record(1).id, None).await.is_err());
    assert_eq!(
        is_active(&node.cache, 1).await,
        Some(true),
        "not applied yet, and remembered"
    );
    node.store.inner().apply(&revoke(1)).await.unwrap();
    // The retry reports that the key is revoked.
    node.store.recover();
    assert!(
        node.manager()
            .revoke(&record(1).id, None)
            .await
            .unwrap()
            .record
            .revoked
            .is_some()
    );
    assert_eq!(is_active(&node.cache, 1).await, Some(false));
}

#[tokio::test]
async fn a_rejected_write_is_reported_and_leaves_the_cache_correct() {
    let (node, neighbour) = two_nodes_with_a_cached_key().await;
    let mut wrong = record(1);
    wrong.version = 9;
    let error = node
        .cache
        .apply(&WriteBatch::new().update(wrong))
        .await
        .unwrap_err();
    assert!(error.as_rejected().is_some());
    let before = node.store.finds();
    assert_eq!(
        (
            is_active(&node.cache, 1).await,
            is_active(&neighbour, 1).await
        ),
        (Some(true), Some(true))
    );
    assert!(node.store.finds() - before <= 1);
}

// ---- writes that commit after their caller is gone ----

#[tokio::test]
async fn a_write_that_is_cancelled_and_committed_later_holds_for_the_next_request() {
    for cancelled in [true, false] {
        let (node, neighbour) = two_nodes_with_a_cached_key().await;
        // The write is on its way to the database when its caller is dropped, or receives no
        // result.
        if cancelled {
            node.store.hold(APPLY);
            drop(begin(node.cache.apply(&revoke(1))));
            node.store.release(APPLY);
        } else {
            node.store.fail(APPLY);
            assert!(node.cache.apply(&revoke(1)).await.is_err());
            node.store.recover();
        }
        node.cache.publish_outbox().await.unwrap();
        for _ in 0..3 {
            assert_eq!(
                is_active(&node.cache, 1).await,
                Some(true),
                "not committed yet"
            );
            assert_eq!(is_active(&neighbour, 1).await, Some(true));
        }
        node.clock.advance(Duration::from_millis(1500));
        node.store.inner().apply(&revoke(1)).await.unwrap();
        assert_eq!(
            is_active(&node.cache, 1).await,
            Some(false),
            "committed now"
        );
        // Other nodes are notified at the next opportunity.
        node.cache.publish_outbox().await.unwrap();
        assert_eq!(is_active(&neighbour, 1).await, Some(false));
    }
}

#[tokio::test]
async fn a_key_in_doubt_is_looked_up_until_the_doubt_is_over_and_others_are_remembered() {
    let node = Node::new();
    for number in [1, 2] {
        node.cache.apply(&insert(number)).await.unwrap();
    }
    node.store.hold(APPLY);
    drop(begin(node.cache.apply(&revoke(1))));
    let looked_up = async |number| {
        let before = node.store.finds();
        for _ in 0..3 {
            assert_eq!(is_active(&node.cache, number).await, Some(true));
        }
        node.store.finds() - before
    };
    assert_eq!((looked_up(1).await, looked_up(2).await), (3, 1));
    for _ in 0..59 {
        node.clock.advance(Duration::from_secs(1));
        assert_eq!(looked_up(1).await, 3);
    }
    // A lookup that began while the result was unknown is not cached after it.
    node.store.hold(READ);
    let early = begin(is_active(&node.cache, 1));
    node.clock.advance(Duration::from_secs(2));
    node.store.release(READ);
    assert_eq!(early.await, Some(true));
    assert!(node.cache.find_now(&[digest(1)]).is_none());
    assert_eq!(looked_up(1).await, 1, "the doubt is over");
}

#[tokio::test]
async fn a_write_that_ended_leaves_no_doubt() {
    let node = Node::new();
    node.cache.apply(&insert(1)).await.unwrap();
    let mut wrong = record(1);
    wrong.version = 9;
    let rejected = WriteBatch::new().update(wrong);
    node.cache.apply(&rejected).await.unwrap_err();
    let before = node.store.finds();
    for _ in 0..3 {
        is_active(&node.cache, 1).await;
    }
    assert_eq!(node.store.finds() - before, 1);
}

// ---- many threads ----

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_request_that_begins_after_a_revocation_was_acknowledged_is_let_in() {
    const ROUNDS: u64 = 10_000;
    let cache = Cache::new()
        .bus(LocalBus::new())
        .capacity(1000)
        .unknown_capacity(100)
        .around(MemoryStore::new(), SystemClock::default());
    let revoked_below = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2_u64)
        .map(|reader| {
            let (cache, revoked_below, over) =
                (cache.clone(), Arc::clone(&revoked_below), Arc::clone(&over));
            tokio::spawn(async move {
                let mut asked = 0_u64;
                while !over.load(Ordering::SeqCst) {
                    let below = revoked_below.load(Ordering::SeqCst) as u64;
                    // The key that is being issued and revoked right now, and one that was just
                    // issued.
                    let number = if (asked + reader).is_multiple_of(2) {
                        below
                    } else {
                        below.saturating_sub(1)
                    };
                    let answer = is_active(&cache, number).await;
                    assert!(
                        number >= below || answer == Some(false),
                        "key {number} of {below}: {answer:?}"
                    );
                    asked += 1;
                    if asked.is_multiple_of(64) {
                        tokio::task::yield_now().await;
                    }
                }
                asked
            })
        })
        .collect();
    let begun = std::time::Instant::now();
    for number in 0..ROUNDS {
        cache.apply(&insert(number)).await.unwrap();
        assert_eq!(is_active(&cache, number).await, Some(true));
        cache.apply(&revoke(number)).await.unwrap();
        revoked_below.store(usize::try_from(number).unwrap() + 1, Ordering::SeqCst);
        assert_eq!(is_active(&cache, number).await, Some(false));
        if begun.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}
