//! The key of a request on the span of the request: on that of tower-http and of tracing-actix-web, as
//! far as the host declared the fields.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::{App, test as actix, web};
use async_trait::async_trait;
use axum::body::Body;
use axum::{Router, routing};
use http::Request;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::adapter::actix::Auth;
use portunus::adapter::axum::RequireExt;
use portunus::adapter::tower::AuthLayer;
use portunus::key::{KeyId, Owner, PlanName, Revocation, TenantId};
use portunus::limit::{LimitPolicy, Plan};
use portunus::manage::NewKey;
use portunus::quota::Quota;
use portunus::{Limits, Requirement};
use portunus_test_support::{Fixture, Setup, scope, stranger, tenant};
use tower::ServiceExt;
use tower_http::trace::TraceLayer;
use tracing::field::{Empty, Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_actix_web::{RootSpanBuilder, TracingLogger};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A tenant's plan is `team`.
#[derive(Debug)]
struct Plans;

#[async_trait]
impl Directory for Plans {
    async fn resolve(
        &self,
        _: &TenantId,
        _: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        Ok(None)
    }

    async fn plan(&self, _: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        Ok(PlanName::new("team").ok())
    }
}

/// The fields of a span, each with every value that was recorded.
#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<&'static str, Vec<String>>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0
            .entry(field.name())
            .or_default()
            .push(value.to_owned());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        self.0.entry(field.name()).or_default().push(value);
    }
}

/// Captures the fields of each span, and of the spans around each event.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// In the order in which they were opened.
    spans: Vec<(Id, &'static str, Fields)>,
    /// The message of each event, with the key ids that its spans had by then.
    events: Vec<(String, Vec<String>)>,
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Captured {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let name = span.metadata().name();
        self.0
            .lock()
            .unwrap()
            .spans
            .push((id.clone(), name, fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut seen = self.0.lock().unwrap();
        let span = seen.spans.iter_mut().rev().find(|(known, ..)| known == id);
        values.record(&mut span.unwrap().2);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Fields::default();
        event.record(&mut said);
        let around = context.event_scope(event).into_iter().flatten();
        let ids: Vec<_> = around.map(|span| span.id()).collect();
        let mut seen = self.0.lock().unwrap();
        let fields = seen.spans.iter().filter(|(id, ..)| ids.contains(id));
        let keys = fields.filter_map(|(.., fields)| fields.0.get("key_id"));
        let keys = keys.flatten().cloned().collect();
        let message = said.0.remove("message").unwrap_or_default().concat();
        seen.events.push((message, keys));
    }
}

/// Runs with a subscriber that captures everything; returns what it saw.
fn captured<F: Future>(run: F) -> Seen {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::registry().with(captured.clone());
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, run)
    });
    std::mem::take(&mut *captured.0.lock().unwrap())
}

impl Seen {
    /// The key id, tenant and plan of each span of a request, in order.
    fn requests(&self) -> Vec<[String; 3]> {
        let names = ["key_id", "tenant_id", "plan"];
        let values = |fields: &Fields, name: &str| {
            let values = fields.0.get(name);
            values.map_or("-".to_owned(), |values| values.join("+"))
        };
        let of_requests = |name: &&str| ["request", "HTTP request"].contains(name);
        self.spans
            .iter()
            .filter(|(_, name, _)| of_requests(name))
            .map(|(.., fields)| names.map(|name| values(fields, name)))
            .collect()
    }

    fn assert_no_secret(&self, secrets: &[&str]) {
        let all = format!("{:?} {:?}", self.spans, self.events);
        for secret in secrets {
            let part = &secret[secret.len() - 20..];
            assert!(!all.contains(part), "{part} is in {all}");
        }
    }
}

fn row(key: &KeyId, plan: &str) -> [String; 3] {
    [key.to_string(), "acme".to_owned(), plan.to_owned()]
}

fn nobody() -> [String; 3] {
    ["-", "-", "-"].map(str::to_owned)
}

/// Keys of the tenant `acme`, of which each gets another answer.
struct Keys {
    fixture: Fixture,
    /// Follows the tenant's plan.
    follows: (String, KeyId),
    /// Has the plan `solo`, which allows one request.
    solo: (String, KeyId),
    revoked: (String, KeyId),
}

