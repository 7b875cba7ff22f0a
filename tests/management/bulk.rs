//! Bulk operations: which keys they concern, what each key gets, and how nodes share the work.

use std::collections::HashMap;
use std::sync::Arc;

use portunus::audit::{Action, AuditOutcome};
use portunus::key::{KeyId, KeyKind, KeyRecord, Owner, PlanName, WorkspaceId};
use portunus::manage::{
    BulkAction, BulkSelection, Denied, Idempotency, ImportedDigest, KeyManager, ManageError,
    NewImport, NewKey, Operator, OperatorPolicy, Role, own_keys,
};
use portunus::store::{BulkOperation, Change, KeyStore, ListQuery, WriteBatch};
use portunus::{ErrorCode, Portunus};
use portunus_test_support::{APPLY, Call, Point, tenant, user};

use crate::life::{Desk, HOUR, acme, ann, change, field, globex, issue, named, operator, refused};

async fn some(manager: &KeyManager, count: usize, of: impl Fn(usize) -> NewKey) -> Vec<KeyId> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(issue(manager, of(number)).await.1.id.clone());
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

fn service(desk: &Desk) -> Portunus {
    desk.builder().builder().build().unwrap()
}

async fn run(desk: &Desk, service: &Portunus, id: &KeyId) -> BulkOperation {
    loop {
        let operation = service.manager().bulk_operation(id).await.unwrap();
        if operation.ended_at.is_some() {
            return operation;
        }
        desk.tick();
        service.maintain().await;
    }
}

async fn version(desk: &Desk, id: &KeyId) -> u64 {
    desk.stored(id).await.unwrap().version
}

#[tokio::test]
async fn the_keys_of_a_filter_are_revoked_with_an_event_each() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager();
    let own = some(host, 1_203, |_| named("own")).await;
    let others = some(host, 3, |_| NewKey::new("other", globex())).await;
    let before = desk.events().await.len();
    let acme = || matching(&desk, |query| query.tenant = Some(tenant("acme")));
    assert_eq!(host.bulk_count(acme()).await.unwrap(), 1_203);
    let started = host.bulk(acme(), revoke(), None).await.unwrap();
    assert_eq!((started.step, started.left), (0, None));
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.left, ended.failed), (1_203, Some(0), 0));
    // One step counts the keys, and each of the others has at most 500.
    assert_eq!(ended.step, 4);
    for id in &own {
        let record = desk.stored(id).await.unwrap();
        assert_eq!(record.version, 2);
        let why = record.revoked.as_ref().unwrap().reason.clone();
        assert_eq!(why.as_deref(), Some("leaked"));
    }
    for id in &others {
        assert!(desk.stored(id).await.unwrap().revoked.is_none());
    }
    let events = desk.events().await.split_off(before);
    assert_eq!(events[0].action, Action::KeyBulk);
    assert!(
        events
            .iter()
            .all(|event| event.operation == Some(started.id.clone()))
    );
    let mut each: HashMap<_, usize> = HashMap::new();
    for event in &events[1..] {
        assert_eq!(
            (event.action, event.outcome),
            (Action::KeyRevoke, AuditOutcome::Ok)
        );
        assert_eq!(event.detail.as_deref(), Some("leaked"));
        *each.entry(event.key_id.clone().unwrap()).or_default() += 1;
    }
    assert_eq!((each.len(), each.values().max()), (1_203, Some(&1)));
}

