//! Credits over HTTP: a handler that fails, however it does, releases its reservation, on axum and on
//! actix-web; a request that its layer refuses costs nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use axum::body::Body;
use axum::extract::Path;
use axum::http::StatusCode;
use http::Request;
use portunus::adapter::actix::require;
use portunus::adapter::axum::get;
use portunus::credit::{CreditAccount, CreditAccounts, Credits, MemoryCreditStore, NewGrant};
use portunus::key::Owner;
use portunus::manage::NewKey;
use portunus::policy::Requirement;
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus::{Portunus, RequestHead};
use portunus_test_support::wait::soon;
use portunus_test_support::{Setup, format, scope, tenant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, Service as _, service_fn};

fn account() -> CreditAccount {
    CreditAccount::Tenant(tenant("acme"))
}

struct Service {
    keys: Portunus,
    clock: ManualClock,
    secret: String,
}

impl Service {
    /// A service whose tenant has 10 units. Requests cost nothing: handlers reserve.
    async fn new() -> Self {
        Self::costing(|_| 0).await
    }

    /// The same, with requests that cost this many units.
    async fn costing(cost: fn(&dyn RequestHead) -> u64) -> Self {
        let clock = ManualClock::new();
        let credits = Credits::per_tenant(MemoryCreditStore::new()).cost(cost);
        let setup = Setup::on(MemoryStore::new()).bearer([format()]);
        let builder = setup.clock(clock.clone()).builder().credits(credits);
        let keys = builder.build().unwrap();
        let new = NewKey::new("first", Owner::tenant(tenant("acme")));
        let secret = keys.manager().issue(new).await.unwrap().key.reveal();
        let granted = keys
            .manager()
            .grant_credits(&account(), NewGrant::new(10))
            .await;
        granted.unwrap();
        Self {
            keys,
            clock,
            secret,
        }
    }

    fn accounts(&self) -> CreditAccounts {
        self.keys.credits().unwrap().clone()
    }

    async fn available(&self) -> u64 {
        let balance = self.accounts().balance(&account()).await.unwrap();
        balance.available
    }

    /// Sends a request on its own connection. Returns the status; `None` if the server closed the
    /// connection without an answer.
    async fn ask(&self, at: SocketAddr, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\n\r\n",
            self.secret
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that was reset has no answer either.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        let line = String::from_utf8_lossy(&answer).into_owned();
        let status = line.strip_prefix("HTTP/1.1 ")?.get(..3)?;
        Some(status.parse().unwrap())
    }

    async fn by_axum(&self) -> SocketAddr {
        let accounts = self.accounts();
        let handler = async move |Path(how): Path<String>| {
            let worked = work(&accounts, &how).await;
            worked.map_err(|()| StatusCode::INTERNAL_SERVER_ERROR)
        };
        let router = self
            .keys
            .router::<()>()
            .route("/{how}", get(handler).any_key());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router.into_router()).into_future());
        at
    }

    fn by_actix(&self) -> SocketAddr {
        let (keys, accounts) = (self.keys.clone(), Arc::new(self.accounts()));
        let server = HttpServer::new(move || {
            let accounts = Arc::clone(&accounts);
            let handler = move |how: web::Path<String>| {
                let accounts = Arc::clone(&accounts);
                async move {
                    match work(&accounts, &how).await {
                        Ok(()) => HttpResponse::Ok().finish(),
                        Err(()) => HttpResponse::InternalServerError().finish(),
                    }
                }
            };
            let any = require(Requirement::none().any_workspace());
            let route = web::resource("/{how}").wrap(any).to(handler);
            App::new().service(web::scope("").wrap(keys.middleware()).service(route))
        });
        let server = server.workers(1).disable_signals();
        let server = server.bind(("127.0.0.1", 0)).unwrap();
        let at = server.addrs()[0];
        actix_web::rt::spawn(server.run());
        at
    }

    /// A reservation is released by the periodic job after its handler has failed.
    async fn releases_what_failed_handlers_reserved(&self, at: SocketAddr) {
        for (path, status) in [("/fails", Some(500)), ("/panics", None)] {
            let before = self.available().await;
            assert_eq!(self.ask(at, path).await, status, "{path}");
            assert_eq!(self.available().await, before - 5, "{path}");
            self.clock.advance(Duration::from_secs(1));
            let done = self.keys.maintain().await;
            assert!(done.failures.is_empty(), "{path}: {done:?}");
            assert_eq!(self.available().await, before, "{path}");
        }
        assert_eq!(self.ask(at, "/settles").await, Some(200));
        assert_eq!(self.available().await, 8);
    }
}

/// Reserves 5 units and uses 2, or fails before it has settled them.
async fn work(accounts: &CreditAccounts, how: &str) -> Result<(), ()> {
    let (account, length) = (account(), Duration::from_secs(600));
    let reserved = accounts.reserve(&account, 5, length).await.unwrap();
    match how {
        "settles" => reserved.settle(2).await.map(drop).map_err(drop),
        "fails" => Err(()),
        _ => panic!("as the test asked"),
    }
}

#[actix_web::test]
async fn a_failed_handler_on_axum_releases_its_reservation() {
    let service = Service::new().await;
    let at = service.by_axum().await;
    service.releases_what_failed_handlers_reserved(at).await;
}

#[actix_web::test]
async fn a_failed_handler_on_actix_releases_its_reservation() {
    let service = Service::new().await;
    let at = service.by_actix();
    service.releases_what_failed_handlers_reserved(at).await;
}

#[tokio::test]
async fn what_a_layer_refuses_costs_nothing_whether_or_not_the_response_is_awaited() {
    for awaited in [true, false] {
        let service = Service::costing(|_| 1).await;
        let inner = service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        });
        let mut protected = service.keys.layer().require(scope("b")).layer(inner);
        for _ in 0..5 {
            let request =
                Request::get("/").header("authorization", format!("Bearer {}", service.secret));
            let refused = protected.call(request.body(Body::empty()).unwrap());
            if awaited {
                assert_eq!(refused.await.unwrap().status(), 403);
            }
        }
        // The node gives back the block from which it pays.
        service.keys.run(std::future::ready(())).await;
        assert_eq!(service.available().await, 10, "awaited: {awaited}");
    }
}
