//! The audit trail: the contents of an event, and how omitted events are reported.

use std::cell::Cell;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::AuthError;
use portunus::actor::ActorMode;
use portunus::actor::{Directory, DirectoryError, OwnerStanding, Standing, User, UserRef};
use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditTrail, MemoryAudit};
use portunus::authenticator::Authenticated;
use portunus::key::{Delegation, KeyDigest, KeyKind, Owner, TenantId};
use portunus::limit::{LocalLimiter, OnOutage};
use portunus::manage::NewKey;
use portunus::network::{AllowList, Transport};
use portunus::quota::{Quota, Quotas};
use portunus::request::{FieldName, TlsVersion};
use portunus::scope::{Scope, ScopeModel};
use portunus::store::{KeyStore, StoredKey};
use portunus::{Authenticator, Clock, ErrorCode, RequestHead, ScopeSet};
use portunus_profiles::{Profile, RequestMetadata};
use portunus_test_support::{
    FIND, Fixture, Head, Setup, live, scope, stranger, tenant, test, user,
};

fn per_minute(limit: u64) -> Quotas {
    Quotas::new([Quota::per_minute(limit).unwrap()]).unwrap()
}

/// Reports the result of a request to its audit, as an adapter does.
async fn decide(authenticator: &Authenticator, head: &Head) -> Result<Authenticated, AuthError> {
    let begun = authenticator.begin(head);
    let mut request_audit = begun.request_audit.unwrap();
    let outcome = begun.attempt.outcome().await;
    match &outcome {
        Ok(admission) => {
            if let Some(principal) = &admission.principal {
                request_audit.admitted(principal);
            }
            request_audit.answered(200, None);
        }
        Err(error) => request_audit.answered(error.status(), Some(error)),
    }
    outcome
}

/// A trail into memory, with the fixture's clock.
fn trail(capacity: usize) -> (AuditTrail, MemoryAudit) {
    let log = MemoryAudit::new(10_000);
    let trail = AuditTrail::builder().sink(log.clone()).capacity(capacity);
    (trail.failures_per_source(None).build(), log)
}

async fn written(trail: &AuditTrail, log: &MemoryAudit) -> Vec<AuditEvent> {
    trail.flush().await.unwrap();
    log.all()
}

/// Returns the ids of events, without reports of lost ones.
fn routes(events: &[AuditEvent]) -> Vec<String> {
    events
        .iter()
        .filter_map(|event| event.route.clone())
        .collect()
}

/// Records requests without a key: one event each, distinguished by the path.
async fn note(authenticator: &Authenticator, paths: impl IntoIterator<Item = u32>) {
    for path in paths {
        decide(authenticator, &Head::new().at(&path.to_string()))
            .await
            .unwrap_err();
    }
}

fn texts(paths: impl IntoIterator<Item = u32>) -> Vec<String> {
    paths.into_iter().map(|path| path.to_string()).collect()
}

// ---- contents of an event ----

/// A head that counts how often the client's address is read.
struct Addressed(Head, Cell<u32>);

impl RequestHead for Addressed {
    fn method(&self) -> &str {
        self.0.method()
    }
    fn path(&self) -> &str {
        self.0.path()
    }
    fn peer_ip(&self) -> Option<IpAddr> {
        self.1.set(self.1.get() + 1);
        self.0.peer_ip()
    }
    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        self.0.visit(name, see);
    }
}

#[tokio::test]
async fn the_clients_address_is_resolved_once_for_the_request_and_its_audit() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let (trail, log) = trail(10);
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    let head = Addressed(Head::bearer(&key).from("192.0.2.7"), Cell::new(0));
    let begun = authenticator.begin(&head);
    let principal = begun.attempt.outcome().await.unwrap().into_principal();
    let principal = principal.unwrap();
    assert_eq!(principal.client_ip(), "192.0.2.7".parse().ok());
    let mut request_audit = begun.request_audit.unwrap();
    request_audit.admitted(&principal);
    request_audit.answered(200, None);
    assert_eq!(
        written(&trail, &log).await[0].client_ip,
        principal.client_ip()
    );
    assert_eq!(head.1.get(), 1);
}

