//! The actix-web adapter inside an application: request and response contents, extractors,
//! requirements and audit events.

use std::cell::Cell;
use std::fmt;
use std::future::{pending, ready};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use actix_web::body::{self, MessageBody};
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderValue};
use actix_web::middleware::from_fn;
use actix_web::test::{TestRequest, call_service, init_service, try_call_service};
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, error, web};
use portunus::adapter::actix::{ActixHead, Auth, Caller, Demand, Granted, into_response, require};
use portunus::audit::{AuditEvent, AuditTrail, MemoryAudit, RequestId};
use portunus::key::{KeyRecord, Owner, WorkspaceId};
use portunus::limit::LocalLimiter;
use portunus::manage::NewKey;
use portunus::network::{AllowList, Cidr, ClientIp, ForwardedHeader, Transport};
use portunus::policy::WorkspaceOf;
use portunus::quota::{Quota, Quotas};
use portunus::request::TlsVersion;
use portunus::respond::{ErrorBody, from_error};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal, RequestHead, Requirement};
use portunus_test_support::{Fixture, Setup, format, scope, stranger, tenant};

struct Door {
    fixture: Fixture,
    trail: AuditTrail,
    log: MemoryAudit,
    /// A key with the scope `a`.
    key: String,
    record: Arc<KeyRecord>,
}

/// Fixtures with a store that answers at once and with one that must be awaited.
async fn door(late: bool) -> Door {
    let (fixture, log) = (Fixture::new(), MemoryAudit::new(100));
    let trail = AuditTrail::builder().sink(log.clone()).build();
    let new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
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
        let limiter = LocalLimiter::builder()
            .clock(self.fixture.clock.clone())
            .build();
        let quotas = Quotas::new([Quota::per_minute(100).unwrap()]).unwrap();
        let words = from_error(|error: &AuthError| {
            let mine =
                std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Closed>);
            ErrorBody::json(format!(r#"{{"oops":"{}","closed":{mine}}}"#, error.code()))
        });
        self.fixture
            .bearer()
            .audit(self.trail.clone())
            .limiter(limiter)
            .quotas(quotas)
            .renderer(words)
    }
    fn auth(&self) -> Auth {
        Auth::new(self.builder().build().unwrap())
    }
    fn get(&self, path: &str) -> TestRequest {
        get(path).insert_header((AUTHORIZATION, format!("Bearer {}", self.key)))
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

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path)
}

fn code<B>(response: &ServiceResponse<B>) -> &'static str {
    response
        .response()
        .extensions()
        .get::<AuthError>()
        .map_or("OK", |error| error.code().as_str())
}

fn call_refused(
    caller: &KeyPrincipal,
    request: &HttpRequest,
    requirement: &Requirement,
) -> HttpResponse {
    let head = ActixHead::new(request, None);
    match requirement.check(caller, Some(&head)) {
        Ok(()) => HttpResponse::Ok().body("in"),
        Err(error) => into_response(caller.responder().answer(&error, &head), &error),
    }
}

async fn text<B: MessageBody>(response: ServiceResponse<B>) -> String {
    let bytes = body::to_bytes(response.into_body())
        .await
        .unwrap_or_else(|_| panic!("no body"));
    String::from_utf8(bytes.to_vec()).unwrap()
}

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

struct NeedsB;

impl Demand for NeedsB {
    fn requirement() -> &'static Requirement {
        static B: LazyLock<Requirement> = LazyLock::new(|| scope("b").into());
        &B
    }
}

async fn whoami(caller: Option<KeyPrincipal>) -> String {
    caller.map_or_else(|| "nobody".into(), |caller| caller.key_id().to_string())
}

async fn name(customer: Option<Caller<Customer>>) -> String {
    customer.map_or_else(|| "nobody".into(), |customer| customer.0.0.clone())
}

// ---- what handlers take ----

#[actix_web::test]
async fn a_handler_extracts_the_principal_or_refuses_anonymous_requests() {
    let door = door(false).await;
    let auth = Auth::new(door.builder().optional().build().unwrap());
    let must = |caller: KeyPrincipal| ready(caller.key_id().to_string());
    let app = App::new()
        .route("/must", web::get().to(must))
        .route("/may", web::get().to(whoami))
        .route("/granted", web::get().to(|_: Granted<NeedsB>| ready("in")))
        .route("/caller", web::get().to(|_: Caller<Customer>| ready("in")))
        .wrap(auth);
    let app = init_service(app).await;
    for (path, with_key, without) in [
        ("/must", "OK", "MISSING_KEY"),
        ("/may", "OK", "OK"),
        ("/granted", "INSUFFICIENT_SCOPE", "MISSING_KEY"),
        ("/caller", "FORBIDDEN", "MISSING_KEY"),
    ] {
        assert_eq!(
            code(&call_service(&app, door.get(path).to_request()).await),
            with_key,
            "{path}"
        );
        let refused = call_service(&app, get(path).to_request()).await;
        assert_eq!(code(&refused), without, "{path}");
        if without != "OK" {
            assert_eq!(refused.headers().get("cache-control").unwrap(), "no-store");
            assert!(refused.headers().contains_key("www-authenticate"));
            assert_eq!(
                text(refused).await,
                r#"{"oops":"MISSING_KEY","closed":false}"#
            );
        }
    }
    assert_eq!(
        text(call_service(&app, door.get("/may").to_request()).await).await,
        door.record.id.to_string()
    );
    assert_eq!(
        text(call_service(&app, get("/may").to_request()).await).await,
        "nobody"
    );
}

