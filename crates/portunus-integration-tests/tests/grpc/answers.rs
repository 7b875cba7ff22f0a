//! What counts as a gRPC call, that refusals match those over HTTP, and the table of methods.

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use portunus::adapter::tower::{AuthLayer, EitherBody, GrpcMethods, GrpcMethodsError, require};
use portunus::authenticator::{Attempt, Authenticated};
use portunus::key::{Access, Owner};
use portunus::manage::NewKey;
use portunus::{AuthError, ErrorCode, KeyPrincipal, Requirement};
use portunus_test_support::{Fixture, scope, stranger, with_last_character_wrong};
use tonic_web::GrpcWebLayer;
use tower::util::MapResponseLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

async fn ok<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new("ok".into()))
}

fn call(path: &str, key: Option<&str>) -> Request<()> {
    let mut request = Request::post(path).header("content-type", "application/grpc");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(()).unwrap()
}

fn code<B>(response: &Response<B>) -> Option<ErrorCode> {
    response
        .extensions()
        .get::<AuthError>()
        .map(AuthError::code)
}

async fn whole(response: Response<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
    let (head, body) = response.into_parts();
    (
        head.status,
        head.headers,
        body.collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn a_call_is_a_post_of_grpc_and_nothing_else_is() {
    let fixture = Fixture::new();
    let layer = AuthLayer::new(fixture.bearer().build().unwrap()).grpc();
    for (method, content_type, is_call) in [
        ("POST", Some("application/grpc"), true),
        ("POST", Some("application/grpc+proto"), true),
        ("POST", Some("application/grpc+json"), true),
        ("POST", Some("application/grpc; charset=utf-8"), true),
        ("POST", Some("Application/gRPC"), true),
        ("POST", Some("application/grpc-web"), false),
        ("POST", Some("application/grpc-web+proto"), false),
        ("POST", Some("application/grpc-web-text"), false),
        ("POST", Some("application/grpcx"), false),
        ("POST", Some("application/grp"), false),
        ("POST", Some(""), false),
        ("POST", Some("application/json"), false),
        ("POST", None, false),
        ("GET", Some("application/grpc"), false),
        ("OPTIONS", Some("application/grpc"), false),
    ] {
        let mut request = Request::builder().method(method);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let response = layer
            .layer(service_fn(ok))
            .oneshot(request.body(()).unwrap())
            .await
            .unwrap();
        assert_eq!(code(&response), Some(ErrorCode::MissingKey));
        let (status, headers, body) = whole(response).await;
        let context = format!("{method} {content_type:?}");
        assert_eq!(headers.contains_key("grpc-status"), is_call, "{context}");
        assert_eq!(
            (status.as_u16(), body.is_empty()),
            if is_call { (200, true) } else { (401, false) },
            "{context}"
        );
    }
}

#[tokio::test]
async fn where_grpc_is_not_declared_a_call_is_refused_as_any_request() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        if late {
            fixture.store.answer_late(1);
        }
        let layers = (
            AuthLayer::new(fixture.bearer().build().unwrap()),
            require(scope("b")),
        );
        let service = ServiceBuilder::new().layer(layers).service(service_fn(ok));
        for (key, status) in [(None, 401), (Some(&*stranger()), 401), (Some(&*key), 403)] {
            let response = service.clone().oneshot(call("/a.B/C", key)).await.unwrap();
            let (got, headers, body) = whole(response).await;
            assert_eq!(got, status, "{key:?}");
            assert_eq!(headers["content-type"], "application/problem+json");
            assert!(!headers.contains_key("grpc-status") && !body.is_empty());
        }
    }
}

#[tokio::test]
async fn a_layer_that_does_not_declare_grpc_ignores_the_declaration_of_an_outer_one() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["a"]).await;
    let layers = (
        AuthLayer::new(fixture.bearer().build().unwrap()).grpc(),
        AuthLayer::new(fixture.bearer().build().unwrap()),
        require(scope("b")),
    );
    let service = ServiceBuilder::new().layer(layers).service(service_fn(ok));
    let refused = service.clone().oneshot(call("/a.B/C", Some(&key))).await;
    assert_eq!(whole(refused.unwrap()).await.0, 403);
    let refused = service.oneshot(call("/a.B/C", None)).await;
    assert_eq!(refused.unwrap().headers()["grpc-status"], "16");
}

