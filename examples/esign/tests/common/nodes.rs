//! Several processes on one store: how each responds to a key, and how long a change on one takes
//! to reach the others.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Call, Issued, Server, at_once, eventually};

/// Within this time, 99% of changes are effective on all other nodes.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// The bound on staleness: after this time, every change is effective.
pub(crate) const BOUND: Duration = Duration::from_secs(2);
/// Additional pause between requests: zero while a change is expected soon, and small near the
/// bound.
fn pause(since: Duration) -> Duration {
    let millis = match since.as_millis() {
        0..300 => 0,
        300..1500 => 45,
        _ => 5,
    };
    Duration::from_millis(millis)
}

/// One operator token for all nodes.
const OPERATORS: [(&str, &str); 1] = [("ESIGN_OPERATOR_OWNER", "op_the_same_on_every_node")];

/// Starts a node on this store. Its responses have codes, and it trusts forwarded addresses.
pub(crate) fn node(store: &str) -> Server {
    node_with(store, &[])
}

/// Starts a node with additional flags.
pub(crate) fn node_with(store: &str, flags: &[&str]) -> Server {
    node_in(store, flags, &[])
}

/// Starts a node with additional flags and environment variables.
pub(crate) fn node_in(store: &str, flags: &[&str], variables: &[(&str, &str)]) -> Server {
    let flags = [&["--trusted-proxy", "127.0.0.1/32"], flags].concat();
    let variables = [&OPERATORS[..], variables].concat();
    Server::start_on(store, "insigner", &flags, &variables)
}

/// How a node responds to a key: the status, and the code of a refusal.
pub(crate) type Said = (u16, String);

/// A short form of the response.
pub(crate) fn said(status: u16, code: &str) -> Said {
    (status, code.to_owned())
}

pub(crate) fn accepted() -> Said {
    said(200, "")
}

pub(crate) fn revoked() -> Said {
    said(401, "KEY_REVOKED")
}

/// Issues a key that may read documents, without a practical rate limit.
pub(crate) fn may_read() -> Value {
    let plenty = json!({ "requests_per_minute": 1_000_000, "requests_per_hour": 1_000_000 });
    json!({ "name": "a key", "scopes": ["documents.read"], "rate_limit_config": plenty })
}

/// Reads documents with a key, each time from another client address, so that no request is refused
/// for too many failures.
pub(crate) fn ask(server: &Server, key: &str) -> Said {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let from = Ipv4Addr::from(0x0a00_0000 + ASKED.fetch_add(1, Ordering::Relaxed));
    let answer = server.send(
        &Call::get("/api/v1/documents")
            .bearer(key)
            .field("X-Forwarded-For", from.to_string()),
    );
    assert!(
        answer.status != 503 || answer.fields("retry-after").len() == 1,
        "{answer:?}"
    );
    let code = if answer.status == 200 {
        String::new()
    } else {
        answer.json()["code"].as_str().unwrap().to_owned()
    };
    (answer.status, code)
}

/// Asserts that the key is accepted on each of these nodes, which then have it in their caches. On a busy
/// machine, a limiter on a server may miss its deadline first, which refuses single requests.
#[track_caller]
pub(crate) fn assert_accepted(nodes: &[Server], key: &str) {
    let missed = said(503, "LIMITER_UNAVAILABLE");
    for (number, node) in nodes.iter().enumerate() {
        let answer = eventually(|| Some(ask(node, key)).filter(|said| *said != missed));
        assert_eq!(answer, Some(accepted()), "node {}", number + 1);
    }
}

/// How long a node took to respond differently.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// The start of the last request with the old response, if there was one.
    pub(crate) last_old: Option<Duration>,
    /// The time of the first new response.
    pub(crate) first_new: Duration,
}

/// Repeats a request until the response changes, and asserts that it changes directly to the new
/// one.
#[track_caller]
pub(crate) fn took_until(
    server: &Server,
    key: &str,
    before: &Said,
    after: &Said,
    since: Instant,
) -> Waited {
    let mut last_old = None;
    let first_new = eventually(|| {
        let began = since.elapsed();
        let now = ask(server, key);
        if now == *after {
            return Some(since.elapsed());
        }
        assert_eq!(now, *before, "after {began:?}");
        last_old = Some(began);
        thread::sleep(pause(began));
        None
    });
    Waited {
        last_old,
        first_new: first_new.expect("it stays as it was"),
    }
}

/// Sends a management call that must succeed to one node, and returns when it was acknowledged.
#[track_caller]
pub(crate) fn done(on: &Server, call: Call) -> Instant {
    let what = format!("{} {}", call.method, call.target);
    let answer = on.admin("owner", call);
    let acknowledged = Instant::now();
    assert!(
        (200..300).contains(&answer.status),
        "{what}: {}",
        answer.text()
    );
    acknowledged
}

