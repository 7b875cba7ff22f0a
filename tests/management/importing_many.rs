//! Importing many keys: their history is kept, a repeated import recognizes them, and a refused key
//! stops no other.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::life::{DAY, Desk, HOUR, SECOND, acme, named, with_scopes};
use portunus::ErrorCode;
use portunus::audit::{Action, AuditOutcome, AuditReader, EventQuery};
use portunus::key::{KeyFamily, KeyRecord, KeyStatus, Owner, Revocation};
use portunus::manage::{
    ImportedDigest, KeyManager, ManageError, NewImport, NewKey, Operator, Role,
};
use portunus::store::{ListQuery, OwnerRef, UsageStore};
use portunus_test_support::{stranger, tenant, user};
use sha2::{Digest, Sha256};

fn taken(key: &str) -> ImportedDigest {
    ImportedDigest::new("sha256", &Sha256::digest(key)).unwrap()
}

fn import_of(key: &str) -> NewImport {
    NewImport::new(taken(key), with_scopes(&["a"]))
}

fn many(keys: &[String]) -> Vec<NewImport> {
    keys.iter().map(|key| import_of(key)).collect()
}

fn strangers(count: usize) -> Vec<String> {
    (0..count).map(|_| stranger()).collect()
}

type Outcome = Result<Option<Arc<KeyRecord>>, ManageError>;
type Edit = fn(&mut NewImport, SystemTime);

/// Created, already there, and refused with this code.
fn counts(outcomes: &[Outcome], code: ErrorCode) -> (usize, usize, usize) {
    let count = |is: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|one| is(one)).count();
    (
        count(&|one| matches!(one, Ok(Some(_)))),
        count(&|one| matches!(one, Ok(None))),
        count(&|one| one.as_ref().is_err_and(|error| error.code() == code)),
    )
}

#[tokio::test]
async fn a_key_keeps_its_history() {
    let desk = Desk::new();
    let now = desk.now();
    let created = now - 100 * DAY;
    let history = |key: &str| {
        let mut import = import_of(key);
        import.created_at = Some(created + Duration::from_nanos(1));
        import
    };
    let keys = strangers(4);
    let (mut used, mut revoked) = (history(&keys[0]), history(&keys[1]));
    used.last_used_at = Some(now - DAY);
    used.request_count = 12_345;
    revoked.revoked = Some(Revocation::new(now - HOUR, Some("leaked".into())));
    let (mut expired, mut disabled) = (history(&keys[2]), history(&keys[3]));
    expired.key.expires_at = Some(created + DAY);
    disabled.enabled = false;
    let all = vec![used, revoked, expired, disabled];
    // One by one, and together.
    for together in [false, true] {
        let desk = Desk {
            store: Desk::new().store,
            ..desk.clone()
        };
        let mut records = Vec::new();
        if together {
            for one in desk.host().import_many(all.clone()).await.unwrap() {
                records.push(one.unwrap().unwrap());
            }
        } else {
            for one in &all {
                records.push(desk.host().import(one.clone()).await.unwrap().record);
            }
        }
        let statuses = records.iter().map(|record| record.status(now));
        let expected = [
            KeyStatus::Active,
            KeyStatus::Revoked,
            KeyStatus::Expired,
            KeyStatus::Disabled,
        ];
        assert!(statuses.eq(expected));
        assert!(records.iter().all(|record| record.created_at == created));
        let refusals = [
            None,
            Some(ErrorCode::KeyRevoked),
            Some(ErrorCode::KeyExpired),
            Some(ErrorCode::KeyDisabled),
        ];
        let seen = desk.host().get(&records[0].id).await.unwrap();
        let usage = (seen.usage.count, seen.usage.last_used_at);
        assert_eq!(usage, (12_345, Some(now - DAY)));
        let host = desk.host();
        let hours = host.usage_by_hour(&records[0].id, created, now).await;
        assert_eq!(hours.unwrap().hours, []);
        for (key, refusal) in keys.iter().zip(refusals) {
            assert_eq!(desk.refusal(key).await, refusal);
        }
        let reason = records[1].revoked.as_ref().unwrap().reason.as_deref();
        assert_eq!(reason, Some("leaked"));
        // Exactly one primary key: one that is neither revoked nor expired.
        let primary = desk.primary(&acme()).await.unwrap();
        assert!([&records[0].id, &records[3].id].contains(&&primary));
    }
}

