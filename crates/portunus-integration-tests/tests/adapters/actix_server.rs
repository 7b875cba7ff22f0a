//! Tests of the actix-web adapter on real sockets: refusals, bodies, upgrades and several workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_cors::Cors;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{DefaultHeaders, Logger};
use actix_web::{App, Error, HttpResponse, HttpServer, body, web};
use futures_util::{StreamExt, future, stream};
use portunus::adapter::actix::{Auth, require};
use portunus::limit::LocalLimiter;
use portunus::network::Transport;
use portunus::quota::{Quota, Quotas};
use portunus::request::TlsVersion;
use portunus::{KeyPrincipal, Principal};
use portunus_test_support::wait::soon;
use portunus_test_support::{Fixture, scope, stranger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server on its own port, stopped when the test ends.
struct Server {
    address: SocketAddr,
    handle: ServerHandle,
}

impl Server {
    fn start<F, T, B>(workers: usize, app: F) -> Self
    where
        F: Fn() -> App<T> + Send + Clone + 'static,
        T: ServiceFactory<
                ServiceRequest,
                Config = (),
                Response = ServiceResponse<B>,
                Error = Error,
                InitError = (),
            > + 'static,
        B: body::MessageBody + 'static,
    {
        // Simulates a host that terminates TLS itself: clients of this port count as encrypted.
        let server = HttpServer::new(app)
            .workers(workers)
            .on_connect(|_, data| {
                data.insert(TlsVersion::V1_3);
            })
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { address, handle }
    }

    async fn connect(&self) -> Connection {
        Connection {
            stream: TcpStream::connect(self.address).await.unwrap(),
            unread: Vec::new(),
        }
    }

    /// Returns the response to a request on its own connection, and whether the connection was
    /// closed afterwards.
    async fn ask(&self, head: &str) -> Answer {
        let mut connection = self.connect().await;
        connection.send(format!("{head}\r\n\r\n").as_bytes()).await;
        connection.answer(head.starts_with("HEAD")).await
    }

    async fn stop(self) {
        soon(self.handle.stop(true)).await;
    }
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Connection {
    async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Reads until this text appears, and returns everything up to its end.
    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self
                .unread
                .windows(end.len())
                .position(|window| window == end)
            {
                let rest = self.unread.split_off(at + end.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            self.more().await;
        }
    }

    async fn more(&mut self) {
        let mut buffer = [0; 4096];
        let read = soon(self.stream.read(&mut buffer)).await.unwrap();
        assert!(
            read > 0,
            "ended after {:?}",
            String::from_utf8_lossy(&self.unread)
        );
        self.unread.extend_from_slice(&buffer[..read]);
    }

    /// Reads the next response head.
    async fn head(&mut self) -> (u16, String) {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        (head[9..12].parse().unwrap(), head)
    }

    async fn answer(&mut self, to_head: bool) -> Answer {
        let (status, head) = self.head().await;
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let length = answer
            .field("content-length")
            .map_or(0, |length| length.parse().unwrap());
        if !to_head {
            while self.unread.len() < length {
                self.more().await;
            }
            answer.body = self.unread.drain(..length).collect();
        }
        answer
    }
}

fn get(path: &str, key: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}")
}

async fn whoami(caller: KeyPrincipal) -> String {
    caller.key_id().to_string()
}

async fn length(body: web::Bytes) -> String {
    body.len().to_string()
}

async fn auth(fixture: &Fixture) -> Auth {
    Auth::new(fixture.bearer().build().unwrap())
}

#[actix_web::test]
async fn all_workers_share_one_limit() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let limiter = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    let quotas = Quotas::new([Quota::per_minute(20).unwrap()]).unwrap();
    let auth = Auth::new(
        fixture
            .bearer()
            .limiter(limiter)
            .quotas(quotas)
            .build()
            .unwrap(),
    );
    let workers = Arc::<AtomicUsize>::default();
    let started = Arc::clone(&workers);
    let server = Server::start(4, move || {
        started.fetch_add(1, Ordering::SeqCst);
        App::new()
            .route("/", web::get().to(whoami))
            .wrap(auth.clone())
    });
    let request = get("/", &key);
    let answers = future::join_all((0..60).map(|_| server.ask(&request))).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert_eq!((passed, refused), (20, 40));
    assert!(
        workers.load(Ordering::SeqCst) >= 4,
        "each worker has an App of its own"
    );
    server.stop().await;
}

