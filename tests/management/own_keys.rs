//! Operators who manage only their own keys: attempts to reach other owners' keys through every
//! operation, and to make an own key wider than its owner.

use std::time::SystemTime;

use portunus::audit::{Action, EventQuery};
use portunus::key::{
    Access, Delegation, KeyFamily, KeyId, KeyKind, KeyRecord, Owner, PlanName, WorkspaceId,
};
use portunus::limit::Plan;
use portunus::manage::{
    Denied, Idempotency, ImportedDigest, KeyChange, KeyManager, ManageError, NewImport, NewKey,
    Operator, OperatorPolicy, Role, own_keys,
};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::store::{Cursor, ListQuery};
use portunus::{ErrorCode, Limits};
use portunus_test_support::{live, scope, tenant, test, user};

use crate::life::{
    DAY, Desk, HOUR, acme, ann, change, globex, ids, issue, named, operator, refused,
};

fn bob() -> Owner {
    Owner::user(tenant("acme"), user("bob"))
}

/// A user of another tenant with the same id.
fn other_ann() -> Owner {
    Owner::user(tenant("globex"), user("ann"))
}

fn workspaces(names: &[&str]) -> Option<Vec<WorkspaceId>> {
    let names = names.iter().map(|name| WorkspaceId::new(name).unwrap());
    Some(names.collect())
}

/// What the host states about Ann: she reads documents in the whole organization.
fn ann_reads() -> Operator {
    operator("ann", "acme", Role::Member)
        .with_authority([scope("document:read")])
        .with_email("ann@acme.example")
        .in_organization()
}

/// Ann at a service that declares three plans; acme's is `standard`.
fn desk() -> (Desk, KeyManager, KeyManager) {
    let desk = Desk::new();
    let of = |minute| {
        [portunus::limit::LimitPolicy::per_key([Quota::per_minute(
            minute,
        )])]
    };
    let limits = Limits::per_key([Quota::per_minute(60)])
        .plan(Plan::new("free", of(6)))
        .plan(Plan::new("standard", of(60)))
        .plan(Plan::new("enterprise", of(6000)));
    let host = desk.builder().limits(limits).manager();
    let ann = host.under(own_keys()).by(ann_reads());
    (desk, host, ann)
}

fn user_key(owner: Owner) -> NewKey {
    let mut new = NewKey::new("key", owner).with_scopes([scope("document:read")]);
    new.kind = KeyKind::User;
    new
}

fn import(byte: u8, key: NewKey) -> NewImport {
    NewImport::new(ImportedDigest::new("sha256", &[byte; 32]).unwrap(), key)
}

fn named_user(name: &str) -> Owner {
    Owner::user(tenant("acme"), user(name))
}

/// The error of every act on a key, as text.
async fn every_act(manager: &KeyManager, id: &KeyId, now: SystemTime) -> Vec<String> {
    fn text<T>(result: Result<T, ManageError>) -> String {
        result
            .err()
            .map_or("done".into(), |error| error.to_string())
    }
    let rename = || change(|change| change.name = Some("mine".into()));
    // If-Match and Idempotency-Key of the caller tell no difference either.
    let stale = manager.only_if(|version| version == Some(99));
    let once = Idempotency::new("acme ann", "rotate", "1", b"").unwrap();
    let found = [
        text(manager.get(id).await),
        text(manager.get_for(Action::KeyRevoke, id).await),
        text(manager.usage_by_hour(id, now - DAY, now).await),
        text(manager.update(id, KeyChange::new(), None).await),
        text(manager.update(id, rename(), Some(1)).await),
        text(manager.update_with(id, |_| Ok(rename()), None).await),
        text(manager.enable(id).await),
        text(manager.disable(id).await),
        text(manager.make_primary(id).await),
        text(manager.rotate(id, Some(HOUR)).await),
        text(manager.rotate_once(id, None, Some(once)).await),
        text(stale.rotate(id, None).await),
        text(stale.revoke(id, None).await),
        text(stale.delete(id).await),
        text(stale.update(id, rename(), None).await),
        text(manager.revoke(id, Some("mine")).await),
        text(manager.delete(id).await),
    ];
    found.map(|text| text.replace(id.as_str(), "ID")).into()
}

