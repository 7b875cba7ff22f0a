//! The management API on actix-web: the same answers as on axum, and bodies that are streamed.

#![cfg(feature = "actix-web")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::routing::{any, get};
use http_body_util::BodyExt;
use portunus::key::{Alphabet, KeyFormat};
use portunus::manage::Operator;
use portunus::store::MemoryStore;
use portunus::{AuthError, ErrorCode, Portunus};
use portunus_admin::{ActixMount, Admin, OperatorProof};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the host's function adds.
#[derive(Clone)]
struct FromConnection(&'static str);

/// Accepts requests that have the host's extension and a client address.
#[derive(Debug)]
struct Proof;

#[async_trait]
impl OperatorProof for Proof {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let extensions = &request.extensions;
        let peer = extensions.get::<ConnectInfo<SocketAddr>>();
        let is_here = peer.is_some_and(|ConnectInfo(peer)| peer.ip().is_loopback());
        match extensions.get::<FromConnection>() {
            Some(FromConnection("certificate")) if is_here => Ok(Operator::host()),
            _ => Err(AuthError::new(ErrorCode::MissingKey)),
        }
    }
}

fn admin() -> Admin {
    let format = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    let keys = Portunus::builder(format)
        .store(MemoryStore::new())
        .build()
        .unwrap();
    Admin::new(&keys, Proof)
}

/// Serves with two workers until the test process ends.
fn serve(mount: ActixMount) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let app = move || {
            App::new()
                .service(mount.clone())
                .default_service(web::to(|| async {
                    HttpResponse::NotFound().body("the site")
                }))
        };
        let server = HttpServer::new(app)
            .workers(2)
            .disable_signals()
            .listen(listener)
            .unwrap();
        actix_web::rt::System::new().block_on(server.run())
    });
    address
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request head with this body, and returns the whole response.
fn exchange(to: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = connect(to);
    let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8(response).unwrap()
}

fn get_of(to: SocketAddr, path: &str) -> (u16, String) {
    let response = exchange(to, &format!("GET {path} HTTP/1.1"), "");
    let status = response[9..12].parse().unwrap();
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

#[test]
fn the_api_is_mounted_under_any_path() {
    for path in ["/", "/keys", "/a/b", "/a/b/"] {
        let mount = admin().into_actix(path);
        let mount = mount.extensions(|request, extensions| {
            assert!(request.peer_addr().is_some());
            extensions.insert(FromConnection("certificate"));
        });
        let address = serve(mount);
        let path = path.trim_end_matches('/');
        let (status, body) = get_of(address, &format!("{path}/keys?limit=1"));
        assert_eq!(
            (status, body.as_str()),
            (200, r#"{"items":[],"next_cursor":null}"#),
            "{path}"
        );
        let (_, document) = get_of(address, &format!("{path}/openapi.json"));
        let document: Value = serde_json::from_str(&document).unwrap();
        let server = document["servers"][0]["url"].as_str().unwrap();
        assert_eq!(server.trim_end_matches('/'), path);
        for below in ["", "/", "/unknown", "/keys/x/unknown"] {
            let asked = format!("{path}{below}");
            if asked.is_empty() {
                continue;
            }
            let (status, body) = get_of(address, &asked);
            assert!(
                status == 404 && body.contains("\"code\":\"NOT_FOUND\""),
                "{asked}: {body}"
            );
        }
        if path.is_empty() {
            continue;
        }
        for beside in ["/", "/keysx", "/other", "/%6beys/keys", "/%61/b/keys"] {
            assert_eq!(
                get_of(address, beside),
                (404, "the site".to_owned()),
                "{beside}"
            );
        }
    }
}

#[cfg(feature = "dashboard")]
#[test]
fn the_dashboard_is_mounted_under_any_path() {
    for path in ["/", "/keys", "/a/b", "/a/b/"] {
        let mount = admin().dashboard().into_actix(path);
        let address = serve(mount.extensions(|_, extensions| {
            extensions.insert(FromConnection("certificate"));
        }));
        let path = path.trim_end_matches('/');
        for start in [path.to_owned(), format!("{path}/")] {
            if start.is_empty() {
                continue;
            }
            let (status, page) = get_of(address, &start);
            assert!(
                status == 200 && page.contains("href=\"?page=issue\""),
                "{start}"
            );
            let style = page.split("?file=").skip(1);
            let style = style.filter_map(|rest| rest.split('"').next());
            for file in style {
                assert_eq!(get_of(address, &format!("{start}?file={file}")).0, 200);
            }
            let head = format!("GET {start}?page=issue HTTP/1.1\r\nCookie: session=1");
            let page = exchange(address, &head, "");
            let (_, token) = page.split_once("name=\"token\" value=\"").unwrap();
            let form = format!(
                "token={}&once=1&name=key&owner.tenant_id=acme",
                &token[..64]
            );
            let head = format!(
                "POST {start}?page=issue HTTP/1.1\r\nCookie: session=1\r\nContent-Length: {}\r\n\
                 Content-Type: application/x-www-form-urlencoded",
                form.len()
            );
            let page = exchange(address, &head, &form);
            assert!(
                page.contains("<code id=\"secret\">") || page.contains("done=before"),
                "{page}"
            );
        }
        if path.is_empty() {
            continue;
        }
        for beside in ["/", "/keysx", "/%6beys"] {
            assert_eq!(get_of(address, beside), (404, "the site".to_owned()));
        }
    }
}

#[cfg(feature = "dashboard")]
#[test]
fn the_page_of_a_key_shows_its_limits_as_gauges() {
    let admin = admin();
    let address = serve(
        admin
            .dashboard()
            .into_actix("/keys")
            .extensions(|_, extensions| {
                extensions.insert(FromConnection("certificate"));
            }),
    );
    let head = "GET /keys?page=issue HTTP/1.1\r\nCookie: session=1";
    let page = exchange(address, head, "");
    let (_, token) = page.split_once("name=\"token\" value=\"").unwrap();
    let form = format!(
        "token={}&once=1&name=key&owner.tenant_id=acme",
        &token[..64]
    );
    let head = format!(
        "POST /keys?page=issue HTTP/1.1\r\nCookie: session=1\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded",
        form.len()
    );
    let issued = exchange(address, &head, &form);
    let (_, id) = issued.split_once("page=key&amp;id=").unwrap();
    let id = id.split(['"', '&']).next().unwrap();
    let (status, page) = get_of(address, &format!("/keys?page=key&id={id}"));
    assert_eq!(status, 200, "{page}");
    for (gauge, limit) in [("gauge-0", 60), ("gauge-1", 1000)] {
        let label = format!("<p id=\"{gauge}\"><strong>0</strong> of {limit} requests used");
        assert!(page.contains(&label), "{page}");
        let meter = format!("value=\"0\" aria-labelledby=\"{gauge}\"></meter>");
        assert!(page.contains(&meter), "{page}");
    }
}

#[test]
fn an_operator_who_is_not_proven_is_refused() {
    let address = serve(admin().into_actix("/admin"));
    let response = exchange(address, "GET /admin/keys HTTP/1.1", "");
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    assert!(response.contains("www-authenticate: "), "{response}");
    assert!(response.contains("cache-control: no-store"), "{response}");
    let head = exchange(address, "HEAD /admin/keys HTTP/1.1", "");
    assert!(
        head.starts_with("HTTP/1.1 401 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

/// Reads until the text ends with this.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0].into());
    }
    text
}

#[test]
fn bodies_are_streamed_in_both_directions_at_once() {
    // A separate task reads the request, as in some routers.
    let echo = any(|request: axum::extract::Request| async move {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().unwrap();
                if sender.send(Ok::<_, std::io::Error>(data)).await.is_err() {
                    break;
                }
            }
        });
        let chunks = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
        Body::from_stream(chunks)
    });
    let address = serve(ActixMount::new(Router::new().route("/echo", echo), "/echo"));
    let mut stream = connect(address);
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"5\r\nhello\r\n").unwrap();
    let answer = read_until(&mut stream, "hello\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for number in 0..100 {
        let chunk = format!("part {number:03}");
        stream
            .write_all(format!("8\r\n{chunk}\r\n").as_bytes())
            .unwrap();
        assert_eq!(
            read_until(&mut stream, &format!("{chunk}\r\n")),
            format!("8\r\n{chunk}\r\n")
        );
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_until(&mut stream, "0\r\n\r\n"), "0\r\n\r\n");
}

