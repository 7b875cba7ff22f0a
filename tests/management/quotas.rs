//! The quota of active keys where keys are rotated: a family in its grace period counts as one.

use std::sync::Arc;
use std::time::SystemTime;

use portunus::ErrorCode;
use portunus::key::{KeyFamily, KeyRecord};
use portunus::manage::{
    BulkAction, BulkSelection, ImportedDigest, IssueRules, KeyChange, KeyManager, ManageError,
    ManagedKey, NewImport,
};
use portunus::store::ListQuery;

use crate::life::{DAY, Desk, HOUR, SECOND, acme, ann, change, issue, named, refused, rules};

/// Each way in which a quota of two can be set.
fn of_two() -> [fn(&mut IssueRules); 2] {
    [
        |rules| rules.active_keys = Some(2),
        |rules| rules.active_keys_per_owner = Some(2),
    ]
}

fn expiring(at: Option<SystemTime>) -> KeyChange {
    change(|change| change.expires_at = Some(at))
}

async fn rotated(manager: &KeyManager, key: &KeyRecord) -> Arc<KeyRecord> {
    manager.rotate(&key.id, Some(HOUR)).await.unwrap().record
}

async fn imported(manager: &KeyManager, number: u8) -> Result<ManagedKey, ManageError> {
    let digest = ImportedDigest::new("sha256", &[number; 32]).unwrap();
    manager
        .import(NewImport::new(digest, named("imported")))
        .await
}

async fn active(desk: &Desk) -> usize {
    let (all, now) = (desk.all().await, desk.now());
    all.iter().filter(|key| key.counts_as_active(now)).count()
}

#[tokio::test]
async fn a_family_in_grace_counts_as_one_against_later_issues_and_imports() {
    for set in of_two() {
        let desk = Desk::new();
        let manager = desk.manager(set);
        let (_, one) = issue(&manager, named("one")).await;
        let newer = rotated(&manager, &one).await;
        issue(&manager, named("two")).await;
        assert_eq!(active(&desk).await, 3, "two of them in one family");
        let refusal = manager.issue(named("three")).await;
        assert!(
            matches!(
                refusal,
                Err(ManageError::QuotaExceeded {
                    active: 3,
                    limit: 2
                })
            ),
            "{refusal:?}"
        );
        assert_eq!(
            refused(imported(&manager, 1).await),
            ErrorCode::QuotaExceeded
        );
        // The end of the grace period takes nothing from the count, and the end of the family does.
        desk.clock.advance(HOUR);
        assert_eq!(active(&desk).await, 2);
        assert_eq!(
            refused(manager.issue(named("three")).await),
            ErrorCode::QuotaExceeded
        );
        manager.revoke(&newer.id, None).await.unwrap();
        imported(&manager, 1).await.unwrap();
    }
}

#[tokio::test]
async fn every_family_may_be_in_grace_at_the_limit() {
    for set in of_two() {
        let desk = Desk::new();
        let manager = desk.manager(set);
        let (_, one) = issue(&manager, named("one")).await;
        rotated(&manager, &one).await;
        let two = imported(&manager, 2).await.unwrap();
        rotated(&manager, &two.record).await;
        assert_eq!(active(&desk).await, 4);
        assert_eq!(
            refused(manager.issue(named("three")).await),
            ErrorCode::QuotaExceeded
        );
        // One of two keys of a family ends: the family still counts.
        manager.revoke(&one.id, None).await.unwrap();
        assert_eq!(
            refused(manager.issue(named("three")).await),
            ErrorCode::QuotaExceeded
        );
        // Disabled keys count, and so do both disabled keys of a family, as one.
        manager.disable(&two.record.id).await.unwrap();
        assert_eq!(
            refused(manager.issue(named("three")).await),
            ErrorCode::QuotaExceeded
        );
    }
}

#[tokio::test]
async fn an_owners_quota_does_not_see_the_families_of_others() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys_per_owner = Some(1));
    let (_, of_acme) = issue(&manager, named("acme")).await;
    rotated(&manager, &of_acme).await;
    let mut new = named("ann");
    new.owner = ann();
    let (_, of_ann) = issue(&manager, new.clone()).await;
    rotated(&manager, &of_ann).await;
    assert_eq!(refused(manager.issue(new).await), ErrorCode::QuotaExceeded);
    assert_eq!(
        refused(manager.issue(named("acme")).await),
        ErrorCode::QuotaExceeded
    );
}