#[tokio::test]
async fn a_history_that_cannot_be_true_is_refused() {
    let desk = Desk::new();
    let now = desk.now();
    let cases: [(&str, &str, Edit); 12] = [
        ("created_at", "in the future", |import, now| {
            import.created_at = Some(now + SECOND);
        }),
        ("created_at", "between 1970", |import, _| {
            import.created_at = Some(SystemTime::UNIX_EPOCH - SECOND);
        }),
        ("last_used_at", "in the future", |import, now| {
            import.last_used_at = Some(now + SECOND);
        }),
        ("last_used_at", "before created_at", |import, now| {
            import.last_used_at = Some(now - SECOND);
        }),
        ("request_count", "needs last_used_at", |import, _| {
            import.request_count = 1;
        }),
        ("request_count", "9007199254740991", |import, now| {
            (import.created_at, import.last_used_at) = (Some(now), Some(now));
            import.request_count = 1 << 53;
        }),
        ("expires_at", "after created_at", |import, now| {
            import.created_at = Some(now - HOUR);
            import.key.expires_at = Some(now - HOUR);
        }),
        ("expires_at", "in the future", |import, now| {
            import.key.expires_at = Some(now);
        }),
        ("revoked_at", "in the future", |import, now| {
            import.revoked = Some(Revocation::new(now + SECOND, None));
        }),
        ("revoked_at", "before created_at", |import, now| {
            import.revoked = Some(Revocation::new(now - SECOND, None));
        }),
        ("revoke_reason", "control", |import, now| {
            import.revoked = Some(Revocation::new(now, Some("a\u{7}b".into())));
        }),
        ("name", "control", |import, _| {
            import.key.name = "a\u{1b}[2J".into();
        }),
    ];
    for (field, why, change) in cases {
        let mut import = import_of(&stranger());
        change(&mut import, now);
        let good = stranger();
        let both = vec![import.clone(), import_of(&good)];
        let outcomes = desk.host().import_many(both).await.unwrap();
        let error = outcomes[0].as_ref().unwrap_err().to_string();
        assert!(
            error.starts_with(field) && error.contains(why),
            "{field}: {error}"
        );
        assert!(matches!(outcomes[1], Ok(Some(_))), "the other one");
        let alone = desk.host().import(import).await.unwrap_err();
        assert_eq!(alone.to_string(), error);
    }
}

#[tokio::test]
async fn a_repeated_import_recognizes_its_keys_whatever_happened_to_them() {
    let desk = Desk::new();
    crate::life::issue(&desk.host(), named("the primary one")).await;
    let keys = strangers(5);
    let outcomes = desk.host().import_many(many(&keys)).await.unwrap();
    let ids: Vec<_> = outcomes
        .iter()
        .map(|one| one.as_ref().unwrap().as_ref().unwrap().id.clone())
        .collect();
    desk.tick();
    desk.host().revoke(&ids[0], None).await.unwrap();
    assert_eq!(desk.refusal(&keys[1]).await, None);
    desk.host().delete(&ids[2]).await.unwrap();
    let mut again = many(&keys);
    again[3].key.name = "another name".into();
    again.push(import_of(&stranger()));
    // A line that occurs twice, and a different one with the same digest.
    again.extend([import_of(&keys[1]), again[3].clone()]);
    let fresh = stranger();
    again.extend([import_of(&fresh), import_of(&fresh)]);
    let outcomes = desk.host().import_many(again).await.unwrap();
    let shown: Vec<_> = outcomes
        .iter()
        .map(|one| match one {
            Ok(Some(_)) => "created",
            Ok(None) => "there",
            Err(ManageError::DigestKnown) => "known",
            Err(error) => panic!("{error}"),
        })
        .collect();
    let expected = [
        "there", "there", "known", "known", "there", "created", "there", "known", "created",
        "there",
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        desk.all().await.len(),
        7,
        "four of five, two new ones, and the primary one"
    );
}