#[actix_web::test]
async fn a_requirement_without_authentication_refuses_every_request() {
    let app = App::new()
        .route("/principal", web::get().to(|_: KeyPrincipal| ready("in")))
        .route("/granted", web::get().to(|_: Granted<NeedsB>| ready("in")))
        .route("/caller", web::get().to(|_: Caller<Customer>| ready("in")))
        .service(
            web::resource("/any")
                .get(whoami)
                .wrap(require(Requirement::none())),
        )
        .service(
            web::resource("/scoped")
                .get(whoami)
                .wrap(require(scope("a"))),
        );
    let app = init_service(app).await;
    for path in ["/principal", "/granted", "/caller", "/any", "/scoped"] {
        let response = call_service(&app, get(path).to_request()).await;
        assert_eq!(
            (response.status().as_u16(), code(&response)),
            (500, "INTERNAL_ERROR"),
            "{path}"
        );
        assert!(!response.headers().contains_key("www-authenticate"));
    }
}

#[actix_web::test]
async fn a_requirement_gives_the_same_answer_wherever_it_is_placed() {
    let door = door(false).await;
    let mixed = || Requirement::any_of([Requirement::scope(scope("b")), Requirement::user()]);
    struct Mixed;
    impl Demand for Mixed {
        fn requirement() -> &'static Requirement {
            static MIXED: LazyLock<Requirement> = LazyLock::new(|| {
                Requirement::any_of([Requirement::scope(scope("b")), Requirement::user()])
            });
            &MIXED
        }
    }
    let call = move |caller: KeyPrincipal, request: HttpRequest| {
        ready(call_refused(&caller, &request, &mixed()))
    };
    let inside = || ready("in");
    let app = App::new()
        .service(web::resource("/route").route(web::get().to(inside).wrap(require(mixed()))))
        .service(
            web::resource("/resource")
                .get(inside)
                .wrap(require(mixed())),
        )
        .service(
            web::scope("/scope")
                .wrap(require(mixed()))
                .route("", web::get().to(inside)),
        )
        .route(
            "/extractor",
            web::get().to(move |_: Granted<Mixed>| inside()),
        )
        .route("/call", web::get().to(call))
        .wrap(door.auth());
    let app = init_service(app).await;
    for (scopes, expected) in [("a", "INSUFFICIENT_SCOPE"), ("b", "OK")] {
        door.fixture
            .change(&door.record.id, |record| {
                record.scopes = vec![scope(scopes)];
            })
            .await;
        let mut answers = Vec::new();
        for path in ["/route", "/resource", "/scope", "/extractor", "/call"] {
            let response = call_service(&app, door.get(path).to_request()).await;
            assert_eq!(code(&response), expected, "{path}");
            assert!(response.headers().contains_key("ratelimit"), "{path}");
            let fields = ["www-authenticate", "content-type", "cache-control"];
            let fields = fields.map(|name| {
                response
                    .headers()
                    .get(name)
                    .cloned()
                    .filter(|_| expected != "OK")
            });
            answers.push((response.status(), fields, text(response).await));
        }
        assert!(
            answers.windows(2).all(|pair| pair[0] == pair[1]),
            "{answers:?}"
        );
    }
}

#[actix_web::test]
async fn the_middleware_checks_the_key_before_the_method() {
    let door = door(false).await;
    let app = App::new()
        .service(web::resource("/resource").get(whoami).wrap(door.auth()))
        .service(
            web::scope("/scope")
                .wrap(door.auth())
                .route("/known", web::get().to(whoami)),
        );
    let app = init_service(app).await;
    for (path, with_key, without) in [
        ("/resource", 405, 401),
        ("/scope/known", 404, 401),
        ("/scope/unknown", 404, 401),
        ("/elsewhere", 404, 404),
    ] {
        let post =
            |request: TestRequest| request.method(actix_web::http::Method::POST).to_request();
        assert_eq!(
            call_service(&app, post(door.get(path)))
                .await
                .status()
                .as_u16(),
            with_key,
            "{path}"
        );
        assert_eq!(
            call_service(&app, post(get(path))).await.status().as_u16(),
            without,
            "{path}"
        );
    }
}

// ---- paths ----

