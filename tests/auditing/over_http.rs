//! The audit over HTTP: whichever layer responds, or if none does, exactly one event records the
//! whole outcome.

use std::convert::Infallible;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use axum::{Extension, Router, routing};
use http::{HeaderValue, Request};
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::adapter::axum::{Demand, Granted, ProtectedRouter, RequireExt, get};
use portunus::adapter::tower::{AuthLayer, HttpHead, into_response};
use portunus::audit::{AuditEvent, AuditOutcome, AuditTrail, MemoryAudit, RequestId};
use portunus::key::{Delegation, KeyRecord, Owner, TenantId};
use portunus::manage::NewKey;
use portunus::{AuthError, KeyPrincipal, Principal, Requirement};
use portunus_test_support::{Fixture, Setup, scope, stranger, tenant, user};
use tower::{Layer, Service, ServiceExt, service_fn};

struct Door {
    fixture: Fixture,
    trail: AuditTrail,
    log: MemoryAudit,
    /// A key with the scope `a` that may act for users.
    key: String,
    record: Arc<KeyRecord>,
}

/// Fixtures with a store that answers at once and with one that must be awaited.
async fn door(late: bool) -> Door {
    let (fixture, log) = (Fixture::new(), MemoryAudit::new(1000));
    let trail = AuditTrail::builder().sink(log.clone()).build();
    let mut new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
    new.delegation = Some(Delegation::On);
    let (key, record) = fixture.issue_new(new).await;
    if late {
        fixture.store.answer_late(1);
    }
    Door {
        fixture,
        trail,
        log,
        key,
        record,
    }
}

impl Door {
    fn builder(&self) -> Setup {
        self.fixture
            .bearer()
            .directory(People)
            .audit(self.trail.clone())
    }
    fn layer(&self) -> AuthLayer {
        AuthLayer::new(self.builder().build().unwrap())
    }
    fn request(&self, path: &str) -> Request<Body> {
        request(path, Some(&self.key))
    }
    /// Returns the events since the last call.
    async fn events(&self) -> Vec<AuditEvent> {
        let before = self.log.all().len();
        self.trail.flush().await.unwrap();
        self.log.all()[before..].to_vec()
    }
    async fn event(&self) -> AuditEvent {
        let mut events = self.events().await;
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }
}

fn request(path: &str, key: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(Body::empty()).unwrap()
}

async fn ask(app: &Router, request: Request<Body>) -> Response {
    app.clone().oneshot(request).await.unwrap()
}

#[derive(Debug)]
struct People;

#[async_trait::async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        tenant: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        let UserRef::Id(id) = named else {
            return Ok(None);
        };
        Ok((id.as_str() == "u1")
            .then(|| Arc::new(User::new(id.clone(), tenant.clone()).with_email("u1@acme.com"))))
    }
}

struct NeedsB;

impl Demand for NeedsB {
    fn requirement() -> &'static Requirement {
        static B: std::sync::LazyLock<Requirement> = std::sync::LazyLock::new(|| scope("b").into());
        &B
    }
}

/// A handler that refuses during its work.
async fn by_call(principal: KeyPrincipal, request: Request<Body>) -> Response {
    match principal.require(&scope("b").into()) {
        Ok(()) => Response::default(),
        Err(error) => into_response(
            principal
                .responder()
                .answer(&error, &HttpHead::new(&request, None)),
            &error,
        ),
    }
}

fn app(layer: AuthLayer) -> Router {
    let routes = ProtectedRouter::new(layer)
        .route("/ok", get(|| async { "ok" }).any_key())
        .route(
            "/documents/{id}",
            get(|| async { "a document" }).require(scope("a")),
        )
        .route("/layer", get(|| async { "never" }).require(scope("b")))
        .route(
            "/extractor",
            get(|_: Granted<NeedsB>| async { "never" }).any_key(),
        )
        .route("/call", get(by_call).any_key())
        .route("/gone", get(|| async { http::StatusCode::GONE }).any_key())
        .route(
            "/own/403",
            get(|| async { http::StatusCode::FORBIDDEN }).any_key(),
        )
        .route(
            "/hangs",
            get(|| async { pending::<&str>().await }).any_key(),
        )
        .route(
            "/panics",
            get(|| async {
                if true {
                    panic!("oops")
                }
            })
            .any_key(),
        );
    routes.into_router()
}