#[tokio::test]
async fn keys_are_disabled_enabled_and_given_a_plan() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager();
    let keys = some(host, 3, |_| named("key")).await;
    host.revoke(&keys[2], None).await.unwrap();
    let gold = PlanName::new("gold").unwrap();
    for (action, done) in [
        (BulkAction::Disable, Action::KeyDisable),
        (BulkAction::Enable, Action::KeyEnable),
        (BulkAction::Plan(Some(gold.clone())), Action::KeyUpdate),
    ] {
        let is_plan = matches!(action, BulkAction::Plan(_));
        let disables = action == BulkAction::Disable;
        let started = host.bulk(BulkSelection::All, action, None).await.unwrap();
        let ended = run(&desk, &service, &started.id).await;
        assert_eq!((ended.done, ended.failed, ended.left), (2, 1, Some(0)));
        let expected = (
            keys[2].to_string(),
            "a revoked key cannot be changed".to_owned(),
        );
        assert_eq!(ended.failures, [expected]);
        for id in &keys[..2] {
            let record = desk.stored(id).await.unwrap();
            assert_eq!(record.enabled, !disables);
            assert_eq!(record.plan.is_some(), is_plan);
        }
        let events = desk.events().await;
        let of_keys: Vec<_> = events
            .iter()
            .filter(|event| event.operation == Some(ended.id.clone()))
            .skip(1)
            .collect();
        assert_eq!(of_keys.len(), 3);
        let refusals = of_keys.iter().filter(|event| {
            event.outcome == AuditOutcome::Refused(ErrorCode::Conflict)
                && event.key_id.as_ref() == Some(&keys[2])
        });
        assert_eq!(refusals.count(), 1);
        assert!(of_keys.iter().all(|event| event.action == done));
    }
}

#[tokio::test]
async fn a_filter_must_not_be_empty() {
    let desk = Desk::new();
    let host = desk.host();
    some(&host, 2, |_| named("key")).await;
    for set in [
        (|_: &mut ListQuery| ()) as fn(&mut ListQuery),
        |query| query.text = Some(String::new()),
        |query| query.limit = 7,
    ] {
        let keys = || matching(&desk, set);
        assert_eq!(field(host.bulk_count(keys()).await), "filter");
        assert_eq!(field(host.bulk(keys(), revoke(), None).await), "filter");
    }
    assert_eq!(host.bulk_count(BulkSelection::All).await.unwrap(), 2);
    assert!(desk.store.open_bulk_operations().await.unwrap().is_empty());
    let event = desk.last_event().await;
    let refused = AuditOutcome::Refused(ErrorCode::InvalidBody);
    assert_eq!((event.action, event.outcome), (Action::KeyBulk, refused));
}

#[tokio::test]
async fn digests_select_keys_and_unknown_ones_are_failures() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager();
    let digest = |byte| ImportedDigest::new("sha256", &[byte; 32]).unwrap();
    let mut ids = Vec::new();
    for (byte, owner) in [(1, acme()), (2, globex()), (3, acme())] {
        let import = NewImport::new(digest(byte), NewKey::new("key", owner));
        ids.push(host.import(import).await.unwrap().record.id.clone());
    }
    // An operator of acme: globex's key is as unknown as one that does not exist.
    let boss = host.by(operator("boss", "acme", Role::Owner));
    let asked = || BulkSelection::Digests([2, 3, 9, 1, 3].map(digest).to_vec());
    assert_eq!(boss.bulk_count(asked()).await.unwrap(), 2);
    let started = boss.bulk(asked(), revoke(), None).await.unwrap();
    assert_eq!((started.left, started.failed), (Some(2), 2));
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.failed), (2, 2));
    let unknown = ["digest 1", "digest 3"].map(|place| (place.to_owned(), "no key has it".into()));
    assert_eq!(ended.failures, unknown);
    let mut revoked = Vec::new();
    for id in &ids {
        revoked.push(desk.stored(id).await.unwrap().revoked.is_some());
    }
    assert_eq!(revoked, [true, false, true]);
    for count in [0, 1_001] {
        let many = BulkSelection::Digests(vec![digest(1); count]);
        assert_eq!(field(boss.bulk(many, revoke(), None).await), "digests");
    }
}

