//! Permissions of operators: roles, tenants, workspaces, authority, a host's own policies, and
//! audit events.

use std::net::IpAddr;
use std::sync::Arc;

use crate::life::{
    DAY, Desk, HOUR, acme, change, globex, ids, issue, named, operator, refused, rules, with_scopes,
};
use portunus::audit::{Action, AuditOutcome, RequestId};
use portunus::key::{Delegation, KeyId, KeyRecord, WorkspaceId};
use portunus::manage::{
    ByRole, Denied, ImportedDigest, KeyChange, KeyManager, ManageError, NewImport, NewKey,
    Operator, OperatorPolicy, Role, Setting,
};
use portunus::scope::ScopeModel;
use portunus::store::ListQuery;
use portunus::{ErrorCode, Scope, ScopeSet};
use portunus_profiles::Profile;
use portunus_test_support::{Setup, scope, tenant};

fn workspace(name: &str) -> WorkspaceId {
    WorkspaceId::new(name).unwrap()
}

fn reaching(names: &[&str]) -> NewKey {
    let mut new = named("key");
    new.workspaces =
        (!names.is_empty()).then(|| names.iter().map(|name| workspace(name)).collect());
    new
}

fn moved(names: &[&str]) -> KeyChange {
    change(|change| {
        change.workspaces =
            Some((!names.is_empty()).then(|| names.iter().map(|name| workspace(name)).collect()));
    })
}

fn import(byte: u8, key: NewKey) -> NewImport {
    NewImport::new(ImportedDigest::new("sha256", &[byte; 32]).unwrap(), key)
}

/// The codes of the refusals of every act on one key, ordered so that acts that end the key come
/// last.
async fn every_act(
    manager: &KeyManager,
    id: &KeyId,
    at: std::time::SystemTime,
) -> Vec<(Action, Option<ErrorCode>)> {
    fn code<T>(result: Result<T, ManageError>) -> Option<ErrorCode> {
        result.err().map(|error| error.code())
    }
    let rename = change(|change| change.name = Some("renamed".into()));
    vec![
        (Action::KeyRead, code(manager.get(id).await)),
        (
            Action::KeyRead,
            code(manager.usage_by_hour(id, at - DAY, at).await),
        ),
        (
            Action::KeyUpdate,
            code(manager.update(id, rename, None).await),
        ),
        (Action::KeyDisable, code(manager.disable(id).await)),
        (Action::KeyEnable, code(manager.enable(id).await)),
        (Action::KeyMakePrimary, code(manager.make_primary(id).await)),
        (
            Action::KeyRotate,
            code(manager.rotate(id, Some(HOUR)).await),
        ),
        (
            Action::KeyRevoke,
            code(manager.revoke(id, Some("because")).await),
        ),
        (Action::KeyDelete, code(manager.delete(id).await)),
    ]
}

#[tokio::test]
async fn an_owner_may_do_everything_and_a_member_nothing() {
    for (role, expected) in [
        (Role::Owner, None),
        (Role::Member, Some(ErrorCode::Forbidden)),
    ] {
        let desk = Desk::new();
        let (_, key) = issue(&desk.host(), reaching(&["w1"])).await;
        let manager = desk.host().by(operator("kim", "acme", role));
        for (action, code) in every_act(&manager, &key.id, desk.now()).await {
            assert_eq!(code, expected, "{role:?} {action}");
        }
        assert_eq!(
            manager
                .issue(named("key"))
                .await
                .err()
                .map(|error| error.code()),
            expected
        );
        assert_eq!(
            manager
                .import(import(1, named("key")))
                .await
                .err()
                .map(|error| error.code()),
            expected
        );
        assert_eq!(
            manager
                .list(ListQuery::new(desk.now()))
                .await
                .err()
                .map(|error| error.code()),
            expected
        );
        if role == Role::Member {
            assert_eq!(desk.all().await, [key], "nothing was changed");
        }
    }
}

