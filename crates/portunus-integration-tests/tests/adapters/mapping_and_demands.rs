//! A host's own principal type, mapped once per request; and requirements as a layer, an extractor
//! and a call, which give the same answers.

use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use axum::body::Body;
use axum::response::Response;
use axum::{Router, routing};
use http::{HeaderValue, Request, StatusCode};
use portunus::actor::ActorMode;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::adapter::axum::{Caller, Demand, Granted, RequireExt};
use portunus::adapter::tower::{AuthLayer, HttpHead, into_response};
use portunus::audit::{AuditEvent, AuditTrail, MemoryAudit};
use portunus::key::{Access, Delegation, KeyId, KeyRecord, Owner, PlanName, TenantId};
use portunus::limit::LocalLimiter;
use portunus::manage::NewKey;
use portunus::policy::PlanOrder;
use portunus::quota::{Quota, Quotas};
use portunus::respond::{ErrorBody, from_error};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal, Requirement};
use portunus_test_support::wait::soon;
use portunus_test_support::{Fixture, Setup, scope, tenant, user};
use tower::ServiceExt;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Customer(String);

#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the account is closed")
    }
}
impl std::error::Error for Closed {}
impl From<Closed> for AuthError {
    fn from(closed: Closed) -> Self {
        Self::with_detail(ErrorCode::Forbidden, "The account is closed").caused_by(closed)
    }
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
        Ok(Some(Arc::new(User::new(id.clone(), tenant.clone()))))
    }
}

struct Door {
    fixture: Fixture,
    trail: AuditTrail,
    log: MemoryAudit,
    key: String,
    record: Arc<KeyRecord>,
}

async fn door(late: bool) -> Door {
    let (fixture, log) = (Fixture::new(), MemoryAudit::new(100));
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
    /// With a quota, a directory, an audit trail and its own renderer.
    fn builder(&self) -> Setup {
        let limiter = LocalLimiter::builder()
            .clock(self.fixture.clock.clone())
            .build();
        let quotas = Quotas::new([Quota::per_minute(10).unwrap()]).unwrap();
        let words = from_error(|error: &AuthError| {
            let mine =
                std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Closed>);
            ErrorBody::json(format!(r#"{{"oops":"{}","closed":{mine}}}"#, error.code()))
        });
        let builder = self
            .fixture
            .bearer()
            .directory(People)
            .audit(self.trail.clone());
        builder.limiter(limiter).quotas(quotas).renderer(words)
    }
    fn layer(&self) -> AuthLayer {
        AuthLayer::new(self.builder().build().unwrap())
    }
    fn request(&self) -> Request<Body> {
        Request::builder()
            .uri("/")
            .header("authorization", format!("Bearer {}", self.key))
            .body(Body::empty())
            .unwrap()
    }
    async fn event(&self) -> AuditEvent {
        self.trail.flush().await.unwrap();
        let events = self.log.all();
        assert_eq!(events.len(), 1, "{events:?}");
        events[0].clone()
    }
}

async fn name(customer: Option<Caller<Customer>>) -> String {
    customer.map_or_else(|| "nobody".into(), |customer| customer.0.0.clone())
}

fn behind(layer: AuthLayer) -> Router {
    Router::new()
        .route("/", routing::get(name))
        .route_layer(layer)
}

/// For an inner API, the outer API's key is unknown.
async fn without_the_key(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove("authorization");
    request
}

async fn ask(app: &Router, request: Request<Body>) -> Response {
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(
        axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap()
            .to_vec(),
    )
    .unwrap()
}

// ---- mapping ----

#[tokio::test]
async fn the_host_is_asked_once_for_each_request_that_was_let_through() {
    for late in [false, true] {
        let door = door(late).await;
        let asked = Arc::<Mutex<Vec<KeyId>>>::default();
        let layer = door.layer().try_map_principal({
            let asked = Arc::clone(&asked);
            move |principal: KeyPrincipal| {
                asked.lock().unwrap().push(principal.key_id().clone());
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, Closed>(Customer(principal.owner().tenant_id.to_string()))
                }
            }
        });
        let app = behind(layer);
        for times in 1..=3 {
            let response = ask(&app, door.request()).await;
            assert!(response.headers().contains_key("ratelimit"));
            assert_eq!(text(response).await, "acme");
            assert_eq!(*asked.lock().unwrap(), vec![door.record.id.clone(); times]);
        }
        let mut wrong = door.request();
        wrong
            .headers_mut()
            .insert("authorization", HeaderValue::from_static("Bearer garbage"));
        assert_eq!(ask(&app, wrong).await.status(), 401);
        assert_eq!(ask(&app, Request::new(Body::empty())).await.status(), 401);
        let unknown = ask(
            &app,
            Request::builder()
                .uri("/nowhere")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
        assert_eq!(
            (unknown.status(), asked.lock().unwrap().len()),
            (StatusCode::NOT_FOUND, 3)
        );
    }
}

#[tokio::test]
async fn the_mapping_is_not_called_for_anonymous_requests_and_another_layers_principal_is_removed()
{
    let door = door(false).await;
    let asked = Arc::<AtomicUsize>::default();
    let mapped = |layer: AuthLayer, name: &'static str| {
        let asked = Arc::clone(&asked);
        layer.try_map_principal(move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, Closed>(Customer(name.into())) }
        })
    };
    let by_header = door
        .fixture
        .bare()
        .header("x-api-key", [portunus_test_support::format()])
        .optional()
        .build()
        .unwrap();
    let inner = || AuthLayer::new(by_header.clone());
    let nobody = behind(mapped(inner(), "inner"));
    assert_eq!(
        text(ask(&nobody, Request::new(Body::empty())).await).await,
        "nobody"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    for inner in [
        mapped(inner(), "inner"),
        inner().map_principal(|_| Customer("inner".into())),
    ] {
        let both = behind(inner)
            .route_layer(axum::middleware::map_request(without_the_key))
            .route_layer(mapped(door.layer(), "outer"));
        assert_eq!(
            text(ask(&both, door.request()).await).await,
            "nobody",
            "here it is nobody"
        );
        let mut request = door.request();
        request
            .headers_mut()
            .insert("x-api-key", HeaderValue::from_str(&door.key).unwrap());
        assert_eq!(text(ask(&both, request).await).await, "inner");
    }
}

