//! The primary keys of many owners, read together and separately.

use portunus::clock::SystemClock;
use portunus::manage::{KeyManager, NewKey};
use portunus::store::{Cache, CachedStore, LocalBus, MemoryStore};
use portunus_test_support::Setup;

use super::*;

const TENANTS: [&str; 3] = ["acme", "other", "third"];

/// Every owner with keys, and some without.
fn owners() -> Vec<OwnerRef> {
    let users = |name: &'static str| {
        (0..30).map(move |number| OwnerRef::User(tenant(name), user(&format!("u{number}"))))
    };
    let tenants = |name| {
        [
            OwnerRef::TenantItself(tenant(name)),
            OwnerRef::Tenant(tenant(name)),
        ]
    };
    let mut owners: Vec<_> = TENANTS.into_iter().flat_map(users).collect();
    owners.extend(TENANTS.into_iter().flat_map(tenants));
    owners.extend(tenants("nobody"));
    // One owner occurs twice.
    owners.push(owners[0].clone());
    owners
}

/// Keys of all kinds, many of which were primary and no longer can be.
fn batches() -> Vec<WriteBatch> {
    let mut random = Random(3);
    let mut records = Vec::new();
    for number in 0..400 {
        let mut record = record(&format!("key{number}"));
        let tenant = tenant(random.pick(&TENANTS));
        record.owner = Owner::tenant(tenant);
        // The last owners have no key.
        let of_user = !random.one_in(4);
        record.owner.user_id = of_user.then(|| user(&format!("u{}", random.below(28))));
        record.kind = match record.owner.user_id {
            Some(_) => random.pick(&[KeyKind::User, KeyKind::User, KeyKind::AccessToken]),
            None => KeyKind::App,
        };
        record.created_at = at(100 + random.below(20));
        records.push(record);
    }
    let inserts = (0..).zip(&records);
    let inserts = inserts.map(|(number, record)| insert(digest(number), record.clone()));
    let inserts: Vec<_> = inserts.collect();
    let mut batches: Vec<_> = inserts
        .chunks(100)
        .map(|part| batch(part.iter().cloned()))
        .collect();
    let mut set = Vec::new();
    let can_be = |record: &&mut KeyRecord| record.kind != KeyKind::AccessToken;
    for record in records.iter_mut().filter(can_be) {
        if random.one_in(3) {
            let owner = match &record.owner.user_id {
                Some(user) => OwnerRef::User(record.owner.tenant_id.clone(), user.clone()),
                None => OwnerRef::TenantItself(record.owner.tenant_id.clone()),
            };
            let key = record.id.clone();
            set.push(Change::SetPrimary { owner, key });
        }
    }
    batches.push(batch(set));
    let mut updates = WriteBatch::new();
    for record in &mut records {
        match random.below(6) {
            0 => record.revoked = Some(Revocation::new(at(500), None)),
            1 => record.expires_at = Some(at(900 + random.below(300))),
            2 => record.may_be_primary = false,
            3 => record.enabled = false,
            _ => continue,
        }
        updates = updates.update(record.clone());
    }
    batches.push(updates);
    batches
}

/// Each owner's primary key, read separately.
async fn one_by_one(store: &impl KeyStore, at: SystemTime) -> Vec<Option<KeyId>> {
    let mut primaries = Vec::new();
    for owner in owners() {
        primaries.push(match store.primary(&owner, at).await {
            Err(error) if error.is_corrupt() => None,
            primary => primary.unwrap(),
        });
    }
    primaries
}

