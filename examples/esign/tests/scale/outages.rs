//! Servers that are killed, suspended or cut off: how nodes answer meanwhile, and how soon
//! afterwards they work as before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::changes::assert_changes_arrive;
use crate::common::nodes::{Said, accepted, ask, assert_accepted, may_read, said};
use crate::common::{Server, at_once, until};
use crate::{Bus, Site, seconds};
use portunus_test_support::proxy::{Failing, Proxy, Which};
use portunus_test_support::redis::{Cluster, Redis, Sentinels};

/// The longest time until nodes work after a server returned: two seconds, but a machine that also runs
/// other tests may take longer. `scripts/measure nodes` asks for two.
fn recovers() -> Duration {
    seconds("NODES_RECOVERY_SECONDS", 4)
}
/// How many requests a limited key may make in a minute.
const N: usize = 60;

/// How long a server is suspended or cut off; `scripts/measure nodes` sets ten seconds.
fn suspended() -> Duration {
    seconds("NODES_SUSPENDED_SECONDS", 3)
}

/// A key whose requests of the minute are used up, so that no node may admit it.
struct UsedUp {
    key: String,
    since: Instant,
}

impl UsedUp {
    fn new(nodes: &[Server]) -> Self {
        let quotas = json!({ "requests_per_minute": N, "requests_per_hour": 1000 });
        let body = json!({ "scopes": ["documents.read"], "rate_limit_config": quotas });
        let (key, since) = (nodes[0].issue(body).key, Instant::now());
        let mut admitted = 0;
        // A request that got no decision may have been counted.
        for turn in 0.. {
            match ask(&nodes[turn % nodes.len()], &key) {
                refused if refused == said(429, "RATE_LIMITED") => break,
                said => admitted += usize::from(said == accepted()),
            }
        }
        assert!(admitted <= N, "{admitted} of {N} were admitted");
        Self { key, since }
    }
}

/// An answer of a node.
#[derive(Debug, Clone)]
struct Answered {
    node: usize,
    is_used_up: bool,
    began: Instant,
    said: Said,
    took: Duration,
}

