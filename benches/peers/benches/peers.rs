//! All contenders in one run: prints the table, and writes the chart beside the manifest.
//!
//! `cargo bench -p peers`; `PEERS_ROUNDS=500` for more rounds, `PEERS_KEYS=1000000` for that many
//! keys in addition (about 8 GB). `benches/README.md` explains the table.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

use std::{env, fs};

use peers::plan::{Plan, Sizes};
use peers::rounds::{Size, run};
use peers::{chart, table};

fn number(variable: &str) -> Option<usize> {
    env::var(variable).ok()?.parse().ok()
}

fn main() {
    let most = number("PEERS_KEYS");
    let mut many = most.map_or_else(|| vec![10_000], |keys| vec![1000, 10_000, keys]);
    many.sort_unstable();
    many.dedup();
    let sizes = Sizes {
        hot: 100,
        many,
        shared: 100_000,
        size: Size {
            batches: 5,
            calls: 250,
        },
        of_threads: Size {
            batches: 8,
            calls: 250,
        },
    };
    let mut plan = Plan::new(&sizes);
    let rounds = number("PEERS_ROUNDS").unwrap_or(200);
    let times = run(&mut plan.lanes, rounds);
    let figures = table::figures(&plan.rows, &times);
    println!("Medians of {rounds} rounds.");
    print!("{}", table::written(&figures));
    print!("\nWhat is done for each request\n{}", table::checks(&plan));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/peers.svg");
    fs::write(file, chart::drawn(&figures)).expect("the chart is written");
}
