//! Failed calls are counted, limited and recorded: for the client address without an authenticated
//! operator, otherwise for the operator, and never for anyone else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::request::Parts;
use portunus::audit::{AuditEvent, AuditTrail, MemoryAudit};
use portunus::key::{Alphabet, KeyFormat, Owner, TenantId, UserId};
use portunus::manage::{KeyManager, NewKey, Operator, Role};
use portunus::quota::{Quota, Quotas};
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus::{AuthError, ErrorCode, Scope};
use portunus_admin::{Admin, OperatorProof};
use portunus_test_support::Setup;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;

/// A proof that accepts an operator's name; it blocks while there are no permits.
#[derive(Debug, Clone)]
struct Names {
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

#[async_trait]
impl OperatorProof for Names {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.acquire().await);
        let value = request.headers.get("authorization");
        let name = value.map_or("", |value| value.to_str().unwrap());
        let tenant = |name| TenantId::new(name).unwrap();
        let (tenant, role) = match name {
            "" => return Err(AuthError::new(ErrorCode::MissingKey)),
            "down" => {
                let why = "sso.internal does not answer";
                return Err(AuthError::unavailable(ErrorCode::DirectoryUnavailable, why));
            }
            "host" => return Ok(Operator::host()),
            "owner" => (tenant("tenant_ours"), Role::Owner),
            "member" => (tenant("tenant_ours"), Role::Member),
            "outsider" => (tenant("tenant_theirs"), Role::Owner),
            _ => return Err(AuthError::new(ErrorCode::InvalidKey)),
        };
        Ok(Operator::new(UserId::new(name).unwrap(), tenant, role)
            .with_authority([Scope::new("*").unwrap()]))
    }
}

pub(crate) struct LimitedApi {
    router: Router,
    manager: KeyManager,
    pub(crate) clock: ManualClock,
    pub(crate) trail: AuditTrail,
    log: MemoryAudit,
    /// How many events were read.
    seen: AtomicUsize,
    proof: Names,
}

pub(crate) const HERE: &str = "192.0.2.1";
const THERE: &str = "198.51.100.1";

/// A proof that never blocks.
const OPEN: usize = 1_000_000;

impl LimitedApi {
    pub(crate) fn new() -> Self {
        Self::with(|admin| admin)
    }

    pub(crate) fn with(set: impl FnOnce(Admin) -> Admin) -> Self {
        let (clock, log) = (ManualClock::new(), MemoryAudit::new(100_000));
        let trail = AuditTrail::builder().sink(log.clone()).build();
        let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
        let keys = Setup::on(MemoryStore::new())
            .bearer([format.build().unwrap()])
            .clock(clock.clone())
            .audit(trail.clone())
            .keys();
        let proof = Names {
            asked: Arc::default(),
            gate: Arc::new(Semaphore::new(OPEN)),
        };
        let admin = Admin::new(&keys, proof.clone()).events(log.clone());
        let router = Router::new().nest("/admin", set(admin).into_router());
        Self {
            router,
            manager: keys.manager().clone(),
            clock,
            trail,
            log,
            seen: AtomicUsize::new(0),
            proof,
        }
    }

    /// The status and the body of a response.
    pub(crate) async fn send(
        &self,
        from: &str,
        by: &str,
        ask: &str,
        body: Option<&str>,
    ) -> (u16, Value) {
        let answer = self.router.clone().oneshot(request(from, by, ask, body));
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        if status == 429 {
            assert!(answer.headers().contains_key("retry-after"), "{ask}");
        }
        let whole = axum::body::to_bytes(answer.into_body(), usize::MAX).await;
        (
            status,
            serde_json::from_slice(&whole.unwrap()).unwrap_or(Value::Null),
        )
    }

    pub(crate) async fn status(&self, from: &str, by: &str, ask: &str) -> u16 {
        self.send(from, by, ask, None).await.0
    }

    /// Uses up this client's failure quota.
    async fn exhaust(&self, from: &str, by: &str) {
        for _ in 0..100 {
            assert_eq!(self.status(from, by, "GET /keys").await, 401);
        }
        assert_eq!(self.status(from, by, "GET /keys").await, 429);
    }

    /// Returns everything recorded since the last call, in order.
    pub(crate) async fn events(&self) -> Vec<AuditEvent> {
        self.trail.flush().await.unwrap();
        let all = self.log.all();
        let seen = self.seen.swap(all.len(), Ordering::SeqCst);
        all[seen..].to_vec()
    }

    fn asked(&self) -> usize {
        self.proof.asked.swap(0, Ordering::SeqCst)
    }

    pub(crate) async fn issue(&self) -> (String, String) {
        let owner = Owner::tenant(TenantId::new("tenant_ours").unwrap());
        let issued = self.manager.issue(NewKey::new("key", owner)).await.unwrap();
        (issued.record.id.to_string(), issued.key.reveal())
    }
}

