//! The purpose of a bus: a change through the cache of one node takes effect in the cache of the
//! other within the bound.

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
    "a key revoked on one node is refused on the other within the bound"
        => revoked_elsewhere depends on [truth],
    "a key unknown to one node is found there within the bound after its insertion on the other"
        => inserted_elsewhere depends on [truth, exactly],
});

const ROUNDS: u64 = 8;

/// The caches of two nodes, once both are healthy or the bound has passed.
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

/// Whether a key is admitted. Without an answer it is not.
pub(super) async fn is_admitted(cache: &CachedStore, digest: KeyDigest, longest: Duration) -> bool {
    let digests = [digest];
    let Ok(Ok(Some(found))) = tokio::time::timeout(longest, cache.find(&digests)).await else {
        return false;
    };
    found.record().revoked.is_none()
}

/// Waits until a key is admitted or refused, as expected; a request later than the bound after a
/// given moment must be answered so.
pub(super) async fn becomes(
    cache: &CachedStore,
    digest: KeyDigest,
    expected: bool,
    acknowledged: Instant,
    bound: Duration,
) -> Checked {
    loop {
        let asked = Instant::now();
        if is_admitted(cache, digest, bound).await == expected {
            return Ok(());
        }
        let late = asked.saturating_duration_since(acknowledged);
        let seen = if expected {
            "still unknown"
        } else {
            "still admitted"
        };
        ensure!(
            late <= bound,
            "{late:?} after the change was acknowledged the key is {seen}"
        );
        tokio::time::sleep(EVERY).await;
    }
}

/// Revokes a key through a cache; returns when this was acknowledged.
pub(super) async fn revoke(cache: &CachedStore, name: &str) -> Result<Instant, Failure> {
    let listed = cache
        .get(&id(name))
        .await?
        .ok_or_else(|| Failure::new(format!("key {name} does not exist")))?;
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
                is_admitted(cache, digest(number), nodes.bound).await,
                "the key {name} is not admitted"
            );
        }
        let acknowledged = revoke(writer, &name).await?;
        let at_once = is_admitted(writer, digest(number), nodes.bound).await;
        ensure!(
            !at_once,
            "the key {name} is admitted on the node that revoked it"
        );
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
                !is_admitted(cache, digest(number), nodes.bound).await,
                "key {number} is admitted before it exists"
            );
        }
        writer
            .apply(&WriteBatch::new().change(insert(number, &format!("key{number}"))))
            .await?;
        becomes(reader, digest(number), true, Instant::now(), nodes.bound).await?;
    }
    Ok(())
}
