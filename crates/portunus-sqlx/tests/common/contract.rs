//! The promises of the trait about lookups and batches.

use std::time::{Duration, SystemTime};

use portunus::Scope;
use portunus::key::{
    Access, Delegation, DigestScheme, KeyFamily, KeyKind, KeyRecord, Metadata, Owner, PlanName,
    Revocation, WorkspaceId,
};
use portunus::network::AllowList;
use portunus::quota::Quotas;
use portunus::store::{Change, Condition, KeyStore, OwnerRef, Rejected, WriteBatch};

use super::*;

pub(crate) async fn a_key_is_found_only_by_its_digest_and_scheme(home: &impl Home) {
    let store = with_a(home).await;
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
    assert_eq!(found(&store, peppered(1)).await, None, "another scheme");
    assert_eq!(
        found(&store, digest_of(DigestScheme::HmacSha256 { pepper: 2 }, 1)).await,
        None
    );
    for place in 0..32 {
        let mut bytes = digest(1).to_bytes();
        bytes[place] ^= 1;
        assert_eq!(
            found(
                &store,
                portunus::key::KeyDigest::new(DigestScheme::Sha256, bytes)
            )
            .await,
            None,
            "{place}"
        );
    }
    assert!(store.find_now(&[digest(1)]).is_none(), "it must be awaited");
}

pub(crate) async fn one_trip_finds_a_key_under_any_of_its_candidates(home: &impl Home) {
    let store = with_a(home).await;
    for place in 0..8_u32 {
        let candidates: Vec<_> = (0..8)
            .map(|n| {
                if n == place {
                    digest(1)
                } else {
                    peppered(n + 1)
                }
            })
            .collect();
        let found = store.find(&candidates).await.unwrap().unwrap();
        assert_eq!(
            (*found.digest(), &found.record().id),
            (digest(1), &id("a")),
            "and returns the matching digest"
        );
    }
    assert!(store.find(&[]).await.unwrap().is_none());
    // Two keys under the same bytes of two schemes: the first candidate wins.
    store
        .apply(&batch([insert(peppered(1), record("b"))]))
        .await
        .unwrap();
    for (candidates, first) in [
        ([digest(1), peppered(1)], "a"),
        ([peppered(1), digest(1)], "b"),
    ] {
        assert_eq!(
            store.find(&candidates).await.unwrap().unwrap().record().id,
            id(first)
        );
    }
}

pub(crate) async fn more_candidates_than_a_statement_takes_are_all_tried(home: &impl Home) {
    let store = with_a(home).await;
    let candidates: Vec<_> = (2..40).chain([1]).map(digest).collect();
    assert_eq!(
        store.find(&candidates).await.unwrap().unwrap().record().id,
        id("a")
    );
    assert!(store.find(&candidates[..38]).await.unwrap().is_none());
}