#[tokio::test]
async fn ids_select_keys_once_and_those_of_others_are_as_unknown_as_those_of_nobody() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager();
    let own = some(host, 2, |_| named("own")).await;
    let foreign = some(host, 1, |_| NewKey::new("foreign", globex())).await;
    let nobodys = KeyId::new("key_nobodys").unwrap();
    let boss = host.by(operator("boss", "acme", Role::Owner));
    let asked = || {
        let ids = [&own[1], &foreign[0], &own[0], &own[1], &nobodys];
        BulkSelection::Ids(ids.map(Clone::clone).to_vec())
    };
    assert_eq!(boss.bulk_count(asked()).await.unwrap(), 2);
    let request = Idempotency::new("boss", "bulk", "1", b"").unwrap();
    assert_eq!(boss.bulk_started_by(&request).await.unwrap(), None);
    let started = boss.bulk(asked(), revoke(), Some(request.clone())).await;
    let started = started.unwrap();
    let again = boss.bulk_started_by(&request).await.unwrap();
    assert_eq!(again.unwrap().id, started.id);
    let other = Idempotency::new("boss", "bulk", "1", b"other").unwrap();
    assert_eq!(field(boss.bulk_started_by(&other).await), "Idempotency-Key");
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.failed), (2, 2));
    let mut unknown: Vec<_> = ended.failures.iter().map(|(id, _)| id.as_str()).collect();
    unknown.sort_unstable();
    let mut expected = [foreign[0].as_str(), nobodys.as_str()];
    expected.sort_unstable();
    assert_eq!(unknown, expected);
    assert_eq!(ended.failures[0].1, ended.failures[1].1);
    assert!(desk.stored(&own[0]).await.unwrap().revoked.is_some());
    assert!(desk.stored(&foreign[0]).await.unwrap().revoked.is_none());
    for count in [0, 1_001] {
        let many = BulkSelection::Ids(vec![own[0].clone(); count]);
        assert_eq!(field(boss.bulk_count(many).await), "ids");
    }
}

#[tokio::test]
async fn an_operator_confined_to_its_own_keys_reaches_no_others() {
    // Where the service has this policy for all, the jobs follow it.
    let desk = Desk::new();
    let service = desk.builder().policy(own_keys()).builder();
    let service = service.build().unwrap();
    let host = service.manager();
    let user_key = |name: &str| {
        let mut new = NewKey::new("key", Owner::user(tenant("acme"), user(name)));
        new.kind = KeyKind::User;
        new
    };
    let own = some(host, 2, |_| user_key("ann")).await;
    let others = some(host, 2, |_| user_key("bob")).await;
    let ann = || operator("ann", "acme", Role::Owner).in_organization();
    let started = host
        .by(ann())
        .bulk(BulkSelection::All, revoke(), None)
        .await;
    let ended = run(&desk, &service, &started.unwrap().id).await;
    assert_eq!((ended.done, ended.failed), (2, 0));
    assert!(desk.stored(&own[1]).await.unwrap().revoked.is_some());
    assert!(desk.stored(&others[0]).await.unwrap().revoked.is_none());

    // Under another policy than those that the jobs know, it is refused.
    let service = self::service(&desk);
    let portal = service.manager().under(NoUsers).by(ann());
    let code = refused(portal.bulk(BulkSelection::All, revoke(), None).await);
    assert_eq!(code, ErrorCode::Forbidden);
    let code = refused(
        service
            .manager()
            .under(Arc::new(own_keys()))
            .by(ann())
            .bulk(BulkSelection::All, revoke(), None)
            .await,
    );
    assert_eq!(
        code,
        ErrorCode::Forbidden,
        "its type is not that of the policy"
    );
    service.maintain().await;
    assert!(desk.stored(&others[1]).await.unwrap().revoked.is_none());
}

