//! Bulk operations of users who manage their own keys only, beside a policy of the service that allows
//! their role more, or less: the nodes that process an operation know what it was begun under.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use portunus::actor::{DirectoryError, OwnerStanding, Standing};
use portunus::audit::{Action, AuditOutcome};
use portunus::key::{KeyId, KeyKind, KeyRecord, Owner, PlanName};
use portunus::manage::{
    BulkAction, BulkSelection, Idempotency, ImportedDigest, KeyManager, ManageError, NewImport,
    NewKey, Operator, Role, own_keys,
};
use portunus::store::{BulkOperation, ListQuery};
use portunus::{ErrorCode, Portunus};
use portunus_test_support::{scope, tenant, user};

use crate::life::{Desk, acme, issue, operator, refused};

fn service(desk: &Desk) -> Portunus {
    desk.builder().builder().build().unwrap()
}

/// A user with some scopes, in the portal where it manages its own keys.
fn portal(service: &Portunus, name: &str, role: Role) -> KeyManager {
    let user = operator(name, "acme", role).in_organization();
    let user = user.with_authority([scope("document:*")]);
    service.manager().under(own_keys()).by(user)
}

fn of(name: &str) -> NewKey {
    let mut new = NewKey::new("key", Owner::user(tenant("acme"), user(name)));
    new.kind = KeyKind::User;
    new
}

async fn keys(service: &Portunus, name: &str, count: usize) -> Vec<KeyId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(issue(service.manager(), of(name)).await.1.id.clone());
    }
    ids
}

fn matching(desk: &Desk, set: impl FnOnce(&mut ListQuery)) -> BulkSelection {
    let mut query = ListQuery::new(desk.now());
    set(&mut query);
    BulkSelection::Matching(query)
}

fn revoke() -> BulkAction {
    BulkAction::Revoke(Some("leaked".into()))
}

/// Lets a node process an operation to its end.
async fn ended(desk: &Desk, node: &Portunus, begun: &BulkOperation) -> BulkOperation {
    for _ in 0..100 {
        desk.tick();
        node.maintain().await;
        let found = node.manager().bulk_operation(&begun.id).await.unwrap();
        if found.ended_at.is_some() {
            return found;
        }
    }
    panic!("the operation does not end");
}

async fn stored(desk: &Desk, ids: &[KeyId]) -> Vec<Arc<KeyRecord>> {
    let mut all = Vec::new();
    for id in ids {
        all.push(desk.stored(id).await.unwrap());
    }
    all
}

#[tokio::test]
async fn every_action_reaches_the_users_own_keys_and_no_others_on_any_node() {
    // By the service's policy, an owner manages all keys of the tenant, and a member none.
    for role in [Role::Owner, Role::Admin, Role::Member] {
        let desk = Desk::new();
        let (begins, processes) = (service(&desk), service(&desk));
        let own = keys(&begins, "ann", 3).await;
        let others = [
            keys(&begins, "bob", 2).await,
            vec![
                issue(begins.manager(), NewKey::new("app", acme()))
                    .await
                    .1
                    .id
                    .clone(),
            ],
        ]
        .concat();
        let before = stored(&desk, &others).await;
        let ann = portal(&begins, "ann", role);
        for (action, check) in [
            (
                BulkAction::Disable,
                (|key| !key.enabled) as fn(&KeyRecord) -> bool,
            ),
            (BulkAction::Enable, |key| key.enabled),
            (BulkAction::Plan(None), |key| key.plan.is_none()),
            (revoke(), |key| key.revoked.is_some()),
        ] {
            let name = format!("{role:?}: {action:?}");
            assert_eq!(ann.bulk_count(BulkSelection::All).await.unwrap(), 3);
            let begun = ann.bulk(BulkSelection::All, action, None).await.unwrap();
            let done = ended(&desk, &processes, &begun).await;
            assert_eq!(
                (done.done, done.failed),
                (3, 0),
                "{name}: {:?}",
                done.failures
            );
            assert!(
                stored(&desk, &own).await.iter().all(|key| check(key)),
                "{name}"
            );
            assert_eq!(stored(&desk, &others).await, before, "{name}");
            let event = desk.last_event().await;
            assert_eq!(event.operation.as_ref(), Some(&begun.id), "{name}");
            assert_eq!(event.actor.unwrap().user_id, Some(user("ann")), "{name}");
        }
    }
}

