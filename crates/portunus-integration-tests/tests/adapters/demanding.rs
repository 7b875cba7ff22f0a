//! A requirement of the authenticating layer answers as one in a layer inside of it: the status,
//! the headers, the body, what is counted and what is audited.

use std::convert::Infallible;

use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpMessage, HttpRequest, web};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portunus::adapter::actix::{self, Auth};
use portunus::adapter::axum as on_axum;
use portunus::adapter::tower::{AuthLayer, require};
use portunus::audit::{AuditEvent, AuditTrail, MemoryAudit};
use portunus::key::{Access, Owner};
use portunus::limit::LimitPolicy;
use portunus::manage::NewKey;
use portunus::quota::Quota;
use portunus::{AuthError, Authenticator, KeyPrincipal, Limits, Principal, Requirement};
use portunus_test_support::{Fixture, scope, stranger, tenant};
use tower::{Layer, ServiceExt, service_fn};

/// How a key becomes optional, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Required,
    /// By the authenticator, for all layers.
    Anonymous,
    /// By the layer, and by the requirement inside of it.
    Optional,
}

/// What a client and an operator see of a request.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    /// Of the events that it caused.
    outcomes: Vec<String>,
}

/// A service with an audit, keys, and requests: a method, and a value of `Authorization`.
struct Desk {
    authenticator: Authenticator,
    audit: MemoryAudit,
    trail: AuditTrail,
    requests: Vec<(&'static str, Option<String>)>,
}

impl Desk {
    async fn new(key: Key, late: bool) -> Self {
        let fixture = Fixture::new();
        let audit = MemoryAudit::new(1000);
        let trail = AuditTrail::builder().sink(audit.clone());
        let trail = trail.failures_per_source(None).build();
        let limits = Limits::per_key([Quota::per_minute(3), Quota::per_hour(100)]);
        let setup = fixture.bearer().limits(limits).audit(trail.clone());
        let setup = match key {
            Key::Anonymous => setup.optional(),
            Key::Required | Key::Optional => setup,
        };
        let mut read_only = NewKey::new("reads", Owner::tenant(tenant("acme")))
            .with_scopes([scope("a"), scope("b")]);
        read_only.access = Access::ReadOnly;
        let mut restricted = NewKey::new("restricted", Owner::tenant(tenant("acme")))
            .with_scopes([scope("a"), scope("b")]);
        restricted.workspaces = Some(vec!["w1".parse().unwrap()]);
        let keys = [
            fixture.issue(&["a"]).await.0,
            fixture.issue(&["a", "b"]).await.0,
            fixture.issue(&["c"]).await.0,
            fixture.issue_new(read_only).await.0,
            fixture.issue_new(restricted).await.0,
            stranger(),
            "no key".to_owned(),
        ];
        let mut requests = vec![("GET", None), ("GET", Some("Basic eDp5".to_owned()))];
        // The fourth of each is over the quota, if the others were counted.
        for _ in 0..4 {
            for key in &keys {
                requests.push(("POST", Some(format!("Bearer {key}"))));
            }
        }
        if late {
            fixture.store.answer_late(1);
        }
        Self {
            authenticator: setup.build().unwrap(),
            audit,
            trail,
            requests,
        }
    }

