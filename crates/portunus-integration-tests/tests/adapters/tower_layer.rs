//! The tower layer: which service is called and when, supported body types, and what it adds to
//! requests and responses.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};
use portunus::adapter::tower::{AuthLayer, EitherBody, RejectionBody, require};
use portunus::respond::{ErrorBody, from_error};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal, Requirement};
use portunus_test_support::{FIND, Fixture, format, scope, stranger};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

fn request(authorization: Option<&str>) -> Request<()> {
    let mut request = Request::new(());
    if let Some(value) = authorization {
        request
            .headers_mut()
            .insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    request
}

fn bearer(key: &str) -> Request<()> {
    request(Some(&format!("Bearer {key}")))
}

async fn text<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
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

fn code<B>(response: &Response<B>) -> Option<ErrorCode> {
    response
        .extensions()
        .get::<AuthError>()
        .map(AuthError::code)
}

/// Answers with the id of the caller's key.
async fn whoami<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = request
        .extensions()
        .get::<KeyPrincipal>()
        .map_or("nobody".into(), |p| p.key_id().to_string());
    Ok(Response::new(Full::from(name)))
}

// ---- readiness ----

/// A service with capacity for one call: only the clone that was polled ready may be called, once
/// per readiness.
struct OnePlace {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl OnePlace {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let calls = Arc::<AtomicUsize>::default();
        (
            Self {
                ready: false,
                calls: Arc::clone(&calls),
            },
            calls,
        )
    }
}

impl Clone for OnePlace {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            calls: Arc::clone(&self.calls),
        }
    }
}

impl Service<Request<()>> for OnePlace {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without having been polled ready"
        );
        self.calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Response::default()))
    }
}

#[tokio::test]
async fn only_the_service_that_was_polled_ready_is_called() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        if late {
            fixture.store.answer_late(1);
        }
        let (inner, calls) = OnePlace::new();
        let layers = (
            AuthLayer::new(fixture.bearer().build().unwrap()),
            require(scope("a")),
        );
        let mut service = ServiceBuilder::new().layer(layers).service(inner);
        for call in 1..=3 {
            let response = service
                .ready()
                .await
                .unwrap()
                .call(bearer(&key))
                .await
                .unwrap();
            assert_eq!(
                (response.status(), calls.load(Ordering::SeqCst)),
                (StatusCode::OK, call)
            );
        }
    }
}

#[tokio::test]
async fn requests_that_wait_at_the_same_time_each_have_their_own_ready_service() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    fixture.store.answer_late(1);
    let (inner, calls) = OnePlace::new();
    let mut service = AuthLayer::new(fixture.bearer().build().unwrap()).layer(inner);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(service.ready().await.unwrap().call(bearer(&key)));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    // In reverse order.
    for future in waiting.into_iter().rev() {
        assert_eq!(future.await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_refused_request_never_reaches_the_service() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, record) = fixture.issue(&[]).await;
        fixture.manager().revoke(&record.id, None).await.unwrap();
        if late {
            fixture.store.answer_late(1);
        }
        let (inner, calls) = OnePlace::new();
        let layer = AuthLayer::new(fixture.bearer().build().unwrap());
        for request in [
            request(None),
            bearer("garbage"),
            bearer(&stranger()),
            bearer(&key),
            request(Some("Bearer a, Bearer b")),
        ] {
            let response = layer.layer(inner.clone()).oneshot(request).await.unwrap();
            assert!(response.status().is_client_error(), "{response:?}");
        }
        fixture.store.fail(FIND);
        let response = layer
            .layer(inner.clone())
            .oneshot(bearer(&key))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_while_it_waits_never_reaches_the_service() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    fixture.store.answer_late(1);
    let (inner, calls) = OnePlace::new();
    let mut service = AuthLayer::new(fixture.bearer().build().unwrap()).layer(inner);
    let mut future = Box::pin(service.ready().await.unwrap().call(bearer(&key)));
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    drop(future);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    service
        .ready()
        .await
        .unwrap()
        .call(bearer(&key))
        .await
        .unwrap();
    assert_eq!(
        calls.load(Ordering::SeqCst),
        1,
        "and the service still serves others"
    );
}