#[tokio::test]
async fn an_operator_reaches_only_its_tenant_and_what_the_policy_allows_for_each_key() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager();
    let mine = WorkspaceId::new("mine").unwrap();
    let workspace = |id: &str| Some(vec![WorkspaceId::new(id).unwrap()]);
    let keys = some(host, 3, |number| {
        let mut new = named("key");
        new.workspaces = workspace(["mine", "other", "mine"][number]);
        new
    })
    .await;
    let foreign = some(host, 1, |_| NewKey::new("foreign", globex())).await;
    let admin = operator("admin", "acme", Role::Admin).in_workspaces([mine]);
    let admin = host.by(admin);
    // A filter cannot name another tenant.
    let asked = matching(&desk, |query| query.tenant = Some(tenant("globex")));
    assert_eq!(admin.bulk_count(asked.clone()).await.unwrap(), 2);
    let started = admin.bulk(asked, revoke(), None).await.unwrap();
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.failed), (2, 0));
    assert!(desk.stored(&keys[1]).await.unwrap().revoked.is_none());
    assert!(desk.stored(&foreign[0]).await.unwrap().revoked.is_none());
    let event = desk.last_event().await;
    assert_eq!(event.actor.unwrap().user_id, Some(user("admin")));
    assert_eq!(event.tenant_id, Some(tenant("acme")));

    // A plan that is not the tenant's is refused for each key, as for one key.
    let plan = BulkAction::Plan(PlanName::new("gold").ok());
    let boss = host.by(operator("boss", "acme", Role::Owner));
    let started = boss.bulk(BulkSelection::All, plan, None).await.unwrap();
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.failed), (0, 3));

    let member = host.by(operator("member", "acme", Role::Member));
    let all = || BulkSelection::All;
    assert_eq!(
        refused(member.bulk(all(), revoke(), None).await),
        ErrorCode::Forbidden
    );
    assert_eq!(
        refused(member.bulk_count(all()).await),
        ErrorCode::Forbidden
    );

    // Who sees the operation: its operator, who sees the whole tenant, and the host.
    let first = &started.id;
    assert!(boss.bulk_operation(first).await.is_ok() && host.bulk_operation(first).await.is_ok());
    for stranger in [
        admin,
        member,
        host.by(operator("boss", "globex", Role::Owner)),
    ] {
        let seen = stranger.bulk_operation(first).await;
        assert_eq!(refused(seen), ErrorCode::NotFound);
    }
}

/// Allows what [`ByRole`](portunus::manage::ByRole) does, except to revoke keys of a user.
#[derive(Debug)]
struct NoUsers;

impl OperatorPolicy for NoUsers {
    fn allows(&self, _: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied> {
        match (action, &key.owner.user_id) {
            (Action::KeyRevoke, Some(_)) => Err(Denied::because("a user's own matter")),
            _ => Ok(()),
        }
    }

    fn lists(&self, _: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
        Ok(query)
    }
}

#[tokio::test]
async fn a_key_for_which_the_policy_refuses_is_a_failure_with_its_reason() {
    let desk = Desk::new();
    let service = desk.builder().policy(NoUsers).builder().build().unwrap();
    let own = some(service.manager(), 1, |_| NewKey::new("ann's", ann())).await;
    let other = some(service.manager(), 2, |_| named("key")).await;
    let boss = service.manager().by(operator("boss", "acme", Role::Owner));
    let started = boss.bulk(BulkSelection::All, revoke(), None).await.unwrap();
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.failed), (2, 1));
    assert_eq!(
        ended.failures,
        [(own[0].to_string(), "a user's own matter".to_owned())]
    );
    assert!(desk.stored(&own[0]).await.unwrap().revoked.is_none());
    assert!(desk.stored(&other[1]).await.unwrap().revoked.is_some());
}

#[tokio::test]
async fn a_repeated_request_finds_the_first_operation() {
    let desk = Desk::new();
    let host = desk.host();
    some(&host, 2, |_| named("key")).await;
    let once = |body: &[u8]| Idempotency::new("host", "bulk", "k1", body).ok();
    let start = async |request| host.bulk(BulkSelection::All, revoke(), request).await;
    let first = start(once(b"1")).await.unwrap();
    let events = desk.events().await.len();
    assert_eq!(start(once(b"1")).await.unwrap(), first);
    assert_eq!(desk.events().await.len(), events);
    assert_eq!(field(start(once(b"2")).await), "Idempotency-Key");
    // Another operator does not learn of it.
    let boss = host.by(operator("boss", "acme", Role::Owner));
    let other = boss.bulk(BulkSelection::All, revoke(), once(b"1")).await;
    assert_eq!(field(other), "Idempotency-Key");
    assert_eq!(desk.store.open_bulk_operations().await.unwrap().len(), 1);
    // At the same time.
    let (one, two) = tokio::join!(
        host.bulk(
            BulkSelection::All,
            revoke(),
            Idempotency::new("h", "b", "k2", b"").ok()
        ),
        host.bulk(
            BulkSelection::All,
            revoke(),
            Idempotency::new("h", "b", "k2", b"").ok()
        ),
    );
    assert_eq!(one.unwrap(), two.unwrap());
}

