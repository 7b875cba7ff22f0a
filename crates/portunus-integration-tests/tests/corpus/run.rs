//! Runs a row: three servers on one store and one clock get the same requests in the same order.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::dev::ServerHandle;
use portunus::Clock;

use crate::configuration::authenticator;
use crate::fixture::{Fixture, KEYS, key};
use crate::row::{Adapter, Given, Row, expand};
use crate::wire::{Answer, ask, ask_over_http_2};
use crate::{by_actix, by_axum, by_tower};

/// How the store answers; every adapter is tested with both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// Immediately.
    Now,
    /// The store must be awaited.
    Late,
}

/// Three servers with one configuration.
pub(crate) struct Servers {
    pub(crate) fixture: Fixture,
    at: [SocketAddr; 3],
    /// actix-web serves HTTP/2 without TLS on a separate port.
    actix_over_http_2: SocketAddr,
    actix: ServerHandle,
}

impl Servers {
    pub(crate) async fn start(configuration: &str, store: Store) -> Self {
        let fixture = Fixture::new().await;
        if store == Store::Late {
            fixture.store.answer_late(1);
        }
        let own = || authenticator(configuration, &fixture);
        let ([actix_at, actix_over_http_2], actix) = by_actix::start(own(), configuration);
        let at = [
            by_tower::start(own(), configuration).await,
            by_axum::start(own(), configuration).await,
            actix_at,
        ];
        Self {
            fixture,
            at,
            actix_over_http_2,
            actix,
        }
    }

    /// The response of each server.
    pub(crate) async fn ask(&self, from: IpAddr, request: &[u8]) -> [Answer; 3] {
        let [tower, axum, actix] = self.at;
        [
            ask(tower, from, request).await,
            ask(axum, from, request).await,
            ask(actix, from, request).await,
        ]
    }

    /// The response of each server over HTTP/2.
    async fn ask_over_http_2(&self, from: IpAddr, request: &[u8]) -> [Answer; 3] {
        let [tower, axum, _] = self.at;
        [
            ask_over_http_2(tower, from, request).await,
            ask_over_http_2(axum, from, request).await,
            ask_over_http_2(self.actix_over_http_2, from, request).await,
        ]
    }

    pub(crate) async fn stop(self) {
        self.actix.stop(false).await;
    }
}

/// Returns each adapter's response to a row's request.
pub(crate) async fn answers(row: &Row, store: Store) -> [Answer; 3] {
    let servers = Servers::start(&row.fixture, store).await;
    let from = row.given.iter().find_map(|given| {
        if let Given::From(ip) = given {
            Some(*ip)
        } else {
            None
        }
    });
    let from = from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    for given in &row.given {
        match given {
            Given::From(_) => {}
            Given::TheSame(times) => {
                for _ in 0..*times {
                    servers.ask(from, &row.request).await;
                }
            }
            Given::Requests(times, key, path) => {
                let head = format!(
                    "GET {path} HTTP/1.1\r\nHost: corpus\r\nConnection: close\r\n\
                     Authorization: Bearer {key}\r\n\r\n"
                );
                for _ in 0..*times {
                    servers.ask(from, &expand(&head)).await;
                }
            }
            Given::Clock(by) => servers.fixture.clock.advance(*by),
            Given::WallClock(seconds) => {
                let (now, by) = (
                    servers.fixture.clock.now(),
                    std::time::Duration::from_secs(seconds.unsigned_abs()),
                );
                servers
                    .fixture
                    .clock
                    .step_to(if *seconds < 0 { now - by } else { now + by });
            }
            Given::Down(what) => servers.fixture.take_down(what),
            Given::Revoked(name) => servers.fixture.revoke(name).await,
        }
    }
    let answers = match row.is_over_http_2() {
        true => servers.ask_over_http_2(from, &row.request).await,
        false => servers.ask(from, &row.request).await,
    };
    servers.stop().await;
    answers
}

/// Runs a row in both store modes. `Err` describes every adapter's difference, with the row's name.
pub(crate) async fn run(row: &Row) -> Result<(), String> {
    let mut wrong = String::new();
    for store in [Store::Now, Store::Late] {
        let answers = answers(row, store).await;
        for (adapter, answer) in Adapter::ALL.into_iter().zip(&answers) {
            let told = answer.to_string();
            if KEYS.iter().any(|name| told.contains(&key(name))) {
                let _ = writeln!(
                    wrong,
                    "=== {} ({adapter:?}): the response contains a key",
                    row.name
                );
            }
            if let Some(difference) = difference(&Answer::of_lines(row.answer(adapter)), answer) {
                let _ = writeln!(
                    wrong,
                    "=== {} ({adapter:?}, store answers {store:?})\n{difference}",
                    row.name
                );
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Returns the missing and the surplus lines, or `None` if a response is as expected.
pub(crate) fn difference(expected: &Answer, got: &Answer) -> Option<String> {
    if expected == got {
        return None;
    }
    let (expected, got) = (expected.lines(), got.lines());
    let mut told = String::new();
    for line in expected.iter().filter(|line| !got.contains(line)) {
        let _ = writeln!(told, "- {line}");
    }
    for line in got.iter().filter(|line| !expected.contains(line)) {
        let _ = writeln!(told, "+ {line}");
    }
    if told.is_empty() {
        let _ = writeln!(told, "- {}\n+ {}", expected.join("\n- "), got.join("\n+ "));
    }
    Some(told)
}