pub(crate) async fn the_primary_keys_of_many_owners_match_those_of_each(home: &impl Home) {
    let (store, memory) = (home.open().await, MemoryStore::new());
    let cached = Cache::new()
        .bus(LocalBus::new())
        .around(store.clone(), SystemClock::default());
    for batch in batches() {
        memory.apply(&batch).await.unwrap();
        cached.apply(&batch).await.unwrap();
    }
    for now in [at(0), at(950), at(1_100), at(5_000)] {
        let expected = one_by_one(&memory, now).await;
        assert!(expected.iter().flatten().count() > 40, "{expected:?}");
        assert!(expected.contains(&None));
        let in_memory = memory.primaries(&owners(), now).await.unwrap();
        assert_eq!(in_memory, expected, "memory");
        let stored = store.primaries(&owners(), now).await.unwrap();
        assert_eq!(stored, expected, "a database");
        assert_eq!(one_by_one(&store, now).await, expected);
        let through = cached.primaries(&owners(), now).await.unwrap();
        assert_eq!(through, expected, "a cache");
        assert_eq!(one_by_one(&cached, now).await, expected);
    }
    assert_eq!(store.primaries(&[], at(0)).await.unwrap(), []);

    // Records that cannot be read, or contradict the columns beside them: of keys that were set as
    // primary, and of the newest keys.
    let now = at(950);
    let whole = store.primaries(&owners(), now).await.unwrap();
    let harm = [
        ("record = '{'", "key_id LIKE '%3'"),
        ("may_be_primary = 1 - may_be_primary", "key_id LIKE '%5'"),
        ("version = version + 1", "key_id LIKE '%7'"),
    ];
    for (what, which) in harm {
        let (is_set, is_id) = (which, which.replace("key_id", "id"));
        home.execute(format!(
            "UPDATE portunus_keys SET {what} WHERE {is_id} OR id IN \
             (SELECT key_id FROM portunus_primaries WHERE {is_set})"
        ))
        .await;
        let expected = one_by_one(&store, now).await;
        assert_eq!(
            store.primaries(&owners(), now).await.unwrap(),
            expected,
            "{what}"
        );
        assert_eq!(cached.primaries(&owners(), now).await.unwrap(), expected);
        assert_eq!(one_by_one(&cached, now).await, expected);
    }
    let left = store.primaries(&owners(), now).await.unwrap();
    let lost = whole.iter().zip(&left).filter(|(old, new)| old != new);
    assert!(lost.count() > 5, "{whole:?} {left:?}");
    assert!(left.iter().flatten().count() > 20, "{left:?}");
}

pub(crate) async fn a_newest_key_that_cannot_be_read_does_not_hide_the_one_that_was_set(
    home: &impl Home,
) {
    let store = home.open().await;
    let mut newest = record("newest");
    newest.created_at = at(2_000);
    let set = Change::SetPrimary {
        owner: acme_itself(),
        key: id("a"),
    };
    let keys = [insert(digest(1), record("a")), insert(digest(2), newest)];
    store
        .apply(&batch(keys.into_iter().chain([set])))
        .await
        .unwrap();
    home.execute("UPDATE portunus_keys SET record = '{' WHERE id = 'newest'".into())
        .await;
    let now = at(3_000);
    let primary = store.primary(&acme_itself(), now).await.unwrap();
    assert_eq!(primary, Some(id("a")));
    let primaries = store.primaries(&[acme_itself()], now).await.unwrap();
    assert_eq!(primaries, [Some(id("a"))]);
    // Conversely, the primary key cannot be determined.
    home.execute("UPDATE portunus_keys SET record = '{' WHERE id = 'a'".into())
        .await;
    let error = store.primary(&acme_itself(), now).await.unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    let primaries = store.primaries(&[acme_itself()], now).await.unwrap();
    assert_eq!(primaries, [None]);
}

pub(crate) async fn an_unreadable_key_does_not_prevent_ending_another(home: &impl Home) {
    let store = home.open().await;
    let manager = Setup::on(store.clone()).bearer([portunus_test_support::format()]);
    let manager = manager.environments([live()]).manager();
    let mut keys = Vec::new();
    for number in 0..6 {
        let owner = Owner::tenant(tenant("acme"));
        let new = NewKey::new(format!("key {number}"), owner);
        keys.push(manager.issue(new).await.unwrap().record.id.clone());
    }
    let spoil = |id: &KeyId| format!("UPDATE portunus_keys SET record = '{{' WHERE id = '{id}'");
    // The one that is set, and then also one that could replace another.
    manager.make_primary(&keys[0]).await.unwrap();
    home.execute(spoil(&keys[0])).await;
    manager.revoke(&keys[1], None).await.unwrap();
    manager.disable(&keys[2]).await.unwrap();
    manager.make_primary(&keys[3]).await.unwrap();
    home.execute(spoil(&keys[5])).await;
    manager.revoke(&keys[3], None).await.unwrap();
    manager.revoke(&keys[4], None).await.unwrap();
    let new = NewKey::new("another", Owner::tenant(tenant("acme")));
    manager.issue(new).await.unwrap();
    for id in [&keys[1], &keys[3], &keys[4]] {
        let listed = store.get(id).await.unwrap().unwrap();
        assert!(listed.revoked.is_some(), "{id}");
    }
    let error = store.get(&keys[0]).await.unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
}