#[tokio::test]
async fn an_event_records_the_outcome_whichever_layer_responds() {
    for late in [false, true] {
        let door = door(late).await;
        let app = app(door.layer());
        let cases = [
            ("/ok", "OK", 200),
            ("/layer", "INSUFFICIENT_SCOPE", 403),
            ("/extractor", "INSUFFICIENT_SCOPE", 403),
            ("/call", "INSUFFICIENT_SCOPE", 403),
            ("/gone", "OK", 410),
            ("/own/403", "OK", 403),
        ];
        for (path, outcome, status) in cases {
            assert_eq!(
                ask(&app, door.request(path)).await.status().as_u16(),
                status
            );
            let event = door.event().await;
            assert_eq!(
                (event.outcome.as_str(), event.status),
                (outcome, Some(status)),
                "{path}"
            );
            assert_eq!(
                (event.key_id.as_ref(), event.tenant_id),
                (Some(&door.record.id), Some(tenant("acme")))
            );
            assert_eq!(
                (event.route.as_deref(), event.scopes.as_slice()),
                (Some(path), &["a".to_owned()][..])
            );
        }
        ask(&app, request("/nowhere", None)).await;
        assert_eq!(
            door.events().await,
            [],
            "a path that is no route asks for no key"
        );
    }
}

#[tokio::test]
async fn the_late_path_and_the_quick_one_give_the_same_event() {
    type Ask = fn(&mut Request<Body>);
    let asks: [(&str, Ask); 5] = [
        ("/documents/1", |_| {}),
        ("/layer", |_| {}),
        ("/ok", |request| {
            drop(
                request
                    .headers_mut()
                    .insert("x-on-behalf-of", HeaderValue::from_static("u1")),
            );
        }),
        ("/ok", |request| {
            drop(
                request
                    .headers_mut()
                    .insert("x-on-behalf-of", HeaderValue::from_static("u2")),
            );
        }),
        ("/ok", |request| {
            drop(request.headers_mut().remove("authorization"));
        }),
    ];
    for (path, change) in asks {
        let mut both = Vec::new();
        for late in [false, true] {
            let door = door(late).await;
            let mut request = door.request(path);
            request
                .headers_mut()
                .insert("x-request-id", HeaderValue::from_static("r"));
            change(&mut request);
            ask(&app(door.layer()), request).await;
            let event = door.event().await;
            let mut json = serde_json::to_value(&event).unwrap();
            assert_eq!(
                event.key_id.is_some(),
                json.as_object_mut().unwrap().remove("key_id").is_some()
            );
            json.as_object_mut().unwrap().remove("id");
            both.push((json, event.key_id == Some(door.record.id.clone())));
        }
        assert_eq!(both[0], both[1]);
    }
}

#[tokio::test]
async fn the_route_is_its_pattern_and_never_the_query() {
    let door = door(false).await;
    let secret = "/documents/7?token=hunter2&x=/documents";
    for (layers, pattern) in [(0, "/documents/{id}"), (1, "/v1/documents/{id}")] {
        let app = app(door.layer());
        let (app, path) = match layers {
            0 => (app, secret.to_owned()),
            _ => (Router::new().nest("/v1", app), format!("/v1{secret}")),
        };
        for key in [Some(door.key.as_str()), None] {
            ask(&app, request(&path, key)).await;
            let event = door.event().await;
            assert_eq!(event.route.as_deref(), Some(pattern));
            assert!(!format!("{event:?}").contains("hunter2"));
        }
    }
    // Without a known route, the path is recorded.
    let service = door.layer().layer(service_fn(async |_: Request<Body>| {
        Ok::<Response, Infallible>(Response::default())
    }));
    service.oneshot(door.request(secret)).await.unwrap();
    assert_eq!(door.event().await.route.as_deref(), Some("/documents/7"));
    let long = format!("/{}", "é".repeat(1000).replace('é', "%C3%A9"));
    let service = door.layer().layer(service_fn(async |_: Request<Body>| {
        Ok::<Response, Infallible>(Response::default())
    }));
    service.oneshot(door.request(&long)).await.unwrap();
    assert!(door.event().await.route.unwrap().len() <= 512);
}

