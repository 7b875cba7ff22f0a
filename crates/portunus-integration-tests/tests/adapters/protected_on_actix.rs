//! The deny-by-default router on actix-web: the same responses as axum's for the same routes, for
//! every method, path and key.

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::http::header::ALLOW;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpResponse, web};
use axum::Router;
use axum::body::Body;
use portunus::adapter::actix::{Auth, ProtectedRouter, any, get, post};
use portunus::adapter::axum as on_axum;
use portunus::{KeyPrincipal, Principal, Requirement, scope};
use portunus_test_support::{Fixture, stranger};
use tower::ServiceExt;

/// Keys with and without the scope `a`, and middleware.
struct Door {
    with: String,
    without: String,
    auth: Auth,
    layer: on_axum::AuthLayer,
}

async fn door() -> Door {
    let fixture = Fixture::new();
    let with = fixture.issue(&["a"]).await.0;
    let without = fixture.issue(&["b"]).await.0;
    let authenticator = fixture.bearer().realm("acme").build().unwrap();
    Door {
        with,
        without,
        auth: Auth::new(authenticator.clone()),
        layer: on_axum::AuthLayer::new(authenticator),
    }
}

impl Door {
    fn router(&self) -> ProtectedRouter {
        ProtectedRouter::new(self.auth.clone())
    }

    /// No key, an unknown key, and both keys.
    fn keys(&self) -> [Option<String>; 4] {
        let (with, without) = (self.with.clone(), self.without.clone());
        [None, Some(stranger()), Some(without), Some(with)]
    }
}

/// The status, the fields that both frameworks set, and the body.
type Told = (u16, Vec<(String, String)>, String);

/// Fields that servers add on the wire, which in-process responses may lack.
const OF_SERVERS: [&str; 2] = ["content-length", "date"];

fn told(status: u16, fields: impl Iterator<Item = (String, Vec<u8>)>, body: &[u8]) -> Told {
    let mut fields: Vec<_> = fields
        .filter(|(name, _)| !OF_SERVERS.contains(&name.as_str()))
        .map(|(name, value)| (name, String::from_utf8(value).unwrap()))
        .collect();
    fields.sort();
    for (_, methods) in fields.iter_mut().filter(|(name, _)| name == "allow") {
        // axum lists HEAD twice if both GET and HEAD have a handler.
        *methods = methods.replace("HEAD,HEAD", "HEAD");
    }
    (status, fields, String::from_utf8(body.to_vec()).unwrap())
}

fn asked(method: &str, path: &str, key: Option<&str>) -> TestRequest {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = TestRequest::with_uri(path).method(method);
    match key {
        Some(key) => request.insert_header(("authorization", format!("Bearer {key}"))),
        None => request,
    }
}

async fn read<B: MessageBody>(response: ServiceResponse<B>) -> Told {
    let status = response.status().as_u16();
    let fields: Vec<_> = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let body = to_bytes(response.into_body())
        .await
        .unwrap_or_else(|_| panic!("no body"));
    told(status, fields.into_iter(), &body)
}

macro_rules! ask {
    ($app:expr, $method:expr, $path:expr, $key:expr) => {{
        let request = asked($method, $path, $key).to_request();
        read(call_service($app, request).await).await
    }};
}

async fn ask_axum(app: &Router, method: &str, path: &str, key: Option<&str>) -> Told {
    let mut request = http::Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let fields: Vec<_> = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    told(status, fields.into_iter(), &body)
}

