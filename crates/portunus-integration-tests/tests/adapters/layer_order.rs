//! The usual layers around ours, in the order documented in `adapter::tower`, over a real socket:
//! each also works on refusals, and none logs a key.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::wire::{Reply, Wire, serve};
use axum::Router;
use http::header::{AUTHORIZATION, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use portunus::adapter::axum::{ProtectedRouter, get};
use portunus::adapter::tower::AuthLayer;
use portunus::audit::{AuditEvent, AuditOutcome, AuditTrail, MemoryAudit};
use portunus::key::Owner;
use portunus::limit::LocalLimiter;
use portunus::manage::NewKey;
use portunus::quota::{Quota, Quotas};
use portunus::testing::ManualClock;
use portunus_test_support::gated::READ;
use portunus_test_support::{FaultyStore, Setup, format, live, scope, stranger, tenant};
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};

const ORIGIN: &str = "https://app.example";

struct Site {
    address: SocketAddr,
    store: FaultyStore,
    trail: AuditTrail,
    log: MemoryAudit,
    /// A key with the scope `a`.
    key: String,
    /// A key without scopes.
    weak: String,
}

/// The documented order, outermost first.
fn around(app: Router, limit: Duration) -> Router {
    let cors = CorsLayer::new()
        .allow_origin([ORIGIN.parse().unwrap()])
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([AUTHORIZATION])
        .expose_headers([
            HeaderName::from_static("ratelimit"),
            RETRY_AFTER,
            WWW_AUTHENTICATE,
        ]);
    let with_fields = DefaultMakeSpan::new()
        .level(tracing::Level::INFO)
        .include_headers(true);
    app.layer(
        ServiceBuilder::new()
            .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(TraceLayer::new_for_http().make_span_with(with_fields))
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(cors)
            .layer(CompressionLayer::new())
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                limit,
            )),
    )
}

async fn site(limit: Duration) -> Site {
    let (clock, store, log) = (
        ManualClock::new(),
        FaultyStore::new(),
        MemoryAudit::new(100),
    );
    store.answer_late(1);
    let manager = Setup::on(store.clone())
        .bearer([format()])
        .environments([live()])
        .clock(clock.clone());
    let manager = manager.manager();
    let issue = async |scopes: &[&str]| {
        let new = NewKey::new("key", Owner::tenant(tenant("acme")))
            .with_scopes(scopes.iter().map(|text| scope(text)));
        manager.issue(new).await.unwrap().key.reveal()
    };
    let (key, weak) = (issue(&["a"]).await, issue(&[]).await);
    let trail = AuditTrail::builder().sink(log.clone()).build();
    let authenticator = Setup::on(store.clone())
        .bearer([format()])
        .limiter(LocalLimiter::builder().clock(clock.clone()).build())
        .quotas(Quotas::new([Quota::per_minute(3).unwrap()]).unwrap())
        .audit(trail.clone())
        .clock(clock)
        .build()
        .unwrap();
    let app = ProtectedRouter::new(AuthLayer::new(authenticator))
        .route(
            "/x",
            get(|| async { "a document, long enough to be worth compressing" }).require(scope("a")),
        )
        .into_router();
    Site {
        address: serve(around(app, limit)).await,
        store,
        trail,
        log,
        key,
        weak,
    }
}

impl Site {
    async fn ask(&self, key: &str, more: &[(&str, &str)]) -> (Reply, Wire) {
        let authorization = format!("Bearer {key}");
        let mut fields = vec![("origin", ORIGIN)];
        if !key.is_empty() {
            fields.push(("authorization", &authorization));
        }
        fields.extend_from_slice(more);
        let mut wire = Wire::to(self.address).await;
        (wire.ask("GET /x", &fields).await, wire)
    }

