//! Tokens of a host's OAuth server: when the verifier is called, how its answers are used, and that
//! the whole authentication path applies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::{Router, routing};
use http::Request;
use portunus::AuthError;
use portunus::actor::ActorMode;
use portunus::actor::UserIds;
use portunus::adapter::axum::RequireExt;
use portunus::adapter::tower::AuthLayer;
use portunus::audit::{AuditTrail, MemoryAudit};
use portunus::authenticator::Authenticated;
use portunus::key::{Access, Alphabet, KeyFormat, KeyId, KeyKind, Owner, PlanName, WorkspaceId};
use portunus::limit::{LocalLimiter, LookupBudget};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::verifier::{VerifiedToken, VerifierError};
use portunus::{BuildError, Clock, ErrorCode, Principal, Requirement, TokenVerifier};
use portunus_test_support::{
    FIND, Fixture, Head, Setup, live, scope, stranger, tenant, test, user,
    with_last_character_wrong,
};
use tower::ServiceExt;

/// A verifier that accepts `eyJ.good.TAIL` and records its calls.
#[derive(Debug, Clone, Default)]
struct Issuer {
    asked: Arc<Mutex<Vec<String>>>,
    recognized: Arc<AtomicUsize>,
    token: Arc<Mutex<Option<VerifiedToken>>>,
    down: Arc<Mutex<bool>>,
}

fn token() -> VerifiedToken {
    let owner = Owner::user(tenant("acme"), user("u1"));
    VerifiedToken::new(KeyId::new("grant-1").unwrap(), owner, live()).with_scopes([scope("a")])
}