#[tokio::test]
async fn a_request_id_is_taken_over_or_made_and_goes_along_with_request_and_refusal() {
    let door = door(false).await;
    let echo = |Extension(id): Extension<RequestId>| async move { id.to_string() };
    let app: Router = Router::new()
        .route("/id", routing::get(echo))
        .route_layer(door.layer());
    let bytes = |bytes: &[u8]| HeaderValue::from_bytes(bytes).unwrap();
    let longest = "i".repeat(128);
    let cases: Vec<(Vec<HeaderValue>, Option<&str>)> = vec![
        (vec![bytes(b"abc-123")], Some("abc-123")),
        (vec![bytes(b"\"};<script>")], Some("\"};<script>")),
        (vec![bytes(longest.as_bytes())], Some(&longest)),
        // Some that are kept as a number, or nearly.
        (
            vec![bytes(b"00000000000000000000000000000abc")],
            Some("00000000000000000000000000000abc"),
        ),
        (
            vec![bytes(b"ffffffffffffffffffffffffffffffff")],
            Some("ffffffffffffffffffffffffffffffff"),
        ),
        (
            vec![bytes(b"FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF")],
            Some("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"),
        ),
        (
            vec![bytes(b"+0000000000000000000000000000001")],
            Some("+0000000000000000000000000000001"),
        ),
        (vec![bytes(b"0abc")], Some("0abc")),
        (vec![], None),
        (vec![bytes(b"")], None),
        (vec![bytes(&[b'i'; 129])], None),
        (vec![bytes(&[b'i'; 10_240])], None),
        (vec![bytes(b"a\tb")], None),
        (vec![bytes(b"a b")], None),
        (vec![bytes("é".as_bytes())], None),
        (vec![bytes(b"\xff")], None),
        (vec![bytes(b"a"), bytes(b"b")], None),
        (vec![bytes(b"a"), bytes(b"a")], None),
    ];
    let mut made = Vec::new();
    for (values, expected) in cases {
        for key in [Some(door.key.as_str()), None] {
            let mut request = request("/id", key);
            for value in &values {
                request.headers_mut().append("x-request-id", value.clone());
            }
            let response = ask(&app, request).await;
            let id = door.event().await.request_id.unwrap();
            match expected {
                Some(expected) => assert_eq!(id.to_string(), expected),
                None => made.push(id.to_string()),
            }
            if key.is_some() {
                let body = axum::body::to_bytes(response.into_body(), 1000)
                    .await
                    .unwrap();
                assert_eq!(body, id.to_string());
            } else {
                assert_eq!(response.extensions().get(), Some(&id));
            }
        }
    }
    let count = made.len();
    assert!(
        made.iter()
            .all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    );
    made.sort();
    made.dedup();
    assert_eq!(made.len(), count);
}

// ---- no answer ----