#[tokio::test]
async fn an_event_records_actor_action_key_address_and_time() {
    let fixture = Fixture::new();
    let (trail, log) = trail(10);
    let mut new = NewKey::new(
        "key",
        Owner::user(tenant("acme"), user("u1")).with_email("u1@acme.com"),
    );
    new = new.with_scopes([scope("document:read"), scope("a")]);
    new.kind = KeyKind::User;
    let (key, record) = fixture.issue_new(new).await;
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    fixture.clock.advance(Duration::from_nanos(1_234_567_890));
    let head = Head::bearer(&key)
        .at("/a/b")
        .from("203.0.113.7")
        .with("x-request-id", "abc-123");
    decide(&authenticator, &head).await.unwrap();
    let events = written(&trail, &log).await;
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (event.action, event.outcome, event.status),
        (Action::Request, AuditOutcome::Ok, Some(200))
    );
    assert_eq!(
        (event.key_id.as_ref(), event.tenant_id.as_ref()),
        (Some(&record.id), Some(&tenant("acme")))
    );
    assert_eq!(
        (event.environment.as_ref(), event.mode),
        (Some(&live()), Some(ActorMode::User))
    );
    assert_eq!(event.actor, event.subject);
    assert!(event.involves("U1@ACME.COM") && event.involves("u1") && !event.involves("u2"));
    assert_eq!(event.scopes, ["document:read", "a"]);
    assert_eq!(event.client_ip.unwrap().to_string(), "203.0.113.7");
    assert_eq!(
        (event.method.as_deref(), event.route.as_deref()),
        (Some("GET"), Some("/a/b"))
    );
    assert_eq!(event.request_id.as_ref().unwrap().to_string(), "abc-123");
    let json = serde_json::to_value(event).unwrap();
    assert_eq!(json["at"], "2027-01-15T08:00:01.234Z");
    assert_eq!(
        (&json["action"], &json["outcome"]),
        (&"request".into(), &"OK".into())
    );
    assert_eq!(serde_json::from_value::<AuditEvent>(json).unwrap(), *event);
}

#[derive(Debug)]
struct People;

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        tenant: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        match named {
            UserRef::Email(email) if email == "member@example.com" => {
                let id = user("0190f6a0-0000-7000-8000-000000000001");
                Ok(Some(Arc::new(
                    User::new(id, tenant.clone()).with_email("member@example.com"),
                )))
            }
            UserRef::Id(id) if id.as_str() == "down" => {
                Err(DirectoryError::unavailable("no route to host"))
            }
            _ => Ok(None),
        }
    }
}

#[derive(Debug)]
struct Suspended;

#[async_trait]
impl OwnerStanding for Suspended {
    async fn standing(&self, _: &Owner) -> Result<Standing, DirectoryError> {
        Ok(Standing::Suspended)
    }
}

#[derive(Debug)]
struct NoLimiter;

#[async_trait]
impl portunus::RateLimiter for NoLimiter {
    async fn acquire(
        &self,
        _: &portunus::limit::LimitRequest<'_>,
    ) -> Result<portunus::limit::Decision, portunus::limit::LimiterError> {
        Err(portunus::limit::LimiterError::Unavailable(
            "connection refused".into(),
        ))
    }
}

/// A key that may act for users, with a store that answers at once or late.
async fn one_key(
    late: bool,
) -> (
    Fixture,
    AuditTrail,
    MemoryAudit,
    String,
    portunus::key::KeyId,
) {
    let fixture = Fixture::new();
    let (trail, log) = trail(100);
    let mut new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
    new.delegation = Some(Delegation::On);
    let (key, record) = fixture.issue_new(new).await;
    if late {
        fixture.store.answer_late(1);
    }
    (fixture, trail, log, key, record.id.clone())
}

type Build = fn(Setup) -> Setup;
type Ask = fn(Head) -> Head;
type Change = fn(&mut portunus::key::KeyRecord);