    async fn seen(&self, status: u16, mut headers: Vec<(String, String)>, body: &[u8]) -> Seen {
        let before = self.audit.all().len();
        self.trail.flush().await.unwrap();
        let events = self.audit.all();
        let outcome = |event: &AuditEvent| event.outcome.as_str().to_owned();
        let (mut body, new) = (String::from_utf8(body.to_vec()).unwrap(), &events[before..]);
        for id in new.iter().filter_map(|event| event.request_id.as_ref()) {
            body = body.replace(&id.to_string(), "(id)");
        }
        headers.retain(|(name, _)| name != "x-request-id");
        headers.sort();
        Seen {
            status,
            headers,
            body,
            outcomes: new.iter().map(outcome).collect(),
        }
    }
}

const KEYS: [Key; 3] = [Key::Required, Key::Anonymous, Key::Optional];

/// Requirements of a layer, one after the other. What one states does not count for the other.
fn requirements() -> Vec<[Requirement; 2]> {
    let any_key = || Requirement::none().any_workspace();
    vec![
        [scope("a").into(), any_key()],
        [Requirement::none(), any_key()],
        [scope("a").into(), scope("b").into()],
        [Requirement::reading().and(scope("a")), any_key()],
        [Requirement::reading(), scope("a").into()],
        [any_key(), Requirement::user()],
    ]
}

/// Takes a while.
async fn named(principal: KeyPrincipal) -> Result<String, AuthError> {
    tokio::task::yield_now().await;
    Ok(principal.record().name.to_string())
}

async fn whoami(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = name_of(request.extensions().get());
    Ok(Response::new(Full::from(name)))
}

fn name_of(caller: Option<&KeyPrincipal>) -> String {
    let Some(caller) = caller else {
        return "nobody".into();
    };
    let mut all = String::new();
    caller.scopes().visit(&mut |scope| all.push_str(scope));
    all
}

async fn by_tower(key: Key, late: bool, parts: &[Requirement; 2], inside: bool) -> Vec<Seen> {
    let (desk, [first, second]) = (Desk::new(key, late).await, parts.clone());
    let mut layer = AuthLayer::new(desk.authenticator.clone());
    if late {
        layer = layer.try_map_principal(named);
    }
    let own = match key {
        // Before and after it was made optional.
        Key::Optional => layer.clone().require(first.clone()).optional_key(),
        Key::Required | Key::Anonymous => layer.clone().require(first.clone()),
    };
    let own = own.require(second.clone()).layer(service_fn(whoami));
    let (mut first, mut second) = (require(first), require(second));
    if key == Key::Optional {
        (first, second) = (first.optional_key(), second.optional_key());
        layer = layer.optional_key();
    }
    let nested = layer.layer(first.layer(second.layer(service_fn(whoami))));
    let mut all = Vec::new();
    for (method, authorization) in &desk.requests {
        let mut request = Request::builder().method(*method).uri("/x");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let request = request.body(()).unwrap();
        let response = match inside {
            true => nested.clone().oneshot(request).await,
            false => own.clone().oneshot(request).await,
        };
        let Ok(response) = response;
        let (head, body) = response.into_parts();
        let headers = texts(
            head.headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        );
        let body = body.collect().await.unwrap().to_bytes();
        all.push(desk.seen(head.status.as_u16(), headers, &body).await);
    }
    all
}

async fn by_actix(key: Key, late: bool, parts: &[Requirement; 2], inside: bool) -> Vec<Seen> {
    let (desk, [first, second]) = (Desk::new(key, late).await, parts.clone());
    let mut auth = Auth::new(desk.authenticator.clone());
    if late {
        auth = auth.try_map_principal(named);
    }
    let whoami = |request: HttpRequest| async move { name_of(request.extensions().get()) };
    let route = web::resource("/x").route(web::route().to(whoami));
    let app = if inside {
        let (mut first, mut second) = (actix::require(first), actix::require(second));
        if key == Key::Optional {
            (first, second) = (first.optional_key(), second.optional_key());
            auth = auth.optional_key();
        }
        let routes = web::scope("").service(web::scope("").service(route).wrap(second));
        App::new().service(web::scope("").service(routes.wrap(first)).wrap(auth))
    } else {
        auth = auth.require(first);
        if key == Key::Optional {
            auth = auth.optional_key();
        }
        let routes = web::scope("").service(route);
        App::new().service(web::scope("").service(routes).wrap(auth.require(second)))
    };
    let app = init_service(app).await;
    let mut all = Vec::new();
    for (method, authorization) in &desk.requests {
        let mut request = TestRequest::with_uri("/x").method(method.parse().unwrap());
        if let Some(value) = authorization {
            request = request.insert_header(("authorization", value.as_str()));
        }
        let response = call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers = texts(headers.map(|(name, value)| (name.as_str(), value.as_bytes())));
        let body = actix_web::test::read_body(response).await;
        all.push(desk.seen(status, headers, &body).await);
    }
    all
}

fn texts<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    headers
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect()
}

fn compare(what: &str, own: &[Seen], inside: &[Seen]) -> Vec<u16> {
    assert_eq!(own.len(), inside.len());
    for (number, (one, other)) in own.iter().zip(inside).enumerate() {
        assert_eq!(one, other, "{what}, request {number}");
    }
    own.iter().map(|seen| seen.status).collect()
}

/// Both refuse and let pass; otherwise the comparison would say little.
fn is_varied(statuses: &[u16]) {
    for status in [200, 400, 401, 403, 429] {
        assert!(
            statuses.contains(&status),
            "{status} is not in {statuses:?}"
        );
    }
}

#[tokio::test]
async fn a_requirement_of_the_layer_answers_as_one_inside_of_it() {
    let mut statuses = Vec::new();
    for (key, late) in KEYS.iter().flat_map(|key| [(*key, false), (*key, true)]) {
        for parts in requirements() {
            let own = by_tower(key, late, &parts, false).await;
            let inside = by_tower(key, late, &parts, true).await;
            let what = format!("{key:?}, late: {late}, {parts:?}");
            statuses.extend(compare(&what, &own, &inside));
        }
    }
    is_varied(&statuses);
}

#[actix_web::test]
async fn a_requirement_of_the_middleware_answers_as_one_inside_of_it() {
    let mut statuses = Vec::new();
    for (key, late) in KEYS.iter().flat_map(|key| [(*key, false), (*key, true)]) {
        for parts in requirements() {
            let own = by_actix(key, late, &parts, false).await;
            let inside = by_actix(key, late, &parts, true).await;
            let what = format!("{key:?}, late: {late}, {parts:?}");
            statuses.extend(compare(&what, &own, &inside));
        }
    }
    is_varied(&statuses);
}

