//! The limits of a key as operators see them: read from the limiter, without counting.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::key::{KeyId, Owner, PlanName, TenantId};
use portunus::limit::{
    Decision, LimitPolicy, LimitRequest, LimiterError, LocalLimiter, OnOutage, Plan, RateLimiter,
    WindowState,
};
use portunus::manage::{KeyManager, ManageError, NewKey, Operator, Role, own_keys};
use portunus::quota::{Quota, Quotas};
use portunus::{ErrorCode, Limits, Portunus};
use portunus_test_support::{Fixture, Head, Setup, tenant, user};

/// The units left of each limit by name; `None` without a state.
async fn left(manager: &KeyManager, id: &KeyId) -> Vec<(String, Option<u64>)> {
    let states = manager.limit_states(id).await.unwrap();
    let state = |(quota, state): (Quota, Option<WindowState>)| {
        (
            quota.name().to_owned(),
            state.map(|state| state.remaining()),
        )
    };
    states.into_iter().map(state).collect()
}

fn expected(list: &[(&str, Option<u64>)]) -> Vec<(String, Option<u64>)> {
    list.iter()
        .map(|(name, left)| ((*name).to_owned(), *left))
        .collect()
}

fn counting(fixture: &Fixture, limits: Limits) -> Setup {
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    fixture.bearer().limits(limits.limiter(limiter))
}

async fn uses(keys: &Portunus, head: &Head, times: usize) {
    for _ in 0..times {
        keys.authenticator().authenticate(head).await.unwrap();
    }
}

fn of_ann() -> NewKey {
    NewKey::new("key", Owner::user(tenant("acme"), user("ann")))
}

#[tokio::test]
async fn every_limit_of_a_key_its_user_and_its_tenant_has_its_state() {
    let fixture = Fixture::new();
    let limits = Limits::per_key([Quota::per_minute(60), Quota::per_hour(1000)])
        .policy(LimitPolicy::per_user([Quota::per_minute(90)]))
        .policy(LimitPolicy::per_tenant([Quota::per_hour(5000)]))
        .policy(LimitPolicy::per_address([Quota::per_minute(200)]))
        .policy(LimitPolicy::shared([Quota::per_minute(10_000)]))
        .policy(LimitPolicy::per_address([Quota::per_minute(7)]).anonymous())
        .class("exports", [LimitPolicy::per_key([Quota::per_hour(9)])])
        .on("/exports");
    let keys = counting(&fixture, limits).keys();
    let (key, record) = fixture.issue_new(of_ann()).await;
    let (other, others) = fixture.issue_new(of_ann()).await;
    let (of_tenant, tenants) = fixture.issue(&[]).await;
    let manager = keys.manager();
    uses(&keys, &Head::bearer(&key), 5).await;
    uses(&keys, &Head::bearer(&key).at("/exports"), 2).await;
    uses(&keys, &Head::bearer(&other), 3).await;
    uses(&keys, &Head::bearer(&of_tenant), 1).await;
    for _ in 0..50 {
        let of_key = left(manager, &record.id).await;
        assert_eq!(
            of_key,
            expected(&[
                ("minute", Some(53)),
                ("hour", Some(993)),
                ("user-minute", Some(80)),
                ("tenant-hour", Some(4989)),
                ("address-minute", None),
                ("shared-minute", None),
                ("exports-hour", Some(7)),
            ])
        );
    }
    let of_other = left(manager, &others.id).await;
    assert_eq!((&of_other[0].1, &of_other[2].1), (&Some(57), &Some(80)));
    // No user, and so no limit of one.
    let of_tenant = left(manager, &tenants.id).await;
    assert_eq!(
        of_tenant[1..3],
        expected(&[("hour", Some(999)), ("tenant-hour", Some(4989))])
    );
    // A successor has what its family has left.
    fixture.clock.advance(Duration::from_secs(30));
    let rotated = manager.rotate(&record.id, None).await;
    let successor = rotated.unwrap().record.id.clone();
    assert_eq!(left(manager, &successor).await[0].1, Some(53));
    let states = manager.limit_states(&successor).await.unwrap();
    let reset = states[0].1.unwrap().reset().unwrap();
    assert!(reset > Duration::from_secs(30) && reset <= Duration::from_millis(30_500));
    fixture.clock.advance(Duration::from_secs(31));
    let states = manager.limit_states(&successor).await.unwrap();
    let minute = states[0].1.unwrap();
    assert_eq!((minute.remaining(), minute.reset()), (60, None));
}