#[tokio::test]
async fn a_method_table_declares_grpc_for_its_own_refusals() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["a"]).await;
    let table = GrpcMethods::new().method("/a.B/C", scope("b")).build();
    let layers = (
        AuthLayer::new(fixture.bearer().build().unwrap()),
        table.unwrap(),
    );
    let service = ServiceBuilder::new().layer(layers).service(service_fn(ok));
    let refused = service.clone().oneshot(call("/a.B/C", Some(&key))).await;
    assert_eq!(refused.unwrap().headers()["grpc-status"], "7");
    let unknown = service.oneshot(call("/a.B/C", None)).await;
    assert_eq!(whole(unknown.unwrap()).await.0, 401);
}

#[tokio::test]
async fn grpc_and_http_make_the_same_decision_for_the_same_request() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        let (revoked, record) = fixture.issue(&[]).await;
        fixture.manager().revoke(&record.id, None).await.unwrap();
        if late {
            fixture.store.answer_late(1);
        }
        let layers = (
            AuthLayer::new(fixture.bearer().build().unwrap()).grpc(),
            require(scope("b")),
        );
        let service = ServiceBuilder::new().layer(layers).service(service_fn(ok));
        for key in [
            None,
            Some(""),
            Some("garbage"),
            Some(&stranger()),
            Some(&revoked),
            Some(&key),
        ] {
            let grpc = call("/documents", key);
            let mut http = grpc.clone();
            http.headers_mut()
                .insert("content-type", "application/json".parse().unwrap());
            let (grpc, http) = (
                service.clone().oneshot(grpc).await.unwrap(),
                service.clone().oneshot(http).await.unwrap(),
            );
            assert_eq!(code(&grpc), code(&http));
            let expected = match http.status().as_u16() {
                400 => "3",
                401 => "16",
                403 => "7",
                other => panic!("{other}"),
            };
            assert_eq!(grpc.headers()["grpc-status"], expected);
            let challenges = |headers: &HeaderMap| {
                headers
                    .get_all("www-authenticate")
                    .iter()
                    .cloned()
                    .collect::<Vec<_>>()
            };
            assert_eq!(challenges(grpc.headers()), challenges(http.headers()));
        }
    }
}