impl Issuer {
    fn of(token: VerifiedToken) -> Self {
        Self {
            token: Arc::new(Mutex::new(Some(token))),
            ..Self::default()
        }
    }
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl TokenVerifier for Issuer {
    fn recognizes(&self, token: &str) -> bool {
        self.recognized.fetch_add(1, Ordering::SeqCst);
        assert!(token.len() <= 4096 && token.bytes().all(|b| b.is_ascii_graphic()));
        token.bytes().filter(|byte| *byte == b'.').count() == 2 || token.starts_with("acme_")
    }
    async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError> {
        self.asked.lock().unwrap().push(token.to_owned());
        tokio::task::yield_now().await;
        if *self.down.lock().unwrap() {
            return Err(VerifierError::unavailable(
                "introspection: connection refused",
            ));
        }
        Ok(self
            .token
            .lock()
            .unwrap()
            .clone()
            .filter(|_| token.starts_with("eyJ.good.")))
    }
}

const GOOD: &str = "eyJ.good.c2ln";
const BAD: &str = "eyJ.bad.c2ln";

async fn ask(builder: Setup, head: &Head) -> Result<Authenticated, AuthError> {
    builder.build().unwrap().authenticate(head).await
}

fn code(outcome: &Result<Authenticated, AuthError>) -> ErrorCode {
    outcome.as_ref().unwrap_err().code()
}

#[tokio::test]
async fn a_token_that_the_verifier_vouches_for_passes_as_its_user() {
    let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
    for head in [
        Head::bearer(GOOD),
        Head::authorization(format!("bEaReR   {GOOD}")),
    ] {
        let admission = ask(fixture.bearer().token_verifier(issuer.clone()), &head)
            .await
            .unwrap();
        let principal = admission.principal.unwrap();
        assert_eq!(
            (principal.key_id().as_str(), principal.mode()),
            ("grant-1", ActorMode::User)
        );
        assert_eq!(
            (principal.owner(), principal.environment()),
            (&token().owner, &live())
        );
        assert_eq!(principal.record().kind, KeyKind::AccessToken);
        assert!(principal.scopes().grants(&scope("a")) && !principal.scopes().grants(&scope("b")));
    }
    assert_eq!(
        *issuer.asked.lock().unwrap(),
        [GOOD, GOOD],
        "every request asks anew"
    );
    assert_eq!(
        fixture.store.finds(),
        0,
        "what has not the shape of a key is looked up in no store"
    );
}

#[tokio::test]
async fn a_verifier_alone_is_a_way_to_present_a_token() {
    let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
    let builder = fixture.bare().token_verifier(issuer);
    assert!(ask(builder, &Head::bearer(GOOD)).await.is_ok());
    assert_eq!(fixture.bare().build().unwrap_err(), BuildError::NoFormat);
    let basic = fixture
        .bare()
        .basic([portunus_test_support::format()])
        .token_verifier(Issuer::of(token()));
    assert!(ask(basic, &Head::bearer(GOOD)).await.is_ok());
}

#[tokio::test]
async fn garbage_reaches_no_verifier() {
    let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
    let builder = || {
        fixture
            .bearer()
            .header("x-api-key", [portunus_test_support::format()])
            .token_verifier(issuer.clone())
    };
    let long = format!("eyJ.good.{}", "a".repeat(4096));
    let megabyte = format!("eyJ.good.{}", "a".repeat(1 << 20));
    let heads = [
        Head::new(),
        Head::bearer(""),
        Head::bearer("nodots"),
        Head::bearer("one.dot"),
        Head::bearer("a.b.c.d"),
        Head::bearer("eyJ.go od.x"),
        Head::bearer("eyJ.good.\"x"),
        Head::bearer("eyJ.good.é"),
        Head::bearer("eyJ.good.\0"),
        Head::bearer("eyJ.go=od.x"),
        Head::bearer("==="),
        Head::bearer(&long),
        Head::bearer(&megabyte),
        Head::bearer(&format!("{GOOD}, Bearer {GOOD}")),
        Head::bearer(GOOD).with("authorization", format!("Bearer {GOOD}")),
        Head::authorization(GOOD),
        Head::authorization(format!("Token {GOOD}")),
        Head::basic(format!("{GOOD}:").as_bytes()),
        Head::basic(GOOD.as_bytes()),
        Head::new().with("x-api-key", GOOD),
        Head::bearer(GOOD).with("x-api-key", GOOD),
        Head::new().at(&format!("/documents?access_token={GOOD}")),
    ];
    for head in &heads {
        let outcome = ask(builder(), head).await;
        assert!(
            (400..402).contains(&outcome.unwrap_err().status()),
            "{head:?}"
        );
    }
    assert_eq!((issuer.asked(), fixture.store.finds()), (0, 0));
}

#[tokio::test]
async fn basic_never_reaches_the_verifier() {
    let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
    let builder = || {
        fixture
            .bearer()
            .basic([portunus_test_support::format()])
            .token_verifier(issuer.clone())
    };
    for pair in [
        format!("{GOOD}:"),
        format!(":{GOOD}"),
        GOOD.to_owned(),
        format!("{}:", stranger()),
    ] {
        assert_eq!(
            ask(builder(), &Head::basic(pair.as_bytes()))
                .await
                .unwrap_err()
                .status(),
            401
        );
    }
    assert_eq!(
        (issuer.asked(), issuer.recognized.load(Ordering::SeqCst)),
        (0, 0)
    );
}

#[tokio::test]
async fn keys_come_first_and_the_verifier_is_called_for_unknown_ones() {
    for late in [false, true] {
        let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
        let (key, record) = fixture.issue(&[]).await;
        if late {
            fixture.store.answer_late(1);
        }
        let builder = || fixture.bearer().token_verifier(issuer.clone());
        let admission = ask(builder(), &Head::bearer(&key)).await.unwrap();
        assert_eq!(
            (admission.principal.unwrap().key_id(), issuer.asked()),
            (&record.id, 0)
        );
        // Issuer recognizes it, because it has the prefix of keys.
        let unknown = stranger();
        assert_eq!(
            code(&ask(builder(), &Head::bearer(&unknown)).await),
            ErrorCode::InvalidKey
        );
        assert_eq!(
            (
                issuer.asked.lock().unwrap().as_slice(),
                fixture.store.finds()
            ),
            (&[unknown][..], 2)
        );
        let wrong = with_last_character_wrong(&key);
        assert_eq!(
            code(&ask(builder(), &Head::bearer(&wrong)).await),
            ErrorCode::InvalidKey
        );
        assert_eq!(
            (issuer.asked(), fixture.store.finds()),
            (2, 2),
            "a wrong checksum is no key, but may be a token"
        );
        fixture.manager().revoke(&record.id, None).await.unwrap();
        assert_eq!(
            code(&ask(builder(), &Head::bearer(&key)).await),
            ErrorCode::KeyRevoked
        );
        assert_eq!(
            issuer.asked(),
            2,
            "a key that is known is no token, whatever its standing"
        );
        fixture.store.fail(FIND);
        assert_eq!(
            code(&ask(builder(), &Head::bearer(&stranger())).await),
            ErrorCode::StoreUnavailable
        );
        assert_eq!(
            issuer.asked(),
            2,
            "a store that is down says nothing about a key"
        );
    }
}

#[tokio::test]
async fn a_token_may_look_like_a_key_of_ours() {
    let fixture = Fixture::new();
    let format = KeyFormat::builder("eyJ.good.")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    for late in [false, true] {
        let issuer = Issuer::of(token());
        if late {
            fixture.store.answer_late(1);
        }
        let builder = fixture
            .bare()
            .bearer([format.clone()])
            .token_verifier(issuer.clone());
        assert!(
            ask(
                builder,
                &Head::bearer("eyJ.good.abcdefgh12345678abcdefgh12345678")
            )
            .await
            .is_ok()
        );
        assert_eq!(issuer.asked(), 1);
    }
    assert_eq!(fixture.store.finds(), 2);
}

#[tokio::test]
async fn an_outage_of_the_verifier_is_503_and_never_401() {
    let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
    *issuer.down.lock().unwrap() = true;
    let builder = fixture
        .bearer()
        .failure_quotas(Some(per_minute(1)))
        .token_verifier(issuer.clone());
    let app: Router = Router::new().route("/", routing::get(|| async { "in" }));
    let app = app.route_layer(AuthLayer::new(builder.build().unwrap()));
    for token in [GOOD, BAD, GOOD, BAD] {
        let request = Request::builder()
            .uri("/")
            .header("authorization", format!("Bearer {token}"));
        let response = app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 503);
        assert!(
            response.headers().contains_key("retry-after")
                && !response.headers().contains_key("www-authenticate")
        );
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains("VERIFIER_UNAVAILABLE") && !text.contains("connection refused"),
            "{text}"
        );
    }
    assert_eq!(issuer.asked(), 4, "an outage is no failure of the client's");
}