fn request(from: &str, by: &str, ask: &str, body: Option<&str>) -> Request<Body> {
    let (method, path) = ask.split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/admin{path}"));
    if !by.is_empty() {
        request = request.header("authorization", by);
    }
    if let Ok(ip) = from.parse() {
        request = request.extension(ConnectInfo(SocketAddr::new(ip, 4711)));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map(str::to_owned).map_or_else(Body::empty, Body::from);
    request.body(body).unwrap()
}

pub(crate) fn outcomes(events: &[AuditEvent]) -> Vec<&str> {
    events.iter().map(|event| event.outcome.as_str()).collect()
}

#[tokio::test]
async fn the_hundred_and_first_failed_proof_of_an_address_in_a_minute_is_429() {
    let api = LimitedApi::new();
    api.exhaust(HERE, "stranger").await;
    let (status, problem) = api.send(HERE, "stranger", "GET /keys", None).await;
    assert_eq!(
        (status, &problem["code"]),
        (429, &json!("TOO_MANY_FAILURES"))
    );
    assert_eq!(api.status(HERE, "", "POST /keys").await, 429);
    assert_eq!(api.status(THERE, "stranger", "GET /keys").await, 401);
    api.clock.advance(Duration::from_secs(61));
    assert_eq!(api.status(HERE, "stranger", "GET /keys").await, 401);
}

#[tokio::test]
async fn every_call_without_a_proven_operator_counts() {
    let cross_site = || {
        let mut request = request(HERE, "owner", "POST /keys", Some("{}"));
        let site = "cross-site".parse().unwrap();
        request.headers_mut().insert("sec-fetch-site", site);
        request
    };
    let api = LimitedApi::new();
    for _ in 0..25 {
        for (by, ask, status) in [
            ("stranger", "GET /openapi.json", 401),
            ("", "GET /nowhere", 404),
            ("stranger", "PUT /keys", 405),
        ] {
            assert_eq!(api.status(HERE, by, ask).await, status, "{ask}");
        }
        let refused = api.router.clone().oneshot(cross_site()).await.unwrap();
        assert_eq!(refused.status(), 403);
    }
    for (by, ask) in [
        ("stranger", "GET /openapi.json"),
        ("", "GET /nowhere"),
        ("stranger", "PUT /keys"),
        ("", "POST /verify"),
    ] {
        assert_eq!(api.status(HERE, by, ask).await, 429, "{ask}");
    }
    let refused = api.router.clone().oneshot(cross_site()).await.unwrap();
    assert_eq!(refused.status(), 429);
}

#[tokio::test]
async fn an_operator_is_not_affected_by_failing_clients() {
    let api = LimitedApi::new();
    for attempt in 0..600 {
        api.status(HERE, &format!("stranger{attempt}"), "GET /keys")
            .await;
    }
    // This operator has not been seen here before.
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 200);
    assert_eq!(api.status(HERE, "owner", "GET /nowhere").await, 404);
    assert_eq!(api.status(HERE, "stranger", "GET /keys").await, 429);
}

#[tokio::test]
async fn in_a_flood_known_credentials_are_asked_about_and_others_four_times_a_second() {
    let api = LimitedApi::new();
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 200);
    for attempt in 0..1200 {
        api.status(HERE, &format!("stranger{attempt}"), "GET /keys")
            .await;
    }
    // The allowed ones, ten times as many, and a trickle.
    assert_eq!(api.asked(), 1 + 100 + 1000 + 4);
    for _ in 0..50 {
        assert_eq!(api.status(HERE, "owner", "GET /keys").await, 200);
    }
    assert_eq!(api.asked(), 50);
    assert_eq!(api.status(HERE, "outsider", "GET /keys").await, 429);
    assert_eq!(api.status(THERE, "host", "GET /keys").await, 200);
    api.clock.advance(Duration::from_millis(1001));
    api.asked();
    assert_eq!(api.status(HERE, "outsider", "GET /keys").await, 200);
    for attempt in 0..50 {
        assert_eq!(
            api.status(HERE, &format!("x{attempt}"), "GET /keys").await,
            429
        );
    }
    assert_eq!(api.asked(), 4);
}

#[tokio::test]
async fn credentials_that_fail_are_known_no_more() {
    let api = LimitedApi::new();
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 200);
    api.clock.advance(Duration::from_secs(601));
    assert_eq!(api.status(HERE, "outsider", "GET /keys").await, 200);
    for attempt in 0..1200 {
        api.status(HERE, &format!("stranger{attempt}"), "GET /keys")
            .await;
    }
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 429);
    assert_eq!(api.status(HERE, "outsider", "GET /keys").await, 200);
}

#[tokio::test]
async fn ipv6_clients_are_counted_by_their_networks() {
    let api = LimitedApi::new();
    // A /64 has a hundred failures, over all its addresses.
    for host in 0..100 {
        let from = format!("2001:db8::{host:x}");
        assert_eq!(api.status(&from, "", "GET /keys").await, 401);
    }
    assert_eq!(api.status("2001:db8::ffff", "", "GET /keys").await, 429);
    // Four times as many for the /56, sixteen times as many for the /48.
    for (step, more) in [(1, 300), (0x100, 1200)] {
        for failed in 0..=more {
            let network = (1 + failed % 255) * step;
            let from = format!("2001:db8:0:{network:x}::1");
            let status = api.status(&from, "", "GET /keys").await;
            assert_eq!(
                status,
                if failed < more { 401 } else { 429 },
                "{from} {failed}"
            );
        }
    }
    assert_eq!(api.status("2001:db8:1::1", "", "GET /keys").await, 401);
    assert_eq!(api.status("2001:db8::1", "owner", "GET /keys").await, 200);
    // An IPv4 client is the same in either family.
    api.exhaust("::ffff:192.0.2.1", "").await;
    assert_eq!(api.status(HERE, "", "GET /keys").await, 429);
}

