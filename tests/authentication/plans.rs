//! Limits as callers see them: policies, classes and plans, and the plans of tenants at run time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use portunus::actor::{CachedDirectory, Directory, DirectoryError, User, UserRef};
use portunus::config::{Actors, BuildError};
use portunus::error::ParseError;
use portunus::key::{Owner, PlanName, TenantId};
use portunus::limit::{
    CountedBy, Decision, LimitPolicy, LimitReport, LimitRequest, LimiterError, LocalLimiter,
    OnOutage, Plan, RateLimiter,
};
use portunus::manage::NewKey;
use portunus::policy::PlanOrder;
use portunus::quota::{Quota, Quotas};
use portunus::store::{Cache, Invalidation, InvalidationBus, LocalBus};
use portunus::{AuthError, Authenticator, ErrorCode, Limits, Portunus, Principal};
use portunus_test_support::{Fixture, Head, Setup, tenant, user};

type Result<T> = std::result::Result<T, ParseError>;

fn per_minute(limit: u64) -> [Result<Quota>; 1] {
    [Quota::per_minute(limit)]
}

/// The plans of tenants, and how often they were asked for.
#[derive(Debug, Clone, Default)]
struct Billing {
    plans: Arc<Mutex<HashMap<String, &'static str>>>,
    down: Arc<Mutex<bool>>,
    asked: Arc<AtomicU64>,
    /// How often users were asked for.
    users: Arc<AtomicU64>,
}

impl Billing {
    fn of(plans: &[(&str, &'static str)]) -> Self {
        let billing = Self::default();
        plans
            .iter()
            .for_each(|(tenant, plan)| billing.set(tenant, plan));
        billing
    }

    fn set(&self, tenant: &str, plan: &'static str) {
        self.plans.lock().unwrap().insert(tenant.to_owned(), plan);
    }

    fn go_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }
}

#[async_trait]
impl Directory for Billing {
    async fn resolve(
        &self,
        of: &TenantId,
        named: &UserRef,
    ) -> std::result::Result<Option<Arc<User>>, DirectoryError> {
        self.users.fetch_add(1, Ordering::SeqCst);
        let UserRef::Id(id) = named else {
            return Ok(None);
        };
        Ok(Some(Arc::new(User::new(id.clone(), of.clone()))))
    }

    async fn plan(
        &self,
        tenant: &TenantId,
    ) -> std::result::Result<Option<PlanName>, DirectoryError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if *self.down.lock().unwrap() {
            return Err(DirectoryError::unavailable("connection reset"));
        }
        let plan = self.plans.lock().unwrap().get(tenant.as_str()).copied();
        Ok(plan.map(|name| PlanName::new(name).unwrap()))
    }
}

/// Three plans: of a key, of all keys of a tenant, and none.
fn three_plans() -> Limits {
    Limits::per_key(per_minute(5))
        .plan(Plan::new("free", [LimitPolicy::per_key(per_minute(2))]))
        .plan(Plan::new("team", [LimitPolicy::per_tenant(per_minute(8))]))
        .plan(Plan::new(
            "enterprise",
            [LimitPolicy::unlimited(CountedBy::Key)],
        ))
}

fn counting(fixture: &Fixture, limits: Limits) -> Setup {
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    fixture.bearer().limits(limits.limiter(limiter))
}

async fn ask(
    authenticator: &Authenticator,
    head: &Head,
) -> std::result::Result<LimitReport, AuthError> {
    let passed = authenticator.authenticate(head).await?;
    Ok(passed.limits().expect("counted"))
}

/// Each quota by name with its remaining units.
fn left(report: &LimitReport) -> Vec<(String, u64)> {
    let each = report.quotas();
    each.map(|(quota, window)| (quota.name().to_owned(), window.remaining()))
        .collect()
}

fn names(report: &[(&str, u64)]) -> Vec<(String, u64)> {
    report
        .iter()
        .map(|(name, left)| ((*name).to_owned(), *left))
        .collect()
}

/// How many of this many requests pass.
async fn passed(authenticator: &Authenticator, head: &Head, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        match ask(authenticator, head).await {
            Ok(_) => passed += 1,
            Err(error) => assert_eq!(error.code(), ErrorCode::RateLimited),
        }
    }
    passed
}

async fn code(authenticator: &Authenticator, head: &Head) -> Option<ErrorCode> {
    ask(authenticator, head)
        .await
        .err()
        .map(|error| error.code())
}

#[tokio::test]
async fn the_plan_is_the_keys_or_its_tenants_or_none() {
    let fixture = Fixture::new();
    let billing = Billing::of(&[
        ("small", "free"),
        ("middle", "team"),
        ("large", "enterprise"),
    ]);
    let authenticator = counting(&fixture, three_plans())
        .directory(billing)
        .build()
        .unwrap();
    for (of, own, expected) in [
        ("small", None, vec![("minute", 1)]),
        ("middle", None, vec![("minute", 4), ("tenant-minute", 7)]),
        ("large", None, vec![]),
        ("none", None, vec![("minute", 4)]),
        ("large", Some("free"), vec![("minute", 1)]),
        ("none", Some("enterprise"), vec![]),
    ] {
        let mut new = NewKey::new("key", Owner::tenant(tenant(of)));
        new.plan = own.map(|name| PlanName::new(name).unwrap());
        let (key, _) = fixture.issue_new(new).await;
        let report = ask(&authenticator, &Head::bearer(&key)).await.unwrap();
        assert_eq!(left(&report), names(&expected), "{of} {own:?}");
        if expected.is_empty() {
            assert_eq!(passed(&authenticator, &Head::bearer(&key), 100).await, 100);
            assert_eq!(report.remaining(), None);
        }
    }
}

#[tokio::test]
async fn a_keys_own_quotas_replace_the_limit_per_key_of_any_plan() {
    let fixture = Fixture::new();
    let billing = Billing::of(&[("middle", "team"), ("large", "enterprise")]);
    let authenticator = counting(&fixture, three_plans())
        .directory(billing.clone())
        .build()
        .unwrap();
    let own = Quotas::new([Quota::per_hour(7).unwrap()]).unwrap();
    for (of, expected) in [
        // Within what the plan allows a key, 5 a minute.
        (
            "middle",
            vec![("minute", 4), ("hour", 6), ("tenant-minute", 7)],
        ),
        ("large", vec![("hour", 6)]),
        ("none", vec![("hour", 6)]),
    ] {
        let new = NewKey::new("key", Owner::tenant(tenant(of))).with_quotas(own.clone());
        let (key, _) = fixture.issue_new(new).await;
        let report = ask(&authenticator, &Head::bearer(&key)).await.unwrap();
        assert_eq!(left(&report), names(&expected), "{of}");
    }
}