#[tokio::test]
async fn a_third_active_key_of_a_family_counts() {
    // Only an earlier version, or another program with access to the store, makes one.
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(3));
    let (_, one) = issue(&manager, named("one")).await;
    for number in 2..=5_u8 {
        let mut record = (*one).clone();
        record.id = portunus::key::KeyId::new(&format!("key{number}")).unwrap();
        assert_eq!(record.family, KeyFamily::from(&one.id));
        let digest =
            portunus::key::KeyDigest::new(portunus::key::DigestScheme::Sha256, [number; 32]);
        let insertion = portunus::store::Change::Insert {
            digest,
            record: Box::new(record),
        };
        let batch = portunus::store::WriteBatch::new().change(insertion);
        portunus::store::KeyStore::apply(desk.store.inner(), &batch)
            .await
            .unwrap();
    }
    let refusal = manager.issue(named("another")).await;
    assert!(
        matches!(
            refusal,
            Err(ManageError::QuotaExceeded {
                active: 5,
                limit: 3
            })
        ),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn an_expired_successor_can_be_extended_beside_its_predecessor_at_the_limit() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(1));
    let (_, old) = issue(&manager, named("key")).await;
    let new = manager.rotate(&old.id, Some(DAY)).await.unwrap().record;
    let soon = expiring(Some(desk.now() + HOUR));
    manager.update(&new.id, soon, None).await.unwrap();
    desk.clock.advance(HOUR + SECOND);
    assert_eq!(active(&desk).await, 1, "the key in grace");
    manager.update(&new.id, expiring(None), None).await.unwrap();
    assert_eq!(active(&desk).await, 2);
    // Without its predecessor, it needs a place in the quota, which another key has taken.
    let soon = expiring(Some(desk.now() + HOUR));
    manager.update(&new.id, soon, None).await.unwrap();
    desk.clock.advance(HOUR + SECOND);
    manager.revoke(&old.id, None).await.unwrap();
    issue(&manager, named("in its place")).await;
    assert_eq!(
        refused(manager.update(&new.id, expiring(None), None).await),
        ErrorCode::QuotaExceeded
    );
}

#[tokio::test]
async fn both_keys_of_a_family_can_be_enabled_at_the_limit_one_by_one_and_in_bulk() {
    let desk = Desk::new();
    let service = desk
        .builder()
        .rules(rules(|rules| rules.active_keys = Some(1)))
        .builder()
        .build()
        .unwrap();
    let manager = service.manager();
    let (_, old) = issue(manager, named("key")).await;
    let new = rotated(manager, &old).await;
    for id in [&old.id, &new.id] {
        manager.disable(id).await.unwrap();
        manager.enable(id).await.unwrap();
        manager.disable(id).await.unwrap();
    }
    let mut query = ListQuery::new(desk.now());
    query.family = Some(old.family.clone());
    let both = BulkSelection::Matching(query);
    let begun = manager.bulk(both, BulkAction::Enable, None).await.unwrap();
    let done = loop {
        desk.tick();
        service.maintain().await;
        let operation = manager.bulk_operation(&begun.id).await.unwrap();
        if operation.ended_at.is_some() {
            break operation;
        }
    };
    assert_eq!((done.done, done.failed), (2, 0), "{:?}", done.failures);
    for id in [&old.id, &new.id] {
        assert!(desk.stored(id).await.unwrap().enabled);
    }
}

#[tokio::test]
async fn a_precondition_is_evaluated_after_the_quota_of_families() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(2));
    let never = manager.only_if(|_| false);
    let (_, one) = issue(&manager, named("one")).await;
    rotated(&manager, &one).await;
    let unmet = never.issue(named("two")).await;
    assert!(
        matches!(unmet, Err(ManageError::PreconditionFailed)),
        "{unmet:?}"
    );
    issue(&manager, named("two")).await;
    assert_eq!(
        refused(never.issue(named("three")).await),
        ErrorCode::QuotaExceeded
    );
    assert_eq!(active(&desk).await, 3);
}

#[tokio::test]
async fn where_rotated_keys_stay_both_keys_of_a_family_count() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| {
        rules.active_keys = Some(3);
        rules.rotated_keys_stay = true;
        rules.never_expire = true;
    });
    let (_, one) = issue(&manager, named("one")).await;
    let two = manager.rotate(&one.id, None).await.unwrap().record;
    assert!(
        desk.stored(&one.id)
            .await
            .unwrap()
            .counts_as_active(desk.now())
    );
    issue(&manager, named("three")).await;
    assert_eq!(
        refused(manager.issue(named("four")).await),
        ErrorCode::QuotaExceeded
    );
    assert_eq!(
        refused(imported(&manager, 4).await),
        ErrorCode::QuotaExceeded
    );
    assert_eq!(
        refused(manager.rotate(&two.id, None).await),
        ErrorCode::QuotaExceeded
    );
    manager.delete(&two.id).await.unwrap();
    assert_eq!(desk.primary(&acme()).await, Some(one.id.clone()));
    issue(&manager, named("four")).await;
}
