//! Settings that an operator may change: the table of `OperatorPolicy`, row by row.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::audit::Action;
use portunus::key::{
    Access, Delegation, KeyKind, KeyRecord, Metadata, Owner, PlanName, TenantId, WorkspaceId,
};
use portunus::limit::{CountedBy, LimitPolicy, Plan};
use portunus::manage::{
    ByRole, Denied, Idempotency, ImportedDigest, KeyChange, KeyManager, ManageError, NewImport,
    NewKey, Operator, OperatorPolicy, Role, Setting,
};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::scope::{Scope, ScopeModel, ScopeSet, WildcardModel};
use portunus::store::ListQuery;
use portunus::{ErrorCode, Limits};

use crate::life::{DAY, Desk, HOUR, acme, change, globex, issue, named, operator, refused, rules};
use portunus_test_support::{scope, tenant, user};

fn plan(name: &str) -> PlanName {
    PlanName::new(name).unwrap()
}

fn workspaces(names: &[&str]) -> Option<Vec<WorkspaceId>> {
    Some(
        names
            .iter()
            .map(|name| WorkspaceId::new(name).unwrap())
            .collect(),
    )
}

fn quotas(minute: u64, hour: u64) -> Quotas {
    Quotas::new([
        Quota::per_minute(minute).unwrap(),
        Quota::per_hour(hour).unwrap(),
    ])
    .unwrap()
}

fn only(quota: Quota) -> Option<Quotas> {
    Some(Quotas::new([quota]).unwrap())
}

fn olga() -> Operator {
    operator("olga", "acme", Role::Owner).with_authority([scope("document:*"), scope("user.read")])
}

fn kim() -> Operator {
    let own = workspaces(&["w1"]).unwrap();
    let kim = operator("kim", "acme", Role::Admin).in_workspaces(own);
    kim.with_authority([scope("*")])
        .with_access(Access::ReadOnly)
}

/// An operator without any authority.
fn nora() -> Operator {
    operator("nora", "acme", Role::Owner)
}

type Set = Box<dyn Fn(&mut NewKey)>;

/// One row: who sets what, whether the table allows it, and what lifts the restriction.
struct Row {
    what: &'static str,
    by: fn() -> Operator,
    set: Set,
    allowed: bool,
    setting: Option<Setting>,
}

fn row(
    what: &'static str,
    by: fn() -> Operator,
    allowed: bool,
    setting: impl Into<Option<Setting>>,
    set: impl Fn(&mut NewKey) + 'static,
) -> Row {
    let (set, setting) = (Box::new(set) as Set, setting.into());
    Row {
        what,
        by,
        set,
        allowed,
        setting,
    }
}

/// Every operator here may issue a read-only key, as far as access is concerned.
fn plain() -> NewKey {
    let mut new = named("key");
    new.access = Access::ReadOnly;
    new
}