#[tokio::test]
async fn a_client_that_goes_away_is_abandoned() {
    for late in [false, true] {
        let door = door(late).await;
        let app = app(door.layer());
        let mut asking = Box::pin(ask(&app, door.request("/hangs")));
        for _ in 0..10 {
            assert!(polled(&mut asking).is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(door.events().await, []);
        drop(asking);
        let event = door.event().await;
        assert_eq!(
            (event.outcome, event.status),
            (AuditOutcome::Abandoned, None),
            "late: {late}"
        );
        assert_eq!(
            (event.key_id, event.route.as_deref()),
            (Some(door.record.id.clone()), Some("/hangs"))
        );
    }
}

#[tokio::test]
async fn what_a_layer_refuses_is_recorded_although_nobody_waits_for_the_response() {
    let door = door(false).await;
    let inner =
        service_fn(|_: Request<Body>| async { Ok::<Response, Infallible>(Response::default()) });
    let mut protected = door.layer().require(scope("b")).layer(inner);
    drop(protected.call(door.request("/")));
    let event = door.event().await;
    assert_eq!(event.outcome.as_str(), "INSUFFICIENT_SCOPE");
    assert_eq!(
        (event.status, event.key_id),
        (Some(403), Some(door.record.id.clone()))
    );
    // The same request, answered, has no other event.
    let response = protected.call(door.request("/")).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(door.event().await.outcome.as_str(), "INSUFFICIENT_SCOPE");
}

/// Polls a future once.
fn polled<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_client_that_goes_away_while_its_key_is_looked_up_is_abandoned_without_a_key() {
    let door = door(true).await;
    let app = app(door.layer());
    let mut asking = Box::pin(ask(&app, door.request("/ok")));
    assert!(polled(&mut asking).is_none());
    drop(asking);
    let event = door.event().await;
    assert_eq!(
        (event.outcome.as_str(), event.key_id, event.route.as_deref()),
        ("ABANDONED", None, Some("/ok"))
    );
    let never = app.oneshot(door.request("/ok"));
    drop(never);
    assert_eq!(
        door.events().await,
        [],
        "what was never begun did not happen"
    );
}

#[tokio::test]
async fn a_handler_that_panics_is_abandoned() {
    for late in [false, true] {
        let door = door(late).await;
        let app = app(door.layer());
        let request = door.request("/panics");
        let asked = tokio::spawn(async move { ask(&app, request).await }).await;
        assert!(asked.unwrap_err().is_panic());
        let event = door.event().await;
        assert_eq!(
            (event.outcome.as_str(), event.key_id),
            ("ABANDONED", Some(door.record.id.clone()))
        );
    }
    // In the call itself, before there is a future.
    let door = door(false).await;
    let service = service_fn(
        |_: Request<Body>| -> std::future::Ready<Result<Response, Infallible>> { panic!("oops") },
    );
    let mut service = door.layer().layer(service);
    let called =
        std::panic::catch_unwind(AssertUnwindSafe(|| drop(service.call(door.request("/")))));
    assert!(called.is_err());
    assert_eq!(door.event().await.outcome, AuditOutcome::Abandoned);
}

#[tokio::test]
async fn a_service_that_fails_without_an_answer_has_failed() {
    for late in [false, true] {
        let door = door(late).await;
        let service = door.layer().layer(service_fn(async |_: Request<Body>| {
            Err::<Response, _>("broken pipe")
        }));
        service.oneshot(door.request("/x")).await.unwrap_err();
        let event = door.event().await;
        assert_eq!((event.outcome, event.status), (AuditOutcome::Failed, None));
        assert_eq!(event.key_id, Some(door.record.id.clone()));
    }
}

// ---- optional, delegated, nested ----

#[tokio::test]
async fn an_anonymous_request_is_an_event_only_if_it_is_refused() {
    let door = door(false).await;
    let app = app(AuthLayer::new(door.builder().optional().build().unwrap()));
    ask(&app, request("/own/403", None)).await;
    assert!(
        door.events()
            .await
            .iter()
            .all(|event| event.outcome != AuditOutcome::Ok)
    );
    let open: Router = Router::new().route("/", routing::get(|| async { "hi" }));
    let open = open.route_layer(AuthLayer::new(door.builder().optional().build().unwrap()));
    ask(&open, request("/", None)).await;
    assert_eq!(door.events().await, []);
    ask(&open, request("/", Some("garbage"))).await;
    assert_eq!(door.event().await.outcome.as_str(), "INVALID_FORMAT");
    ask(&app, request("/layer", None)).await;
    let event = door.event().await;
    assert_eq!(
        (event.outcome.as_str(), event.status, event.key_id),
        ("MISSING_KEY", Some(401), None)
    );
}

#[tokio::test]
async fn a_route_that_refuses_a_delegated_request_names_user_and_platform() {
    for late in [false, true] {
        let door = door(late).await;
        let mut request = door.request("/layer");
        request
            .headers_mut()
            .insert("x-on-behalf-of", HeaderValue::from_static("u1"));
        ask(&app(door.layer()), request).await;
        let event = door.event().await;
        assert_eq!(
            (event.outcome.as_str(), event.mode.unwrap().as_str()),
            ("INSUFFICIENT_SCOPE", "delegated")
        );
        let subject = event.subject.unwrap();
        assert_eq!(
            (subject.user_id, subject.user_email.as_deref()),
            (Some(user("u1")), Some("u1@acme.com"))
        );
        assert_eq!(event.actor, None, "the tenant itself");
    }
}

#[tokio::test]
async fn each_nested_layer_records_its_own_key_under_one_request_id() {
    let door = door(false).await;
    let (other, record) = door.fixture.issue(&[]).await;
    let format = portunus_test_support::format();
    let by_header = door
        .fixture
        .bare()
        .header("x-api-key", [format])
        .audit(door.trail.clone())
        .build()
        .unwrap();
    let inner: Router = Router::new().route("/", routing::get(|| async { "ok" }));
    let app = inner
        .require(scope("b"))
        .route_layer(AuthLayer::new(by_header))
        .route_layer(door.layer());
    let mut request = door.request("/");
    request
        .headers_mut()
        .insert("x-api-key", HeaderValue::from_str(&other).unwrap());
    let response = ask(&app, request).await;
    let events = door.events().await;
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.key_id.clone().unwrap(), event.outcome.as_str()))
        .collect();
    let both = [
        (record.id.clone(), "INSUFFICIENT_SCOPE"),
        (door.record.id.clone(), "INSUFFICIENT_SCOPE"),
    ];
    assert_eq!(told, both, "the inner layer has its answer first");
    assert_eq!(
        response
            .extensions()
            .get::<AuthError>()
            .unwrap()
            .code()
            .as_str(),
        "INSUFFICIENT_SCOPE"
    );
    assert_eq!(
        events[0].request_id, events[1].request_id,
        "it is one request"
    );
    assert_eq!(response.extensions().get(), events[0].request_id.as_ref());
}