#[actix_web::test]
async fn a_workspace_is_the_one_that_the_handler_gets() {
    let door = door(false).await;
    let ws1 = vec![WorkspaceId::new("ws1").unwrap()];
    door.fixture
        .change(&door.record.id, |record| record.workspaces = Some(ws1))
        .await;
    let reaches = require(Requirement::workspace(WorkspaceOf::path_after(
        "workspaces",
    )));
    let handler = |path: web::Path<(String, String, String)>| ready(path.into_inner().0);
    let resource = web::resource("/workspaces/{ws}/{kind}/{id}")
        .get(handler)
        .wrap(reaches);
    let app = init_service(App::new().service(resource).wrap(door.auth())).await;
    for (path, answer) in [
        ("/workspaces/ws1/templates/1", Some("ws1")),
        ("/workspaces/ws2/templates/1", None),
        ("/workspaces/ws2/workspaces/ws1", None),
        // actix-web's router reads `workspaces` here, where two segments have that name.
        ("/w%6Frkspaces/ws2/workspaces/ws1", None),
        ("/%77orkspaces/ws2/workspaces/ws1", None),
        ("/w%6Frkspaces/ws1/workspaces/ws2", None),
        ("/workspaces/%77s2/ws1/ws1", None),
    ] {
        let response = call_service(&app, door.get(path).to_request()).await;
        match answer {
            Some(workspace) => assert_eq!(text(response).await, workspace, "{path}"),
            None => assert_eq!(code(&response), "WORKSPACE_FORBIDDEN", "{path}"),
        }
    }
}

#[actix_web::test]
async fn a_workspace_in_a_parameter_is_the_one_that_the_handler_gets() {
    let door = door(false).await;
    let ws1 = vec![WorkspaceId::new("ws1").unwrap()];
    door.fixture
        .change(&door.record.id, |record| record.workspaces = Some(ws1))
        .await;
    let reaches = || require(Requirement::workspace(WorkspaceOf::parameter("ws")));
    let handler = |path: web::Path<(String, String)>| ready(path.into_inner().0);
    // Around the resource, around the scope, and around one of each with the same name.
    let resource = || web::resource("/things/{id}").get(handler);
    let app = App::new()
        .service(web::scope("/in/{ws}").service(resource().wrap(reaches())))
        .service(
            web::scope("/around/{ws}")
                .service(resource())
                .wrap(reaches()),
        )
        .service(
            web::scope("/twice/{ws}")
                .service(web::resource("/things/{ws}").get(handler).wrap(reaches())),
        )
        .service(
            web::scope("/other/{id}").service(
                web::resource("/things/{thing}")
                    .get(handler)
                    .wrap(reaches()),
            ),
        )
        .wrap(door.auth());
    let app = init_service(app).await;
    for (path, answer) in [
        ("/in/ws1/things/ws2", Some("ws1")),
        ("/in/ws2/things/ws1", None),
        ("/in/%77s%31/things/1", Some("ws1")),
        ("/in/%77s2/things/1", None),
        ("/in/ws%2531/things/1", None),
        ("/in/ws1%2F/things/1", None),
        ("/in/ws1%ff/things/1", None),
        ("/in/ws1/things/%ff", None),
        ("/in/ws2/things/1?ws=ws1", None),
        ("/around/ws1/things/1", Some("ws1")),
        ("/around/ws2/things/1", None),
        ("/twice/ws1/things/ws1", None),
        ("/other/ws1/things/ws1", None),
    ] {
        let response = call_service(&app, door.get(path).to_request()).await;
        match answer {
            Some(workspace) => assert_eq!(text(response).await, workspace, "{path}"),
            None => assert_eq!(code(&response), "WORKSPACE_FORBIDDEN", "{path}"),
        }
    }
}

// ---- mappings ----