fn per_minute(limit: u64) -> Quotas {
    Quotas::new([Quota::per_minute(limit).unwrap()]).unwrap()
}

#[tokio::test]
async fn tokens_that_are_not_valid_are_counted_and_a_blocked_client_reaches_no_verifier() {
    let mut budget = LookupBudget::default();
    budget.failures = Some(per_minute(3));
    budget.per_second_past_failures = 0;
    for late in [false, true] {
        let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
        if late {
            fixture.store.answer_late(1);
        }
        let builder = fixture
            .bearer()
            .lookup_budget(budget.clone())
            .token_verifier(issuer.clone());
        let authenticator = builder.build().unwrap();
        let ask = async |token: &str, ip: &str| {
            authenticator
                .authenticate(&Head::bearer(token).from(ip))
                .await
        };
        for _ in 0..3 {
            assert_eq!(code(&ask(BAD, "2001:db8::1").await), ErrorCode::InvalidKey);
        }
        for (token, ip) in [
            (BAD, "2001:db8::1"),
            (GOOD, "2001:db8::1"),
            (BAD, "2001:db8::2"),
        ] {
            let error = ask(token, ip).await.unwrap_err();
            assert_eq!(
                (error.code(), issuer.asked()),
                (ErrorCode::TooManyFailures, 3),
                "{token} from {ip}"
            );
            assert!(error.retry_after().unwrap() <= Duration::from_secs(61));
        }
        // Failures of keys and tokens are counted together.
        assert_eq!(
            code(&ask(&stranger(), "2001:db8::1").await),
            ErrorCode::TooManyFailures
        );
        assert_eq!(issuer.asked(), 3);
        assert!(
            ask(GOOD, "203.0.113.1").await.is_ok(),
            "others are not blocked"
        );
        fixture.clock.advance(Duration::from_secs(61));
        assert!(ask(GOOD, "2001:db8::1").await.is_ok());
        assert_eq!(
            code(&ask("garbage", "2001:db8::1").await),
            ErrorCode::InvalidFormat
        );
    }
}