#[tokio::test]
async fn unknown_keys_get_the_same_bytes() {
    let fixture = Fixture::new();
    let layer = AuthLayer::new(fixture.bearer().build().unwrap()).grpc();
    let mut answers = Vec::new();
    for key in [
        stranger(),
        stranger(),
        with_last_character_wrong(&stranger()),
    ] {
        answers.push(
            whole(
                layer
                    .layer(service_fn(ok))
                    .oneshot(call("/a.B/C", Some(&key)))
                    .await
                    .unwrap(),
            )
            .await,
        );
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(answers[0].1["grpc-status"], "16");
}

#[tokio::test]
async fn every_code_has_a_status_that_is_an_error_and_fits_the_one_of_http() {
    let fixture = Fixture::new();
    let authenticator = fixture.bearer().build().unwrap();
    for &code in ErrorCode::ALL {
        let status = authenticator.responder().grpc_status(&AuthError::new(code));
        // As in google/rpc/code.proto.
        let expected: &[i32] = match code.status() {
            400 | 413 | 415 | 422 => &[3],
            401 => &[16],
            403 => &[7],
            404 => &[5],
            409 => &[8, 10],
            412 => &[9],
            429 => &[8],
            500 => &[13],
            503 => &[14],
            other => panic!("{code} has {other}"),
        };
        assert!(expected.contains(&status.code), "{code}: {status:?}");
        assert_eq!(status.message, code.message());
    }
}

// ---- the table ----

async fn asked(
    service: &(impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone),
    request: Request<()>,
) -> Option<ErrorCode> {
    code(&service.clone().oneshot(request).await.unwrap())
}

#[tokio::test]
async fn the_most_specific_entry_decides_and_methods_without_one_are_refused() {
    let fixture = Fixture::new();
    let (reader, _) = fixture.issue(&["read"]).await;
    let (deleter, _) = fixture.issue(&["delete"]).await;
    let table = GrpcMethods::new()
        .service("acme.v1.Documents", scope("read"))
        .method("/acme.v1.Documents/Delete", scope("delete"));
    let layers = |table: GrpcMethods| {
        (
            AuthLayer::new(fixture.bearer().build().unwrap()).grpc(),
            table.build().unwrap(),
        )
    };
    let service = ServiceBuilder::new()
        .layer(layers(table.clone()))
        .service(service_fn(ok));
    let scope_missing = Some(ErrorCode::InsufficientScope);
    let closed = Some(ErrorCode::Forbidden);
    for (path, read, delete) in [
        ("/acme.v1.Documents/Get", None, scope_missing),
        ("/acme.v1.Documents/Delete", scope_missing, None),
        ("/acme.v1.Documents/delete", None, scope_missing),
        ("/acme.v1.documents/Get", closed, closed),
        ("/acme.v1.DocumentsX/Get", closed, closed),
        ("/acme.v1.Documents/", closed, closed),
        ("/acme.v1.Documents", closed, closed),
        ("/acme.v1.Documents//Delete", closed, closed),
        ("//acme.v1.Documents/Delete", closed, closed),
        ("/acme.v1.Documents/Get/More", closed, closed),
        ("/acme.v1.Documents/D%65lete", closed, closed),
        ("/acme.v1.Documents/Delete%00", closed, closed),
        ("/acme.v1.Documents/Delete;x", closed, closed),
        ("/", closed, closed),
    ] {
        assert_eq!(
            asked(&service, call(path, Some(&reader))).await,
            read,
            "{path}"
        );
        assert_eq!(
            asked(&service, call(path, Some(&deleter))).await,
            delete,
            "{path}"
        );
        assert_eq!(
            asked(&service, call(path, None)).await,
            Some(ErrorCode::MissingKey),
            "{path}"
        );
    }
    let open = ServiceBuilder::new()
        .layer(layers(table.otherwise(Requirement::none())))
        .service(service_fn(ok));
    assert_eq!(
        asked(&open, call("/other.Service/Get", Some(&reader))).await,
        None
    );
    assert_eq!(
        asked(&open, call("/acme.v1.Documents/Delete", Some(&reader))).await,
        scope_missing
    );
    assert_eq!(
        asked(&open, call("/acme.v1.Documents/D%65lete", Some(&reader))).await,
        closed
    );
}

#[tokio::test]
async fn without_authentication_only_public_methods_of_the_table_pass() {
    let table = GrpcMethods::new()
        .public_service("open.Service")
        .otherwise(Requirement::none())
        .build()
        .unwrap();
    let service = table.layer(service_fn(ok));
    assert_eq!(asked(&service, call("/open.Service/Get", None)).await, None);
    assert_eq!(
        asked(&service, call("/closed.Service/Get", None)).await,
        Some(ErrorCode::Internal)
    );
    assert_eq!(
        asked(&service, call("no", None)).await,
        Some(ErrorCode::Internal)
    );
}

#[tokio::test]
async fn a_read_only_key_calls_only_methods_declared_as_reading() {
    let fixture = Fixture::new();
    let mut new = NewKey::new("key", Owner::tenant(portunus_test_support::tenant("acme")))
        .with_scopes([scope("a")]);
    new.access = Access::ReadOnly;
    let (key, _) = fixture.issue_new(new).await;
    let table = GrpcMethods::new()
        .method(
            "/a.B/Get",
            Requirement::scope(scope("a")).and(Requirement::reading()),
        )
        .method("/a.B/Set", scope("a"))
        .build()
        .unwrap();
    let layers = (
        AuthLayer::new(fixture.bearer().build().unwrap()).grpc(),
        table,
    );
    let service = ServiceBuilder::new().layer(layers).service(service_fn(ok));
    assert_eq!(asked(&service, call("/a.B/Get", Some(&key))).await, None);
    assert_eq!(
        asked(&service, call("/a.B/Set", Some(&key))).await,
        Some(ErrorCode::ReadOnlyKey)
    );
}

#[tokio::test]
async fn a_method_that_may_be_called_is_found_without_an_allocation() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["read"]).await;
    let authenticator = fixture.bearer().build().unwrap();
    let Attempt::Ready(Ok(Authenticated {
        principal: Some(principal),
        ..
    })) = authenticator.attempt(&portunus_test_support::Head::bearer(&key))
    else {
        panic!("a hit")
    };
    let entries = GrpcMethods::new()
        .service("a.B", scope("read"))
        .method("/a.B/Set", scope("read"));
    let mut service = entries.build().unwrap().layer(service_fn(|_: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    }));
    for path in ["/a.B/Get", "/a.B/Set"] {
        let mut request = call(path, Some(&key));
        request.extensions_mut().insert(principal.clone());
        let mut response = None;
        let counted =
            allocation_counter::measure(|| response = service.call(request).now_or_never());
        assert_eq!(counted.count_total, 0, "{path}");
        assert_eq!(code(&response.unwrap().unwrap()), None);
    }
}

