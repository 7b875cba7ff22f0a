//! Limits of routes and of callers without a key, and what handlers see of them: the same on axum,
//! actix-web and plain tower.

use std::convert::Infallible;
use std::net::SocketAddr;

use actix_web::body::{MessageBody, to_bytes};
use actix_web::http::header::HeaderValue;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, web};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use portunus::adapter::axum as on_axum;
use portunus::adapter::tower::{AuthLayer, RateLimits, Rejection};
use portunus::adapter::{actix, axum::RequireExt};
use portunus::limit::{LimitPolicy, LocalLimiter};
use portunus::quota::Quota;
use portunus::{Authenticator, KeyPrincipal, Limits, scope};
use portunus_test_support::Fixture;
use tower::{Layer, ServiceExt, service_fn};

fn limits() -> Limits {
    Limits::per_key([Quota::per_minute(20)])
        .policy(LimitPolicy::per_address([Quota::per_minute(3)]).anonymous())
        .class(
            "reports",
            [
                LimitPolicy::per_tenant([Quota::per_minute(9)]),
                LimitPolicy::per_address([Quota::per_minute(2)]).anonymous(),
            ],
        )
        .on("GET /by-rule/{id}")
}

async fn fixture() -> (Fixture, Authenticator, String) {
    let fixture = Fixture::new();
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    let limits = limits().limiter(limiter);
    let authenticator = fixture.bearer().limits(limits).build().unwrap();
    let key = fixture.issue(&["a"]).await.0;
    (fixture, authenticator, key)
}

/// A handler that counts 4 more units, or as many as asked, and says what is left.
async fn spend<E>(
    units: u64,
    charged: impl Future<Output = Result<Vec<(String, u64)>, E>>,
) -> Result<String, E> {
    let left = charged.await?;
    let left: Vec<_> = left
        .iter()
        .map(|(name, left)| format!("{name}={left}"))
        .collect();
    Ok(format!("{units}: {}", left.join(" ")))
}

fn left(limits: &RateLimits) -> Vec<(String, u64)> {
    let each = limits.quotas();
    each.map(|(quota, window)| (quota.name().to_owned(), window.remaining()))
        .collect()
}

async fn charge(mut limits: RateLimits, units: u64) -> Result<String, Rejection> {
    spend(units, async {
        limits.charge(units).await?;
        Ok(left(&limits))
    })
    .await
}

async fn overdraw(mut limits: RateLimits, units: u64) -> Result<String, Rejection> {
    spend(units, async {
        limits.overdraw(units).await?;
        Ok(left(&limits))
    })
    .await
}

fn by_axum(authenticator: &Authenticator) -> Router {
    use on_axum::{ProtectedRouter, get, post};
    ProtectedRouter::new(AuthLayer::new(authenticator.clone()))
        .route("/plain", get(|| async { "ok" }).any_key())
        .route(
            "/reports",
            get(|| async { "ok" }).require(scope!("a")).class("reports"),
        )
        .route("/reports", post(|| async { "ok" }).any_key())
        .route("/by-rule/{id}", get(|| async { "ok" }).any_key())
        .route(
            "/optional",
            get(|| async { "ok" }).optional_key().class("reports"),
        )
        .route("/public", get(|| async { "ok" }).public())
        .route(
            "/charge",
            get(|limits: RateLimits| charge(limits, 4)).any_key(),
        )
        .route(
            "/too-much",
            get(|limits: RateLimits| charge(limits, 19)).any_key(),
        )
        .route(
            "/never",
            get(|limits: RateLimits| charge(limits, 21)).any_key(),
        )
        .route(
            "/overdraw",
            get(|limits: RateLimits| overdraw(limits, 50)).any_key(),
        )
        .route(
            "/charge-nobody",
            get(|limits: RateLimits| charge(limits, 1)).public(),
        )
        .into_router()
}

