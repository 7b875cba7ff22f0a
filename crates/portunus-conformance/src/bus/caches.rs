//! What a bus is for: what is changed through the cache of one node, the cache of the other one
//! knows within the bound.

use portunus::clock::SystemClock;
use portunus::store::KeyLookup;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::nodes::{BusNodes, digest, id, insert};
use super::recording_listener::EVERY;
use crate::report::{Checked, Failure};
use portunus::key::{KeyDigest, Revocation};
use portunus::store::{Cache, CachedStore, KeyStore, WriteBatch};

checks!(CHECKS: BusNodes {
    "a key that is revoked on one node is refused on the other within the bound"
        => revoked_elsewhere rests on [truth],
    "a key that was unknown on one node is found there within the bound after it came on the \
     other"
        => inserted_elsewhere rests on [truth, exactly],
});

const ROUNDS: u64 = 8;

/// The caches of two nodes that find each other well, or have waited for it long enough.
pub(super) async fn caches(nodes: &BusNodes) -> [CachedStore; 2] {
    let [here, there] = nodes.stores();
    let cache = |store: Arc<dyn KeyStore>, bus| {
        Cache::new()
            .bus(bus)
            .staleness(nodes.bound)
            .around(store, SystemClock::default())
    };
    let caches = [
        cache(here, Arc::clone(&nodes.here.bus)),
        cache(there, Arc::clone(&nodes.there.bus)),
    ];
    let started = Instant::now();
    while caches.iter().any(|cache| !cache.is_healthy()) && started.elapsed() < nodes.bound {
        tokio::time::sleep(EVERY).await;
    }
    caches
}

/// Whether a key is let in. No answer lets nobody in.
pub(super) async fn is_let_in(cache: &CachedStore, digest: KeyDigest, longest: Duration) -> bool {
    let digests = [digest];
    let Ok(Ok(Some(found))) = tokio::time::timeout(longest, cache.find(&digests)).await else {
        return false;
    };
    found.record().revoked.is_none()
}

/// Waits until a key is let in or is not; what is asked later than the bound after a moment must be
/// answered so.
pub(super) async fn becomes(
    cache: &CachedStore,
    digest: KeyDigest,
    expected: bool,
    acknowledged: Instant,
    bound: Duration,
) -> Checked {
    loop {
        let asked = Instant::now();
        if is_let_in(cache, digest, bound).await == expected {
            return Ok(());
        }
        let late = asked.saturating_duration_since(acknowledged);
        let seen = if expected {
            "still unknown"
        } else {
            "still let in"
        };
        ensure!(
            late <= bound,
            "{late:?} after the change was acknowledged the key is {seen}"
        );
        tokio::time::sleep(EVERY).await;
    }
}

/// Revokes a key through a cache; returns when that was acknowledged.
pub(super) async fn revoke(cache: &CachedStore, name: &str) -> Result<Instant, Failure> {
    let listed = cache
        .get(&id(name))
        .await?
        .ok_or_else(|| Failure::new(format!("there is no key {name}")))?;
    let mut record = (*listed).clone();
    record.revoked = Some(Revocation::new(
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_100),
        None,
    ));
    cache.apply(&WriteBatch::new().update(record)).await?;
    Ok(Instant::now())
}

async fn revoked_elsewhere(nodes: BusNodes) -> Checked {
    let [here, there] = caches(&nodes).await;
    for number in 0..ROUNDS {
        let (writer, reader) = if number % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        let name = format!("key{number}");
        writer
            .apply(&WriteBatch::new().change(insert(number, &name)))
            .await?;
        for cache in [writer, reader] {
            ensure!(
                is_let_in(cache, digest(number), nodes.bound).await,
                "the key {name} is not let in"
            );
        }
        let acknowledged = revoke(writer, &name).await?;
        let at_once = is_let_in(writer, digest(number), nodes.bound).await;
        ensure!(!at_once, "the key {name} is let in where it was revoked");
        becomes(reader, digest(number), false, acknowledged, nodes.bound).await?;
    }
    Ok(())
}

async fn inserted_elsewhere(nodes: BusNodes) -> Checked {
    let [here, there] = caches(&nodes).await;
    for number in 0..ROUNDS {
        let (writer, reader) = if number % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        for cache in [writer, reader] {
            ensure!(
                !is_let_in(cache, digest(number), nodes.bound).await,
                "key {number} is let in before it is there"
            );
        }
        writer
            .apply(&WriteBatch::new().change(insert(number, &format!("key{number}"))))
            .await?;
        becomes(reader, digest(number), true, Instant::now(), nodes.bound).await?;
    }
    Ok(())
}