#[tokio::test]
async fn an_inner_refusal_of_a_real_key_is_not_recorded_by_an_outer_layer_that_admitted_no_key() {
    // Two layers with trails of two tenants: the outer one admitted no key, so it knows none.
    let (outer, inner) = (door(false).await, door(false).await);
    inner
        .fixture
        .manager()
        .revoke(&inner.record.id, None)
        .await
        .unwrap();
    let by_header = inner
        .fixture
        .bare()
        .header("x-api-key", [portunus_test_support::format()])
        .audit(inner.trail.clone());
    let routes: Router = Router::new().route("/", routing::get(|| async { "ok" }));
    let app = routes.route_layer(AuthLayer::new(by_header.build().unwrap()));
    let app = app.route_layer(AuthLayer::new(outer.builder().optional().build().unwrap()));
    let mut request = request("/", None);
    request
        .headers_mut()
        .insert("x-api-key", HeaderValue::from_str(&inner.key).unwrap());
    ask(&app, request).await;
    let (outer_event, inner_event) = (outer.event().await, inner.event().await);
    assert_eq!(
        (outer_event.outcome.as_str(), inner_event.outcome.as_str()),
        ("KEY_REVOKED", "KEY_REVOKED")
    );
    assert_eq!(inner_event.key_id, Some(inner.record.id.clone()));
}

#[tokio::test]
async fn unknown_keys_are_events_without_a_key_in_every_scheme() {
    let door = door(true).await;
    let app = app(door.layer());
    ask(&app, request("/ok", Some(&stranger()))).await;
    let event = door.event().await;
    assert_eq!(
        (event.outcome.as_str(), event.status),
        ("INVALID_KEY", Some(401))
    );
    assert!(event.key_id.is_none() && event.tenant_id.is_none() && event.mode.is_none());
}