fn by_actix(authenticator: &Authenticator) -> actix::ProtectedRouter {
    use actix::{ProtectedRouter, get, post};
    ProtectedRouter::new(actix::Auth::new(authenticator.clone()))
        .route("/plain", get(|| async { "ok" }).any_key())
        .route(
            "/reports",
            get(|| async { "ok" }).require(scope!("a")).class("reports"),
        )
        .route("/reports", post(|| async { "ok" }).any_key())
        .route("/by-rule/{id}", get(|| async { "ok" }).any_key())
        .route(
            "/optional",
            get(|| async { "ok" }).optional_key().class("reports"),
        )
        .route("/public", get(|| async { "ok" }).public())
        .route(
            "/charge",
            get(|limits: RateLimits| charge(limits, 4)).any_key(),
        )
        .route(
            "/too-much",
            get(|limits: RateLimits| charge(limits, 19)).any_key(),
        )
        .route(
            "/never",
            get(|limits: RateLimits| charge(limits, 21)).any_key(),
        )
        .route(
            "/overdraw",
            get(|limits: RateLimits| overdraw(limits, 50)).any_key(),
        )
        .route(
            "/charge-nobody",
            get(|limits: RateLimits| charge(limits, 1)).public(),
        )
}

/// A request: method, path, whether with the key, and the last byte of its address.
type Asked = (&'static str, &'static str, bool, u8);

/// Status, `RateLimit`, and the body.
type Told = (u16, String, String);

/// Each request with what it gets: a status, the state of the limits, and the body of a success.
const CASES: &[(Asked, u16, &str, &str)] = &[
    (
        ("GET", "/plain", true, 1),
        200,
        r#""minute";r=19;t=60"#,
        "ok",
    ),
    (
        ("GET", "/reports", true, 1),
        200,
        r#""minute";r=18;t=60, "reports-tenant-minute";r=8;t=60"#,
        "ok",
    ),
    (
        ("HEAD", "/reports", true, 1),
        200,
        r#""minute";r=17;t=60, "reports-tenant-minute";r=7;t=60"#,
        "",
    ),
    // Another method of the path, without a class.
    (
        ("POST", "/reports", true, 1),
        200,
        r#""minute";r=16;t=60"#,
        "ok",
    ),
    (
        ("GET", "/by-rule/7", true, 1),
        200,
        r#""minute";r=15;t=60, "reports-tenant-minute";r=6;t=60"#,
        "ok",
    ),
    (
        ("GET", "/charge", true, 1),
        200,
        r#""minute";r=10;t=60"#,
        "4: minute=10",
    ),
    // The request itself counts, and its charge does not.
    (
        ("GET", "/too-much", true, 1),
        429,
        r#""minute";r=9;t=60"#,
        "",
    ),
    (("GET", "/never", true, 1), 403, r#""minute";r=8;t=60"#, ""),
    (
        ("GET", "/overdraw", true, 1),
        200,
        r#""minute";r=0;t=60"#,
        "50: minute=0",
    ),
    (("GET", "/plain", true, 1), 429, r#""minute";r=0;t=60"#, ""),
    // Without a key.
    (
        ("GET", "/public", false, 1),
        200,
        r#""anonymous-minute";r=2;t=60"#,
        "ok",
    ),
    (
        ("GET", "/charge-nobody", false, 1),
        200,
        r#""anonymous-minute";r=0;t=60"#,
        "1: anonymous-minute=0",
    ),
    (
        ("GET", "/public", false, 1),
        429,
        r#""anonymous-minute";r=0;t=60"#,
        "",
    ),
    // A key is not read on a public route.
    (
        ("GET", "/public", true, 1),
        429,
        r#""anonymous-minute";r=0;t=60"#,
        "",
    ),
    (
        ("GET", "/optional", false, 2),
        200,
        r#""anonymous-minute";r=2;t=60, "reports-anonymous-minute";r=1;t=60"#,
        "ok",
    ),
    (
        ("GET", "/optional", false, 2),
        200,
        r#""anonymous-minute";r=1;t=60, "reports-anonymous-minute";r=0;t=60"#,
        "ok",
    ),
    (
        ("GET", "/optional", false, 2),
        429,
        r#""anonymous-minute";r=1;t=60, "reports-anonymous-minute";r=0;t=60"#,
        "",
    ),
    (
        ("GET", "/public", false, 2),
        200,
        r#""anonymous-minute";r=0;t=60"#,
        "ok",
    ),
    // Without a key where one is required, nothing is counted.
    (("GET", "/plain", false, 3), 401, "", ""),
    (("GET", "/unknown", false, 3), 404, "", ""),
];

fn check(name: &str, case: &(Asked, u16, &str, &str), told: &Told) {
    let (asked, status, state, body) = case;
    assert_eq!(
        (told.0, &*told.1),
        (*status, *state),
        "{name}: {asked:?}: {told:?}"
    );
    if *status == 200 {
        assert_eq!(told.2, *body, "{name}: {asked:?}");
    }
    if *status == 429 {
        assert!(
            told.2.contains("violated-policies"),
            "{name}: {asked:?}: {told:?}"
        );
    }
}

fn peer(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4711))
}

