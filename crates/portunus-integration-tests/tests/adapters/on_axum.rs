//! The axum adapter as a client sees it: extractors, requirements on routes, and the
//! deny-by-default router.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing;
use http::header::{ALLOW, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use portunus::adapter::axum::{
    Caller, ProtectedRouter, RequireExt, any, delete, get, guard, head, post, put,
};
use portunus::adapter::tower::AuthLayer;
use portunus::respond::{ErrorBody, from_error};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal, Requirement};
use portunus_test_support::{Fixture, format, scope, stranger};
use tower::ServiceExt;
use tower_http::cors::CorsLayer;

/// A client's request, and its response.
async fn ask(app: &Router, method: &str, path: &str, key: Option<&str>) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    app.clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

async fn status(app: &Router, method: &str, path: &str, key: Option<&str>) -> u16 {
    ask(app, method, path, key).await.status().as_u16()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap()
}

fn code(response: &Response<Body>) -> Option<ErrorCode> {
    response
        .extensions()
        .get::<AuthError>()
        .map(AuthError::code)
}

async fn whoami(principal: KeyPrincipal) -> String {
    principal.key_id().to_string()
}

/// Keys with and without the scope `a`, and a layer.
struct Door {
    fixture: Fixture,
    with: String,
    without: String,
    auth: AuthLayer,
}

async fn door() -> Door {
    let fixture = Fixture::new();
    let with = fixture.issue(&["a"]).await.0;
    let without = fixture.issue(&["b"]).await.0;
    let auth = AuthLayer::new(fixture.bearer().realm("acme").build().unwrap());
    Door {
        fixture,
        with,
        without,
        auth,
    }
}

impl Door {
    fn router<S: Clone + Send + Sync + 'static>(&self) -> ProtectedRouter<S> {
        ProtectedRouter::new(self.auth.clone())
    }
}

// ---- extractors ----

#[tokio::test]
async fn a_handler_takes_the_principal() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let auth = AuthLayer::new(fixture.bearer().build().unwrap());
    let app: Router = Router::new()
        .route("/me", routing::get(whoami))
        .route_layer(auth);
    assert_eq!(
        text(ask(&app, "GET", "/me", Some(&key)).await).await,
        record.id.to_string()
    );
    assert_eq!(status(&app, "GET", "/me", None).await, 401);
    assert_eq!(
        status(&app, "GET", "/elsewhere", None).await,
        404,
        "with route_layer, unknown paths stay 404"
    );
}

#[tokio::test]
async fn an_extractor_without_the_layer_is_a_fault_of_the_service() {
    struct Mine;
    let app: Router = Router::new()
        .route("/me", routing::get(whoami))
        .route("/mine", routing::get(|_: Caller<Mine>| async { "in" }));
    for path in ["/me", "/mine"] {
        for key in [None, Some("anything")] {
            let response = ask(&app, "GET", path, key).await;
            assert_eq!(
                (response.status().as_u16(), code(&response)),
                (500, Some(ErrorCode::Internal)),
                "{path}"
            );
            assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        }
    }
}

