//! What a store promises, tried on the one in memory: batches whole or not at all, one order of writes, tombstones, pages.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use common::{format, live, scope, tenant, test, user};
use portunus::key::{DigestScheme, KeyDigest, KeyId, KeyKind, KeyRecord, KeyStatus, Owner, Revocation, SigningState};
use portunus::manage::{IssueRules, KeyManager, ManageError, NewKey};
use portunus::store::{
    Change, Condition, Cursor, KeyStore, ListQuery, Listed, MemoryStore, OwnerRef, Rejected, Usage, UsageDelta,
    WriteBatch,
};
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
    KeyRecord::new(id(name), name, KeyKind::App, live(), Owner::tenant(tenant("acme")), at(1_000))
}

fn insert(digest: KeyDigest, record: KeyRecord) -> Change {
    Change::Insert { digest, record: Box::new(record) }
}

fn rehash(name: &str, from: KeyDigest, to: KeyDigest) -> Change {
    Change::Rehash { id: id(name), from, to }
}

fn batch(changes: impl IntoIterator<Item = Change>) -> WriteBatch {
    changes.into_iter().fold(WriteBatch::new(), WriteBatch::change)
}

/// A condition that no store of these tests ever meets.
fn never() -> Condition {
    Condition::Version { id: id("nobody"), version: 1 }
}

/// A condition that is looked at last, after all changes.
fn at_most(limit: u64) -> Condition {
    Condition::ActiveKeysAtMost { owner: acme(), at: at(1_000), limit }
}

fn set_primary(name: &str) -> Change {
    Change::SetPrimary { owner: acme(), key: id(name) }
}

fn pin_primary(seconds: u64) -> Change {
    Change::PinPrimary { owner: acme(), at: at(seconds) }
}

async fn primary(store: &MemoryStore, seconds: u64) -> Option<KeyId> {
    store.primary(&acme(), at(seconds)).await.unwrap()
}

fn state(number: u8) -> SigningState {
    let mut bytes = [number; SigningState::LENGTH];
    bytes[0] = 1;
    SigningState::from_bytes(&bytes).unwrap()
}

fn set_signing(name: &str, state: Option<SigningState>) -> Change {
    Change::SetSigning { id: id(name), state }
}

fn acme() -> OwnerRef {
    OwnerRef::Tenant(tenant("acme"))
}

async fn rejected(store: &MemoryStore, batch: WriteBatch) -> Rejected {
    store.apply(&batch).await.unwrap_err().as_rejected().unwrap().clone()
}

async fn all(store: &MemoryStore) -> Vec<Listed> {
    let mut query = ListQuery::new(at(1_000));
    query.limit = 500;
    store.list(&query).await.unwrap().items
}

async fn found(store: &MemoryStore, digest: KeyDigest) -> Option<KeyId> {
    let found = store.find(&[digest]).await.unwrap();
    let now = store.find_now(&[digest]).unwrap().unwrap();
    assert_eq!(found.is_some(), now.is_some(), "both ways of looking up agree");
    found.map(|stored| {
        assert_eq!(*stored.digest(), digest);
        stored.record().id.clone()
    })
}

/// A store with the key `a` under digest 1.
async fn store_with_a() -> MemoryStore {
    let store = MemoryStore::new();
    store.apply(&batch([insert(digest(1), record("a"))])).await.unwrap();
    store
}

// ---- look-ups ----

#[tokio::test]
async fn a_key_is_found_by_its_digest_and_scheme_and_by_nothing_else() {
    let store = store_with_a().await;
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    assert_eq!(found(&store, peppered(1)).await, None, "another scheme");
    for place in 0..32 {
        let mut bytes = [1; 32];
        bytes[place] ^= 1;
        assert_eq!(found(&store, KeyDigest::new(DigestScheme::Sha256, bytes)).await, None, "byte {place}");
    }
}

#[tokio::test]
async fn digests_that_hash_alike_are_told_apart() {
    // The hash of a digest is its first eight bytes: the worst that an importer of digests could do.
    let alike = |number: u8| {
        let mut bytes = [7; 32];
        bytes[31] = number;
        KeyDigest::new(DigestScheme::Sha256, bytes)
    };
    let store = MemoryStore::new();
    for number in 0..200 {
        store.apply(&batch([insert(alike(number), record(&format!("key{number}")))])).await.unwrap();
    }
    for number in 0..200 {
        assert_eq!(found(&store, alike(number)).await, Some(id(&format!("key{number}"))));
    }
    assert_eq!(found(&store, alike(200)).await, None);
}