#[test]
fn a_body_that_is_not_read_is_not_kept_in_memory() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let slow = any(move |request: axum::extract::Request| async move {
        let mut body = request.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        counted.fetch_add(first.len(), Ordering::SeqCst);
        std::future::pending::<()>().await;
    });
    let address = serve(ActixMount::new(Router::new().route("/slow", slow), "/"));
    let mut stream = connect(address);
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let head = "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let (chunk, mut sent) = (vec![b'x'; 1 << 16], 0);
    while let Ok(some) = stream.write(&chunk) {
        sent += some;
        assert!(sent < 100 << 20, "{sent} bytes were taken");
    }
    assert!(taken.load(Ordering::SeqCst) > 0);
    stream.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn what_has_no_body_says_nothing_of_its_length() {
    let unchanged = get(|| async { axum::http::StatusCode::NOT_MODIFIED });
    let none = get(|| async { axum::http::StatusCode::NO_CONTENT });
    let router = Router::new()
        .route("/unchanged", unchanged)
        .route("/none", none);
    let address = serve(ActixMount::new(router, ""));
    for path in ["unchanged", "none"] {
        let response = exchange(address, &format!("GET /{path} HTTP/1.1"), "");
        assert!(
            !response.contains("content-length") && response.ends_with("\r\n\r\n"),
            "{response}"
        );
    }
}

#[test]
fn malformed_chunks_are_an_error() {
    let read = any(|body: axum::body::Bytes| async move { body.len().to_string() });
    let address = serve(ActixMount::new(Router::new().route("/read", read), "/read"));
    let chunked = "POST /read HTTP/1.1\r\nTransfer-Encoding: chunked";
    let good = exchange(address, chunked, "3\r\nabc\r\n0\r\n\r\n");
    assert!(
        good.starts_with("HTTP/1.1 200 ") && good.ends_with("\r\n\r\n3"),
        "{good}"
    );
    let bad = exchange(address, chunked, "3\r\nabc\r\nzz\r\n");
    assert!(bad.is_empty() || bad.starts_with("HTTP/1.1 400 "), "{bad}");
}
