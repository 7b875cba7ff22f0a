//! User ids: normalized to lower case if the host declares that its ids are UUIDs, otherwise stored
//! byte for byte.

use crate::life::{Desk, rules};
use portunus::actor::UserIds;
use portunus::key::{Environment, KeyKind, Owner, UserId};
use portunus::manage::{ImportedDigest, KeyManager, ManageError, NewImport, NewKey};
use portunus::store::MemoryStore;
use portunus_profiles::Profile;
use portunus_test_support::{Setup, tenant, user};

const LOWER: &str = "550e8400-e29b-41d4-a716-446655440000";

fn upper() -> String {
    LOWER.to_uppercase()
}

/// A manager that signs events and allows two keys per owner.
fn manager(desk: &Desk, ids: UserIds) -> KeyManager {
    let rules = rules(|rules| {
        rules.active_keys_per_owner = Some(2);
        rules.sign_events = true;
    });
    desk.builder().rules(rules).user_ids(ids).manager()
}

fn of(id: &str) -> NewKey {
    let mut new = NewKey::new("key", Owner::user(tenant("acme"), user(id)));
    new.kind = KeyKind::User;
    new
}

fn import(id: &str) -> NewImport {
    NewImport::new(ImportedDigest::new("sha256", &[7; 32]).unwrap(), of(id))
}

#[tokio::test]
async fn where_ids_are_uuids_all_spellings_of_one_are_one_owner() {
    let desk = Desk::new();
    let manager = manager(&desk, UserIds::Uuid);
    assert_eq!(manager.user_ids(), UserIds::Uuid);
    let first = manager.issue(of(&upper())).await.unwrap();
    assert_eq!(first.record.owner.user_id, Some(user(LOWER)));
    let imported = manager.import(import(&upper())).await.unwrap();
    assert_eq!(imported.record.owner.user_id, Some(user(LOWER)));
    let mixed = format!("{}{}", &upper()[..20], &LOWER[20..]);
    assert!(
        matches!(
            manager.issue(of(&mixed)).await,
            Err(ManageError::QuotaExceeded { limit: 2, .. })
        ),
        "one quota"
    );
    assert!(first.primary && !imported.primary, "one primary key");
    let owners = [LOWER.to_owned(), upper()].map(|id| Owner::user(tenant("acme"), user(&id)));
    for owner in owners {
        manager.sign_event(&owner, "signed").await.unwrap();
    }
}

#[tokio::test]
async fn other_ids_are_kept_byte_for_byte() {
    for (ids, names) in [
        (UserIds::Any, vec![upper(), LOWER.to_owned(), "Ann".into()]),
        (
            UserIds::Uuid,
            vec![
                "Ann".into(),
                "ANN".into(),
                upper().replace('-', ""),
                format!("{{{}}}", upper()),
                format!("urn:uuid:{}", upper()),
                upper().replace('A', "G"),
            ],
        ),
    ] {
        for name in names {
            let desk = Desk::new();
            let manager = manager(&desk, ids);
            let issued = manager.issue(of(&name)).await.unwrap();
            assert_eq!(issued.record.owner.user_id, Some(user(&name)), "{ids:?}");
            assert!(issued.primary);
            let imported = manager.import(import(&name)).await.unwrap();
            assert_eq!(imported.record.owner.user_id, Some(user(&name)), "{ids:?}");
        }
    }
}

#[tokio::test]
async fn of_the_five_apis_allsign_says_that_its_ids_are_uuids() {
    for profile in Profile::ALL {
        let expected = match profile {
            Profile::AllSign => UserIds::Uuid,
            _ => UserIds::Any,
        };
        let manager = Setup::of(MemoryStore::new(), *profile).manager();
        assert_eq!(
            (profile.user_ids(), manager.user_ids()),
            (expected, expected),
            "{profile}"
        );
    }
    let manager = Setup::of(MemoryStore::new(), Profile::AllSign).manager();
    let mut new = of(&upper());
    new.environment = Some(Environment::new("live").unwrap());
    let issued = manager.issue(new).await.unwrap();
    assert_eq!(
        issued.record.owner.user_id.as_ref().map(UserId::as_str),
        Some(LOWER)
    );
}