#[allow(clippy::too_many_lines)]
fn table() -> Vec<Row> {
    use Setting as S;
    let scoped = |names: &'static [&'static str]| {
        move |new: &mut NewKey| new.scopes = names.iter().map(|name| scope(name)).collect()
    };
    let access = |access: Access| move |new: &mut NewKey| new.access = access;
    let reach =
        |names: &'static [&'static str]| move |new: &mut NewKey| new.workspaces = workspaces(names);
    let delegating =
        |delegation: Delegation| move |new: &mut NewKey| new.delegation = Some(delegation.clone());
    let paying = |name: &'static str| move |new: &mut NewKey| new.plan = Some(plan(name));
    let limited = |own: Option<Quotas>| move |new: &mut NewKey| new.quotas.clone_from(&own);
    let owned = |id: &'static str| {
        move |new: &mut NewKey| new.owner = Owner::user(tenant("acme"), user(id))
    };
    let some = |names: &[&str]| Delegation::Only(names.iter().map(|name| scope(name)).collect());
    let day = || Quota::new("day", 1000, DAY).unwrap();
    let second = || Quota::new("second", 1, Duration::from_secs(1)).unwrap();
    let hour = || Quota::per_hour(60).unwrap();
    vec![
        row("tenant: its own", olga, true, None, |_| ()),
        row("tenant: another", olga, false, None, |new| {
            new.owner = globex();
        }),
        row(
            "scopes: within its own",
            olga,
            true,
            None,
            scoped(&["document:read", "user.read"]),
        ),
        row(
            "scopes: beyond its own",
            olga,
            false,
            S::Scopes,
            scoped(&["template:read"]),
        ),
        row("scopes: all", olga, false, S::Scopes, scoped(&["*"])),
        row(
            "scopes: given none",
            nora,
            false,
            S::Scopes,
            scoped(&["document:read"]),
        ),
        row(
            "scopes: given none, asking for none",
            nora,
            true,
            None,
            scoped(&[]),
        ),
        row(
            "access: its own",
            olga,
            true,
            None,
            access(Access::FullAccess),
        ),
        row("access: less", kim, true, None, access(Access::ReadOnly)),
        row(
            "access: more",
            kim,
            false,
            S::Access,
            access(Access::FullAccess),
        ),
        row(
            "workspaces: an Owner, each",
            olga,
            true,
            None,
            reach(&["w1", "w9"]),
        ),
        row(
            "workspaces: an Admin, the organization",
            kim,
            true,
            None,
            |new| new.workspaces = None,
        ),
        row(
            "workspaces: an Admin, its own",
            kim,
            true,
            None,
            reach(&["w1"]),
        ),
        row(
            "workspaces: an Admin, another",
            kim,
            false,
            None,
            reach(&["w1", "w2"]),
        ),
        row(
            "delegation: off",
            olga,
            true,
            None,
            delegating(Delegation::Off),
        ),
        row(
            "delegation: as given",
            olga,
            true,
            None,
            delegating(some(&["document:read"])),
        ),
        row(
            "delegation: wider",
            olga,
            false,
            S::Delegation,
            delegating(Delegation::On),
        ),
        row(
            "delegation: other scopes",
            olga,
            false,
            S::Delegation,
            delegating(some(&["user.read"])),
        ),
        row("plan: the tenant's", olga, true, None, paying("standard")),
        row(
            "plan: a higher one",
            olga,
            false,
            S::Plan,
            paying("enterprise"),
        ),
        row("plan: a lower one", olga, false, S::Plan, paying("free")),
        row(
            "quotas: the default's",
            olga,
            true,
            None,
            limited(Some(quotas(60, 1000))),
        ),
        row(
            "quotas: lower",
            olga,
            true,
            None,
            limited(Some(quotas(1, 1))),
        ),
        row(
            "quotas: a stricter window only",
            olga,
            true,
            None,
            limited(only(hour())),
        ),
        row(
            "quotas: a minute more",
            olga,
            false,
            S::Quotas,
            limited(Some(quotas(61, 1000))),
        ),
        row(
            "quotas: an hour more",
            olga,
            false,
            S::Quotas,
            limited(Some(quotas(60, 1001))),
        ),
        row(
            "quotas: no minute",
            olga,
            false,
            S::Quotas,
            limited(only(day())),
        ),
        row(
            "quotas: no hour",
            olga,
            false,
            S::Quotas,
            limited(only(second())),
        ),
        row("owner: the tenant itself", olga, true, None, |new| {
            new.owner = acme();
        }),
        row(
            "owner: a user of the tenant",
            olga,
            true,
            None,
            owned("ann"),
        ),
        row(
            "owner: a user of the tenant in upper case, where ids are compared byte by byte",
            olga,
            false,
            S::Owner,
            owned("550E8400-E29B-41D4-A716-446655440000"),
        ),
        row("owner: unknown", olga, false, S::Owner, owned("nobody")),
        row(
            "owner: a user of another tenant",
            olga,
            false,
            S::Owner,
            owned("gil"),
        ),
        row("lifetime: within the longest", olga, true, None, |new| {
            new.expires_at = Some(Desk::new().now() + DAY);
        }),
        row(
            "lifetime: beyond the longest",
            olga,
            false,
            S::Lifetime,
            |new| {
                new.expires_at = Some(Desk::new().now() + DAY + HOUR);
            },
        ),
        row("lifetime: never", olga, false, S::Lifetime, |new| {
            new.expires_at = None;
        }),
        row("addresses: any", olga, true, None, |new| {
            new.allowed_ips = Some(AllowList::parse(["0.0.0.0/0"]).unwrap());
        }),
        row("metadata: any", olga, true, None, |new| {
            new.metadata = Metadata::from_json(r#"{"a":1}"#).unwrap();
        }),
    ]
}