#[tokio::test]
async fn with_optional_authentication_a_handler_may_accept_or_refuse_anonymous_requests() {
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let renderer = from_error(|error: &AuthError| {
        ErrorBody::json(format!(r#"{{"oops":"{}"}}"#, error.code()))
    });
    let auth = AuthLayer::new(
        fixture
            .bearer()
            .optional()
            .renderer(renderer)
            .build()
            .unwrap(),
    );
    let maybe = |principal: Option<KeyPrincipal>| async move {
        principal.map_or_else(
            || "nobody".into(),
            |principal| principal.key_id().to_string(),
        )
    };
    let app: Router = Router::new()
        .route("/maybe", routing::get(maybe))
        .route("/me", routing::get(whoami))
        .route_layer(auth);
    assert_eq!(text(ask(&app, "GET", "/maybe", None).await).await, "nobody");
    assert_eq!(
        text(ask(&app, "GET", "/maybe", Some(&key)).await).await,
        record.id.to_string()
    );
    assert_eq!(
        status(&app, "GET", "/maybe", Some(&stranger())).await,
        401,
        "a failing key never passes as anonymous"
    );
    let insisted = ask(&app, "GET", "/me", None).await;
    assert_eq!(insisted.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        text(insisted).await,
        r#"{"oops":"MISSING_KEY"}"#,
        "in the API's own dialect"
    );
}

#[tokio::test]
async fn a_handler_takes_the_hosts_own_caller() {
    #[derive(Debug)]
    struct Mine(String);
    #[derive(Debug)]
    struct Unmade;
    let door = door().await;
    let auth = door
        .auth
        .clone()
        .map_principal(|principal| Mine(principal.owner().tenant_id.to_string()));
    let app: Router = Router::new()
        .route(
            "/mine",
            routing::get(|caller: Caller<Mine>| async move { caller.0.0.clone() }),
        )
        .route(
            "/maybe",
            routing::get(
                |caller: Option<Caller<Mine>>| async move { caller.is_some().to_string() },
            ),
        )
        .route("/unmade", routing::get(|_: Caller<Unmade>| async { "in" }))
        .route_layer(auth);
    assert_eq!(
        text(ask(&app, "GET", "/mine", Some(&door.with)).await).await,
        "acme"
    );
    assert_eq!(
        text(ask(&app, "GET", "/maybe", Some(&door.with)).await).await,
        "true"
    );
    assert_eq!(
        status(&app, "GET", "/unmade", Some(&door.with)).await,
        403,
        "closed, and no server error"
    );
}

// ---- requirements on axum's own routers ----

#[tokio::test]
async fn the_fallback_of_a_required_method_router_needs_a_key() {
    let door = door().await;
    let route = routing::get(|| async { "get" })
        .fallback(|| async { "fallback" })
        .require(scope("a"));
    let app: Router = Router::new()
        .route("/x", route)
        .route_layer(door.auth.clone());
    for method in ["GET", "POST", "DELETE", "PURGE", "OPTIONS", "HEAD"] {
        assert_eq!(status(&app, method, "/x", None).await, 401, "{method}");
        assert_eq!(
            status(&app, method, "/x", Some(&door.without)).await,
            403,
            "{method}"
        );
        assert_eq!(
            status(&app, method, "/x", Some(&door.with)).await,
            200,
            "{method}"
        );
    }
    assert_eq!(
        text(ask(&app, "POST", "/x", Some(&door.with)).await).await,
        "fallback"
    );
}

#[tokio::test]
async fn a_route_for_every_method_can_be_required() {
    let door = door().await;
    let route = routing::any(|| async { "any" }).require(scope("a"));
    let app: Router = Router::new()
        .route("/x", route)
        .route_layer(door.auth.clone());
    for method in ["GET", "POST", "PURGE"] {
        assert_eq!(
            status(&app, method, "/x", Some(&door.without)).await,
            403,
            "{method}"
        );
        assert_eq!(
            status(&app, method, "/x", Some(&door.with)).await,
            200,
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_required_router_keeps_unknown_paths_unknown_and_later_routes_open() {
    let door = door().await;
    let app: Router = Router::new()
        .route("/x", routing::get(|| async { "x" }))
        .require(scope("a"))
        .route("/later", routing::get(|| async { "later" }))
        .route_layer(door.auth.clone());
    assert_eq!(status(&app, "GET", "/x", Some(&door.without)).await, 403);
    assert_eq!(status(&app, "GET", "/x", Some(&door.with)).await, 200);
    assert_eq!(
        status(&app, "GET", "/later", Some(&door.without)).await,
        200
    );
    assert_eq!(
        status(&app, "GET", "/unknown", Some(&door.without)).await,
        404
    );
    assert_eq!(status(&app, "GET", "/unknown", None).await, 404);
}

#[tokio::test]
async fn a_requirement_outside_the_layer_refuses_every_request() {
    // The layers are in the wrong order: the requirement runs before authentication.
    let door = door().await;
    let app: Router = Router::new()
        .route("/x", routing::get(|| async { "x" }))
        .layer(door.auth.clone())
        .require(scope("a"));
    assert_eq!(status(&app, "GET", "/x", Some(&door.with)).await, 500);
}

// ---- the protected router ----

#[tokio::test]
async fn a_route_enforces_its_requirement() {
    let door = door().await;
    let app: Router = door
        .router()
        .route("/scoped", get(|| async { "in" }).require(scope("a")))
        .route(
            "/either",
            get(|| async { "in" }).require(Requirement::any_of([scope("a"), scope("b")])),
        )
        .route(
            "/both",
            get(|| async { "in" }).require(Requirement::all_of([scope("a"), scope("b")])),
        )
        .route("/keyed", get(|| async { "in" }).any_key())
        .route("/public", get(|| async { "in" }).public())
        .into_router();
    for (path, nobody, without, with) in [
        ("/scoped", 401, 403, 200),
        ("/either", 401, 200, 200),
        ("/both", 401, 403, 403),
        ("/keyed", 401, 200, 200),
        ("/public", 200, 200, 200),
        ("/unknown", 404, 404, 404),
        ("/scoped/", 404, 404, 404),
        ("/SCOPED", 404, 404, 404),
        ("//scoped", 404, 404, 404),
        ("/%73coped", 404, 404, 404),
    ] {
        assert_eq!(status(&app, "GET", path, None).await, nobody, "{path}");
        assert_eq!(
            status(&app, "GET", path, Some(&door.without)).await,
            without,
            "{path}"
        );
        assert_eq!(
            status(&app, "GET", path, Some(&door.with)).await,
            with,
            "{path}"
        );
        let wrong = if nobody == 401 { 401 } else { nobody };
        assert_eq!(
            status(&app, "GET", path, Some(&stranger())).await,
            wrong,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_refused_request_runs_no_handler() {
    let door = door().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = || {
        let runs = Arc::clone(&runs);
        move || {
            runs.fetch_add(1, Ordering::SeqCst);
            async { "in" }
        }
    };
    let route = get(counted())
        .require(scope("a"))
        .and(post(counted()).require(scope("c")));
    let app: Router = door.router().route("/x", route).into_router();
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
        for key in [None, Some(door.without.as_str()), Some("garbage")] {
            assert!(
                ask(&app, method, "/x", key)
                    .await
                    .status()
                    .is_client_error(),
                "{method} {key:?}"
            );
        }
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(status(&app, "GET", "/x", Some(&door.with)).await, 200);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_path_with_keyed_and_public_methods_asks_by_method() {
    let door = door().await;
    let keyed = || post(|| async { "post" }).require(scope("a"));
    let public = || get(|| async { "get" }).public();
    let apps: [Router; 4] = [
        door.router()
            .route("/x", public())
            .route("/x", keyed())
            .into_router(),
        door.router()
            .route("/x", keyed())
            .route("/x", public())
            .into_router(),
        door.router()
            .route("/x", public().and(keyed()))
            .into_router(),
        door.router()
            .route("/x", keyed().and(public()))
            .into_router(),
    ];
    for app in &apps {
        for method in ["GET", "HEAD"] {
            assert_eq!(status(app, method, "/x", None).await, 200, "{method}");
        }
        assert_eq!(status(app, "POST", "/x", None).await, 401);
        assert_eq!(status(app, "POST", "/x", Some(&door.without)).await, 403);
        assert_eq!(status(app, "POST", "/x", Some(&door.with)).await, 200);
        assert_eq!(
            status(app, "DELETE", "/x", None).await,
            401,
            "a keyed path wants a key before a method is looked at"
        );
        assert_eq!(status(app, "DELETE", "/x", Some(&door.without)).await, 405);
    }
}

#[tokio::test]
async fn a_method_without_a_handler_needs_a_key_and_is_then_405_with_any_scopes() {
    let door = door().await;
    let app: Router = door
        .router()
        .route("/x", get(|| async { "x" }).require(scope("a")))
        .into_router();
    for method in ["POST", "DELETE", "OPTIONS", "PURGE", "TRACE"] {
        assert_eq!(status(&app, method, "/x", None).await, 401, "{method}");
        assert_eq!(
            status(&app, method, "/x", Some(&door.without)).await,
            405,
            "{method}"
        );
        let response = ask(&app, method, "/x", Some(&door.with)).await;
        assert_eq!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED,
            "{method}"
        );
        assert_eq!(response.headers()[ALLOW], "GET,HEAD", "{method}");
    }
}

#[tokio::test]
async fn head_has_the_requirement_of_get_and_no_body() {
    let door = door().await;
    let app: Router = door
        .router()
        .route("/x", get(|| async { "body" }).require(scope("a")))
        .into_router();
    assert_eq!(status(&app, "HEAD", "/x", None).await, 401);
    assert_eq!(status(&app, "HEAD", "/x", Some(&door.without)).await, 403);
    let response = ask(&app, "HEAD", "/x", Some(&door.with)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(response).await.is_empty());
}

#[tokio::test]
async fn a_head_handler_of_its_own_has_a_requirement_of_its_own() {
    let door = door().await;
    let route = get(|| async { "body" })
        .public()
        .and(head(|| async { "" }).require(scope("a")));
    let app: Router = door.router().route("/x", route).into_router();
    assert_eq!(status(&app, "GET", "/x", None).await, 200);
    assert_eq!(status(&app, "HEAD", "/x", None).await, 401);
    assert_eq!(status(&app, "HEAD", "/x", Some(&door.without)).await, 403);
}

#[tokio::test]
async fn a_handler_for_every_method_is_required_for_every_method() {
    let door = door().await;
    let app: Router = door
        .router()
        .route("/x", any(|| async { "any" }).require(scope("a")))
        .into_router();
    for method in ["GET", "POST", "OPTIONS", "PURGE"] {
        assert_eq!(status(&app, method, "/x", None).await, 401, "{method}");
        assert_eq!(
            status(&app, method, "/x", Some(&door.without)).await,
            403,
            "{method}"
        );
        assert_eq!(
            status(&app, method, "/x", Some(&door.with)).await,
            200,
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_fallback_that_came_with_a_method_router_is_not_left_open() {
    let door = door().await;
    let own = || routing::get(|| async { "get" }).fallback(|| async { "fallback" });
    let apps: [Router; 3] = [
        door.router()
            .route("/x", guard(own()).require(scope("a")))
            .into_router(),
        door.router()
            .route(
                "/x",
                guard(own())
                    .require(scope("a"))
                    .and(put(|| async { "put" }).public()),
            )
            .into_router(),
        door.router()
            .route("/x", guard(own()).require(scope("a")))
            .method_not_allowed(|| async { (StatusCode::METHOD_NOT_ALLOWED, "house") })
            .into_router(),
    ];
    for app in &apps {
        assert_eq!(status(app, "DELETE", "/x", None).await, 401);
        assert_eq!(status(app, "DELETE", "/x", Some(&door.without)).await, 403);
        assert_eq!(
            text(ask(app, "DELETE", "/x", Some(&door.with)).await).await,
            "fallback"
        );
    }
    assert_eq!(status(&apps[1], "PUT", "/x", None).await, 200);
}

#[tokio::test]
async fn nested_and_merged_routers_keep_their_own_layer() {
    let (one, other) = (door().await, door().await);
    let route = || get(|| async { "in" }).require(scope("a"));
    let app: Router = one
        .router()
        .route("/own", route())
        .nest(
            "/nested",
            other
                .router()
                .route("/x", route())
                .route("/open", get(|| async { "in" }).public()),
        )
        .merge(other.router().route("/merged", route()))
        .into_router();
    for (path, right, wrong) in [
        ("/own", &one.with, &other.with),
        ("/nested/x", &other.with, &one.with),
        ("/merged", &other.with, &one.with),
    ] {
        assert_eq!(status(&app, "GET", path, None).await, 401, "{path}");
        assert_eq!(status(&app, "GET", path, Some(right)).await, 200, "{path}");
        assert_eq!(status(&app, "GET", path, Some(wrong)).await, 401, "{path}");
        assert_eq!(status(&app, "DELETE", path, None).await, 401, "{path}");
    }
    assert_eq!(status(&app, "GET", "/nested/open", None).await, 200);
    assert_eq!(status(&app, "GET", "/nested/unknown", None).await, 404);
    assert_eq!(status(&app, "GET", "/x", Some(&other.with)).await, 404);
}

#[tokio::test]
async fn a_path_shared_with_a_merged_router_asks_by_method_and_never_less() {
    let (one, other) = (door().await, door().await);
    let app: Router = one
        .router()
        .route("/x", get(|| async { "get" }).require(scope("a")))
        .merge(
            other
                .router()
                .route("/x", post(|| async { "post" }).require(scope("a"))),
        )
        .into_router();
    for (method, right, wrong) in [("GET", &one, &other), ("POST", &other, &one)] {
        assert_eq!(status(&app, method, "/x", None).await, 401, "{method}");
        assert_eq!(
            status(&app, method, "/x", Some(&wrong.with)).await,
            401,
            "{method}"
        );
        assert_eq!(
            status(&app, method, "/x", Some(&right.without)).await,
            403,
            "{method}"
        );
        assert_eq!(
            status(&app, method, "/x", Some(&right.with)).await,
            200,
            "{method}"
        );
    }
    assert_eq!(status(&app, "DELETE", "/x", None).await, 401);
}

#[tokio::test]
async fn handlers_have_the_routers_state() {
    let door = door().await;
    let state = |State(text): State<&'static str>| async move { text };
    let app: Router = door
        .router::<&'static str>()
        .route("/keyed", get(state).any_key())
        .route("/public", get(state).public())
        .not_found(|State(text): State<&'static str>| async move { (StatusCode::NOT_FOUND, text) })
        .method_not_allowed(|State(text): State<&'static str>| async move {
            (StatusCode::METHOD_NOT_ALLOWED, text)
        })
        .into_router()
        .with_state("the state");
    for (method, path, key) in [
        ("GET", "/keyed", Some(door.with.as_str())),
        ("GET", "/public", None),
        ("GET", "/unknown", None),
        ("PUT", "/public", None),
    ] {
        assert_eq!(
            text(ask(&app, method, path, key).await).await,
            "the state",
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn the_handlers_for_unknown_paths_and_methods_are_the_hosts() {
    let door = door().await;
    let app: Router = door
        .router()
        .route("/keyed", get(|| async { "in" }).require(scope("a")))
        .route("/mixed", get(|| async { "in" }).public())
        .route("/mixed", delete(|| async { "in" }).require(scope("a")))
        .route("/public", get(|| async { "in" }).public())
        .not_found(|| async { (StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed(|| async { (StatusCode::METHOD_NOT_ALLOWED, "no such method") })
        .into_router();
    for key in [None, Some(door.without.as_str()), Some("garbage")] {
        let response = ask(&app, "GET", "/unknown", key).await;
        assert_eq!(
            (response.status().as_u16(), text(response).await.as_str()),
            (404, "no such path"),
            "{key:?}"
        );
        let response = ask(&app, "POST", "/public", key).await;
        assert_eq!(
            (response.status().as_u16(), text(response).await.as_str()),
            (405, "no such method"),
            "{key:?}"
        );
    }
    for path in ["/keyed", "/mixed"] {
        assert_eq!(status(&app, "POST", path, None).await, 401, "{path}");
        let response = ask(&app, "POST", path, Some(&door.without)).await;
        assert!(response.headers().contains_key(ALLOW), "{path}");
        assert_eq!(
            (response.status().as_u16(), text(response).await.as_str()),
            (405, "no such method"),
            "{path}"
        );
    }
}

// ---- CORS ----

fn cors_request(method: Method, key: Option<&str>) -> Request<Body> {
    let mut request = Request::builder()
        .uri("/x")
        .header("origin", "https://app.example");
    if method == Method::OPTIONS {
        request = request
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization");
    }
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.method(method).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn cors_outside_answers_preflights_without_a_key_and_is_on_refusals_too() {
    let door = door().await;
    for late in [false, true] {
        if late {
            door.fixture.store.answer_late(1);
        }
        let cors = CorsLayer::new()
            .allow_origin(["https://app.example".parse().unwrap()])
            .allow_headers([http::header::AUTHORIZATION]);
        let app: Router = door
            .router()
            .route("/x", get(|| async { "in" }).require(scope("a")))
            .into_router()
            .layer(cors);
        let allowed = |response: &Response<Body>| {
            response
                .headers()
                .get("access-control-allow-origin")
                .cloned()
        };
        let preflight = app
            .clone()
            .oneshot(cors_request(Method::OPTIONS, None))
            .await
            .unwrap();
        assert_eq!(
            (
                preflight.status(),
                allowed(&preflight).unwrap().to_str().unwrap()
            ),
            (StatusCode::OK, "https://app.example")
        );
        for (key, status) in [
            (None, 401),
            (Some(stranger()), 401),
            (Some(door.without.clone()), 403),
            (Some(door.with.clone()), 200),
        ] {
            let response = app
                .clone()
                .oneshot(cors_request(Method::GET, key.as_deref()))
                .await
                .unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(
                allowed(&response).unwrap(),
                "https://app.example",
                "{status}"
            );
        }
    }
}

// ---- the same answers everywhere ----

#[tokio::test]
async fn layer_extractor_and_requirement_refuse_with_the_same_bytes() {
    let fixture = Fixture::new();
    let builder = || fixture.bearer().basic([format()]).realm("acme");
    let strict = AuthLayer::new(builder().build().unwrap());
    let optional = AuthLayer::new(builder().optional().build().unwrap());
    let apps: [Router; 4] = [
        Router::new()
            .route("/x", routing::get(|| async { "in" }))
            .route_layer(strict.clone()),
        Router::new()
            .route("/x", routing::get(whoami))
            .route_layer(optional.clone()),
        Router::new()
            .route(
                "/x",
                routing::get(|| async { "in" }).require(Requirement::none()),
            )
            .route_layer(optional),
        ProtectedRouter::new(strict)
            .route("/x", get(|| async { "in" }).any_key())
            .into_router(),
    ];
    let mut answers = Vec::new();
    for app in &apps {
        let response = ask(app, "GET", "/x", None).await;
        let head = format!("{} {:?}", response.status(), response.headers());
        answers.push((head, text(response).await));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
}