#[tokio::test]
async fn own_quotas_shrink_with_the_plan_unless_they_stay() {
    let fixture = Fixture::new();
    let billing = Billing::of(&[("acme", "large"), ("other", "large")]);
    let large = || LimitPolicy::per_key(per_minute(1000));
    let limits = Limits::per_key(per_minute(60))
        .plan(Plan::new("large", [large()]))
        .plan(Plan::new("small", [LimitPolicy::per_key(per_minute(2))]))
        .plan(Plan::new("room", [LimitPolicy::per_key(per_minute(2))]).own_quotas(per_minute(3)))
        .plan(Plan::new("kept", [LimitPolicy::per_key(per_minute(2))]).own_quotas_stay());
    let keys = counting(&fixture, limits)
        .directory(billing.clone())
        .plan_bound(Duration::ZERO)
        .keys();
    let own = Quotas::new([Quota::per_minute(100).unwrap(), Quota::per_hour(7).unwrap()]).unwrap();
    let (key, _) = fixture
        .issue_new(NewKey::new("key", Owner::tenant(tenant("acme"))).with_quotas(own))
        .await;
    let key = Head::bearer(&key);
    for (plan, expected) in [("large", 7), ("small", 2), ("room", 3), ("kept", 7)] {
        billing.set("acme", plan);
        keys.tenant_changed(&tenant("acme")).await.unwrap();
        fixture.clock.advance(Duration::from_secs(4000));
        let passed = passed(keys.authenticator(), &key, 50).await;
        assert_eq!(passed, expected, "{plan}");
    }
}

/// A key with as many quotas of its own as a key may have, all wider than the plan's, gets the
/// plan's.
#[tokio::test]
async fn many_own_quotas_do_not_crowd_out_those_of_the_plan() {
    let fixture = Fixture::new();
    let limits = Limits::per_key(per_minute(60)).plan(Plan::new(
        "small",
        [LimitPolicy::per_key([
            Quota::per_minute(3),
            Quota::per_hour(5),
        ])],
    ));
    let billing = Billing::of(&[("acme", "small")]);
    let authenticator = counting(&fixture, limits)
        .directory(billing)
        .build()
        .unwrap();
    let mut own = Quotas::new([Quota::per_minute(1).unwrap()]).unwrap();
    let mut most = Vec::new();
    for seconds in 1..100 {
        let name = format!("q{seconds}");
        most.push(Quota::new(&name, 1000, Duration::from_secs(seconds)).unwrap());
        match Quotas::new(most.clone()) {
            Ok(quotas) => own = quotas,
            Err(_) => break,
        }
    }
    assert!(own.as_slice().len() > 2);
    let new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_quotas(own);
    let (key, _) = fixture.issue_new(new).await;
    let key = Head::bearer(&key);
    assert_eq!(passed(&authenticator, &key, 9).await, 3);
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(passed(&authenticator, &key, 9).await, 2);
}

#[tokio::test]
async fn classes_whose_quotas_are_named_alike_count_apart() {
    let fixture = Fixture::new();
    let day = |most| [Quota::new("day", most, Duration::from_secs(86_400))];
    let limits = Limits::per_key(per_minute(1000))
        .class("a", [LimitPolicy::per_key(day(2))])
        .on("/a")
        .class("b", [LimitPolicy::per_tenant(day(2))])
        .on("/b");
    let authenticator = counting(&fixture, limits).build().unwrap();
    let (first, _) = fixture.issue(&[]).await;
    let (second, _) = fixture.issue(&[]).await;
    let ask = |key: &str, path: &str| Head::bearer(key).at(path);
    assert_eq!(passed(&authenticator, &ask(&first, "/b"), 5).await, 2);
    assert_eq!(passed(&authenticator, &ask(&second, "/b"), 5).await, 0);
    assert_eq!(passed(&authenticator, &ask(&first, "/a"), 5).await, 2);
    assert_eq!(passed(&authenticator, &ask(&second, "/a"), 5).await, 2);
}

#[tokio::test]
async fn a_route_of_a_class_matches_every_spelling_that_a_router_accepts() {
    let fixture = Fixture::new();
    for (route, path, is_of_class) in [
        ("/files/{*rest}", "/files/a", true),
        ("/files/{*rest}", "/files/a/b", true),
        ("/files/{*rest}", "/files//a", true),
        ("/files/{*rest}", "/files/", false),
        ("/files/{*rest}", "/files", false),
        ("/files/*", "/files/a/", true),
        ("/files/{id}", "/files/a", true),
        ("/files/{id}", "/files/a/", false),
        ("/files/{id}", "/files/", false),
        ("/files/{id}/pages", "/files/a/pages", true),
        ("/files/{id}/pages", "/files/a/pages/", false),
        ("/files/{id}/pages", "/files//pages", false),
        ("/files/:id/pages", "/files/a/pages", true),
        ("/files", "/files", true),
        ("/files", "/files/", false),
        ("/", "/", true),
    ] {
        let limits = Limits::per_key(per_minute(1000))
            .class("a", [LimitPolicy::per_key(per_minute(1))])
            .on(route);
        let authenticator = counting(&fixture, limits).build().unwrap();
        let (key, _) = fixture.issue(&[]).await;
        let expected = if is_of_class { 1 } else { 3 };
        let head = Head::bearer(&key).at(path);
        let passed = passed(&authenticator, &head, 3).await;
        assert_eq!(passed, expected, "{route} {path}");
    }
}