/// A record all of whose fields differ from their initial values.
pub(crate) fn full_record(name: &str) -> KeyRecord {
    let mut record = record(name);
    record.owner = Owner::user(tenant("acme"), user("u1")).with_email("u1@example.com");
    record.family = KeyFamily::new("family").unwrap();
    record.version = 3;
    record.description = Some("for the nightly run".into());
    record.kind = KeyKind::User;
    record.masked = "acme_live_…1234".into();
    record.scopes = vec![Scope::new("document:*").unwrap(), Scope::new("a").unwrap()];
    record.access = Access::ReadOnly;
    record.workspaces = Some(vec![WorkspaceId::new("w1").unwrap()]);
    record.plan = Some(PlanName::new("enterprise").unwrap());
    record.delegation = Delegation::Only(vec![Scope::new("a").unwrap()]);
    record.allowed_ips = Some(AllowList::parse(["203.0.113.42", "2001:db8::/32"]).unwrap());
    record.quotas = Some(Quotas::default());
    record.metadata = Metadata::from_json(r#"{"team":"payments","n":[1,null]}"#).unwrap();
    record.not_before = Some(at(1_001));
    record.expires_at = Some(at(1_000_000));
    record.enabled = false;
    record.revoked = Some(Revocation::new(at(1_002), Some("leaked".into())));
    record.predecessor = Some(id("earlier"));
    record.successor = Some(id("later"));
    record.may_be_primary = false;
    record
}

pub(crate) async fn records_are_read_as_written(home: &impl Home) {
    let store = home.open().await;
    for (number, record) in (0..).zip([full_record("full"), record("plain")]) {
        store
            .apply(&batch([insert(digest(number), record.clone())]))
            .await
            .unwrap();
        assert_eq!(
            **store
                .find(&[digest(number)])
                .await
                .unwrap()
                .unwrap()
                .record(),
            record
        );
        let listed = store.get(&record.id).await.unwrap().unwrap();
        assert_eq!(*listed, record);
        assert_eq!(used(&store, &record.id).await, Usage::default());
        assert!(all(&store).await.contains(&listed));
    }
    let mut changed = full_record("plain");
    changed.owner = record("plain").owner;
    changed.family = record("plain").family;
    changed.version = 1;
    store
        .apply(&WriteBatch::new().update(changed.clone()))
        .await
        .unwrap();
    changed.version = 2;
    assert_eq!(get(&store, "plain").await, changed);
    assert!(store.get(&id("unknown")).await.unwrap().is_none());
}

pub(crate) async fn a_revoked_key_is_found_with_its_revocation(home: &impl Home) {
    let store = with_a(home).await;
    let mut revoked = record("a");
    revoked.revoked = Some(Revocation::new(at(1_000), None));
    store
        .apply(&WriteBatch::new().update(revoked))
        .await
        .unwrap();
    let stored = store.find(&[digest(1)]).await.unwrap().unwrap();
    assert!(stored.record().revoked.is_some());
}

pub(crate) async fn a_batch_whose_condition_fails_changes_nothing(home: &impl Home) {
    let store = home.open().await;
    let mut kept = record("a");
    kept.created_at = at(1);
    let set = |name: &str| Change::SetPrimary {
        owner: acme(),
        key: id(name),
    };
    let sign = |number| Change::SetSigning {
        id: id("a"),
        state: Some(signing(number)),
    };
    store
        .apply(&batch([insert(digest(1), kept.clone()), set("a"), sign(1)]))
        .await
        .unwrap();
    let before = all(&store).await;
    for condition in [never(), at_most(0)] {
        let mut changed = kept.clone();
        changed.name = "changed".into();
        changed.version = 2;
        let failing = batch([
            insert(digest(2), record("b")),
            set("b"),
            sign(2),
            Change::Replace(Box::new(changed)),
            rehash("a", digest(1), digest(3)),
            insert(digest(4), record("c")),
            Change::Delete(id("c")),
        ]);
        store.apply(&failing.require(condition)).await.unwrap_err();
        assert_eq!(all(&store).await, before);
        assert_eq!(
            store.primary(&acme(), at(1_000)).await.unwrap(),
            Some(id("a"))
        );
        assert_eq!(
            store.signing_state(&id("a")).await.unwrap(),
            Some(signing(1))
        );
        assert_eq!(found(&store, digest(1)).await, Some(id("a")));
        for unknown in [2, 3, 4] {
            assert_eq!(found(&store, digest(unknown)).await, None);
        }
    }
    // Neither ids nor digests are reserved.
    let again =
        [("b", 2), ("c", 4), ("d", 3)].map(|(name, number)| insert(digest(number), record(name)));
    store.apply(&batch(again)).await.unwrap();
}

pub(crate) async fn a_batch_that_fails_in_its_last_change_changes_nothing(home: &impl Home) {
    let store = with_a(home).await;
    let failing = batch([
        insert(digest(2), record("b")),
        Change::Delete(id("a")),
        Change::Delete(id("nobody")),
    ]);
    assert_eq!(
        rejected(&store, failing).await,
        Rejected::Missing(id("nobody"))
    );
    assert_eq!(
        (
            found(&store, digest(1)).await,
            found(&store, digest(2)).await
        ),
        (Some(id("a")), None)
    );
    assert_eq!(all(&store).await.len(), 1);
    let twice = batch([
        rehash("a", digest(1), peppered(1)),
        rehash("a", peppered(1), peppered(2)),
        Change::Delete(id("nobody")),
    ]);
    store.apply(&twice).await.unwrap_err();
    store
        .apply(&batch([
            insert(peppered(2), record("b")),
            insert(peppered(1), record("c")),
        ]))
        .await
        .unwrap();
}

pub(crate) async fn an_empty_batch_changes_nothing_but_checks_its_conditions(home: &impl Home) {
    let store = with_a(home).await;
    store.apply(&WriteBatch::new()).await.unwrap();
    assert_eq!(
        rejected(&store, WriteBatch::new().require(never())).await,
        Rejected::Missing(id("nobody"))
    );
    assert_eq!(
        rejected(&store, WriteBatch::new().require(at_most(0))).await,
        Rejected::TooManyActive {
            active: 1,
            limit: 0
        }
    );
}

pub(crate) async fn the_first_failing_condition_is_reported_and_quotas_come_last(home: &impl Home) {
    let store = with_a(home).await;
    let version = Condition::Version {
        id: id("a"),
        version: 9,
    };
    let primary = Condition::Primary {
        owner: acme(),
        key: None,
        at: at(1_000),
    };
    let bad = || WriteBatch::new().change(Change::Delete(id("nobody")));
    let wrong_version = Rejected::Version {
        id: id("a"),
        expected: 9,
        stored: 1,
    };
    let both = bad()
        .require(at_most(0))
        .require(version.clone())
        .require(primary.clone());
    assert_eq!(rejected(&store, both).await, wrong_version);
    assert_eq!(
        rejected(&store, bad().require(primary).require(version)).await,
        Rejected::Primary
    );
    assert_eq!(
        rejected(&store, bad().require(at_most(0))).await,
        Rejected::Missing(id("nobody"))
    );
    let taken = batch([insert(digest(1), record("a"))]);
    assert_eq!(
        rejected(&store, taken).await,
        Rejected::IdKnown(id("a")),
        "before the digest"
    );
}

pub(crate) async fn an_update_of_a_stale_version_is_rejected(home: &impl Home) {
    let store = with_a(home).await;
    let mut winner = record("a");
    winner.name = "first".into();
    store
        .apply(&WriteBatch::new().update(winner))
        .await
        .unwrap();
    let why = rejected(&store, WriteBatch::new().update(record("a"))).await;
    assert_eq!(
        why,
        Rejected::Version {
            id: id("a"),
            expected: 1,
            stored: 2
        }
    );
    let stored = get(&store, "a").await;
    assert_eq!((stored.name.as_str(), stored.version), ("first", 2));
}

pub(crate) async fn an_owner_and_a_family_never_change(home: &impl Home) {
    let store = with_a(home).await;
    type Edit = fn(&mut KeyRecord);
    let edits: [Edit; 3] = [
        |record| record.owner = Owner::tenant(tenant("other")),
        |record| record.owner = Owner::user(tenant("acme"), user("u1")),
        |record| record.family = KeyFamily::new("other").unwrap(),
    ];
    for edit in edits {
        let mut changed = record("a");
        edit(&mut changed);
        assert_eq!(
            rejected(&store, WriteBatch::new().update(changed)).await,
            Rejected::Owner(id("a"))
        );
    }
    assert_eq!(get(&store, "a").await, record("a"));
    let mut readdressed = record("a");
    readdressed.owner = readdressed.owner.with_email("a@example.com");
    store
        .apply(&WriteBatch::new().update(readdressed))
        .await
        .unwrap();
    assert_eq!(
        get(&store, "a").await.owner.user_email.as_deref(),
        Some("a@example.com"),
        "the same owner, elsewhere"
    );
}

pub(crate) async fn a_deleted_key_is_gone_and_its_id_and_digests_stay_reserved(home: &impl Home) {
    let store = with_a(home).await;
    store
        .apply(&batch([rehash("a", digest(1), peppered(1))]))
        .await
        .unwrap();
    store
        .apply(&batch([Change::Delete(id("a"))]))
        .await
        .unwrap();
    assert_eq!(
        (
            found(&store, digest(1)).await,
            found(&store, peppered(1)).await
        ),
        (None, None)
    );
    assert!(store.get(&id("a")).await.unwrap().is_none());
    assert!(all(&store).await.is_empty());
    for known in [digest(1), peppered(1)] {
        assert_eq!(
            rejected(&store, batch([insert(known, record("b"))])).await,
            Rejected::DigestKnown
        );
    }
    assert_eq!(
        rejected(&store, batch([insert(digest(2), record("a"))])).await,
        Rejected::IdKnown(id("a"))
    );
    let missing = Rejected::Missing(id("a"));
    for change in [
        Change::Delete(id("a")),
        Change::Replace(Box::new(record("a"))),
        rehash("a", peppered(1), peppered(2)),
        Change::SetPrimary {
            owner: acme(),
            key: id("a"),
        },
        Change::SetSigning {
            id: id("a"),
            state: None,
        },
    ] {
        assert_eq!(rejected(&store, batch([change])).await, missing);
    }
    store
        .apply(&batch([
            insert(digest(3), record("b")),
            Change::Delete(id("b")),
        ]))
        .await
        .unwrap();
    assert_eq!(
        found(&store, digest(3)).await,
        None,
        "inserted and deleted in one batch"
    );
    assert_eq!(
        rejected(&store, batch([insert(digest(3), record("c"))])).await,
        Rejected::DigestKnown
    );
}

pub(crate) async fn a_rehashed_key_is_found_under_its_new_digest_only_and_has_no_new_version(
    home: &impl Home,
) {
    let store = with_a(home).await;
    store
        .apply(&batch([rehash("a", digest(1), peppered(1))]))
        .await
        .unwrap();
    assert_eq!(
        (
            found(&store, digest(1)).await,
            found(&store, peppered(1)).await
        ),
        (None, Some(id("a")))
    );
    store
        .apply(&batch([rehash("a", peppered(1), peppered(1))]))
        .await
        .unwrap();
    assert_eq!(get(&store, "a").await.version, 1);
}

pub(crate) async fn a_rehash_from_or_onto_another_digest_is_rejected(home: &impl Home) {
    let store = with_a(home).await;
    store
        .apply(&batch([insert(digest(2), record("b"))]))
        .await
        .unwrap();
    assert_eq!(
        rejected(&store, batch([rehash("a", digest(1), digest(2))])).await,
        Rejected::DigestKnown
    );
    assert_eq!(
        rejected(&store, batch([rehash("a", digest(9), digest(3))])).await,
        Rejected::Missing(id("a"))
    );
    assert_eq!(
        rejected(&store, batch([rehash("nobody", digest(1), digest(2))])).await,
        Rejected::Missing(id("nobody"))
    );
    store
        .apply(&batch([rehash("a", digest(1), peppered(1))]))
        .await
        .unwrap();
    assert_eq!(
        rejected(&store, batch([rehash("a", peppered(1), digest(1))])).await,
        Rejected::DigestKnown
    );
    assert_eq!(found(&store, peppered(1)).await, Some(id("a")));
}

pub(crate) async fn the_primary_key_is_the_one_that_was_set_else_the_newest(home: &impl Home) {
    let store = home.open().await;
    let of_user = OwnerRef::User(tenant("acme"), user("u1"));
    let primary = |owner: OwnerRef, now: u64| {
        let store = store.clone();
        async move {
            store
                .primary(&owner, at(now))
                .await
                .unwrap()
                .map(|id| id.to_string())
        }
    };
    assert_eq!(primary(acme(), 0).await, None);
    let made = |name: &str, at_second: u64, owner: Owner| {
        let mut record = record(name);
        record.created_at = at(at_second);
        record.owner = owner;
        record
    };
    let itself = Owner::tenant(tenant("acme"));
    let mut expiring = made("c", 30, itself.clone());
    expiring.expires_at = Some(at(100));
    let mut token = made("d", 40, itself.clone());
    token.kind = KeyKind::AccessToken;
    let mut never = made("e", 50, itself.clone());
    never.may_be_primary = false;
    let keys = [
        made("a", 10, itself.clone()),
        made("B", 10, itself),
        expiring,
        token,
        never,
        made("u", 60, Owner::user(tenant("acme"), user("u1"))),
        made("x", 70, Owner::tenant(tenant("other"))),
    ];
    store
        .apply(&batch(
            (1..)
                .zip(keys)
                .map(|(number, record)| insert(digest(number), record)),
        ))
        .await
        .unwrap();
    assert_eq!(primary(acme_itself(), 99).await.as_deref(), Some("c"));
    assert_eq!(
        primary(acme_itself(), 100).await.as_deref(),
        Some("B"),
        "of two equally old ones, the first id"
    );
    assert_eq!(primary(acme(), 99).await.as_deref(), Some("u"));
    assert_eq!(primary(of_user.clone(), 99).await.as_deref(), Some("u"));
    assert_eq!(
        primary(OwnerRef::User(tenant("acme"), user("u2")), 99).await,
        None
    );
    let set = Change::SetPrimary {
        owner: acme_itself(),
        key: id("a"),
    };
    store.apply(&batch([set])).await.unwrap();
    assert_eq!(primary(acme_itself(), 99).await.as_deref(), Some("a"));
    assert_eq!(
        primary(acme(), 99).await.as_deref(),
        Some("u"),
        "each owner has a primary of its own"
    );
    let condition = |key: Option<&str>| Condition::Primary {
        owner: acme_itself(),
        key: key.map(id),
        at: at(99),
    };
    assert_eq!(
        rejected(&store, WriteBatch::new().require(condition(Some("c")))).await,
        Rejected::Primary
    );
    assert_eq!(
        rejected(&store, WriteBatch::new().require(condition(None))).await,
        Rejected::Primary
    );
    store
        .apply(&WriteBatch::new().require(condition(Some("a"))))
        .await
        .unwrap();
    store
        .apply(&batch([Change::Delete(id("a"))]))
        .await
        .unwrap();
    assert_eq!(primary(acme_itself(), 99).await.as_deref(), Some("c"));
}

pub(crate) async fn a_pinned_primary_key_stays_when_a_newer_one_is_added(home: &impl Home) {
    let store = with_a(home).await;
    let pin = || Change::PinPrimary {
        owner: acme(),
        at: at(1_000),
    };
    store.apply(&batch([pin()])).await.unwrap();
    let newer = |name: &str, seconds| {
        let mut newer = record(name);
        newer.created_at = at(seconds);
        newer
    };
    store
        .apply(&batch([insert(digest(2), newer("b", 2_000))]))
        .await
        .unwrap();
    assert_eq!(
        store.primary(&acme(), at(1_000)).await.unwrap(),
        Some(id("a"))
    );
    let mut revoked = record("a");
    revoked.revoked = Some(Revocation::new(at(1_000), None));
    store
        .apply(&WriteBatch::new().update(revoked).change(pin()))
        .await
        .unwrap();
    store
        .apply(&batch([insert(digest(3), newer("c", 3_000))]))
        .await
        .unwrap();
    assert_eq!(
        store.primary(&acme(), at(1_000)).await.unwrap(),
        Some(id("b")),
        "the successor was pinned"
    );
    store
        .apply(&batch([
            Change::Delete(id("b")),
            Change::Delete(id("c")),
            pin(),
        ]))
        .await
        .unwrap();
    assert_eq!(store.primary(&acme(), at(1_000)).await.unwrap(), None);
}

pub(crate) async fn a_key_of_another_owner_cannot_be_primary(home: &impl Home) {
    let store = with_a(home).await;
    let set = |owner: OwnerRef| {
        batch([Change::SetPrimary {
            owner,
            key: id("a"),
        }])
    };
    for owner in [
        OwnerRef::Tenant(tenant("other")),
        OwnerRef::User(tenant("acme"), user("u1")),
    ] {
        assert_eq!(rejected(&store, set(owner)).await, Rejected::Owner(id("a")));
    }
    store.apply(&set(acme_itself())).await.unwrap();
}

pub(crate) async fn quotas_count_the_keys_of_their_owner_that_are_active(home: &impl Home) {
    let store = home.open().await;
    type Edit = fn(&mut KeyRecord);
    let keys: [(&str, Edit); 7] = [
        ("plain", |_| {}),
        ("disabled", |record| record.enabled = false),
        ("later", |record| record.not_before = Some(at(9_999))),
        ("token", |record| record.kind = KeyKind::AccessToken),
        ("revoked", |record| {
            record.revoked = Some(Revocation::new(at(9_999), None));
        }),
        ("expiring", |record| record.expires_at = Some(at(2_000))),
        ("user's", |record| {
            record.owner = Owner::user(tenant("acme"), user("u1"));
        }),
    ];
    for (number, (name, edit)) in (0..).zip(keys) {
        let mut record = record(name);
        edit(&mut record);
        store
            .apply(&batch([insert(digest(number), record)]))
            .await
            .unwrap();
    }
    let count = |owner: OwnerRef, seconds: u64| {
        let condition = Condition::ActiveKeysAtMost {
            owner,
            at: at(seconds),
            limit: 0,
        };
        let store = store.clone();
        async move {
            match store.apply(&WriteBatch::new().require(condition)).await {
                Ok(()) => 0,
                Err(error) => match error.as_rejected() {
                    Some(Rejected::TooManyActive { active, limit: 0 }) => *active,
                    other => panic!("expected a count: {other:?} {error:?}"),
                },
            }
        }
    };
    assert_eq!(
        (count(acme(), 1_999).await, count(acme(), 2_000).await),
        (5, 4)
    );
    assert_eq!(count(acme_itself(), 2_000).await, 3);
    assert_eq!(
        count(OwnerRef::User(tenant("acme"), user("u1")), 0).await,
        1
    );
    assert_eq!(count(OwnerRef::Tenant(tenant("other")), 0).await, 0);
}

pub(crate) async fn a_signing_state_is_kept_replaced_and_gone_with_its_key(home: &impl Home) {
    let store = with_a(home).await;
    let set = |state: Option<u8>| {
        batch([Change::SetSigning {
            id: id("a"),
            state: state.map(signing),
        }])
    };
    assert_eq!(store.signing_state(&id("a")).await.unwrap(), None);
    for state in [Some(1), Some(2), None, Some(3)] {
        store.apply(&set(state)).await.unwrap();
        assert_eq!(
            store.signing_state(&id("a")).await.unwrap(),
            state.map(signing)
        );
    }
    store
        .apply(&WriteBatch::new().update(record("a")))
        .await
        .unwrap();
    assert_eq!(
        store.signing_state(&id("a")).await.unwrap(),
        Some(signing(3)),
        "it outlives an update"
    );
    assert_eq!(
        get(&store, "a").await.version,
        2,
        "which is the only new version"
    );
    store
        .apply(&batch([Change::Delete(id("a"))]))
        .await
        .unwrap();
    assert_eq!(store.signing_state(&id("a")).await.unwrap(), None);
    assert!(
        !String::from_utf8_lossy(&home.dump().await).contains(&hex([3; 20])),
        "nor in a backup"
    );
}

pub(crate) async fn times_are_kept_to_the_millisecond_and_never_widen_a_key(home: &impl Home) {
    let store = home.open().await;
    let fine = |seconds| at(seconds) + Duration::from_nanos(1_500_001);
    let mut record = record("a");
    (record.created_at, record.not_before, record.expires_at) =
        (fine(1), Some(fine(2)), Some(fine(3)));
    store
        .apply(&batch([insert(digest(1), record)]))
        .await
        .unwrap();
    let stored = get(&store, "a").await;
    let millis = |seconds, millis| at(seconds) + Duration::from_millis(millis);
    assert_eq!(stored.created_at, millis(1, 1));
    assert_eq!(
        (stored.not_before, stored.expires_at),
        (Some(millis(2, 2)), Some(millis(3, 1)))
    );
}

pub(crate) async fn a_time_that_cannot_be_stored_is_rejected(home: &impl Home) {
    let store = home.open().await;
    let mut record = record("a");
    record.created_at = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_unavailable(
        &store
            .apply(&batch([insert(digest(1), record.clone())]))
            .await
            .unwrap_err(),
    );
    record.created_at = at(1);
    record.version = u64::MAX;
    assert_unavailable(
        &store
            .apply(&batch([insert(digest(1), record)]))
            .await
            .unwrap_err(),
    );
    assert!(all(&store).await.is_empty());
}

pub(crate) async fn strings_of_any_kind_are_stored(home: &impl Home) {
    let store = home.open().await;
    let mut record = record("it's;--\\%_$1?");
    record.name = "NUL \0, quote ' and \" and `, ; -- \\ \u{1f511} \u{202e} $1 ?1 :a @b".into();
    record.description = Some("\0".into());
    store
        .apply(&batch([insert(digest(1), record.clone())]))
        .await
        .unwrap();
    assert_eq!(get(&store, record.id.as_str()).await, record);
    let mut query = ListQuery::new(at(1_000));
    for (text, expected) in [
        ("nul \0, QUOTE '", 1),
        ("\u{1f511}", 1),
        ("' OR 1=1", 0),
        ("\u{2400}", 0),
        ("", 1),
    ] {
        query.text = Some(text.into());
        assert_eq!(
            store.list(&query).await.unwrap().items.len(),
            expected,
            "{text:?}"
        );
    }
}

pub(crate) async fn many_keys_in_one_batch_are_inserted_as_if_one_by_one(home: &impl Home) {
    let store = home.open().await;
    let before = [
        insert(digest(1), record("live")),
        insert(digest(2), record("gone")),
        insert(digest(3), record("moved")),
        rehash("moved", digest(3), digest(4)),
        Change::Delete(id("gone")),
    ];
    store.apply(&batch(before)).await.unwrap();
    let many = |change: &dyn Fn(u32) -> Option<Change>| {
        batch((0..1_200_u32).map(|number| {
            let usual = || insert(digest(100 + number), record(&format!("key{number}")));
            change(number).unwrap_or_else(usual)
        }))
    };
    let known = |name: &str| Rejected::IdKnown(id(name));
    let cases = [
        ("live", digest(99), known("live")),
        ("gone", digest(99), known("gone")),
        ("key3", digest(99), known("key3")),
        ("new", digest(1), Rejected::DigestKnown),
        ("new", digest(2), Rejected::DigestKnown),
        ("new", digest(3), Rejected::DigestKnown),
        ("new", digest(103), Rejected::DigestKnown),
    ];
    for (name, digest, expected) in &cases {
        let wrong = |number| (number == 700).then(|| insert(*digest, record(name)));
        assert_eq!(rejected(&store, many(&wrong)).await, *expected, "{name}");
        // The first of several, and after other changes.
        let both = |number| match number {
            699 => Some(insert(digest_of(DigestScheme::Sha256, 90), record("live"))),
            _ => wrong(number),
        };
        assert_eq!(rejected(&store, many(&both)).await, known("live"));
    }
    assert_eq!(all(&store).await.len(), 2);

    let mut strange = record("it's;--\\%_$1?");
    strange.name = "NUL \0, quote ' and \" and `, ; -- \\ \\u0000 \u{1f511} $1 ?1 :a".into();
    strange.description = Some("\0\n".into());
    let every = many(&|number| match number {
        5 => Some(Change::Delete(id("moved"))),
        800 => Some(insert(peppered(800), strange.clone())),
        900 => Some(insert(digest(900), full_record("full"))),
        _ => None,
    });
    store.apply(&every).await.unwrap();
    assert_eq!(get(&store, strange.id.as_str()).await, strange);
    assert_eq!(get(&store, "full").await, full_record("full"));
    let found = store.find(&[peppered(800)]).await.unwrap().unwrap();
    assert_eq!(*found.digest(), peppered(800));
    for number in [0, 4, 6, 1_199] {
        let key = store.find(&[digest(100 + number)]).await.unwrap().unwrap();
        assert_eq!(key.record().id, id(&format!("key{number}")));
    }
    let again = batch([insert(digest(100), record("again"))]);
    assert_eq!(rejected(&store, again).await, Rejected::DigestKnown);
}

pub(crate) async fn many_lookups_at_once_find_each_its_own_key(home: &impl Home) {
    let store = home.open().await;
    let keys = (0..100).map(|number| insert(digest(number), record(&format!("key{number}"))));
    let same_bytes = insert(peppered(7), record("peppered"));
    store.apply(&batch(keys.chain([same_bytes]))).await.unwrap();
    home.execute("UPDATE portunus_keys SET name = 'x' WHERE id = 'key13'".into())
        .await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            for round in 0..50 {
                let number = (task * 37 + round * 11) % 120;
                if (task + round) % 9 == 0 {
                    // Abandoned at once, or in the middle.
                    let limit = Duration::from_micros(u64::from(round * 20));
                    let _ = tokio::time::timeout(limit, store.find(&[digest(number)])).await;
                }
                let found = store.find(&[digest(number)]).await;
                if number == 13 {
                    let error = found.unwrap_err().to_string();
                    assert!(error.ends_with("row \"key13\", column name"), "{error}");
                    continue;
                }
                let found = found.unwrap().map(|key| key.record().id.to_string());
                let expected = (number < 100).then(|| format!("key{number}"));
                assert_eq!(found, expected);
                let found = store.find(&[peppered(number)]).await.unwrap();
                let found = found.map(|key| key.record().id.to_string());
                assert_eq!(found, (number == 7).then(|| "peppered".into()));
            }
        });
    }
    for done in tasks.join_all().await {
        let () = done;
    }
}