/// A router with many kinds of routes, written in the syntax that both frameworks share.
macro_rules! routes {
    ($framework:path, $router:expr, $nest:expr) => {{
        use $framework::{any, delete, get, head, options, patch, post, put};
        $router
            .route("/keyed", get(async || "get").require(scope!("a")))
            .route("/keyed", post(async || "post").require(scope!("b")))
            .route("/keyed", put(async || "put").any_key())
            .route("/mixed", get(async || "get").public())
            .route("/mixed", post(async || "post").require(scope!("a")))
            .route("/mixed", patch(async || "patch").optional_key())
            .route("/perhaps", get(async || "get").optional_key())
            .route("/perhaps", delete(async || "delete").public())
            .route(
                "/public",
                get(async || "get")
                    .public()
                    .and(options(async || "options").public()),
            )
            .route("/any", any(async || "any").require(scope!("a")))
            .route("/fallback", any(async || "any").require(scope!("a")))
            .route("/fallback", get(async || "get").public())
            .route(
                "/open",
                any(async || "any")
                    .public()
                    .and(post(async || "post").any_key()),
            )
            .route("/head", get(async || "get").public())
            .route("/head", head(async || "").require(scope!("a")))
            .route(
                "/nobody",
                get(async || "get").require(Requirement::any_of::<Requirement>([])),
            )
            .route("/documents/{id}", get(async || "one").any_key())
            .route(
                "/documents/export",
                get(async || "export").require(scope!("a")),
            )
            .nest(
                "/nest",
                $nest
                    .route("/", get(async || "root").any_key())
                    .route("/keyed", get(async || "get").require(scope!("b")))
                    .route("/public", get(async || "get").public()),
            )
            .merge(
                $nest
                    .route("/merged", get(async || "get").require(scope!("a")))
                    .route("/keyed", delete(async || "delete").require(scope!("a"))),
            )
    }};
}

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE",
];
const PATHS: [&str; 25] = [
    "/keyed",
    "/mixed",
    "/perhaps",
    "/public",
    "/any",
    "/fallback",
    "/open",
    "/head",
    "/nobody",
    "/documents/1",
    "/documents/export",
    "/documents/%65xport",
    "/documents/",
    "/documents/1/2",
    "/nest",
    "/nest/",
    "/nest/keyed",
    "/nest/public",
    "/nest/unknown",
    "/merged",
    "/unknown",
    "/keyed/",
    "/KEYED",
    "//keyed",
    "/%6beyed",
];

#[actix_web::test]
async fn the_same_routes_are_answered_as_on_axum() {
    let door = door().await;
    let on_actix = || routes!(portunus::adapter::actix, door.router(), door.router());
    let axum_router = || on_axum::ProtectedRouter::new(door.layer.clone());
    let by_axum = routes!(portunus::adapter::axum, axum_router(), axum_router());
    assert_eq!(on_actix().demands(), by_axum.demands());
    let app = init_service(App::new().service(on_actix())).await;
    let axum: Router = by_axum.into_router();
    for path in PATHS {
        for method in METHODS {
            for key in door.keys() {
                let key = key.as_deref();
                assert_eq!(
                    ask!(&app, method, path, key),
                    ask_axum(&axum, method, path, key).await,
                    "{method} {path}"
                );
            }
        }
    }
}

#[actix_web::test]
async fn a_route_enforces_its_requirement_in_an_app_in_a_scope_and_by_configuration() {
    let door = door().await;
    let routes = || {
        door.router()
            .route("/scoped", get(async || "in").require(scope!("a")))
            .route("/keyed", get(async || "in").any_key())
            .route("/public", get(async || "in").public())
            .route("/{id}/tail/{rest:.*}", get(async || "in").any_key())
    };
    let app = App::new()
        .service(web::scope("/v1").service(routes()))
        .service(web::scope("/v2/{tenant}").configure(|site| _ = site.service(routes())))
        .service(routes());
    let app = init_service(app).await;
    for prefix in ["", "/v1", "/v2/acme"] {
        for (path, statuses) in [
            ("/scoped", [401, 401, 403, 200]),
            ("/keyed", [401, 401, 200, 200]),
            ("/public", [200, 200, 200, 200]),
            ("/1/tail/2/3", [401, 401, 200, 200]),
            ("/unknown", [404, 404, 404, 404]),
            ("/scoped/", [404, 404, 404, 404]),
            ("/%73coped", [404, 404, 404, 404]),
        ] {
            for (key, status) in door.keys().iter().zip(statuses) {
                let path = format!("{prefix}{path}");
                assert_eq!(ask!(&app, "GET", &path, key.as_deref()).0, status, "{path}");
            }
        }
    }
}