#[tokio::test]
async fn a_key_of_another_owner_is_an_unknown_key_in_every_act() {
    let (desk, host, ann) = desk();
    let unknown = KeyId::new("key_unknown").unwrap();
    let expected = every_act(&ann, &unknown, desk.now()).await;
    assert!(expected.iter().all(|text| text == "key ID not found"));
    for owner in [acme(), bob(), globex(), other_ann()] {
        let mut new = NewKey::new("theirs", owner.clone());
        new.kind = KeyKind::App;
        let (secret, record) = issue(&host, new).await;
        assert_eq!(
            every_act(&ann, &record.id, desk.now()).await,
            expected,
            "{owner:?}"
        );
        assert_eq!(ann.verify(&secret).await.unwrap(), None);
        assert_eq!(desk.stored(&record.id).await.unwrap(), record, "untouched");
        assert_eq!(desk.primary(&owner).await.as_ref(), Some(&record.id));
        assert_eq!(desk.refusal(&secret).await, None);
    }
}

#[tokio::test]
async fn a_user_does_everything_with_its_own_keys() {
    let (desk, _, manager) = desk();
    let (first, record) = issue(&manager, user_key(ann())).await;
    assert_eq!(record.owner, ann().with_email("ann@acme.example"));
    let id = &record.id;
    assert_eq!(
        ids(&manager
            .list(ListQuery::new(desk.now()))
            .await
            .unwrap()
            .items),
        std::slice::from_ref(id)
    );
    assert!(manager.get(id).await.unwrap().primary);
    assert_eq!(
        manager.verify(&first).await.unwrap().unwrap().record.id,
        *id
    );
    let rename = change(|change| change.name = Some("laptop".into()));
    assert_eq!(
        manager.update(id, rename, None).await.unwrap().record.name,
        "laptop"
    );
    manager.disable(id).await.unwrap();
    manager.enable(id).await.unwrap();
    let rotated = manager.rotate(id, Some(HOUR)).await.unwrap();
    let successor = &rotated.record.id;
    manager.make_primary(successor).await.unwrap();
    manager
        .usage_by_hour(successor, desk.now() - DAY, desk.now())
        .await
        .unwrap();
    manager.revoke(id, None).await.unwrap();
    manager.delete(successor).await.unwrap();
    manager.delete(id).await.unwrap();
    manager.import(import(1, user_key(ann()))).await.unwrap();
}