#[tokio::test]
async fn an_administrator_manages_keys_of_the_organization_and_of_own_workspaces() {
    let cases: [(&[&str], bool); 5] = [
        (&[], true),
        (&["w1"], true),
        (&["w1", "w2"], true),
        (&["w3"], false),
        (&["w1", "w3"], false),
    ];
    for (reached, allowed) in cases {
        let desk = Desk::new();
        let admin =
            operator("kim", "acme", Role::Admin).in_workspaces([workspace("w1"), workspace("w2")]);
        let manager = desk.host().by(admin);
        let expected = (!allowed).then_some(ErrorCode::Forbidden);
        let (_, key) = issue(&desk.host(), reaching(reached)).await;
        for (action, code) in every_act(&manager, &key.id, desk.now()).await {
            assert_eq!(code, expected, "{reached:?} {action}");
        }
        assert_eq!(
            manager
                .issue(reaching(reached))
                .await
                .err()
                .map(|error| error.code()),
            expected,
            "{reached:?}"
        );
        let imported = manager.import(import(1, reaching(reached))).await;
        assert_eq!(
            imported.err().map(|error| error.code()),
            expected,
            "{reached:?}"
        );
    }
}

#[tokio::test]
async fn an_administrator_cannot_move_keys_into_or_out_of_other_workspaces() {
    let desk = Desk::new();
    let manager = desk
        .host()
        .by(operator("kim", "acme", Role::Admin).in_workspaces([workspace("w1")]));
    let mut keys = Vec::new();
    for reached in [&["w1"][..], &["w2"], &["w1", "w2"], &[]] {
        keys.push(issue(&desk.host(), reaching(reached)).await.1);
    }
    for (from, to) in [
        (0, &["w2"][..]),
        (0, &["w1", "w2"]),
        (1, &["w1"]),
        (1, &[]),
        (2, &["w1"]),
        (2, &[]),
        (3, &["w2"]),
    ] {
        let refusal = refused(manager.update(&keys[from].id, moved(to), None).await);
        assert_eq!(
            refusal,
            ErrorCode::Forbidden,
            "{:?} to {to:?}",
            keys[from].workspaces
        );
    }
    let mut stored = desk.all().await;
    stored.sort_by_key(|record| keys.iter().position(|key| key.id == record.id));
    assert_eq!(stored, keys);
    manager
        .update(&keys[3].id, moved(&["w1"]), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn lists_contain_only_keys_that_the_operator_may_manage() {
    let desk = Desk::new();
    let mut keys = Vec::new();
    for reached in [&[][..], &["w1"], &["w2"], &["w1", "w2"]] {
        keys.push(issue(&desk.host(), reaching(reached)).await.1.id.clone());
        desk.tick();
    }
    issue(&desk.host(), NewKey::new("another tenant's", globex())).await;
    let list = async |by: Operator, query: ListQuery| {
        let mut found = ids(&desk.host().by(by).list(query).await.unwrap().items);
        found.reverse();
        found
    };
    let all = ListQuery::new(desk.now());
    let kim = operator("kim", "acme", Role::Admin).in_workspaces([workspace("w1")]);
    assert_eq!(
        list(operator("olga", "acme", Role::Owner), all.clone()).await,
        keys
    );
    assert_eq!(list(kim.clone(), all.clone()).await, keys[..2]);
    assert_eq!(list(Operator::host(), all.clone()).await.len(), 5);
    let mut wider = all.clone();
    wider.within_workspaces = Some(vec![workspace("w1"), workspace("w2")]);
    assert_eq!(list(kim.clone(), wider.clone()).await, keys[..2]);
    wider.within_workspaces = Some(vec![workspace("w2")]);
    assert_eq!(list(kim, wider).await, keys[..1]);
    let mut elsewhere = all;
    elsewhere.tenant = Some(tenant("globex"));
    let found = list(operator("olga", "acme", Role::Owner), elsewhere).await;
    assert!(
        found.iter().all(|id| keys.contains(id)),
        "never another tenant's"
    );
}

#[tokio::test]
async fn another_tenants_key_is_answered_like_an_unknown_one() {
    let desk = Desk::new();
    let (_, key) = issue(&desk.host(), named("key")).await;
    let unknown = KeyId::generate().unwrap();
    for role in [Role::Owner, Role::Admin, Role::Member] {
        let eve = desk.host().by(operator("eve", "globex", role));
        for id in [&key.id, &unknown] {
            for (action, code) in every_act(&eve, id, desk.now()).await {
                assert_eq!(code, Some(ErrorCode::NotFound), "{role:?} {action}");
            }
        }
        let (known, none) = (
            eve.get(&key.id).await.unwrap_err(),
            eve.get(&unknown).await.unwrap_err(),
        );
        assert_eq!(
            known.to_string().replace(key.id.as_str(), ""),
            none.to_string().replace(unknown.as_str(), "")
        );
        let wrong = change(|change| change.name = Some(String::new()));
        assert_eq!(
            refused(eve.update(&key.id, wrong.clone(), Some(9)).await),
            ErrorCode::NotFound
        );
    }
    assert_eq!(desk.all().await, [key]);
    let events = desk.events().await;
    assert!(
        events[1..]
            .iter()
            .all(|event| event.tenant_id == Some(tenant("globex"))),
        "acme's log holds nothing of it"
    );
}

#[tokio::test]
async fn no_operator_can_issue_keys_for_another_tenant() {
    let desk = Desk::new();
    for role in [Role::Owner, Role::Admin, Role::Member] {
        let manager = desk.host().by(operator("olga", "acme", role));
        let new = NewKey::new("key", globex());
        assert_eq!(
            refused(manager.issue(new.clone()).await),
            ErrorCode::Forbidden
        );
        assert_eq!(
            refused(manager.import(import(1, new)).await),
            ErrorCode::Forbidden
        );
        let event = desk.last_event().await;
        assert_eq!(
            (event.tenant_id, event.outcome),
            (
                Some(tenant("acme")),
                AuditOutcome::Refused(ErrorCode::Forbidden)
            )
        );
    }
    assert!(desk.all().await.is_empty());
    desk.host()
        .import(import(1, named("key")))
        .await
        .expect("a refused import leaves no tombstone");
}

#[tokio::test]
async fn no_key_grants_more_than_its_issuer_has() {
    let desk = Desk::new();
    let limited = operator("olga", "acme", Role::Owner)
        .with_authority([scope("document:*"), scope("user.read")]);
    let manager = desk.host().by(limited);
    let (_, own) = issue(
        &manager,
        with_scopes(&["document:read", "document:*", "user.read"]),
    )
    .await;
    let (_, more) = issue(&desk.host(), with_scopes(&["template:read"])).await;
    for beyond in [
        "*",
        "document",
        "document.read",
        "user.*",
        "user.write",
        "Document:read",
    ] {
        assert_eq!(
            refused(manager.issue(with_scopes(&[beyond])).await),
            ErrorCode::Forbidden,
            "{beyond}"
        );
        assert_eq!(
            refused(manager.import(import(1, with_scopes(&[beyond]))).await),
            ErrorCode::Forbidden,
            "{beyond}"
        );
        let wider =
            change(|change| change.scopes = Some(vec![scope("document:read"), scope(beyond)]));
        assert_eq!(
            refused(manager.update(&own.id, wider, None).await),
            ErrorCode::Forbidden,
            "{beyond}"
        );
        let mut delegating = with_scopes(&["document:read"]);
        delegating.delegation = Some(Delegation::Only(vec![scope(beyond)]));
        assert_eq!(
            refused(manager.issue(delegating).await),
            ErrorCode::Forbidden,
            "{beyond}"
        );
        let delegating =
            change(|change| change.delegation = Some(Delegation::Only(vec![scope(beyond)])));
        assert_eq!(
            refused(manager.update(&own.id, delegating, None).await),
            ErrorCode::Forbidden,
            "{beyond}"
        );
    }
    // An operator who rotates a key receives the secret of its successor.
    assert_eq!(
        refused(manager.rotate(&more.id, None).await),
        ErrorCode::Forbidden
    );
    manager.rotate(&own.id, Some(HOUR)).await.unwrap();
    manager
        .revoke(&more.id, None)
        .await
        .expect("ending a key gives nothing");
    let none = desk
        .host()
        .by(operator("olga", "acme", Role::Owner).with_authority([]));
    none.issue(named("without a scope")).await.unwrap();
    assert_eq!(
        refused(none.issue(with_scopes(&["a"])).await),
        ErrorCode::Forbidden
    );
}

#[tokio::test]
async fn an_unscoped_key_requires_an_issuer_with_full_authority() {
    let desk = Desk::new();
    let manager = Setup::of(desk.store.clone(), Profile::DropboxSign)
        .clock(desk.clock.clone())
        .manager();
    let limited =
        manager.by(operator("olga", "acme", Role::Owner).with_authority([scope("account_access")]));
    // The authenticator of this API grants everything to API keys.
    assert_eq!(
        limited
            .issue(named("key"))
            .await
            .err()
            .map(|error| error.code()),
        Some(ErrorCode::Forbidden)
    );
    manager
        .by(operator("olga", "acme", Role::Owner).with_authority([scope("*")]))
        .issue(named("key"))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_operator_may_restrict_a_key_that_exceeds_its_own_authority() {
    let desk = Desk::new();
    let (_, wide) = issue(&desk.host(), with_scopes(&["*"])).await;
    let manager = desk
        .host()
        .by(operator("olga", "acme", Role::Owner).with_authority([scope("document:*")]));
    let narrower = change(|change| change.scopes = Some(vec![scope("document:read")]));
    manager.update(&wide.id, narrower, None).await.unwrap();
}

/// A host's own policy that forbids one action to every operator.
#[derive(Debug)]
struct Never(Action);

impl OperatorPolicy for Never {
    fn allows(&self, _: &Operator, action: Action, _: &KeyRecord) -> Result<(), Denied> {
        if action == self.0 {
            Err(Denied::because(format!("{action} is forbidden here")))
        } else {
            Ok(())
        }
    }
    fn lists(&self, _: &Operator, mut query: ListQuery) -> Result<ListQuery, Denied> {
        query.tenant = Some(tenant("globex"));
        Ok(query)
    }
    fn may_exceed(&self, _: &Operator, _: Setting) -> bool {
        true
    }
}

#[tokio::test]
async fn a_custom_policy_forbids_only_its_own_action() {
    for never in [
        Action::KeyUpdate,
        Action::KeyDisable,
        Action::KeyEnable,
        Action::KeyMakePrimary,
        Action::KeyRotate,
        Action::KeyRevoke,
        Action::KeyDelete,
    ] {
        let desk = Desk::new();
        let (_, key) = issue(&desk.host(), named("key")).await;
        let manager = desk.builder().policy(Arc::new(Never(never))).manager();
        let manager = manager.by(operator("olga", "acme", Role::Member).with_authority([]));
        for (action, code) in every_act(&manager, &key.id, desk.now()).await {
            let expected = match (action, never) {
                _ if action == never => Some(ErrorCode::Forbidden),
                // Still primary, and with a successor.
                (Action::KeyDelete, Action::KeyRevoke) => Some(ErrorCode::Conflict),
                _ => None,
            };
            assert_eq!(code, expected, "{action} where {never} is forbidden");
        }
    }
}

#[tokio::test]
async fn an_operator_who_may_act_but_not_read_sees_no_refusal_after_the_act() {
    let desk = Desk::new();
    let (_, key) = issue(&desk.host(), named("key")).await;
    let manager = desk.builder().policy(Never(Action::KeyRead)).manager();
    let revoked = manager
        .by(operator("olga", "acme", Role::Owner))
        .revoke(&key.id, Some("leaked"))
        .await;
    assert!(
        desk.stored(&key.id).await.unwrap().revoked.is_some(),
        "it was done"
    );
    let told = (
        revoked.err().map(|error| error.code()),
        desk.last_event().await.outcome,
    );
    assert_eq!(told, (None, AuditOutcome::Ok));
}

#[tokio::test]
async fn a_policy_that_forbids_to_enable_is_not_passed_by_changing_something_else_too() {
    let desk = Desk::new();
    let manager = desk.builder().policy(Never(Action::KeyEnable)).manager();
    let manager = manager.by(operator("olga", "acme", Role::Owner));
    let (_, key) = issue(&manager, named("key")).await;
    manager.disable(&key.id).await.unwrap();
    assert_eq!(refused(manager.enable(&key.id).await), ErrorCode::Forbidden);
    let both = change(|change| {
        change.enabled = Some(true);
        change.description = Some(None);
    });
    assert_eq!(
        manager
            .update(&key.id, both, None)
            .await
            .err()
            .map(|error| error.code()),
        Some(ErrorCode::Forbidden)
    );
}

#[tokio::test]
async fn a_policy_may_grant_more_than_the_issuer_has_but_never_another_tenant() {
    let desk = Desk::new();
    let manager = desk
        .builder()
        .policy(Box::new(Never(Action::KeyDelete)))
        .manager();
    let manager = manager.by(operator("olga", "acme", Role::Member).with_authority([]));
    let (_, key) = issue(&manager, with_scopes(&["*"])).await;
    assert_eq!(
        refused(manager.issue(NewKey::new("key", globex())).await),
        ErrorCode::Forbidden
    );
    issue(&desk.host(), NewKey::new("key", globex())).await;
    let page = manager.list(ListQuery::new(desk.now())).await.unwrap();
    assert_eq!(
        ids(&page.items),
        std::slice::from_ref(&key.id),
        "whatever tenant the policy writes into the query"
    );
}

/// Scopes as roles: an editor has all rights of a reader, and `boss` includes everything.
#[derive(Debug)]
struct Roles;

#[derive(Debug)]
struct Held(Vec<Scope>);

impl ScopeSet for Held {
    fn grants(&self, required: &Scope) -> bool {
        self.0.iter().any(|held| match held.as_str() {
            "boss" => true,
            "editor" => matches!(required.as_str(), "editor" | "reader"),
            own => own == required.as_str(),
        })
    }
    fn visit(&self, see: &mut dyn FnMut(&str)) {
        self.0.iter().for_each(|held| see(held.as_str()));
    }
}

impl ScopeModel for Roles {
    fn compile(&self, names: &[Scope]) -> Result<Arc<dyn ScopeSet>, portunus::error::ParseError> {
        Ok(Arc::new(Held(names.to_vec())))
    }
}

#[tokio::test]
async fn the_hosts_scope_model_decides_what_an_operator_may_grant() {
    let desk = Desk::new();
    let host = desk.builder().scope_model(Roles).manager();
    for (own, granted, allowed) in [
        ("editor", "reader", true),
        ("editor", "editor", true),
        ("editor", "boss", false),
        ("reader", "editor", false),
        ("boss", "anything", true),
        ("boss", "*", true),
        // Not a wildcard in this model.
        ("*", "reader", false),
        ("read:*", "read:all", false),
    ] {
        let olga = operator("olga", "acme", Role::Owner).with_authority([scope(own)]);
        let manager = host.by(olga);
        let issued = manager.issue(with_scopes(&[granted])).await;
        assert_eq!(issued.is_ok(), allowed, "{own} grants {granted}");
        let (_, key) = issue(&host, with_scopes(&[])).await;
        let more = change(|change| change.scopes = Some(vec![scope(granted)]));
        let changed = manager.update(&key.id, more, None).await;
        assert_eq!(changed.is_ok(), allowed, "{own} adds {granted}");
    }
}

#[tokio::test]
async fn every_act_is_one_event_with_actor_action_address_and_outcome() {
    let desk = Desk::new();
    let ip: IpAddr = "192.0.2.9".parse().unwrap();
    let request = RequestId::new("req-7");
    let olga = operator("olga", "acme", Role::Owner)
        .with_authority([scope("document:*")])
        .from_ip(Some(ip))
        .on_request(request.clone());
    let manager = desk.host().by(olga);
    let (secret, key) = issue(&manager, with_scopes(&["document:read"])).await;
    let digest = desk
        .hasher
        .digest(&secret)
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    every_act(&manager, &key.id, desk.now()).await;
    let missing = KeyId::generate().unwrap();
    every_act(&manager, &missing, desk.now()).await;
    manager.import(import(5, named("imported"))).await.unwrap();
    let twice = manager.import(import(5, named("imported"))).await;
    assert_eq!(refused(twice), ErrorCode::Conflict);
    let events = desk.events().await;
    let told: Vec<(Action, &str)> = events
        .iter()
        .map(|event| (event.action, event.outcome.as_str()))
        .collect();
    let acts = [
        Action::KeyUpdate,
        Action::KeyDisable,
        Action::KeyEnable,
        Action::KeyMakePrimary,
        Action::KeyRotate,
        Action::KeyRevoke,
        Action::KeyDelete,
    ];
    let mut expected = vec![(Action::KeyIssue, "OK")];
    expected.extend(acts.map(|act| (act, "OK")));
    expected.extend(acts.map(|act| (act, "NOT_FOUND")));
    expected.extend([(Action::KeyImport, "OK"), (Action::KeyImport, "CONFLICT")]);
    assert_eq!(told, expected);
    for event in &events {
        assert!(event.actor.as_ref().unwrap().is("olga"), "{event:?}");
        assert_eq!(
            (event.client_ip, &event.request_id),
            (Some(ip), &request),
            "{event:?}"
        );
        assert_eq!(event.tenant_id, Some(tenant("acme")), "{event:?}");
        assert_eq!(event.at, desk.now());
        let shown = format!("{event:?}");
        assert!(
            !shown.contains(&secret[13..40])
                && !shown.contains(&digest)
                && !shown.contains(&"05".repeat(32))
        );
    }
    assert!(
        events[..8]
            .iter()
            .all(|event| event.key_id.as_ref() == Some(&key.id))
    );
    assert!(
        events[8..15]
            .iter()
            .all(|event| event.key_id.as_ref() == Some(&missing))
    );
    assert_eq!(events[6].detail.as_deref(), Some("because"));
}

#[tokio::test]
async fn quotas_are_the_profiles_unless_the_tenant_has_its_own() {
    let desk = Desk::new();
    let manager = desk
        .builder()
        .rules(rules(|rules| rules.active_keys = Some(2)));
    let manager = manager
        .active_keys_of(|of| (of.as_str() == "globex").then_some(3))
        .manager();
    for (owner, most) in [(acme(), 2), (globex(), 3)] {
        for _ in 0..most {
            manager
                .issue(NewKey::new("key", owner.clone()))
                .await
                .unwrap();
        }
        let refusal = manager.issue(NewKey::new("key", owner)).await;
        assert!(
            matches!(refusal, Err(ManageError::QuotaExceeded { limit, .. }) if limit == most),
            "{refusal:?}"
        );
    }
}

#[tokio::test]
async fn the_default_policy_can_be_asked_by_a_policy_of_the_hosts_own() {
    let desk = Desk::new();
    let record = desk.host().issue(reaching(&["w1"])).await.unwrap().record;
    let by = |role| {
        ByRole::new()
            .allows(&operator("kim", "acme", role), Action::KeyRead, &record)
            .is_ok()
    };
    assert_eq!(
        [Role::Owner, Role::Admin, Role::Member].map(by),
        [true, false, false],
        "an administrator of nothing yet"
    );
    let nowhere = operator("kim", "acme", Role::Admin).in_workspaces([]);
    assert!(
        ByRole::new()
            .allows(&nowhere, Action::KeyRead, &record)
            .is_err()
    );
}
