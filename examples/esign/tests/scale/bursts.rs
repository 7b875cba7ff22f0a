//! Random bursts on four nodes. Each decision is checked by the time at which Redis made it, which
//! the script returns and the nodes log.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use portunus_test_support::random::Random;

use crate::common::{Connection, Issued, Server, at_once, until};
use crate::{Bus, Site, seconds};

const KEYS: usize = 40;
/// The quotas of keys, in turn: of 64, times are exact, and of more, they are in slots of W/256.
const QUOTAS: [usize; 6] = [1, 2, 7, 30, 64, 70];
/// Windows that end often. A key has its quota in the first, and twice as much in the second.
const WINDOWS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
const THREADS: usize = 8;

/// What happened to one key. Times are those of the server's clock, in microseconds since 1970.
#[derive(Debug, Default)]
struct History {
    admitted: Vec<u64>,
    refused: Vec<u64>,
    /// Requests that got no decision, between these times: Redis may have counted them.
    unanswered: Vec<(u64, u64)>,
}

impl History {
    /// Checks that no interval has more than a quota, and that each refusal had a quota that was
    /// used up within the window, W/250 and a millisecond.
    fn check(&mut self, quotas: &[(usize, Duration)]) -> Result<(), String> {
        self.admitted.sort_unstable();
        for &(limit, window) in quotas {
            let window = micros(window);
            for many in self.admitted.windows(limit + 1) {
                let span = many[limit] - many[0];
                if span <= window {
                    return Err(format!("{} were admitted within {span} µs", limit + 1));
                }
            }
        }
        for &at in &self.refused {
            let is_used_up = |&(limit, window): &(usize, Duration)| {
                let from = at - micros(window + window / 250 + Duration::from_millis(1));
                let admitted = self.admitted.partition_point(|time| *time <= at)
                    - self.admitted.partition_point(|time| *time < from);
                let unanswered = self.unanswered.iter();
                let unanswered = unanswered.filter(|(began, ended)| *began <= at && *ended >= from);
                admitted + unanswered.count() >= limit
            };
            if !quotas.iter().any(is_used_up) {
                return Err(format!("refused at {at}, too early: {self:?}"));
            }
        }
        Ok(())
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap()
}

fn now() -> u64 {
    micros(SystemTime::UNIX_EPOCH.elapsed().unwrap())
}

fn quotas_of(key: usize) -> [(usize, Duration); 2] {
    let limit = QUOTAS[key % QUOTAS.len()];
    [(limit, WINDOWS[0]), (2 * limit, WINDOWS[1])]
}

/// Issues the keys, whose windows are then made shorter in the database: the management API offers
/// minutes and hours.
fn issue(site: &Site) -> Vec<Issued> {
    let issue = |key| {
        let [(short, _), (long, _)] = quotas_of(key);
        let quotas = json!({ "requests_per_minute": short, "requests_per_hour": long });
        let body = json!({ "scopes": ["documents.read"], "rate_limit_config": quotas });
        site.nodes[0].issue(body)
    };
    let keys = (0..KEYS).map(issue).collect();
    let window = |span: Duration| format!(r#""window_ns":{}"#, span.as_nanos());
    let [short, long] = WINDOWS.map(window);
    let [minute, hour] = [60, 3600].map(Duration::from_secs).map(window);
    let record = format!("replace(replace(record, '{minute}', '{short}'), '{hour}', '{long}')");
    let changed = format!(
        "WITH changed AS (UPDATE portunus_keys SET record = {record} WHERE record LIKE '%{minute}%' \
         AND record LIKE '%{hour}%' RETURNING 1) SELECT count(*) FROM changed"
    );
    assert_eq!(site.postgres.sql("keys", &changed).trim(), KEYS.to_string());
    keys
}

/// A client with a connection to each node.
struct Client<'s> {
    keys: &'s [Issued],
    nodes: Vec<Connection>,
    random: Random,
}

/// The status of a response, and when its request was sent and answered.
type Answered = (usize, u16, u64, u64);

impl<'s> Client<'s> {
    fn new(nodes: &[Server], keys: &'s [Issued], seed: u64) -> Self {
        let open = |node: &Server| Connection::open(node.address);
        Self {
            keys,
            nodes: nodes.iter().map(open).collect(),
            random: Random(seed),
        }
    }

    /// Sends up to half more than a quota, each request to a random node.
    fn burst(&mut self, key: usize) -> Vec<Answered> {
        let limit = quotas_of(key)[0].0 as u64;
        let count = self.random.between(1, (limit + limit / 2 + 1).min(60));
        let get = format!(
            "GET /api/v1/documents HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            self.keys[key].key
        );
        let mut answers = Vec::new();
        for _ in 0..count {
            let place = self.random.index(self.nodes.len());
            let node = &mut self.nodes[place];
            let began = now();
            node.write(get.as_bytes());
            answers.push((key, node.answer().status, began, now()));
        }
        answers
    }

