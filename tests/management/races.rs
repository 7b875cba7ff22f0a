//! Many concurrent and random sequential acts: exactly one primary key, no exceeded quota, no lost
//! revocation.
//!
//! The walks are seeded: a failure prints the seed and the step, which reproduce it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::life::{
    Desk, Dice, HOUR, SECOND, acme, ann, change, globex, issue, named, operator, refused,
};
use portunus::audit::AuditOutcome;
use portunus::key::{KeyId, KeyRecord, KeyStatus, Owner, WorkspaceId};
use portunus::manage::{
    ImportedDigest, KeyManager, ManageError, NewImport, NewKey, Operator, Role,
};
use portunus::store::ListQuery;
use portunus::{Clock, ErrorCode};
use portunus_test_support::{tenant, user};

const QUOTA: u64 = 8;

fn bob() -> Owner {
    Owner::user(tenant("acme"), user("bob"))
}

fn operators() -> Vec<Operator> {
    let own = [WorkspaceId::new("w1").unwrap()];
    vec![
        Operator::host(),
        operator("olga", "acme", Role::Owner),
        operator("kim", "acme", Role::Admin).in_workspaces(own),
        operator("mia", "acme", Role::Member),
        operator("eve", "globex", Role::Owner),
    ]
}

/// The stored state in comparable form.
#[derive(Debug, Clone, PartialEq)]
struct State {
    records: BTreeMap<String, Arc<KeyRecord>>,
    primaries: Vec<Option<KeyId>>,
}

fn owners() -> [Owner; 4] {
    [acme(), ann(), bob(), globex()]
}

async fn state(desk: &Desk) -> State {
    let records = desk
        .all()
        .await
        .into_iter()
        .map(|record| (record.id.to_string(), record))
        .collect();
    let mut primaries = Vec::new();
    for owner in owners() {
        primaries.push(desk.primary(&owner).await);
    }
    State { records, primaries }
}

/// Performs one random act; returns what it was and its result.
async fn act(
    manager: &KeyManager,
    known: &[KeyId],
    dice: &mut Dice,
    secrets: &mut Vec<(KeyId, String)>,
) -> (String, Result<(), ManageError>) {
    let now = manager.now();
    let id = dice
        .pick(known)
        .cloned()
        .unwrap_or_else(|| KeyId::generate().unwrap());
    let mut new = NewKey::new("key", dice.pick(&owners()).unwrap().clone());
    new.workspaces = dice
        .pick(&[None, Some("w1"), Some("w2")])
        .unwrap()
        .map(|name| vec![WorkspaceId::new(name).unwrap()]);
    let lifetime = *dice.pick(&[None, Some(HOUR), Some(3 * HOUR)]).unwrap();
    new.expires_at = lifetime.map(|lifetime| now + lifetime);
    let which = dice.below(16);
    let done = match which {
        0..=3 => manager
            .issue(new)
            .await
            .map(|issued| secrets.push((issued.record.id.clone(), issued.key.reveal()))),
        4 => {
            let byte = u8::try_from(dice.below(6)).unwrap();
            manager
                .import(NewImport::new(
                    ImportedDigest::new("sha256", &[byte; 32]).unwrap(),
                    new,
                ))
                .await
                .map(drop)
        }
        5 => manager
            .update(
                &id,
                change(|change| change.name = Some(format!("name {}", dice.next()))),
                None,
            )
            .await
            .map(drop),
        6 => {
            let end = *dice.pick(&[None, Some(now), Some(now + HOUR)]).unwrap();
            manager
                .update(&id, change(|change| change.expires_at = Some(end)), None)
                .await
                .map(drop)
        }
        7 => manager.disable(&id).await.map(drop),
        8 => manager.enable(&id).await.map(drop),
        9 | 10 => manager.make_primary(&id).await.map(drop),
        11 | 12 => {
            let grace = *dice.pick(&[None, Some(HOUR), Some(Duration::MAX)]).unwrap();
            manager
                .rotate(&id, grace)
                .await
                .map(|done| secrets.push((done.record.id.clone(), done.key.reveal())))
        }
        13 => manager.revoke(&id, Some("because")).await.map(drop),
        14 => manager.delete(&id).await,
        _ => {
            let version = Some(dice.next() % 4);
            manager
                .update(
                    &id,
                    change(|change| change.description = Some(None)),
                    version,
                )
                .await
                .map(drop)
        }
    };
    (format!("act {which} on {id}"), done)
}

