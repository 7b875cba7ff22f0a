//! Properties of the in-memory store that the conformance suite for stores (`tests/conformance.rs`)
//! does not cover: allocations, its hasher, rolled-back batches, lock-free lookups, and many more
//! random batches than in the suite.

use portunus::events::SigningStore;
use portunus::store::KeyLookup;
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use portunus::key::{
    DigestScheme, KeyDigest, KeyId, KeyKind, KeyRecord, Owner, Revocation, SigningState,
};
use portunus::store::{Change, Condition, KeyStore, ListQuery, MemoryStore, OwnerRef, WriteBatch};
use portunus_test_support::wait::spin_until;
use portunus_test_support::{live, scope, tenant, user};
use proptest::prelude::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

fn digest(number: u8) -> KeyDigest {
    KeyDigest::new(DigestScheme::Sha256, [number; 32])
}

fn peppered(number: u8) -> KeyDigest {
    KeyDigest::new(DigestScheme::HmacSha256 { pepper: 1 }, [number; 32])
}

fn record(name: &str) -> KeyRecord {
    KeyRecord::new(
        id(name),
        name,
        KeyKind::App,
        live(),
        Owner::tenant(tenant("acme")),
        at(1_000),
    )
}

fn insert(digest: KeyDigest, record: KeyRecord) -> Change {
    Change::Insert {
        digest,
        record: Box::new(record),
    }
}

fn rehash(name: &str, from: KeyDigest, to: KeyDigest) -> Change {
    Change::Rehash {
        id: id(name),
        from,
        to,
    }
}

fn batch(changes: impl IntoIterator<Item = Change>) -> WriteBatch {
    changes
        .into_iter()
        .fold(WriteBatch::new(), WriteBatch::change)
}

/// A condition that no store in these tests ever satisfies.
fn never() -> Condition {
    Condition::Version {
        id: id("nobody"),
        version: 1,
    }
}

/// A condition that is checked last, after all changes.
fn at_most(limit: u64) -> Condition {
    Condition::ActiveKeysAtMost {
        owner: acme(),
        at: at(1_000),
        limit,
    }
}

fn set_primary(name: &str) -> Change {
    Change::SetPrimary {
        owner: acme(),
        key: id(name),
    }
}

async fn primary(store: &MemoryStore, seconds: u64) -> Option<KeyId> {
    store.primary(&acme(), at(seconds)).await.unwrap()
}

fn state(number: u8) -> SigningState {
    let mut bytes = [number; SigningState::LENGTH];
    bytes[0] = 1;
    SigningState::from_bytes(&bytes).unwrap()
}

fn acme() -> OwnerRef {
    OwnerRef::Tenant(tenant("acme"))
}

async fn all(store: &MemoryStore) -> Vec<Arc<KeyRecord>> {
    let mut query = ListQuery::new(at(1_000));
    query.limit = 500;
    store.list(&query).await.unwrap().items
}

async fn found(store: &MemoryStore, digest: KeyDigest) -> Option<KeyId> {
    let found = store.find(&[digest]).await.unwrap();
    let now = store.find_now(&[digest]).unwrap().unwrap();
    assert_eq!(
        found.is_some(),
        now.is_some(),
        "both ways of looking up agree"
    );
    found.map(|stored| {
        assert_eq!(*stored.digest(), digest);
        stored.record().id.clone()
    })
}

/// A store with the key `a` under digest 1.
async fn store_with_a() -> MemoryStore {
    let store = MemoryStore::new();
    store
        .apply(&batch([insert(digest(1), record("a"))]))
        .await
        .unwrap();
    store
}

// ---- lookups ----

#[tokio::test]
async fn digests_with_equal_hashes_are_distinguished() {
    // The hash of a digest is its first eight bytes: the worst case that an importer of digests
    // could cause.
    let alike = |number: u8| {
        let mut bytes = [7; 32];
        bytes[31] = number;
        KeyDigest::new(DigestScheme::Sha256, bytes)
    };
    let store = MemoryStore::new();
    for number in 0..200 {
        store
            .apply(&batch([insert(
                alike(number),
                record(&format!("key{number}")),
            )]))
            .await
            .unwrap();
    }
    for number in 0..200 {
        assert_eq!(
            found(&store, alike(number)).await,
            Some(id(&format!("key{number}")))
        );
    }
    assert_eq!(found(&store, alike(200)).await, None);
}

#[tokio::test]
async fn an_unchanged_key_is_handed_out_as_the_same_allocation() {
    let store = store_with_a().await;
    let (one, other) = (
        store.find(&[digest(1)]).await.unwrap().unwrap(),
        store.find_now(&[digest(1)]).unwrap().unwrap().unwrap(),
    );
    assert!(Arc::ptr_eq(&one, &other));
    store
        .apply(&WriteBatch::new().update(record("a")))
        .await
        .unwrap();
    let changed = store.find(&[digest(1)]).await.unwrap().unwrap();
    assert!(
        !Arc::ptr_eq(&one, &changed),
        "what was compiled for the old record must not serve the new one"
    );
}

