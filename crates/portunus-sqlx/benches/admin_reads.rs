//! Lookups of keys that are not cached, 20 per second, while sixteen clients repeat filtered
//! management reads on 2 million events and 100 000 keys.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::admin_reads::{Size, fill, measure};
use common::{Home, PostgresHome, SqliteHome};
use portunus_test_support::postgres::Postgres;

const SIZE: Size = Size {
    events: 2_000_000,
    keys: 100_000,
    lookups: 1_000,
    every: Duration::from_millis(50),
    readers: 16,
};

async fn run<H: Home>(what: &str, home: &H) {
    let started = Instant::now();
    let store = home.open().await;
    fill(home, &store, SIZE).await;
    println!("{what}: filled in {:?}", started.elapsed());
    let figures = measure::<H>(&store, SIZE).await;
    let lookups = &figures.lookups;
    println!(
        "{what}: lookups: slowest {:?}, tenth slowest {:?}, median {:?}; {} reads, slowest {:?}",
        lookups[0],
        lookups[9],
        lookups[lookups.len() / 2],
        figures.reads,
        figures.slowest_read,
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        run("SQLite", &SqliteHome::new()).await;
        run(
            "PostgreSQL",
            &PostgresHome::new(&Arc::new(Postgres::start())),
        )
        .await;
    });
}
