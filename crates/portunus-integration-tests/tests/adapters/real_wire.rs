//! HTTP/1.1 on the wire: a request is refused before its body is requested or read, and `HEAD` is
//! answered like `GET`.

use std::convert::Infallible;
use std::net::SocketAddr;

use crate::wire::{Wire, serve};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::Request;
use portunus::adapter::axum::{ProtectedRouter, get, post};
use portunus::adapter::tower::AuthLayer;
use portunus_test_support::{FIND, Fixture, scope, stranger};
use tower::{Layer, service_fn};

struct Site {
    address: SocketAddr,
    /// A key with the scope `a`.
    key: String,
    fixture: Fixture,
}

fn protected(auth: AuthLayer) -> Router {
    ProtectedRouter::new(auth)
        .route(
            "/take",
            post(|body: Bytes| async move { body.len().to_string() }).require(scope("a")),
        )
        .route(
            "/closed",
            post(|body: Bytes| async move { body.len().to_string() }).require(scope("b")),
        )
        .route("/give", get(|| async { "a document" }).require(scope("a")))
        .route(
            "/give/closed",
            get(|| async { "a document" }).require(scope("b")),
        )
        .into_router()
}

/// A service without axum's routing, which does not handle `HEAD` specially.
fn plain(auth: &AuthLayer) -> Router {
    let inner = service_fn(|request: Request<Body>| async move {
        let length = axum::body::to_bytes(request.into_body(), usize::MAX)
            .await
            .unwrap()
            .len();
        Ok::<_, Infallible>(Response::new(Body::from(length.to_string())))
    });
    Router::new().fallback_service(auth.layer(inner))
}

/// The same service behind a router and alone, with a store that answers at once and one that does
/// not.
async fn sites() -> Vec<Site> {
    let mut sites = Vec::new();
    for (late, routed) in [(false, true), (false, false), (true, true), (true, false)] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&["a"]).await;
        if late {
            fixture.store.answer_late(1);
        }
        let auth = AuthLayer::new(fixture.bearer().build().unwrap());
        let address = serve(if routed {
            protected(auth)
        } else {
            plain(&auth)
        })
        .await;
        sites.push(Site {
            address,
            key,
            fixture,
        });
    }
    sites
}

/// The field line with a key; empty without a key.
fn line(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("authorization: Bearer {key}\r\n")
    }
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_with_a_key_and_the_final_status_without() {
    for site in sites().await {
        for key in ["", "garbage", &stranger()] {
            let mut wire = Wire::to(site.address).await;
            let fields = format!("content-length: 5\r\nexpect: 100-continue\r\n{}", line(key));
            wire.send(format!(
                "POST /take HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
            ))
            .await;
            let reply = wire.reply().await;
            assert_eq!(reply.status, 401, "and no 100 before it");
            assert!(wire.body(&reply).await.contains("code"));
            assert!(
                wire.is_closed().await,
                "an unrequested body cannot be distinguished from the next request"
            );
        }
        let mut wire = Wire::to(site.address).await;
        let fields = format!(
            "content-length: 5\r\nexpect: 100-continue\r\n{}",
            line(&site.key)
        );
        wire.send(format!(
            "POST /take HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
        ))
        .await;
        assert_eq!(wire.reply().await.status, 100);
        wire.send("hello").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, wire.body(&reply).await.as_str()), (200, "5"));
    }
}

#[tokio::test]
async fn a_missing_scope_is_reported_before_the_body_is_requested() {
    let site = &sites().await[0];
    let mut wire = Wire::to(site.address).await;
    let fields = format!(
        "content-length: 5\r\nexpect: 100-continue\r\n{}",
        line(&site.key)
    );
    wire.send(format!(
        "POST /closed HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
    ))
    .await;
    assert_eq!(wire.reply().await.status, 403);
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_sent() {
    for site in sites().await {
        for body in [
            "content-length: 10485760\r\n",
            "content-length: 1099511627776\r\n",
            "transfer-encoding: chunked\r\n",
        ] {
            for key in ["", "garbage", &stranger()] {
                let mut wire = Wire::to(site.address).await;
                wire.send(format!(
                    "POST /take HTTP/1.1\r\nhost: localhost\r\n{body}{}\r\n",
                    line(key)
                ))
                .await;
                let reply = wire.reply().await;
                assert_eq!(reply.status, 401, "{body}");
                _ = wire.body(&reply).await;
                assert!(wire.is_closed().await, "{body}");
            }
        }
        site.fixture.store.fail(FIND);
        let mut wire = Wire::to(site.address).await;
        let fields = format!("content-length: 10485760\r\n{}", line(&site.key));
        wire.send(format!(
            "POST /take HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n"
        ))
        .await;
        assert_eq!(wire.reply().await.status, 503);
    }
}

#[tokio::test]
async fn a_refusal_whose_body_was_sent_leaves_the_connection_to_the_next_request() {
    for site in sites().await {
        let mut wire = Wire::to(site.address).await;
        for _ in 0..3 {
            wire.send("POST /take HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello")
                .await;
            let reply = wire.reply().await;
            assert_eq!(reply.status, 401);
            wire.body(&reply).await;
        }
        let fields = format!("content-length: 5\r\n{}", line(&site.key));
        wire.send(format!(
            "POST /take HTTP/1.1\r\nhost: localhost\r\n{fields}\r\nhello"
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, wire.body(&reply).await.as_str()), (200, "5"));
    }
}

#[tokio::test]
async fn head_is_refused_as_get_is_but_without_the_body() {
    for site in sites().await {
        let bearer = |key: &str| format!("Bearer {key}");
        let (known, unknown) = (bearer(&site.key), bearer(&stranger()));
        for (path, authorization) in [
            ("/give", None),
            ("/give", Some("Bearer garbage")),
            ("/give", Some(&unknown)),
            ("/give/closed", Some(&known)),
        ] {
            let fields: Vec<_> = authorization
                .map(|value| ("authorization", value))
                .into_iter()
                .collect();
            let mut wire = Wire::to(site.address).await;
            let get = wire.ask(&format!("GET {path}"), &fields).await;
            let body = wire.body(&get).await;
            let head = wire.ask(&format!("HEAD {path}"), &fields).await;
            assert_eq!(head.status, get.status, "{path} {authorization:?}");
            let same = |reply: &crate::wire::Reply| {
                let mut fields = reply.fields.clone();
                fields.retain(|(name, _)| name != "date");
                fields.sort();
                fields
            };
            assert_eq!(same(&head), same(&get), "{path} {authorization:?}");
            assert_eq!(head.content_length(), Some(body.len()));
            // A body would appear before this.
            assert_eq!(
                wire.ask("GET /give", &[("authorization", &known)])
                    .await
                    .status,
                200
            );
        }
    }
}
