//! Reads neither write nor wait for writers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use portunus::Authenticator;
use portunus::audit::{AuditError, AuditEvent, AuditSink, AuditTrail, MemoryAudit};
use portunus::key::{Alphabet, KeyFormat, Owner, TenantId};
use portunus::manage::NewKey;
use portunus::store::StoreError;
use portunus::testing::{Call, FaultyStore, Point, TestRequest};
use portunus_admin::Admin;
use portunus_test_support::Setup;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::fixture::{Answer, Ask, NEST, Names, send};

/// A log that accepts as many batches as there are permits.
#[derive(Debug, Clone)]
struct Slow {
    kept: MemoryAudit,
    gate: Arc<Semaphore>,
}

#[async_trait]
impl AuditSink for Slow {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        self.gate
            .acquire()
            .await
            .map_err(AuditError::unavailable)?
            .forget();
        self.kept.record(events).await
    }
}

struct Node {
    router: Router,
    store: FaultyStore,
    sink: Slow,
    trail: AuditTrail,
    authenticator: Authenticator,
    id: String,
    secret: String,
}

impl Node {
    async fn new() -> Self {
        let store = FaultyStore::new();
        let sink = Slow {
            kept: MemoryAudit::new(1000),
            gate: Arc::new(Semaphore::new(0)),
        };
        let trail = AuditTrail::new([sink.clone()]);
        let format = KeyFormat::builder("acme_")
            .random(Alphabet::BASE62, 32)
            .build()
            .unwrap();
        let keys = Setup::on(store.clone())
            .bearer([format])
            .audit(trail.clone())
            .keys();
        let owner = Owner::tenant(TenantId::new("tenant_ours").unwrap());
        let issued = keys
            .manager()
            .issue(NewKey::new("key", owner))
            .await
            .unwrap();
        let admin = Admin::new(&keys, Names).events(sink.kept.clone());
        Self {
            router: Router::new().nest(NEST, admin.into_router()),
            store,
            sink,
            trail,
            authenticator: keys.authenticator().clone(),
            id: issued.record.id.to_string(),
            secret: issued.key.reveal(),
        }
    }

    /// The host's task that flushes the audit queue.
    fn flush_when_asked(&self) {
        let trail = self.trail.clone();
        tokio::spawn(async move {
            loop {
                trail.flush_requested().await;
                let _ = trail.flush().await;
            }
        });
    }

    async fn use_key(&self) {
        let request = TestRequest::get("/").bearer(&self.secret);
        self.authenticator.authenticate(&request).await.unwrap();
    }

    async fn get(&self, path: &str) -> Answer {
        let answer = send(&self.router, &Ask::new("GET", path).of(&self.id)).await;
        assert_eq!(answer.status, 200, "{path}");
        answer
    }
}

fn items(answer: &Answer) -> usize {
    answer.json()["items"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn keys_are_read_although_nothing_can_be_written() {
    let node = Node::new().await;
    node.flush_when_asked();
    node.use_key().await;
    node.use_key().await;
    node.store.hold(Point::Before(Call::RecordUsage));
    let writes = node.store.writes();
    for path in ["/keys", "/keys/{id}", "/keys/{id}/usage"] {
        let answer = node.get(path).await.json();
        let shown = if path == "/keys" {
            &answer["items"][0]
        } else {
            &answer
        };
        assert_eq!(shown["request_count"], 2, "{path}");
        assert!(shown["last_used_at"].is_string(), "{path}");
        if path.ends_with("usage") {
            let counts: Vec<_> = shown["hours"].as_array().unwrap().iter().collect();
            let count: u64 = counts
                .iter()
                .filter_map(|hour| hour["count"].as_u64())
                .sum();
            assert_eq!(count, 2);
        }
    }
    assert_eq!(
        (node.store.writes(), node.sink.kept.all()),
        (writes, vec![])
    );
    // The response to a change shows the same.
    let revoke = Ask::new("POST", "/keys/{id}/revoke").of(&node.id);
    assert_eq!(send(&node.router, &revoke).await.json()["request_count"], 2);
}

#[tokio::test(start_paused = true)]
async fn reading_events_waits_half_a_second_for_a_hanging_sink_and_shows_stored_ones() {
    let node = Node::new().await;
    node.flush_when_asked();
    let before = Instant::now();
    assert_eq!(items(&node.get("/events").await), 0);
    let waited = before.elapsed();
    assert!(
        waited >= Duration::from_millis(500) && waited < Duration::from_millis(600),
        "{waited:?}"
    );
    // As soon as the sink continues, without further waiting.
    node.sink.gate.add_permits(1000);
    let before = Instant::now();
    assert_eq!(items(&node.get("/events").await), 1);
    assert!(before.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn events_are_read_although_no_task_flushes() {
    let node = Node::new().await;
    assert_eq!(items(&node.get("/events").await), 0);
    node.sink.gate.add_permits(1000);
    node.trail.flush().await.unwrap();
    // Nothing is pending, so there is no waiting.
    let before = Instant::now();
    assert_eq!(items(&node.get("/events").await), 1);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_read_loses_no_events_and_counts() {
    let node = Node::new().await;
    node.flush_when_asked();
    node.use_key().await;
    for path in ["/events", "/keys", "/keys/{id}", "/keys/{id}/usage"] {
        for _ in 0..10 {
            let ask = Ask::new("GET", path).of(&node.id);
            let router = node.router.clone();
            let read = tokio::spawn(async move { send(&router, &ask).await });
            tokio::task::yield_now().await;
            read.abort();
            let _ = read.await;
        }
    }
    node.sink.gate.add_permits(1000);
    assert_eq!(items(&node.get("/events").await), 1);
    let shown: Value = node.get("/keys/{id}").await.json();
    assert_eq!(shown["request_count"], 1);
    node.authenticator.usage().flush(&node.store).await.unwrap();
    assert_eq!(node.get("/keys/{id}").await.json()["request_count"], 1);
}

/// Changes that succeed although they cannot be published to other nodes yet.
#[tokio::test]
async fn a_change_that_could_not_be_published_succeeds_and_the_response_says_so() {
    let node = Node::new().await;
    let untold = || StoreError::not_published(Duration::from_secs(60), "the bus is down");
    node.store.fail_with(Point::After(Call::Apply), untold);
    // The response still contains the secret.
    let body = serde_json::json!({"name": "another", "owner": {"tenant_id": "tenant_ours"}});
    let issued = send(&node.router, &Ask::new("POST", "/keys").json(&body)).await;
    assert_eq!(issued.status, 201, "{}", issued.json());
    assert!(issued.json()["key"].is_string());
    let rotate = Ask::new("POST", "/keys/{id}/rotate").of(&node.id);
    assert_eq!(send(&node.router, &rotate).await.status, 201);
    for (method, path) in [("POST", "/keys/{id}/revoke"), ("DELETE", "/keys/{id}")] {
        let answer = send(&node.router, &Ask::new(method, path).of(&node.id)).await;
        assert_eq!(answer.status, 503, "{method}");
        let told = answer.json();
        assert_eq!(told["code"], "STORE_UNAVAILABLE");
        let detail = "The change was applied, but is not published to other nodes yet; they will \
                      see it within 60 seconds";
        assert_eq!(told["detail"], detail);
    }
    let gone = send(&node.router, &Ask::new("GET", "/keys/{id}").of(&node.id)).await;
    assert_eq!(gone.status, 404);
}