fn told(status: u16, state: Option<&[u8]>, body: &[u8]) -> Told {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (status, state.map(text).unwrap_or_default(), text(body))
}

#[tokio::test]
async fn routes_have_the_limits_of_their_class_on_axum() {
    let (_fixture, authenticator, key) = fixture().await;
    let app = by_axum(&authenticator);
    for case in CASES {
        let (method, path, with_key, last) = case.0;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .extension(ConnectInfo(peer(last)));
        if with_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = app
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        let state = parts
            .headers
            .get("ratelimit")
            .map(http::HeaderValue::as_bytes);
        check("axum", case, &told(parts.status.as_u16(), state, &body));
    }
}

#[actix_web::test]
async fn routes_have_the_limits_of_their_class_on_actix() {
    let (_fixture, authenticator, key) = fixture().await;
    let app = init_service(App::new().service(by_actix(&authenticator))).await;
    for case in CASES {
        let (method, path, with_key, last) = case.0;
        let mut request = TestRequest::with_uri(path)
            .method(method.parse().unwrap())
            .peer_addr(peer(last));
        if with_key {
            request = request.insert_header(("authorization", format!("Bearer {key}")));
        }
        let response = call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        let state = response.headers().get("ratelimit").cloned();
        let body = to_bytes(response.into_body().boxed()).await.unwrap();
        let state = state.as_ref().map(HeaderValue::as_bytes);
        check("actix", case, &told(status, state, &body));
    }
}

