//! A forgotten layer: a plain 500 for the caller, one record in the log for the developer, and nothing
//! of the kind for requests that passed as anonymous or for handlers that need no principal.

use std::convert::Infallible;
use std::future::ready;
use std::sync::LazyLock;

use actix_web::http::header::HeaderMap as ActixFields;
use actix_web::{App, test as actix, web};
use axum::body::Body;
use axum::{Router, routing};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use portunus::adapter::axum::{
    Caller, Demand, Granted, ProtectedRouter, RateLimits, RequireExt, get,
};
use portunus::adapter::tower::{AuthLayer, GrpcMethods, require};
use portunus::adapter::{self, Rejection};
use portunus::{KeyPrincipal, Requirement};
use portunus_test_support::{Fixture, scope};
use tower::{Layer, ServiceExt, service_fn};

use crate::telemetry::logged;

/// The host's own type for a caller, which no layer creates.
struct Customer;

struct Anything;

impl Demand for Anything {
    fn requirement() -> &'static Requirement {
        static ANYTHING: LazyLock<Requirement> = LazyLock::new(Requirement::none);
        &ANYTHING
    }
}

const BODY: &str = "{\"type\":\"about:blank\",\"title\":\"Internal Server Error\",\"status\":500,\
                    \"detail\":\"An internal error occurred\",\"code\":\"INTERNAL_ERROR\"}";

/// Every field of the response that a browser, a cache or a client would act upon.
fn seen(status: u16, field: impl Fn(&str) -> Option<String>, body: &[u8]) -> String {
    let names = [
        "content-type",
        "cache-control",
        "www-authenticate",
        "retry-after",
    ];
    let fields = names.map(|name| field(name).unwrap_or_else(|| "-".to_owned()));
    format!(
        "{status} {} {}",
        fields.join(" | "),
        String::from_utf8_lossy(body)
    )
}

fn plain() -> String {
    format!("500 application/problem+json | no-store | - | - {BODY}")
}

async fn of_http<B: http_body::Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let (head, body) = response.into_parts();
    let fields: HeaderMap = head.headers;
    let field = |name: &str| Some(fields.get(name)?.to_str().unwrap().to_owned());
    let body = body.collect().await.unwrap().to_bytes();
    seen(head.status.as_u16(), field, &body)
}

async fn ask(app: &Router, path: &str, key: Option<&str>) -> String {
    let mut request = Request::builder().uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Body::empty()).unwrap();
    of_http(app.clone().oneshot(request).await.unwrap()).await
}

/// The messages of errors in a log.
fn errors(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("ERROR")).collect()
}

#[test]
fn a_forgotten_layer_on_axum_is_a_plain_500_and_one_error_for_each_route() {
    let log = logged(async {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        let nested = Router::new().route("/{id}/deep", routing::get(|_: KeyPrincipal| async {}));
        let app: Router = Router::new()
            .route(
                "/axum/required/{id}",
                routing::get(|| async {}).require(scope("a")),
            )
            .route("/axum/principal", routing::get(|_: KeyPrincipal| async {}))
            .route(
                "/axum/granted",
                routing::get(|_: Granted<Anything>| async {}),
            )
            .route("/axum/caller", routing::get(|_: Caller<Customer>| async {}))
            .route("/axum/limits", routing::get(|_: RateLimits| async {}))
            .nest("/axum/nested", nested);
        for _ in 0..3 {
            for path in [
                "/axum/required/canary-1",
                "/axum/required/canary-2?canary-3",
                "/axum/principal",
                "/axum/granted",
                "/axum/caller",
                "/axum/limits",
                "/axum/nested/canary-4/deep",
            ] {
                for key in [None, Some("anything"), Some(&key)] {
                    assert_eq!(ask(&app, path, key).await, plain(), "{path}");
                }
            }
        }
        assert!(ask(&app, "/axum/unknown", None).await.starts_with("404"));
    });
    let errors = errors(&log);
    for route in [
        "/axum/required/{id}",
        "/axum/principal",
        "/axum/granted",
        "/axum/caller",
        "/axum/limits",
        "/axum/nested/{id}/deep",
    ] {
        let about = format!("the route {route} needs a key, but no layer authenticates");
        let lines = errors.iter().filter(|line| line.contains(&about));
        assert_eq!(lines.count(), 1, "{route}: {errors:#?}");
    }
    assert_eq!(errors.len(), 6, "{errors:#?}");
    assert!(
        errors[0].contains("route_layer(keys.layer())"),
        "{errors:?}"
    );
    assert!(
        !log.contains("canary") && !log.contains("anything"),
        "{log}"
    );
}

