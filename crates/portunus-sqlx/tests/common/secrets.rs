//! A secret that is stored under several digests, with caches on several nodes that learn of
//! changes only through the database.

use std::sync::Arc;

use portunus::clock::SystemClock;
use portunus::key::KeyHasher;
use portunus::store::{Cache, CachedStore, InvalidationBus, StoredKey};

use super::recording_listener::RecordingListener;
use super::*;

/// Longer than any test waits: changes seen earlier came from the bus.
const NEVER: Duration = Duration::from_secs(600);

/// The digests of a secret, newest scheme first, as random as real digests.
fn secret(number: u32) -> [KeyDigest; 3] {
    let of = |scheme| {
        let text = format!("{scheme} {number}");
        KeyDigest::new(scheme, KeyHasher::sha256().digest(&text).to_bytes())
    };
    [
        of(DigestScheme::HmacSha256 { pepper: 2 }),
        of(DigestScheme::HmacSha256 { pepper: 1 }),
        of(DigestScheme::Sha256),
    ]
}

fn under(digest: KeyDigest, name: &str) -> Change {
    insert(digest, record(name))
}

fn seen_as(found: Option<Arc<StoredKey>>) -> Option<(String, bool)> {
    let stored = found?;
    let record = stored.record();
    Some((record.id.to_string(), record.revoked.is_none()))
}

struct Node<S> {
    store: S,
    cache: CachedStore,
    listener: Arc<RecordingListener>,
}

/// The writing node answers correctly at once, and the other one as soon as it has been notified.
async fn answer<S>(
    nodes: &[Node<S>; 2],
    asked: &[KeyDigest],
    expected: Option<(&str, bool)>,
    what: &str,
) {
    let expected = expected.map(|(name, stands)| (name.to_owned(), stands));
    let [here, there] = nodes;
    let found = seen_as(here.cache.find(asked).await.unwrap());
    assert_eq!(found, expected, "on the same node, {what}");
    let is_so = async || {
        let found = seen_as(there.cache.find(asked).await.unwrap());
        (found == expected).then_some(())
    };
    let seen = eventually_async(is_so).await;
    assert!(seen.is_some(), "not on the other node: {what}");
    // Both cache it once they have caught up, so that the next change has an entry to invalidate.
    tokio::join!(
        here.listener.wait_for_proof(),
        there.listener.wait_for_proof()
    );
    for node in nodes {
        node.cache.find(asked).await.unwrap();
        assert!(node.cache.find_now(asked).is_some(), "not cached, {what}");
    }
}

/// Two nodes on one database, each with a store and a bus: whichever key of a cached secret is
/// imported, revoked, deleted or rehashed, both answer as the store does.
pub(crate) async fn changes_to_any_key_of_a_secret_reach_every_cache<S, B>(nodes: [(S, B); 2])
where
    S: KeyStore + Clone,
    B: InvalidationBus,
{
    let nodes = nodes.map(|(store, bus)| {
        let listener = RecordingListener::on(&bus);
        let cache = Cache::new().bus(bus).time_to_live(NEVER).staleness(NEVER);
        let cache = cache.around(store.clone(), SystemClock::default());
        Node {
            store,
            cache,
            listener,
        }
    });
    for node in &nodes {
        until_async("the bus is healthy", || node.cache.is_healthy()).await;
    }
    let here = &nodes[0].cache;
    let make = async |change: Change| here.apply(&batch([change])).await.unwrap();
    let revoke = async |name: &str| {
        let mut revoked = get(&nodes[0].store, name).await;
        revoked.revoked = Some(Revocation::new(at(2_000), None));
        here.apply(&WriteBatch::new().update(revoked))
            .await
            .unwrap();
    };

    // Unknown, then imported under the oldest digest and under newer ones.
    let asked = secret(1);
    answer(&nodes, &asked, None, "before anything").await;
    make(under(asked[2], "oldest")).await;
    answer(&nodes, &asked, Some(("oldest", true)), "imported").await;
    make(under(asked[0], "newest")).await;
    answer(&nodes, &asked, Some(("newest", true)), "imported newer").await;
    make(under(asked[1], "middle")).await;
    // Whether or not each has seen the third one.
    revoke("middle").await;
    let revoked = Some(("middle", false));
    answer(&nodes, &asked, revoked, "imported in addition, and revoked").await;
    revoke("newest").await;
    answer(&nodes, &asked, Some(("newest", false)), "revoked itself").await;
    make(Change::Delete(id("oldest"))).await;
    answer(&nodes, &asked, None, "an older one deleted").await;

    // Imported, revoked and deleted in sequence, each of which is seen.
    let asked = secret(2);
    make(under(asked[0], "first")).await;
    answer(&nodes, &asked, Some(("first", true)), "the first").await;
    make(under(asked[2], "second")).await;
    answer(&nodes, &asked, Some(("first", true)), "with a second").await;
    revoke("second").await;
    answer(&nodes, &asked, Some(("second", false)), "second revoked").await;
    let elsewhere = secret(3)[2];
    make(rehash("second", asked[2], elsewhere)).await;
    answer(&nodes, &asked, Some(("first", true)), "second moved away").await;
    make(rehash("second", elsewhere, asked[1])).await;
    answer(&nodes, &asked, Some(("second", false)), "second is back").await;
    make(rehash("second", asked[1], secret(3)[1])).await;
    answer(
        &nodes,
        &asked,
        Some(("first", true)),
        "second deleted again",
    )
    .await;
    make(Change::Delete(id("second"))).await;
    answer(
        &nodes,
        &asked,
        None,
        "second, which had its digests, deleted",
    )
    .await;
}