#[tokio::test]
async fn the_states_are_of_the_plan_that_applies_now() {
    let fixture = Fixture::new();
    let billing = Billing::default();
    let per_key = |minute| [LimitPolicy::per_key([Quota::per_minute(minute)])];
    let limits = Limits::per_key([Quota::per_minute(60)])
        .plan(Plan::new("free", per_key(10)))
        .plan(Plan::new("paid", per_key(600)));
    let setup = counting(&fixture, limits).directory(billing.clone());
    let keys = setup.plan_bound(Duration::ZERO).keys();
    let own = Quotas::new([
        Quota::per_minute(20).unwrap(),
        Quota::per_hour(300).unwrap(),
    ]);
    let (key, record) = fixture.issue_new(of_ann()).await;
    let (with_own, own) = fixture.issue_new(of_ann().with_quotas(own.unwrap())).await;
    for key in [&key, &with_own] {
        uses(&keys, &Head::bearer(key), 8).await;
    }
    let manager = keys.manager();
    for (plan, minute, own_minute) in [("free", 2, 2), ("paid", 592, 12), ("free", 2, 2)] {
        billing.set("acme", plan);
        assert_eq!(
            left(manager, &record.id).await,
            expected(&[("minute", Some(minute))])
        );
        let (minute, hour) = (("minute", Some(own_minute)), ("hour", Some(292)));
        assert_eq!(
            left(manager, &own.id).await,
            expected(&[minute, hour]),
            "{plan}"
        );
    }
    billing.fail();
    let refused = manager.limit_states(&record.id).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::DirectoryUnavailable);
}

#[tokio::test]
async fn only_those_who_may_read_a_key_read_its_limits() {
    let fixture = Fixture::new();
    let keys = counting(&fixture, Limits::per_key([Quota::per_minute(60)])).keys();
    let (_, record) = fixture.issue_new(of_ann()).await;
    let of = |name: &str, of: &str| Operator::new(user(name), tenant(of), Role::Owner);
    let manager = keys.manager();
    for (manager, sees) in [
        (manager.by(of("olaf", "acme")), true),
        (manager.by(of("olaf", "other")), false),
        (manager.under(own_keys()).by(of("ann", "acme")), true),
        (manager.under(own_keys()).by(of("olaf", "acme")), false),
    ] {
        let read = manager.limit_states(&record.id).await;
        let hidden = matches!(&read, Err(ManageError::NotFound(_)));
        assert_eq!((read.is_ok(), hidden), (sees, !sees), "{read:?}");
    }
}

/// A limiter that counts well and is read in this way.
#[derive(Debug, Clone, Copy)]
enum Reads {
    NotAtAll,
    Nothing,
    TooMany,
    Fails,
    Panics,
    Hangs,
}

#[derive(Debug)]
struct Odd(LocalLimiter, Reads);

#[async_trait]
impl RateLimiter for Odd {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        self.0.acquire(request).await
    }

    async fn peek(&self, _: &LimitRequest<'_>) -> Result<Option<Vec<WindowState>>, LimiterError> {
        match self.1 {
            Reads::NotAtAll => Ok(None),
            Reads::Nothing => Ok(Some(Vec::new())),
            Reads::TooMany => Ok(Some(vec![WindowState::new(u64::MAX, None); 1000])),
            Reads::Fails => Err(LimiterError::unavailable("connection reset")),
            Reads::Panics => panic!("the limiter's own mistake"),
            Reads::Hangs => pending().await,
        }
    }
}

