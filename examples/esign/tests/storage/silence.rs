//! A database that stops responding without a reset, as behind a firewall that dropped its
//! connections.

use std::time::{Duration, Instant};

use crate::common::nodes::{accepted, ask, may_read, node, said};
use crate::common::{Call, at_once};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::proxy::{Failing, Proxy, Which};
use serde_json::json;

/// The maximum time of a request with a key, and of a management call.
const REQUEST: Duration = Duration::from_secs(5);
const MANAGEMENT: Duration = Duration::from_secs(12);
/// Within this time, a database that responds again is used again.
const BACK: Duration = Duration::from_secs(5);

/// How a stalled network ends, and the name of the case.
type Heal = (&'static str, fn(&Proxy));

#[test]
fn while_the_database_is_silent_answers_come_in_time_and_soon_after_it_speaks_all_is_well() {
    let postgres = Postgres::start();
    postgres.database("keys");
    let proxy = Proxy::before(postgres.socket());
    let server = node(&proxy.address("keys"));
    let used = server.issue(may_read());
    let unavailable = said(503, "STORE_UNAVAILABLE");
    let heals: [Heal; 2] = [
        ("as it was", Proxy::heal),
        ("for new connections only", |proxy| {
            proxy.fail_present(Failing::Silent, Which::All);
        }),
    ];
    for (what, heal) in heals {
        let fresh: Vec<_> = (0..14).map(|_| server.issue(may_read())).collect();
        // Every connection was used a moment ago.
        at_once(10, |_| ask(&server, &used.key));
        proxy.fail(Failing::Silent, Which::All);
        let silent = Instant::now();
        let answers = at_once(18, |number| {
            let asked = Instant::now();
            if let Some(issued) = fresh.get(number).filter(|_| number < 12) {
                assert_eq!(ask(&server, &issued.key), unavailable, "{what}");
                return (REQUEST, asked.elapsed());
            }
            let path = format!("/keys/{}", fresh[12].id());
            let call = match number {
                12 => Call::get("/keys"),
                13 => Call::get(&path),
                14 => Call::post("/keys").json(&may_read()),
                15 => Call::post(&format!("{path}/revoke")),
                16 => Call::new("PATCH", &path).json(&json!({ "name": "n" })),
                _ => Call::new("DELETE", &path),
            };
            let answer = server.admin("owner", call);
            assert_eq!(answer.status, 503, "{what}: {}", answer.text());
            (MANAGEMENT, asked.elapsed())
        });
        let longest = |of: Duration| {
            answers
                .iter()
                .filter(|(limit, _)| *limit == of)
                .map(|(_, took)| *took)
                .max()
        };
        println!(
            "{what}: requests took {:?}, management calls {:?}",
            longest(REQUEST),
            longest(MANAGEMENT)
        );
        assert!(
            answers.iter().all(|(limit, took)| took <= limit),
            "{what}: {answers:?}"
        );
        // By now, cached answers are no longer valid.
        assert!(silent.elapsed() > Duration::from_secs(2));
        assert_eq!(ask(&server, &used.key), unavailable, "{what}");
        heal(&proxy);
        let back = Instant::now();
        crate::common::until("a key is accepted", || {
            ask(&server, &fresh[13].key) == accepted()
        });
        println!("{what}: a key was accepted after {:?}", back.elapsed());
        crate::common::until("a key is issued", || {
            let issue = Call::post("/keys").json(&may_read());
            server.admin("owner", issue).status == 201
        });
        println!("{what}: a key was issued after {:?}", back.elapsed());
        assert!(back.elapsed() < BACK, "{what}: {:?}", back.elapsed());
    }
}