#[tokio::test]
async fn a_plan_that_is_not_declared_is_an_outage_and_never_without_limits() {
    let fixture = Fixture::new();
    let billing = Billing::of(&[("acme", "gold")]);
    for mode in [OnOutage::Local, OnOutage::Closed, OnOutage::Open] {
        let limits = three_plans().on_outage(mode);
        let authenticator = counting(&fixture, limits)
            .directory(billing.clone())
            .build()
            .unwrap();
        let (of_tenant, _) = fixture.issue(&[]).await;
        let mut new = NewKey::new("key", Owner::tenant(tenant("none")));
        new.plan = Some(PlanName::new("silver").unwrap());
        let (own, _) = fixture.issue_new(new).await;
        for key in [of_tenant, own] {
            let error = ask(&authenticator, &Head::bearer(&key)).await.unwrap_err();
            assert_eq!(
                (error.code(), error.status()),
                (ErrorCode::LimiterUnavailable, 503)
            );
            assert!(error.retry_after().is_some());
        }
    }
    // Where no plan is declared, a plan is only a name.
    let authenticator = counting(&fixture, Limits::per_key(per_minute(5)))
        .build()
        .unwrap();
    let mut new = NewKey::new("key", Owner::tenant(tenant("none")));
    new.plan = Some(PlanName::new("silver").unwrap());
    let (key, _) = fixture.issue_new(new).await;
    assert_eq!(passed(&authenticator, &Head::bearer(&key), 9).await, 5);
}

#[tokio::test]
async fn while_the_directory_is_down_the_last_known_plan_applies_up_to_its_bound() {
    let fixture = Fixture::new();
    let billing = Billing::of(&[("acme", "enterprise")]);
    let authenticator = counting(&fixture, three_plans())
        .directory(billing.clone())
        .build()
        .unwrap();
    let (key, _) = fixture.issue(&[]).await;
    let (stranger, _) = fixture
        .issue_new(NewKey::new("key", Owner::tenant(tenant("unseen"))))
        .await;
    let key = Head::bearer(&key);
    assert_eq!(code(&authenticator, &key).await, None);
    billing.go_down(true);
    for _ in 0..29 {
        fixture.clock.advance(Duration::from_secs(1));
        assert_eq!(code(&authenticator, &key).await, None);
    }
    assert_eq!(
        billing.asked.load(Ordering::SeqCst),
        1,
        "it is asked once in 30 seconds"
    );
    assert_eq!(
        code(&authenticator, &Head::bearer(&stranger)).await,
        Some(ErrorCode::DirectoryUnavailable),
        "nothing is known of this tenant"
    );
    fixture.clock.advance(Duration::from_secs(1));
    let error = ask(&authenticator, &key).await.unwrap_err();
    assert_eq!(
        (error.code(), error.status()),
        (ErrorCode::DirectoryUnavailable, 503)
    );
    billing.go_down(false);
    billing.set("acme", "free");
    assert_eq!(
        code(&authenticator, &key).await,
        Some(ErrorCode::DirectoryUnavailable),
        "a failure is kept for a second"
    );
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(
        passed(&authenticator, &key, 5).await,
        2,
        "as soon as it answers"
    );
    // A bound of the host's, which is limited.
    let authenticator = counting(&fixture, three_plans())
        .directory(billing.clone())
        .plan_bound(Duration::from_secs(5))
        .build()
        .unwrap();
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(code(&authenticator, &key).await, None);
    billing.go_down(true);
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!(
        code(&authenticator, &key).await,
        Some(ErrorCode::DirectoryUnavailable)
    );
}

#[tokio::test]
async fn a_change_of_plan_keeps_what_was_counted() {
    let fixture = Fixture::new();
    let billing = Billing::of(&[("acme", "free")]);
    let limits = || {
        Limits::per_key([Quota::per_minute(5), Quota::per_hour(20)])
            .class("reports", [LimitPolicy::per_tenant(per_minute(4))])
            .on("/reports")
            .plan(Plan::new("free", [LimitPolicy::per_key(per_minute(2))]))
            .plan(Plan::new("team", [LimitPolicy::per_tenant(per_minute(8))]))
    };
    let keys = counting(&fixture, limits())
        .directory(billing.clone())
        .keys();
    let authenticator = keys.authenticator();
    let (key, _) = fixture.issue(&[]).await;
    let key = Head::bearer(&key);
    assert_eq!(
        passed(authenticator, &key.clone().at("/reports"), 5).await,
        2
    );
    billing.set("acme", "team");
    assert_eq!(passed(authenticator, &key, 1).await, 0, "not known yet");
    keys.tenant_changed(&tenant("acme")).await.unwrap();
    let report = ask(authenticator, &key.clone().at("/reports"))
        .await
        .unwrap();
    let expected = [
        ("minute", 2),
        ("hour", 17),
        ("tenant-minute", 7),
        ("reports-tenant-minute", 1),
    ];
    assert_eq!(left(&report), names(&expected));
    billing.set("acme", "free");
    keys.tenant_changed(&tenant("acme")).await.unwrap();
    assert_eq!(
        passed(authenticator, &key, 5).await,
        0,
        "three were admitted in this minute"
    );
}

/// Two nodes on one store and one bus.
async fn two_nodes(billing: &Billing) -> ([Portunus; 2], Fixture) {
    let (fixture, bus) = (Fixture::new(), LocalBus::new());
    let node = || {
        let directory = CachedDirectory::new(billing.clone(), 100, Duration::from_secs(60))
            .with_clock(fixture.clock.clone());
        Portunus::builder(portunus_test_support::format())
            .store(fixture.store.clone())
            .cache(Cache::new().bus(bus.clone()))
            .limits(three_plans())
            .actors(Actors::new().directory(directory))
            .clock(fixture.clock.clone())
            .build()
            .unwrap()
    };
    ([node(), node()], fixture)
}

#[tokio::test]
async fn a_change_of_a_tenant_is_seen_at_once_here_and_through_the_bus() {
    let billing = Billing::of(&[("acme", "free"), ("globex", "free")]);
    let (nodes, fixture) = two_nodes(&billing).await;
    let (key, _) = fixture
        .issue_new(
            NewKey::new("key", Owner::tenant(tenant("acme")))
                .with_delegation(portunus::key::Delegation::On),
        )
        .await;
    let (other, _) = fixture
        .issue_new(NewKey::new("key", Owner::tenant(tenant("globex"))))
        .await;
    let acting = Head::bearer(&key).with("x-user-id", "ann");
    for node in &nodes {
        let report = ask(node.authenticator(), &acting).await.unwrap();
        assert_eq!(left(&report), names(&[("minute", 1)]));
        ask(node.authenticator(), &Head::bearer(&other))
            .await
            .unwrap();
    }
    billing.set("acme", "enterprise");
    let asked = || {
        (
            billing.asked.load(Ordering::SeqCst),
            billing.users.load(Ordering::SeqCst),
        )
    };
    let before = asked();
    nodes[0].tenant_changed(&tenant("acme")).await.unwrap();
    for node in &nodes {
        let report = ask(node.authenticator(), &acting).await.unwrap();
        assert_eq!(left(&report), names(&[]), "the new plan has no limit");
        ask(node.authenticator(), &Head::bearer(&other))
            .await
            .unwrap();
    }
    let after = asked();
    assert_eq!(
        after.0 - before.0,
        2,
        "the plan of the changed tenant only, once on each node"
    );
    assert_eq!(after.1 - before.1, 2, "and its users");
}