#[tokio::test]
async fn one_trip_finds_a_key_under_any_of_its_candidates() {
    let store = store_with_a().await;
    let found = store.find(&[peppered(9), digest(1)]).await.unwrap().unwrap();
    assert_eq!(*found.digest(), digest(1), "and says under which");
    assert!(store.find(&[]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_revoked_key_is_found_and_says_so() {
    let store = store_with_a().await;
    let mut revoked = record("a");
    revoked.revoked = Some(Revocation::new(at(1_000), None));
    store.apply(&WriteBatch::new().update(revoked)).await.unwrap();
    let stored = store.find(&[digest(1)]).await.unwrap().unwrap();
    assert!(stored.record().revoked.is_some());
}

#[tokio::test]
async fn an_unchanged_key_is_handed_out_as_the_same_allocation() {
    let store = store_with_a().await;
    let (one, other) =
        (store.find(&[digest(1)]).await.unwrap().unwrap(), store.find_now(&[digest(1)]).unwrap().unwrap().unwrap());
    assert!(Arc::ptr_eq(&one, &other));
    store.apply(&WriteBatch::new().update(record("a"))).await.unwrap();
    let changed = store.find(&[digest(1)]).await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&one, &changed), "what was compiled for the old record must not serve the new one");
}

// ---- atomic batches ----

#[tokio::test]
async fn a_batch_whose_condition_fails_changes_nothing() {
    for condition in [never(), at_most(1)] {
        let store = store_with_a().await;
        store.apply(&batch([set_primary("a"), set_signing("a", Some(state(1)))])).await.unwrap();
        let before = all(&store).await;
        let mut changed = record("a");
        changed.name = "changed".into();
        changed.version = 2;
        let mut newer = record("b");
        newer.created_at = at(2_000);
        let failing = batch([
            insert(digest(2), newer),
            set_primary("b"),
            set_signing("a", None),
            Change::Replace(Box::new(changed)),
            rehash("a", digest(1), digest(3)),
            insert(digest(4), record("c")),
            Change::Delete(id("c")),
        ]);
        store.apply(&failing.require(condition)).await.unwrap_err();
        assert_eq!(all(&store).await, before);
        assert_eq!(primary(&store, 1_000).await, Some(id("a")));
        assert_eq!(store.signing_state(&id("a")).await.unwrap(), Some(state(1)));
        assert_eq!(found(&store, digest(1)).await, Some(id("a")));
        for unknown in [2, 3, 4] {
            assert_eq!(found(&store, digest(unknown)).await, None);
        }
        // Neither ids nor digests are burnt.
        let again = [("b", 2), ("c", 4), ("d", 3)].map(|(name, number)| insert(digest(number), record(name)));
        store.apply(&batch(again)).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_that_fails_in_its_last_change_changes_nothing() {
    let store = store_with_a().await;
    let why = rejected(
        &store,
        batch([insert(digest(2), record("b")), Change::Delete(id("a")), Change::Delete(id("nobody"))]),
    )
    .await;
    assert_eq!(why, Rejected::Missing(id("nobody")));
    assert_eq!((found(&store, digest(1)).await, found(&store, digest(2)).await), (Some(id("a")), None));
    assert_eq!(all(&store).await.len(), 1);
}

#[tokio::test]
async fn a_deletion_that_is_taken_back_leaves_the_primary_key() {
    let store = store_with_a().await;
    let mut newer = record("b");
    newer.created_at = at(2_000);
    store.apply(&batch([insert(digest(2), newer), set_primary("a")])).await.unwrap();
    store.apply(&batch([Change::Delete(id("a"))]).require(never())).await.unwrap_err();
    store.apply(&batch([Change::Delete(id("a")), Change::Delete(id("a"))])).await.unwrap_err();
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
    store.apply(&batch([insert(peppered(2), record("b"))])).await.unwrap();
    store.apply(&batch([insert(peppered(1), record("c"))])).await.unwrap();
}

#[tokio::test]
async fn a_digest_that_a_key_was_inserted_and_rehashed_from_in_a_failed_batch_is_not_known() {
    let store = MemoryStore::new();
    let failing = batch([insert(digest(1), record("a")), rehash("a", digest(1), peppered(1))]).require(at_most(0));
    store.apply(&failing).await.unwrap_err();
    store.apply(&batch([insert(digest(1), record("a"))])).await.unwrap();
    store.apply(&batch([insert(peppered(1), record("b"))])).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_inserted_and_deleted_in_one_batch_is_known_and_not_found() {
    let store = MemoryStore::new();
    store.apply(&batch([insert(digest(1), record("a")), Change::Delete(id("a"))])).await.unwrap();
    assert_eq!(found(&store, digest(1)).await, None);
    assert_eq!(rejected(&store, batch([insert(digest(1), record("b"))])).await, Rejected::DigestKnown);
}

#[tokio::test]
async fn an_empty_batch_does_nothing_and_still_checks_its_conditions() {
    let store = store_with_a().await;
    store.apply(&WriteBatch::new()).await.unwrap();
    assert_eq!(rejected(&store, WriteBatch::new().require(never())).await, Rejected::Missing(id("nobody")));
}

// ---- compare and swap ----

#[tokio::test]
async fn an_update_of_what_has_changed_since_is_rejected() {
    let store = store_with_a().await;
    let mut winner = record("a");
    winner.name = "first".into();
    store.apply(&WriteBatch::new().update(winner)).await.unwrap();
    let mut loser = record("a");
    loser.name = "second".into();
    let why = rejected(&store, WriteBatch::new().update(loser)).await;
    assert_eq!(why, Rejected::Version { id: id("a"), expected: 1, stored: 2 });
    let stored = store.get(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.record.name.as_str(), stored.record.version), ("first", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_updates_at_one_version_exactly_one_succeeds() {
    let store = store_with_a().await;
    for round in 1..=50 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8 {
            let store = store.clone();
            tasks.spawn(async move {
                let mut mine = record("a");
                mine.version = round;
                mine.name = format!("writer {number}");
                store.apply(&WriteBatch::new().update(mine)).await.is_ok()
            });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|&won| won).count(), 1);
        assert_eq!(store.get(&id("a")).await.unwrap().unwrap().record.version, round + 1);
    }
}

#[tokio::test]
async fn a_key_that_is_not_there_cannot_be_primary_changed_rehashed_or_signed_with() {
    let store = store_with_a().await;
    store.apply(&batch([Change::Delete(id("a"))])).await.unwrap();
    for name in ["a", "nobody"] {
        let missing = Rejected::Missing(id(name));
        assert_eq!(rejected(&store, batch([set_primary(name)])).await, missing);
        assert_eq!(rejected(&store, WriteBatch::new().update(record(name))).await, missing);
        assert_eq!(rejected(&store, batch([Change::Delete(id(name))])).await, missing);
        assert_eq!(rejected(&store, batch([rehash(name, digest(1), peppered(1))])).await, missing);
        assert_eq!(rejected(&store, batch([set_signing(name, None)])).await, missing);
    }
}

#[tokio::test]
async fn owner_and_family_never_change() {
    let store = store_with_a().await;
    let mut stolen = record("a");
    stolen.owner = Owner::user(tenant("acme"), user("u1"));
    let mut moved = record("a");
    moved.family = portunus::key::KeyFamily::new("another").unwrap();
    for changed in [stolen, moved] {
        assert_eq!(rejected(&store, WriteBatch::new().update(changed)).await, Rejected::Owner(id("a")));
    }
    assert_eq!(*store.get(&id("a")).await.unwrap().unwrap().record, record("a"));
}

// ---- primary keys ----

/// The keys `a`, `b` and `c`, each a second newer than the one before.
async fn three() -> MemoryStore {
    let store = MemoryStore::new();
    for (number, name) in (1..).zip(["a", "b", "c"]) {
        let mut record = record(name);
        record.created_at = at(1_000 + u64::from(number));
        store.apply(&batch([insert(digest(number), record)])).await.unwrap();
    }
    store
}

async fn change(store: &MemoryStore, name: &str, change: impl FnOnce(&mut KeyRecord)) -> WriteBatch {
    let mut record = (*store.get(&id(name)).await.unwrap().unwrap().record).clone();
    change(&mut record);
    WriteBatch::new().update(record)
}

#[tokio::test]
async fn the_primary_key_is_compared_before_it_is_swapped() {
    let store = three().await;
    let swap = |from: Option<&str>, to: &str| {
        batch([set_primary(to)]).require(Condition::Primary { owner: acme(), key: from.map(id), at: at(2_000) })
    };
    assert_eq!(rejected(&store, swap(None, "a")).await, Rejected::Primary);
    store.apply(&swap(Some("c"), "a")).await.unwrap();
    assert_eq!(rejected(&store, swap(Some("c"), "b")).await, Rejected::Primary);
    assert_eq!(primary(&store, 2_000).await, Some(id("a")));
}

#[tokio::test]
async fn without_one_that_was_set_the_newest_is_primary_and_of_equally_new_ones_the_first_by_id() {
    let store = store_with_a().await;
    for (name, number) in [("c", 3), ("b", 2)] {
        let mut record = record(name);
        record.created_at = at(2_000);
        store.apply(&batch([insert(digest(number), record)])).await.unwrap();
    }
    assert_eq!(primary(&store, 2_000).await, Some(id("b")));
}

#[tokio::test]
async fn a_primary_key_that_no_longer_can_be_gives_way_to_the_newest_that_can() {
    type Mend = fn(&mut KeyRecord);
    let cases: [(&str, Mend); 3] = [
        ("revoked", |record| record.revoked = Some(Revocation::new(at(1_500), None))),
        ("expired", |record| record.expires_at = Some(at(2_000))),
        ("not to be", |record| record.may_be_primary = false),
    ];
    for (how, mend) in cases {
        let store = three().await;
        store.apply(&batch([set_primary("a")])).await.unwrap();
        store.apply(&change(&store, "a", mend).await).await.unwrap();
        assert_eq!(primary(&store, 2_000).await, Some(id("c")), "{how}");
    }
    let store = three().await;
    store.apply(&batch([set_primary("a")])).await.unwrap();
    store.apply(&change(&store, "a", |record| record.expires_at = Some(at(2_000))).await).await.unwrap();
    assert_eq!(primary(&store, 1_999).await, Some(id("a")), "until then it is");
    store.apply(&change(&store, "a", |record| record.enabled = false).await).await.unwrap();
    assert_eq!(primary(&store, 1_999).await, Some(id("a")), "a disabled key counts");
    store.apply(&batch([Change::Delete(id("a"))])).await.unwrap();
    assert_eq!(primary(&store, 1_999).await, Some(id("c")), "deleted");
    store.apply(&batch([Change::Delete(id("b")), Change::Delete(id("c"))])).await.unwrap();
    assert_eq!(primary(&store, 1_999).await, None);
}

#[tokio::test]
async fn a_successor_stays_primary_once_it_is_pinned() {
    let newer = || {
        let mut newer = record("d");
        newer.created_at = at(3_000);
        insert(digest(4), newer)
    };
    for pinned in [true, false] {
        let store = three().await;
        store.apply(&batch([set_primary("a")])).await.unwrap();
        let revoke = change(&store, "a", |record| record.revoked = Some(Revocation::new(at(1_500), None))).await;
        store.apply(&if pinned { revoke.change(pin_primary(1_500)) } else { revoke }).await.unwrap();
        store.apply(&batch([newer()])).await.unwrap();
        assert_eq!(primary(&store, 3_000).await, Some(id(if pinned { "c" } else { "d" })));
    }
    let store = MemoryStore::new();
    store.apply(&batch([pin_primary(1_000), newer(), pin_primary(3_000)])).await.unwrap();
    assert_eq!(primary(&store, 3_000).await, Some(id("d")), "pinned after the changes before it");
}

#[tokio::test]
async fn a_key_of_somebody_else_cannot_be_made_primary() {
    let store = store_with_a().await;
    let mut of_user = record("b");
    of_user.owner = Owner::user(tenant("acme"), user("u1"));
    store.apply(&batch([insert(digest(2), of_user)])).await.unwrap();
    for (owner, key) in [
        (OwnerRef::User(tenant("acme"), user("u1")), "a"),
        (OwnerRef::User(tenant("acme"), user("u2")), "b"),
        (OwnerRef::User(tenant("other"), user("u1")), "b"),
        (OwnerRef::TenantItself(tenant("acme")), "b"),
        (OwnerRef::Tenant(tenant("other")), "a"),
    ] {
        let set = Change::SetPrimary { owner, key: id(key) };
        assert_eq!(rejected(&store, batch([set])).await, Rejected::Owner(id(key)));
    }
}

#[tokio::test]
async fn an_access_token_is_nobodys_primary() {
    let store = MemoryStore::new();
    let mut token = record("a");
    token.kind = KeyKind::AccessToken;
    store.apply(&batch([insert(digest(1), token), set_primary("a")])).await.unwrap();
    assert_eq!(primary(&store, 1_000).await, None);
}

// ---- what events are signed with ----

#[tokio::test]
async fn a_signing_state_is_kept_apart_taken_away_and_gone_with_its_key() {
    let store = store_with_a().await;
    let signs = || async { store.signing_state(&id("a")).await.unwrap() };
    assert_eq!(signs().await, None);
    store.apply(&batch([set_signing("a", Some(state(7)))])).await.unwrap();
    store.apply(&WriteBatch::new().update(record("a"))).await.unwrap();
    assert_eq!(signs().await, Some(state(7)), "an update is no matter of it");
    store.apply(&batch([set_signing("a", None)])).await.unwrap();
    assert_eq!(signs().await, None);
    store.apply(&batch([set_signing("a", Some(state(8))), Change::Delete(id("a"))])).await.unwrap();
    assert_eq!(signs().await, None);
}

// ---- tombstones and rehashing ----

#[tokio::test]
async fn a_deleted_key_is_gone_and_its_digest_and_id_are_known_for_good() {
    let store = store_with_a().await;
    store.apply(&batch([Change::Delete(id("a"))])).await.unwrap();
    assert_eq!(found(&store, digest(1)).await, None);
    assert!(store.get(&id("a")).await.unwrap().is_none());
    assert!(all(&store).await.is_empty());
    assert_eq!(rejected(&store, batch([insert(digest(1), record("b"))])).await, Rejected::DigestKnown);
    assert_eq!(rejected(&store, batch([insert(digest(2), record("a"))])).await, Rejected::IdKnown(id("a")));
}

#[tokio::test]
async fn a_digest_that_a_key_had_before_it_was_rehashed_cannot_be_inserted() {
    let store = store_with_a().await;
    store.apply(&batch([rehash("a", digest(1), peppered(1))])).await.unwrap();
    store.apply(&batch([Change::Delete(id("a"))])).await.unwrap();
    for known in [digest(1), peppered(1)] {
        assert_eq!(rejected(&store, batch([insert(known, record("b"))])).await, Rejected::DigestKnown);
    }
}

#[tokio::test]
async fn a_rehashed_key_is_found_under_its_new_digest_only_and_has_no_new_version() {
    let store = store_with_a().await;
    store.apply(&batch([rehash("a", digest(1), peppered(1))])).await.unwrap();
    assert_eq!((found(&store, digest(1)).await, found(&store, peppered(1)).await), (None, Some(id("a"))));
    assert_eq!(store.get(&id("a")).await.unwrap().unwrap().record.version, 1);
}

#[tokio::test]
async fn a_second_rehash_from_the_old_digest_is_rejected() {
    let store = store_with_a().await;
    store.apply(&batch([rehash("a", digest(1), peppered(1))])).await.unwrap();
    store.apply(&batch([rehash("a", digest(1), peppered(2))])).await.unwrap_err();
    assert_eq!(found(&store, peppered(1)).await, Some(id("a")));
}

#[tokio::test]
async fn a_key_cannot_be_rehashed_onto_another() {
    let store = store_with_a().await;
    store.apply(&batch([insert(digest(2), record("b"))])).await.unwrap();
    assert_eq!(rejected(&store, batch([rehash("a", digest(1), digest(2))])).await, Rejected::DigestKnown);
    assert_eq!((found(&store, digest(1)).await, found(&store, digest(2)).await), (Some(id("a")), Some(id("b"))));
}

#[test]
fn a_key_is_found_at_every_moment_of_its_rehash() {
    // A look-up asks for the new digest first and the old one last; the key moves from one to the other meanwhile.
    let store = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for round in 0..2_000_u32 {
        let digest = |scheme, tag: u8| {
            let mut bytes = [tag; 32];
            bytes[..4].copy_from_slice(&round.to_le_bytes());
            KeyDigest::new(scheme, bytes)
        };
        let (from, to) = (digest(DigestScheme::Sha256, 1), digest(DigestScheme::HmacSha256 { pepper: 9 }, 2));
        let name = format!("key{round}");
        runtime.block_on(store.apply(&batch([insert(from, record(&name))]))).unwrap();
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
            while !started.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            runtime.block_on(store.apply(&batch([rehash(&name, from, to)]))).unwrap();
            done.store(true, Ordering::Release);
            reader.join().unwrap()
        });
        assert_eq!(missed, 0, "round {round}: a valid key was told to be unknown");
    }
}

// ---- quotas ----

fn issuing(store: &MemoryStore, active_keys: u64) -> KeyManager {
    let mut rules = IssueRules::default();
    rules.active_keys = Some(active_keys);
    KeyManager::builder(store.clone(), format()).environments([live(), test()]).rules(rules).build().unwrap()
}

fn new_key(of: &str) -> NewKey {
    NewKey::new("key", Owner::tenant(tenant(of)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_200_concurrent_issues_under_a_quota_of_4_exactly_4_succeed() {
    let store = MemoryStore::new();
    let manager = issuing(&store, 4);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let manager = manager.clone();
        tasks.spawn(async move { manager.issue(new_key("acme")).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, ManageError::QuotaExceeded { active: 5, limit: 4 }), "{refused:?}");
    }
    assert_eq!(all(&store).await.len(), 4);
}

#[tokio::test]
async fn a_quota_is_each_tenants_own() {
    let manager = issuing(&MemoryStore::new(), 1);
    manager.issue(new_key("acme")).await.unwrap();
    manager.issue(new_key("acme")).await.unwrap_err();
    manager.issue(new_key("other")).await.unwrap();
}

#[tokio::test]
async fn a_revoked_key_frees_its_place_and_a_disabled_one_does_not() {
    let store = MemoryStore::new();
    let manager = issuing(&store, 1);
    let first = manager.issue(new_key("acme")).await.unwrap().record;
    let mut disabled = (*first).clone();
    disabled.enabled = false;
    store.apply(&WriteBatch::new().update(disabled)).await.unwrap();
    assert!(matches!(manager.issue(new_key("acme")).await, Err(ManageError::QuotaExceeded { .. })));
    manager.revoke(&first.id, None).await.unwrap();
    manager.issue(new_key("acme")).await.unwrap();
}

#[tokio::test]
async fn an_expired_key_frees_its_place_at_the_instant_of_its_expiry() {
    let store = MemoryStore::new();
    let mut old = record("old");
    old.expires_at = Some(at(2_000));
    store.apply(&batch([insert(digest(1), old)])).await.unwrap();
    let try_at = |seconds, number| {
        let limit = Condition::ActiveKeysAtMost { owner: acme(), at: at(seconds), limit: 1 };
        batch([insert(digest(number), record("new"))]).require(limit)
    };
    assert_eq!(rejected(&store, try_at(1_999, 2)).await, Rejected::TooManyActive { active: 2, limit: 1 });
    store.apply(&try_at(2_000, 2)).await.unwrap();
}

#[tokio::test]
async fn a_quota_of_a_user_counts_that_users_keys_in_that_tenant_only() {
    let store = MemoryStore::new();
    let owned = |name: &str, of: &str, by: &str| {
        let mut record = record(name);
        record.owner = Owner::user(tenant(of), user(by));
        record
    };
    let seed = [
        insert(digest(1), owned("a", "acme", "u1")),
        insert(digest(2), owned("b", "acme", "u2")),
        insert(digest(3), owned("c", "other", "u1")),
        insert(digest(4), record("d")),
    ];
    store.apply(&batch(seed)).await.unwrap();
    let owner = OwnerRef::User(tenant("acme"), user("u1"));
    let at_most =
        |limit| WriteBatch::new().require(Condition::ActiveKeysAtMost { owner: owner.clone(), at: at(1_000), limit });
    store.apply(&at_most(1)).await.unwrap();
    assert_eq!(rejected(&store, at_most(0)).await, Rejected::TooManyActive { active: 1, limit: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_revocations_and_updates_lose_no_revocation() {
    let store = MemoryStore::new();
    let manager = issuing(&store, 100);
    for _ in 0..20 {
        let key = manager.issue(new_key("acme")).await.unwrap().record;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..4 {
            let (manager, id) = (manager.clone(), key.id.clone());
            tasks.spawn(async move { manager.revoke(&id, Some(&format!("reason {number}"))).await.map(drop).is_ok() });
            let (store, id) = (store.clone(), key.id.clone());
            tasks.spawn(async move {
                let mut renamed = (*store.get(&id).await.unwrap().unwrap().record).clone();
                renamed.name = "renamed".into();
                let _ = store.apply(&WriteBatch::new().update(renamed)).await;
                true
            });
        }
        assert!(tasks.join_all().await.into_iter().all(|done| done));
        assert!(store.get(&key.id).await.unwrap().unwrap().record.revoked.is_some());
    }
}

// ---- lists ----

/// 57 keys, several of them made at the same instant, in no order.
async fn crowded() -> (MemoryStore, Vec<KeyId>) {
    let store = MemoryStore::new();
    let mut sorted = Vec::new();
    for number in 0..57_u8 {
        let mut record = record(&format!("key{:02}", (u32::from(number) * 23) % 57));
        record.created_at = at(1_000 + u64::from(number) * 7 % 11);
        sorted.push((Reverse(record.created_at), record.id.clone()));
        store.apply(&batch([insert(digest(number), record)])).await.unwrap();
    }
    sorted.sort();
    (store, sorted.into_iter().map(|(_, id)| id).collect())
}

async fn pages(store: &MemoryStore, mut query: ListQuery) -> Vec<Vec<KeyId>> {
    let mut pages = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        pages.push(page.items.iter().map(|key| key.record.id.clone()).collect());
        match page.next {
            Some(next) => query.after = Some(next),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn pages_put_together_are_the_whole_list_newest_first() {
    let (store, sorted) = crowded().await;
    for limit in [1, 2, 5, 19, 56, 57, 58, 500] {
        let mut query = ListQuery::new(at(1_000));
        query.limit = limit;
        let pages = pages(&store, query).await;
        assert_eq!(pages.concat(), sorted, "{limit} a page");
        assert!(pages[..pages.len() - 1].iter().all(|page| page.len() == limit), "{limit} a page");
        assert!(pages.iter().all(|page| !page.is_empty()), "no page is empty: {limit} a page");
    }
}

#[tokio::test]
async fn an_empty_list_is_one_page_without_a_next() {
    let page = MemoryStore::new().list(&ListQuery::new(at(1_000))).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
}

#[tokio::test]
async fn a_limit_of_none_is_one_and_of_a_million_is_500() {
    let store = MemoryStore::new();
    for number in 0..501_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        let change = insert(KeyDigest::new(DigestScheme::Sha256, bytes), record(&format!("key{number}")));
        store.apply(&batch([change])).await.unwrap();
    }
    for (asked, given) in [(0, 1), (1_000_000, 500), (usize::MAX, 500)] {
        let mut query = ListQuery::new(at(1_000));
        query.limit = asked;
        let page = store.list(&query).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (given, true));
    }
}

#[tokio::test]
async fn inserts_and_deletes_between_pages_skip_and_repeat_nobody_else() {
    let (store, sorted) = crowded().await;
    let mut query = ListQuery::new(at(1_000));
    query.limit = 10;
    let mut seen = Vec::new();
    let mut number = 100;
    loop {
        let page = store.list(&query).await.unwrap();
        seen.extend(page.items.iter().map(|key| key.record.id.clone()));
        let Some(next) = page.next else { break };
        // The last one shown goes away, and somebody comes at the same instant, before and after it.
        for name in [format!("aaa{number}"), format!("zzz{number}")] {
            let mut new = record(&name);
            new.created_at = next.created_at;
            store.apply(&batch([insert(digest(number), new)])).await.unwrap();
            number += 1;
        }
        store.apply(&batch([Change::Delete(next.id.clone())])).await.unwrap();
        query.after = Some(next);
    }
    let old: Vec<_> = seen.iter().filter(|id| id.as_str().starts_with("key")).cloned().collect();
    assert_eq!(old, sorted);
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len(), "nobody is shown twice");
}

#[tokio::test]
async fn a_cursor_of_a_place_where_nobody_stands_still_divides_the_list() {
    let (store, sorted) = crowded().await;
    let mut query = ListQuery::new(at(1_000));
    query.limit = 500;
    query.after = Some(Cursor::new(at(1_005), id("key00a")));
    let rest = store.list(&query).await.unwrap().items;
    let rest: Vec<_> = rest.iter().map(|key| key.record.id.clone()).collect();
    assert!(!rest.is_empty() && rest.len() < sorted.len());
    assert_eq!(rest, sorted[sorted.len() - rest.len()..]);
}

#[tokio::test]
async fn a_list_is_filtered_by_tenant_status_environment_and_text() {
    let store = MemoryStore::new();
    let mut a = record("a");
    a.name = "Payments LIVE".into();
    let mut b = record("b");
    b.description = Some("for the payments team".into());
    b.environment = test();
    let mut c = record("c");
    c.owner = Owner::tenant(tenant("other"));
    c.masked = "acme_live_sk_…PayM".into();
    let mut d = record("d");
    d.revoked = Some(Revocation::new(at(1_000), None));
    let mut e = record("e");
    e.expires_at = Some(at(2_000));
    for (number, record) in [a, b, c, d, e].into_iter().enumerate() {
        store.apply(&batch([insert(digest(u8::try_from(number).unwrap()), record)])).await.unwrap();
    }
    type Change = fn(&mut ListQuery);
    let cases: [(&str, Change, &[&str]); 10] = [
        ("all", |_| {}, &["a", "b", "c", "d", "e"]),
        ("a tenant", |q| q.tenant = Some(tenant("other")), &["c"]),
        ("a tenant that is not there", |q| q.tenant = Some(tenant("acm")), &[]),
        ("active", |q| q.status = Some(KeyStatus::Active), &["a", "b", "c", "e"]),
        (
            "active later",
            |q| {
                q.status = Some(KeyStatus::Active);
                q.now = at(2_000);
            },
            &["a", "b", "c"],
        ),
        ("revoked", |q| q.status = Some(KeyStatus::Revoked), &["d"]),
        ("an environment", |q| q.environment = Some(test()), &["b"]),
        ("a text in name, description or mask", |q| q.text = Some("pAYm".into()), &["a", "b", "c"]),
        (
            "a text and a tenant",
            |q| {
                q.text = Some("paym".into());
                q.tenant = Some(tenant("acme"));
            },
            &["a", "b"],
        ),
        ("a text that is a pattern elsewhere", |q| q.text = Some("%".into()), &[]),
    ];
    for (what, change, expected) in cases {
        for limit in [1, 50] {
            let mut query = ListQuery::new(at(1_000));
            change(&mut query);
            query.limit = limit;
            let names: Vec<_> = pages(&store, query).await.concat().iter().map(ToString::to_string).collect();
            assert_eq!(names, expected, "{what}, {limit} a page");
        }
    }
}

// ---- usage ----

#[tokio::test]
async fn usage_adds_up_and_its_time_never_moves_back() {
    let store = store_with_a().await;
    let ip = |last: u8| Some(std::net::IpAddr::from([192, 0, 2, last]));
    let use_of = |count, seconds, ip| UsageDelta::new(id("a"), count, at(seconds), ip);
    let usage = || async { store.get(&id("a")).await.unwrap().unwrap().usage };
    assert_eq!(usage().await, Usage::default());
    store.record_usage(&[use_of(2, 5_000, ip(1))]).await.unwrap();
    store.record_usage(&[use_of(3, 4_000, ip(2))]).await.unwrap();
    let now = usage().await;
    assert_eq!((now.count, now.last_used_at, now.last_ip), (5, Some(at(5_000)), ip(1)), "a late batch of another node");
    store.record_usage(&[use_of(1, 6_000, None), use_of(u64::MAX, 6_000, ip(3))]).await.unwrap();
    let now = usage().await;
    assert_eq!((now.count, now.last_used_at, now.last_ip), (u64::MAX, Some(at(6_000)), ip(3)));
}

#[tokio::test]
async fn usage_of_keys_that_are_gone_is_skipped_and_that_of_others_kept() {
    let store = store_with_a().await;
    store.apply(&batch([insert(digest(2), record("b")), Change::Delete(id("b"))])).await.unwrap();
    let deltas = ["b", "nobody", "a"].map(|name| UsageDelta::new(id(name), 1, at(5_000), None));
    store.record_usage(&deltas).await.unwrap();
    assert_eq!(store.get(&id("a")).await.unwrap().unwrap().usage.count, 1);
}

#[tokio::test]
async fn usage_outlives_an_update_and_a_rehash_and_is_no_new_version() {
    let store = store_with_a().await;
    store.record_usage(&[UsageDelta::new(id("a"), 7, at(5_000), None)]).await.unwrap();
    store.apply(&WriteBatch::new().update(record("a"))).await.unwrap();
    store.apply(&batch([rehash("a", digest(1), peppered(1))])).await.unwrap();
    let listed = store.get(&id("a")).await.unwrap().unwrap();
    assert_eq!((listed.usage.count, listed.record.version), (7, 2));
}

#[tokio::test]
async fn usage_is_told_by_hour_and_forgotten_by_hour() {
    const HOUR: u64 = 3600;
    let store = store_with_a().await;
    let deltas = [(1, HOUR), (2, 2 * HOUR - 1), (4, 2 * HOUR), (8, 4 * HOUR + 17)]
        .map(|(count, last)| UsageDelta::new(id("a"), count, at(last), None));
    store.record_usage(&deltas).await.unwrap();
    let by_hour = |from, to| {
        let store = store.clone();
        async move {
            let hours = store.usage_by_hour(&id("a"), at(from), at(to)).await.unwrap();
            hours.iter().map(|hour| (hour.start, hour.count)).collect::<Vec<_>>()
        }
    };
    let all = [(at(HOUR), 3), (at(2 * HOUR), 4), (at(4 * HOUR), 8)];
    assert_eq!(by_hour(0, 10 * HOUR).await, all);
    assert_eq!(by_hour(2 * HOUR - 1, 4 * HOUR).await, all[..2], "the whole hour of its beginning, not that of its end");
    assert_eq!(store.forget_usage_before(at(2 * HOUR + 1)).await.unwrap(), 1);
    assert_eq!(by_hour(0, 10 * HOUR).await, all[1..]);
    assert_eq!(store.get(&id("a")).await.unwrap().unwrap().usage.count, 15, "totals stay");
}

// ---- random batches against a slow model ----

/// All rows in one vector, copied whole before each batch.
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
        self.rows.iter_mut().find(|row| row.record.id == *id && !row.deleted).ok_or(())
    }

    fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Option<KeyId> {
        let set = self.primaries.iter().find(|(of, _)| of == owner).map(|(_, id)| id);
        let can = |row: &&Row| !row.deleted && owner.includes(&row.record) && row.record.can_be_primary(at);
        let mut able: Vec<_> = self.rows.iter().filter(can).map(|row| &row.record).collect();
        able.sort_by_key(|record| (Some(&record.id) != set, Reverse(record.created_at), record.id.clone()));
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
                let active = next.rows.iter().filter(|row| !row.deleted && owner.includes(&row.record));
                let active = active.filter(|row| row.record.counts_as_active(*at)).count();
                (active as u64 <= *limit).then_some(()).ok_or(())?;
            }
        }
        *self = next;
        Ok(())
    }

    fn make(&mut self, change: &Change) -> Result<(), ()> {
        match change {
            Change::Insert { digest, record } => {
                if self.rows.iter().any(|row| row.record.id == record.id) || self.digests_ever.contains(digest) {
                    return Err(());
                }
                self.digests_ever.push(*digest);
                self.rows.push(Row { digest: *digest, record: (**record).clone(), signing: None, deleted: false });
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
                mine.then(|| self.set_primary(owner, Some(key.clone()))).ok_or(())?;
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
    (0_u8..8).prop_map(|number| if number < 5 { digest(number) } else { peppered(number) })
}

fn owners() -> Vec<OwnerRef> {
    let mut owners = Vec::new();
    for of in ["acme", "other"] {
        owners.extend([OwnerRef::Tenant(tenant(of)), OwnerRef::TenantItself(tenant(of))]);
        owners.extend(["u1", "u2"].map(|by| OwnerRef::User(tenant(of), user(by))));
    }
    owners
}

fn some_record() -> impl Strategy<Value = KeyRecord> {
    let owner = prop::sample::select(owners());
    let end = prop::option::of(4_u64..8);
    (some_id(), owner, 0_u64..3, 1_u64..4, any::<bool>(), end).prop_map(|(id, owner, made, version, revoked, end)| {
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
    })
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
    let set = (owner(), some_id()).prop_map(|(owner, key)| batch([Change::SetPrimary { owner, key }]));
    let pin = (owner(), 3_u64..9).prop_map(|(owner, seconds)| batch([Change::PinPrimary { owner, at: at(seconds) }]));
    let sign = (some_id(), prop::option::of(0_u8..3))
        .prop_map(|(id, number)| batch([Change::SetSigning { id, state: number.map(state) }]));
    prop_oneof![4 => insert, 2 => update, 2 => rehash, 1 => delete, 2 => set, 2 => pin, 1 => sign]
}

fn some_condition() -> impl Strategy<Value = Condition> {
    let owner = || prop::sample::select(owners());
    prop_oneof![
        (some_id(), 1_u64..4).prop_map(|(id, version)| Condition::Version { id, version }),
        (owner(), prop::option::of(some_id()), 3_u64..9).prop_map(|(owner, key, seconds)| Condition::Primary {
            owner,
            key,
            at: at(seconds)
        }),
        (owner(), 0_u64..4).prop_map(|(owner, limit)| Condition::ActiveKeysAtMost { owner, at: at(5), limit }),
    ]
}

fn some_batch() -> impl Strategy<Value = WriteBatch> {
    (prop::collection::vec(some_change(), 0..4), prop::collection::vec(some_condition(), 0..2)).prop_map(
        |(changes, conditions)| {
            let mut whole = WriteBatch::new();
            for part in changes {
                whole = part.conditions().iter().cloned().fold(whole, WriteBatch::require);
                whole = part.changes().iter().cloned().fold(whole, WriteBatch::change);
            }
            conditions.into_iter().fold(whole, WriteBatch::require)
        },
    )
}

async fn agree(store: &MemoryStore, model: &Model) -> Result<(), TestCaseError> {
    let mut live: Vec<_> = model.rows.iter().filter(|row| !row.deleted).collect();
    live.sort_by_key(|row| (Reverse(row.record.created_at), row.record.id.clone()));
    let listed: Vec<_> = all(store).await.iter().map(|key| (*key.record).clone()).collect();
    prop_assert_eq!(listed, live.iter().map(|row| row.record.clone()).collect::<Vec<_>>(), "the list");
    for number in 0..8 {
        for digest in [digest(number), peppered(number)] {
            let expected = live.iter().find(|row| row.digest == digest).map(|row| &row.record);
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
        let expected = live.iter().find(|row| row.record.id.as_str() == name).map(|row| &row.record);
        let stored = store.get(&id(name)).await.unwrap();
        prop_assert_eq!(stored.as_ref().map(|listed| &*listed.record), expected, "by id {}", name);
    }
    for name in IDS {
        let expected = live.iter().find(|row| row.record.id.as_str() == name).and_then(|row| row.signing.clone());
        prop_assert_eq!(store.signing_state(&id(name)).await.unwrap(), expected, "what {} signs with", name);
    }
    for owner in owners() {
        for seconds in 3..9 {
            let (told, expected) =
                (store.primary(&owner, at(seconds)).await.unwrap(), model.primary(&owner, at(seconds)));
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