/// Revokes a key on one node, and returns when that was acknowledged.
#[track_caller]
pub(crate) fn revoke(on: &Server, issued: &Issued) -> Instant {
    done(on, Call::post(&format!("/keys/{}/revoke", issued.id())))
}

/// Measurements of how long each node took. The first node makes the changes.
pub(crate) struct Latencies {
    what: String,
    /// The measurements of each other node.
    nodes: Vec<Vec<Waited>>,
}

impl Latencies {
    pub(crate) fn of(what: impl Into<String>, others: usize) -> Self {
        Self {
            what: what.into(),
            nodes: vec![Vec::new(); others],
        }
    }

    /// Waits for all nodes at the same time until each responds differently; the first one, which
    /// made the change, must do so on the next request.
    pub(crate) fn measure(
        &mut self,
        nodes: &[Server],
        key: &str,
        before: &Said,
        after: &Said,
        since: Instant,
    ) {
        let waited = at_once(nodes.len(), |number| {
            took_until(&nodes[number], key, before, after, since)
        });
        assert_eq!(
            waited[0].last_old, None,
            "{}: the next request where it was done",
            self.what
        );
        self.add(&waited[1..]);
    }

    /// Adds the measurements of one change.
    pub(crate) fn add(&mut self, waited: &[Waited]) {
        self.nodes
            .iter_mut()
            .zip(waited)
            .for_each(|(all, waited)| all.push(*waited));
    }

    /// Returns all measurements, the shortest first.
    fn sorted(&self, nodes: &[Vec<Waited>]) -> Vec<Duration> {
        let mut all: Vec<_> = nodes
            .iter()
            .flatten()
            .map(|waited| waited.first_new)
            .collect();
        all.sort_unstable();
        all
    }

    /// Returns the longest time after which the old response was still given, measured at the start
    /// of the request.
    pub(crate) fn last_old(&self) -> Duration {
        self.nodes
            .iter()
            .flatten()
            .filter_map(|waited| waited.last_old)
            .max()
            .unwrap_or_default()
    }

    /// Returns the shortest measurement.
    pub(crate) fn shortest(&self) -> Duration {
        self.sorted(&self.nodes)[0]
    }

    /// Prints percentiles for each node, and a histogram.
    pub(crate) fn print(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let all = self.sorted(std::slice::from_ref(node));
            let [p50, p90, p99] = [50, 90, 99].map(|percent| percentile(&all, percent));
            let (count, max) = (all.len(), all[all.len() - 1]);
            let what = &self.what;
            println!(
                "{what}, node {}: {count} times, p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, max {max:?}",
                number + 2
            );
        }
        let (all, mut from) = (self.sorted(&self.nodes), 0);
        for to in [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, u64::MAX] {
            let within = |waited: &&Duration| {
                (from..to).contains(&u64::try_from(waited.as_millis()).unwrap())
            };
            let count = all.iter().filter(within).count();
            if count > 0 {
                let name = if to == u64::MAX {
                    "more".to_owned()
                } else {
                    format!("< {to} ms")
                };
                println!(
                    "  {name:>10} {count:>5} {}",
                    "#".repeat((count * 60).div_ceil(all.len()))
                );
            }
            from = to;
        }
    }

    /// Prints the measurements, and asserts the bounds of a working bus. Of few changes, one may be late:
    /// a machine may stand still for a moment.
    #[track_caller]
    pub(crate) fn assert_soon(&self) {
        self.print();
        let all = self.sorted(&self.nodes);
        let late = all.iter().filter(|waited| **waited > SOON).count();
        let (what, max) = (&self.what, all[all.len() - 1]);
        assert!(
            late <= (all.len() / 100).max(1),
            "{what}: {late} were late: {all:.1?}"
        );
        assert!(max <= BOUND, "{what}: max is {max:.1?}");
    }

    /// Prints the measurements, and asserts the bound that holds without a working bus: no request
    /// that begins after it gets the old response, and the new response has been given by then, or within
    /// another second on a machine that stands still for a moment.
    #[track_caller]
    pub(crate) fn assert_within_the_bound(&self) {
        self.print();
        let (what, last, all) = (&self.what, self.last_old(), self.sorted(&self.nodes));
        println!("  the last that was answered as before began after {last:?}");
        assert!(
            last <= BOUND,
            "{what}: answered as before to a request that began after {last:?}"
        );
        let ends = BOUND + Duration::from_secs(1);
        let late: Vec<_> = all.iter().filter(|waited| **waited > ends).collect();
        assert!(
            late.is_empty(),
            "{what}: {} of {} first refusals came late: {late:?}",
            late.len(),
            all.len()
        );
    }
}

/// Returns the smallest of these sorted values that is not exceeded by this percentage of them.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}