#[tokio::test]
async fn the_errors_of_the_service_are_its_own() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let layer = AuthLayer::new(fixture.bearer().build().unwrap());
    let failing =
        service_fn(|_: Request<()>| ready(Err::<Response<Full<Bytes>>, _>("the service broke")));
    assert_eq!(
        layer
            .layer(failing)
            .oneshot(bearer(&key))
            .await
            .unwrap_err(),
        "the service broke"
    );
}

// ---- bodies ----

/// A request body that is neither `Clone` nor `Sync`.
struct Unshared(Cell<u8>);

#[tokio::test]
async fn a_request_body_needs_neither_clone_nor_sync() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        if late {
            fixture.store.answer_late(1);
        }
        let inner = service_fn(|request: Request<Unshared>| {
            ready(Ok::<_, Infallible>(Response::new(Full::from(vec![
                request.into_body().0.get(),
            ]))))
        });
        let layers = (
            AuthLayer::new(fixture.bearer().build().unwrap()),
            require(scope("a")),
        );
        let mut service = ServiceBuilder::new().layer(layers).service(inner);
        let request = bearer(&key).map(|()| Unshared(Cell::new(b'x')));
        let response = tokio::spawn(sendable(service.ready().await.unwrap().call(request)))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(text(response).await, "x");
    }
}

async fn speaks<R>(fixture: &Fixture, own: impl Fn() -> R + Clone)
where
    R: RejectionBody + http_body::Body<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    let (key, _) = fixture.issue(&[]).await;
    let layer = AuthLayer::new(fixture.bearer().build().unwrap());
    let service = || {
        layer.layer(service_fn(|_: Request<()>| {
            ready(Ok::<_, Infallible>(Response::new(own())))
        }))
    };
    assert_eq!(
        text(service().oneshot(bearer(&key)).await.unwrap()).await,
        "own"
    );
    let refusal = service().oneshot(request(None)).await.unwrap();
    assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
    assert!(text(refusal).await.contains("MISSING_KEY"));
}

#[tokio::test]
async fn a_refusal_fits_the_usual_response_bodies() {
    let fixture = Fixture::new();
    speaks(&fixture, || Full::from("own")).await;
    speaks::<BoxBody<Bytes, Infallible>>(&fixture, || BoxBody::new(Full::from("own"))).await;
    speaks::<UnsyncBoxBody<Bytes, std::io::Error>>(&fixture, || {
        UnsyncBoxBody::new(Full::from("own").map_err(|never| match never {}))
    })
    .await;
}

/// A body type that the library does not know, with two frames and its own error type.
#[derive(Debug)]
struct Foreign(Vec<&'static str>);

impl http_body::Body for Foreign {
    type Data = Bytes;
    type Error = std::fmt::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::fmt::Error>>> {
        Poll::Ready(
            self.0
                .pop()
                .map(|part| Ok(http_body::Frame::data(Bytes::from_static(part.as_bytes())))),
        )
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

#[tokio::test]
async fn any_other_response_body_is_wrapped() {
    let fixture = Fixture::new();
    speaks(&fixture, || EitherBody::inner(Foreign(vec!["n", "ow"]))).await;
}

#[test]
fn a_wrapped_body_reports_its_size_and_its_end() {
    use http_body::Body;
    let refusal = EitherBody::<Foreign>::from_rejection(Bytes::from_static(b"four"));
    assert_eq!(
        (refusal.size_hint().exact(), refusal.is_end_stream()),
        (Some(4), false)
    );
    assert!(EitherBody::inner(Foreign(vec![])).is_end_stream());
    assert_eq!(
        EitherBody::inner(Foreign(vec!["x"])).size_hint().exact(),
        None
    );
}

// ---- what is put into requests ----

#[tokio::test]
async fn the_credentials_are_marked_sensitive() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let inner = service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(Full::from(format!(
            "{:?}",
            request.headers()
        )))))
    });
    for optional in [false, true] {
        let builder = fixture.bearer();
        let builder = if optional {
            builder.optional()
        } else {
            builder
        };
        let layer = AuthLayer::new(builder.build().unwrap());
        let shown = text(layer.layer(inner).oneshot(bearer(&key)).await.unwrap()).await;
        assert!(
            shown.contains("Sensitive") && !shown.contains(&key),
            "{shown}"
        );
    }
}

