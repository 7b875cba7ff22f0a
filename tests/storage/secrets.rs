//! A secret with several digests behind the cache: if one of its keys is imported, revoked, deleted
//! or given another digest, the next request on every node is answered like the store without a
//! cache, whatever that node has cached.

use portunus::clock::SystemClock;
use portunus::store::KeyLookup;
use std::sync::Arc;
use std::time::Instant;

use portunus::ErrorCode;
use portunus::key::{DigestScheme, KeyDigest, KeyHasher, Owner, Pepper, Revocation};
use portunus::manage::{ImportedDigest, NewImport, NewKey};
use portunus::store::{
    Cache, CachedStore, Change, Invalidation, InvalidationListener, KeyStore, LocalBus,
    MemoryStore, StoreError, StoredKey, WriteBatch,
};
use portunus::testing::ManualClock;
use portunus_test_support::gated::{Node, READ, begin, record};
use portunus_test_support::{Head, Setup, format, live, tenant};

/// The digests of one secret, the newest scheme first.
fn secret() -> [KeyDigest; 3] {
    let of = |scheme, byte| KeyDigest::new(scheme, [byte; 32]);
    [
        of(DigestScheme::HmacSha256 { pepper: 2 }, 2),
        of(DigestScheme::HmacSha256 { pepper: 1 }, 1),
        of(DigestScheme::Sha256, 0),
    ]
}

/// The digest of the key of another secret.
fn elsewhere() -> KeyDigest {
    KeyDigest::new(DigestScheme::Sha256, [9; 32])
}

/// Key `number` of this tenant under this digest.
fn import_for(owner: &str, number: u64, digest: KeyDigest) -> WriteBatch {
    let mut record = record(number);
    record.owner = Owner::tenant(tenant(owner));
    WriteBatch::new().change(Change::Insert {
        digest,
        record: Box::new(record),
    })
}

fn import(number: u64, digest: KeyDigest) -> WriteBatch {
    import_for("acme", number, digest)
}

async fn revoke(store: &impl KeyStore, number: u64) {
    let stored = store.get(&record(number).id).await.unwrap().unwrap();
    let mut revoked = (*stored).clone();
    revoked.revoked = Some(Revocation::new(revoked.created_at, None));
    store
        .apply(&WriteBatch::new().update(revoked))
        .await
        .unwrap();
}

async fn change(store: &impl KeyStore, change: Change) {
    let batch = WriteBatch::new().change(change);
    store.apply(&batch).await.unwrap();
}

/// Returns the number of the secret's key, and whether it is active.
fn told(found: Result<Option<Arc<StoredKey>>, StoreError>) -> Option<(String, bool)> {
    let stored = found.unwrap()?;
    let record = stored.record();
    Some((record.id.to_string(), record.revoked.is_none()))
}

fn key(number: u64, stands: bool) -> Option<(String, bool)> {
    Some((record(number).id.to_string(), stands))
}

/// Two nodes of one process.
struct Nodes {
    store: MemoryStore,
    one: CachedStore,
    other: CachedStore,
}

impl Nodes {
    fn new() -> Self {
        let (store, clock, bus) = (MemoryStore::new(), ManualClock::new(), LocalBus::new());
        let node = || {
            let cache = Cache::new().bus(bus.clone());
            cache.around(store.clone(), clock.clone())
        };
        let (one, other) = (node(), node());
        Self { store, one, other }
    }