#[tokio::test]
async fn after_lost_messages_the_directorys_own_answers_are_dropped_too() {
    let billing = Billing::of(&[("acme", "free")]);
    let (fixture, bus) = (Fixture::new(), LocalBus::new());
    let directory = CachedDirectory::new(billing.clone(), 100, Duration::from_secs(60))
        .with_clock(fixture.clock.clone());
    let keys = Portunus::builder(portunus_test_support::format())
        .store(fixture.store.clone())
        .cache(Cache::new().bus(bus.clone()))
        .limits(Limits::per_key(per_minute(50)))
        .actors(Actors::new().directory(directory))
        .clock(fixture.clock.clone())
        .build()
        .unwrap();
    let (key, _) = fixture
        .issue_new(
            NewKey::new("key", Owner::tenant(tenant("acme")))
                .with_delegation(portunus::key::Delegation::On),
        )
        .await;
    let acting = Head::bearer(&key).with("x-user-id", "ann");
    for _ in 0..3 {
        ask(keys.authenticator(), &acting).await.unwrap();
    }
    assert_eq!(billing.users.load(Ordering::SeqCst), 1);
    bus.publish(&Invalidation::everything()).await.unwrap();
    ask(keys.authenticator(), &acting).await.unwrap();
    assert_eq!(billing.users.load(Ordering::SeqCst), 2);
}

/// A directory whose answers wait until they are let go.
#[derive(Debug, Clone, Default)]
struct Slow {
    billing: Billing,
    gate: Arc<tokio::sync::Notify>,
}

#[async_trait]
impl Directory for Slow {
    async fn resolve(
        &self,
        of: &TenantId,
        named: &UserRef,
    ) -> std::result::Result<Option<Arc<User>>, DirectoryError> {
        self.billing.resolve(of, named).await
    }

    async fn plan(
        &self,
        tenant: &TenantId,
    ) -> std::result::Result<Option<PlanName>, DirectoryError> {
        let answer = self.billing.plan(tenant).await;
        self.gate.notified().await;
        answer
    }
}

#[tokio::test]
async fn requests_of_a_tenant_share_one_question_about_its_plan() {
    let fixture = Fixture::new();
    let slow = Slow {
        billing: Billing::of(&[("acme", "free")]),
        ..Slow::default()
    };
    let keys = counting(&fixture, three_plans())
        .directory(slow.clone())
        .keys();
    let (key, _) = fixture.issue(&[]).await;
    let (key, asked) = (Head::bearer(&key), || {
        slow.billing.asked.load(Ordering::SeqCst)
    });
    let many = || (0..50).map(|_| keys.authenticator().authenticate(&key));
    let settle = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    let all = async |answers: u32| {
        let release = async {
            for _ in 0..answers {
                settle().await;
                slow.gate.notify_one();
            }
        };
        let (admitted, ()) = tokio::join!(futures_util::future::join_all(many()), release);
        let codes = admitted
            .iter()
            .map(|one| one.as_ref().err().map(AuthError::code));
        codes.collect::<Vec<_>>()
    };
    let admitted = all(1).await.iter().filter(|code| code.is_none()).count();
    assert_eq!((admitted, asked()), (2, 1));
    // A failure is shared too, and kept for a second.
    slow.billing.go_down(true);
    keys.tenant_changed(&tenant("acme")).await.unwrap();
    let refused = Some(ErrorCode::DirectoryUnavailable);
    assert_eq!(all(1).await, [refused; 50]);
    assert_eq!(all(0).await, [refused; 50]);
    assert_eq!(asked(), 2);
    // One that gives up lets the next one ask.
    slow.billing.go_down(false);
    fixture.clock.advance(Duration::from_secs(61));
    {
        let first = keys.authenticator().authenticate(&key);
        assert!(futures_util::FutureExt::now_or_never(first).is_none());
    }
    let admitted = all(1).await.iter().filter(|code| code.is_none()).count();
    assert_eq!((admitted, asked()), (2, 4));
    // A change while the answer is awaited: it is not kept.
    keys.tenant_changed(&tenant("acme")).await.unwrap();
    fixture.clock.advance(Duration::from_secs(61));
    let change = async {
        settle().await;
        slow.billing.set("acme", "enterprise");
        keys.tenant_changed(&tenant("acme")).await.unwrap();
        slow.gate.notify_one();
    };
    let (first, ()) = tokio::join!(keys.authenticator().authenticate(&key), change);
    assert_eq!(
        left(&first.unwrap().limits().unwrap()),
        names(&[("minute", 1)])
    );
    slow.gate.notify_one();
    let report = ask(keys.authenticator(), &key).await.unwrap();
    assert_eq!(left(&report), names(&[]));
}

#[tokio::test]
async fn a_route_can_require_the_tenants_plan() {
    let fixture = Fixture::new();
    let billing = Billing::of(&[("acme", "team")]);
    let order = PlanOrder::new(["free", "team", "enterprise"]).unwrap();
    let authenticator = counting(&fixture, three_plans())
        .directory(billing)
        .build()
        .unwrap();
    let (key, _) = fixture.issue(&[]).await;
    let passed = authenticator
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap();
    let principal = passed.into_principal().unwrap();
    assert_eq!(principal.plan().map(PlanName::as_str), Some("team"));
    assert!(principal.require(&order.at_least("team").unwrap()).is_ok());
    let error = principal
        .require(&order.at_least("enterprise").unwrap())
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::PlanRequired);
}