#[tokio::test]
async fn a_refusal_of_the_host_is_answered_in_its_words_with_the_quota_and_is_audited() {
    for late in [false, true] {
        let door = door(late).await;
        let later = Arc::<AtomicUsize>::default();
        let layer = door
            .layer()
            .try_map_principal(async |_| Err::<Customer, _>(Closed))
            .try_map_principal({
                let later = Arc::clone(&later);
                move |_| {
                    later.fetch_add(1, Ordering::SeqCst);
                    async { Ok::<_, Closed>(7_u8) }
                }
            });
        let app: Router = Router::new()
            .route("/", routing::get(async || -> &str { panic!("never") }))
            .route_layer(layer);
        let response = ask(&app, door.request()).await;
        assert_eq!(
            (response.status().as_u16(), later.load(Ordering::SeqCst)),
            (403, 0)
        );
        let field = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (
                field("ratelimit-policy").as_str(),
                field("cache-control").as_str()
            ),
            ("\"minute\";q=10;w=60", "no-store")
        );
        assert!(field("ratelimit").starts_with("\"minute\";r=9;t="));
        assert_eq!(
            response.extensions().get::<AuthError>().unwrap().key_id(),
            Some(&door.record.id)
        );
        assert_eq!(
            text(response).await,
            r#"{"oops":"FORBIDDEN","closed":true}"#
        );
        let event = door.event().await;
        assert_eq!(
            (event.outcome.as_str(), event.status),
            ("FORBIDDEN", Some(403))
        );
        assert_eq!(
            (event.key_id, event.scopes),
            (Some(door.record.id.clone()), vec!["a".to_owned()])
        );
    }
}

#[tokio::test]
async fn a_refusal_by_the_host_of_a_delegated_request_names_the_actor() {
    let door = door(false).await;
    let layer = door
        .layer()
        .try_map_principal(async |_| Err::<Customer, _>(Closed));
    let mut request = door.request();
    request
        .headers_mut()
        .insert("x-on-behalf-of", HeaderValue::from_static("u1"));
    ask(&behind(layer), request).await;
    let event = door.event().await;
    assert_eq!(event.mode, Some(ActorMode::Delegated));
    assert_eq!(event.subject.unwrap().user_id, Some(user("u1")));
}

#[tokio::test]
async fn a_refusal_that_the_host_returns_twice_is_reported_like_a_new_one() {
    static KEPT: LazyLock<AuthError> = LazyLock::new(|| Closed.into());
    let door = door(false).await;
    let layer = door
        .layer()
        .try_map_principal(async |_| Err::<Customer, _>(KEPT.clone()));
    let response = ask(&behind(layer), door.request()).await;
    assert!(response.headers().contains_key("ratelimit"));
    assert_eq!(door.event().await.key_id, Some(door.record.id.clone()));
}

#[tokio::test]
async fn a_client_that_goes_away_while_the_host_is_asked_is_abandoned_with_its_key() {
    let door = door(false).await;
    let asked = Arc::<tokio::sync::Notify>::default();
    let host = Arc::clone(&asked);
    let layer = door.layer().try_map_principal(move |_: KeyPrincipal| {
        host.notify_one();
        pending::<Result<Customer, Closed>>()
    });
    let app = behind(layer);
    let request = door.request();
    let asking = tokio::spawn(async move { ask(&app, request).await });
    soon(asked.notified()).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    let event = door.event().await;
    assert_eq!(event.outcome.as_str(), "ABANDONED");
    assert_eq!(
        event.key_id,
        Some(door.record.id.clone()),
        "its quota was used, and who used it is known"
    );
}