#[tokio::test]
async fn a_filter_or_digest_that_names_anothers_key_selects_nothing() {
    let desk = Desk::new();
    // The same if the service itself has this policy.
    let confined = desk.builder().policy(own_keys()).builder().build().unwrap();
    for service in [service(&desk), confined] {
        let own = keys(&service, "ann", 2).await;
        let others = keys(&service, "bob", 2).await;
        let digest = |number: u8| ImportedDigest::new("sha256", &[number; 32]).unwrap();
        let number = u8::try_from(desk.all().await.len()).unwrap();
        let import = NewImport::new(digest(number), of("bob"));
        let foreign = service.manager().import(import).await.unwrap().record;
        let before = stored(&desk, &[&own[..], &others].concat()).await;
        let ann = portal(&service, "ann", Role::Owner);
        let of_bob = || matching(&desk, |query| query.owner = Some(user("bob")));
        assert_eq!(ann.bulk_count(of_bob()).await.unwrap(), 0);
        let begun = ann.bulk(of_bob(), revoke(), None).await.unwrap();
        let done = ended(&desk, &service, &begun).await;
        assert_eq!((done.done, done.failed), (0, 0));
        let digests = BulkSelection::Digests(vec![digest(number), digest(200)]);
        let begun = ann.bulk(digests, revoke(), None).await.unwrap();
        let done = ended(&desk, &service, &begun).await;
        assert_eq!((done.done, done.failed), (0, 2));
        let why = |place: usize| &done.failures[place].1;
        assert_eq!(why(0), why(1), "as unknown as a digest without a key");
        let family = matching(&desk, |query| query.family = Some(foreign.family.clone()));
        assert_eq!(ann.bulk_count(family).await.unwrap(), 0);
        assert_eq!(stored(&desk, &[&own[..], &others].concat()).await, before);
        assert_eq!(desk.stored(&foreign.id).await.unwrap(), foreign);
    }
}

#[tokio::test]
async fn a_plan_that_the_user_may_not_choose_is_refused_for_each_key() {
    let desk = Desk::new();
    let service = service(&desk);
    let own = keys(&service, "ann", 2).await;
    let before = stored(&desk, &own).await;
    let ann = portal(&service, "ann", Role::Owner);
    let gold = BulkAction::Plan(PlanName::new("gold").ok());
    let begun = ann.bulk(BulkSelection::All, gold, None).await.unwrap();
    let done = ended(&desk, &service, &begun).await;
    assert_eq!((done.done, done.failed), (0, 2));
    assert_eq!(stored(&desk, &own).await, before);
}

#[tokio::test]
async fn a_key_that_is_wider_than_the_user_is_not_enabled() {
    let desk = Desk::new();
    let service = service(&desk);
    let wide = of("ann").with_scopes([scope("user.read")]);
    let (_, wide) = issue(service.manager(), wide).await;
    let own = keys(&service, "ann", 1).await;
    for id in [&wide.id, &own[0]] {
        service.manager().disable(id).await.unwrap();
    }
    let ann = portal(&service, "ann", Role::Owner);
    let begun = ann.bulk(BulkSelection::All, BulkAction::Enable, None).await;
    let done = ended(&desk, &service, &begun.unwrap()).await;
    assert_eq!((done.done, done.failed), (1, 1), "{:?}", done.failures);
    assert_eq!(done.failures[0].0, wide.id.to_string());
    assert!(!desk.stored(&wide.id).await.unwrap().enabled);
    assert!(desk.stored(&own[0]).await.unwrap().enabled);
}

/// Whether users are in good standing, changeable.
#[derive(Debug, Clone, Default)]
struct Standings(Arc<AtomicU8>);

#[async_trait]
impl OwnerStanding for Standings {
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        assert_eq!(*owner, Owner::user(tenant("acme"), user("ann")));
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(Standing::Good),
            1 => Ok(Standing::Suspended),
            2 => Ok(Standing::RoleLost),
            _ => Err(DirectoryError::unavailable("connection reset")),
        }
    }
}

