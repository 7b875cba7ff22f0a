//! One hot key from four nodes, on one Redis server: decisions a second of portunus-redis, of a plain
//! fixed-window script, and of limitador's Redis storage.
//!
//! Each node is a process with one connection and 16 requests at once. The contenders take turns in
//! each round, in an order that rotates. `LIMITERS_ROUNDS` and `LIMITERS_MILLIS` set the number and
//! the length of rounds.

mod contender;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use contender::{Contender, Kind};
use portunus_test_support::redis::Redis;

const NODES: usize = 4;
const AT_ONCE: usize = 16;

/// A quota of the hot key, by its windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    /// Limits and lengths in seconds.
    pub(crate) windows: &'static [(u64, u64)],
}

const CASES: [Case; 4] = [
    Case {
        name: "one window, admitted",
        windows: &[(4_000_000_000, 60)],
    },
    Case {
        name: "one window, refused",
        windows: &[(60, 60)],
    },
    Case {
        name: "two windows, admitted",
        windows: &[(4_000_000_000, 60), (4_000_000_000, 3600)],
    },
    Case {
        name: "two windows, refused",
        windows: &[(60, 60), (1_000, 3600)],
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["node", kind, case, address] => {
            let number = |text: &str| text.parse::<usize>().expect("a number");
            node(Kind::ALL[number(kind)], CASES[number(case)], address);
        }
        _ => compare(),
    }
}

fn setting(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| text.parse().expect("a number"))
}

/// Sends requests for a round, and prints how many were decided.
fn node(kind: Kind, case: Case, address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let decided: u64 = runtime.expect("a runtime").block_on(async {
        let contender = Contender::connect(kind, case, address).await;
        let span = Duration::from_millis(setting("LIMITERS_MILLIS", 1_500));
        // Until the others are connected.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let contender = contender.clone();
            tasks.spawn(async move {
                let mut decided = 0;
                while began.elapsed() < span {
                    decided += u64::from(contender.decide().await);
                }
                decided
            });
        }
        tasks.join_all().await.iter().sum()
    });
    println!("{decided}");
}

/// The decisions of all nodes in one round.
fn round(kind: usize, case: usize, address: &str) -> u64 {
    let program = std::env::current_exe().expect("this program");
    let start = |_| {
        let mut node = Command::new(&program);
        node.args(["node", &kind.to_string(), &case.to_string(), address]);
        node.stdout(Stdio::piped()).spawn().expect("a process")
    };
    let nodes: Vec<_> = (0..NODES).map(start).collect();
    let decided = nodes.into_iter().map(|node| {
        let output = node.wait_with_output().expect("a process");
        let text = String::from_utf8(output.stdout).expect("a number");
        text.trim().parse::<u64>().expect("a number")
    });
    decided.sum()
}

fn compare() {
    let rounds = usize::try_from(setting("LIMITERS_ROUNDS", 7)).expect("a number");
    let seconds = setting("LIMITERS_MILLIS", 1_500) as f64 / 1_000.0;
    println!(
        "one hot key from {NODES} nodes with {AT_ONCE} requests at once each, {rounds} rounds"
    );
    println!(
        "{:<24}{:<16}{:>12}{:>26}",
        "", "", "decisions/s", "of the plain script"
    );
    for (number, case) in CASES.iter().enumerate() {
        let mut all = Kind::ALL.map(|_| Vec::new());
        for turn in 0..rounds {
            // A new server each time, so that no contender finds the data of another.
            let server = Redis::start();
            for place in 0..Kind::ALL.len() {
                let kind = (turn + place) % Kind::ALL.len();
                all[kind].push(round(kind, number, &server.address()) as f64 / seconds);
            }
        }
        let plain = all[Kind::PLAIN].clone();
        for (kind, decisions) in Kind::ALL.iter().zip(&all) {
            let ratios = decisions.iter().zip(&plain).map(|(one, plain)| one / plain);
            let [low, middle, high] = quartiles(ratios.collect());
            let [_, rate, _] = quartiles(decisions.clone());
            println!(
                "{:<24}{:<16}{rate:>12.0}{:>26}",
                case.name,
                kind.name(),
                format!("{middle:.2} ({low:.2}–{high:.2})")
            );
        }
    }
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