impl Keys {
    async fn new(late: bool) -> Self {
        let fixture = Fixture::new();
        let new = || NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
        let issue = async |plan: Option<&str>| {
            let mut new = new();
            new.plan = plan.map(|name| PlanName::new(name).unwrap());
            let (key, record) = fixture.issue_new(new).await;
            (key, record.id.clone())
        };
        let (follows, solo) = (issue(None).await, issue(Some("solo")).await);
        let revoked = issue(Some("solo")).await;
        let revocation = Revocation::new(std::time::SystemTime::UNIX_EPOCH, None);
        fixture
            .change(&revoked.1, |record| record.revoked = Some(revocation))
            .await;
        if late {
            fixture.store.answer_late(1);
        }
        Self {
            fixture,
            follows,
            solo,
            revoked,
        }
    }

    fn setup(&self) -> Setup {
        let per_key = |limit| LimitPolicy::per_key([Quota::per_minute(limit)]);
        let limits = Limits::new([per_key(100)])
            .plan(Plan::new("team", [per_key(50)]))
            .plan(Plan::new("solo", [per_key(1)]));
        let clock = self.fixture.clock.clone();
        self.fixture
            .bearer()
            .clock(clock)
            .directory(Plans)
            .limits(limits)
    }

    /// Each request: path, key, status, and what the span has afterwards.
    fn cases(&self) -> Vec<(&'static str, Option<String>, u16, [String; 3])> {
        let of = |key: &(String, KeyId)| Some(key.0.clone());
        vec![
            ("/a", of(&self.follows), 200, row(&self.follows.1, "team")),
            ("/a", of(&self.solo), 200, row(&self.solo.1, "solo")),
            ("/a", of(&self.solo), 429, row(&self.solo.1, "solo")),
            ("/b", of(&self.follows), 403, row(&self.follows.1, "team")),
            ("/a", of(&self.revoked), 401, row(&self.revoked.1, "solo")),
            ("/a", Some(stranger()), 401, nobody()),
            ("/a", Some("garbage".to_owned()), 401, nobody()),
            ("/a", None, 401, nobody()),
        ]
    }

    fn secrets(&self) -> [&str; 3] {
        [&self.follows.0, &self.solo.0, &self.revoked.0]
    }
}

fn span_of(request: &Request<Body>) -> tracing::Span {
    let path = request.uri().path();
    tracing::info_span!(
        "request",
        path,
        key_id = Empty,
        tenant_id = Empty,
        plan = Empty
    )
}

async fn ask(app: &Router, path: &str, key: Option<&str>) -> u16 {
    let mut request = Request::builder().uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Body::empty()).unwrap();
    app.clone()
        .oneshot(request)
        .await
        .unwrap()
        .status()
        .as_u16()
}

fn routes(auth: AuthLayer) -> Router {
    let handler = routing::get(|| async { tracing::info!("handled") });
    Router::new()
        .route("/a", handler.clone().require(scope("a")))
        .route("/b", handler.require(scope("b")))
        .route_layer(auth)
}

#[test]
fn on_axum_the_span_of_the_request_has_key_tenant_and_plan() {
    for late in [false, true] {
        let mut expected = Vec::new();
        let mut keys = None;
        let seen = captured(async {
            let made = Keys::new(late).await;
            let app = routes(AuthLayer::new(made.setup().build().unwrap()));
            let app = app.layer(TraceLayer::new_for_http().make_span_with(span_of));
            for (path, key, status, fields) in made.cases() {
                assert_eq!(
                    ask(&app, path, key.as_deref()).await,
                    status,
                    "{path} {late}"
                );
                expected.push(fields);
            }
            keys = Some(made);
        });
        let keys = keys.unwrap();
        assert_eq!(seen.requests(), expected, "{late}");
        seen.assert_no_secret(&keys.secrets());
        // What the handler logs is found by the key.
        let handled = seen.events.iter().filter(|(said, _)| said == "handled");
        let handled: Vec<_> = handled.map(|(_, keys)| keys.concat()).collect();
        assert_eq!(
            handled,
            [keys.follows.1.to_string(), keys.solo.1.to_string()]
        );
    }
}

