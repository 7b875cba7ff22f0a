//! Bulk operations of several tenants: none keeps the others waiting, however many it has, however
//! many digests it names, and whether its steps succeed or not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::actor::{DirectoryError, OwnerStanding, Standing};
use portunus::key::{KeyId, KeyKind, Owner};
use portunus::manage::{
    BulkAction, BulkSelection, Idempotency, ImportedDigest, KeyManager, ManageError, NewKey, Role,
    own_keys,
};
use portunus::store::{BulkOperation, Change, KeyStore, WriteBatch};
use portunus::testing::ManualClock;
use portunus::{ErrorCode, Portunus};
use portunus_test_support::{APPLY, Call, FaultyStore, Point, Setup, format, scope, tenant, user};

use crate::life::{Desk, SECOND, globex, issue, named, operator, refused};

/// The largest number of open operations of a tenant.
const MOST: usize = 20;

fn service(desk: &Desk) -> Portunus {
    desk.builder().builder().build().unwrap()
}

/// The owner of a tenant.
fn boss(service: &Portunus, tenant: &str) -> KeyManager {
    service.manager().by(operator("boss", tenant, Role::Owner))
}

async fn start(manager: &KeyManager) -> Result<BulkOperation, ManageError> {
    let all = BulkSelection::All;
    manager.bulk(all, BulkAction::Disable, None).await
}

async fn revoke(manager: &KeyManager) -> KeyId {
    let revoke = BulkAction::Revoke(Some("leaked".into()));
    let started = manager.bulk(BulkSelection::All, revoke, None).await;
    started.unwrap().id
}

/// Lets the jobs run once, when they are due.
async fn run(desk: &Desk, service: &Portunus) {
    desk.tick();
    service.maintain().await;
}

async fn has_ended(service: &Portunus, id: &KeyId) -> bool {
    let operation = service.manager().bulk_operation(id).await.unwrap();
    operation.ended_at.is_some()
}

/// Makes each of the next writes take a second: a run has two steps then.
fn write_slowly(desk: &Desk) {
    for _ in 0..200 {
        let clock = desk.clock.clone();
        desk.store.once(APPLY, async move { clock.advance(SECOND) });
    }
}

#[tokio::test]
async fn a_tenant_with_many_operations_does_not_delay_those_of_another() {
    let desk = Desk::new();
    let service = service(&desk);
    for _ in 0..600 {
        issue(service.manager(), named("key")).await;
    }
    let (_, leaked) = issue(service.manager(), NewKey::new("leaked", globex())).await;
    let many = boss(&service, "acme");
    for _ in 0..MOST {
        start(&many).await.unwrap();
    }
    desk.tick();
    let id = revoke(&boss(&service, "globex")).await;
    write_slowly(&desk);
    // One step counts the keys, and the next one revokes them.
    for _ in 0..2 {
        run(&desk, &service).await;
    }
    assert!(has_ended(&service, &id).await);
    assert!(desk.stored(&leaked.id).await.unwrap().revoked.is_some());
}

#[tokio::test]
async fn steps_are_done_in_turn_between_tenants() {
    let desk = Desk::new();
    let service = service(&desk);
    for number in 0..2_900 {
        let owner = ["acme", "globex"][number % 2];
        issue(
            service.manager(),
            NewKey::new("key", Owner::tenant(tenant(owner))),
        )
        .await;
    }
    let many = boss(&service, "acme");
    let mut of_acme = Vec::new();
    for _ in 0..5 {
        of_acme.push(start(&many).await.unwrap().id);
    }
    let of_globex = start(&boss(&service, "globex")).await.unwrap().id;
    write_slowly(&desk);
    let steps = async |id: &KeyId| {
        let operation = service.manager().bulk_operation(id).await.unwrap();
        operation.step
    };
    for round in 1..=4 {
        run(&desk, &service).await;
        assert_eq!(steps(&of_globex).await, round);
        let mut all = 0;
        for id in &of_acme {
            all += steps(id).await;
        }
        assert_eq!(all, round);
    }
    assert!(has_ended(&service, &of_globex).await);
}

