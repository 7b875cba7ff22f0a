//! Several processes on one store: what each of them says of a key, and how long it takes until one
//! says what another did.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Call, Issued, Server, at_once, eventually};

/// Within this, all other nodes know what one has done, 99 times of 100.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// The bound on staleness: after this, always.
pub(crate) const BOUND: Duration = Duration::from_secs(2);
/// How much longer than usual to wait before asking again: not where a change is known soon, and
/// little towards the bound.
fn pause(since: Duration) -> Duration {
    let millis = match since.as_millis() {
        0..300 => 0,
        300..1500 => 45,
        _ => 5,
    };
    Duration::from_millis(millis)
}

/// One operator for all nodes.
const OPERATORS: [(&str, &str); 1] = [("ESIGN_OPERATOR_OWNER", "op_the_same_on_every_node")];

/// A node on this store. Its answers have codes, and it believes what it is told about addresses.
pub(crate) fn node(store: &str) -> Server {
    node_with(store, &[])
}

/// The same with more flags.
pub(crate) fn node_with(store: &str, flags: &[&str]) -> Server {
    let flags = [&["--trusted-proxy", "127.0.0.1/32"], flags].concat();
    Server::start_on(store, "insigner", &flags, &OPERATORS)
}

/// What a node says of a key: the status, and the code where it refuses.
pub(crate) type Said = (u16, String);

/// The same in short.
pub(crate) fn said(status: u16, code: &str) -> Said {
    (status, code.to_owned())
}

pub(crate) fn accepted() -> Said {
    said(200, "")
}

pub(crate) fn revoked() -> Said {
    said(401, "KEY_REVOKED")
}

/// A key that may read documents, as often as anybody likes.
pub(crate) fn may_read() -> Value {
    let plenty = json!({ "requests_per_minute": 1_000_000, "requests_per_hour": 1_000_000 });
    json!({ "name": "a key", "scopes": ["documents.read"], "rate_limit_config": plenty })
}

/// Reads documents with a key, each time from another address: nobody is told to wait for failing
/// too often.
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

/// Asserts that the key is accepted on each of these nodes, which remember it from then on.
#[track_caller]
pub(crate) fn assert_accepted(nodes: &[Server], key: &str) {
    for (number, node) in nodes.iter().enumerate() {
        assert_eq!(ask(node, key), accepted(), "node {}", number + 1);
    }
}

/// How long it took until a node said something new.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// When the last request began whose answer was the old one, if there was one.
    pub(crate) last_old: Option<Duration>,
    /// When the first new answer had come.
    pub(crate) first_new: Duration,
}

/// Asks until the answer is no longer the one from before; asserts that it is the new one then, and
/// nothing else between.
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

/// A management call that succeeds on one node; says when it was acknowledged.
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

/// Revokes a key on one node; says when that was acknowledged.
#[track_caller]
pub(crate) fn revoke(on: &Server, issued: &Issued) -> Instant {
    done(on, Call::post(&format!("/keys/{}/revoke", issued.id())))
}

/// How long each node took, again and again. The first node is the one that acts.
pub(crate) struct Latencies {
    what: String,
    /// Of each other node.
    nodes: Vec<Vec<Waited>>,
}

impl Latencies {
    pub(crate) fn of(what: impl Into<String>, others: usize) -> Self {
        Self {
            what: what.into(),
            nodes: vec![Vec::new(); others],
        }
    }

    /// Waits until each node says something new, all at the same time: the first one, where it was
    /// done, for the next request.
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

    /// Takes what each node took.
    pub(crate) fn add(&mut self, waited: &[Waited]) {
        self.nodes
            .iter_mut()
            .zip(waited)
            .for_each(|(all, waited)| all.push(*waited));
    }

    /// All of them, the shortest first.
    fn sorted(&self, nodes: &[Vec<Waited>]) -> Vec<Duration> {
        let mut all: Vec<_> = nodes
            .iter()
            .flatten()
            .map(|waited| waited.first_new)
            .collect();
        all.sort_unstable();
        all
    }

    /// The longest after which the old answer was still given, counted from where the request
    /// began.
    pub(crate) fn last_old(&self) -> Duration {
        self.nodes
            .iter()
            .flatten()
            .filter_map(|waited| waited.last_old)
            .max()
            .unwrap_or_default()
    }

    /// The shortest.
    pub(crate) fn shortest(&self) -> Duration {
        self.sorted(&self.nodes)[0]
    }

    /// Prints percentiles for each node, and how many fall into each bucket.
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

    /// Prints them, and asserts the bounds of a bus that works.
    #[track_caller]
    pub(crate) fn assert_soon(&self) {
        self.print();
        let all = self.sorted(&self.nodes);
        let (what, p99, max) = (&self.what, percentile(&all, 99), all[all.len() - 1]);
        assert!(p99 <= SOON, "{what}: p99 is {p99:.1?}");
        assert!(max <= BOUND, "{what}: max is {max:.1?}");
    }

    /// Prints them, and asserts the bound that holds whatever becomes of the bus: no request that
    /// begins after it is answered as before, and the new answer has come by then.
    #[track_caller]
    pub(crate) fn assert_within_the_bound(&self) {
        self.print();
        let (what, last, all) = (&self.what, self.last_old(), self.sorted(&self.nodes));
        println!("  the last that was answered as before began after {last:?}");
        assert!(
            last <= BOUND,
            "{what}: answered as before to a request that began after {last:?}"
        );
        let late: Vec<_> = all.iter().filter(|waited| **waited > BOUND).collect();
        assert!(
            late.is_empty(),
            "{what}: {} of {} first refusals came late: {late:?}",
            late.len(),
            all.len()
        );
    }
}

/// The least of these, in order, that so many of a hundred do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}