/// The root span of the host, with the fields.
struct Identified;

impl RootSpanBuilder for Identified {
    fn on_request_start(request: &ServiceRequest) -> tracing::Span {
        tracing_actix_web::root_span!(request, key_id = Empty, tenant_id = Empty, plan = Empty)
    }

    fn on_request_end<B: MessageBody>(
        span: tracing::Span,
        outcome: &Result<ServiceResponse<B>, actix_web::Error>,
    ) {
        tracing_actix_web::DefaultRootSpanBuilder::on_request_end(span, outcome);
    }
}

#[test]
fn on_actix_web_the_span_of_the_request_has_key_tenant_and_plan() {
    for late in [false, true] {
        let mut expected = Vec::new();
        let mut keys = None;
        let seen = captured(async {
            let made = Keys::new(late).await;
            let auth = Auth::new(made.setup().build().unwrap());
            let handler = || {
                tracing::info!("handled");
                ready("in")
            };
            let need = |name| portunus::adapter::actix::require(Requirement::scope(scope(name)));
            let app = App::new()
                .service(
                    web::resource("/a")
                        .get(handler)
                        .wrap(need("a"))
                        .wrap(auth.clone()),
                )
                .service(web::resource("/b").get(handler).wrap(need("b")).wrap(auth))
                .wrap(TracingLogger::<Identified>::new());
            let app = actix::init_service(app).await;
            for (path, key, status, fields) in made.cases() {
                let mut request = actix::TestRequest::get().uri(path);
                if let Some(key) = key {
                    request = request.insert_header(("authorization", format!("Bearer {key}")));
                }
                let response = actix::call_service(&app, request.to_request()).await;
                assert_eq!(response.status().as_u16(), status, "{path} {late}");
                expected.push(fields);
            }
            keys = Some(made);
        });
        let keys = keys.unwrap();
        assert_eq!(seen.requests(), expected, "{late}");
        seen.assert_no_secret(&keys.secrets());
        let handled = seen.events.iter().filter(|(said, _)| said == "handled");
        let handled: Vec<_> = handled.map(|(_, keys)| keys.concat()).collect();
        assert_eq!(
            handled,
            [keys.follows.1.to_string(), keys.solo.1.to_string()]
        );
    }
}

#[test]
fn a_key_is_recorded_once_through_nested_layers() {
    let mut id = None;
    let seen = captured(async {
        let keys = Keys::new(false).await;
        let auth = AuthLayer::new(keys.setup().build().unwrap());
        // Optional outside, required inside: the inner layer is the first to know the key.
        let optional = AuthLayer::new(keys.setup().optional().build().unwrap());
        let same = routes(auth.clone()).layer(auth.clone());
        let inner = routes(auth).layer(optional);
        for app in [same, inner] {
            let app = app.layer(TraceLayer::new_for_http().make_span_with(span_of));
            assert_eq!(ask(&app, "/a", Some(&keys.follows.0)).await, 200);
        }
        id = Some(keys.follows.1);
    });
    assert_eq!(seen.requests(), vec![row(&id.unwrap(), "team"); 2]);
}

#[test]
fn a_request_without_a_span_or_without_the_fields_is_served_all_the_same() {
    let seen = captured(async {
        let keys = Keys::new(false).await;
        let app = routes(AuthLayer::new(keys.setup().build().unwrap()));
        assert_eq!(ask(&app, "/a", Some(&keys.follows.0)).await, 200);
        let app = app.layer(TraceLayer::new_for_http());
        assert_eq!(ask(&app, "/a", Some(&keys.follows.0)).await, 200);
        let only = |_: &Request<Body>| tracing::info_span!("request", plan = Empty);
        let app = routes(AuthLayer::new(keys.setup().build().unwrap()));
        let app = app.layer(TraceLayer::new_for_http().make_span_with(only));
        assert_eq!(ask(&app, "/a", Some(&keys.follows.0)).await, 200);
    });
    // tower-http calls its own span `request`, too.
    let declared = ["-", "-", "team"].map(str::to_owned);
    assert_eq!(seen.requests(), [nobody(), declared]);
}