#[tokio::test]
async fn a_limiter_that_is_not_read_is_reported_within_two_seconds_and_harms_nothing() {
    for reads in [
        Reads::NotAtAll,
        Reads::Nothing,
        Reads::TooMany,
        Reads::Fails,
        Reads::Panics,
        Reads::Hangs,
    ] {
        let fixture = Fixture::new();
        let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
        let limits = Limits::per_key([Quota::per_minute(3), Quota::per_hour(50)])
            .on_outage(OnOutage::Closed)
            .limiter(Odd(limiter, reads));
        let keys = fixture.bearer().limits(limits).keys();
        let (key, record) = fixture.issue_new(of_ann()).await;
        uses(&keys, &Head::bearer(&key), 1).await;
        let began = Instant::now();
        let read = keys.manager().limit_states(&record.id).await;
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
        match (reads, read) {
            (Reads::NotAtAll | Reads::Nothing, Ok(states)) => {
                let states: Vec<_> = states.iter().map(|(_, state)| *state).collect();
                assert_eq!(states, [None, None], "{reads:?}");
            }
            (Reads::TooMany, Ok(states)) => assert_eq!(states.len(), 2),
            (Reads::Fails | Reads::Panics | Reads::Hangs, Err(error)) => {
                assert_eq!(error.code(), ErrorCode::LimiterUnavailable, "{reads:?}");
            }
            (_, read) => panic!("{reads:?}: {read:?}"),
        }
        // That is no outage of requests, and the key is shown.
        assert_eq!(keys.authenticator().limiter_outages(), 0);
        uses(&keys, &Head::bearer(&key), 2).await;
        assert_eq!(
            keys.manager().get(&record.id).await.unwrap().policies.len(),
            2
        );
    }
}

/// The plans of tenants.
#[derive(Debug, Clone, Default)]
struct Billing(Arc<Mutex<HashMap<String, &'static str>>>);

impl Billing {
    fn set(&self, tenant: &str, plan: &'static str) {
        self.0.lock().unwrap().insert(tenant.to_owned(), plan);
    }

    fn fail(&self) {
        self.set("acme", "");
    }
}

#[async_trait]
impl Directory for Billing {
    async fn resolve(
        &self,
        _: &TenantId,
        _: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        Ok(None)
    }

    async fn plan(&self, tenant: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        match self.0.lock().unwrap().get(tenant.as_str()).copied() {
            Some("") => Err(DirectoryError::unavailable("connection reset")),
            plan => Ok(plan.map(|name| PlanName::new(name).unwrap())),
        }
    }
}

#[tokio::test]
async fn a_service_without_limits_has_none_to_read() {
    let fixture = Fixture::new();
    let keys = fixture.bearer().limits(Limits::none()).keys();
    let own = Quotas::new([Quota::per_minute(20).unwrap()]).unwrap();
    let (_, record) = fixture.issue_new(of_ann()).await;
    let (_, with_own) = fixture.issue_new(of_ann().with_quotas(own)).await;
    assert_eq!(left(keys.manager(), &record.id).await, []);
    let none = expected(&[("minute", None)]);
    assert_eq!(
        left(keys.manager(), &with_own.id).await,
        none,
        "nothing is counted"
    );
}

/// As many classes and policies as a service may have.
#[tokio::test]
async fn the_largest_service_is_read_like_another() {
    let fixture = Fixture::new();
    let many = |counted: fn(Vec<_>) -> LimitPolicy, class: usize, who: &str| {
        let quota = |number: u64| {
            let name = format!("c{class}-{who}{number}");
            Quota::new(&name, 50, Duration::from_secs(60 + number))
        };
        counted((0..16).map(quota).collect())
    };
    let mut limits = Limits::per_key([Quota::per_minute(60)]);
    for class in 0..100 {
        let policies = [
            many(LimitPolicy::per_key, class, "k"),
            many(LimitPolicy::per_user, class, "u"),
            many(LimitPolicy::per_tenant, class, "t"),
        ];
        limits = limits
            .class(format!("c{class}"), policies)
            .on(&format!("/c{class}"));
    }
    let keys = counting(&fixture, limits).keys();
    let (key, record) = fixture.issue_new(of_ann()).await;
    uses(&keys, &Head::bearer(&key).at("/c42"), 3).await;
    let states = left(keys.manager(), &record.id).await;
    assert_eq!(states.len(), 1 + 100 * 3 * 16);
    let used: Vec<_> = states
        .iter()
        .filter(|(_, left)| *left == Some(47))
        .collect();
    assert_eq!(used.len(), 48);
    assert!(used.iter().all(|(name, _)| name.starts_with("c42-")));
    assert!(states.iter().all(|(_, left)| left.is_some()));
}