#[test]
fn a_forgotten_layer_on_actix_web_has_the_same_answer_and_log() {
    let log = logged(async {
        let app = App::new()
            .service(
                web::resource("/actix/required/{id}")
                    .wrap(adapter::actix::require(scope("a")))
                    .to(|| ready("in")),
            )
            .route(
                "/actix/principal",
                web::get().to(|_: KeyPrincipal| ready("in")),
            )
            .route(
                "/actix/granted",
                web::get().to(|_: Granted<Anything>| ready("in")),
            )
            .route(
                "/actix/caller",
                web::get().to(|_: Caller<Customer>| ready("in")),
            )
            .route("/actix/limits", web::get().to(|_: RateLimits| ready("in")))
            .service(
                web::scope("/actix/nested")
                    .route("/{id}/deep", web::get().to(|_: KeyPrincipal| ready("in"))),
            )
            .route(
                "/actix/may",
                web::get().to(|caller: Option<KeyPrincipal>| {
                    ready(caller.map_or("nobody", |_| "somebody"))
                }),
            )
            .route(
                "/actix/handled",
                web::get().to(|caller: Result<KeyPrincipal, Rejection>| {
                    ready(caller.map_or("nobody", |_| "somebody"))
                }),
            );
        let app = actix::init_service(app).await;
        let ask = async |path: &str| {
            let request = actix::TestRequest::get().uri(path);
            let request = request.insert_header(("authorization", "Bearer anything"));
            let response = actix::call_service(&app, request.to_request()).await;
            let (status, fields) = (response.status().as_u16(), response.headers().clone());
            let body = actix::read_body(response).await;
            let fields: ActixFields = fields;
            let field = |name: &str| Some(fields.get(name)?.to_str().unwrap().to_owned());
            seen(status, field, &body)
        };
        for _ in 0..3 {
            for path in [
                "/actix/required/canary-1",
                "/actix/required/canary-2?canary-3",
                "/actix/principal",
                "/actix/granted",
                "/actix/caller",
                "/actix/limits",
                "/actix/nested/canary-4/deep",
            ] {
                assert_eq!(ask(path).await, plain(), "{path}");
            }
        }
        for path in ["/actix/may", "/actix/handled"] {
            assert!(ask(path).await.ends_with("nobody"), "{path}");
        }
    });
    let errors = errors(&log);
    for route in [
        "/actix/required/{id}",
        "/actix/principal",
        "/actix/granted",
        "/actix/caller",
        "/actix/limits",
        "/actix/nested/{id}/deep",
    ] {
        let about = format!("the route {route} needs a key, but no layer authenticates");
        let lines = errors.iter().filter(|line| line.contains(&about));
        assert_eq!(lines.count(), 1, "{route}: {errors:#?}");
    }
    assert_eq!(
        errors.len(),
        6,
        "a handler that needs no principal: {errors:#?}"
    );
    assert!(
        !log.contains("canary") && !log.contains("anything"),
        "{log}"
    );
}