#[tokio::test]
async fn the_operation_of_a_user_who_loses_its_standing_ends_before_the_next_step() {
    for lost in [1, 2] {
        let (desk, standings) = (Desk::new(), Standings::default());
        let service = desk.builder().owner_standing(standings.clone());
        let service = service.builder().build().unwrap();
        let own = keys(&service, "ann", 2).await;
        let before = stored(&desk, &own).await;
        let ann = portal(&service, "ann", Role::Owner);
        let begun = ann
            .bulk(BulkSelection::All, BulkAction::Disable, None)
            .await;
        standings.0.store(lost, Ordering::SeqCst);
        let done = ended(&desk, &service, &begun.unwrap()).await;
        assert_eq!((done.done, done.failed), (0, 1));
        assert!(
            done.failures[0].1.contains("OWNER_SUSPENDED"),
            "{:?}",
            done.failures
        );
        assert_eq!(stored(&desk, &own).await, before);
    }
}

#[tokio::test]
async fn while_nobody_knows_the_standing_of_the_user_the_operation_waits() {
    let (desk, standings) = (Desk::new(), Standings::default());
    let service = desk.builder().owner_standing(standings.clone());
    let service = service.builder().build().unwrap();
    let own = keys(&service, "ann", 2).await;
    let ann = portal(&service, "ann", Role::Owner);
    let begun = ann.bulk(BulkSelection::All, revoke(), None).await.unwrap();
    standings.0.store(3, Ordering::SeqCst);
    for _ in 0..3 {
        desk.tick();
        service.maintain().await;
    }
    let open = service.manager().bulk_operation(&begun.id).await.unwrap();
    assert_eq!((open.ended_at, open.done, open.failed), (None, 0, 0));
    assert!(desk.stored(&own[0]).await.unwrap().revoked.is_none());
    standings.0.store(0, Ordering::SeqCst);
    let done = ended(&desk, &service, &begun).await;
    assert_eq!((done.done, done.failed), (2, 0));
}

#[tokio::test]
async fn an_operation_is_shown_to_the_user_who_began_it_and_to_administrators() {
    let desk = Desk::new();
    let service = service(&desk);
    keys(&service, "ann", 1).await;
    let ann = portal(&service, "ann", Role::Owner);
    let boss = |name: &str| service.manager().by(operator(name, "acme", Role::Owner));
    let begun = ann.bulk(BulkSelection::All, revoke(), None).await.unwrap();
    for manager in [&ann, &boss("ann"), &boss("carol"), service.manager()] {
        assert_eq!(manager.bulk_operation(&begun.id).await.unwrap(), begun);
    }
    let foreign = Operator::new(user("ann"), tenant("globex"), Role::Owner);
    for manager in [
        portal(&service, "bob", Role::Owner),
        service.manager().by(foreign.clone()),
        service.manager().under(own_keys()).by(foreign),
    ] {
        let hidden = manager.bulk_operation(&begun.id).await;
        assert!(
            matches!(hidden, Err(ManageError::NotFound(_))),
            "{hidden:?}"
        );
    }
    // The failures of an administrator's operation name keys of others.
    let of_all = boss("ann").bulk(BulkSelection::All, revoke(), None).await;
    let of_all = of_all.unwrap();
    let hidden = ann.bulk_operation(&of_all.id).await;
    assert!(
        matches!(hidden, Err(ManageError::NotFound(_))),
        "{hidden:?}"
    );
}

#[tokio::test]
async fn a_repeated_request_finds_the_operation_only_where_it_was_begun() {
    let desk = Desk::new();
    let service = service(&desk);
    let own = keys(&service, "ann", 1).await;
    let ann = portal(&service, "ann", Role::Owner);
    let once = || Some(Idempotency::new("ann", "bulk", "1", b"{}").unwrap());
    let begun = ann
        .bulk(BulkSelection::All, revoke(), once())
        .await
        .unwrap();
    let again = ann
        .bulk(BulkSelection::All, revoke(), once())
        .await
        .unwrap();
    assert_eq!(again, begun);
    let boss = service.manager().by(operator("ann", "acme", Role::Owner));
    assert_eq!(
        refused(boss.bulk(BulkSelection::All, revoke(), once()).await),
        ErrorCode::InvalidBody
    );
    let done = ended(&desk, &service, &begun).await;
    assert_eq!((done.done, done.failed), (1, 0));
    assert!(desk.stored(&own[0]).await.unwrap().revoked.is_some());
    let events = desk.events().await.into_iter();
    let begun = events.filter(|event| event.action == Action::KeyBulk);
    let outcomes: Vec<_> = begun.map(|event| event.outcome).collect();
    assert_eq!(
        outcomes,
        [
            AuditOutcome::Ok,
            AuditOutcome::Refused(ErrorCode::InvalidBody)
        ]
    );
}