#[tokio::test]
async fn a_precondition_applies_to_the_start() {
    let desk = Desk::new();
    let host = desk.host().only_if(|version| version.is_some());
    let started = host.bulk(BulkSelection::All, revoke(), None).await;
    assert_eq!(refused(started), ErrorCode::PreconditionFailed);
    assert!(desk.store.open_bulk_operations().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_precondition_applies_to_a_dry_run_after_the_selection_was_checked() {
    let desk = Desk::new();
    let unmet = desk.host().only_if(|version| version.is_some());
    let counted = unmet.bulk_count(BulkSelection::All).await;
    assert_eq!(refused(counted), ErrorCode::PreconditionFailed);
    let unfiltered = matching(&desk, |_| ());
    assert_eq!(field(unmet.bulk_count(unfiltered).await), "filter");
    let named = BulkSelection::Ids(vec![KeyId::generate().unwrap()]);
    let counted = unmet.bulk_count(named).await;
    assert_eq!(refused(counted), ErrorCode::PreconditionFailed);
    let met = desk.host().only_if(|version| version.is_none());
    assert_eq!(met.bulk_count(BulkSelection::All).await.unwrap(), 0);
}

#[tokio::test]
async fn nodes_share_an_operation_and_process_no_key_twice() {
    let desk = Desk::new();
    let nodes: Vec<_> = (0..4).map(|_| service(&desk)).collect();
    let keys = some(nodes[0].manager(), 2_300, |_| named("key")).await;
    desk.store.answer_late(3);
    let started = nodes[0]
        .manager()
        .bulk(BulkSelection::All, BulkAction::Disable, None);
    let id = started.await.unwrap().id;
    let before = desk.events().await.len();
    let mut tasks = tokio::task::JoinSet::new();
    for node in nodes.clone() {
        let id = id.clone();
        tasks.spawn(async move {
            loop {
                // The manual clock stands still: each node is due by itself.
                let done = node.maintain().await;
                assert!(done.failures.is_empty(), "{:?}", done.failures);
                let now = node.manager().bulk_operation(&id).await.unwrap();
                if now.ended_at.is_some() {
                    return now;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let ticking = async {
        loop {
            desk.tick();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::select! {
        ended = tasks.join_all() => ended,
        () = ticking => unreachable!("it never ends"),
    };
    assert_eq!((ended[0].done, ended[0].failed), (2_300, 0));
    for id in &keys {
        assert_eq!(version(&desk, id).await, 2);
    }
    let mut each: HashMap<_, usize> = HashMap::new();
    for event in desk.events().await.split_off(before) {
        *each.entry(event.key_id.unwrap()).or_default() += 1;
    }
    assert_eq!((each.len(), each.values().max()), (2_300, Some(&1)));
}

#[tokio::test]
async fn another_node_continues_after_the_last_step_of_one_that_stopped() {
    let desk = Desk::new();
    let first = service(&desk);
    let keys = some(first.manager(), 1_700, |_| named("key")).await;
    let started = first
        .manager()
        .bulk(BulkSelection::All, revoke(), None)
        .await
        .unwrap();
    // The count and two steps are stored; then its writes do not return, and it is stopped.
    let (store, counted) = (desk.store.clone(), Arc::new(std::sync::Mutex::new(0)));
    for _ in 0..3 {
        let (store, counted) = (store.clone(), Arc::clone(&counted));
        desk.store.once(Point::After(Call::Apply), async move {
            let mut counted = counted.lock().unwrap();
            *counted += 1;
            if *counted == 3 {
                store.hold(APPLY);
            }
        });
    }
    let running = tokio::spawn(async move { first.maintain().await });
    let step = async || {
        desk.store
            .bulk_operation(&started.id)
            .await
            .unwrap()
            .unwrap()
            .step
    };
    while step().await < 3 {
        tokio::task::yield_now().await;
    }
    running.abort();
    assert!(running.await.is_err(), "it was still working");
    desk.store.release(APPLY);
    let between = desk
        .store
        .bulk_operation(&started.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (between.step, between.done, between.left),
        (3, 1_000, Some(700))
    );
    let second = service(&desk);
    let ended = run(&desk, &second, &started.id).await;
    assert_eq!((ended.done, ended.failed, ended.left), (1_700, 0, Some(0)));
    for id in &keys {
        assert_eq!(version(&desk, id).await, 2);
    }
}

#[tokio::test]
async fn a_write_with_an_unknown_result_is_neither_lost_nor_repeated() {
    for is_applied in [true, false] {
        let desk = Desk::new();
        let service = service(&desk);
        let keys = some(service.manager(), 700, |_| named("key")).await;
        let started = service
            .manager()
            .bulk(BulkSelection::All, revoke(), None)
            .await
            .unwrap();
        let before = desk.events().await.len();
        let at = if is_applied {
            Point::After(Call::Apply)
        } else {
            APPLY
        };
        let store = desk.store.clone();
        // The second write is the first step with keys.
        desk.store
            .once(Point::After(Call::List), async move { store.fail(at) });
        service.maintain().await;
        desk.store.recover();
        let ended = run(&desk, &service, &started.id).await;
        assert_eq!((ended.done, ended.failed), (700, 0), "{is_applied}");
        for id in &keys {
            assert_eq!(version(&desk, id).await, 2);
        }
        let events = desk.events().await.split_off(before);
        assert_eq!(events.len(), 700, "{is_applied}");
    }
}

#[tokio::test]
async fn a_key_that_is_changed_meanwhile_is_processed_with_its_change() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager().clone();
    let keys = some(&host, 20, |_| named("key")).await;
    let started = host
        .bulk(BulkSelection::All, BulkAction::Disable, None)
        .await
        .unwrap();
    // The first write is the count. The next ones have all keys, of which one is changed before each.
    for (round, id) in keys[..5].iter().cloned().enumerate() {
        if round == 1 {
            let (other, gone) = (desk.store.inner().clone(), keys[19].clone());
            desk.store.once(APPLY, async move {
                let delete = WriteBatch::new().change(Change::Delete(gone));
                other.apply(&delete).await.unwrap();
            });
        }
        let other = desk.store.inner().clone();
        desk.store.once(APPLY, async move {
            let mut record = (*other.get(&id).await.unwrap().unwrap()).clone();
            record.name = format!("renamed {round}").into();
            other
                .apply(&WriteBatch::new().update(record))
                .await
                .unwrap();
        });
    }
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.failed), (19, 0));
    for (round, id) in keys[..5].iter().enumerate() {
        let record = desk.stored(id).await.unwrap();
        assert_eq!(
            (record.enabled, &*record.name),
            (false, &*format!("renamed {round}"))
        );
    }
}

#[tokio::test]
async fn keys_that_are_added_meanwhile_are_left_alone() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager().clone();
    some(&host, 10, |_| named("key")).await;
    desk.clock.advance(HOUR);
    let started = host.bulk(BulkSelection::All, revoke(), None).await.unwrap();
    // After the first page was read.
    let (late, slot) = (host.clone(), Arc::new(std::sync::Mutex::new(None)));
    let to = Arc::clone(&slot);
    desk.clock.advance(HOUR);
    desk.store.once(Point::After(Call::List), async move {
        let late = issue(&late, named("late")).await.1.id.clone();
        *to.lock().unwrap() = Some(late);
    });
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.left, ended.failed), (Some(0), 0));
    let late = slot.lock().unwrap().take().unwrap();
    // It was read before the keys were counted, so that it belongs to the operation.
    assert_eq!(ended.done, 11);
    assert!(desk.stored(&late).await.unwrap().revoked.is_some());
    let later = issue(&host, named("later")).await.1.id.clone();
    desk.tick();
    service.maintain().await;
    assert!(desk.stored(&later).await.unwrap().revoked.is_none());
}

#[tokio::test]
async fn an_unreadable_key_is_a_failure_and_the_others_are_processed() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager();
    let keys = some(host, 5, |_| named("key")).await;
    desk.store.spoil(&keys[2]);
    let started = host.bulk(BulkSelection::All, revoke(), None).await.unwrap();
    let ended = run(&desk, &service, &started.id).await;
    assert_eq!((ended.done, ended.failed, ended.left), (4, 1, Some(0)));
    assert_eq!(ended.failures[0].1, "the row cannot be read");
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_the_primary_key_moves_on() {
    let desk = Desk::new();
    let service = service(&desk);
    let host = service.manager();
    let (secret, first) = issue(host, named("first")).await;
    desk.tick();
    let (_, second) = issue(host, named("second")).await;
    host.make_primary(&first.id).await.unwrap();
    let keys = matching(&desk, |query| query.text = Some("first".into()));
    let started = host.bulk(keys, revoke(), None).await.unwrap();
    run(&desk, &service, &started.id).await;
    assert_eq!(desk.refusal(&secret).await, Some(ErrorCode::KeyRevoked));
    assert_eq!(desk.primary(&acme()).await, Some(second.id.clone()));
    let renamed = change(|change| change.name = Some("x".into()));
    let refused = host.update(&first.id, renamed, None).await;
    assert!(matches!(refused, Err(ManageError::Conflict(_))));
}

#[tokio::test]
async fn a_store_that_keeps_no_operations_says_so() {
    #[derive(Debug)]
    struct Plain(portunus::store::MemoryStore);
    // Only what a store must have.
    #[async_trait::async_trait]
    impl portunus::store::KeyLookup for Plain {
        async fn find(
            &self,
            digests: &[portunus::key::KeyDigest],
        ) -> Result<Option<Arc<portunus::store::StoredKey>>, portunus::store::StoreError> {
            self.0.find(digests).await
        }
    }
    #[async_trait::async_trait]
    impl KeyStore for Plain {
        async fn get(
            &self,
            id: &KeyId,
        ) -> Result<Option<Arc<KeyRecord>>, portunus::store::StoreError> {
            self.0.get(id).await
        }
        async fn list(
            &self,
            query: &ListQuery,
        ) -> Result<portunus::store::Page, portunus::store::StoreError> {
            self.0.list(query).await
        }
        async fn primaries(
            &self,
            owners: &[portunus::store::OwnerRef],
            at: std::time::SystemTime,
        ) -> Result<Vec<Option<KeyId>>, portunus::store::StoreError> {
            self.0.primaries(owners, at).await
        }
        async fn apply(&self, batch: &WriteBatch) -> Result<(), portunus::store::StoreError> {
            let is_bulk = |change: &Change| matches!(change, Change::Bulk(_));
            assert!(
                !batch.changes().iter().any(is_bulk),
                "it does not know this change"
            );
            self.0.apply(batch).await
        }
    }
    let desk = Desk::new();
    let store = Plain(portunus::store::MemoryStore::new());
    let service = portunus_test_support::Setup::on(store)
        .bearer([portunus_test_support::format()])
        .clock(desk.clock.clone())
        .builder()
        .build()
        .unwrap();
    let id = KeyId::generate().unwrap();
    let shown = service.manager().bulk_operation(&id).await.unwrap_err();
    let why = std::error::Error::source(&shown).unwrap().to_string();
    assert_eq!(why, "this store does not keep bulk operations");
    let once = Idempotency::new("h", "b", "k", b"").ok();
    let started = service
        .manager()
        .bulk(BulkSelection::All, revoke(), once)
        .await;
    assert_eq!(refused(started), ErrorCode::StoreUnavailable);
    assert!(service.maintain().await.failures.is_empty());
}
