//! `Authenticator::verify` agrees with the actual request: compared for random requests and keys,
//! and in the texts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::actor::{DirectoryError, OwnerStanding, Standing};
use portunus::authenticator::{Introspection, Verdict};
use portunus::key::{Access, KeyId, KeyKind, KeyRecord, Owner, PlanName, Revocation, WorkspaceId};
use portunus::limit::LocalLimiter;
use portunus::network::{AllowList, Transport};
use portunus::policy::{PlanOrder, WorkspaceOf};
use portunus::quota::{Quota, Quotas};
use portunus::request::TlsVersion;
use portunus::store::{Change, KeyStore, WriteBatch};
use portunus::testing::TestRequest;
use portunus::{Authenticator, Clock, ErrorCode, Principal, Requirement};
use portunus_test_support::{
    FIND, Fixture, Setup, format, live, scope, stranger, tenant, test, used, user,
    with_last_character_wrong,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// The standing of every owner; `None` is an outage.
#[derive(Debug, Clone, Copy)]
struct Owners {
    standing: Option<Standing>,
    late: bool,
}

impl Owners {
    fn answer(self) -> Result<Standing, DirectoryError> {
        self.standing
            .ok_or_else(|| DirectoryError::unavailable("hr.internal does not answer"))
    }
}

#[async_trait]
impl OwnerStanding for Owners {
    async fn standing(&self, _: &Owner) -> Result<Standing, DirectoryError> {
        tokio::task::yield_now().await;
        self.answer()
    }
    fn standing_now(&self, _: &Owner) -> Option<Result<Standing, DirectoryError>> {
        (!self.late).then(|| self.answer())
    }
}

/// A key, the service that it is presented to, and a request.
#[derive(Debug, Clone)]
struct Case {
    key: Key,
    bound: bool,
    owners: Option<Owners>,
    unscoped: bool,
    late: bool,
    requirement: Requirement,
    ip: Option<&'static str>,
    method: Option<&'static str>,
    workspace: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Key {
    kind: KeyKind,
    live: bool,
    state: State,
    scopes: Vec<&'static str>,
    read_only: bool,
    listed: bool,
    workspaces: Option<Vec<&'static str>>,
    plan: Option<&'static str>,
    user: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Active,
    Revoked,
    Disabled,
    Expired,
    NotYetValid,
}

fn key() -> impl Strategy<Value = Key> {
    let state = prop_oneof![
        8 => Just(State::Active),
        1 => select(vec![State::Revoked, State::Disabled, State::Expired, State::NotYetValid]),
    ];
    let scopes = vec!["document:read", "document:*", "signature:read", "*"];
    (
        select(vec![KeyKind::App, KeyKind::User]),
        any::<bool>(),
        state,
        subsequence(scopes, 0..=2),
        any::<bool>(),
        any::<bool>(),
        proptest::option::of(subsequence(vec!["ws1", "ws2"], 0..=2)),
        proptest::option::of(select(vec!["free", "standard", "unheard-of"])),
        any::<bool>(),
    )
        .prop_map(
            |(kind, live, state, scopes, read_only, listed, workspaces, plan, user)| Key {
                kind,
                live,
                state,
                scopes,
                read_only,
                listed,
                workspaces,
                plan,
                user,
            },
        )
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let plans = PlanOrder::new(["free", "standard"]).unwrap();
    let leaves = vec![
        Requirement::none(),
        Requirement::scope(scope("document:read")),
        Requirement::scope(scope("document:write")),
        Requirement::scope(scope("signature:*")),
        Requirement::reading(),
        Requirement::writing(),
        Requirement::user(),
        Requirement::organization(),
        Requirement::none().any_workspace(),
        plans.at_least("standard").unwrap(),
        Requirement::workspace(WorkspaceOf::parameter("ws")),
    ];
    select(leaves).prop_recursive(2, 6, 3, |inner| {
        let several = || proptest::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            several().prop_map(Requirement::any_of),
            several().prop_filter_map("empty", Requirement::all_of_list),
        ]
    })
}

fn case() -> impl Strategy<Value = Case> {
    let standing = select(vec![
        Some(Standing::Good),
        Some(Standing::Good),
        Some(Standing::Good),
        Some(Standing::Suspended),
        Some(Standing::RoleLost),
        None,
    ]);
    let owners = (standing, any::<bool>()).prop_map(|(standing, late)| Owners { standing, late });
    let methods = vec![
        "GET", "HEAD", "OPTIONS", "POST", "PATCH", "DELETE", "get", "BREW",
    ];
    (
        key(),
        any::<bool>(),
        proptest::option::of(owners),
        any::<bool>(),
        any::<bool>(),
        requirement(),
        proptest::option::of(select(vec![
            "192.0.2.7",
            "198.51.100.1",
            "::ffff:192.0.2.7",
            "::1",
        ])),
        proptest::option::of(select(methods)),
        proptest::option::of(select(vec!["ws1", "ws2", "ws3"])),
    )
        .prop_map(
            |(key, bound, owners, unscoped, late, requirement, ip, method, workspace)| Case {
                key,
                bound,
                owners,
                unscoped,
                late,
                requirement,
                ip,
                method,
                workspace,
            },
        )
}

impl Key {
    /// Stores the key, and returns its secret.
    async fn store(&self, fixture: &Fixture) -> String {
        let now = fixture.clock.now();
        let environment = if self.live { live() } else { test() };
        let secret = format()
            .generate(Some(&environment), Some(self.kind))
            .unwrap()
            .reveal();
        let owner = match self.user {
            true => Owner::user(tenant("acme"), user("u1")),
            false => Owner::tenant(tenant("acme")),
        };
        let created = now - Duration::from_secs(1000);
        let id = KeyId::new("key_1").unwrap();
        let mut record = KeyRecord::new(id, "key", self.kind, environment, owner, created);
        record.scopes = self.scopes.iter().map(|text| scope(text)).collect();
        if self.read_only {
            record.access = Access::ReadOnly;
        }
        if self.listed {
            record.allowed_ips = AllowList::parse(["192.0.2.0/24"]).ok();
        }
        let id = |name: &&str| WorkspaceId::new(name).unwrap();
        record.workspaces = self
            .workspaces
            .as_ref()
            .map(|own| own.iter().map(id).collect());
        record.plan = self.plan.map(|name| PlanName::new(name).unwrap());
        match self.state {
            State::Active => {}
            State::Revoked => record.revoked = Some(Revocation::new(now, None)),
            State::Disabled => record.enabled = false,
            State::Expired => record.expires_at = Some(now),
            State::NotYetValid => record.not_before = Some(now + Duration::from_secs(1)),
        }
        let insert = Change::Insert {
            digest: fixture.hasher.digest(&secret),
            record: Box::new(record),
        };
        fixture
            .store
            .apply(&WriteBatch::new().change(insert))
            .await
            .unwrap();
        secret
    }
}

impl Case {
    fn authenticator(&self, fixture: &Fixture) -> Authenticator {
        let mut builder = fixture.bearer();
        if self.bound {
            builder = builder.environment(live());
        }
        if let Some(owners) = self.owners {
            builder = builder.owner_standing(owners);
        }
        if self.unscoped {
            builder = builder.grant_everything_to([KeyKind::App]);
        }
        builder.build().unwrap()
    }

    fn request(&self, secret: &str) -> TestRequest {
        // Parts that are not queried must not refuse the request either.
        let mut request = TestRequest::new(self.method.unwrap_or("GET"), "/").bearer(secret);
        if let Some(ip) = self.ip {
            request = request.peer(ip);
        }
        if let Some(workspace) = self.workspace {
            request = request.parameter("ws", workspace);
        }
        request
    }

    fn asked(&self) -> Introspection {
        let mut asked = Introspection::new().with_requirement(self.requirement.clone());
        if let Some(ip) = self.ip {
            asked = asked.with_client_ip(ip.parse().unwrap());
        }
        if let Some(method) = self.method {
            asked = asked.with_method(method);
        }
        if let Some(workspace) = self.workspace {
            asked = asked.with_workspace(WorkspaceId::new(workspace).unwrap());
        }
        asked
    }

    /// The code that refuses the request, if any.
    async fn requested(&self, authenticator: &Authenticator, secret: &str) -> Option<ErrorCode> {
        let request = self.request(secret);
        let admission = match authenticator.authenticate(&request).await {
            Ok(admission) => admission,
            Err(error) => return Some(error.code()),
        };
        let route = match self.workspace {
            Some(_) => self
                .requirement
                .clone()
                .and(Requirement::workspace(WorkspaceOf::parameter("ws"))),
            None => self.requirement.clone().any_workspace(),
        };
        let refused = route.check(&admission.principal.unwrap(), Some(&request));
        refused.err().map(|error| error.code())
    }
}

/// The result of a verdict, as a request would see it.
fn told(verdict: &Verdict) -> Option<ErrorCode> {
    assert_eq!(verdict.is_allowed(), verdict.refusal().is_none());
    verdict.refusal().map(portunus::AuthError::code)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]
    #[test]
    fn verifying_agrees_with_the_actual_request(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            let secret = case.key.store(&fixture).await;
            if case.late {
                fixture.store.answer_late(1);
            }
            let authenticator = case.authenticator(&fixture);
            let verified = authenticator.verify(&secret, &case.asked()).await;
            let requested = case.requested(&authenticator, &secret).await;
            match (&verified, requested) {
                (Ok(Some(verdict)), requested) => {
                    prop_assert_eq!(told(verdict), requested);
                    prop_assert_eq!(verdict.key_id().as_str(), "key_1");
                    prop_assert!(verdict.is_allowed() || !verdict.explanation().is_empty());
                }
                (Ok(None), Some(code)) => prop_assert!(matches!(
                    code,
                    ErrorCode::KeyRevoked | ErrorCode::KeyExpired | ErrorCode::KeyDisabled
                ), "{code}"),
                (Err(error), Some(code)) => {
                    prop_assert_eq!(error.code(), code);
                    prop_assert_eq!(code, ErrorCode::DirectoryUnavailable);
                }
                _ => prop_assert!(false, "{verified:?}, {requested:?}"),
            }
            Ok(())
        })?;
    }
}