#[tokio::test]
async fn a_refused_real_key_is_recorded_for_every_reason_even_if_the_store_answers_late() {
    use ErrorCode as E;
    let same: (Build, Ask, Change) = (|builder| builder, |head| head, |_| {});
    let cases: Vec<(E, (Build, Ask, Change))> = vec![
        (
            E::KeyRevoked,
            (same.0, same.1, |r| {
                r.revoked = Some(portunus::key::Revocation::new(r.created_at, None));
            }),
        ),
        (
            E::KeyExpired,
            (same.0, same.1, |r| r.expires_at = Some(r.created_at)),
        ),
        (E::KeyDisabled, (same.0, same.1, |r| r.enabled = false)),
        (
            E::KeyDisabled,
            (same.0, same.1, |r| {
                r.not_before = Some(r.created_at + Duration::from_secs(1));
            }),
        ),
        (
            E::OwnerSuspended,
            (|b| b.owner_standing(Suspended), same.1, same.2),
        ),
        (
            E::WrongEnvironment,
            (|b| b.environment(test()), same.1, same.2),
        ),
        (
            E::InsecureTransport,
            (
                |b| b.transport(Some(Transport::tls(TlsVersion::V1_3))),
                same.1,
                same.2,
            ),
        ),
        (
            E::IpNotAllowed,
            (same.0, same.1, |r| {
                r.allowed_ips = Some(AllowList::parse(["10.0.0.0/8"]).unwrap());
            }),
        ),
        (
            E::LimiterUnavailable,
            (
                |b| b.limiter(NoLimiter).on_limiter_outage(OnOutage::Closed),
                same.1,
                same.2,
            ),
        ),
        (
            E::InvalidRequest,
            (
                same.0,
                |h| h.with("x-user-id", "a").with("x-on-behalf-of", "b"),
                same.2,
            ),
        ),
        (
            E::UnknownActor,
            (
                |b| b.directory(People),
                |h| h.with("x-on-behalf-of", "who"),
                same.2,
            ),
        ),
        (
            E::UnknownActor,
            (same.0, |h| h.with("x-on-behalf-of", "who"), same.2),
        ),
        (
            E::DirectoryUnavailable,
            (
                |b| b.directory(People),
                |h| h.with("x-user-id", "down"),
                same.2,
            ),
        ),
    ];
    for (code, (build, ask, change)) in cases {
        for late in [false, true] {
            let (fixture, trail, log, key, id) = one_key(late).await;
            fixture.change(&id, change).await;
            let authenticator = build(fixture.bearer().audit(trail.clone()))
                .build()
                .unwrap();
            let error = decide(&authenticator, &ask(Head::bearer(&key)).from("203.0.113.7"))
                .await
                .unwrap_err();
            let events = written(&trail, &log).await;
            let [event] = events.as_slice() else {
                panic!("{code}: {events:?}")
            };
            assert_eq!(
                (error.code(), event.outcome),
                (code, AuditOutcome::Refused(code))
            );
            assert_eq!(event.status, Some(code.status()));
            assert_eq!(
                (event.key_id.as_ref(), error.key_id()),
                (Some(&id), Some(&id)),
                "{code}, late: {late}"
            );
            assert_eq!(event.tenant_id, Some(tenant("acme")), "{code}");
            assert_eq!(
                (event.environment.clone(), event.scopes.as_slice()),
                (Some(live()), &["a".to_owned()][..])
            );
            assert!(
                event.client_ip.is_some() && event.request_id.is_some() && event.route.is_some()
            );
        }
    }
}

#[tokio::test]
async fn a_key_that_used_up_its_quota_is_named() {
    let (fixture, trail, log, key, id) = one_key(false).await;
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    let authenticator = fixture
        .bearer()
        .audit(trail.clone())
        .limiter(limiter)
        .quotas(per_minute(1))
        .build()
        .unwrap();
    decide(&authenticator, &Head::bearer(&key)).await.unwrap();
    decide(&authenticator, &Head::bearer(&key))
        .await
        .unwrap_err();
    let event = written(&trail, &log).await.pop().unwrap();
    assert_eq!(
        (event.outcome.as_str(), event.status, event.key_id),
        ("RATE_LIMITED", Some(429), Some(id))
    );
}