#[tokio::test]
async fn the_owner_of_a_new_key_is_the_operator_and_nobody_else() {
    let (_, _, manager) = desk();
    // The default, as the tenant's administrators have it.
    let (_, record) = issue(&manager, user_key(acme())).await;
    assert_eq!(record.owner.user_id, Some(user("ann")));
    // A user who exists, one who does not, and a foreign one get the same answer.
    let mut texts = Vec::new();
    for name in ["bob", "nobody", "gil", "Ann"] {
        let new = user_key(named_user(name));
        let issued = manager.issue(new.clone()).await.map(drop);
        let imported = manager.import(import(2, new)).await.map(drop);
        for refusal in [issued, imported] {
            assert!(
                matches!(refusal, Err(ManageError::Forbidden(_))),
                "{refusal:?}"
            );
            texts.push(refusal.unwrap_err().to_string());
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    for owner in [globex(), other_ann()] {
        assert_eq!(
            refused(manager.issue(user_key(owner)).await),
            ErrorCode::Forbidden
        );
    }
    // An e-mail address of somebody else would appear in the audit.
    let posing = ann().with_email("bob@acme.example");
    assert_eq!(
        refused(manager.issue(user_key(posing)).await),
        ErrorCode::Forbidden
    );
    let shouted = ann().with_email("ANN@ACME.example");
    let (_, record) = issue(&manager, user_key(shouted)).await;
    assert_eq!(record.owner.user_email.as_deref(), Some("ann@acme.example"));
}

#[tokio::test]
async fn one_user_with_two_spellings_is_one_owner() {
    const UPPER: &str = "550E8400-E29B-41D4-A716-446655440000";
    let desk = Desk::new();
    let host = desk
        .builder()
        .user_ids(portunus::actor::UserIds::Uuid)
        .manager();
    let op = operator(UPPER, "acme", Role::Member).with_authority([scope("*")]);
    let manager = host.under(own_keys()).by(op.in_organization());
    let (_, record) = issue(&manager, user_key(acme())).await;
    assert_eq!(record.owner.user_id, Some(user(&UPPER.to_lowercase())));
    let (_, same) = issue(&manager, user_key(named_user(UPPER))).await;
    let mut query = ListQuery::new(desk.now());
    query.owner = Some(user(UPPER));
    assert_eq!(manager.list(query).await.unwrap().items.len(), 2);
    manager.revoke(&same.id, None).await.unwrap();
}

#[tokio::test]
async fn lists_have_own_keys_only_whatever_they_ask_for() {
    let (desk, host, manager) = desk();
    let (_, mine) = issue(&manager, user_key(ann())).await;
    let (_, theirs) = issue(&host, user_key(bob())).await;
    issue(&host, named("the tenant's")).await;
    issue(&host, user_key(other_ann())).await;
    let now = desk.now();
    let list = async |set: &dyn Fn(&mut ListQuery)| {
        let mut query = ListQuery::new(now);
        set(&mut query);
        let page = manager.list(query).await.unwrap();
        assert!(page.corrupt.is_empty());
        (ids(&page.items), page.next)
    };
    let own = (vec![mine.id.clone()], None);
    let nothing = (Vec::new(), None);
    assert_eq!(list(&|_| ()).await, own);
    assert_eq!(
        list(&|query| query.tenant = Some(tenant("globex"))).await,
        own
    );
    assert_eq!(list(&|query| query.owner = Some(user("ann"))).await, own);
    assert_eq!(list(&|query| query.text = Some("key".into())).await, own);
    for name in ["bob", "nobody", "gil"] {
        assert_eq!(list(&|query| query.owner = Some(user(name))).await, nothing);
    }
    let unknown = KeyFamily::new("key_unknown").unwrap();
    for family in [theirs.family.clone(), unknown] {
        assert_eq!(
            list(&|query| query.family = Some(family.clone())).await,
            nothing
        );
    }
    // Another user's cursor is a position, and shows nothing of the key there.
    for id in [theirs.id.clone(), KeyId::new("key_unknown").unwrap()] {
        let cursor = Cursor::new(now + HOUR, id);
        assert_eq!(list(&|query| query.after = Some(cursor.clone())).await, own);
    }
}

#[tokio::test]
async fn events_are_those_of_own_keys() {
    let (desk, host, manager) = desk();
    let (secret, mine) = issue(&manager, user_key(ann())).await;
    let (theirs_secret, theirs) = issue(&host, user_key(bob())).await;
    let bobs = host
        .under(own_keys())
        .by(operator("bob", "acme", Role::Member));
    bobs.get_for(Action::KeyRevoke, &mine.id).await.unwrap_err();
    manager.revoke(&theirs.id, None).await.unwrap_err();
    host.disable(&mine.id).await.unwrap();
    host.enable(&mine.id).await.unwrap();
    // Mine in another tenant.
    issue(&host, user_key(other_ann())).await;
    let authenticator = desk.authenticator();
    for secret in [&secret, &theirs_secret] {
        let head = portunus_test_support::Head::bearer(secret);
        let mut audit = authenticator.request_audit(&head).unwrap();
        let outcome = authenticator.authenticate(&head).await.unwrap();
        audit.admitted(outcome.principal.as_ref().unwrap());
        audit.answered(200, None);
    }
    desk.trail.flush().await.unwrap();
    let see = async |set: &dyn Fn(&mut EventQuery)| {
        let mut query = EventQuery::new();
        set(&mut query);
        let page = manager.events(&desk.log, query).await.unwrap();
        let seen = page
            .items
            .into_iter()
            .map(|event| (event.key_id, event.action));
        seen.rev().collect::<Vec<_>>()
    };
    let id = Some(mine.id.clone());
    let own: Vec<_> = [
        Action::KeyIssue,
        Action::KeyDisable,
        Action::KeyEnable,
        Action::Request,
    ]
    .map(|action| (id.clone(), action))
    .into();
    assert_eq!(see(&|_| ()).await, own);
    assert_eq!(see(&|query| query.owner = Some(user("ann"))).await, own);
    assert_eq!(
        see(&|query| query.tenant = Some(tenant("globex"))).await,
        own
    );
    assert_eq!(see(&|query| query.actor = Some("bob".into())).await, []);
    assert_eq!(see(&|query| query.owner = Some(user("bob"))).await, []);
    assert_eq!(
        see(&|query| query.key_id = Some(theirs.id.clone())).await,
        []
    );
}

type Widen = fn(&mut NewKey);

/// Keys wider than Ann: each with what makes it so.
fn wider() -> Vec<(&'static str, Widen)> {
    vec![
        ("scope", |new| new.scopes = vec![scope("document:write")]),
        ("every scope", |new| new.scopes = vec![scope("*")]),
        ("wildcard", |new| new.scopes = vec![scope("document:*")]),
        ("access", |new| new.access = Access::FullAccess),
        ("organization", |new| new.workspaces = None),
        ("workspace", |new| {
            new.workspaces = workspaces(&["w1", "w2"]);
        }),
        ("environment", |new| new.environment = Some(test())),
        ("kind", |new| new.kind = KeyKind::App),
        ("plan", |new| {
            new.plan = Some(PlanName::new("enterprise").unwrap());
        }),
        ("lower plan", |new| {
            new.plan = Some(PlanName::new("free").unwrap());
        }),
        ("quotas", |new| {
            new.quotas = Some(Quotas::new([Quota::per_minute(61).unwrap()]).unwrap());
        }),
        ("delegation", |new| {
            new.kind = KeyKind::App;
            new.delegation = Some(Delegation::On);
        }),
    ]
}

/// Ann reads documents in one workspace and one environment.
fn narrow_ann() -> Operator {
    ann_reads()
        .with_access(Access::ReadOnly)
        .in_workspaces(workspaces(&["w1"]).unwrap())
        .in_environments([live()])
}

/// A key that Ann may have.
fn narrow_key() -> NewKey {
    let mut new = user_key(ann());
    new.access = Access::ReadOnly;
    new.workspaces = workspaces(&["w1"]);
    new
}

#[tokio::test]
async fn no_new_key_is_wider_than_its_owner() {
    let (_, host, _) = desk();
    let manager = host.under(own_keys()).by(narrow_ann());
    issue(&manager, narrow_key()).await;
    for (number, (what, widen)) in wider().into_iter().enumerate() {
        let mut new = narrow_key();
        widen(&mut new);
        assert_eq!(
            refused(manager.issue(new.clone()).await),
            ErrorCode::Forbidden,
            "{what}"
        );
        let import = import(u8::try_from(number).unwrap(), new);
        assert_eq!(
            refused(manager.import(import).await),
            ErrorCode::Forbidden,
            "{what}"
        );
    }
    // The tenant's own plan is allowed, and the key follows the tenant.
    let mut new = narrow_key();
    new.plan = Some(PlanName::new("standard").unwrap());
    assert_eq!(issue(&manager, new).await.1.plan, None);
}

#[tokio::test]
async fn no_change_makes_a_key_wider_than_its_owner() {
    let (desk, host, _) = desk();
    let manager = host.under(own_keys()).by(narrow_ann());
    let (_, record) = issue(&manager, narrow_key()).await;
    let enterprise = PlanName::new("enterprise").unwrap();
    let changes = [
        change(|change| change.scopes = Some(vec![scope("document:write")])),
        change(|change| change.scopes = Some(vec![scope("*")])),
        change(|change| change.access = Some(Access::FullAccess)),
        change(|change| change.workspaces = Some(None)),
        change(|change| change.workspaces = Some(workspaces(&["w2"]))),
        change(|change| change.plan = Some(Some(enterprise.clone()))),
        change(|change| {
            let more = Quotas::new([Quota::per_minute(61).unwrap()]).unwrap();
            change.quotas = Some(Some(more));
        }),
    ];
    for change in changes {
        let what = format!("{change:?}");
        let changed = manager.update(&record.id, change.clone(), None).await;
        assert_eq!(refused(changed), ErrorCode::Forbidden, "{what}");
        let changed = manager
            .update_with(&record.id, |_| Ok(change.clone()), None)
            .await;
        assert_eq!(refused(changed), ErrorCode::Forbidden, "{what}");
    }
    assert_eq!(desk.stored(&record.id).await.unwrap(), record);
}

#[tokio::test]
async fn a_key_that_somebody_widened_gets_no_successor_and_no_longer_life() {
    for (what, widen) in wider() {
        let (desk, host, _) = desk();
        let manager = host.under(own_keys()).by(narrow_ann());
        let mut new = narrow_key();
        widen(&mut new);
        new.expires_at = Some(desk.now() + DAY);
        new.not_before = Some(desk.now() + HOUR);
        new.allowed_ips = Some(AllowList::parse(["203.0.113.0/24"]).unwrap());
        let (_, record) = issue(&host, new).await;
        let id = &record.id;
        for grace in [None, Some(HOUR)] {
            assert_eq!(
                refused(manager.rotate(id, grace).await),
                ErrorCode::Forbidden,
                "{what}"
            );
        }
        manager.disable(id).await.unwrap();
        assert_eq!(
            refused(manager.enable(id).await),
            ErrorCode::Forbidden,
            "{what}"
        );
        let (end, now) = (desk.now() + DAY, desk.now());
        for change in [
            change(|change| change.expires_at = Some(None)),
            change(|change| change.expires_at = Some(Some(end + HOUR))),
            change(|change| change.not_before = Some(None)),
            change(|change| change.not_before = Some(Some(now))),
            change(|change| change.allowed_ips = Some(None)),
            change(|change| {
                change.allowed_ips = Some(Some(AllowList::parse(["0.0.0.0/0"]).unwrap()));
            }),
        ] {
            let changed = manager.update(id, change.clone(), None).await;
            assert_eq!(refused(changed), ErrorCode::Forbidden, "{what}: {change:?}");
        }
        // What narrows it or says nothing about it is the owner's to do.
        let renamed = change(|change| {
            change.name = Some("renamed".into());
            change.expires_at = Some(Some(end - HOUR));
        });
        manager.update(id, renamed, None).await.unwrap();
        manager.revoke(id, None).await.unwrap();
    }
}

#[tokio::test]
async fn who_loses_a_permission_can_only_narrow_the_keys_that_have_it() {
    let (_, host, _) = desk();
    let of = |scopes: &[&str]| {
        let scopes = scopes.iter().map(|name| scope(name));
        host.under(own_keys())
            .by(ann_reads().with_authority(scopes))
    };
    let (writer, reader) = (of(&["document:*"]), of(&["document:read"]));
    let mut new = user_key(ann());
    new.scopes = vec![scope("document:read"), scope("document:write")];
    let (_, record) = issue(&writer, new).await;
    let id = &record.id;
    assert_eq!(refused(reader.rotate(id, None).await), ErrorCode::Forbidden);
    reader.disable(id).await.unwrap();
    assert_eq!(refused(reader.enable(id).await), ErrorCode::Forbidden);
    let narrowed = change(|change| change.scopes = Some(vec![scope("document:read")]));
    reader.update(id, narrowed, None).await.unwrap();
    reader.enable(id).await.unwrap();
    // What was given up does not come back.
    let again = change(|change| change.scopes = Some(record.scopes.clone()));
    assert_eq!(
        refused(reader.update(id, again, None).await),
        ErrorCode::Forbidden
    );
    reader.rotate(id, None).await.unwrap();
}

#[tokio::test]
async fn workspaces_follow_the_role() {
    let (_, host, _) = desk();
    let allowed = async |role: Role, names: Option<Vec<WorkspaceId>>| {
        let op = operator("ann", "acme", role)
            .with_authority([scope("*")])
            .in_workspaces(workspaces(&["w1"]).unwrap());
        let mut new = user_key(ann());
        new.workspaces = names;
        host.under(own_keys()).by(op).issue(new).await.is_ok()
    };
    let (own, other) = (workspaces(&["w1"]), workspaces(&["w2"]));
    for (role, expected) in [
        (Role::Owner, [true, true, true]),
        (Role::Admin, [true, true, false]),
        (Role::Member, [false, true, false]),
    ] {
        let found = [
            allowed(role, None).await,
            allowed(role, own.clone()).await,
            allowed(role, other.clone()).await,
        ];
        assert_eq!(found, expected, "{role:?}");
    }
}

#[tokio::test]
async fn a_user_of_whom_the_host_says_nothing_grants_nothing() {
    let (_, host, _) = desk();
    let nobody = host
        .under(own_keys())
        .by(operator("ann", "acme", Role::Member));
    let mut new = user_key(ann());
    assert_eq!(
        refused(nobody.issue(new.clone()).await),
        ErrorCode::Forbidden
    );
    new.scopes.clear();
    assert_eq!(
        refused(nobody.issue(new.clone()).await),
        ErrorCode::Forbidden
    );
    // An application key would act as the application and not as Ann, so the host must say so.
    new.kind = KeyKind::App;
    let op = ann_reads().with_kinds([KeyKind::App]);
    let (_, record) = issue(&host.under(own_keys()).by(op), new).await;
    assert_eq!(record.delegation, Delegation::Off);
}

#[tokio::test]
async fn an_application_key_of_a_user_acts_for_nobody_else() {
    let desk = Desk::new();
    let host = desk.manager(|rules| rules.delegation = Delegation::On);
    let op = ann_reads().with_kinds([KeyKind::App]);
    let manager = host.under(own_keys()).by(op);
    let mut new = NewKey::new("app", ann());
    let (_, record) = issue(&manager, new.clone()).await;
    assert_eq!(
        record.delegation,
        Delegation::Off,
        "not the default of the API"
    );
    new.delegation = Some(Delegation::On);
    assert_eq!(
        refused(manager.issue(new.clone()).await),
        ErrorCode::Forbidden
    );
    let on = change(|change| change.delegation = Some(Delegation::On));
    assert_eq!(
        refused(manager.update(&record.id, on, None).await),
        ErrorCode::Forbidden
    );
    let (_, theirs) = issue(&host, new).await;
    assert_eq!(
        refused(manager.rotate(&theirs.id, None).await),
        ErrorCode::Forbidden
    );
}

#[tokio::test]
async fn an_idempotency_key_of_another_user_reveals_nothing() {
    let (_, host, manager) = desk();
    let bobs = operator("bob", "acme", Role::Member).in_organization();
    let bobs = host.under(own_keys()).by(bobs.with_authority([scope("*")]));
    // Even if a host mixed up its callers, another user's key is not returned.
    let request = || Some(Idempotency::new("same", "issue", "1", b"{}").unwrap());
    let mut new = user_key(acme());
    new.idempotency = request();
    issue(&bobs, new.clone()).await;
    let again = manager.issue(new).await;
    assert!(
        matches!(
            again,
            Err(ManageError::Invalid {
                field: "Idempotency-Key",
                ..
            })
        ),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_policy_can_confine_some_roles() {
    #[derive(Debug)]
    struct MembersOwn;
    impl OperatorPolicy for MembersOwn {
        fn allows(&self, _: &Operator, _: Action, _: &KeyRecord) -> Result<(), Denied> {
            Ok(())
        }
        fn lists(&self, _: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
            Ok(query)
        }
        fn own_keys_only(&self, operator: &Operator) -> bool {
            operator.role() == Role::Member
        }
    }
    let (_, host, _) = desk();
    // Behind a pointer, too.
    let host = host.under(std::sync::Arc::new(MembersOwn));
    let (_, theirs) = issue(&host, user_key(bob())).await;
    let member = host.by(ann_reads());
    assert_eq!(refused(member.get(&theirs.id).await), ErrorCode::NotFound);
    assert_eq!(member.own().unwrap().user_id, Some(user("ann")));
    let owner = host.by(operator("ann", "acme", Role::Owner));
    owner.get(&theirs.id).await.unwrap();
    assert_eq!(owner.own(), None);
    // The service itself is nobody's user.
    host.get(&theirs.id).await.unwrap();
    assert_eq!(host.own(), None);
}