#[actix_web::test]
async fn a_method_without_a_handler_needs_a_key_and_is_then_405_in_the_hosts_format() {
    let door = door().await;
    let routes = door
        .router()
        .route("/x", get(async || "x").require(scope!("a")))
        .route("/open", get(async || "x").public())
        .method_not_allowed(async || HttpResponse::MethodNotAllowed().body("no such method"));
    let app = init_service(App::new().service(routes)).await;
    let of = |told: &Told, name: &str| {
        let field = told.1.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.clone())
    };
    for method in ["POST", "DELETE", "OPTIONS", "PURGE", "TRACE"] {
        assert_eq!(ask!(&app, method, "/x", None).0, 401, "{method}");
        for (path, key) in [("/x", Some(door.without.as_str())), ("/open", None)] {
            let told = ask!(&app, method, path, key);
            assert_eq!(
                (told.0, told.2.as_str()),
                (405, "no such method"),
                "{method}"
            );
            assert_eq!(of(&told, ALLOW.as_str()).as_deref(), Some("GET,HEAD"));
        }
    }
}

#[actix_web::test]
async fn a_handler_has_the_principal_the_parameters_and_the_apps_data() {
    let door = door().await;
    let whoami = |caller: KeyPrincipal,
                  id: web::Path<(String, String)>,
                  text: web::Data<String>| async move {
        format!(
            "{} {} {} {}",
            caller.owner().tenant_id,
            id.0,
            id.1,
            text.as_str()
        )
    };
    let nest = door
        .router()
        .route("/documents/{id}", get(whoami).any_key());
    let routes = door.router().nest("/workspaces/{ws}", nest);
    let data = web::Data::new("data".to_owned());
    let app = init_service(App::new().app_data(data).service(routes)).await;
    let told = ask!(&app, "GET", "/workspaces/w/documents/1", Some(&door.with));
    assert_eq!((told.0, told.2.as_str()), (200, "acme w 1 data"));
}

#[actix_web::test]
async fn the_more_specific_route_matches_first_in_any_order() {
    let door = door().await;
    let routes = door
        .router()
        .route("/{rest:.*}", any(async || "rest").public())
        .route("/{a}/{b}", get(async || "two").public())
        .route("/{a}/x{b}", get(async || "partly").public())
        .route("/{a}/{b:[0-9]+}", get(async || "number").public())
        .route("/a/{b}", get(async || "literal first").public())
        .route("/a/b", get(async || "literal").public());
    let app = init_service(App::new().service(routes)).await;
    for (path, text) in [
        ("/a/b", "literal"),
        ("/a/c", "literal first"),
        ("/b/xc", "partly"),
        ("/b/12", "number"),
        ("/b/c", "two"),
        ("/b/c/d", "rest"),
    ] {
        assert_eq!(ask!(&app, "GET", path, None).2, text, "{path}");
    }
}

/// Whether a router with these routes is rejected when it is built.
fn clashes(router: fn(ProtectedRouter) -> ProtectedRouter, door: &Door) -> bool {
    let router = || router(door.router());
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(router)).is_err()
}

macro_rules! route {
    () => {
        get(async || "in").any_key()
    };
}
macro_rules! other {
    () => {
        post(async || "in").any_key()
    };
}

#[actix_web::test]
async fn paths_that_clash_are_found_at_the_start() {
    let door = door().await;
    for router in [
        |router: ProtectedRouter| router.route("/x", route!()).route("/x", route!()),
        |router: ProtectedRouter| router.route("/x", route!().and(route!())),
        |router: ProtectedRouter| router.route("/x/{a}", route!()).route("/x/{b}", other!()),
    ] {
        assert!(clashes(router, &door));
    }
    let nested = std::panic::AssertUnwindSafe(|| {
        let nest = door.router().route("/x", route!());
        door.router().route("/n/x", route!()).nest("/n", nest)
    });
    assert!(std::panic::catch_unwind(nested).is_err());
    let apart = |router: ProtectedRouter| {
        router
            .route("/x/{a}", route!())
            .route("/x/{a}", other!())
            .route("/x/{a:[0-9]+}", route!())
            .route("/x/a", route!().and(other!()))
    };
    assert!(!clashes(apart, &door));
}