/// Asks all nodes while a server fails and returns; they may refuse for this reason only. `fail`
/// ends when the server is back. Returns how many requests of a used-up key were admitted.
fn fails(nodes: &[Server], what: &str, refusal: &Said, fail: impl FnOnce()) -> usize {
    let issued = nodes[0].issue(may_read());
    assert_accepted(nodes, &issued.key);
    let used_up = UsedUp::new(nodes);
    let is_over = AtomicBool::new(false);
    let poll = |node: usize| {
        let mut answers = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            for (key, is_used_up) in [(&issued.key, false), (&used_up.key, true)] {
                let began = Instant::now();
                let said = ask(&nodes[node], key);
                answers.push(Answered {
                    node,
                    is_used_up,
                    began,
                    said,
                    took: began.elapsed(),
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
        answers
    };
    let (failed, returned, answers) = thread::scope(|scope| {
        let polls = scope.spawn(|| at_once(nodes.len(), poll));
        thread::sleep(Duration::from_millis(300));
        let failed = Instant::now();
        fail();
        let returned = Instant::now();
        // Nothing may fail after that, either.
        until("all nodes work", || {
            nodes
                .iter()
                .all(|node| ask(node, &issued.key) == accepted())
        });
        thread::sleep(Duration::from_millis(2500));
        is_over.store(true, Ordering::SeqCst);
        (failed, returned, polls.join().unwrap().concat())
    });
    let span = used_up.since.elapsed();
    assert!(span < Duration::from_secs(60), "too slow: {span:?}");
    assert_only(&answers, refusal, what);
    let wrongly = |answer: &&Answered| answer.is_used_up && answer.said == accepted();
    let wrongly = answers.iter().filter(wrongly).count();
    let recovered = recovery(&answers, refusal, returned);
    let is_late =
        |answer: &&Answered| answer.said == *refusal && answer.began > returned + recovered;
    println!(
        "{what}: the server was back after {:?}, and all nodes worked {recovered:?} later; of {} requests, \
         {} were refused, {} of them after that; {wrongly} of a used-up key were admitted; the longest \
         answer took {:?}",
        returned - failed,
        answers.len(),
        answers
            .iter()
            .filter(|answer| answer.said == *refusal)
            .count(),
        answers.iter().filter(is_late).count(),
        answers.iter().map(|answer| answer.took).max().unwrap(),
    );
    assert!(recovered <= recovers(), "{what}: {recovered:?}");
    wrongly
}

/// Asserts that requests were answered as usual, or refused for this reason, or in a few cases because
/// Redis missed its deadline on a busy machine.
fn assert_only(answers: &[Answered], refusal: &Said, what: &str) {
    let (mut late, missed) = (0, limiter_unavailable());
    for answer in answers {
        let is_limited = answer.is_used_up && answer.said == said(429, "RATE_LIMITED");
        if is_limited || answer.said == accepted() || answer.said == *refusal {
            continue;
        }
        assert_eq!(answer.said, missed, "{what}: {answer:?}");
        late += 1;
    }
    assert!(
        late <= answers.len() / 10,
        "{what}: {late} of {}",
        answers.len()
    );
}

/// How long a node refuses a key in an outage, at least. On a busy machine, single requests miss their
/// deadline too, and a few of these cost a connection.
const OUTAGE: Duration = Duration::from_millis(300);

/// How long after the return the last outage of a node ended.
fn recovery(answers: &[Answered], refusal: &Said, returned: Instant) -> Duration {
    let mut answers: Vec<&Answered> = answers.iter().collect();
    answers.sort_by_key(|answer| (answer.node, answer.is_used_up, answer.began));
    let is_same = |one: &&Answered, next: &&Answered| {
        let is_of = (one.node, one.is_used_up) == (next.node, next.is_used_up);
        is_of && one.said == *refusal && next.said == *refusal
    };
    let spans = answers
        .chunk_by(is_same)
        .map(|run| (run[0].began, run[run.len() - 1].began));
    let outages = spans.filter(|(first, last)| *last - *first >= OUTAGE);
    let ends = outages.map(|(_, last)| last.saturating_duration_since(returned));
    ends.max().unwrap_or_default()
}

fn limiter_unavailable() -> Said {
    said(503, "LIMITER_UNAVAILABLE")
}

fn store_unavailable() -> Said {
    said(503, "STORE_UNAVAILABLE")
}

#[test]
fn nodes_recover_after_redis_was_suspended_cut_off_or_killed() {
    let redis = Redis::with(&["--unixsocket", "socket"]);
    let network = Proxy::before(redis.path("socket"));
    let address = format!("redis://127.0.0.1:{}", network.port());
    let site = Site::on(redis, &address, Bus::Redis, "closed", &[]);
    let nodes = &site.nodes;
    let wrongly = fails(nodes, "Redis suspended", &limiter_unavailable(), || {
        site.redis.pause();
        thread::sleep(suspended());
        site.redis.resume();
    });
    assert_eq!(wrongly, 0, "what was counted is lost");
    // What was sent into the silent network arrives when it is back.
    let wrongly = fails(nodes, "network cut", &limiter_unavailable(), || {
        network.fail(Failing::Silent, Which::All);
        thread::sleep(suspended());
        network.heal();
    });
    assert_eq!(wrongly, 0, "what was counted is lost");
    let wrongly = fails(nodes, "Redis killed", &limiter_unavailable(), || {
        site.redis.crash();
        thread::sleep(Duration::from_secs(1));
        site.redis.start_again();
    });
    // It persists nothing.
    assert!((1..=N).contains(&wrongly), "{wrongly} of at most {N} more");
    assert_changes_arrive(nodes);
}

#[test]
fn nodes_recover_after_a_sentinel_failover() {
    let redis = Sentinels::start();
    let all = redis.addresses().join(",");
    let address = format!("sentinel:redis://{},{all}", Sentinels::NAME);
    let site = Site::on(redis, &address, Bus::Redis, "closed", &[]);
    let redis = &site.redis;
    let wrongly = fails(
        &site.nodes,
        "Sentinel failover",
        &limiter_unavailable(),
        || {
            let old = redis.primary();
            // Replicas receive writes in their order: they then have what was counted before this.
            assert_eq!(old.cli(&["set", "marker", "1"]), "OK");
            until("it is replicated", || {
                let mut servers = redis.servers.iter();
                servers.all(|server| server.cli(&["get", "marker"]) == "1")
            });
            old.crash();
            until("another primary is named, and can be written", || {
                let primary = redis.primary();
                primary.port() != old.port() && primary.cli(&["set", "x", "1"]) == "OK"
            });
        },
    );
    assert_eq!(wrongly, 0, "what the replicas had is lost");
    assert_changes_arrive(&site.nodes);
}

#[test]
fn nodes_recover_after_the_loss_of_a_cluster_node() {
    let redis = Cluster::start();
    let address = format!("cluster:{}", redis.addresses().join(","));
    let site = Site::on(redis, &address, Bus::Redis, "closed", &[]);
    let redis = &site.redis;
    let wrongly = fails(
        &site.nodes,
        "loss of a cluster node",
        &limiter_unavailable(),
        || {
            // The one that counts for the tenant.
            let counts = |node: &&Redis| node.keys().iter().any(|key| key.contains(":k:"));
            let lost = redis.nodes.iter().find(counts).unwrap();
            lost.crash();
            let fails = |node: &Redis| {
                node.cli(&["cluster", "info"])
                    .contains("cluster_state:fail")
            };
            until("the cluster fails", || {
                let others = redis.nodes.iter().filter(|node| node.port() != lost.port());
                others.into_iter().all(fails)
            });
            lost.start_again();
            redis.until_ok();
        },
    );
    // It persists nothing but its slots.
    assert!((1..=N).contains(&wrongly), "{wrongly} of at most {N} more");
    assert_changes_arrive(&site.nodes);
}

#[test]
fn nodes_recover_after_postgresql_was_killed_or_suspended() {
    for bus in [Bus::Redis, Bus::Postgres] {
        let site = Site::start(bus, "closed");
        let what = format!("{bus:?} bus, PostgreSQL suspended");
        let suspend = || {
            site.postgres.pause();
            thread::sleep(suspended());
            site.postgres.resume();
        };
        let mut wrongly = fails(&site.nodes, &what, &store_unavailable(), suspend);
        let what = format!("{bus:?} bus, PostgreSQL killed");
        let kill = || {
            site.postgres.crash();
            thread::sleep(Duration::from_secs(2));
            site.postgres.start_again();
        };
        wrongly += fails(&site.nodes, &what, &store_unavailable(), kill);
        assert_eq!(wrongly, 0, "{bus:?}");
    }
}