/// Invariants that must hold after every act.
async fn check(desk: &Desk, now: &State, signs: bool, what: &str) {
    for (owner, primary) in owners().iter().zip(&now.primaries) {
        let of = |record: &&Arc<KeyRecord>| {
            (&record.owner.tenant_id, &record.owner.user_id) == (&owner.tenant_id, &owner.user_id)
        };
        let candidates: HashSet<_> = now
            .records
            .values()
            .filter(of)
            .filter(|record| record.can_be_primary(desk.now()))
            .map(|r| &r.id)
            .collect();
        match primary {
            Some(primary) => assert!(
                candidates.contains(primary),
                "{what}: {primary} cannot be primary"
            ),
            None => assert!(
                candidates.is_empty(),
                "{what}: no primary among {candidates:?}"
            ),
        }
    }
    for tenant in ["acme", "globex"] {
        assert!(
            families(desk, now.records.values(), tenant) <= QUOTA,
            "{what}: the quota of {tenant}"
        );
    }
    for record in now.records.values() {
        let imported = record.predecessor.is_none() && record.masked == "…";
        let signs_still = desk.signs(&record.id).await;
        match &record.successor {
            None => {
                let expected = signs && !imported && record.revoked.is_none();
                assert_eq!(
                    signs_still, expected,
                    "{what}: the signing state of {}",
                    record.id
                );
            }
            // A key that ended by rotation no longer has signing state; one in its grace period
            // keeps it.
            Some(_) if record.revoked.is_some() => {
                assert!(!signs_still, "{what}: {} still signs", record.id);
            }
            Some(_) if signs && !imported && record.counts_as_active(desk.now()) => {
                assert!(signs_still, "{what}: {} signs no more", record.id);
            }
            Some(_) => {}
        }
        let before = record
            .predecessor
            .as_ref()
            .and_then(|id| now.records.get(id.as_str()));
        if let Some(before) = before {
            assert!(
                before.successor.is_some(),
                "{what}: a successor of what was not rotated"
            );
            assert_eq!(before.family, record.family, "{what}");
            let ended = before.expires_at.is_some() || before.revoked.is_some();
            assert!(record.enabled || ended, "{what}");
        }
    }
}

/// The records that an act may change.
fn compare(before: &State, after: &State, what: &str) {
    for (id, was) in &before.records {
        let Some(is) = after.records.get(id) else {
            continue;
        };
        assert!(
            is == was || is.version == was.version + 1,
            "{what}: {id} went from {} to {}",
            was.version,
            is.version
        );
        assert_eq!(
            (
                &is.owner,
                &is.family,
                is.kind,
                &is.environment,
                is.created_at,
                &is.predecessor,
                is.may_be_primary
            ),
            (
                &was.owner,
                &was.family,
                was.kind,
                &was.environment,
                was.created_at,
                &was.predecessor,
                was.may_be_primary
            ),
            "{what}: what never changes"
        );
        assert!(
            was.revoked.is_none() || is == was,
            "{what}: a revoked key stays as it is"
        );
        let heir = was
            .successor
            .as_ref()
            .and_then(|id| before.records.get(id.as_str()));
        let alone = heir.is_none_or(|heir| heir.revoked.is_some() || heir.expires_at.is_some());
        assert!(
            is.successor == was.successor || alone,
            "{what}: another successor beside one that works"
        );
        if was.successor.is_some() && was.revoked.is_none() {
            assert!(
                is.expires_at <= was.expires_at && is.expires_at.is_some(),
                "{what}: a grace that grew"
            );
        }
    }
}

async fn status_agrees(desk: &Desk, now: &State, secrets: &[(KeyId, String)], what: &str) {
    for (id, secret) in secrets {
        let expected = match now
            .records
            .get(id.as_str())
            .map(|record| record.status(desk.now()))
        {
            None => Some(ErrorCode::InvalidKey),
            Some(KeyStatus::Active) => None,
            Some(KeyStatus::Revoked) => Some(ErrorCode::KeyRevoked),
            Some(KeyStatus::Expired) => Some(ErrorCode::KeyExpired),
            Some(_) => Some(ErrorCode::KeyDisabled),
        };
        assert_eq!(desk.refusal(secret).await, expected, "{what}: {id}");
    }
}