/// The table with one restriction lifted.
#[derive(Debug)]
struct Lifted(Option<Setting>);

impl OperatorPolicy for Lifted {
    fn allows(&self, by: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied> {
        ByRole::new().allows(by, action, key)
    }
    fn lists(&self, by: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
        ByRole::new().lists(by, query)
    }
    fn may_exceed(&self, _: &Operator, setting: Setting) -> bool {
        Some(setting) == self.0
    }
}

fn manager(desk: &Desk, lifted: Option<Setting>) -> KeyManager {
    let rules = rules(|rules| {
        rules.delegation = Delegation::Only(vec![scope("document:*")]);
        rules.longest_lifetime = Some(DAY);
    });
    let builder = desk.builder().rules(rules).policy(Arc::new(Lifted(lifted)));
    let plans = ["free", "standard", "enterprise"];
    let limits = plans.into_iter().fold(Limits::default(), |limits, name| {
        limits.plan(Plan::new(name, []))
    });
    builder.limits(limits).manager()
}

/// The change that makes an existing key equal to a new one.
fn as_change(new: &NewKey) -> KeyChange {
    change(|change| {
        change.scopes = Some(new.scopes.clone());
        change.access = Some(new.access);
        change.workspaces = Some(new.workspaces.clone());
        change.delegation.clone_from(&new.delegation);
        change.plan = new.plan.clone().map(Some);
        change.quotas = Some(new.quotas.clone());
        change.allowed_ips = Some(new.allowed_ips.clone());
        change.metadata = Some(new.metadata.clone());
        change.expires_at = Some(new.expires_at);
    })
}

fn code<T>(done: Result<T, ManageError>) -> Option<ErrorCode> {
    done.err().map(|error| error.code())
}

/// Returns the member of the management API that a row is about.
fn member(what: &str) -> &str {
    match what.split(':').next().unwrap() {
        "tenant" => "owner.tenant_id",
        "quotas" => "rate_limit_config",
        "owner" => "owner.user_id",
        "lifetime" => "expires_at",
        same => same,
    }
}

fn imported(new: NewKey) -> NewImport {
    NewImport::new(ImportedDigest::new("sha256", &[9; 32]).unwrap(), new)
}

#[tokio::test]
async fn an_operator_may_set_what_the_table_allows_and_the_host_may_set_anything() {
    for Row {
        what,
        by,
        set,
        allowed,
        setting,
    } in table()
    {
        let desk = Desk::new();
        let mut new = plain();
        new.expires_at = Some(desk.now() + HOUR);
        set(&mut new);
        let expected = (!allowed).then_some(ErrorCode::Forbidden);
        let strict = manager(&desk, None);
        let limited = strict.by(by());
        let issued = limited.issue(new.clone()).await;
        if let Err(ManageError::Forbidden(Denied { field, .. })) = &issued {
            assert_eq!(*field, Some(member(what)), "{what}");
        }
        assert_eq!(code(issued), expected, "{what}");
        let import = limited.import(imported(new.clone())).await;
        assert_eq!(code(import), expected, "{what}: import");
        let mut before = plain();
        before.expires_at = Some(desk.now() + HOUR);
        // An owner never changes.
        if new.owner == before.owner {
            let (_, key) = issue(&limited, before).await;
            let changed = limited.update(&key.id, as_change(&new), None).await;
            assert_eq!(code(changed), expected, "{what}: change");
        }
        for other in [
            Setting::Scopes,
            Setting::Access,
            Setting::Delegation,
            Setting::Plan,
            Setting::Quotas,
            Setting::Owner,
            Setting::Lifetime,
        ] {
            let lifted = manager(&desk, Some(other)).by(by());
            let expected = expected.filter(|_| setting != Some(other));
            assert_eq!(
                code(lifted.issue(new.clone()).await),
                expected,
                "{what}: {other:?}"
            );
        }
        for host in [strict.clone(), strict.by(Operator::host())] {
            assert_eq!(
                code(host.issue(new.clone()).await),
                None,
                "{what}: the host"
            );
        }
    }
}

#[tokio::test]
async fn existing_values_of_a_key_may_stay_or_be_reduced() {
    let desk = Desk::new();
    let host = manager(&desk, None);
    let mut wide = named("key").with_scopes([scope("*")]);
    (wide.plan, wide.quotas) = (Some(plan("enterprise")), Some(quotas(500, 500)));
    wide.delegation = Some(Delegation::On);
    let (_, key) = issue(&host, wide.clone()).await;
    let limited = host.by(kim());
    for narrower in [
        change(|change| change.name = Some("renamed".into())),
        as_change(&wide),
        change(|change| change.quotas = Some(Some(quotas(400, 1000)))),
        change(|change| change.delegation = Some(Delegation::Only(vec![scope("a")]))),
        change(|change| change.expires_at = Some(Some(desk.now() + 30 * DAY))),
        change(|change| change.expires_at = Some(Some(desk.now() + 2 * DAY))),
    ] {
        assert_eq!(
            code(limited.update(&key.id, narrower.clone(), None).await),
            None,
            "{narrower:?}"
        );
    }
    for wider in [
        change(|change| change.quotas = Some(Some(quotas(401, 1000)))),
        change(|change| change.delegation = Some(Delegation::On)),
        change(|change| change.expires_at = Some(Some(desk.now() + 3 * DAY))),
        change(|change| change.expires_at = Some(None)),
        change(|change| change.plan = Some(Some(plan("free")))),
    ] {
        let refusal = limited.update(&key.id, wider.clone(), None).await;
        assert_eq!(code(refusal), Some(ErrorCode::Forbidden), "{wider:?}");
    }
    // Removing a value restores the default's and the tenant's.
    let restored = change(|change| (change.plan, change.quotas) = (Some(None), Some(None)));
    let restored = limited.update(&key.id, restored, None).await.unwrap();
    assert_eq!(
        (&restored.record.plan, &restored.record.quotas),
        (&None, &None)
    );
    assert_eq!(restored.plan, Some(plan("standard")));
    assert_eq!(restored.quotas, Some(Quotas::default()));
    // An operator who rotates a key holds the secret of its successor, whose lifetime is limited
    // accordingly.
    assert_eq!(
        refused(limited.rotate(&key.id, None).await),
        ErrorCode::Forbidden
    );
    let (_, endless) = issue(&host, plain()).await;
    let rotated = limited.rotate(&endless.id, None).await.unwrap();
    assert_eq!(rotated.record.expires_at, Some(desk.now() + DAY));
}

#[tokio::test]
async fn unknown_users_and_those_of_other_tenants_are_refused_identically() {
    let desk = Desk::new();
    let with = desk.host().by(olga());
    let without = desk.without_people().manager().by(olga());
    let owned = |id: &str| NewKey::new("key", Owner::user(tenant("acme"), user(id)));
    let mut texts = Vec::new();
    for (manager, id) in [
        (&with, "nobody"),
        (&with, "gil"),
        (&without, "nobody"),
        (&without, "ann"),
    ] {
        for kind in [KeyKind::App, KeyKind::User] {
            let mut new = owned(id);
            new.kind = kind;
            texts.push(manager.issue(new.clone()).await.unwrap_err().to_string());
            let import = manager.import(imported(new)).await;
            texts.push(import.unwrap_err().to_string());
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let down = with.issue(owned("broken")).await;
    assert_eq!(refused(down), ErrorCode::DirectoryUnavailable);
    assert!(desk.all().await.is_empty());
    with.issue(owned("ann")).await.unwrap();
}

#[tokio::test]
async fn a_tenant_without_a_plan_can_be_given_none() {
    let desk = Desk::new();
    let host = manager(&desk, None);
    let mut new = NewKey::new("key", globex());
    new.expires_at = Some(desk.now() + HOUR);
    let eve = host.by(operator("eve", "globex", Role::Owner));
    let (_, key) = issue(&eve, new.clone()).await;
    assert_eq!(key.plan, None);
    new.plan = Some(plan("standard"));
    assert_eq!(refused(eve.issue(new).await), ErrorCode::Forbidden);
    // A key follows its tenant's plan, also if the host or an operator names that plan.
    let (_, key) = issue(&host, named("key")).await;
    let shown = host.get(&key.id).await.unwrap();
    assert_eq!((&key.plan, shown.plan), (&None, Some(plan("standard"))));
    let mut named = named("key");
    named.plan = Some(plan("standard"));
    named.expires_at = Some(desk.now() + HOUR);
    let (_, key) = issue(&host.by(olga()), named.clone()).await;
    assert_eq!(key.plan, None, "an operator cannot pin the tenant's plan");
    let (_, key) = issue(&host, named).await;
    assert_eq!(key.plan, Some(plan("standard")), "the host can");
}

/// A model in which `all` grants `read` and `write`.
#[derive(Debug)]
struct AllIsReadAndWrite;

impl ScopeModel for AllIsReadAndWrite {
    fn compile(&self, names: &[Scope]) -> Result<Arc<dyn ScopeSet>, portunus::error::ParseError> {
        let all = names.contains(&scope("all"));
        let more = all.then(|| [scope("read"), scope("write")]);
        let names: Vec<_> = names
            .iter()
            .cloned()
            .chain(more.into_iter().flatten())
            .collect();
        WildcardModel.compile(&names)
    }
}

#[tokio::test]
async fn authority_is_understood_by_the_hosts_own_model() {
    let desk = Desk::new();
    let manager = desk.builder().scope_model(AllIsReadAndWrite).manager();
    let all = manager.by(olga().with_authority([scope("all")]));
    all.issue(named("key").with_scopes([scope("read"), scope("write")]))
        .await
        .unwrap();
    let beyond = named("key").with_scopes([scope("delete")]);
    assert_eq!(refused(all.issue(beyond).await), ErrorCode::Forbidden);
    let read = manager.by(olga().with_authority([scope("read"), scope("write")]));
    let all = named("key").with_scopes([scope("all")]);
    assert_eq!(refused(read.issue(all).await), ErrorCode::Forbidden);
}

#[tokio::test]
async fn an_operator_that_lost_its_authority_still_gets_the_answer_to_a_repeated_request() {
    let desk = Desk::new();
    let host = manager(&desk, None);
    let once = || {
        let mut new = named("key").with_scopes([scope("document:read")]);
        new.expires_at = Some(desk.now() + HOUR);
        new.idempotency = Some(Idempotency::new("olga", "issue", "1", b"{}").unwrap());
        new
    };
    let first = host.by(olga()).issue(once()).await.unwrap();
    let again = host.by(olga().with_authority([])).issue(once()).await;
    assert!(
        matches!(&again, Err(ManageError::DoneBefore(done)) if done.record == first.record),
        "{again:?}"
    );
}

/// A plan that sells little, one that sells much, and one that sells everything.
fn three_plans() -> Limits {
    Limits::default()
        .plan(
            Plan::new("free", [LimitPolicy::per_key([Quota::per_minute(5)])])
                .active_keys(2)
                .longest_lifetime(HOUR),
        )
        .plan(
            Plan::new("standard", [LimitPolicy::per_key([Quota::per_minute(50)])])
                .own_quotas([Quota::per_minute(80), Quota::per_hour(900)])
                .active_keys(4)
                .longest_lifetime(2 * DAY),
        )
        .plan(
            Plan::new("enterprise", [LimitPolicy::unlimited(CountedBy::Key)])
                .any_active_keys()
                .any_lifetime(),
        )
}

#[tokio::test]
async fn a_plan_limits_what_operators_set() {
    let desk = Desk::new();
    let rules = rules(|rules| {
        rules.longest_lifetime = Some(DAY);
        rules.active_keys = Some(3);
    });
    let builder = desk.builder().rules(rules).limits(three_plans());
    let host = builder.manager();
    let acmes = host.by(olga());
    let globexs = host.by(operator("eve", "globex", Role::Owner));
    let new = |of: Owner, lifetime: Option<Duration>| {
        let mut new = NewKey::new("key", of);
        new.expires_at = lifetime.map(|lifetime| desk.now() + lifetime);
        new
    };
    let forbidden = Some(ErrorCode::Forbidden);
    // Own quotas, when a key is issued, imported and changed: acme has the plan `standard`.
    let (_, key) = issue(&acmes, new(acme(), Some(HOUR))).await;
    let minute = Quotas::new([Quota::per_minute(80).unwrap()]).unwrap();
    for (own, expected) in [
        (quotas(80, 900), None),
        (quotas(81, 900), forbidden),
        (quotas(80, 901), forbidden),
        (minute, forbidden),
    ] {
        let change = change(|change| change.quotas = Some(Some(own.clone())));
        assert_eq!(
            code(acmes.update(&key.id, change, None).await),
            expected,
            "{own}"
        );
        let with_own = new(acme(), Some(HOUR)).with_quotas(own.clone());
        let issued = acmes.issue(with_own.clone()).await;
        if let Ok(issued) = &issued {
            host.revoke(&issued.record.id, None).await.unwrap();
        }
        assert_eq!(code(issued), expected, "{own}");
        let added = acmes.import(imported(with_own)).await;
        if let Ok(added) = &added {
            host.revoke(&added.record.id, None).await.unwrap();
        }
        assert_eq!(code(added), expected, "{own}: import");
    }
    // Lifetimes: the plan's, whether it is longer or shorter than that of the rules.
    for (by, of, longest) in [(&acmes, acme(), 2 * DAY), (&globexs, globex(), DAY)] {
        for (lifetime, expected) in [
            (Some(longest), None),
            (Some(longest + Duration::from_secs(1)), forbidden),
            (None, forbidden),
        ] {
            let issued = by.issue(new(of.clone(), lifetime)).await;
            if let Ok(issued) = &issued {
                host.revoke(&issued.record.id, None).await.unwrap();
            }
            assert_eq!(code(issued), expected, "{of:?} {lifetime:?}");
        }
    }
    let (_, endless) = issue(&host, new(acme(), None)).await;
    let rotated = acmes.rotate(&endless.id, None).await.unwrap();
    assert_eq!(rotated.record.expires_at, Some(desk.now() + 2 * DAY));
    // Active keys: two so far, and four by the plan. Globex has no plan: three by the rules.
    for (by, of, left) in [(&acmes, acme(), 2), (&globexs, globex(), 3)] {
        for _ in 0..left {
            issue(by, new(of.clone(), Some(HOUR))).await;
        }
        let over = by.issue(new(of.clone(), Some(HOUR))).await;
        assert_eq!(code(over), Some(ErrorCode::QuotaExceeded), "{of:?}");
        assert_eq!(
            code(host.issue(new(of, Some(HOUR))).await),
            Some(ErrorCode::QuotaExceeded),
            "also for the host"
        );
    }
    // A key's own plan counts only where its tenant has none.
    let mut large = new(globex(), Some(HOUR));
    large.plan = Some(plan("enterprise"));
    issue(&host, large).await;
    let mut small = new(acme(), Some(HOUR));
    small.plan = Some(plan("enterprise"));
    assert_eq!(
        code(host.issue(small).await),
        Some(ErrorCode::QuotaExceeded)
    );
    // The host's own number for a tenant comes first.
    let raised = desk
        .builder()
        .limits(three_plans())
        .active_keys_of(|_| Some(5))
        .manager();
    issue(&raised, new(acme(), Some(HOUR))).await;
}

#[tokio::test]
async fn a_plan_that_is_not_known_stops_no_restriction_of_a_key() {
    let desk = Desk::new();
    let before = desk.host();
    let mut named = named("key").with_scopes([scope("a"), scope("b")]);
    named.plan = Some(plan("withdrawn"));
    let (_, key) = issue(&before, named).await;
    let host = desk.builder().limits(three_plans()).manager();
    let shown = host.get(&key.id).await.unwrap();
    assert_eq!((shown.plan, shown.quotas), (Some(plan("withdrawn")), None));
    assert_eq!(
        host.list(ListQuery::new(desk.now()))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let narrower = change(|change| change.scopes = Some(vec![scope("a")]));
    host.update(&key.id, narrower, None).await.unwrap();
    host.disable(&key.id).await.unwrap();
    let to_none = change(|change| change.plan = Some(Some(plan("nowhere"))));
    assert_eq!(
        refused(host.update(&key.id, to_none, None).await),
        ErrorCode::InvalidBody
    );
    let rotated = host.rotate(&key.id, None).await.unwrap();
    assert_eq!(rotated.record.plan, Some(plan("withdrawn")));
    let known = change(|change| change.plan = Some(None));
    let known = host.update(&rotated.record.id, known, None).await.unwrap();
    assert_eq!(known.plan, Some(plan("standard")));
    host.revoke(&rotated.record.id, None).await.unwrap();
}

#[tokio::test]
async fn a_plan_that_is_not_known_lets_no_key_live_longer() {
    let desk = Desk::new();
    let mut named = named("key");
    named.plan = Some(plan("withdrawn"));
    named.expires_at = Some(desk.now() + HOUR);
    let (_, key) = issue(&desk.host(), named).await;
    let rules = rules(|rules| rules.longest_lifetime = Some(DAY));
    let builder = || desk.builder().rules(rules.clone()).limits(three_plans());
    let acmes = builder().manager().by(olga());
    let to = |end: Option<Duration>| {
        let end = end.map(|end| desk.now() + end);
        change(|change| change.expires_at = Some(end))
    };
    for longer in [Some(2 * HOUR), Some(400 * DAY), None] {
        let error = refused(acmes.update(&key.id, to(longer), None).await);
        assert_eq!(
            error,
            ErrorCode::InvalidBody,
            "{longer:?}: its plan is unknown"
        );
    }
    let sooner = acmes.update(&key.id, to(Some(HOUR / 2)), None).await;
    let end = sooner.unwrap().record.expires_at;
    assert_eq!(end, Some(desk.now() + HOUR / 2));
}

/// A directory that does not answer.
#[derive(Debug)]
struct Down;

#[async_trait]
impl Directory for Down {
    async fn resolve(
        &self,
        _: &TenantId,
        _: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        Err(DirectoryError::unavailable("connection refused"))
    }

    async fn plan(&self, _: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        Err(DirectoryError::unavailable("connection refused"))
    }
}

#[tokio::test]
async fn a_key_is_found_restricted_and_revoked_while_the_directory_is_down() {
    let desk = Desk::new();
    let (_, key) = issue(&desk.host(), named("key").with_scopes([scope("a")])).await;
    let (_, other) = issue(&desk.host(), named("other")).await;
    let builder = desk.without_people().directory(Down);
    let host = builder.limits(three_plans()).manager();
    for manager in [host.clone(), host.by(olga())] {
        let shown = manager.get(&key.id).await.unwrap();
        assert_eq!(
            (shown.plan, shown.quotas, shown.policies),
            (None, None, vec![])
        );
        let listed = manager.list(ListQuery::new(desk.now())).await.unwrap();
        assert_eq!(listed.items.len(), 2);
        manager.get_for(Action::KeyRevoke, &key.id).await.unwrap();
    }
    let narrower = change(|change| change.scopes = Some(vec![]));
    host.update(&key.id, narrower, None).await.unwrap();
    host.disable(&key.id).await.unwrap();
    host.revoke(&key.id, None).await.unwrap();
    host.by(olga()).revoke(&other.id, None).await.unwrap();
}

/// A plan of the tenant that sets no number of keys leaves it to the rules, and a key's own plan
/// does not change it.
#[tokio::test]
async fn the_number_of_active_keys_is_that_of_the_tenants_plan() {
    let desk = Desk::new();
    let limits = Limits::default()
        .plan(Plan::new("standard", []))
        .plan(Plan::new("enterprise", []).any_active_keys());
    let rules = rules(|rules| rules.active_keys = Some(2));
    let host = desk.builder().rules(rules).limits(limits).manager();
    let large = |of: Owner| {
        let mut new = NewKey::new("key", of);
        new.plan = Some(plan("enterprise"));
        new
    };
    for _ in 0..2 {
        issue(&host, large(acme())).await;
    }
    let third = host.issue(large(acme())).await;
    assert_eq!(code(third), Some(ErrorCode::QuotaExceeded));
    // Globex has no plan: that of the key decides.
    for _ in 0..3 {
        issue(&host, large(globex())).await;
    }
}