#[tokio::test]
async fn the_rest_of_the_path_applies_to_a_verified_token() {
    let fixture = Fixture::new();
    let now = fixture.clock.now();
    type Change = fn(&mut VerifiedToken);
    type Build = fn(Setup) -> Setup;
    let cases: Vec<(&str, Change, Build, Head)> = vec![
        (
            "WRONG_ENVIRONMENT",
            |t| t.environment = test(),
            |b| b.environment(live()),
            Head::bearer(GOOD),
        ),
        (
            "IP_NOT_ALLOWED",
            |t| t.allowed_ips = Some(AllowList::parse(["10.0.0.0/8"]).unwrap()),
            |b| b,
            Head::bearer(GOOD).from("203.0.113.1"),
        ),
        (
            "IP_NOT_ALLOWED",
            |t| t.allowed_ips = Some(AllowList::parse(["::/0"]).unwrap()),
            |b| b,
            Head::bearer(GOOD),
        ),
        (
            "UNKNOWN_ACTOR",
            |_| {},
            |b| b,
            Head::bearer(GOOD).with("x-user-id", "u2"),
        ),
        (
            "UNKNOWN_ACTOR",
            |_| {},
            |b| b,
            Head::bearer(GOOD).with("x-on-behalf-of", "u2"),
        ),
        (
            "INVALID_REQUEST",
            |_| {},
            |b| b,
            Head::bearer(GOOD)
                .with("x-user-id", "a")
                .with("x-user-id", "b"),
        ),
    ];
    for (expected, change, build, head) in cases {
        let mut token = token();
        change(&mut token);
        let error = ask(
            build(fixture.bearer()).token_verifier(Issuer::of(token)),
            &head,
        )
        .await
        .unwrap_err();
        assert_eq!(
            (error.code().as_str(), error.key_id().unwrap().as_str()),
            (expected, "grant-1")
        );
    }
    for (seconds, expected) in [(0, Some(ErrorCode::KeyExpired)), (1, None)] {
        let issuer = Issuer::of(token().until(now + Duration::from_secs(seconds)));
        let outcome = ask(fixture.bearer().token_verifier(issuer), &Head::bearer(GOOD)).await;
        assert_eq!(outcome.err().map(|error| error.code()), expected);
    }
    let own = Head::bearer(GOOD).with("x-user-id", "u1");
    assert!(
        ask(fixture.bearer().token_verifier(Issuer::of(token())), &own)
            .await
            .is_ok()
    );
}

/// A verifier that answers late.
#[derive(Debug)]
struct Slow(Issuer, portunus::testing::ManualClock);

#[async_trait]
impl TokenVerifier for Slow {
    fn recognizes(&self, token: &str) -> bool {
        self.0.recognizes(token)
    }
    async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError> {
        let answer = self.0.verify(token).await;
        self.1.advance(Duration::from_secs(10));
        answer
    }
}

#[tokio::test]
async fn a_token_that_expires_while_it_is_verified_is_refused() {
    let fixture = Fixture::new();
    let issuer = Issuer::of(token().until(fixture.clock.now() + Duration::from_secs(10)));
    let builder = fixture
        .bearer()
        .token_verifier(Slow(issuer, fixture.clock.clone()));
    assert_eq!(
        code(&ask(builder, &Head::bearer(GOOD)).await),
        ErrorCode::KeyExpired
    );
}