#[test]
fn a_key_is_found_at_every_moment_of_its_rehash() {
    // A lookup tries the new digest first and the old one last, while the key moves from one to the
    // other.
    let store = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for round in 0..2_000_u32 {
        let digest = |scheme, tag: u8| {
            let mut bytes = [tag; 32];
            bytes[..4].copy_from_slice(&round.to_le_bytes());
            KeyDigest::new(scheme, bytes)
        };
        let (from, to) = (
            digest(DigestScheme::Sha256, 1),
            digest(DigestScheme::HmacSha256 { pepper: 9 }, 2),
        );
        let name = format!("key{round}");
        runtime
            .block_on(store.apply(&batch([insert(from, record(&name))])))
            .unwrap();
        let mut candidates = vec![to];
        candidates.extend((1..7).map(|pepper| digest(DigestScheme::HmacSha256 { pepper }, 3)));
        candidates.push(from);
        let (started, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let missed = std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                let mut missed = 0;
                while !done.load(Ordering::Acquire) {
                    missed += usize::from(store.find_now(&candidates).unwrap().unwrap().is_none());
                    started.store(true, Ordering::Release);
                }
                missed
            });
            spin_until("the reader begins", || started.load(Ordering::Acquire));
            runtime
                .block_on(store.apply(&batch([rehash(&name, from, to)])))
                .unwrap();
            done.store(true, Ordering::Release);
            reader.join().unwrap()
        });
        assert_eq!(
            missed, 0,
            "round {round}: a valid key was told to be unknown"
        );
    }
}

// ---- rolled-back batches ----

#[tokio::test]
async fn a_deletion_that_is_taken_back_leaves_the_primary_key() {
    let store = store_with_a().await;
    let mut newer = record("b");
    newer.created_at = at(2_000);
    store
        .apply(&batch([insert(digest(2), newer), set_primary("a")]))
        .await
        .unwrap();
    store
        .apply(&batch([Change::Delete(id("a"))]).require(never()))
        .await
        .unwrap_err();
    store
        .apply(&batch([Change::Delete(id("a")), Change::Delete(id("a"))]))
        .await
        .unwrap_err();
    assert_eq!(primary(&store, 1_000).await, Some(id("a")));
}