/// Statuses, and not only equal ones: what an authenticator's own setting would make useless fails
/// closed.
#[tokio::test]
async fn a_requirement_refuses_keys_without_the_scope_and_requests_without_a_key() {
    let parts = [scope("a").into(), scope("b").into()];
    for (key, expected) in [
        (Key::Required, 401),
        (Key::Anonymous, 401),
        (Key::Optional, 200),
    ] {
        for late in [false, true] {
            let seen = by_tower(key, late, &parts, false).await;
            // Without a key; then with `a`, with both, with another, read-only and restricted.
            assert_eq!(seen[0].status, expected, "{key:?}");
            let statuses: Vec<_> = seen[2..7].iter().map(|seen| seen.status).collect();
            assert_eq!(statuses, [403, 200, 403, 403, 403], "{key:?}");
        }
    }
}

// ---- routers ----

const PATHS: [&str; 4] = ["/need", "/any", "/maybe", "/public"];

/// The statuses of each path on axum and on actix-web, for a method and a value of `Authorization`.
async fn of_routers(
    (layer, auth): (AuthLayer, Auth),
    method: &str,
    value: Option<&str>,
) -> [[u16; 2]; 4] {
    let ok = || async { "ok" };
    let router = on_axum::ProtectedRouter::new(layer)
        .route(PATHS[0], on_axum::get(ok).require(scope("a")))
        .route(PATHS[1], on_axum::get(ok).any_key())
        .route(PATHS[2], on_axum::get(ok).optional_key())
        .route(PATHS[3], on_axum::get(ok).public());
    let axum = router.into_router();
    let router = actix::ProtectedRouter::new(auth)
        .route(PATHS[0], actix::get(ok).require(scope("a")))
        .route(PATHS[1], actix::get(ok).any_key())
        .route(PATHS[2], actix::get(ok).optional_key())
        .route(PATHS[3], actix::get(ok).public());
    let actix = init_service(App::new().service(router)).await;
    let mut all = [[0; 2]; 4];
    for (path, statuses) in PATHS.iter().zip(&mut all) {
        let mut request = Request::builder().method(method).uri(*path);
        let mut other = TestRequest::with_uri(path).method(method.parse().unwrap());
        if let Some(value) = value {
            request = request.header("authorization", value);
            other = other.insert_header(("authorization", value));
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = axum.clone().oneshot(request).await.unwrap();
        let other = call_service(&actix, other.to_request()).await;
        *statuses = [response.status().as_u16(), other.status().as_u16()];
    }
    all
}

/// The route says whether it needs a key, whatever its layer lets pass elsewhere and requires.
#[actix_web::test]
async fn a_route_needs_a_key_even_if_its_layer_does_not_and_a_public_one_never_does() {
    let fixture = Fixture::new();
    let [a, b, both] = [
        fixture.issue(&["a"]).await.0,
        fixture.issue(&["b"]).await.0,
        fixture.issue(&["a", "b"]).await.0,
    ]
    .map(|key| format!("Bearer {key}"));
    let anonymous = LimitPolicy::per_address([Quota::per_minute(1000)]).anonymous();
    for counted in [false, true] {
        let limits = Limits::per_key([Quota::per_minute(1000)]);
        let limits = match counted {
            true => limits.policy(anonymous.clone()),
            false => limits,
        };
        let setup = || fixture.bearer().limits(limits.clone());
        for (setup, optional) in [
            (setup(), false),
            (setup(), true),
            (setup().optional(), false),
        ] {
            let authenticator = setup.build().unwrap();
            for demanding in [false, true] {
                let mut layer = AuthLayer::new(authenticator.clone());
                let mut auth = Auth::new(authenticator.clone());
                if optional {
                    (layer, auth) = (layer.optional_key(), auth.optional_key());
                }
                if demanding {
                    (layer, auth) = (layer.require(scope("b")), auth.require(scope("b")));
                }
                let (without_b, not_without_b) = if demanding { (403, 403) } else { (200, 405) };
                for (value, get, post) in [
                    (None, [401, 401, 200, 200], [401, 401, 405, 405]),
                    (
                        Some(&a),
                        [without_b, without_b, without_b, 200],
                        [not_without_b, not_without_b, not_without_b, 405],
                    ),
                    (Some(&b), [403, 200, 200, 200], [405; 4]),
                    (Some(&both), [200; 4], [405; 4]),
                ] {
                    let value = value.map(String::as_str);
                    for (method, expected) in [("GET", get), ("POST", post)] {
                        let both = (layer.clone(), auth.clone());
                        let seen = of_routers(both, method, value).await;
                        let what =
                            format!("{method} {value:?}, {optional}, {demanding}, {counted}");
                        assert_eq!(seen, expected.map(|status| [status; 2]), "{what}");
                    }
                }
            }
        }
    }
}