#[actix_web::test]
async fn a_mapping_that_is_awaited_may_stay_on_its_thread_and_is_asked_once() {
    for late in [false, true] {
        let door = door(late).await;
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        let auth = door.auth().map_principal(|_| 7_u8).try_map_principal(
            move |principal: KeyPrincipal| {
                count.fetch_add(1, Ordering::SeqCst);
                async move {
                    let unsendable = Rc::new(Cell::new(principal.owner().tenant_id.to_string()));
                    tokio::task::yield_now().await;
                    Ok::<_, Closed>(Customer(unsendable.take()))
                }
            },
        );
        let both = |customer: Caller<Customer>, number: Caller<u8>| {
            ready(format!("{} {}", customer.0.0, number.0))
        };
        let app = init_service(App::new().route("/", web::get().to(both)).wrap(auth)).await;
        for times in 1..=3 {
            assert_eq!(
                text(call_service(&app, door.get("/").to_request()).await).await,
                "acme 7"
            );
            assert_eq!(asked.load(Ordering::SeqCst), times);
        }
        assert_eq!(
            code(&call_service(&app, get("/").to_request()).await),
            "MISSING_KEY"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}

#[actix_web::test]
async fn a_refusal_of_the_host_is_answered_in_its_words_with_the_quota_and_is_audited() {
    for late in [false, true] {
        let door = door(late).await;
        let auth = door
            .auth()
            .try_map_principal(async |_| Err::<Customer, _>(Closed));
        let app = init_service(App::new().route("/", web::get().to(whoami)).wrap(auth)).await;
        let response = call_service(&app, door.get("/").to_request()).await;
        assert_eq!(
            (response.status().as_u16(), code(&response)),
            (403, "FORBIDDEN")
        );
        assert!(response.headers().contains_key("ratelimit"));
        assert_eq!(
            text(response).await,
            r#"{"oops":"FORBIDDEN","closed":true}"#
        );
        let event = door.event().await;
        assert_eq!(
            (event.outcome.as_str(), event.status),
            ("FORBIDDEN", Some(403))
        );
        assert_eq!(event.key_id, Some(door.record.id.clone()));
    }
}

#[actix_web::test]
async fn another_apis_principal_is_removed() {
    let door = door(false).await;
    let other = Fixture::new();
    let inner = || {
        Auth::new(
            other
                .bare()
                .header("x-inner-key", [format()])
                .optional()
                .build()
                .unwrap(),
        )
    };
    let customer =
        |auth: Auth| auth.try_map_principal(async |_| Ok::<_, Closed>(Customer("inner".into())));
    let app = App::new()
        .service(web::resource("/who").get(whoami).wrap(inner()))
        .service(
            web::resource("/now")
                .get(name)
                .wrap(inner().map_principal(|_| Customer("inner".into()))),
        )
        .service(web::resource("/later").get(name).wrap(customer(inner())))
        // For the inner API, the outer API's key is unknown.
        .wrap_fn(|mut request, service| {
            request.headers_mut().remove("authorization");
            service.call(request)
        })
        .wrap(door.auth().map_principal(|_| Customer("outer".into())));
    let app = init_service(app).await;
    let (key, record) = other.issue(&[]).await;
    for (path, inner) in [
        ("/who", record.id.to_string()),
        ("/now", "inner".into()),
        ("/later", "inner".into()),
    ] {
        let outer_only = call_service(&app, door.get(path).to_request()).await;
        assert_eq!(
            text(outer_only).await,
            "nobody",
            "a key of the outer API is anonymous to the inner one"
        );
        let both = door
            .get(path)
            .insert_header(("x-inner-key", key.as_str()))
            .to_request();
        assert_eq!(text(call_service(&app, both).await).await, inner);
    }
}

#[actix_web::test]
async fn the_hosts_code_may_use_the_extensions() {
    let door = door(false).await;
    let words =
        |error: &AuthError, _: &dyn portunus::RequestHead| ErrorBody::json(error.code().as_str());
    // Only what is asked for is found.
    let cost = |head: &dyn RequestHead| head.tls().map_or(1, |_| 2);
    let setup = door.builder().renderer(words).cost(cost);
    let auth = Auth::new(setup.build().unwrap())
        .peer(|request| {
            request.extensions_mut().insert(1_u8);
            request.peer_addr().map(|address| address.ip())
        })
        .tls(|request| {
            request.extensions_mut().insert(2_u16);
            None
        });
    let handler = |request: HttpRequest| {
        let found = request.extensions();
        ready(format!("{:?} {:?}", found.get::<u8>(), found.get::<u16>()))
    };
    let app = init_service(App::new().route("/", web::get().to(handler)).wrap(auth)).await;
    assert_eq!(
        text(call_service(&app, door.get("/").to_request()).await).await,
        "Some(1) Some(2)"
    );
    assert_eq!(
        code(&call_service(&app, get("/").to_request()).await),
        "MISSING_KEY"
    );
}

// ---- what is kept out of logs ----

#[actix_web::test]
async fn all_fields_that_may_contain_a_key_are_marked_sensitive() {
    let door = door(false).await;
    let auth = Auth::new(
        door.fixture
            .bearer()
            .header("X-API-Key", [format()])
            .build()
            .unwrap(),
    );
    let shown = Rc::new(Cell::new(String::new()));
    let seen = Rc::clone(&shown);
    let app = App::new()
        .route("/", web::get().to(whoami))
        .wrap(auth)
        .wrap_fn(move |request, service| {
            let seen = Rc::clone(&seen);
            let answer = service.call(request);
            async move {
                let answer = answer.await?;
                seen.set(format!(
                    "{:?} {:?}",
                    answer.request().headers(),
                    answer.request()
                ));
                Ok(answer)
            }
        });
    let app = init_service(app).await;
    let bearer = format!("Bearer {}", door.key);
    let requests = [
        door.get("/"),
        door.get("/")
            .append_header((AUTHORIZATION, bearer.as_str()))
            .append_header((AUTHORIZATION, "Token x")),
        get("/").insert_header(("x-api-key", door.key.as_str())),
        door.get("/")
            .append_header(("x-api-key", door.key.as_str())),
    ];
    for request in requests {
        drop(call_service(&app, request.to_request()).await);
        let shown = shown.take();
        assert!(shown.contains("Sensitive"), "{shown}");
        assert!(!shown.contains(&door.key[10..]), "{shown}");
    }
}

// ---- the audit ----

#[actix_web::test]
async fn an_event_records_the_outcome_whichever_layer_responds() {
    for late in [false, true] {
        let door = door(late).await;
        let call = |caller: KeyPrincipal, request: HttpRequest| {
            ready(call_refused(&caller, &request, &scope("b").into()))
        };
        let app = App::new()
            .route("/ok", web::get().to(whoami))
            .service(
                web::resource("/middleware")
                    .get(whoami)
                    .wrap(require(scope("b"))),
            )
            .route(
                "/extractor",
                web::get().to(|_: Granted<NeedsB>| ready("never")),
            )
            .route("/call", web::get().to(call))
            .route("/own/403", web::get().to(HttpResponse::Forbidden))
            .wrap(door.auth());
        let app = init_service(app).await;
        for (path, outcome, status) in [
            ("/ok", "OK", 200),
            ("/middleware", "INSUFFICIENT_SCOPE", 403),
            ("/extractor", "INSUFFICIENT_SCOPE", 403),
            ("/call", "INSUFFICIENT_SCOPE", 403),
            ("/own/403", "OK", 403),
        ] {
            assert_eq!(
                call_service(&app, door.get(path).to_request())
                    .await
                    .status()
                    .as_u16(),
                status
            );
            let event = door.event().await;
            assert_eq!(
                (event.outcome.as_str(), event.status),
                (outcome, Some(status)),
                "{path}"
            );
            assert_eq!(
                (event.key_id.as_ref(), event.route.as_deref()),
                (Some(&door.record.id), Some(path))
            );
        }
        assert_eq!(
            call_service(&app, get("/ok").to_request())
                .await
                .status()
                .as_u16(),
            401
        );
        assert_eq!(door.event().await.outcome.as_str(), "MISSING_KEY");
    }
}

#[actix_web::test]
async fn an_error_of_the_service_is_passed_on_and_recorded_as_a_failure() {
    for late in [false, true] {
        let door = door(late).await;
        let breaks = from_fn(|_, _: actix_web::middleware::Next<body::BoxBody>| async {
            Err::<ServiceResponse, _>(error::ErrorImATeapot("the service broke"))
        });
        let app = App::new()
            .service(web::resource("/").get(whoami).wrap(breaks))
            .wrap(door.auth());
        let app = init_service(app).await;
        let error = try_call_service(&app, door.get("/").to_request())
            .await
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "the service broke");
        let event = door.event().await;
        assert_eq!(
            (event.outcome.as_str(), event.key_id.as_ref()),
            ("FAILED", Some(&door.record.id))
        );
    }
}

#[actix_web::test]
async fn an_error_of_inner_middleware_has_rate_limit_fields() {
    for late in [false, true] {
        let door = door(late).await;
        let breaks = from_fn(|_, _: actix_web::middleware::Next<body::BoxBody>| async {
            Err::<ServiceResponse, _>(error::ErrorImATeapot("the service broke"))
        });
        let app = App::new()
            .service(web::resource("/").get(whoami).wrap(breaks))
            .wrap(door.auth());
        let app = init_service(app).await;
        let error = try_call_service(&app, door.get("/").to_request()).await;
        let error = error.err().unwrap();
        assert_eq!(error.to_string(), "the service broke");
        let response = error.error_response();
        assert_eq!(response.status().as_u16(), 418);
        assert_eq!(
            response.headers().get("ratelimit").unwrap(),
            r#""minute";r=99;t=60"#
        );
        assert!(response.headers().contains_key("ratelimit-policy"));
    }
}

#[actix_web::test]
async fn a_dropped_request_is_recorded_as_abandoned_and_goes_no_further() {
    let door = door(false).await;
    let reached = Rc::<Cell<bool>>::default();
    let flag = Rc::clone(&reached);
    let hangs = move || {
        flag.set(true);
        pending::<&str>()
    };
    let app = init_service(
        App::new()
            .route("/", web::get().to(hangs))
            .wrap(door.auth()),
    )
    .await;
    for (late, known) in [(false, true), (true, false)] {
        if late {
            door.fixture.store.answer_late(1);
        }
        reached.set(false);
        let mut call = Box::pin(app.call(door.get("/").to_request()));
        assert!(matches!(
            call.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            Poll::Pending
        ));
        drop(call);
        let event = door.event().await;
        assert_eq!((event.outcome.as_str(), event.status), ("ABANDONED", None));
        assert_eq!((event.key_id.is_some(), reached.get()), (known, known));
    }
}

#[actix_web::test]
async fn the_route_is_its_pattern_wherever_the_middleware_is_placed() {
    let door = door(false).await;
    let documents = || web::resource("/documents/{id}").get(whoami);
    let app = App::new()
        .service(web::scope("/scope").wrap(door.auth()).service(documents()))
        .service(web::scope("/resource").service(documents().wrap(door.auth())));
    let app = init_service(app).await;
    for (path, pattern) in [
        ("/scope/documents/7", "/scope/documents/{id}"),
        ("/resource/documents/7", "/resource/documents/{id}"),
    ] {
        for request in [door.get(&format!("{path}?token=hunter2")), get(path)] {
            drop(call_service(&app, request.to_request()).await);
            let event = door.event().await;
            assert_eq!(event.route.as_deref(), Some(pattern));
            assert!(!format!("{event:?}").contains("hunter2"));
        }
    }
    let app = init_service(App::new().service(documents()).wrap(door.auth())).await;
    drop(call_service(&app, door.get("/documents/7").to_request()).await);
    assert_eq!(
        door.event().await.route.as_deref(),
        Some("/documents/{id}"),
        "before the router has run"
    );
    drop(
        call_service(
            &app,
            door.get(&format!("/nowhere/{}", door.key)).to_request(),
        )
        .await,
    );
    assert_eq!(
        door.event().await.route.as_deref(),
        Some("/nowhere/[redacted]")
    );
}

#[actix_web::test]
async fn a_request_id_is_taken_over_or_made_and_goes_along_with_request_and_refusal() {
    let door = door(false).await;
    let echo =
        |request: HttpRequest| ready(request.extensions().get::<RequestId>().unwrap().to_string());
    let app = init_service(App::new().route("/", web::get().to(echo)).wrap(door.auth())).await;
    let of = |response: &ServiceResponse<_>| {
        let extensions = response.response().extensions();
        extensions.get::<RequestId>().cloned()
    };
    let bytes = |bytes: &[u8]| HeaderValue::from_bytes(bytes).unwrap();
    for (values, taken) in [
        (vec![bytes(b"abc-123")], Some("abc-123")),
        (vec![], None),
        (vec![bytes(b"")], None),
        (vec![bytes(&[b'i'; 129])], None),
        (vec![bytes(b"a b")], None),
        (vec![bytes(b"\xff")], None),
        (vec![bytes(b"a"), bytes(b"a")], None),
    ] {
        for (request, passes) in [(door.get("/"), true), (get("/"), false)] {
            let add = |request: TestRequest, value: &HeaderValue| {
                request.append_header(("x-request-id", value.clone()))
            };
            let response = call_service(&app, values.iter().fold(request, add).to_request()).await;
            let told = of(&response);
            let id = door.event().await.request_id.unwrap();
            assert!(taken.is_none_or(|taken| id.to_string() == taken));
            if passes {
                assert_eq!(text(response).await, id.to_string());
            } else {
                assert_eq!(told, Some(id));
            }
        }
    }
    // Information from outer middleware takes precedence over the client's headers.
    let app = App::new()
        .route("/", web::get().to(echo))
        .wrap(door.auth())
        .wrap_fn(|request, service| {
            request
                .extensions_mut()
                .insert(RequestId::new("outer").unwrap());
            service.call(request)
        });
    let app = init_service(app).await;
    let response = call_service(
        &app,
        door.get("/")
            .insert_header(("x-request-id", "mine"))
            .to_request(),
    )
    .await;
    assert_eq!(text(response).await, "outer");
}

#[actix_web::test]
async fn an_answer_is_counted_once() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let door = door(false).await;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let app = App::new()
        .service(
            web::resource("/")
                .get(whoami)
                .wrap(require(scope("b")))
                .wrap(door.auth()),
        )
        .route("/ok", web::get().to(whoami))
        .wrap(door.auth());
    let app = init_service(app).await;
    for request in [door.get("/"), door.get("/ok"), get("/ok")] {
        drop(call_service(&app, request.to_request()).await);
    }
    let mut counted = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let ("portunus_requests_total", DebugValue::Counter(count)) = (key.key().name(), value) {
            counted.push((key.key().labels().next().unwrap().value().to_owned(), count));
        }
    }
    counted.sort();
    assert_eq!(
        counted,
        [("INSUFFICIENT_SCOPE", 1), ("MISSING_KEY", 1), ("OK", 1)].map(|(o, n)| (o.to_owned(), n))
    );
}