#[tokio::test]
async fn a_digest_that_was_only_passed_through_in_a_failed_batch_is_not_known() {
    let store = store_with_a().await;
    let twice = batch([
        rehash("a", digest(1), peppered(1)),
        rehash("a", peppered(1), peppered(2)),
        Change::Delete(id("nobody")),
    ]);
    store.apply(&twice).await.unwrap_err();
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    store
        .apply(&batch([insert(peppered(2), record("b"))]))
        .await
        .unwrap();
    store
        .apply(&batch([insert(peppered(1), record("c"))]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_digest_that_a_key_was_inserted_and_rehashed_from_in_a_failed_batch_is_not_known() {
    let store = MemoryStore::new();
    let failing = batch([
        insert(digest(1), record("a")),
        rehash("a", digest(1), peppered(1)),
    ])
    .require(at_most(0));
    store.apply(&failing).await.unwrap_err();
    store
        .apply(&batch([insert(digest(1), record("a"))]))
        .await
        .unwrap();
    store
        .apply(&batch([insert(peppered(1), record("b"))]))
        .await
        .unwrap();
}

// ---- random batches against a slow model ----

/// All rows in one vector, copied completely before each batch.
#[derive(Debug, Clone, Default)]
struct Model {
    rows: Vec<Row>,
    digests_ever: Vec<KeyDigest>,
    primaries: Vec<(OwnerRef, KeyId)>,
}

#[derive(Debug, Clone)]
struct Row {
    digest: KeyDigest,
    record: KeyRecord,
    signing: Option<SigningState>,
    deleted: bool,
}

impl Model {
    fn row(&mut self, id: &KeyId) -> Result<&mut Row, ()> {
        self.rows
            .iter_mut()
            .find(|row| row.record.id == *id && !row.deleted)
            .ok_or(())
    }

    fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Option<KeyId> {
        let set = self
            .primaries
            .iter()
            .find(|(of, _)| of == owner)
            .map(|(_, id)| id);
        let can = |row: &&Row| {
            !row.deleted && owner.includes(&row.record) && row.record.can_be_primary(at)
        };
        let mut able: Vec<_> = self
            .rows
            .iter()
            .filter(can)
            .map(|row| &row.record)
            .collect();
        able.sort_by_key(|record| {
            (
                Some(&record.id) != set,
                Reverse(record.created_at),
                record.id.clone(),
            )
        });
        able.first().map(|record| record.id.clone())
    }

    fn set_primary(&mut self, owner: &OwnerRef, key: Option<KeyId>) {
        self.primaries.retain(|(of, _)| of != owner);
        self.primaries.extend(key.map(|key| (owner.clone(), key)));
    }

    fn apply(&mut self, batch: &WriteBatch) -> Result<(), ()> {
        let mut next = self.clone();
        for condition in batch.conditions() {
            let holds = match condition {
                Condition::Version { id, version } => next.row(id)?.record.version == *version,
                Condition::Primary { owner, key, at } => next.primary(owner, *at) == *key,
                _ => true,
            };
            holds.then_some(()).ok_or(())?;
        }
        for change in batch.changes() {
            next.make(change)?;
        }
        for condition in batch.conditions() {
            if let Condition::ActiveKeysAtMost { owner, at, limit } = condition {
                let active = next
                    .rows
                    .iter()
                    .filter(|row| !row.deleted && owner.includes(&row.record));
                let active = active
                    .filter(|row| row.record.counts_as_active(*at))
                    .count();
                (active as u64 <= *limit).then_some(()).ok_or(())?;
            }
        }
        *self = next;
        Ok(())
    }

    fn make(&mut self, change: &Change) -> Result<(), ()> {
        match change {
            Change::Insert { digest, record } => {
                if self.rows.iter().any(|row| row.record.id == record.id)
                    || self.digests_ever.contains(digest)
                {
                    return Err(());
                }
                self.digests_ever.push(*digest);
                self.rows.push(Row {
                    digest: *digest,
                    record: (**record).clone(),
                    signing: None,
                    deleted: false,
                });
            }
            Change::Replace(record) => {
                let row = self.row(&record.id)?;
                if row.record.owner != record.owner || row.record.family != record.family {
                    return Err(());
                }
                row.record = (**record).clone();
            }
            Change::Rehash { id, from, to } => {
                if self.digests_ever.contains(to) {
                    return Err(());
                }
                let row = self.row(id)?;
                if row.digest != *from {
                    return Err(());
                }
                row.digest = *to;
                self.digests_ever.push(*to);
            }
            Change::Delete(id) => {
                let row = self.row(id)?;
                row.deleted = true;
                row.signing = None;
            }
            Change::SetPrimary { owner, key } => {
                let mine = owner.includes(&self.row(key)?.record);
                mine.then(|| self.set_primary(owner, Some(key.clone())))
                    .ok_or(())?;
            }
            Change::PinPrimary { owner, at } => {
                let key = self.primary(owner, *at);
                self.set_primary(owner, key);
            }
            Change::SetSigning { id, state } => self.row(id)?.signing.clone_from(state),
            _ => return Err(()),
        }
        Ok(())
    }
}

const IDS: [&str; 4] = ["a", "b", "c", "d"];

fn some_id() -> impl Strategy<Value = KeyId> {
    prop::sample::select(IDS.to_vec()).prop_map(id)
}

fn some_digest() -> impl Strategy<Value = KeyDigest> {
    (0_u8..8).prop_map(|number| {
        if number < 5 {
            digest(number)
        } else {
            peppered(number)
        }
    })
}

fn owners() -> Vec<OwnerRef> {
    let mut owners = Vec::new();
    for of in ["acme", "other"] {
        owners.extend([
            OwnerRef::Tenant(tenant(of)),
            OwnerRef::TenantItself(tenant(of)),
        ]);
        owners.extend(["u1", "u2"].map(|by| OwnerRef::User(tenant(of), user(by))));
    }
    owners
}

fn some_record() -> impl Strategy<Value = KeyRecord> {
    let owner = prop::sample::select(owners());
    let end = prop::option::of(4_u64..8);
    (some_id(), owner, 0_u64..3, 1_u64..4, any::<bool>(), end).prop_map(
        |(id, owner, made, version, revoked, end)| {
            let owner = match owner {
                OwnerRef::User(tenant, user) => Owner::user(tenant, user),
                OwnerRef::Tenant(tenant) | OwnerRef::TenantItself(tenant) => Owner::tenant(tenant),
                _ => unreachable!("there are no others here"),
            };
            let mut record = KeyRecord::new(id, "key", KeyKind::App, live(), owner, at(made));
            record.version = version;
            record.revoked = revoked.then(|| Revocation::new(at(1), None));
            record.expires_at = end.map(at);
            record.scopes = vec![scope("a")];
            record
        },
    )
}

fn some_change() -> impl Strategy<Value = WriteBatch> {
    let insert = (some_digest(), some_record()).prop_map(|(digest, mut record)| {
        record.version = 1;
        batch([insert(digest, record)])
    });
    let update = some_record().prop_map(|record| WriteBatch::new().update(record));
    let rehash = (some_id(), some_digest(), some_digest())
        .prop_filter("onto itself says nothing", |(_, from, to)| from != to)
        .prop_map(|(id, from, to)| batch([Change::Rehash { id, from, to }]));
    let delete = some_id().prop_map(|id| batch([Change::Delete(id)]));
    let owner = || prop::sample::select(owners());
    let set =
        (owner(), some_id()).prop_map(|(owner, key)| batch([Change::SetPrimary { owner, key }]));
    let pin = (owner(), 3_u64..9).prop_map(|(owner, seconds)| {
        batch([Change::PinPrimary {
            owner,
            at: at(seconds),
        }])
    });
    let sign = (some_id(), prop::option::of(0_u8..3)).prop_map(|(id, number)| {
        batch([Change::SetSigning {
            id,
            state: number.map(state),
        }])
    });
    prop_oneof![4 => insert, 2 => update, 2 => rehash, 1 => delete, 2 => set, 2 => pin, 1 => sign]
}

fn some_condition() -> impl Strategy<Value = Condition> {
    let owner = || prop::sample::select(owners());
    prop_oneof![
        (some_id(), 1_u64..4).prop_map(|(id, version)| Condition::Version { id, version }),
        (owner(), prop::option::of(some_id()), 3_u64..9).prop_map(|(owner, key, seconds)| {
            Condition::Primary {
                owner,
                key,
                at: at(seconds),
            }
        }),
        (owner(), 0_u64..4).prop_map(|(owner, limit)| Condition::ActiveKeysAtMost {
            owner,
            at: at(5),
            limit
        }),
    ]
}

fn some_batch() -> impl Strategy<Value = WriteBatch> {
    (
        prop::collection::vec(some_change(), 0..4),
        prop::collection::vec(some_condition(), 0..2),
    )
        .prop_map(|(changes, conditions)| {
            let mut whole = WriteBatch::new();
            for part in changes {
                whole = part
                    .conditions()
                    .iter()
                    .cloned()
                    .fold(whole, WriteBatch::require);
                whole = part
                    .changes()
                    .iter()
                    .cloned()
                    .fold(whole, WriteBatch::change);
            }
            conditions.into_iter().fold(whole, WriteBatch::require)
        })
}

async fn agree(store: &MemoryStore, model: &Model) -> Result<(), TestCaseError> {
    let mut live: Vec<_> = model.rows.iter().filter(|row| !row.deleted).collect();
    live.sort_by_key(|row| (Reverse(row.record.created_at), row.record.id.clone()));
    let listed: Vec<_> = all(store).await.iter().map(|key| (**key).clone()).collect();
    prop_assert_eq!(
        listed,
        live.iter()
            .map(|row| row.record.clone())
            .collect::<Vec<_>>(),
        "the list"
    );
    for number in 0..8 {
        for digest in [digest(number), peppered(number)] {
            let expected = live
                .iter()
                .find(|row| row.digest == digest)
                .map(|row| &row.record);
            let stored = store.find(&[digest]).await.unwrap();
            prop_assert_eq!(
                stored.as_ref().map(|stored| &**stored.record()),
                expected,
                "found by {} {:?}",
                number,
                digest
            );
        }
    }
    for name in IDS {
        let expected = live
            .iter()
            .find(|row| row.record.id.as_str() == name)
            .map(|row| &row.record);
        let stored = store.get(&id(name)).await.unwrap();
        prop_assert_eq!(stored.as_deref(), expected, "by id {}", name);
    }
    for name in IDS {
        let expected = live
            .iter()
            .find(|row| row.record.id.as_str() == name)
            .and_then(|row| row.signing.clone());
        prop_assert_eq!(
            store.signing_state(&id(name)).await.unwrap(),
            expected,
            "what {} signs with",
            name
        );
    }
    for owner in owners() {
        for seconds in 3..9 {
            let (told, expected) = (
                store.primary(&owner, at(seconds)).await.unwrap(),
                model.primary(&owner, at(seconds)),
            );
            prop_assert_eq!(told, expected, "primary of {:?} at {}", owner, seconds);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_batches_do_what_a_model_does_that_copies_everything(
        batches in prop::collection::vec(some_batch(), 1..25)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (store, mut model) = (MemoryStore::new(), Model::default());
        runtime.block_on(async {
            for batch in &batches {
                let (done, expected) = (store.apply(batch).await, model.apply(batch));
                prop_assert_eq!(done.is_ok(), expected.is_ok(), "{:?}: {:?}", batch, done);
                agree(&store, &model).await?;
            }
            Ok(())
        })?;
    }
}