async fn verdict(builder: Setup, key: &str, asked: Introspection) -> Verdict {
    let authenticator = builder.build().unwrap();
    authenticator.verify(key, &asked).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_reason_is_explained() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&["document:read"]).await;
    let owners = |standing| Owners {
        standing: Some(standing),
        late: true,
    };
    let suspended = || fixture.bearer().owner_standing(owners(Standing::Suspended));
    for builder in [
        suspended(),
        fixture.bearer().owner_standing(owners(Standing::RoleLost)),
    ] {
        let refused = verdict(builder, &key, Introspection::new()).await;
        assert_eq!(told(&refused), Some(ErrorCode::OwnerSuspended));
        let error = refused.refusal().unwrap();
        assert_eq!(refused.explanation(), error.detail());
    }
    let elsewhere = verdict(
        fixture.bearer().environment(test()),
        &key,
        Introspection::new(),
    )
    .await;
    assert_eq!(told(&elsewhere), Some(ErrorCode::WrongEnvironment));
    assert_eq!(
        elsewhere.explanation(),
        "The API key belongs to another environment"
    );
    // Every part is reported, whichever refuses first.
    let asked = || Introspection::new().with_requirement(scope("document:write"));
    let both = verdict(suspended().environment(test()), &key, asked()).await;
    assert_eq!(told(&both), Some(ErrorCode::OwnerSuspended));
    for words in ["owner", "another environment", "missing document:write"] {
        assert!(both.explanation().contains(words), "{}", both.explanation());
    }

    let restrict = |record: &mut KeyRecord| {
        record.allowed_ips = AllowList::parse(["192.0.2.0/24"]).ok();
        record.access = Access::ReadOnly;
        record.workspaces = Some(
            ["ws1", "ws2"]
                .map(|id| WorkspaceId::new(id).unwrap())
                .into(),
        );
    };
    fixture.change(&record.id, restrict).await;
    let ip: IpAddr = "192.0.2.7".parse().unwrap();
    let from = || Introspection::new().with_client_ip(ip);
    let ws = |id: &str| from().with_workspace(WorkspaceId::new(id).unwrap());
    for (asked, code, words) in [
        (
            Introspection::new(),
            Some(ErrorCode::IpNotAllowed),
            "allow-list",
        ),
        (from(), None, "ws1, ws2"),
        (
            from().with_method("POST"),
            Some(ErrorCode::ReadOnlyKey),
            "POST: the key is read-only",
        ),
        (from().with_method("GET"), None, "GET: the key has access"),
        (
            from()
                .with_method("POST")
                .with_requirement(Requirement::reading()),
            None,
            "the route is read-only",
        ),
        (
            from().with_requirement(Requirement::writing()),
            Some(ErrorCode::ReadOnlyKey),
            "full access",
        ),
        (ws("ws1"), None, "has access to ws1"),
        (
            ws("ws3"),
            Some(ErrorCode::WorkspaceForbidden),
            "does not have access to ws3",
        ),
    ] {
        let answer = verdict(fixture.bearer(), &key, asked.clone()).await;
        assert_eq!(told(&answer), code, "{asked:?}: {}", answer.explanation());
        assert!(
            answer.explanation().contains(words),
            "{asked:?}: {}",
            answer.explanation()
        );
    }
}