/// Every kind of policy, for all requests and for a class.
fn every_kind() -> Limits {
    Limits::new([
        LimitPolicy::per_key([Quota::per_minute(6), Quota::per_hour(100)]),
        LimitPolicy::per_user(per_minute(9)),
        LimitPolicy::per_tenant(per_minute(12)),
        LimitPolicy::per_address(per_minute(20)),
        LimitPolicy::shared(per_minute(40)),
    ])
    .class(
        "reports",
        [
            LimitPolicy::per_key(per_minute(3)),
            LimitPolicy::per_user(per_minute(30)),
            LimitPolicy::per_tenant(per_minute(30)),
            LimitPolicy::per_address(per_minute(30)),
            LimitPolicy::shared(per_minute(5)),
        ],
    )
    .on("GET /reports/{id}")
}

#[tokio::test]
async fn all_policies_of_a_request_are_checked_together_and_named() {
    let fixture = Fixture::new();
    let authenticator = counting(&fixture, every_kind()).build().unwrap();
    let of = |owner: Owner| fixture.issue_new(NewKey::new("key", owner));
    let of_ann = || of(Owner::user(tenant("acme"), user("ann")));
    let (first, _) = of_ann().await;
    let (second, _) = of_ann().await;
    let (of_tenant, _) = of(Owner::tenant(tenant("acme"))).await;
    let head = |key: &str| Head::bearer(key).from("192.0.2.1");
    let report = ask(&authenticator, &head(&first).at("/reports/7"))
        .await
        .unwrap();
    let expected = [
        ("minute", 5),
        ("hour", 99),
        ("reports-minute", 2),
        ("user-minute", 8),
        ("reports-user-minute", 29),
        ("tenant-minute", 11),
        ("reports-tenant-minute", 29),
        ("address-minute", 19),
        ("reports-address-minute", 29),
        ("shared-minute", 39),
        ("reports-shared-minute", 4),
    ];
    assert_eq!(left(&report), names(&expected));
    let mut fields = Vec::new();
    let responder = authenticator.responder();
    responder.limit_fields(&report, &mut |name, value| fields.push((name, value)));
    assert_eq!(fields[0].0, "ratelimit-policy");
    for (name, _) in expected {
        let named = format!("\"{name}\";");
        assert!(
            fields
                .iter()
                .take(2)
                .all(|(_, value)| value.contains(&named)),
            "{fields:?}"
        );
    }
    // The class of the key refuses, and nothing else changes.
    assert_eq!(
        passed(&authenticator, &head(&first).at("/reports/8"), 2).await,
        2
    );
    for _ in 0..10 {
        let error = ask(&authenticator, &head(&first).at("/reports/9"))
            .await
            .unwrap_err();
        let limits = error.limits().unwrap();
        assert_eq!(limits.violated(), ["reports-minute"]);
        assert_eq!(limits.quota("minute").unwrap().1.remaining(), 3);
        assert_eq!(limits.quota("shared-minute").unwrap().1.remaining(), 37);
        assert!(
            error
                .detail()
                .ends_with("the quota reports-minute is used up"),
            "{error}"
        );
        assert!(error.detail().contains("this API key"), "{error}");
    }
    // The class of all requests, by another key of the same user.
    assert_eq!(
        passed(&authenticator, &head(&second).at("/reports/9"), 9).await,
        2
    );
    let error = ask(&authenticator, &head(&second).at("/reports/9"))
        .await
        .unwrap_err();
    assert_eq!(
        error.limits().unwrap().violated(),
        ["reports-shared-minute"]
    );
    // Then the user (5 of 9 are used), then the tenant (9 of 12), whose own key has no user.
    assert_eq!(passed(&authenticator, &head(&second), 9).await, 4);
    let error = ask(&authenticator, &head(&second)).await.unwrap_err();
    assert_eq!(
        error.limits().unwrap().violated(),
        ["minute", "user-minute"]
    );
    let report = ask(&authenticator, &head(&of_tenant)).await.unwrap();
    assert!(report.quota("user-minute").is_none(), "{report:?}");
    assert_eq!(passed(&authenticator, &head(&of_tenant), 9).await, 2);
    let error = ask(&authenticator, &head(&of_tenant)).await.unwrap_err();
    assert_eq!(error.limits().unwrap().violated(), ["tenant-minute"]);
}

#[tokio::test]
async fn one_customer_cannot_use_up_the_class_of_another() {
    let fixture = Fixture::new();
    let limits = Limits::per_key(per_minute(100))
        .class("reports", [LimitPolicy::per_tenant(per_minute(5))])
        .on("/reports");
    let authenticator = counting(&fixture, limits).build().unwrap();
    let (greedy, _) = fixture.issue(&[]).await;
    let (other, _) = fixture
        .issue_new(NewKey::new("key", Owner::tenant(tenant("globex"))))
        .await;
    assert_eq!(
        passed(&authenticator, &Head::bearer(&greedy).at("/reports"), 50).await,
        5
    );
    assert_eq!(
        passed(&authenticator, &Head::bearer(&other).at("/reports"), 50).await,
        5
    );
    assert_eq!(
        passed(&authenticator, &Head::bearer(&greedy), 50).await,
        50,
        "other routes"
    );
}

#[tokio::test]
async fn addresses_are_counted_alone_by_64_and_unknown_ones_together() {
    let fixture = Fixture::new();
    let limits =
        Limits::new([LimitPolicy::per_address(per_minute(3)).without_address(per_minute(2))]);
    let authenticator = counting(&fixture, limits).build().unwrap();
    let (key, _) = fixture.issue(&[]).await;
    let (other, _) = fixture.issue(&[]).await;
    let from = |key: &str, peer: &str| Head::bearer(key).from(peer);
    for (peer, expected) in [
        ("192.0.2.1", 3),
        ("::ffff:192.0.2.1", 0),
        ("192.0.2.2", 3),
        ("2001:db8:0:1::1", 3),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", 0),
        ("2001:db8:0:2::1", 3),
    ] {
        assert_eq!(
            passed(&authenticator, &from(&key, peer), 9).await,
            expected,
            "{peer}"
        );
        assert_eq!(
            passed(&authenticator, &from(&other, peer), 9).await,
            0,
            "whatever the key"
        );
    }
    let report = ask(&authenticator, &Head::bearer(&key)).await.unwrap();
    assert_eq!(left(&report), names(&[("unknown-address-minute", 1)]));
    assert_eq!(passed(&authenticator, &Head::bearer(&other), 9).await, 1);
}