#[tokio::test]
async fn proof_outages_and_clients_without_an_address_are_not_counted() {
    let api = LimitedApi::new();
    for _ in 0..150 {
        assert_eq!(api.status(HERE, "down", "GET /keys").await, 503);
        assert_eq!(api.status("", "stranger", "GET /keys").await, 401);
    }
    assert_eq!(api.status(HERE, "stranger", "GET /keys").await, 401);
}

#[tokio::test]
async fn a_host_sets_how_much_may_fail() {
    let two = Quotas::new([Quota::per_minute(2).unwrap()]).unwrap();
    let api = LimitedApi::with(|admin| admin.failures(Some(two)));
    for status in [401, 401, 429, 429] {
        assert_eq!(api.status(HERE, "", "GET /keys").await, status);
    }
    let api = LimitedApi::with(|admin| admin.failures(None));
    for _ in 0..1500 {
        assert_eq!(api.status(HERE, "", "GET /keys").await, 401);
    }
}

#[tokio::test]
async fn errors_of_a_proven_operator_count_against_its_own_quota_only() {
    let quota = Quotas::new([Quota::per_minute(200).unwrap()]).unwrap();
    let api = LimitedApi::with(|admin| admin.quotas(Some(quota)));
    for _ in 0..50 {
        for (ask, body, status) in [
            ("GET /keys/unknown", None, 404),
            ("GET /nowhere", None, 404),
            ("PUT /keys", None, 405),
            ("POST /keys", Some("{"), 400),
        ] {
            assert_eq!(api.send(HERE, "owner", ask, body).await.0, status, "{ask}");
        }
    }
    for ask in ["GET /keys", "GET /nowhere", "PUT /keys"] {
        let (status, problem) = api.send(HERE, "owner", ask, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (429, &json!("RATE_LIMITED")),
            "{ask}"
        );
    }
    // Neither counts as a failure of the address, nor of other clients there.
    assert_eq!(api.status(HERE, "outsider", "GET /keys").await, 200);
    assert_eq!(api.status(HERE, "stranger", "GET /keys").await, 401);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_is_proven_has_failed() {
    let api = LimitedApi::new();
    api.proof.gate.forget_permits(OPEN);
    for _ in 0..100 {
        let router = api.router.clone();
        let call = tokio::spawn(router.oneshot(request(HERE, "owner", "GET /keys", None)));
        while api.asked() == 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    api.proof.gate.add_permits(OPEN);
    assert_eq!(api.status(HERE, "stranger", "GET /keys").await, 429);
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 200);
    let events = api.events().await;
    assert_eq!(outcomes(&events[..100]), ["ABANDONED"; 100]);
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_hangs_is_503_and_not_counted() {
    let api = LimitedApi::new();
    api.proof.gate.forget_permits(OPEN);
    let began = tokio::time::Instant::now();
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 503);
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    api.proof.gate.add_permits(OPEN);
    assert_eq!(api.status(HERE, "stranger", "GET /keys").await, 401);
}

#[tokio::test(start_paused = true)]
async fn so_many_proofs_are_asked_for_at_once_and_known_operators_wait_for_none() {
    let api = LimitedApi::new();
    assert_eq!(api.status(HERE, "owner", "GET /keys").await, 200);
    api.asked();
    api.proof.gate.forget_permits(OPEN);
    let mut calls = JoinSet::new();
    let mut call = |from: &str, by: &str| {
        let router = api.router.clone();
        let request = request(from, by, "GET /keys", None);
        calls.spawn(async move { router.oneshot(request).await.unwrap().status().as_u16() });
    };
    for attempt in 0..100 {
        call(HERE, &format!("stranger{attempt}"));
    }
    settle().await;
    assert_eq!(api.asked(), 16, "for one client");
    // Permits are per client address, and the node has more of them.
    for client in 0..100 {
        call(&format!("203.0.113.{client}"), "stranger");
    }
    settle().await;
    assert_eq!(api.asked(), 48, "of the node");
    call(HERE, "owner");
    settle().await;
    assert_eq!(api.asked(), 1, "of a known operator");
    // After waiting for a second, a call is refused.
    let mut statuses = Vec::new();
    while statuses.len() < 136 {
        statuses.push(calls.join_next().await.unwrap().unwrap());
    }
    assert_eq!(statuses, [503; 136]);
    api.proof.gate.add_permits(OPEN);
    let mut statuses = calls.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200], vec![401; 64]].concat());
}

/// Lets every caller continue as far as possible.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}