async fn walk(seed: u64, steps: usize, succeeded: &mut BTreeMap<String, usize>) {
    let (desk, mut dice, mut secrets) = (Desk::new(), Dice(seed), Vec::new());
    let signs = seed.is_multiple_of(2);
    let host = desk.manager(|rules| (rules.active_keys, rules.sign_events) = (Some(QUOTA), signs));
    let mut known: Vec<KeyId> = Vec::new();
    let mut before = state(&desk).await;
    for step in 0..steps {
        let by = dice.pick(&operators()).unwrap().clone();
        let name = by.name().to_owned();
        let (act, done) = act(&host.by(by), &known, &mut dice, &mut secrets).await;
        let what = format!(
            "seed {seed}, step {step}, {name}, {act}, {:?}",
            done.as_ref().err()
        );
        let which = act.split(" on ").next().unwrap_or_default().to_owned();
        // Two numbers for one act make it more likely.
        let which = which.replace("10", "9").replace("12", "11");
        *succeeded.entry(format!("{name}: {which}")).or_default() += usize::from(done.is_ok());
        let after = state(&desk).await;
        check(&desk, &after, signs, &what).await;
        compare(&before, &after, &what);
        if let Err(error) = &done {
            assert_eq!(before, after, "{what}: a refused act changes nothing");
            assert!(
                !matches!(error, ManageError::Store(_) | ManageError::Contended),
                "{what}"
            );
        }
        if !act.starts_with("act 9 ") && !act.starts_with("act 10 ") {
            for (was, is) in before.primaries.iter().zip(&after.primaries) {
                let Some(was) = was.as_ref().filter(|_| was != is) else {
                    continue;
                };
                let ended = after
                    .records
                    .get(was.as_str())
                    .is_none_or(|record| !record.can_be_primary(desk.now()));
                assert!(ended, "{what}: the primary key moved though it could stay");
                let newest = is.as_ref().map(|id| after.records[id.as_str()].created_at);
                let of = is
                    .as_ref()
                    .map(|id| after.records[id.as_str()].owner.clone());
                let newer = after.records.values().any(|record| {
                    Some(&record.owner) == of.as_ref()
                        && record.can_be_primary(desk.now())
                        && Some(record.created_at) > newest
                });
                assert!(!newer, "{what}: not the newest was promoted");
            }
        }
        if matches!(name.as_str(), "mia" | "eve") && done.is_ok() {
            let acmes = |state: &State| -> Vec<_> {
                state
                    .records
                    .values()
                    .filter(|record| record.owner.tenant_id == tenant("acme"))
                    .cloned()
                    .collect()
            };
            assert!(
                name == "eve" && acmes(&before) == acmes(&after),
                "{what}: it was not hers to do"
            );
        }
        let event = desk.last_event().await;
        let outcome = done.as_ref().err().map_or(AuditOutcome::Ok, |error| {
            AuditOutcome::Refused(error.code())
        });
        assert_eq!(event.outcome, outcome, "{what}");
        assert!(event.actor.unwrap().is(&name), "{what}");
        assert_eq!(desk.log.all().len(), step + 1, "{what}: one act, one event");
        if step % 10 == 0 {
            status_agrees(&desk, &after, &secrets, &what).await;
        }
        known = after
            .records
            .values()
            .map(|record| record.id.clone())
            .collect();
        if dice.below(3) == 0 {
            desk.clock.advance(
                *dice
                    .pick(&[Duration::from_millis(1), SECOND, HOUR / 2, HOUR])
                    .unwrap(),
            );
        }
        before = state(&desk).await;
        check(&desk, &before, signs, &format!("{what}, later")).await;
    }
}

/// Returns the number of a tenant's families with a working key. A family has at most two.
fn families<'r>(
    desk: &Desk,
    records: impl IntoIterator<Item = &'r Arc<KeyRecord>>,
    tenant: &str,
) -> u64 {
    let mut working = std::collections::HashMap::new();
    let of_tenant = records
        .into_iter()
        .filter(|record| record.owner.tenant_id.as_str() == tenant);
    for record in of_tenant.filter(|record| record.counts_as_active(desk.now())) {
        *working.entry(record.family.clone()).or_insert(0) += 1;
    }
    assert!(working.values().all(|count| *count <= 2), "{working:?}");
    working.len() as u64
}

