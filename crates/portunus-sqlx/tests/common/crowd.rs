//! Many concurrent writers on two stores of one database: each one that loses is rejected, and
//! nothing is partially applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Runs tasks concurrently, alternating between two stores; returns how each ended.
async fn crowd<H: Home, F>(
    home: &H,
    count: u32,
    task: impl Fn(H::Store, u32) -> F,
) -> Vec<Result<(), Rejected>>
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let stores = [home.open().await, home.open().await];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let task = task(stores[(number % 2) as usize].clone(), number);
        tasks.spawn(async move { (number, task.await) });
    }
    let ended = |done: Result<(), StoreError>| {
        done.map_err(|error| {
            error
                .as_rejected()
                .cloned()
                .unwrap_or_else(|| panic!("no answer: {error:?}"))
        })
    };
    let mut done = tasks.join_all().await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, done)| ended(done)).collect()
}

fn winners(done: &[Result<(), Rejected>]) -> usize {
    done.iter().filter(|done| done.is_ok()).count()
}

pub(crate) async fn a_quota_of_4_admits_4_of_200_concurrent_keys(home: &impl Home) {
    let done = crowd(home, 200, |store, number| async move {
        let insert = insert(digest(number), record(&format!("key{number}")));
        store.apply(&batch([insert]).require(at_most(4))).await
    })
    .await;
    assert_eq!(winners(&done), 4);
    let full = Rejected::TooManyActive {
        active: 5,
        limit: 4,
    };
    assert!(
        done.iter()
            .all(|done| done.as_ref().err().is_none_or(|why| *why == full)),
        "{done:?}"
    );
    assert_eq!(all(&home.open().await).await.len(), 4);
}

pub(crate) async fn one_of_50_updates_of_one_version_succeeds(home: &impl Home) {
    let store = with_a(home).await;
    for round in 1..=3 {
        let done = crowd(home, 50, |store, number| async move {
            let mut mine = record("a");
            mine.version = round;
            mine.name = format!("writer {number}").into();
            store.apply(&WriteBatch::new().update(mine)).await
        })
        .await;
        assert_eq!(winners(&done), 1);
        let stored = get(&store, "a").await;
        let winner = done.iter().position(Result::is_ok).unwrap();
        assert_eq!(
            (stored.version, stored.name.as_str()),
            (round + 1, format!("writer {winner}").as_str())
        );
    }
}

pub(crate) async fn one_of_many_concurrent_changes_of_a_primary_key_succeeds(home: &impl Home) {
    let store = with_a(home).await;
    let keys = (0..30).map(|number| insert(digest(100 + number), record(&format!("key{number}"))));
    let set_a = Change::SetPrimary {
        owner: acme(),
        key: id("a"),
    };
    store.apply(&batch(keys.chain([set_a]))).await.unwrap();
    let done = crowd(home, 30, |store, number| async move {
        let set = Change::SetPrimary {
            owner: acme(),
            key: id(&format!("key{number}")),
        };
        let still_a = Condition::Primary {
            owner: acme(),
            key: Some(id("a")),
            at: at(1_000),
        };
        store.apply(&batch([set]).require(still_a)).await
    })
    .await;
    assert_eq!(winners(&done), 1);
    let winner = done.iter().position(Result::is_ok).unwrap();
    assert_eq!(
        store.primary(&acme(), at(1_000)).await.unwrap(),
        Some(id(&format!("key{winner}")))
    );
}

pub(crate) async fn pinned_while_keys_are_revoked_there_is_always_one_primary(home: &impl Home) {
    let store = home.open().await;
    let keys = (0..20_u32).map(|number| {
        let mut record = record(&format!("key{number:02}"));
        record.created_at = at(u64::from(number));
        insert(digest(number), record)
    });
    store.apply(&batch(keys)).await.unwrap();
    let (watcher, over) = (home.open().await, Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&over);
    let watching = tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            let primary = watcher.primary(&acme(), at(1_000)).await.unwrap();
            assert!(primary.is_some(), "key00 is never revoked");
        }
    });
    let done = crowd(home, 19, |store, number| async move {
        let mut mine = get(&store, &format!("key{:02}", number + 1)).await;
        mine.revoked = Some(Revocation::new(at(1_000), None));
        let pin = Change::PinPrimary {
            owner: acme(),
            at: at(1_000),
        };
        store
            .apply(&WriteBatch::new().update(mine).change(pin))
            .await
    })
    .await;
    over.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    assert_eq!(winners(&done), 19);
    assert_eq!(
        store.primary(&acme(), at(1_000)).await.unwrap(),
        Some(id("key00"))
    );
}