#[derive(Debug)]
struct Understands(&'static str);

impl ScopeModel for Understands {
    fn compile(&self, _: &[Scope]) -> Result<Arc<dyn ScopeSet>, portunus::error::ParseError> {
        Err(Scope::new(self.0).unwrap_err())
    }
}

#[tokio::test]
async fn a_key_whose_grants_cannot_be_understood_is_named() {
    let (fixture, trail, log, key, id) = one_key(false).await;
    let authenticator = fixture
        .bearer()
        .audit(trail.clone())
        .scope_model(Understands(""))
        .build()
        .unwrap();
    decide(&authenticator, &Head::bearer(&key))
        .await
        .unwrap_err();
    let event = written(&trail, &log).await.pop().unwrap();
    assert_eq!(
        (event.outcome.as_str(), event.key_id),
        ("STORE_UNAVAILABLE", Some(id)),
        "or nobody finds the bad record"
    );
}

#[tokio::test]
async fn where_no_real_key_was_presented_none_is_named() {
    for late in [false, true] {
        let (fixture, trail, log, key, _) = one_key(late).await;
        let authenticator = fixture
            .bearer()
            .audit(trail.clone())
            .failure_quotas(Some(per_minute(1)))
            .build()
            .unwrap();
        let wrong = portunus_test_support::with_last_character_wrong(&key);
        let heads = [
            ("MISSING_KEY", Head::new()),
            ("INVALID_FORMAT", Head::bearer("garbage")),
            (
                "INVALID_REQUEST",
                Head::bearer(&key).with("authorization", format!("Bearer {key}")),
            ),
            ("INVALID_KEY", Head::bearer(&wrong)),
            ("INVALID_KEY", Head::bearer(&stranger()).from("192.0.2.1")),
            (
                "TOO_MANY_FAILURES",
                Head::bearer(&stranger()).from("192.0.2.1"),
            ),
        ];
        for (_, head) in &heads {
            decide(&authenticator, head).await.unwrap_err();
        }
        let open = fixture.bearer().audit(trail.clone()).build().unwrap();
        fixture.store.fail(FIND);
        decide(&open, &Head::bearer(&key)).await.unwrap_err();
        let events = written(&trail, &log).await;
        let codes: Vec<_> = events.iter().map(|event| event.outcome.as_str()).collect();
        let expected: Vec<_> = heads
            .iter()
            .map(|(code, _)| *code)
            .chain(["STORE_UNAVAILABLE"])
            .collect();
        assert_eq!(codes, expected);
        for event in events {
            assert!(
                event.key_id.is_none() && event.tenant_id.is_none(),
                "{event:?}"
            );
            assert!(
                event.actor.is_none() && event.subject.is_none() && event.scopes.is_empty(),
                "{event:?}"
            );
        }
    }
}

#[tokio::test]
async fn of_delegation_the_user_is_the_subject_and_the_platform_the_actor() {
    let fixture = Fixture::new();
    let (trail, log) = trail(10);
    let manager = Setup::of(fixture.store.clone(), Profile::AllSign)
        .clock(fixture.clock.clone())
        .manager();
    let owner = Owner::user(tenant("acme"), user("platform")).with_email("platform@app.com");
    let new = NewKey::new("platform", owner)
        .with_scopes([scope("document:read"), scope("document:write")]);
    let key = manager.issue(new).await.unwrap().key.reveal();
    let builder = Setup::of(fixture.store.clone(), Profile::AllSign).clock(fixture.clock.clone());
    let authenticator = builder
        .directory(People)
        .audit(trail.clone())
        .build()
        .unwrap();
    decide(
        &authenticator,
        &Head::bearer(&key).with("x-on-behalf-of", "Member@Example.com"),
    )
    .await
    .unwrap();
    decide(
        &authenticator,
        &Head::bearer(&key).with("x-on-behalf-email", "member@example.com"),
    )
    .await
    .unwrap();
    decide(
        &authenticator,
        &Head::bearer(&key).with("x-on-behalf-of", "nobody@example.com"),
    )
    .await
    .unwrap_err();
    decide(&authenticator, &Head::bearer(&key)).await.unwrap();
    decide(&authenticator, &Head::new()).await.unwrap_err();
    let events = written(&trail, &log).await;
    let json = |at: usize| {
        RequestMetadata::of(&events[at]).map(|data| serde_json::to_string(&data).unwrap())
    };
    let delegated = concat!(
        r#"{"apiKeyOwner":"platform@app.com","onBehalfOf":"member@example.com","#,
        r#""scopes":["document:read","document:write"],"mode":"delegated"}"#
    );
    assert_eq!(json(0).unwrap(), delegated);
    assert_eq!(json(1).unwrap(), delegated.replace("delegated", "app_user"));
    assert_eq!(
        json(2).unwrap(),
        delegated.replace("member@", "nobody@"),
        "whom it asked for"
    );
    let own = concat!(
        r#"{"apiKeyOwner":"platform@app.com","#,
        r#""scopes":["document:read","document:write"],"mode":"app"}"#
    );
    assert_eq!(json(3).unwrap(), own);
    assert_eq!(json(4), None);
    let subjects = events
        .iter()
        .map(|event| event.subject.as_ref()?.user_email.as_deref())
        .collect::<Vec<_>>();
    let expected = [
        Some("member@example.com"),
        Some("member@example.com"),
        Some("nobody@example.com"),
        Some("platform@app.com"),
    ];
    assert_eq!(subjects[..4], expected);
    assert!(
        events[..4]
            .iter()
            .all(|event| event.actor.as_ref().unwrap().is("platform@app.com"))
    );
    assert!(events[2].involves("NOBODY@example.com"));
}

#[tokio::test]
async fn a_key_found_under_a_wrong_digest_is_not_recorded() {
    // If a store answers with another key, that key must not appear in the event.
    let (fixture, trail, log, _, id) = one_key(false).await;
    let record = fixture.store.get(&id).await.unwrap().unwrap();
    let digest: KeyDigest = fixture.hasher.digest("another");
    fixture
        .store
        .always_find(Arc::new(StoredKey::new(digest, record)));
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    decide(&authenticator, &Head::bearer(&stranger()))
        .await
        .unwrap_err();
    let event = written(&trail, &log).await.pop().unwrap();
    assert_eq!(
        (event.outcome.as_str(), event.key_id),
        ("INVALID_KEY", None)
    );
}

// ---- omitted events ----

#[tokio::test]
async fn events_beyond_the_queue_are_counted_and_reported_once() {
    let fixture = Fixture::new();
    let (trail, log) = trail(3);
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    note(&authenticator, 0..5).await;
    assert_eq!(trail.dropped(), 2);
    let events = written(&trail, &log).await;
    assert_eq!(routes(&events), texts(0..3));
    let lost = events.last().unwrap();
    assert_eq!(
        (lost.action, lost.count, lost.outcome),
        (Action::EventsLost, Some(2), AuditOutcome::Ok)
    );
    assert_eq!(lost.at, fixture.clock.now());
    assert_eq!(written(&trail, &log).await.len(), 4, "it is said once");
    note(&authenticator, 5..9).await;
    let events = written(&trail, &log).await;
    assert_eq!(routes(&events), texts([0, 1, 2, 5, 6, 7]));
    assert_eq!(
        (
            events.last().unwrap().count,
            trail.dropped(),
            trail.throttled()
        ),
        (Some(1), 3, 0)
    );
}

#[tokio::test]
async fn repeated_failures_of_one_source_are_recorded_up_to_a_limit() {
    let fixture = Fixture::new();
    let log = MemoryAudit::new(1000);
    let builder = AuditTrail::builder().sink(log.clone());
    let trail = builder.failures_per_source(Some(per_minute(3))).build();
    let (one, first) = fixture.issue(&[]).await;
    let (two, second) = fixture.issue(&[]).await;
    for id in [&first.id, &second.id] {
        fixture.manager().revoke(id, None).await.unwrap();
    }
    let authenticator = fixture
        .bearer()
        .audit(trail.clone())
        .failure_quotas(None)
        .build()
        .unwrap();
    let of = |ip: &str| Head::bearer(&stranger()).from(ip);
    let sources: Vec<Vec<Head>> = vec![
        // A key, from any address.
        (1..=5)
            .map(|last| Head::bearer(&one).from(&format!("203.0.113.{last}")))
            .collect(),
        (1..=5)
            .map(|_| Head::bearer(&two).from("203.0.113.1"))
            .collect(),
        (1..=5).map(|_| of("203.0.113.1")).collect(),
        (1..=5).map(|_| of("203.0.113.2")).collect(),
        (1..=5)
            .map(|last| of(&format!("2001:db8::{last}")))
            .collect(),
        (1..=5)
            .map(|last| of(&format!("2001:db8:0:1::{last}")))
            .collect(),
        vec![Head::bearer(&stranger()); 5],
    ];
    let count = sources.len();
    for source in sources {
        let before = trail.throttled();
        for head in source {
            decide(&authenticator, &head).await.unwrap_err();
        }
        assert_eq!(trail.throttled() - before, 2);
    }
    let events = written(&trail, &log).await;
    assert_eq!(
        events
            .iter()
            .filter(|event| event.action == Action::Request)
            .count(),
        3 * count
    );
    assert_eq!(events.last().unwrap().count, Some(2 * count as u64));
    assert_eq!(trail.dropped(), 0);
    fixture.clock.advance(Duration::from_secs(61));
    decide(&authenticator, &of("203.0.113.1"))
        .await
        .unwrap_err();
    assert_eq!(
        trail.throttled(),
        2 * count as u64,
        "its time has come again"
    );
}

#[tokio::test]
async fn a_distributed_flood_does_not_hide_the_acts_of_a_real_key() {
    let fixture = Fixture::new();
    let log = MemoryAudit::new(10);
    let trail = AuditTrail::builder()
        .sink(log.clone())
        .capacity(100_000)
        .build();
    let (key, record) = fixture.issue(&[]).await;
    fixture.manager().revoke(&record.id, None).await.unwrap();
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    for network in 0..50_100_u32 {
        let ip = format!("2001:db8:{:x}:{:x}::1", network >> 16, network & 0xffff);
        decide(&authenticator, &Head::new().from(&ip))
            .await
            .unwrap_err();
    }
    decide(&authenticator, &Head::bearer(&key))
        .await
        .unwrap_err();
    let events = written(&trail, &log).await;
    assert!(
        events
            .iter()
            .any(|event| event.key_id.as_ref() == Some(&record.id)),
        "{} throttled",
        trail.throttled()
    );
}

#[tokio::test]
async fn successes_are_left_out_where_a_host_says_so() {
    let (fixture, _, log, key, _) = one_key(false).await;
    let trail = AuditTrail::builder()
        .sink(log.clone())
        .successes(false)
        .build();
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    decide(&authenticator, &Head::bearer(&key)).await.unwrap();
    decide(&authenticator, &Head::new()).await.unwrap_err();
    let events = written(&trail, &log).await;
    assert_eq!(
        events
            .iter()
            .map(|event| event.outcome.as_str())
            .collect::<Vec<_>>(),
        ["MISSING_KEY"]
    );
    assert_eq!(
        (trail.dropped(), trail.throttled()),
        (0, 0),
        "what was not wanted is not lost"
    );
}

#[tokio::test]
async fn an_admitted_anonymous_request_is_not_an_event() {
    let (fixture, trail, log, ..) = one_key(false).await;
    let authenticator = fixture
        .bearer()
        .optional()
        .audit(trail.clone())
        .build()
        .unwrap();
    decide(&authenticator, &Head::new()).await.unwrap();
    assert!(written(&trail, &log).await.is_empty());
}

#[tokio::test]
async fn a_witness_that_is_dropped_says_that_the_caller_went_away() {
    let (fixture, trail, log, key, id) = one_key(false).await;
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    let head = Head::bearer(&key);
    let mut request_audit = authenticator.request_audit(&head).unwrap();
    request_audit.admitted(
        authenticator
            .authenticate(&head)
            .await
            .unwrap()
            .principal
            .as_ref()
            .unwrap(),
    );
    drop(request_audit);
    let event = written(&trail, &log).await.pop().unwrap();
    assert_eq!(
        (event.outcome, event.key_id, event.status),
        (AuditOutcome::Abandoned, Some(id), None)
    );
}
// ---- events that are never omitted, and their bounds ----

#[tokio::test]
async fn an_admitted_request_is_recorded_however_often_the_key_was_refused() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let log = MemoryAudit::new(10_000);
    let trail = AuditTrail::builder().sink(log.clone());
    let trail = trail.build();
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    // The key's share of refusals is used up: its requests are admitted, and refused by a route.
    let forbidden = portunus::AuthError::new(ErrorCode::InsufficientScope);
    let begin = async || {
        let begun = authenticator.begin(&Head::bearer(&key));
        let mut request_audit = begun.request_audit.unwrap();
        let admission = begun.attempt.outcome().await.unwrap();
        request_audit.admitted(&admission.into_principal().unwrap());
        request_audit
    };
    for _ in 0..50 {
        begin().await.answered(403, Some(&forbidden));
        fixture.clock.advance(Duration::from_secs(2));
    }
    fixture.clock.advance(Duration::from_secs(3600));
    for _ in 0..55 {
        begin().await.answered(403, Some(&forbidden));
        begin().await.answered(403, Some(&forbidden));
        fixture.clock.advance(Duration::from_millis(1));
        if trail.throttled() > 0 {
            break;
        }
        fixture.clock.advance(Duration::from_millis(400));
    }
    let refused = trail.throttled();
    // The client closes the connection before there is a response, or makes the handler fail.
    for _ in 0..3 {
        drop(begin().await);
        begin().await.failed();
    }
    assert_eq!(trail.throttled(), refused, "only refusals are throttled");
    let events = written(&trail, &log).await;
    let of = |outcome| {
        let of_key = |event: &&AuditEvent| event.key_id.as_ref() == Some(&record.id);
        let events = events.iter().filter(of_key);
        events.filter(|event| event.outcome == outcome).count()
    };
    assert_eq!(of(AuditOutcome::Abandoned), 3);
    assert_eq!(of(AuditOutcome::Failed), 3);
    // A caller who was never admitted has no events of its own.
    let unknown = || {
        let head = Head::new().from("192.0.2.7");
        drop(authenticator.begin(&head).request_audit.unwrap());
    };
    (0..150).for_each(|_| unknown());
    assert_eq!(trail.throttled(), refused + 50);
}