/// Few headers are compared, many are found by their hash.
#[tokio::test]
async fn the_credentials_are_found_and_marked_among_few_headers_and_many() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let inner = service_fn(|request: Request<()>| {
        let marked = request.headers()[AUTHORIZATION].is_sensitive();
        ready(Ok::<_, Infallible>(Response::new(Full::from(
            marked.to_string(),
        ))))
    });
    let layer = AuthLayer::new(fixture.bearer().build().unwrap());
    for others in [0, 10, 11, 12, 13, 40] {
        let among = |lines: &[&str]| {
            let mut request = request(None);
            for number in 0..others {
                let name = format!("x-{number}").parse::<http::HeaderName>().unwrap();
                request
                    .headers_mut()
                    .insert(name, HeaderValue::from_static("a"));
            }
            for line in lines {
                let value = format!("Bearer {line}").parse().unwrap();
                request.headers_mut().append(AUTHORIZATION, value);
            }
            layer.layer(inner).oneshot(request)
        };
        let (none, repeated) = (
            among(&[]).await.unwrap(),
            among(&[&key, &key]).await.unwrap(),
        );
        assert_eq!(code(&none), Some(ErrorCode::MissingKey), "{others}");
        assert_eq!(code(&repeated), Some(ErrorCode::InvalidRequest), "{others}");
        assert_eq!(
            text(among(&[&key]).await.unwrap()).await,
            "true",
            "{others}"
        );
    }
}

#[tokio::test]
async fn a_key_in_a_header_of_the_hosts_own_is_marked_sensitive_too() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let inner = service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(Full::from(format!(
            "{:?}",
            request.headers()
        )))))
    });
    let layer = AuthLayer::new(
        fixture
            .bare()
            .header("X-API-Key", [format()])
            .build()
            .unwrap(),
    );
    let mut request = request(None);
    request
        .headers_mut()
        .insert("x-api-key", HeaderValue::from_str(&key).unwrap());
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let shown = text(response).await;
    assert!(!shown.contains(&key), "{shown}");
}

#[tokio::test]
async fn the_principal_and_the_hosts_own_types_are_in_the_extensions() {
    struct Tenant(String);
    struct Length(usize);
    let fixture = Fixture::new();
    let (key, record) = fixture.issue(&[]).await;
    let layer = AuthLayer::new(fixture.bearer().build().unwrap())
        .map_principal(|principal| Tenant(principal.owner().tenant_id.to_string()))
        .map_principal(|principal| Length(principal.key_id().as_str().len()));
    let inner = service_fn(|request: Request<()>| {
        let found = request.extensions();
        let (tenant, length) = (
            found.get::<Arc<Tenant>>().unwrap(),
            found.get::<Arc<Length>>().unwrap(),
        );
        let who = found.get::<KeyPrincipal>().unwrap().key_id();
        ready(Ok::<_, Infallible>(Response::new(Full::from(format!(
            "{} {} {who}",
            tenant.0, length.0
        )))))
    });
    let answer = text(layer.layer(inner).oneshot(bearer(&key)).await.unwrap()).await;
    assert_eq!(
        answer,
        format!("acme {} {}", record.id.as_str().len(), record.id)
    );
}