// ---- where a request comes from, and over what ----

/// A request from this address, or without a peer address.
fn from(request: TestRequest, peer: Option<&str>) -> TestRequest {
    match peer {
        Some(peer) => request.peer_addr(SocketAddr::new(peer.parse().unwrap(), 4711)),
        None => request,
    }
}

#[actix_web::test]
async fn the_peer_is_the_connections_unless_the_host_says_another() {
    let door = door(false).await;
    let address = |caller: KeyPrincipal| ready(format!("{:?}", caller.client_ip()));
    let said = door.auth().peer(|_| Some(IpAddr::from([198, 51, 100, 7])));
    let app = App::new()
        .service(web::resource("/connection").get(address).wrap(door.auth()))
        .service(web::resource("/said").get(address).wrap(said));
    let app = init_service(app).await;
    for (path, peer, told) in [
        ("/connection", Some("192.0.2.7"), "Some(192.0.2.7)"),
        ("/connection", Some("::ffff:192.0.2.7"), "Some(192.0.2.7)"),
        ("/connection", None, "None"),
        ("/said", Some("192.0.2.7"), "Some(198.51.100.7)"),
        ("/said", None, "Some(198.51.100.7)"),
    ] {
        let request = from(door.get(path), peer).to_request();
        assert_eq!(
            text(call_service(&app, request).await).await,
            told,
            "{path} {peer:?}"
        );
    }
}