#[tokio::test]
async fn an_event_of_a_crafted_key_is_bounded_and_says_how_much_more_there_is() {
    let fixture = Fixture::new();
    let name = |kind: &str, number: u32| format!("{kind}{number:0>100}");
    let scopes: Vec<_> = (0..256).map(|number| name("scope", number)).collect();
    let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
    let workspaces = (0..1000).map(|number| name("ws", number).parse().unwrap());
    let workspaces: Vec<portunus::key::WorkspaceId> = workspaces.collect();
    let mut new = NewKey::new("crafted", Owner::tenant(tenant("acme")));
    new.scopes = scopes.iter().map(|text| scope(text)).collect();
    new.workspaces = Some(workspaces.clone());
    let issued = fixture.manager().issue(new).await.unwrap();
    let key = issued.key.reveal();
    let (trail, log) = trail(100);
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    decide(&authenticator, &Head::bearer(&key)).await.unwrap();
    let event = written(&trail, &log).await.remove(0);
    let json = serde_json::to_string(&event).unwrap();
    assert!(json.len() < 12_000, "{}", json.len());
    assert_eq!(event.scopes.len() as u64 + event.more_scopes, 256);
    let named = event.workspaces.as_ref().unwrap();
    assert_eq!(named.len() as u64 + event.more_workspaces, 1000);
    assert!(event.scopes.len() > 30 && named.len() > 30);
    assert_eq!(serde_json::from_str::<AuditEvent>(&json).unwrap(), event);
    // An operator restricted to the named workspaces must not see events of a wider reach.
    let mut query = portunus::audit::EventQuery::new();
    query.within_workspaces = Some(named.clone());
    assert!(!query.selects(&event));
    query.within_workspaces = None;
    assert!(query.selects(&event));
}

#[tokio::test]
async fn an_event_of_an_ordinary_key_names_everything() {
    let fixture = Fixture::new();
    let names: Vec<_> = (0..40)
        .map(|number| format!("resource{number}:read"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (key, _) = fixture.issue(&names).await;
    let (trail, log) = trail(100);
    let authenticator = fixture.bearer().audit(trail.clone()).build().unwrap();
    decide(&authenticator, &Head::bearer(&key)).await.unwrap();
    let event = written(&trail, &log).await.remove(0);
    assert_eq!((event.scopes.len(), event.more_scopes), (40, 0));
    assert!(!serde_json::to_string(&event).unwrap().contains("more_"));
}