#[tokio::test]
async fn a_request_does_not_pass_if_the_mapping_panics() {
    let door = door(false).await;
    let layer = door
        .layer()
        .try_map_principal(async |principal: KeyPrincipal| {
            assert!(principal.key_id().as_str().is_empty(), "oops");
            Ok::<_, Closed>(Customer(String::new()))
        });
    let (app, request) = (behind(layer), door.request());
    assert!(
        tokio::spawn(async move { ask(&app, request).await })
            .await
            .unwrap_err()
            .is_panic()
    );
    assert_eq!(door.event().await.outcome.as_str(), "ABANDONED");
}

// ---- one requirement, three uses ----

struct Mixed;

impl Demand for Mixed {
    fn requirement() -> &'static Requirement {
        static MIXED: LazyLock<Requirement> = LazyLock::new(|| {
            let plans = PlanOrder::new(["free", "paid"]).unwrap();
            Requirement::any_of([Requirement::scope(scope("b")), Requirement::user()])
                .and(plans.at_least("paid").unwrap())
        });
        &MIXED
    }
}

async fn by_call(principal: KeyPrincipal, request: Request<Body>) -> Response {
    let head = HttpHead::new(&request, None);
    match Mixed::requirement().check(&principal, Some(&head)) {
        Ok(()) => Response::new("in".into()),
        Err(error) => into_response(principal.responder().answer(&error, &head), &error),
    }
}

#[tokio::test]
async fn a_requirement_says_the_same_as_a_layer_an_extractor_and_a_call() {
    let door = door(false).await;
    let app: Router = Router::new()
        .route(
            "/layer",
            routing::any(|| async { "in" }).require(Mixed::requirement().clone()),
        )
        .route("/extractor", routing::any(async |_: Granted<Mixed>| "in"))
        .route("/call", routing::any(by_call))
        .route_layer(door.layer());
    type Change = fn(&mut KeyRecord);
    let changes: [(Change, Option<&str>, &str); 5] = [
        (|_| {}, None, "INSUFFICIENT_SCOPE"),
        (|r| r.scopes = vec![scope("b")], None, "PLAN_REQUIRED"),
        (|r| r.plan = PlanName::new("paid").ok(), None, "OK"),
        (|r| r.scopes = vec![], Some("u1"), "OK"),
        (|r| r.access = Access::ReadOnly, Some("u1"), "READ_ONLY_KEY"),
    ];
    for (change, user, expected) in changes {
        door.fixture.change(&door.record.id, change).await;
        let mut answers = Vec::new();
        for path in ["/layer", "/extractor", "/call"] {
            let mut request = door.request();
            *request.uri_mut() = path.parse().unwrap();
            *request.method_mut() = http::Method::POST;
            if let Some(user) = user {
                request
                    .headers_mut()
                    .insert("x-user-id", HeaderValue::from_static(user));
            }
            let response = ask(&app, request).await;
            let code = response
                .extensions()
                .get::<AuthError>()
                .map_or("OK", |error| error.code().as_str());
            assert_eq!(code, expected, "{path}");
            let fields = ["www-authenticate", "content-type", "cache-control"];
            let fields = fields.map(|name| {
                response
                    .headers()
                    .get(name)
                    .cloned()
                    .filter(|_| code != "OK")
            });
            answers.push((response.status(), fields, text(response).await));
            door.fixture
                .clock
                .advance(std::time::Duration::from_secs(10));
        }
        assert!(
            answers.windows(2).all(|pair| pair[0] == pair[1]),
            "{answers:?}"
        );
    }
}

#[test]
fn no_request_view_prints_field_values() {
    const SECRET: &str = "acme_live_sk_TopSecret";
    let bearer = format!("Bearer {SECRET}");
    let request = http::Request::get("/documents?key=acme_live_sk_TopSecret")
        .header("authorization", bearer.as_str())
        .header("x-api-key", SECRET)
        .body(())
        .unwrap();
    let head = HttpHead::new(&request, None);
    let by_actix = actix_web::test::TestRequest::get()
        .uri("/documents?key=acme_live_sk_TopSecret")
        .insert_header(("authorization", bearer.as_str()))
        .insert_header(("x-api-key", SECRET))
        .to_http_request();
    let by_hand = portunus::testing::TestRequest::get("/documents")
        .bearer(SECRET)
        .basic(SECRET)
        .field("x-api-key", SECRET);
    let dynamic: &dyn portunus::RequestHead = &head;
    let value = dynamic.single(portunus::request::FieldName::Authorization);
    let shown = format!(
        "{head:?} {:?} {by_hand:?} {value:?}",
        portunus::adapter::actix::ActixHead::new(&by_actix, None)
    );
    assert!(shown.contains("/documents"), "{shown}");
    let bytes = format!("{:?}", SECRET.as_bytes());
    let encoded = portunus_test_support::base64(format!("{SECRET}:").as_bytes());
    for hidden in [SECRET, &bytes[1..20], &encoded] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}