#[actix_web::test]
async fn an_allow_list_matches_the_peer_in_either_notation_and_never_an_unknown_address() {
    for late in [false, true] {
        let door = door(late).await;
        let listed = AllowList::parse(["203.0.113.42"]).ok();
        door.fixture
            .change(&door.record.id, |record| record.allowed_ips = listed)
            .await;
        let proxies = || -> [Cidr; 1] { ["10.0.0.0/8".parse().unwrap()] };
        for client_ip in [
            ClientIp::peer(),
            ClientIp::behind(proxies(), ForwardedHeader::XForwardedFor),
            ClientIp::behind(proxies(), ForwardedHeader::Forwarded),
        ] {
            let auth = Auth::new(door.builder().client_ip(client_ip).build().unwrap());
            let app = init_service(App::new().route("/", web::get().to(whoami)).wrap(auth)).await;
            for (peer, expected) in [
                (Some("203.0.113.42"), "OK"),
                (Some("::ffff:203.0.113.42"), "OK"),
                (Some("192.0.2.1"), "IP_NOT_ALLOWED"),
                (None, "IP_NOT_ALLOWED"),
            ] {
                let response = call_service(&app, from(door.get("/"), peer).to_request()).await;
                assert_eq!(code(&response), expected, "{peer:?}");
            }
        }
    }
}