#[tokio::test]
async fn requests_without_a_key_are_limited_where_a_key_is_optional() {
    let fixture = Fixture::new();
    let limits = Limits::new([
        LimitPolicy::per_key(per_minute(50)),
        LimitPolicy::per_address(per_minute(3)).anonymous(),
        LimitPolicy::per_address([Quota::per_hour(60)]),
        LimitPolicy::shared([Quota::new("pool", 5, Duration::from_secs(60))]).anonymous(),
    ]);
    let authenticator = counting(&fixture, limits).build().unwrap().optional_key();
    let (key, _) = fixture.issue(&[]).await;
    let nobody = |peer: &str| Head::new().from(peer);
    let report = ask(&authenticator, &nobody("192.0.2.1")).await.unwrap();
    let expected = [("address-hour", 59), ("anonymous-minute", 2), ("pool", 4)];
    assert_eq!(left(&report), names(&expected));
    assert_eq!(passed(&authenticator, &nobody("192.0.2.1"), 9).await, 2);
    let error = ask(&authenticator, &nobody("192.0.2.1")).await.unwrap_err();
    assert_eq!(error.limits().unwrap().violated(), ["anonymous-minute"]);
    assert_eq!(
        error.detail(),
        "Too many requests: the quota anonymous-minute is used up"
    );
    assert_eq!(
        passed(&authenticator, &nobody("192.0.2.2"), 9).await,
        2,
        "the pool"
    );
    // A key is not counted with them, but with every request of its address.
    let report = ask(&authenticator, &Head::bearer(&key).from("192.0.2.1"))
        .await
        .unwrap();
    assert_eq!(
        left(&report),
        names(&[("minute", 49), ("address-hour", 56)])
    );
    // A wrong key never passes as anonymous.
    let wrong = Head::bearer(&portunus_test_support::stranger()).from("192.0.2.9");
    assert_eq!(
        code(&authenticator, &wrong).await,
        Some(ErrorCode::InvalidKey)
    );
}

#[tokio::test]
async fn the_first_class_that_matches_counts_and_a_function_may_decide() {
    let fixture = Fixture::new();
    let limits = Limits::new([])
        .class("one", [LimitPolicy::per_key(per_minute(1))])
        .on("/a/{id}")
        .on("POST /posted")
        .class("two", [LimitPolicy::per_key(per_minute(2))])
        .on("/a/b")
        .on("/b/{*rest}")
        .on("/c/:id/d")
        .on_request(|head| head.path().ends_with(".csv"));
    let authenticator = counting(&fixture, limits).build().unwrap();
    let (key, _) = fixture.issue(&[]).await;
    for (path, expected) in [
        ("/a/b", Some("one-minute")),
        ("/a/", None),
        ("/a", None),
        ("/a/b/c", None),
        ("/posted", None), // by GET
        ("/b/c/d", Some("two-minute")),
        ("/b/", None),
        ("/c/7/d", Some("two-minute")),
        ("/c/7/e", None),
        ("/data.csv", Some("two-minute")),
        ("/", None),
    ] {
        fixture.clock.advance(Duration::from_secs(61));
        let report = ask(&authenticator, &Head::bearer(&key).at(path))
            .await
            .unwrap();
        let names: Vec<_> = report.quotas().map(|(quota, _)| quota.name()).collect();
        assert_eq!(names, expected.into_iter().collect::<Vec<_>>(), "{path}");
    }
}

#[tokio::test]
async fn a_charge_counts_in_all_policies_or_none_and_an_overdraft_always() {
    let fixture = Fixture::new();
    let limits = Limits::new([
        LimitPolicy::per_key(per_minute(10)),
        LimitPolicy::per_tenant(per_minute(15)),
    ]);
    let authenticator = counting(&fixture, limits).build().unwrap();
    let (key, _) = fixture.issue(&[]).await;
    let key = Head::bearer(&key);
    let passed = authenticator.authenticate(&key).await.unwrap();
    let principal = passed.into_principal().unwrap();
    let report = principal.charge(6).await.unwrap();
    assert_eq!(left(&report), names(&[("minute", 3), ("tenant-minute", 8)]));
    assert_eq!(
        left(&principal.limits().unwrap()),
        names(&[("minute", 9), ("tenant-minute", 14)])
    );
    let error = principal.charge(4).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RateLimited);
    assert_eq!(error.limits().unwrap().violated(), ["minute"]);
    assert_eq!(
        left(error.limits().unwrap()),
        names(&[("minute", 3), ("tenant-minute", 8)])
    );
    let error = principal.charge(11).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Forbidden, "it can never fit");
    assert_eq!(
        left(&principal.charge(0).await.unwrap())[0].1,
        9,
        "nothing is asked"
    );
    let report = principal.overdraw(40).await.unwrap();
    assert_eq!(left(&report), names(&[("minute", 0), ("tenant-minute", 0)]));
    assert_eq!(
        code(&authenticator, &key).await,
        Some(ErrorCode::RateLimited)
    );
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(
        code(&authenticator, &key).await,
        None,
        "a unit never counts for longer"
    );
}