pub(crate) async fn under_load_a_lookup_sees_what_was_written_before_it(home: &impl Home) {
    let store = home.open().await;
    let keys = (0..20).map(|number| insert(digest(number), record(&format!("key{number}"))));
    store.apply(&batch(keys)).await.unwrap();
    // More lookups than run at once, of the key that changes and of others.
    let mut load = tokio::task::JoinSet::new();
    for task in 0..40_u32 {
        let store = store.clone();
        load.spawn(async move {
            loop {
                store.find(&[digest(task % 20)]).await.unwrap();
            }
        });
    }
    for round in 0..30 {
        let found = store.find(&[digest(3)]).await.unwrap().unwrap();
        let mut record = KeyRecord::clone(found.record());
        record.enabled = round % 2 == 1;
        store
            .apply(&WriteBatch::new().update(record.clone()))
            .await
            .unwrap();
        let found = store.find(&[digest(3)]).await.unwrap().unwrap();
        assert_eq!(found.record().enabled, record.enabled, "round {round}");
    }
    load.shutdown().await;
}

pub(crate) async fn two_stores_on_one_database_see_each_others_writes_at_once(home: &impl Home) {
    let (one, other) = (home.open().await, home.open().await);
    for round in 1..=20_u64 {
        let name = format!("key{round}");
        let mut record = record(&name);
        let number = u32::try_from(round).unwrap();
        one.apply(&batch([insert(digest(number), record.clone())]))
            .await
            .unwrap();
        assert_eq!(found(&other, digest(number)).await, Some(id(&name)));
        record.revoked = Some(Revocation::new(at(1_000), None));
        other
            .apply(&WriteBatch::new().update(record))
            .await
            .unwrap();
        assert!(
            one.find(&[digest(number)])
                .await
                .unwrap()
                .unwrap()
                .record()
                .revoked
                .is_some()
        );
    }
}