#[tokio::test]
async fn revocations_come_before_the_other_operations_of_a_tenant() {
    let desk = Desk::new();
    let service = service(&desk);
    issue(service.manager(), named("key")).await;
    let acme = boss(&service, "acme");
    for action in [BulkAction::Enable, BulkAction::Plan(None)] {
        acme.bulk(BulkSelection::All, action, None).await.unwrap();
        desk.tick();
    }
    let id = revoke(&acme).await;
    write_slowly(&desk);
    run(&desk, &service).await;
    assert!(has_ended(&service, &id).await);
}

#[tokio::test]
async fn the_number_of_open_operations_of_a_tenant_is_bounded() {
    let desk = Desk::new();
    let service = service(&desk);
    issue(service.manager(), named("key")).await;
    let acme = boss(&service, "acme");
    for _ in 1..MOST {
        start(&acme).await.unwrap();
    }
    let once = || Idempotency::new("boss", "bulk", "1", b"").ok();
    let last = async || {
        let all = BulkSelection::All;
        acme.bulk(all, BulkAction::Disable, once()).await
    };
    let first = last().await.unwrap();
    let refusal = start(&acme).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::Conflict);
    let why = refusal.to_string();
    assert!(why.contains("20") && why.contains("wait"), "{why}");
    // Another operator of the tenant.
    let carol = operator("carol", "acme", Role::Owner);
    let carol = service.manager().by(carol);
    assert_eq!(refused(start(&carol).await), ErrorCode::Conflict);
    // A repeated request, a dry run, another tenant, and an operator of no tenant.
    assert_eq!(last().await.unwrap(), first);
    assert_eq!(acme.bulk_count(BulkSelection::All).await.unwrap(), 1);
    start(&boss(&service, "globex")).await.unwrap();
    start(service.manager()).await.unwrap();
    // A selection that is refused anyway is refused for that reason.
    let member = operator("member", "acme", Role::Member);
    let member = service.manager().by(member);
    assert_eq!(refused(start(&member).await), ErrorCode::Forbidden);
    // The bound comes before a precondition, which is evaluated last.
    let unmet = acme.only_if(|_| false);
    assert_eq!(refused(start(&unmet).await), ErrorCode::Conflict);
    run(&desk, &service).await;
    start(&acme).await.unwrap();
}

#[tokio::test]
async fn the_service_itself_has_no_bound() {
    let desk = Desk::new();
    let service = service(&desk);
    for _ in 0..=MOST {
        start(service.manager()).await.unwrap();
    }
    start(&boss(&service, "acme")).await.unwrap();
}

#[tokio::test]
async fn a_user_leaves_half_of_the_operations_to_those_who_see_all_keys() {
    let desk = Desk::new();
    let service = service(&desk);
    let own = operator("bob", "acme", Role::Member).in_organization();
    let own = own.with_authority([scope("document:*")]);
    let portal = service.manager().under(own_keys()).by(own);
    for _ in 0..MOST / 2 {
        start(&portal).await.unwrap();
    }
    assert_eq!(refused(start(&portal).await), ErrorCode::Conflict);
    let acme = boss(&service, "acme");
    for _ in 0..MOST / 2 {
        start(&acme).await.unwrap();
    }
    assert_eq!(refused(start(&acme).await), ErrorCode::Conflict);
}