#[tokio::test]
async fn a_principal_that_was_there_before_is_not_taken_for_the_layers_own() {
    // Two APIs in one service: the outer layer knows the caller, the inner one allows anonymous
    // requests.
    let (outer, inner) = (Fixture::new(), Fixture::new());
    let (key, record) = outer.issue(&["*"]).await;
    let outer_layer = AuthLayer::new(outer.bearer().build().unwrap());
    let inner_layer = AuthLayer::new(
        inner
            .bare()
            .header("x-inner-key", [format()])
            .optional()
            .build()
            .unwrap(),
    );
    let service = ServiceBuilder::new()
        .layer(outer_layer)
        .layer(inner_layer)
        .service(service_fn(whoami));
    let answer = text(service.oneshot(bearer(&key)).await.unwrap()).await;
    assert_ne!(
        answer,
        record.id.to_string(),
        "a key of the outer API is anonymous to the inner one"
    );
}

#[tokio::test]
async fn the_address_of_the_peer_is_found_where_the_host_says() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let inner = service_fn(|request: Request<()>| {
        let ip = request
            .extensions()
            .get::<KeyPrincipal>()
            .unwrap()
            .client_ip();
        ready(Ok::<_, Infallible>(Response::new(Full::from(format!(
            "{ip:?}"
        )))))
    });
    let with_address = || {
        let mut request = bearer(&key);
        request
            .extensions_mut()
            .insert(SocketAddr::from(([192, 0, 2, 1], 4711)));
        request
            .headers_mut()
            .insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
        request
    };
    let plain = AuthLayer::new(authenticator.clone());
    assert_eq!(
        text(plain.layer(inner).oneshot(with_address()).await.unwrap()).await,
        "Some(192.0.2.1)"
    );
    assert_eq!(
        text(plain.layer(inner).oneshot(bearer(&key)).await.unwrap()).await,
        "None"
    );
    let own = AuthLayer::new(authenticator).peer(|_| Some(IpAddr::from([198, 51, 100, 7])));
    assert_eq!(
        text(own.layer(inner).oneshot(with_address()).await.unwrap()).await,
        "Some(198.51.100.7)"
    );
}

// ---- what is put into answers ----

#[tokio::test]
async fn a_refusal_carries_its_error_a_challenge_and_a_ban_on_storing() {
    let fixture = Fixture::new();
    let layer = AuthLayer::new(
        fixture
            .bearer()
            .basic([format()])
            .realm("acme")
            .build()
            .unwrap(),
    );
    for (request, status, error, bearer_line) in [
        (
            request(None),
            401,
            ErrorCode::MissingKey,
            r#"Bearer realm="acme""#,
        ),
        (
            request(Some("Token x")),
            401,
            ErrorCode::MissingKey,
            r#"Bearer realm="acme""#,
        ),
        (
            bearer("x"),
            401,
            ErrorCode::InvalidFormat,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
        (
            bearer(&stranger()),
            401,
            ErrorCode::InvalidKey,
            r#"Bearer realm="acme", error="invalid_token""#,
        ),
        (
            bearer(""),
            400,
            ErrorCode::InvalidRequest,
            r#"Bearer realm="acme", error="invalid_request""#,
        ),
    ] {
        let response = layer
            .layer(service_fn(whoami))
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), code(&response)),
            (status, Some(error))
        );
        let headers = response.headers();
        assert_eq!(
            headers.get_all(CACHE_CONTROL).iter().collect::<Vec<_>>(),
            ["no-store"]
        );
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        let lines: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(
            lines,
            [bearer_line, r#"Basic realm="acme", charset="UTF-8""#]
        );
        let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(
            (body["status"].as_u64(), body["code"].as_str()),
            (Some(u64::from(status)), Some(error.as_str()))
        );
    }
}