pub(crate) async fn a_key_that_moves_between_digests_is_found_at_every_moment(home: &impl Home) {
    let store = with_a(home).await;
    let digests: Vec<_> = (1..=40).map(digest).collect();
    let (reader, over) = (home.open().await, Arc::new(AtomicBool::new(false)));
    let (ended, candidates) = (Arc::clone(&over), digests.clone());
    let reading = tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            assert!(reader.find(&candidates).await.unwrap().is_some());
        }
    });
    for step in digests.windows(2) {
        store
            .apply(&batch([rehash("a", step[0], step[1])]))
            .await
            .unwrap();
        tokio::task::yield_now().await;
    }
    over.store(true, Ordering::Relaxed);
    reading.await.unwrap();
}

pub(crate) async fn one_id_or_digest_inserted_by_many_is_inserted_once(home: &impl Home) {
    // Each in its own tenant, so that only the id or the digest is shared.
    let of = |name: String, number: u32| {
        let mut record = record(&name);
        record.owner = Owner::tenant(tenant(&format!("tenant{number}")));
        record
    };
    let done = crowd(home, 20, |store, number| async move {
        store
            .apply(&batch([insert(
                digest(1),
                of(format!("key{number}"), number),
            )]))
            .await
    })
    .await;
    assert_eq!(winners(&done), 1);
    assert!(
        done.iter().all(|done| done
            .as_ref()
            .err()
            .is_none_or(|why| *why == Rejected::DigestKnown)),
        "{done:?}"
    );
    let done = crowd(home, 20, |store, number| async move {
        store
            .apply(&batch([insert(
                digest(100 + number),
                of("same".into(), number),
            )]))
            .await
    })
    .await;
    assert_eq!(winners(&done), 1);
    let known = Rejected::IdKnown(id("same"));
    assert!(
        done.iter()
            .all(|done| done.as_ref().err().is_none_or(|why| *why == known)),
        "{done:?}"
    );
}

pub(crate) async fn batches_with_the_same_keys_in_different_orders_do_not_deadlock(
    home: &impl Home,
) {
    let store = home.open().await;
    let of = |number: u32| {
        let mut record = record(&format!("key{number}"));
        record.owner = Owner::tenant(tenant(&format!("tenant{}", number % 5)));
        insert(digest(number), record)
    };
    store.apply(&batch((0..10).map(of))).await.unwrap();
    let done = crowd(home, 40, |store, number| async move {
        let mut order: Vec<u32> = (0..10).collect();
        order.rotate_left((number % 10) as usize);
        if number % 2 == 0 {
            order.reverse();
        }
        let sign = |key: u32| Change::SetSigning {
            id: id(&format!("key{key}")),
            state: Some(signing(1)),
        };
        // New digests too, in both orders: where two transactions insert the same one, the second
        // one waits.
        let fresh = order.iter().map(|key| {
            let mut record = record(&format!("fresh{number}-{key}"));
            record.owner = Owner::tenant(tenant(&format!("fresh{number}")));
            insert(digest(1_000 + number * 10 + key), record)
        });
        store
            .apply(&batch(order.iter().map(|key| sign(*key)).chain(fresh)))
            .await
    })
    .await;
    assert_eq!(winners(&done), 40);
    let done = crowd(home, 20, |store, number| async move {
        let mut order: Vec<u32> = (0..10).collect();
        if number % 2 == 0 {
            order.reverse();
        }
        let same = order.iter().map(|key| {
            let mut record = record(&format!("last{number}-{key}"));
            record.owner = Owner::tenant(tenant(&format!("last{number}")));
            insert(digest(9_000 + key), record)
        });
        store.apply(&batch(same)).await
    })
    .await;
    assert_eq!(
        winners(&done),
        1,
        "one of those who insert the same ten digests: {done:?}"
    );
}