#[tokio::test]
async fn a_revocation_whose_step_failed_takes_turns_with_the_other_operations() {
    let desk = Desk::new();
    let service = service(&desk);
    for _ in 0..2_000 {
        issue(service.manager(), named("key")).await;
    }
    let acme = boss(&service, "acme");
    let long = acme
        .bulk(BulkSelection::All, BulkAction::Enable, None)
        .await;
    let long = long.unwrap().id;
    desk.tick();
    let (_, leaked) = issue(service.manager(), named("leaked")).await;
    let only = BulkSelection::Ids(vec![leaked.id.clone()]);
    let id = acme.bulk(only, BulkAction::Disable, None).await.unwrap().id;
    // Its first step fails, and that of the other one, in the same run, does not.
    for fails in [true, false] {
        let (clock, store) = (desk.clock.clone(), desk.store.clone());
        let step = async move {
            clock.advance(SECOND);
            match fails {
                true => store.fail(APPLY),
                false => store.recover(),
            }
        };
        desk.store.once(APPLY, step);
    }
    write_slowly(&desk);
    for _ in 0..2 {
        run(&desk, &service).await;
    }
    assert!(has_ended(&service, &id).await);
    assert!(!has_ended(&service, &long).await);
}

#[tokio::test]
async fn tenants_that_come_later_do_not_keep_a_long_operation_from_its_turns() {
    let desk = Desk::new();
    let service = service(&desk);
    for _ in 0..1_400 {
        issue(service.manager(), named("key")).await;
    }
    let id = start(&boss(&service, "acme")).await.unwrap().id;
    write_slowly(&desk);
    let mut runs = 0;
    // Two tenants come before each run, which has two steps.
    while !has_ended(&service, &id).await {
        for number in 0..2 {
            let tenant = format!("tenant-{runs}-{number}");
            start(&boss(&service, &tenant)).await.unwrap();
        }
        run(&desk, &service).await;
        runs += 1;
        assert!(runs <= 20, "it gets no turn");
    }
}

#[tokio::test]
async fn operations_that_are_started_at_once_do_not_exceed_the_bound() {
    let desk = Desk::new();
    let service = service(&desk);
    desk.store.answer_late(3);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 * MOST {
        let acme = boss(&service, "acme");
        tasks.spawn(async move { start(&acme).await.is_ok() });
    }
    let started = tasks.join_all().await;
    let count = started.into_iter().filter(|started| *started).count();
    assert_eq!(count, MOST);
    assert_eq!(desk.store.open_bulk_operations().await.unwrap().len(), MOST);
}

#[tokio::test]
async fn a_tenant_without_an_operation_may_start_one_however_many_are_open() {
    let desk = Desk::new();
    let service = service(&desk);
    // A store's list may lack some of so many.
    for tenant in ["a", "b", "c", "d", "e"] {
        for _ in 0..18 {
            start(&boss(&service, tenant)).await.unwrap();
        }
    }
    start(&boss(&service, "acme")).await.unwrap();
    for tenant in ["a", "b", "c", "d", "e"] {
        let refusal = start(&boss(&service, tenant)).await;
        assert_eq!(refused(refusal), ErrorCode::Conflict);
    }
}

/// Operations whose steps fail, as if a newer version had started them.
async fn unreadable(desk: &Desk, of: &BulkOperation, count: usize) {
    let json = of.to_json().unwrap();
    let newer = json.replacen("\\\"counted\\\"", "\\\"newer\\\"", 1);
    assert_ne!(newer, json);
    let mut batch = WriteBatch::new();
    for _ in 0..count {
        let mut one = BulkOperation::from_json(&newer).unwrap();
        one.id = KeyId::generate().unwrap();
        one.started_at -= SECOND;
        batch = batch.change(Change::Bulk(Box::new(one)));
    }
    desk.store.inner().apply(&batch).await.unwrap();
}

#[tokio::test]
async fn operations_that_fail_do_not_keep_those_of_other_tenants_out_of_the_list() {
    let desk = Desk::new();
    let service = service(&desk);
    let (_, leaked) = issue(service.manager(), NewKey::new("leaked", globex())).await;
    let of_acme = start(&boss(&service, "acme")).await.unwrap();
    unreadable(&desk, &of_acme, 100).await;
    let id = revoke(&boss(&service, "globex")).await;
    run(&desk, &service).await;
    assert!(has_ended(&service, &id).await);
    assert!(desk.stored(&leaked.id).await.unwrap().revoked.is_some());
}