pub(crate) async fn everything_survives_closing_and_reopening(home: &impl Home) {
    let store = with_a(home).await;
    let set = Change::SetPrimary {
        owner: acme(),
        key: id("a"),
    };
    let sign = Change::SetSigning {
        id: id("a"),
        state: Some(signing(1)),
    };
    let gone = [insert(digest(2), record("b")), Change::Delete(id("b"))];
    store
        .apply(&batch([set, sign].into_iter().chain(gone)))
        .await
        .unwrap();
    let delta = portunus::store::UsageDelta::new(id("a"), 3, at(7_200), None);
    store.record_usage(&[delta]).await.unwrap();
    let before = all(&store).await;
    home.close(store.clone()).await;
    assert_unavailable(&store.find(&[digest(1)]).await.unwrap_err());
    let store = home.open().await;
    assert_eq!(all(&store).await, before);
    assert_eq!(
        store.primary(&acme(), at(1_000)).await.unwrap(),
        Some(id("a"))
    );
    assert_eq!(
        store.signing_state(&id("a")).await.unwrap(),
        Some(signing(1))
    );
    assert_eq!(
        store
            .usage_by_hour(&id("a"), at(0), at(10_000))
            .await
            .unwrap()
            .hours
            .len(),
        1
    );
    assert_eq!(
        rejected(&store, batch([insert(digest(2), record("c"))])).await,
        Rejected::DigestKnown
    );
}

pub(crate) async fn the_schema_is_created_once_by_concurrent_stores(home: &impl Home) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let home = home.clone();
        tasks.spawn(async move { home.migrate().await });
    }
    for done in tasks.join_all().await {
        done.unwrap();
    }
    let store = with_a(home).await;
    home.migrate().await.unwrap();
    assert_eq!(found(&store, digest(1)).await, Some(id("a")));
}

pub(crate) async fn a_newer_schema_is_refused(home: &impl Home) {
    let _store = with_a(home).await;
    home.execute("INSERT INTO portunus_schema (version) VALUES (1000)".into())
        .await;
    let error = home.migrate().await.unwrap_err();
    assert!(
        error.contains("schema 1000") && error.contains("update the program"),
        "{error}"
    );
}

pub(crate) async fn a_store_shows_no_secret(home: &impl Home) {
    let store = with_a(home).await;
    let shown = format!("{store:?}");
    assert!(
        shown.contains("Store(") && !shown.contains('/') && shown.len() < 60,
        "{shown}"
    );
}