#[tokio::test]
async fn another_tenants_digest_is_known_and_its_import_is_not_recognized() {
    let desk = Desk::new();
    let key = stranger();
    let owners = ["acme", "globex"].map(|name| Owner::tenant(tenant(name)));
    let import = |owner: &Owner| NewImport::new(taken(&key), NewKey::new("k", owner.clone()));
    let first = desk
        .host()
        .import_many(vec![import(&owners[0])])
        .await
        .unwrap();
    let id = first[0].as_ref().unwrap().as_ref().unwrap().id.clone();
    let second = desk
        .host()
        .import_many(vec![import(&owners[1])])
        .await
        .unwrap();
    assert!(matches!(second[0], Err(ManageError::DigestKnown)));
    let hex: String = Sha256::digest(&key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(!hex.contains(&id.as_str()[9..]), "the id shows no digest");
}

#[tokio::test]
async fn a_quota_admits_as_many_keys_as_it_allows_in_their_order() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(7));
    let keys = strangers(20);
    let mut imports = many(&keys);
    imports[3].revoked = Some(Revocation::new(desk.now(), None));
    imports[15].revoked = Some(Revocation::new(desk.now(), None));
    let other = NewKey::new("other", Owner::tenant(tenant("globex")));
    imports.push(NewImport::new(taken(&stranger()), other));
    let outcomes = manager.import_many(imports).await.unwrap();
    assert_eq!(counts(&outcomes, ErrorCode::QuotaExceeded), (10, 0, 11));
    let created: Vec<_> = (0..21).filter(|at| outcomes[*at].is_ok()).collect();
    assert_eq!(
        created,
        [0, 1, 2, 3, 4, 5, 6, 7, 15, 20],
        "revoked keys do not count"
    );
}

#[tokio::test]
async fn an_operator_imports_nothing_that_it_could_not_issue() {
    let desk = Desk::new();
    let operator = Operator::new(user("ann"), tenant("acme"), Role::Owner).in_organization();
    let manager = desk
        .host()
        .by(operator.with_authority([portunus::scope!("a")]));
    let of = |owner: Owner, scopes: &[&str]| {
        let mut new = with_scopes(scopes);
        new.owner = owner;
        NewImport::new(taken(&stranger()), new)
    };
    let foreign = Owner::tenant(tenant("globex"));
    let unknown = Owner::user(tenant("acme"), user("gil"));
    let mut planned = of(acme(), &["a"]);
    planned.key.plan = Some("gold".parse().unwrap());
    let outcomes = manager
        .import_many(vec![
            of(acme(), &["a"]),
            of(acme(), &["b"]),
            of(foreign, &["a"]),
            of(unknown, &["a"]),
            planned,
        ])
        .await
        .unwrap();
    assert_eq!(counts(&outcomes, ErrorCode::Forbidden), (1, 0, 4));
}

#[tokio::test]
async fn families_are_kept_within_one_owner() {
    let desk = Desk::new();
    let issued = crate::life::issue(&desk.host(), named("the victim")).await;
    let family = |name: &str, owner: Owner| {
        let mut import = NewImport::new(taken(&stranger()), NewKey::new("k", owner));
        import.family = Some(KeyFamily::new(name).unwrap());
        import
    };
    let victim = issued.1.family.as_str().to_owned();
    let user_of = |name: &str| Owner::user(tenant("acme"), user(name));
    let outcomes = desk
        .host()
        .import_many(vec![
            family("f", acme()),
            family("f", acme()),
            family("g", acme()),
            family("f", user_of("ann")),
            family("f", Owner::tenant(tenant("globex"))),
            family(&victim, acme()),
        ])
        .await
        .unwrap();
    let families: Vec<_> = outcomes
        .into_iter()
        .map(|one| one.unwrap().unwrap().family.clone())
        .collect();
    assert_eq!(families[0], families[1]);
    let distinct: std::collections::HashSet<_> = families.iter().collect();
    assert_eq!(distinct.len(), 5);
    assert!(
        !distinct.contains(&issued.1.family),
        "a key's own family is never joined"
    );
}