#[tokio::test]
async fn addresses_without_end_share_a_bucket_and_leave_keys_alone() {
    let fixture = Fixture::new();
    let limiter = LocalLimiter::builder()
        .clock(fixture.clock.clone())
        .most_buckets(100)
        .most_addresses(40)
        .build();
    let limits = Limits::per_key(per_minute(50))
        .policy(LimitPolicy::per_address(per_minute(5)))
        .on_outage(OnOutage::Closed)
        .limiter(limiter.clone());
    let authenticator = fixture
        .bearer()
        .limits(limits)
        .build()
        .unwrap()
        .optional_key();
    let (key, _) = fixture.issue(&[]).await;
    let peer = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Head::new().from(&SocketAddr::from(([10, 0, high, low], 1)).ip().to_string())
    };
    let mut first = 0;
    for number in 0..40 {
        first += passed(&authenticator, &peer(number), 1).await;
    }
    assert_eq!((first, limiter.live_buckets()), (40, 40));
    // Half a minute later, more addresses than there is room for are admitted as often as one.
    fixture.clock.advance(Duration::from_secs(30));
    let mut shared = 0;
    for number in 100..1000 {
        match code(&authenticator, &peer(number)).await {
            None => shared += 1,
            Some(ErrorCode::RateLimited) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((shared, limiter.live_buckets()), (5, 40));
    // A known address has what it had, and a key is refused by the address's policy only.
    assert_eq!(passed(&authenticator, &peer(0), 9).await, 4);
    let elsewhere = Head::bearer(&key).from("192.0.2.1");
    assert_eq!(
        code(&authenticator, &elsewhere).await,
        Some(ErrorCode::RateLimited)
    );
    // The first addresses are idle now and make room, but those that shared a bucket get no second
    // allowance: the bucket is in use until the last unit in it is past.
    fixture.clock.advance(Duration::from_secs(29));
    limiter.sweep();
    let mut again = 0;
    for number in 100..1000 {
        again += passed(&authenticator, &peer(number), 1).await;
    }
    assert_eq!(again, 0);
    fixture.clock.advance(Duration::from_secs(33));
    for number in 100..110 {
        assert_eq!(passed(&authenticator, &peer(number), 9).await, 5);
    }
    assert_eq!(passed(&authenticator, &elsewhere, 9).await, 5);
    fixture.clock.advance(Duration::from_secs(120));
    limiter.sweep();
    assert_eq!(limiter.live_buckets(), 0);
}

/// Addresses get buckets of their own again once there is room, however many others keep coming.
#[tokio::test]
async fn a_flood_of_addresses_does_not_outlast_its_window() {
    let fixture = Fixture::new();
    let limiter = LocalLimiter::builder()
        .clock(fixture.clock.clone())
        .most_addresses(20)
        .build();
    let limits = Limits::per_key(per_minute(50))
        .policy(LimitPolicy::per_address(per_minute(5)).anonymous())
        .limiter(limiter.clone());
    let authenticator = fixture
        .bearer()
        .limits(limits)
        .build()
        .unwrap()
        .optional_key();
    let from = |address: String| Head::new().from(&address);
    for last in 0..200 {
        let _ = code(&authenticator, &from(format!("10.0.0.{last}"))).await;
    }
    // Then one new address every ten seconds.
    for number in 0..7 {
        fixture.clock.advance(Duration::from_secs(10));
        let _ = code(&authenticator, &from(format!("10.0.1.{number}"))).await;
    }
    for last in 0..10 {
        let head = from(format!("10.0.2.{last}"));
        assert_eq!(passed(&authenticator, &head, 9).await, 5, "{last}");
    }
}

/// Addresses that move between buckets of their own and the shared one, at any time, are never
/// admitted more often in a window than their policy allows.
#[tokio::test]
async fn an_address_has_one_allowance_wherever_it_is_counted() {
    let fixture = Fixture::new();
    let limiter = LocalLimiter::builder()
        .clock(fixture.clock.clone())
        .most_addresses(3)
        .build();
    let limits = Limits::per_key(per_minute(50))
        .policy(LimitPolicy::per_address(per_minute(4)).anonymous())
        .limiter(limiter.clone());
    let authenticator = fixture
        .bearer()
        .limits(limits)
        .build()
        .unwrap()
        .optional_key();
    let mut admitted: Vec<Vec<u64>> = vec![Vec::new(); 8];
    let (mut random, mut now) = (7_u64, 0);
    for _ in 0..20_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let step = (random >> 33) % 40;
        // Often within a window, and sometimes beyond it.
        let step = if step == 39 { 70 } else { step / 13 };
        now += step;
        fixture.clock.advance(Duration::from_secs(step));
        let of = usize::try_from((random >> 45) % 8).unwrap();
        if code(&authenticator, &Head::new().from(&format!("10.0.0.{of}")))
            .await
            .is_none()
        {
            admitted[of].push(now);
        }
        if (random >> 50).is_multiple_of(50) {
            limiter.sweep();
        }
    }
    for times in &admitted {
        assert!(times.len() > 100, "{}", times.len());
        for four in times.windows(5) {
            assert!(four[4] - four[0] >= 60, "{four:?}");
        }
    }
}

#[test]
fn eight_threads_under_four_policies_admit_what_each_allows() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let limits = Limits::new([
        LimitPolicy::per_key(per_minute(30)),
        LimitPolicy::per_tenant(per_minute(70)),
        LimitPolicy::shared(per_minute(110)),
    ])
    .class("reports", [LimitPolicy::per_tenant(per_minute(25))])
    .on("/reports");
    let authenticator = counting(&fixture, limits).build().unwrap();
    let keys: Vec<_> = ["acme", "acme", "acme", "globex"]
        .iter()
        .map(|of| {
            let new = NewKey::new("key", Owner::tenant(tenant(of)));
            runtime.block_on(fixture.issue_new(new)).0
        })
        .collect();
    let counts: Vec<(usize, bool, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (authenticator, key) = (&authenticator, &keys[thread % 4]);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    let is_report = thread < 4;
                    let path = if is_report { "/reports" } else { "/" };
                    let head = Head::bearer(key).at(path);
                    (
                        thread % 4,
                        is_report,
                        runtime.block_on(passed(authenticator, &head, 100)),
                    )
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let sum = |of: &dyn Fn(usize, bool) -> bool| -> usize {
        counts
            .iter()
            .filter(|(key, report, _)| of(*key, *report))
            .map(|(_, _, n)| n)
            .sum()
    };
    for key in 0..4 {
        assert!(sum(&|of, _| of == key) <= 30, "{counts:?}");
    }
    assert!(sum(&|of, report| of < 3 && report) <= 25, "{counts:?}");
    assert!(sum(&|of, report| of == 3 && report) <= 25, "{counts:?}");
    // Three keys could pass 90, and their tenant allows 70; the other tenant's key passes its 30.
    assert_eq!(sum(&|of, _| of < 3), 70, "{counts:?}");
    assert_eq!(sum(&|of, _| of == 3), 30, "{counts:?}");
}