    /// Sends bursts until the end: half of them with the key that all clients use at that moment, in
    /// the order of the keys.
    fn run(&mut self, since: Instant, span: Duration) -> Vec<Answered> {
        let mut answers = Vec::new();
        while since.elapsed() < span {
            let moment = usize::try_from(since.elapsed().as_millis() / 400).unwrap();
            let common = moment % KEYS;
            let other = self.random.index(KEYS);
            let key = if self.random.one_in(2) { common } else { other };
            answers.extend(self.burst(key));
            thread::sleep(Duration::from_millis(self.random.below(10)));
        }
        answers
    }
}

/// The decisions about keys that the nodes logged: the id of the key, the server's time,
/// whether it was admitted.
fn decisions(nodes: &[Server]) -> Vec<(String, u64, bool)> {
    let mut all = Vec::new();
    for line in nodes.iter().flat_map(logged) {
        let field = |name: &str| {
            let value = line.split_once(&format!(" {name}="));
            value.map(|(_, rest)| {
                rest.split_whitespace()
                    .next()
                    .unwrap()
                    .trim_matches('"')
                    .to_owned()
            })
        };
        let [time, admitted, keys] = ["time", "admitted", "keys"].map(|name| field(name).unwrap());
        let (_, id) = keys.rsplit_once(":k:").unwrap();
        let (time, admitted) = (time.parse().unwrap(), admitted.parse().unwrap());
        all.push((id.to_owned(), time, admitted));
    }
    all
}

fn logged(node: &Server) -> Vec<String> {
    let log = node.log();
    // Each node makes requests at its start, which are not about a key.
    let is_of_key = |line: &&str| line.contains(" decided ") && line.contains(":k:");
    let lines = log.lines().filter(is_of_key);
    lines.map(str::to_owned).collect()
}

#[test]
fn random_bursts_on_four_nodes_exceed_no_quota_and_are_not_refused_too_early() {
    let redis = portunus_test_support::redis::Redis::start();
    let address = redis.address();
    let log = [("RUST_LOG", "error,portunus_redis=trace")];
    let site = Site::on(redis, &address, Bus::Redis, "closed", &log);
    let (keys, span) = (issue(&site), seconds("NODES_BURST_SECONDS", 5));
    let (seed, since) = (AtomicU64::new(now()), Instant::now());
    println!("seed {}", seed.load(Ordering::Relaxed));
    let answers = at_once(THREADS, |_| {
        let seed = seed.fetch_add(1, Ordering::Relaxed);
        Client::new(&site.nodes, &keys, seed).run(since, span)
    });
    let answers = answers.concat();
    let count = |status| answers.iter().filter(|answer| answer.1 == status).count();
    let [admitted, refused, unanswered] = [200, 429, 503].map(count);
    println!(
        "{span:?} of bursts with {KEYS} keys on four nodes: {admitted} were admitted, {refused} refused, \
         {unanswered} got no decision"
    );
    assert_eq!(admitted + refused + unanswered, answers.len());
    let decided = || {
        site.nodes
            .iter()
            .map(|node| logged(node).len())
            .sum::<usize>()
    };
    until("all decisions are logged", || {
        decided() >= admitted + refused
    });
    let mut histories: HashMap<_, _> = keys
        .iter()
        .map(|key| (key.id(), History::default()))
        .collect();
    for (id, time, is_admitted) in decisions(&site.nodes) {
        let history = histories.get_mut(&*id).unwrap();
        let times = if is_admitted {
            &mut history.admitted
        } else {
            &mut history.refused
        };
        times.push(time);
    }
    for (number, key) in keys.iter().enumerate() {
        let history = histories.get_mut(key.id()).unwrap();
        let of_key = |status| {
            let mine = answers.iter().filter(move |answer| answer.0 == number);
            mine.filter(move |answer| answer.1 == status)
        };
        // What the nodes answered is what Redis decided.
        assert_eq!(history.admitted.len(), of_key(200).count(), "key {number}");
        assert_eq!(history.refused.len(), of_key(429).count(), "key {number}");
        history.unanswered = of_key(503).map(|answer| (answer.2, answer.3)).collect();
        let checked = history.check(&quotas_of(number));
        assert_eq!(checked, Ok(()), "key {number}, {:?}", quotas_of(number));
    }
    // Every kind of quota was reached, and then had units again.
    for (kind, limit) in QUOTAS.iter().enumerate() {
        let of_kind = (kind..KEYS).step_by(QUOTAS.len());
        let is_tried = |key: usize| {
            let history = &histories[keys[key].id()];
            !history.refused.is_empty() && history.admitted.len() > *limit
        };
        assert!(
            of_kind.into_iter().any(is_tried),
            "no key with {limit} was used up"
        );
    }
}

#[test]
fn the_check_of_bursts_finds_a_unit_too_many_and_a_refusal_too_early() {
    let second = Duration::from_secs(1);
    let check = |admitted: &[u64], refused: &[u64], unanswered: &[(u64, u64)]| {
        let mut history = History {
            admitted: admitted.to_vec(),
            refused: refused.to_vec(),
            unanswered: unanswered.to_vec(),
        };
        history.check(&[(2, second)])
    };
    let start = 10_000_000;
    assert!(check(&[start, start + 1, start + 1_000_000], &[], &[]).is_err());
    assert!(check(&[start, start + 1, start + 1_000_001], &[start + 2], &[]).is_ok());
    assert!(check(&[start, start + 1], &[start + 1_005_000], &[]).is_ok());
    assert!(check(&[start, start + 1], &[start + 1_005_001], &[]).is_err());
    assert!(check(&[start], &[start + 1], &[]).is_err());
    assert!(check(&[start], &[start + 1], &[(start - 5, start)]).is_ok());
    assert!(check(&[start], &[start + 1], &[(start + 2, start + 5)]).is_err());
}