#[actix_web::test]
async fn a_large_body_is_refused_before_it_is_read() {
    let fixture = Fixture::new();
    let auth = auth(&fixture).await;
    let server = Server::start(1, move || {
        App::new()
            .route("/", web::post().to(length))
            .wrap(auth.clone())
    });
    for credentials in [
        String::new(),
        format!("\r\nAuthorization: Bearer {}", stranger()),
    ] {
        let answer = server
            .ask(&format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760{credentials}"
            ))
            .await;
        assert_eq!(
            (answer.status, answer.field("cache-control")),
            (401, Some("no-store"))
        );
    }
    server.stop().await;
}

#[actix_web::test]
async fn a_body_arrives_whole_after_the_key_was_looked_up() {
    for late in [false, true] {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        if late {
            fixture.store.answer_late(1);
        }
        let auth = auth(&fixture).await;
        let server = Server::start(1, move || {
            App::new()
                .route("/", web::post().to(length))
                .wrap(auth.clone())
        });
        let mut connection = server.connect().await;
        let post = get("/", &key).replacen("GET", "POST", 1);
        connection
            .send(format!("{post}\r\nContent-Length: 100000\r\n\r\n").as_bytes())
            .await;
        connection.send(&[b'x'; 100_000]).await;
        assert_eq!(connection.answer(false).await.text(), "100000");
        // The body is requested with `100 Continue`, and the response follows on the same
        // connection.
        connection
            .send(format!("{post}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").as_bytes())
            .await;
        assert_eq!(connection.head().await.0, 100);
        connection.send(b"hello").await;
        let answer = connection.answer(false).await;
        assert_eq!((answer.status, answer.text()), (200, "5"));
        server.stop().await;
    }
}

#[actix_web::test]
async fn an_announced_body_is_refused_without_a_key() {
    let fixture = Fixture::new();
    let auth = auth(&fixture).await;
    let server = Server::start(1, move || {
        App::new()
            .route("/", web::post().to(length))
            .wrap(auth.clone())
    });
    let mut connection = server.connect().await;
    connection
        .send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    // The server asks for the body before any middleware runs; the refusal does not wait for it.
    let (status, _) = connection.head().await;
    let status = if status == 100 {
        connection.answer(false).await.status
    } else {
        status
    };
    assert_eq!(status, 401);
    server.stop().await;
}

#[actix_web::test]
async fn an_endless_answer_is_passed_on_piece_by_piece() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["a"]).await;
    let auth = auth(&fixture).await;
    let events = || async {
        let first = stream::iter([Ok::<_, Error>(web::Bytes::from_static(b"data: 1\n\n"))]);
        HttpResponse::Ok()
            .content_type("text/event-stream")
            .streaming(first.chain(stream::pending()))
    };
    let server = Server::start(1, move || {
        App::new().service(
            web::resource("/")
                .get(events)
                .wrap(require(scope("a")))
                .wrap(auth.clone()),
        )
    });
    let mut connection = server.connect().await;
    connection
        .send(format!("{}\r\n\r\n", get("/", &key)).as_bytes())
        .await;
    let (status, head) = connection.head().await;
    assert_eq!((status, head.contains("text/event-stream")), (200, true));
    connection.until(b"data: 1\n\n").await;
    drop(connection);
    server.handle.stop(false).await;
}