#[test]
fn a_forgotten_layer_on_tower_is_logged_without_the_path() {
    let log = logged(async {
        let ok = service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("in")))
        });
        // The layers in the wrong order, which is the same fault.
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        let inside_out = AuthLayer::new(fixture.bearer().build().unwrap());
        let inside_out = require(scope("a")).layer(inside_out.layer(ok));
        for number in 0..200 {
            let request = || {
                Request::get(format!("/tower/canary-{number}"))
                    .header("authorization", format!("Bearer {key}"))
                    .body(())
                    .unwrap()
            };
            let alone = require(scope("a")).optional_key().layer(ok);
            assert_eq!(
                of_http(alone.oneshot(request()).await.unwrap()).await,
                plain()
            );
            let response = inside_out.clone().oneshot(request()).await.unwrap();
            assert_eq!(of_http(response).await, plain());
        }
    });
    let errors = errors(&log);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("outside of `require`"), "{errors:?}");
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn a_forgotten_layer_of_a_grpc_service_is_the_status_internal() {
    let log = logged(async {
        let table = GrpcMethods::new()
            .service("acme.v1.Documents", Requirement::none())
            .build()
            .unwrap();
        let service = table.layer(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("in")))
        }));
        for method in ["Documents/Get", "Unknown/Get"] {
            let call = Request::post(format!("/acme.v1.{method}"))
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let response = service.clone().oneshot(call).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], "13");
            assert_eq!(
                response.headers()["grpc-message"],
                "An internal error occurred"
            );
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty());
        }
    });
    assert!(errors(&log).len() <= 1, "{log}");
}

#[test]
fn a_request_that_passed_as_anonymous_is_still_a_401() {
    let log = logged(async {
        let fixture = Fixture::new();
        let optional = AuthLayer::new(fixture.bearer().optional().build().unwrap());
        let app: Router = Router::new()
            .route(
                "/anonymous/required",
                routing::get(|| async {}).require(scope("a")),
            )
            .route(
                "/anonymous/principal",
                routing::get(|_: KeyPrincipal| async {}),
            )
            .route(
                "/anonymous/caller",
                routing::get(|_: Caller<Customer>| async {}),
            )
            .route("/anonymous/limits", routing::get(|_: RateLimits| async {}))
            .route_layer(optional.clone());
        // A service of another crate, nested behind the layer.
        let inner = Router::new().route("/required", routing::get(|| async {}).require(scope("a")));
        let app = app.nest_service("/anonymous/nested", optional.layer(inner));
        for path in ["required", "principal", "caller", "nested/required"] {
            let answer = ask(&app, &format!("/anonymous/{path}"), None).await;
            assert!(answer.starts_with("401 "), "{path}: {answer}");
            assert!(answer.contains("MISSING_KEY"), "{path}: {answer}");
        }
        assert!(
            ask(&app, "/anonymous/limits", None)
                .await
                .starts_with("200")
        );
    });
    assert!(errors(&log).is_empty(), "{log}");
}

#[test]
fn a_router_that_denies_by_default_needs_no_other_layer_and_an_optional_principal_is_no_fault() {
    let log = logged(async {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        let auth = AuthLayer::new(fixture.bearer().build().unwrap());
        let app = ProtectedRouter::new(auth)
            .route(
                "/denying/required",
                get(|_: KeyPrincipal| async {}).require(scope("a")),
            )
            .route(
                "/denying/public",
                get(|_: Option<KeyPrincipal>| async {}).public(),
            )
            .into_router();
        assert!(
            ask(&app, "/denying/required", None)
                .await
                .starts_with("401")
        );
        assert!(
            ask(&app, "/denying/required", Some(&key))
                .await
                .starts_with("200")
        );
        assert!(ask(&app, "/denying/public", None).await.starts_with("200"));
    });
    assert!(errors(&log).is_empty(), "{log}");
}

#[test]
fn a_public_route_whose_handler_needs_a_principal_is_the_same_fault() {
    let log = logged(async {
        let fixture = Fixture::new();
        let auth = AuthLayer::new(fixture.bearer().build().unwrap());
        let app = ProtectedRouter::new(auth)
            .route("/contradiction", get(|_: KeyPrincipal| async {}).public())
            .into_router();
        assert_eq!(ask(&app, "/contradiction", None).await, plain());
    });
    assert_eq!(errors(&log).len(), 1, "{log}");
}

#[test]
fn without_a_subscriber_the_answer_is_the_same_and_one_that_comes_later_is_told() {
    let app = || -> Router {
        let route = routing::get(|_: KeyPrincipal| async {});
        Router::new().route("/later", route)
    };
    let quiet = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    quiet.block_on(async { assert_eq!(ask(&app(), "/later", None).await, plain()) });
    let log = logged(async { assert_eq!(ask(&app(), "/later", None).await, plain()) });
    assert_eq!(errors(&log).len(), 1, "{log}");
}