#[tokio::test]
async fn each_new_key_has_an_event_and_the_next_keys_wait_for_the_log() {
    let desk = Desk::new();
    let outcomes = desk
        .host()
        .import_many(many(&strangers(300)))
        .await
        .unwrap();
    assert_eq!(counts(&outcomes, ErrorCode::Conflict), (300, 0, 0));
    assert_eq!(desk.trail.pending(), 300);
    desk.host().import_many(Vec::new()).await.unwrap();
    assert_eq!(desk.trail.pending(), 0, "stored before the next keys");
    let mut query = EventQuery::new();
    (query.limit, query.action) = (500, Some(Action::KeyImport));
    let events = desk.log.events(&query).await.unwrap().items;
    let done = events
        .iter()
        .filter(|event| event.outcome == AuditOutcome::Ok);
    assert_eq!(done.count(), 300);
    // Refusals are not stored without a limit.
    let refused = vec![import_of(&stranger()); 200]
        .into_iter()
        .map(|mut import| {
            import.key.name = String::new();
            import
        });
    desk.host().import_many(refused.collect()).await.unwrap();
    assert_eq!((desk.trail.pending(), desk.trail.throttled()), (100, 100));
}

#[tokio::test]
async fn more_than_five_hundred_keys_are_refused_at_once() {
    let desk = Desk::new();
    let error = desk
        .host()
        .import_many(many(&strangers(501)))
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with("imports: at most 500"),
        "{error}"
    );
    let manager: KeyManager = desk.host().only_if(|_| false);
    let error = manager.import_many(many(&strangers(1))).await.unwrap_err();
    assert!(matches!(error, ManageError::PreconditionFailed));
    assert!(desk.all().await.is_empty());
}

#[tokio::test]
async fn of_many_new_keys_of_many_owners_each_owner_has_one_primary() {
    let desk = Desk::new();
    let issued = crate::life::issue(&desk.host(), named("before")).await;
    let owners: Vec<_> = (0..50)
        .map(|number| Owner::tenant(tenant(&format!("t{number}"))))
        .chain([acme()])
        .collect();
    let import =
        |owner: &Owner| NewImport::new(taken(&stranger()), NewKey::new("k", owner.clone()));
    let imports = owners.iter().chain(&owners).map(import).collect();
    let outcomes = desk.host().import_many(imports).await.unwrap();
    assert_eq!(counts(&outcomes, ErrorCode::Conflict), (102, 0, 0));
    let refs: Vec<_> = owners.iter().map(OwnerRef::of).collect();
    use portunus::store::KeyStore;
    let primaries = desk
        .store
        .inner()
        .primaries(&refs, desk.now())
        .await
        .unwrap();
    assert!(primaries.iter().all(Option::is_some));
    assert_eq!(primaries.last().unwrap().as_ref(), Some(&issued.1.id));
    let ids: Vec<_> = outcomes
        .into_iter()
        .map(|one| one.unwrap().unwrap().id.clone())
        .collect();
    let usage = desk.store.inner().usage().unwrap();
    assert_eq!(
        UsageStore::usage_of(&*usage, &ids).await.unwrap().len(),
        102
    );
    let mut query = ListQuery::new(desk.now());
    query.limit = 500;
    assert_eq!(desk.host().list(query).await.unwrap().items.len(), 103);
}