#[tokio::test]
async fn an_accepted_request_gets_the_services_answer_as_it_is() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let layer = AuthLayer::new(fixture.bearer().build().unwrap());
    let inner = service_fn(|_: Request<()>| {
        let mut response = Response::new(Full::from("own"));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        ready(Ok::<_, Infallible>(response))
    });
    let response = layer.layer(inner).oneshot(bearer(&key)).await.unwrap();
    assert!(response.headers().is_empty() && code(&response).is_none());
}

// ---- requirements ----

#[tokio::test]
async fn a_key_that_was_looked_up_for_one_route_is_refused_on_another() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["document:read"]).await;
    let auth = AuthLayer::new(fixture.bearer().build().unwrap());
    let route = |name: &str| {
        ServiceBuilder::new()
            .layer(auth.clone())
            .layer(require(scope(name)))
            .service(service_fn(whoami))
    };
    for _ in 0..3 {
        assert_eq!(
            route("document:read")
                .oneshot(bearer(&key))
                .await
                .unwrap()
                .status(),
            StatusCode::OK
        );
        for other in [
            "document:write",
            "document:*",
            "documents:read",
            "document",
            "document.read",
            "Document:Read",
            "*",
        ] {
            let response = route(other).oneshot(bearer(&key)).await.unwrap();
            assert_eq!(
                code(&response),
                Some(ErrorCode::InsufficientScope),
                "{other}"
            );
        }
    }
}

#[tokio::test]
async fn a_requirement_without_authentication_refuses_every_request() {
    let (inner, calls) = OnePlace::new();
    for requirement in [Requirement::none(), scope("a").into()] {
        let response = require(requirement)
            .layer(inner.clone())
            .oneshot(request(None))
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), code(&response)),
            (500, Some(ErrorCode::Internal))
        );
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_requirement_refuses_anonymous_requests_in_the_apis_error_format() {
    let fixture = Fixture::new();
    let renderer = from_error(|error: &AuthError| {
        ErrorBody::json(format!(r#"{{"oops":"{}"}}"#, error.code()))
    });
    let auth = AuthLayer::new(
        fixture
            .bearer()
            .optional()
            .realm("acme")
            .renderer(renderer)
            .build()
            .unwrap(),
    );
    for requirement in [Requirement::none(), scope("a").into()] {
        let service = ServiceBuilder::new()
            .layer(auth.clone())
            .layer(require(requirement))
            .service(service_fn(whoami));
        let response = service.oneshot(request(None)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            r#"Bearer realm="acme""#
        );
        assert_eq!(text(response).await, r#"{"oops":"MISSING_KEY"}"#);
    }
}

// ---- dialects ----

#[tokio::test]
async fn a_closure_of_error_and_request_chooses_the_words() {
    let fixture = Fixture::new();
    let own = |error: &AuthError, head: &dyn portunus::RequestHead| {
        ErrorBody::new(
            "text/plain",
            format!("{} {} {}", head.method(), head.path(), error.code()).into_bytes(),
        )
    };
    let layer = AuthLayer::new(fixture.bearer().renderer(own).build().unwrap());
    let mut request = request(None);
    *request.uri_mut() = "/documents/7?api_key=secret".parse().unwrap();
    let response = layer
        .layer(service_fn(whoami))
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
    assert_eq!(text(response).await, "GET /documents/7 MISSING_KEY");
}

#[tokio::test]
async fn an_invalid_media_type_is_omitted_and_does_not_split_the_response() {
    let fixture = Fixture::new();
    let own = from_error(|_| ErrorBody::new("text/plain\r\nSet-Cookie: a=b", b"x".to_vec()));
    let layer = AuthLayer::new(fixture.bearer().renderer(own).build().unwrap());
    let response = layer
        .layer(service_fn(whoami))
        .oneshot(request(None))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(
        !response.headers().contains_key(CONTENT_TYPE)
            && !response.headers().contains_key("set-cookie")
    );
}