#[test]
fn limits_that_cannot_be_are_refused_with_what_to_change() {
    let wrong = |limits: Limits| {
        let fixture = Fixture::new();
        let error = fixture
            .bearer()
            .limits(limits)
            .builder()
            .build()
            .unwrap_err();
        assert!(
            matches!(error, BuildError::Quota(_) | BuildError::NoLimits),
            "{error:?}"
        );
        error.to_string()
    };
    let key = || LimitPolicy::per_key(per_minute(5));
    for (limits, expected) in [
        (Limits::new([]), "no policy limits anything"),
        (
            Limits::new([LimitPolicy::unlimited(CountedBy::Key)]),
            "no policy limits anything",
        ),
        (
            Limits::new([key(), key()]),
            "two policies for one class count per key",
        ),
        (
            Limits::per_key(per_minute(5)).class("a", [key(), key()]),
            "two policies for one class count per key",
        ),
        (
            Limits::new([key().anonymous()]),
            "anonymous() is for policies per address and shared",
        ),
        (
            Limits::new([key().without_address(per_minute(5))]),
            "without_address() is for policies",
        ),
        (Limits::per_key(per_minute(0)), "1 to 4294967295 units"),
        (Limits::new([LimitPolicy::per_tenant([])]), "1 to 16 quotas"),
        (
            Limits::new([LimitPolicy::per_address(per_minute(5)).without_address(per_minute(0))]),
            "1 to 4294967295 units",
        ),
        (
            Limits::per_key(per_minute(5)).class("", []),
            "a class must have a name",
        ),
        (
            Limits::per_key(per_minute(5)).class("Reports", []),
            "a class must have a name",
        ),
        (
            Limits::per_key(per_minute(5)).class("a", []).class("a", []),
            "duplicate class a",
        ),
        (
            Limits::per_key(per_minute(5)).on("/a"),
            "on() follows class()",
        ),
        (
            Limits::per_key(per_minute(5)).on_request(|_| true),
            "on_request() follows class()",
        ),
        (
            Limits::per_key(per_minute(5)).plan(Plan::new("A b", [])),
            "plan \"A b\"",
        ),
        (
            Limits::per_key(per_minute(5))
                .plan(Plan::new("a", []))
                .plan(Plan::new("a", [])),
            "duplicate plan a",
        ),
        (
            Limits::per_key(per_minute(5)).plan(Plan::new("a", []).class("none", [key()])),
            "unknown class \"none\"",
        ),
        (
            Limits::per_key(per_minute(5)).plan(Plan::new(
                "a",
                [LimitPolicy::per_address(per_minute(5)).anonymous()],
            )),
            "plan a: requests without a key have no plan",
        ),
        (
            Limits::per_key(per_minute(5)).plan(Plan::new("a", []).own_quotas(per_minute(0))),
            "1 to 4294967295 units",
        ),
        (
            Limits::per_key(per_minute(5))
                .class("a", [key()])
                .on("/files/*rest"),
            "must be a path",
        ),
        (
            Limits::per_key(per_minute(5))
                .class("a", [key()])
                .on("/{*rest}/a"),
            "{*rest} comes last",
        ),
        (
            // The name of the tenant's quota, by a class named like it.
            Limits::per_key(per_minute(5))
                .policy(LimitPolicy::per_tenant(per_minute(5)))
                .class("tenant", [key()]),
            "two quotas that apply to one request are named tenant-minute",
        ),
        (
            Limits::per_key(per_minute(5))
                .class("a", [key()])
                .on("/reports ok"),
            "the route \"/reports ok\" must be a path",
        ),
        (
            Limits::per_key(per_minute(5))
                .class("a", [key()])
                .on("reports"),
            "the route \"reports\" must be a path",
        ),
        (
            Limits::per_key(per_minute(5))
                .class("a", [key()])
                .on("get /reports"),
            "a method in upper case",
        ),
        (
            Limits::per_key(per_minute(5))
                .class("a", [key()])
                .on("POST  /reports"),
            "must be a path",
        ),
    ] {
        let text = wrong(limits);
        assert!(
            text.contains(expected),
            "{text:?} does not contain {expected:?}"
        );
    }
    let right = Limits::new([]).plan(Plan::new("free", [key()]));
    assert!(
        Fixture::new()
            .bearer()
            .limits(right)
            .builder()
            .build()
            .is_ok()
    );
}

/// Counts in this process, and records which tenant each request names.
#[derive(Debug, Clone, Default)]
struct Apart {
    local: LocalLimiter,
    tenants: Arc<Mutex<Vec<Option<TenantId>>>>,
}

#[async_trait]
impl RateLimiter for Apart {
    async fn acquire(
        &self,
        request: &LimitRequest<'_>,
    ) -> std::result::Result<Decision, LimiterError> {
        self.tenants.lock().unwrap().push(request.tenant.cloned());
        self.local.acquire(request).await
    }

    fn counts_together(&self) -> bool {
        false
    }
}

#[test]
fn a_limiter_on_several_servers_gets_no_request_that_needs_two_of_them() {
    let built = |limits: Limits| {
        let limits = limits.limiter(Arc::new(Apart::default()));
        let built = Fixture::new().bearer().limits(limits).builder().build();
        built.map(|_| ()).map_err(|error| error.to_string())
    };
    let key = || Limits::per_key(per_minute(5));
    let shared = || LimitPolicy::shared(per_minute(9));
    let address = || LimitPolicy::per_address(per_minute(9));
    let servers = "on different servers, as a Redis Cluster does";
    for (limits, expected) in [
        (
            key().policy(shared()),
            "its key and in that of a shared policy",
        ),
        (
            key().policy(address()),
            "its key and in that of its address",
        ),
        // Such a key can have own quotas.
        (
            Limits::new([address()]),
            "its key and in that of its address",
        ),
        (
            key().class("exports", [shared()]).on("/exports"),
            "its key and in that of a shared policy",
        ),
        (
            key().plan(Plan::new("pro", [address()])),
            "its key and in that of its address",
        ),
        (
            key()
                .policy(shared().anonymous())
                .policy(address().anonymous()),
            "its address and in that of a shared policy",
        ),
    ] {
        let error = built(limits).unwrap_err();
        assert!(
            error.contains(expected) && error.contains(servers),
            "{error}"
        );
    }
    for limits in [
        key().policy(LimitPolicy::per_tenant(per_minute(50))),
        key().policy(address().anonymous()),
        key().policy(shared().anonymous()),
    ] {
        assert_eq!(built(limits), Ok(()));
    }
}

#[tokio::test]
async fn a_limiter_learns_the_tenant_of_each_request_with_a_key() {
    let limiter = Apart::default();
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let limits = Limits::per_key(per_minute(5))
        .policy(LimitPolicy::per_address(per_minute(5)).anonymous())
        .limiter(limiter.clone());
    let authenticator = fixture.bearer().optional().limits(limits).build().unwrap();
    for head in [Head::bearer(&key), Head::new()] {
        authenticator.authenticate(&head).await.unwrap();
    }
    let tenants = limiter.tenants.lock().unwrap().clone();
    assert_eq!(tenants, [Some(record.owner.tenant_id.clone()), None]);
}