/// A framework's own routes inside the layer: the rules of the limits decide.
#[tokio::test]
async fn rules_see_the_pattern_of_a_nested_route() {
    let fixture = Fixture::new();
    let limits = Limits::new([])
        .class("reports", [LimitPolicy::per_key([Quota::per_minute(9)])])
        .on("/v1/reports/{id}");
    let authenticator = fixture.bearer().limits(limits).build().unwrap();
    let key = fixture.issue(&["a"]).await.0;
    let value = format!("Bearer {key}");
    let inner = || {
        let get = |path: &'static str| async move { path };
        Router::new()
            .route(
                "/reports/{id}",
                axum::routing::get(move || get("one")).require(scope!("a")),
            )
            .route(
                "/reports/all/pages",
                axum::routing::get(move || get("all")).require(scope!("a")),
            )
    };
    let layer = || AuthLayer::new(authenticator.clone());
    let apps = [
        Router::new().nest("/v1", inner()).route_layer(layer()),
        Router::new().nest("/v1", inner()).layer(layer()),
        Router::new().nest("/v1", inner().route_layer(layer())),
    ];
    for (number, app) in (1..).zip(apps) {
        for (path, expected) in [
            (
                "/v1/reports/7",
                Some(format!(r#""reports-minute";r={};t=60"#, 9 - number)),
            ),
            ("/v1/reports/all/pages", None),
        ] {
            let request = Request::get(path).header("authorization", &value);
            let request = request.body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let state = response.headers().get("ratelimit");
            let state = state.map(|state| state.to_str().unwrap().to_owned());
            assert_eq!(state, expected, "{number} {path}");
        }
    }
    let auth = actix::Auth::new(authenticator.clone());
    let get = || async { "one" };
    let routes = move |config: &mut web::ServiceConfig| {
        let all = web::resource("/reports/all/pages").route(web::get().to(get));
        let one = web::resource("/reports/{id}").route(web::get().to(get));
        config.service(web::scope("/v1").service(all).service(one));
    };
    let app = init_service(App::new().wrap(auth).configure(routes)).await;
    for (path, expected) in [
        ("/v1/reports/7", Some(r#""reports-minute";r=5;t=60"#)),
        ("/v1/reports/all/pages", None),
    ] {
        let request = TestRequest::with_uri(path).insert_header(("authorization", value.clone()));
        let response = call_service(&app, request.to_request()).await;
        assert_eq!(response.status(), 200);
        let state = response
            .headers()
            .get("ratelimit")
            .map(|state| state.to_str().unwrap());
        assert_eq!(state, expected, "actix {path}");
    }
}

/// A path that is percent-encoded reaches the same route, so it has the same class.
#[actix_web::test]
async fn an_encoded_path_has_the_class_of_the_route_that_it_reaches() {
    let fixture = Fixture::new();
    let limits = Limits::per_key([Quota::per_minute(90)])
        .class("reports", [LimitPolicy::per_key([Quota::per_minute(3)])])
        .on("/v1/reports/{name}");
    let authenticator = fixture.bearer().limits(limits).build().unwrap();
    let value = format!("Bearer {}", fixture.issue(&["a"]).await.0);
    let one = || web::get().to(|| async { "one" });
    let routes = move |config: &mut web::ServiceConfig| {
        config.service(web::scope("/v1").route("/reports/{id}", one()));
    };
    let auth = actix::Auth::new(authenticator.clone());
    let app = init_service(App::new().wrap(auth).configure(routes)).await;
    let layer = AuthLayer::new(authenticator);
    let on_axum = Router::new()
        .route("/v1/reports/{id}", axum::routing::get(async || "one"))
        .layer(layer);
    for (path, left) in [("/v1/reports/1", 2), ("/v1/%72eports/1", 1)] {
        let request = TestRequest::with_uri(path).insert_header(("authorization", value.clone()));
        let response = call_service(&app, request.to_request()).await;
        let state = response
            .headers()
            .get("ratelimit")
            .map(HeaderValue::as_bytes);
        let state = String::from_utf8(state.unwrap_or_default().to_vec()).unwrap();
        let expected = format!(r#""reports-minute";r={left};t=60"#);
        assert_eq!(response.status(), 200, "{path}");
        assert!(state.ends_with(&expected), "{path}: {state}");
    }
    // axum compares the path as it was sent, so this one reaches no route.
    for (path, status) in [("/v1/reports/1", 200), ("/v1/%72eports/1", 404)] {
        let request = Request::get(path).header("authorization", &value);
        let request = request.body(Body::empty()).unwrap();
        let response = on_axum.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
}

/// A caller whom an outer layer authenticated and counted keeps its principal on a public route, and
/// is not counted as an anonymous client.
#[tokio::test]
async fn a_public_route_in_an_outer_layer_counts_callers_without_a_key_only() {
    let (_fixture, authenticator, key) = fixture().await;
    let who = |caller: Option<KeyPrincipal>| async move {
        if caller.is_some() { "key" } else { "nobody" }
    };
    let inner = on_axum::ProtectedRouter::new(AuthLayer::new(authenticator.clone()))
        .route("/", on_axum::get(who).public())
        .route("/login", on_axum::get(who).public().class("reports"))
        .into_router();
    let layer = AuthLayer::new(authenticator.clone()).optional_key();
    let app = inner.layer(layer);
    for number in 0..5 {
        let request = Request::get("/")
            .header("authorization", format!("Bearer {key}"))
            .extension(ConnectInfo(peer(9)));
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let state = response.headers()["ratelimit"].to_str().unwrap().to_owned();
        assert_eq!(state, format!(r#""minute";r={};t=60"#, 19 - number));
        let body = axum::body::to_bytes(response.into_body(), 99)
            .await
            .unwrap();
        assert_eq!(&*body, b"key");
    }
    let ask = async |path: &str, with_key: bool, last: u8| {
        let mut request = Request::get(path).extension(ConnectInfo(peer(last)));
        if with_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(Body::empty()).unwrap();
        app.clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    // Without a key, a request is counted once: three of the address pass.
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(ask("/", false, 10).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    // The limit of a route's class holds for callers with a key, too: two of the address.
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(ask("/login", true, 11).await);
    }
    assert_eq!(statuses, [200, 200, 429]);
    // A key of another service is nothing that this one has counted.
    let (_other, others, _) = fixture().await;
    let foreign = on_axum::ProtectedRouter::new(AuthLayer::new(others))
        .route("/", on_axum::get(who).public())
        .into_router()
        .layer(AuthLayer::new(authenticator.clone()));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let request = Request::get("/")
            .header("authorization", format!("Bearer {key}"))
            .extension(ConnectInfo(peer(12)));
        let request = request.body(Body::empty()).unwrap();
        statuses.push(
            foreign
                .clone()
                .oneshot(request)
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
}

/// What a request of a method gets: its status, and the state of the limits.
const METHODS: &[(&str, &str, u16, &str)] = &[
    (
        "GET",
        "/any",
        200,
        r#""minute";r=19;t=60, "rule-minute";r=9;t=60"#,
    ),
    (
        "POST",
        "/any",
        200,
        r#""minute";r=18;t=60, "route-minute";r=9;t=60"#,
    ),
    ("HEAD", "/head", 200, r#""minute";r=17;t=60"#),
    (
        "GET",
        "/head",
        200,
        r#""minute";r=16;t=60, "route-minute";r=8;t=60"#,
    ),
    (
        "HEAD",
        "/rest",
        200,
        r#""minute";r=15;t=60, "route-minute";r=7;t=60"#,
    ),
    ("PUT", "/rest", 200, r#""minute";r=14;t=60"#),
    // A method that a public path has no handler for is counted like the path.
    ("POST", "/public", 405, r#""anonymous-minute";r=1;t=60"#),
    ("POST", "/public", 405, r#""anonymous-minute";r=0;t=60"#),
    ("POST", "/public", 429, r#""anonymous-minute";r=0;t=60"#),
    ("GET", "/public", 429, r#""anonymous-minute";r=0;t=60"#),
];

#[actix_web::test]
async fn each_method_of_a_path_has_its_own_class() {
    let fixture = Fixture::new();
    let class = || [LimitPolicy::per_key([Quota::per_minute(10)])];
    let limits = || {
        Limits::per_key([Quota::per_minute(20)])
            .policy(LimitPolicy::per_address([Quota::per_minute(2)]).anonymous())
            .class("route", class())
            .class("rule", class())
            .on("GET /any")
    };
    let key = fixture.issue(&["a"]).await.0;
    let value = format!("Bearer {key}");
    macro_rules! routes {
        ($framework:ident, $auth:expr) => {{
            use $framework::{ProtectedRouter, any, get, head, post};
            let ok = || async { "" };
            ProtectedRouter::new($auth)
                .route(
                    "/any",
                    post(ok).any_key().class("route").and(get(ok).any_key()),
                )
                .route(
                    "/head",
                    get(ok).any_key().class("route").and(head(ok).any_key()),
                )
                .route(
                    "/rest",
                    any(ok).any_key().and(get(ok).any_key().class("route")),
                )
                .route("/public", get(ok).public())
        }};
    }
    let authenticator = fixture.bearer().limits(limits()).build().unwrap();
    let app = routes!(on_axum, AuthLayer::new(authenticator)).into_router();
    for (method, path, status, state) in METHODS {
        let request = Request::builder()
            .method(*method)
            .uri(*path)
            .header("authorization", &value)
            .extension(ConnectInfo(peer(1)));
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let told = response.headers().get("ratelimit");
        let told = told.map(http::HeaderValue::as_bytes).unwrap_or_default();
        assert_eq!(response.status(), *status, "axum {method} {path}");
        assert_eq!(
            String::from_utf8_lossy(told),
            *state,
            "axum {method} {path}"
        );
    }
    let authenticator = fixture.bearer().limits(limits()).build().unwrap();
    let app = routes!(actix, actix::Auth::new(authenticator));
    let app = init_service(App::new().service(app)).await;
    for (method, path, status, state) in METHODS {
        let request = TestRequest::with_uri(path)
            .method(method.parse().unwrap())
            .insert_header(("authorization", value.clone()))
            .peer_addr(peer(1));
        let response = call_service(&app, request.to_request()).await;
        assert_eq!(response.status(), *status, "actix {method} {path}");
        let told = response.headers().get("ratelimit");
        let told = told.map(HeaderValue::as_bytes).unwrap_or_default();
        assert_eq!(
            String::from_utf8_lossy(told),
            *state,
            "actix {method} {path}"
        );
    }
}

#[tokio::test]
async fn a_tower_service_reads_and_charges_the_limits_of_a_request() {
    let (_fixture, authenticator, key) = fixture().await;
    let inner = service_fn(|request: Request<Body>| async move {
        let mut limits = RateLimits::of(&request).expect("the layer ran");
        let response = match limits.charge(4).await {
            Ok(()) => Response::new(Body::from(format!("{:?}", limits.remaining()))),
            Err(rejection) => rejection.into(),
        };
        Ok::<Response<Body>, Infallible>(response)
    });
    let service = AuthLayer::new(authenticator).layer(inner);
    for (status, left) in [(200, 15), (200, 10), (200, 5), (200, 0), (429, 0)] {
        let request = Request::get("/").header("authorization", format!("Bearer {key}"));
        let response = service
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let state = response.headers()["ratelimit"].to_str().unwrap().to_owned();
        assert_eq!(response.status(), status);
        assert_eq!(state, format!(r#""minute";r={left};t=60"#));
    }
    let nobody = Request::get("/").body(()).unwrap();
    assert!(RateLimits::of(&nobody).is_none(), "no layer ran");
}

#[test]
#[should_panic(expected = "/reports: the class unheard-of is not declared")]
fn an_undeclared_class_stops_the_start_on_axum() {
    let authenticator = Fixture::new().bearer().build().unwrap();
    let router: on_axum::ProtectedRouter =
        on_axum::ProtectedRouter::new(AuthLayer::new(authenticator));
    let handler = on_axum::get(|| async { "ok" })
        .any_key()
        .class("unheard-of");
    let _ = router.route("/reports", handler);
}

#[test]
#[should_panic(expected = "/reports: the class unheard-of is not declared")]
fn an_undeclared_class_stops_the_start_on_actix() {
    let authenticator = Fixture::new().bearer().build().unwrap();
    let router = actix::ProtectedRouter::new(actix::Auth::new(authenticator));
    let handler = actix::get(|| async { "ok" }).any_key().class("unheard-of");
    let _ = router.route("/reports", handler);
}