#[tokio::test]
async fn long_random_walks_of_five_operators_break_no_rule() {
    let mut succeeded = BTreeMap::new();
    for seed in 0..36 {
        walk(seed, 250, &mut succeeded).await;
    }
    let never: Vec<_> = succeeded
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(act, _)| act.as_str())
        .collect();
    assert!(
        never.iter().all(|act| act.starts_with("mia")),
        "what never succeeded was never tested: {never:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_walks_at_once_break_no_rule() {
    for seed in 100..108 {
        let desk = Desk::new();
        desk.store.answer_late(3);
        let host =
            desk.manager(|rules| (rules.active_keys, rules.sign_events) = (Some(QUOTA), true));
        // One key of each owner is never ended, so that one can always be primary.
        let mut anchors = HashSet::new();
        for owner in owners() {
            anchors.insert(
                issue(&host, NewKey::new("anchor", owner))
                    .await
                    .1
                    .id
                    .clone(),
            );
        }
        let revoked = Arc::new(std::sync::Mutex::new(HashSet::new()));
        let walks = (0..8).map(|number| {
            let (host, desk, anchors, revoked) = (
                host.clone(),
                desk.clone(),
                anchors.clone(),
                Arc::clone(&revoked),
            );
            tokio::spawn(async move {
                let (mut dice, mut secrets) = (Dice(seed * 1000 + number), Vec::new());
                for _ in 0..60 {
                    let records = desk.all().await;
                    let known: Vec<_> = records
                        .iter()
                        .map(|r| r.id.clone())
                        .filter(|id| !anchors.contains(id))
                        .collect();
                    let (what, done) = act(&host, &known, &mut dice, &mut secrets).await;
                    if let Some(id) = what.strip_prefix("act 13 on ").filter(|_| done.is_ok()) {
                        revoked.lock().unwrap().insert(id.to_owned());
                    }
                    for owner in owners() {
                        assert!(
                            desk.primary(&owner).await.is_some(),
                            "seed {seed}, {what}: no primary for a moment"
                        );
                    }
                    let counts = |tenant: &str| families(&desk, &records, tenant);
                    assert!(
                        counts("acme") <= QUOTA && counts("globex") <= QUOTA,
                        "seed {seed}, {what}"
                    );
                }
                secrets
            })
        });
        let mut secrets = Vec::new();
        for walk in walks.collect::<Vec<_>>() {
            secrets.extend(walk.await.unwrap());
        }
        let after = state(&desk).await;
        check(&desk, &after, true, &format!("seed {seed}")).await;
        status_agrees(&desk, &after, &secrets, &format!("seed {seed}")).await;
        for id in &*revoked.lock().unwrap() {
            assert!(
                after
                    .records
                    .get(id)
                    .is_none_or(|record| record.revoked.is_some()),
                "seed {seed}: {id} lives"
            );
        }
        assert_eq!(
            desk.events().await.len(),
            owners().len() + 8 * 60,
            "one act, one event"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_200_issues_at_once_exactly_as_many_succeed_as_the_quota_allows() {
    let desk = Desk::new();
    desk.store.answer_late(4);
    let manager = desk.manager(|rules| rules.active_keys = Some(4));
    let issues: Vec<_> = (0..200)
        .map(|number| {
            let manager = manager.clone();
            tokio::spawn(async move {
                let owner = if number % 2 == 0 { acme() } else { ann() };
                manager
                    .issue(NewKey::new("key", owner))
                    .await
                    .map(|issued| issued.primary)
            })
        })
        .collect();
    let mut done = Vec::new();
    for issue in issues {
        match issue.await.unwrap() {
            Ok(primary) => done.push(primary),
            Err(error) => assert_eq!(
                (error.code(), error.code().status()),
                (ErrorCode::QuotaExceeded, 409)
            ),
        }
    }
    assert_eq!((done.len(), desk.all().await.len()), (4, 4));
    assert_eq!(desk.events().await.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotations_imports_and_issues_at_once_share_one_quota() {
    let desk = Desk::new();
    let manager = desk.manager(|rules| rules.active_keys = Some(10));
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(issue(&manager, named("key")).await.1.id.clone());
    }
    desk.store.answer_late(4);
    let acts: Vec<_> = (0..60_u8)
        .map(|number| {
            let (manager, id) = (manager.clone(), ids[usize::from(number) % 6].clone());
            tokio::spawn(async move {
                let import = || {
                    NewImport::new(
                        ImportedDigest::new("sha256", &[number; 32]).unwrap(),
                        named("key"),
                    )
                };
                match number % 3 {
                    0 => manager.rotate(&id, Some(HOUR)).await.map(drop),
                    1 => manager.issue(named("key")).await.map(drop),
                    _ => manager.import(import()).await.map(drop),
                }
            })
        })
        .collect();
    let mut done = 0;
    for act in acts {
        done += usize::from(act.await.unwrap().is_ok());
    }
    // Two of the keys were rotated, which needs no place. Until the old keys expire, they take the
    // places of others.
    let all = desk.all().await;
    assert_eq!(all.len(), 6 + done);
    assert_eq!(
        all.iter().filter(|key| key.predecessor.is_some()).count(),
        2
    );
    assert!((4..=6).contains(&done), "{done}");
    assert!(families(&desk, &all, "acme") <= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_rotations_at_once_one_succeeds() {
    let desk = Desk::new();
    let (_, key) = issue(&desk.host(), named("key")).await;
    desk.store.answer_late(3);
    let rotations: Vec<_> = (0..40)
        .map(|_| {
            let (manager, id) = (desk.host(), key.id.clone());
            tokio::spawn(async move {
                manager
                    .rotate(&id, Some(HOUR))
                    .await
                    .map(|rotated| rotated.record.id.clone())
            })
        })
        .collect();
    let mut successors = Vec::new();
    for rotation in rotations {
        match rotation.await.unwrap() {
            Ok(successor) => successors.push(successor),
            Err(error) => assert_eq!(error.code(), ErrorCode::Conflict),
        }
    }
    assert_eq!(
        (successors.len(), desk.all().await.len()),
        (1, 2),
        "no orphan is left"
    );
    assert_eq!(
        desk.stored(&key.id).await.unwrap().successor.as_ref(),
        successors.first()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn make_primary_rotate_and_revoke_at_once_have_one_order() {
    for round in 0..150_u64 {
        let desk = Desk::new();
        let (secret, one) = issue(&desk.host(), named("one")).await;
        desk.tick();
        let (_, two) = issue(&desk.host(), named("two")).await;
        desk.store
            .answer_late(1 + usize::try_from(round % 4).unwrap());
        let manager = desk.host();
        let (m1, m2, m3, id) = (
            manager.clone(),
            manager.clone(),
            manager.clone(),
            one.id.clone(),
        );
        let (other, target) = (two.id.clone(), one.id.clone());
        let primary = tokio::spawn(async move {
            (
                m1.make_primary(&other).await,
                m1.make_primary(&target).await,
            )
        });
        let rotate = tokio::spawn(async move {
            m2.rotate(&id, Some(HOUR))
                .await
                .map(|rotated| rotated.record.id.clone())
        });
        let id = one.id.clone();
        let revoke = tokio::spawn(async move { m3.revoke(&id, Some("leaked")).await });
        let ((first, second), rotated) = (primary.await.unwrap(), rotate.await.unwrap());
        revoke.await.unwrap().unwrap();
        first.unwrap();
        assert!(second.is_ok() || refused(second) == ErrorCode::Conflict);
        let stored = desk.stored(&one.id).await.unwrap();
        assert!(
            stored.revoked.is_some(),
            "round {round}: the revocation was lost"
        );
        assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
        assert_eq!(stored.version, 2 + u64::from(rotated.is_ok()));
        assert_eq!(stored.successor, rotated.as_ref().ok().cloned());
        assert_eq!(desk.all().await.len(), 2 + usize::from(rotated.is_ok()));
        let now = desk.primary(&acme()).await.expect("exactly one");
        assert!(
            now == two.id || rotated.is_ok_and(|successor| now == successor),
            "round {round}: {now}"
        );
        let page = manager
            .list(ListQuery::new(desk.clock.now()))
            .await
            .unwrap();
        assert_eq!(page.items.iter().filter(|key| key.primary).count(), 1);
    }
}

#[tokio::test]
async fn a_revocation_succeeds_despite_concurrent_changes() {
    let desk = Desk::new();
    let (secret, key) = issue(&desk.host(), named("key")).await;
    desk.store.answer_late(1);
    let mut acts = Vec::new();
    for number in 0..60 {
        let (manager, id) = (desk.host(), key.id.clone());
        let rename = change(|change| change.name = Some(format!("name {number}")));
        acts.push(tokio::spawn(async move {
            manager.update(&id, rename, None).await.map(drop)
        }));
    }
    let (manager, id) = (desk.host(), key.id.clone());
    let revoke = tokio::spawn(async move { manager.revoke(&id, Some("leaked")).await });
    let revoked = revoke.await.unwrap();
    for act in acts {
        let _ = act.await.unwrap();
    }
    assert_eq!(
        (revoked.err().map(|e| e.code()), desk.refusal(&secret).await),
        (None, Some(ErrorCode::KeyRevoked))
    );
}