#[tokio::test]
async fn tokens_of_one_id_share_a_quota_and_their_own_comes_first() {
    let (fixture, mut own) = (Fixture::new(), token());
    own.quotas = Some(per_minute(2));
    let issuer = Issuer::of(own);
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    let builder = fixture
        .bearer()
        .limiter(limiter)
        .quotas(per_minute(5))
        .token_verifier(issuer.clone());
    let authenticator = builder.build().unwrap();
    let ask = async |tail: &str| {
        authenticator
            .authenticate(&Head::bearer(&format!("eyJ.good.{tail}")))
            .await
    };
    assert!(ask("a").await.is_ok() && ask("b").await.is_ok());
    let error = ask("c").await.unwrap_err();
    assert_eq!(
        (error.code(), error.key_id().unwrap().as_str()),
        (ErrorCode::RateLimited, "grant-1")
    );
    let mut other = token();
    other.id = KeyId::new("grant-2").unwrap();
    *issuer.token.lock().unwrap() = Some(other);
    fixture.clock.advance(Duration::from_secs(2));
    for _ in 0..5 {
        assert!(ask("a").await.is_ok());
    }
    assert_eq!(code(&ask("a").await), ErrorCode::RateLimited);
}

#[tokio::test]
async fn routes_see_the_claims_of_the_token() {
    let fixture = Fixture::new();
    let mut limited = token();
    limited.access = Access::ReadOnly;
    limited.workspaces = Some(vec![WorkspaceId::new("ws1").unwrap()]);
    limited.plan = Some(PlanName::new("standard").unwrap());
    let builder = fixture.bearer().token_verifier(Issuer::of(limited.clone()));
    let principal = ask(builder, &Head::bearer(GOOD))
        .await
        .unwrap()
        .principal
        .unwrap();
    assert_eq!(
        (principal.access(), principal.plan()),
        (Access::ReadOnly, limited.plan.as_ref())
    );
    assert_eq!(principal.workspaces(), limited.workspaces.as_deref());
    let layer = AuthLayer::new(
        fixture
            .bearer()
            .token_verifier(Issuer::of(limited))
            .build()
            .unwrap(),
    );
    let routes = routing::get(|| async {})
        .post(|| async {})
        .require(Requirement::from(scope("a")).any_workspace());
    let app: Router = Router::new()
        .route("/a", routes)
        .route("/b", routing::get(|| async {}).require(scope("b")))
        .route("/c", routing::get(|| async {}).require(scope("a")));
    let app = app.route_layer(layer);
    for (method, path, expected) in [
        ("GET", "/a", 200),
        ("POST", "/a", 403),
        ("GET", "/b", 403),
        ("GET", "/c", 403),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {GOOD}"));
        let response = app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn a_token_is_audited_by_its_id_and_its_text_is_shown_nowhere() {
    let (fixture, log) = (Fixture::new(), MemoryAudit::new(100));
    let trail = AuditTrail::builder().sink(log.clone()).build();
    let issuer = Issuer::of(token());
    let builder = fixture
        .bearer()
        .audit(trail.clone())
        .token_verifier(issuer.clone());
    let authenticator = builder.build().unwrap();
    let app: Router = Router::new().route("/", routing::get(|| async {}).require(scope("a")));
    let app = app.route_layer(AuthLayer::new(authenticator.clone()));
    let mut shown = String::new();
    for (token, down) in [(GOOD, false), (BAD, false), (GOOD, true)] {
        *issuer.down.lock().unwrap() = down;
        fixture.clock.advance(Duration::from_secs(2));
        let request = Request::builder()
            .uri("/")
            .header("authorization", format!("Bearer {token}"));
        let response = app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        shown += &format!(
            "{response:?}{:?}",
            response.extensions().get::<portunus::AuthError>()
        );
        shown += &format!(
            "{:?}",
            authenticator.authenticate(&Head::bearer(token)).await
        );
        shown += &format!("{:?}", authenticator.attempt(&Head::bearer(token)));
    }
    trail.flush().await.unwrap();
    let events = log.all();
    let told: Vec<_> = events
        .iter()
        .map(|e| (e.outcome.as_str(), e.key_id.as_ref().map(KeyId::as_str)))
        .collect();
    assert_eq!(
        told,
        [
            ("OK", Some("grant-1")),
            ("INVALID_KEY", None),
            ("VERIFIER_UNAVAILABLE", None)
        ]
    );
    assert!(events[0].involves("u1"));
    shown += &format!("{events:?}{}", serde_json::to_string(&events).unwrap());
    for canary in [
        GOOD,
        BAD,
        "c2ln",
        &portunus_test_support::base64(GOOD.as_bytes()),
    ] {
        assert!(!shown.contains(canary), "{canary}");
    }
}

#[tokio::test]
async fn where_ids_are_uuids_the_user_of_a_token_has_the_one_spelling() {
    const ANN: &str = "550e8400-e29b-41d4-a716-446655440000";
    let mut upper = token();
    upper.owner = Owner::user(tenant("acme"), user(&ANN.to_uppercase()));
    for (ids, expected) in [
        (UserIds::Uuid, ANN.to_owned()),
        (UserIds::Any, ANN.to_uppercase()),
    ] {
        let builder = Fixture::new()
            .bearer()
            .user_ids(ids)
            .token_verifier(Issuer::of(upper.clone()));
        let admission = ask(builder, &Head::bearer("eyJ.good.x")).await.unwrap();
        let principal = admission.principal.unwrap();
        let actor = principal.actor();
        assert_eq!(actor.user_id, Some(&user(&expected)), "{ids:?}");
    }
}

#[tokio::test]
async fn verifiers_in_pointers_are_verifiers() {
    let fixture = Fixture::new();
    let boxed: Box<dyn TokenVerifier> = Box::new(Issuer::of(token()));
    let shared: Arc<dyn TokenVerifier> = Arc::new(boxed);
    assert!(
        ask(fixture.bearer().token_verifier(shared), &Head::bearer(GOOD))
            .await
            .is_ok()
    );
}

// ---- caching of the verifier's answers ----

#[tokio::test]
async fn an_answer_about_a_token_is_used_for_two_seconds_and_no_longer() {
    let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
    let authenticator = fixture.bearer().token_verifier(issuer.clone());
    let authenticator = authenticator.build().unwrap();
    let ask = async |token: &str| authenticator.authenticate(&Head::bearer(token)).await;
    for asked in 1..4 {
        for _ in 0..5 {
            assert!(ask(GOOD).await.is_ok());
        }
        fixture.clock.advance(Duration::from_millis(1_999));
        assert!(ask(GOOD).await.is_ok());
        assert_eq!(issuer.asked(), asked);
        fixture.clock.advance(Duration::from_millis(1));
    }
    // Refusals and outages are not cached, and a refused token is no longer known.
    *issuer.token.lock().unwrap() = None;
    assert_eq!(code(&ask(GOOD).await), ErrorCode::InvalidKey);
    assert_eq!(code(&ask(GOOD).await), ErrorCode::InvalidKey);
    *issuer.down.lock().unwrap() = true;
    assert_eq!(code(&ask(GOOD).await), ErrorCode::VerifierUnavailable);
    *issuer.down.lock().unwrap() = false;
    *issuer.token.lock().unwrap() = Some(token());
    assert!(ask(GOOD).await.is_ok());
    assert_eq!(issuer.asked(), 7);
}

/// A verifier whose tokens are revoked, and forgotten, when it has just answered.
#[derive(Debug)]
struct RevokedMeanwhile(Issuer, Arc<OnceLock<portunus::Portunus>>);

#[async_trait]
impl TokenVerifier for RevokedMeanwhile {
    fn recognizes(&self, token: &str) -> bool {
        self.0.recognizes(token)
    }
    async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError> {
        let answer = self.0.verify(token).await;
        if let Some(service) = self.1.get() {
            service.forget(&token_id());
        }
        answer
    }
}

fn token_id() -> KeyId {
    KeyId::new("grant-1").unwrap()
}

#[tokio::test]
async fn a_forgotten_token_is_verified_again_at_once() {
    let (issuer, meanwhile) = (Issuer::of(token()), Arc::new(OnceLock::new()));
    let verifier = RevokedMeanwhile(issuer.clone(), Arc::clone(&meanwhile));
    let credentials = portunus::config::Credentials::new().tokens(verifier);
    let service = portunus::Portunus::builder(credentials)
        .store(portunus::store::MemoryStore::new())
        .build()
        .unwrap();
    let ask = async |tail: &str| {
        let head = Head::bearer(&format!("eyJ.good.{tail}"));
        service.authenticator().authenticate(&head).await.is_ok()
    };
    assert!(ask("a").await && ask("b").await && ask("a").await && ask("b").await);
    assert_eq!(issuer.asked(), 2);
    service.forget(&KeyId::new("another").unwrap());
    assert!(ask("a").await);
    assert_eq!(issuer.asked(), 2, "the tokens of other ids stay");
    service.forget(&token_id());
    assert!(ask("a").await && ask("b").await);
    assert_eq!(issuer.asked(), 4, "every token of the id is forgotten");

    // An answer from before the call is not remembered after it.
    service.forget(&token_id());
    meanwhile.set(service.clone()).unwrap();
    assert!(ask("a").await);
    *issuer.token.lock().unwrap() = None;
    assert!(!ask("a").await);
}

#[tokio::test]
async fn an_answer_about_a_token_is_not_used_past_its_expiry() {
    let fixture = Fixture::new();
    let issuer = Issuer::of(token().until(fixture.clock.now() + Duration::from_secs(1)));
    let authenticator = fixture.bearer().token_verifier(issuer.clone());
    let authenticator = authenticator.build().unwrap();
    let ask = async || authenticator.authenticate(&Head::bearer(GOOD)).await;
    assert!(ask().await.is_ok());
    fixture.clock.advance(Duration::from_millis(999));
    assert!(ask().await.is_ok());
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(code(&ask().await), ErrorCode::KeyExpired);
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_token_that_was_valid_is_verified_again_despite_failures_of_neighbours() {
    let mut budget = LookupBudget::default();
    budget.per_second_past_failures = 0;
    let (fixture, issuer) = (Fixture::new(), Issuer::of(token()));
    let builder = fixture.bearer().lookup_budget(budget);
    let authenticator = builder.token_verifier(issuer.clone()).build().unwrap();
    let ask = async |token: &str| {
        let head = Head::bearer(token).from("192.0.2.1");
        authenticator.authenticate(&head).await
    };
    assert!(ask(GOOD).await.is_ok());
    for _ in 0..100 {
        assert_eq!(code(&ask(BAD).await), ErrorCode::InvalidKey);
    }
    fixture.clock.advance(Duration::from_secs(10));
    assert!(ask(GOOD).await.is_ok());
    for token in ["eyJ.good.never-seen", BAD] {
        assert_eq!(code(&ask(token).await), ErrorCode::TooManyFailures);
    }
    assert_eq!(issuer.asked(), 102);
}

#[tokio::test]
async fn the_token_cache_is_bounded_by_number_and_size() {
    for (scopes, asked, most) in [(1, 12_000, 10_000), (1_000, 200, 130)] {
        let mut big = token();
        big.scopes = (0..scopes)
            .map(|number| scope(&format!("scope{number}:{}", "x".repeat(40))))
            .collect();
        let (fixture, issuer) = (Fixture::new(), Issuer::of(big));
        let authenticator = fixture.bearer().token_verifier(issuer.clone());
        let authenticator = authenticator.build().unwrap();
        for number in 0..asked {
            let head = Head::bearer(&format!("eyJ.good.{number}"));
            assert!(authenticator.authenticate(&head).await.is_ok());
        }
        assert_eq!(issuer.asked(), asked);
        for number in 0..asked {
            let head = Head::bearer(&format!("eyJ.good.{number}"));
            assert!(authenticator.authenticate(&head).await.is_ok());
        }
        let remembered = 2 * asked - issuer.asked();
        assert!(remembered <= most, "{remembered} of {asked}");
    }
}