#[test]
fn a_table_with_a_malformed_or_repeated_entry_is_not_built() {
    let none = Requirement::none;
    for path in [
        "",
        "/",
        "a.B/Get",
        "/a.B",
        "/a.B/",
        "//Get",
        "/a.B/Get?x",
        "/a.B/G%65t",
        "/a.B/G et",
        "/a.B//Get",
        "/a.B/Gét",
    ] {
        let error = GrpcMethods::new().method(path, none()).build().unwrap_err();
        assert_eq!(error, GrpcMethodsError::Method(path.into()));
        assert_eq!(
            GrpcMethods::new().public_method(path).build().unwrap_err(),
            error
        );
    }
    for name in ["", "/a.B", "a.B/", "a B", "a%2EB"] {
        let error = GrpcMethods::new()
            .service(name, none())
            .build()
            .unwrap_err();
        assert_eq!(error, GrpcMethodsError::Service(name.into()));
        assert_eq!(
            GrpcMethods::new().public_service(name).build().unwrap_err(),
            error
        );
    }
    let twice = GrpcMethods::new()
        .method("/a.B/Get", none())
        .public_method("/a.B/Get")
        .build()
        .unwrap_err();
    assert_eq!(twice, GrpcMethodsError::Twice("/a.B/Get".into()));
    let twice = GrpcMethods::new()
        .service("a.B", none())
        .service("a.B", none())
        .build()
        .unwrap_err();
    assert_eq!(twice, GrpcMethodsError::Twice("a.B".into()));
    assert!(
        GrpcMethods::new()
            .service("twirp/a.B", none())
            .method("/twirp/a.B/Get", none())
            .build()
            .is_ok()
    );
}

#[tokio::test]
async fn grpc_web_is_refused_in_its_own_way_inside_of_its_translator_and_as_http_outside_of_it() {
    use tonic::body::Body;
    let fixture = Fixture::new();
    let auth = AuthLayer::new(fixture.bearer().build().unwrap()).grpc();
    let inner =
        service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let wrapped = || MapResponseLayer::new(|response: Response<_>| response.map(EitherBody::inner));
    let web = || call("/a.B/C", None).map(|()| Body::empty());
    let with_type = |mut request: Request<Body>| {
        request.headers_mut().insert(
            "content-type",
            "application/grpc-web+proto".parse().unwrap(),
        );
        request
    };

    let inside = GrpcWebLayer::new().layer(auth.layer(wrapped().layer(inner)));
    let response = inside.oneshot(with_type(web())).await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["grpc-status"].to_str().unwrap()
        ),
        (200, "16")
    );
    assert_eq!(
        response.headers()["content-type"],
        "application/grpc-web+proto"
    );

    let outside = auth.layer(wrapped().layer(GrpcWebLayer::new().layer(inner)));
    let response = outside.oneshot(with_type(web())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
}

#[tokio::test]
async fn extractors_refuse_calls_as_the_layers_do() {
    use axum::body::Body;
    let fixture = Fixture::new();
    let optional = AuthLayer::new(fixture.bearer().optional().build().unwrap());
    for (layer, expected) in [
        (Some(optional.clone().grpc()), (200, Some("16"))),
        (Some(optional), (401, None)),
        // No layer declared that it serves gRPC, or authenticated the call.
        (None, (500, None)),
    ] {
        let mut app = axum::Router::new().route(
            "/a.B/Get",
            axum::routing::post(|_: KeyPrincipal| async { "never" }),
        );
        if let Some(layer) = layer {
            app = app.layer(layer);
        }
        let request = call("/a.B/Get", None).map(|()| Body::empty());
        let response = app.oneshot(request).await.unwrap();
        let status = response.headers().get("grpc-status");
        let status = status.map(|status| status.to_str().unwrap());
        assert_eq!((response.status().as_u16(), status), expected);
    }
}