    async fn last_event(&self) -> AuditEvent {
        self.trail.flush().await.unwrap();
        self.log.all().pop().expect("an event")
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_key_and_reaches_no_store() {
    let site = site(crate::wire::PATIENCE).await;
    let fields = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let reply = Wire::to(site.address)
        .await
        .ask("OPTIONS /x", &fields)
        .await;
    assert_eq!(
        (reply.status, reply.get("access-control-allow-origin")),
        (200, Some(ORIGIN))
    );
    assert_eq!(
        reply.get("access-control-allow-headers"),
        Some("authorization")
    );
    assert_eq!(site.store.finds(), 0);
    site.trail.flush().await.unwrap();
    assert!(site.log.all().is_empty());
}

#[tokio::test]
async fn every_refusal_carries_the_fields_of_cors_and_the_id_that_the_audit_knows() {
    let site = site(crate::wire::PATIENCE).await;
    let (key, weak, stranger) = (site.key.clone(), site.weak.clone(), stranger());
    let mut cases = vec![
        ("", 401),
        ("garbage", 401),
        (&*stranger, 401),
        (&*weak, 403),
    ];
    cases.extend([(&*key, 200), (&*key, 200), (&*key, 200), (&*key, 429)]);
    for (key, status) in cases {
        let (reply, _) = site.ask(key, &[]).await;
        assert_eq!(
            (reply.status, reply.get("access-control-allow-origin")),
            (status, Some(ORIGIN))
        );
        assert_eq!(
            reply.get("access-control-expose-headers"),
            Some("ratelimit,retry-after,www-authenticate")
        );
        assert_eq!(reply.get("retry-after").is_some(), status == 429);
        let event = site.last_event().await;
        assert_eq!(event.status, Some(status));
        assert_eq!(
            event.request_id.unwrap().to_string(),
            reply.get("x-request-id").unwrap()
        );
    }
    let (reply, _) = site.ask("", &[("x-request-id", "from-the-caller")]).await;
    assert_eq!(reply.get("x-request-id"), Some("from-the-caller"));
    assert_eq!(
        site.last_event().await.request_id.unwrap().to_string(),
        "from-the-caller"
    );
}

#[tokio::test]
async fn answers_and_refusals_are_compressed_and_keep_their_fields() {
    let site = site(crate::wire::PATIENCE).await;
    for (key, status, told) in [
        (&site.key, 200, "ratelimit"),
        (&stranger(), 401, "www-authenticate"),
    ] {
        let (reply, mut wire) = site.ask(key, &[("accept-encoding", "gzip")]).await;
        assert_eq!(
            (reply.status, reply.get("content-encoding")),
            (status, Some("gzip"))
        );
        assert!(
            reply.get(told).is_some() && reply.get("transfer-encoding") == Some("chunked"),
            "{reply:?}"
        );
        assert!(wire.first_chunk_bytes().await.starts_with(&[0x1F, 0x8B]));
    }
}

#[tokio::test]
async fn an_outer_timeout_also_bounds_the_lookup_and_the_audit_outcome_is_abandoned() {
    let site = site(Duration::from_secs(1)).await;
    site.store.hold(READ);
    let (reply, _) = site.ask(&site.key, &[]).await;
    assert_eq!(
        (reply.status, reply.get("access-control-allow-origin")),
        (504, Some(ORIGIN))
    );
    let event = site.last_event().await;
    assert_eq!(
        (event.outcome, event.status),
        (AuditOutcome::Abandoned, None)
    );
    site.store.release(READ);
    assert_eq!(site.ask(&site.key, &[]).await.0.status, 200);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_trace_of_all_fields_shows_the_id_and_no_key() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let site = site(crate::wire::PATIENCE).await;
    for key in [&site.key, &site.weak, &stranger()] {
        let (reply, _) = site.ask(key, &[]).await;
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(
            text.contains(reply.get("x-request-id").unwrap()) && text.contains("Sensitive"),
            "{text}"
        );
        assert!(!text.contains(key.as_str()), "{text}");
    }
}