#[actix_web::test]
async fn a_connection_is_upgraded_with_a_key_only() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let auth = auth(&fixture).await;
    // Echoes what it receives, like a WebSocket without frames.
    let upgrade = |_: KeyPrincipal, payload: web::Payload| async {
        HttpResponse::SwitchingProtocols()
            .upgrade("websocket")
            .streaming(payload.map(|piece| piece.map_err(Error::from)))
    };
    let server = Server::start(1, move || {
        App::new()
            .route("/ws", web::get().to(upgrade))
            .wrap(auth.clone())
    });
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let mut connection = server.connect().await;
    connection
        .send(format!("{}\r\n{handshake}\r\n\r\n", get("/ws", &key)).as_bytes())
        .await;
    let (status, head) = connection.head().await;
    assert_eq!(
        (
            status,
            head.to_ascii_lowercase().contains("upgrade: websocket")
        ),
        (101, true),
        "{head}"
    );
    connection.send(b"ping").await;
    connection.until(b"ping").await;
    drop(connection);
    let refused = server
        .ask(&format!("GET /ws HTTP/1.1\r\nHost: x\r\n{handshake}"))
        .await;
    assert_eq!(
        (refused.status, refused.field("www-authenticate")),
        (401, Some(r#"Bearer realm="api""#))
    );
    server.handle.stop(false).await;
}

#[actix_web::test]
async fn a_head_request_gets_the_fields_without_the_body() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let auth = auth(&fixture).await;
    let server = Server::start(1, move || {
        App::new().service(
            web::resource("/")
                .get(whoami)
                .head(whoami)
                .wrap(auth.clone()),
        )
    });
    for (head, status) in [
        (get("/", &key).replacen("GET", "HEAD", 1), 200),
        ("HEAD / HTTP/1.1\r\nHost: x".to_owned(), 401),
    ] {
        let mut connection = server.connect().await;
        connection.send(format!("{head}\r\n\r\n").as_bytes()).await;
        let answer = connection.answer(true).await;
        assert_eq!(answer.status, status);
        assert_ne!(answer.field("content-length"), Some("0"));
        // Only the next response follows.
        connection
            .send(format!("{}\r\n\r\n", get("/", &key)).as_bytes())
            .await;
        assert_eq!(connection.answer(false).await.status, 200);
    }
    server.stop().await;
}

#[actix_web::test]
async fn no_bytes_on_the_wire_get_around_the_key() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let auth = auth(&fixture).await;
    let server = Server::start(1, move || {
        App::new().route("/", web::to(whoami)).wrap(auth.clone())
    });
    let with = |line: &[u8]| [b"GET / HTTP/1.1\r\nHost: x\r\n", line].concat();
    let bearer = format!("Authorization: Bearer {key}");
    for (request, expected) in [
        (with(bearer.as_bytes()), &[200][..]),
        (with(bearer.replace("Bearer", "bEaReR ").as_bytes()), &[200]),
        (with(format!("{bearer}\r\n{bearer}").as_bytes()), &[400]),
        (
            with(format!("{bearer}\r\nauthorization: Token x").as_bytes()),
            &[400],
        ),
        (
            with(format!("authorization: Token x\r\n{bearer}").as_bytes()),
            &[400],
        ),
        (with(format!("{bearer}, Bearer x").as_bytes()), &[400]),
        (
            with([bearer.as_bytes(), b"\xff"].concat().as_slice()),
            &[400],
        ),
        (
            with([bearer.as_bytes(), b"\x00"].concat().as_slice()),
            &[400],
        ),
        (with(b"Authorization: \xff\xfe"), &[401]),
        (
            with(format!("Authorization: Bearer {}", "a".repeat(8 << 10)).as_bytes()),
            &[401, 431],
        ),
        (
            with(format!("X-Authorization: Bearer {key}").as_bytes()),
            &[401],
        ),
        (
            format!("GET /?authorization=Bearer%20{key} HTTP/1.1\r\nHost: x").into_bytes(),
            &[401],
        ),
        (
            b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com".to_vec(),
            &[401, 400],
        ),
        (b"BREW / HTTP/1.1\r\nHost: x".to_vec(), &[401]),
        (b"OPTIONS * HTTP/1.1\r\nHost: x".to_vec(), &[401, 400]),
        (
            format!("BREW / HTTP/1.1\r\nHost: x\r\n{bearer}").into_bytes(),
            &[200],
        ),
        (b"GET /%ff%00 HTTP/1.1\r\nHost: x".to_vec(), &[401]),
    ] {
        let mut connection = server.connect().await;
        connection.send(&[&request[..], b"\r\n\r\n"].concat()).await;
        let answer = connection.answer(false).await;
        assert!(
            expected.contains(&answer.status),
            "{}: {answer:?}",
            String::from_utf8_lossy(&request)
        );
    }
    server.stop().await;
}