#[actix_web::test]
async fn the_tls_version_comes_from_outer_middleware_or_a_trusted_proxy() {
    let door = door(false).await;
    let proxies: [Cidr; 1] = ["10.0.0.0/8".parse().unwrap()];
    let demanded = Transport::tls(TlsVersion::V1_3).or_proven_by(proxies, "X-TLS-Version");
    let auth = Auth::new(door.builder().transport(Some(demanded)).build().unwrap());
    let app = init_service(App::new().route("/", web::get().to(whoami)).wrap(auth)).await;
    for (tls, told, peer, expected) in [
        (None, None, None, "INSECURE_TRANSPORT"),
        (Some(TlsVersion::V1_2), None, None, "INSECURE_TRANSPORT"),
        (Some(TlsVersion::V1_3), None, None, "OK"),
        (None, Some("TLSv1.3"), None, "INSECURE_TRANSPORT"),
        (
            None,
            Some("TLSv1.3"),
            Some("192.0.2.1"),
            "INSECURE_TRANSPORT",
        ),
        (None, Some("TLSv1.3"), Some("10.0.0.1"), "OK"),
        (
            None,
            Some("TLSv1.2"),
            Some("10.0.0.1"),
            "INSECURE_TRANSPORT",
        ),
    ] {
        let mut request = from(door.get("/"), peer);
        if let Some(version) = told {
            request = request.insert_header(("x-tls-version", version));
        }
        let request = request.to_request();
        if let Some(tls) = tls {
            request.extensions_mut().insert::<TlsVersion>(tls);
        }
        assert_eq!(
            code(&call_service(&app, request).await),
            expected,
            "{tls:?} {told:?} {peer:?}"
        );
    }
}

#[actix_web::test]
async fn after_too_many_unknown_keys_an_address_is_refused_but_its_valid_key_passes() {
    for late in [false, true] {
        let door = door(late).await;
        let three = Quotas::new([Quota::per_minute(3).unwrap()]).ok();
        let auth = Auth::new(door.builder().failure_quotas(three).build().unwrap());
        let app = init_service(App::new().route("/", web::get().to(whoami)).wrap(auth)).await;
        let unknown = format!("Bearer {}", stranger());
        for expected in ["INVALID_KEY"; 3]
            .into_iter()
            .chain(["TOO_MANY_FAILURES"; 2])
        {
            let request = get("/").insert_header((AUTHORIZATION, unknown.as_str()));
            let request = from(request, Some("192.0.2.7")).to_request();
            assert_eq!(code(&call_service(&app, request).await), expected);
        }
        for (peer, expected) in [("192.0.2.7", "OK"), ("192.0.2.8", "OK")] {
            let request = from(door.get("/"), Some(peer)).to_request();
            assert_eq!(code(&call_service(&app, request).await), expected, "{peer}");
        }
    }
}

// ---- what refusals say ----

