//! Servers that are killed or suspended: how nodes answer meanwhile, and how soon afterwards they
//! work as before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::at_once;
use crate::common::nodes::{Said, accepted, ask, assert_accepted, may_read, said};
use crate::{Bus, Site};

/// The longest time until nodes work after a server returned.
const RECOVERED: Duration = Duration::from_secs(2);

/// How long a server is suspended; `scripts/measure nodes` sets ten seconds.
fn suspended() -> Duration {
    let set = std::env::var("NODES_SUSPENDED_SECONDS").ok();
    Duration::from_secs(set.map_or(3, |seconds| seconds.parse().unwrap()))
}

/// Asks all nodes while a server fails and returns; they may refuse for this reason only. `fail`
/// ends when the server is back.
fn fails(site: &Site, what: &str, refusal: &Said, fail: impl FnOnce()) {
    let issued = site.nodes[0].issue(may_read());
    assert_accepted(&site.nodes, &issued.key);
    let is_over = AtomicBool::new(false);
    let poll = |number: usize| {
        let mut answers = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            let began = Instant::now();
            answers.push((
                began,
                ask(&site.nodes[number], &issued.key),
                began.elapsed(),
            ));
            thread::sleep(Duration::from_millis(10));
        }
        answers
    };
    let (returned, answers) = thread::scope(|scope| {
        let polls = scope.spawn(|| at_once(site.nodes.len(), poll));
        thread::sleep(Duration::from_millis(300));
        fail();
        let returned = Instant::now();
        thread::sleep(RECOVERED * 2);
        is_over.store(true, Ordering::SeqCst);
        (returned, polls.join().unwrap().concat())
    });
    let refused: Vec<_> = answers
        .iter()
        .filter(|(_, said, _)| *said != accepted())
        .collect();
    let last = refused
        .iter()
        .map(|(began, ..)| began.saturating_duration_since(returned))
        .max();
    let longest = answers.iter().map(|(.., took)| *took).max();
    println!(
        "{what}: of {} requests, {} were refused; the last of them began {last:?} after the return; \
         the longest answer took {longest:?}",
        answers.len(),
        refused.len()
    );
    assert!(
        refused.iter().all(|(_, said, _)| said == refusal),
        "{what}: {refused:?}"
    );
    assert!(
        last.is_none_or(|last| last <= RECOVERED),
        "{what}: {last:?}"
    );
}

fn limiter_unavailable() -> Said {
    said(503, "LIMITER_UNAVAILABLE")
}

fn store_unavailable() -> Said {
    said(503, "STORE_UNAVAILABLE")
}

#[test]
fn nodes_recover_after_redis_was_killed_or_suspended() {
    let site = Site::start(Bus::Redis, "closed");
    let n = 60;
    let quotas = json!({ "requests_per_minute": n, "requests_per_hour": 1000 });
    let limited = json!({ "scopes": ["documents.read"], "rate_limit_config": quotas });
    let issued = site.nodes[0].issue(limited);
    let admitted = || {
        let answers = at_once(2 * n, |number| ask(&site.nodes[number % 4], &issued.key));
        let is_admitted = |said: &&Said| **said == accepted();
        answers.iter().filter(is_admitted).count()
    };
    let before = admitted();
    fails(&site, "Redis suspended", &limiter_unavailable(), || {
        site.redis.pause();
        thread::sleep(suspended());
        site.redis.resume();
    });
    assert!(before + admitted() <= n, "what was counted is lost");
    fails(&site, "Redis killed", &limiter_unavailable(), || {
        site.redis.crash();
        thread::sleep(Duration::from_secs(1));
        site.redis.start_again();
    });
    // It persists nothing.
    let after = admitted();
    println!("{before} were admitted before Redis lost its data, and {after} afterwards");
    assert!(before <= n && after <= n, "more than {n}");
    assert!(after > 0, "the count is kept although the data is lost");
}

#[test]
fn nodes_recover_after_postgresql_was_killed_or_suspended() {
    for bus in [Bus::Redis, Bus::Postgres] {
        let site = Site::start(bus, "closed");
        let what = format!("{bus:?} bus, PostgreSQL suspended");
        fails(&site, &what, &store_unavailable(), || {
            site.postgres.pause();
            thread::sleep(suspended());
            site.postgres.resume();
        });
        let what = format!("{bus:?} bus, PostgreSQL killed");
        fails(&site, &what, &store_unavailable(), || {
            site.postgres.crash();
            thread::sleep(Duration::from_secs(2));
            site.postgres.start_again();
        });
    }
}