/// It takes three seconds to find out that the standing of ann is not known.
#[derive(Debug)]
struct AnnTakesLong(ManualClock);

#[async_trait]
impl OwnerStanding for AnnTakesLong {
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        if owner.user_id != Some(user("ann")) {
            return Ok(Standing::Good);
        }
        self.0.advance(3 * SECOND);
        Err(DirectoryError::unavailable("connection reset"))
    }
}

#[tokio::test]
async fn an_operation_that_fails_is_behind_those_of_its_tenant_in_the_next_run() {
    let desk = Desk::new();
    let (service, slow) = (service(&desk), AnnTakesLong(desk.clock.clone()));
    let node = desk.builder().owner_standing(slow).builder();
    let node = node.build().unwrap();
    let mut started = Vec::new();
    for name in ["ann", "bob"] {
        let mut new = NewKey::new("key", Owner::user(tenant("acme"), user(name)));
        new.kind = KeyKind::User;
        issue(service.manager(), new).await;
        let own = operator(name, "acme", Role::Member).in_organization();
        let own = own.with_authority([scope("document:*")]);
        let portal = service.manager().under(own_keys()).by(own);
        started.push(revoke(&portal).await);
        desk.tick();
    }
    // The first run ends with the step of ann's operation, which is older.
    for _ in 0..2 {
        run(&desk, &node).await;
    }
    assert!(!has_ended(&service, &started[0]).await);
    assert!(has_ended(&service, &started[1]).await);
}

#[tokio::test]
async fn digests_are_looked_up_in_turn_with_the_keys_of_requests() {
    let store = FaultyStore::new();
    store.answer_late(1);
    let keys = Setup::on(store.clone()).bearer([format()]).keys();
    let find = Point::Before(Call::Find);
    store.hold(find);
    let count = |number: u8| {
        let manager = keys.manager().clone();
        let digest = ImportedDigest::new("sha256", &[number; 32]).unwrap();
        let digests = BulkSelection::Digests(vec![digest]);
        tokio::spawn(async move { manager.bulk_count(digests).await })
    };
    let asked: Vec<_> = (0..100).map(count).collect();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    // As many as for verification; the rest is reserved for requests.
    assert_eq!(store.in_flight(), 48);
    store.release(find);
    for asked in asked {
        assert_eq!(asked.await.unwrap().unwrap(), 0);
    }
    assert_eq!(store.finds(), 100);
}

#[tokio::test]
async fn an_operation_with_digests_that_gets_no_turn_is_refused() {
    let store = FaultyStore::new();
    store.answer_late(1);
    let mut budget = portunus::limit::LookupBudget::default();
    budget.longest_wait = Duration::from_millis(30);
    let keys = Setup::on(store.clone()).bearer([format()]);
    let keys = keys.lookup_budget(budget).keys();
    let find = Point::Before(Call::Find);
    store.hold(find);
    let digests = |number: u8| {
        let digest = ImportedDigest::new("sha256", &[number; 32]).unwrap();
        BulkSelection::Digests(vec![digest])
    };
    let manager = Arc::new(keys.manager().clone());
    let held: Vec<_> = (0..48)
        .map(|number| {
            let (manager, digests) = (Arc::clone(&manager), digests(number));
            tokio::spawn(async move { manager.bulk_count(digests).await })
        })
        .collect();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let started = manager.bulk(digests(99), BulkAction::Disable, None).await;
    assert!(
        matches!(&started, Err(ManageError::Refused(error)) if error.status() == 503),
        "{started:?}"
    );
    store.release(find);
    for held in held {
        assert_eq!(held.await.unwrap().unwrap(), 0);
    }
}