#[tokio::test]
async fn verifying_consumes_nothing_and_looks_at_no_transport() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let quotas = || Quotas::new([Quota::per_minute(1).unwrap()]).unwrap();
    let authenticator = fixture
        .bearer()
        .transport(Some(Transport::tls(TlsVersion::V1_3)))
        .limiter(LocalLimiter::builder().clock(fixture.clock.clone()).build())
        .quotas(quotas())
        .failure_quotas(Some(quotas()))
        .build()
        .unwrap();
    let known = async |text: &str| {
        let answer = authenticator
            .verify(text, &Introspection::new())
            .await
            .unwrap();
        answer.map(|verdict| verdict.is_allowed())
    };
    let writes = fixture.store.writes();
    for _ in 0..5 {
        assert_eq!(known(&key).await, Some(true));
        for text in [
            &*stranger(),
            &with_last_character_wrong(&key),
            "",
            "garbage",
            record.id.as_ref(),
        ] {
            assert_eq!(known(text).await, None, "{text}");
        }
    }
    authenticator.usage().flush(&fixture.store).await.unwrap();
    assert_eq!(fixture.store.writes(), writes);
    assert_eq!(used(&fixture.store, &record.id).await.count, 0);
    let request = TestRequest::get("/").tls(TlsVersion::V1_3);
    let code = async |key: &str| {
        let outcome = authenticator
            .authenticate(&request.clone().bearer(key))
            .await;
        outcome
            .map(|admission| admission.principal.unwrap().key_id().to_string())
            .map_err(|e| e.code())
    };
    assert_eq!(
        code(&stranger()).await,
        Err(ErrorCode::InvalidKey),
        "nobody has failed yet"
    );
    assert_eq!(code(&key).await, Ok(record.id.to_string()));
    assert_eq!(code(&key).await, Err(ErrorCode::RateLimited));
    assert_eq!(known(&key).await, Some(true));
}

#[tokio::test]
async fn while_the_store_is_down_nothing_is_said() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = Arc::new(fixture.bearer().build().unwrap());
    fixture.store.fail(FIND);
    let error = authenticator
        .verify(&key, &Introspection::new())
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::StoreUnavailable);
}