#[actix_web::test]
async fn words_may_be_made_of_the_request() {
    for late in [false, true] {
        let door = door(late).await;
        let words = |error: &AuthError, head: &dyn RequestHead| {
            let (method, path, code) = (head.method(), head.path(), error.code());
            let text = format!("{method} {path} {code} {:?}", head.peer_ip());
            ErrorBody::new("text/plain", text.into_bytes())
        };
        let app = App::new()
            .service(
                web::resource("/closed")
                    .get(whoami)
                    .wrap(require(scope("b"))),
            )
            .wrap(Auth::new(door.builder().renderer(words).build().unwrap()));
        let app = init_service(app).await;
        for (request, told) in [
            (
                get("/documents/7?api_key=secret"),
                "GET /documents/7 MISSING_KEY Some(192.0.2.7)",
            ),
            (
                get("/a%20b/%ff"),
                "GET /a%20b/%ff MISSING_KEY Some(192.0.2.7)",
            ),
            // Only the middleware that authenticates knows the peer.
            (door.get("/closed?x"), "GET /closed INSUFFICIENT_SCOPE None"),
        ] {
            let request = from(request, Some("192.0.2.7")).to_request();
            let response = call_service(&app, request).await;
            assert_eq!(
                response.headers().get("content-type").unwrap(),
                "text/plain"
            );
            assert_eq!(text(response).await, told);
        }
    }
}

#[actix_web::test]
async fn an_invalid_media_type_is_omitted_and_does_not_split_the_response() {
    let door = door(false).await;
    let own =
        from_error(|_: &AuthError| ErrorBody::new("text/plain\r\nSet-Cookie: a=b", b"x".to_vec()));
    let auth = Auth::new(door.builder().renderer(own).build().unwrap());
    let app = init_service(App::new().route("/", web::get().to(whoami)).wrap(auth)).await;
    let response = call_service(&app, get("/").to_request()).await;
    assert_eq!(response.status().as_u16(), 401);
    for name in ["content-type", "set-cookie"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(text(response).await, "x");
}

#[actix_web::test]
async fn a_call_of_grpc_is_refused_by_trailers_only_where_that_is_declared() {
    let door = door(false).await;
    let unknown = format!("Bearer {}", stranger());
    for (auth, declared) in [(door.auth().grpc(), true), (door.auth(), false)] {
        let app = App::new()
            .service(web::resource("/a.B/Open").post(whoami))
            .service(
                web::resource("/a.B/Closed")
                    .post(whoami)
                    .wrap(require(scope("b"))),
            )
            .wrap(auth);
        let app = init_service(app).await;
        for content_type in ["application/grpc", "application/grpc+proto"] {
            for (request, status, http) in [
                (get("/a.B/Open"), Some("16"), 401),
                (
                    get("/a.B/Open").insert_header((AUTHORIZATION, unknown.as_str())),
                    Some("16"),
                    401,
                ),
                (door.get("/a.B/Closed"), Some("7"), 403),
                (door.get("/a.B/Open"), None, 200),
            ] {
                let request = request
                    .method(actix_web::http::Method::POST)
                    .insert_header(("content-type", content_type));
                let response = call_service(&app, request.to_request()).await;
                let told = response.headers().get("grpc-status");
                let told = told.map(|value| value.to_str().unwrap().to_owned());
                let expected = if declared {
                    (200, status)
                } else {
                    (http, None)
                };
                assert_eq!(
                    (response.status().as_u16(), told.as_deref()),
                    expected,
                    "{content_type}"
                );
                let empty = declared && status.is_some();
                assert_eq!(text(response).await.is_empty(), empty);
            }
        }
    }
}

// ---- paths (see also `a_workspace_is_the_one_that_the_handler_gets`) ----

#[actix_web::test]
async fn a_workspace_is_found_in_a_path_that_no_pattern_names() {
    let door = door(false).await;
    let ws1 = vec![WorkspaceId::new("ws1").unwrap()];
    door.fixture
        .change(&door.record.id, |record| record.workspaces = Some(ws1))
        .await;
    let reaches = require(Requirement::workspace(WorkspaceOf::path_after(
        "workspaces",
    )));
    let app = App::new()
        .service(web::resource("{any:.*}").get(whoami))
        .wrap(reaches)
        .wrap(door.auth());
    let app = init_service(app).await;
    for (path, expected) in [
        ("/workspaces/ws1/templates", "OK"),
        // The rest of the path does not cause decoding.
        ("/a%20b/workspaces/ws1/%ff", "OK"),
        ("/workspaces/ws2/templates", "WORKSPACE_FORBIDDEN"),
        ("/workspaces/ws%31/templates", "WORKSPACE_FORBIDDEN"),
        ("/workspaces/%77s1/templates", "WORKSPACE_FORBIDDEN"),
        ("/workspaces/ws1%00/templates", "WORKSPACE_FORBIDDEN"),
        ("/workspaces/ws1%2F/templates", "WORKSPACE_FORBIDDEN"),
        ("/workspaces//templates", "WORKSPACE_FORBIDDEN"),
        ("/workspaces/", "WORKSPACE_FORBIDDEN"),
        ("/templates?x=/workspaces/ws1", "WORKSPACE_FORBIDDEN"),
    ] {
        let response = call_service(&app, door.get(path).to_request()).await;
        let status = if expected == "OK" { 200 } else { 403 };
        assert_eq!(
            (response.status().as_u16(), code(&response)),
            (status, expected),
            "{path}"
        );
    }
}