    /// Asserts that both nodes and the store give this answer, and that both nodes cache it.
    async fn answer(&self, expected: Option<(String, bool)>) {
        assert_eq!(
            told(self.store.find(&secret()).await),
            expected,
            "the store"
        );
        for node in [&self.one, &self.other] {
            assert_eq!(told(node.find(&secret()).await), expected, "{node:?}");
            let remembered = node.find_now(&secret()).expect("it is remembered");
            assert_eq!(told(remembered), expected, "{node:?}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_imported_under_a_newer_digest_of_a_remembered_secret_counts_at_once() {
    let nodes = Nodes::new();
    let [newest, middle, oldest] = secret();
    for (number, digest) in [(1, oldest), (2, middle), (3, newest)] {
        nodes.one.apply(&import(number, digest)).await.unwrap();
        nodes.answer(key(number, true)).await;
    }
}

#[tokio::test]
async fn revoking_a_key_under_any_digest_of_a_remembered_secret_holds_for_the_next_request() {
    let [newest, middle, oldest] = secret();
    for (first, second) in [
        (newest, middle),
        (newest, oldest),
        (middle, oldest),
        (middle, newest),
        (oldest, newest),
    ] {
        let nodes = Nodes::new();
        nodes.one.apply(&import(1, first)).await.unwrap();
        nodes.answer(key(1, true)).await;
        nodes.one.apply(&import(2, second)).await.unwrap();
        revoke(&nodes.one, 2).await;
        nodes.answer(key(2, false)).await;
    }
}

#[tokio::test]
async fn revoking_one_of_two_keys_that_a_node_has_seen_holds_for_the_next_request() {
    let nodes = Nodes::new();
    let [newest, middle, oldest] = secret();
    for (number, digest) in [(1, newest), (2, middle), (3, oldest)] {
        nodes.one.apply(&import(number, digest)).await.unwrap();
        nodes.answer(key(1, true)).await;
    }
    revoke(&nodes.one, 3).await;
    nodes.answer(key(3, false)).await;
    // The first ended key counts.
    revoke(&nodes.other, 2).await;
    nodes.answer(key(2, false)).await;
    revoke(&nodes.one, 1).await;
    nodes.answer(key(1, false)).await;
    change(&nodes.one, Change::Delete(record(3).id)).await;
    nodes.answer(None).await;
}

#[tokio::test]
async fn deleting_a_key_under_any_digest_of_a_remembered_secret_holds_for_the_next_request() {
    let [newest, middle, oldest] = secret();
    for (first, second) in [(newest, middle), (middle, oldest), (oldest, newest)] {
        for has_seen_both in [false, true] {
            let nodes = Nodes::new();
            nodes.one.apply(&import(1, first)).await.unwrap();
            nodes.answer(key(1, true)).await;
            nodes.other.apply(&import(2, second)).await.unwrap();
            if has_seen_both {
                let is_newer = second == newest;
                nodes.answer(key(if is_newer { 2 } else { 1 }, true)).await;
            }
            change(&nodes.one, Change::Delete(record(2).id)).await;
            nodes.answer(None).await;
        }
    }
}

#[tokio::test]
async fn a_key_that_gets_or_loses_a_digest_of_a_remembered_secret_is_seen_at_once() {
    let nodes = Nodes::new();
    let [newest, middle, oldest] = secret();
    nodes.one.apply(&import(1, middle)).await.unwrap();
    nodes.one.apply(&import(2, elsewhere())).await.unwrap();
    nodes.answer(key(1, true)).await;
    let rehash = |from: KeyDigest, to: KeyDigest| {
        let id = record(2).id;
        Change::Rehash { id, from, to }
    };
    // A key of another secret takes one of this one's digests, for example on a host that stores a
    // scheme under two names.
    change(&nodes.one, rehash(elsewhere(), oldest)).await;
    nodes.answer(key(1, true)).await;
    revoke(&nodes.one, 2).await;
    nodes.answer(key(2, false)).await;
    change(&nodes.one, rehash(oldest, newest)).await;
    nodes.answer(key(2, false)).await;
    let far = KeyDigest::new(DigestScheme::Sha512, [9; 32]);
    change(&nodes.one, rehash(newest, far)).await;
    nodes.answer(key(1, true)).await;
}

#[tokio::test]
async fn deleting_a_key_that_had_a_digest_of_a_remembered_secret_holds_for_the_next_request() {
    let [newest, middle, oldest] = secret();
    for (has, had) in [(newest, middle), (oldest, middle), (middle, newest)] {
        let nodes = Nodes::new();
        let moved = Change::Rehash {
            id: record(2).id,
            from: had,
            to: elsewhere(),
        };
        // The other key got a digest that is not accepted here, on a node with newer settings.
        nodes.one.apply(&import(2, had)).await.unwrap();
        change(&nodes.one, moved).await;
        nodes.answer(None).await;
        nodes.one.apply(&import(1, has)).await.unwrap();
        nodes.answer(key(1, true)).await;
        revoke(&nodes.one, 2).await;
        nodes.answer(key(1, true)).await;
        change(&nodes.other, Change::Delete(record(2).id)).await;
        nodes.answer(None).await;
    }
}

#[tokio::test]
async fn deleting_another_tenants_key_with_a_newer_digest_of_a_cached_secret_is_effective_at_once()
{
    let nodes = Nodes::new();
    let [newest, middle, _] = secret();
    nodes
        .one
        .apply(&import_for("evil", 2, newest))
        .await
        .unwrap();
    let moved = Change::Rehash {
        id: record(2).id,
        from: newest,
        to: elsewhere(),
    };
    change(&nodes.one, moved).await;
    nodes.one.apply(&import(1, middle)).await.unwrap();
    nodes.answer(key(1, true)).await;
    change(&nodes.one, Change::Delete(record(2).id)).await;
    nodes.answer(None).await;
}

#[tokio::test]
async fn a_secret_that_was_unknown_works_as_soon_as_it_is_imported_under_any_of_its_digests() {
    for digest in secret() {
        let nodes = Nodes::new();
        nodes.answer(None).await;
        nodes.other.apply(&import(1, digest)).await.unwrap();
        nodes.answer(key(1, true)).await;
    }
}

#[tokio::test]
async fn a_secret_that_is_unknown_because_another_tenant_deleted_it_is_anew_when_imported_newer() {
    let nodes = Nodes::new();
    let [newest, middle, oldest] = secret();
    nodes
        .one
        .apply(&import_for("evil", 1, middle))
        .await
        .unwrap();
    nodes.one.apply(&import(2, oldest)).await.unwrap();
    nodes.answer(key(1, true)).await;
    change(&nodes.one, Change::Delete(record(1).id)).await;
    nodes.answer(None).await;
    nodes.one.apply(&import(3, newest)).await.unwrap();
    nodes.answer(key(3, true)).await;
    // Changes by the other tenant to its own key have no effect.
    revoke(&nodes.one, 2).await;
    nodes.answer(key(2, false)).await;
}

#[tokio::test]
async fn changes_by_another_tenant_to_its_own_key_of_a_cached_secret_have_no_effect() {
    let nodes = Nodes::new();
    let [newest, middle, oldest] = secret();
    nodes.one.apply(&import(1, newest)).await.unwrap();
    nodes.answer(key(1, true)).await;
    for (number, digest) in [(2, middle), (3, oldest)] {
        nodes
            .one
            .apply(&import_for("evil", number, digest))
            .await
            .unwrap();
        nodes.answer(key(1, true)).await;
    }
    revoke(&nodes.one, 2).await;
    change(&nodes.one, Change::Delete(record(3).id)).await;
    nodes.answer(key(1, true)).await;
}

#[tokio::test]
async fn of_two_lists_of_digests_on_one_cache_each_is_answered_by_itself() {
    let nodes = Nodes::new();
    let [newest, middle, oldest] = secret();
    for (owner, number, digest) in [
        ("acme", 1, newest),
        ("evil", 2, middle),
        ("acme", 3, oldest),
    ] {
        let batch = import_for(owner, number, digest);
        nodes.one.apply(&batch).await.unwrap();
    }
    revoke(&nodes.one, 3).await;
    let lists = [
        vec![newest, middle, oldest],
        vec![middle, oldest],
        vec![oldest, middle],
        vec![newest],
        vec![oldest, newest],
        vec![middle, newest],
    ];
    for deleted in [None, Some(2), Some(3)] {
        if let Some(number) = deleted {
            change(&nodes.one, Change::Delete(record(number).id)).await;
        }
        for first in &lists {
            for second in &lists {
                nodes.one.clear();
                for list in [first, second, first] {
                    assert_eq!(
                        told(nodes.one.find(list).await),
                        told(nodes.store.find(list).await),
                        "{first:?} and {second:?} after {deleted:?} was deleted"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_lookup_in_flight_while_the_secret_was_ended_elsewhere_is_not_cached() {
    let node = Node::new();
    let neighbour = node.other_node();
    let [newest, _, oldest] = secret();
    neighbour.apply(&import(1, newest)).await.unwrap();
    node.store.hold(READ);
    let asked = secret();
    let early = begin(node.cache.find(&asked));
    neighbour.apply(&import(2, oldest)).await.unwrap();
    revoke(&neighbour, 2).await;
    node.store.release(READ);
    assert_eq!(
        told(early.await),
        key(1, true),
        "as it was when it was asked"
    );
    assert_eq!(told(node.cache.find(&secret()).await), key(2, false));
}

/// The bus message of a change by the previous version: ids of keys, and fingerprints of digests
/// that became known.
#[tokio::test]
async fn messages_of_the_previous_version_are_sufficient() {
    #[derive(Debug)]
    struct Hears(std::sync::Mutex<Option<std::sync::Weak<dyn InvalidationListener>>>);
    #[async_trait::async_trait]
    impl portunus::store::InvalidationBus for Hears {
        fn subscribe(&self, listener: std::sync::Weak<dyn InvalidationListener>) {
            *self.0.lock().unwrap() = Some(listener);
        }
        async fn publish(&self, _: &Invalidation) -> Result<(), portunus::store::BusError> {
            Ok(())
        }
        fn is_lossless(&self) -> bool {
            true
        }
    }
    let bus = Arc::new(Hears(std::sync::Mutex::default()));
    let store = MemoryStore::new();
    let cache = Cache::new()
        .bus(Arc::clone(&bus))
        .around(store.clone(), SystemClock::default());
    let listener = bus.0.lock().unwrap().take().unwrap().upgrade().unwrap();
    listener.caught_up(Instant::now());
    let [newest, _, oldest] = secret();
    store.apply(&import(1, newest)).await.unwrap();
    assert_eq!(told(cache.find(&secret()).await), key(1, true));
    store.apply(&import(2, oldest)).await.unwrap();
    let mut imported = Invalidation::default();
    imported.known = vec![Invalidation::fingerprint(&oldest)];
    listener.invalidated(&imported);
    assert_eq!(told(cache.find(&secret()).await), key(1, true));
    revoke(&store, 2).await;
    let mut revoked = Invalidation::default();
    revoked.keys = vec![record(2).id];
    listener.invalidated(&revoked);
    assert_eq!(told(cache.find(&secret()).await), key(2, false));
}

#[tokio::test]
async fn a_request_is_refused_once_its_tenant_has_ended_its_secret_under_an_older_scheme() {
    let hasher = KeyHasher::hmac_sha256(Pepper::new(1, &[1; 32]).unwrap())
        .accept_sha256()
        .unwrap();
    for deletes in [false, true] {
        let Nodes { one, other, .. } = Nodes::new();
        let manager = Setup::on(one.clone())
            .bearer([format()])
            .environments([live()])
            .hasher(hasher.clone())
            .manager();
        let new = || NewKey::new("key", Owner::tenant(tenant("acme")));
        let secret = manager.issue(new()).await.unwrap().key.reveal();
        let authenticators = [one, other].map(|node| {
            let builder = Setup::on(node).hasher(hasher.clone());
            builder.bearer([format()]).build().unwrap()
        });
        let refusals = async || {
            let mut refusals = Vec::new();
            for authenticator in &authenticators {
                let head = Head::bearer(&secret);
                let outcome = authenticator.authenticate(&head).await;
                refusals.push(outcome.err().map(|error| error.code()));
            }
            refusals
        };
        assert_eq!(refusals().await, [None, None]);
        let older = KeyHasher::sha256().digest(&secret).to_bytes();
        let import = NewImport::new(ImportedDigest::new("sha256", &older).unwrap(), new());
        let imported = manager.import(import).await.unwrap();
        assert_eq!(refusals().await, [None, None]);
        let expected = if deletes {
            manager.delete(&imported.record.id).await.unwrap();
            ErrorCode::InvalidKey
        } else {
            manager.revoke(&imported.record.id, None).await.unwrap();
            ErrorCode::KeyRevoked
        };
        assert_eq!(refusals().await, [Some(expected); 2]);
    }
}

#[tokio::test]
async fn a_hit_on_one_of_several_keys_of_a_secret_allocates_nothing_and_causes_no_lookup() {
    let node = Node::new();
    let [newest, middle, oldest] = secret();
    for (number, digest) in [(1, newest), (2, middle), (3, oldest)] {
        node.cache.apply(&import(number, digest)).await.unwrap();
    }
    let asked = secret();
    node.cache.find(&asked).await.unwrap();
    let finds = node.store.finds();
    let allocations = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert!(node.cache.find_now(&asked).is_some());
        }
    });
    assert_eq!((allocations.count_total, node.store.finds()), (0, finds));
}