#[actix_web::test]
async fn a_token_of_a_megabyte_reaches_no_store() {
    let fixture = Fixture::new();
    let auth = auth(&fixture).await;
    let server = Server::start(1, move || {
        App::new()
            .route("/", web::get().to(whoami))
            .wrap(auth.clone())
    });
    let mut connection = server.connect().await;
    let head = get("/", &"a".repeat(1 << 20));
    // The server may answer and close the connection before it has read everything.
    let request = format!("{head}\r\n\r\n");
    let _ = soon(connection.stream.write_all(request.as_bytes())).await;
    let mut answer = Vec::new();
    let _ = soon(connection.stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    assert_eq!(fixture.store.finds(), 0);
    server.stop().await;
}

#[actix_web::test]
async fn middleware_further_out_sees_refusals_and_answers_preflights() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&["a"]).await;
    let auth = auth(&fixture).await;
    let server = Server::start(1, move || {
        let cors = Cors::default()
            .allow_any_origin()
            .allow_any_method()
            .allow_any_header()
            .expose_headers(["www-authenticate"]);
        App::new()
            .service(web::resource("/").get(whoami).wrap(require(scope("b"))))
            .wrap(auth.clone())
            .wrap(cors)
            .wrap(DefaultHeaders::new().add(("x-outer", "seen")))
            .wrap(Logger::default())
    });
    let origin = "\r\nOrigin: https://app.example";
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: x{origin}"), 401),
        (format!("{}{origin}", get("/", "garbage")), 401),
        (format!("{}{origin}", get("/", &key)), 403),
    ] {
        let answer = server.ask(&request).await;
        assert_eq!(answer.status, status);
        assert!(
            answer.field("access-control-allow-origin").is_some(),
            "{}",
            answer.head
        );
        assert_eq!(answer.field("x-outer"), Some("seen"));
        assert!(answer.field("www-authenticate").is_some());
    }
    let preflight = format!(
        "OPTIONS / HTTP/1.1\r\nHost: x{origin}\r\nAccess-Control-Request-Method: GET\r\n\
         Access-Control-Request-Headers: authorization"
    );
    let answer = server.ask(&preflight).await;
    assert!(answer.status < 300, "{}", answer.head);
    assert!(answer.field("access-control-allow-methods").is_some());
    let plain = server.ask("OPTIONS / HTTP/1.1\r\nHost: x").await;
    assert_eq!(
        StatusCode::from_u16(plain.status).unwrap(),
        StatusCode::UNAUTHORIZED
    );
    server.stop().await;
}

#[actix_web::test]
async fn the_peer_address_and_tls_version_come_from_the_server() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let builder = fixture
        .bearer()
        .transport(Some(Transport::tls(TlsVersion::V1_3)));
    let auth = Auth::new(builder.build().unwrap());
    let blind = auth.clone().tls(|_| None);
    let server = Server::start(1, move || {
        let address = |caller: KeyPrincipal| future::ready(format!("{:?}", caller.client_ip()));
        App::new()
            .service(web::resource("/").get(address).wrap(auth.clone()))
            .service(web::resource("/blind").get(address).wrap(blind.clone()))
    });
    assert_eq!(server.ask(&get("/", &key)).await.text(), "Some(127.0.0.1)");
    assert!(
        server
            .ask(&get("/blind", &key))
            .await
            .text()
            .contains("INSECURE_TRANSPORT")
    );
    server.stop().await;
}
