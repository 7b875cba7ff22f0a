//! Features that the layers must not break: many streams on one connection, upgrades, and streamed
//! bodies in both directions.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::wire::{Wire, serve, soon};
use axum::body::{Body, Bytes};
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use portunus::adapter::axum::{ProtectedRouter, get, post};
use portunus::adapter::tower::AuthLayer;
use portunus::limit::LocalLimiter;
use portunus::quota::{Quota, Quotas};
use portunus::{KeyPrincipal, Principal};
use portunus_test_support::{Fixture, scope, stranger};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

type Parts = Arc<Mutex<Option<mpsc::Receiver<&'static str>>>>;

struct Site {
    address: SocketAddr,
    /// A key with the scope `a`.
    key: String,
    /// A key without scopes.
    weak: String,
    /// What the streaming handlers send next.
    parts: mpsc::Sender<&'static str>,
}

async fn echo(socket: WebSocketUpgrade, caller: KeyPrincipal) -> axum::response::Response {
    let greeting = caller.key_id().to_string();
    socket.on_upgrade(|mut socket: WebSocket| async move {
        socket.send(greeting.into()).await.unwrap();
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

async fn site(late: bool, quota: Option<u64>) -> Site {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["a"]).await;
    let (weak, _) = fixture.issue(&[]).await;
    if late {
        fixture.store.answer_late(1);
    }
    let mut builder = fixture.bearer();
    if let Some(limit) = quota {
        let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
        builder = builder
            .limiter(limiter)
            .quotas(Quotas::new([Quota::per_minute(limit).unwrap()]).unwrap());
    }
    let (parts, receiver) = mpsc::channel(1);
    let receiver: Parts = Arc::new(Mutex::new(Some(receiver)));
    let next = |receiver: Parts| ReceiverStream::new(receiver.lock().unwrap().take().unwrap());
    let (for_events, for_body) = (Arc::clone(&receiver), receiver);
    let events = move || {
        let stream = next(Arc::clone(&for_events))
            .map(|part| Ok::<_, Infallible>(Event::default().data(part)));
        async { Sse::new(stream) }
    };
    let body = move || {
        let stream = next(Arc::clone(&for_body))
            .map(|part| Ok::<_, Infallible>(Bytes::from_static(part.as_bytes())));
        async { Body::from_stream(stream) }
    };
    let app = ProtectedRouter::new(AuthLayer::new(builder.build().unwrap()))
        .route("/", get(|| async { "ok" }).any_key())
        .route(
            "/upload",
            post(|body: Bytes| async move { body.len().to_string() }).any_key(),
        )
        .route("/socket", get(echo).require(scope("a")))
        .route("/events", get(events).require(scope("a")))
        .route("/body", get(body).require(scope("a")))
        .route(
            "/mirror",
            post(|body: Body| async { Body::from_stream(body.into_data_stream()) })
                .require(scope("a")),
        )
        .into_router();
    Site {
        address: serve(app).await,
        key,
        weak,
        parts,
    }
}

// ---- HTTP/2 ----

async fn h2(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    // Its response comes after the server's settings, so the maximum number of streams is known
    // then.
    soon(pings.ping(h2::Ping::opaque())).await.unwrap();
    client
}

fn request(method: &str, path: &str, key: &str) -> Request<()> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"));
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(()).unwrap()
}

async fn answer(response: h2::client::ResponseFuture) -> (u16, Bytes) {
    let (head, mut body) = soon(response).await.unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(part) = soon(body.data()).await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        text.extend_from_slice(&part);
    }
    (head.status.as_u16(), text.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_of_one_connection_are_limited_exactly() {
    for late in [false, true] {
        let site = site(late, Some(60)).await;
        let client = h2(site.address).await;
        let calls = (0..300).map(|_| {
            let (client, key) = (client.clone(), site.key.clone());
            async move {
                let mut client = soon(client.ready()).await.unwrap();
                answer(
                    client
                        .send_request(request("GET", "/", &key), true)
                        .unwrap()
                        .0,
                )
                .await
            }
        });
        let answers = join_all(calls).await;
        let of = |status: u16| {
            answers
                .iter()
                .filter(|(known, _)| *known == status)
                .collect::<Vec<_>>()
        };
        assert_eq!((of(200).len(), of(429).len()), (60, 240));
        assert!(of(200).iter().all(|(_, body)| body == "ok"));
        assert!(
            of(429)
                .iter()
                .all(|(_, body)| serde_json::from_slice::<serde_json::Value>(body).is_ok())
        );
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_before_its_body_leaves_the_connection_as_it_was() {
    for late in [false, true] {
        let site = site(late, None).await;
        let mut client = h2(site.address).await;
        for _ in 0..20 {
            client = soon(client.ready()).await.unwrap();
            // The body is never sent or ended.
            let (response, _unsent) = client
                .send_request(request("POST", "/upload", &stranger()), false)
                .unwrap();
            assert_eq!(answer(response).await.0, 401);
        }
        let (response, mut body) = client
            .send_request(request("POST", "/upload", &site.key), false)
            .unwrap();
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        assert_eq!(answer(response).await, (200, Bytes::from_static(b"5")));
    }
}

// ---- WebSocket ----

fn socket(address: SocketAddr, key: &str) -> Request<()> {
    let mut request = format!("ws://{address}/socket")
        .into_client_request()
        .unwrap();
    if !key.is_empty() {
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_websocket_opens_with_a_key_and_is_refused_before_the_upgrade_without() {
    for late in [false, true] {
        let site = site(late, None).await;
        let (mut open, response) = soon(connect_async(socket(site.address, &site.key)))
            .await
            .unwrap();
        assert_eq!(response.status(), 101);
        let greeting = soon(open.next()).await.unwrap().unwrap();
        assert!(
            greeting.into_text().unwrap().starts_with("key_"),
            "the handler knows the caller"
        );
        for text in ["one", "two"] {
            open.send(Message::text(text)).await.unwrap();
            assert_eq!(
                soon(open.next()).await.unwrap().unwrap(),
                Message::text(text)
            );
        }
        for (key, status) in [
            ("", 401),
            ("garbage", 401),
            (&stranger(), 401),
            (&site.weak, 403),
        ] {
            let Err(Error::Http(refusal)) = soon(connect_async(socket(site.address, key))).await
            else {
                panic!("an answer of HTTP")
            };
            assert_eq!(refusal.status(), status);
            assert!(
                refusal.headers().contains_key("www-authenticate")
                    && !refusal.headers().contains_key("upgrade")
            );
            assert_eq!(
                refusal.headers()["content-type"],
                "application/problem+json"
            );
        }
    }
}

// ---- streamed bodies ----

#[tokio::test]
async fn each_part_of_a_streamed_answer_arrives_before_the_next_is_made() {
    for (late, path) in [
        (false, "/body"),
        (true, "/body"),
        (false, "/events"),
        (true, "/events"),
    ] {
        let site = site(late, None).await;
        let mut wire = Wire::to(site.address).await;
        let authorization = format!("Bearer {}", site.key);
        let reply = wire
            .ask(&format!("GET {path}"), &[("authorization", &authorization)])
            .await;
        assert_eq!(
            (reply.status, reply.get("transfer-encoding")),
            (200, Some("chunked"))
        );
        for part in ["one", "two", "three"] {
            site.parts.send(part).await.unwrap();
            let expected = if path == "/events" {
                format!("data: {part}\n\n")
            } else {
                part.to_owned()
            };
            assert_eq!(wire.chunk().await, expected);
        }
        drop(site.parts);
        assert_eq!(wire.chunk().await, "");
    }
}

#[tokio::test]
async fn each_part_of_a_streamed_request_reaches_the_handler_before_the_next_is_sent() {
    for late in [false, true] {
        let site = site(late, None).await;
        let mut wire = Wire::to(site.address).await;
        let fields = [
            ("authorization", format!("Bearer {}", site.key)),
            ("transfer-encoding", "chunked".into()),
        ];
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let reply = wire.ask("POST /mirror", &fields).await;
        assert_eq!(reply.status, 200);
        for part in ["one", "two", "three"] {
            wire.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
            assert_eq!(wire.chunk().await, part);
        }
        wire.send("0\r\n\r\n").await;
        assert_eq!(wire.chunk().await, "");
    }
}
